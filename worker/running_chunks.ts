import type { Thrown, ToRuntime } from "./protocol.ts";
import type { Replies } from "./replies.ts";

/** What {@linkcode createRunningChunks} needs. */
export interface RunningChunksParts {
  replies: Replies;
  /** The platform's timers, to be read when they are needed. */
  timers: { start(): typeof setTimeout; stop(): typeof clearTimeout };
  /** Takes back the memory of a chunk's items, which nobody else uses. Undefined if nothing is copied, so that the caller uses it. */
  reuse: ((buffer: ArrayBuffer) => void) | undefined;
}

/** The chunks that a runtime runs. */
export interface RunningChunks {
  /** Begins with a chunk. */
  begin(message: ToRuntime & { type: "chunk" }): RunningChunk;
  /** Sends what is ready, of all of them. */
  flush(): void;
}

/** A running chunk: what its items are, and what has become of them. */
export interface RunningChunk {
  readonly run: number;
  readonly firstId: number;
  readonly items: ArrayLike<unknown>;
  /** The index of the first item. */
  readonly from: number;
  /** The index after the last. */
  readonly end: number;
  readonly attempt: number;
  readonly timed: boolean;
  /** The index of the item to be run next. */
  next: number;
  /** Whether an item is not to be run. */
  skips(i: number): boolean;
  /** Takes the next outcome: what the item returned. */
  returned(value: unknown): void;
  /** The same for what it has thrown. */
  threw(thrown: Thrown): void;
  /** Sends what is ready soon, as the next item may take long. */
  flushSoon(): void;
  /** Sends what is ready if that has waited for long enough. */
  flushIfDue(): void;
  /** Sends what is left, and gives the memory of the items back. */
  finish(): void;
}

