import { checkedFunc, type Task, type TaskRef } from "../job.ts";
import { CORES, hasLocks } from "../worker/platform.ts";
import type { StartThread } from "../worker/protocol.ts";
import type { OpenSlot } from "../worker/slot.ts";
import { type KnownModule, TaskTable } from "../worker/tasks.ts";
import type { OnError } from "./callbacks.ts";
import { Checks, MEMORY_LIMITS, MOST_WORKERS, show } from "./checks.ts";
import { type Clock, realClock } from "./clock.ts";
import { Measurement } from "./measurement.ts";
import type { PoolObserver } from "./observation.ts";
import { checkedPermissions, checkReadable } from "./permissions.ts";
import { printError } from "./print.ts";
import { openTrace } from "./trace.ts";

/**
 * A module whose exported functions are tasks: its address, as `import.meta.resolve("./tasks.ts")` returns it, or the address together with
 * its exports, as in `{ url: import.meta.resolve("./tasks.ts"), exports: tasks }` after `import * as tasks from "./tasks.ts"`.
 */
export type TaskModule = string | URL | { url: string | URL; exports: Record<string, unknown> };

/** The kind of thread that runs tasks: see {@linkcode ProcessPoolOptions.backend}. */
export type Backend = "worker" | "killable" | "inline";

/**
 * Options of {@linkcode ProcessPool}. Counts are positive integers, and `retries` may be 0; times are in milliseconds, from 0 to
 * 2,147,483,647, or Infinity for no limit.
 */
export interface ProcessPoolOptions {
  /**
   * The greatest number of workers: 1 to 65,536. They are started as jobs need them.
   *
   * @default {navigator.hardwareConcurrency}
   */
  maxWorkers?: number | undefined;
  /**
   * The gate's permits: how many jobs may be admitted but not yet settled. The next submission waits.
   *
   * @default {250 * maxWorkers, at least 1000}
   */
  queueSize?: number | undefined;
  /**
   * The task modules. Each worker loads them when it starts, before its first job, with the permissions of the thread that made the pool. A
   * module that makes and uses a pool when it is loaded, as a main module does, would do so in each worker too: put code that only the
   * program should run under `if (import.meta.main)`, or the tasks into a separate module.
   *
   * @default {[]}
   */
  modules?: readonly TaskModule[] | undefined;
  /**
   * What workers may do: `"none"`, or the permissions by name; one that is not named is not granted. A path may also be a `file:` URL, or
   * the text of one; relative paths are resolved against the folder that is current when the pool is made. Needs
   * `--unstable-worker-options`, or `"unstable": ["worker-options"]` in deno.json; without it Deno ends the whole program with exit code
   * 70. If left out, or `"inherit"`, which need no flag, workers have the permissions of the thread that made the pool. At a terminal Deno
   * asks for a permission that a worker lacks, unless the program is run with `--no-prompt`.
   *
   * @default {undefined}
   */
  permissions?: Deno.PermissionOptions | undefined;
  /**
   * What runs tasks:
   *
   * - `"worker"`: Web Workers, which start fastest.
   * - `"killable"`: workers of node:worker_threads, which can be stopped while they compute (except in loops that V8 never interrupts:
   *   docs/reliability.md). With `permissions` they also load their task modules, and what these import, with these permissions.
   * - `"inline"`: the calling thread, for debugging and for tasks that only wait. Nothing is copied, closures work, and a task that
   *   computes blocks the program. In a task, an AsyncLocalStorage may contain the store of another caller, unless the task is made by
   *   `AsyncLocalStorage.bind(task)`.
   *
   * @default {"worker", or "killable" for a pool with a jobTimeout or a memoryLimit}
   */
  backend?: Backend | undefined;
  /**
   * Runs once in every worker, before its first job. A worker whose initializer throws does not start. With `"inline"`, all workers share
   * the variables of a module.
   *
   * @default {undefined}
   */
  initializer?: Task | TaskRef | undefined;
  /**
   * The arguments of the initializer.
   *
   * @default {[]}
   */
  initArgs?: readonly unknown[] | undefined;
  /**
   * Runs once in every worker that is closed in an orderly way: when idle, after `maxJobsPerWorker` jobs, or at shutdown. Until it
   * has finished, the worker counts as one of the `maxWorkers`.
   *
   * @default {undefined}
   */
  finalizer?: Task<[]> | TaskRef<[]> | undefined;
  /**
   * How many jobs one worker runs at a time. More than one helps tasks that wait. Such jobs share their worker's thread, where one that
   * computes holds up the others even if another worker is idle, and they share its fate: one that is stopped, as by its time limit, ends
   * the others with a {@linkcode WorkerDiedError}, unless they have `retries`.
   *
   * @default {1}
   */
  jobsPerWorker?: number | undefined;
  /**
   * After how many jobs a worker is replaced: for tasks that leak memory. A chunk of a map counts as one.
   *
   * @default {Infinity}
   */
  maxJobsPerWorker?: number | undefined;
  /**
   * How long a job, or each item of a map, may run, in milliseconds from when a worker starts it. It then fails with a
   * {@linkcode JobTimeoutError} and is stopped as far as the backend can: with this option the default backend is `"killable"`.
   *
   * @default {Infinity}
   */
  jobTimeout?: number | undefined;
  /**
   * How long a worker may take to load its modules and run its initializer, and how long to run its finalizer, in milliseconds. A worker
   * that is not ready by then is stopped and counts as failed to start; one that has not closed is stopped and reported to `onError`. While
   * the calling thread is busy without a pause, at most a tenth of this time is counted.
   *
   * @default {60000}
   */
  startTimeout?: number | undefined;
  /**
   * How much heap a worker may have, in MB: 16 to 65,536. The job that fills it fails with a {@linkcode MemoryLimitError}, and its worker
   * is replaced; that is noticed within half a second. The contents of typed arrays and ArrayBuffers lie outside the heap and do not count.
   * A single value of several times the limit may go unnoticed, or end the whole program: see docs/reliability.md. Only the backend
   * `"killable"` can do this, and it is the default with this option; in a Web Worker a full heap ends the whole program.
   *
   * @default {V8's own limit, usually about 4,000}
   */
  memoryLimit?: number | undefined;
  /**
   * How often a job is run again after its worker died or filled its heap. A job's own `retries` take precedence.
   *
   * @default {0}
   */
  retries?: number | undefined;
  /**
   * After how many milliseconds without a job a worker is closed; another is started when needed. An idle worker keeps the program alive,
   * so a program that forgot to shut its pool down lingers for this long. Infinity keeps workers forever.
   *
   * @default {3000}
   */
  idleTimeout?: number | undefined;
  /**
   * Called with errors that belong to no future: what a callback or a finalizer throws, the death of an idle worker.
   *
   * @default {console.error}
   */
  onError?: ((error: unknown) => void) | undefined;
  /**
   * Writes a trace for https://ui.perfetto.dev and chrome://tracing: which worker ran which job when, how long each job had waited, and how
   * many were waiting when. A path needs permission to write, and the file belongs to this pool alone until the pool is done. A stream of
   * bytes, such as a file's `writable`, is closed when the pool is done. The trace is written as the run goes on; what a stream does not
   * take in time is held in memory.
   *
   * @default {undefined}
   */
  trace?: string | URL | WritableStream<Uint8Array> | WritableStream<BufferSource> | undefined;
  /**
   * Whether to measure how long jobs wait and run, for `stats().measured`. It costs the calling thread about half a microsecond per job.
   *
   * @default {false}
   */
  measure?: boolean | undefined;
  /**
   * Observers, which are told at once what happens in the pool. Traces and measurements are built on the same interface.
   *
   * @default {[]}
   */
  observers?: readonly PoolObserver[] | undefined;
}

