/**
 * A job is one call of a task; a future is what came, or will come, of it. This is the only place where a job settles.
 *
 * @module
 */

import type { Callbacks } from "./pool/callbacks.ts";
import { Checks, isIterable, show } from "./pool/checks.ts";
import { giveUp } from "./pool/give_up.ts";

/** A function that a worker can run. What it takes and returns has to be cloneable, but for the backend `inline`. */
// deno-lint-ignore no-explicit-any -- the default has to admit every function
export type Task<A extends unknown[] = any[], R = unknown> = (...args: A) => R | PromiseLike<R>;

/**
 * Names a task of a task module without importing the module. The type parameters are those of the task, for whoever wants its calls checked.
 *
 * @typeParam A The arguments of the task.
 * @typeParam R What the task returns.
 */
// deno-lint-ignore no-explicit-any -- the default has to admit every task
export interface TaskRef<A extends unknown[] = any[], R = unknown> {
  /** The module's address, as it stands in the pool's `modules`. */
  module: string | URL;
  /** The name under which the module exports the task. */
  name: string;
  /** For the type checker alone: there is never anything here. */
  signature?: Task<A, R> | undefined;
}

/** How a settled job ended. */
export type SettledState = "finished" | "failed" | "cancelled";

/** Where a job is in its life. `running` means that a worker has really started it. */
export type JobState = "queued" | "running" | SettledState;

/** What {@linkcode Job} takes, whatever its arguments. */
export interface JobBaseOptions<R> {
  /**
   * What the job is called in messages.
   *
   * @default {a number that no job before had}
   */
  id?: string | number | undefined;
  /**
   * Cancels the job when it aborts: while it waits at the gate, in the queue, or runs. `result()` rejects with the signal's own reason.
   *
   * @default {undefined}
   */
  signal?: AbortSignal | undefined;
  /**
   * How long the job may run, in milliseconds from its real start. It is stopped then as by `cancel({ force: true })`, and fails with a
   * {@linkcode JobTimeoutError}. Infinity sets no limit.
   *
   * @default {the pool's jobTimeout}
   */
  timeout?: number | undefined;
  /**
   * How often the job is run again after it was lost because its worker died or filled its heap; with `retryIf`, after what that says. It goes
   * to the front of the queue. When all runs have failed, the last error has the earlier ones in its cause, if it is the pool's own;
   * what the task threw is left as it is.
   *
   * @default {the pool's retries}
   */
  retries?: number | undefined;
  /**
   * Decides whether to run the job again after this error, be it its worker's death, a timeout or what its task threw; `attempt` is 1 after
   * the first run. It is not asked when `retries` are used up, nor if there are none. It has to say so at once: a promise counts as false,
   * and is an error that goes to the pool's `onError`.
   *
   * @default {after the death of its worker alone}
   */
  retryIf?: ((error: unknown, attempt: number) => boolean) | undefined;
  /**
   * What of the arguments is moved to the worker instead of copied: it is empty here once the job is sent, or is about to be. A job with
   * such arguments cannot be retried.
   *
   * @default {[]}
   */
  transfer?: readonly Transferable[] | undefined;
  /**
   * Called once when the job has settled, however it did; if another callback has settled it, by `cancel()` for example, when that one has
   * returned. A promise that it returns holds the job's place in the gate until it settles, so that a slow callback holds back the
   * submitter: it must wait neither for a submission of its own, whose place it may hold, nor for `shutdown()`, which waits for it. What it
   * throws goes to the pool's `onError`. An AsyncLocalStorage may have somebody else's store in it, as in `retryIf`: where one is asked
   * for, give `AsyncLocalStorage.bind(callback)`. Who awaits a result has their own.
   *
   * @default {undefined}
   */
  onDone?: ((future: Future<R>) => unknown) | undefined;
}

/** The arguments of a job; they may be left out only if the task can be called without any. */
export type JobArgs<A extends unknown[]> = [] extends A ? { args?: Readonly<A> | undefined } : { args: Readonly<A> };

/**
 * The arguments of a job that come before its named ones: all of them, as the named ones would land in the place of one that is left out. For
 * an optional one there may be an `undefined`.
 */
