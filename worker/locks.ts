/** The part of the Web Locks API that we use: Deno 2.9 has the API, its types do not. */
export interface LockManager {
  request(name: string, holder: () => unknown): Promise<unknown>;
}

/** The locks of this thread's program: workers share them. Deno loads them at their first use, which takes 2 ms. */
export function locks(): LockManager {
  return (navigator as unknown as { locks: LockManager }).locks;
}
