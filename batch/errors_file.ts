import type { Coverage } from "./coverage.ts";
import type { Source } from "./inputs.ts";
import { partialOf } from "./output.ts";
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
    const file = await Deno.open(path, { write: true, create: true });
    await file.truncate(length);
    await file.seek(0, Deno.SeekMode.End);
    return new ErrorsFile(file, path, length);
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

  /** Completes it: one that is empty is removed, and where lines could not be numbered before, they are now. */
  async finish(sources: readonly Source[], coverages: readonly Coverage[]): Promise<void> {
    this.close();
    if (this.length === 0) return await Deno.remove(this.#path);
    if (!coverages.some(({ numbered }) => numbered)) return;
    const partial = partialOf(this.#path);
    const file = await ErrorsFile.open(partial, 0);
    try {
      for await (const entry of readErrors(this.#path)) file.write([errorText(numberedIn(entry, sources, coverages))]);
      await file.sync();
    } finally {
      file.close();
    }
    await Deno.rename(partial, this.#path);
    this.length = file.length;
  }

  /** Lets go of it as it is, or, if it is finished, does nothing. */
  close(): void {
    if (this.#open) this.#file.close();
    this.#open = false;
  }
}

/** An error with the number of its line, now that all lines before it are counted. */
function numberedIn(entry: ErrorEntry, sources: readonly Source[], coverages: readonly Coverage[]): ErrorEntry {
  if (entry.part === undefined) return entry;
  const { part: [start, line], ...rest } = entry;
  // An input may be named twice: its lines are the same.
  for (const [i, { name }] of sources.entries()) {
    const before = name === entry.input ? coverages[i]!.linesBefore(start) : undefined;
    if (before !== undefined) return { ...rest, line: before + line + 1 };
  }
  return entry;
}
