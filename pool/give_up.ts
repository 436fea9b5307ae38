import { onAbort } from "./signals.ts";

/** When to stop waiting for something that goes on by itself. */
export interface GiveUpOptions {
  /** In milliseconds. */
  timeout?: number | undefined;
  /** What the error says in its place, if some of the time was over before. */
  of?: number | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Waits for a promise, but only so long. Gives up with a DOMException named TimeoutError, as `deadline` of `@std/async` does, or with the
 * signal's reason. Not `deadline` itself: that leaves its timer running until the time is over, 1.5 KB for each wait that ended sooner.
 */
export async function giveUp<T>(promise: Promise<T>, { timeout, of = timeout, signal }: GiveUpOptions): Promise<T> {
  if (timeout === undefined && signal === undefined) return await promise;
  // It may reject when nobody waits for it any more, or not yet: that would be an unhandled rejection.
  promise.catch(() => {});
  if (signal?.aborted) throw signal.reason;
  const impatience = new AbortController();
  const timer = timeout === undefined ? undefined : setTimeout(() => {
    impatience.abort(new DOMException(`Not settled within ${of} ms`, "TimeoutError"));
  }, timeout);
  const stopListening = onAbort(signal, () => impatience.abort(signal!.reason));
  try {
    // Not before it is needed: a program that only computes has no use for it.
    const { abortable } = await import("@std/async/abortable");
    return await abortable(promise, impatience.signal);
  } finally {
    clearTimeout(timer);
    stopListening();
  }
}
