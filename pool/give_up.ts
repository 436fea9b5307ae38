import { abortable } from "@std/async/abortable";
import { onAbort } from "./signals.ts";

/** When to stop waiting for something that goes on by itself. */
export interface Patience {
  timeout?: number | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Waits for a promise only so long. Gives up with a DOMException named TimeoutError, as `deadline` of `@std/async` does, or with the signal's
 * reason. Not `deadline` itself: that leaves its timer running until the time is over, 1.5 KB for each wait that ended sooner.
 */
export async function giveUp<T>(promise: Promise<T>, { timeout, signal }: Patience): Promise<T> {
  if (timeout === undefined && signal === undefined) return await promise;
  if (signal?.aborted) {
    // Nobody waits for the promise, which would be an unhandled rejection if it came to reject.
    promise.catch(() => {});
    throw signal.reason;
  }
  const impatience = new AbortController();
  const timer = timeout === undefined ? undefined : setTimeout(() => {
    impatience.abort(new DOMException(`Not settled within ${timeout} ms`, "TimeoutError"));
  }, timeout);
  const stopListening = onAbort(signal, () => impatience.abort(signal!.reason));
  try {
    return await abortable(promise, impatience.signal);
  } finally {
    clearTimeout(timer);
    stopListening();
  }
}
