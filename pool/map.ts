import { checkedFunc, type Outcome, type Task, type TaskRef } from "../job.ts";
import { type ItemsMessage, NO_MORE, type RunMessage, type TaskMessage } from "../worker/protocol.ts";
import { Checks, show } from "./checks.ts";
import { Queue } from "./queue.ts";
import { onAbort } from "./signals.ts";
import { type Answer, type Decode, type ErrorOf, isDeath, listCauses, type SettledCounts, Ticket } from "./ticket.ts";

/** Options of `ProcessPool.map`. */
export interface MapOptions {
  /**
   * How many items travel together. `"auto"` begins with one and finds out: chunks of about 5 ms of work, and none is kept waiting for an
   * input that is slow to come. A number is kept to, but for the last chunk.
   *
   * @default {"auto"}
   */
  chunkSize?: number | "auto" | undefined;
  /**
   * How many items, not bytes, are read ahead of those that were consumed, at the most. It caps the chunks as well. So far it goes while an item
   * holds up those behind it; for a consumer that is slower than the workers, reading stops after a few rounds of chunks.
   *
   * @default {4096 * maxWorkers * jobsPerWorker}
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

/**
 * Items read ahead, for each job that runs at a time. Fewer make chunks of tiny items too small to be cheap (half the speed at a tenth); more
 * only hold memory.
 */
const BUFFER_PER_LANE = 4096;

/** Chunks in flight, for each job that runs at a time: one that runs and one that is next, so that no worker waits for its caller. */
const CHUNKS_PER_LANE = 2;

/** What an automatic chunk should take, in ms. Less, and messages cost more than the work of short items; more, and results come in lumps. */
const CHUNK_TIME = 5;

/**
 * So many rounds of chunks may be ready and not fetched. Fewer, and workers wait for a consumer that takes its results in bursts; more, and a
 * consumer that is slower than the workers holds memory for nothing. (The buffer is for another case: an item that holds up those behind it.)
 */
const READY_ROUNDS = 4;

/** An automatic chunk is at most so many times as large as the last: the first items may be unlike the others. */
const CHUNK_GROWTH = 8;

/** How long an automatic chunk waits for an input that is slow to come, in ms: longer delays results, shorter sends smaller chunks. */
const CHUNK_PATIENCE = 2;

/** What a map needs of its pool. */
export interface MapHost {
  acquire(signal: AbortSignal | undefined): Promise<Disposable>;
  /** Queues a chunk; throws if the pool takes none. */
  admit(chunk: Chunk): void;
  /** Cancels what has not started of a chunk; with `force` also what runs. */
  cancel(chunk: Chunk, error: unknown, force: boolean): void;
  report(error: unknown): void;
}

/** The options of a map, checked and complete. */
export interface ResolvedMapOptions {
  task: Task | TaskRef;
  /** Opens the input: when the first result is asked for, since a stream that is opened is locked. */
  open: () => AsyncIterator<unknown> | Iterator<unknown>;
  /** Undefined for automatic. */
  chunkSize: number | undefined;
  buffer: number;
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
  const size = chunkSize === "auto" ? undefined : checks.wholeNumber("chunkSize", chunkSize);
  const chunksInFlight = CHUNKS_PER_LANE * lanes;
  return {
    task,
    open: opener(items),
    chunkSize: size,
    buffer: buffer === undefined ? Math.max(BUFFER_PER_LANE * lanes, (size ?? 0) * chunksInFlight) : checks.wholeNumber("buffer", buffer),
    chunksInFlight,
    ordered: checks.boolean("ordered", ordered),
    settled: checks.boolean("settled", settled),
    timeout: checks.milliseconds("timeout", timeout, { infinite: true }),
    // Else results that were held back would be lost with an item that is stopped.
    retries,
    eager: eager || timeout !== Infinity || retries > 0,
    signal: signal === undefined ? undefined : checks.signal("signal", signal),
  };
}

function opener(items: unknown): ResolvedMapOptions["open"] {
  const given = (items ?? {}) as AsyncIterable<unknown> & Iterable<unknown>;
  if (typeof given[Symbol.asyncIterator] === "function") return () => given[Symbol.asyncIterator]();
  if (typeof given[Symbol.iterator] === "function") return () => given[Symbol.iterator]();
  throw new TypeError(`Cannot map as the items must be iterable, an async iterable or a ReadableStream: current value is ${show(items)}`);
}

type ItemOutcome = PromiseSettledResult<unknown>;

interface ChunkOptions {
  func: Task | TaskRef;
  timeout: number;
  retries: number;
  eager: boolean;
  firstIndex: number;
  listener: ChunkListener;
}

/** Some items of a map that travel together: one ticket, one permit. */
export class Chunk extends Ticket {
  readonly func: Task | TaskRef;
  /** The index of its first item in the input. */
  readonly id: number;
  readonly onDone = undefined;
  readonly timeout: number;
  #retries: number;
  /** What came of earlier runs of the item that is next. */
  #failures: unknown[] = [];
  #eager: boolean;
  #items: unknown[];
  /** How many of the first items have their outcome. */
  #settledItems = 0;
  /** Those that cannot be sent, and why. */
  #unsendable = new Map<number, unknown>();
  /** Whether the items are copies, of which it is known that they can be sent. */
  #copied = false;
  #listener: ChunkListener;
  #counted = { finished: 0, failed: 0 };

