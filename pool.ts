/**
 * The pool: admission, dispatch, lifecycle.
 *
 * ```
 * |============================ calling thread ============================|====== worker 1..n ======|
 *
 *  caller -- submit(job) --> Gate -- permit --> Queue -- dispatch --> Slot -- request --> worker main
 *    ^                        |  (waits, FIFO)                         |                     | runs task
 *    |                        +- closed / aborted: refused             | <---- reply --------+
 *    +-- callbacks <-- Future <------------- settle once --------------+
 *                                                                      +- died: fail its jobs, refill slot
 * ```
 *
 * @module
 */

import { JobTimeoutError, type PoolBrokenError, PoolClosedError } from "./errors.ts";
import { checkedFunc, type Future, Job, type JobResult, type Outcome, type Task, type TaskRef } from "./job.ts";
import { Callbacks, InTurn } from "./pool/callbacks.ts";
import { Checks, show, showJob } from "./pool/checks.ts";
import { Crew, type CrewEvents } from "./pool/crew.ts";
import type { WorkerInspection } from "./pool/inspection.ts";
import { type MapHost, MapRun } from "./pool/map.ts";
import { type MapOptions, type MapResults, resolveMapOptions } from "./pool/map_options.ts";
import type { PoolMeasurements } from "./pool/measurement.ts";
import { MovingTicket } from "./pool/moving_ticket.ts";
import { Observation } from "./pool/observation.ts";
import { type ProcessPoolOptions, type ResolvedOptions, resolveOptions } from "./pool/options.ts";
import { placeOf, Queue } from "./pool/queue.ts";
import { onAbort } from "./pool/signals.ts";
import { type ErrorOf, JobTicket, MOST_UNREAD, type SettledCounts, type Ticket, type TicketOwner } from "./pool/ticket.ts";
import { type Defer, Gathering, LongTurn, TIME_TOGETHER, TOGETHER } from "./pool/turn.ts";
import { Watchdog } from "./pool/watchdog.ts";
import { releasePermits, Semaphore, takePermit, waitForPermit } from "./semaphore.ts";
import type { LeftBehind } from "./worker/left_behind.ts";
import type { Death, TaskMessage, Thrown } from "./worker/protocol.ts";
import type { Slot } from "./worker/slot.ts";
import type { TaskTable } from "./worker/tasks.ts";

/** What {@linkcode ProcessPool.stats} returns. */
export interface PoolStats {
  /** Workers that are starting, running or closing. */
  workers: number;
  /** Workers that hold a job. */
  busy: number;
  /** Jobs that workers hold: those that they run, and those that were sent to them ahead of time. */
  running: number;
  /** Jobs that have passed the gate but have not been sent to a worker. */
  queued: number;
  /** Submissions that wait at the gate. */
  waiting: number;
  /**
   * Workers that were stopped but are not gone yet. Usually that lasts a moment; a busy worker that the backend cannot stop stays for as
   * long as it is busy, burns a core and keeps the program alive.
   */
  unstoppable: number;
  /** Jobs that returned. Each item of a map counts as a job. */
  finished: number;
  /** Jobs that threw, ran for too long, or lost their worker. */
  failed: number;
  /** Jobs that were cancelled or aborted. */
  cancelled: number;
  /** What was measured; undefined without `measure: true`. */
  measured: PoolMeasurements | undefined;
}

/** Options of {@linkcode ProcessPool.shutdown}. */
export interface ShutdownOptions {
  /**
   * Cancels the jobs that no worker has started.
   *
   * @default {false}
   */
  cancelPending?: boolean | undefined;
  /**
   * After how many milliseconds the pool is terminated if it is not done.
   *
   * @default {undefined}
   */
  timeout?: number | undefined;
}

/** Calls back after the microtasks. */
declare const setImmediate: Defer;

/** What the simulation checks: only for tests. */
export interface PoolInternals {
  gate: Semaphore;
  queue: Queue<Ticket>;
  slots: ReadonlySet<Slot>;
  waitingMaps: ReadonlySet<MapRun>;
  pausing: boolean;
}

/** Shows what is inside a pool: only for tests. */
export let internalsOf: (pool: ProcessPool) => PoolInternals;

/**
 * A pool of workers that run jobs. A submission passes the gate, waiting there if as many jobs are in flight as `queueSize` allows; the job
 * is queued; the next free worker runs it; its future settles.
 *
 * Workers are started as jobs need them, and closed when they have been idle for a while. A function that a module in `modules` exports is
 * called in that module, with access to everything there; any other function is sent as source text and must be self-contained.
 *
 * @example A function, an input, done
 * ```ts
 * import { ProcessPool } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * function square(x: number): number {
 *   return x * x;
 * }
 *
 * await using pool = new ProcessPool();
 * const results: number[] = [];
 * for await (const result of pool.map(square, [1, 2, 3])) results.push(result);
 * assertEquals(results, [1, 4, 9]);
 * ```
 *
 * @example Jobs with callbacks, at most two in flight
 * ```ts
 * import { Job, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * const lines: string[] = [];
 * {
 *   await using pool = new ProcessPool({ maxWorkers: 2, queueSize: 2 });
 *   for (let id = 0; id < 4; id++) {
 *     await pool.submit(
 *       new Job({
 *         id,
 *         func: (x: number) => x * 10,
 *         args: [id],
 *         onDone: async (future) => lines.push(`job[${future.id}] finish: [${await future.result()}]`),
 *       }),
 *     );
 *   }
 * }
 * assertEquals(lines.sort()[3], "job[3] finish: [30]");
 * ```
 */
