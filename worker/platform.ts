/**
 * What we take from the platform when the pool's module is loaded: a program may replace `navigator` later, as libraries that emulate a DOM
 * for tests do, or its timers, as tests do that let time pass as they say.
 *
 * @module
 */

/**
 * How many cores there are. A thread that spins takes one from those that compute. So a worker spins for its next job only while the
 * workers with jobs are no more than the cores that the caller leaves.
 */
export const CORES: number = navigator.hardwareConcurrency;

/** The timers, which take a megabyte when they are first read. */
export const timers = { start: global<typeof setTimeout>("setTimeout"), stop: global<typeof clearTimeout>("clearTimeout") };

/** The time of day, as workers see it. */
export const { now: timeOfDay } = Date;

/** Milliseconds since the thread began. */
export const now: () => number = performance.now.bind(performance);

function global<T>(name: string): () => T {
  const { value, get } = Object.getOwnPropertyDescriptor(globalThis, name)!;
  return () => value ?? get!.call(globalThis);
}

/** The part of the Web Locks API that we use: Deno 2.9 has the API, its types do not. */
export interface LockManager {
  request(name: string, holder: () => unknown): Promise<unknown>;
}

declare const process: { getBuiltinModule(name: string): unknown };

/** A replacement made before this module was loaded has no locks. */
const platform = navigator as unknown as { locks?: LockManager | null };

/**
 * The locks of the program, which all its threads share. Deno loads them at first use, which takes 2 ms; through node:worker_threads it
 * takes 10.
 */
export function locks(): LockManager {
  return platform.locks ?? (process.getBuiltinModule("node:worker_threads") as { locks: LockManager }).locks;
}

/** Whether there are locks: Deno has had them since 2.9. */
export function hasLocks(): boolean {
  return "locks" in platform || "locks" in (process.getBuiltinModule("node:worker_threads") as object);
}
