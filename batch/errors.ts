import { PoolBrokenError } from "../errors.ts";
import { textOf } from "../pool/checks.ts";

/** Details of a {@linkcode BatchError}. */
export interface BatchErrorDetails {
  /** Whether a batch with `resume` can go on from where this one ended. */
  resumable?: boolean | undefined;
  /** The error behind it. */
  cause?: unknown;
}

/**
 * A batch cannot be run, or cannot go on: the message says what to do. A failed record is not such an error.
 *
 * @example A file that is not there
 * ```ts
 * import { batch, BatchError } from "@procpool/process-pool/batch";
 * import { assertRejects } from "@std/assert";
 *
 * await assertRejects(() => batch((x) => x, { input: "no_such.ndjson", output: "-" }), BatchError, "Cannot run batch as ");
 * ```
 */
export class BatchError extends Error {
  /** The name of the class. */
  override readonly name = "BatchError";
  /** Whether a batch with `resume` can go on from where this one ended. */
  readonly resumable: boolean;

  /**
   * Constructs a new error.
   *
   * @param message What is wrong, and what to do.
   * @param details Whether the batch can be resumed, and the error behind it.
   */
  constructor(message: string, { resumable = false, cause }: BatchErrorDetails = {}) {
    super(message, cause === undefined ? {} : { cause });
    this.resumable = resumable;
  }
}

/** How messages begin before records are run, also those that come from workers and are meant for the user as they are. */
export const CANNOT_RUN = "Cannot run batch as ";

/** The flag that permits writing. */
export const WRITING = { flag: "--allow-write" };

/**
 * Does something with a path.
 *
 * @throws {BatchError} What it throws, in our words.
 */
export async function explained<T>(work: () => Promise<T>, what: string, details: { flag: string }): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof BatchError ? error : explainPath(error, what, details);
  }
}

/** The text of what a stream fails with: its owner may give any reason, or none. */
export function reasonOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : thrown === undefined ? "no reason was given" : textOf(thrown);
}

/** What an error of the platform means for a path, in our words. */
export function explainPath(error: unknown, what: string, { flag }: { flag: string }): BatchError {
  if (error instanceof Deno.errors.NotFound) return new BatchError(`${CANNOT_RUN}there is no ${what}`, { cause: error });
  if (error instanceof Deno.errors.NotCapable) {
    // For example an open file, such as '/dev/stdin'.
    const needed = error.message.startsWith("Requires all access") ? "--allow-all" : flag;
    return new BatchError(`${CANNOT_RUN}it may not access the ${what}: run it with ${needed}`, { cause: error });
  }
  return new BatchError(`${CANNOT_RUN}it cannot access the ${what}: ${(error as Error).message}`, { cause: error });
}

/** What is wrong with the workers' permissions, or with Deno, in terms of `batch`: all other options of the pool were checked before. */
export function explainPool(error: unknown): unknown {
  const { message } = error as Error;
  const words = message.replace("create pool", "run batch");
  const { NotCapable, NotSupported } = Deno.errors;
  if (error instanceof NotCapable || error instanceof NotSupported) return new BatchError(words, { cause: error });
  if (words !== message) return new TypeError(words, { cause: error });
  return new BatchError(`${CANNOT_RUN}no worker can be started: ${message}`, { cause: error });
}

/** Why workers could not load the task. */
export function explainLoading(error: unknown): BatchError {
  const cause = error instanceof PoolBrokenError ? error.cause : error;
  // A worker may end without an error. Its time limit is not an option of a batch, so it is not named.
  const [, reason] = /\bthe last one (.+?)(?: \('startTimeout'\))?$/s.exec(cause === undefined ? (error as Error).message : "") ?? [];
  const message = cause instanceof Error ? cause.message : reason === undefined ? String(cause) : `a worker ${reason}`;
  if (message.startsWith(CANNOT_RUN)) return new BatchError(message);
  // For example because Deno does not know its permissions.
  const uncreated = / could not be created$/.test((error as Error).message);
  const what = uncreated ? "no worker can be started" : "the task module cannot be loaded";
  const needed = /^Requires \w+ access\b/.test(message) ? "; workers may need that among their 'permissions' as well" : "";
  return new BatchError(`${CANNOT_RUN}${what}: ${message}${needed}`, { cause });
}

/**
 * Waits for the content of something that was read before.
 *
 * @throws {BatchError} If it can no longer be read.
 */
export async function readAgain<T>(content: Promise<T>, what: string): Promise<T> {
  try {
    return await content;
  } catch (cause) {
    throw new BatchError(`Cannot go on as ${what} can no longer be read: ${(cause as Error).message}`, { resumable: true, cause });
  }
}

/** Why a run cannot go on. If records have been run, the task was loaded. */
export function explainRun(error: unknown, hasRunRecords: boolean): BatchError {
  if (!(error instanceof PoolBrokenError)) {
    return new BatchError(`Cannot go on as a worker cannot read the input: ${(error as Error).message}`, { resumable: true, cause: error });
  }
  const loading = explainLoading(error);
  if (!hasRunRecords) return loading;
  return new BatchError(loading.message.replace("run batch", "go on"), { resumable: true, cause: loading.cause });
}

/** The error for something that cannot be written. */
export function explainStorage(error: unknown): BatchError {
  if (error instanceof BatchError) return error;
  const message = reasonOf(error);
  const what = /os error (28|112)\b/.test(message) ? "the disk is full" : /os error 32\b/.test(message)
    ? "nobody reads the output any more"
    // Deno does not tell how much it has written, so that there is no going on.
    : error instanceof Deno.errors.WouldBlock
    ? "the output is a pipe that does not block, and it is full: '| cat' makes another one"
    : message;
  return new BatchError(`Cannot write results: ${what}`, { resumable: true, cause: error });
}
