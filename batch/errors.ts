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
  const cannot = "Cannot run batch as ";
  if (error instanceof Deno.errors.NotFound) return new BatchError(`${cannot}there is no ${what}`, { cause: error });
  if (error instanceof Deno.errors.NotCapable) {
    // For example an open file, such as '/dev/stdin'.
    const needed = error.message.startsWith("Requires all access") ? "--allow-all" : flag;
    return new BatchError(`${cannot}it may not access the ${what}: run it with ${needed}`, { cause: error });
  }
  return new BatchError(`${cannot}it cannot access the ${what}: ${(error as Error).message}`, { cause: error });
}
