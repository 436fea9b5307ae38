/**
 * A job is one call of a task; a future is its pending or settled outcome. This is the only place where a future settles.
 *
 * @module
 */

import type { Callbacks } from "./pool/callbacks.ts";
import { Checks, show } from "./pool/checks.ts";
import { withDeadline } from "./pool/deadline.ts";

/** A function that a worker can run. Its arguments and result must be cloneable, except with the backend `inline`. */
// deno-lint-ignore no-explicit-any -- the default has to admit every function
export type Task<A extends unknown[] = any[], R = unknown> = (...args: A) => R | PromiseLike<R>;

/**
 * Names a task of a task module without importing the module. The type parameters describe the task, so that its calls can be type-checked.
 *
 * @typeParam A The arguments of the task.
 * @typeParam R What the task returns.
 *
 * @example A task that is named
 * ```ts
 * import { ProcessPool, type TaskRef } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * // In a program: import.meta.resolve("./tasks.ts").
 * const module = "data:text/javascript,export const double = (x) => 2 * x";
 * const double: TaskRef<[x: number], number> = { module, name: "double" };
 *
 * await using pool = new ProcessPool({ maxWorkers: 1, modules: [module] });
 * assertEquals(await pool.run(double, 21), 42);
 * ```
 */
// deno-lint-ignore no-explicit-any -- the default has to admit every task
export interface TaskRef<A extends unknown[] = any[], R = unknown> {
  /** The module's address, as listed in the pool's `modules`. */
  module: string | URL;
  /** The name under which the module exports the task. */
  name: string;
  /** Only for the type checker: never set. */
  signature?: Task<A, R> | undefined;
}

/** How a settled job ended. */
export type SettledState = "finished" | "failed" | "cancelled";

/** Where a job is in its life. `running` means that a worker has actually started it. */
export type JobState = "queued" | "running" | SettledState;

/** The options of {@linkcode Job} that do not depend on its arguments. */
export interface JobBaseOptions<R> {
  /**
   * What the job is called in messages.
   *
   * @default {a number that no earlier job had}
   */
  id?: string | number | undefined;
  /**
   * Cancels the job when it aborts, whether the job waits at the gate, is queued or runs. `result()` rejects with the signal's own reason.
   *
   * @default {undefined}
   */
  signal?: AbortSignal | undefined;
  /**
   * How long the job may run, in milliseconds from when a worker starts it. It is then stopped as by `cancel({ force: true })`, and fails
   * with a {@linkcode JobTimeoutError}. Infinity sets no limit.
   *
   * @default {the pool's jobTimeout}
   */
  timeout?: number | undefined;
  /**
   * How often the job is run again after its worker died or filled its heap; with `retryIf`, after the errors for which that returns true.
   * It goes back to its place in the queue. When all runs have failed, the last error, if it is one of the pool's, has an AggregateError as its
   * cause: the errors of the earlier runs in their order, then the cause it had by itself. What the task threw is left unchanged.
   *
   * @default {the pool's retries}
   */
  retries?: number | undefined;
  /**
   * Decides whether to run the job again after this error: its worker's death, a timeout, or what its task threw; `attempt` is 1 after the
   * first run. It is not called once the `retries` are used up, nor if there are none. It must answer synchronously: a promise counts as
   * false and is reported to the pool's `onError` as an error.
   *
   * @default {only after its worker died or filled its heap}
   */
  retryIf?: ((error: unknown, attempt: number) => boolean) | undefined;
  /**
   * Objects within the arguments that are moved to the worker instead of copied: they are detached here once the job is sent, or is about
   * to be. A job with such arguments cannot be retried.
   *
   * @default {[]}
   */
  transfer?: readonly Transferable[] | undefined;
  /**
   * Called once when the job has settled, in whatever way; if another callback has settled it, for example by `cancel()`, after that one
   * has returned. A promise that it returns holds the job's permit until the promise settles, so a slow callback slows the submitter down.
   * It must not wait for a submission of its own, whose permit it may hold, nor for `shutdown()`, which waits for it. What it throws goes
   * to the pool's `onError`. In this callback, as in `retryIf`, an AsyncLocalStorage may contain the store of another caller: if you use
   * one, pass `AsyncLocalStorage.bind(callback)`. Code that awaits a result keeps its own store.
   *
   * @default {undefined}
   */
  onDone?: ((future: Future<R>) => unknown) | undefined;
}

