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

export const realClock: Clock = {
  now: () => performance.now(),
  today: () => Date.now() | 0,
  after(delay, callback) {
    const timer = setTimeout(callback, delay);
    return () => clearTimeout(timer);
  },
  soon,
};
