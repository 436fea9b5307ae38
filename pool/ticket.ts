import { JobCancelledError, JobTimeoutError, type MemoryLimitError, type WorkerDiedError } from "../errors.ts";
import {
  callDoneCallbacks,
  type Future,
  type FutureControl,
  hasDoneCallbacks,
  type Job,
  makeFuture,
  nextJobId,
  type Outcome,
  promiseOf,
  settleFuture,
  type Task,
  taskName,
  type TaskRef,
} from "../job.ts";
import type { Waiter } from "../semaphore.ts";
import type { FromWorker, ItemsMessage, RunMessage, TaskMessage, Thrown } from "../worker/protocol.ts";
import type { Slot } from "../worker/slot.ts";
import { type Callbacks, isThenable } from "./callbacks.ts";
import { isOfClass, show, showJob } from "./checks.ts";
import type { JobRecord } from "./observation.ts";
import type { Place } from "./queue.ts";

/** How many jobs have settled so far, by outcome. Each item of a map counts as a job. */
export interface SettledCounts {
  finished: number;
  failed: number;
  cancelled: number;
}

/** What a worker answers about a job other than that it returned. */
export type Answer = Extract<FromWorker, { type: "threw" }> | ItemsMessage;

/** Turns what was thrown in a worker into what is thrown here. */
export type Decode = (thrown: Thrown) => unknown;

/** The pool's record of one job, or of one chunk of a map: where it is, and what to do when it settles. It is its own place in a queue. */
export abstract class Ticket implements Place<Ticket> {
  abstract readonly id: string | number;
  abstract readonly func: Task | TaskRef;
  /** Its task as a message, if that was known when it was submitted. */
  readonly task: TaskMessage | undefined;
  before: Place<unknown> | undefined;
  after: Place<unknown> | undefined;
  /** The slot that holds it. Once past the gate it is in the queue, in a slot, or, settled, in neither. */
  slot: Slot | undefined;
  /** The number under which its slot knows it. */
  run = 0;
  /** How many had been admitted before it. */
  admittedAs = 0;
  /** How many jobs its slot had sent before it. */
  sentAs = 0;
  /** How many workers were stopped because they did not take it up. */
  declare neglected: number;
  /** How many workers in a row have died while reading it. */
  declare unread: number;
  settled = false;
  /** Whether the watchdog counts it. */
  declare watched: boolean;
  /** What observers see of it; undefined without observers. */
  declare observed: JobRecord | undefined;
  /** Stops listening to the signal that may abort it. */
  declare stopListening: (() => void) | undefined;

  static {
    // As few tickets have other values than these, the defaults are on the prototype: without the five fields a ticket is a fifth smaller.
    Object.assign(this.prototype, { neglected: 0, unread: 0, watched: false, observed: undefined, stopListening: undefined });
  }

  constructor(task: TaskMessage | undefined) {
    this.task = task;
  }

  get value(): this {
    return this;
  }

  /** Whether it waits for a worker, or before that for a permit. */
  get queued(): boolean {
    return this.before !== undefined;
  }

  get name(): string {
    return taskName(this.func);
  }

  /** Which run this is, or will be, counted from 1; for a chunk, of its next item. */
  abstract readonly attempt: number;

  /** How long it may run, in ms; for a chunk, each of its items. */
  abstract readonly timeout: number;

  /**
   * Whether the worker is running this item, counted from 1, and everything that it finished before has arrived. If not, it has just
   * finished something.
   */
  abstract isAt(item: number): boolean;

  /** Whether finished items are on their way, given the item that its worker started last, counted from 1. */
  hasItemsOnTheirWay(_item: number): boolean {
    return false;
  }

  /** What errors call this item, counted from 1. */
  abstract idOf(item: number): string | number;

  /** The error for cancelling it. */
  cancelledError(cause: unknown): JobCancelledError {
    return new JobCancelledError(`Cancelled ${showJob(this.id, this.name)}`, { jobId: this.id, taskName: this.name, cause });
  }

