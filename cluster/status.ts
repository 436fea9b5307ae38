import type { Queue } from "bullmq";

/** What `ClusterPool.status` tells: of a whole queue. */
export interface ClusterStatus {
  /** The queue's name. */
  queue: string;
  /** The hosts that are connected; undefined where the server does not tell, as some that are rented do not. */
  hosts: HostStatus[] | undefined;
  /** Jobs and chunks that no host has started. */
  waiting: number;
  /** Jobs and chunks that hosts run. */
  active: number;
  /** Jobs and chunks that have returned, since the queue was made. */
  completed: number;
  /** Jobs and chunks that have failed, since the queue was made. */
  failed: number;
  /** Jobs and chunks that have ended within each of the last minutes, the latest first: the minute that is under way is left out. */
  perMinute: number[];
}

/** A host that is connected. */
export interface HostStatus {
  /** Its name. */
  name: string;
  /** From where it is connected. */
  address: string;
  /** For how many seconds it has been connected. */
  age: number;
}

/** Reads what a queue holds in a database of the server. */
export async function readStatus(queue: Queue, { name, database }: { name: string; database: number }): Promise<ClusterStatus> {
  const [counts, workers, completed, failed] = await Promise.all([
    queue.getJobCounts("waiting", "active", "delayed", "prioritized"),
    queue.getWorkers().catch(() => undefined),
    queue.getMetrics("completed"),
    queue.getMetrics("failed"),
  ]);
  const { waiting = 0, delayed = 0, prioritized = 0, active = 0 } = counts;
  const minutes = Math.max(completed.data.length, failed.data.length);
  return {
    queue: name,
    // BullMQ gives one of this shape where the server knows no such command.
    hosts: workers?.some(({ addr }) => addr === undefined)
      ? undefined
      // The server lists clients of all its databases.
      : workers?.filter(({ db }) => Number(db) === database).map(({ rawname, name, addr, age }) => ({
        name: (rawname ?? name ?? "").split(":w:")[1] ?? "",
        address: addr ?? "",
        age: Number(age),
      })),
    waiting: waiting + delayed + prioritized,
    active,
    completed: completed.meta.count,
    failed: failed.meta.count,
    perMinute: Array.from({ length: minutes }, (_, i) => (completed.data[i] ?? 0) + (failed.data[i] ?? 0)),
  };
}
