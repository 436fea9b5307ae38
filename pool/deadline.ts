import { onAbort } from "./signals.ts";

/** When to stop waiting for something that goes on by itself. */
export interface DeadlineOptions {
  /** In milliseconds. */
  timeout?: number | undefined;
  /** The timeout that the error names instead, if part of it had already passed. */
  fullTimeout?: number | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Waits for a promise, but not for longer than given. Gives up with a DOMException named TimeoutError, as `deadline` of `@std/async` does,
 * or with the signal's reason. `deadline` itself would leave its timer running until the time is over, 1.5 KB for each wait that ended
 * sooner.
 */
export async function withDeadline<T>(promise: Promise<T>, { timeout, fullTimeout = timeout, signal }: DeadlineOptions): Promise<T> {
  if (timeout === undefined && signal === undefined) return await promise;
  // It may reject after or before anyone waits for it, which would be an unhandled rejection.
  promise.catch(() => {});
  if (signal?.aborted) throw signal.reason;
  const impatience = new AbortController();
  const timer = timeout === undefined ? undefined : setTimeout(() => {
    impatience.abort(new DOMException(`Not settled within ${fullTimeout} ms`, "TimeoutError"));
  }, timeout);
  const stopListening = onAbort(signal, () => impatience.abort(signal!.reason));
  try {
    const { abortable } = await loadAbortable();
    return await abortable(promise, impatience.signal);
  } finally {
    clearTimeout(timer);
    stopListening();
  }
}

let loading: Promise<typeof import("@std/async/abortable")> | undefined;

/**
 * Imported only when needed: a program that only computes has no use for it. And not by each of thousands who begin to wait together, as
 * that would take 0.2 ms for each.
 */
function loadAbortable(): Promise<typeof import("@std/async/abortable")> {
  return loading ??= import("@std/async/abortable").catch((error) => {
    loading = undefined;
    throw error;
  });
}