  /**
   * The error for an item, counted from 1, that cannot be sent. The platform's own message could as well be about a result. What a getter
   * has thrown is left unchanged.
   */
  protected unsendable(error: unknown, item: number): unknown {
    try {
      // What is nested too deeply.
      const isOverflow = error instanceof RangeError && error.message === "Maximum call stack size exceeded";
      if (!isOverflow && !(error instanceof DOMException && error.name === "DataCloneError")) return error;
      const job = showJob(this.idOf(item), this.name);
      const message = `Cannot send ${job} as its arguments cannot be copied or moved: ${error.message}`;
      return isOverflow ? new RangeError(message) : new DOMException(message, error.name);
    } catch {
      // It throws when it is looked at, too.
      return error;
    }
  }

  /** Counts how its items have ended, if it settles with this outcome. */
  abstract countItems(outcome: Outcome<unknown>, record: JobRecord): void;

  /** What is moved to the worker instead of copied. */
  get transfer(): readonly Transferable[] {
    return [];
  }

  /** Takes ownership of what is to be moved, if it can be copied to this slot as cheaply; false if it is to be moved. */
  takeOver(_slot: Slot): boolean {
    return false;
  }

  /** The signal that aborts it. */
  get signal(): AbortSignal | undefined {
    return undefined;
  }

  /** Its arguments, if a worker that knows its task needs nothing else: it is the first run of a job, and nothing is moved. */
  abstract readonly argsAlone: readonly unknown[] | undefined;

  /** Its arguments, if it is a mere call: nothing else needs to be sent or watched, and its task is known. */
  callArgs: readonly unknown[] | undefined;

  /** The message that makes a worker run it. */
  abstract message(run: number, task: TaskMessage): RunMessage;

  /** Takes an answer. Returns the outcome if that settles it; otherwise it goes on, or, if it has left its worker, runs again. */
  abstract answered(answer: Answer, decode: Decode): Outcome<unknown> | undefined;

  /** Called if sending it fails, as something in it cannot be copied. Returns the outcome, or undefined if the rest can be sent now. */
  abstract sendFailed(error: unknown): Outcome<unknown> | undefined;

  /** Called if it never starts, since workers die of reading it. Returns the outcome, or undefined if the rest can still be run. */
  abstract lostUnread(errorOf: ErrorOf): Outcome<unknown> | undefined;

  /** Called if its worker died when `nextItem` was its next item. Returns the outcome, or undefined if the rest can still be run. */
  abstract lost(errorOf: ErrorOf, nextItem: number): Outcome<unknown> | undefined;

  /**
   * Settles a mere call with what it returned; the caller has to count it and to give its permit back. Does nothing and returns false if
   * there are callbacks.
   */
  fulfil(_value: unknown): boolean {
    return false;
  }

  /** Hands over the outcome and counts it; no callback is called yet. */
  abstract settle(outcome: Outcome<unknown>, counts: SettledCounts): void;

  /** Whether there are callbacks to call. */
  get hasCallbacks(): boolean {
    return false;
  }

  /** Calls the job's `onDone`, which may hold the permit; undefined if it has none. */
  abstract onDone: (() => unknown) | undefined;

  /** Calls the other callbacks. */
  abstract callBack(): void;
}

/**
 * A job fails when this many workers in a row have died while reading it. Fewer, and it may pay for what another job left in the heap;
 * more, and each costs a worker, and half a second where a heap is filled.
 */
export const MOST_UNREAD = 3;

/** Makes the error of a job, or of an item, that was run `attempts` times. */
export type ErrorOf = (id: string | number, attempts: number) => LossError;

/** The pool's error for a run that was lost. A task may throw such errors too, from a pool of its own. */
type LossError = WorkerDiedError | MemoryLimitError | JobTimeoutError;

/** Whether the worker died, rather than being stopped for a time limit. */
export function isDeath(error: LossError): boolean {
  return !(error instanceof JobTimeoutError);
}

/** Adds the errors of earlier runs to the cause of the last run's error. */
export function listCauses(error: LossError, earlier: unknown[]): LossError {
  if (earlier.length === 0) return error;
  const causes = error.cause === undefined ? earlier : [...earlier, error.cause];
  error.cause = new AggregateError(causes, `${earlier.length + 1} runs have failed`);
  return error;
}