/** The options of a pool, checked and complete. */
export interface ResolvedOptions {
  maxWorkers: number;
  queueSize: number;
  modules: KnownModule[];
  /** Whether the modules may be imported on this thread. */
  mayImport: boolean;
  inline: boolean;
  /** Whether a result must have left the worker before the next item of a chunk begins, as the worker may be killed. */
  eager: boolean;
  initializer: Task | TaskRef | undefined;
  initArgs: unknown[];
  finalizer: Task | TaskRef | undefined;
  jobsPerWorker: number;
  maxJobsPerWorker: number;
  jobTimeout: number;
  startTimeout: number;
  retries: number;
  idleTimeout: number;
  onError: OnError;
  /** Undefined if it has to be loaded first. */
  openSlot: OpenSlot | undefined;
  /** Throws synchronously if no worker may be started now, even if one could be once everything is loaded. */
  load: () => Promise<OpenSlot>;
  clock: Clock;
  tasks: TaskTable;
  measurement: Measurement | undefined;
  observers: PoolObserver[];
}

/** What a pool needs of the outside world; the simulation replaces it. */
export interface Environment {
  openSlot?: OpenSlot | undefined;
  load?: (() => Promise<OpenSlot>) | undefined;
  clock: Clock;
}

/** The key under which the simulation passes a pool its {@linkcode Environment}. */
export const ENVIRONMENT: unique symbol = Symbol("environment");

/**
 * The default of `queueSize`: this many per worker, and at least this many in all. With fewer, workers with tiny jobs wait for the caller,
 * which hands out as many in a turn however many workers there are (at 30 a worker they wait most of the time). With more, waiting jobs
 * hold memory and nothing is faster: see `bench/queue_size.ts`.
 */
