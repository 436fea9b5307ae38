/**
 * For other executors that hand out this package's futures, such as one that runs jobs on other machines: making and settling futures,
 * wording refusals as the pool does, running a part of a map, and encoding errors for transport. If you only run jobs, you need none of
 * this.
 *
 * @example An executor whose jobs are done elsewhere
 * ```ts
 * import { Job } from "@procpool/process-pool";
 * import { FutureMaker } from "@procpool/process-pool/executor";
 * import { assertEquals } from "@std/assert";
 *
 * const maker = new FutureMaker(console.error);
 * const job = new Job({ id: "a", func: (x: number) => x, args: [1] });
 * const future = maker.make(job, { started: () => false, cancel: () => false });
 * assertEquals(future.state, "queued");
 * maker.settle(future, { state: "finished", value: 1 });
 * maker.callBack(future);
 * assertEquals(await future.result(), 1);
 * ```
 *
 * @module
 */

import {
  callDoneCallbacks,
  type Future,
  type FutureControl,
  hasDoneCallbacks,
  type Job,
  makeFuture,
  type Outcome,
  settleFuture,
} from "../job.ts";
import type { Semaphore } from "../semaphore.ts";
import { Callbacks } from "./callbacks.ts";
import { realClock } from "./clock.ts";

export type { Future, FutureControl, Job, Outcome } from "../job.ts";
export type { Semaphore } from "../semaphore.ts";
export { Checks, show, showJob } from "./checks.ts";
export { type MapOptions, PART_OF_MAP, type PartOfMap, type PartOfMapOptions } from "./map_options.ts";
export { printError, printWarning } from "./print.ts";
export { decodeError, type FindClass } from "../worker/decode_error.ts";
export { encodeError } from "../worker/encode_error.ts";
export type { ErrorMessage, Thrown, ValueMessage } from "../worker/protocol.ts";

/**
 * Makes the futures of one executor, settles them, and calls their callbacks. A future is settled once; its callbacks are called once,
 * after that.
 */
export class FutureMaker {
  #callbacks: Callbacks;

  /**
   * Constructs a maker.
   *
   * @param onError Called with errors that belong to no future: what a callback throws.
   */
  constructor(onError: (error: unknown) => void) {
    this.#callbacks = new Callbacks(realClock, onError);
  }

  /**
   * Makes the future of a job.
   *
   * @typeParam R What the task returns, or what its promise resolves with.
   * @param job The job.
   * @param control Tells whether the job runs, and cancels it. It is dropped when the future settles.
   * @returns The future, unsettled.
   */
  // deno-lint-ignore no-explicit-any -- the arguments are of no concern here
  make<R>(job: Job<any[], R>, control: FutureControl): Future<R> {
    return makeFuture(job as Job<never[], R>, control, this.#callbacks);
  }

  /**
   * Settles a future and wakes those who wait for it. No callback is called yet.
   *
   * @typeParam R What the task returns, or what its promise resolves with.
   * @param future The future: not settled before.
   * @param outcome How its job ended, and with what.
   */
  settle<R>(future: Future<R>, outcome: Outcome<R>): void {
    settleFuture(future, outcome.state, outcome.state === "finished" ? outcome.value : outcome.error);
  }

  /**
   * Calls the job's `onDone`, if there is one, and gives the job's permit back. If nobody waits for a permit, that happens before the call,
   * so that `onDone` can submit; otherwise after it. If `onDone` returns a promise, the permit is held until that settles. If this is
   * called within another callback, `onDone` is called after that one has returned.
   *
   * @param future The settled future.
   * @param gate The gate to which the job's permit belongs.
   */
  callOnDone(future: Future<unknown>, gate: Semaphore): void {
    const { onDone } = future.job;
    if (onDone === undefined) gate.release();
    else this.#callbacks.callOnDoneWithPermit(() => onDone(future), gate);
  }

  /**
   * Calls the callbacks given to `addDoneCallback()`: if this is called within another callback, after that one has returned.
   *
   * @param future The settled future.
   */
  callBack(future: Future<unknown>): void {
    if (hasDoneCallbacks(future)) this.#callbacks.inTurn(() => callDoneCallbacks(future));
  }

  /**
   * Hands an error to `onError`.
   *
   * @param error The error.
   */
  report(error: unknown): void {
    this.#callbacks.report(error);
  }

  /** Resolves when no callback is running. */
  idle(): Promise<void> {
    return this.#callbacks.idle();
  }
}
