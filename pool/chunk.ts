import { JobTimeoutError } from "../errors.ts";
import type { Outcome, Task, TaskRef } from "../job.ts";
import { type ItemsMessage, NO_MORE, type RunMessage, type TaskMessage } from "../worker/protocol.ts";
import { isOfClass } from "./checks.ts";
import type { Sliceable } from "./map_options.ts";
import type { NumberMemory, SharedNumbers } from "./number_memory.ts";
import type { JobRecord } from "./observation.ts";
import { type Answer, type Decode, type ErrorOf, isDeath, listCauses, type SettledCounts, Ticket } from "./ticket.ts";

/** Outcomes of consecutive items. */
export interface Block {
  /** The results; the value at a failed item is arbitrary. */
  values: ArrayLike<unknown>;
  /** The errors, by index in the block. */
  errors: Map<number, unknown> | undefined;
}

/**
 * From this many on, numbers are cheaper to send in a typed array, and results are worth separate memory: for fewer, allocating that takes
 * longer than it saves.
 */
const WORTH_PACKING = 16;

function packed(items: ArrayLike<unknown>): ArrayLike<unknown> {
  if (!Array.isArray(items) || items.length < WORTH_PACKING) return items;
  for (let i = 0; i < items.length; i++) if (typeof items[i] !== "number") return items;
  return new Float64Array(items);
}

/** A block in which all items have failed. */
function failures(errors: unknown[]): Block {
  return { values: new Array(errors.length), errors: new Map(errors.entries()) };
}

/** What a {@linkcode Chunk} is made with, besides its items. */
export interface ChunkOptions {
  func: Task | TaskRef;
  /** How long each item may run, in ms. */
  timeout: number;
  /** How often an item is run again after the death of its worker. */
  retries: number;
  /** Whether each result is sent before the next item is started. */
  eager: boolean;
  /** The index of its first item in the input. */
  firstIndex: number;
  listener: ChunkListener;
}