const QUEUE_SIZE_PER_WORKER = 250, LEAST_QUEUE_SIZE = 1000;

/**
 * Shorter, and a pool that is used in bursts restarts its workers for each burst (15 to 60 ms); longer, and a program that forgot to shut
 * its pool down seems to hang.
 */
const IDLE_TIMEOUT = 3000;

/**
 * Shorter, and an initializer that loads a large model might be taken for hung; longer, and a night may be lost to one that really hangs.
 */
const START_TIMEOUT = 60_000;

/** The most jobs that a worker may run at a time: their claims take 12 MB per worker. No sensible value comes near. */
const MOST_AT_A_TIME = 1_000_000;

const OPTIONS = [
  "maxWorkers",
  "queueSize",
  "modules",
  "permissions",
  "backend",
  "initializer",
  "initArgs",
  "finalizer",
  "jobsPerWorker",
  "maxJobsPerWorker",
  "jobTimeout",
  "startTimeout",
  "memoryLimit",
  "retries",
  "idleTimeout",
  "onError",
  "trace",
  "measure",
  "observers",
] as const;

const ACTION = "create pool";

/** What the threads of a pool have in common. */
interface ThreadOptions {
  modules: readonly string[];
  known: readonly KnownModule[];
  permissions: Deno.PermissionOptions | undefined;
  memoryLimit: number | undefined;
}

const BACKENDS: Record<Backend, (options: ThreadOptions) => Promise<StartThread>> = {
  worker: async ({ modules, permissions }) => (await import("../worker/web_worker.ts")).webWorkers(modules, permissions),
  killable: async (options) => (await import("../worker/node_worker.ts")).killableWorkers(options),
  inline: async ({ known }) => (await import("../worker/inline.ts")).inlineThreads(known),
};

/** The global that a worker has while it loads its task modules: `workerMain` sets it. */
const LOADING = Symbol.for("process-pool.loading");

/**
 * Refuses to start workers from a task module that is being loaded: usually it is the main module, which they would load in turn, without
 * end.
 *
 * @throws {Error} If task modules are being loaded on this thread.
 */
function checkLoaded(modules: readonly string[]): void {
  if (modules.length === 0 || !(LOADING in globalThis)) return;
  throw new Error(
    "Cannot start worker as this is a worker that still loads its task modules, and they would be loaded without end: " +
      "make the pool in a module that no task needs, or where 'import.meta.main' is true",
  );
}

/** Refuses an older Deno, whose workers would fail to start for a reason that tells nobody what to do. */
function checkPlatform(): void {
  if (hasLocks()) return;
  throw new Deno.errors.NotSupported(`Cannot ${ACTION} as workers need Deno 2.9 or newer: current version is ${Deno.version.deno}`);
}

/** Checks and completes the options; the caller's object is left as it is. */
export function resolveOptions(options: ProcessPoolOptions): ResolvedOptions {
  const checks = new Checks(ACTION);
  const {
    maxWorkers = CORES,
    queueSize,
    modules = [],
    permissions: wanted,
    jobTimeout = Infinity,
    startTimeout = START_TIMEOUT,
    memoryLimit,
    retries = 0,
    backend = jobTimeout === Infinity && memoryLimit === undefined ? "worker" : "killable",
    initializer,
    initArgs,
    finalizer,
    jobsPerWorker = 1,
    maxJobsPerWorker = Infinity,
    idleTimeout = IDLE_TIMEOUT,
    onError = printError,
    trace,
    measure = false,
    observers = [],
    [ENVIRONMENT]: environment,
  }: ProcessPoolOptions & { [ENVIRONMENT]?: Environment } = checks.options(options, OPTIONS);

  checks.wholeNumber("maxWorkers", maxWorkers, { max: MOST_WORKERS });
  checks.oneOf("backend", backend, ["worker", "killable", "inline"]);
  const inline = backend === "inline";
  if (!inline) checkPlatform();
  const known = checks.array("modules", modules).map((module, i) => resolveModule(module, i));
  // Deno inherits by default, and demands the unstable feature if told to do so.
  const permissions = wanted === undefined || wanted === "inherit" ? undefined : checkedPermissions(wanted);
  checkTogether({ backend, permissions, initializer, initArgs, memoryLimit });
  if (memoryLimit !== undefined) checks.wholeNumber("memoryLimit", memoryLimit, MEMORY_LIMITS);
  const urls = known.map(({ url }) => url);
  if (permissions !== undefined && backend === "killable") checkReadable(permissions, urls);
  if (maxJobsPerWorker !== Infinity) checks.wholeNumber("maxJobsPerWorker", maxJobsPerWorker);
  const args = checks.array("initArgs", initArgs === undefined ? [] : initArgs);
  const resolved: Omit<ResolvedOptions, "tasks" | "observers" | "measurement"> = {
    maxWorkers,
    queueSize: checks.wholeNumber(
      "queueSize",
      queueSize === undefined ? Math.max(LEAST_QUEUE_SIZE, QUEUE_SIZE_PER_WORKER * maxWorkers) : queueSize,
    ),
    modules: known,
    mayImport: permissions === undefined,
    inline,
    eager: backend === "killable",
    initializer: initializer === undefined ? undefined : checkedFunc(ACTION, "initializer", initializer),
    initArgs: inline ? [...args] : copied(args),
    finalizer: finalizer === undefined ? undefined : checkedFunc(ACTION, "finalizer", finalizer),
    jobsPerWorker: checks.wholeNumber("jobsPerWorker", jobsPerWorker, { max: MOST_AT_A_TIME }),
    maxJobsPerWorker,
    jobTimeout: checks.milliseconds("jobTimeout", jobTimeout, { infinite: true }),
    startTimeout: checks.milliseconds("startTimeout", startTimeout, { infinite: true }),
    retries: checks.wholeNumber("retries", retries, { min: 0 }),
    idleTimeout: checks.milliseconds("idleTimeout", idleTimeout, { infinite: true }),
    onError: checks.callable("onError", onError),
    openSlot: environment?.openSlot,
    load: environment?.load ?? loader(backend, { modules: urls, known, permissions, memoryLimit }),
    clock: environment?.clock ?? realClock,
  };
  const given = checks.array("observers", observers).map((each, i) => checks.object(`observers[${i}]`, each) as PoolObserver);
  const measurement = checks.boolean("measure", measure) ? new Measurement(resolved.clock) : undefined;
  const tasks = new TaskTable(resolved);
  for (const task of [resolved.initializer, resolved.finalizer]) if (task !== undefined) tasks.check(task);
  // Last, as it creates a file, which must not exist if anything else is wrong.
  const writer = trace === undefined ? undefined : openTrace(trace, resolved.onError);
  return { ...resolved, tasks, measurement, observers: [...given, measurement, writer].filter((each) => each !== undefined) };
}

