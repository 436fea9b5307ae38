/**
 * The job log beside an output: how much of the input is done, and how long the output and the errors file were at that moment. It only
 * vouches for what is on disk: the output is flushed first, then the line that describes it is written. A torn last line counts as never
 * written.
 *
 * @module
 */

import { count, listed } from "../report/figures.ts";
import { writeAll } from "./bytes.ts";
import { Coverage } from "./coverage.ts";
import { goOnAt, openLocked, type OutputState } from "./output.ts";

/** What a log begins with: what must be the same for a batch to be resumed. */
export interface Fingerprint {
  version: 1;
  /** Each input: its path, size, time of the last change and the hash of samples. */
  inputs: { path: string; size: number | null; changed: string | null; sample: string | null }[];
  task: { module: string; name: string | null; hash: string };
  /** The options that the output depends on. */
  options: Record<string, unknown>;
  /** The errors file, seen from the folder of the output; logs of earlier versions do not tell. */
  errors?: string;
}

/** How a stream began: the only part of it by which it can be recognised. */
export interface StreamBegin {
  length: number;
  hash: string;
}

/** The state at a moment. Counts are since the beginning of the batch. */
export interface LogEntry {
  /** What was done since the last entry: input, first byte, end, lines; and 1 if errors in it wait for the number of lines before it. */
  done: [input: number, start: number, end: number, lines: number, numbered?: 1][];
  /** When a batch is done, the length is that of the complete file. */
  output: OutputState;
  /** Bytes of the errors file. */
  errors: number;
  /** The hash of its samples, when a batch with one is done; logs of earlier versions do not have it. */
  errorsSample?: string;
  records: number;
  failed: number;
  /** Milliseconds. */
  busy: number;
  wall: number;
  /** How streams began that were first read since the last entry. */
  begins?: [input: number, begin: StreamBegin][];
  /** `"finished"` when the batch is done; `"merging"` when the replacements of its files are complete and only have to be renamed. */
  stage?: "finished" | "merging";
}

/** The content of a log. */
export interface FoundLog {
  fingerprint: Fingerprint;
  /** How much of each input is done. */
  coverages: Coverage[];
  /** How streams began, by input. */
  begins: Map<number, StreamBegin>;
  /** Undefined if nothing has been done yet. */
  last: LogEntry | undefined;
  /** How many bytes of the file are intact. */
  length: number;
}

/** Every log begins with this, unless it was torn there. */
const HEAD = '{"version":1,"inputs":[';

/** How many bytes of a log are read at once: more take memory, fewer take longer. */
const BLOCK = 2 ** 18;

/** Reads a log of any length; undefined if none has been begun. */
async function readLog(file: Deno.FsFile): Promise<FoundLog | undefined> {
  if (!beginsAsLog(await headOf(file))) return undefined;
  let found: FoundLog | undefined;
  for await (const { line, end } of wholeLines(file)) {
    const value = parse(line);
    if (value === undefined) break;
    if (found === undefined) {
      const fingerprint = value as Fingerprint;
      found = { fingerprint, coverages: fingerprint.inputs.map(() => new Coverage()), begins: new Map(), last: undefined, length: end };
    } else {
      found.last = value as LogEntry;
      found.length = end;
      for (const [source, begin] of found.last.begins ?? []) found.begins.set(source, begin);
      for (const [source, start, end, lines, numbered] of found.last.done) {
        found.coverages[source]!.add({ start, end, lines, numbered: numbered !== undefined });
      }
    }
  }
  return found;
}

/**
 * The errors file of which a log tells, seen from the folder of the output; undefined if it tells of none, or cannot be read, as when it is
 * locked on Windows.
 */
export async function loggedErrors(path: string): Promise<string | undefined> {
  try {
    using file = await Deno.open(path);
    if (!beginsAsLog(await headOf(file))) return undefined;
    const { value, done } = await wholeLines(file).next();
    return done ? undefined : (parse(value.line) as Fingerprint | undefined)?.errors;
  } catch {
    return undefined;
  }
}

/** The first bytes, as one character each; the next read starts with them again. */
async function headOf(file: Deno.FsFile): Promise<string> {
  await file.seek(0, Deno.SeekMode.Start);
  const bytes = new Uint8Array(HEAD.length);
  const length = await file.read(bytes) ?? 0;
  await file.seek(0, Deno.SeekMode.Start);
  return String.fromCharCode(...bytes.subarray(0, length));
}

function beginsAsLog(head: string): boolean {
  return HEAD.startsWith(head);
}

/** The complete lines of a file, each with the position after it; a line is only valid until the next is read. */
async function* wholeLines(file: Deno.FsFile): AsyncGenerator<{ line: Uint8Array; end: number }, void> {
  let block = new Uint8Array(BLOCK);
  let filled = 0;
  let end = 0;
  for (let length = await file.read(block); length !== null; length = await file.read(block.subarray(filled))) {
    const read = block.subarray(0, filled + length);
    let begin = 0;
    for (let newline = read.indexOf(10, filled); newline >= 0; newline = read.indexOf(10, begin)) {
      end += newline + 1 - begin;
      yield { line: read.subarray(begin, newline), end };
      begin = newline + 1;
    }
    block.copyWithin(0, begin, read.length);
    filled = read.length - begin;
    if (filled < block.length) continue;
    // A line is longer than a block.
    const larger = new Uint8Array(2 * block.length);
    larger.set(block);
    block = larger;
  }
}