export type JobArgsBeforeKwargs<A extends unknown[]> = A["length"] extends Required<A>["length"] ? JobArgs<A>
  : [...A, 0] extends [...infer B, 0] ? JobArgs<B>
  : never;

/** What {@linkcode Job} takes for a task that is called with `args` alone. */
export type JobOptions<A extends unknown[], R> = JobBaseOptions<R> & JobArgs<A> & {
  /** The task. */
  func: Task<A, R> | TaskRef<A, R | PromiseLike<R>>;
  /** None. */
  kwargs?: undefined;
};

/** What {@linkcode Job} takes for a task whose last argument is an object of named arguments. */
export type JobOptionsWithKwargs<A extends unknown[], K extends object, R> = JobBaseOptions<R> & JobArgsBeforeKwargs<A> & {
  /** The task. */
  func: Task<[...A, K], R> | TaskRef<[...A, K], R | PromiseLike<R>>;
  /** The named arguments: passed as one object, after `args`. */
  kwargs: K;
};

const JOB_OPTIONS = ["id", "func", "args", "kwargs", "signal", "timeout", "retries", "retryIf", "transfer", "onDone"] as const;

/** Says that a job is made by the pool, of a call: it has no options. */
const MERE_CALL = Symbol("mere call");
const NOTHING: readonly never[] = [];

/** The number of the next job that comes without an id. */
let nextId = 0;

/** The id of a job that comes without one: for the pool alone. */
export function nextJobId(): number {
  return nextId++;
}

/**
 * One call of a task: what to run, with what, and what to do when it is done.
 *
 * The task is called as `func(...args)`; when there are `kwargs`, that object comes as one more, last argument, so that `args` have to be
 * all that come before it.
 *
 * @typeParam A The arguments of the task, without the object of named ones.
 * @typeParam R What the task returns, or what its promise resolves with.
 * @typeParam K The named arguments.
 *
 * @example The job model that Python users know
 * ```ts
 * import { Job, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * function greet(greeting: string, { name }: { name: string }): string {
 *   return `${greeting}, ${name}!`;
 * }
 *
 * await using pool = new ProcessPool({ maxWorkers: 1 });
 * const seen: unknown[] = [];
 * const future = await pool.submit(
 *   new Job({ id: 7, func: greet, args: ["Hello"], kwargs: { name: "bear" }, onDone: (future) => seen.push(future.id) }),
 * );
 * assertEquals(await future.result(), "Hello, bear!");
 * assertEquals(seen, [7]);
 * ```
 */
export class Job<A extends unknown[], R, K extends object = object> {
  /** What the job is called in messages. */
  readonly id: string | number;
  /** The task. */
  // deno-lint-ignore no-explicit-any -- its arguments are checked where the job is made
  readonly func: Task<any[], R> | TaskRef<any[], R | PromiseLike<R>>;
  /**
   * The arguments. They are copied when the job is sent to a worker, so do not change them before it runs. Of most objects of the platform
   * (URL, Headers, Request, Response, FormData, Event) Deno copies nothing, and says nothing: they arrive as `{}`. Give what they are made
   * of, and an AbortSignal as the job's `signal`. A view of a part of a buffer takes the whole buffer along, as it does in any message:
   * give a `slice()` of it.
   */
  readonly args: readonly unknown[];
  /** The named arguments. */
  readonly kwargs: object | undefined;
  /** What cancels the job. */
  readonly signal: AbortSignal | undefined;
  /** How long it may run, in milliseconds. */
  readonly timeout: number | undefined;
  /** How often it may be run again. */
  readonly retries: number | undefined;
  /** After which errors it is run again. */
  readonly retryIf: ((error: unknown, attempt: number) => boolean) | undefined;
  /** What is moved instead of copied. */
  readonly transfer: readonly Transferable[];
  /** What is called when the job has settled. */
  // deno-lint-ignore no-explicit-any -- with R, a Future<string> would be no Future<unknown>
  readonly onDone: ((future: Future<any>) => unknown) | undefined;

