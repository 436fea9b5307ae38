import { type Block, Chunk, type ChunkListener, type ChunkWork } from "./chunk.ts";
import { ChunkSizer } from "./chunk_sizer.ts";
import { type Cadence, type Clock, Rounds, stretches } from "./clock.ts";
import { CHUNK_PATIENCE, MapInput } from "./map_input.ts";
import type { MapResults, ResolvedMapOptions } from "./map_options.ts";
import { NumberMemory } from "./number_memory.ts";
import { Queue } from "./queue.ts";
import { onAbort } from "./signals.ts";

/**
 * How often, in ms, a map whose consumer waits looks for numbers in shared memory: their worker may be busy with a long item, and announce
 * them late. More often takes time from others, less often delays results.
 */
const LOOK_EVERY = 1;

/** What a map needs of its pool. */
export interface MapHost {
  /** Waits for a permit. */
  acquire(signal: AbortSignal | undefined): Promise<void>;
  /** Gives back a permit that is not needed. */
  release(): void;
  /** Queues a chunk that has a permit. If the pool refuses it, this gives the permit back and throws. */
  admit(chunk: Chunk): void;
  /** Cancels what has not started of a chunk; with `force` also what runs. */
  cancel(chunk: Chunk, error: unknown, force: boolean): void;
  /** Reports an error that nobody else handles. */
  report(error: unknown): void;
  /** Why the pool no longer takes chunks; undefined if it does. */
  refusal(): unknown;
  /** The map waits for its input: until {@linkcode MapHost.goesOn}, the pool calls {@linkcode MapRun.refused} if it stops taking chunks. */
  waits(map: MapRun): void;
  /** The map no longer waits. */
  goesOn(map: MapRun): void;
  /** The clock of the pool. */
  readonly clock: Clock;
}

type Result = IteratorResult<unknown, undefined>;

/** A call that waits for the next outcome, or for all that are ready. */
interface Consumer {
  wantsAll: boolean;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

/**
 * One call of `map`. Its pump, an asynchronous loop, reads the input and submits chunks as long as the consumer is not too far behind; the
 * consumer takes what is ready or waits for it.
 */
export class MapRun implements MapResults<unknown>, ChunkListener {
  #host: MapHost;
  #options: ResolvedMapOptions;
  /** The chunks in flight, in the order of their items, with the outcomes that are there, and whether those are all. */
  #chunks = new Map<Chunk, { blocks: Block[]; settled: boolean }>();
  /** What the consumer gets next: the rest of this block, from the index, and then the ready ones. */
  #block: Block | undefined;
  #index = 0;
  #ready = new Queue<Block>();
  /** How many items these blocks have, including those of the first that were taken. */
  #readyItems = 0;
  #consumers = new Queue<Consumer>();
  #inFlight = 0;
  #sizer: ChunkSizer;
  #input: MapInput;
  /** `ending`: no more chunks will be submitted. `ended`: the consumer gets no more outcomes. */
  #state: "new" | "reading" | "ending" | "ended" = "new";
  /** What is thrown after the last outcome, and whether the input threw it. */
  #failure: { error: unknown; ofInput?: boolean } | undefined;
  #wakePump: () => void = () => {};
  #looks: Rounds;
  #stretches: Cadence;
  /** Whether the consumer is given nothing, as other work of the event loop has its turn. */
  #givesWay = false;
  /** Aborts when the loop has ended, so that a chunk waiting at the gate leaves it. */
  #loop = new AbortController();
  #stopListening: () => void = () => {};

