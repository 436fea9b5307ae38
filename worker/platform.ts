/** The part of the Web Locks API that we use: Deno 2.9 has the API, its types do not. */
export interface LockManager {
  request(name: string, holder: () => unknown): Promise<unknown>;
}

declare const process: { getBuiltinModule(name: string): unknown };

/** As it is now: a program may put another in its place, as what makes a DOM for tests does. If that has happened already, it has no locks. */
const platform = navigator as unknown as { locks?: LockManager | null };

/**
 * The locks of the program, which all its threads share. Deno loads them at their first use, which takes 2 ms; by node:worker_threads it
 * takes 10.
 */
export function locks(): LockManager {
  return platform.locks ?? (process.getBuiltinModule("node:worker_threads") as { locks: LockManager }).locks;
}
