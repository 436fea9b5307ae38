import type { Clock } from "./clock.ts";
import type { Slot } from "../worker/slot.ts";
import type { Ticket } from "./ticket.ts";

/** What a watchdog watches over. */
export interface Watched {
  /** What workers hold. */
  tickets(): Iterable<Ticket>;
  /**
   * Called for a ticket of which this item, counted from 1, has run for too long. `others` are all tickets of which one has, this one as
   * well. If it does not end, {@linkcode Watchdog.lookSoon} is to be called.
   */
  expire(ticket: Ticket, item: number, others: ReadonlyMap<Ticket, number>): void;
}

/** When a result is about to arrive that may be that of what has run for too long, the watchdog looks again after so many ms. */
const SOON = 1;

/**
 * A look that comes so many ms too late found the caller busy: that has not heard what workers have told meanwhile, such as of the end of
 * one, and looks again. Less, and it looks twice for nothing; more, and a job whose worker has ended is taken for one that runs still.
 */
const LATE = 10;

/**
 * The time of day was set, or went on while the machine slept, if it has moved by more than so many ms, and this part of the time, more or
 * less than the clock: reading both takes a moment, and they may run a little apart. Less, and what runs is given its time anew for
 * nothing; more, and a job is stopped too early by as much.
 */
const READING = 50, APART = 0.01;

/**
 * Notices jobs that have run for too long. Time counts from the real start, which the worker notes in shared memory; so nothing has to be
 * done at a start or an end, and there is one timer, for the next moment at which a limit can be reached. With short jobs it runs out once
 * a limit, not once a job. What the worker notes is the time of day, which all threads have. Where that was set, or the machine has slept,
 * nobody knows for how long a job has run: it has its time anew then.
 */
export class Watchdog {
  #clock: Clock;
  #watched: Watched;
  /** How many tickets have a limit. */
  #limited = 0;
  #next = Infinity;
  #stopTimer: () => void = () => {};
  /** Whether the last look came too late. */
  #wasLate = false;
  /** When the clocks were compared last, by the clock. */
  #compared = 0;
  /** The same by the time of day. */
  #comparedToday = 0;
  /** The tickets that have their time anew: when what they run began, by the time of day, and since when they have that time, by the clock. */
  #anew = new Map<Ticket, { began: number; since: number }>();

  constructor(clock: Clock, watched: Watched) {
    this.#clock = clock;
    this.#watched = watched;
  }

  /** A ticket was sent to a worker. */
  watch(ticket: Ticket): void {
    if (ticket.timeout === Infinity) return;
    if (!ticket.watched && this.#limited++ === 0) this.#compareClocks();
    ticket.watched = true;
    this.#lookAfter(ticket.timeout);
  }

  /** Looks again soon, as a ticket that has run for too long has not ended yet. */
  lookSoon(): void {
    this.#lookAfter(SOON);
  }

  /** A ticket that is watched has settled. */
  forget(ticket: Ticket): void {
    ticket.watched = false;
    this.#anew.delete(ticket);
    if (--this.#limited === 0) this.#rest();
  }

  #rest(): void {
    this.#stopTimer();
    this.#next = Infinity;
  }

  #lookAfter(delay: number): void {
    const next = this.#clock.now() + delay;
    if (next >= this.#next) return;
    this.#stopTimer();
    this.#next = next;
    const stop = this.#clock.after(delay, () => this.#look());
    // Under `deno test`, the first timer of a program runs microtasks while it is set, which may lead here again.
    if (this.#next === next) this.#stopTimer = stop;
    else stop();
  }

  #look(): void {
    // Once: a caller that is busy again and again has heard something in between.
    this.#wasLate = !this.#wasLate && this.#clock.now() - this.#next > LATE;
    this.#next = Infinity;
    if (this.#wasLate) return this.lookSoon();
    const clocks = this.#compareClocks();
    const expired = new Map<Ticket, number>();
    const slots = new Map<Ticket, Slot>();
    for (const ticket of this.#watched.tickets()) {
      const { timeout } = ticket;
      if (timeout === Infinity) continue;
      const slot = ticket.slot!;
      const running = slot.runningFor(ticket, clocks.today);
      const left = timeout - (running === undefined ? 0 : this.#timeOf(ticket, running.time, clocks));
      if (running !== undefined && left <= 0 && ticket.isAt(running.item)) {
        expired.set(ticket, running.item);
        slots.set(ticket, slot);
      } else this.#lookAfter(Math.max(SOON, Math.ceil(left)));
    }
    // One may have been lost with another as its neighbour, and have another worker by now.
    for (const [ticket, item] of expired) if (ticket.slot === slots.get(ticket)) this.#watched.expire(ticket, item, expired);
    if (this.#limited === 0) this.#rest();
  }

  /** What time it is, and whether the time of day was set since this was asked before. */
  #compareClocks(): { now: number; today: number; isSet: boolean } {
    const now = this.#clock.now(), today = this.#clock.today();
    const passed = now - this.#compared, passedToday = (today - this.#comparedToday) | 0;
    this.#compared = now;
    this.#comparedToday = today;
    return { now, today, isSet: Math.abs(passedToday - passed) > READING + APART * passed };
  }

  /** For how long a ticket has run, for which the time of day says `time`. */
  #timeOf(ticket: Ticket, time: number, { now, today, isSet }: { now: number; today: number; isSet: boolean }): number {
    const began = (today - time) | 0;
    const anew = this.#anew.get(ticket);
    if (anew?.began === began) return now - anew.since;
    if (!isSet) return time;
    this.#anew.set(ticket, { began, since: now });
    return 0;
  }
}
