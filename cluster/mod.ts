/**
 * The jobs of `@procpool/process-pool` on many machines, through [BullMQ](https://bullmq.io) and Redis or Valkey. Producers use a
 * {@linkcode ClusterPool}; machines that run jobs have a host, which {@linkcode serve} starts; both share the tasks named by
 * {@linkcode defineTasks}. `Job`, the errors and everything else shared with the core are the core's own.
 *
 * @example What both sides share
 * ```ts
 * import { defineTasks } from "@procpool/cluster";
 * import { assertEquals } from "@std/assert";
 *
 * const tasks = defineTasks({ resize: "file:///srv/tasks.ts" });
 * assertEquals(tasks.resize.module, "file:///srv/tasks.ts");
 * ```
 *
 * @example A producer, and a host on another machine
 * ```ts ignore
 * import { ClusterPool, serve } from "@procpool/cluster";
 * import { tasks } from "./cluster_tasks.ts";
 *
 * // On every machine that runs jobs:
 * const host = await serve({ queue: "images", connection: "redis://10.0.0.1:6379", tasks });
 * // Rejects when its workers can no longer be started.
 * await host.finished;
 *
 * // Where the jobs come from:
 * await using pool = await ClusterPool.open({ queue: "images", connection: "redis://10.0.0.1:6379", tasks });
 * for await (const size of pool.map(tasks.resize, ["a.png", "b.png"])) console.log(size);
 * ```
 *
 * @module
 */

export {
  asCompleted,
  type AsCompletedOptions,
  type CancelOptions,
  Future,
  Job,
  type JobArgs,
  type JobArgsBeforeKwargs,
  type JobBaseOptions,
  type JobCancelledDetails,
  JobCancelledError,
  type JobOptions,
  type JobOptionsWithKwargs,
  type JobResult,
  type JobState,
  type JobTimeoutDetails,
  JobTimeoutError,
  type MapOptions,
  type MemoryLimitDetails,
  MemoryLimitError,
  type PoolBrokenDetails,
  PoolBrokenError,
  PoolClosedError,
  type PoolMeasurements,
  type PoolStats,
  type ResultOptions,
  type SettledState,
  type ShutdownOptions,
  type Task,
  type TaskRef,
  type TimeQuantiles,
  wait,
  type WaitOptions,
  type WaitResult,
  type WorkerDiedDetails,
  WorkerDiedError,
  type WorkerMeasurements,
} from "@procpool/process-pool";
export type { RedisConnection } from "./address.ts";
export { type ClusterHost, type HostShutdownOptions, serve } from "./host.ts";
export type { PayloadStore } from "./payloads.ts";
export { ClusterPool, type ClusterStats } from "./pool.ts";
export type { ClusterPoolOptions, RedeliveredJob } from "./pool_options.ts";
export type { ServeOptions } from "./serve_options.ts";
export type { ClusterStatus, HostStatus } from "./status.ts";
export { type ClusterTask, type ClusterTasks, defineTasks, type TaskDefinition, type TaskNames } from "./tasks.ts";
