import type { LaneMemory, LAYOUT } from "./lane.ts";

/** How the records of an input are told apart. */
export type InputFormat = "ndjson" | "lines" | "csv";

/** How results are written. */
export type OutputFormat = "ndjson" | "lines";

/** What all ranges of a batch have in common. */
export interface RunnerOptions {
  layout: typeof LAYOUT;
  inputFormat: InputFormat;
  outputFormat: OutputFormat;
  /** How often a record is run again that failed. */
  retries: number;
}

/** A part of the input: the lines that begin in a range of a file, or a block of whole records. */
export type Piece =
  | { path: string; end: number; header: string[] | undefined }
  | { bytes: Uint8Array<ArrayBuffer>; offset: number; end: number; header: string[] | undefined };

/** Why the next record is not run any more. */
export interface Verdict {
  name: string;
  message: string;
  stack: string;
  attempts: number;
  /** How long its last attempt took, in milliseconds. */
  time: number;
}

/** How one run through a range differs from another. */
export interface RunnerLimits {
  /** The number of the next record's next attempt, from 1. */
  attempt: number;
  /** What the next record has failed with for good. */
  verdict: Verdict | undefined;
  /** After how many milliseconds the worker returns, at the end of a record. */
  slice: number;
  /** After how many records and failures it returns. */
  maxRecords: number;
  maxFailures: number;
}

/** A record, or one of a few, that took long. */
export interface SlowRecord {
  /** In milliseconds. */
  time: number;
  /** The lines, counted from 0 at the begin of the range, that it is one of. */
  line: number;
  lastLine: number;
  /** The byte of the input at which they begin. */
  offset: number;
}

/** What a worker says of a range; all else is in the lane. */
export interface RangeReply {
  /** Whether all of the range is done. */
  done: boolean;
  slowest: SlowRecord[];
}

/** What is in a worker. */
export interface RangeRunner {
  /** Runs the task on the records of a range. */
  run(lane: LaneMemory, piece: Piece, limits: RunnerLimits): Promise<RangeReply>;
  /** Closes the input that was read last. */
  close(): void;
}

/** What {@linkcode createRangeRunner} needs. */
export interface RunnerParts extends RunnerOptions {
  task(record: unknown): unknown;
  /** The fields of one CSV record. */
  parseCsv: ((text: string) => { fields: string[]; error: string | undefined }) | undefined;
}

