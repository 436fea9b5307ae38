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

export { type CurrentJob, currentJob } from "./current_job.ts";
export { move } from "./move.ts";
