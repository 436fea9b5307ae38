import { currentJob, type MapOptions, ProcessPool } from "@procpool/process-pool";
import { Checks, show } from "@procpool/process-pool/executor";
import { LARGEST_CHUNK } from "./envelope.ts";
import { type Json, sizeOf } from "./values.ts";

/** Items that travel together, or one that cannot travel, and why. */
export interface Chunk {
  /** The index of the first item in the input. */
  first: number;
  items: Json[];
  /** Whether it is a single item that is too large for Redis. */
  large: boolean;
  unsendable: { error: unknown } | undefined;
}

/** The outcomes of a chunk, only of its first items if not all fit into one reply, and how long a worker took for it, in ms. */
export interface ChunkOutcomes {
  outcomes: PromiseSettledResult<unknown>[];
  elapsed: number;
}

/** How a chunk is run. */
export interface RunOptions {
  timeout: number | undefined;
  signal: AbortSignal;
  /** Whether it is the rest of a chunk that was admitted before. */
  isRest: boolean;
}

/** What a map needs of its pool. */
export interface MapHost {
  /** How many chunks may be in flight. */
  chunksInFlight: number;
  /** Resolves when it is known which task to run. */
  prepare(): Promise<void>;
  /** Encodes an item in JSON, and tells whether that is too large for Redis; throws if it cannot travel. */
  encode(item: unknown): { json: Json; large: boolean };
  /** Called before a chunk first runs. What it returns is disposed of when all items have outcomes, or the chunk is given up. */
  begin(): Disposable;
  /** Runs a chunk somewhere. Errors of items are in the outcomes; items without an outcome are to be run again. */
  run(chunk: Chunk, options: RunOptions): Promise<ChunkOutcomes>;
  /** Reports an error that nobody else handles. */
  report(error: unknown): void;
}

/**
 * How long an automatic chunk should take, in ms. Less, and Redis is busier than the workers; more, and a host that dies costs more work.
 */
const CHUNK_TIME = 500;

/**
 * An automatic chunk is at most this many times as large as the last: the first items may be unlike the others. Less, and it takes more
 * chunks to find the size.
 */
const CHUNK_GROWTH = 8;

/**
 * A chunk may have this many times as many items as the last one whose results filled a reply. More, and more items are run twice; less,
 * and a few large results make chunks small for longer.
 */
const FIT_GROWTH = 9 / 8;

/** How long an automatic chunk waits for a slow input, in ms: longer delays results, shorter sends smaller chunks. */
const CHUNK_PATIENCE = 20;

/** Items read ahead, for each chunk that may be in flight: the size of the largest automatic chunk. More only hold memory. */
const BUFFER_PER_CHUNK = 64;

const OPTIONS = ["chunkSize", "buffer", "ordered", "settled", "timeout", "signal"] as const;

type Items = Iterable<unknown> | AsyncIterable<unknown>;

/**
 * One call of `map`. The chunks are the items of a map of the core, on its backend `inline`: each of its workers waits for a chunk which
 * runs elsewhere. So the core does order, early ends and signals; this only makes chunks, and reads no more than `buffer` items ahead.
 */
export function mapChunks(host: MapHost, items: Items, options: MapOptions): AsyncIterableIterator<unknown> {
  const checks = new Checks("map");
  const { chunkSize = "auto", buffer, ordered = true, settled = false, timeout, signal } = checks.options(options, OPTIONS);
  const fixed = chunkSize === "auto" ? undefined : checks.wholeNumber("chunkSize", chunkSize, { or: '"auto"' });
  const most = buffer === undefined ? host.chunksInFlight * Math.max(BUFFER_PER_CHUNK, fixed ?? 0) : checks.wholeNumber("buffer", buffer);
  checks.boolean("ordered", ordered);
  checks.boolean("settled", settled);
  if (timeout !== undefined) checks.milliseconds("timeout", timeout, { infinite: true });
  if (signal !== undefined) checks.signal("signal", signal);
  const open = opener(items);

  const input = new Chunks(open, host, { fixed, buffer: most });
  let chunks: AsyncIterableIterator<PromiseSettledResult<unknown>[]> | undefined;
  const loop = run();
  const end = loop.return.bind(loop);
  // A generator ends only after an item that was requested before, which may never come: its input may even wait for this end.
  loop.return = async () => {
    try {
      await chunks?.return?.();
    } finally {
      await end(undefined);
    }
    return { done: true, value: undefined };
  };
  return loop;

  async function* run(): AsyncGenerator<unknown, undefined> {
    const waiters = new ProcessPool({ backend: "inline", maxWorkers: host.chunksInFlight, onError: (error) => host.report(error) });
    const runChunk = (chunk: Chunk): Promise<PromiseSettledResult<unknown>[]> =>
      input.run(chunk, { timeout, signal: currentJob()!.signal });
    let failed = false;
    try {
      chunks = waiters.map(runChunk, input.read(), { chunkSize: 1, buffer: 2 * host.chunksInFlight, ordered, signal });
      for await (const outcomes of chunks) {
        for (const outcome of outcomes) {
          input.consumed();
          if (settled) yield outcome;
          else if (outcome.status === "fulfilled") yield outcome.value;
          else throw outcome.reason;
        }
      }
    } catch (error) {
      failed = true;
      throw error;
    } finally {
      const closed = input.end();
      await waiters.terminate();
      // Code that leaves the loop must find the input closed. An error does not wait for that.
      if (!failed) await closed;
    }
    return undefined;
  }
}

