import type { createExplainer, ExplainerParts } from "./explainer.ts";
import type { LaneMemory, LAYOUT, SlowRecord } from "./lane.ts";
import type { InputFormat, OutputFormat, Piece, RangeReply, RunnerLimits, Verdict } from "./range.ts";
import type { createRangeReader, ReaderParts } from "./range_reader.ts";
import type { rowEnd } from "./rows.ts";

/** What all ranges of a batch have in common. */
export interface RunnerOptions {
  layout: typeof LAYOUT;
  inputFormat: InputFormat;
  outputFormat: OutputFormat;
  /** The delimiter of CSV. */
  delimiter: string;
  /** How often a failed record is run again. */
  retries: number;
  /** Bytes of heap that a worker has; Infinity without a limit. */
  heap: number;
}

/** Runs ranges in a worker. */
export interface RangeRunner {
  /** Runs the task on the records of a range. */
  run(lane: LaneMemory, piece: Piece, limits: RunnerLimits): Promise<RangeReply>;
  /** Closes the input that was last read. */
  close(): void;
}

/** What {@linkcode createRangeRunner} needs. */
export interface RunnerParts extends RunnerOptions, ExplainerParts, Omit<ReaderParts, "blockSize"> {
  /** Reads the input. */
  createRangeReader: typeof createRangeReader;
  /** Says why a record failed. */
  createExplainer: typeof createExplainer;
  /** The fields of one CSV record. */
  parseCsv: ((text: string) => { fields: string[]; error: string | undefined }) | undefined;
  /** Where a row of CSV ends. */
  rowEnd: typeof rowEnd;
}

/** What was read of a block: its records, parsed, or else its lines. */
interface ReadBlock {
  values: unknown[] | undefined;
  /** If the objects are already parsed, their lines are looked at only if one fails. */
  texts: string[] | undefined;
  /** Whether each character is one byte. */
  ascii: boolean;
  /** Whether some of it may be no UTF-8. */
  suspicious: boolean;
}

/** The lines of a record's result, or why it failed. */
type Outcome = string | Omit<Verdict, "time">;

/** The attempt at a record for which the task has returned a promise. */
interface Pending {
  promise: PromiseLike<unknown>;
  /** Its number. */
  tries: number;
}

