/**
 * The errors that a caller may want to catch. Each carries the fields a handler needs, so that nobody has to read its message.
 *
 * @module
 */

/**
 * The pool was shut down or terminated: it takes no more jobs, and a job that was still running was stopped.
 *
 * @example Telling a closed pool from a failed job
 * ```ts
 * import { PoolClosedError, ProcessPool } from "@procpool/process-pool";
 * import { assertRejects } from "@std/assert";
 *
 * const pool = new ProcessPool();
 * await pool.shutdown();
 * await assertRejects(() => pool.run(() => 1), PoolClosedError);
 * ```
 */
export class PoolClosedError extends Error {
  /** The name of the class. */
  override readonly name = "PoolClosedError";

  /**
   * Constructs a new error.
   *
   * @param message What could not be done.
   * @param options The reason that was given to `terminate()`, if any, as its cause.
   */
  constructor(message?: string, options: ErrorOptions = {}) {
    super(message, causeOf(options));
  }
}

/** Where a {@linkcode PoolBrokenError} comes from. */
export interface PoolBrokenDetails {
  /** How many workers in a row could not start. */
  attempts: number;
  /** What the last of them failed with. */
  cause: unknown;
}

/**
 * The pool could not start a worker, several times in a row: it takes no more jobs and has failed those that it had.
 *
 * @example An initializer that throws
 * ```ts
 * import { PoolBrokenError, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals, assertRejects } from "@std/assert";
 *
 * await using pool = new ProcessPool({
 *   initializer: () => {
 *     throw new Error("There is no model");
 *   },
 * });
 * const error = await assertRejects(() => pool.run(() => 1), PoolBrokenError);
 * assertEquals([error.attempts, (error.cause as Error).message], [3, "There is no model"]);
 * ```
 */
export class PoolBrokenError extends Error {
  /** The name of the class. */
  override readonly name = "PoolBrokenError";
  /** How many workers in a row could not start. */
  readonly attempts: number;

  /**
   * Constructs a new error.
   *
   * @param message What could not be done.
   * @param details How often it was tried, and the last failure as its cause.
   */
  constructor(message: string, details: PoolBrokenDetails) {
    super(message, causeOf(details));
    this.attempts = details.attempts;
  }
}

/** What is known about the job that a {@linkcode JobCancelledError} belongs to. */
export interface JobCancelledDetails {
  /** The id of the job. */
  jobId: string | number;
  /** The name of its task. */
  taskName: string;
  /** The reason that was given to `cancel()` or `terminate()`. */
  cause?: unknown;
}

/**
 * The job was cancelled. The reason that was given, if any, is the `cause`.
 *
 * @example Why it was cancelled
 * ```ts
 * import { JobCancelledError, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals, assertRejects } from "@std/assert";
 *
 * await using pool = new ProcessPool({ maxWorkers: 1 });
 * const future = await pool.submit((x: number) => x * x, 3);
 * future.cancel({ reason: "No longer needed" });
 * const error = await assertRejects(() => future.result(), JobCancelledError);
 * assertEquals(error.cause, "No longer needed");
 * ```
 */
export class JobCancelledError extends Error {
  /** The name of the class. */
  override readonly name = "JobCancelledError";
  /** The id of the job. */
  readonly jobId: string | number;
  /** The name of its task. */
  readonly taskName: string;

  /**
   * Constructs a new error.
   *
   * @param message What happened.
   * @param details Which job it was, and why it was cancelled.
   */
  constructor(message: string, details: JobCancelledDetails) {
    super(message, causeOf(details));
    this.jobId = details.jobId;
    this.taskName = details.taskName;
  }
}

/** Which job a {@linkcode JobTimeoutError} is about, and its limit. */
export interface JobTimeoutDetails {
  /** The id of the job; for an item of a map its index. */
  jobId: string | number;
  /** The name of its task. */
  taskName: string;
  /** How long it was allowed to run, in milliseconds. */
  limit: number;
  /** How often it was started. */
  attempts: number;
}

/**
 * The job ran for longer than allowed, and was stopped.
 *
 * @example An endless loop
 * ```ts
 * import { JobTimeoutError, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals, assertRejects } from "@std/assert";
 *
 * function spin(): never {
 *   for (;;);
 * }
 *
 * await using pool = new ProcessPool({ maxWorkers: 1, jobTimeout: 50 });
 * const error = await assertRejects(() => pool.run(spin), JobTimeoutError);
 * assertEquals([error.taskName, error.limit, error.attempts], ["spin", 50, 1]);
 * ```
 */
export class JobTimeoutError extends Error {
  /** The name of the class. */
  override readonly name = "JobTimeoutError";
  /** The id of the job; for an item of a map its index. */
  readonly jobId: string | number;
  /** The name of its task. */
  readonly taskName: string;
  /** How long it was allowed to run, in milliseconds. */
  readonly limit: number;
  /** How often it was started. */
  readonly attempts: number;

