import { BatchError, explained, readAgain } from "./errors.ts";
import { expandGlob } from "./globs.ts";
import { isGzip, uncompressed } from "./gunzip.ts";
import { resolve } from "./paths.ts";
import type { InputFormat } from "./range.ts";
import { isOther, sampleOf, type SeenFile } from "./seen_file.ts";

/** An input of a batch: a path or a glob, `"-"` for standard input, or a stream of bytes. */
export type BatchInput = string | URL | ReadableStream<Uint8Array>;

/** One input. */
export interface Source {
  /** Its name in messages and in the errors file. */
  name: string;
  /** Its absolute path; undefined for a stream. */
  path: string | undefined;
  /** How many bytes a plain file has; undefined if that is not known before it is read. */
  size: number | undefined;
  /** For inputs that workers read themselves, the end of the last line that has a line end. */
  whole?: number | undefined;
  /** What identified a file when it was first looked at; undefined for anything else, and for a file whose size the system does not tell. */
  seen: SeenFile | undefined;
  /** Whether workers read it themselves, range by range; otherwise it comes through this thread in blocks. */
  ranges: boolean;
  /**
   * Its bytes, uncompressed.
   *
   * @param enough Aborts when nothing more is wanted: until the stream is there, only this cancels what it is made from.
   */
  open(enough: AbortSignal): Promise<ReadableStream<Uint8Array>>;
}

/**
 * What follows the last newline of a stream or a plain file: a whole record, or half of one whose writer was stopped, or has not finished
 * it. Within quotes, a newline does not end it.
 */
export type Torn = "in a line" | "in quotes";

/**
 * Expands globs in the inputs to the files that they match, in the order of their names.
 *
 * @param own The identities of files that no glob matches.
 *
 * @throws {BatchError} If a glob matches none.
 */
export async function expandInputs(inputs: readonly BatchInput[], own: ReadonlySet<string>): Promise<BatchInput[]> {
  const expanded: BatchInput[] = [];
  for (const input of inputs) {
    if (input instanceof ReadableStream || input === "-") expanded.push(input);
    else for (const path of await expandGlob(input, own)) expanded.push(path);
  }
  return expanded;
}

/**
 * Looks at the inputs, in the order in which they are read.
 *
 * @throws {BatchError} If there is no such file.
 */
export async function findSources(inputs: readonly BatchInput[], format: InputFormat): Promise<Source[]> {
  const sources: Source[] = [];
  for (const input of inputs) {
    if (input instanceof ReadableStream) sources.push(streamSource("stream", () => input));
    else if (input === "-") sources.push(streamSource("-", () => Deno.stdin.readable));
    else sources.push(await fileSource(String(input), format));
  }
  return sources;
}

function streamSource(name: string, open: () => ReadableStream<Uint8Array>): Source {
  return {
    name,
    path: undefined,
    size: undefined,
    seen: undefined,
    ranges: false,
    open: async (enough) => await uncompressed(open(), enough),
  };
}

async function fileSource(name: string, format: InputFormat): Promise<Source> {
  const path = await pathOf(name);
  const read = <T>(look: () => Promise<T>): Promise<T> => explained(look, `input file '${name}'`, { flag: `--allow-read=${name}` });
  const { isDirectory, isFile, size, mtime, dev, ino } = await read(() => Deno.stat(path));
  if (isDirectory) throw new BatchError(`Cannot run batch as the input '${name}' is a folder: name its files, as in '${name}/*'`);
  // Such as those in /proc, which are made as they are read.
  const sizeIsKnown = isFile && (size > 0 || await read(() => isEmpty(path)));
  const found = sizeIsKnown ? await read(async () => ({ compressed: await isGzip(path), sample: await sampleOf(path, size) })) : undefined;
  const seen = found && { size, changed: mtime?.toISOString() ?? null, sample: found.sample, identity: `${dev} ${ino}` };
  const plain = found?.compressed === false;
  // From the middle of a file the end of a CSV row cannot be told: a line may end within quotes.
  const ranges = plain && format !== "csv" && !await isOfSystem(path);
  return {
    name,
    path,
    size: plain ? size : undefined,
    whole: ranges ? await read(() => endOfLines(path, size)) : undefined,
    seen,
    ranges,
    open: async (enough) =>
      await uncompressed(seen === undefined ? (await Deno.open(path)).readable : ReadableStream.from(beginningOf(path, seen)), enough),
  };
}

/** Whether a file whose size is 0 has no content either, or has got some only now. */
async function isEmpty(path: string): Promise<boolean> {
  using file = await Deno.open(path);
  return await file.read(new Uint8Array(1)) === null || (await Deno.stat(path)).size > 0;
}

/** The folders whose files Deno only opens with all permissions, and so not for a worker that may only read its input. */
const OF_SYSTEM = /^\/(dev|proc|sys)\//;

/** Where a file is. One named as an open file, such as `/dev/stdin`, has a real path, unless it has been deleted, or is a pipe. */
async function pathOf(name: string): Promise<string> {
  const path = resolve(name);
  return OF_SYSTEM.test(path) ? await realPathOf(path) : path;
}

