import type { Coverage } from "./coverage.ts";
import { Kinds } from "../report/kinds.ts";
import { BatchError } from "./errors.ts";
import type { Source } from "./inputs.ts";
import type { JobLog, LogEntry } from "./job_log.ts";
import { type Output, partialOf } from "./output.ts";
import type { SlowRecordReport } from "./progress.ts";
import { type ErrorEntry, errorLine, parseErrors, parseMembers, readError } from "./record_errors.ts";
import type { Consumer, DonePart } from "./run.ts";

/** So many of the slowest records are told. */
const SLOWEST = 5;

/** So much of what tasks were denied is told. */
const MOST_DENIED = 20;

/** Where the parts of a batch go that are done: the output, the errors file, the job log. */
export interface FilesOptions {
  sources: readonly Source[];
  coverages: readonly Coverage[];
  ordered: boolean;
  output: Output;
  errors: ErrorsFile | undefined;
  log: JobLog | undefined;
  /** What an earlier run had done. */
  before: Totals;
}

/** Counts since the begin of the batch; times in milliseconds. */
export interface Totals {
  records: number;
  failed: number;
  busy: number;
  wall: number;
}

/** Puts down what is done. */
export class Files implements Consumer {
  /** What records failed with. */
  readonly errors = new Kinds();
  /** What tasks were denied, the first of it. */
  readonly denied = new Set<string>();
  /** The slowest records, those first that took longest. */
  readonly slowest: SlowRecordReport[] = [];
  readonly totals: Totals;
  #options: FilesOptions;
  #unsaved: LogEntry["done"] = [];
  #begin = performance.now();

  constructor(options: FilesOptions) {
    this.#options = options;
    this.totals = { ...options.before };
  }

  take(part: DonePart): void | Promise<void> {
    const { position } = this.#options.output;
    let written: void | Promise<void>;
    try {
      written = this.#options.output.write(part.output);
    } catch (error) {
      throw explainStorage(error);
    }
    if (written === undefined) return this.#record(part, position);
    return written.then(() => this.#record(part, position), (error) => {
      throw explainStorage(error);
    });
  }

  async save(finished = false): Promise<void> {
    const { output, errors, log } = this.#options;
    if (log === undefined || (this.#unsaved.length === 0 && !finished)) return;
    const done = this.#unsaved;
    this.#unsaved = [];
    try {
      const entry: LogEntry = {
        done,
        output: output.state,
        errors: errors?.length ?? 0,
        ...this.totals,
        wall: Math.round(this.#options.before.wall + performance.now() - this.#begin),
        busy: Math.round(this.totals.busy),
        ...finished ? { stage: "finished" } : {},
      };
      if (!finished) {
        await output.sync();
        await errors?.sync();
      }
      await log.append(entry);
    } catch (error) {
      this.#unsaved = [...done, ...this.#unsaved];
      throw explainStorage(error);
    }
  }

  #record({ source, start, end, state, errors, slowest }: DonePart, position: number): void {
    const { sources, coverages, ordered } = this.#options;
    const coverage = coverages[source]!;
    const lines = coverage.first.end === start ? coverage.first.lines : undefined;
    const input = sources[source]!.name;
    const entries = errors.map((error) => errorLine(error, { input, lines: ordered ? lines : undefined, start, position }));
    if (entries.length > 0) this.#write(entries);
    for (const { members } of errors) this.#count(members);
    for (const { line, lastLine, ...slow } of slowest) {
      this.#rank({
        input,
        ...slow,
        ...lines === undefined ? { line: undefined, lastLine: undefined } : { line: lines + line + 1, lastLine: lines + lastLine + 1 },
      });
    }
    coverage.add({ start, end, lines: state.lines });
    const last = this.#unsaved.at(-1);
    if (ordered && last?.[0] === source && last[2] === start) {
      last[2] = end;
      last[3] += state.lines;
    } else this.#unsaved.push([source, start, end, state.lines]);
    this.totals.records += state.records;
    this.totals.failed += state.failed;
    this.totals.busy += state.busy;
  }

  #write(entries: Uint8Array[]): void {
    try {
      this.#options.errors?.write(entries);
    } catch (error) {
      throw explainStorage(error);
    }
  }

  #count(members: Uint8Array): void {
    const { name, denied } = readError(members);
    this.errors.add(name, () => parseMembers(members).error.message);
    if (denied !== undefined && this.denied.size < MOST_DENIED) this.denied.add(denied);
  }

  #rank(slow: SlowRecordReport): void {
    if (this.slowest.length === SLOWEST && slow.time <= this.slowest.at(-1)!.time) return;
    this.slowest.push(slow);
    this.slowest.sort((a, b) => b.time - a.time);
    this.slowest.length = Math.min(this.slowest.length, SLOWEST);
  }
}

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
  async finish(sources: readonly Source[], coverages: readonly Coverage[], ordered: boolean): Promise<void> {
    this.close();
    if (this.length === 0) return await Deno.remove(this.#path);
    if (ordered) return;
    const entries = parseErrors(await Deno.readFile(this.#path));
    const before = sources.map((source, i) => [source.name, coverages[i]!.linesBefore()] as const);
    for (const entry of entries) number(entry, new Map(before));
    const names = sources.map(({ name }) => name);
    entries.sort((a, b) => names.indexOf(a.input) - names.indexOf(b.input) || a.offset - b.offset);
    await replaceErrors(this.#path, entries);
    this.length = (await Deno.stat(this.#path)).size;
  }

  /** Lets go of it as it is, or, if it is finished, does nothing. */
  close(): void {
    if (this.#open) this.#file.close();
    this.#open = false;
  }
}

function number(entry: ErrorEntry, before: Map<string, Map<number, number>>): void {
  if (entry.part === undefined) return;
  const [start, line] = entry.part;
  entry.line = before.get(entry.input)!.get(start)! + line + 1;
  delete entry.part;
}

/** Writes a file of errors anew, all of it or nothing. */
export async function replaceErrors(path: string, entries: readonly ErrorEntry[]): Promise<void> {
  await writeErrors(partialOf(path), entries);
  await Deno.rename(partialOf(path), path);
}

/** Writes errors to a file, and makes them last. */
export async function writeErrors(path: string, entries: readonly ErrorEntry[]): Promise<void> {
  const text = entries.map((entry) => `${JSON.stringify(entry)}\n`).join("");
  await Deno.writeTextFile(path, text);
  using file = await Deno.open(path, { write: true });
  await file.sync();
}

/** What it means that something cannot be written. */
function explainStorage(error: unknown): BatchError {
  const { message } = error as Error;
  const what = /os error (28|112)\b/.test(message)
    ? "the disk is full"
    : /os error 32\b/.test(message)
    ? "nobody reads the output any more"
    : message;
  return new BatchError(`Cannot write results: ${what}`, { resumable: true, cause: error });
}
