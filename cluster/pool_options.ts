import { Checks, printError, printWarning } from "@procpool/process-pool/executor";
import { type RedisConnection, resolveConnection, type ResolvedConnection } from "./address.ts";
import { OPEN_TIMEOUT } from "./connect.ts";
import { checkedQueue, checkedRelease } from "./names.ts";
import { checkedStore, type PayloadStore } from "./payloads.ts";
import { checkedTasks, type ClusterTasks } from "./tasks.ts";

/** Options of `ClusterPool.open`. */
export interface ClusterPoolOptions {
  /** The queue's name: letters, digits, `.`, `-` and `_`. Hosts of the same name run its jobs. */
  queue: string;
  /** Where Redis or Valkey is: an address, or an address with credentials. */
  connection: string | RedisConnection;
  /** What can be run, from {@linkcode defineTasks}. */
  tasks: ClusterTasks;
  /**
   * The gate's permits: how many jobs, and chunks of maps, may be in flight. The next submission waits. With too few, hosts wait for work:
   * there should be twice as many as the cluster has workers.
   *
   * @default {1000}
   */
  queueSize?: number | undefined;
  /**
   * How long a job without a `timeout`, or each item of a map, may run, in milliseconds from when a worker starts it.
   *
   * @default {the host's jobTimeout}
   */
  jobTimeout?: number | undefined;
  /**
   * How often a job, or an item of a map, is run again after its worker died or filled its heap. (When a whole host dies, its jobs are
   * delivered again according to the hosts' `redeliveries`.)
   *
   * @default {0}
   */
  retries?: number | undefined;
  /**
   * How long after its submission a job may still be started, in milliseconds. A host that comes to it later cancels it instead, and its
   * id is free again; while there is no host it waits all the same. That includes a job that was started in time and is delivered again
   * later, as its host died or was told to stop. This depends on the clocks of both machines.
   *
   * @default {Infinity}
   */
  expiresIn?: number | undefined;
  /**
   * Where payloads that are too large for Redis go. Without a store they are refused.
   *
   * @default {undefined}
   */
  payloads?: PayloadStore | undefined;
  /**
   * The release of the program: hosts that name a different one fail its jobs at once.
   *
   * @default {undefined}
   */
  release?: string | undefined;
  /**
   * How long to try to connect, and to wait for a server that is not ready, in milliseconds.
   *
   * @default {10000}
   */
  openTimeout?: number | undefined;
  /**
   * Called for each job that is run again elsewhere because its host is gone, or had to stop.
   *
   * @default {undefined}
   */
  onRedelivered?: ((job: RedeliveredJob) => void) | undefined;
  /**
   * Called with errors that belong to no future: what a callback throws, a lost connection, a server that is not ready yet.
   *
   * @default {console.error}
   */
  onError?: ((error: unknown) => void) | undefined;
  /**
   * Called with each warning about how the server is configured, once, and whenever a lost connection is back.
   *
   * @default {console.warn}
   */
  onWarning?: ((message: string) => void) | undefined;
}

/** The argument of {@linkcode ClusterPoolOptions.onRedelivered}. */
export interface RedeliveredJob {
  /** The id of the job; for a chunk of a map the index of its first item. */
  id: string | number;
  /** The name of its task. */
  taskName: string;
  /** How many items it has; undefined if it is not a chunk. */
  items: number | undefined;
}

const OPTIONS = [
  "queue",
  "connection",
  "tasks",
  "queueSize",
  "jobTimeout",
  "retries",
  "expiresIn",
  "payloads",
  "release",
  "openTimeout",
  "onRedelivered",
  "onError",
  "onWarning",
] as const;

/** What messages say that cannot be done. */
export const ACTION = "open cluster pool";

/** Enough for 500 workers; a thousand jobs of the largest size take 256 MB of Redis's memory. */
const QUEUE_SIZE = 1000;

/** The options of a pool, checked and complete. */
export interface Settings {
  queue: string;
  connection: ResolvedConnection;
  tasks: ClusterTasks;
  queueSize: number;
  jobTimeout: number | undefined;
  retries: number | undefined;
  expiresIn: number;
  store: PayloadStore | undefined;
  release: string | undefined;
  openTimeout: number;
  onRedelivered: (job: RedeliveredJob) => void;
  onError: (error: unknown) => void;
  onWarning: (message: string) => void;
}

/** Checks and completes the options; the caller's object is left as it is. */
export function resolvePoolOptions(options: ClusterPoolOptions): Settings {
  const checks = new Checks(ACTION);
  const {
    queue,
    connection,
    tasks,
    queueSize = QUEUE_SIZE,
    jobTimeout,
    retries,
    expiresIn = Infinity,
    payloads,
    release,
    openTimeout = OPEN_TIMEOUT,
    onRedelivered = () => {},
    onError = printError,
    onWarning = printWarning,
  } = checks.options(options, OPTIONS);
  return {
    tasks: checkedTasks(ACTION, tasks),
    openTimeout: checks.milliseconds("openTimeout", openTimeout),
    queue: checkedQueue(ACTION, queue),
    queueSize: checks.wholeNumber("queueSize", queueSize),
    jobTimeout: jobTimeout === undefined ? undefined : checks.milliseconds("jobTimeout", jobTimeout, { infinite: true }),
    retries: retries === undefined ? undefined : checks.wholeNumber("retries", retries, { min: 0 }),
    expiresIn: checks.milliseconds("expiresIn", expiresIn, { infinite: true }),
    store: checkedStore(ACTION, payloads),
    release: checkedRelease(ACTION, release),
    onRedelivered: checks.callable("onRedelivered", onRedelivered),
    onError: checks.callable("onError", onError),
    connection: resolveConnection(ACTION, connection),
    onWarning: checks.callable("onWarning", onWarning),
  };
}
