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
import { show } from "./checks.ts";
import type { JobRecord } from "./observation.ts";
import type { Place } from "./queue.ts";

/** How many jobs have settled so far, by outcome. Each item of a map counts as a job. */
export interface SettledCounts {
  finished: number;
  failed: number;
  cancelled: number;
}

/** What a worker answers about a job, when that is its end and it has not returned. */
export type Answer = Extract<FromWorker, { type: "threw" }> | ItemsMessage;

/** Makes of something thrown in a worker what is thrown here. */
export type Decode = (thrown: Thrown) => unknown;

/** The pool's record of one job, or one chunk of a map: where it is, and what to do when it settles. It is its own place in a queue. */
export abstract class Ticket implements Place<Ticket> {
  abstract readonly id: string | number;
  abstract readonly func: Task | TaskRef;
  /** How its task reaches a worker, if that was known when it was submitted. */
  readonly task: TaskMessage | undefined;
  before: Place<unknown> | undefined;
  after: Place<unknown> | undefined;
  /** Once it has passed the gate it is in the queue, in a slot, or, settled, in neither. */
  slot: Slot | undefined;
  /** The number under which its slot knows it. */
  run = 0;
  /** How many jobs its slot had sent before it. */
  sentAs = 0;
  /** How often a worker was stopped that did not take it up. */
  declare neglected: number;
  /** How many workers in a row have died when they read it. */
  declare unread: number;
  settled = false;
  /** Whether the watchdog counts it. */
  declare watched: boolean;
  /** What observers see of it, if there are any. */
  declare observed: JobRecord | undefined;
  /** Stops listening to the signal that may abort it. */
  declare stopListening: (() => void) | undefined;

  static {
    // Few tickets have other values than these: so most do without the five fields, and are smaller by a fifth.
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

  /** Which run of it this is, or will be, counted from 1; for a chunk, of the item that is next. */
  abstract readonly attempt: number;

  /** How long it may run, in ms; for a chunk, each of its items. */
  abstract readonly timeout: number;

  /**
   * Whether the worker runs this item, counted from 1, and all that it finished before has arrived. If not, it has just finished something.
   */
  abstract isAt(item: number): boolean;

  /** Whether items are on their way that its worker has finished, if the one that it started last is this, counted from 1. */
  hasUnread(_item: number): boolean {
    return false;
  }

  /** What errors call this item, counted from 1. */
  abstract idOf(item: number): string | number;

  /** The error of one that is cancelled. */
  cancelled(cause: unknown): JobCancelledError {
    const message = `Cancelled job ${show(this.id)} (task ${show(this.name)})`;
    return new JobCancelledError(message, { jobId: this.id, taskName: this.name, cause });
  }

  /** Why this item, counted from 1, cannot be sent: what the platform says could as well be about a result. What a getter has thrown is left as it is. */
  protected unsendable(error: unknown, item: number): unknown {
    if (!(error instanceof DOMException) || error.name !== "DataCloneError") return error;
    const job = `job ${show(this.idOf(item))} (task ${show(this.name)})`;
    return new DOMException(`Cannot send ${job} as its arguments cannot be copied or moved: ${error.message}`, error.name);
  }

  /** Notes how each of its items has ended, if it settles like this. */
  abstract countItems(outcome: Outcome<unknown>, record: JobRecord): void;

  /** What is moved to the worker. */
  get transfer(): readonly Transferable[] {
    return [];
  }

  /** Takes what is to be moved into its own hands, if that may as well be copied on its way to this slot; false if it is to be moved. */
  takeOver(_slot: Slot): boolean {
    return false;
  }

  /** What aborts it. */
  get signal(): AbortSignal | undefined {
    return undefined;
  }

  /** Its arguments, if it is a job that has not been run before and has nothing else that is to be sent. */
  abstract readonly mereArgs: readonly unknown[] | undefined;

  /** Its arguments, if it is a mere call: there is nothing else to be sent or looked after, and its task is known. */
  callArgs: readonly unknown[] | undefined;

  /** The message that has a worker run it. */
  abstract message(run: number, task: TaskMessage): RunMessage;

  /** Takes an answer. The outcome, if that settles it; else it goes on, or, if it has left its worker, runs again. */
  abstract answered(answer: Answer, decode: Decode): Outcome<unknown> | undefined;

  /** It cannot be sent, as something in it cannot be copied. The outcome, or undefined if the rest of it can be sent now. */
  abstract refused(error: unknown): Outcome<unknown> | undefined;

  /** It never starts, since workers die of it. The outcome, or undefined if the rest of it can still be run. */
  abstract lostUnread(errorOf: ErrorOf): Outcome<unknown> | undefined;

  /** Its worker died when this of its items would have been the next. The outcome, or undefined if the rest of it can still be run. */
  abstract lost(errorOf: ErrorOf, nextItem: number): Outcome<unknown> | undefined;

  /**
   * Settles a mere call with what it returned; counting it, and giving its permit back, is left to the caller. False, and nothing is done,
   * if there are callbacks.
   */
  fulfil(_value: unknown): boolean {
    return false;
  }

  /** Hands over the outcome and counts it; no callback is called yet. */
  abstract settle(outcome: Outcome<unknown>, counts: SettledCounts): void;

  /** Whether somebody is to be called back. */
  get hasCallbacks(): boolean {
    return false;
  }

  /** Calls what holds the permit until it is through; undefined if there is nothing of the kind. */
  abstract onDone: (() => unknown) | undefined;

  /** Calls the other callbacks. */
  abstract callBack(): void;
}

/**
 * A job fails when so many workers in a row have died as they read it. Fewer, and it may pay for what another job left in the heap; more,
 * and each costs a worker, and half a second where a heap is filled.
 */
export const MOST_UNREAD = 3;

/** Makes the error of a job, or of an item, that was run so many times. */
export type ErrorOf = (id: string | number, attempts: number) => LossError;

/** What the pool says of a run that was lost. A task may throw such errors too, those of a pool of its own. */
type LossError = WorkerDiedError | MemoryLimitError | JobTimeoutError;

/** Whether the worker has ended, and not by a limit of time. */
export function isDeath(error: LossError): boolean {
  return !(error instanceof JobTimeoutError);
}

/** The error of the last run, which was lost, with those of earlier ones in its cause. */
export function listCauses(error: LossError, earlier: unknown[]): LossError {
  if (earlier.length === 0) return error;
  const causes = error.cause === undefined ? earlier : [...earlier, error.cause];
  error.cause = new AggregateError(causes, `${earlier.length + 1} runs have failed`);
  return error;
}

/** What a ticket needs of its pool. */
export interface TicketOwner {
  /** How long a job may run that does not say it itself, in ms. */
  jobTimeout: number;
  /** How often a job is run again that does not say it itself. */
  retries: number;
  /** Where errors are reported. */
  callbacks: Callbacks;
  /** Lets in one that has a permit; throws, and the permit is back, if the pool takes none. */
  admit(ticket: JobTicket): void;
  /** One that waited at the gate was refused. */
  refused(ticket: JobTicket, error: unknown): void;
  /** Cancels what has not started, or, with `force`, what runs; false if it does not. */
  cancel(ticket: Ticket, error: unknown, force: boolean): boolean;
}

type Resolve = (value: unknown) => void;
type Reject = (reason: unknown) => void;

const NOTHING: readonly never[] = [];

/**
 * The record of a job, from its submission on, and the pool's hand on its future. Of a call whose caller wants nothing but the result it is
 * all that there is beside that promise: a million of them may wait at the gate under one `Promise.all`.
 */
export class JobTicket extends Ticket implements FutureControl, Waiter {
  readonly id: string | number;
  readonly func: Task | TaskRef;
  readonly #owner: TicketOwner;
  #future: Future<unknown> | undefined;
  /** Settle the promise of the result, or, while the ticket waits for a permit for `submit`, that of the future. */
  #resolve: Resolve | undefined;
  #reject: Reject | undefined;
  /** Whether they are those of the result. */
  declare wantsResult: boolean;
  /** Undefined for a call. */
  declare private job: Job<never[], unknown> | undefined;
  /** The arguments, where they are not those of a call that is all that there is to be sent. */
  declare private args: readonly unknown[];
  /** What came of earlier runs. */
  declare private failures: unknown[] | undefined;

