import type { Coverage, Stretch } from "./coverage.ts";
import { Kinds } from "../report/kinds.ts";
import { BatchError, reasonOf } from "./errors.ts";
import { type ErrorsFile, errorsState } from "./errors_file.ts";
import { isHalf, type Source } from "./inputs.ts";
import type { JobLog, LogEntry, StreamBegin } from "./job_log.ts";
import type { Output } from "./output.ts";
import type { SlowRecordReport } from "./progress.ts";
import { errorLine, isRunAgain, parseMembers, readError } from "./record_errors.ts";
import type { Consumer, DonePart } from "./run.ts";

/** So many of the slowest records are told: as many as somebody looks at. */
const SLOWEST = 5;

/** So much of what tasks were denied is told: tasks may be denied something else for each record. */
export const MOST_DENIED = 20;

/** Where the parts of a batch go that are done: the output, the errors file, the job log. */
export interface FilesOptions {
  sources: readonly Source[];
  coverages: readonly Coverage[];
  output: Output;
  errors: ErrorsFile | undefined;
  log: JobLog | undefined;
  /** Rejects if what is done now may not be put down. */
  check?: (() => Promise<void>) | undefined;
  /** Aborts when the batch is stopped. */
  signal?: AbortSignal | undefined;
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
  /** Whether any record that failed can be run again. */
  retryable = false;
  /** How many bytes of the inputs were done without being run. */
  passed = 0;
  /** The slowest records, those first that took longest. */
  readonly slowest: SlowRecordReport[] = [];
  readonly totals: Totals;
  /** How many records have failed that might have been halves, and were whole. */
  failedWhole = 0;
  /** Inputs that ended with half of a record, and the byte at which that begins. */
  readonly left: [input: string, offset: number][] = [];
  #options: FilesOptions;
  #unsaved: LogEntry["done"] = [];
  #begins: [source: number, begin: StreamBegin][] = [];
  /**
   * Whether anything could not be written. The files may then hold some of a part, or, as the system tells of a failure only once, less than is
   * believed: the job log tells of them as they were at the last save.
   */
  #broken = false;
  /**
   * What may be half of a record, since its input ended without a newline: whoever stops a batch by Ctrl-C stops the writer of its stream
   * too, and a file may be written to. It is kept back until it is known that nobody has, and that no more has come. Each input has one at
   * the most.
   */
  #torn: DonePart[] = [];
  #begin = performance.now();

  constructor(options: FilesOptions) {
    this.#options = options;
    this.totals = { ...options.before };
  }

  take(part: DonePart): void | Promise<void> {
    const isDue = (source: number) => source < part.source;
    // What may be half of a record is run again, and so is what comes behind it.
    if (this.#options.signal?.aborted && this.#torn.some((torn) => isDue(torn.source) && this.#isOfStream(torn))) return;
    // In the output they come before the records of the next input.
    const before = this.#torn.length > 0 ? this.#takeTornOf(isDue) : undefined;
    if (part.torn) {
      this.#torn.push({ ...part, torn: false, output: part.output.slice() });
      return before;
    }
    return before === undefined ? this.#take(part) : before.then(() => this.#take(part));
  }

  /** Takes what may be halves of records for whole ones. */
  takeTorn(): void | Promise<void> {
    return this.#takeTornOf(() => true);
  }

  #takeTornOf(isDue: (source: number) => boolean): void | Promise<void> {
    const due = this.#torn.filter(({ source }) => isDue(source)).sort((a, b) => a.source - b.source);
    this.#torn = this.#torn.filter(({ source }) => !isDue(source));
    let taken: void | Promise<void> = undefined;
    for (const part of due) taken = taken === undefined ? this.#takeWhole(part) : taken.then(() => this.#takeWhole(part));
    return taken;
  }

