import type { Slot } from "../worker/slot.ts";
import { type Clock, Timer } from "./clock.ts";
import { JobTicket, type Ticket } from "./ticket.ts";

/**
 * Starting a worker blocks the calling thread for some 10 ms, while answers wait, and workers wait for jobs. So the first one has a head
 * start: no other is started before it has been ready for `HEAD_START` ms, or was not ready within `READY_WITHIN` ms. A short program for
 * which one worker is enough starts and stops just that one, and ends before a second would be ready. Shorter, and workers are started that
 * find nothing to do; longer, and they are late for jobs that take long.
 */
const HEAD_START = 5, READY_WITHIN = 20;

/**
 * Jobs that were sent ahead, and have waited this many ms behind others that take unexpectedly long, are worth another worker: that is how
 * long it takes to start one. Shorter, and they would have been done before it is ready; longer, and they wait for nothing.
 */
export const WORTH_STARTING = 20;

/**
 * Short jobs that the present workers will have done in less than this many ms are not worth another worker, which takes some 30 ms to be
 * there. So the crew first waits to see, for {@linkcode HEAD_START} at a time and {@linkcode WORTH_STARTING} in all. Less, and workers are
 * started that find nothing to do; more, and jobs wait that another worker could run.
 */
const BRIEF = 50;

/**
 * For less than `NEXT_TO_NOTHING` ms of work no other worker is started, however often there is some, in two cases: if the jobs are tiny,
 * and if they are chunks of a map and the present workers have done less than the share `IDLE` of what they could. Then whoever makes the
 * calls or the input, or reads the results, has more to do than the workers. Larger, and results wait for a worker that is not there.
 */
const NEXT_TO_NOTHING = 0.5, IDLE = 0.5;

/** What pauses need of their crew. */
export interface StartPauseParts {
  /** Its workers. */
  slots: ReadonlySet<Slot>;
  /** Whether another could be started. */
  mayStart(): boolean;
  /** A pause is over. */
  over(): void;
}

/** The pauses in which a crew starts no more workers, except to warm up: what there is to do may not be worth one. */
export class StartPause {
  #clock: Clock;
  #parts: StartPauseParts;
  #timer: Timer;
  /** For how many more ms the crew waits for the present workers before it starts another. */
  #patience = WORTH_STARTING;
  /** When it last began to wait. */
  #waitingSince = 0;
  /** How many jobs the present workers had done by then. */
  #doneBefore = 0;

  constructor(clock: Clock, parts: StartPauseParts) {
    this.#clock = clock;
    this.#parts = parts;
    this.#timer = new Timer(clock);
  }

  get isOn(): boolean {
    return this.#timer.isSet;
  }

  end(): void {
    this.#timer.stop();
  }

  /** A worker was started: the first has a head start, and others are started one per turn. */
  started(): void {
    this.#patience = WORTH_STARTING;
    this.#begin(this.#parts.slots.size === 1 ? READY_WITHIN : 0);
  }

  /** A worker is ready. */
  ready(): void {
    if (this.#parts.slots.size === 1 && this.isOn) this.#begin(HEAD_START);
  }

  /** Jobs that had been sent ahead were taken back, for which a worker is started if one may be: it may be enough for all of them. */
  tookBack(): void {
    this.#begin(READY_WITHIN);
  }

  /** Begins a pause if the present workers will soon have done what is queued, as {@linkcode BRIEF} explains. `first` is the next job. */
  beginIfSoonDone(queued: number, first: Ticket | undefined): void {
    let expected = 0, possible = 0, done = 0;
    let areTiny = true;
    for (const slot of this.#parts.slots) {
      expected += slot.jobsInMs * slot.speedUp;
      possible += slot.jobsInMs;
      done += slot.done;
      areTiny &&= slot.isTiny;
    }
    const time = queued / expected;
    if (time > BRIEF) return;
    const now = this.#clock.now();
    const areIdle = done - this.#doneBefore < possible * (now - this.#waitingSince) * IDLE;
    this.#waitingSince = now;
    this.#doneBefore = done;
    const isNothing = time <= NEXT_TO_NOTHING && (areTiny || (areIdle && !(first instanceof JobTicket)));
    if (!isNothing && this.#patience <= 0) return;
    if (!isNothing) this.#patience -= HEAD_START;
    this.#begin(HEAD_START);
  }

  #begin(delay: number): void {
    if (this.#parts.mayStart()) this.#timer.set(delay, () => this.#parts.over());
    else this.end();
  }
}