/** The arguments of a job; they may be left out only if the task can be called without any. */
export type JobArgs<A extends unknown[]> = [] extends A ? { args?: Readonly<A> | undefined } : { args: Readonly<A> };

/**
 * The arguments of a job that come before its named ones. None may be left out, as the named ones would land in its place; pass `undefined`
 * for an optional one.
 */
export type JobArgsBeforeKwargs<A extends unknown[]> = A["length"] extends Required<A>["length"] ? JobArgs<A>
  : [...A, 0] extends [...infer B, 0] ? JobArgs<B>
  : never;

// The arguments come last: otherwise TypeScript does not let a generic function add an option by a spread.
/** Options of {@linkcode Job} for a task that is called with `args` only. */
export type JobOptions<A extends unknown[], R> = JobBaseOptions<R> & {
  /** The task. */
  func: Task<A, R> | TaskRef<A, R | PromiseLike<R>>;
  /** None. */
  kwargs?: undefined;
} & JobArgs<A>;

/**
 * Options of {@linkcode Job} for a task whose last argument is an object of named arguments; one that may be left out may also be
 * undefined here.
 */
export type JobOptionsWithKwargs<A extends unknown[], K extends object | undefined, R> = JobBaseOptions<R> & {
  /** The task. */
  func: Task<[...A, K], R> | TaskRef<[...A, K], R | PromiseLike<R>>;
  /** The named arguments: passed as one object, after `args`. If undefined, nothing is passed. */
  // Not K: TypeScript would infer that from here rather than from the function, and a name that the function does not know would pass.
  // deno-lint-ignore ban-types -- K without undefined
  kwargs: (K & {}) | (undefined extends K ? undefined : never);
} & JobArgsBeforeKwargs<A>;

const JOB_OPTIONS = ["id", "func", "args", "kwargs", "signal", "timeout", "retries", "retryIf", "transfer", "onDone"] as const;

/** Marks a job that the pool makes from a mere call: it has no options. */
const MERE_CALL = Symbol("mere call");
const NOTHING: readonly never[] = [];

/** The id of the next job that is given none. */
let nextId = 0;

/** An id for a job that is given none: only for the pool. */
export function nextJobId(): number {
  return nextId++;
}

