import { show } from "./checks.ts";
import { type ChunkSizer, LARGEST_SIZE, sizeOfItem } from "./chunk_sizer.ts";
import type { Clock } from "./clock.ts";
import type { ResolvedMapOptions, Sliceable } from "./map_options.ts";

/** How long an automatic chunk waits for a slow input, in ms: longer delays results, shorter sends smaller chunks. */
export const CHUNK_PATIENCE = 2;

/**
 * After how many items of an automatic chunk the clock is read at the latest, as an input that computes its items lets no timer fire, and
 * the size of an item guessed, which may be unlike those before. Fewer, and that takes a good part of the time of quick inputs; more, and
 * one that becomes slow holds up the program for longer, or one whose items become large fills the memory.
 */
const ITEMS_A_LOOK = 64;

/** What an input needs of the map that reads it. */
export interface InputHost {
  /** Whether the map still reads. */
  isReading(): boolean;
  /** Why the pool no longer takes chunks; undefined if it does. */
  refusal(): unknown;
  /** The pool no longer takes chunks, and the input has given no item for a while. */
  refused(error: unknown): void;
  /** The input has thrown something, and will not be read again. */
  failed(error: unknown): void;
  /** An item is waited for, until {@linkcode InputHost.goesOn}. */
  waits(): void;
  /** It is no longer waited for. */
  goesOn(): void;
  /** Reports an error that nobody else handles. */
  report(error: unknown): void;
  readonly clock: Clock;
}

/** The input of a map, which is read a chunk at a time. */
export class MapInput {
  /** How many items have been read. */
  read = 0;
  /** How many of them the consumer has not taken yet: the map counts those that it has. */
  ahead = 0;
  /** Whether there is nothing left to read, or the input was closed. */
  ended = false;
  #options: ResolvedMapOptions;
  #sizer: ChunkSizer;
  #map: InputHost;
  #source: AsyncIterator<unknown> | Iterator<unknown> | undefined;
  /** The next item: pending, or given when nobody waited for it any more. */
  #pulled: Promise<IteratorResult<unknown>> | IteratorResult<unknown> | undefined;
  /**
   * Whether an array is read item by item, as it could not be sliced: trying that again for each chunk would read many times items that are
   * slow to read.
   */
  #itemByItem = false;

  constructor(options: ResolvedMapOptions, sizer: ChunkSizer, map: InputHost) {
    this.#options = options;
    this.#sizer = sizer;
    this.#map = map;
  }

  /** Opens the input; throws what that throws. */
  open(): void {
    this.#source = this.#options.open();
  }

  /** Reads the items of the next chunk; none if the input has ended. */
  readChunk(): Sliceable | Promise<Sliceable> {
    const { array } = this.#options;
    // If the pool no longer takes chunks, one item is enough to tell whether the input has ended.
    const isOpen = this.#map.refusal() === undefined;
    if (array === undefined) return this.#readItems(isOpen);
    const most = isOpen ? this.#sizer.size : 1;
    return (this.#itemByItem ? undefined : this.#readSlice(array, most)) ?? this.#readItemByItem(array, most);
  }

  async #readItems(isOpen: boolean): Promise<unknown[]> {
    const items: unknown[] = [];
    const pace = this.#newPace();
    let patience: Patience | undefined;
    try {
      // The size of the chunk may change during the wait for an item, also to more than there was room for.
      while (items.length < (isOpen ? this.#sizer.size : 1) && this.ahead < this.#sizer.buffer && this.#map.isReading()) {
        let result = this.#pull();
        if (result instanceof Promise) {
          const refusal = this.#map.refusal();
          if (refusal !== undefined || items.length > 0 && this.#options.chunkSize === undefined) {
            patience ??= startPatience(this.#map.clock);
            if (await Promise.race([result, patience.over]) === OVER) {
              if (refusal !== undefined) this.#map.refused(refusal);
              this.#keepWhenGiven(result);
              break;
            }
          }
          this.#map.waits();
          result = await result;
          this.#map.goesOn();
          this.#pulled = undefined;
        }
        if (Object(result) !== result) {
          throw new TypeError(`Cannot read input as its next() must give an object: current value is ${show(result)}`);
        }
        if (result.done) {
          this.ended = true;
          break;
        }
        const count = items.push(result.value);
        this.#count(1);
        if (count === pace?.nextLook && pace.isDue(items)) break;
      }
    } catch (error) {
      this.#map.goesOn();
      this.#failed(error);
    }
    patience?.end();
    return items;
  }

  /** Reads a slice; undefined if the array has to be read item by item. */
  #readSlice(array: Sliceable, most: number): Sliceable | undefined {
    let items: Sliceable;
    try {
      items = array.slice(this.read, this.read + most);
    } catch (error) {
      if (!Array.isArray(array)) throw error;
      // There may be items before the one that throws.
      return undefined;
    }
    // A proxy may make up its items when they are read. But `slice` asks first whether it has them, and otherwise leaves holes.
    if (Array.isArray(items) && items.includes(undefined)) return undefined;
    if (this.#options.chunkSize === undefined) items = fitting(items);
    this.#count(items.length);
    if (items.length === 0) this.ended = true;
    return items;
  }

  #readItemByItem(array: Sliceable, most: number): unknown[] {
    this.#itemByItem = true;
    const items: unknown[] = [];
    const pace = this.#newPace();
    try {
      while (items.length < most && this.#map.isReading()) {
        if (this.read >= array.length) {
          this.ended = true;
          break;
        }
        const count = items.push(array[this.read]);
        this.#count(1);
        if (count === pace?.nextLook && pace.isDue(items)) break;
      }
    } catch (error) {
      this.#failed(error);
    }
    return items;
  }

  #count(items: number): void {
    this.read += items;
    this.ahead += items;
  }

