import { NUMBERS } from "../worker/protocol.ts";

/** The least memory, in bytes: a page. */
const LEAST = 4096;

/**
 * Memory that chunks share with their workers, for their numbers, as {@linkcode NUMBERS} says. It serves one chunk after another: new
 * memory costs a fault for each page, in each thread, which takes longer than what is done with the numbers in it.
 */
export class NumberMemory {
  #spare: SharedArrayBuffer[] = [];

  /** Takes memory for this many numbers, which holds anything. */
  take(numbers: number): SharedArrayBuffer {
    const bytes = NUMBERS + Float64Array.BYTES_PER_ELEMENT * numbers;
    const spare = this.#spare.pop();
    if (spare !== undefined && spare.byteLength >= bytes) return spare;
    // Chunks vary in size. What is not used stays a promise of the kernel.
    return new SharedArrayBuffer(Math.max(LEAST, 2 ** Math.ceil(Math.log2(bytes))));
  }

  /** Gives memory back, to which no worker writes any more. */
  giveBack(memory: SharedArrayBuffer): void {
    this.#spare.push(memory);
  }
}
