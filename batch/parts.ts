import type { Part } from "./active_part.ts";
import { type Block, blocksOf } from "./blocks.ts";
import { hashOf } from "./bytes.ts";
import type { Coverage, Stretch } from "./coverage.ts";
import { BatchError, reasonOf } from "./errors.ts";
import type { Source } from "./inputs.ts";
import type { StreamBegin } from "./job_log.ts";
import type { InputFormat } from "./range.ts";
import { firstRow, rowBegin, rowEnd } from "./rows.ts";

/** How inputs are divided. */
export interface DivideOptions {
  format: InputFormat;
  /** The delimiter of CSV. */
  delimiter: string;
  /** How many bytes the next part should have, given how many are left. */
  chunk(left: number): number;
  /** How many bytes of CSV, or of anything but a plain file, must be there before some are handed out. */
  block(): number;
  /** The fields of the first row of CSV. */
  fields(row: Uint8Array, source: Source): Promise<string[]>;
  /** Called for a stretch of an input that is done without being run: the first row of CSV. */
  passed(source: number, stretch: Stretch): void;
  /** How streams that are read once more began, and what is called for others. */
  begins: ReadonlyMap<number, StreamBegin>;
  begun(source: number, begin: StreamBegin): void;
  /** Called when an input is begun, when a part of it is handed out, and with -1 when there are no more. */
  uses(source: number, change: 1 | -1): void;
  /** Aborts when nothing more is wanted: then a stream is cancelled. */
  enough: AbortSignal;
}

/** Yields the parts of the inputs that are not done yet. */
export async function* divide(sources: readonly Source[], coverages: readonly Coverage[], options: DivideOptions): AsyncGenerator<Part> {
  let index = 0;
  const behind = bytesBehind(sources);
  for (const [source, each] of sources.entries()) {
    const parts = each.ranges
      ? ranges(each, coverages[source]!, (left) => options.chunk(left + behind[source]!))
      : blocks(each, coverages[source]!, {
        ...options,
        passed: (stretch) => options.passed(source, stretch),
        begin: options.begins.get(source),
        begun: (begin) => options.begun(source, begin),
      });
    options.uses(source, 1);
    for await (const part of parts) {
      options.uses(source, 1);
      yield { ...part, source, index: index++ };
    }
    options.uses(source, -1);
  }
}

/**
 * How many first bytes of a stream are used to recognise it: if a stream is given once more, they are awaited before anything of it is
 * handed out.
 */
const BEGIN = 2 ** 16;

type Divided = Omit<Part, "source" | "index">;
type Gap = ReturnType<Coverage["gaps"]>[number];

/** How many bytes follow each input; Infinity if that is not known. */
function bytesBehind(sources: readonly Source[]): number[] {
  const behind: number[] = [];
  for (let i = sources.length - 1, bytes = 0; i >= 0; i--) {
    behind[i] = bytes;
    bytes += sources[i]!.size ?? Infinity;
  }
  return behind;
}

function* ranges({ name, path, size, whole = size, seen }: Source, coverage: Coverage, chunk: DivideOptions["chunk"]): Generator<Divided> {
  for (const gap of coverage.gaps(size!)) {
    let { start } = gap;
    while (start < gap.end) {
      const end = start < whole! ? Math.min(gap.end, whole!, start + chunk(size! - start)) : gap.end;
      yield { start, end, torn: start === whole && "in a line", piece: { input: name, path: path!, seen: seen!, end, header: undefined } };
      start = end;
    }
  }
}

interface BlocksOptions extends Omit<DivideOptions, "passed" | "begun" | "uses"> {
  passed(stretch: Stretch): void;
  /** How it began before; undefined if that is not known. */
  begin: StreamBegin | undefined;
  begun(begin: StreamBegin): void;
}