/** What a ticket needs of its pool. */
export interface TicketOwner {
  /** How long a job without a `timeout` may run, in ms. */
  jobTimeout: number;
  /** How often a job without `retries` is run again. */
  retries: number;
  /** Where errors are reported. */
  callbacks: Callbacks;
  /** Admits a ticket that has a permit. If the pool refuses it, this gives the permit back and throws. */
  admit(ticket: JobTicket): void;
  /** A ticket that waited at the gate was refused. */
  refused(ticket: JobTicket, error: unknown): void;
  /** Cancels a ticket that has not started, or, with `force`, even one that runs. Returns whether it did. */
  cancel(ticket: Ticket, error: unknown, force: boolean): boolean;
}

type Resolve = (value: unknown) => void;
type Reject = (reason: unknown) => void;

const NOTHING: readonly never[] = [];

/**
 * The record of a job, from its submission on, and the control of its future. For a call whose caller wants only the result, nothing else
 * is allocated but that promise: a million of them may wait at the gate under one `Promise.all`.
 */
export class JobTicket extends Ticket implements FutureControl, Waiter {
  readonly id: string | number;
  readonly func: Task | TaskRef;
  readonly #owner: TicketOwner;
  #future: Future<unknown> | undefined;
  /** Settle the promise of the result, or, while a `submit` waits for a permit, the promise of the future. */
  #resolve: Resolve | undefined;
  #reject: Reject | undefined;
  /** Whether they settle the result's. */
  declare wantsResult: boolean;
  /** Undefined for a mere call. */
  declare private job: Job<never[], unknown> | undefined;
  /** The arguments, unless they are in `callArgs`. */
  declare private otherArgs: readonly unknown[];
  /** The errors of earlier runs. */
  declare private failures: unknown[] | undefined;

  static {
    // Defaults on the prototype, as above.
    Object.assign(this.prototype, { wantsResult: true, job: undefined, otherArgs: NOTHING, failures: undefined });
  }

  constructor(
    owner: TicketOwner,
    task: TaskMessage | undefined,
    func: Task | TaskRef,
    args: readonly unknown[],
    job?: Job<never[], unknown>,
  ) {
    super(task);
    this.id = job === undefined ? nextJobId() : job.id;
    this.func = func;
    this.#owner = owner;
    if (job === undefined && task !== undefined && owner.jobTimeout === Infinity) this.callArgs = args;
    else this.otherArgs = args;
    if (job === undefined) return;
    this.job = job;
    if (job.onDone !== undefined) this.#future = this.future;
  }

  /** The job's future. It must be first asked for before the job settles. */
  get future(): Future<unknown> {
    return this.#future ??= makeFuture(this.job ?? this, this, this.#owner.callbacks);
  }

  /** Makes the promise of the result, or, if a `submit` waits for a permit, of the future. To be called once. */
  promise<T>(): Promise<T> {
    return promiseOf<T, JobTicket>(this, JobTicket.#takeResolvers);
  }

  static #takeResolvers(ticket: JobTicket, resolve: Resolve, reject: Reject): void {
    ticket.#resolve = resolve;
    ticket.#reject = reject;
  }

  grant(): void {
    const resolve = this.#resolve!, reject = this.#reject!;
    try {
      if (this.wantsResult) return this.#owner.admit(this);
      const { future } = this;
      this.#resolve = this.#reject = undefined;
      this.#owner.admit(this);
      resolve(future);
    } catch (error) {
      reject(error);
    }
  }

  refuse(reason: unknown): void {
    this.#owner.refused(this, reason);
    this.#reject!(reason);
  }

  override get signal(): AbortSignal | undefined {
    return this.job?.signal;
  }

  override get transfer(): readonly Transferable[] {
    return this.job === undefined ? NOTHING : this.job.transfer;
  }

  get onDone(): (() => unknown) | undefined {
    const onDone = this.job?.onDone;
    return onDone && (() => onDone(this.future));
  }

  get attempt(): number {
    return this.failures === undefined ? 1 : this.failures.length + 1;
  }

  get timeout(): number {
    return this.job?.timeout ?? this.#owner.jobTimeout;
  }

  isAt(): boolean {
    return true;
  }

  idOf(): string | number {
    return this.id;
  }