function opener(items: unknown): () => AsyncIterator<unknown> | Iterator<unknown> {
  const given = (items ?? {}) as AsyncIterable<unknown> & Iterable<unknown>;
  if (typeof given[Symbol.asyncIterator] === "function") return () => given[Symbol.asyncIterator]();
  if (typeof given[Symbol.iterator] === "function") return () => given[Symbol.iterator]();
  throw new TypeError(`Cannot map as the items must be iterable, an async iterable or a ReadableStream: current value is ${show(items)}`);
}

/** Makes chunks of an input, of the given size or by how long they should take. */
class Chunks {
  #open: () => AsyncIterator<unknown> | Iterator<unknown>;
  #host: MapHost;
  #fixed: number | undefined;
  #buffer: number;
  #size: number;
  /** How many items an automatic chunk may have. */
  #largest: number;
  /** How many items a chunk may have so that their results fit into one reply, as far as is known. */
  #fits = Infinity;
  #read = 0;
  #consumed = 0;
  #ended = false;
  #source: Source | undefined;
  #closed: Promise<void> | undefined;
  /** How many chunks are being run that were not refused. */
  #underWay = 0;
  /** Resolves when there are none. All that are refused share it: they may be thousands, as may those that are under way. */
  #idle: PromiseWithResolvers<void> | undefined;
  #wake: () => void = () => {};

  constructor(
    open: () => AsyncIterator<unknown> | Iterator<unknown>,
    host: MapHost,
    { fixed, buffer }: { fixed: number | undefined; buffer: number },
  ) {
    this.#open = open;
    this.#host = host;
    this.#fixed = fixed;
    this.#buffer = buffer;
    this.#size = Math.min(fixed ?? 1, buffer);
    this.#largest = Math.max(1, Math.floor(buffer / host.chunksInFlight));
  }

  /** The loop has taken an item. */
  consumed(): void {
    this.#consumed++;
    this.#wake();
  }

  /**
   * Ends reading. The input is closed here: its reader may be waiting for it. Resolves when it is closed, or at once if an item is pending.
   */
  end(): Promise<void> {
    this.#ended = true;
    this.#closed ??= this.#source?.close().catch((error) => this.#host.report(error));
    this.#wake();
    return this.#closed ?? Promise.resolve();
  }

