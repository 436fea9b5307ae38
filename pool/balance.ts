import type { Slot } from "../worker/slot.ts";
import { type Clock, Rounds } from "./clock.ts";
import { WORTH_STARTING } from "./start_pause.ts";
import type { Ticket } from "./ticket.ts";

/**
 * A worker that one job holds up for this long, in ms, loses the jobs that it was sent ahead of time to an idle one. Shorter, and jobs go
 * back and forth that would have been done by now; longer, and they wait.
 */
const BALANCE_EVERY = 1;

/**
 * The same if no worker is idle: as long as others have enough to do, new jobs would overtake those forever. More often costs timers; less
 * often, and a few of many short jobs take as long as a job that they happened to be sent behind.
 */
const KEEP_ORDER_EVERY = 20;

/** What a {@linkcode Balance} needs of its crew. */
export interface BalanceParts {
  /** Its workers. */
  slots: ReadonlySet<Slot>;
  /** Whether another could be started. */
  mayStart(): boolean;
  /** These jobs were taken back, and are sent to others, or to one that is started for them. There may be none. */
  runElsewhere(tickets: Ticket[]): void;
  /** A worker was started for such jobs, if that was possible. */
  startedForThese(): void;
}

/** Has jobs run elsewhere that were sent to a worker ahead of time, and that a long one holds up. */
export class Balance {
  #parts: BalanceParts;
  /** Rounds in which jobs are taken back that could be run at once: by an idle worker, or by another one. */
  #balancing: Rounds;
  /** The same while neither is there. */
  #keepingOrder: Rounds;

  constructor(clock: Clock, parts: BalanceParts) {
    this.#parts = parts;
    this.#balancing = new Rounds(clock, BALANCE_EVERY, () => this.#balance());
    this.#keepingOrder = new Rounds(clock, KEEP_ORDER_EVERY, () => this.#keepOrder());
  }

  /** A worker is sent a job behind others, which may take longer than expected. */
  watch(): void {
    this.#balancing.begin();
  }

  /**
   * Called when nothing is queued, or a worker was sent several jobs: makes sure that no worker stays idle, or missing, for long while
   * another holds more than it can run.
   */
  look(): void {
    if (this.#isUneven()) this.#balancing.begin();
    else this.keepOrder();
  }

  /** Called when jobs stay queued: makes sure that what was sent ahead to one worker does not wait for much longer than what others are sent. */
  keepOrder(): void {
    if (this.#parts.slots.size > 1 && this.isNeeded) this.#keepingOrder.begin();
  }

  end(): void {
    this.#balancing.end();
    this.#keepingOrder.end();
  }

  /** Whether a worker holds more than it can run at a time. */
  get isNeeded(): boolean {
    return this.#parts.slots.values().some((slot) => slot.hasSurplus);
  }

  #isUneven(): boolean {
    return (this.#hasFree || this.#parts.mayStart()) && this.isNeeded;
  }

  get #hasFree(): boolean {
    return this.#parts.slots.values().some((slot) => slot.isFree);
  }

  /** Returns whether there is to be another round. */
  #balance(): boolean {
    if (!this.#goesOn()) return false;
    const { slots } = this.#parts;
    const patience = this.#hasFree ? 0 : WORTH_STARTING;
    const late = [...slots].filter((slot) => slot.isLate(patience));
    const tickets = relieve(late);
    // Or one idle worker whose last jobs were tiny would be sent all of them, and hold them up in its turn.
    if (tickets.length > 0) slots.forEach((slot) => slot.sendNothingAhead());
    this.#parts.runElsewhere(tickets);
    if (patience > 0 && late.length > 0) this.#parts.startedForThese();
    return this.#goesOn();
  }

  /**
   * Whether there is still a reason to balance. If not, there may be one to keep order, and nothing else might find it: whenever it is looked
   * for, a worker may be idle that is sent the next job in the same turn.
   */
  #goesOn(): boolean {
    if (this.#isUneven()) return true;
    this.keepOrder();
    return false;
  }

  /** Returns whether there is to be another round. */
  #keepOrder(): boolean {
    const { slots } = this.#parts;
    if (slots.size === 1) return false;
    const tickets = relieve([...slots].filter((slot) => slot.hasKeptWaiting(KEEP_ORDER_EVERY)));
    if (tickets.length > 0) this.#parts.runElsewhere(tickets);
    return this.isNeeded;
  }
}

/** Takes back what was sent ahead to these workers; they are sent no more like that until they answer. */
function relieve(slots: Slot[]): Ticket[] {
  for (const slot of slots) slot.sendNothingAhead();
  return slots.flatMap((slot) => slot.withdrawAhead());
}
