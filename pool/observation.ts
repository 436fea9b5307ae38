import { type Outcome, type SettledState, type Task, taskName, type TaskRef } from "../job.ts";
import { InTurn } from "./callbacks.ts";
import type { Ticket } from "./ticket.ts";

/**
 * One job, or one chunk of a map, as observers see it. All times are in milliseconds of `performance.now()` on the pool's thread. The two
 * that a worker takes, `started` and `ended`, are converted to that scale, and lie between the moments when the job was sent and when the
 * pool heard of its end.
 */
export interface ObservedJob {
  /** The job's id; for a chunk, the index of its first item. */
  readonly id: string | number;
  /** The name of its task. */
  readonly task: string;
  /** How many items a chunk has; 1 for a job. */
  readonly items: number;
  /** When it was submitted. A chunk is submitted when it has passed the gate: until then the map just reads no further. */
  readonly submitted: number;
  /** When it passed the gate; undefined until then. */
  readonly admitted: number | undefined;
  /** When it was last sent to a worker; undefined before. */
  readonly sent: number | undefined;
  /** The worker that it was sent to. */
  readonly worker: number | undefined;
  /** When the worker actually started it; undefined if it has not, or while that run goes on. */
  readonly started: number | undefined;
  /** When that run ended, with the task or with its worker. */
  readonly ended: number | undefined;
  /** How many times it has run. */
  readonly runs: number;
  /** When it settled; undefined before. */
  readonly settled: number | undefined;
  /** How it settled; undefined before. */
  readonly state: SettledState | undefined;
  /** What it failed with, or why it was cancelled. */
  readonly error: unknown;
  /** How many of its items returned. This and the next three are 0 until it has settled; the items of a chunk may end in different ways. */
  readonly finished: number;
  /** How many of its items failed. */
  readonly failed: number;
  /** How many of its items were cancelled. */
  readonly cancelled: number;
  /** How many of the failed ones exceeded their time limit. */
  readonly timedOut: number;
}

/** What becomes of a worker; the last four are its end. `stopped`: it was stopped to end its job or its pool, or because it was stuck. */
export type WorkerChange = "starting" | "ready" | "closed" | "stopped" | "died" | "failed to start";

/** How many jobs and workers there are at this moment. */
export interface PoolLevels {
  /** Submissions that wait at the gate. */
  waiting: number;
  /** Jobs that have passed the gate but have not been sent to a worker. */
  queued: number;
  /** Jobs that workers hold: those that they run, and those that were sent to them ahead of time. */
  running: number;
  /** Workers that are starting, running or closing. */
  workers: number;
}

/** The pool, as its observers see it. */
export interface ObservedPool {
  /** The greatest number of workers. */
  readonly maxWorkers: number;
  /** How many jobs a worker runs at a time. */
  readonly jobsPerWorker: number;
  /** The gate's permits. */
  readonly queueSize: number;
  /** When the pool was made, in milliseconds of `performance.now()`. */
  readonly opened: number;
  /** How many jobs and workers there are at this moment. */
  levels(): PoolLevels;
}

/**
 * An object whose methods a pool calls when something happens in it, at once and on the pool's thread: the basis for traces, statistics and
 * metrics. All methods are optional. What one of them throws, or its promise rejects with, goes to the pool's `onError`; the pool goes on.
 *
 * The events of a job come in this order: `submitted`; then `refused` or `admitted`; `sent`, again if the job came back without having
 * started; `retried` after each run that is not the last; and `settled`.
 *
 * @example How long each job waited, and how long it ran
 * ```ts
 * import { type PoolObserver, ProcessPool } from "@procpool/process-pool";
 * import { assert } from "@std/assert";
 *
 * const lines: string[] = [];
 * const observer: PoolObserver = {
 *   settled: ({ task, submitted, started, ended }) => {
 *     if (started !== undefined) lines.push(`${task} waited ${started - submitted} ms and ran ${ended! - started} ms`);
 *   },
 * };
 * const square = (x: number) => x * x;
 * {
 *   await using pool = new ProcessPool({ observers: [observer] });
 *   await pool.run(square, 2);
 * }
 * assert(lines[0]!.startsWith("square waited "));
 * ```
 */
