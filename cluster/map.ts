import { currentJob, type MapOptions, ProcessPool } from "@procpool/process-pool";
import { Checks, show } from "@procpool/process-pool/executor";
import { ChunkSizer } from "./chunk_sizer.ts";
import { LARGEST_CHUNK } from "./envelope.ts";
import { CHUNK_PATIENCE, LATE, type Patience, Source, startPatience } from "./source.ts";
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

  const sizer = new ChunkSizer({ fixed, buffer: most, chunksInFlight: host.chunksInFlight });
  const input = new ChunkedInput(open, host, { sizer, buffer: most });
  const runs = new ChunkRuns(host, { sizer, refused: () => void input.end() });
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
    const runChunk = (chunk: Chunk): Promise<PromiseSettledResult<unknown>[]> => runs.run(chunk, { timeout, signal: currentJob()!.signal });
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

/** The input of a map, which is read a chunk at a time: of the given size, or by how long they should take. */
class ChunkedInput {
  #open: () => AsyncIterator<unknown> | Iterator<unknown>;
  #host: MapHost;
  #sizer: ChunkSizer;
  #buffer: number;
  #read = 0;
  #consumed = 0;
  #ended = false;
  #source: Source | undefined;
  #closed: Promise<void> | undefined;
  #wake: () => void = () => {};

  constructor(
    open: () => AsyncIterator<unknown> | Iterator<unknown>,
    host: MapHost,
    { sizer, buffer }: { sizer: ChunkSizer; buffer: number },
  ) {
    this.#open = open;
    this.#host = host;
    this.#buffer = buffer;
    this.#sizer = sizer;
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
          size = this.#sizer.size;
        } else if (this.#sizer.isAutomatic) patience ??= startPatience();
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
        const isLate = length > 1 && this.#sizer.isAutomatic && performance.now() - began >= CHUNK_PATIENCE;
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
    while (!this.#ended && this.#buffer - (this.#read - this.#consumed) < this.#sizer.size) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

/** The chunks of a map that are being run. */
class ChunkRuns {
  #host: MapHost;
  #sizer: ChunkSizer;
  #refused: () => void;
  /** How many there are that were not refused. */
  #underWay = 0;
  /** Resolves when there are none. All that are refused share it: they may be thousands, as may those that are under way. */
  #idle: PromiseWithResolvers<void> | undefined;

  /** @param refused Called when chunks are no longer admitted: none should be read. */
  constructor(host: MapHost, { sizer, refused }: { sizer: ChunkSizer; refused: () => void }) {
    this.#host = host;
    this.#sizer = sizer;
    this.#refused = refused;
  }

  /** Runs a chunk. If that is no longer admitted, those that were admitted come before the error. */
  async run(chunk: Chunk, options: { timeout: number | undefined; signal: AbortSignal }): Promise<PromiseSettledResult<unknown>[]> {
    if (chunk.unsendable !== undefined) return [{ status: "rejected", reason: chunk.unsendable.error }];
    this.#underWay++;
    try {
      const outcomes = await this.#runAll(chunk, options);
      this.#noLongerUnderWay();
      return outcomes;
    } catch (error) {
      this.#refused();
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
      const items = chunk.items.slice(done, done + this.#sizer.fits);
      const answer = await this.#host.run({ ...chunk, first: chunk.first + done, items }, { ...options, isRest: done > 0 });
      outcomes.push(...answer.outcomes);
      this.#sizer.ran({ sent: items.length, done: answer.outcomes.length, elapsed: answer.elapsed });
    }
    return outcomes;
  }
}
