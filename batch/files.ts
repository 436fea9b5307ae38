import type { Coverage, Stretch } from "./coverage.ts";
import type { DonePart } from "./done_parts.ts";
import { explainStorage } from "./errors.ts";
import { type ErrorsFile, errorsState } from "./errors_file.ts";
import { Failures } from "./failures.ts";
import { isHalf, type Source } from "./inputs.ts";
import type { JobLog, LogEntry, StreamBegin } from "./job_log.ts";
import type { Output } from "./output.ts";
import type { SlowRecordReport } from "./progress.ts";
import { errorLine, isRetryable, parseMembers, readError, saidBy } from "./record_errors.ts";
import type { Consumer } from "./run.ts";

/** How many of the slowest records are reported: as many as anyone looks at. */
const SLOWEST = 5;

/** How many failures are reported that are in no errors file: enough to see why the batch gave up. */
export const MOST_NOT_KEPT = 5;

/** What {@linkcode Files} writes to, and what it has to know. */
export interface FilesOptions {
  sources: readonly Source[];
  coverages: readonly Coverage[];
  output: Output;
  errors: ErrorsFile | undefined;
  log: JobLog | undefined;
  /** Rejects if what is done now must not be recorded, given the inputs that were in use since it was last called. */
  check?: ((sources: readonly Source[]) => Promise<void>) | undefined;
  /** Aborts when the batch is stopped. */
  signal?: AbortSignal | undefined;
  /** What an earlier run had done. */
  before: Totals;
}

/** Counts since the beginning of the batch; times in milliseconds. */
export interface Totals {
  records: number;
  failed: number;
  busy: number;
  wall: number;
}

/** Where finished parts of a batch go: the output, the errors file, the job log. */
export class Files implements Consumer {
  readonly failures = new Failures();
  /** Whether any failed record can be run again. */
  retryable = false;
  /** How many bytes of the inputs were done without being run. */
  passed = 0;
  /** The slowest records, slowest first. */
  readonly slowest: SlowRecordReport[] = [];
  readonly totals: Totals;
  /** How many failed records might have been halves, but were whole. */
  failedWhole = 0;
  /** Inputs that ended with half a record, and the byte at which it begins. */
  readonly left: [input: string, offset: number][] = [];
  /** The first failures that come after something that was not done when the batch gave up. */
  readonly notKept: [input: string, offset: number, error: string][] = [];
  #options: FilesOptions;
  /** What is done, and how streams began, since the last line of the job log. */
  #unsaved: LogEntry["done"] = [];
  #begins: [source: number, begin: StreamBegin][] = [];
  /** The inputs of which a part was run, or some was done, since the last check. */
  #unchecked = new Set<number>();
  /** The inputs in use: how many parts of each are not run, and one more while others may come. */
  #inUse = new Map<number, number>();
  /**
   * Whether something could not be written. The files may then contain some of a part, or, as the system reports a failure only once, less
   * than assumed: the job log describes them as of the last save.
   */
  #broken = false;
  /**
   * What may be half a record, since its input ended without a newline: Ctrl-C stops not only a batch but also the writer of its stream,
   * and a file may still be written to. It is held back until it is known that neither happened. Each input has at most one.
   */
  #torn: DonePart[] = [];
  /** When this run began, in ms of `performance.now()`. */
  #began = performance.now();

  constructor(options: FilesOptions) {
    this.#options = options;
    this.totals = { ...options.before };
  }

  take(part: DonePart): void | Promise<void> {
    const isDue = (source: number) => source < part.source;
    // A possible half record is run again, and so is what follows it.
    if (this.#options.signal?.aborted && this.#torn.some((torn) => isDue(torn.source) && this.#isOfStream(torn))) return;
    // They come before the records of the next input in the output.
    const before = this.#torn.length > 0 ? this.#takeTornOf(isDue) : undefined;
    if (part.torn) {
      this.#torn.push({ ...part, output: part.output.slice() });
      return before;
    }
    return before === undefined ? this.#take(part) : before.then(() => this.#take(part));
  }

  /** Takes possible half records as whole ones. */
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

  /** Takes a record without a line end, unless it turns out to be half of one: that is left to another batch, with what came later. */
  async #takeWhole(part: DonePart): Promise<void> {
    const source = this.#options.sources[part.source]!;
    if (part.torn !== false && await isHalf(source, part.torn)) return void this.left.push([source.name, part.start]);
    this.failedWhole += part.state.failed;
    await this.#take(part);
  }

