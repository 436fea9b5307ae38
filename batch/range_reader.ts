import type { InputFormat, Piece, PieceOfFile, PieceOfInput } from "./range.ts";
import type { isOther, sampleOf } from "./seen_file.ts";

/** What {@linkcode createRangeReader} needs. */
export interface ReaderParts {
  inputFormat: InputFormat;
  /** How many bytes are read at once, unless a line is longer. */
  blockSize: number;
  /** Whether a path leads to a different file than before. */
  isOther: typeof isOther;
  /** The hash of samples of a file. */
  sampleOf: typeof sampleOf;
}

/** Runs what a reader has found. */
export interface BlockRunner {
  /** Called when no record of the range begins before this byte of the input. */
  skipTo(position: number): void;
  /**
   * Called for whole records, from `from` to `to` in `bytes`, whose first byte is byte `base` of the input. Nothing more is read if it
   * returns true.
   */
  runBlock(bytes: Uint8Array, base: number, from: number, to: number): Promise<boolean>;
}

/** Reads ranges in a worker. */
export interface RangeReader {
  /** Reads a range from this byte of the input on, a block of whole records at a time. */
  read(piece: Piece, position: number, runner: BlockRunner): Promise<void>;
  /** Closes the input that was last read. */
  close(): void;
}

/**
 * Reads the input in a worker of a batch, and finds where its lines begin and end.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function createRangeReader({ inputFormat, blockSize: BLOCK, isOther, sampleOf }: ReaderParts): RangeReader {
  const NEWLINE = 10;
  let open: { path: string; file: Deno.FsFile } | undefined;
  let block = new Uint8Array(BLOCK);

  async function fileOf({ input, path, seen }: PieceOfInput & PieceOfFile): Promise<Deno.FsFile> {
    if (open?.path === path) return open.file;
    open?.file.close();
    open = undefined;
    const file = Deno.openSync(path);
    // Not by the opened file: behind a link, that would need a permission for the file to which it leads.
    if (await isOther(path, seen, sampleOf)) {
      file.close();
      throw new Error(`'${input}' is a different file than when the batch began: put the original back`);
    }
    open = { path, file };
    return file;
  }

  async function readBytes(
    { bytes, offset }: { bytes: Uint8Array; offset: number },
    position: number,
    { runBlock }: BlockRunner,
  ): Promise<void> {
    for (let from = position - offset, to = bytes.length; from < bytes.length; from = to) {
      // Rows of CSV may go on after any line end.
      if (inputFormat !== "csv") {
        let newline = bytes.lastIndexOf(NEWLINE, from + BLOCK - 1);
        if (newline < from) newline = bytes.indexOf(NEWLINE, from + BLOCK);
        to = newline < 0 ? bytes.length : newline + 1;
      }
      if (await runBlock(bytes, offset, from, to)) return;
    }
  }

  async function readFile(piece: PieceOfInput & PieceOfFile, position: number, { skipTo, runBlock }: BlockRunner): Promise<void> {
    const { seen: { size }, end } = piece;
    if (position >= end) return;
    const file = await fileOf(piece);
    /** How much of the block is filled, and which byte of the file it starts with. */
    let filled = 0;
    let base = Math.max(0, position - 1);
    /** Where in the block the next line begins; -1 at first: after the first newline. */
    let next = position === 0 ? 0 : -1;
    file.seekSync(base, 0);
    for (;;) {
      if (block.length - filled < BLOCK / 2) {
        const larger = new Uint8Array(2 * block.length);
        larger.set(block.subarray(0, filled));
        block = larger;
      }
      // A little more than the range, for the rest of its last line: more and more while that goes on.
      const wanted = Math.min(block.length - filled, Math.max(0, end - base - filled) + Math.max(1024, filled), size - base - filled);
      const read = file.readSync(block.subarray(filled, filled + wanted)) ?? 0;
      filled += read;
      if (read === 0 && base + filled < end) {
        throw new Error(`'${piece.input}' ends at byte ${base + filled}, and had ${end} or more when the batch began`);
      }
      if (next < 0) {
        const newline = block.subarray(0, filled).indexOf(NEWLINE);
        if (newline < 0 && read > 0 && base + filled < end) {
          base += filled;
          filled = 0;
          continue;
        }
        if (newline < 0 || base + newline + 1 >= end) return;
        next = newline + 1;
        skipTo(base + next);
      }
      // What was there before has no newline, except for the line before the first.
      const news = Math.max(next, filled - read);
      const newline = block.subarray(news, filled).lastIndexOf(NEWLINE);
      let to = read === 0 ? filled : newline < 0 ? 0 : news + newline + 1;
      // The last line of the range has its last byte.
      const last = block.indexOf(NEWLINE, end - base - 1);
      if (last >= 0) to = Math.min(to, last + 1);
      if (to > next) {
        if (await runBlock(block, base, next, to)) return;
        block.copyWithin(0, to, filled);
        base += to;
        filled -= to;
        next = 0;
      }
      if (read === 0) return;
      // The long line that enlarged the block is over.
      if (block.length > BLOCK && filled < BLOCK / 2) block = new Uint8Array(block.slice(0, filled).buffer.transfer(BLOCK));
    }
  }

  return {
    read(piece, position, runner) {
      return "bytes" in piece ? readBytes(piece, position, runner) : readFile(piece, position, runner);
    },
    close() {
      open?.file.close();
      open = undefined;
    },
  };
}
