import { JobTimeoutError } from "../errors.ts";
import { checkedFunc, type Outcome, type Task, type TaskRef } from "../job.ts";
import { type ItemsMessage, NO_MORE, NUMBERS, type RunMessage, type TaskMessage } from "../worker/protocol.ts";
import { Checks, show } from "./checks.ts";
import type { Clock } from "./clock.ts";
import type { JobRecord } from "./observation.ts";
import { Queue } from "./queue.ts";
import { Rounds } from "./rounds.ts";
import { onAbort } from "./signals.ts";
import { type Answer, type Decode, type ErrorOf, isDeath, listCauses, type SettledCounts, Ticket } from "./ticket.ts";

/** Options of `ProcessPool.map`. */
export interface MapOptions {
  /**
   * How many items travel together. `"auto"` begins with one and finds out: chunks of about 5 ms of work, and of 4 MB at the most as far as
   * that is easily told, and none is kept waiting for an input that is slow to come. A number is kept to, but for the last chunk.
   *
   * @default {"auto"}
   */
  chunkSize?: number | "auto" | undefined;
  /**
   * How many items, not bytes, are read ahead of those that were consumed, at the most. It caps the chunks as well. The map reads that far
   * ahead while an item holds up those behind it; for a consumer that is slower than the workers, reading stops after a few rounds of
   * chunks.
   *
   * @default {16384 * maxWorkers * jobsPerWorker; while a typed array gives numbers, which are small, four times as many; of large items, or
   * results, as many as have 128 MB, or with more than four jobs at a time 32 MB for each, as far as that is easily told, and at least as many
   * as are in flight}
   */
  buffer?: number | undefined;
  /**
   * Whether outcomes come in the order of the items, or as they are ready.
   *
   * @default {true}
   */
  ordered?: boolean | undefined;
  /**
   * Whether the loop gives outcomes, as `Promise.allSettled` does, instead of results, so that it never throws for an item.
   *
   * @default {false}
   */
  settled?: boolean | undefined;
  /**
   * How long each item may run, in milliseconds from its real start.
   *
   * @default {the pool's jobTimeout}
   */
  timeout?: number | undefined;
  /**
   * Ends the loop when it aborts: it throws the signal's reason, and the rest is cancelled, with items that run stopped as by
   * `cancel({ force: true })`. (To leave the loop lets those that run finish.)
   *
   * @default {undefined}
   */
  signal?: AbortSignal | undefined;
}

