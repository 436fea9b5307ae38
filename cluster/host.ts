import { JobCancelledError, PoolBrokenError, type PoolStats, ProcessPool, WorkerDiedError } from "@procpool/process-pool";
import { Checks, FutureMaker } from "@procpool/process-pool/executor";
import { type Job as QueuedJob, UnrecoverableError, WaitingError } from "bullmq";
import type { Redis } from "ioredis";
import { type Called, CallRunner, CANCELLED, EXPIRED, showCalled } from "./call_runner.ts";
import { connect } from "./connect.ts";
import type { Connection } from "./connection.ts";
import { FORGOTTEN, isUnwanted, readEnvelope, type Reply, writeFailure } from "./envelope.ts";
import { cancelChannel, cancelMessage, PREFIX, queueName } from "./names.ts";
import { ACTION, resolveServeOptions, type ServeOptions, type Settings } from "./serve_options.ts";
import { mayPass, plain, REFUSED_PAUSE, refusesWrites, tellOnce } from "./server_errors.ts";
import { METRICS_MINUTES } from "./status.ts";
import type { ClusterTask } from "./tasks.ts";
import { LockedWorker } from "./worker.ts";

/** How long running jobs may take when the host is told to stop, in ms: longer ones are given back and start anew elsewhere. */
const GRACE = 10_000;

/** How long the server may take to hear that jobs are given back, in ms. If it is away they are left to be found by other hosts. */
const FAREWELL = 3000;

/** How many cancelled jobs are remembered. Fewer, and one of a burst that the host takes at that moment runs on; more only take memory. */
const MOST_CANCELLED = 10_000;

/** Why a local job is stopped that goes back into the queue. */
const HANDED_BACK = Symbol("handed back");
/** Why a local job is stopped whose lock has expired: the queue gives it to another host. */
const LOCK_LOST = Symbol("lock lost");

/**
 * Runs the jobs of a queue on this machine, until it is shut down. They run in a local pool of killable workers, so that a task that
 * computes holds up nothing: the host's own thread only talks to Redis.
 *
 * @param options Which queue, which tasks, how many workers.
 * @returns The host, as soon as it takes jobs.
 *
 * @throws {TypeError} If an option is unknown or of the wrong type.
 * @throws {RangeError} If a number is out of its range.
 * @throws {Error} If the server cannot be reached or is not ready in time, or does not accept the host.
 * @throws {PoolBrokenError} If no worker can be started, for example because a task module cannot be loaded.
 *
 * @example A host of two workers
 * ```ts ignore
 * import { defineTasks, serve } from "@procpool/cluster";
 *
 * const tasks = defineTasks({ resize: import.meta.resolve("./tasks.ts") });
 * const told = new Promise((resolve) => Deno.addSignalListener("SIGTERM", () => resolve(undefined)));
 * await using host = await serve({ queue: "images", connection: "redis://127.0.0.1:6379", tasks, workers: 2 });
 * await Promise.race([told, host.finished]);
 * ```
 */
export async function serve(options: ServeOptions): Promise<ClusterHost> {
  const resolved = resolveServeOptions(options);
  const { tasks, workers, permissions, memoryLimit, jobTimeout, onError, onWarning } = resolved;
  const maker = new FutureMaker(onError);
  // What `onError` itself throws must stop nothing here.
  const report = (error: unknown): void => maker.report(error);
  const pool = new ProcessPool({
    maxWorkers: workers,
    modules: [...new Set(Object.values<ClusterTask>(tasks).map(({ module }) => module))],
    backend: "killable",
    permissions,
    memoryLimit,
    jobTimeout,
    onError,
  });
  let server: Connection;
  try {
    const common = { queue: resolved.queue, timeout: resolved.openTimeout, onError: report, onWarning };
    server = await connect(resolved.connection, { action: ACTION, command: "DEL", ...common });
  } catch (error) {
    await pool.terminate();
    throw error;
  }
  const host = new Host(server, pool, { ...resolved, onError: report });
  try {
    await host.start();
  } catch (error) {
    await host.shutdown({ timeout: 0 });
    throw error;
  }
  return host;
}