/** Whether a file is in such a folder, such as one at `/dev/shm`. */
async function isOfSystem(path: string): Promise<boolean> {
  return OF_SYSTEM.test(await realPathOf(path));
}

/** Where a file is, following all links; its own path if the system does not tell, as for some drives on Windows. */
async function realPathOf(path: string): Promise<string> {
  return await Deno.realPath(path).catch(() => path);
}

/** With fewer inputs it makes no difference which thread opens them. */
const MANY = 1000;

/**
 * When a worker opens a file, Deno searches everything that the worker may read: in the time for each of those, this thread reads about
 * this many bytes. With fewer, workers take long to open files; with more, they wait for this thread.
 */
const BYTES_PER_INPUT = 64;

/** Decides which thread reads which input: if there are many, this thread reads small ones. */
export function readHere(sources: readonly Source[]): Source[] {
  const small = sources.length < MANY ? 0 : sources.length * BYTES_PER_INPUT;
  return sources.map((source) => source.ranges && source.size! < small ? { ...source, ranges: false } : source);
}

/** How much of a file this thread reads at once. Less, and there are more calls; more only takes memory. */
const READ = 2 ** 16;

/** The position after the last newline within this many first bytes of a file. */
async function endOfLines(path: string, size: number): Promise<number> {
  using file = await Deno.open(path);
  const bytes = new Uint8Array(READ);
  for (let start = size; start > 0;) {
    const end = start;
    start = Math.max(0, end - READ);
    await file.seek(start, Deno.SeekMode.Start);
    const read = await file.read(bytes.subarray(0, end - start)) ?? 0;
    const newline = bytes.subarray(0, read).lastIndexOf(10);
    if (newline >= 0) return start + newline + 1;
  }
  return 0;
}

/**
 * Whether what followed the last newline of a file is now known to have been half a record: in a file that is being written to, such as a
 * log, the rest has come since.
 */
export async function isHalf({ path, seen }: Source, torn: Torn): Promise<boolean> {
  if (seen === undefined) return false;
  try {
    using file = await Deno.open(path!);
    // Another file in its place says nothing about it. If it is not put back, that is reported at the end, too.
    if (await isOther(path!, seen, sampleOf)) return false;
    await file.seek(seen.size, Deno.SeekMode.Start);
    const next = new Uint8Array(2);
    if (await file.read(next) === null) return false;
    // A carriage return by itself may be within a line.
    const lineEnds = next[0] === 10 || next[0] === 13 && next[1] === 10;
    return torn === "in quotes" || !lineEnds;
  } catch {
    // If it can no longer be read, that is reported at the end.
    return false;
  }
}

/** Reads as many bytes of a file as it had, as workers do, whatever follows them by now. */
async function* beginningOf(path: string, seen: SeenFile): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  using file = await Deno.open(path);
  if (await isOther(path, seen, sampleOf)) throw new Error("it is a different file than when the batch began: put the original back");
  // See `isGzip()`.
  await file.seek(0, Deno.SeekMode.Start);
  const { size } = seen;
  for (let at = 0; at < size;) {
    const bytes = new Uint8Array(Math.min(READ, size - at));
    const read = await file.read(bytes);
    if (read === null) throw new Error(`it ends at byte ${at}, and had ${size} when the batch began`);
    at += read;
    yield bytes.subarray(0, read);
  }
}

/** What is named as an open file: on macOS, all who open it share one position, so that looking at it would disturb who reads it. */
const SHARED = /^\/dev\/(stdin$|fd\/)/;

/**
 * Checks that files are what they were when they were first looked at. That holds for one to which something was only appended, such as a
 * log in use: what came later is not read. One that is gone has left nothing else to be read: it can be put back.
 *
 * @param options Whether files are still being read, and may be gone.
 *
 * @throws {BatchError} If one has changed.
 */
export async function refuseChangedInputs(sources: Iterable<Source>, { stillRead = false } = {}): Promise<void> {
  for (const { name, path, seen } of sources) {
    if (seen === undefined) continue;
    const [was, is] = [seen, await Deno.stat(path!).catch(() => undefined)];
    if (is === undefined) {
      if (stillRead) continue;
      throw new BatchError(`Cannot go on as the input '${name}' is not there any more: put it back`, { resumable: true });
    }
    const changed = is.mtime?.toISOString() ?? null;
    if (is.size === was.size && changed === was.changed) continue;
    if (is.size > was.size && stillRead && SHARED.test(path!)) continue;
    if (is.size > was.size && await readAgain(sampleOf(path!, was.size), `the input '${name}'`) === was.sample) continue;
    throw new BatchError(
      `Cannot go on as the input '${name}' was changed while it was read: it had ${was.size} bytes, of ${was.changed}, and has ${is.size}, ` +
        `of ${changed}: begin anew with '--overwrite', or put the original back`,
      { resumable: true },
    );
  }
}
