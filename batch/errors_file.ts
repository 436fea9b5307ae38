import { joined, writeAll } from "./bytes.ts";
import type { Coverage } from "./coverage.ts";
import type { Source } from "./inputs.ts";
import type { LogEntry } from "./job_log.ts";
import { goOnAt, keepMode, type LockedFile, openLocked, partialOf, renameForGood } from "./output.ts";
import { ifThere } from "./paths.ts";
import { type ErrorEntry, errorText, readErrors } from "./record_errors.ts";
import { sampleOf } from "./seen_file.ts";

/** The file of failed records, to which no other batch can write as long as it is open. */
export class ErrorsFile implements Disposable {
  length = 0;
  readonly path: string;
  #file: Deno.FsFile;
  #open = true;
  /** Whether it was newly made, and not used yet. */
  #unused: boolean;

  private constructor({ file, made }: LockedFile, path: string) {
    this.#file = file;
    this.path = path;
    this.#unused = made;
  }

  /**
   * Opens it, with what is in it.
   *
   * @throws {BatchError} If another batch has it open.
   */
  static async open(path: string): Promise<ErrorsFile> {
    return new ErrorsFile(await openLocked(path, "errors file:"), path);
  }

  /** Begins one anew; one that is to replace another gets its permissions. */
  static async begin(path: string, replaced = path): Promise<ErrorsFile> {
    const file = await ErrorsFile.open(path);
    try {
      if (replaced !== path) await keepMode(replaced, path);
      await file.goOn(0);
      return file;
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Goes on with it; everything after `length` is cut off. */
  async goOn(length: number): Promise<void> {
    await goOnAt(this.#file, { path: this.path, length });
    this.length = length;
    this.#unused = false;
  }

  write(entries: readonly Uint8Array[]): void {
    const bytes = joined(entries);
    writeAll(this.#file, bytes);
    this.length += bytes.length;
  }

  async sync(): Promise<void> {
    await this.#file.syncData();
  }

  /** Completes it. */
  async finish(sources: readonly Source[], coverages: readonly Coverage[]): Promise<void> {
    if (this.length === 0) {
      // While it is locked: after that it may belong to someone else.
      await ifThere(Deno.remove(this.path));
      return this.close();
    }
    this.close();
    this.length = await completeErrors(this.path, { length: this.length, inputs: sources.map(({ name }) => name), coverages });
  }

  /** Closes it as it is, or does nothing if it is finished. A new file that was never used is removed. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    try {
      if (this.#unused) Deno.removeSync(this.path);
    } catch {
      // An empty one does no harm.
    }
    this.#file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** What the job log notes of an errors file when a batch is done, to tell it from others. */
export async function errorsState(path: string): Promise<Pick<LogEntry, "errors" | "errorsSample">> {
  const { size = 0 } = await ifThere(Deno.stat(path)) ?? {};
  return size === 0 ? { errors: 0 } : { errors: size, errorsSample: await sampleOf(path, size) };
}

/** An errors file, the names of the inputs, and how much of each is done. */
export interface CompleteErrorsOptions {
  /** Bytes of the file. */
  length: number;
  inputs: readonly string[];
  coverages: readonly Coverage[];
}

/**
 * Completes an errors file that nobody writes to: an empty one is removed, and lines that could not be numbered before are now. Doing it
 * twice is harmless.
 *
 * @returns How many bytes it then has.
 */
export async function completeErrors(path: string, { length, inputs, coverages }: CompleteErrorsOptions): Promise<number> {
  if (length === 0) await ifThere(Deno.remove(path));
  if (length === 0 || !coverages.some(({ numbered }) => numbered)) return length;
  // An input may be named twice.
  const byInput = Map.groupBy(coverages, (_, i) => inputs[i]!);
  const partial = partialOf(path);
  const file = await ErrorsFile.begin(partial, path);
  try {
    for await (const entry of readErrors(path)) file.write([errorText(numberedIn(entry, byInput.get(entry.input) ?? []))]);
    await file.sync();
  } finally {
    file.close();
  }
  await renameForGood(partial, path);
  return file.length;
}

/**
 * An error with the number of its line, now that all lines before it are counted.
 *
 * @param coverages How much of its input is done; several if that was read several times: its lines are the same.
 */
function numberedIn(entry: ErrorEntry, coverages: readonly Coverage[]): ErrorEntry {
  if (entry.part === undefined) return entry;
  const { part: [start, line], ...rest } = entry;
  for (const coverage of coverages) {
    const before = coverage.linesBefore(start);
    if (before !== undefined) return { ...rest, line: before + line + 1 };
  }
  return entry;
}
