/**
 * Offline batches: all they need is a function and a file of millions of records. Workers read, compute and encode; a bad record costs only
 * itself; a batch that was stopped can be resumed.
 *
 * @example Squares of numbers, one per line
 * ```ts
 * import { batch } from "@procpool/process-pool/batch";
 * import { assertEquals } from "@std/assert";
 *
 * const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
 * const squares = new Response(readable).text();
 * await batch((n: number) => n * n, { input: new Response("1\n2\n3\n").body!, output: writable, permissions: "inherit" });
 * assertEquals(await squares, "1\n4\n9\n");
 * ```
 *
 * @module
 */

export { batch } from "./batch.ts";
export { BatchError, type BatchErrorDetails } from "./errors.ts";
export type { BatchInput } from "./inputs.ts";
export type { BatchHalt, BatchOptions, BatchTask } from "./options.ts";
export type { BatchProgress, BatchSummary, SlowRecordReport } from "./progress.ts";
export type { InputFormat, OutputFormat } from "./range.ts";
