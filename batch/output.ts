import { constants, crc32, deflateRawSync } from "node:zlib";
import { joined, writeAll } from "./bytes.ts";
import { BatchError } from "./errors.ts";
import { dirname, ifThere } from "./paths.ts";

/** How far an output has been written, as needed to go on from there. */
export interface OutputState {
  /** Bytes in the file. */
  length: number;
  /** Bytes of results: the same unless the output is compressed. */
  position: number;
  /** The checksum of the results; 0 unless the output is compressed. */
  crc: number;
}

/** Where results go. */
export interface Output {
  /** How many bytes of results there are. */
  readonly position: number;
  /** The state of the file once everything written is in it. */
  readonly state: OutputState;
  /** Appends. If this returns a promise, it must settle before the next call. */
  write(bytes: Uint8Array): void | Promise<void>;
  /** Makes everything that was written so far survive a power cut, once this resolves. */
  sync(): Promise<void>;
  /**
   * Completes the output, under its final name.
   *
   * @param beforeRename Called when all of it is on the disk.
   */
  finish(beforeRename?: () => Promise<void>): Promise<void>;
  /** Closes it as it is, or does nothing if it is finished. A stream is closed, or aborted if something has failed. */
  close(failure?: { error: unknown }): Promise<void>;
}

/** Nothing written yet. */
export const NOTHING_WRITTEN: OutputState = { length: 0, position: 0, crc: 0 };

/** Opens the file in which an output grows; everything after `state` is cut off. It gets its final name when it is finished. */
export async function openOutput(path: string, { partial, state }: { partial: string; state: OutputState }): Promise<Output> {
  const file = await openAt(partial, state.length);
  try {
    await keepMode(path, partial);
  } catch (error) {
    file.close();
    throw error;
  }
  const plain = new FileOutput(file, { path, partial, state });
  return isCompressed(path) ? new GzipOutput(plain, state) : plain;
}

/** Whether an output of this name, in lower case or capitals, is compressed. */
export function isCompressed(path: string): boolean {
  return /\.gz$/i.test(path);
}

/** A file opened exclusively. */
export interface LockedFile {
  file: Deno.FsFile;
  /** Whether there was none before. */
  made: boolean;
}

/**
 * Opens a file exclusively, keeping its content. If there is none, an empty one is made.
 *
 * @param what What to call it in the error if someone else has it open, with a colon: `"errors file:"`.
 *
 * @throws {BatchError} If someone else has.
 */
export async function openLocked(path: string, what: string): Promise<LockedFile> {
  for (;;) {
    const made = await ifThere(Deno.stat(path)) === undefined;
    const file = await Deno.open(path, { read: true, write: true, create: true });
    try {
      if (!await file.tryLock(true)) {
        throw new BatchError(`Cannot run batch as another one writes to the same ${what} '${path}' is locked`);
      }
      // Its last holder may have removed it: then the locked file is one that others no longer find.
      const [locked, there] = [await file.stat(), await ifThere(Deno.stat(path))];
      if (there !== undefined && locked.ino === there.ino && locked.dev === there.dev) return { file, made };
    } catch (error) {
      file.close();
      throw error;
    }
    file.close();
  }
}

