import { JobCancelledError, PoolBrokenError, PoolClosedError } from "../../mod.ts";
import type { Abort } from "./aborts.ts";
import { double, LIMITS, type Stage } from "./jobs.ts";
import { check, Violation } from "./violation.ts";
import type { Work } from "./works.ts";

/** How outcomes are taken: one by one, all that are available, or by overlapping calls of `next()`. */
const WAYS = ["loop", "loop", "chunks", "overlapping"] as const;

/** How many calls of `next()` overlap at most. */
const MOST_CALLS = 4;

/** One loop over a map, and what the schedule expects of it. */
export class SimulatedMap {
  readonly name: string;
  readonly abort: Abort | undefined;
  #stage: Stage;
  #works: Work[] = [];
  #items: unknown[] = [];
  #read = 0;
  #got: unknown[] = [];
  #ordered: boolean;
  #settled: boolean;
  #buffer: number;
  #chunkSize: number | "auto";
  #breakAt: number;
  #slow: boolean;
  #timeout: number | undefined;
  #way: typeof WAYS[number];
  #sourceError: { error: Error; at: number } | undefined;
  #sourceClosed = false;
  /** The item at which the input itself ends the map. */
  #leavesAt: number;
  #isStream = false;
  #outcomes: AsyncIterableIterator<unknown> | undefined;
  /** How often its items had been started when it ended. */
  #runsAtEnd = 0;
  /** Whether the loop was left, or an outcome was thrown: with a slow input or reader it may take a while to end. */
  #isLeft = false;
  /** How the loop ended. */
  end: "done" | "broke" | { error: unknown } | undefined;

  constructor(stage: Stage, abort: Abort | undefined) {
    const { random } = stage.world;
    this.#stage = stage;
    this.abort = abort;
    this.#timeout = random.chance(0.3) ? random.pick(LIMITS) : undefined;
    const limit = this.#timeout ?? stage.jobTimeout;
    const { retries } = stage;
    const isWanted = (): boolean => this.end === undefined && !this.#isLeft && this.abort?.aborted !== true;
    // Results of large enough chunks lie in shared memory.
    const isLong = stage.chance.chance(0.1);
    const size = isLong ? stage.chance.between(16, 60) : random.below(7);
    for (let id = 0; id < size; id++) {
      const work = stage.world.newWork({ id, limit, retries, isWanted });
      this.#works.push(work);
      this.#items.push(random.chance(0.05) ? Symbol("uncloneable") : work.number);
    }
    this.name = `the map of ${size === 0 ? "nothing" : `${this.#works[0]!.number} to ${this.#works.at(-1)!.number}`}`;
    this.#ordered = random.chance(0.5);
    this.#settled = random.chance(0.5);
    this.#chunkSize = random.pick(["auto", 1, 2, 3] as const);
    this.#buffer = random.pick([1, 2, 4, 100]);
    if (isLong) [this.#chunkSize, this.#buffer] = [stage.chance.pick(["auto", 20, 30] as const), 100];
    this.#breakAt = random.chance(0.3) ? random.between(1, 4) : Infinity;
    this.#slow = random.chance(0.3);
    this.#way = stage.chance.pick(WAYS);
    if (random.chance(0.1)) this.#sourceError = { error: new Error("the input failed"), at: random.below(this.#works.length + 1) };
    this.#leavesAt = stage.whim.chance(0.1) ? stage.whim.below(size + 1) : Infinity;
  }

  start(): void {
    const { world } = this.#stage;
    world.note(() =>
      `begin ${this.name}: ${this.#ordered ? "ordered" : "unordered"}, ${this.#settled ? "settled, " : ""}chunks of ${this.#chunkSize}, ` +
      `buffer ${this.#buffer}, at most ${this.#timeout ?? this.#stage.jobTimeout} ms each, ${this.#stage.retries} retries`
    );
    const items = world.random.chance(0.3) ? this.#slowSource() : this.#source();
    this.#consume(this.#input(items)).then((end) => this.end = this.#isLeft ? "broke" : end, (error) => this.end = { error }).then(() => {
      world.note(() => `${this.name} has ended: ${typeof this.end === "object" ? this.end.error : this.end}`);
      this.#runsAtEnd = this.#runs;
      world.activity++;
    });
  }