export class ProcessPool implements AsyncDisposable {
  #options: ResolvedOptions;
  #gate: Semaphore;
  /**
   * Gives back the permits of tickets that were turned away, one after the other: the next may be turned away too, as thousands may share a
   * signal.
   */
  #releases = new InTurn();
  #release = (): void => this.#gate.release();
  #queue = new Queue<Ticket>();
  /** Whether tickets stayed in the queue as no worker had room: what is admitted then is sent when one has. */
  #isFull = false;
  /** Whether queued tickets are being sent. */
  #sending = false;
  /** How many jobs and chunks were ever admitted. */
  #admitted = 0;
  /**
   * Tickets that have left their worker, until it is decided whether they run again: a `retryIf` that is called meanwhile may cancel any of
   * them, or end the pool. And tickets that cannot be sent, until that is told.
   */
  #undecided = new Set<Ticket>();
  /** Tickets being cancelled while their worker is told to stop, which may end the pool: how each will settle. */
  #cancelling = new Map<Ticket, Cancelled>();
  #crew: Crew;
  #tasks: TaskTable;
  #callbacks: Callbacks;
  /** What tickets may ask of this pool. */
  #owner: TicketOwner;
  #watchdog: Watchdog;
  #gathering = new Gathering(() => {
    if (this.#queue.size > 0) this.#dispatch();
  });
  #longTurn: LongTurn;
  /** The maps that wait for their input. */
  #waitingMaps = new Set<MapRun>();
  /** Undefined if there are no observers. */
  #observation: Observation | undefined;
  #counts: SettledCounts = { finished: 0, failed: 0, cancelled: 0 };
  #state: "open" | "closing" | "closed" | "broken" = "open";
  /** Why the pool is broken. */
  #defect: PoolBrokenError | undefined;
  /** Resolves when the pool is done; made when it begins to close. */
  #end: PromiseWithResolvers<void> | undefined;

  static {
    internalsOf = (pool) => ({
      gate: pool.#gate,
      queue: pool.#queue,
      slots: pool.#crew.slots,
      waitingMaps: pool.#waitingMaps,
      pausing: pool.#crew.pausing,
    });
  }

  /**
   * Constructs a pool. No worker is started yet.
   *
   * @param options How many workers, what they may do, what they run.
   *
   * @throws {TypeError} If an option is unknown or of the wrong type.
   * @throws {RangeError} If a number is out of its range.
   * @throws {Deno.errors.NotCapable} If the workers are to have a permission that this thread lacks, or the trace may not be written.
   * @throws {Deno.errors.Busy} If another pool is still writing its trace to the same file.
   * @throws {Error} If the file of the trace cannot be opened for another reason: of the class that Deno gives it.
   * @throws {Deno.errors.NotSupported} If Deno is older than 2.9, except with the backend `inline`.
   */
  constructor(options: ProcessPoolOptions = {}) {
    this.#options = resolveOptions(options);
    const { queueSize, clock, onError, tasks, observers, jobTimeout, retries } = this.#options;
    this.#gate = new Semaphore(queueSize);
    this.#longTurn = new LongTurn(clock, {
      takeReturned: (most) => this.#crew.takeReturned(most),
      callBack: (ticket) => this.#callBack(ticket),
      waiting: () => this.#crew.isTiny ? this.#gate.waiting + this.#queue.size : 0,
    });
    this.#callbacks = new Callbacks(clock, onError);
    this.#tasks = tasks;
    if (observers.length > 0) {
      this.#observation = new Observation(observers, { now: clock.now, report: (error) => this.#callbacks.report(error) });
    }
    this.#crew = new Crew(this.#options, { callbacks: this.#callbacks, events: this.#crewEvents, observation: this.#observation });
    this.#owner = {
      jobTimeout,
      retries,
      callbacks: this.#callbacks,
      admit: this.#admit,
      refused: (ticket, error) => this.#observation?.refused(ticket, error),
      cancel: (ticket, error, force) => this.#cancel(ticket, error, force),
    };
    this.#watchdog = new Watchdog(clock, {
      tickets: () => this.#crew.tickets(),
      expire: (ticket, item, others) => this.#expire(ticket, item, others),
    });
    this.#tellOpened();
  }

  #tellOpened(): void {
    const { maxWorkers, jobsPerWorker, queueSize } = this.#options;
    const levels = () => ({
      waiting: this.#gate.waiting,
      queued: this.#queued,
      running: this.#crew.held,
      workers: this.#crew.size,
    });
    this.#observation?.opened({ maxWorkers, jobsPerWorker, queueSize, levels });
  }

  /**
   * Submits a job, waiting at the gate until it is admitted.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns, or what its promise resolves with.
   * @param job The job.
   * @returns The job's future, as soon as the job is admitted. How the job ends is for the future to tell.
   *
   * @throws {PoolClosedError} If the pool is shut down, or shuts down while this waits.
   * @throws {PoolBrokenError} If no worker could be started.
   * @throws {unknown} The reason of the job's signal, if that aborts before the job is admitted.
   * @throws {TypeError} If the task cannot be run, as far as that is known already, or if the job has a `transfer` and could be run again.
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
   * @param args Its arguments. They are copied when the job is sent, so do not change them before it runs.
   * @returns The job's future, as soon as the job is admitted.
   *
   * @throws {PoolClosedError} If the pool is shut down, or shuts down while this waits.
   * @throws {PoolBrokenError} If no worker could be started.
   * @throws {TypeError} If the task cannot be run, as far as that is known already.
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
  submit(what: Job<never[], unknown> | Task | TaskRef, ...args: unknown[]): Promise<Future<unknown>> {
    try {
      const ticket = this.#accept(what, args);
      this.#observation?.submitted(ticket);
      if (!takePermit(this.#gate)) {
        ticket.wantsResult = false;
        const admitted = ticket.promise<Future<unknown>>();
        this.#wait(ticket);
        return admitted;
      }
      const { future } = ticket;
      // A caller that awaits this submits its next job in a turn of its own.
      this.#admit(ticket, setImmediate);
      return this.#longTurn.resolved(future);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Submits a job if the gate admits it at once.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns, or what its promise resolves with.
   * @param job The job.
   * @returns The job's future; undefined if the gate is full.
   *
   * @throws {PoolClosedError} If the pool is shut down.
   * @throws {PoolBrokenError} If no worker could be started.
   * @throws {unknown} The reason of the job's signal, if that has aborted.
   * @throws {TypeError} If the task cannot be run, as far as that is known already, or if the job has a `transfer` and could be run again.
   */
  trySubmit<A extends unknown[], R>(job: Job<A, R>): Future<R> | undefined;
  /**
   * Submits one of several jobs with different result types, if the gate admits it at once.
   *
   * @typeParam J The jobs.
   * @param job The job.
   * @returns The job's future; undefined if the gate is full.
   *
   * @throws {unknown} The same as for a job of a single type.
   */
  // deno-lint-ignore no-explicit-any -- the arguments are of no concern here
  trySubmit<J extends Job<any[], unknown>>(job: J): Future<JobResult<J>> | undefined;
  /**
   * Submits a call of a task if the gate admits it at once.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns.
   * @param task The task.
   * @param args Its arguments. They are copied when the job is sent, so do not change them before it runs.
   * @returns The job's future; undefined if the gate is full.
   *
   * @throws {PoolClosedError} If the pool is shut down.
   * @throws {PoolBrokenError} If no worker could be started.
   * @throws {TypeError} If the task cannot be run, as far as that is known already.
   */
  trySubmit<A extends unknown[], R>(task: (...args: A) => R, ...args: A): Future<Awaited<R>> | undefined;
  /**
   * Submits a call of a task that may be given by name, if the gate admits it at once.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns.
   * @param task The task.
   * @param args Its arguments.
   * @returns The job's future; undefined if the gate is full.
   *
   * @throws {unknown} The same as for a function.
   */
  trySubmit<A extends unknown[], R>(task: ((...args: A) => R) | TaskRef<A, R>, ...args: A): Future<Awaited<R>> | undefined;
  trySubmit(what: Job<never[], unknown> | Task | TaskRef, ...args: unknown[]): Future<unknown> | undefined {
    const ticket = this.#accept(what, args);
    if (!takePermit(this.#gate)) return undefined;
    this.#observation?.submitted(ticket);
    const { future } = ticket;
    this.#admit(ticket);
    return future;
  }

  /**
   * Submits a job and waits for its result.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns, or what its promise resolves with.
   * @param job The job.
   * @returns What the task returned.
   *
   * @throws {unknown} What {@linkcode ProcessPool.submit} and {@linkcode Future.result} throw.
   */
  run<A extends unknown[], R>(job: Job<A, R>): Promise<R>;
  /**
   * Submits one of several jobs with different result types, and waits for its result.
   *
   * @typeParam J The jobs.
   * @param job The job.
   * @returns What the task returned.
   *
   * @throws {unknown} What {@linkcode ProcessPool.submit} and {@linkcode Future.result} throw.
   */
  // deno-lint-ignore no-explicit-any -- the arguments are of no concern here
  run<J extends Job<any[], unknown>>(job: J): Promise<JobResult<J>>;
  /**
   * Submits a call of a task and waits for its result.
   *
   * For one of several tasks with different result types, declare the union of those types:
   * `const task: Task<[n: number], string | number[]> = tasks[kind]`.
   *
   * @typeParam A The arguments of the task.
   * @typeParam R What the task returns.
   * @param task The task.
   * @param args Its arguments. They are copied when the job is sent, so do not change them before it runs.
   * @returns What the task returned.
   *
   * @throws {unknown} What {@linkcode ProcessPool.submit} and {@linkcode Future.result} throw.
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
   * @throws {unknown} What {@linkcode ProcessPool.submit} and {@linkcode Future.result} throw.
   */
  run<A extends unknown[], R>(task: ((...args: A) => R) | TaskRef<A, R>, ...args: A): Promise<Awaited<R>>;
  run(what: Job<never[], unknown> | Task | TaskRef, ...args: unknown[]): Promise<unknown> {
    try {
      const ticket = this.#accept(what, args);
      const result = ticket.promise<unknown>();
      this.#observation?.submitted(ticket);
      if (takePermit(this.#gate)) this.#admit(ticket);
      else this.#wait(ticket);
      return result;
    } catch (error) {
      return Promise.reject(error);
    }
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
   * @throws {PoolClosedError} If the pool is shut down; out of the loop, if that happens before the input ends.
   * @throws {PoolBrokenError} If no worker can be started; out of the loop, if that turns out before the input ends.
   * @throws {TypeError} If an option is unknown, or an option or the input is of the wrong type.
   * @throws {RangeError} If a number is out of its range.
   */
  map<T, R>(
    task: (item: T) => R,
    items: Iterable<T> | AsyncIterable<T> | ReadableStream<T>,
    options: MapOptions & { settled: true },
  ): MapResults<PromiseSettledResult<Awaited<R>>>;
  /**
   * Runs a task on each item of an input, and yields one result for each item.
   *
   * Items travel in chunks; each chunk takes one permit, in turn with the submissions. An item that fails makes the loop throw at its
   * place. Leaving the loop early cancels the rest: what has not started never runs. It also closes the input, and waits for that unless an
   * item is still pending there. The input is first read when the first result is asked for.
   *
   * The results of a chunk are copied together, up to a millisecond after the task has returned them: a task that refills the same object
   * again and again must return a copy of it. (A buffer of fixed size, or a typed array that spans a whole one, is copied at once.)
   * Likewise, an object that occurs several times in a chunk is one object to the task as well. Items must not be changed before they have
   * been sent, which may be long after they were read, whatever `chunkSize` is: an input that refills the same object again and again must
   * yield copies of it. A view of part of a buffer takes the whole buffer along, as in any message: yield, or return, a `slice()` of it.
   *
   * @typeParam T The items.
   * @typeParam R What the task returns.
   * @param task The task: called with one item.
   * @param items The input. It is read only as far ahead as `buffer` says, and may be infinite.
   * @param options Order, chunks, how far to read ahead.
   * @returns The results, in the order of the items unless `ordered` is false.
   *
   * @throws {unknown} Out of the loop: for an item, what {@linkcode Future.result} throws for a job; what the input threw; the reason of
   * `signal`.
   * @throws {PoolClosedError} If the pool is shut down; out of the loop, if that happens before the input ends.
   * @throws {PoolBrokenError} If no worker can be started; out of the loop, if that turns out before the input ends.
   * @throws {TypeError} If an option is unknown, or an option or the input is of the wrong type.
   * @throws {RangeError} If a number is out of its range.
   *
   * @example Outcomes of an infinite input
   * ```ts
   * import { ProcessPool } from "@procpool/process-pool";
   * import { assertEquals } from "@std/assert";
   *
   * function* naturals() {
   *   for (let n = 0;; n++) yield n;
   * }
   *
   * await using pool = new ProcessPool({ maxWorkers: 2 });
   * const odd: number[] = [];
   * const outcomes = pool.map((n: number) => {
   *   if (n % 2 === 0) throw new RangeError(`${n} is even`);
   *   return n;
   * }, naturals(), { settled: true });
   * for await (const outcome of outcomes) {
   *   if (outcome.status === "fulfilled") odd.push(outcome.value);
   *   if (odd.length === 3) break;
   * }
   * assertEquals(odd, [1, 3, 5]);
   * ```
   */
  map<T, R>(
    task: (item: T) => R,
    items: Iterable<T> | AsyncIterable<T> | ReadableStream<T>,
    options?: MapOptions & { settled?: false | undefined },
  ): MapResults<Awaited<R>>;
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
  ): MapResults<PromiseSettledResult<Awaited<R>>>;
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
  ): MapResults<Awaited<R>>;
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
  ): MapResults<Awaited<R> | PromiseSettledResult<Awaited<R>>>;
  map(task: Task | TaskRef, items: Iterable<unknown> | AsyncIterable<unknown>, options: MapOptions = {}): MapResults<unknown> {
    const { maxWorkers, jobsPerWorker, jobTimeout, retries, eager } = this.#options;
    const resolved = resolveMapOptions(options, { task, items, capacity: maxWorkers * jobsPerWorker, jobTimeout, retries, eager });
    if (this.#state !== "open") this.#refuse("map with pool");
    this.#tasks.check(task);
    const host: MapHost = {
      acquire: (signal) => this.#acquire(signal),
      release: () => this.#gate.release(),
      admit: (chunk) => {
        this.#observation?.submitted(chunk, chunk.size);
        this.#admit(chunk);
      },
      cancel: (ticket, error, force) => this.#cancelChunk(ticket, error, force),
      report: (error) => this.#callbacks.report(error),
      refusal: () => this.#state === "open" ? undefined : this.#refusal("map with pool"),
      waits: (map) => this.#waitingMaps.add(map),
      goesOn: (map) => this.#waitingMaps.delete(map),
      clock: this.#options.clock,
    };
    return new MapRun(host, resolved);
  }

  /**
   * Starts all workers and waits until they are ready for jobs.
   *
   * @returns Resolves when `maxWorkers` workers have loaded their modules and run their initializer.
   *
   * @throws {PoolBrokenError} If workers cannot be started.
   * @throws {PoolClosedError} If the pool is shut down first.
   */
  async warmUp(): Promise<void> {
    if (this.#state !== "open") this.#refuse("warm up pool");
    const ready = this.#crew.warmUp();
    this.#dispatch();
    await ready;
  }

  /** What the pool holds at this moment, and what it has done so far. */
  stats(): PoolStats {
    const { size, busy, held, unstoppable } = this.#crew;
    return {
      workers: size,
      busy,
      running: held,
      queued: this.#queued,
      waiting: this.#gate.waiting,
      unstoppable,
      ...this.#counts,
      measured: this.#options.measurement?.read(this.#crew.inspect()),
    };
  }

  /** How many jobs have passed the gate and are with no worker. */
  get #queued(): number {
    return this.#queue.size + this.#undecided.size;
  }

  /** What each worker is doing at this moment, and for how long. */
  inspect(): WorkerInspection[] {
    return this.#crew.inspect();
  }

  /** How `console.log` shows a pool. */
  [Symbol.for("Deno.customInspect")](inspect: (value: unknown, options?: object) => string, options: object): string {
    const { measured: _, ...stats } = this.stats();
    return `ProcessPool ${inspect({ state: this.#state, ...stats }, options)}`;
  }

  /**
   * Takes no more jobs, lets those that were admitted finish, closes the workers, and waits for all that and for callbacks. Submissions
   * that wait at the gate are refused. Calling it twice is harmless. The program can then end by itself.
   *
   * A callback (`onDone` or one given to `addDoneCallback()`) may call this but must not await it, as it would wait for itself; with a
   * `timeout` that wait ends when the time is over.
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
    if (cancelPending) {
      const pending = [...this.#crew.withdrawAll(), ...this.#queue.clear()];
      this.#settleAll(pending.map((ticket) => [ticket, cancelled(ticket)]));
    }
    const stopTimer = timeout === undefined ? undefined : this.#options.clock.after(timeout, () => {
      this.terminate(new DOMException(`The pool did not finish within ${timeout} ms`, "TimeoutError"));
    });
    this.#dispatch();
    await this.#end!.promise;
    stopTimer?.();
  }

  /**
   * Ends everything at once: running jobs fail with a {@linkcode PoolClosedError}, jobs that have not started are cancelled, waiting
   * submissions are refused, workers are stopped without their finalizer. A task in endless synchronous code cannot be stopped in a Web
   * Worker and burns its core until the program ends: `stats().unstoppable` counts those.
   *
   * @param reason Becomes the cause of those errors.
   * @returns Resolves when the workers are gone, or after a second if one of them is unstoppable. It does not wait for callbacks.
   */
  async terminate(reason?: unknown): Promise<void> {
    this.#close(reason);
    // Jobs that have finished by now count as finished.
    this.#crew.drain();
    const queued = [...this.#undecided, ...this.#queue.clear()];
    this.#undecided.clear();
    this.#crew.stopAll(reason, ({ started, unstarted }) =>
      this.#settleAll([
        ...started.map(({ ticket }): Settlement => {
          const message = `Cannot finish ${showJob(ticket.id, ticket.name)} as the pool was terminated`;
          return [ticket, { state: "failed", error: new PoolClosedError(message, { cause: reason }) }];
        }),
        ...[...unstarted, ...queued].map((ticket): Settlement => [ticket, this.#cancelling.get(ticket) ?? cancelled(ticket, reason)]),
      ]));
    await this.#crew.allGone();
    await this.#observation?.closed();
    this.#state = "closed";
    this.#end!.resolve();
  }

  /** The same as {@linkcode ProcessPool.shutdown}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  // Admission

  /** Makes the ticket of what was submitted; throws what can be known to be wrong already. */
  #accept(what: Job<never[], unknown> | Task | TaskRef, args: unknown[]): JobTicket {
    if (typeof what === "function" || !(what instanceof Job)) {
      const func = typeof what === "function" ? what : checkedFunc("create job", "func", what);
      if (this.#state !== "open") this.#refuse();
      const task = this.#tasks.check(func);
      return new JobTicket(this.#owner, task, func, args);
    }
    if (args.length > 0) throw new TypeError(`Cannot submit job as its arguments belong in the job: ${args.length} given beside it`);
    const job = what;
    const { func, args: jobArgs } = job;
    if (this.#state !== "open") this.#refuse();
    const task = this.#tasks.check(func);
    const { retries = this.#options.retries } = job;
    if (retries > 0 && job.transfer.length > 0) {
      throw new TypeError(
        `Cannot submit job as what it has in 'transfer' is gone after its first run: 'retries' must be 0: current value is ${retries}`,
      );
    }
    job.signal?.throwIfAborted();
    return new (job.transfer.length > 0 ? MovingTicket : JobTicket)(this.#owner, task, func, jobArgs, job);
  }

  /** Throws as the pool is not open. */
  #refuse(action?: string): never {
    throw this.#refusal(action);
  }

  #refusal(action = "submit to pool"): PoolClosedError | PoolBrokenError {
    return this.#defect ?? new PoolClosedError(`Cannot ${action} as it is shut down`);
  }

  /** Refuses submissions that wait at the gate, and maps that wait for their input. */
  #refuseWaiting(error: PoolClosedError | PoolBrokenError): void {
    this.#gate.refuseWaiting(error);
    for (const map of [...this.#waitingMaps]) map.refused(error);
  }

  #acquire(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((grant, refuse) => {
      if (this.#state !== "open") this.#refuse();
      signal?.throwIfAborted();
      if (takePermit(this.#gate)) grant();
      else waitForPermit(this.#gate, placeOf({ grant, refuse }), signal);
    });
  }

  /** Has a ticket wait for a permit. */
  #wait(ticket: JobTicket): void {
    // An observer that was told of it may have aborted its signal, or ended the pool.
    if (this.#observation !== undefined && (this.#state !== "open" || ticket.signal?.aborted)) {
      return ticket.refuse(this.#reasonAgainst(ticket));
    }
    waitForPermit(this.#gate, ticket, ticket.signal);
    this.#longTurn.goesOn();
  }

  /** Admits a ticket that has a permit, unless the pool has closed or the ticket's signal has aborted since it got that. */
  #admit = (ticket: Ticket, defer: Defer = queueMicrotask): void => {
    const { signal } = ticket;
    if (this.#state !== "open" || signal?.aborted) this.#turnAway(ticket);
    ticket.admittedAs = this.#admitted++;
    this.#queue.join(ticket);
    // Listen first: what follows may settle other jobs, and whoever hears of that may abort the signal.
    if (signal !== undefined) this.#listen(ticket, signal);
    this.#observation?.admitted(ticket);
    if (this.#isFull) this.#longTurn.goesOn();
    if (this.#gathering.keeps(ticket, this.#isFull)) return;
    this.#send(defer);
  };

  /** A method of its own, as a closure in {@linkcode ProcessPool.#admit} would cost each ticket a scope: a tenth of the memory of a call. */
  #listen(ticket: Ticket, signal: AbortSignal): void {
    ticket.stopListening = onAbort(signal, () => this.#cancel(ticket, signal.reason, true));
  }

  /** Why a ticket is refused: the pool is not open, or else its signal has aborted. */
  #reasonAgainst(ticket: Ticket): unknown {
    return this.#state === "open" ? ticket.signal!.reason : this.#refusal();
  }

  /** Refuses a ticket that has a permit. */
  #turnAway(ticket: Ticket): never {
    const error = this.#reasonAgainst(ticket);
    this.#releases.call(this.#release);
    this.#observation?.refused(ticket, error);
    throw error;
  }

  /** Sends what was admitted. After tiny calls the next ones are gathered, and sent together, at the latest when `defer` calls back. */
  #send(defer: Defer): void {
    if (this.#sending) return;
    this.#gathering.clear();
    const together = this.#sendQueued();
    if (this.#queue.size > 0) this.#dispatch();
    this.#gathering.begin(this.#isFull ? TOGETHER : together, defer);
  }

  // Dispatch

  /**
   * The one method that puts the workers to use: submission, completion, death, replacement and closing all end here. It sends queued jobs
   * to workers that have room, has missing workers started, closes those that are no longer needed, and checks whether everything is done.
   */
  #dispatch(): void {
    this.#sendQueued();
    const staffed = this.#state === "open" || this.#state === "closing";
    // Jobs that were left for workers that then could not be started, or start slowly, go to the existing ones.
    if (staffed && this.#crew.staff(this.#queue.size, this.#queue.first)) this.#sendQueued();
    if (this.#queue.size === 0) this.#crew.balance.look();
    else this.#crew.balance.keepOrder();
    this.#crew.closeUnneeded(this.#state !== "open" && this.#queue.size === 0);
    this.#conclude();
  }

  /**
   * Sends what is queued, and what is admitted or comes back meanwhile. A nested call returns at once: thousands may wait at the gate that
   * cannot be sent, each of which lets in the next when it settles.
   *
   * @returns How many calls like the last ones may be sent together.
   */
  #sendQueued(): number {
    if (this.#sending) return 0;
    this.#sending = true;
    try {
      return this.#sendAll();
    } finally {
      this.#sending = false;
    }
  }

  #sendAll(): number {
    let together = 0;
    while (this.#queue.size > 0) {
      // A job that killed a worker by being read goes, if possible, to one that runs nothing else: other jobs would be lost with it.
      let slot = this.#queue.first!.unread > 0 ? this.#crew.quietest : this.#crew.choose(this.#queue.size);
      if (slot === undefined) break;
      const sent = slot.sendCalls(this.#queue);
      if (sent > 0) {
        together = Math.min(TOGETHER, slot.jobsWithin(TIME_TOGETHER));
        if (slot.load > 0) this.#crew.expectAnswer();
        // One of them may take longer than its predecessors while another worker has nothing to do.
        if (sent > 1) this.#crew.balance.look();
        continue;
      }
      together = 0;
      const ticket = this.#queue.first;
      // A getter in a call's arguments may have run before they proved unfit for sending like that: it may have changed everything.
      if (ticket === undefined || !slot.hasRoom) continue;
      if (ticket.transfer.length > 0) {
        // What is moved to a worker cannot be taken back, so it is not sent ahead.
        if (!ticket.takeOver(slot) && !slot.isFree) slot = this.#crew.quietest;
        if (slot === undefined) break;
        // That may have called a getter, which may have led here again.
        if (this.#queue.first !== ticket || !slot.hasRoom) continue;
      }
      const task = this.#resolve(ticket);
      if (task === undefined) {
        this.#tasks.learn().then(() => this.#dispatch());
        break;
      }
      this.#queue.shift();
      const outcome = task instanceof Error ? failed(task) : this.#trySend(ticket, task, slot);
      if (ticket.settled) continue;
      if (outcome === NO_ROOM) this.#queue.joinFront(ticket);
      else if (outcome !== undefined) this.#settleUnsent(ticket, outcome);
      else this.#sent(ticket, slot);
    }
    this.#isFull = this.#queue.size > 0 && !this.#crew.hasRoom;
    return together;
  }

  /**
   * Sends a ticket, or those of its items that can be copied.
   *
   * @returns Undefined if it was sent, or has settled meanwhile; `NO_ROOM` if there is no room for it now; its outcome if nothing of it can
   * be copied.
   */
  #trySend(ticket: Ticket, task: TaskMessage, slot: Slot): Outcome<unknown> | undefined | typeof NO_ROOM {
    for (;;) {
      try {
        return slot.send(ticket, task) ? undefined : NO_ROOM;
      } catch (error) {
        this.#undecided.add(ticket);
        const outcome = ticket.sendFailed(error);
        // A getter that ran during copying may have cancelled it, or ended the pool or the worker.
        if (!this.#undecided.delete(ticket) || outcome !== undefined) return outcome;
        if (!slot.hasRoom) return NO_ROOM;
      }
    }
  }

  #sent(ticket: Ticket, slot: Slot): void {
    this.#watchdog.watch(ticket);
    // If it had others before, an answer is expected already.
    if (slot.load === 1) this.#crew.expectAnswer();
    this.#observation?.sent(ticket, slot.id);
  }

  /** The task as a message, an error if it cannot be run, or undefined if that is not known yet. */
  #resolve(ticket: Ticket): TaskMessage | Error | undefined {
    if (ticket.task !== undefined) return ticket.task;
    try {
      return this.#tasks.resolve(ticket.func);
    } catch (error) {
      return error as Error;
    }
  }

  #crewEvents: CrewEvents = {
    changed: () => this.#dispatch(),
    returned: (tickets, values) => {
      const others = this.#fulfil(tickets, values);
      releasePermits(this.#gate, tickets.length - others.length);
      for (const ticket of others) this.#longTurn.callBack(ticket);
    },
    answered: (ticket, answer) => {
      this.#undecided.add(ticket);
      const settlement = this.#decide(ticket, ticket.answered(answer, this.#decode));
      if (settlement !== undefined) this.#settle(...settlement);
    },
    progressed: (ticket, items) => void ticket.answered(items, this.#decode),
    takenBack: (tickets) => this.#requeue(tickets),
    left: (behind) => this.#takeIn(behind),
    died: (left, death) => this.#settleAll(this.#decideAll(left, death)),
    broken: (error) => {
      if (this.#state === "open") {
        this.#state = "broken";
        this.#defect = error;
      }
      this.#refuseWaiting(error);
      this.#settleAll(this.#queue.clear().map((ticket) => [ticket, failed(error)]));
    },
  };

  /**
   * Settles tickets whose tasks returned. The caller has to give their permits back and to call their callbacks.
   *
   * @returns Those of them that have callbacks.
   */
  #fulfil(tickets: Ticket[], values: unknown[]): Ticket[] {
    if (this.#observation !== undefined) {
      this.#recordAll(tickets.map((ticket, i) => [ticket, { state: "finished", value: values[i] }]));
      return tickets.filter((ticket) => ticket.hasCallbacks);
    }
    const others: Ticket[] = [];
    let calls = 0;
    for (let i = 0; i < tickets.length; i++) {
      const ticket = tickets[i]!;
      if (ticket.fulfil(values[i])) calls++;
      else {
        this.#record(ticket, { state: "finished", value: values[i] });
        if (ticket.hasCallbacks) others.push(ticket);
      }
    }
    this.#counts.finished += calls;
    return others;
  }

  #decode = (thrown: Thrown): unknown => this.#tasks.decode(thrown);

  /** Takes in what a dead worker held: tickets that can be run elsewhere go back into the queue, the others are undecided. */
  #takeIn({ started, unstarted }: LeftBehind): void {
    // What was moved to the worker is lost with it.
    const isLost = ({ transfer, unread }: Ticket): boolean => transfer.length > 0 || unread >= MOST_UNREAD;
    this.#requeue(unstarted.filter((ticket) => !isLost(ticket)));
    for (const ticket of [...started.map(({ ticket }) => ticket), ...unstarted.filter(isLost)]) this.#undecided.add(ticket);
  }

  /**
   * Decides about all tickets that {@linkcode ProcessPool.#takeIn} left undecided. `outcomeOf` is asked about those that the worker had
   * started.
   *
   * @returns The tickets that end, and how. The others are queued.
   */
  #decideAll({ started, unstarted }: LeftBehind, death: Death, outcomeOf = this.#lost): Settlement[] {
    const neverStarted = unstarted.filter((ticket) => this.#undecided.has(ticket));
    // A `retryIf` may look at any of them, so nothing is decided before all have been asked.
    const outcomes = started.map(({ ticket, nextItem }) => this.#undecided.has(ticket) ? outcomeOf(ticket, nextItem, death) : undefined);
    const ended = neverStarted.map((ticket) => {
      const { name, unread } = ticket;
      if (!this.#undecided.has(ticket)) return undefined;
      return this.#decide(ticket, ticket.lostUnread((id, attempts) => this.#crew.diedError(death, { id, name, attempts, unread })));
    });
    // From the last to the first, so that none of those that run again has to pass others on its way into the queue.
    for (const [i, { ticket }] of started.entries().toArray().reverse()) ended.unshift(this.#decide(ticket, outcomes[i]));
    return ended.filter((settlement) => settlement !== undefined);
  }

  /**
   * Puts tickets back into the queue, where they were: workers hold tickets from all over it, and give them back at different times. In
   * another order, some would be overtaken by many others for as long as a long job takes.
   */
  #requeue(tickets: Ticket[]): void {
    const front: Ticket[] = [];
    for (const ticket of tickets.toSorted((a, b) => a.admittedAs - b.admittedAs)) {
      while (this.#queue.size > 0 && this.#queue.first!.admittedAs < ticket.admittedAs) front.push(this.#queue.shift()!);
      front.push(ticket);
    }
    for (const ticket of front.toReversed()) this.#queue.joinFront(ticket);
  }

  #lost: OutcomeOf = (ticket, nextItem, death) => {
    // One signal may abort several tickets, the first of which has ended the worker.
    if (ticket.signal?.aborted) return { state: "cancelled", error: ticket.signal.reason };
    return ticket.lost((id, attempts) => this.#crew.diedError(death, { id, name: ticket.name, attempts }), nextItem);
  };

  /** How an undecided ticket ends. Undefined if it does not: it goes back into the queue then, or has settled meanwhile. */
  #decide(ticket: Ticket, outcome: Outcome<unknown> | undefined): Settlement | undefined {
    if (!this.#undecided.delete(ticket)) return undefined;
    if (outcome !== undefined) return [ticket, outcome];
    // The pool may have broken meanwhile: nothing would take the ticket out of the queue.
    if (this.#state === "broken") return [ticket, failed(this.#defect)];
    this.#requeue([ticket]);
    return undefined;
  }

  // Cancelling

  #cancel(ticket: Ticket, error: unknown, force: boolean): boolean {
    const cancelled = this.#tryCancel(ticket, { state: "cancelled", error }, force);
    if (cancelled || force) this.#dispatch();
    return cancelled;
  }

  #tryCancel(ticket: Ticket, outcome: Cancelled, force: boolean): boolean {
    // A ticket in none of these places is just being sent, or settling, and the caller was called from there.
    while (!ticket.settled && (ticket.queued || ticket.slot !== undefined || this.#undecided.has(ticket))) {
      if (this.#takeBack(ticket)) {
        this.#settle(ticket, outcome);
        return true;
      }
      if (!force) return false;
      const { slot } = ticket;
      const outcomeOf: OutcomeOf = (each, nextItem, death) => each === ticket ? outcome : this.#lost(each, nextItem, death);
      const mayStop = (): boolean => {
        if (slot!.isAnswering()) return false;
        this.#cancelling.set(ticket, outcome);
        return true;
      };
      const ended = this.#stopWith(ticket, outcome.error, outcomeOf, mayStop);
      this.#cancelling.delete(ticket);
      if (ended !== undefined) this.#settleAll(ended);
      else if (ticket.slot === slot) this.#letGo(ticket, outcome);
      // Otherwise it has just settled, or has just failed and is to run again.
      else continue;
      return true;
    }
    return false;
  }

  /** Ends a ticket at once, and its worker when the answers that are on their way from there have arrived. */
  #letGo(ticket: Ticket, outcome: Cancelled): void {
    this.#crew.condemn(ticket.slot!, ticket, stoppedToEnd(ticket, outcome.error), outcome.error);
    this.#settle(ticket, outcome);
  }

  /** Ends a job, or an item of a chunk, that has run for too long, as have these others; the rest of the chunk runs elsewhere. */
  #expire(ticket: Ticket, item: number, others: ReadonlyMap<Ticket, number>): void {
    const { slot } = ticket;
    const stillRuns = (): boolean => ticket.isAt(item) && !slot!.isAnswering() && slot!.halt(ticket, item);
    const error = timedOut(ticket)(ticket.idOf(item), ticket.attempt);
    const outcomeOf: OutcomeOf = (each, nextItem, death) => {
      if (each === ticket) return ticket.lost(timedOut(ticket), item);
      return others.get(each) === nextItem ? each.lost(timedOut(each), nextItem) : this.#lost(each, nextItem, death);
    };
    const ended = this.#stopWith(ticket, error, outcomeOf, stillRuns);
    if (ended !== undefined) this.#settleAll(ended);
    else if (ticket.slot === slot) {
      this.#watchdog.lookSoon();
      // Not before that look.
      this.#crew.letAnswer(slot!);
    }
    this.#dispatch();
  }

  /**
   * Stops the worker that runs a ticket; its neighbours share its fate.
   *
   * @returns The tickets that end by that, and how; undefined if the ticket no longer runs there, or may not be stopped yet.
   */
  #stopWith(ticket: Ticket, error: unknown, outcomeOf: OutcomeOf, mayStop: () => boolean): Settlement[] | undefined {
    const slot = ticket.slot!;
    // In this order: first nothing more is started there, then what has finished is heard of; so it is this ticket that runs.
    this.#requeue(slot.withdrawAll());
    slot.drain();
    if (ticket.slot !== slot || !mayStop()) return undefined;
    const left = this.#crew.stop(slot, error);
    return this.#decideAll(left, stoppedToEnd(ticket, error), outcomeOf);
  }

  /** Cancels a chunk that has not started. One that has starts no more items, and with `force` its worker is stopped. */
  #cancelChunk(ticket: Ticket, error: unknown, force: boolean): void {
    if (!this.#cancel(ticket, error, force)) ticket.slot?.curtail(ticket);
  }

  /** Takes a ticket out of the queue or back from its worker; false if the worker has started it. */
  #takeBack(ticket: Ticket): boolean {
    if (this.#undecided.delete(ticket)) return true;
    return ticket.queued ? this.#queue.remove(ticket) : ticket.slot!.withdraw(ticket);
  }

  // Settling

  #settle(ticket: Ticket, outcome: Outcome<unknown>): void {
    this.#record(ticket, outcome);
    this.#longTurn.callBack(ticket);
  }

  /**
   * Settles a ticket that cannot be sent: at once, or, if others have settled like that, when other work of the event loop has had its turn.
   */
  #settleUnsent(ticket: Ticket, outcome: Outcome<unknown>): void {
    if (this.#longTurn.maySettle()) return this.#settle(ticket, outcome);
    this.#undecided.add(ticket);
    this.#options.clock.soon(() => {
      if (!this.#undecided.delete(ticket)) return;
      this.#settle(ticket, outcome);
      this.#dispatch();
    });
  }

  /**
   * Settles several tickets together: none can be cancelled any more once the first is told, which may end a map that has others; and all
   * have settled before the first callback runs, which may look at any of them.
   */
  #settleAll(settlements: Settlement[]): void {
    this.#recordAll(settlements);
    for (const [ticket] of settlements) this.#longTurn.callBack(ticket);
  }

  #recordAll(settlements: Settlement[]): void {
    for (const [ticket] of settlements) ticket.settled = true;
    for (const [ticket, outcome] of settlements) this.#record(ticket, outcome);
  }

  /** Where every ticket ends, except calls that return: those end in `#fulfil`. It has left the queue and its slot before. */
  #record(ticket: Ticket, outcome: Outcome<unknown>): void {
    ticket.settled = true;
    ticket.stopListening?.();
    if (ticket.watched) this.#watchdog.forget(ticket);
    this.#observation?.settled(ticket, outcome);
    ticket.settle(outcome, this.#counts);
  }

  /** Gives the permit back before callbacks run, so that they can submit; but `onDone` may hold it. */
  #callBack(ticket: Ticket): void {
    const { onDone } = ticket;
    if (onDone === undefined) this.#gate.release();
    else this.#callbacks.callOnDoneWithPermit(onDone, this.#gate);
    ticket.callBack();
  }

  // The end

  #close(cause: unknown): void {
    this.#end ??= Promise.withResolvers();
    if (this.#state === "closing" || this.#state === "closed") return;
    this.#state = "closing";
    this.#defect = undefined;
    const errorOf = (action: string): PoolClosedError => new PoolClosedError(`Cannot ${action} as it was shut down meanwhile`, { cause });
    this.#refuseWaiting(errorOf("submit to pool"));
    this.#crew.beginClosing(errorOf("warm up pool"));
  }

  /** Ends a closing pool once nothing is left to do. */
  #conclude(): void {
    if (this.#state !== "closing" || this.#queue.size > 0 || this.#undecided.size > 0 || this.#crew.size > 0) return;
    this.#state = "closed";
    this.#crew.allGone().then(() => this.#callbacks.idle()).then(() => this.#observation?.closed()).then(() => this.#end!.resolve());
  }
}

type Cancelled = { state: "cancelled"; error: unknown };
type Settlement = [ticket: Ticket, outcome: Outcome<unknown>];

/** How a ticket ends whose worker died when `nextItem` was its next item; undefined if it can still be run. */
type OutcomeOf = (ticket: Ticket, nextItem: number, death: Death) => Outcome<unknown> | undefined;

function failed(error: unknown): Outcome<unknown> {
  return { state: "failed", error };
}

/** The death of a worker that is stopped because of one of its jobs. */
function stoppedToEnd({ id }: Ticket, error: unknown): Death {
  return { reason: `was stopped to end job ${show(id)}`, thrown: { raw: error } };
}

/** Makes the errors of a ticket that has run for too long. */
function timedOut({ timeout: limit, name: taskName }: Ticket): ErrorOf {
  return (jobId, attempts) =>
    new JobTimeoutError(`Stopped ${showJob(jobId, taskName)} as it ran for more than ${limit} ms`, {
      jobId,
      taskName,
      limit,
      attempts,
    });
}

function cancelled(ticket: Ticket, reason?: unknown): Outcome<unknown> {
  return { state: "cancelled", error: ticket.cancelledError(reason) };
}

/** Instead of an outcome: the ticket could not be sent now. */
const NO_ROOM = Symbol("no room");
