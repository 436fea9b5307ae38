import { soon } from "../worker/soon.ts";

/** Time as the pool sees it, so that a simulation can turn the clock by hand. */
export interface Clock {
  /** Milliseconds since some fixed moment. */
  now(): number;
  /** The time of day in milliseconds, cut to 32 bits: the same in all threads. */
  today(): number;
  /** Calls back once after a delay in milliseconds; the function that is returned calls it off. */
  after(delay: number, callback: () => void): () => void;
  /** Calls back before other work of the event loop, unless that has waited long. */
  soon(callback: () => void): void;
}

/**
 * The time of {@linkcode afterInParts} is counted in so many parts. Fewer, and what the caller has had no time for counts as late; more, and
 * each costs a timer.
 */
const PARTS = 10;

/**
 * Calls back after a delay, like {@linkcode Clock.after}, for what a worker is to do within it: while the caller is busy, nothing of a worker
 * gets anywhere, nor is heard of. So the delay is counted in parts, each of which may take the caller longer.
 */
export function afterInParts(clock: Clock, delay: number, callback: () => void): () => void {
  let left = PARTS;
  let stop: () => void;
  const next = (): void => {
    stop = clock.after(delay / PARTS, () => --left > 0 ? next() : callback());
  };
  next();
  return () => stop();
}

export const realClock: Clock = {
  now: () => performance.now(),
  today: () => Date.now() | 0,
  after(delay, callback) {
    const timer = setTimeout(callback, delay);
    return () => clearTimeout(timer);
  },
  soon,
};

/** Does something again and again, for as long as there is reason to. */
export class Rounds {
  #clock: Clock;
  #interval: number;
  #round: () => boolean;
  #begun = false;
  #stopTimer: () => void = () => {};

  /**
   * @param clock The clock.
   * @param interval The time between two rounds, in ms.
   * @param round What is done in each. Whether there is to be another.
   */
  constructor(clock: Clock, interval: number, round: () => boolean) {
    this.#clock = clock;
    this.#interval = interval;
    this.#round = round;
  }

  /** There is reason. */
  begin(): void {
    if (this.#begun) return;
    this.#begun = true;
    const stop = this.#clock.after(this.#interval, () => {
      this.#begun = false;
      if (this.#round()) this.begin();
    });
    // Under `deno test`, the first timer of a program runs microtasks while it is set, which may have ended this.
    if (this.#begun) this.#stopTimer = stop;
    else stop();
  }

  end(): void {
    this.#begun = false;
    this.#stopTimer();
  }
}