  /**
   * Constructs a job for a task without named arguments.
   *
   * @param options What to run, and how.
   *
   * @throws {TypeError} If an option is missing, unknown or of the wrong type.
   * @throws {RangeError} If a number is out of its range.
   */
  constructor(options: JobOptions<A, R>);
  /**
   * Constructs a job for a task with named arguments.
   *
   * @param options What to run, and how.
   *
   * @throws {TypeError} If an option is missing, unknown or of the wrong type.
   * @throws {RangeError} If a number is out of its range.
   */
  constructor(options: JobOptionsWithKwargs<A, K, R>);
  constructor(
    options: JobBaseOptions<R> & { func: unknown; args?: unknown; kwargs?: unknown },
    mereCall?: typeof MERE_CALL,
    call?: Call,
  ) {
    if (mereCall === MERE_CALL) {
      this.id = call!.id;
      this.func = call!.func as Task<unknown[], R>;
      this.args = call!.args;
      this.transfer = NOTHING;
      return;
    }
    const checks = new Checks("create job");
    const { id, func, args, kwargs, signal, timeout, retries, retryIf, transfer, onDone } = checks.options(options, JOB_OPTIONS);
    this.id = id === undefined ? nextJobId() : checkedId(id);
    this.func = checkedFunc("create job", "func", func) as Task<unknown[], R>;
    // A class of somebody's own may make others of its kind in any way.
    this.args = args === undefined ? [] : [...checks.array("args", args)];
    this.kwargs = kwargs === undefined ? undefined : checks.object("kwargs", kwargs);
    this.signal = signal === undefined ? undefined : checks.signal("signal", signal);
    this.timeout = timeout === undefined ? undefined : checks.milliseconds("timeout", timeout, { infinite: true });
    this.retries = retries === undefined ? undefined : checks.wholeNumber("retries", retries, { min: 0 });
    this.retryIf = retryIf === undefined ? undefined : checks.callable("retryIf", retryIf);
    this.transfer = transfer === undefined ? NOTHING : checks.transfer("transfer", transfer);
    this.onDone = onDone === undefined ? undefined : checks.callable("onDone", onDone);
  }

  /** How `console.log` shows a job: without what was left to its default. */
  [Symbol.for("Deno.customInspect")](inspect: (value: unknown, options?: object) => string, options: object): string {
    const { id, func: _, ...others } = this;
    const given = Object.entries(others).filter(([, value]) => value !== undefined && value !== NOTHING);
    return `Job ${inspect({ id, task: taskName(this.func), ...Object.fromEntries(given) }, options)}`;
  }
}

/** What a job gives: one of several, if it is one of several jobs. */
// deno-lint-ignore no-explicit-any -- the arguments are of no concern here
export type JobResult<J extends Job<any[], unknown>> = J extends Job<any[], infer R> ? R : never;

/** A call of a task, checked already. */
interface Call {
  id: string | number;
  func: Task | TaskRef;
  args: readonly unknown[];
}

const MereCall = Job as unknown as new <R>(options: undefined, mereCall: typeof MERE_CALL, call: Call) => Job<never[], R>;

function checkedId(id: unknown): string | number {
  if (typeof id === "string" || typeof id === "number") return id;
  throw new TypeError(`Cannot create job as 'id' must be a string or a number: current value is ${show(id)}`);
}

/** The value, if it is a function or names a task. */
export function checkedFunc(action: string, option: string, func: unknown): Task | TaskRef {
  if (typeof func === "function") return func as Task;
  const { module, name } = (func ?? {}) as Partial<TaskRef>;
  if ((typeof module === "string" || module instanceof URL) && typeof name === "string") return func as TaskRef;
  throw new TypeError(`Cannot ${action} as '${option}' must be a function or { module, name }: current value is ${show(func)}`);
}

/** What a task is called in messages. */
export function taskName(func: Task | TaskRef): string {
  return func.name === "" ? "anonymous" : func.name;
}

/** Options of {@linkcode Future.result}. */
export interface ResultOptions {
  /**
   * How long to wait, in milliseconds.
   *
   * @default {undefined}
   */
  timeout?: number | undefined;
  /**
   * Gives up waiting when it aborts.
   *
   * @default {undefined}
   */
  signal?: AbortSignal | undefined;
}