  /** Whether there would be a possible half record if the batch were stopped now. */
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

  /** Records a stretch of an input that is done without being run. */
  pass(source: number, { start, end, lines }: Stretch): void {
    this.#options.coverages[source]!.add({ start, end, lines });
    this.#unchecked.add(source);
    if (this.#options.log !== undefined) this.#unsaved.push([source, start, end, lines]);
    this.passed += end - start;
  }

  /**
   * Notes that all of a part of an input was run. From then on, thousands of such parts may wait for long: their inputs are only checked
   * once now, and once when they are done.
   */
  ran(source: number): void {
    this.use(source, -1);
    this.#unchecked.add(source);
  }

  /** Notes that an input is read, that a part of it was handed out, or that either is over. */
  use(source: number, change: 1 | -1): void {
    const uses = (this.#inUse.get(source) ?? 0) + change;
    if (uses > 0) this.#inUse.set(source, uses);
    else this.#inUse.delete(source);
  }

  /** Records how a stream begins. */
  noteBegin(source: number, begin: StreamBegin): void {
    this.#begins.push([source, begin]);
  }

  leave(parts: readonly DonePart[]): void {
    for (const { source, torn, errors } of parts) {
      // Half a record is no failure.
      if (torn) continue;
      for (const { offset, members } of errors.slice(0, MOST_NOT_KEPT - this.notKept.length)) {
        this.notKept.push([this.#options.sources[source]!.name, offset, saidBy(members)]);
      }
    }
  }

  /** Makes what was taken durable, unless something could not be written before. `finished`: nothing more will come. */
  async save({ finished = false } = {}): Promise<void> {
    const { output, errors, log } = this.#options;
    if (this.#broken) return;
    try {
      // What went to a stream is final, but there need not be more of it. Nor need anything be run whose results would not be saved.
      if (log === undefined || this.#unsaved.length === 0 && !finished) return await this.#check();
      const done = merged(this.#unsaved);
      this.#unsaved = [];
      const begins = this.#begins.splice(0);
      const entry: LogEntry = {
        done,
        output: output.state,
        errors: errors?.length ?? 0,
        ...this.totals,
        wall: Math.round(this.#options.before.wall + performance.now() - this.#began),
        busy: Math.round(this.totals.busy),
        ...begins.length === 0 ? {} : { begins },
        ...finished ? { ...errors && await errorsState(errors.path), stage: "finished" } : {},
      };
      if (!finished) {
        // After everything has been recorded: what holds now has held for all of it.
        await this.#check();
        await output.sync();
        await errors?.sync();
      }
      await log.append(entry);
    } catch (error) {
      this.#giveUp(error);
    }
  }

  async #check(): Promise<void> {
    const { check, sources } = this.#options;
    // What is not done yet is, too: by then, an input may be what it was again.
    const unchecked = new Set([...this.#unchecked, ...this.#inUse.keys()]);
    this.#unchecked.clear();
    await check?.([...unchecked].map((source) => sources[source]!));
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
    await this.save({ finished: true });
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
    this.#unchecked.add(source);
    if (log !== undefined) this.#unsaved.push(numbered ? [source, start, end, state.lines, 1] : [source, start, end, state.lines]);
    this.totals.records += state.records;
    this.totals.failed += state.failed;
    this.totals.busy += state.busy;
  }

  #count(members: Uint8Array): void {
    this.retryable ||= isRetryable(parseMembers(members));
    this.failures.add(readError(members));
  }

  #rank(slow: SlowRecordReport): void {
    if (this.slowest.length === SLOWEST && slow.time <= this.slowest.at(-1)!.time) return;
    this.slowest.push(slow);
    this.slowest.sort((a, b) => b.time - a.time);
    this.slowest.length = Math.min(this.slowest.length, SLOWEST);
  }
}

/** The same parts, in order, and as few as possible: adjacent ones are merged unless lines have to be counted. */
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