/** What {@linkcode serve} returns: a host that takes jobs until it is shut down. */
export interface ClusterHost extends AsyncDisposable {
  /** The name of the host. */
  readonly name: string;
  /** Resolves when it has shut down; rejects if it had to because its workers could no longer be started. */
  readonly finished: Promise<void>;
  /** What the local pool holds, and what it has done so far. */
  stats(): PoolStats;
  /**
   * Takes no more jobs and lets running ones finish; those that do not in time go back into the queue, for other hosts, or fail with a
   * `WorkerDiedError` if `redeliveries` is 0. Calling it twice is harmless.
   *
   * @param options How long jobs may take; by default 10 seconds.
   *
   * @throws {TypeError} If an option is unknown or of the wrong type.
   * @throws {RangeError} If `timeout` is neither from 0 to 2,147,483,647 nor Infinity.
   */
  shutdown(options?: HostShutdownOptions): Promise<void>;
}

/** Options of {@linkcode ClusterHost.shutdown}. */
export interface HostShutdownOptions {
  /**
   * How long running jobs may take to finish, in milliseconds.
   *
   * @default {10000}
   */
  timeout?: number | undefined;
}

/** A running job. */
interface Run {
  controller: AbortController;
  /** The message that asks to stop it. */
  cancelMessage: string;
}

/** A worker of BullMQ in front of a pool of ours: takes jobs from the queue, and hears of those to be stopped. */
class Host implements ClusterHost {
  #server: Connection;
  #subscriber: Redis;
  #pool: ProcessPool;
  #runner: CallRunner;
  #worker: LockedWorker;
  #options: Settings;
  #tell: (error: Error) => void;
  /** The running jobs, by the names under which they travel. */
  #active = new Map<string, Run>();
  /** Recently cancelled jobs that did not run here: one of them may have been on its way from the queue. */
  #cancelled = new Set<string>();
  #end: Promise<void> | undefined;
  /** Whether the time for running jobs is over: what the queue still gives the host goes back. */
  #givesBack = false;
  /** Why it takes no more jobs, if it was not told to stop. */
  #defect: PoolBrokenError | undefined;
  #finished = Promise.withResolvers<void>();

