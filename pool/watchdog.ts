import type { Clock } from "./clock.ts";
import type { Slot } from "../worker/slot.ts";
import type { Ticket } from "./ticket.ts";

/** What a watchdog watches over. */
export interface Watched {
  /** What workers hold. */
  tickets(): Iterable<Ticket>;
  /**
   * Called for one of which this item, counted from 1, has run for too long; the others are all of which one has. If it does not end, {@linkcode Watchdog.lookSoon} is to be called.
   */
  expire(ticket: Ticket, item: number, others: ReadonlyMap<Ticket, number>): void;
}

/** When a result is about to arrive that was sent before the item that has run for too long, it is looked again after so many ms. */
const SOON = 1;

/**
 * Notices jobs that have run for too long. Time counts from the real start, which the worker notes in shared memory; so nothing has to be done
 * at a start or an end, and there is one timer, for the next moment at which a limit can be reached. With short jobs it runs out once a limit,
 * not once a job.
 */
export class Watchdog {
  #clock: Clock;
  #watched: Watched;
  /** How many tickets have a limit. */
  #limited = 0;
  #next = Infinity;
  #stopTimer: () => void = () => {};

  constructor(clock: Clock, watched: Watched) {
    this.#clock = clock;
    this.#watched = watched;
  }

  /** A ticket was sent to a worker. */
  watch(ticket: Ticket): void {
    if (ticket.timeout === Infinity) return;
    if (!ticket.watched) this.#limited++;
    ticket.watched = true;
    this.#lookAfter(ticket.timeout);
  }

  /** One that has run for too long has not ended yet. */
  lookSoon(): void {
    this.#lookAfter(SOON);
  }

  /** A ticket that is watched has settled. */
  forget(ticket: Ticket): void {
    ticket.watched = false;
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
    this.#next = Infinity;
    const today = this.#clock.today();
    const expired = new Map<Ticket, number>();
    const slots = new Map<Ticket, Slot>();
    for (const ticket of this.#watched.tickets()) {
      const { timeout } = ticket;
      if (timeout === Infinity) continue;
      const slot = ticket.slot!;
      const running = slot.runningFor(ticket, today);
      const left = timeout - (running?.time ?? 0);
      if (running !== undefined && left <= 0 && ticket.isAt(running.item)) {
        expired.set(ticket, running.item);
        slots.set(ticket, slot);
      } else this.#lookAfter(Math.max(SOON, Math.ceil(left)));
    }
    // One of them may have been a neighbour of another, be gone with it, and have another worker by now.
    for (const [ticket, item] of expired) if (ticket.slot === slots.get(ticket)) this.#watched.expire(ticket, item, expired);
    if (this.#limited === 0) this.#rest();
  }
}