/** Opens a file to go on after this many bytes. */
async function openAt(path: string, length: number): Promise<Deno.FsFile> {
  const file = await Deno.open(path, { write: true, create: true });
  try {
    await goOnAt(file, { path, length });
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

/**
 * Cuts a file off after `length`, and goes on there.
 *
 * @throws {BatchError} If it is shorter: what is missing would become zeros.
 */
export async function goOnAt(file: Deno.FsFile, { path, length }: { path: string; length: number }): Promise<void> {
  const { size } = await file.stat();
  if (size < length) throw new BatchError(`Cannot go on as '${path}' has ${size} bytes, but the job log says ${length}`);
  await file.truncate(length);
  await file.seek(length, Deno.SeekMode.Start);
}

/** Gives a file the permissions of the one that it will replace, before it has any content. */
export async function keepMode(path: string, partial: string): Promise<void> {
  const [{ mode = null } = {}, { mode: own = null } = {}] = [await ifThere(Deno.stat(path)), await ifThere(Deno.stat(partial))];
  if (mode === null || own === null) return;
  // Windows has none. The owner must stay able to write, to go on with it.
  const wanted = (mode & 0o7777) | 0o200;
  if (wanted === (own & 0o7777)) return;
  try {
    await Deno.chmod(partial, wanted);
  } catch (error) {
    // Only the owner may do that, and not every file system has permissions.
    if (!(error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotSupported)) throw error;
  }
}

class FileOutput implements Output {
  state: OutputState;
  #file: Deno.FsFile;
  #path: string;
  #partial: string;
  #open = true;

  constructor(file: Deno.FsFile, { path, partial, state }: { path: string; partial: string; state: OutputState }) {
    this.#file = file;
    this.#path = path;
    this.#partial = partial;
    this.state = state;
  }

  get position(): number {
    return this.state.position;
  }

  write(bytes: Uint8Array): void {
    writeAll(this.#file, bytes);
    const length = this.state.length + bytes.length;
    this.state = { length, position: length, crc: 0 };
  }

  async sync(): Promise<void> {
    await this.#file.syncData();
  }

  async finish(beforeRename?: () => Promise<void>): Promise<void> {
    await this.#file.sync();
    await beforeRename?.();
    await this.close();
    await renameForGood(this.#partial, this.#path);
  }

  close(): Promise<void> {
    if (this.#open) this.#file.close();
    this.#open = false;
    return Promise.resolve();
  }
}

/** Smaller parts are compressed less well; larger ones hold up the calling thread for longer. */
const PART = 2 ** 18;

/** The header of a gzip member: no name, no time, unknown system. */
const GZIP_HEADER = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255);

/** The size of what ends the member: an empty last part, the checksum, and the size of the results. */
const GZIP_END_SIZE = 10;

/** The size of the finished file, given its size when all results were in it. */
export function finishedLength(path: string, length: number): number {
  if (!isCompressed(path)) return length;
  return (length === 0 ? GZIP_HEADER.length : length) + GZIP_END_SIZE;
}

/**
 * One gzip member whose parts are compressed separately and end at byte boundaries, as pigz does it: so the file can be cut off after any
 * part and continued. A CompressionStream cannot do that, and a DecompressionStream refuses a file with several members.
 */
class GzipOutput implements Output {
  #file: FileOutput;
  #crc: number;
  /** Without results that wait to be compressed. */
  #position: number;
  #parts: Uint8Array[] = [];
  #size = 0;

  constructor(file: FileOutput, { position, crc }: OutputState) {
    this.#file = file;
    this.#position = position;
    this.#crc = crc;
  }

  get position(): number {
    return this.#position + this.#size;
  }

  get state(): OutputState {
    this.#flush();
    return { length: this.#file.state.length, position: this.#position, crc: this.#crc };
  }

  write(bytes: Uint8Array): void {
    this.#parts.push(bytes.slice());
    this.#size += bytes.length;
    if (this.#size >= PART) this.#flush();
  }

  async sync(): Promise<void> {
    await this.#file.sync();
  }

  async finish(beforeRename?: () => Promise<void>): Promise<void> {
    this.#flush();
    if (this.#file.state.length === 0) this.#file.write(GZIP_HEADER);
    // An empty last part, the checksum, and the size.
    const end = new DataView(new ArrayBuffer(GZIP_END_SIZE));
    end.setUint8(0, 3);
    end.setUint32(2, this.#crc, true);
    end.setUint32(6, this.#position % 2 ** 32, true);
    this.#file.write(new Uint8Array(end.buffer));
    await this.#file.finish(beforeRename);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #flush(): void {
    if (this.#size === 0) return;
    const bytes = joined(this.#parts);
    const compressed = deflateRawSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH });
    if (this.#file.state.length === 0) this.#file.write(GZIP_HEADER);
    this.#file.write(compressed);
    this.#crc = crc32(bytes, this.#crc);
    this.#position += bytes.length;
    this.#parts = [];
    this.#size = 0;
  }
}

/** An output from which nothing can be cut off. */
export class StreamOutput implements Output {
  state: OutputState = NOTHING_WRITTEN;
  #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  #end: "close" | "leave" | "left";
  #writing = 0;

  /** @param end Whether the stream is closed when the batch is done. */
  constructor(stream: WritableStream<Uint8Array<ArrayBuffer>>, end: "close" | "leave") {
    this.#writer = stream.getWriter();
    this.#end = end;
  }

  get position(): number {
    return this.state.position;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#writing++;
    // Streams do not take shared memory.
    await this.#writer.write(bytes.slice());
    this.#writing--;
    const length = this.state.length + bytes.length;
    this.state = { length, position: length, crc: 0 };
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  async finish(): Promise<void> {
    if (this.#end === "close") await this.#writer.close();
    this.#writer.releaseLock();
    this.#end = "left";
  }

  async close(failure?: { error: unknown }): Promise<void> {
    if (this.#end === "close") {
      const why = failure ?? (this.#writing > 0 ? { error: new Error("The batch was stopped while a result was written") } : undefined);
      // A reader that has stopped does not hear of it anyway; and an abort waits for the current write, possibly forever.
      if (why === undefined) await this.#writer.close().catch(() => {});
      else this.#writer.abort(why.error).catch(() => {});
    }
    if (this.#end !== "left") this.#writer.releaseLock();
    this.#end = "left";
  }
}

/** Renames a file, durably if the system can flush the folder. */
export async function renameForGood(from: string, to: string): Promise<void> {
  await Deno.rename(from, to);
  try {
    using folder = await Deno.open(dirname(to));
    await folder.sync();
  } catch {
    // Windows cannot, nor can anyone without read permission for the folder: the rename is then as safe as the system makes it.
  }
}

/** The name under which a file grows. */
export function partialOf(path: string): string {
  return `${path}.partial`;
}

/** The name of the job log beside an output. */
export function logOf(path: string): string {
  return `${path}.log`;
}

/** The name of the errors file beside an output, unless another is given. */
export function errorsOf(path: string): string {
  return `${path}.errors.ndjson`;
}