/** Options of {@linkcode Future.cancel}. */
export interface CancelOptions {
  /**
   * Becomes the cause of the {@linkcode JobCancelledError}.
   *
   * @default {undefined}
   */
  reason?: unknown;
  /**
   * Ends the job even if it runs: its worker is stopped, as far as the backend can, and replaced.
   *
   * @default {false}
   */
  force?: boolean | undefined;
}

/** What a job ended with. */
export type Outcome<R> = { state: "finished"; value: R } | { state: "failed" | "cancelled"; error: unknown };

/** The pool's hand on an unsettled job. */
export interface FutureControl {
  /** Whether a worker has really started the job. */
  started(): boolean;
  /** Cancels what has not started, or, with `force`, what runs; false if it does not. */
  cancel(options: { reason: unknown; force: boolean }): boolean;
}

/** Makes a future, settles it, and calls its callbacks: for the pool alone. */
export let makeFuture: <R>(job: Job<never[], R> | Call, control: FutureControl, callbacks: Callbacks) => Future<R>;
/** Settles a future: wakes those who wait for it. */
export let settleFuture: <R>(future: Future<R>, state: SettledState, outcome: unknown) => void;
/** Whether somebody has added done callbacks that were not called yet. */
export let hasDoneCallbacks: (future: Future<unknown>) => boolean;
/** Calls the done callbacks of a settled future. */
export let callDoneCallbacks: (future: Future<unknown>) => void;
/** Calls back when a future is settled, at once if it is. The function that is returned calls it off. */
let onSettled: (future: Future<unknown>, listener: () => void) => () => void;

/**
 * What came, or will come, of one job. It is not thenable, so that `await pool.submit(...)` is the future and not its result.
 *
 * A job that fails while nobody looks at its future makes no unhandled rejection.
 *
 * @typeParam R What the task returns, or what its promise resolves with.
 *
 * @example Looking at a job that failed
 * ```ts
 * import { ProcessPool } from "@procpool/process-pool";
 * import { assertEquals, assertInstanceOf } from "@std/assert";
 *
 * await using pool = new ProcessPool({ maxWorkers: 1 });
 * const future = await pool.submit((text: string) => JSON.parse(text), "{");
 * assertInstanceOf(await future.exception(), SyntaxError);
 * assertEquals(future.state, "failed");
 * ```
 */
export class Future<R> {
  /** The id of the job. */
  readonly id: string | number;
  /** Of a call, there is no job until somebody wants to see it. */
  #job: Job<never[], R> | Call;
  #settled: SettledState | undefined;
  /** The result of a finished job, the error of another. */
  #outcome: unknown;
  /** Let go of when the job settles, so that a future that is kept keeps nothing of the pool's. */
  #control: FutureControl | undefined;
  #callbacks: Callbacks;
  #listeners: Set<() => void> | undefined;
  #doneCallbacks: (() => void)[] | undefined;
  #result: Promise<R> | undefined;
  #resolve: ((value: unknown) => void) | undefined;
  #reject: ((error: unknown) => void) | undefined;

  private constructor(job: Job<never[], R> | Call, control: FutureControl, callbacks: Callbacks) {
    this.id = job.id;
    this.#job = job;
    this.#control = control;
    this.#callbacks = callbacks;
  }

  static {
    makeFuture = (job, control, callbacks) => new Future(job, control, callbacks);
    settleFuture = (future, state, outcome) => future.#settle(state, outcome);
    hasDoneCallbacks = (future) => future.#doneCallbacks !== undefined;
    callDoneCallbacks = (future) => future.#callDoneCallbacks();
    onSettled = (future, listener) => future.#onSettled(listener);
  }

  /** The job. */
  // deno-lint-ignore no-explicit-any -- the arguments are of no concern here
  get job(): Job<any[], R> {
    const job = this.#job;
    return job instanceof Job ? job : this.#job = new MereCall<R>(undefined, MERE_CALL, job);
  }

  /** Where the job is in its life. */
  get state(): JobState {
    return this.#settled ?? (this.#control!.started() ? "running" : "queued");
  }

