import { type Clock, Timer } from "./clock.ts";
import type { Slot } from "../worker/slot.ts";
import type { Ticket } from "./ticket.ts";

/** What a watchdog watches over. */
export interface Watched {
  /** The tickets that workers hold. */
  tickets(): Iterable<Ticket>;
  /**
   * Called for a ticket whose item, counted from 1, has run for too long. `others` has all such tickets and their items, including this
   * one. If the ticket does not end, {@linkcode Watchdog.lookSoon} is to be called.
   */
  expire(ticket: Ticket, item: number, others: ReadonlyMap<Ticket, number>): void;
}

/** If a result is about to arrive that may be the one that is overdue, the watchdog looks again after this many ms. */
const SOON = 1;

/**
 * A look that comes this many ms late means that the caller was busy. It has not heard yet what workers sent meanwhile, such as the end of
 * one, so it looks again. Less, and it looks twice for nothing; more, and a job whose worker has ended is taken for one that still runs.
 */
const LATE = 10;

/**
 * The time of day was set, or went on while the machine slept, if it differs from the clock by more than `READING` ms plus `APART` of the
 * time passed: reading both takes a moment, and they may drift apart a little. Less, and the time limit of what runs starts anew for
 * nothing; more, and a job is stopped too early by as much.
 */
const READING = 50, APART = 0.01;

/**
 * While jobs with a limit run, the watchdog looks at least every `PULSE` ms. If a look is more than `STILL` ms late, the whole program may
 * have been stopped (Ctrl-Z, `docker pause`, a frozen virtual machine). Less, and time limits start anew because the caller was busy for a
 * moment; more, and a job may be stopped too early by as much.
 */
const PULSE = 1000, STILL = 1000;

/**
 * Notices jobs that have run for too long. Time counts from the actual start, which the worker notes in shared memory. So nothing has to be
 * done when a job starts or ends, and there is one timer, for the next moment at which a limit can be reached; with short jobs it fires
 * once per limit, not once per job. The worker notes the time of day, which all threads share. If that was set, or the machine has slept,
 * or the program was stopped, nobody knows how long a job has run, and its time limit starts anew.
 */
export class Watchdog {
  #clock: Clock;
  #watched: Watched;
  /** How many tickets have a limit. */
  #limited = 0;
  /** When it looks next. */
  #next = Infinity;
  #timer: Timer;
  /** Whether the last look came late. */
  #wasLate = false;
  /** Whether it came so late that the program may have been stopped. */
  #stoodStill = false;
  /** When the clocks were last compared, by the clock. */
  #compared = 0;
  /** The same by the time of day. */
  #comparedTimeOfDay = 0;
  /** Tickets whose limit started anew: when their current item began, by the time of day, and when the limit restarted, by the clock. */
  #anew = new Map<Ticket, { began: number; since: number }>();

  constructor(clock: Clock, watched: Watched) {
    this.#clock = clock;
    this.#timer = new Timer(clock);
    this.#watched = watched;
  }

  /** A ticket was sent to a worker. */
  watch(ticket: Ticket): void {
    if (ticket.timeout === Infinity) return;
    if (!ticket.watched && this.#limited++ === 0) this.#compareClocks();
    ticket.watched = true;
    this.#lookAfter(ticket.timeout);
  }

  /** Looks again soon, as an overdue ticket has not ended yet. */
  lookSoon(): void {
    this.#lookAfter(SOON);
  }

  /** A watched ticket has settled. */
  forget(ticket: Ticket): void {
    ticket.watched = false;
    this.#anew.delete(ticket);
    if (--this.#limited === 0) this.#rest();
  }

  #rest(): void {
    this.#timer.stop();
    this.#next = Infinity;
  }

  #lookAfter(delay: number): void {
    const pause = Math.min(delay, PULSE);
    const next = this.#clock.now() + pause;
    if (next >= this.#next) return;
    this.#next = next;
    this.#timer.set(pause, () => this.#look());
  }

  #look(): void {
    const late = this.#clock.now() - this.#next;
    this.#stoodStill ||= late > STILL;
    // Only once in a row: a caller that is busy again and again has heard from its workers in between.
    this.#wasLate = !this.#wasLate && late > LATE;
    this.#next = Infinity;
    if (this.#wasLate) return this.lookSoon();
    const clocks = this.#compareClocks();
    clocks.isSet ||= this.#stoodStill;
    this.#stoodStill = false;
    const expired = new Map<Ticket, number>();
    const slots = new Map<Ticket, Slot>();
    for (const ticket of this.#watched.tickets()) {
      const { timeout } = ticket;
      if (timeout === Infinity) continue;
      const slot = ticket.slot!;
      const running = slot.runningFor(ticket, clocks.timeOfDay);
      const left = timeout - (running === undefined ? 0 : this.#timeOf(ticket, running.time, clocks));
      if (running !== undefined && left <= 0 && ticket.isAt(running.item)) {
        expired.set(ticket, running.item);
        slots.set(ticket, slot);
      } else this.#lookAfter(Math.max(SOON, Math.ceil(left)));
    }
    // A ticket may have been lost together with another on its worker, and have a new worker by now.
    for (const [ticket, item] of expired) if (ticket.slot === slots.get(ticket)) this.#watched.expire(ticket, item, expired);
    if (this.#limited === 0) this.#rest();
  }

  /** Reads both clocks, and tells whether the time of day was set since the last comparison. */
  #compareClocks(): { now: number; timeOfDay: number; isSet: boolean } {
    const now = this.#clock.now(), timeOfDay = this.#clock.timeOfDay();
    const passed = now - this.#compared, passedByTimeOfDay = (timeOfDay - this.#comparedTimeOfDay) | 0;
    this.#compared = now;
    this.#comparedTimeOfDay = timeOfDay;
    return { now, timeOfDay, isSet: Math.abs(passedByTimeOfDay - passed) > READING + APART * passed };
  }

  /** How long a ticket has run, if by the time of day that is `time`. */
  #timeOf(ticket: Ticket, time: number, { now, timeOfDay, isSet }: { now: number; timeOfDay: number; isSet: boolean }): number {
    const began = (timeOfDay - time) | 0;
    const anew = this.#anew.get(ticket);
    if (anew?.began === began) return now - anew.since;
    if (!isSet) return time;
    this.#anew.set(ticket, { began, since: now });
    return 0;
  }
}
