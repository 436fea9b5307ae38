import type { Clock } from "../../pool/clock.ts";

interface Timer {
  due: number;
  callback: () => void;
}

/** In ms. On the platform, too, time passes while a timer without delay is set again and again. */
const SHORTEST_DELAY = 1;

/** A clock that stands still until it is told to fire the timer that is due next. */
export class SimulatedClock implements Clock {
  #now = 0;
  #timers: Timer[] = [];

  /** How many timers are set. */
  get timers(): number {
    return this.#timers.length;
  }

  /** When the next timer is due; Infinity if there is none. */
  get nextDue(): number {
    return this.#timers[0]?.due ?? Infinity;
  }

  now = (): number => this.#now;
  timeOfDay = (): number => this.#now | 0;

  after(delay: number, callback: () => void): () => void {
    return this.happens(Math.max(SHORTEST_DELAY, delay), callback);
  }

  /** The same for what happens by itself, which may take less time than a timer. */
  happens(delay: number, callback: () => void): () => void {
    const timer = { due: this.#now + delay, callback };
    // After those that are due at the same moment and were set earlier.
    const index = this.#timers.findLastIndex(({ due }) => due <= timer.due);
    this.#timers.splice(index + 1, 0, timer);
    return () => {
      const index = this.#timers.indexOf(timer);
      if (index >= 0) this.#timers.splice(index, 1);
    };
  }

  soon = (callback: () => void): void => queueMicrotask(callback);

  /** Lets time pass without firing anything: timers that come due meanwhile fire late. */
  creep(milliseconds: number): void {
    this.#now += milliseconds;
  }

  /** Advances the clock to the next timer and fires it. */
  fire(): void {
    const { due, callback } = this.#timers.shift()!;
    this.#now = Math.max(this.#now, due);
    callback();
  }
}
