import type { Metrics, Queue } from "bullmq";

/** For how many minutes the number of ended jobs is reported. */
const MINUTES = 60;

/** For how many minutes the queue remembers it. BullMQ adds older ones to the last of these, which is not reported. */
export const METRICS_MINUTES = MINUTES + 1;

/** What `ClusterPool.status` returns, about a whole queue. */
export interface ClusterStatus {
  /** The queue's name. */
  queue: string;
  /** The connected hosts; undefined if the server does not say, like some managed ones. */
  hosts: HostStatus[] | undefined;
  /** Jobs and chunks that no host has started. */
  waiting: number;
  /** Jobs and chunks that are running on hosts. */
  active: number;
  /** Jobs and chunks that have returned, since the queue was made. */
  completed: number;
  /** Jobs and chunks that have failed, since the queue was made. */
  failed: number;
  /** How many jobs and chunks ended in each of the last minutes, latest first, without the current minute. */
  perMinute: number[];
}

/** A connected host. */
export interface HostStatus {
  /** Its name. */
  name: string;
  /** The address from which it is connected. */
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
  const now = Date.now();
  const [returned, threw] = [minutesOf(completed, now), minutesOf(failed, now)];
  return {
    queue: name,
    // BullMQ returns one of this shape if the server does not know the command.
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
    perMinute: Array.from({ length: Math.max(returned.length, threw.length) }, (_, i) => (returned[i] ?? 0) + (threw[i] ?? 0)),
  };
}

/**
 * How many ended within each minute that is over, the latest first: BullMQ's end with the last before the minute in which one ended last.
 */
function minutesOf({ meta: { count, prevTS, prevCount }, data }: Metrics, now: number): number[] {
  const later = Math.floor(now / 60_000) - Math.floor(prevTS / 60_000);
  if (count === 0 || later < 1) return data.slice(0, MINUTES);
  const idle = Array.from({ length: Math.min(later - 1, MINUTES) }, () => 0);
  return [...idle, count - prevCount, ...data].slice(0, MINUTES);
}
