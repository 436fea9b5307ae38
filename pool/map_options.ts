import { checkedFunc, type Task, type TaskRef } from "../job.ts";
import { Checks, show } from "./checks.ts";

/** Options of `ProcessPool.map`. */
export interface MapOptions {
  /**
   * How many items travel together. `"auto"` begins with one and adapts: chunks have about 5 ms of work and at most 4 MB, as far as sizes
   * can be told at a glance, and no item is held back while the input is slow. With a number all chunks have that size, except for the
   * last.
   *
   * @default {"auto"}
   */
  chunkSize?: number | "auto" | undefined;
  /**
   * The greatest number of items (not bytes) that are read ahead of the consumed ones. It caps the size of chunks as well. The map reads
   * that far ahead while an item holds up those behind it; for a consumer that is slower than the workers, reading stops after a few rounds
   * of chunks.
   *
   * The default is four times as large for numbers from a typed array. It is a limit: of items that are large, or have large results, fewer
   * are read ahead by default, namely about as many as fit into 128 MB (or, if the pool runs more than four jobs at a time, into 32 MB for
   * each of these), and at least as many as are in flight.
   *
   * @default {16384 * maxWorkers * jobsPerWorker}
   */
  buffer?: number | undefined;
  /**
   * Whether outcomes come in the order of the items. If not, they come as soon as they are ready.
   *
   * @default {true}
   */
  ordered?: boolean | undefined;
  /**
   * Whether the loop yields outcomes, as `Promise.allSettled` does, instead of results, so that it never throws for an item.
   *
   * @default {false}
   */
  settled?: boolean | undefined;
  /**
   * How long each item may run, in milliseconds from when a worker starts it.
   *
   * @default {the pool's jobTimeout}
   */
  timeout?: number | undefined;
  /**
   * Ends the loop when it aborts: the loop throws the signal's reason, the rest is cancelled, and running items are stopped as by
   * `cancel({ force: true })`. (Leaving the loop lets running items finish.)
   *
   * @default {undefined}
   */
  signal?: AbortSignal | undefined;
}

/** The key of {@linkcode PartOfMap} in the options of a map. */
export const PART_OF_MAP: unique symbol = Symbol("part of map");

/** What an executor says of a map that runs a part of a larger one. */
export interface PartOfMap {
  /** The index of the first item in the whole input: the id of its job. */
  first: number;
  /** How often an item is run again after its worker died. */
  retries: number;
}

/** Options of a map that runs a part of a larger one. */
export interface PartOfMapOptions extends MapOptions {
  /** Which part. */
  [PART_OF_MAP]: PartOfMap;
}

/** What `ProcessPool.map` returns: the outcomes one by one, or as many at a time as are ready. */
export interface MapResults<T> extends AsyncIterableIterator<T> {
  /**
   * The same outcomes, several at a time: for loops over so many that awaiting each would take longer than its work. Numbers may come in a
   * Float64Array. Outcomes that were already taken one by one do not come again, and leaving this loop ends the map.
   *
   * @returns Lists of outcomes, in order; none of them is empty.
   *
   * @throws {unknown} Out of the loop, what the map throws, after the results before it.
   *
   * @example A million numbers
   * ```ts
   * import { ProcessPool } from "@procpool/process-pool";
   * import { assertEquals } from "@std/assert";
   *
   * await using pool = new ProcessPool({ maxWorkers: 2 });
   * const numbers = new Float64Array(1_000_000).map((_, i) => i);
   * let sum = 0;
   * for await (const results of pool.map((x: number) => x * 2, numbers).chunks()) {
   *   for (let i = 0; i < results.length; i++) sum += results[i]!;
   * }
   * assertEquals(sum, 999_999_000_000);
   * ```
   */
  chunks(): AsyncIterableIterator<ArrayLike<T>>;
}

/**
 * How many items are read ahead, for each job that runs at a time. Fewer make chunks of tiny items too small to be cheap (a tenth of this
 * gives half the speed); more only hold memory.
 */
const BUFFER_PER_JOB = 16_384;

/**
 * The same for numbers from a typed array, which take eight bytes each way. Fewer, and chunks are too small to be cheap (a quarter of this
 * gives 0.8 of the speed); more, and a chunk exceeds the 256 KiB that fit into shared memory.
 */
const NUMBERS_PER_JOB = 65_536;

/**
 * Chunks in flight, for each job that runs at a time: the current and the next, so that no worker waits for its caller. With more, chunks
 * would be smaller for the same buffer.
 */
const CHUNKS_PER_JOB = 2;

/**
 * If no `buffer` is given, about this many bytes of items, or of their results, may be read ahead: while one item takes a minute, others
 * may return megabytes all the time. Less, and workers stand idle behind an item that takes long; more, and memory is no longer flat.
 */
const MOST_AHEAD = 2 ** 27;