  /**
   * Constructs a new error.
   *
   * @param message What happened.
   * @param details Which job it was, and its limit.
   */
  constructor(message: string, details: JobTimeoutDetails) {
    super(message);
    this.jobId = details.jobId;
    this.taskName = details.taskName;
    this.limit = details.limit;
    this.attempts = details.attempts;
  }
}

/** Which job a {@linkcode MemoryLimitError} is about, and the limit of its worker. */
export interface MemoryLimitDetails {
  /** The id of the job, for an item of a map its index; undefined for an idle worker. */
  jobId?: string | number | undefined;
  /** The name of its task; undefined for an idle worker. */
  taskName?: string | undefined;
  /** How much heap its worker was allowed, in MB. */
  limit: number;
  /** How often the job was started. */
  attempts?: number | undefined;
  /** The errors of earlier attempts. */
  cause?: unknown;
}

/**
 * The worker that ran the job filled its heap, and was stopped.
 *
 * @example A list that grows forever
 * ```ts
 * import { MemoryLimitError, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals, assertRejects } from "@std/assert";
 *
 * function fill(): never {
 *   for (const all: object[] = [];;) all.push({});
 * }
 *
 * await using pool = new ProcessPool({ maxWorkers: 1, memoryLimit: 64 });
 * const error = await assertRejects(() => pool.run(fill), MemoryLimitError);
 * assertEquals([error.taskName, error.limit, error.attempts], ["fill", 64, 1]);
 * ```
 */
export class MemoryLimitError extends Error {
  /** The name of the class. */
  override readonly name = "MemoryLimitError";
  /** The id of the job, for an item of a map its index; undefined for an idle worker. */
  readonly jobId: string | number | undefined;
  /** The name of its task; undefined for an idle worker. */
  readonly taskName: string | undefined;
  /** How much heap its worker was allowed, in MB. */
  readonly limit: number;
  /** How often the job was started; 0 for an idle worker. */
  readonly attempts: number;

  /**
   * Constructs a new error.
   *
   * @param message What happened.
   * @param details Which job it was, and the limit.
   */
  constructor(message: string, details: MemoryLimitDetails) {
    super(message, causeOf(details));
    this.jobId = details.jobId;
    this.taskName = details.taskName;
    this.limit = details.limit;
    this.attempts = details.attempts ?? 0;
  }
}

/** What is known about the worker that a {@linkcode WorkerDiedError} is about. */
export interface WorkerDiedDetails {
  /** The id of the job that ran there, for an item of a map its index; undefined for an idle worker. */
  jobId?: string | number | undefined;
  /** The name of its task; undefined for an idle worker. */
  taskName?: string | undefined;
  /** The code that the worker passed to `Deno.exit()`; undefined if it ended in another way. */
  exitCode?: number | undefined;
  /** How often the job was started. */
  attempts?: number | undefined;
  /** The error that ended the worker, where there is one. */
  cause?: unknown;
}

/**
 * The worker that ran the job is gone: it exited, an error outside of any job ended it, or it was stopped because of a job beside this one.
 * Its `cause` is the error that ended the worker, or that of the other job, if there is one.
 *
 * @example A task that exits
 * ```ts
 * import { ProcessPool, WorkerDiedError } from "@procpool/process-pool";
 * import { assertEquals, assertRejects } from "@std/assert";
 *
 * await using pool = new ProcessPool({ maxWorkers: 1 });
 * const error = await assertRejects(() => pool.run(() => Deno.exit(3)), WorkerDiedError);
 * assertEquals([error.exitCode, error.attempts], [3, 1]);
 * ```
 */
export class WorkerDiedError extends Error {
  /** The name of the class. */
  override readonly name = "WorkerDiedError";
  /** The id of the job that ran there, for an item of a map its index; undefined for an idle worker. */
  readonly jobId: string | number | undefined;
  /** The name of its task; undefined for an idle worker. */
  readonly taskName: string | undefined;
  /** The code that the worker passed to `Deno.exit()`; undefined if it ended in another way. */
  readonly exitCode: number | undefined;
  /** How often the job was started; 0 for an idle worker. */
  readonly attempts: number;

  /**
   * Constructs a new error.
   *
   * @param message What happened.
   * @param details Which job it was, and how its worker ended.
   */
  constructor(message: string, details: WorkerDiedDetails = {}) {
    super(message, causeOf(details));
    this.jobId = details.jobId;
    this.taskName = details.taskName;
    this.exitCode = details.exitCode;
    this.attempts = details.attempts ?? 0;
  }
}

/** As with the language's own errors, one without a cause has no `cause` property at all. */
function causeOf(details: { cause?: unknown }): ErrorOptions {
  return details.cause === undefined ? {} : { cause: details.cause };
}