  static {
    // As above: few have others.
    Object.assign(this.prototype, { wantsResult: true, job: undefined, args: NOTHING, failures: undefined });
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
    else this.args = args;
    if (job === undefined) return;
    this.job = job;
    if (job.onDone !== undefined) this.#future = this.future;
  }

  /** The job's future. It has to be asked for before the job settles. */
  get future(): Future<unknown> {
    const { id, func } = this;
    return this.#future ??= makeFuture(this.job ?? { id, func, args: this.ownArgs }, this, this.#owner.callbacks);
  }

  /** A promise of the result, or, while the ticket waits for a permit for `submit`, of the future. Once. */
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
    if (outcome.state === "failed" && outcome.error instanceof JobTimeoutError) record.timedOut = 1;
  }

  started(): boolean {
    return this.slot?.hasStarted(this) ?? false;
  }

  cancel({ reason, force }: { reason: unknown; force: boolean }): boolean {
    return this.#owner.cancel(this, this.cancelled(reason), force);
  }

  get mereArgs(): readonly unknown[] | undefined {
    return this.failures === undefined && this.transfer.length === 0 ? this.allArgs : undefined;
  }

  /** Those of the job, and its kwargs. */
  protected get allArgs(): readonly unknown[] {
    const kwargs = this.job?.kwargs;
    return kwargs === undefined ? this.ownArgs : [...this.ownArgs, kwargs];
  }

  private get ownArgs(): readonly unknown[] {
    return this.callArgs ?? this.args;
  }

  message(run: number, task: TaskMessage): RunMessage {
    return { type: "run", run, task, id: this.id, attempt: this.attempt, args: this.allArgs };
  }

  answered(answer: Answer, decode: Decode): Outcome<unknown> | undefined {
    if (answer.type !== "threw") return undefined;
    const error = decode(answer.thrown);
    return this.runsAgain(error, false) ? undefined : { state: "failed", error };
  }

  refused(error: unknown): Outcome<unknown> {
    return { state: "failed", error: this.unsendable(error, 1) };
  }

  lostUnread(errorOf: ErrorOf): Outcome<unknown> {
    return { state: "failed", error: listCauses(errorOf(this.id, this.attempt - 1), this.failures ?? []) };
  }

  lost(errorOf: ErrorOf): Outcome<unknown> | undefined {
    const error = errorOf(this.id, this.attempt);
    if (this.runsAgain(error, isDeath(error))) return undefined;
    return { state: "failed", error: listCauses(error, this.failures ?? []) };
  }

  /** Whether it is to run again after this error: as `retryIf` says, or, without that, as the rule is for such errors. */
  private runsAgain(error: unknown, asARule: boolean): boolean {
    const retries = this.job?.retries ?? this.#owner.retries;
    const failures = this.failures ?? [];
    if (failures.length >= retries || !this.wantsRetry(error, asARule)) return false;
    this.args = this.ownArgs;
    this.callArgs = undefined;
    failures.push(error);
    this.failures = failures;
    return true;
  }

  private wantsRetry(error: unknown, asARule: boolean): boolean {
    const retryIf = this.job?.retryIf;
    if (retryIf === undefined) return asARule;
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
