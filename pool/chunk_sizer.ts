import type { ChunkWork } from "./chunk.ts";
import type { ResolvedMapOptions } from "./map_options.ts";

/**
 * How long an automatic chunk should take, in ms. Less, and messages cost more than the work of short items; more, and results come in
 * lumps.
 */
const CHUNK_TIME = 5;

/**
 * How many rounds of chunks may be ready but not fetched. Fewer, and workers wait for a consumer that takes its results in bursts; more,
 * and with a consumer that is slower than the workers, results take memory for nothing. (The buffer is for another case: an item that holds
 * up those behind it.)
 */
const READY_ROUNDS = 4;

/**
 * An automatic chunk is at most this many times as large as the last: the first items may be unlike the others. Less, and it takes more
 * chunks to find the size.
 */
const CHUNK_GROWTH = 8;

/**
 * An automatic chunk has at most about this many bytes, each way: a task that looks at little of large records takes no time, and would get
 * thousands of them at once. Less, and messages cost more than they carry; more, and chunks in flight take hundreds of megabytes.
 */
export const LARGEST_SIZE = 2 ** 22;

/**
 * The factor by which the remembered size of items shrinks with each chunk of smaller ones: where some items are large, others will follow.
 * Less, and those are not expected; more, and after a single large item fewer are read ahead for longer.
 */
const SIZE_MEMORY = 0.95;

/**
 * How many elements of a list, and how many properties of an object, are looked at to guess its size. More take longer; fewer may be unlike
 * the others.
 */
const LOOKS_AT_LIST = 8, LOOKS_AT_OBJECT = 64;

/**
 * How many values are looked at in all to guess the size of a list; those on the same level share them. More, and guessing takes a good
 * part of the time of a chunk; fewer, and what is nested deep in the elements, such as the texts of a conversation, is not counted.
 */
const LOOKS = 4096;

/**
 * How many results fit into the line to a worker, if each is sent before the next item begins: more would overflow it if the caller is
 * busy. Numbers have separate memory.
 */
const LARGEST_EAGER = 512;

/** Decides how large the chunks of a map are and how far it reads ahead, by what earlier chunks took. */
export class ChunkSizer {
  /** How many items the next chunk may have. */
  size: number;
  /** How many items may be read ahead. */
  buffer: number;
  #options: ResolvedMapOptions;
  /** About how many bytes recent items or results have. */
  #itemSize = 0;

  constructor(options: ResolvedMapOptions) {
    this.#options = options;
    this.buffer = options.buffer;
    this.size = Math.min(options.chunkSize ?? 1, options.buffer);
  }

  /** A worker has run all of a chunk. */
  ran({ elapsed, count, items, results }: ChunkWork): void {
    if (count === 0) return;
    const size = Math.max(averageSize(items), averageSize(results ?? []));
    this.#itemSize = Math.max(size, this.#itemSize * SIZE_MEMORY);
    if (this.#options.chunkSize !== undefined) return;
    const isEager = this.#options.eager && results !== undefined;
    const largest = Math.min(this.#largest, LARGEST_SIZE / size, isEager ? LARGEST_EAGER : Infinity);
    const wanted = Math.min(CHUNK_TIME * count / elapsed, this.size * CHUNK_GROWTH, largest);
    this.size = Math.max(1, Math.floor(wanted));
  }

  /** The latest results are numbers, or others. */
  returned(numbers: boolean): void {
    const { buffer, bufferOfNumbers, chunkSize } = this.#options;
    this.buffer = numbers ? bufferOfNumbers : buffer;
    // Otherwise there might never be room for a chunk again, and only a finished chunk changes the size of the next.
    if (chunkSize === undefined) this.size = Math.min(this.size, this.#largest);
  }

  /** The most items an automatic chunk may have, so that all chunks in flight fit into the buffer. */
  get #largest(): number {
    return Math.max(1, Math.floor(this.buffer / this.#options.chunksInFlight));
  }

  /**
   * Whether another chunk may be read: neither the consumer nor the workers are too far behind. Given is how many items have been read
   * ahead of the consumer, how many outcomes it could fetch, and how many chunks are in flight.
   */
  hasRoom({ ahead, ready, inFlight }: { ahead: number; ready: number; inFlight: number }): boolean {
    const { chunksInFlight, mostAhead } = this.#options;
    // Large items in flight to many workers may take all of `mostAhead`. If no others were read, the workers would stand idle behind each
    // item that takes a little longer.
    const rounds = Math.max(this.size, READY_ROUNDS * Math.min(this.size, LARGEST_SIZE / this.#itemSize));
    const buffer = Math.min(this.buffer, Math.max(mostAhead / this.#itemSize, chunksInFlight * rounds));
    const unread = buffer - ahead;
    const unfetched = READY_ROUNDS * chunksInFlight * this.size - ready;
    return Math.min(unread, unfetched) >= this.size && inFlight < chunksInFlight;
  }
}

/** About how many bytes one of these values takes in a message. */
export function averageSize(values: ArrayLike<unknown>): number {
  if (values.length === 0 || ArrayBuffer.isView(values)) return 8;
  try {
    const size = sizeOf(values, LOOKS, new Set()) / values.length;
    // A proxy may return anything, or throw.
    return size > 0 && size < Infinity ? size : 8;
  } catch {
    return 8;
  }
}

/** About how many bytes a value takes in a message. Most items are numbers: for those it takes no time. */
export function sizeOfItem(value: unknown): number {
  return typeof value === "number" ? 8 : averageSize([value]);
}

/**
 * About how many bytes a value takes in a message, judged at a glance: counts strings, buffers, and lists, objects, maps and sets of those,
 * but not what is around them once more. No getter of what is copied is called, and no iterator of a user's.
 */
function sizeOf(value: unknown, mostLooks: number, around: Set<unknown>): number {
  if (typeof value === "string") return value.length;
  if (typeof value !== "object" || value === null || around.has(value)) return 8;
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return Number(value.byteLength);
  around.add(value);
  const isList = Array.isArray(value);
  let size = 8;
  if (value instanceof Map || value instanceof Set) {
    const all = value instanceof Map ? Map.prototype.entries.call(value) : Set.prototype.values.call(value);
    const first = [...all.take(LOOKS_AT_LIST)];
    if (first.length > 0) size = sizeOf(first, mostLooks, around) * value.size / first.length;
  } else if (mostLooks === 0) {
    if (isList) size = 8 * value.length;
  } else {
    const keys = isList ? value : Object.keys(value);
    const { length } = keys;
    const looks = Math.min(length, isList ? LOOKS_AT_LIST : LOOKS_AT_OBJECT, mostLooks);
    const left = Math.floor(mostLooks / looks) - 1;
    let seen = 0;
    for (let i = 0; i < looks; i++) {
      const at = Math.floor(i * length / looks);
      seen += sizeOf(Object.getOwnPropertyDescriptor(value, isList ? at : keys[at])?.value, left, around);
    }
    if (looks > 0) size += seen * length / looks;
  }
  around.delete(value);
  return size;
}