/**
 * One call of a task: what to run, with which arguments, and what to do when it is done.
 *
 * The task is called as `func(...args)`. If there are `kwargs`, that object is passed as one more, last argument, so `args` must be all
 * arguments before it.
 *
 * TypeScript does not infer the types of a generic function beside `kwargs`, or beside an inline `onDone`: name them, as in `first<string>`.
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
export class Job<A extends unknown[], R, K extends object | undefined = object> {
  /** What the job is called in messages. */
  readonly id: string | number;
  /** The task. */
  // deno-lint-ignore no-explicit-any -- its arguments are checked where the job is made
  readonly func: Task<any[], R> | TaskRef<any[], R | PromiseLike<R>>;
  /**
   * The arguments. They are copied when the job is sent to a worker, so do not change them before it runs. Deno silently copies nothing of
   * most platform objects (URL, Headers, Request, Response, FormData, Event): they arrive as `{}`. Pass what they are made of, and an
   * AbortSignal as the job's `signal`. A view of part of a buffer takes the whole buffer along, as in any message: pass a `slice()` of it.
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
  /** The objects that are moved instead of copied. */
  readonly transfer: readonly Transferable[];
  /** What is called when the job has settled. */
  // deno-lint-ignore no-explicit-any -- with R, a Future<string> would be no Future<unknown>
  readonly onDone: ((future: Future<any>) => unknown) | undefined;

  /**
   * Constructs a job for a function without named arguments.
   *
   * @param options What to run, and how.
   *
   * @throws {TypeError} If an option is missing, unknown or of the wrong type.
   * @throws {RangeError} If a number is out of its range.
   */
  // An overload of its own: in a union with names, a generic function would lose its types.
  constructor(options: JobBaseOptions<R> & { func: Task<A, R>; kwargs?: undefined } & JobArgs<A>);
  /**
   * Constructs a job for a task that may be given by name, without named arguments.
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
    // A spread, not `slice()`: a subclass of Array may construct its copies in any way.
    this.args = args === undefined ? [] : [...checks.array("args", args)];
    this.kwargs = kwargs === undefined ? undefined : checks.object("kwargs", kwargs);
    this.signal = signal === undefined ? undefined : checks.signal("signal", signal);
    this.timeout = timeout === undefined ? undefined : checks.milliseconds("timeout", timeout, { infinite: true });
    this.retries = retries === undefined ? undefined : checks.wholeNumber("retries", retries, { min: 0 });
    this.retryIf = retryIf === undefined ? undefined : checks.callable("retryIf", retryIf);
    this.transfer = transfer === undefined ? NOTHING : [...checks.transfer("transfer", transfer)];
    this.onDone = onDone === undefined ? undefined : checks.callable("onDone", onDone);
  }

  /** How `console.log` shows a job: without options left at their defaults. */
  [Symbol.for("Deno.customInspect")](inspect: (value: unknown, options?: object) => string, options: object): string {
    const { id, func: _, ...others } = this;
    const given = Object.entries(others).filter(([, value]) => value !== undefined && value !== NOTHING);
    return `Job ${inspect({ id, task: taskName(this.func), ...Object.fromEntries(given) }, options)}`;
  }
}

/** The result of a job; for a union of jobs, the union of their results. */
// deno-lint-ignore no-explicit-any -- the arguments are of no concern here
export type JobResult<J extends Job<any[], unknown>> = J extends Job<any[], infer R> ? R : never;

/** A call of a task, already checked. */
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

/** Returns the value if it is a function or names a task; throws otherwise. */
export function checkedFunc(action: string, option: string, func: unknown): Task | TaskRef {
  if (typeof func === "function") return func as Task;
  const { module, name } = (func ?? {}) as Partial<TaskRef>;
  if ((typeof module === "string" || module instanceof URL) && typeof name === "string") return func as TaskRef;
  throw new TypeError(`Cannot ${action} as '${option}' must be a function or { module, name }: current value is ${show(func)}`);
}

/** What a task is called in messages. */
export function taskName(func: Task | TaskRef): string {
  return ownName(func) || "anonymous";
}

/** The name of a task; "" if it has none, or something else in its place. */
export function ownName({ name }: Task | TaskRef): string {
  return typeof name === "string" ? name : "";
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
   * Ends the job even if it is running: its worker is stopped, as far as the backend can, and replaced.
   *
   * @default {false}
   */
  force?: boolean | undefined;
}

/** How a job ended, and with what. */
export type Outcome<R> = { state: "finished"; value: R } | { state: "failed" | "cancelled"; error: unknown };

/** How a future reaches its unsettled job. */
export interface FutureControl {
  /** Whether a worker has actually started the job. */
  started(): boolean;
  /** Cancels the job if it has not started, or, with `force`, even if it runs. Returns whether it did. */
  cancel(options: { reason: unknown; force: boolean }): boolean;
}