/** The options of a map, checked and complete. */
export interface ResolvedMapOptions {
  task: Task | TaskRef;
  /** Opens the input. Called when the first result is asked for, as opening a stream locks it. */
  open: () => AsyncIterator<unknown> | Iterator<unknown>;
  isAsync: boolean;
  /** The items themselves, if they can be sliced. */
  array: Sliceable | undefined;
  /** Undefined for `"auto"`. */
  chunkSize: number | undefined;
  buffer: number;
  /** What `buffer` is while results are numbers. */
  bufferOfNumbers: number;
  /** How many bytes of items, or of results, are read ahead. */
  mostAhead: number;
  chunksInFlight: number;
  ordered: boolean;
  settled: boolean;
  timeout: number;
  retries: number;
  /** The index of the first item. */
  first: number;
  /** Whether each result is sent before the next item is started. */
  eager: boolean;
  signal: AbortSignal | undefined;
}

/** What a pool adds to the options of a map. */
export interface MapParts {
  task: Task | TaskRef;
  items: unknown;
  /** How many jobs the pool runs at a time. */
  capacity: number;
  jobTimeout: number;
  retries: number;
  eager: boolean;
}

export function resolveMapOptions(
  options: MapOptions | PartOfMapOptions,
  { task, items, capacity, jobTimeout, retries: poolRetries, eager }: MapParts,
): ResolvedMapOptions {
  const checks = new Checks("map");
  const { chunkSize = "auto", buffer, ordered = true, settled = false, timeout = jobTimeout, signal } = checks.options(options, [
    "chunkSize",
    "buffer",
    "ordered",
    "settled",
    "timeout",
    "signal",
  ]);
  const { first, retries } = PART_OF_MAP in options ? options[PART_OF_MAP] : { first: 0, retries: poolRetries };
  checkedFunc("map", "task", task);
  const size = chunkSize === "auto" ? undefined : checks.wholeNumber("chunkSize", chunkSize, { or: '"auto"' });
  const chunksInFlight = CHUNKS_PER_JOB * capacity;
  const given = buffer === undefined ? undefined : checks.wholeNumber("buffer", buffer);
  const bufferOf = (perJob: number): number => given ?? Math.max(perJob * capacity, (size ?? 0) * chunksInFlight);
  return {
    task,
    open: opener(items),
    isAsync: typeof (items as Partial<AsyncIterable<unknown>>)[Symbol.asyncIterator] === "function",
    array: isSliceable(items) ? items : undefined,
    chunkSize: size,
    buffer: bufferOf(BUFFER_PER_JOB),
    bufferOfNumbers: bufferOf(ArrayBuffer.isView(items) ? NUMBERS_PER_JOB : BUFFER_PER_JOB),
    mostAhead: given === undefined ? MOST_AHEAD : Infinity,
    chunksInFlight,
    ordered: checks.boolean("ordered", ordered),
    settled: checks.boolean("settled", settled),
    timeout: checks.milliseconds("timeout", timeout, { infinite: true }),
    retries: checks.wholeNumber("retries", retries, { min: 0 }),
    first,
    // Results that are held back would be lost if an item is stopped.
    eager: eager || timeout !== Infinity || retries > 0,
    signal: signal === undefined ? undefined : checks.signal("signal", signal),
  };
}

function opener(items: unknown): ResolvedMapOptions["open"] {
  const given = (items ?? {}) as AsyncIterable<unknown> & Iterable<unknown>;
  const isStream = items instanceof ReadableStream && given[Symbol.asyncIterator] === ReadableStream.prototype[Symbol.asyncIterator];
  if (isStream) return () => readStream(items);
  if (typeof given[Symbol.asyncIterator] === "function") return () => given[Symbol.asyncIterator]();
  if (typeof given[Symbol.iterator] === "function") return () => given[Symbol.iterator]();
  throw new TypeError(`Cannot map as the items must be iterable, an async iterable or a ReadableStream: current value is ${show(items)}`);
}

/**
 * Iterates a stream like its own iterator, except that `return()` does not wait for a pending read: the stream may never give another item,
 * and must hear of the end.
 */
function readStream(stream: ReadableStream<unknown>): AsyncIterator<unknown> {
  const reader = stream.getReader();
  let isOpen = true;
  return {
    async next() {
      let result: IteratorResult<unknown> | undefined;
      try {
        return result = await reader.read() as IteratorResult<unknown>;
      } finally {
        isOpen &&= result?.done === false;
        if (!isOpen) reader.releaseLock();
      }
    },
    async return() {
      // The stream may have ended without anyone having read to its end.
      if (isOpen) {
        isOpen = false;
        const cancelled = reader.cancel();
        reader.releaseLock();
        await cancelled;
      }
      return { done: true, value: undefined };
    },
  };
}

/** An array or a typed array. */
export interface Sliceable extends ArrayLike<unknown> {
  slice(from: number, to: number): Sliceable;
}

/** Whether slicing the items gives the same as iterating them. */
function isSliceable(items: unknown): items is Sliceable {
  const isArray = Array.isArray(items);
  if (!isArray && !ArrayBuffer.isView(items)) return false;
  const plain = isArray ? Array.prototype : Uint8Array.prototype;
  const { slice, constructor, [Symbol.iterator]: iterate } = items as Partial<typeof plain> & object;
  // The constructor makes the slice: a user's subclass may take any arguments, and node's Buffer returns a view of all its memory.
  const isBuiltIn = isArray
    ? constructor === Array
    : typeof constructor === "function" && Object.getPrototypeOf(constructor) === Object.getPrototypeOf(Uint8Array);
  return isBuiltIn && slice === plain.slice && iterate === plain[Symbol.iterator];
}