export interface PoolObserver {
  /** The pool was made. */
  opened?: ((pool: ObservedPool) => void) | undefined;
  /** A job was submitted: called within `submit`, `trySubmit` or `run`, in the caller's context. */
  submitted?: ((job: ObservedJob) => void) | undefined;
  /** It was not admitted, as the pool closed or its signal aborted while it waited at the gate. This is its last event. */
  refused?: ((job: ObservedJob, error: unknown) => void) | undefined;
  /** It has passed the gate. */
  admitted?: ((job: ObservedJob) => void) | undefined;
  /** It was sent to a worker. */
  sent?: ((job: ObservedJob) => void) | undefined;
  /** A run of it has ended, as `started` and `ended` tell, and it is sent again. */
  retried?: ((job: ObservedJob) => void) | undefined;
  /**
   * It has settled. `started` and `ended` are those of its last run. If an observer cancels it when told of the end of another job, this is
   * called after all observers have been told of that one.
   */
  settled?: ((job: ObservedJob) => void) | undefined;
  /**
   * A worker changed its state. There is a reason if it died, was stopped or could not be started. If an observer causes that when told of
   * another change, this is called after all observers have been told of that one.
   */
  worker?: ((worker: number, change: WorkerChange, reason: string | undefined) => void) | undefined;
  /** The pool is done: called once. `shutdown()` and `terminate()` wait for a promise that this returns. */
  closed?: (() => unknown) | undefined;
}

/** The implementation of {@linkcode ObservedJob}; it changes as the job goes on. */
export class JobRecord implements ObservedJob {
  readonly id: string | number;
  readonly items: number;
  readonly submitted: number;
  admitted: number | undefined = undefined;
  sent: number | undefined = undefined;
  worker: number | undefined = undefined;
  started: number | undefined = undefined;
  ended: number | undefined = undefined;
  runs = 0;
  settled: number | undefined = undefined;
  state: SettledState | undefined = undefined;
  error: unknown = undefined;
  finished = 0;
  failed = 0;
  cancelled = 0;
  timedOut = 0;
  #func: Task | TaskRef;

  constructor(id: string | number, func: Task | TaskRef, { items, submitted }: { items: number; submitted: number }) {
    this.id = id;
    this.#func = func;
    this.items = items;
    this.submitted = submitted;
  }

  get task(): string {
    return taskName(this.#func);
  }
}

/** The observers of each event: every job has several events, and most observers want few of them. */
type Listeners = { [K in Exclude<keyof PoolObserver, "closed">]-?: PoolObserver[] };

/** Takes the times of what happens in a pool, and tells its observers. A pool without observers has none of these. */
export class Observation {
  #observers: readonly PoolObserver[];
  #listeners: Listeners;
  #clock: () => number;
  #report: (error: unknown) => void;
  /** The time that was last read in this turn, if any. */
  #latest: number | undefined;
  #ends = new InTurn();
  #changes = new InTurn();
  #closed: Promise<void> | undefined;

  constructor(observers: readonly PoolObserver[], { now, report }: { now: () => number; report: (error: unknown) => void }) {
    const listeners = (what: keyof PoolObserver) => observers.filter((observer) => observer[what] !== undefined);
    this.#observers = observers;
    this.#listeners = {
      opened: listeners("opened"),
      submitted: listeners("submitted"),
      refused: listeners("refused"),
      admitted: listeners("admitted"),
      sent: listeners("sent"),
      retried: listeners("retried"),
      settled: listeners("settled"),
      worker: listeners("worker"),
    };
    this.#clock = now;
    this.#report = report;
  }