  /**
   * Waits for the job.
   *
   * @param options How long to wait. Giving up leaves the job alone.
   * @returns What the task returned.
   *
   * @throws {unknown} What the task threw, if the job failed.
   * @throws {WorkerDiedError} If the worker died while it ran the job.
   * @throws {JobTimeoutError} If the job ran for too long.
   * @throws {PoolClosedError} If the pool was terminated while the job ran.
   * @throws {PoolBrokenError} If no worker could be started.
   * @throws {JobCancelledError} If the job was cancelled; if its signal aborted, the signal's reason is thrown.
   * @throws {DOMException & { name: "TimeoutError" }} If `timeout` ran out first.
   * @throws {TypeError} If an option is of the wrong type; a RangeError if `timeout` is not a time.
   */
  result(options?: ResultOptions): Promise<R> {
    return options === undefined ? this.#promise() : this.#resultWithin(options);
  }

  async #resultWithin(options: ResultOptions): Promise<R> {
    const checks = new Checks("wait for result");
    const { timeout, signal } = checks.options(options, ["timeout", "signal"]);
    if (timeout !== undefined) checks.milliseconds("timeout", timeout);
    if (signal !== undefined) checks.signal("signal", signal);
    // Not for its promise, which would keep something of everybody who has given up.
    let forget = (): void => {};
    const settled = new Promise<void>((resolve) => forget = this.#onSettled(resolve));
    try {
      await giveUp(settled, options);
    } finally {
      forget();
    }
    return await this.#promise();
  }

  /**
   * Waits for the job, and never rejects.
   *
   * @returns What {@linkcode Future.result} rejects with; undefined when it does not. The state tells a thrown undefined apart.
   */
  async exception(): Promise<unknown> {
    try {
      await this.#promise();
      return undefined;
    } catch (error) {
      return error;
    }
  }

  /** Whether the job has settled. */
  done(): boolean {
    return this.#settled !== undefined;
  }

  /** Whether a worker has started the job and it has not settled. */
  running(): boolean {
    return this.state === "running";
  }

  /** Whether the job was cancelled. */
  cancelled(): boolean {
    return this.#settled === "cancelled";
  }

  /**
   * Cancels the job if no worker has started it; with `force` even then. Its place in the gate is free again at once, but for
   * one that a promise of its `onDone` holds.
   *
   * @param options Why, and whether to end it even if it runs.
   * @returns Whether this call cancelled it: a job that was cancelled before it started never runs. False if it runs or is settled.
   *
   * @throws {TypeError} If an option is of the wrong type.
   */
  cancel(options: CancelOptions = {}): boolean {
    const checks = new Checks("cancel job");
    const { reason, force } = checks.options(options, ["reason", "force"]);
    if (force !== undefined) checks.boolean("force", force);
    return this.#control?.cancel({ reason, force: force ?? false }) ?? false;
  }

