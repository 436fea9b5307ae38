import { Future, onSettled } from "../job.ts";
import { Checks, isIterable, show } from "./checks.ts";
import { realClock, stretches } from "./clock.ts";
import { withDeadline } from "./deadline.ts";

/** Options of {@linkcode asCompleted}. */
export interface AsCompletedOptions {
  /**
   * How long to wait for all of them, in milliseconds from the call.
   *
   * @default {undefined}
   */
  timeout?: number | undefined;
}

/**
 * Yields futures in the order in which their jobs settle; those that have settled before the call come first. Each comes once, even if it
 * is given twice. Named after `concurrent.futures.as_completed`.
 *
 * @typeParam F The futures.
 * @param futures What to wait for. It is read when this is called.
 * @param options How long to wait.
 * @returns The futures; leaving the loop early does not affect the jobs.
 *
 * @throws {DOMException & { name: "TimeoutError" }} Out of the loop, if `timeout` ran out first.
 * @throws {TypeError} If something given is not a future, or an option is unknown or of the wrong type.
 * @throws {RangeError} If `timeout` is not from 0 to 2,147,483,647.
 *
 * @example The fastest first
 * ```ts
 * import { asCompleted, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * await using pool = new ProcessPool({ maxWorkers: 2 });
 * const sleep = (ms: number) => new Promise((resolve) => setTimeout(() => resolve(ms), ms));
 * const futures = [await pool.submit(sleep, 300), await pool.submit(sleep, 1)];
 * const order: unknown[] = [];
 * for await (const future of asCompleted(futures)) order.push(await future.result());
 * assertEquals(order, [1, 300]);
 * ```
 */
export function asCompleted<F extends Future<unknown>>(futures: Iterable<F>, options: AsCompletedOptions = {}): AsyncIterableIterator<F> {
  const checks = new Checks("wait for futures");
  const { timeout } = checks.options(options, ["timeout"]);
  if (timeout !== undefined) checks.milliseconds("timeout", timeout);
  const all = checkedFutures(futures);
  const deadline = timeout === undefined ? undefined : realClock.now() + timeout;
  const settled: F[] = [];
  let wake = (): void => {};
  const cadence = stretches(realClock);
  const stopListening = [...all].map((future) =>
    onSettled(future, () => {
      settled.push(future);
      wake();
    })
  );

  async function* inOrder(): AsyncGenerator<F, void, void> {
    try {
      for (let yielded = 0; yielded < all.size; yielded++) {
        if (settled[yielded] === undefined) {
          const next = new Promise<void>((resolve) => wake = resolve);
          const left = deadline === undefined ? undefined : Math.max(0, deadline - realClock.now());
          await withDeadline(next, { timeout: left, fullTimeout: timeout });
        } else if (cadence.isDue()) {
          // A loop over many that have settled would otherwise let nothing else through.
          await new Promise<void>((resolve) => realClock.soon(resolve));
        }
        yield settled[yielded]!;
      }
    } finally {
      for (const stop of stopListening) stop();
    }
  }
  return inOrder();
}

/** Options of {@linkcode wait}. */
export interface WaitOptions {
  /**
   * What to wait for: the first job to settle; the first to fail or be cancelled, or all if none does; or all.
   *
   * @default {"all-completed"}
   */
  returnWhen?: "first-completed" | "first-exception" | "all-completed" | undefined;
  /**
   * How long to wait, in milliseconds.
   *
   * @default {undefined}
   */
  timeout?: number | undefined;
}

/** What {@linkcode wait} found. */
export interface WaitResult<F> {
  /** The futures whose jobs have settled. */
  done: Set<F>;
  /** The others. */
  notDone: Set<F>;
}

/**
 * Waits for one of the conditions of `concurrent.futures.wait`.
 *
 * @typeParam F The futures.
 * @param futures What to wait for. It is read when this is called.
 * @param options The condition, and how long to wait.
 * @returns Which of the futures have settled and which have not. It does not reject when a job fails.
 *
 * @throws {DOMException & { name: "TimeoutError" }} If `timeout` ran out first. This does not affect the jobs.
 * @throws {TypeError} If something given is not a future, or an option is unknown or of the wrong type.
 * @throws {RangeError} If `timeout` is not from 0 to 2,147,483,647.
 *
 * @example Until the first is there
 * ```ts
 * import { ProcessPool, wait } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * await using pool = new ProcessPool({ maxWorkers: 2 });
 * const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
 * const quick = await pool.submit(sleep, 1);
 * const slow = await pool.submit(sleep, 300);
 * const { done, notDone } = await wait([quick, slow], { returnWhen: "first-completed" });
 * assertEquals([...done], [quick]);
 * assertEquals([...notDone], [slow]);
 * ```
 */
export async function wait<F extends Future<unknown>>(futures: Iterable<F>, options: WaitOptions = {}): Promise<WaitResult<F>> {
  const checks = new Checks("wait for futures");
  const { returnWhen = "all-completed", timeout } = checks.options(options, ["returnWhen", "timeout"]);
  checks.oneOf("returnWhen", returnWhen, ["first-completed", "first-exception", "all-completed"]);
  if (timeout !== undefined) checks.milliseconds("timeout", timeout);
  const all = checkedFutures(futures);
  const stopListening: (() => void)[] = [];
  const met = new Promise<void>((resolve) => {
    let unsettled = all.size;
    if (unsettled === 0) resolve();
    for (const future of all) {
      stopListening.push(onSettled(future, () => {
        const enough = returnWhen === "first-completed" || (returnWhen === "first-exception" && future.state !== "finished");
        if (--unsettled === 0 || enough) resolve();
      }));
    }
  });
  try {
    await withDeadline(met, { timeout });
  } finally {
    for (const stop of stopListening) stop();
  }
  const done = new Set<F>();
  const notDone = new Set<F>();
  for (const future of all) (future.done() ? done : notDone).add(future);
  return { done, notDone };
}

function checkedFutures<F>(futures: Iterable<F>): Set<F> {
  if (!isIterable(futures)) {
    throw new TypeError(`Cannot wait for futures as they must be iterable: current value is ${show(futures)}`);
  }
  const all = new Set(futures);
  for (const future of all) {
    if (future instanceof Future) continue;
    throw new TypeError(`Cannot wait for futures as each of them must be a Future: current value is ${show(future)}`);
  }
  return all;
}