/** Makes a future. This and the next three are only for executors: the pool, and `pool/executor.ts`. */
export let makeFuture: <R>(call: Job<never[], R> | Call, control: FutureControl, callbacks: Callbacks) => Future<R>;
/** Settles a future, with the result if it finished, else the error, and wakes those who wait for it. */
export let settleFuture: <R>(future: Future<R>, state: SettledState, resultOrError: unknown) => void;
/** Whether a future has done callbacks that were not called yet. */
export let hasDoneCallbacks: (future: Future<unknown>) => boolean;
/** Calls the done callbacks of a settled future. */
export let callDoneCallbacks: (future: Future<unknown>) => void;
/**
 * Calls back when a future settles, at once if it has. The function that it returns removes the listener. Only for who waits for several:
 * `pool/wait.ts`.
 */
export let onSettled: (future: Future<unknown>, listener: () => void) => () => void;

/**
 * The pending or settled outcome of one job. It is not thenable, so `await pool.submit(...)` gives the future and not its result.
 *
 * A job that fails while nobody looks at its future causes no unhandled rejection.
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
  #func: Task | TaskRef;
  #args: readonly unknown[];
  /** For a mere call, it is only made when somebody asks for it. */
  #job: Job<never[], R> | undefined;
  #settled: SettledState | undefined;
  /** The result if it finished, else the error. */
  #resultOrError: unknown;
  /** Dropped when the job settles, so that a future that is kept holds on to nothing of the pool. */
  #control: FutureControl | undefined;
  #callbacks: Callbacks;
  #listeners: Set<() => void> | undefined;
  #doneCallbacks: (() => void)[] | undefined;
  #result: Promise<R> | undefined;
  #resolve: ((value: unknown) => void) | undefined;
  #reject: ((error: unknown) => void) | undefined;

  private constructor(call: Job<never[], R> | Call, control: FutureControl, callbacks: Callbacks) {
    this.id = call.id;
    this.#func = call.func;
    this.#args = call.args;
    this.#job = call instanceof Job ? call : undefined;
    this.#control = control;
    this.#callbacks = callbacks;
  }

  static {
    makeFuture = (call, control, callbacks) => new Future(call, control, callbacks);
    settleFuture = (future, state, resultOrError) => future.#settle(state, resultOrError);
    hasDoneCallbacks = (future) => future.#doneCallbacks !== undefined;
    callDoneCallbacks = (future) => future.#callDoneCallbacks();
    onSettled = (future, listener) => future.#onSettled(listener);
  }

  /** The job. */
  // deno-lint-ignore no-explicit-any -- the arguments are of no concern here
  get job(): Job<any[], R> {
    return this.#job ??= new MereCall<R>(undefined, MERE_CALL, { id: this.id, func: this.#func, args: this.#args });
  }

  /** Where the job is in its life. */
  get state(): JobState {
    return this.#settled ?? (this.#control!.started() ? "running" : "queued");
  }

  /**
   * Waits for the job.
   *
   * @param options How long to wait, and a signal that ends the wait. Giving up does not affect the job.
   * @returns What the task returned.
   *
   * @throws {unknown} What the task threw, if the job failed.
   * @throws {WorkerDiedError} If the worker died while it ran the job.
   * @throws {MemoryLimitError} If the job filled the heap of its worker.
   * @throws {JobTimeoutError} If the job ran for too long.
   * @throws {PoolClosedError} If the pool was terminated while the job ran.
   * @throws {PoolBrokenError} If no worker could be started.
   * @throws {JobCancelledError} If the job was cancelled; if its signal aborted, the signal's reason is thrown instead.
   * @throws {DOMException & { name: "TimeoutError" }} If `timeout` ran out first; if `signal` aborted first, its reason is thrown instead.
   * @throws {TypeError} If an option is unknown or of the wrong type.
   * @throws {RangeError} If `timeout` is not from 0 to 2,147,483,647.
   */
  result(options?: ResultOptions): Promise<R> {
    return options === undefined ? this.#promise() : this.#resultWithin(options);
  }

  async #resultWithin(options: ResultOptions): Promise<R> {
    const checks = new Checks("wait for result");
    const { timeout, signal } = checks.options(options, ["timeout", "signal"]);
    if (timeout !== undefined) checks.milliseconds("timeout", timeout);
    if (signal !== undefined) checks.signal("signal", signal);
    // A listener rather than the future's promise, which would hold on to a reaction of everyone who has given up.
    let stopListening = (): void => {};
    const settled = new Promise<void>((resolve) => stopListening = this.#onSettled(resolve));
    try {
      await withDeadline(settled, options);
    } finally {
      stopListening();
    }
    return await this.#promise();
  }

  /**
   * Waits for the job, and never rejects.
   *
   * @returns What {@linkcode Future.result} rejects with, or undefined if it does not reject. If the task threw undefined, only the
   * `state` shows that it failed.
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
   * Cancels the job if no worker has started it; with `force` even if one has. Its permit is free again at once, unless a promise that its
   * `onDone` returns holds it.
   *
   * @param options Why, and whether to end it even if it runs.
   * @returns Whether this call cancelled it: a job that was cancelled before it started never runs. False if it has settled, or runs and
   * `force` was not given.
   *
   * @throws {TypeError} If an option is unknown or of the wrong type.
   */
  cancel(options: CancelOptions = {}): boolean {
    const checks = new Checks("cancel job");
    const { reason, force } = checks.options(options, ["reason", "force"]);
    if (force !== undefined) checks.boolean("force", force);
    return this.#control?.cancel({ reason, force: force ?? false }) ?? false;
  }

  /**
   * Calls back once when the job has settled, in whatever way; soon, if it has already. Callbacks are called in the order in which they
   * were added. `shutdown()` waits for callbacks and for the promises they return: one that awaits `shutdown()`, or the end of
   * `await using`, waits for itself forever. In a callback, an AsyncLocalStorage may contain the store of another caller: if you use one,
   * pass `AsyncLocalStorage.bind(callback)`.
   *
   * @param callback Called with this future.
   * @returns Settles as the callback does. What the callback throws goes to the pool's `onError` if nobody handles this promise.
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
    const outcome = state === "finished"
      ? { result: this.#resultOrError }
      : this.#settled === undefined
      ? {}
      : { error: this.#resultOrError };
    return `Future ${inspect({ id, task: taskName(job.func), state, ...outcome }, options)}`;
  }

  #promise(): Promise<R> {
    // A promise with functions that resolve it takes three times the memory, which counts for many futures that are awaited late.
    return this.#result ??= this.#settled === "finished"
      ? Promise.resolve(this.#resultOrError as R)
      : promiseOf<R, Future<R>>(this, Future.#takeResolvers);
  }

  static #takeResolvers<R>(future: Future<R>, resolve: (value: unknown) => void, reject: (error: unknown) => void): void {
    future.#resolve = resolve;
    future.#reject = reject;
    if (future.#settled !== undefined) future.#settlePromise();
  }

  #settlePromise(): void {
    if (this.#settled === "finished") this.#resolve?.(this.#resultOrError);
    else this.#reject?.(this.#resultOrError);
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

  #settle(state: SettledState, resultOrError: unknown): void {
    this.#settled = state;
    this.#resultOrError = resultOrError;
    this.#control = undefined;
    if (this.#resolve !== undefined) this.#settlePromise();
    if (this.#listeners === undefined) return;
    const listeners = this.#listeners;
    this.#listeners = undefined;
    for (const listener of listeners) listener();
  }

  #callDoneCallbacks(): void {
    // The loop also reaches callbacks that a callback adds, after those that were added before.
    if (this.#doneCallbacks === undefined) return;
    for (const call of this.#doneCallbacks) call();
    this.#doneCallbacks = undefined;
  }
}

type TakeResolvers<H> = (holder: H, resolve: (value: unknown) => void, reject: (reason: unknown) => void) => void;

let nextHolder: unknown;
let takeResolvers: TakeResolvers<never>;

/**
 * Makes a promise and hands its resolvers to its holder. A closure for each promise would be a sixth of all that is allocated for a call.
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
