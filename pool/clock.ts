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