/** Refuses options that cannot go together. */
function checkTogether(
  { backend, permissions, initializer, initArgs, memoryLimit }: ProcessPoolOptions & { backend: Backend },
): void {
  if (permissions !== undefined && backend === "inline") {
    throw new TypeError(`Cannot ${ACTION} as the backend "${backend}" has the permissions of the calling thread: leave 'permissions' out`);
  }
  if (initArgs !== undefined && initializer === undefined) {
    throw new TypeError(`Cannot ${ACTION} as 'initArgs' need an 'initializer': current value is undefined`);
  }
  if (memoryLimit !== undefined && backend !== "killable") {
    throw new TypeError(`Cannot ${ACTION} as the backend "${backend}" cannot keep a 'memoryLimit': leave one of them out`);
  }
}

/**
 * Makes what loads the code that a pool needs from its first worker on: with what runs in workers it is two fifths of all code. Importing
 * the pool does not wait for it.
 */
function loader(backend: Backend, options: ThreadOptions): () => Promise<OpenSlot> {
  return () => {
    if (backend !== "inline") checkLoaded(options.modules);
    return Promise.all([import("../worker/slot.ts"), BACKENDS[backend](options)]).then(([{ slotsOf }, start]) => slotsOf(start));
  };
}

function resolveModule(given: unknown, index: number): KnownModule {
  const { url, exports } = typeof given === "object" && given !== null && "url" in given
    ? given as { url: unknown; exports: unknown }
    : { url: given, exports: undefined };
  if (typeof url !== "string" && !(url instanceof URL)) throw moduleError(index, given);
  if (typeof given === "object" && "url" in given! && (typeof exports !== "object" || exports === null)) {
    throw new TypeError(
      `Cannot ${ACTION} as 'modules[${index}].exports' must be what the module exports: current value is ${show(exports)}`,
    );
  }
  // On Windows a path begins like a URL, with a letter and a colon.
  if (!URL.canParse(url) || /^[a-z]:/i.test(String(url))) throw moduleError(index, url);
  return { url: new URL(url).href, exports: exports as Record<string, unknown> | undefined };
}

function moduleError(index: number, value: unknown): TypeError {
  return new TypeError(
    `Cannot ${ACTION} as 'modules[${index}]' must be the address of a module, such as import.meta.resolve("./tasks.ts"), or { url, exports }: ` +
      `current value is ${show(value)}`,
  );
}

/** Copies now, so that what cannot be copied is refused before any worker starts. */
function copied(initArgs: unknown[]): unknown[] {
  try {
    return structuredClone(initArgs);
  } catch (cause) {
    throw new TypeError(`Cannot ${ACTION} as 'initArgs' must be cloneable: ${(cause as Error).message}`, { cause });
  }
}