/**
 * What runs in a worker of a batch: finds the records of a range, runs the task on each, and commits the results to the lane.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function createRangeRunner(parts: RunnerParts): RangeRunner {
  const { layout, inputFormat, outputFormat, delimiter, retries, heap, task } = parts;
  const { createRangeReader, createExplainer, parseCsv, rowEnd } = parts;
  const { explain, explainParsing } = createExplainer(parts);
  const {
    banks: BANKS,
    bankWords: BANK_WORDS,
    sequence: SEQUENCE,
    halted: HALTED,
    stop: STOP,
    phase: PHASE,
    running: RUNNING,
    reading: READING,
    attempt: ATTEMPT,
    current: CURRENT,
    buckets: BUCKETS,
  } = layout;
  /**
   * How many bytes are read and decoded at once. Less, and there are more calls; more, and so much of a block survives each garbage
   * collection that V8 enlarges its heap, again and again over a hundred million records.
   */
  const BLOCK = 2 ** 14;
  /**
   * A range returns early, but not before the suspect, when its output or errors have grown to this. Less, and ranges with large results are
   * cut into many parts; more, and lanes take more memory.
   */
  const MOST_OUTPUT = 2 ** 23;
  /** The longest result of one record, in characters: each may take three bytes in a lane that already has other results. */
  const MOST_CHARACTERS = Math.floor((layout.mostBytes - 2 * MOST_OUTPUT) / 3);
  /**
   * Records that take less than `QUICK` ms are timed and committed together, at most `MOST_TOGETHER` of them and `LONGEST_TOGETHER` ms.
   * With fewer, the half microsecond for each commit, encoding and clock reading counts; with more, more are run again when one kills its
   * worker.
   */
  const QUICK = 0.02;
  const MOST_TOGETHER = 256;
  const LONGEST_TOGETHER = 0.1;
  /**
   * How many characters of results may wait to be encoded. Fewer, and they are encoded more often than records are committed; more only
   * take memory.
   */
  const MOST_PENDING = 2 ** 16;
  /** How many characters of a record the errors file keeps. Fewer, and long records cannot be run again; more, and they fill the disk. */
  const MOST_KEPT = 2 ** 22;
  /** The same for one that no worker has room for. */
  const LEAST_KEPT = 2 ** 14;
  /**
   * How many characters of an error's text are kept. Fewer, and what matters may be cut off; more, and errors that quote their input fill
   * the disk.
   */
  const MOST_SAID = 10_000;
  const TAB = 9;
  const NEWLINE = 10;
  const CARRIAGE_RETURN = 13;
  const SPACE = 32;
  const COMMA = 44;
  const BRACKET = 91;
  const END_BRACKET = 93;
  const BRACE = 123;
  const QUOTE = '"';
  const MOVE = Symbol.for("process-pool.move");

  // Taken now: a task may replace it.
  const clock = performance.now.bind(performance);
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const strictDecoder = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });
  const encoder = new TextEncoder();
  const float = new Float64Array(1);
  const floatHalves = new Uint32Array(float.buffer);
  const reader = createRangeReader({ ...parts, blockSize: BLOCK });
  const asJson = inputFormat === "ndjson";
  const toJson = outputFormat === "ndjson";
  /** The lines of a block as one JSON array. */
  const array = new Uint8Array(BLOCK + 8);
  /** The same, four bytes a word. */
  const fours = new Int32Array(array.buffer);
  /** How many bytes of the block come before the end of each line. */
  const lineEnds = new Uint16Array(BLOCK);

  function bucketOf(time: number): number {
    float[0] = time;
    const bucket = (floatHalves[1]! >>> 16) - ((1023 + layout.smallestExponent) << 4);
    return bucket < 0 ? 0 : bucket < BUCKETS ? bucket : BUCKETS - 1;
  }

  function isThenable(value: unknown): value is PromiseLike<unknown> {
    if (typeof value !== "object" && typeof value !== "function" || value === null) return false;
    return typeof (value as { then?: unknown }).then === "function";
  }

  function parseRow(text: string, header: string[]): unknown {
    const { fields, error } = parseCsv!(text);
    if (error !== undefined) throw new Error(`The row is not CSV: ${error}`);
    if (fields.length !== header.length) throw new Error(`The row has ${fields.length} fields and the header ${header.length}`);
    // If a task has frozen Object.prototype, assigning to a property that it has fails.
    if (inherits) return Object.fromEntries(header.map((name, i) => [name, fields[i]]));
    const row: Record<string, string> = {};
    for (let i = 0; i < header.length; i++) row[header[i]!] = fields[i]!;
    return row;
  }

  // The current range. All functions are made once per worker, not for each range: so V8 optimises them better.

  let lane: LaneMemory;
  let piece: Piece;
  /** Whether Object.prototype has a property with the name of a field. */
  let inherits = false;
  let words: Int32Array;
  let floats: Float64Array;
  let histogram: Uint32Array;
  /** The output, as a view of fixed length: access to one that follows a growing buffer is many times slower. */
  let out: Uint8Array<SharedArrayBuffer>;
  let sequence = 0;
  let position = 0;
  let lines = 0;
  let records = 0;
  let failed = 0;
  let outputLength = 0;
  let errorsLength = 0;
  let busy = 0;
  /** After how many records and failures the worker returns. */
  let lastRecord = 0;
  let lastFailure = 0;
  /** How many records come before the suspect; -1 once it was passed, or if there is none. */
  let before = -1;
  /** Whether a worker has died in this range: each record is then parsed by itself, to find the one that killed it. */
  let alone = false;
  /** What is known of the suspect. */
  let attempt = 1;
  let verdict: Verdict | undefined;
  let brief = false;

  /** How long each of the last records took, in ms. */
  let typical = 0;
  /** How many records are timed and committed together. */
  let together = 1;
  /** How long parsing took for each of the records that were last parsed together; 0 if they are parsed one by one. */
  let parsing = 0;
  /** When the current group of records began, and where it starts. */
  let begin = 0;
  let firstLine = 0;
  let firstOffset = 0;
  /** When the worker should return, and whether it is time. */
  let sliceEnd = 0;
  let sliceOver = false;
  /** The results of the last row of objects. */
  let written = "";
  /** The promise that ended the last row of objects early, or what the task threw there. */
  let promise: PromiseLike<unknown> | undefined;
  let failure: { thrown: unknown } | undefined;
  let slowest: SlowRecord[] = [];
  /** How long a record must take to be among them. */
  let slowEnough = 0;

  function commit(): void {
    const bank = BANKS + ((sequence + 1) & 1) * BANK_WORDS;
    floats[bank + layout.position] = position;
    floats[bank + layout.lines] = lines;
    floats[bank + layout.records] = records;
    floats[bank + layout.failed] = failed;
    floats[bank + layout.outputLength] = outputLength;
    floats[bank + layout.errorsLength] = errorsLength;
    floats[bank + layout.busy] = busy;
    const found = Atomics.compareExchange(words, SEQUENCE, sequence, sequence + 1);
    // The record counts as failed, and this thread is about to be stopped.
    if (found === HALTED) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    if (found !== sequence) throw new Error("The range was abandoned");
    sequence++;
  }

  // Results and errors of records

  function grow(memory: SharedArrayBuffer, needed: number): Uint8Array<SharedArrayBuffer> {
    const growing = memory as SharedArrayBuffer & { grow(bytes: number): void; maxByteLength: number };
    growing.grow(Math.min(growing.maxByteLength, Math.max(needed, 2 * memory.byteLength)));
    return new Uint8Array(memory, 0, memory.byteLength);
  }

  /** Appends lines to the output. */
  function append(results: string): void {
    if (results === "") return;
    const needed = outputLength + results.length * 3;
    if (needed > out.length) out = grow(lane.output, needed);
    outputLength += encoder.encodeInto(results, out.subarray(outputLength)).written;
  }

  function asText(value: unknown): string | undefined {
    // A lone surrogate would be written as another character.
    if (typeof value === "string" && !value.isWellFormed()) throw new TypeError("A result that is written as a line has a lone surrogate");
    if (typeof value === "string" || value === undefined) return value;
    throw new TypeError(`A result that is written as a line must be a string or undefined: its type is ${typeof value}`);
  }

  /** What the task returned; what it returned by `move()` is written as well as anything else. */
  function resultOf(returned: unknown): unknown {
    if (typeof returned !== "object" || returned === null || !(MOVE in returned)) return returned;
    const { value } = returned as { value?: unknown };
    // It would be written as `{}`.
    if (isThenable(value)) throw new TypeError("A promise cannot be moved: move what it resolves with");
    return value;
  }

  /** A result as a line of the output; empty if it is undefined. */
  function lineOf(returned: unknown): string {
    const value = resultOf(returned);
    const result = toJson ? JSON.stringify(value) : asText(value);
    if (result === undefined && (typeof value === "function" || typeof value === "symbol")) {
      throw new TypeError(`A result must be something that JSON can express: its type is ${typeof value}`);
    }
    if (result === undefined) return "";
    if (result.length > MOST_CHARACTERS) throw new RangeError(`The result has more than ${MOST_CHARACTERS} characters`);
    return `${result}\n`;
  }

  function fail(
    text: string,
    line: number,
    offset: number,
    { name, message, stack, attempts }: Omit<Verdict, "time">,
    kept = MOST_KEPT,
  ): void {
    const row = piece.header === undefined ? "" : `"header":${JSON.stringify(piece.header)},`;
    const record = text.length > kept
      ? `"truncated":true,"record":${JSON.stringify(text.slice(0, kept))}`
      : `"record":${JSON.stringify(text)}`;
    const cut = (text: string): string => text.length > MOST_SAID ? `${text.slice(0, MOST_SAID)}...` : text;
    const error = { name: cut(name), message: cut(message), stack: cut(stack) };
    const members = `${row}${record},"error":${JSON.stringify(error)},"attempts":${attempts}`;
    const needed = errorsLength + layout.errorHeader + members.length * 3;
    if (needed > lane.errors.byteLength) grow(lane.errors, needed);
    const bytes = new Uint8Array(lane.errors, errorsLength + layout.errorHeader, members.length * 3);
    const { written } = encoder.encodeInto(members, bytes);
    const header = new DataView(lane.errors, errorsLength, layout.errorHeader);
    for (const [i, value] of [written, line, offset, outputLength].entries()) header.setFloat64(i * 8, value);
    errorsLength += layout.errorHeader + written;
    failed++;
  }

  // Groups of records

  /** Commits this many records with their results, after which the input is done up to `end`. */
  function endGroup(count: number, results: string, end: number): void {
    append(results);
    records += count;
    position = end;
    commit();
    words[CURRENT] = 0;
    noteTime(count);
  }

  /**
   * Notes how long a group of records took: as if all had taken equally long, or, if that is unusual, as if one had taken all the excess.
   */
  function noteTime(count: number): void {
    const now = clock();
    const time = now - begin + parsing * count;
    busy += time;
    const unusual = count > 1 && time > typical * count * 2 + 0.05;
    const longest = unusual ? time - typical * (count - 1) : time / count;
    if (unusual) {
      histogram[bucketOf(typical)]! += count - 1;
      histogram[bucketOf(longest)]!++;
    } else {
      histogram[bucketOf(longest)]! += count;
      typical = longest;
    }
    if (longest > slowEnough) noteSlow({ time: longest, line: firstLine, lastLine: lines - 1, offset: firstOffset });
    together = before >= 0 || typical >= QUICK || unusual
      ? 1
      : Math.min(together * 2, MOST_TOGETHER, Math.ceil(LONGEST_TOGETHER / typical), lastRecord - records);
    begin = now;
    sliceOver = now > sliceEnd;
  }

  function noteSlow(slow: SlowRecord): void {
    slowest.push(slow);
    slowest.sort((a, b) => b.time - a.time);
    slowest.length = Math.min(slowest.length, layout.slowestCount);
    if (slowest.length === layout.slowestCount) slowEnough = slowest.at(-1)!.time;
    let at: number = layout.slowest;
    for (const { time, line, lastLine, offset } of slowest) {
      floats[at++] = time;
      floats[at++] = line;
      floats[at++] = lastLine;
      floats[at++] = offset;
    }
  }

  function isOver(): boolean {
    if (words[STOP] !== 0 || records >= lastRecord || failed >= lastFailure) return true;
    // What is known of the suspect is not passed on.
    return before < 0 && (sliceOver || outputLength > MOST_OUTPUT || errorsLength > MOST_OUTPUT);
  }

  // One block: whole records, from `from` to `to` in `bytes`, whose first byte is byte `base` of the input

  /** Notes that the next record is to blame if the worker dies now. */
  function blame(): void {
    words[CURRENT] = 0;
    words[ATTEMPT] = 1;
    words[PHASE] = RUNNING;
  }

  /**
   * Decodes bytes. Undefined if the text would be too long: V8 has no strings of half a gigabyte, and ends the whole program if one leaves
   * it no room.
   */
  function textBetween(bytes: Uint8Array, from: number, to: number): string | undefined {
    if (to - from > heap) return undefined;
    try {
      return decoder.decode(bytes.subarray(from, to));
    } catch {
      return undefined;
    }
  }

  /** Runs records one by one if they are too long together, or to find the one that kills a worker. */
  async function runEach(bytes: Uint8Array, base: number, from: number, to: number): Promise<boolean> {
    const block = bytes.subarray(0, to);
    for (let at = from, end = to; at < to; at = end) {
      end = inputFormat === "csv" ? endOfRow(block, at) : block.indexOf(NEWLINE, at) + 1;
      if (end <= 0) end = to;
      if (await runBlock(bytes, base, at, end, true)) return true;
    }
    return position >= piece.end;
  }

  /** Writes down a record as failed that is too long by itself, or that kills workers although it is not run. */
  function failLong(bytes: Uint8Array, base: number, from: number, to: number): boolean {
    [begin, parsing] = [clock(), 0];
    [firstLine, firstOffset] = [lines, base + from];
    blame();
    lines += linesUpTo(bytes, from, to);
    // Counts down to the suspect.
    const isSuspect = before >= 0 && before-- === 0;
    const known = isSuspect ? verdict : undefined;
    const kept = brief && known !== undefined ? LEAST_KEPT : MOST_KEPT;
    // In any text, this many bytes have more characters than are kept.
    const text = decoder.decode(bytes.subarray(from, Math.min(to, from + 4 * kept)));
    const message = `The record is too long: it has ${to - from} bytes`;
    fail(text, firstLine, firstOffset, known ?? { name: "ParseError", message, stack: "", attempts: 1 }, kept);
    endGroup(1, "", base + to);
    if (isOver()) return true;
    words[PHASE] = READING;
    return false;
  }

  /** Reads a block; undefined if its records are to be looked at one by one, or if this is one, that it is not to be decoded. */
  function readBlock(bytes: Uint8Array, base: number, from: number, to: number, single: boolean): ReadBlock | undefined {
    const values = asJson && !alone && to - from <= BLOCK ? parseTogether(bytes, from, to) : undefined;
    if (values !== undefined) return { values, texts: undefined, ascii: false, suspicious: false };
    if (alone && !single && to - from > BLOCK) return undefined;
    if (alone && single) blame();
    const text = brief && before === 0 && to - from > 4 * LEAST_KEPT ? undefined : textBetween(bytes, from, to);
    if (text === undefined) return undefined;
    const texts = text.split("\n");
    if (texts.at(-1) === "" || (base + from === 0 && text === "\ufeff")) texts.pop();
    begin = clock();
    parsing = 0;
    // Every character of more than one byte makes the text shorter than the bytes.
    return { values, texts, ascii: text.length === to - from, suspicious: text.includes("\uFFFD") };
  }

  /** Runs all records of a block, and commits what was done; true if the range, or the time for it, is over. */
  async function runBlock(bytes: Uint8Array, base: number, from: number, to: number, single = false): Promise<boolean> {
    const block = readBlock(bytes, base, from, to, single);
    if (block === undefined) return single ? failLong(bytes, base, from, to) : runEach(bytes, base, from, to);
    const { values, ascii, suspicious } = block;
    let { texts } = block;
    words[PHASE] = RUNNING;
    // What changes with each record stays local: V8 is a third slower with variables that other functions see.
    const total = values?.length ?? texts!.length;
    let count = 0;
    let results = "";
    let byteNext = from;
    for (let i = 0; i < total;) {
      if (values !== undefined) {
        if (count === 0) {
          firstLine = lines;
          firstOffset = base + byteNext;
        }
        const first = i;
        i = runParsed(values, first, Math.min(first + together - count, total), count);
        results += written;
        if (promise !== undefined) {
          try {
            results += lineOf(await promise);
            i++;
          } catch (thrown) {
            failure = { thrown };
          }
        }
        count += i - first;
        lines += i - first;
        if (i > 0) byteNext = from + lineEnds[i - 1]!;
      }
      if (values === undefined || failure !== undefined) {
        texts ??= decoder.decode(bytes.subarray(from, to)).split("\n");
        const byteAt = byteNext;
        const offset = base + byteAt;
        let record = texts[i]!;
        let next = i + 1;
        if (inputFormat === "csv" && record.includes(QUOTE)) {
          next = i + linesUpTo(bytes, byteAt, endOfRow(bytes, byteAt));
          if (next > i + 1) record = texts.slice(i, next).join("\n");
        }
        const line = lines;
        const input = values?.[i];
        lines += next - i;
        // The last line may have no end, and what is behind it is not its own.
        byteNext = Math.min(to, ascii ? byteAt + record.length + 1 : afterNewlines(bytes, byteAt, to, next - i));
        i = next;
        if (record.charCodeAt(record.length - 1) === CARRIAGE_RETURN) record = record.slice(0, -1);
        // A byte order mark does not belong to the first record.
        if (offset === 0 && record.charCodeAt(0) === 0xfeff) record = record.slice(1);
        if (inputFormat !== "lines" && !(record.charCodeAt(0) > SPACE) && isBlank(record)) continue;
        if (count === 0) {
          firstLine = line;
          firstOffset = offset;
        }
        words[CURRENT] = count;
        // Counts down to the suspect.
        const isSuspect = before >= 0 && before-- === 0;
        let outcome: Outcome;
        if (isSuspect && verdict !== undefined) {
          outcome = verdict;
          // As if it had just been run.
          begin -= verdict.time;
        } else {
          const isValid = !suspicious || !record.includes("\uFFFD") || !isInvalid(bytes.subarray(byteAt, byteNext));
          const found = runRecord(isValid ? record : undefined, input, isSuspect ? attempt : 1);
          outcome = isPending(found) ? await settle(record, found) : found;
        }
        if (typeof outcome === "string") results += outcome;
        else {
          append(results);
          results = "";
          fail(record, line, offset, outcome);
        }
        count++;
      }
      if (count < together && results.length < MOST_PENDING && failed < lastFailure && errorsLength < MOST_OUTPUT) continue;
      endGroup(count, results, base + byteNext);
      count = 0;
      results = "";
      if (isOver()) return true;
    }
    position = base + byteNext;
    if (count > 0) {
      endGroup(count, results, position);
      if (isOver()) return true;
    }
    words[PHASE] = READING;
    return position >= piece.end;
  }

  /**
   * Runs the task on a record, as often as it may fail, until it returns a promise. Not an async function: most tasks return none.
   *
   * @param record Its text; undefined if its bytes are no text.
   * @param input What it was parsed to already; if the task has thrown then, that is in `failure`.
   * @param tries The number of this attempt.
   */
  function runRecord(record: string | undefined, input: unknown, tries: number): Outcome | Pending {
    for (;; tries++) {
      words[ATTEMPT] = tries;
      let parsed = false;
      try {
        input ??= parse(record);
        parsed = true;
        const value = failure === undefined ? task(input) : rethrow();
        return isThenable(value) ? { promise: value, tries } : lineOf(value);
      } catch (thrown) {
        if (!parsed) return { ...explainParsing(thrown), attempts: tries };
        if (tries > retries) return { ...explain(thrown), attempts: tries };
        // The task may have changed its argument.
        input = undefined;
      }
    }
  }

  function isPending(found: Outcome | Pending): found is Pending {
    return typeof found === "object" && "promise" in found;
  }

  /** Goes on with a record for which the task has returned a promise. A loop: each call within another would keep memory until the last. */
  async function settle(record: string, pending: Pending): Promise<Outcome> {
    for (let { promise, tries } = pending;;) {
      try {
        return lineOf(await promise);
      } catch (thrown) {
        if (tries > retries) return { ...explain(thrown), attempts: tries };
      }
      const found = runRecord(record, undefined, tries + 1);
      if (!isPending(found)) return found;
      ({ promise, tries } = found);
    }
  }

  /** What the task gets of a record. */
  function parse(record: string | undefined): unknown {
    if (record === undefined) throw new Error("The line is not valid UTF-8");
    const { header } = piece;
    return asJson ? JSON.parse(record) : header === undefined ? record : parseRow(record, header);
  }

  /**
   * Runs objects in a row, up to the first for which the task throws or returns a promise, and returns the index of that one. A separate
   * function, as code for other records takes time even if it is not run.
   *
   * @param current How many records were finished since the last commit.
   */
  function runParsed(values: unknown[], from: number, to: number, current: number): number {
    let results = "";
    let i = from;
    promise = undefined;
    words[ATTEMPT] = 1;
    try {
      for (; i < to && results.length < MOST_PENDING; i++) {
        words[CURRENT] = current + i - from;
        const value = task(values[i]);
        if (isThenable(value)) {
          promise = value;
          break;
        }
        results += lineOf(value);
      }
    } catch (thrown) {
      failure = { thrown };
    }
    written = results;
    return i;
  }

  /** Throws what the task threw for the object that ended a row. */
  function rethrow(): never {
    const { thrown } = failure!;
    failure = undefined;
    throw thrown;
  }

  /**
   * Parses the lines of a block together, as the elements of an array, which takes half the time: V8 expects an object in an array to be
   * like the one before it. Undefined if the lines are not one object each. They are if there are as many elements as lines, all elements
   * are objects, and no comma within a line is followed by a brace: then no element begins there, so each begins with a line. The array is
   * made from the bytes, by replacing newlines with commas: splitting the text into lines and joining them takes twice as long.
   */
  function parseTogether(bytes: Uint8Array, from: number, to: number): unknown[] | undefined {
    const start = clock();
    const length = bytes[to - 1] === NEWLINE ? to - from : to - from + 1;
    array.set(bytes.subarray(from, to), 1);
    array.fill(0, length, length + 4);
    let count = 0;
    for (let word = 0; word * 4 < length; word++) {
      // For most words one test tells that all four bytes are between a space and a 'z', in half the time of testing each. All machines
      // that Deno runs on are little-endian.
      const four = fours[word]!;
      if ((((four + 0x05050505) | (four - 0x20202020)) & 0x80808080) === 0) continue;
      for (let at = word * 4, rest = four; rest !== 0; at++, rest >>>= 8) {
        const byte = rest & 0xff;
        if (byte === NEWLINE) {
          array[at] = COMMA;
          lineEnds[count++] = at;
        } else if (byte === BRACE) {
          let back = from + at - 2;
          while (bytes[back] === SPACE || bytes[back] === TAB || bytes[back] === CARRIAGE_RETURN) back--;
          if (bytes[back] === COMMA) return undefined;
        }
      }
    }
    array[0] = BRACKET;
    array[length] = END_BRACKET;
    lineEnds[count++] = to - from;
    const text = decoder.decode(array.subarray(0, length + 1));
    if (text.includes("\uFFFD")) return undefined;
    // If a worker dies while parsing many lines, no single record is to blame yet.
    words[CURRENT] = 0;
    words[ATTEMPT] = 0;
    words[PHASE] = RUNNING;
    try {
      const values: unknown[] = JSON.parse(text);
      if (values.length !== count) return undefined;
      for (let i = 0; i < count; i++) {
        const value = values[i];
        if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
      }
      begin = clock();
      parsing = (begin - start) / count;
      return values;
    } catch {
      // Parsing them one by one will tell which it is.
      return undefined;
    }
  }

  /** The position after this many line ends. */
  function afterNewlines(bytes: Uint8Array, from: number, to: number, count: number): number {
    let at = from;
    for (let i = 0; i < count; i++) {
      const newline = bytes.indexOf(NEWLINE, at);
      at = newline < 0 ? to : newline + 1;
    }
    return at;
  }

  /** Where the row of CSV that begins here ends; -1 if its end is not there. */
  function endOfRow(bytes: Uint8Array, begin: number): number {
    return rowEnd(bytes, begin, delimiter.charCodeAt(0), { open: false, before: NEWLINE });
  }

  /** How many lines there are up to the end of a row, or, if that is not there (-1), of the block. */
  function linesUpTo(bytes: Uint8Array, from: number, end: number): number {
    let lines = 0;
    for (let at = from; at !== end && at >= 0 && at < bytes.length; lines++) at = bytes.indexOf(NEWLINE, at) + 1 || -1;
    return lines;
  }

  /** Whether a line is not a record. A row of TSV is one even if all its fields are empty. */
  function isBlank(record: string): boolean {
    return record.trim() === "" && !(inputFormat === "csv" && record.includes(delimiter));
  }

  function isInvalid(bytes: Uint8Array): boolean {
    try {
      strictDecoder.decode(bytes);
      return false;
    } catch {
      return true;
    }
  }

  // The range

  function skipTo(begin: number): void {
    position = begin;
    commit();
  }

  async function runRange(memory: LaneMemory, what: Piece, limits: RunnerLimits): Promise<RangeReply> {
    lane = memory;
    piece = what;
    inherits = piece.header?.some((name) => name in Object.prototype) ?? false;
    ({ before, attempt, verdict, brief } = limits);
    alone = before >= 0;
    words = new Int32Array(lane.control, 0, layout.words);
    floats = new Float64Array(lane.control);
    histogram = new Uint32Array(lane.control, layout.histogram, BUCKETS);
    out = new Uint8Array(lane.output, 0, lane.output.byteLength);
    // The range was sent ahead, and the batch has been stopped since.
    if (words[STOP] !== 0) return { done: false };
    words[PHASE] = READING;
    sequence = 0;
    position = floats[BANKS + layout.position]!;
    lines = floats[BANKS + layout.lines]!;
    records = floats[BANKS + layout.records]!;
    failed = floats[BANKS + layout.failed]!;
    outputLength = floats[BANKS + layout.outputLength]!;
    errorsLength = floats[BANKS + layout.errorsLength]!;
    busy = floats[BANKS + layout.busy]!;
    lastRecord = records + limits.maxRecords;
    lastFailure = failed + limits.maxFailures;
    together = 1;
    sliceEnd = clock() + limits.slice;
    sliceOver = false;
    slowest = [];
    slowEnough = 0;
    for (let at: number = layout.slowest; floats[at]! > 0 && slowest.length < layout.slowestCount; at += layout.slowWords) {
      slowest.push({ time: floats[at]!, line: floats[at + 1]!, lastLine: floats[at + 2]!, offset: floats[at + 3]! });
    }
    await reader.read(piece, position, { skipTo, runBlock });
    const early = words[PHASE] === RUNNING;
    words[PHASE] = 0;
    if (!early) position = Math.max(position, piece.end);
    commit();
    return { done: !early || position >= piece.end };
  }

  return {
    run: runRange,
    close: reader.close,
  };
}