function parse(line: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(line));
  } catch {
    return undefined;
  }
}

/** The log of a batch, which nobody else can open as long as it is open: so what is checked before writing still holds when writing. */
export class JobLog implements Disposable {
  /** Whether an entry was appended since it was opened. */
  hasAppended = false;
  #file: Deno.FsFile;
  #path: string;
  /** Whether there was none before. */
  #made: boolean;

  private constructor(file: Deno.FsFile, path: string, made: boolean) {
    this.#file = file;
    this.#path = path;
    this.#made = made;
  }

  /**
   * Opens a log, keeping its content. If there is none, an empty one is made, which is removed when it is closed unused.
   *
   * @throws {BatchError} If another batch has it open.
   */
  static async open(path: string): Promise<JobLog> {
    const { file, made } = await openLocked(path, "output: its job log");
    return new JobLog(file, path, made);
  }

  /** Its content; undefined if nothing has been begun. */
  async read(): Promise<FoundLog | undefined> {
    return await readLog(this.#file);
  }

  /** Whether the file is something other than a log, which beginning a log would destroy. */
  async isForeign(): Promise<boolean> {
    return !beginsAsLog(await headOf(this.#file));
  }

  /** Begins it anew. */
  async begin(fingerprint: Fingerprint): Promise<void> {
    await this.goOn(0);
    await this.#append(fingerprint);
  }

  /** Goes on with it; everything after `length` is cut off. */
  async goOn(length: number): Promise<void> {
    await goOnAt(this.#file, { path: this.#path, length });
  }

  /** Appends an entry, and makes it durable. */
  async append(entry: LogEntry): Promise<void> {
    this.hasAppended = true;
    await this.#append(entry);
  }

  /** Closes it. A new log that was never begun is removed. */
  close(): void {
    try {
      if (this.#made && this.#file.statSync().size === 0) Deno.removeSync(this.#path);
    } catch {
      // An empty one does no harm.
    }
    this.#file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #append(value: unknown): Promise<void> {
    const bytes = new TextEncoder().encode(`${JSON.stringify(value)}\n`);
    writeAll(this.#file, bytes);
    await this.#file.syncData();
  }
}

/** How many changed inputs are named: more, and nobody finds out how they changed. */
const MOST_NAMED = 3;

/** Says in words how a batch has changed since a log was begun; empty if it can go on. */
export function differences(before: Fingerprint, now: Fingerprint): string[] {
  const found = differentInputs(before.inputs, now.inputs);
  const { task, options } = before;
  if (task.module !== now.task.module) found.push(`the task module was '${task.module}' and is '${now.task.module}'`);
  else if (task.hash !== now.task.hash) found.push(`the task module '${task.module}', or what it imports, has different content`);
  if (task.name !== now.task.name) {
    const [was, is] = [task.name, now.task.name].map((name) => name === null ? "not named" : `'${name}'`);
    found.push(`the task was ${was} and is ${is}`);
  }
  for (const name of new Set([...Object.keys(options), ...Object.keys(now.options)])) {
    const [was, is] = [options[name], now.options[name]].map((value) => JSON.stringify(value));
    if (was !== is) found.push(`'${name}' was ${was} and is ${is}`);
  }
  return found;
}

function differentInputs(before: Fingerprint["inputs"], now: Fingerprint["inputs"]): string[] {
  const [paths, pathsNow] = [before, now].map((inputs) => inputs.map(({ path }) => path)) as [string[], string[]];
  if (paths.length !== pathsNow.length || paths.some((path, i) => path !== pathsNow[i])) return [differentPaths(paths, pathsNow)];
  const found: string[] = [];
  for (const [i, { path, size, changed, sample }] of before.entries()) {
    const other = now[i]!;
    if (size !== other.size) found.push(`the input '${path}' had ${size} bytes and has ${other.size}`);
    else if (sample !== other.sample) found.push(`the input '${path}' has different content`);
    else if (changed !== other.changed) found.push(`the input '${path}' was changed at ${other.changed}`);
  }
  const more = found.length - MOST_NAMED;
  return more > 0 ? [...found.slice(0, MOST_NAMED), `${count(more)} more were changed`] : found;
}

function differentPaths(paths: string[], now: string[]): string {
  if (paths.length <= MOST_NAMED && now.length <= MOST_NAMED) return `the input was '${paths.join(", ")}' and is '${now.join(", ")}'`;
  const [known, knownNow] = [new Set(paths), new Set(now)];
  const [gone, come] = [[...known.difference(knownNow)], [...knownNow.difference(known)]];
  const named = (names: string[]) => listed(names.map((name) => `'${name}'`), MOST_NAMED);
  const how = [
    ...gone.length > 0 ? [`without ${named(gone)}`] : [],
    ...come.length > 0 ? [`with ${named(come)}`] : [],
  ];
  // An input that is named twice is read twice.
  const same = paths.length === now.length ? "in another order" : "some of them named more or less often";
  return `the input was ${count(paths.length)} files and is ${count(now.length)}, ${how.join(" and ") || same}`;
}
