import { abandon, abandonOn, joined } from "./bytes.ts";
import type { Source, Torn } from "./inputs.ts";
import { findText, MARK, rowBegin, rowEnd } from "./rows.ts";

/** A block of whole records. */
export interface Block {
  /** The byte of the input at which it begins. */
  offset: number;
  bytes: Uint8Array<ArrayBuffer>;
  /** Whether, and where, it may end within a record. */
  torn: Torn | false;
}

/**
 * Cuts an input into blocks of at least a given size that end where a record ends. What follows the last newline of a stream or a plain
 * file is a block by itself, unless everything before it is less than `least`.
 *
 * @param options `csv` is the delimiter between fields, undefined if a line is a record; `size` tells how many bytes the next block should
 * have; `least` is the size of the first, if there is that much; once `enough` aborts, no more blocks come. With CSV the first block also
 * contains the first row, however many blank lines precede it.
 */
export async function* blocksOf(
  source: Source,
  { csv, size, least = 0, enough }: { csv: string | undefined; size: () => number; least?: number; enough: AbortSignal },
): AsyncGenerator<Block> {
  let parts: Uint8Array[] = [];
  let length = 0;
  let offset = 0;
  /** Up to where records are whole in what is there, and where within a CSV row the rest ends. */
  let whole = 0;
  const scan = rowBegin();
  const delimiter = csv?.charCodeAt(0);
  /** How much of a byte order mark has been passed: the first row begins after it. */
  let marked = 0;
  /** Where the text of the first row of CSV begins; 0 for other formats. */
  let text = csv === undefined ? 0 : Infinity;

  function take(count: number, torn: Torn | false = false): Block {
    const all = joined(parts);
    const block = { offset, bytes: all.slice(0, count), torn };
    offset += count;
    parts = count < length ? [all.subarray(count)] : [];
    length -= count;
    whole = 0;
    return block;
  }

  /** Whether there are whole records, and, for the first block, everything that it must contain. */
  function isBlock(): boolean {
    if (offset > 0 || whole === 0) return whole > 0;
    return whole >= least && text < whole;
  }

  for await (const part of until(enough, source)) {
    if (delimiter !== undefined) {
      let at = 0;
      while (marked < MARK.length && at < part.length && part[at] === MARK[marked]) [at, marked] = [at + 1, marked + 1];
      if (at < part.length) marked = MARK.length;
      if (text === Infinity) {
        const found = findText(part, at, delimiter);
        if (found >= 0) text = length + found;
      }
      for (at = rowEnd(part, at, delimiter, scan); at >= 0; at = rowEnd(part, at, delimiter, scan)) whole = length + at;
    } else {
      const newline = part.lastIndexOf(10);
      if (newline >= 0) whole = length + newline + 1;
    }
    parts.push(part);
    length += part.length;
    if (length >= size() && isBlock()) yield take(whole);
  }
  const mayBeTorn = source.seen === undefined || source.size !== undefined;
  if (mayBeTorn && isBlock() && !enough.aborted) yield take(whole);
  if (length > 0 && !enough.aborted) yield take(length, mayBeTorn && (scan.open ? "in quotes" : "in a line"));
}

/** The bytes of an input. Once there are `enough`, or nobody takes more, it is cancelled, even during a pending read. */
async function* until(enough: AbortSignal, source: Source): AsyncGenerator<Uint8Array> {
  if (enough.aborted) return;
  const reader = (await source.open(enough)).getReader();
  const stopListening = abandonOn(enough, reader);
  try {
    for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) yield value!;
  } finally {
    stopListening();
    abandon(reader);
  }
}
