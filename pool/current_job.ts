/** What a task can know of its job. */
export interface CurrentJob {
  /** The id of the job; for an item of a map its index. */
  id: string | number;
  /** Which run of the job this is, counted from 1. */
  attempt: number;
  /**
   * Aborts when the job is cancelled by force, aborted, or stopped for its timeout. On the backend `worker` the task then has a tenth of a
   * second to end; on `killable` it is halted at once and never sees the signal abort.
   */
  signal: AbortSignal;
}

/**
 * The job of the calling task. A task that is sent as source text cannot import this; it finds the same at
 * `globalThis[Symbol.for("process-pool.job")]`.
 *
 * @returns The job; undefined outside of a task, and in a task after its first `await`.
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
