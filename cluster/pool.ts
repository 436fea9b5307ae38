import {
  type Future,
  Job,
  JobCancelledError,
  type JobResult,
  type MapOptions,
  PoolClosedError,
  Semaphore,
  type ShutdownOptions,
  type Task,
  type TaskRef,
  WorkerDiedError,
} from "@procpool/process-pool";
import { Checks, FutureMaker, type Outcome, show, showJob } from "@procpool/process-pool/executor";
import { argumentsOf, checkedJob, travelIdOf, writeArguments, writeCall, writeItems } from "./calls.ts";
import { connect } from "./connect.ts";
import { type Envelope, readFailedReason, readItem, readReply, type Reply } from "./envelope.ts";
import { Errands } from "./errands.ts";
import { type Ending, Link } from "./link.ts";
import { type Chunk, type ChunkOutcomes, mapChunks, type RunOptions } from "./map.ts";
import { uniqueName } from "./names.ts";
import { isTooLarge, Payloads, unreadable } from "./payloads.ts";
import { ACTION, type ClusterPoolOptions, resolvePoolOptions, type Settings } from "./pool_options.ts";
import { plain } from "./server_errors.ts";
import type { ClusterStatus } from "./status.ts";
import { ChunkTicket, JobTicket, type Ticket, type TicketOwner } from "./ticket.ts";
import { type ClusterTask, type ClusterTasks, TaskFinder } from "./tasks.ts";
import { fromJson, type Json, toJson } from "./values.ts";

/** What {@linkcode ClusterPool.stats} returns, about this pool's own jobs. {@linkcode ClusterPool.status} is about the whole cluster. */
export interface ClusterStats {
  /** Jobs and chunks that a host has started, as far as is known here. */
  running: number;
  /** Jobs and chunks that have passed the gate but that no host has started. */
  queued: number;
  /** Submissions that wait at the gate. */
  waiting: number;
  /** Jobs that returned. Each item of a map counts as a job. */
  finished: number;
  /** Jobs that threw, or were lost. */
  failed: number;
  /** Jobs that were cancelled or aborted. */
  cancelled: number;
  /** How often a job or a chunk was delivered again. */
  redelivered: number;
}

/** How long a pool that is terminated waits for the store to delete what is unwanted, in ms. */
const FAREWELL = 3000;

/**
 * How many chunks of a map may be in flight at most, however many permits the gate has: the core's map, which waits for them, accepts no
 * more. Fewer, and the largest clusters would idle.
 */
const MOST_CHUNKS = 65_536;

/**
 * A pool whose workers are on other machines. It has the interface of `ProcessPool`, with these differences: it is opened, not constructed;
 * tasks are those named by {@linkcode defineTasks}; arguments and results are JSON and bytes; and a job whose host dies is run again, so a
 * job may run more than once, while its future settles once.
 *
 * @example Jobs of a cluster
 * ```ts ignore
 * import { ClusterPool, defineTasks } from "@procpool/cluster";
 * import { factorize } from "./tasks.ts";
 *
 * const tasks = defineTasks({ factorize: import.meta.resolve("./tasks.ts") });
 * await using pool = await ClusterPool.open({ queue: "numbers", connection: "redis://127.0.0.1:6379", tasks });
 * console.log(await pool.run(factorize, 60));
 * for await (const factors of pool.map(factorize, [1, 2, 3])) console.log(factors);
 * ```
 */
export class ClusterPool implements AsyncDisposable {
  #link: Link;
  #payloads: Payloads | undefined;
  #settings: Settings;
  #tasks: ClusterTasks;
  #finder: TaskFinder;
  #gate: Semaphore;
  #maker: FutureMaker;
  #tickets = new Set<Ticket>();
  /** How many chunks of maps are under way. When a ticket for one has settled, the rest of the chunk has no ticket for a moment. */
  #chunks = 0;
  #counts = { finished: 0, failed: 0, cancelled: 0, redelivered: 0 };
  /** A pool that is "cancelling" is closing as well, and sends nothing more of chunks that were admitted. */
  #state: "open" | "closing" | "cancelling" | "closed" = "open";
  /** Resolves when nothing is left to do; made when it begins to close. */
  #end: PromiseWithResolvers<void> | undefined;
  /** Resolves when the connection is closed. */
  #unlinked: Promise<void> | undefined;
  /** Resolves when the store has finished, or is no longer waited for. */
  #errandsDone: Promise<void> | undefined;
  /** What has its arguments put into the store: the link does not know it yet. Each resolves when that does, or it has settled. */
  #storing = new Map<Ticket, PromiseWithResolvers<void>>();
  /** Operations in the store for settled jobs. */
  #errands = new Errands((error) => this.#maker.report(error));
  /** Resolves when the store is no longer waited for. */
  #hurried = Promise.withResolvers<void>();