async function* blocks(source: Source, coverage: Coverage, options: BlocksOptions): AsyncGenerator<Divided> {
  const { format, delimiter, chunk, block: size, fields, passed, begin, enough } = options;
  // A finished file is not opened again.
  if (source.size !== undefined && coverage.gaps(source.size).length === 0) return;
  const csv = format === "csv" ? delimiter : undefined;
  let header: string[] | undefined;
  let gaps: Gap[] | undefined;
  let length = 0;
  // The bytes by which it is recognised must be in the first block.
  const least = begin?.length ?? 0;
  for await (
    let block of named(source, () => blocksOf(source, { csv, size, least, enough }))
  ) {
    if (length === 0 && source.seen === undefined && (begin !== undefined || !block.torn)) await recognise(source, block, options);
    length = block.offset + block.bytes.length;
    // It ends here: refused below.
    if (length < least) break;
    if (csv !== undefined && header === undefined) {
      const { begin: first, end } = firstRow(block.bytes, csv);
      header = await fields(block.bytes.subarray(first, end), source);
      const lines = block.bytes.subarray(0, end).reduce((lines, byte) => lines + (byte === 10 ? 1 : 0), 0);
      if (coverage.first.end < end) passed({ start: 0, end, lines });
      block = { ...block, offset: end, bytes: block.bytes.slice(end) };
    }
    // The end of a stream is not known.
    gaps ??= coverage.gaps(Infinity);
    for (const gap of gaps) {
      const from = Math.max(gap.start, block.offset);
      const to = Math.min(gap.end, length);
      if (from >= to) continue;
      const [start, stop] = csv === undefined ? [lineBegin(block, from), lineBegin(block, to)] : [from, to];
      // In a file, workers may have done ranges that they read themselves: the lines that begin in a range, which may end within a line.
      if (source.size === undefined && start > from) {
        throw notTheSame(source, `has no line that begins at byte ${from}, up to which it is done`);
      }
      if (source.size === undefined && stop > to) {
        throw notTheSame(source, `has no line that begins at byte ${to}, from which on it is done`);
      }
      if (start > from) passed({ start: from, end: Math.min(start, to), lines: 0 });
      for (const { begin, end } of cut(block, { start, stop, csv, chunk })) {
        const bytes = block.bytes.slice(begin - block.offset, end - block.offset);
        const piece = { input: source.name, bytes, offset: begin, end, header };
        yield { start: begin, end: Math.min(end, to), torn: block.torn, piece };
      }
    }
  }
  // The finished part of the earlier one would be taken for part of this one.
  const before = Math.max(coverage.end, least);
  if (length < before && !enough.aborted) throw notTheSame(source, `ends at byte ${length}, and ${before} bytes of it were there before`);
}

/** Notes how a stream begins, given its first block, or checks that it begins as before. */
async function recognise(source: Source, { bytes }: Block, { begin, begun }: BlocksOptions): Promise<void> {
  const count = begin?.length ?? Math.min(BEGIN, bytes.length);
  const hash = await hashOf(bytes.slice(0, count));
  if (begin === undefined) begun({ length: count, hash });
  else if (hash !== begin.hash && bytes.length >= count) throw notTheSame(source, `has different content in its first ${count} bytes`);
}

/** Which whole records of a block to cut. */
interface CutOptions {
  /** The bytes of the input between which they are. */
  start: number;
  stop: number;
  csv: string | undefined;
  chunk: DivideOptions["chunk"];
}

/** Cuts records of a block into stretches of about as many bytes as the next part should have. */
function* cut({ offset, bytes, torn }: Block, { start, stop, csv, chunk }: CutOptions): Generator<{ begin: number; end: number }> {
  const records = bytes.subarray(0, stop - offset);
  for (let begin = start, end = stop; begin < stop; begin = end) {
    const wanted = chunk(Infinity);
    // If it is not much longer, searching for the end of a record is not worth it.
    const whole = torn || stop - begin < 2 * wanted;
    end = whole ? stop : offset + recordsEnd(records, begin - offset, { least: wanted, csv });
    yield { begin, end };
  }
}

/** Where the first line from a byte of a block on begins, or the block ends. */
function lineBegin({ offset, bytes }: Block, from: number): number {
  return from === offset ? from : offset + (bytes.indexOf(10, from - offset - 1) + 1 || bytes.length);
}

/** The end of records that begin here and have at least this many bytes. */
function recordsEnd(bytes: Uint8Array, begin: number, { least, csv }: { least: number; csv: string | undefined }): number {
  let end = begin;
  if (csv === undefined) end = bytes.indexOf(10, begin + least - 1) + 1;
  else while (end >= 0 && end < begin + least) end = rowEnd(bytes, end, csv.charCodeAt(0), rowBegin());
  return end > 0 ? end : bytes.length;
}

function notTheSame({ name }: Source, how: string): BatchError {
  return new BatchError(`Cannot go on as the input '${name}' ${how}: give it again from its beginning`, { resumable: true });
}

/** Makes an error of a stream say which input failed. */
async function* named({ name }: Source, blocks: () => AsyncGenerator<Block>): AsyncGenerator<Block> {
  try {
    yield* blocks();
  } catch (error) {
    if (error instanceof BatchError) throw error;
    throw new BatchError(`Cannot go on as the input '${name}' cannot be read: ${reasonOf(error)}`, {
      resumable: true,
      cause: error,
    });
  }
}