  countItems(outcome: Outcome<unknown>, record: JobRecord): void {
    record[outcome.state] = 1;
    if (outcome.state === "failed" && isOfClass(outcome.error, JobTimeoutError)) record.timedOut = 1;
  }

  started(): boolean {
    return this.slot?.hasStarted(this) ?? false;
  }

  cancel({ reason, force }: { reason: unknown; force: boolean }): boolean {
    return this.#owner.cancel(this, this.cancelledError(reason), force);
  }

  get argsAlone(): readonly unknown[] | undefined {
    return this.failures === undefined && this.transfer.length === 0 ? this.allArgs : undefined;
  }

  /** The job's `args` and `kwargs`. */
  protected get allArgs(): readonly unknown[] {
    const kwargs = this.job?.kwargs;
    return kwargs === undefined ? this.args : [...this.args, kwargs];
  }

  /** The job's `args`. */
  get args(): readonly unknown[] {
    return this.callArgs ?? this.otherArgs;
  }

  message(run: number, task: TaskMessage): RunMessage {
    return { type: "run", run, task, id: this.id, attempt: this.attempt, args: this.allArgs };
  }

  answered(answer: Answer, decode: Decode): Outcome<unknown> | undefined {
    if (answer.type !== "threw") return undefined;
    const error = decode(answer.thrown);
    return this.prepareRetry(error, { byDefault: false }) ? undefined : { state: "failed", error };
  }

  sendFailed(error: unknown): Outcome<unknown> {
    return { state: "failed", error: this.unsendable(error, 1) };
  }

  lostUnread(errorOf: ErrorOf): Outcome<unknown> {
    return { state: "failed", error: listCauses(errorOf(this.id, this.attempt - 1), this.failures ?? []) };
  }

  lost(errorOf: ErrorOf): Outcome<unknown> | undefined {
    const error = errorOf(this.id, this.attempt);
    if (this.prepareRetry(error, { byDefault: isDeath(error) })) return undefined;
    return { state: "failed", error: listCauses(error, this.failures ?? []) };
  }

  /** Prepares another run after this error, if there is to be one: as `retryIf` says, or else by default. Returns whether there is. */
  private prepareRetry(error: unknown, { byDefault }: { byDefault: boolean }): boolean {
    const retries = this.job?.retries ?? this.#owner.retries;
    const failures = this.failures ?? [];
    if (failures.length >= retries || !this.wantsRetry(error, byDefault)) return false;
    this.otherArgs = this.args;
    this.callArgs = undefined;
    failures.push(error);
    this.failures = failures;
    return true;
  }

  private wantsRetry(error: unknown, byDefault: boolean): boolean {
    const retryIf = this.job?.retryIf;
    if (retryIf === undefined) return byDefault;
    const { callbacks } = this.#owner;
    try {
      const answer: unknown = retryIf(error, this.attempt);
      if (!isThenable(answer)) return Boolean(answer);
      callbacks.report(
        new TypeError(`Cannot wait for 'retryIf' of job ${show(this.id)} as it must be decided at once: current value is a promise`),
      );
      Promise.resolve(answer).catch((second) => callbacks.report(second));
    } catch (second) {
      callbacks.report(second);
    }
    return false;
  }

  override get hasCallbacks(): boolean {
    return this.job?.onDone !== undefined || (this.#future !== undefined && hasDoneCallbacks(this.#future));
  }

  override fulfil(value: unknown): boolean {
    const future = this.#future;
    if (this.callArgs === undefined || (future !== undefined && hasDoneCallbacks(future))) return false;
    this.settled = true;
    if (future !== undefined) settleFuture(future, "finished", value);
    this.#resolve?.(value);
    return true;
  }

  settle(outcome: Outcome<unknown>, counts: SettledCounts): void {
    const { state } = outcome;
    counts[state]++;
    if (this.#future !== undefined) settleFuture(this.#future, state, state === "finished" ? outcome.value : outcome.error);
    if (state === "finished") this.#resolve?.(outcome.value);
    else this.#reject?.(outcome.error);
  }

  callBack(): void {
    const future = this.#future;
    if (future !== undefined && hasDoneCallbacks(future)) this.#owner.callbacks.inTurn(() => callDoneCallbacks(future));
  }
}