  private constructor(link: Link, settings: Settings, maker: FutureMaker) {
    this.#link = link;
    this.#payloads = settings.store && new Payloads(settings.store, settings.queue);
    this.#settings = settings;
    this.#tasks = settings.tasks;
    this.#finder = new TaskFinder(settings.tasks);
    this.#gate = new Semaphore(settings.queueSize);
    this.#maker = maker;
  }

  /**
   * Connects to the queue.
   *
   * @param options Which queue, which tasks.
   * @returns The pool, once it is connected.
   *
   * @throws {TypeError} If an option is unknown or of the wrong type.
   * @throws {RangeError} If a number is out of its range.
   * @throws {Error} If the server cannot be reached or is not ready within `openTimeout`, or does not accept the pool. The message contains
   * no password.
   */
  static async open(options: ClusterPoolOptions): Promise<ClusterPool> {
    const settings = resolvePoolOptions(options);
    const maker = new FutureMaker(settings.onError);
    const report = (error: unknown): void => maker.report(error);
    const { connection, queue, openTimeout: timeout, onWarning } = settings;
    // Looking at the queue does not need write permission.
    const server = await connect(connection, { action: ACTION, queue, command: "EXISTS", timeout, onError: report, onWarning });
    try {
      return new ClusterPool(await Link.open(server, queue, report), settings, maker);
    } catch (error) {
      server.end();
      throw error;
    }
  }