  /** Runs a chunk. If that is no longer admitted, the input ends here, and those that were admitted come before the error. */
  async run(chunk: Chunk, options: { timeout: number | undefined; signal: AbortSignal }): Promise<PromiseSettledResult<unknown>[]> {
    if (chunk.unsendable !== undefined) return [{ status: "rejected", reason: chunk.unsendable.error }];
    this.#underWay++;
    try {
      const outcomes = await this.#runAll(chunk, options);
      this.#noLongerUnderWay();
      return outcomes;
    } catch (error) {
      this.end();
      // Others that are refused wait as well, but not for each other.
      this.#noLongerUnderWay();
      while (this.#underWay > 0) await (this.#idle ??= Promise.withResolvers()).promise;
      throw error;
    }
  }

  /** A chunk has its outcomes, or was refused. */
  #noLongerUnderWay(): void {
    if (--this.#underWay > 0) return;
    this.#idle?.resolve();
    this.#idle = undefined;
  }

  async #runAll(chunk: Chunk, options: { timeout: number | undefined; signal: AbortSignal }): Promise<PromiseSettledResult<unknown>[]> {
    const outcomes: PromiseSettledResult<unknown>[] = [];
    using _underWay = this.#host.begin();
    while (outcomes.length < chunk.items.length) {
      const done = outcomes.length;
      const items = chunk.items.slice(done, done + this.#fits);
      const answer = await this.#host.run({ ...chunk, first: chunk.first + done, items }, { ...options, isRest: done > 0 });
      outcomes.push(...answer.outcomes);
      this.#learn(items.length, answer);
    }
    return outcomes;
  }

  /** Learns from the outcomes of this many items how large chunks should be. */
  #learn(sent: number, { outcomes: { length }, elapsed }: ChunkOutcomes): void {
    if (length < sent) this.#fits = Math.min(this.#fits, length);
    // Chunks that were sent before that was known tell nothing new.
    else if (sent >= Math.floor(this.#fits)) this.#fits *= FIT_GROWTH;
    if (this.#fixed !== undefined || elapsed === 0) return;
    const wanted = Math.floor(CHUNK_TIME * length / elapsed);
    this.#size = Math.max(1, Math.min(wanted, this.#size * CHUNK_GROWTH, this.#largest, Math.floor(this.#fits)));
  }

  /** Reads the input: an item that cannot travel is a separate chunk, and a chunk that grows too large for Redis is cut short. */
  async *read(): AsyncGenerator<Chunk> {
    await this.#host.prepare();
    if (this.#ended) return;
    const source = this.#source = new Source(this.#open(), (error) => this.#host.report(error));
    let chunk: Chunk = { first: 0, items: [], large: false, unsendable: undefined };
    let size = 0;
    let bytes = 0;
    let began = 0;
    let patience: Patience | undefined;
    const next = (): Chunk => {
      patience?.end();
      patience = undefined;
      const full = chunk;
      chunk = { first: this.#read, items: [], large: false, unsendable: undefined };
      bytes = 0;
      return full;
    };
    try {
      for (;;) {
        if (chunk.items.length === 0) {
          await this.#room();
          size = this.#size;
        } else if (this.#fixed === undefined) patience ??= startPatience();
        if (this.#ended) return;
        const result = await source.pull(patience);
        if (result === LATE) {
          yield next();
          continue;
        }
        if (result.done) break;
        try {
          const { json, large } = this.#host.encode(result.value);
          const itemBytes = sizeOf(json) + 1;
          if (chunk.items.length > 0 && bytes + itemBytes > LARGEST_CHUNK) yield next();
          chunk.items.push(json);
          chunk.large = large;
          bytes += itemBytes;
        } catch (error) {
          if (chunk.items.length > 0) yield next();
          yield { first: this.#read, items: [], large: false, unsendable: { error } };
          chunk.first = this.#read + 1;
        }
        this.#read++;
        const { length } = chunk.items;
        if (length === 1) began = performance.now();
        // An input that computes its items lets no timer fire.
        const isLate = length > 1 && this.#fixed === undefined && performance.now() - began >= CHUNK_PATIENCE;
        if (length >= size || isLate) yield next();
      }
    } catch (error) {
      // Closing has reported it.
      if (this.#ended) return;
      // It comes after what was read before.
      if (chunk.items.length > 0) yield next();
      throw error;
    } finally {
      patience?.end();
      await source.close();
    }
    if (chunk.items.length > 0) yield next();
  }

  /** Resolves when a whole chunk may be read, or nothing more is wanted. */
  async #room(): Promise<void> {
    while (!this.#ended && this.#buffer - (this.#read - this.#consumed) < this.#size) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

const LATE = Symbol("late");

interface Patience {
  over: Promise<typeof LATE>;
  end(): void;
}

function startPatience(): Patience {
  const { promise, resolve } = Promise.withResolvers<typeof LATE>();
  const timer = setTimeout(() => resolve(LATE), CHUNK_PATIENCE);
  return { over: promise, end: () => clearTimeout(timer) };
}

/** An input that may be slow: after giving up waiting, the item is there the next time. */
class Source {
  #iterator: AsyncIterator<unknown> | Iterator<unknown>;
  #report: (error: unknown) => void;
  /** The next item: pending, or given when nobody waited for it any more. */
  #pulled: Promise<IteratorResult<unknown>> | IteratorResult<unknown> | undefined;
  #ended = false;

  constructor(iterator: AsyncIterator<unknown> | Iterator<unknown>, report: (error: unknown) => void) {
    this.#iterator = iterator;
    this.#report = report;
  }

  async pull(patience: Patience | undefined): Promise<IteratorResult<unknown> | typeof LATE> {
    try {
      if (this.#pulled === undefined) {
        const result = this.#iterator.next();
        if (!("then" in result)) return this.#took(result);
        this.#pulled = Promise.resolve(result);
      }
      const pulled = this.#pulled;
      const result = await (patience === undefined ? pulled : Promise.race([pulled, patience.over]));
      if (result !== LATE) return this.#took(result);
      if (pulled instanceof Promise) this.#keepWhenGiven(pulled);
      return LATE;
    } catch (error) {
      this.#ended = true;
      throw error;
    }
  }

  /** Closes the input. If an item is pending, the input ends after that, and this does not wait for it. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    const pulled = this.#pulled instanceof Promise ? this.#pulled : undefined;
    pulled?.catch((error) => this.#report(error));
    const closed = Promise.resolve(this.#iterator.return?.());
    if (pulled === undefined) await closed;
    else closed.catch((error) => this.#report(error));
  }

  /** Replaces a pending item by itself once it is given: it may be long before there is room for it. */
  #keepWhenGiven(pulled: Promise<IteratorResult<unknown>>): void {
    const keep = (result: IteratorResult<unknown>): void => {
      if (this.#pulled === pulled) this.#pulled = result;
    };
    // An error is handled by whoever takes the item, or reported by whoever closes the input.
    pulled.then(keep, () => {});
  }

  #took(result: IteratorResult<unknown>): IteratorResult<unknown> {
    this.#pulled = undefined;
    if (result.done) this.#ended = true;
    return result;
  }
}
