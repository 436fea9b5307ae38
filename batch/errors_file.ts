import type { Coverage } from "./coverage.ts";
import type { Source } from "./inputs.ts";
import { openAt, partialOf } from "./output.ts";
import { ifThere } from "./paths.ts";
import { type ErrorEntry, errorText, readErrors } from "./record_errors.ts";

/** The file of the records that failed. */
export class ErrorsFile {
  length: number;
  #file: Deno.FsFile;
  #path: string;
  #open = true;

  private constructor(file: Deno.FsFile, path: string, length: number) {
    this.#file = file;
    this.#path = path;
    this.length = length;
  }

  /** Opens it; what is behind `length` is cut off. */
  static async open(path: string, length: number): Promise<ErrorsFile> {
    return new ErrorsFile(await openAt(path, length), path, length);
  }

  write(entries: readonly Uint8Array[]): void {
    let length = 0;
    for (const entry of entries) length += entry.length;
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const entry of entries) {
      bytes.set(entry, at);
      at += entry.length;
    }
    for (let at = 0; at < length;) at += this.#file.writeSync(bytes.subarray(at));
    this.length += length;
  }

  async sync(): Promise<void> {
    await this.#file.syncData();
  }

  /** Completes it. */
  async finish(sources: readonly Source[], coverages: readonly Coverage[]): Promise<void> {
    this.close();
    this.length = await completeErrors(this.#path, { length: this.length, inputs: sources.map(({ name }) => name), coverages });
  }

  /** Lets go of it as it is, or, if it is finished, does nothing. */
  close(): void {
    if (this.#open) this.#file.close();
    this.#open = false;
  }
}

/** An errors file, the names of the inputs, and what of each is done. */
export interface CompleteErrorsOptions {
  /** Bytes of the file. */
  length: number;
  inputs: readonly string[];
  coverages: readonly Coverage[];
}

/**
 * Completes an errors file that nobody writes to: one that is empty is removed, and where lines could not be numbered before, they are now. To do
 * it twice is harmless.
 *
 * @returns How many bytes it has then.
 */
export async function completeErrors(path: string, { length, inputs, coverages }: CompleteErrorsOptions): Promise<number> {
  if (length === 0) await ifThere(Deno.remove(path));
  if (length === 0 || !coverages.some(({ numbered }) => numbered)) return length;
  const partial = partialOf(path);
  const file = await ErrorsFile.open(partial, 0);
  try {
    for await (const entry of readErrors(path)) file.write([errorText(numberedIn(entry, inputs, coverages))]);
    await file.sync();
  } finally {
    file.close();
  }
  await Deno.rename(partial, path);
  return file.length;
}

/** An error with the number of its line, now that all lines before it are counted. */
function numberedIn(entry: ErrorEntry, inputs: readonly string[], coverages: readonly Coverage[]): ErrorEntry {
  if (entry.part === undefined) return entry;
  const { part: [start, line], ...rest } = entry;
  // An input may be named twice: its lines are the same.
  for (const [i, name] of inputs.entries()) {
    const before = name === entry.input ? coverages[i]!.linesBefore(start) : undefined;
    if (before !== undefined) return { ...rest, line: before + line + 1 };
  }
  return entry;
}
