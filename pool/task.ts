/**
 * What task modules may want to import, without loading anything else of the pool.
 *
 * ```ts
 * import { currentJob, move } from "@procpool/process-pool/task";
 *
 * export function squares(numbers: Float64Array<ArrayBuffer>): Float64Array {
 *   const { signal } = currentJob()!;
 *   for (let i = 0; i < numbers.length && !signal.aborted; i++) numbers[i]! **= 2;
 *   return move(numbers, [numbers.buffer]);
 * }
 * ```
 *
 * @module
 */

import { Checks } from "./checks.ts";

/** What a task can know of its job. */
export interface CurrentJob {
  /** The id of the job; for an item of a map its index. */
  id: string | number;
  /** Which run of the job this is, counted from 1. */
  attempt: number;
  /**
   * Aborts when the job is cancelled by force, aborted, or stopped for its timeout. On the backend `worker` the task then has a tenth of a
   * second to end; on `killable` it is halted at once and never sees the signal abort; on `inline` nothing else stops it. The reason is what
   * the caller gets. In a worker it is a copy, an error of the platform's class and the original's name.
   */
  signal: AbortSignal;
}

/**
 * The job of the calling task. A task that is sent as source text cannot import this; it finds the same at
 * `globalThis[Symbol.for("process-pool.job")]`.
 *
 * @returns The job; undefined outside of a task, in a task after its first `await`, and in a batch, whose records are no jobs.
 *
 * @example A task that knows its job
 * ```ts
 * import { currentJob, Job, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * await using pool = new ProcessPool({ backend: "inline" });
 * assertEquals(await pool.run(new Job({ id: "a", func: () => currentJob()?.id })), "a");
 * assertEquals(currentJob(), undefined);
 * ```
 */
export function currentJob(): CurrentJob | undefined {
  return (globalThis as Record<symbol, unknown>)[Symbol.for("process-pool.job")] as CurrentJob | undefined;
}

/** The key under which a result lists what is moved. */
const MOVE = Symbol.for("process-pool.move");

/**
 * Has a task's result moved to the caller instead of copied, as far as its memory can be moved. A task that is sent as source text cannot
 * import this; it can return an object with the result as its `value` and the list at `Symbol.for("process-pool.move")` instead.
 *
 * @typeParam T The result.
 * @param value The result: what the task is to return.
 * @param transfer What is moved: ArrayBuffers, MessagePorts and streams within the result. The worker cannot use them afterwards. The data
 * of a stream or a port still comes from the worker. Read it before the worker ends, as it does when it has been idle for long or has run
 * enough jobs: nothing tells the reader about that end.
 * @returns What the task should return. (It is declared as the result, so that callers of the task see that type.)
 *
 * @throws {TypeError} If `transfer` is not an array, or contains something that is not an object, or is a view of a buffer.
 *
 * @example A megabyte that nobody copies
 * ```ts
 * import { move, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * // In a task module. Sent as source text it would return { [Symbol.for("process-pool.move")]: [bytes.buffer], value: bytes }.
 * function zeros(length: number): Uint8Array {
 *   const bytes = new Uint8Array(length);
 *   return move(bytes, [bytes.buffer]);
 * }
 *
 * await using pool = new ProcessPool({ backend: "inline" });
 * assertEquals((await pool.run(zeros, 1_000_000)).length, 1_000_000);
 * ```
 */
export function move<T>(value: T, transfer: readonly Transferable[]): T {
  new Checks("move result").transfer("transfer", transfer);
  return { [MOVE]: transfer, value } as unknown as T;
}