  constructor(permit: Disposable, items: unknown[], { func, timeout, retries, eager, firstIndex, listener }: ChunkOptions) {
    super(permit);
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
    const skip = [...this.#unsendable.keys()];
    const items = skip.length === 0 ? this.#items : this.#items.map((item, i) => this.#unsendable.has(i) ? undefined : item);
    const { id, attempt } = this;
    return { type: "chunk", run, task, id, attempt, items, from: this.#settledItems, skip, eager: this.#eager };
  }

  answered(answer: Answer, decode: Decode): Outcome<unknown> | undefined {
    const message = answer as ItemsMessage;
    const { from, values, thrown, last, elapsed } = message;
    const outcomes = values.map((value): ItemOutcome => ({ status: "fulfilled", value }));
    for (const [index, error] of thrown) outcomes[index - from] = { status: "rejected", reason: decode(error) };
    this.#deliver(outcomes);
    if (!last) return undefined;
    this.#listener.took(elapsed, values.length + from);
    return { state: "finished", value: undefined };
  }

  isAt(item: number): boolean {
    // Of a chunk whose map has ended nobody wants to know more.
    if (item === NO_MORE) return true;
    let settled = this.#settledItems;
    // Of those that the worker was not sent nothing comes but with the next result.
    while (this.#unsendable.has(settled)) settled++;
    return settled === item - 1;
  }

  idOf(item: number): number {
    return item === NO_MORE ? this.id : this.id + item - 1;
  }

  refused(error: unknown): Outcome<unknown> | undefined {
    if (this.#copied) return { state: "failed", error };
    this.#copied = true;
    for (const [i, item] of this.#items.entries()) {
      try {
        this.#items[i] = structuredClone(item);
      } catch (reason) {
        this.#unsendable.set(i, reason);
      }
    }
    return undefined;
  }

  lost(errorOf: ErrorOf, nextItem: number): Outcome<unknown> | undefined {
    const outcomes: ItemOutcome[] = [];
    // Those of the first item: no other has run before.
    let failures = this.#failures;
    for (let i = this.#settledItems; i < nextItem; i++) {
      const error = errorOf(this.id + i, failures.length + 1);
      // The last of them is the one that ran.
      if (i === nextItem - 1 && isDeath(error) && failures.length < this.#retries) failures.push(error);
      else {
        outcomes.push({ status: "rejected", reason: listCauses(error, failures) });
        failures = [];
      }
    }
    this.#deliver(outcomes);
    this.#failures = failures;
    const through = this.#settledItems === this.#items.length || this.#listener.ended;
    return through ? { state: "finished", value: undefined } : undefined;
  }

  settle(outcome: Outcome<unknown>, counts: SettledCounts): void {
    const rest = this.#items.length - this.#settledItems;
    counts.finished += this.#counted.finished;
    counts.failed += this.#counted.failed;
    if (outcome.state === "failed") counts.failed += rest;
    else counts.cancelled += rest;
    if (outcome.state !== "finished") {
      this.#listener.outcomes(this, Array.from({ length: rest }, () => ({ status: "rejected", reason: outcome.error })));
    }
    this.#listener.settled(this);
  }

  callBack(): void {}

  #deliver(outcomes: ItemOutcome[]): void {
    if (outcomes.length > 0) this.#failures = [];
    for (const i of outcomes.keys()) {
      const index = this.#settledItems + i;
      if (this.#unsendable.has(index)) outcomes[i] = { status: "rejected", reason: this.#unsendable.get(index) };
      this.#counted[outcomes[i]!.status === "fulfilled" ? "finished" : "failed"]++;
    }
    this.#settledItems += outcomes.length;
    this.#listener.outcomes(this, outcomes);
  }
}

/** What a chunk tells its map. */
export interface ChunkListener {
  /** Whether nobody wants outcomes any more. */
  readonly ended: boolean;
  /** The next outcomes of a chunk, in the order of its items. */
  outcomes(chunk: Chunk, outcomes: ItemOutcome[]): void;
  /** How long the worker took for so many items, in ms. */
  took(elapsed: number, items: number): void;
  settled(chunk: Chunk): void;
}

type Result = IteratorResult<unknown, undefined>;

/**
 * One call of `map`. A loop of its own, the pump, reads the input and submits chunks as long as the consumer is not too far behind; the
 * consumer takes what is ready or waits for it.
 */
export class MapRun implements AsyncIterableIterator<unknown>, ChunkListener {
  #host: MapHost;
  #options: ResolvedMapOptions;
  #source: AsyncIterator<unknown> | Iterator<unknown> | undefined;
  /** The chunks in flight, in the order of their items, and what has come of each. */
  #chunks = new Map<Chunk, { outcomes: ItemOutcome[][]; over: boolean }>();
  /** What the consumer gets next. */
  #ready = new Queue<ItemOutcome[]>();
  #readyIndex = 0;
  #readyItems = 0;
  #consumers = new Queue<PromiseWithResolvers<Result>>();
  #read = 0;
  #consumed = 0;
  #inFlight = 0;
  #chunkSize: number;
  /** `ending` when no chunk will be submitted any more; `ended` when the consumer has nothing more to get. */
  #state: "new" | "reading" | "ending" | "ended" = "new";
  /** What is thrown after the last outcome. */
  #failure: { error: unknown } | undefined;
  /** The item that the input is about to give. */
  #pulled: Promise<IteratorResult<unknown>> | undefined;
  #sourceEnded = false;
  #wakePump: () => void = () => {};
  /** Aborts when the loop has ended: its next chunk leaves the gate. */
  #over = new AbortController();
  #stopListening: () => void = () => {};

  constructor(host: MapHost, options: ResolvedMapOptions) {
    this.#host = host;
    this.#options = options;
    this.#chunkSize = Math.min(options.chunkSize ?? 1, options.buffer);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Result> {
    if (this.#state === "new") this.#start();
    const consumer = Promise.withResolvers<Result>();
    this.#consumers.push(consumer);
    this.#serve();
    return consumer.promise;
  }

  /** Ends the loop early. It waits for the input to be closed, unless that is still about to give an item. */
  async return(): Promise<Result> {
    this.#finish();
    await this.#closeSource();
    return { done: true, value: undefined };
  }

  // What chunks tell

  get ended(): boolean {
    return this.#state === "ended";
  }

  outcomes(chunk: Chunk, outcomes: ItemOutcome[]): void {
    if (this.#state === "ended" || outcomes.length === 0) return;
    if (this.#options.ordered) {
      this.#chunks.get(chunk)!.outcomes.push(outcomes);
      this.#advance();
    } else this.#makeReady(outcomes);
    this.#serve();
  }

  took(elapsed: number, items: number): void {
    if (this.#options.chunkSize !== undefined || items === 0) return;
    const { buffer, chunksInFlight } = this.#options;
    const largest = Math.max(1, Math.floor(buffer / chunksInFlight));
    const wanted = Math.floor(CHUNK_TIME * items / elapsed);
    this.#chunkSize = Math.max(1, Math.min(wanted, this.#chunkSize * CHUNK_GROWTH, largest));
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

  /** In order, only the first chunk's outcomes are ready; then those of the next. */
  #advance(): void {
    for (const [chunk, { outcomes, over }] of this.#chunks) {
      for (const some of outcomes.splice(0)) this.#makeReady(some);
      if (!over) return;
      this.#chunks.delete(chunk);
    }
  }

  #makeReady(outcomes: ItemOutcome[]): void {
    this.#ready.push(outcomes);
    this.#readyItems += outcomes.length;
  }

  // The consumer's side

  #serve(): void {
    while (this.#consumers.size > 0) {
      const outcomes = this.#ready.first;
      if (outcomes !== undefined) {
        const outcome = outcomes[this.#readyIndex++]!;
        if (this.#readyIndex === outcomes.length) {
          this.#ready.shift();
          this.#readyIndex = 0;
        }
        this.#consumed++;
        this.#readyItems--;
        this.#wakePump();
        this.#give(outcome);
      } else if (this.#state === "ending" && this.#chunks.size === 0) this.#finish();
      else if (this.#state === "ended") this.#giveEnd();
      else return;
    }
  }

  #give(outcome: ItemOutcome): void {
    const consumer = this.#consumers.shift()!;
    if (this.#options.settled) consumer.resolve({ done: false, value: outcome });
    else if (outcome.status === "fulfilled") consumer.resolve({ done: false, value: outcome.value });
    else {
      consumer.reject(outcome.reason);
      this.#abandon(undefined);
    }
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
    this.#failure = failure;
    this.#finish(force);
    Promise.resolve().then(() => this.#closeSource()).catch((error) => this.#host.report(error));
  }

  /** `force` ends items that run as well. */
  #finish(force = false): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#stopListening();
    this.#ready.clear();
    const reason = new DOMException("The loop over the map has ended", "AbortError");
    this.#over.abort(reason);
    // Not at once: it may be an outcome that ends the loop, and while a pool settles several tickets they are in neither queue nor slot.
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
    this.#source = this.#options.open();
    this.#stopListening = onAbort(signal, () => this.#abandon({ error: signal!.reason }, { force: true }));
    this.#pump();
  }

  async #pump(): Promise<void> {
    try {
      while (this.#state === "reading" && !this.#sourceEnded) {
        if (this.#hasRoom()) await this.#submitChunk();
        else await new Promise<void>((resolve) => this.#wakePump = resolve);
      }
    } catch (error) {
      // It was not admitted any more. What was read goes with it.
      if (this.ended) return;
      this.#failure = { error };
      this.#closeSource().catch((error) => this.#host.report(error));
    }
    // Not before: the last chunk may have waited at the gate until now.
    if (!this.ended) this.#state = "ending";
    this.#serve();
  }

  /** Whether another chunk may be read: the consumer is not too far behind, and neither are the workers. */
  #hasRoom(): boolean {
    const { buffer, chunksInFlight } = this.#options;
    const unread = buffer - (this.#read - this.#consumed);
    const unfetched = READY_ROUNDS * chunksInFlight * this.#chunkSize - this.#readyItems;
    return Math.min(unread, unfetched) >= this.#chunkSize && this.#inFlight < chunksInFlight;
  }

  async #submitChunk(): Promise<void> {
    const items = await this.#readChunk();
    if (items.length === 0) return;
    const permit = await this.#host.acquire(this.#over.signal);
    if (this.ended) return permit[Symbol.dispose]();
    const { task: func, timeout, retries, eager } = this.#options;
    const chunk = new Chunk(permit, items, { func, timeout, retries, eager, firstIndex: this.#read - items.length, listener: this });
    this.#chunks.set(chunk, { outcomes: [], over: false });
    this.#inFlight++;
    try {
      this.#host.admit(chunk);
    } catch (error) {
      this.#chunks.delete(chunk);
      throw error;
    }
  }

  /** Reads the items of the next chunk; there are none when the input has ended. */
  async #readChunk(): Promise<unknown[]> {
    const items: unknown[] = [];
    let patience: Patience | undefined;
    try {
      while (items.length < this.#chunkSize && this.#state === "reading") {
        let result = this.#pull();
        if (result instanceof Promise) {
          if (items.length > 0 && this.#options.chunkSize === undefined) {
            patience ??= startPatience();
            if (await Promise.race([result, patience.over]) === OVER) break;
          }
          result = await result;
          this.#pulled = undefined;
        }
        if (result.done) {
          this.#sourceEnded = true;
          break;
        }
        items.push(result.value);
        this.#read++;
      }
    } catch (error) {
      // It stands behind what was read before it. Who has left the loop hears of it through the pool.
      if (this.ended) this.#host.report(error);
      else this.#failure = { error };
    }
    patience?.end();
    return items;
  }

  /** The input's next result, or the promise of it if one is under way already. */
  #pull(): IteratorResult<unknown> | Promise<IteratorResult<unknown>> {
    if (this.#pulled !== undefined) return this.#pulled;
    try {
      const result = this.#source!.next();
      if (!("then" in result)) return result;
      return this.#pulled = Promise.resolve(result).catch((error) => {
        this.#sourceEnded = true;
        throw error;
      });
    } catch (error) {
      this.#sourceEnded = true;
      throw error;
    }
  }

  /** Tells the input that no more is wanted of it. An input that is about to give an item does not end before it has; that is not waited for. */
  async #closeSource(): Promise<void> {
    if (this.#sourceEnded) return;
    this.#sourceEnded = true;
    const closed = Promise.resolve(this.#source?.return?.());
    if (this.#pulled === undefined) await closed;
    else closed.catch((error) => this.#host.report(error));
  }
}

const OVER = Symbol("over");

interface Patience {
  over: Promise<typeof OVER>;
  end(): void;
}

function startPatience(): Patience {
  const { promise, resolve } = Promise.withResolvers<typeof OVER>();
  const timer = setTimeout(() => resolve(OVER), CHUNK_PATIENCE);
  return { over: promise, end: () => clearTimeout(timer) };
}
