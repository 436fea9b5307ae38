/**
 * What the platform has, as it is when the pool's module is loaded: a program may put another `navigator` in its place later, as what makes
 * a DOM for tests does.
 *
 * @module
 */

/**
 * How many cores there are. Who spins keeps one from those that compute. So a worker spins for its next job only while no more workers have
 * jobs than there are cores beside that of the caller.
 */
export const CORES: number = navigator.hardwareConcurrency;

/** The part of the Web Locks API that we use: Deno 2.9 has the API, its types do not. */
export interface LockManager {
  request(name: string, holder: () => unknown): Promise<unknown>;
}

declare const process: { getBuiltinModule(name: string): unknown };

/** If another has been put in its place already, it has no locks. */
const platform = navigator as unknown as { locks?: LockManager | null };

/**
 * The locks of the program, which all its threads share. Deno loads them at first use, which takes 2 ms; through node:worker_threads it
 * takes 10.
 */
export function locks(): LockManager {
  return platform.locks ?? (process.getBuiltinModule("node:worker_threads") as { locks: LockManager }).locks;
}
