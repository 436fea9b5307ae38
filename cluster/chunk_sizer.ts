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

/** Decides how many items the next chunk of a map has: as many as was asked for, or by how long they take. */
export class ChunkSizer {
  /** Whether it goes by how long they take. */
  readonly isAutomatic: boolean;
  #size: number;
  /** How many items an automatic chunk may have. */
  #largest: number;
  /** How many items a chunk may have so that their results fit into one reply, as far as is known. */
  #fits = Infinity;

  constructor({ fixed, buffer, chunksInFlight }: { fixed: number | undefined; buffer: number; chunksInFlight: number }) {
    this.isAutomatic = fixed === undefined;
    this.#size = Math.min(fixed ?? 1, buffer);
    this.#largest = Math.max(1, Math.floor(buffer / chunksInFlight));
  }

  /** How many items to read for the next chunk. */
  get size(): number {
    return this.#size;
  }

  /** How many items to send of a chunk at most. */
  get fits(): number {
    return Math.floor(this.#fits);
  }

  /** Learns from a chunk: how many items were sent and how many have outcomes, and how long a worker took for these, in ms. */
  ran({ sent, done, elapsed }: { sent: number; done: number; elapsed: number }): void {
    if (done < sent) this.#fits = Math.min(this.#fits, done);
    // Chunks that were sent before that was known tell nothing new.
    else if (sent >= this.fits) this.#fits *= FIT_GROWTH;
    if (!this.isAutomatic || elapsed === 0) return;
    const wanted = Math.floor(CHUNK_TIME * done / elapsed);
    this.#size = Math.max(1, Math.min(wanted, this.#size * CHUNK_GROWTH, this.#largest, this.fits));
  }
}