  constructor(host: MapHost, options: ResolvedMapOptions) {
    this.#host = host;
    this.#options = options;
    this.#sizer = new ChunkSizer(options);
    this.#input = new MapInput(options, this.#sizer, {
      isReading: () => this.#state === "reading",
      refusal: () => host.refusal(),
      refused: (error) => this.refused(error),
      failed: (error) => this.#inputFailed(error),
      waits: () => host.waits(this),
      goesOn: () => host.goesOn(this),
      report: (error) => host.report(error),
      clock: host.clock,
    });
    this.#looks = new Rounds(host.clock, LOOK_EVERY, () => this.#look());
    this.#stretches = stretches(host.clock);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Result> {
    const mayBeTurn = this.#stretches.isDue();
    if (!mayBeTurn && this.#block !== undefined && this.#block.errors === undefined && this.#consumers.size === 0) {
      return Promise.resolve({ done: false, value: this.#takeValue(this.#block) });
    }
    return this.#wait(false, mayBeTurn);
  }

  /** The same outcomes, as many at a time as are ready. */
  chunks(): AsyncIterableIterator<ArrayLike<unknown>> {
    const chunks = {
      [Symbol.asyncIterator]: () => chunks,
      next: () => this.#wait(true, this.#stretches.isDue()) as Promise<IteratorResult<ArrayLike<unknown>, undefined>>,
      return: () => this.return(),
    };
    return chunks;
  }

  #wait(wantsAll: boolean, mayBeTurn: boolean): Promise<Result> {
    if (this.#state === "new") this.#start();
    return new Promise((resolve, reject) => {
      this.#consumers.push({ wantsAll, resolve, reject });
      // A consumer of results that are ready, or come one after another, would otherwise let nothing else through.
      if (mayBeTurn) this.#giveWay();
      this.#serve();
    });
  }

  /** Serves nobody until other work of the event loop has had its turn, if that is due: not even with what comes meanwhile. */
  #giveWay(): void {
    this.#givesWay = true;
    this.#host.clock.soon(() => {
      this.#givesWay = false;
      this.#serve();
    });
  }

  /** Ends the loop early. Waits for the input to be closed, unless an item is still pending there. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#dropFailure();
    this.#finish();
    // Not at once: the input itself may have called this while it yields an item or is opened, and can only be closed afterwards.
    await undefined;
    await this.#input.close();
    return { done: true, value: undefined };
  }

  /**
   * The pool no longer takes chunks: the map stops reading, and no longer waits for a pending item. The outcomes of chunks in flight come
   * first, then this is thrown.
   */
  refused(error: unknown): void {
    if (this.#state !== "reading") return;
    this.#dropFailure();
    this.#failure = { error };
    this.#state = "ending";
    this.#host.goesOn(this);
    this.#input.close().catch((error) => this.#host.report(error));
    this.#serve();
  }

  // What chunks ask and report

  readonly memory = new NumberMemory();

  get ended(): boolean {
    return this.#state === "ended";
  }

  outcomes(chunk: Chunk, block: Block): void {
    if (this.#state === "ended" || block.values.length === 0) return;
    this.#sizer.returned(block.values instanceof Float64Array);
    if (this.#options.ordered) {
      this.#chunks.get(chunk)!.blocks.push(block);
      this.#advance();
    } else this.#makeReady(block);
    this.#serve();
  }

  ran(work: ChunkWork): void {
    this.#sizer.ran(work);
  }

  settled(chunk: Chunk): void {
    this.#inFlight--;
    this.#chunks.get(chunk)!.settled = true;
    if (this.ended || !this.#options.ordered) this.#chunks.delete(chunk);
    if (this.ended) return;
    this.#advance();
    this.#serve();
    this.#wakePump();
  }

  /** Makes outcomes ready in the order of the items: those of the first chunk, and those of the next only when the first has settled. */
  #advance(): void {
    for (const [chunk, { blocks, settled }] of this.#chunks) {
      for (const block of blocks.splice(0)) this.#makeReady(block);
      if (!settled) return;
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
    while (this.#consumers.size > 0 && !this.#givesWay) {
      if (this.#block !== undefined) this.#give(this.#block);
      else if (this.#state === "ending" && this.#chunks.size === 0) this.#finish();
      else if (this.#state === "ended") this.#giveEnd();
      else return this.expectNumbers();
    }
  }

  /** Begins to look for numbers, if the consumer may be waiting for some. */
  expectNumbers(): void {
    if (this.#expectsNumbers()) this.#looks.begin();
  }

  #expectsNumbers(): boolean {
    return this.#consumers.size > 0 && this.#chunks.keys().some((chunk) => chunk.mayHaveNumbers);
  }

  /** Takes the numbers that are in memory. Returns whether the consumer may be waiting for more. */
  #look(): boolean {
    for (const chunk of this.#chunks.keys()) chunk.collect();
    return this.#expectsNumbers();
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

  /** Takes the next value, or with `settled` its outcome. Without `settled`, the next must not have failed. */
  #takeValue(block: Block): unknown {
    const index = this.#index;
    this.#skip(block, 1);
    return this.#options.settled ? outcomeAt(block, index) : block.values[index];
  }

  /** Takes all values up to the next that has failed, or with `settled` all outcomes. */
  #takeAll(block: Block): ArrayLike<unknown> {
    const { values, errors } = block;
    const index = this.#index;
    let end = values.length;
    if (!this.#options.settled && errors !== undefined) end = errors.keys().reduce((first, i) => i > index && i < first ? i : first, end);
    this.#skip(block, end - index);
    if (this.#options.settled) return Array.from({ length: end - index }, (_, i) => outcomeAt(block, index + i));
    if (index === 0 && end === values.length) return values;
    return values instanceof Float64Array ? values.slice(index, end) : Array.prototype.slice.call(values, index, end);
  }

  /** Moves on by this many items of the block. */
  #skip({ values: { length } }: Block, count: number): void {
    this.#index += count;
    if (this.#index < length) return;
    this.#block = this.#ready.shift();
    this.#index = 0;
    this.#input.ahead -= length;
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

  /** Ends the loop although the input has not ended; with `abort` also the items that run. */
  #abandon(failure: { error: unknown } | undefined, abort?: { reason: unknown }): void {
    this.#dropFailure();
    this.#failure = failure;
    this.#finish(abort);
    Promise.resolve().then(() => this.#input.close()).catch((error) => this.#host.report(error));
  }

  /**
   * Drops what was to be thrown after the last outcome, which the loop will not reach. If the input threw it, it is reported through the
   * pool.
   */
  #dropFailure(): void {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure?.ofInput) this.#reportSoon(failure.error);
  }

  /** The error comes after what was read before it; but the input may already have ended the loop in another way. */
  #inputFailed(error: unknown): void {
    if (this.#state === "reading") this.#failure = { error, ofInput: true };
    else this.#reportSoon(error);
  }

  /** In a microtask: the pool may be settling jobs now, and `onError` may look at any of them. */
  #reportSoon(error: unknown): void {
    queueMicrotask(() => this.#host.report(error));
  }

  /** Ends the loop; with `abort` also the items that run. */
  #finish(abort?: { reason: unknown }): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#host.goesOn(this);
    this.#looks.end();
    this.#stopListening();
    this.#ready.clear();
    this.#block = undefined;
    const { reason } = abort ?? { reason: new DOMException("The loop over the map has ended", "AbortError") };
    this.#loop.abort(reason);
    // In a microtask: an outcome may have ended the loop, and while a pool settles several tickets they are in neither queue nor slot.
    queueMicrotask(() => {
      for (const chunk of this.#chunks.keys()) this.#host.cancel(chunk, reason, abort !== undefined);
    });
    this.#wakePump();
    this.#serve();
  }

  // The pump

  #start(): void {
    const { signal } = this.#options;
    this.#state = "reading";
    if (signal?.aborted) return this.#abandon({ error: signal.reason });
    // Listen first, as opening the input may abort the signal.
    this.#stopListening = onAbort(signal, () => this.#abandon({ error: signal!.reason }, signal));
    try {
      this.#input.open();
    } catch (error) {
      return this.#abandon({ error });
    }
    this.#pump();
  }

  async #pump(): Promise<void> {
    try {
      while (this.#state === "reading" && !this.#input.ended) {
        const isRoom = this.#sizer.hasRoom({ ahead: this.#input.ahead, ready: this.#readyItems, inFlight: this.#inFlight });
        if (isRoom) await this.#submitChunk();
        else await new Promise<void>((resolve) => this.#wakePump = resolve);
      }
    } catch (error) {
      // The chunk was no longer admitted. The items that were read are dropped with it.
      this.refused(error);
    }
    // Only now: the last chunk may have been waiting at the gate.
    if (this.#state === "reading") this.#state = "ending";
    this.#serve();
  }

  async #submitChunk(): Promise<void> {
    const { clock } = this.#host;
    const began = clock.now();
    const items = await this.#input.readChunk();
    const isSlow = clock.now() - began >= CHUNK_PATIENCE;
    if (items.length === 0 || this.#state !== "reading") return;
    await this.#host.acquire(this.#loop.signal);
    if (this.ended) return this.#host.release();
    const { task: func, timeout, retries, eager, first } = this.#options;
    const firstIndex = first + this.#input.read - items.length;
    const chunk = new Chunk(items, { func, timeout, retries, eager, firstIndex, listener: this });
    this.#chunks.set(chunk, { blocks: [], settled: false });
    this.#inFlight++;
    try {
      this.#host.admit(chunk);
    } catch (error) {
      this.#chunks.delete(chunk);
      throw error;
    }
    // An input that computes its items would otherwise let only the answers of workers through: no timers, sockets or signals.
    if (isSlow) await new Promise<void>((resolve) => clock.soon(resolve));
  }
}

function outcomeAt({ values, errors }: Block, index: number): PromiseSettledResult<unknown> {
  return errors?.has(index) ? { status: "rejected", reason: errors.get(index) } : { status: "fulfilled", value: values[index] };
}