/** What `ProcessPool.map` gives: the outcomes one by one, or as many at a time as are ready. */
export interface MapResults<T> extends AsyncIterableIterator<T> {
  /**
   * The same outcomes, several at a time: for loops over so many that awaiting each takes longer than its work. Numbers may come in a
   * Float64Array. What was taken one by one before does not come again, and leaving this loop ends the map.
   *
   * @returns Outcomes in their order; none of the lists is empty.
   *
   * @throws {unknown} Out of the loop, what the map throws; the results before it come first.
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
 * How many items are read ahead, for each job that runs at a time. Fewer make chunks of tiny items too small to be cheap (half the speed at
 * a tenth); more only hold memory.
 */
const BUFFER_PER_LANE = 16_384;

/**
 * The same of a typed array that gives numbers: eight bytes each way. Fewer, and their chunks are too small to be cheap (0.8 of the speed
 * at a quarter); more, and a chunk has more than the 256 KiB that go beside the port.
 */
const NUMBERS_PER_LANE = 65_536;

/**
 * Chunks in flight, for each job that runs at a time: one that runs and one that is next, so that no worker waits for its caller. With
 * more, chunks would be smaller for the same buffer.
 */
const CHUNKS_PER_LANE = 2;

/**
 * What an automatic chunk should take, in ms. Less, and messages cost more than the work of short items; more, and results come in lumps.
 */
const CHUNK_TIME = 5;

/**
 * So many rounds of chunks may be ready without being fetched. Fewer, and workers wait for a consumer that takes its results in bursts;
 * more, and a consumer that is slower than the workers holds memory for nothing. (The buffer is for another case: an item that holds up
 * those behind it.)
 */
const READY_ROUNDS = 4;

/**
 * An automatic chunk is at most so many times as large as the last: the first items may be unlike the others. Less, and it takes more
 * chunks to find the size.
 */
const CHUNK_GROWTH = 8;

/**
 * An automatic chunk has at most about so many bytes, each way: tasks that look at little of large records take no time, and these would
 * come by the thousand. Less, and messages cost more than they carry; more, and those in flight take hundreds of megabytes.
 */
const LARGEST_SIZE = 2 ** 22;

/**
 * Where no `buffer` is given, about so many bytes of items, or of their results, may be read ahead: while an item takes a minute, others may
 * return megabytes all the time. Less, and workers stand idle behind an item that takes long; more, and memory is no longer flat.
 */
const MOST_AHEAD = 2 ** 27;

/**
 * What is known of how large items are lessens with each chunk by this, if that has smaller ones: where one in some is large, there will be
 * others. Less, and those are not expected; more, and one that was large has fewer read ahead for longer.
 */
const SIZE_MEMORY = 0.95;

/**
 * To guess how large a value is, so many elements of a list and so many properties of an object are looked at. More take longer; fewer may
 * be unlike the others.
 */
const LOOKS_AT_LIST = 8, LOOKS_AT_OBJECT = 64;

/**
 * So many results fit into the line to a worker, where each is sent before the next item begins: more would overflow it if the caller is
 * busy. Numbers have memory of their own.
 */
const LARGEST_EAGER = 512;

/**
 * How often, in ms, a map whose consumer waits looks for numbers in memory: their worker may be with an item that takes long, and tell of
 * them late. More often takes time from others, less often delays results.
 */
const LOOK_EVERY = 1;

/** How long an automatic chunk waits for an input that is slow to come, in ms: longer delays results, shorter sends smaller chunks. */
const CHUNK_PATIENCE = 2;

/**
 * The clock is looked at after so many items of an automatic chunk at the latest, as an input that computes its items lets no timer run
 * out. Fewer, and that takes a good part of the time of quick inputs; more, and one that gets slow holds up the program for longer.
 */
const ITEMS_A_LOOK = 64;

/** What a map needs of its pool. */
export interface MapHost {
  /** Waits for a permit. */
  acquire(signal: AbortSignal | undefined): Promise<void>;
  /** Gives back a permit that is of no use. */
  release(): void;
  /** Queues a chunk that has a permit; if the pool takes none, gives the permit back and throws. */
  admit(chunk: Chunk): void;
  /** Cancels what has not started of a chunk; with `force` also what runs. */
  cancel(chunk: Chunk, error: unknown, force: boolean): void;
  report(error: unknown): void;
  /** Why the pool takes no chunks any more, if it does not. */
  refusal(): unknown;
  /**
   * The map waits for its input: until {@linkcode MapHost.goesOn}, {@linkcode MapRun.refused} is called if the pool takes no chunks any
   * more.
   */
  waits(map: MapRun): void;
  /** The map does not wait any more. */
  goesOn(map: MapRun): void;
  /** What time is measured by. */
  readonly clock: Clock;
}

/** The options of a map, checked and complete. */
export interface ResolvedMapOptions {
  task: Task | TaskRef;
  /** Opens the input: when the first result is asked for, since a stream that is opened is locked. */
  open: () => AsyncIterator<unknown> | Iterator<unknown>;
  isAsync: boolean;
  /** The items themselves, if they can be read many at a time. */
  array: Sliceable | undefined;
  /** Undefined for automatic. */
  chunkSize: number | undefined;
  buffer: number;
  /** The buffer while results are numbers. */
  bufferOfNumbers: number;
  /** How many bytes of items, or of results, are read ahead. */
  mostAhead: number;
  chunksInFlight: number;
  ordered: boolean;
  settled: boolean;
  timeout: number;
  retries: number;
  /** Whether each result is sent before the next item is started. */
  eager: boolean;
  signal: AbortSignal | undefined;
}

/** What a pool adds to the options of a map. */
export interface MapParts {
  task: Task | TaskRef;
  items: unknown;
  /** How many jobs run at a time. */
  lanes: number;
  jobTimeout: number;
  retries: number;
  eager: boolean;
}

export function resolveMapOptions(
  options: MapOptions,
  { task, items, lanes, jobTimeout, retries, eager }: MapParts,
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
  checkedFunc("map", "task", task);
  const size = chunkSize === "auto" ? undefined : checks.wholeNumber("chunkSize", chunkSize, { or: '"auto"' });
  const chunksInFlight = CHUNKS_PER_LANE * lanes;
  const given = buffer === undefined ? undefined : checks.wholeNumber("buffer", buffer);
  const bufferOf = (perLane: number): number => given ?? Math.max(perLane * lanes, (size ?? 0) * chunksInFlight);
  return {
    task,
    open: opener(items),
    isAsync: typeof (items as Partial<AsyncIterable<unknown>>)[Symbol.asyncIterator] === "function",
    array: isSliceable(items) ? items : undefined,
    chunkSize: size,
    buffer: bufferOf(BUFFER_PER_LANE),
    bufferOfNumbers: bufferOf(ArrayBuffer.isView(items) ? NUMBERS_PER_LANE : BUFFER_PER_LANE),
    mostAhead: given === undefined ? MOST_AHEAD : Infinity,
    chunksInFlight,
    ordered: checks.boolean("ordered", ordered),
    settled: checks.boolean("settled", settled),
    timeout: checks.milliseconds("timeout", timeout, { infinite: true }),
    retries,
    // Results that were held back would be lost with an item that is stopped.
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
 * Iterates a stream as that does by itself, but without waiting, when it is ended, for an item that it is about to give: it may give none,
 * and has to hear of the end.
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
      // The stream may have ended without anybody having seen that.
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

/** Outcomes of consecutive items. */
interface Block {
  /** The results; anything in the place of one that failed. */
  values: ArrayLike<unknown>;
  /** The errors, by index in the block. */
  errors: Map<number, unknown> | undefined;
}

/**
 * So many numbers are cheaper to send in a typed array, and so many results are worth memory of their own: for fewer, making that takes
 * longer than it saves.
 */
const WORTH_PACKING = 16;

function packed(items: ArrayLike<unknown>): ArrayLike<unknown> {
  if (!Array.isArray(items) || items.length < WORTH_PACKING) return items;
  for (let i = 0; i < items.length; i++) if (typeof items[i] !== "number") return items;
  return new Float64Array(items);
}

/** About how many bytes a message takes for one of these values. */
function averageSize(values: ArrayLike<unknown>): number {
  if (values.length === 0 || ArrayBuffer.isView(values)) return 8;
  try {
    const size = sizeOf(values, 3) / values.length;
    // A proxy may say anything, or throw.
    return size > 0 && size < Infinity ? size : 8;
  } catch {
    return 8;
  }
}

/**
 * About how many bytes a message takes for a value, as far as that can be told at a glance: of texts, buffers, and lists and objects of
 * those. No getter is asked.
 */
function sizeOf(value: unknown, depth: number): number {
  if (typeof value === "string") return value.length;
  if (typeof value !== "object" || value === null) return 8;
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return Number(value.byteLength);
  const isList = Array.isArray(value);
  if (depth === 0) return isList ? 8 * value.length : 8;
  const keys = isList ? value : Object.keys(value);
  const { length } = keys;
  const looks = Math.min(length, isList ? LOOKS_AT_LIST : LOOKS_AT_OBJECT);
  let size = 0;
  for (let i = 0; i < looks; i++) {
    const at = Math.floor(i * length / looks);
    size += sizeOf(Object.getOwnPropertyDescriptor(value, isList ? at : keys[at])?.value, depth - 1);
  }
  return 8 + (looks === 0 ? 0 : size * length / looks);
}

/** A block of so many failures of one kind. */
function failures(errors: unknown[]): Block {
  return { values: new Array(errors.length), errors: new Map(errors.entries()) };
}

interface ChunkOptions {
  func: Task | TaskRef;
  timeout: number;
  retries: number;
  eager: boolean;
  firstIndex: number;
  listener: ChunkListener;
}

/** An array or a typed array. */
interface Sliceable extends ArrayLike<unknown> {
  slice(from: number, to: number): Sliceable;
}

/** Whether items can be read many at a time, as iterating them does nothing else. */
function isSliceable(items: unknown): items is Sliceable {
  const isArray = Array.isArray(items);
  if (!isArray && !ArrayBuffer.isView(items)) return false;
  const plain = isArray ? Array.prototype : Uint8Array.prototype;
  const { slice, constructor, [Symbol.iterator]: iterate } = items as Partial<typeof plain> & object;
  // The constructor makes the slice: a class of somebody's own takes what it likes, and node's Buffer gives a view of all its memory.
  const isPlatforms = isArray
    ? constructor === Array
    : typeof constructor === "function" && Object.getPrototypeOf(constructor) === Object.getPrototypeOf(Uint8Array);
  return isPlatforms && slice === plain.slice && iterate === plain[Symbol.iterator];
}

/** Some items of a map that travel together: one ticket, one permit. */
export class Chunk extends Ticket {
  readonly func: Task | TaskRef;
  /** The index of its first item in the input. */
  readonly id: number;
  readonly onDone = undefined;
  readonly mereArgs = undefined;
  readonly timeout: number;
  #retries: number;
  /** What came of earlier runs of the item that is next. */
  #failures: unknown[] = [];
  #eager: boolean;
  #items: Sliceable;
  /** How many of the first items have their outcome. */
  #settledItems = 0;
  /** Those that cannot be sent, and why. */
  #unsendable = new Map<number, unknown>();
  /** Whether the items are copies, of which it is known that they can be sent. */
  #copied = false;
  /**
   * Whether its items are sent one by one, as a worker has died when it read them, or as they cannot be sent together: so the one that is
   * to blame fails alone.
   */
  #oneByOne = false;
  #listener: ChunkListener;
  #counted = { finished: 0, failed: 0 };
  /** Where the worker that has the chunk puts results that are numbers, by the index of their item. */
  #numbers: Float64Array<SharedArrayBuffer> | undefined;
  /** Of which items those are, as {@linkcode NUMBERS} says. */
  #bounds: Int32Array<SharedArrayBuffer> | undefined;

  constructor(items: Sliceable, { func, timeout, retries, eager, firstIndex, listener }: ChunkOptions) {
    super(undefined);
    this.func = func;
    this.timeout = timeout;
    this.#retries = retries;
    this.#eager = eager;
    this.id = firstIndex;
    this.#items = items;
    this.#listener = listener;
  }

  get attempt(): number {
    return this.#failures.length + 1;
  }

  message(run: number, task: TaskMessage): RunMessage {
    this.#oneByOne ||= this.unread > 0;
    const from = this.#settledItems;
    const end = this.#oneByOne ? this.#nextOne() + 1 : this.#items.length;
    let items = end - from === this.#items.length ? this.#items : this.#items.slice(from, end);
    const skip: number[] = [];
    if (this.#unsendable.size > 0) {
      items = Array.from(items, (item, i) => this.#unsendable.has(from + i) ? void skip.push(from + i) : item);
    }
    const { id, attempt, timeout } = this;
    const timed = timeout !== Infinity;
    // New memory for each run: a worker that could not be stopped may go on with that of the last one.
    const numbers = this.#eager && items.length >= WORTH_PACKING
      ? new SharedArrayBuffer(NUMBERS + Float64Array.BYTES_PER_ELEMENT * this.#items.length)
      : undefined;
    this.#numbers = numbers && new Float64Array(numbers, NUMBERS);
    this.#bounds = numbers && new Int32Array(numbers, 0, 2).fill(from);
    return { type: "chunk", run, task, id, attempt, items: packed(items), from, skip, eager: this.#eager, timed, numbers };
  }

  /** The next item that can be sent, or else the last: those before it have their outcome, or an error instead. */
  #nextOne(): number {
    let next = this.#settledItems;
    while (next < this.#items.length - 1 && this.#unsendable.has(next)) next++;
    return next;
  }

  answered(answer: Answer, decode: Decode): Outcome<unknown> | undefined {
    const { from, values, thrown, last, elapsed } = answer as ItemsMessage;
    if (values !== undefined) {
      // What lies between is in memory: all else comes by messages, in order.
      if (from > this.#settledItems) this.#deliverNumbers(from);
      const errors = thrown.length === 0 ? undefined : new Map(thrown.map(([index, error]) => [index - from, decode(error)]));
      this.#deliver({ values, errors });
    }
    this.collect();
    if (!last) return undefined;
    if (this.#oneByOne) return this.#throughOrNot();
    this.#listener.took({ elapsed, count: this.#settledItems, items: this.#items, results: values });
    return { state: "finished", value: undefined };
  }

  /** Whether its worker, when it has one, may put numbers into memory. */
  get mayHaveNumbers(): boolean {
    return this.#eager && this.#items.length >= WORTH_PACKING;
  }

  /** Takes the numbers that the worker has put into memory by now. */
  collect(): void {
    if (this.#bounds === undefined) return;
    const to = Atomics.load(this.#bounds, 1);
    if (to > this.#settledItems && Atomics.load(this.#bounds, 0) <= this.#settledItems) this.#deliverNumbers(to);
  }

  #deliverNumbers(to: number): void {
    // Without memory there can be no gap, unless a task has put something else in the place of the platform's lists.
    if (this.#numbers === undefined) {
      return this.#deliver(failures(new Array(to - this.#settledItems).fill(new Error("The worker has lost what came of this item"))));
    }
    this.#deliver({ values: this.#numbers.slice(this.#settledItems, to), errors: undefined });
  }

  isAt(item: number): boolean {
    // Of a chunk whose map has ended nobody wants to know more.
    return item === NO_MORE || this.#arrived() === item - 1;
  }

  override hasUnread(item: number): boolean {
    // Results that are not sent at once stay with the worker for as long as the next item takes.
    return this.#eager && item !== NO_MORE && this.#arrived() < item - 1;
  }

  /** How many items have been settled, or will be with the next that is. */
  #arrived(): number {
    this.collect();
    let settled = this.#settledItems;
    // Those that the worker was not sent settle with the next result.
    while (this.#unsendable.has(settled)) settled++;
    return settled;
  }

  idOf(item: number): number {
    return item === NO_MORE ? this.id : this.id + item - 1;
  }

  /** How many items it has. */
  get size(): number {
    return this.#items.length;
  }

  countItems({ state }: Outcome<unknown>, record: JobRecord): void {
    this.collect();
    const rest = this.#items.length - this.#settledItems;
    record.finished = this.#counted.finished;
    record.failed = this.#counted.failed + (state === "failed" ? rest : 0);
    record.cancelled = state === "failed" ? 0 : rest;
  }

  refused(error: unknown): Outcome<unknown> | undefined {
    if (this.#copied) return this.#refusedAgain(error);
    this.#copied = true;
    this.#items = Array.from(this.#items, (item, i) => {
      try {
        // Within a list, as in the message: by itself Deno refuses some that it copies there.
        return structuredClone([item])[0];
      } catch (reason) {
        this.#unsendable.set(i, this.unsendable(reason, i + 1));
        return item;
      }
    });
    return undefined;
  }

  /** Each item can be copied by itself, but all together may be too large for a message, or one too deep within it. */
  #refusedAgain(error: unknown): Outcome<unknown> | undefined {
    const next = this.#nextOne();
    if (this.#unsendable.has(next)) return { state: "failed", error };
    if (this.#oneByOne) this.#unsendable.set(next, this.unsendable(error, next + 1));
    this.#oneByOne = true;
    return undefined;
  }

  lostUnread(errorOf: ErrorOf): Outcome<unknown> | undefined {
    const next = this.#nextOne();
    const error = listCauses(errorOf(this.id + next, this.attempt - 1), this.#failures);
    // Those before it have errors of their own.
    this.#deliver(failures(new Array(next + 1 - this.#settledItems).fill(error)));
    return this.#throughOrNot();
  }

  lost(errorOf: ErrorOf, nextItem: number): Outcome<unknown> | undefined {
    this.collect();
    this.#bounds = undefined;
    const errors: unknown[] = [];
    // Those of the first item: no other has run before.
    let earlier = this.#failures;
    for (let i = this.#settledItems; i < nextItem; i++) {
      const error = errorOf(this.id + i, earlier.length + 1);
      // The last of these items is the one that ran.
      if (i === nextItem - 1 && isDeath(error) && earlier.length < this.#retries) earlier.push(error);
      else {
        errors.push(listCauses(error, earlier));
        earlier = [];
      }
    }
    this.#deliver(failures(errors));
    this.#failures = earlier;
    return this.#throughOrNot();
  }

  /** The outcome, if there is nothing more to be run. */
  #throughOrNot(): Outcome<unknown> | undefined {
    const through = this.#settledItems === this.#items.length || this.#listener.ended;
    return through ? { state: "finished", value: undefined } : undefined;
  }

  settle(outcome: Outcome<unknown>, counts: SettledCounts): void {
    this.collect();
    const rest = this.#items.length - this.#settledItems;
    counts.finished += this.#counted.finished;
    counts.failed += this.#counted.failed;
    if (outcome.state === "failed") counts.failed += rest;
    else counts.cancelled += rest;
    if (outcome.state !== "finished") {
      this.#listener.outcomes(this, failures(new Array(rest).fill(outcome.error)));
    }
    this.#listener.settled(this);
  }

  callBack(): void {}

  #deliver(block: Block): void {
    const { length } = block.values;
    if (length > 0) {
      this.#failures = [];
      if (this.unread > 0) this.unread = 0;
    }
    // Looked up by item, as of many that cannot be sent few are in a block, and there may be many blocks.
    for (let index = 0; this.#unsendable.size > 0 && index < length; index++) {
      const i = this.#settledItems + index;
      if (this.#unsendable.has(i)) (block.errors ??= new Map()).set(index, this.#unsendable.get(i));
    }
    if (this.observed !== undefined) {
      for (const error of block.errors?.values() ?? []) if (error instanceof JobTimeoutError) this.observed.timedOut++;
    }
    const failed = block.errors?.size ?? 0;
    this.#counted.failed += failed;
    this.#counted.finished += length - failed;
    this.#settledItems += length;
    this.#listener.outcomes(this, block);
  }
}

/** What a worker has done of a chunk. */
interface ChunkWork {
  /** How long it took, in ms, and for how many items. */
  elapsed: number;
  count: number;
  items: ArrayLike<unknown>;
  /** The latest results; undefined if they were in memory. */
  results: ArrayLike<unknown> | undefined;
}

/** What a chunk tells its map. */
export interface ChunkListener {
  /** Whether nobody wants outcomes any more. */
  readonly ended: boolean;
  /** The next outcomes of a chunk, in the order of its items. */
  outcomes(chunk: Chunk, block: Block): void;
  took(work: ChunkWork): void;
  settled(chunk: Chunk): void;
}

type Result = IteratorResult<unknown, undefined>;

/** Somebody who waits for an outcome, or for all that there are. */
interface Consumer {
  wantsAll: boolean;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

/**
 * One call of `map`. A loop of its own, the pump, reads the input and submits chunks as long as the consumer is not too far behind; the
 * consumer takes what is ready or waits for it.
 */
export class MapRun implements MapResults<unknown>, ChunkListener {
  #host: MapHost;
  #options: ResolvedMapOptions;
  #source: AsyncIterator<unknown> | Iterator<unknown> | undefined;
  /** The chunks in flight, in the order of their items, and what has come of each. */
  #chunks = new Map<Chunk, { blocks: Block[]; over: boolean }>();
  /** What the consumer gets next: the rest of a block, from an index, and then others. */
  #block: Block | undefined;
  #index = 0;
  #ready = new Queue<Block>();
  /** How many items these blocks have, with those of the first that were taken. */
  #readyItems = 0;
  #consumers = new Queue<Consumer>();
  #read = 0;
  #consumed = 0;
  #inFlight = 0;
  #chunkSize: number;
  /** How far ahead is read at the most. */
  #buffer: number;
  /** About how many bytes an item has lately, or its result. */
  #itemSize = 0;
  /** `ending` when no chunk will be submitted any more; `ended` when the consumer has nothing more to get. */
  #state: "new" | "reading" | "ending" | "ended" = "new";
  /** What is thrown after the last outcome, and whether it is the input's own. */
  #failure: { error: unknown; ofInput?: boolean } | undefined;
  /** The item that the input is about to give, or has given when nobody waited for it any more. */
  #pulled: Promise<IteratorResult<unknown>> | IteratorResult<unknown> | undefined;
  #sourceEnded = false;
  /**
   * Whether an array is read item by item, as there was no slice of it: trying that again for each chunk would ask many times for items
   * that take long.
   */
  #itemByItem = false;
  #wakePump: () => void = () => {};
  #looks: Rounds;
  /** Aborts when the loop has ended, so that a chunk which waits at the gate leaves it. */
  #over = new AbortController();
  #stopListening: () => void = () => {};

  constructor(host: MapHost, options: ResolvedMapOptions) {
    this.#host = host;
    this.#options = options;
    this.#buffer = options.buffer;
    this.#chunkSize = Math.min(options.chunkSize ?? 1, options.buffer);
    this.#looks = new Rounds(host.clock, LOOK_EVERY, () => this.#look());
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Result> {
    if (this.#block !== undefined && this.#block.errors === undefined && this.#consumers.size === 0) {
      return Promise.resolve({ done: false, value: this.#takeValue(this.#block) });
    }
    return this.#wait(false);
  }

  /** The same outcomes, as many at a time as there are. */
  chunks(): AsyncIterableIterator<ArrayLike<unknown>> {
    const chunks = {
      [Symbol.asyncIterator]: () => chunks,
      next: () => this.#wait(true) as Promise<IteratorResult<ArrayLike<unknown>, undefined>>,
      return: () => this.return(),
    };
    return chunks;
  }

  #wait(wantsAll: boolean): Promise<Result> {
    if (this.#state === "new") this.#start();
    return new Promise((resolve, reject) => {
      this.#consumers.push({ wantsAll, resolve, reject });
      this.#serve();
    });
  }

  /** Ends the loop early. It waits for the input to be closed, unless that is still about to give an item. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#dropFailure();
    this.#finish();
    await this.#closeSource();
    return { done: true, value: undefined };
  }

  /**
   * The pool takes no chunks any more: no more is read, nor is an item waited for that the input is about to give. What is under way comes
   * first, then this is thrown.
   */
  refused(error: unknown): void {
    if (this.#state !== "reading") return;
    this.#dropFailure();
    this.#failure = { error };
    this.#state = "ending";
    this.#host.goesOn(this);
    this.#closeSource().catch((error) => this.#host.report(error));
    this.#serve();
  }

  // What chunks tell

  get ended(): boolean {
    return this.#state === "ended";
  }

  outcomes(chunk: Chunk, block: Block): void {
    if (this.#state === "ended" || block.values.length === 0) return;
    this.#setBuffer(block.values instanceof Float64Array);
    if (this.#options.ordered) {
      this.#chunks.get(chunk)!.blocks.push(block);
      this.#advance();
    } else this.#makeReady(block);
    this.#serve();
  }

  #setBuffer(ofNumbers: boolean): void {
    const { buffer, bufferOfNumbers, chunkSize } = this.#options;
    this.#buffer = ofNumbers ? bufferOfNumbers : buffer;
    // Else there might never be room for a chunk again, and only a chunk tells how large the next one is to be.
    if (chunkSize === undefined) this.#chunkSize = Math.min(this.#chunkSize, this.#largestChunk);
  }

  /** How many items an automatic chunk has at the most, so that as many chunks fit into the buffer as are to be in flight. */
  get #largestChunk(): number {
    return Math.max(1, Math.floor(this.#buffer / this.#options.chunksInFlight));
  }

  took({ elapsed, count, items, results }: ChunkWork): void {
    if (count === 0) return;
    const size = Math.max(averageSize(items), averageSize(results ?? []));
    this.#itemSize = Math.max(size, this.#itemSize * SIZE_MEMORY);
    if (this.#options.chunkSize !== undefined) return;
    const isEager = this.#options.eager && results !== undefined;
    const largest = Math.min(this.#largestChunk, LARGEST_SIZE / size, isEager ? LARGEST_EAGER : Infinity);
    const wanted = Math.min(CHUNK_TIME * count / elapsed, this.#chunkSize * CHUNK_GROWTH, largest);
    this.#chunkSize = Math.max(1, Math.floor(wanted));
  }

  settled(chunk: Chunk): void {
    this.#inFlight--;
    this.#chunks.get(chunk)!.over = true;
    if (this.ended || !this.#options.ordered) this.#chunks.delete(chunk);
    if (this.ended) return;
    this.#advance();
    this.#serve();
    this.#wakePump();
  }

  /** Has outcomes ready in the order of the items: those of the first chunk, and of the next only when that is over. */
  #advance(): void {
    for (const [chunk, { blocks, over }] of this.#chunks) {
      for (const block of blocks.splice(0)) this.#makeReady(block);
      if (!over) return;
      this.#chunks.delete(chunk);
    }
  }

  #makeReady(block: Block): void {
    this.#readyItems += block.values.length;
    if (this.#block === undefined) this.#block = block;
    else this.#ready.push(block);
  }

  // The consumer's side

  #serve(): void {
    while (this.#consumers.size > 0) {
      if (this.#block !== undefined) this.#give(this.#block);
      else if (this.#state === "ending" && this.#chunks.size === 0) this.#finish();
      else if (this.#state === "ended") this.#giveEnd();
      else return this.#expectNumbers();
    }
  }

  /** Looks for numbers now and then, if somebody may be waiting for them. */
  #expectNumbers(): void {
    if (this.#options.eager && this.#mayHaveNumbers()) this.#looks.begin();
  }

  #mayHaveNumbers(): boolean {
    return this.#consumers.size > 0 && this.#chunks.keys().some((chunk) => chunk.mayHaveNumbers);
  }

  /** Takes the numbers that are in memory. Whether there may be more that somebody waits for. */
  #look(): boolean {
    for (const chunk of this.#chunks.keys()) chunk.collect();
    return this.#mayHaveNumbers();
  }

  #give(block: Block): void {
    const { wantsAll, resolve, reject } = this.#consumers.shift()!;
    const { errors } = block;
    const { settled } = this.#options;
    if (!settled && errors?.has(this.#index)) {
      const error = errors.get(this.#index);
      this.#abandon(undefined);
      return reject(error);
    }
    resolve({ done: false, value: wantsAll ? this.#takeAll(block) : this.#takeValue(block) });
  }

  /** The next value, or its outcome: of a block where the next has not failed, or with `settled`. */
  #takeValue(block: Block): unknown {
    const index = this.#index;
    this.#skip(block, 1);
    return this.#options.settled ? outcomeAt(block, index) : block.values[index];
  }

  /** All values up to the next that has failed, or all outcomes. */
  #takeAll(block: Block): ArrayLike<unknown> {
    const { values, errors } = block;
    const index = this.#index;
    const end = this.#options.settled || errors === undefined
      ? values.length
      : Math.min(...[...errors.keys()].filter((i) => i > index), values.length);
    this.#skip(block, end - index);
    if (this.#options.settled) return Array.from({ length: end - index }, (_, i) => outcomeAt(block, index + i));
    if (index === 0 && end === values.length) return values;
    return values instanceof Float64Array ? values.slice(index, end) : Array.prototype.slice.call(values, index, end);
  }

  /** So many of a block are consumed. */
  #skip({ values: { length } }: Block, count: number): void {
    this.#index += count;
    if (this.#index < length) return;
    this.#block = this.#ready.shift();
    this.#index = 0;
    this.#consumed += length;
    this.#readyItems -= length;
    this.#wakePump();
  }

  #giveEnd(): void {
    const consumer = this.#consumers.shift()!;
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure === undefined) consumer.resolve({ done: true, value: undefined });
    else consumer.reject(failure.error);
  }

  /** Ends the loop although the input has not ended. */
  #abandon(failure: { error: unknown } | undefined, { force = false } = {}): void {
    this.#dropFailure();
    this.#failure = failure;
    this.#finish(force);
    Promise.resolve().then(() => this.#closeSource()).catch((error) => this.#host.report(error));
  }

  /**
   * Drops what was to be thrown after the last outcome, to which the loop does not come. What its input has thrown is reported through the
   * pool.
   */
  #dropFailure(): void {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure?.ofInput) this.#reportSoon(failure.error);
  }

  /** Not at once: the pool may be settling jobs, and what is called then may ask about any of them. */
  #reportSoon(error: unknown): void {
    queueMicrotask(() => this.#host.report(error));
  }

  /** `force` ends items that run as well. */
  #finish(force = false): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#host.goesOn(this);
    this.#looks.end();
    this.#stopListening();
    this.#ready.clear();
    this.#block = undefined;
    const reason = new DOMException("The loop over the map has ended", "AbortError");
    this.#over.abort(reason);
    // Not at once: an outcome may have ended the loop, and while a pool settles several tickets they are in neither queue nor slot.
    queueMicrotask(() => {
      for (const chunk of this.#chunks.keys()) this.#host.cancel(chunk, reason, force);
    });
    this.#wakePump();
    this.#serve();
  }

  // The pump

  #start(): void {
    const { signal } = this.#options;
    this.#state = "reading";
    if (signal?.aborted) return this.#abandon({ error: signal.reason });
    // First, as to open the input may abort it.
    this.#stopListening = onAbort(signal, () => this.#abandon({ error: signal!.reason }, { force: true }));
    try {
      this.#source = this.#options.open();
    } catch (error) {
      return this.#abandon({ error });
    }
    this.#pump();
  }

  async #pump(): Promise<void> {
    try {
      while (this.#state === "reading" && !this.#sourceEnded) {
        if (this.#hasRoom()) await this.#submitChunk();
        else await new Promise<void>((resolve) => this.#wakePump = resolve);
      }
    } catch (error) {
      // The chunk was not admitted any more. What was read is dropped with it.
      this.refused(error);
    }
    // Not earlier: the last chunk may have waited at the gate until now.
    if (this.#state === "reading") this.#state = "ending";
    this.#serve();
  }

  /** Whether another chunk may be read: the consumer is not too far behind, and neither are the workers. */
  #hasRoom(): boolean {
    const { chunksInFlight, mostAhead } = this.#options;
    // Large items in flight to many workers may have all of those bytes; with no others read, these would stand idle behind each that takes a
    // little longer.
    const rounds = Math.max(this.#chunkSize, READY_ROUNDS * Math.min(this.#chunkSize, LARGEST_SIZE / this.#itemSize));
    const buffer = Math.min(this.#buffer, Math.max(mostAhead / this.#itemSize, chunksInFlight * rounds));
    const unread = buffer - (this.#read - this.#consumed);
    const unfetched = READY_ROUNDS * chunksInFlight * this.#chunkSize - this.#readyItems;
    return Math.min(unread, unfetched) >= this.#chunkSize && this.#inFlight < chunksInFlight;
  }

  async #submitChunk(): Promise<void> {
    const { clock } = this.#host;
    const began = clock.now();
    const items = await this.#readChunk();
    const isSlow = clock.now() - began >= CHUNK_PATIENCE;
    if (items.length === 0 || this.#state !== "reading") return;
    await this.#host.acquire(this.#over.signal);
    if (this.ended) return this.#host.release();
    const { task: func, timeout, retries, eager } = this.#options;
    const chunk = new Chunk(items, { func, timeout, retries, eager, firstIndex: this.#read - items.length, listener: this });
    this.#chunks.set(chunk, { blocks: [], over: false });
    this.#inFlight++;
    try {
      this.#host.admit(chunk);
    } catch (error) {
      this.#chunks.delete(chunk);
      throw error;
    }
    this.#expectNumbers();
    // An input that computes its items would else let nothing through but the answers of workers: neither timers nor sockets nor signals.
    if (isSlow) await new Promise<void>((resolve) => clock.soon(resolve));
  }

  /** Reads the items of the next chunk; there are none when the input has ended. */
  #readChunk(): Sliceable | Promise<Sliceable> {
    const { array } = this.#options;
    // Where the pool takes no chunks any more, one item tells whether the input has ended.
    const isOpen = this.#host.refusal() === undefined;
    if (array === undefined) return this.#readItems(isOpen);
    const most = isOpen ? this.#chunkSize : 1;
    return (this.#itemByItem ? undefined : this.#readSlice(array, most)) ?? this.#readItemByItem(array, most);
  }

  async #readItems(isOpen: boolean): Promise<unknown[]> {
    const items: unknown[] = [];
    const pace = this.#newPace();
    let patience: Patience | undefined;
    try {
      // How large the chunk is to be may change while an item is waited for.
      while (items.length < (isOpen ? this.#chunkSize : 1) && this.#state === "reading") {
        let result = this.#pull();
        if (result instanceof Promise) {
          const refusal = this.#host.refusal();
          if (refusal !== undefined || items.length > 0 && this.#options.chunkSize === undefined) {
            patience ??= startPatience(this.#host.clock);
            if (await Promise.race([result, patience.over]) === OVER) {
              if (refusal !== undefined) this.refused(refusal);
              this.#keepWhenGiven(result);
              break;
            }
          }
          this.#host.waits(this);
          result = await result;
          this.#host.goesOn(this);
          this.#pulled = undefined;
        }
        if (Object(result) !== result) {
          throw new TypeError(`Cannot read input as its next() must give an object: current value is ${show(result)}`);
        }
        if (result.done) {
          this.#sourceEnded = true;
          break;
        }
        const count = items.push(result.value);
        this.#read++;
        if (count === pace?.nextLook && pace.isSlow(count)) break;
      }
    } catch (error) {
      this.#host.goesOn(this);
      this.#readingFailed(error);
    }
    patience?.end();
    return items;
  }

  /** Undefined if an array is to be read item by item. */
  #readSlice(array: Sliceable, most: number): Sliceable | undefined {
    let items: Sliceable;
    try {
      items = array.slice(this.#read, this.#read + most);
    } catch (error) {
      if (!Array.isArray(array)) throw error;
      // There may be others before the item that throws.
      return undefined;
    }
    // A proxy may make up its items when it is asked for them. For a slice it is asked first whether it has them, so that they may be
    // holes.
    if (Array.isArray(items) && items.includes(undefined)) return undefined;
    this.#read += items.length;
    if (items.length === 0) this.#sourceEnded = true;
    return items;
  }

  #readItemByItem(array: Sliceable, most: number): unknown[] {
    this.#itemByItem = true;
    const items: unknown[] = [];
    const pace = this.#newPace();
    try {
      while (items.length < most && this.#state === "reading") {
        if (this.#read >= array.length) {
          this.#sourceEnded = true;
          break;
        }
        const count = items.push(array[this.#read]);
        this.#read++;
        if (count === pace?.nextLook && pace.isSlow(count)) break;
      }
    } catch (error) {
      this.#readingFailed(error);
    }
    return items;
  }

  /** Of chunks whose size is given, none is cut short. */
  #newPace(): Pace | undefined {
    return this.#options.chunkSize === undefined ? new Pace(this.#host.clock) : undefined;
  }

  /** The input has thrown something. */
  #readingFailed(error: unknown): void {
    // What closes the input tells of that which it was about to give.
    if (this.#state !== "reading" && this.#pulled !== undefined) return;
    this.#sourceEnded = true;
    // It stands behind what was read before it; but what the input has done may have ended the loop for another reason.
    if (this.#state === "reading") this.#failure = { error, ofInput: true };
    else this.#reportSoon(error);
  }

  /** The input's next result, or the promise of it if one is under way already. */
  #pull(): IteratorResult<unknown> | Promise<IteratorResult<unknown>> {
    const earlier = this.#pulled;
    if (earlier !== undefined) {
      if (!(earlier instanceof Promise)) this.#pulled = undefined;
      return earlier;
    }
    const result = this.#source!.next();
    if (!this.#options.isAsync) return result as IteratorResult<unknown>;
    const pulled = Promise.resolve(result);
    // If the input was closed within next(), nobody who closed it hears of this.
    if (!this.#sourceEnded) this.#pulled = pulled;
    return pulled;
  }

  /** There may be no room for it for long: an input that has given its item is not about to give one, and is closed as any other. */
  #keepWhenGiven(pulled: Promise<IteratorResult<unknown>>): void {
    const keep = (result: IteratorResult<unknown>): void => {
      if (this.#pulled === pulled) this.#pulled = result;
    };
    // What it throws is told to whoever takes it, or by what closes the input.
    pulled.then(keep, () => {});
  }

  /** Tells the input that no more is wanted of it. One that is about to give an item ends after that; it is not waited for. */
  async #closeSource(): Promise<void> {
    if (this.#sourceEnded) return;
    this.#sourceEnded = true;
    const closed = Promise.try(() => this.#source?.return?.());
    if (!(this.#pulled instanceof Promise)) return void await closed;
    // Nobody else hears how these end.
    for (const outcome of [closed, this.#pulled]) outcome.catch((error) => this.#host.report(error));
  }
}

function outcomeAt({ values, errors }: Block, index: number): PromiseSettledResult<unknown> {
  return errors?.has(index) ? { status: "rejected", reason: errors.get(index) } : { status: "fulfilled", value: values[index] };
}

/** Tells whether the items of an automatic chunk come so slowly that it is to have no more. */
class Pace {
  /** When there are so many items, {@linkcode Pace.isSlow} is to be asked. */
  nextLook = 1;
  #clock: Clock;
  #began = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  isSlow(count: number): boolean {
    const now = this.#clock.now();
    if (count === 1) this.#began = now;
    this.nextLook = count + Math.min(count, ITEMS_A_LOOK);
    return now - this.#began >= CHUNK_PATIENCE;
  }
}

const OVER = Symbol("over");

interface Patience {
  over: Promise<typeof OVER>;
  end(): void;
}

function startPatience(clock: Clock): Patience {
  const { promise, resolve } = Promise.withResolvers<typeof OVER>();
  const end = clock.after(CHUNK_PATIENCE, () => resolve(OVER));
  return { over: promise, end };
}