/** Some items of a map that travel together: one ticket, one permit. */
export class Chunk extends Ticket {
  readonly func: Task | TaskRef;
  /** The index of its first item in the input, by which errors name it. */
  readonly id: number;
  readonly onDone = undefined;
  readonly argsAlone = undefined;
  readonly timeout: number;
  #retries: number;
  /** The errors of earlier runs of the next item. */
  #failures: unknown[] = [];
  #eager: boolean;
  #items: Sliceable;
  /** How many items, from the first, have their outcome. */
  #settledItems = 0;
  /** The items that cannot be sent, by index, and why. */
  #unsendable = new Map<number, unknown>();
  /** Whether the items were copied, so that it is known which can be sent. */
  #copied = false;
  /**
   * Whether its items are sent one by one, since a worker died reading them, or since they cannot be sent together: so only the item that
   * is to blame fails.
   */
  #oneByOne = false;
  #listener: ChunkListener;
  #counted = { finished: 0, failed: 0 };
  /** Where its worker puts results that are numbers. */
  #shared: SharedNumbers | undefined;

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
    const end = this.#oneByOne ? this.#nextSendable() + 1 : this.#items.length;
    let items: ArrayLike<unknown> = end - from === this.#items.length ? this.#items : this.#items.slice(from, end);
    const skip: number[] = [];
    if (this.#unsendable.size > 0) {
      items = Array.from(items, (item, i) => this.#unsendable.has(from + i) ? void skip.push(from + i) : item);
    }
    const { id, attempt, timeout } = this;
    const timed = timeout !== Infinity;
    const isShared = this.#eager && items.length >= WORTH_PACKING;
    // Other memory than in the run before: its worker may still write there.
    const shared = this.#shared = isShared ? this.#listener.memory.take(this.#items.length) : undefined;
    items = packed(items);
    if (shared !== undefined) {
      shared.begin(from);
      // A result takes the place of its item.
      if (items instanceof Float64Array) items = shared.put(items, from);
      this.#listener.expectNumbers();
    }
    return { type: "chunk", run, task, id, attempt, items, from, skip, eager: this.#eager, timed, numbers: shared?.memory };
  }

  /** The index of the next item that can be sent; if there is none, of the last. Those before it have their outcome, or cannot be sent. */
  #nextSendable(): number {
    let next = this.#settledItems;
    while (next < this.#items.length - 1 && this.#unsendable.has(next)) next++;
    return next;
  }

  answered(answer: Answer, decode: Decode): Outcome<unknown> | undefined {
    const { from, values, thrown, last, elapsed } = answer as ItemsMessage;
    if (values !== undefined) {
      // The outcomes in between are in memory: everything else comes by messages, in order.
      if (from > this.#settledItems) this.#deliverNumbers(from);
      const errors = thrown.length === 0 ? undefined : new Map(thrown.map(([index, error]) => [index - from, decode(error)]));
      this.#deliver({ values, errors });
    }
    this.collect();
    if (!last) return undefined;
    this.#giveMemoryBack();
    if (this.#oneByOne) return this.#outcomeIfDone();
    this.#listener.ran({ elapsed, count: this.#settledItems, items: this.#items, results: values });
    return { state: "finished", value: undefined };
  }

  /** Only after an orderly end: a worker that could not be stopped may still write there. */
  #giveMemoryBack(): void {
    if (this.#shared !== undefined) this.#listener.memory.giveBack(this.#shared);
    this.#shared = undefined;
  }

  /** Whether it has a worker that may put numbers into memory. */
  get mayHaveNumbers(): boolean {
    return this.#shared !== undefined && this.slot !== undefined;
  }

  /** Takes the numbers that the worker has put into memory by now. */
  collect(): void {
    const to = this.#shared?.endOf(this.#settledItems) ?? 0;
    if (to > this.#settledItems) this.#deliverNumbers(to);
  }

  #deliverNumbers(to: number): void {
    // Without memory there can be no gap, unless a task has replaced the platform's arrays.
    if (this.#shared === undefined) {
      return this.#deliver(failures(new Array(to - this.#settledItems).fill(new Error("The worker has lost the outcome of this item"))));
    }
    this.#deliver({ values: this.#shared.slice(this.#settledItems, to), errors: undefined });
  }

  isAt(item: number): boolean {
    // Once the map has ended, nobody needs to know more of its chunks.
    return item === NO_MORE || this.#arrived() === item - 1;
  }

  override hasItemsOnTheirWay(item: number): boolean {
    // Results that are not sent at once stay in the worker for as long as the next item takes.
    return this.#eager && item !== NO_MORE && this.#arrived() < item - 1;
  }

  /** How many items have settled, including unsendable ones that settle with the next result. */
  #arrived(): number {
    this.collect();
    let settled = this.#settledItems;
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

  countItems(outcome: Outcome<unknown>, record: JobRecord): void {
    Object.assign(record, this.#countsWith(outcome));
  }

  /** How its items have ended, if those without an outcome end like this. */
  #countsWith({ state }: Outcome<unknown>): SettledCounts {
    this.collect();
    const rest = this.#items.length - this.#settledItems;
    const { finished, failed } = this.#counted;
    return state === "failed" ? { finished, failed: failed + rest, cancelled: 0 } : { finished, failed, cancelled: rest };
  }

  sendFailed(error: unknown): Outcome<unknown> | undefined {
    if (this.#copied) return this.#sendFailedAgain(error);
    this.#copied = true;
    this.#items = Array.from(this.#items, (item, i) => {
      try {
        // Within a list, as in the message: Deno refuses some values by themselves that it copies within a list.
        return structuredClone([item])[0];
      } catch (reason) {
        this.#unsendable.set(i, this.unsendable(reason, i + 1));
        return item;
      }
    });
    return undefined;
  }

  /** Each item can be copied by itself, but together they may be too large for a message, or one may be nested too deeply within it. */
  #sendFailedAgain(error: unknown): Outcome<unknown> | undefined {
    const next = this.#nextSendable();
    if (this.#unsendable.has(next)) return { state: "failed", error };
    if (this.#oneByOne) this.#unsendable.set(next, this.unsendable(error, next + 1));
    this.#oneByOne = true;
    return undefined;
  }

  lostUnread(errorOf: ErrorOf): Outcome<unknown> | undefined {
    const next = this.#nextSendable();
    const error = listCauses(errorOf(this.id + next, this.attempt - 1), this.#failures);
    // The items before it have errors of their own.
    this.#deliver(failures(new Array(next + 1 - this.#settledItems).fill(error)));
    return this.#outcomeIfDone();
  }

  lost(errorOf: ErrorOf, nextItem: number): Outcome<unknown> | undefined {
    this.collect();
    this.#shared = undefined;
    const errors: unknown[] = [];
    // The errors of the first item: no other has run before.
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
    return this.#outcomeIfDone();
  }

  /** The outcome, if nothing is left to be run. */
  #outcomeIfDone(): Outcome<unknown> | undefined {
    const isDone = this.#settledItems === this.#items.length || this.#listener.ended;
    return isDone ? { state: "finished", value: undefined } : undefined;
  }

  settle(outcome: Outcome<unknown>, counts: SettledCounts): void {
    const { finished, failed, cancelled } = this.#countsWith(outcome);
    counts.finished += finished;
    counts.failed += failed;
    counts.cancelled += cancelled;
    if (outcome.state !== "finished") {
      this.#listener.outcomes(this, failures(new Array(this.#items.length - this.#settledItems).fill(outcome.error)));
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
    // Looked up by item: of many unsendable items few are in one block, and there may be many blocks.
    for (let index = 0; this.#unsendable.size > 0 && index < length; index++) {
      const i = this.#settledItems + index;
      if (this.#unsendable.has(i)) (block.errors ??= new Map()).set(index, this.#unsendable.get(i));
    }
    if (this.observed !== undefined) {
      for (const error of block.errors?.values() ?? []) if (isOfClass(error, JobTimeoutError)) this.observed.timedOut++;
    }
    const failed = block.errors?.size ?? 0;
    this.#counted.failed += failed;
    this.#counted.finished += length - failed;
    this.#settledItems += length;
    this.#listener.outcomes(this, block);
  }
}

/** How a worker ran a chunk. */
export interface ChunkWork {
  /** How long it took, in ms. */
  elapsed: number;
  /** How many items it ran. */
  count: number;
  /** All items of the chunk. */
  items: ArrayLike<unknown>;
  /** The latest results; undefined if they were in memory. */
  results: ArrayLike<unknown> | undefined;
}

/** What a chunk reports to its map. */
export interface ChunkListener {
  /** Whether outcomes are no longer wanted. */
  readonly ended: boolean;
  /** Where chunks take memory for their numbers. */
  readonly memory: NumberMemory;
  /** The next outcomes of a chunk, in the order of its items. */
  outcomes(chunk: Chunk, block: Block): void;
  /** A worker has run all of a chunk. */
  ran(work: ChunkWork): void;
  /** A chunk is being sent, and its worker may put numbers into memory. */
  expectNumbers(): void;
  /** A chunk has settled: no more of it will come. */
  settled(chunk: Chunk): void;
}