/**
 * What runs in a worker of a batch: reads a range of the input, finds its records, runs the task on each, and commits what comes of it to the lane.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function createRangeRunner({ layout, inputFormat, outputFormat, retries, task, parseCsv }: RunnerParts): RangeRunner {
  const { banks: BANKS, bankWords: BANK_WORDS, sequence: SEQUENCE, stop: STOP, phase: PHASE, attempt: ATTEMPT, buckets: BUCKETS } = layout;
  /** What is read and decoded at once. Larger blocks, and garbage that is about to be collected fills the memory; smaller, and there are more calls. */
  const BLOCK = 2 ** 16;
  /** A range whose output or errors have grown to this returns early. */
  const MOST_OUTPUT = 2 ** 23;
  /** Shorter texts are encoded faster by a loop than by a call to the platform. */
  const SHORT = 200;
  /** Records that take less than this, in ms, are timed together, so many at a time: to read the clock takes 0.0001. */
  const QUICK = 0.02;
  const MOST_TOGETHER = 8;
  const SLOWEST = 5;
  const NEWLINE = 10;
  const SPACE = 32;
  const QUOTE = '"';

  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const strictDecoder = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });
  const encoder = new TextEncoder();
  const float = new Float64Array(1);
  const floatHalves = new Uint32Array(float.buffer);
  const asJson = outputFormat === "ndjson";
  let open: { path: string; file: Deno.FsFile } | undefined;
  let block = new Uint8Array(BLOCK);

  class ParseError extends Error {
    override name = "ParseError";
  }

  function fileOf(path: string): Deno.FsFile {
    if (open?.path === path) return open.file;
    open?.file.close();
    open = { path, file: Deno.openSync(path) };
    return open.file;
  }

  function bucketOf(time: number): number {
    float[0] = time;
    const bucket = (floatHalves[1]! >>> 16) - ((1023 + layout.smallestExponent) << 4);
    return bucket < 0 ? 0 : bucket < BUCKETS ? bucket : BUCKETS - 1;
  }

  function isThenable(value: unknown): value is PromiseLike<unknown> {
    return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
  }

  function parseRecord(text: string, header: string[] | undefined): unknown {
    if (inputFormat === "lines") return text;
    if (inputFormat === "csv") return parseRow(text, header!);
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new ParseError(`The line is not JSON: ${(error as Error).message}`);
    }
  }

  function parseRow(text: string, header: string[]): unknown {
    const { fields, error } = parseCsv!(text);
    if (error !== undefined) throw new ParseError(`The row is not CSV: ${error}`);
    if (fields.length !== header.length) throw new ParseError(`The row has ${fields.length} fields and the header ${header.length}`);
    const row: Record<string, string> = {};
    for (let i = 0; i < header.length; i++) row[header[i]!] = fields[i]!;
    return row;
  }

  /** The stack down to the task's own lines, and no more than is of use. */
  function stackOf(error: Error): string {
    const stack = String(error.stack ?? "");
    const end = stack.search(/\n\s+at [^\n]*process-pool\/(batch|worker)/);
    return (end < 0 ? stack : stack.slice(0, end)).slice(0, 4000);
  }

  function explain(thrown: unknown): Pick<Verdict, "name" | "message" | "stack"> {
    try {
      if (thrown instanceof Error) {
        return { name: thrown.name, message: thrown.message, stack: thrown instanceof ParseError ? "" : stackOf(thrown) };
      }
      return {
        name: typeof thrown,
        message: typeof thrown === "object" ? JSON.stringify(thrown) ?? String(thrown) : String(thrown),
        stack: "",
      };
    } catch {
      return { name: typeof thrown, message: "something that has no text", stack: "" };
    }
  }

  async function runRange(
    lane: LaneMemory,
    piece: Piece,
    { attempt, verdict, slice, maxRecords, maxFailures }: RunnerLimits,
  ): Promise<RangeReply> {
    const words = new Int32Array(lane.control, 0, 4);
    const floats = new Float64Array(lane.control);
    const histogram = new Uint32Array(lane.control, layout.histogram, BUCKETS);
    // Of a fixed length: access to those that follow a growing buffer is many times slower.
    let out = new Uint8Array(lane.output, 0, lane.output.byteLength);

    let sequence = 0;
    let position = floats[BANKS + layout.position]!;
    let lines = floats[BANKS + layout.lines]!;
    let records = floats[BANKS + layout.records]!;
    let failed = floats[BANKS + layout.failed]!;
    let outputLength = floats[BANKS + layout.outputLength]!;
    let errorsLength = floats[BANKS + layout.errorsLength]!;
    let busy = floats[BANKS + layout.busy]!;
    const lastRecord = records + maxRecords;
    const lastFailure = failed + maxFailures;

    function commit(): void {
      const bank = BANKS + ((sequence + 1) & 1) * BANK_WORDS;
      floats[bank + layout.position] = position;
      floats[bank + layout.lines] = lines;
      floats[bank + layout.records] = records;
      floats[bank + layout.failed] = failed;
      floats[bank + layout.outputLength] = outputLength;
      floats[bank + layout.errorsLength] = errorsLength;
      floats[bank + layout.busy] = busy;
      // Halted: the record counts as failed, and this thread is about to be stopped.
      if (Atomics.compareExchange(words, SEQUENCE, sequence, sequence + 1) !== sequence) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      }
      sequence++;
    }

    // What comes of a record

    function grow(memory: SharedArrayBuffer, needed: number): Uint8Array<SharedArrayBuffer> {
      const growing = memory as SharedArrayBuffer & { grow(bytes: number): void; maxByteLength: number };
      if (needed > growing.maxByteLength) throw new RangeError(`The result is longer than ${growing.maxByteLength / 2 ** 20} MB`);
      growing.grow(Math.min(growing.maxByteLength, Math.max(needed, 2 * memory.byteLength)));
      return new Uint8Array(memory, 0, memory.byteLength);
    }

    /** Appends a line to the output. */
    function put(text: string): void {
      const { length } = text;
      if (outputLength + length * 3 + 1 > out.length) out = grow(lane.output, outputLength + length * 3 + 1);
      const [bytes, begin] = [out, outputLength];
      let i = 0;
      if (length < SHORT) {
        for (; i < length; i++) {
          const code = text.charCodeAt(i);
          if (code > 127) break;
          bytes[begin + i] = code;
        }
      }
      const end = begin + (i === length ? length : encoder.encodeInto(text, bytes.subarray(begin)).written);
      bytes[end] = NEWLINE;
      outputLength = end + 1;
    }

    function putResult(value: unknown): void {
      if (asJson) {
        const text = JSON.stringify(value);
        if (text !== undefined) put(text);
      } else if (typeof value === "string") put(value);
      else if (value !== undefined) {
        throw new TypeError(`A result that is written as a line must be a string or undefined, and is of type ${typeof value}`);
      }
    }

    function fail(text: string, line: number, offset: number, { name, message, stack, attempts }: Omit<Verdict, "time">): void {
      const row = piece.header === undefined ? "" : `"header":${JSON.stringify(piece.header)},`;
      const members = `${row}"record":${JSON.stringify(text)},"error":${JSON.stringify({ name, message, stack })},"attempts":${attempts}`;
      const needed = errorsLength + layout.errorHeader + members.length * 3;
      if (needed > lane.errors.byteLength) grow(lane.errors, needed);
      const bytes = new Uint8Array(lane.errors, errorsLength + layout.errorHeader, members.length * 3);
      const { written } = encoder.encodeInto(members, bytes);
      const header = new DataView(lane.errors, errorsLength, layout.errorHeader);
      for (const [i, value] of [written, line, offset, outputLength].entries()) header.setFloat64(i * 8, value);
      errorsLength += layout.errorHeader + written;
      failed++;
    }

    // Time

    let typical = 0;
    let together = 1;
    let timed = 0;
    let begin = performance.now();
    let firstLine = lines;
    let firstOffset = position;
    let sliceOver = false;
    const sliceEnd = begin + slice;
    const slowest: SlowRecord[] = [];

    /** Puts down what a few records took: as if they had taken the same, or, if that is much, as if one of them had taken what is unusual. */
    function putDownTime(): void {
      const now = performance.now();
      const time = now - begin;
      busy += time;
      const unusual = timed > 1 && time > typical * timed * 3 + 0.05;
      const longest = unusual ? time - typical * (timed - 1) : time / timed;
      if (unusual) {
        histogram[bucketOf(typical)]! += timed - 1;
        histogram[bucketOf(longest)]!++;
      } else {
        histogram[bucketOf(longest)]! += timed;
        typical = longest;
      }
      if (slowest.length < SLOWEST || longest > slowest.at(-1)!.time) {
        slowest.push({ time: longest, line: firstLine, lastLine: lines - 1, offset: firstOffset });
        slowest.sort((a, b) => b.time - a.time);
        slowest.length = Math.min(slowest.length, SLOWEST);
      }
      together = typical < QUICK && !unusual ? Math.min(together * 2, MOST_TOGETHER) : 1;
      timed = 0;
      begin = now;
      sliceOver = now > sliceEnd;
    }

    // One block: whole records, from `from` to `to` in `bytes`, of which the first byte is that of `base` in the input

    /** Runs the records that begin before the end; true if the range, or the time for it, is over. */
    async function runBlock(bytes: Uint8Array, base: number, from: number, to: number): Promise<boolean> {
      const text = decoder.decode(bytes.subarray(from, to));
      // Every character that is more than one byte makes the text shorter than the bytes.
      const ascii = text.length === to - from;
      const suspicious = text.includes("\uFFFD");
      let at = base + from === 0 && text === "\ufeff" ? 1 : 0;
      let byteAt = from;
      words[PHASE] = 1;
      while (at < text.length) {
        const offset = base + byteAt;
        if (offset >= piece.end) break;
        const line = lines;
        let newline = text.indexOf("\n", at);
        lines++;
        if (inputFormat === "csv") {
          for (let open = isOpen(text, at, newline, false); open && newline >= 0 && newline + 1 < text.length;) {
            const next = text.indexOf("\n", newline + 1);
            lines++;
            open = isOpen(text, newline + 1, next, open);
            newline = next;
          }
        }
        let stop = newline < 0 ? text.length : newline;
        const next = newline < 0 ? stop : stop + 1;
        let byteNext = from + next;
        if (!ascii) {
          byteNext = byteAt;
          for (let i = line; i < lines; i++) byteNext = bytes.indexOf(NEWLINE, byteNext) + 1;
          if (newline < 0 || byteNext === 0) byteNext = to;
        }
        if (stop > at && text.charCodeAt(stop - 1) === 13) stop--;
        // A byte order mark is no part of the first record.
        const record = text.slice(offset === 0 && text.charCodeAt(at) === 0xfeff ? at + 1 : at, stop);
        const byteStop = byteNext - (next - stop);
        const recordBytes = byteAt;
        at = next;
        byteAt = byteNext;
        position = base + byteNext;
        if (inputFormat !== "lines" && !(record.charCodeAt(0) > SPACE) && record.trim() === "") continue;
        if (timed++ === 0) {
          firstLine = line;
          firstOffset = offset;
        }
        if (verdict !== undefined) {
          fail(record, line, offset, verdict);
          // As if it had been run just now.
          begin -= verdict.time;
          together = 1;
          verdict = undefined;
        } else {
          const invalid = suspicious && record.includes("\uFFFD") && isInvalid(bytes.subarray(recordBytes, byteStop));
          for (;; attempt++) {
            words[ATTEMPT] = attempt;
            try {
              if (invalid) throw new ParseError("The line is not valid UTF-8");
              const value = task(parseRecord(record, piece.header));
              putResult(isThenable(value) ? await value : value);
            } catch (thrown) {
              if (attempt <= retries && !(thrown instanceof ParseError)) continue;
              fail(record, line, offset, { ...explain(thrown), attempts: attempt });
            }
            break;
          }
        }
        attempt = 1;
        records++;
        commit();
        if (timed >= together) putDownTime();
        if (
          sliceOver || words[STOP] !== 0 || outputLength > MOST_OUTPUT || errorsLength > MOST_OUTPUT || records >= lastRecord ||
          failed >= lastFailure
        ) {
          return true;
        }
      }
      words[PHASE] = 0;
      return position >= piece.end;
    }

    /** Whether a quoted field is open after this part of a row. */
    function isOpen(text: string, from: number, to: number, open: boolean): boolean {
      const line = text.slice(from, to < 0 ? text.length : to);
      for (let i = line.indexOf(QUOTE); i >= 0; i = line.indexOf(QUOTE, i + 1)) open = !open;
      return open;
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

    async function runBytes({ bytes, offset }: { bytes: Uint8Array; offset: number }): Promise<void> {
      await runBlock(bytes, offset, position - offset, bytes.length);
    }

    async function runFile({ path, end }: { path: string; end: number }): Promise<void> {
      const file = fileOf(path);
      /** What of the block is filled, and which byte of the file it begins with. */
      let filled = 0;
      let base = Math.max(0, position - 1);
      /** Where in the block the next line begins; not known at first, but that it is behind the first newline. */
      let next = position === 0 ? 0 : -1;
      file.seekSync(base, 0);
      for (;;) {
        if (block.length - filled < BLOCK / 2) {
          const larger = new Uint8Array(2 * block.length);
          larger.set(block.subarray(0, filled));
          block = larger;
        }
        // A little more than the range, for its last line; the longer that turns out to be, the more.
        const wanted = Math.min(block.length - filled, Math.max(0, end - base - filled) + Math.max(1024, filled));
        const read = file.readSync(block.subarray(filled, filled + wanted)) ?? 0;
        filled += read;
        if (next < 0) {
          const newline = block.subarray(0, filled).indexOf(NEWLINE);
          if (newline < 0 && read > 0 && base + filled < end) {
            base += filled;
            filled = 0;
            continue;
          }
          if (newline < 0 || base + newline + 1 >= end) return;
          next = newline + 1;
          position = base + next;
          commit();
        }
        // What was there before has no newline, but for the line before the first.
        const news = Math.max(next, filled - read);
        const newline = block.subarray(news, filled).lastIndexOf(NEWLINE);
        const to = read === 0 ? filled : newline < 0 ? 0 : news + newline + 1;
        if (to > next) {
          if (await runBlock(block, base, next, to)) return;
          block.copyWithin(0, to, filled);
          base += to;
          filled -= to;
          next = 0;
        }
        if (read === 0) return;
        // The long line that made it so is over.
        if (block.length > BLOCK && filled < BLOCK / 2) block = new Uint8Array(block.slice(0, filled).buffer.transfer(BLOCK));
      }
    }

    await ("bytes" in piece ? runBytes(piece) : runFile(piece));
    const early = words[PHASE] === 1;
    words[PHASE] = 0;
    if (!early) position = Math.max(position, piece.end);
    if (timed > 0) putDownTime();
    commit();
    return { done: !early || position >= piece.end, slowest };
  }

  return {
    run: runRange,
    close() {
      open?.file.close();
      open = undefined;
    },
  };
}