  /** Takes a record without a line end, unless it turns out to be half of one: that is left to another batch, as is what came later. */
  async #takeWhole(part: DonePart): Promise<void> {
    const source = this.#options.sources[part.source]!;
    if (await isHalf(source)) return void this.left.push([source.name, part.start]);
    this.failedWhole += part.state.failed;
    await this.#take(part);
  }

  /** Whether there is what may be half of a record if the batch is stopped. */
  get isTorn(): boolean {
    return this.#torn.some((part) => this.#isOfStream(part));
  }

  #isOfStream({ source }: DonePart): boolean {
    return this.#options.sources[source]!.seen === undefined;
  }

  #take(part: DonePart): void | Promise<void> {
    const { position } = this.#options.output;
    try {
      const written = this.#options.output.write(part.output);
      if (written === undefined) return this.#record(part, position);
      return written.then(() => this.#record(part, position)).catch((error) => this.#giveUp(error));
    } catch (error) {
      this.#giveUp(error);
    }
  }

  /** Puts down what of an input is done without being run. */
  pass(source: number, { start, end, lines }: Stretch): void {
    this.#options.coverages[source]!.add({ start, end, lines });
    if (this.#options.log !== undefined) this.#unsaved.push([source, start, end, lines]);
    this.passed += end - start;
  }

  /** Puts down what a stream begins with. */
  begin(source: number, begin: StreamBegin): void {
    this.#begins.push([source, begin]);
  }

  /** Makes sure that what was taken lasts, unless something could not be written before. */
  async save(finished = false): Promise<void> {
    const { output, errors, log, check } = this.#options;
    if (this.#broken) return;
    // What goes to a stream is there for good, but more of it need not be.
    if (log === undefined) return await check?.();
    if (this.#unsaved.length === 0 && !finished) return;
    const done = merged(this.#unsaved);
    this.#unsaved = [];
    const begins = this.#begins.splice(0);
    try {
      const entry: LogEntry = {
        done,
        output: output.state,
        errors: errors?.length ?? 0,
        ...this.totals,
        wall: Math.round(this.#options.before.wall + performance.now() - this.#begin),
        busy: Math.round(this.totals.busy),
        ...begins.length === 0 ? {} : { begins },
        ...finished ? { ...errors && await errorsState(errors.path), stage: "finished" } : {},
      };
      if (!finished) {
        // After all of it has been put down: what holds now has held for all of it.
        await check?.();
        await output.sync();
        await errors?.sync();
      }
      await log.append(entry);
    } catch (error) {
      this.#giveUp(error);
    }
  }

  /** Completes output and errors file. */
  async finish(): Promise<void> {
    const { output, errors, sources, coverages } = this.#options;
    try {
      await output.finish();
      await errors?.finish(sources, coverages);
    } catch (error) {
      this.#giveUp(error);
    }
    await this.save(true);
  }

  #giveUp(error: unknown): never {
    this.#broken = true;
    throw explainStorage(error);
  }

  #record({ source, start, end, state, errors, slowest }: DonePart, position: number): void {
    const { sources, coverages, log } = this.#options;
    const coverage = coverages[source]!;
    const lines = coverage.first.end === start ? coverage.first.lines : undefined;
    const input = sources[source]!.name;
    const entries = errors.map((error) => errorLine(error, { input, lines, start, position }));
    if (entries.length > 0) this.#options.errors?.write(entries);
    for (const { members } of errors) this.#count(members);
    for (const { line, lastLine, ...slow } of slowest) {
      this.#rank({
        input,
        ...slow,
        ...lines === undefined ? { line: undefined, lastLine: undefined } : { line: lines + line + 1, lastLine: lines + lastLine + 1 },
      });
    }
    const numbered = lines === undefined && errors.length > 0;
    coverage.add({ start, end, lines: state.lines, numbered });
    if (log !== undefined) this.#unsaved.push(numbered ? [source, start, end, state.lines, 1] : [source, start, end, state.lines]);
    this.totals.records += state.records;
    this.totals.failed += state.failed;
    this.totals.busy += state.busy;
  }

  #count(members: Uint8Array): void {
    const { name, denied } = readError(members);
    this.retryable ||= isRunAgain(parseMembers(members));
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

/** The same parts, in order, as few as can be: only where lines have to be counted does one begin anew that touches the one before. */
function merged(parts: LogEntry["done"]): LogEntry["done"] {
  const all: LogEntry["done"] = [];
  for (const part of parts.toSorted((a, b) => a[0] - b[0] || a[1] - b[1])) {
    const [source, start, end, lines, numbered] = part;
    const last = all.at(-1);
    if (last?.[0] === source && last[2] === start && numbered === undefined) {
      last[2] = end;
      last[3] += lines;
    } else all.push([...part]);
  }
  return all;
}

/** What it means that something cannot be written. */
export function explainStorage(error: unknown): BatchError {
  if (error instanceof BatchError) return error;
  const message = reasonOf(error);
  const what = /os error (28|112)\b/.test(message)
    ? "the disk is full"
    : /os error 32\b/.test(message)
    ? "nobody reads the output any more"
    : message;
  return new BatchError(`Cannot write results: ${what}`, { resumable: true, cause: error });
}