  /**
   * Calls back once when the job has settled, however it did; soon, if it has already. Callbacks are called in the order of the calls.
   * `shutdown()` waits for callbacks and what they return: one that awaits `shutdown()`, or the end of `await using`, waits for itself for ever.
   * An AsyncLocalStorage may have somebody else's store in them: where one is asked for, give `AsyncLocalStorage.bind(callback)`.
   *
   * @param callback Gets this future.
   * @returns Settles as the callback does. What the callback throws goes to the pool's `onError` if nobody looks at this promise.
   *
   * @throws {TypeError} If the callback is not a function.
   */
  addDoneCallback<T>(callback: (future: Future<R>) => T | PromiseLike<T>): Promise<T> {
    new Checks("add callback").callable("callback", callback);
    const { promise, call } = this.#callbacks.prepare(() => callback(this));
    if (this.#settled !== undefined && this.#doneCallbacks === undefined) queueMicrotask(call);
    else (this.#doneCallbacks ??= []).push(call);
    return promise;
  }

  /** How `console.log` shows a future. */
  [Symbol.for("Deno.customInspect")](inspect: (value: unknown, options?: object) => string, options: object): string {
    const { id, state, job } = this;
    const outcome = state === "finished" ? { result: this.#outcome } : this.#settled === undefined ? {} : { error: this.#outcome };
    return `Future ${inspect({ id, task: taskName(job.func), state, ...outcome }, options)}`;
  }

  #promise(): Promise<R> {
    return this.#result ??= promiseOf<R, Future<R>>(this, Future.#takeResolvers);
  }

  static #takeResolvers<R>(future: Future<R>, resolve: (value: unknown) => void, reject: (error: unknown) => void): void {
    future.#resolve = resolve;
    future.#reject = reject;
    if (future.#settled !== undefined) future.#settlePromise();
  }

  #settlePromise(): void {
    if (this.#settled === "finished") this.#resolve?.(this.#outcome);
    else this.#reject?.(this.#outcome);
    this.#resolve = this.#reject = undefined;
  }

  #onSettled(listener: () => void): () => void {
    if (this.#settled !== undefined) {
      listener();
      return () => {};
    }
    this.#listeners ??= new Set();
    this.#listeners.add(listener);
    return () => this.#listeners?.delete(listener);
  }

  #settle(state: SettledState, outcome: unknown): void {
    this.#settled = state;
    this.#outcome = outcome;
    this.#control = undefined;
    if (this.#resolve !== undefined) this.#settlePromise();
    if (this.#listeners === undefined) return;
    const listeners = this.#listeners;
    this.#listeners = undefined;
    for (const listener of listeners) listener();
  }

  #callDoneCallbacks(): void {
    // One that a callback adds is called in the same round: after those that were added before it.
    if (this.#doneCallbacks === undefined) return;
    for (const call of this.#doneCallbacks) call();
    this.#doneCallbacks = undefined;
  }
}

type TakeResolvers<H> = (holder: H, resolve: (value: unknown) => void, reject: (reason: unknown) => void) => void;

let nextHolder: unknown;
let takeResolvers: TakeResolvers<never>;

/**
 * Makes a promise for somebody to settle, who is given what does that. A function of each promise's own, with what it closes over, would be a sixth of all that is allocated for a call.
 */
export function promiseOf<T, H>(holder: H, take: TakeResolvers<H>): Promise<T> {
  nextHolder = holder;
  takeResolvers = take as TakeResolvers<never>;
  return new Promise(giveResolvers);
}

function giveResolvers(resolve: (value: never) => void, reject: (reason: unknown) => void): void {
  const holder = nextHolder;
  nextHolder = undefined;
  takeResolvers(holder as never, resolve as (value: unknown) => void, reject);
}

/** Options of {@linkcode asCompleted}. */
export interface AsCompletedOptions {
  /**
   * How long to wait for all of them, in milliseconds from the call.
   *
   * @default {undefined}
   */
  timeout?: number | undefined;
}

/**
 * The futures in the order in which their jobs settle; those that have settled before the call come first. Each comes once, even if it is
 * given twice. Named after `concurrent.futures.as_completed`.
 *
 * @typeParam F The futures.
 * @param futures What to wait for. It is read at the call.
 * @param options How long to wait.
 * @returns The futures; leaving the loop leaves the jobs alone.
 *
 * @throws {DOMException & { name: "TimeoutError" }} Out of the loop, if `timeout` ran out first.
 * @throws {TypeError} If something given is not a future, or an option is of the wrong type; a RangeError if `timeout` is not a time.
 *
 * @example The fastest first
 * ```ts
 * import { asCompleted, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * await using pool = new ProcessPool({ maxWorkers: 2 });
 * const sleep = (ms: number) => new Promise((resolve) => setTimeout(() => resolve(ms), ms));
 * const futures = [await pool.submit(sleep, 300), await pool.submit(sleep, 1)];
 * const order: unknown[] = [];
 * for await (const future of asCompleted(futures)) order.push(await future.result());
 * assertEquals(order, [1, 300]);
 * ```
 */
export function asCompleted<F extends Future<unknown>>(futures: Iterable<F>, options: AsCompletedOptions = {}): AsyncIterableIterator<F> {
  const checks = new Checks("wait for futures");
  const { timeout } = checks.options(options, ["timeout"]);
  if (timeout !== undefined) checks.milliseconds("timeout", timeout);
  const all = checkedFutures(futures);
  const deadline = timeout === undefined ? undefined : performance.now() + timeout;
  const settled: F[] = [];
  let wake = (): void => {};
  const stop = [...all].map((future) =>
    onSettled(future, () => {
      settled.push(future);
      wake();
    })
  );

  async function* inOrder(): AsyncGenerator<F, void, void> {
    try {
      for (let given = 0; given < all.size; given++) {
        if (settled[given] === undefined) {
          const next = new Promise<void>((resolve) => wake = resolve);
          await giveUp(next, deadline === undefined ? {} : { timeout: Math.max(0, deadline - performance.now()), of: timeout });
        }
        yield settled[given]!;
      }
    } finally {
      for (const forget of stop) forget();
    }
  }
  return inOrder();
}

/** Options of {@linkcode wait}. */
export interface WaitOptions {
  /**
   * What to wait for: the first job to settle, the first to fail or be cancelled (or all, if none does), or all.
   *
   * @default {"all-completed"}
   */
  returnWhen?: "first-completed" | "first-exception" | "all-completed" | undefined;
  /**
   * How long to wait, in milliseconds.
   *
   * @default {undefined}
   */
  timeout?: number | undefined;
}

/** What {@linkcode wait} found. */
export interface WaitResult<F> {
  /** The futures whose jobs have settled. */
  done: Set<F>;
  /** The others. */
  notDone: Set<F>;
}

/**
 * Waits for one of the conditions of `concurrent.futures.wait`.
 *
 * @typeParam F The futures.
 * @param futures What to wait for. It is read at the call.
 * @param options The condition, and how long to wait.
 * @returns Which of the futures have settled and which have not. It does not reject when a job fails.
 *
 * @throws {DOMException & { name: "TimeoutError" }} If `timeout` ran out first. The jobs are left alone.
 * @throws {TypeError} If something given is not a future, or an option is of the wrong type; a RangeError if `timeout` is not a time.
 *
 * @example Until the first is there
 * ```ts
 * import { ProcessPool, wait } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * await using pool = new ProcessPool({ maxWorkers: 2 });
 * const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
 * const quick = await pool.submit(sleep, 1);
 * const slow = await pool.submit(sleep, 300);
 * const { done, notDone } = await wait([quick, slow], { returnWhen: "first-completed" });
 * assertEquals([...done], [quick]);
 * assertEquals([...notDone], [slow]);
 * ```
 */
export async function wait<F extends Future<unknown>>(futures: Iterable<F>, options: WaitOptions = {}): Promise<WaitResult<F>> {
  const checks = new Checks("wait for futures");
  const { returnWhen = "all-completed", timeout } = checks.options(options, ["returnWhen", "timeout"]);
  checks.oneOf("returnWhen", returnWhen, ["first-completed", "first-exception", "all-completed"]);
  if (timeout !== undefined) checks.milliseconds("timeout", timeout);
  const all = checkedFutures(futures);
  const stop: (() => void)[] = [];
  const met = new Promise<void>((resolve) => {
    let open = all.size;
    if (open === 0) resolve();
    for (const future of all) {
      stop.push(onSettled(future, () => {
        const enough = returnWhen === "first-completed" || (returnWhen === "first-exception" && future.state !== "finished");
        if (--open === 0 || enough) resolve();
      }));
    }
  });
  try {
    await giveUp(met, { timeout });
  } finally {
    for (const forget of stop) forget();
  }
  const done = new Set<F>();
  const notDone = new Set<F>();
  for (const future of all) (future.done() ? done : notDone).add(future);
  return { done, notDone };
}

function checkedFutures<F>(futures: Iterable<F>): Set<F> {
  if (!isIterable(futures)) {
    throw new TypeError(`Cannot wait for futures as they must be iterable: current value is ${show(futures)}`);
  }
  const all = new Set(futures);
  for (const future of all) {
    if (!(future instanceof Future)) throw new TypeError(`Cannot wait for futures as one of them is ${show(future)}`);
  }
  return all;
}