  /** Usually an iterator, otherwise an array or a stream. */
  #input(items: Iterable<unknown> | AsyncIterable<unknown>): Iterable<unknown> | AsyncIterable<unknown> {
    const { chance } = this.#stage;
    if (this.#sourceError === undefined && chance.chance(0.2)) {
      this.#sourceClosed = true;
      const numbers = this.#items.every((item) => typeof item === "number");
      if (numbers && chance.chance(0.5)) return new Float64Array(this.#items as number[]);
      return this.#items;
    }
    this.#isStream = Symbol.asyncIterator in items && chance.chance(0.5);
    if (this.#isStream) return ReadableStream.from(items as AsyncIterable<unknown>);
    return items;
  }

  async #consume(items: Iterable<unknown> | AsyncIterable<unknown>): Promise<"done" | "broke"> {
    const { world, pool } = this.#stage;
    const options = {
      ordered: this.#ordered,
      buffer: this.#buffer,
      chunkSize: this.#chunkSize,
      timeout: this.#timeout,
      signal: this.abort?.signal,
    };
    const task = double as (item: unknown) => unknown;
    const outcomes = this.#settled ? pool.map(task, items, { ...options, settled: true }) : pool.map(task, items, options);
    this.#outcomes = outcomes;
    if (this.#way === "overlapping") return await this.#takeOverlapping(outcomes);
    for await (const taken of this.#way === "chunks" ? outcomes.chunks() : outcomes) {
      world.activity++;
      if (this.#way === "chunks") this.#gotList(taken as ArrayLike<unknown>);
      else this.#got.push(taken);
      const breaks = this.#got.length >= this.#breakAt;
      this.#isLeft ||= breaks;
      if (breaks) return "broke";
      if (this.#slow) await world.pause();
    }
    return "done";
  }

  #gotList(list: ArrayLike<unknown>): void {
    check(list.length > 0, "no list of outcomes is empty", () => this.name);
    this.#got.push(...Array.from(list));
  }

  /** The loop may end while outcomes are awaited. */
  async #takeOverlapping(outcomes: AsyncIterableIterator<unknown>): Promise<"done" | "broke"> {
    const { world, chance } = this.#stage;
    let failure: { error: unknown } | undefined;
    let over = false;
    let broke = false;
    while (!over) {
      const calls = Array.from({ length: chance.between(1, MOST_CALLS) }, () => outcomes.next());
      if (chance.chance(0.1)) {
        broke = this.#isLeft = true;
        await outcomes.return!();
      }
      for (const call of calls) {
        try {
          const result = await call;
          world.activity++;
          if (result.done) over = true;
          else {
            check(!over, "nothing comes after the end", () => this.name);
            this.#got.push(result.value);
          }
        } catch (error) {
          if (error instanceof Violation) throw error;
          check(failure === undefined, "a map throws once", () => this.name);
          failure = { error };
          over = this.#isLeft = true;
        }
      }
      if (this.#slow) await world.pause();
    }
    if (failure !== undefined) throw failure.error;
    return broke ? "broke" : "done";
  }

  *#source(): Generator<unknown> {
    try {
      for (let i = 0; i <= this.#items.length; i++) {
        this.#countRead(i);
        if (i === this.#leavesAt) this.#leave();
        if (i < this.#items.length) yield this.#items[i];
      }
    } finally {
      this.#sourceClosed = true;
      this.#meddle(0.2);
    }
  }

  async *#slowSource(): AsyncGenerator<unknown> {
    try {
      for (let i = 0; i <= this.#items.length; i++) {
        if (this.#stage.world.random.chance(0.5)) await this.#stage.world.pause();
        this.#countRead(i);
        const left = i === this.#leavesAt ? this.#leave() : undefined;
        // A stream is closed once it has yielded its item.
        if (!this.#isStream) await left;
        if (i < this.#items.length) yield this.#items[i];
      }
    } finally {
      this.#sourceClosed = true;
      this.#meddle(0.2);
    }
  }

  async #leave(): Promise<void> {
    this.#stage.world.note(() => `the input of ${this.name} ends it`);
    this.#isLeft = true;
    try {
      await this.#outcomes!.return!();
    } catch (error) {
      this.#stage.fail(new Violation("an input can end its map", error));
    }
  }

  /** An input may do anything when it is read or closed. */
  #meddle(probability: number): void {
    if (this.#stage.chance.chance(probability)) this.#stage.meddle();
  }

  #countRead(index: number): void {
    this.#stage.world.activity++;
    this.#meddle(0.03);
    if (this.#sourceError?.at === index) throw this.#sourceError.error;
    if (index === this.#items.length) return;
    this.#read++;
    // The consumer may hold, or have asked for, outcomes that this side has not counted yet.
    const inHand = { loop: 1, chunks: this.#buffer, overlapping: MOST_CALLS }[this.#way];
    check(this.#read - this.#got.length <= this.#buffer + inHand, "a map reads no more than 'buffer' items ahead", () => this.name);
  }

  get #runs(): number {
    return this.#works.reduce((sum, { runs }) => sum + runs, 0);
  }

  checkAtEnd(): void {
    check(this.end !== undefined, "every map ends", () => this.name);
    check(this.#runs === this.#runsAtEnd, "no item starts after the end of the loop", () => this.name);
    for (const [i, outcome] of this.#got.entries()) {
      if (this.#ordered) this.#checkOutcome(i, outcome);
      else check(this.#works.some((_, i) => this.#isOutcome(i, outcome)), "an outcome is that of an item", () => this.name);
    }
    if (!this.#ordered) check(new Set(this.#results()).size === this.#got.length, "each item comes once", () => this.name);
    if (this.end === "done") {
      check(this.#got.length === this.#items.length, "a map that ends by itself is complete", () => this.name);
    } else if (this.end !== "broke") this.#checkError(this.end!.error);
    check(this.#sourceClosed || this.#read === 0, "the input of a map is closed", () => this.name);
  }

  /** What was got, with the values of outcomes in their place. */
  #results(): unknown[] {
    if (!this.#settled) return this.#got;
    return (this.#got as PromiseSettledResult<unknown>[]).map((outcome) => outcome.status === "fulfilled" ? outcome.value : outcome);
  }

  #checkOutcome(index: number, outcome: unknown): void {
    check(this.#isOutcome(index, outcome), "an outcome stands at its item's place", () => `${this.name}, item ${index}`);
  }

  #isOutcome(index: number, outcome: unknown): boolean {
    const settled = outcome as PromiseSettledResult<unknown>;
    if (this.#settled && settled.status === "rejected") return this.#isError(index, settled.reason);
    const value = this.#settled && settled.status === "fulfilled" ? settled.value : outcome;
    const { state, outcome: known } = this.#works[index]!;
    return state === "answered" && "value" in known! && known.value === value;
  }

  #isError(index: number, error: unknown): boolean {
    const { end } = this.#stage;
    const work = this.#works[index]!;
    // Nothing replaces an answer that has already arrived.
    if (work.state === "answered") return "error" in work.outcome! && work.outcome.error === error;
    if (work.isLoss(error)) {
      work.checkLastLoss(error);
      return true;
    }
    if (error instanceof DOMException && error.name === "DataCloneError") return typeof this.#items[index] === "symbol";
    if (error instanceof PoolClosedError) return end.terminated;
    if (error instanceof JobCancelledError) return end.terminated || end.cancelPending;
    return error instanceof PoolBrokenError;
  }

  #checkError(error: unknown): void {
    if (error instanceof Violation) throw error;
    const { end } = this.#stage;
    if (this.abort?.wasReason(error) || error === this.#sourceError?.error || error instanceof PoolBrokenError) return;
    if (end.asked && error instanceof PoolClosedError) return;
    const next = this.#ordered ? [this.#got.length] : this.#works.keys();
    const known = !this.#settled && [...next].some((index) => index < this.#works.length && this.#isError(index, error));
    check(known, "a map fails for a reason", () => `${this.name}: ${error}`);
  }
}