/**
 * Gathers the outcomes of the items of chunks, and sends them.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function createRunningChunks({ replies, timers, reuse }: RunningChunksParts): RunningChunks {
  type Own = { value: unknown; buffer: ArrayBuffer };
  // As in protocol.ts, which a worker does not have.
  const NUMBERS = 8;
  /** How long small results are gathered, in ms: shorter costs messages, longer holds results back. */
  const GATHER = 1;
  /**
   * How many items are run at most between two looks at the clock: more, and slower results wait; fewer, and the clock takes more of the
   * time.
   */
  const LONGEST_STRIDE = 512;
  /** From this many on, numbers are cheaper to send in a typed array. */
  const WORTH_PACKING = 16;
  /** From this many bytes on, a copy that nobody else uses is cheaper to move than to copy again. */
  const WORTH_MOVING = 4096;
  // Taken now: tasks may replace them.
  const clock = performance.now.bind(performance);
  const { store } = Atomics;
  const { apply, getPrototypeOf } = Reflect;
  const Doubles = Float64Array, Words = Int32Array, Memory = ArrayBuffer;
  const { isView } = Memory;
  const { transfer: moveAway, slice: copyAll } = Memory.prototype;
  const typedArrays = getPrototypeOf(Doubles.prototype) as Float64Array;
  const { slice } = typedArrays;
  const nothing: [] = [];
  const { isMoved, movedWith } = replies;
  const running = new Set<Chunk>();

  /**
   * A running chunk, with the outcomes of its items that were not sent yet. Results are listed; but as long as they are numbers, they are
   * put into an array of such. The caller shares that if each result has to be there before the next item begins; else it is sent.
   */
  class Chunk implements RunningChunk {
    // Copied from the message, which comes as several kinds of objects: V8 would compile for each kind what it compiles once for this
    // class.
    readonly run: number;
    readonly firstId: number;
    readonly items: ArrayLike<unknown>;
    readonly from: number;
    readonly end: number;
    readonly attempt: number;
    readonly #eager: boolean;
    readonly timed: boolean;
    next: number;
    readonly #skip: Set<number> | undefined;
    /** The memory that the caller shares; undefined if numbers are sent. */
    readonly #shared: Float64Array | undefined;
    /** The range of items that have a number there, as {@linkcode NUMBERS} says. */
    readonly #bounds: Int32Array | undefined;
    /** The first item whose outcome was not sent. */
    #from: number;
    /** The item after the last of those. */
    #to: number;
    /**
     * Where results are put as long as they are numbers: a growing list would be copied again and again. Undefined while results are
     * listed.
     */
    #numbers: Float64Array | undefined;
    /** The item whose number is the first there. */
    #firstNumber = 0;
    #listed: unknown[] = [];
    /** Whether all results were numbers. */
    #onlyNumbers = true;
    #thrown: [number, Thrown][] = [];
    #transfer: Transferable[] = [];
    #timer: ReturnType<typeof setTimeout> | undefined;
    readonly #begin = clock();
    #sent = this.#begin;
    /** After how many items the clock is read: that takes longer than the shortest ones. */
    #stride = 1;
    #nextLook: number;
    #lastLook = this.#begin;

    constructor(message: ToRuntime & { type: "chunk" }) {
      const { run, id, items, from, attempt, eager, timed, skip, numbers } = message;
      this.run = run;
      this.firstId = Number(id);
      this.items = items;
      this.from = from;
      this.end = from + items.length;
      this.attempt = attempt;
      this.#eager = eager;
      this.timed = timed;
      this.next =
        this.#from =
        this.#to =
        this.#nextLook =
          from;
      if (skip.length > 0) this.#skip = new Set(skip);
      if (numbers === undefined) return;
      this.#shared = new Doubles(numbers, NUMBERS);
      this.#bounds = new Words(numbers, 0, 2);
      this.#share();
    }

    skips(i: number): boolean {
      return this.#skip !== undefined && this.#skip.has(i);
    }

    returned(value: unknown): void {
      if (typeof value === "object") return this.#returnedObject(value);
      this.#noteApart(value);
    }

    #returnedObject(value: object | null): void {
      if (isMoved(value)) return this.#moved(value.value, movedWith(value));
      // The task may refill it for the next item.
      const copy = this.#eager ? undefined : copyOf(value);
      if (copy === undefined) return this.#noteApart(value);
      this.#noteApart(copy.value, copy.buffer.byteLength >= WORTH_MOVING ? copy.buffer : undefined);
    }

    #moved(value: unknown, transfer: Transferable[]): void {
      // Kept results may refer to what is about to be moved away, unless they were taken over.
      if (this.#transfer.length === 0) this.#flushKept();
      const own = this.#eager || transfer.length !== 1 ? undefined : takeOver(value, transfer[0], moveAway);
      if (own !== undefined) return this.#noteApart(own.value, own.buffer);
      this.#flushKept();
      this.#transfer.push(...transfer);
      this.#note(value, false);
      this.flush(false);
    }

    /**
     * Notes a result with others that are sent in the same way, moved or copied. If a message cannot be sent, everything that was to be
     * moved with it is lost: so what is moved can certainly be sent, or goes alone.
     */
    #noteApart(value: unknown, moved?: ArrayBuffer): void {
      if (this.#transfer.length > 0 !== (moved !== undefined)) this.#flushKept();
      if (moved !== undefined) this.#transfer.push(moved);
      this.#note(value, false);
    }

    #flushKept(): void {
      if (this.#from < this.#to) this.flush(false);
    }

    threw(thrown: Thrown): void {
      // It may be too deep for a message.
      if (this.#transfer.length > 0) this.#flushKept();
      this.#thrown.push([this.#to, thrown]);
      this.#note(undefined, true);
    }

    #note(value: unknown, threw: boolean): void {
      const isNumber = typeof value === "number";
      if (isNumber && this.#numbers === undefined && this.#from === this.#to) this.#pack();
      if (this.#numbers !== undefined) {
        if (isNumber) {
          this.#numbers[this.#to++ - this.#firstNumber] = value;
          if (this.#bounds !== undefined) store(this.#bounds, 1, this.#to);
          return;
        }
        this.#list();
      }
      this.#onlyNumbers &&= isNumber || threw;
      this.#listed.push(value);
      this.#to++;
    }

    /** Has the caller read numbers from here on by itself. */
    #share(): void {
      this.#numbers = this.#shared;
      store(this.#bounds!, 0, this.#to);
      store(this.#bounds!, 1, this.#to);
    }

    /** Packs results from here on, where the first is a number, if that is worth it. */
    #pack(): void {
      const { items, from } = this;
      const { length } = items;
      // With `eager` each result is sent by itself, unless it is shared.
      if (this.#eager || length < WORTH_PACKING) return;
      // A result takes the place of its item, or of an earlier one: those have been read.
      if (items instanceof Doubles && isOurs(items)) this.#numbers = items;
      // Only once: most of this would be wasted if a result soon is not a number.
      else if (this.#to === from) this.#numbers = new Doubles(length);
      this.#firstNumber = this.#to;
    }

    /** Lists results from here on, as one is not a number. */
    #list(): void {
      const numbers = this.#numbers!, count = this.#to - this.#from;
      this.#numbers = undefined;
      // The caller has what it shares.
      if (this.#bounds !== undefined) this.#from = this.#to;
      else for (let i = 0; i < count; i++) this.#listed.push(numbers[i]);
    }

    finish(): void {
      running.delete(this);
      this.flush(true);
      const { items } = this;
      // A chunk with memory for its results came by the port, and so will the next one.
      if (this.#shared === undefined && isView(items) && isOurs(items)) reuse!(items.buffer as ArrayBuffer);
    }

    flushSoon(): void {
      if (this.#from < this.#to) this.#timer ??= timers.start()(() => this.flush(false), GATHER);
    }

    flushIfDue(): void {
      if (this.#to < this.end && this.#isDue()) this.flush(false);
    }

    #isDue(): boolean {
      if (this.#eager && this.#numbers === undefined) return this.#from < this.#to;
      if (this.#to <= this.#nextLook) return false;
      const now = clock();
      this.#stride = now - this.#lastLook < GATHER / 10 ? Math.min(2 * this.#stride, LONGEST_STRIDE) : 1;
      this.#nextLook = this.#to - 1 + this.#stride;
      this.#lastLook = now;
      return now - this.#sent >= GATHER;
    }

    flush(last: boolean): void {
      if (this.#timer !== undefined) timers.stop()(this.#timer);
      this.#timer = undefined;
      this.#sent = clock();
      this.#send(last);
      // From here on the caller may use the memory for another chunk.
      if (last) return;
      this.#from = this.#to;
      this.#listed = [];
      this.#thrown = [];
      this.#transfer = [];
      if (this.#shared === undefined) this.#firstNumber = this.#from;
      else if (this.#numbers === undefined && this.#onlyNumbers) this.#share();
    }

    /** The unsent results; undefined if they are shared. */
    #unsent(): ArrayLike<unknown> | undefined {
      const numbers = this.#numbers, count = this.#to - this.#from;
      if (numbers === undefined) return this.#listed;
      if (this.#shared !== undefined) return undefined;
      return numbers.length === count ? numbers : apply(slice, numbers, [0, count]);
    }

    #send(last: boolean): void {
      replies.items({
        type: "items",
        run: this.run,
        from: this.#from,
        values: this.#unsent(),
        thrown: this.#thrown,
        last,
        elapsed: this.#sent - this.#begin,
      }, this.#transfer);
    }
  }

  /** Copies a buffer, or a view of a whole buffer; undefined if it is something else. */
  function copyOf(value: unknown): Own | undefined {
    if (!isView(value)) return takeOver(value, value, copyAll);
    const { buffer, byteLength } = value;
    // A view whose prototype was changed has neither.
    return byteLength === buffer?.byteLength ? takeOver(value, buffer, copyAll) : undefined;
  }

  /**
   * Copies or moves a buffer, or a view of one, into memory that nobody else uses, so that it can certainly be sent. Undefined if it is
   * something else, or the platform refuses: then it is sent as it is, which may be refused as well.
   */
  function takeOver(value: unknown, buffer: unknown, take: (this: ArrayBuffer) => ArrayBuffer): Own | undefined {
    if (reuse === undefined) return undefined;
    try {
      if (!(buffer instanceof Memory) || buffer.resizable) return undefined;
      if (value === buffer) {
        const own = apply(take, buffer, nothing);
        return { value: own, buffer: own };
      }
      if (!isView(value) || value.buffer !== buffer) return undefined;
      // An instance of a user's subclass arrives as one of the platform's class.
      let kind: object = value;
      do kind = getPrototypeOf(kind)!; while (getPrototypeOf(kind) !== typedArrays);
      const View = kind.constructor as new (buffer: ArrayBuffer, from: number, length: number) => unknown;
      const { byteOffset, length } = value as Uint8Array;
      const own = apply(take, buffer, nothing);
      return { value: new View(own, byteOffset, length), buffer: own };
    } catch {
      return undefined;
    }
  }

  /** Whether nobody else uses the memory of these items. */
  function isOurs(items: ArrayBufferView): boolean {
    return reuse !== undefined && items.buffer instanceof Memory;
  }

  return {
    begin(message) {
      const chunk = new Chunk(message);
      running.add(chunk);
      return chunk;
    },
    flush() {
      for (const chunk of running) {
        try {
          chunk.flush(false);
        } catch {
          // It is lost with the worker; the results of others are not.
        }
      }
    },
  };
}