  opened(pool: Omit<ObservedPool, "opened">): void {
    const opened = this.#now();
    this.#tell(this.#listeners.opened, (observer) => observer.opened!({ ...pool, opened }));
  }

  /** `items` is the number of items of a chunk. */
  submitted(ticket: Ticket, items = 1): void {
    const job = ticket.observed = new JobRecord(ticket.id, ticket.func, { items, submitted: this.#now() });
    const { submitted } = this.#listeners;
    if (submitted.length > 0) this.#tell(submitted, (observer) => observer.submitted!(job));
  }

  refused({ observed: job }: Ticket, error: unknown): void {
    if (job === undefined) return;
    this.#tell(this.#listeners.refused, (observer) => observer.refused!(job, error));
  }

  admitted({ observed: job }: Ticket): void {
    if (job === undefined) return;
    job.admitted = this.#justNow();
    const { admitted } = this.#listeners;
    if (admitted.length > 0) this.#tell(admitted, (observer) => observer.admitted!(job));
  }

  sent({ observed: job }: Ticket, worker: number): void {
    if (job === undefined) return;
    if (job.started !== undefined) {
      this.#tell(this.#listeners.retried, (observer) => observer.retried!(job));
      // An observer has ended it.
      if (job.state !== undefined) return;
      job.started = job.ended = undefined;
    }
    job.sent = this.#justNow();
    job.worker = worker;
    const { sent } = this.#listeners;
    if (sent.length > 0) this.#tell(sent, (observer) => observer.sent!(job));
  }

  /** A run of a job has ended, or its worker has. The times are as the worker noted them; 0 for one that it did not note. */
  ran({ observed: job }: Ticket, started: number, ended: number): void {
    if (job === undefined) return;
    const now = this.#now();
    // Clocks of two threads may differ a little.
    job.started = Math.min(Math.max(started, job.sent!), now);
    job.ended = Math.max(job.started, ended === 0 ? now : Math.min(ended, now));
    job.runs++;
  }

  settled(ticket: Ticket, outcome: Outcome<unknown>): void {
    const { observed: job } = ticket;
    if (job === undefined) return;
    job.settled = this.#justNow();
    job.state = outcome.state;
    if (outcome.state !== "finished") job.error = outcome.error;
    ticket.countItems(outcome, job);
    const { settled } = this.#listeners;
    // An observer may cancel thousands of jobs when it is told of one.
    if (settled.length > 0) this.#ends.call(() => this.#tell(settled, (observer) => observer.settled!(job)));
  }

  worker(worker: number, change: WorkerChange, reason?: string): void {
    const { worker: listeners } = this.#listeners;
    // An observer may end the pool when it is told of a worker.
    if (listeners.length > 0) this.#changes.call(() => this.#tell(listeners, (observer) => observer.worker!(worker, change, reason)));
  }

  /** Tells observers that the pool is done, once, however often it is ended. Never rejects. */
  async closed(): Promise<void> {
    await (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    await Promise.all(this.#observers.map(async (observer) => {
      try {
        await observer.closed?.();
      } catch (error) {
        this.#report(error);
      }
    }));
  }

  #now(): number {
    if (this.#latest === undefined) queueMicrotask(this.#forget);
    return this.#latest = this.#clock();
  }

  /** The time, for what follows from something whose time was just read: reading the clock takes longer than everything else here. */
  #justNow(): number {
    return this.#latest ?? this.#now();
  }

  #forget = (): void => {
    this.#latest = undefined;
  };

  #tell(listeners: readonly PoolObserver[], what: (observer: PoolObserver) => unknown): void {
    for (const observer of listeners) {
      try {
        const told = what(observer);
        // A method whose type says that it returns nothing may be asynchronous all the same.
        if (told instanceof Promise) told.catch(this.#report);
      } catch (error) {
        this.#report(error);
      }
    }
  }
}
