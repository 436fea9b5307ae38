import { NUMBERS } from "../worker/protocol.ts";

/** The least memory, in bytes: a page. */
const LEAST = 4096;

/** Memory that a chunk shares with its worker, for its numbers, as {@linkcode NUMBERS} says. */
export class SharedNumbers {
  readonly memory: SharedArrayBuffer;
  #numbers: Float64Array<SharedArrayBuffer>;
  #bounds: Int32Array<SharedArrayBuffer>;

  /** Allocates memory for at least this many numbers. */
  constructor(numbers: number) {
    // Chunks vary in size. What is not used stays a promise of the kernel.
    this.memory = new SharedArrayBuffer(Math.max(LEAST, 2 ** Math.ceil(Math.log2(NUMBERS + Float64Array.BYTES_PER_ELEMENT * numbers))));
    this.#numbers = new Float64Array(this.memory, NUMBERS);
    this.#bounds = new Int32Array(this.memory, 0, 2);
  }

  /** For how many numbers there is room. */
  get room(): number {
    return this.#numbers.length;
  }

  /** Notes that there are no results, and that those from this item on come next. */
  begin(from: number): void {
    this.#bounds.fill(from);
  }

  /** Puts these items there, as those from this one on. */
  put(items: Float64Array, from: number): Float64Array {
    this.#numbers.set(items, from);
    return this.#numbers.subarray(from, from + items.length);
  }

  /** The item up to which there are results, from this one on; the same if there are none. */
  endOf(from: number): number {
    // In this order, as the worker changes them in the other.
    const end = Atomics.load(this.#bounds, 1);
    return end > from && Atomics.load(this.#bounds, 0) <= from ? end : from;
  }

  /** Copies the results of some items. */
  slice(from: number, to: number): Float64Array {
    return this.#numbers.slice(from, to);
  }
}

/**
 * Memory for the numbers of chunks. It serves one chunk after another: new memory costs a fault for each page, in each thread, which takes
 * longer than what is done with the numbers in it.
 */
export class NumberMemory {
  #spare: SharedNumbers[] = [];

  /** Takes memory for this many numbers, which holds anything. */
  take(numbers: number): SharedNumbers {
    const spare = this.#spare.pop();
    return spare !== undefined && spare.room >= numbers ? spare : new SharedNumbers(numbers);
  }

  /** Gives memory back, to which no worker writes any more. */
  giveBack(numbers: SharedNumbers): void {
    this.#spare.push(numbers);
  }
}
