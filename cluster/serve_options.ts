import { Checks, printError, printWarning } from "@procpool/process-pool/executor";
import { type RedisConnection, resolveConnection, type ResolvedConnection } from "./address.ts";
import { OPEN_TIMEOUT } from "./connect.ts";
import { checkedHostName, checkedQueue, checkedRelease } from "./names.ts";
import { checkedStore, type PayloadStore } from "./payloads.ts";
import { checkedTasks, type ClusterTasks } from "./tasks.ts";

/** Options of `serve`. */
export interface ServeOptions {
  /** The queue's name: letters, digits, `.`, `-` and `_`. */
  queue: string;
  /** Where Redis or Valkey is: an address, or an address with credentials. */
  connection: string | RedisConnection;
  /** What this host can run, from {@linkcode defineTasks}. */
  tasks: ClusterTasks;
  /**
   * How many jobs run at a time, each in a separate worker that can be stopped.
   *
   * @default {navigator.hardwareConcurrency}
   */
  workers?: number | undefined;
  /**
   * The host's name in `status`.
   *
   * @default {"host-" and the number of its process}
   */
  name?: string | undefined;
  /**
   * What tasks may do, as for `ProcessPool`. It must include reading the task modules.
   *
   * @default {what the host may do}
   */
  permissions?: Deno.PermissionOptions | undefined;
  /**
   * How much heap a worker may have, in MB, as for `ProcessPool`.
   *
   * @default {undefined}
   */
  memoryLimit?: number | undefined;
  /**
   * How long a job without a `timeout` may run, in milliseconds.
   *
   * @default {Infinity}
   */
  jobTimeout?: number | undefined;
  /**
   * How often a job is delivered again after its host died. With 0 a job is started at most once, so one that its host has to stop fails
   * too. Give such jobs a separate queue, as this applies to a whole queue and all its hosts must use the same value.
   *
   * @default {1}
   */
  redeliveries?: number | undefined;
  /**
   * How long a host may be silent before the queue takes it for dead, in milliseconds. Shorter, and jobs of a host that was held up for a
   * moment run twice; longer, and jobs of a dead host wait longer.
   *
   * @default {15000}
   */
  lockDuration?: number | undefined;
  /**
   * How often hosts look for jobs of dead hosts, in milliseconds.
   *
   * @default {5000}
   */
  stalledInterval?: number | undefined;
  /**
   * Where payloads that are too large for Redis go.
   *
   * @default {undefined}
   */
  payloads?: PayloadStore | undefined;
  /**
   * The release of the program: jobs of a producer that names a different one fail at once.
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
   * Called with errors that belong to no job: a lost connection, a server that is not ready yet, a job whose lock was lost, what
   * `onWarning` throws about a connection that is back.
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

const OPTIONS = [
  "queue",
  "connection",
  "tasks",
  "workers",
  "name",
  "permissions",
  "memoryLimit",
  "jobTimeout",
  "redeliveries",
  "lockDuration",
  "stalledInterval",
  "payloads",
  "release",
  "openTimeout",
  "onError",
  "onWarning",
] as const;

/** What messages say that cannot be done. */
export const ACTION = "serve queue";

/**
 * Shorter, and jobs run twice after the pauses of a busy machine; longer, and those of a dead host wait for more than half a minute. In ms.
 */
const LOCK_DURATION = 15_000;

/** Shorter, and the server is asked more often; longer, and jobs of a dead host wait for longer. In ms. */
const STALLED_INTERVAL = 5000;

/** The options of a host, checked and complete, except for those that the local pool checks. */
export interface Settings {
  queue: string;
  connection: ResolvedConnection;
  tasks: ClusterTasks;
  workers: number;
  name: string;
  permissions: Deno.PermissionOptions | undefined;
  memoryLimit: number | undefined;
  jobTimeout: number | undefined;
  redeliveries: number;
  lockDuration: number;
  stalledInterval: number;
  store: PayloadStore | undefined;
  release: string | undefined;
  openTimeout: number;
  onError: (error: unknown) => void;
  onWarning: (message: string) => void;
}

/** Checks and completes the options; the caller's object is left as it is. */
export function resolveServeOptions(options: ServeOptions): Settings {
  const checks = new Checks(ACTION);
  const {
    queue,
    connection,
    tasks,
    workers = navigator.hardwareConcurrency,
    name = `host-${Deno.pid}`,
    permissions,
    memoryLimit,
    jobTimeout,
    redeliveries = 1,
    lockDuration = LOCK_DURATION,
    stalledInterval = STALLED_INTERVAL,
    payloads,
    release,
    openTimeout = OPEN_TIMEOUT,
    onError = printError,
    onWarning = printWarning,
  } = checks.options(options, OPTIONS);
  return {
    queue: checkedQueue(ACTION, queue),
    tasks: checkedTasks(ACTION, tasks),
    redeliveries: checks.wholeNumber("redeliveries", redeliveries, { min: 0 }),
    lockDuration: checks.wholeNumber("lockDuration", lockDuration, { min: 100, max: 3_600_000 }),
    stalledInterval: checks.wholeNumber("stalledInterval", stalledInterval, { min: 100, max: 3_600_000 }),
    openTimeout: checks.milliseconds("openTimeout", openTimeout),
    onError: checks.callable("onError", onError),
    onWarning: checks.callable("onWarning", onWarning),
    name: checkedHostName(ACTION, name),
    release: checkedRelease(ACTION, release),
    store: checkedStore(ACTION, payloads),
    connection: resolveConnection(ACTION, connection),
    workers: checks.wholeNumber("workers", workers),
    permissions,
    memoryLimit,
    jobTimeout,
  };
}