  /** Undefined if the chunk size is given: such chunks are never cut short. */
  #newPace(): Pace | undefined {
    return this.#options.chunkSize === undefined ? new Pace(this.#map.clock) : undefined;
  }

  /** The input has thrown something. */
  #failed(error: unknown): void {
    // Whoever closes the input reports how the pending item ends.
    if (!this.#map.isReading() && this.#pulled !== undefined) return;
    this.ended = true;
    this.#map.failed(error);
  }

  /** The input's next result, or a promise of it, which may be pending from an earlier call. */
  #pull(): IteratorResult<unknown> | Promise<IteratorResult<unknown>> {
    const earlier = this.#pulled;
    if (earlier !== undefined) {
      if (!(earlier instanceof Promise)) this.#pulled = undefined;
      return earlier;
    }
    const result = this.#source!.next();
    // Promises of an iterator that is not asynchronous are awaited like those of one that is, so that no item is lost.
    if (!this.#options.isAsync && !(result instanceof Promise)) return result as IteratorResult<unknown>;
    const pulled = Promise.resolve(result);
    // If the input was closed within next(), whoever closed it does not hear of this one.
    if (!this.ended) this.#pulled = pulled;
    return pulled;
  }

  /**
   * Replaces a pending item by itself once it is given: it may be long before there is room for it, and the input can be closed normally.
   */
  #keepWhenGiven(pulled: Promise<IteratorResult<unknown>>): void {
    const keep = (result: IteratorResult<unknown>): void => {
      if (this.#pulled === pulled) this.#pulled = result;
    };
    // An error is handled by whoever takes the item, or reported by whoever closes the input.
    pulled.then(keep, () => {});
  }

  /** Closes the input. If an item is pending, the input ends after that, and this does not wait for it. */
  async close(): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    const closed = Promise.try(() => this.#source?.return?.());
    if (!(this.#pulled instanceof Promise)) return void await closed;
    // Nobody else handles these.
    for (const outcome of [closed, this.#pulled]) outcome.catch((error) => this.#map.report(error));
  }
}

/** Adds up about how many bytes the items of an automatic chunk have. */
class Weight {
  /** The number of items at which {@linkcode Weight.isReached} is to be called. */
  nextLook = 1;
  /** How many items there were at the last look, and about how many bytes they have. */
  #seen = 0;
  #size = 0;

  /** Whether these are as many bytes as a chunk may have, if those not looked at are like the last of these `count` items. */
  isReached(items: ArrayLike<unknown>, count: number): boolean {
    this.#size += (count - this.#seen) * sizeOfItem(items[count - 1]);
    this.#seen = count;
    this.nextLook = count + Math.min(count, ITEMS_A_LOOK);
    return this.#size >= LARGEST_SIZE;
  }
}

/** Tells whether an automatic chunk should be sent as it is: its items come slowly, or have become large. */
class Pace {
  #clock: Clock;
  #began = 0;
  #weight = new Weight();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The number of items at which {@linkcode Pace.isDue} is to be called. */
  get nextLook(): number {
    return this.#weight.nextLook;
  }

  isDue(items: readonly unknown[]): boolean {
    const now = this.#clock.now();
    if (items.length === 1) this.#began = now;
    return this.#weight.isReached(items, items.length) || now - this.#began >= CHUNK_PATIENCE;
  }
}

/** As many of these items, from the first, as an automatic chunk may have. */
function fitting(items: Sliceable): Sliceable {
  if (ArrayBuffer.isView(items)) return items;
  const weight = new Weight();
  while (weight.nextLook < items.length) {
    const count = weight.nextLook;
    if (weight.isReached(items, count)) return items.slice(0, count);
  }
  return items;
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
