import { Checks } from "./checks.ts";

/** The key under which a moved value says what is moved. */
const MOVE = Symbol.for("process-pool.move");

/**
 * Has a task's result moved to the caller instead of copied, as far as its memory can be moved. A task that is sent by source cannot import
 * this; for it an object with the result as its `value` and the list at `Symbol.for("process-pool.move")` does the same.
 *
 * @typeParam T The result.
 * @param value The result: what the task is to return.
 * @param transfer What of it is moved: its ArrayBuffers, MessagePorts and streams. They are of no use to the worker afterwards. What a
 * stream or a port gives still comes from the worker: it has to be read before that ends, as it does when it is idle for long or has run
 * enough jobs, since nothing tells the reader of that.
 * @returns What the task returns for it. (It is declared as the result, so that callers of the task see that type.)
 *
 * @throws {TypeError} If `transfer` is not an array, or has something in it that is no object, or a view of a buffer.
 *
 * @example A megabyte that nobody copies
 * ```ts
 * import { move, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * // In a task module. To be sent by source it would return { [Symbol.for("process-pool.move")]: [bytes.buffer], value: bytes }.
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
