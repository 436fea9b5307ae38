/**
 * A worker pool in the manner of Python's `concurrent.futures`. You hand it a function and an input: every core is busy, memory stays flat,
 * and a bad record costs only itself. It runs on Deno's permissioned Web Workers, from a checkout or from JSR, without any permission flag.
 *
 * @example Ten jobs on four workers
 * ```ts
 * import { Job, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * function funDemo(ms: number): Promise<number> {
 *   return new Promise((resolve) => setTimeout(() => resolve(ms), ms));
 * }
 *
 * const results: number[] = [];
 * await using pool = new ProcessPool({ maxWorkers: 4, queueSize: 4 });
 * for (let id = 0; id < 10; id++) {
 *   // Waits here while four jobs are in flight.
 *   const future = await pool.submit(new Job({ id, func: funDemo, args: [Math.random() * 10] }));
 *   future.addDoneCallback(async () => results.push(await future.result()));
 * }
 * await pool.shutdown();
 * assertEquals(results.length, 10);
 * ```
 *
 * @module
 */

export {
  type JobCancelledDetails,
  JobCancelledError,
  type JobTimeoutDetails,
  JobTimeoutError,
  type MemoryLimitDetails,
  MemoryLimitError,
  type PoolBrokenDetails,
  PoolBrokenError,
  PoolClosedError,
  type WorkerDiedDetails,
  WorkerDiedError,
} from "./errors.ts";
export {
  type CancelOptions,
  Future,
  Job,
  type JobArgs,
  type JobArgsBeforeKwargs,
  type JobBaseOptions,
  type JobOptions,
  type JobOptionsWithKwargs,
  type JobResult,
  type JobState,
  type ResultOptions,
  type SettledState,
  type Task,
  type TaskRef,
} from "./job.ts";
export { type PoolStats, ProcessPool, type ShutdownOptions } from "./pool.ts";
export type { JobInspection, WorkerInspection } from "./pool/inspection.ts";
export type { PoolMeasurements, TimeQuantiles, WorkerMeasurements } from "./pool/measurement.ts";
export type { ObservedJob, ObservedPool, PoolLevels, PoolObserver, WorkerChange } from "./pool/observation.ts";
export { type CurrentJob, currentJob, move } from "./pool/task.ts";
export { Interrupt, type InterruptOptions, type SignalHost } from "./pool/interrupt.ts";
export { type Closable, endProgram, type EndProgramOptions } from "./pool/program.ts";
export type { MapOptions, MapResults } from "./pool/map_options.ts";
export type { Backend, ProcessPoolOptions, TaskModule } from "./pool/options.ts";
export { asCompleted, type AsCompletedOptions, wait, type WaitOptions, type WaitResult } from "./pool/wait.ts";
export { type AcquireOptions, Semaphore } from "./semaphore.ts";