  constructor(server: Connection, pool: ProcessPool, options: Settings) {
    const { client } = server;
    const { queue, name, workers, lockDuration, stalledInterval, redeliveries, onError } = options;
    this.#server = server;
    this.#pool = pool;
    this.#options = options;
    this.#runner = new CallRunner(pool, options, {
      broken: (error) => this.#breakDown(error),
      argumentsGone: (id) => this.#stopUnwanted([id]),
    });
    // It listens again below: if the client did that itself, nobody could catch a failure.
    this.#subscriber = client.duplicate({ autoResubscribe: false });
    this.#subscriber.on("error", () => {});
    this.#worker = new LockedWorker(queueName(queue), (job, token) => this.#process(job, token!), {
      connection: client,
      prefix: PREFIX,
      name,
      autorun: false,
      skipVersionCheck: true,
      concurrency: workers,
      lockDuration,
      stalledInterval,
      maxStalledCount: redeliveries,
      metrics: { maxDataPoints: METRICS_MINUTES },
      lockLost: (id) => this.#active.get(id)?.controller.abort(LOCK_LOST),
    });
    const tell = tellOnce(client, onError);
    this.#tell = (error) => {
      // The connection reports its own errors, and a lost lock is reported below.
      if (!/ECONN|EPIPE|Connection is closed|could not renew lock/.test(error.message)) tell(error);
    };
    this.#worker.on("error", this.#tell);
    this.#worker.on("locksRenewed", ({ jobIds }) => this.#stopUnwanted(jobIds));
    // Nobody has to use this promise.
    this.#finished.promise.catch(() => {});
  }

  get name(): string {
    return this.#options.name;
  }

  get finished(): Promise<void> {
    return this.#finished.promise;
  }

  stats(): PoolStats {
    return this.#pool.stats();
  }

  /** Begins to take jobs. */
  async start(): Promise<void> {
    // A module that cannot be loaded must fail the host, and not the first jobs.
    await this.#pool.warmUp();
    this.#subscriber.on("message", (_channel: string, message: string) => this.#cancel(message));
    const { queue } = this.#options;
    const channel = cancelChannel(queue, this.#server.client);
    // Messages sent while it was away are not repeated. It listens again before it asks, so that nothing is missed in between.
    const listenAgain = (): void => {
      this.#subscriber.subscribe(channel).then(() => this.#stopUnwanted([...this.#active.keys()]), this.#tell);
    };
    const listening = this.#listen(channel).then(() => this.#subscriber.on("ready", listenAgain));
    const connected = Promise.all([listening, this.#worker.waitUntilReady()]);
    await this.#server.ready(connected);
    this.#worker.run().catch((error) => this.#options.onError(plain(error)));
  }

  /** Listens for the first time. The server was ready, but may be busy again: workers take a while to start. */
  async #listen(channel: string): Promise<void> {
    for (;;) {
      try {
        return void await this.#subscriber.subscribe(channel);
      } catch (error) {
        if (!mayPass(error as Error)) throw error;
        this.#tell(error as Error);
        await this.#worker.delay(REFUSED_PAUSE);
      }
    }
  }

  async shutdown(options: HostShutdownOptions = {}): Promise<void> {
    const checks = new Checks("shut down host");
    const { timeout = GRACE } = checks.options(options, ["timeout"]);
    checks.milliseconds("timeout", timeout, { infinite: true });
    await (this.#end ??= this.#shutDown(timeout));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  async #shutDown(timeout: number): Promise<void> {
    const closed = this.#worker.close();
    const end = performance.now() + timeout;
    const left = (): number => Math.max(0, end - performance.now());
    do {
      await settledWithin(this.#worker.idle(), left());
      // Between two jobs nothing is in progress either. If it does not close then, it is waiting for a connection to be made again.
    } while (!await settledWithin(closed, Math.min(left(), FAREWELL)) && this.#worker.underWay > 0 && left() > 0);
    this.#givesBack = true;
    for (const { controller } of this.#active.values()) controller.abort(HANDED_BACK);
    const heard = await settledWithin(closed, FAREWELL);
    const { underWay } = this.#worker;
    if (!heard && underWay > 0) {
      this.#options.onError(new Error(`Left ${underWay} jobs for other hosts to find, as the server does not answer or takes no writes`));
    }
    if (!heard) this.#server.end();
    await settledWithin(closed, FAREWELL);
    this.#server.end();
    await this.#pool.terminate();
    if (this.#defect === undefined) this.#finished.resolve();
    else this.#finished.reject(this.#defect);
  }

  /** Stops a job that runs here. */
  #cancel(message: string): void {
    const id = message.split(" ", 1)[0]!;
    const run = this.#active.get(id);
    // A job that was already stopped may be waiting for its next run here, which must not begin.
    if (run !== undefined && !run.controller.signal.aborted && message === run.cancelMessage) return run.controller.abort(CANCELLED);
    this.#cancelled.add(id);
    if (this.#cancelled.size > MOST_CANCELLED) this.#cancelled.delete(this.#cancelled.values().next().value!);
  }

  /** Stops jobs here that the queue no longer wants: a message to a host that was not listening is lost. */
  async #stopUnwanted(ids: string[]): Promise<void> {
    const runs = ids.flatMap((id) => {
      const run = this.#active.get(id);
      return run === undefined ? [] : [{ id, ...run }];
    });
    const pipeline = this.#server.client.pipeline();
    for (const { id } of runs) pipeline.hget(this.#worker.toKey(id), "data");
    try {
      for (const [i, [, data]] of (await pipeline.exec() ?? []).entries()) {
        if (typeof data === "string" && isUnwanted(data)) runs[i]!.controller.abort(CANCELLED);
      }
    } catch (error) {
      this.#tell(error as Error);
    }
  }

  async #process(job: QueuedJob, token: string): Promise<Reply> {
    if (this.#givesBack) {
      await this.#giveBack(job, token);
      throw new WaitingError();
    }
    if ((job.name as string | undefined) === undefined) {
      job.opts.removeOnFail = true;
      throw new UnrecoverableError(FORGOTTEN);
    }
    const id = job.id!;
    const controller = new AbortController();
    this.#active.set(id, { controller, cancelMessage: cancelMessage(id, job.timestamp) });
    let called: Called = { jobId: id, taskName: job.name };
    try {
      // A cancelled job may have been submitted again under the same name: the queue knows.
      const data = this.#cancelled.delete(id) ? await this.#readAgain(job, controller.signal) : job.data;
      const envelope = readEnvelope(data);
      called = { jobId: envelope.id ?? envelope.first ?? id, taskName: envelope.task };
      return await this.#runner.run(id, envelope, { called, signal: controller.signal });
    } catch (error) {
      // A host without workers must not attract all jobs and fail them.
      const noWorkers = this.#runner.hasNoWorkers(error);
      if (noWorkers && error instanceof PoolBrokenError) this.#breakDown(error);
      if (error === LOCK_LOST) {
        this.#options.onError(new Error(`Stopped ${showCalled(called)} as its lock has expired: the queue gives it to another host`));
      } else if (error === EXPIRED || error === CANCELLED || controller.signal.reason === CANCELLED) {
        // Its id is free again, like that of a job taken out of the queue; also if the store fails, which no longer has its arguments.
        job.opts.removeOnFail = true;
        throw failure(error === EXPIRED ? expired(called) : cancelled(called));
      } else if (error === HANDED_BACK && this.#options.redeliveries === 0) throw failure(stopped(called));
      else if (error === HANDED_BACK || noWorkers) await this.#giveBack(job, token);
      else throw failure(error);
      throw new WaitingError();
    } finally {
      this.#active.delete(id);
    }
  }

  /** Gives a job back. If the server refuses, others find it when its lock has expired. */
  async #giveBack(job: QueuedJob, token: string): Promise<void> {
    try {
      await job.moveToWait(token);
    } catch (error) {
      this.#tell(error as Error);
    }
  }

  /** A job's data as it is in the queue now. A busy server is asked again, as long as the job may run here. */
  async #readAgain(job: QueuedJob, signal: AbortSignal): Promise<unknown> {
    let data: string | null | undefined;
    while (data === undefined) {
      signal.throwIfAborted();
      try {
        data = await this.#server.client.hget(this.#worker.toKey(job.id!), "data");
      } catch (error) {
        if (!refusesWrites(error as Error)) throw error;
        this.#tell(error as Error);
        await this.#worker.delay(REFUSED_PAUSE);
      }
    }
    return data === null ? job.data : JSON.parse(data);
  }

  #breakDown(error: PoolBrokenError): void {
    if (this.#defect !== undefined) return;
    this.#defect = error;
    this.#options.onError(error);
    this.shutdown({ timeout: 0 });
  }
}

function cancelled(called: Called): JobCancelledError {
  return new JobCancelledError(`Cancelled ${showCalled(called)}`, called);
}

function expired(called: Called): JobCancelledError {
  const cause = new DOMException("It is too late to start the job", "TimeoutError");
  return new JobCancelledError(`Cancelled ${showCalled(called)} as it came to a host too late`, { ...called, cause });
}

/** The error of a job that its host may not give back, since it was started. */
function stopped(called: Called): WorkerDiedError {
  return new WorkerDiedError(`Stopped ${showCalled(called)} as its host was told to stop, and it is not delivered again`, called);
}

/** The error with which BullMQ fails a job for good. It keeps the message of an error, and the stack, which is already in the message. */
function failure(error: unknown): UnrecoverableError {
  const failure = new UnrecoverableError(JSON.stringify(writeFailure(error)));
  failure.stack = "";
  return failure;
}

/** Whether a promise settles in time. */
async function settledWithin(promise: Promise<unknown>, timeout: number): Promise<boolean> {
  if (timeout === Infinity) return await promise.then(() => true, () => true);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<false>((resolve) => timer = setTimeout(() => resolve(false), timeout));
  const settled = await Promise.race([promise.then(() => true, () => true), late]);
  clearTimeout(timer);
  return settled;
}
