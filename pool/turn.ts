import { Cadence, type Clock } from "./clock.ts";
import type { Ticket } from "./ticket.ts";

/**
 * Handing over a tiny call takes longer than running it, so the tiny calls of a turn are handed over together: the first at once, the
 * others in batches of `TOGETHER`, or of as many as take `TIME_TOGETHER` ms if that is fewer, and the rest at the end of the turn (after
 * the microtasks, where the caller submits each in a turn of its own). With smaller batches each call costs more; with larger ones workers
 * wait. Any other job, such as a call of a task whose calls have not been tiny, makes the pool send at once all that was gathered: its
 * caller may be about to compute, or to wait for it. While no worker has room, everything is gathered: looking for room in vain takes as
 * long as a tiny call.
 */
export const TOGETHER = 64, TIME_TOGETHER = 0.32;

/**
 * While a caller goes on submitting in one turn, and no more is admitted or sent, the pool takes what jobs have returned every `LOOK_EVERY`
 * ms, a quarter of what a worker is sent ahead, but after `SUBMISSIONS_A_LOOK` submissions at the latest. More often, and looking in vain
 * takes as long as submitting; less often, and workers wait for the caller.
 */
const LOOK_EVERY = 0.5, SUBMISSIONS_A_LOOK = 64;

/**
 * So many results are taken for each submission, which is more than there can be for long. Fewer, and what has piled up before stays there;
 * more, and a caller who submits one job and hears of many computes on each of these before the event loop has its turn.
 */
const RESULTS_A_SUBMISSION = 4;

/**
 * A caller makes tiny calls faster than a worker runs them, above all while V8 compiles what both need on the core that the worker would
 * have. Calls that wait survive collections of garbage, which then take longer than the calls themselves. So once more than `MOST_WAITING`
 * wait, the caller leaves the worker its core for `PAUSE` ms after each look, unless that was in vain `PAUSES_IN_VAIN` times in a row.
 * Fewer, or longer pauses, and a worker that keeps up is waited for; more, or shorter ones, and garbage grows old.
 */
const MOST_WAITING = 4000, PAUSE = 0.05, PAUSES_IN_VAIN = 20;

const never = new Int32Array(new SharedArrayBuffer(4));

/** Has something called back at the end of a turn. */
export type Defer = (callback: () => void) => unknown;

/** Decides which calls of a turn are sent together. */
export class Gathering {
  /** Sends what was gathered. */
  #send: () => void;
  #isOn = false;
  /** How many are sent together. */
  #together = 0;
  /** How many were gathered since something was last sent. */
  #gathered = 0;

  constructor(send: () => void) {
    this.#send = send;
  }

  /** Whether a ticket that was admitted waits for others; if not, all are to be sent. `isFull`: no worker has room. */
  keeps(ticket: Ticket, isFull: boolean): boolean {
    return this.#isOn && (isFull || isSmallCall(ticket)) && ++this.#gathered < this.#together;
  }

  /** All that was gathered is being sent. */
  clear(): void {
    this.#gathered = 0;
  }

  /** From here on this many are sent together, and the last ones when `defer` calls back at the latest. */
  begin(together: number, defer: Defer): void {
    this.#together = together;
    if (this.#isOn || together < 2) return;
    this.#isOn = true;
    defer(this.#end);
  }

  #end = (): void => {
    this.#isOn = false;
    this.#gathered = 0;
    this.#send();
  };
}

/** Whether it is a mere call of a task whose calls go through shared memory rather than messages. */
function isSmallCall(ticket: Ticket): boolean {
  return ticket.callArgs !== undefined && ticket.task!.isSmall === true;
}

/** What a {@linkcode LongTurn} needs of its pool. */
export interface LongTurnParts {
  /** Settles the jobs that have returned by now, `most` at most. Returns how many. */
  takeReturned(most: number): number;
  callBack(ticket: Ticket): void;
  /** How many jobs wait for a worker whose jobs are tiny; 0 if there is none. */
  waiting(): number;
}

/**
 * While a caller submits thousands in one turn, or computes between two submissions, workers should not wait for its end, nor results pile
 * up: so jobs that have returned settle meanwhile, except that their callbacks come when the turn is over.
 */
export class LongTurn {
  #clock: Clock;
  #parts: LongTurnParts;
  #looks: Cadence;
  /** How many results may be taken, for what was submitted in this turn. */
  #allowed = 0;
  /** Whether results are being taken. */
  #isTaking = false;
  /** Tickets that have settled in that way. */
  #late: Ticket[] = [];
  /**
   * Whether other work of the event loop, which has waited for long, has its turn first. Until then nothing more is taken, and no job settles
   * that cannot be sent. Whoever hears of one may submit the next in the same turn, which has more taken, or cannot be sent either, and so
   * on: there would never be timers, sockets or signals.
   */
  #givesWay = false;
  /** How many pauses in a row have brought nothing. */
  #inVain = 0;

  constructor(clock: Clock, parts: LongTurnParts) {
    this.#clock = clock;
    this.#parts = parts;
    this.#looks = new Cadence(clock, LOOK_EVERY, SUBMISSIONS_A_LOOK);
  }

  /** Called for each submission of which nothing is admitted or sent at once. */
  goesOn(): void {
    if (this.#givesWay) return;
    this.#allowed += RESULTS_A_SUBMISSION;
    if (!this.#looks.isDue() || this.#isTaking) return;
    const before = this.#parts.waiting();
    this.#take();
    if (before > MOST_WAITING) this.#pause(before);
  }

  /** Leaves a worker its core for a moment, unless that brings nothing. `before`: how many jobs waited before results were taken. */
  #pause(before: number): void {
    this.#inVain = this.#parts.waiting() < before ? 0 : this.#inVain + 1;
    if (this.#inVain <= PAUSES_IN_VAIN) Atomics.wait(never, 0, 0, PAUSE);
  }

  /** Whether a job that cannot be sent may settle now. */
  maySettle(): boolean {
    if (this.#givesWay) return false;
    queueMicrotask(this.#callBackLate);
    return true;
  }

  /** Resolves with this value: at once, or, if other work of the event loop has waited for long, after that. */
  resolved<T>(value: T): Promise<T> {
    return this.#givesWay ? this.#resolvedSoon(value) : Promise.resolve(value);
  }

  /** A method of its own, as its closures would cost each call of the other a scope. */
  #resolvedSoon<T>(value: T): Promise<T> {
    return new Promise((resolve) => this.#clock.soon(() => resolve(value)));
  }

  #take(): void {
    this.#isTaking = true;
    // Runs before anyone who awaits a result hears of it.
    queueMicrotask(this.#callBackLate);
    try {
      this.#allowed -= this.#parts.takeReturned(this.#allowed);
    } finally {
      this.#isTaking = false;
    }
  }

  /** Calls back at once, or, in the middle of the turn, when that is over. */
  callBack(ticket: Ticket): void {
    if (this.#isTaking) this.#late.push(ticket);
    else this.#parts.callBack(ticket);
  }

  #callBackLate = (): void => {
    for (const ticket of this.#late.splice(0)) this.#parts.callBack(ticket);
    if (this.#givesWay) return;
    this.#givesWay = true;
    this.#allowed = 0;
    this.#clock.soon(() => this.#givesWay = false);
  };
}