  /**
   * Submits a job, waiting at the gate until it is admitted. If its id is a string, the job has that name in the whole cluster: one that
   * the queue already knows is not run again, and the future gets its result.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns, or what its promise resolves with.
   * @param job The job.
   * @returns The job's future, as soon as the job is admitted.
   *
   * @throws {PoolClosedError} If the pool is shut down, or shuts down while this waits.
   * @throws {unknown} The reason of the job's signal, if that aborts before the job is admitted; what the task's `validate` throws.
   * @throws {TypeError} If the task is not one of the pool's, the arguments cannot be expressed in JSON, or the id is neither a well-formed
   * string nor a finite number.
   * @throws {RangeError} If the arguments are too large and there is no store for them, or the id is too long.
   */
  submit<A extends unknown[], R>(job: Job<A, R>): Promise<Future<R>>;
  /**
   * Submits one of several jobs with different result types, waiting at the gate until it is admitted.
   *
   * @typeParam J The jobs.
   * @param job The job.
   * @returns The job's future, as soon as the job is admitted.
   *
   * @throws {unknown} The same as for a job of a single type.
   */
  // deno-lint-ignore no-explicit-any -- the arguments are of no concern here
  submit<J extends Job<any[], unknown>>(job: J): Promise<Future<JobResult<J>>>;
  /**
   * Submits a call of a task, waiting at the gate until it is admitted.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns.
   * @param task The task.
   * @param args Its arguments. They are copied at once.
   * @returns The job's future, as soon as the job is admitted. {@linkcode ClusterPool.attach} takes its id.
   *
   * @throws {PoolClosedError} If the pool is shut down, or shuts down while this waits.
   * @throws {TypeError} If the task is not one of the pool's, or the arguments cannot be expressed in JSON.
   * @throws {RangeError} If the arguments are too large and there is no store for them.
   */
  // An overload of its own here and below: in a union with names, a generic function would lose its types.
  submit<A extends unknown[], R>(task: (...args: A) => R, ...args: A): Promise<Future<Awaited<R>>>;
  /**
   * Submits a call of a task that may be given by name, waiting at the gate until it is admitted.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns.
   * @param task The task.
   * @param args Its arguments.
   * @returns The job's future, as soon as the job is admitted.
   *
   * @throws {unknown} The same as for a function.
   */
  submit<A extends unknown[], R>(task: ((...args: A) => R) | TaskRef<A, R>, ...args: A): Promise<Future<Awaited<R>>>;
  async submit(what: Job<never[], unknown> | Task | TaskRef, ...args: unknown[]): Promise<Future<unknown>> {
    this.#refuseIfNotOpen("submit to pool");
    const job = checkedJob(what, args);
    const { signal } = job;
    signal?.throwIfAborted();
    const travelId = typeof job.id === "string"
      ? travelIdOf(job.id, { action: "submit job", queue: this.#settings.queue })
      : `job-${uniqueName()}`;
    let given = argumentsOf(job);
    // Synchronously for a known task, so that submissions pass the gate in the order of the calls.
    let task = this.#finder.known(job.func);
    if (task === undefined) {
      // A copy, as the caller may change them while the task is being found.
      given = writeArguments(given).map(fromJson);
      task = await this.#finder.find(job.func);
    }
    const envelope = writeCall(job, { args: given, task, settings: this.#settings });
    const large = isTooLarge(envelope.args, { what: "the arguments", store: this.#settings.store });
    const permit = await this.#acquire(signal);
    const ticket = new JobTicket(job, this.#maker, {
      task: task.task,
      travelId,
      named: what instanceof Job && typeof job.id === "string",
      permit,
      owner: this.#owner,
    });
    this.#admit(ticket, signal);
    this.#send(ticket, envelope, large);
    return ticket.future;
  }

  /**
   * Submits a job and waits for its result.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns, or what its promise resolves with.
   * @param job The job.
   * @returns What the task returned.
   *
   * @throws {unknown} What {@linkcode ClusterPool.submit} and `Future.result` throw.
   */
  run<A extends unknown[], R>(job: Job<A, R>): Promise<R>;
  /**
   * Submits one of several jobs with different result types, and waits for its result.
   *
   * @typeParam J The jobs.
   * @param job The job.
   * @returns What the task returned.
   *
   * @throws {unknown} What {@linkcode ClusterPool.submit} and `Future.result` throw.
   */
  // deno-lint-ignore no-explicit-any -- the arguments are of no concern here
  run<J extends Job<any[], unknown>>(job: J): Promise<JobResult<J>>;
  /**
   * Submits a call of a task and waits for its result.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns.
   * @param task The task.
   * @param args Its arguments.
   * @returns What the task returned.
   *
   * @throws {unknown} What {@linkcode ClusterPool.submit} and `Future.result` throw.
   */
  run<A extends unknown[], R>(task: (...args: A) => R, ...args: A): Promise<Awaited<R>>;
  /**
   * Submits a call of a task that may be given by name, and waits for its result.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns.
   * @param task The task.
   * @param args Its arguments.
   * @returns What the task returned.
   *
   * @throws {unknown} What {@linkcode ClusterPool.submit} and `Future.result` throw.
   */
  run<A extends unknown[], R>(task: ((...args: A) => R) | TaskRef<A, R>, ...args: A): Promise<Awaited<R>>;
  async run(what: Job<never[], unknown> | Task | TaskRef, ...args: unknown[]): Promise<unknown> {
    const future = await this.submit(what as Task, ...args);
    return await future.result();
  }

  /**
   * Runs a task on each item of an input, and yields one outcome for each item.
   *
   * @typeParam T The items.
   * @typeParam R What the task returns.
   * @param task The task: called with one item.
   * @param items The input. It is read only as far ahead as `buffer` says, and may be infinite.
   * @param options With `settled: true`.
   * @returns The outcomes. No item makes the loop throw.
   *
   * @throws {unknown} Out of the loop: what the input threw; the reason of `signal`.
   * @throws {PoolClosedError} If the pool is shut down; out of the loop, after the outcomes of the items that were admitted by then.
   * @throws {TypeError} If an option is unknown, or an option or the input is of the wrong type.
   * @throws {RangeError} If a number is out of its range.
   */
  map<T, R>(
    task: (item: T) => R,
    items: Iterable<T> | AsyncIterable<T> | ReadableStream<T>,
    options: MapOptions & { settled: true },
  ): AsyncIterableIterator<PromiseSettledResult<Awaited<R>>>;
  /**
   * Runs a task on each item of an input, and yields one result for each item, exactly once.
   *
   * Items travel in chunks, each of which takes one permit and one entry in the queue, and is delivered again as a whole if its host dies.
   * An item that fails makes the loop throw at its place. Leaving the loop early cancels the rest.
   *
   * The same as for `ProcessPool`, except that automatic chunks take about half a second and that `buffer` is 64 items per permit of the
   * gate, or one `chunkSize` per permit.
   *
   * @typeParam T The items.
   * @typeParam R What the task returns.
   * @param task The task: called with one item.
   * @param items The input. It is read only as far ahead as `buffer` says, and may be infinite.
   * @param options Order, chunks, how far to read ahead.
   * @returns The results, in the order of the items unless `ordered` is false.
   *
   * @throws {unknown} Out of the loop: what the task threw for an item; what the input threw; the reason of `signal`.
   * @throws {PoolClosedError} If the pool is shut down; out of the loop, after the outcomes of the items that were admitted by then.
   * @throws {TypeError} If an option is unknown, or an option or the input is of the wrong type.
   * @throws {RangeError} If a number is out of its range.
   */
  map<T, R>(
    task: (item: T) => R,
    items: Iterable<T> | AsyncIterable<T> | ReadableStream<T>,
    options?: MapOptions & { settled?: false | undefined },
  ): AsyncIterableIterator<Awaited<R>>;
  /**
   * Runs a task that may be given by name on each item of an input, and yields one outcome for each item.
   *
   * @typeParam T The items.
   * @typeParam R What the task returns.
   * @param task The task.
   * @param items The input.
   * @param options With `settled: true`.
   * @returns The outcomes.
   *
   * @throws {unknown} The same as for a function.
   */
  map<T, R>(
    task: ((item: T) => R) | TaskRef<[T], R>,
    items: Iterable<T> | AsyncIterable<T> | ReadableStream<T>,
    options: MapOptions & { settled: true },
  ): AsyncIterableIterator<PromiseSettledResult<Awaited<R>>>;
  /**
   * Runs a task that may be given by name on each item of an input, and yields one result for each item.
   *
   * @typeParam T The items.
   * @typeParam R What the task returns.
   * @param task The task.
   * @param items The input.
   * @param options Order, chunks, how far to read ahead.
   * @returns The results.
   *
   * @throws {unknown} The same as for a function.
   */
  map<T, R>(
    task: ((item: T) => R) | TaskRef<[T], R>,
    items: Iterable<T> | AsyncIterable<T> | ReadableStream<T>,
    options?: MapOptions & { settled?: false | undefined },
  ): AsyncIterableIterator<Awaited<R>>;
  /**
   * Runs a task on each item of an input, and yields results or outcomes, as `settled` says.
   *
   * @typeParam T The items.
   * @typeParam R What the task returns.
   * @param task The task: called with one item.
   * @param items The input.
   * @param options Order, chunks, how far to read ahead.
   * @returns The results or the outcomes.
   *
   * @throws {unknown} The same as for a map whose `settled` is known.
   */
  map<T, R>(
    task: ((item: T) => R) | TaskRef<[T], R>,
    items: Iterable<T> | AsyncIterable<T> | ReadableStream<T>,
    options?: MapOptions,
  ): AsyncIterableIterator<Awaited<R> | PromiseSettledResult<Awaited<R>>>;
  map(func: Task | TaskRef, items: Iterable<unknown> | AsyncIterable<unknown>, options: MapOptions = {}): AsyncIterableIterator<unknown> {
    this.#refuseIfNotOpen("map with pool");
    const { queueSize, store } = this.#settings;
    let task = this.#finder.known(new Job({ func }).func);
    return mapChunks(
      {
        chunksInFlight: Math.min(queueSize, MOST_CHUNKS),
        prepare: async () => void (task ??= await this.#finder.find(func)),
        encode: (item) => {
          task!.validate?.([item]);
          const json = toJson(item, "the item");
          return { json, large: isTooLarge(json, { what: "the item", store }) };
        },
        begin: () => this.#beginChunk(),
        run: (chunk, options) => this.#runChunk(task!, chunk, options),
        report: (error) => this.#maker.report(error),
      },
      items,
      options,
    );
  }

  /**
   * Finds the future of a job that was submitted before, by this program or by one that has ended. Results are kept for ten minutes,
   * failures for a day, and of each the last 10,000 of a queue. The future's `job` has its id and its task, but not its arguments.
   *
   * @typeParam R What the task returns.
   * @param id The id of the job: a string.
   * @returns The job's future.
   *
   * @throws {Deno.errors.NotFound} If the queue does not know a job of this id, or no longer does.
   * @throws {PoolClosedError} If the pool is shut down, or shuts down while this waits.
   * @throws {TypeError} If the id is not a string, or not well-formed.
   * @throws {RangeError} If the id is too long.
   */
  async attach<R = unknown>(id: string): Promise<Future<R>> {
    this.#refuseIfNotOpen("attach to job");
    if (typeof id !== "string") throw new TypeError(`Cannot attach to job as its id must be a string: current value is ${show(id)}`);
    const travelId = travelIdOf(id, { action: "attach to job", queue: this.#settings.queue });
    await this.#stored(travelId);
    const task = await this.#answer("attach to job", this.#link.find(travelId));
    this.#refuseIfNotOpen("attach to job");
    if (task === undefined) {
      throw new Deno.errors.NotFound(`Cannot attach to job ${show(id)} as the queue ${show(this.#settings.queue)} knows none of this id`);
    }
    const func = Object.hasOwn(this.#tasks, task) ? this.#tasks[task]! : { module: "", name: task };
    const ticket = new JobTicket(new Job({ id, func }), this.#maker, {
      task: func.name,
      travelId,
      named: true,
      permit: undefined,
      owner: this.#owner,
    });
    this.#admit(ticket, undefined);
    this.#link.listen(travelId, ticket);
    return ticket.future as Future<R>;
  }

  /** What this pool holds at this moment, and what it has done so far. */
  stats(): ClusterStats {
    let running = 0;
    for (const ticket of this.#tickets) if (ticket.started()) running++;
    return { running, queued: this.#tickets.size - running, waiting: this.#gate.waiting, ...this.#counts };
  }

  /**
   * What the whole cluster holds, and what it has done so far.
   *
   * @returns The connected hosts, and the queue's jobs, whoever has submitted them.
   *
   * @throws {PoolClosedError} If the pool is shut down, or shuts down while this waits.
   */
  async status(): Promise<ClusterStatus> {
    this.#refuseIfNotOpen("ask for status");
    return await this.#answer("ask for status", this.#link.status(this.#settings.queue));
  }

  /**
   * Takes no more jobs, waits for those that were admitted and for callbacks, and closes the connection. Calling it twice is harmless.
   *
   * @param options What to do with jobs that have not started, and how long to wait.
   *
   * @throws {TypeError} If an option is unknown or of the wrong type.
   * @throws {RangeError} If `timeout` is not from 0 to 2,147,483,647.
   */
  async shutdown(options: ShutdownOptions = {}): Promise<void> {
    const checks = new Checks("shut down pool");
    const { cancelPending = false, timeout } = checks.options(options, ["cancelPending", "timeout"]);
    checks.boolean("cancelPending", cancelPending);
    if (timeout !== undefined) checks.milliseconds("timeout", timeout);
    this.#close(undefined);
    if (cancelPending) this.#cancelPending();
    const timer = timeout === undefined ? undefined : setTimeout(() => {
      this.terminate(new DOMException(`The pool did not finish within ${timeout} ms`, "TimeoutError"));
    }, timeout);
    this.#conclude();
    await this.#end!.promise;
    // The store may not answer either.
    await this.#disconnect();
    clearTimeout(timer);
  }

  /**
   * Ends everything at once: running jobs fail with a {@linkcode PoolClosedError} and are stopped where they run, jobs that have not
   * started are cancelled, waiting submissions are refused.
   *
   * @param reason Becomes the cause of those errors.
   * @returns Resolves when the queue has been told, or after three seconds if the server is away or the store does not answer. It does not
   * wait for callbacks.
   */
  async terminate(reason?: unknown): Promise<void> {
    this.#close(reason);
    this.#state = "closed";
    // Rests of chunks may wait even in a pool that was closing.
    this.#refuseWaiting(reason);
    for (const ticket of [...this.#tickets]) {
      const message = `Cannot finish ${showJob(ticket.id, ticket.task)} as the pool was terminated`;
      const closed = new PoolClosedError(message, { cause: reason });
      this.#drop(
        ticket,
        ticket.started() ? { state: "failed", error: closed } : { state: "cancelled", error: ticket.cancelledError(reason) },
      );
    }
    this.#end!.resolve();
    await this.#unlink();
    const timer = setTimeout(() => this.#hurried.resolve(), FAREWELL);
    await this.#disconnect();
    clearTimeout(timer);
  }

  /** The same as {@linkcode ClusterPool.shutdown}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  // Admission

  #refuseIfNotOpen(action: string): void {
    if (this.#state !== "open") throw new PoolClosedError(`Cannot ${action} as it is shut down`);
  }

  /** Waits for an answer of the server. A pool that is shut down meanwhile gives up waiting, as the server may be away. */
  async #answer<T>(action: string, asked: Promise<T>): Promise<T> {
    try {
      return await asked;
    } catch (error) {
      this.#refuseIfNotOpen(action);
      throw plain(error as Error);
    }
  }

  /** Acquires a permit while the pool is open or, for the rest of a chunk that was admitted, closing. */
  async #acquire(signal: AbortSignal | undefined, { isRest = false } = {}): Promise<Disposable> {
    const refuse = (): void => {
      if (!isRest || this.#state !== "closing") this.#refuseIfNotOpen("submit to pool");
    };
    refuse();
    const permit = this.#gate.tryAcquire() ?? await this.#gate.acquire({ signal }).catch((error) => {
      // A pool that begins to close refuses everything that waits, including rests of chunks; these wait again.
      if (!isRest || this.#state !== "closing" || signal?.aborted) throw error;
      return this.#gate.acquire({ signal });
    });
    try {
      refuse();
      signal?.throwIfAborted();
    } catch (error) {
      permit[Symbol.dispose]();
      throw error;
    }
    return permit;
  }

  #admit(ticket: Ticket, signal: AbortSignal | undefined): void {
    this.#tickets.add(ticket);
    if (signal === undefined) return;
    const abort = (): void => this.#drop(ticket, { state: "cancelled", error: signal.reason });
    signal.addEventListener("abort", abort, { once: true });
    ticket.stopListening = () => signal.removeEventListener("abort", abort);
  }

  /** Sends a call; what is too large for Redis goes into the store first. */
  #send(ticket: Ticket, envelope: Envelope, large: boolean): void {
    const what = envelope.items === undefined ? "args" : "items";
    const { [what]: payload, ...rest } = envelope;
    const payloads = this.#payloads;
    if (payloads === undefined || !large) return this.#link.send(ticket.travelId, envelope, ticket);
    this.#hold(payloads, ticket);
    this.#storing.set(ticket, Promise.withResolvers());
    this.#errands.begin(async () => {
      let storedAs: string;
      try {
        storedAs = await payloads.putArguments(ticket, JSON.stringify(payload));
      } catch (error) {
        return this.#settle(ticket, { state: "failed", error });
      }
      if (!this.#tickets.has(ticket)) return;
      this.#link.send(ticket.travelId, { ...rest, stored: what, storedAs }, ticket);
      this.#storesNoMore(ticket);
    });
  }

  #storesNoMore(ticket: Ticket): void {
    this.#storing.get(ticket)?.resolve();
    this.#storing.delete(ticket);
  }

  /** Resolves when the link knows every job of a name, however long the store takes. */
  async #stored(travelId: string): Promise<void> {
    for (;;) {
      const [, storing] = this.#storing.entries().find(([ticket]) => ticket.travelId === travelId) ?? [];
      if (storing === undefined) return;
      await storing.promise;
    }
  }

  #hold(payloads: Payloads, ticket: Ticket): void {
    if (ticket.stored) return;
    ticket.stored = true;
    payloads.hold(ticket);
  }

  // Maps

  #beginChunk(): Disposable {
    this.#chunks++;
    return {
      [Symbol.dispose]: () => {
        this.#chunks--;
        this.#conclude();
      },
    };
  }

  /**
   * Runs a chunk. If it is lost with several hosts it is run again item by item, so that a bad item costs no other; but not if it failed
   * after the first death, as then nothing may be delivered twice.
   */
  async #runChunk(task: ClusterTask, chunk: Chunk, options: RunOptions): Promise<ChunkOutcomes> {
    const { timeout = this.#settings.jobTimeout, signal, isRest } = options;
    const { first, items } = chunk;
    let refusal: unknown;
    const permit = await this.#acquire(signal, { isRest }).catch((error) => {
      if (!isRest || signal.aborted) throw error;
      refusal = error;
      return undefined;
    });
    const ticket = new ChunkTicket({ first, items: items.length }, {
      task: task.task,
      travelId: `map-${uniqueName()}`,
      named: false,
      permit,
      owner: this.#owner,
    });
    if (permit === undefined) {
      // The map continues: the items before these have outcomes, which must not be lost.
      ticket.settle({ state: "cancelled", error: ticket.cancelledError(refusal) }, this.#counts);
    } else {
      this.#admit(ticket, signal);
      this.#send(ticket, writeItems(items, { first, task, timeout, settings: this.#settings }), chunk.large);
    }
    const outcome = await ticket.outcome;
    if (outcome.state === "finished") return outcome.value;
    const { error } = outcome;
    // Nobody reads the outcome if the map has ended.
    if (signal.aborted) throw error;
    if (ticket.isRunAgain(outcome)) {
      const single = (item: Json, i: number): Promise<ChunkOutcomes> => {
        return this.#runChunk(task, { first: first + i, items: [item], large: chunk.large, unsendable: undefined }, {
          ...options,
          isRest: true,
        });
      };
      const each = await Promise.all(items.map(single));
      return { outcomes: each.flatMap(({ outcomes }) => outcomes), elapsed: 0 };
    }
    return { outcomes: items.map(() => ({ status: "rejected", reason: error })), elapsed: 0 };
  }

  // Settling

  #owner: TicketOwner = {
    ended: (ticket, ending) => {
      if (ending.kind === "completed") this.#removeChunk(ticket);
      const outcome = this.#read(ticket, ending);
      if (outcome instanceof Promise) this.#errands.begin(async () => this.#settle(ticket, await outcome));
      else this.#settle(ticket, outcome);
    },
    redelivered: (ticket) => {
      this.#counts.redelivered++;
      try {
        this.#settings.onRedelivered({ id: ticket.id, taskName: ticket.task, items: ticket.items });
      } catch (error) {
        this.#maker.report(error);
      }
    },
    returned: (ticket, reply) => this.#discard(ticket, reply),
    cancel: (ticket, options) => this.#cancel(ticket, options),
  };

  /** Turns the end of a job into the outcome of its future. */
  #read(ticket: Ticket, ending: Ending): Outcome<unknown> | Promise<Outcome<unknown>> {
    const { id, task } = ticket;
    switch (ending.kind) {
      case "completed":
        return this.#readReply(ticket, ending.reply);
      case "failed": {
        const error = readFailedReason(ending.reason, { jobId: id, taskName: task, deaths: ending.deaths });
        return { state: error instanceof JobCancelledError ? "cancelled" : "failed", error };
      }
      case "removed": {
        const message = `Cancelled ${showJob(id, task)} as somebody removed it from the queue`;
        return { state: "cancelled", error: new JobCancelledError(message, { jobId: id, taskName: task }) };
      }
      case "refused": {
        const message = `Cannot submit ${showJob(id, task)} as the server refuses it: ${ending.error.message}`;
        return { state: "failed", error: new Error(message, { cause: ending.error }) };
      }
      case "lost": {
        const message = `Lost ${showJob(id, task)} as ${ending.why}`;
        return { state: "failed", error: new WorkerDiedError(message, { jobId: id, taskName: task }) };
      }
    }
  }

  #readReply(ticket: Ticket, data: unknown): Outcome<unknown> | Promise<Outcome<unknown>> {
    try {
      const reply = readReply(data);
      return reply.stored === true ? this.#fetchReply(ticket) : finished(ticket, reply);
    } catch (error) {
      return { state: "failed", error };
    }
  }

  async #fetchReply(ticket: Ticket): Promise<Outcome<unknown>> {
    const payloads = this.#payloads;
    try {
      if (payloads === undefined) {
        throw new TypeError("Cannot read a result that is in the payload store as the pool was given no 'payloads'");
      }
      this.#hold(payloads, ticket);
      const reply = await payloads.result(ticket).catch((error) => {
        throw unreadable(`the result of ${showJob(ticket.id, ticket.task)}`, error);
      });
      return finished(ticket, readReply(reply));
    } catch (error) {
      return { state: "failed", error };
    }
  }

  /** Nobody can attach to a chunk that has returned, and ten thousand of them may be gigabytes. */
  #removeChunk(ticket: Ticket): void {
    if (ticket instanceof ChunkTicket) this.#link.remove(ticket.travelId);
  }

  /** Removes what a job returned although it was cancelled, unless others may ask for it. */
  #discard(ticket: Ticket, reply: unknown): void {
    if (ticket.named) return;
    this.#removeChunk(ticket);
    const payloads = this.#payloads;
    if (payloads === undefined || (reply as Partial<Reply> | null)?.stored !== true) return;
    payloads.hold(ticket);
    this.#errands.begin(() => payloads.letGo(ticket, undefined));
  }

  #cancel(ticket: Ticket, { reason, force }: { reason: unknown; force: boolean }): boolean {
    if (!this.#tickets.has(ticket) || (ticket.started() && !force)) return false;
    this.#drop(ticket, { state: "cancelled", error: ticket.cancelledError(reason) });
    return true;
  }

  /** Settles something unwanted, and has it taken out of the queue or stopped. */
  #drop(ticket: Ticket, outcome: Outcome<unknown>): void {
    this.#settle(ticket, outcome, this.#link.drop(ticket.travelId, ticket));
  }

  /** Where every ticket ends. If it was dropped, `out` resolves when it is out of the queue. */
  #settle(ticket: Ticket, outcome: Outcome<unknown>, out?: Promise<void>): void {
    if (!this.#tickets.delete(ticket)) return;
    ticket.stopListening();
    this.#storesNoMore(ticket);
    ticket.settle(outcome, this.#counts);
    if (ticket instanceof JobTicket) this.#callBack(ticket);
    else ticket.permit?.[Symbol.dispose]();
    if (ticket.stored) this.#errands.begin(() => this.#payloads!.letGo(ticket, out));
    // After the callbacks whose turn comes now.
    queueMicrotask(() => this.#conclude());
  }

  /** Gives the permit back before callbacks run, so that they can submit; but `onDone` may hold it. An attached job has neither. */
  #callBack({ future, permit }: JobTicket): void {
    if (permit !== undefined) this.#maker.callOnDone(future, this.#gate);
    this.#maker.callBack(future);
  }

  // The end

  #close(cause: unknown): void {
    this.#end ??= Promise.withResolvers();
    if (this.#state !== "open") return;
    this.#state = "closing";
    this.#refuseWaiting(cause);
  }

  /** Cancels what no host has started, including rests of chunks that were not sent yet. */
  #cancelPending(): void {
    if (this.#state === "closing") this.#state = "cancelling";
    this.#refuseWaiting(undefined);
    for (const ticket of [...this.#tickets]) this.#cancel(ticket, { reason: undefined, force: false });
  }

  #refuseWaiting(cause: unknown): void {
    this.#gate.refuseWaiting(new PoolClosedError("Cannot submit to pool as it was shut down meanwhile", { cause }));
  }

  /** Ends a closing pool once nothing is left to do. */
  #conclude(): void {
    if (this.#state === "open" || this.#state === "closed" || this.#tickets.size > 0 || this.#chunks > 0) return;
    this.#state = "closed";
    this.#maker.idle().then(() => this.#end!.resolve());
  }

  async #disconnect(): Promise<void> {
    // A dropped job keeps its arguments until it is out of the queue.
    await this.#unlink();
    await (this.#errandsDone ??= this.#finishErrands());
  }

  async #unlink(): Promise<void> {
    await (this.#unlinked ??= this.#link.close());
  }

  /** Waits for the store, unless that takes too long. */
  async #finishErrands(): Promise<void> {
    await Promise.race([this.#errands.allDone(), this.#hurried.promise]);
    const { size } = this.#errands;
    if (size > 0) this.#maker.report(new Error(`Left the payload store as it is, as it does not answer: ${size} calls are open`));
  }
}

/** The content of a reply. */
function finished(ticket: Ticket, { value, items, elapsed = 0 }: Reply): Outcome<unknown> {
  if (ticket.items === undefined) return { state: "finished", value: value === undefined ? undefined : fromJson(value) };
  if (items === undefined || items.length > ticket.items || (items.length === 0 && ticket.items > 0)) {
    const message = `Cannot use the reply to ${ticket.items} items as it has ${items?.length ?? "no"} outcomes`;
    return { state: "failed", error: new TypeError(message) };
  }
  return { state: "finished", value: { outcomes: items.map(readItem), elapsed } satisfies ChunkOutcomes };
}
