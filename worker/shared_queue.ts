/** The memory of a queue. */
export interface QueueMemory {
  /** A ring of records. */
  ring: SharedArrayBuffer;
  /** A ring of their large values; its pages take no memory before they are used. */
  bulk: SharedArrayBuffer;
}

/** Makes memory for a queue: a ring of this many cells, a power of two, and this many bytes for large values. */
export function makeQueueMemory(cells: number, bulk: number): QueueMemory {
  return { ring: new SharedArrayBuffer(8 * (16 + cells)), bulk: new SharedArrayBuffer(bulk) };
}

/** One end of a queue of records in shared memory: one thread writes at one end, another reads at the other. */
export interface SharedQueue {
  /**
   * Writes a record: two 32-bit integers, a value called its label, and values. Writes nothing and returns false if there is no room, or if
   * a value is not of a kind that can be written.
   *
   * @throws {unknown} What a getter of a value throws. Nothing is written then.
   */
  push(kind: number, number: number, label: unknown, values: readonly unknown[]): boolean;
  /** Lets nothing more be written, not even a record of which a getter is running. */
  close(): void;
  /** Whether a record without values can certainly be written. */
  readonly hasRoom: boolean;
  /** Whether much of the room is taken, or a record is being written: a record may be refused just for that. */
  readonly isCrowded: boolean;
  /** Whether there is a record to take. */
  readonly hasNext: boolean;
  /** The end of what is written by now. */
  readonly end: number;
  /** Whether there is a record to take that was written before this was the end. */
  hasNextBefore(end: number): boolean;
  /** Spins until there is a record, for at most this many ms; returns whether there is one. */
  spin(time: number): boolean;
  /** Reads the next record, if there is one, and frees its room. */
  take(): boolean;
  /**
   * The same, if the record continues the one before: with the same kind, the next number, as many values, and, if it has some, the next
   * label.
   */
  takeNext(): boolean;
  /**
   * Reads the numbers and labels of the next records into these empty lists, `most` at most, as long as they are of this kind, which must
   * be one without values. If one cannot be read, this throws, and the lists have those before it.
   */
  takeAll(kind: number, numbers: number[], labels: unknown[], most: number): void;
  /** The kind of the next record; undefined if there is none. */
  readonly nextKind: number | undefined;
  /**
   * Whether more was taken than was written. Then the writer has not written what it should have, the end of a record was missed, and
   * everything that follows may be garbage, without end.
   */
  readonly isAstray: boolean;
  /**
   * Hands over the memory of a buffer that nobody else uses, for the next buffer of this size that it reads: getting new memory takes
   * longer than filling it.
   */
  reuse(buffer: ArrayBuffer): void;
  /** Kind, number, label and values of the record that was last taken. */
  readonly kind: number;
  readonly number: number;
  readonly label: unknown;
  readonly values: readonly unknown[];
}

/**
 * Opens a queue in shared memory. It takes small values of the kinds that most arguments and results have: numbers, strings, bigints,
 * booleans, null, undefined, dates, buffers, typed arrays, and arrays, Maps, Sets, plain objects and instances of the program's own classes
 * of those. They arrive as if by structured cloning. Everything else is refused and left to structured cloning: what is large, has a class
 * of the platform, or refers to itself or to one thing twice.
 *
 * Records do not wait for a turn of the event loop: the reader can read them as soon as they are written, even if the writer is stopped a
 * moment later. A record of one number is 5 ns of work for the writer, a tenth of its share in a message of a hundred.
 *
 * Most calls, and most results, are of one task, one after the other. So a record of numbers that continues the one before is just these
 * numbers.
 *
 * Memory is a ring of cells of eight bytes; a record takes consecutive cells. Positions count cells and wrap only at 31 bits, so the number
 * of cells is a power of two. Long texts and buffers are in another such ring, in the order of their records, so that few large values do
 * not take the room of many small ones. The keys of an object are written with the first object that has these keys; later ones refer to
 * them. Likewise a short string that was written recently is referred to. Both ends keep the same tables, as one reads everything that the
 * other has written.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function openSharedQueue({ ring, bulk }: QueueMemory): SharedQueue {
  // Members of const enums are literals to V8. A constant of the enclosing function it would load, and check for initialisation, at each
  // use: that took a tenth of the time of a number.

  const enum Limit {
    /** Longer texts and buffers, in bytes, are in the bulk: they would take the room of many records. */
    LONG = 1024,
    /** The longest texts, in bytes, or in characters if some are not Latin-1: longer ones are as fast by a message. */
    LONGEST_TEXT = 20_000,
    LONGEST_WIDE = 2000,
    /** Texts of more characters go through the platform's UTF-8: calling that takes as long as copying this many one by one. */
    LONG_STRING = 80,
    /** Strings of up to this many characters are kept on both sides for a while, to be referred to when they come again. */
    SHORT_STRING = 32,
    /** How many are kept, each in the place that its characters determine: a power of two. */
    PLACES = 256,
    /** The most elements of an array, Map or Set, and the most objects in a record: more are as fast by a message. */
    LONGEST_ARRAY = 1024,
    MOST_OBJECTS = 1024,
    /** After this many objects a set tells whether one occurs twice: up to here, comparing it with all others takes less time. */
    FEW_OBJECTS = 64,
    /**
     * How many lists of keys, and beginnings of such lists, are known; if there are more, objects are used as dictionaries, and each has
     * its keys with it.
     */
    MOST_SHAPES = 256,
    MOST_BEGINNINGS = 4096,
    /** Up to this many results a list takes as much memory if it grows: V8 makes room for 17 at once. */
    FEW = 16,
    /** How many buffers are kept for later reads, with at most the bulk's bytes: several records are read before the first is done with. */
    MOST_SPARES = 64,
    /**
     * After how many looks a spinning thread reads the clock, which takes as long as two or three of them; and the most looks, which take
     * some milliseconds.
     */
    LOOKS_A_READING = 16,
    MOST_LOOKS = 100_000,
    /** After this many reads a list of keys is worth a constructor, which takes 10 µs to make. */
    OFTEN = 20,
    /**
     * How many records are read in one call of a loop. More, and V8 compiles the loop before it has seen what follows it; fewer, and
     * continuing takes as long as the records.
     */
    SOME = 32,
    /**
     * After this many cells a record has a header again. Fewer, and more is written; more, and V8 compiles the code for records without a
     * header, as it does after a few hundred, before it has seen one with a header, for which it throws that code away.
     */
    STRETCH = 128,
  }

  const enum Layout {
    /** The words before the cells: the positions of writer and reader, far enough apart not to share a cache line. */
    WRITTEN = 0,
    READ = 16,
    BULK_READ = 17,
    FIRST_CELL = 16,
    /** The highest position; counting starts again after it. */
    POSITIONS = 0x7fffffff,
  }

  /** The types of values, as their cells have them. */
  const enum Type {
    /** In place of a type: the next record is at the beginning of the ring. */
    SKIP = -1,
    /** In place of a type: the next record does not continue the one before, and a header follows. */
    BEGINS = -2,
    INTEGER = 0,
    DOUBLE = 1,
    LATIN = 2,
    WIDE = 3,
    TRUE = 4,
    FALSE = 5,
    UNDEFINED = 6,
    NULL = 7,
    ARRAY = 8,
    OBJECT = 9,
    NEW_SHAPE = 10,
    KEPT = 11,
    UTF8 = 12,
    BYTES = 13,
    DATE = 14,
    BIGINT = 15,
    MAP = 16,
    SET = 17,
    DICTIONARY = 18,
    /** A type has so many bits; what is specific to it is above them. */
    BITS = 5,
    MASK = 31,
    /** In place of a view's type: the value is a buffer, without a view. */
    WHOLE = 15,
    /** Added to a type: the value's position in the bulk follows. */
    IN_BULK = 1 << 16,
  }

  /** The keys of objects as a tree: each node is a list of keys, or the beginning of one. */
  interface Keys {
    /** The last key. */
    key: string | undefined;
    before: Keys | undefined;
    /** What may follow; {@linkcode forgotten} if this one is not remembered. */
    more: Map<string, Keys>;
    /** The one of `more` that was last used. */
    latest: Keys;
    /** The number of the list; -1 if no object had exactly these keys. */
    shape: number;
  }

  /** A list of keys, as the reader knows it. */
  interface Shape {
    keys: string[];
    uses: number;
    make: (() => object) | undefined;
  }

  const { load, pause, store } = Atomics;
  const clock = performance.now.bind(performance);
  const { keys: keysOf, is, defineProperty, hasOwn, getPrototypeOf, getOwnPropertyDescriptor, getOwnPropertySymbols } = Object;
  const { create: createObject, isExtensible, setPrototypeOf, prototype: plain } = Object;
  const { isArray } = Array;
  const { min } = Math;
  const { fromCharCode } = String;
  const { apply } = Reflect;
  const { stringify } = JSON;
  const makeFunction = Function;
  const { asIntN } = BigInt;
  const { isView, prototype: buffers } = ArrayBuffer;
  const { prototype: sharedBuffers } = SharedArrayBuffer;
  const { prototype: dates } = Date;
  const { prototype: maps } = Map;
  const { prototype: sets } = Set;
  const { forEach: forEachOfMap, set: setInMap } = maps;
  const { forEach: forEachOfSet, add: addToSet } = sets;
  const { prototype: functions } = Function;
  const { toString: textOfFunction } = functions;
  const PlainArray = Array, PlainDate = Date, PlainMap = Map, PlainSet = Set, ByteArray = Uint8Array;
  const Views = [
    Uint8Array,
    Uint8ClampedArray,
    Int8Array,
    Uint16Array,
    Int16Array,
    Uint32Array,
    Int32Array,
    Float32Array,
    Float64Array,
    BigInt64Array,
    BigUint64Array,
  ];
  const viewNames: (string | undefined)[] = Views.map(({ name }) => name);
  const views: object = getPrototypeOf(ByteArray.prototype);
  const nameOfView = getter<string | undefined>(views, Symbol.toStringTag), bufferOfView = getter<object>(views, "buffer");
  const offsetOfView = getter<number>(views, "byteOffset"), lengthOfView = getter<number>(views, "length");
  const lengthOfBuffer = getter<number>(buffers, "byteLength"), isResizable = getter<boolean>(buffers, "resizable");
  const { getTime: timeOfDate } = dates;
  const sizeOfMap = getter<number>(maps, "size"), sizeOfSet = getter<number>(sets, "size");
  // Taken now, like everything that is given a view of the shared memory: a task that replaced them would get hold of that memory. For the
  // same reason a part of a view is made by the constructor: `subarray` asks the class, which a task may change, how to make it.
  const { set } = views as Uint8Array;
  const encoder = new TextEncoder();
  const { encodeInto } = encoder;
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const { decode } = decoder;
  /** Where a long text is copied before it is decoded. */
  let copy: Uint8Array<ArrayBuffer> | undefined;
  const words = new Int32Array(ring);
  const doubles = new Float64Array(ring);
  const bytes = new Uint8Array(ring);
  const characters = new Uint16Array(ring);
  const integers = new BigInt64Array(ring);
  const size = 1 << Math.log2(doubles.length - Layout.FIRST_CELL);
  const inRing = size - 1;
  const bulkBytes = new Uint8Array(bulk);
  const bulkSize = 1 << Math.log2(bulk.byteLength / 8);
  const inBulk = bulkSize - 1;
  /** The longest buffers, in bytes. */
  const LONGEST_BUFFER = 2 * bulkSize;
  /** The lists of keys that this end has read, in order. */
  const shapes: Shape[] = [];
  /** The lists of keys that it has written, in order. */
  const told: Keys[] = [];
  const noKeys = beginning(undefined, undefined);
  const forgotten = new Map<string, Keys>();
  let beginnings = 0;
  /** The strings that are kept: the reader has the same in each place as the writer. */
  const kept: string[] = new Array(Limit.PLACES).fill("");
  let keptNew = false;
  /** Whether instances of these prototypes are copied like plain objects. */
  const ordinary = new WeakMap<object, boolean>();
  /** What a getter threw while a record was being written. */
  let thrown: { error: unknown } | undefined;
  /** Arrays for the characters of short strings, by length: making a new one for each string takes longer than filling it. */
  const arrays = Array.from({ length: Limit.SHORT_STRING + 1 }, (_, length): number[] => new Array(length).fill(0));
  /** The values of a record that has none. */
  const none: unknown[] = [];
  /** The objects of the record being written; all of them also in a set, if there are many. */
  const objects: unknown[] = [];
  const manyObjects = new Set<unknown>();
  /** Memory for the next buffers, all of one size. */
  let spares: ArrayBuffer[] = [];
  let writing = false;
  /** The next cell, and the end of the cells that may be written. */
  let cell = 0;
  let end = 0;
  let closed = false;

  /**
   * How far the other end had read and written when this one last looked, which it does only when it has to: so the two seldom wait for
   * each other's cache lines. The idea is from MCRingBuffer (Lee, Bu, Chandranmenon: A lock-free, cache-efficient shared ring buffer for
   * multi-core architectures, 2009).
   */
  let readTo = words[Layout.READ]!;
  let writtenTo = words[Layout.WRITTEN]!;
  let bulkReadTo = words[Layout.BULK_READ]!;

  /** The next position in the bulk: after the last record, and after the values written or read so far. */
  let bulkWritten = bulkReadTo;
  let bulkPosition = bulkReadTo;

  /** What the next record must have to continue the last one, and where it then begins. */
  let lastKind = 0;
  let lastCount = 0;
  let nextNumber = NaN;
  let nextLabel = NaN;
  let nextCell = 0;

  /** The position of the next record to be taken. */
  let position = words[Layout.READ]!;
  /** How many values the last taken record has. */
  let count = 0;
  /** How many records were taken together. */
  let taken = 0;

  /** The getter of a property of the platform's objects, to be applied to one. */
  function getter<R>(of: object, name: string | symbol): () => R {
    return getOwnPropertyDescriptor(of, name)!.get!;
  }

  /**
   * Most records continue the one before and have only numbers, or there are so few that their cost does not matter: so {@linkcode begin}
   * is a separate function.
   */
  function push(kind: number, number: number, label: unknown, values: readonly unknown[]): boolean {
    const { length } = values;
    if (number === nextNumber && kind === lastKind && length === lastCount && (length === 0 || label === nextLabel)) {
      cell = nextCell;
      let complete = length > 0 || typeof label === "number" && writeNumber(label);
      for (let i = 0; complete && i < length; i++) {
        const value = values[i];
        complete = typeof value === "number" && writeNumber(value);
      }
      // A getter of an element may have written something else.
      if (complete && number === nextNumber) {
        store(words, Layout.WRITTEN, (words[Layout.WRITTEN]! + cell - nextCell) & Layout.POSITIONS);
        nextCell = cell;
        nextNumber++;
        if (length > 0) nextLabel++;
        return true;
      }
    }
    return begin(kind, number, label, values);
  }

  function begin(kind: number, number: number, label: unknown, values: readonly unknown[]): boolean {
    // A getter of a value being written tries to send something.
    if (writing) return false;
    nextNumber = NaN;
    const written = words[Layout.WRITTEN]!;
    let free = size - ((written - readTo) & Layout.POSITIONS);
    if (free < size >> 1) {
      readTo = load(words, Layout.READ);
      free = size - ((written - readTo) & Layout.POSITIONS);
    }
    const next = written & inRing;
    const left = size - next;
    // If little is left before the end of the ring, the record goes to its beginning. Everything is computed in any case, here and in the
    // reader: V8 throws away compiled code when something new comes, and this comes once in many thousand records.
    const skips = left < size >> 2;
    const skipped = skips ? left : 0;
    const start = skips ? 0 : next;
    const room = min(free - skipped, size - start);
    if (room < 2) return false;
    words[2 * (Layout.FIRST_CELL + next)] = Type.SKIP;
    cell = Layout.FIRST_CELL + start;
    end = cell + room;
    const header = 2 * cell;
    const before = told.length;
    const { length } = values;
    cell += 2;
    bulkPosition = bulkWritten;
    writing = true;
    let complete = writeValue(label);
    // As many as there are now, whatever their getters do.
    for (let i = 0; complete && i < length; i++) complete = writeValue(values[i]);
    writing = false;
    if (objects.length > 0 || keptNew || !complete) tidyUp(complete, before);
    if (!complete || closed) return false;
    words[header] = Type.BEGINS;
    words[header + 1] = kind;
    words[header + 2] = number;
    words[header + 3] = length;
    bulkWritten = bulkPosition;
    store(words, Layout.WRITTEN, (written + skipped + cell - (header >> 1)) & Layout.POSITIONS);
    lastKind = kind;
    lastCount = length;
    nextCell = cell;
    end = min(end, nextCell + Limit.STRETCH);
    nextNumber = number + 1;
    nextLabel = typeof label === "number" && label >= 0 ? label + 1 : NaN;
    return true;
  }

  /**
   * Writes a label, or one of the values of a record. Most are numbers, and some programs have no others: so numbers do not go through the
   * rest of the code, and a quarter less is compiled.
   */
  function writeValue(value: unknown): boolean {
    return typeof value === "number" ? writeNumber(value) : tryWrite(value);
  }

  function writeNumber(value: number): boolean {
    const header = 2 * cell;
    if (++cell > end) return false;
    if ((value | 0) === value && !is(value, -0)) {
      words[header] = Type.INTEGER;
      words[header + 1] = value;
      return true;
    }
    if (cell === end) return false;
    words[header] = Type.DOUBLE;
    doubles[cell++] = value;
    return true;
  }

  function tryWrite(value: unknown): boolean {
    try {
      return write(value);
    } catch (error) {
      // Thrown again when the record has been given up.
      thrown = { error };
      return false;
    }
  }

  /**
   * Writes a value: a cell with its type and a detail of 32 bits, and the cells that follow; false if it cannot be written.
   *
   * This is one function for all types on purpose, like {@linkcode read}. If several functions call each other, V8 compiles each with all
   * others inlined, again and again: that does not matter in a minute's work, but was a third of the processor time of 100,000 calls with
   * objects.
   */
  function write(value: unknown): boolean {
    // For a switch V8 calls a builtin that makes the name of the type, which takes as long as the rest for a number.
    if (typeof value === "number") return writeNumber(value);
    const header = 2 * cell;
    if (++cell > end) return false;
    if (typeof value === "string") {
      const { length } = value;
      if (length > Limit.LONG_STRING) {
        if (isTooLong(value)) return false;
        // Ill-formed text has no UTF-8.
        if (value.isWellFormed()) return writeLong(value, header);
      }
      let place: number = Limit.PLACES;
      if (length <= Limit.SHORT_STRING && length > 1) {
        place = (length + 31 * value.charCodeAt(0) + 17 * value.charCodeAt(length >> 1) + 7 * value.charCodeAt(length - 1)) &
          (Limit.PLACES - 1);
        if (kept[place] === value) {
          words[header] = Type.KEPT;
          words[header + 1] = place;
          return true;
        }
        kept[place] = value;
        keptNew = true;
      }
      words[header + 1] = length;
      const from = 8 * cell;
      cell += (length + 7) >> 3;
      if (cell > end) return false;
      let all = 0;
      for (let i = 0; i < length; i++) {
        const code = value.charCodeAt(i);
        all |= code;
        bytes[from + i] = code;
      }
      words[header] = Type.LATIN | place << Type.BITS;
      return all < 256 || writeWide(value, header);
    }
    if (typeof value === "object" && value !== null) {
      if (isRepeated(value)) return false;
      objects.push(value);
      if (isArray(value)) {
        const { length } = value;
        // Arrays with holes or other keys are left to structured cloning.
        if (length > Limit.LONGEST_ARRAY || keysOf(value).length !== length) return false;
        words[header] = Type.ARRAY;
        words[header + 1] = length;
        for (let i = 0; i < length; i++) {
          const element: unknown = value[i];
          // There may be as many other keys as holes, and a getter may have removed the rest.
          if (!write(element) || element === undefined && !hasOwn(value, i)) return false;
        }
        return true;
      }
      const prototype = getPrototypeOf(value) as object | null;
      // An enumerable property that all objects inherit would pass for a key of this one.
      if (prototype !== plain && !isOrdinary(value, prototype) || keysOf(plain).length > 0) return writeOther(value, prototype, header);
      const known = told.length;
      words[header] = Type.OBJECT;
      let keys = noKeys;
      // In such a loop V8 reads a property in 2 ns; with a key from an array it takes 10. The keys are those that there are now, whatever
      // getters do to the object.
      for (const key in value) {
        keys = keys.latest.key === key ? keys.latest : withKey(keys, key);
        if (!write(property(value, key))) return false;
      }
      // Unknown even if an object within this one was the first to have these keys: the reader learns them after this one has begun.
      if (keys.shape < 0 || keys.shape >= known) return writeKeys(keys, header);
      words[header + 1] = keys.shape;
      return true;
    }
    if (typeof value === "bigint") return writeBigInt(value, header);
    words[header + 1] = 0;
    words[header] = value === undefined ? Type.UNDEFINED : value === null ? Type.NULL : value === true ? Type.TRUE : Type.FALSE;
    return value === undefined || value === null || typeof value === "boolean";
  }

  /** Whether the record has this object already, or too many others. */
  function isRepeated(object: object): boolean {
    const { length } = objects;
    if (length < Limit.FEW_OBJECTS) return objects.includes(object);
    for (let i = manyObjects.size; i < length; i++) manyObjects.add(objects[i]);
    return length === Limit.MOST_OBJECTS || manyObjects.has(object);
  }

  /**
   * A property, for the loop over the keys of an object: if that reads it by itself, V8 14 compiles the loop again and again, each time for
   * one key ("unexpected name in keyed access"), once it has met a large object. Writing one took five times as long then.
   */
  function property(of: object, key: string): unknown {
    return (of as Record<string, unknown>)[key];
  }

  /**
   * Whether structured cloning copies an object with this prototype, which is not that of plain objects, as if it were one: one without
   * any, or an instance of a class of the program that extends no other than such. An instance of a class of the platform may have more
   * than its properties; those that are written in JavaScript mark their instances with a symbol.
   */
  function isOrdinary(value: object, prototype: object | null): boolean {
    if (prototype === dates || prototype === maps || prototype === sets) return false;
    // Nor has a module, which has a symbol, or a pointer of FFI or a struct of WebAssembly, which can have no properties.
    if (prototype === null) return getOwnPropertySymbols(value).length === 0 && (isExtensible(value) || keysOf(value).length > 0);
    let isKnown = ordinary.get(prototype);
    if (isKnown === undefined) ordinary.set(prototype, isKnown = getOwnPropertySymbols(value).length === 0 && isOfProgram(prototype));
    if (!isKnown) return false;
    // An enumerable property of a prototype would pass for a key of the object.
    for (let each: object | null = prototype; each !== plain; each = getPrototypeOf(each)) {
      if (each === null || keysOf(each).length > 0) return false;
    }
    return true;
  }

  /** Whether a prototype is that of a class which, like all that it extends, is not the platform's. It may be a proxy, and do anything. */
  function isOfProgram(prototype: object): boolean {
    try {
      const { value: constructor } = getOwnPropertyDescriptor(prototype, "constructor") as { value: object };
      if (getOwnPropertyDescriptor(constructor, "prototype")!.value !== prototype) return false;
      if (apply(textOfFunction, constructor, none).endsWith("{ [native code] }")) return false;
      const base = getPrototypeOf(prototype);
      return base === plain ? getPrototypeOf(constructor) === functions : isOfProgram(base);
    } catch {
      return false;
    }
  }

  function writeBigInt(value: bigint, header: number): boolean {
    if (cell === end || asIntN(64, value) !== value) return false;
    words[header] = Type.BIGINT;
    integers[cell++] = value;
    return true;
  }

  /**
   * Writes an object that is not plain. It may lie about itself, so it is examined with the platform's own functions, which throw if it is
   * something else, or has been moved away.
   */
  function writeOther(value: object, prototype: unknown, header: number): boolean {
    if (prototype === maps || prototype === sets) return writeCollection(value, prototype === maps, header);
    try {
      if (isView(value)) {
        const view = viewNames.indexOf(apply(nameOfView, value, none));
        // What is known to be refused is not asked, as it would throw: that takes as long as a message.
        if (view < 0) return false;
        const buffer = apply(bufferOfView, value, none);
        if (getPrototypeOf(buffer) === sharedBuffers || isRepeated(buffer)) return false;
        objects.push(buffer);
        const at = cell++;
        if (!writeBuffer(buffer, view, header)) return false;
        words[2 * at] = apply(offsetOfView, value, none);
        words[2 * at + 1] = apply(lengthOfView, value, none);
        return true;
      }
      if (prototype === buffers) return writeBuffer(value, Type.WHOLE, header);
      if (prototype !== dates || cell === end) return false;
      doubles[cell] = apply(timeOfDate, value, none);
      cell++;
      words[header] = Type.DATE;
      return true;
    } catch {
      return false;
    }
  }

  function writeCollection(collection: object, isMap: boolean, header: number): boolean {
    const members: unknown[] = [];
    try {
      if (apply(isMap ? sizeOfMap : sizeOfSet, collection, none) > Limit.LONGEST_ARRAY) return false;
      // What it has now, whatever getters do to it.
      if (isMap) apply(forEachOfMap, collection, [(value: unknown, key: unknown) => void members.push(key, value)]);
      else apply(forEachOfSet, collection, [(value: unknown) => void members.push(value)]);
    } catch {
      // It only has the prototype of one.
      return false;
    }
    words[header] = isMap ? Type.MAP : Type.SET;
    words[header + 1] = isMap ? members.length >> 1 : members.length;
    for (let i = 0; i < members.length; i++) if (!write(members[i])) return false;
    return true;
  }

  function writeBuffer(buffer: object, view: number, header: number): boolean {
    const length = apply(lengthOfBuffer, buffer, none);
    if (length > LONGEST_BUFFER || apply(isResizable, buffer, none)) return false;
    words[header] = Type.BYTES | view << Type.BITS;
    words[header + 1] = length;
    const all = new ByteArray(buffer as ArrayBuffer);
    if (length > Limit.LONG) {
      const from = findInBulk(length, header);
      if (from < 0) return false;
      apply(set, bulkBytes, [all, from]);
      advanceInBulk(length);
      return true;
    }
    const from = 8 * cell;
    cell += (length + 7) >> 3;
    if (cell > end) return false;
    apply(set, bytes, [all, from]);
    return true;
  }

  /** Finds this many free bytes in the bulk, and notes the position in the value's cells; -1 if there are not as many. */
  function findInBulk(length: number, header: number): number {
    const count = (length + 7) >> 3;
    const start = bulkPosition & inBulk;
    // If too little is left before the end, it starts at the beginning.
    const position = start + count > bulkSize ? bulkPosition + bulkSize - start : bulkPosition;
    if (((position + count - bulkReadTo) & Layout.POSITIONS) > bulkSize) {
      bulkReadTo = load(words, Layout.BULK_READ);
      if (((position + count - bulkReadTo) & Layout.POSITIONS) > bulkSize) return -1;
    }
    if (cell >= end) return -1;
    bulkPosition = position & Layout.POSITIONS;
    words[header]! |= Type.IN_BULK;
    words[2 * cell++] = bulkPosition;
    return 8 * (bulkPosition & inBulk);
  }

  function advanceInBulk(length: number): void {
    bulkPosition = (bulkPosition + ((length + 7) >> 3)) & Layout.POSITIONS;
  }

  /** Writes a string as 16-bit characters; its first cell has already been written. */
  function writeWide(text: string, header: number): boolean {
    const { length } = text;
    cell = (header >> 1) + 1;
    const from = 4 * cell;
    cell += (length + 3) >> 2;
    if (cell > end) return false;
    for (let i = 0; i < length; i++) characters[from + i] = text.charCodeAt(i);
    words[header] = words[header]! & ~Type.MASK | Type.WIDE;
    return true;
  }

  /** Judged by its first, middle and last character: counting its bytes takes as long as writing it. */
  function isTooLong(text: string): boolean {
    const { length } = text;
    const isWide = (text.charCodeAt(0) | text.charCodeAt(length >> 1) | text.charCodeAt(length - 1)) > 255;
    return length > (isWide ? Limit.LONGEST_WIDE : Limit.LONGEST_TEXT);
  }

  function writeLong(text: string, header: number): boolean {
    const { length } = text;
    words[header] = Type.UTF8;
    let into: Uint8Array;
    if (length > Limit.LONG) {
      const most = min(3 * length, Limit.LONGEST_TEXT);
      const from = findInBulk(most, header);
      if (from < 0) return false;
      into = new ByteArray(bulk, from, most);
    } else into = new ByteArray(ring, 8 * cell, 8 * (min(end, cell + ((3 * length + 7) >> 3)) - cell));
    const { read, written } = apply(encodeInto, encoder, [text, into]);
    if (read < length) return false;
    words[header + 1] = written;
    if (length > Limit.LONG) advanceInBulk(written);
    else cell += (written + 7) >> 3;
    return true;
  }

  function withKey(keys: Keys, key: string): Keys {
    const known = keys.more.get(key);
    if (known !== undefined) return keys.latest = known;
    const isFull = told.length === Limit.MOST_SHAPES || beginnings === Limit.MOST_BEGINNINGS;
    // Assigning to `__proto__` would set the prototype.
    if (isFull || keys.more === forgotten || key === "__proto__") return { key, before: keys, more: forgotten, latest: noKeys, shape: -1 };
    beginnings++;
    const longer = beginning(keys, key);
    keys.more.set(key, longer);
    return keys.latest = longer;
  }

  function beginning(before: Keys | undefined, key: string | undefined): Keys {
    const keys = { key, before, more: new Map(), shape: -1 } as unknown as Keys;
    // At first `latest` is one whose key never matches.
    keys.latest = before === undefined ? keys : noKeys;
    return keys;
  }

  /** Writes keys that are new to the reader, after the values of the first object that has them. */
  function writeKeys(keys: Keys, header: number): boolean {
    if (keys.more === forgotten || told.length === Limit.MOST_SHAPES) return writeAll(listOf(keys), Type.DICTIONARY, header);
    if (!writeAll(listOf(keys), Type.NEW_SHAPE, header)) return false;
    keys.shape = told.push(keys) - 1;
    return true;
  }

  function listOf(keys: Keys): string[] {
    const list: string[] = [];
    for (let each = keys; each.before !== undefined; each = each.before) list.push(each.key!);
    return list.reverse();
  }

  /** Writes the keys of an object after its values. */
  function writeAll(keys: string[], type: Type, header: number): boolean {
    words[header] = type;
    words[header + 1] = keys.length;
    // Without what a task may have put in the place of the platform's iterator: then less would be written than the length says.
    for (let i = 0; i < keys.length; i++) if (!write(keys[i])) return false;
    return true;
  }

  /**
   * Cleans up after a record with more than numbers. If it could not be written, the reader will not see what was new in it. Throws what a
   * getter has thrown.
   */
  function tidyUp(complete: boolean, knownBefore: number): void {
    while (objects.length > 0) objects.pop();
    if (manyObjects.size > 0) manyObjects.clear();
    if (!complete) {
      while (told.length > knownBefore) told.pop()!.shape = -1;
      if (keptNew) kept.fill("");
    }
    keptNew = false;
    const failure = thrown;
    thrown = undefined;
    if (failure !== undefined) throw failure.error;
  }

  /** Reads what {@linkcode writeValue} wrote. */
  function readValue(): unknown {
    const type = words[2 * cell]!;
    if (type === Type.INTEGER) return words[2 * cell++ + 1]!;
    if (type !== Type.DOUBLE) return read();
    cell += 2;
    return doubles[cell - 1];
  }

  function read(): unknown {
    const type = words[2 * cell]!;
    const detail = words[2 * cell + 1]!;
    cell++;
    switch (type & Type.MASK) {
      case Type.INTEGER:
        return detail;
      case Type.DOUBLE:
        return doubles[cell++];
      case Type.LATIN:
      case Type.WIDE: {
        const codes = detail <= Limit.SHORT_STRING ? arrays[detail]! : new Array<number>(detail);
        if ((type & Type.MASK) === Type.LATIN) {
          const from = 8 * cell;
          cell += (detail + 7) >> 3;
          for (let i = 0; i < detail; i++) codes[i] = bytes[from + i]!;
        } else {
          const from = 4 * cell;
          cell += (detail + 3) >> 2;
          for (let i = 0; i < detail; i++) codes[i] = characters[from + i]!;
        }
        const text = apply(fromCharCode, undefined, codes);
        if (type >> Type.BITS < Limit.PLACES) kept[type >> Type.BITS] = text;
        return text;
      }
      case Type.UTF8:
        return readLong(type, detail);
      case Type.KEPT:
        return kept[detail];
      case Type.TRUE:
        return true;
      case Type.FALSE:
        return false;
      case Type.UNDEFINED:
        return undefined;
      case Type.NULL:
        return null;
      case Type.ARRAY: {
        const values = new PlainArray<unknown>(detail);
        for (let i = 0; i < detail; i++) values[i] = read();
        return values;
      }
      case Type.NEW_SHAPE:
        return readNewShape(detail);
      case Type.BYTES:
        return readBuffer(type, detail);
      case Type.DATE:
        return new PlainDate(doubles[cell++]!);
      case Type.BIGINT:
        return integers[cell++];
      case Type.MAP: {
        const map = new PlainMap<unknown, unknown>();
        for (let i = 0; i < detail; i++) apply(setInMap, map, [read(), read()]);
        return map;
      }
      case Type.SET: {
        const set = new PlainSet<unknown>();
        for (let i = 0; i < detail; i++) apply(addToSet, set, [read()]);
        return set;
      }
      case Type.DICTIONARY:
        return readDictionary(detail);
      default: {
        const { make } = shapes[detail]!;
        return make === undefined ? readObject(shapes[detail]!) : make();
      }
    }
  }

  function readLong(type: number, length: number): string {
    // Copied first: decoding shared memory takes three times as long.
    copy ??= new Uint8Array(Limit.LONGEST_TEXT);
    apply(set, copy, [readWhere(type, length)]);
    return apply(decode, decoder, [new ByteArray(copy.buffer, 0, length)]);
  }

  function readBuffer(type: number, length: number): object {
    const view = (type >> Type.BITS) & 15;
    const at = view === Type.WHOLE ? 0 : 2 * cell++;
    const all = newBytes(length);
    apply(set, all, [readWhere(type, length)]);
    if (view === Type.WHOLE) return all.buffer;
    // Most are byte arrays over a whole buffer.
    if (view === 0 && words[at + 1] === length) return all;
    return new Views[view]!(all.buffer, words[at]!, words[at + 1]!);
  }

  function newBytes(length: number): Uint8Array<ArrayBuffer> {
    return spares[0]?.byteLength === length ? new ByteArray(spares.pop()!) : new ByteArray(length);
  }

  /** The bytes of a value: in the bulk, or in the next cells. */
  function readWhere(type: number, length: number): Uint8Array {
    const count = (length + 7) >> 3;
    let from = 8 * cell;
    if ((type & Type.IN_BULK) === 0) {
      cell += count;
      return new ByteArray(ring, from, length);
    }
    const position = words[2 * cell++]!;
    bulkPosition = (position + count) & Layout.POSITIONS;
    from = 8 * (position & inBulk);
    return new ByteArray(bulk, from, length);
  }

  function readNewShape(count: number): object {
    const values = readAll(count);
    const keys = readAll(count) as string[];
    // If Object.prototype is frozen, assigning to a property that it has fails.
    shapes.push({ keys, uses: 0, make: keys.some((key) => key in plain) ? maker(keys) : undefined });
    const object = {};
    for (let i = 0; i < count; i++) {
      const property = { __proto__: null, value: values[i], writable: true, enumerable: true, configurable: true };
      defineProperty(object, keys[i]!, property);
    }
    return object;
  }

  /**
   * Reads an object with its own keys. As long as it has no prototype, V8 takes it for a dictionary, and a new key takes a quarter of the
   * time.
   */
  function readDictionary(count: number): object {
    const values = readAll(count);
    const object = createObject(null) as Record<string, unknown>;
    for (let i = 0; i < count; i++) object[read() as string] = values[i];
    return setPrototypeOf(object, plain);
  }

  function readAll(count: number): unknown[] {
    const values = new PlainArray<unknown>(count);
    for (let i = 0; i < count; i++) values[i] = read();
    return values;
  }

  /**
   * Reads an object whose keys have not been read often. Once they have, a literal with these keys makes such objects: V8 then knows their
   * layout, and takes a tenth of the time.
   */
  function readObject(shape: Shape): object {
    const { keys } = shape;
    if (++shape.uses === Limit.OFTEN) shape.make = maker(keys);
    const object: Record<string, unknown> = {};
    for (let i = 0; i < keys.length; i++) object[keys[i]!] = read();
    return object;
  }

  function maker(keys: string[]): () => object {
    return makeFunction("read", `return () => ({ ${keys.map((key) => `${stringify(key)}: read()`)} })`)(read) as () => object;
  }

  /** Whether there is a next record; if so, `position` is where it begins. */
  function findNext(): boolean {
    if (position === writtenTo && position === (writtenTo = load(words, Layout.WRITTEN))) return false;
    const start = position & inRing;
    const isSkipped = words[2 * (Layout.FIRST_CELL + start)] === Type.SKIP;
    position = (position - start + (isSkipped ? size : start)) & Layout.POSITIONS;
    return true;
  }

  function take(): boolean {
    if (!findNext()) return false;
    if (begins()) readBeginning();
    else readGoingOn();
    return true;
  }

  function takeNext(): boolean {
    if (!findNext() || begins()) return false;
    readGoingOn();
    return true;
  }

  function readBeginning(): void {
    const header = 2 * cell;
    queue.kind = words[header + 1]!;
    queue.number = words[header + 2]!;
    count = words[header + 3]!;
    cell += 2;
    queue.label = readValue();
    readRest(header >> 1);
  }

  function readGoingOn(): void {
    const from = cell;
    queue.number++;
    queue.label = count === 0 ? readValue() : queue.label as number + 1;
    readRest(from);
  }

  /** Whether the next record, which must exist, does not continue the one before. Moves to its first cell. */
  function begins(): boolean {
    cell = Layout.FIRST_CELL + (position & inRing);
    return words[2 * cell] === Type.BEGINS;
  }

  /** Reads the values of a record that began in this cell. */
  function readRest(from: number): void {
    queue.values = count === 0 ? none : count === 1 ? [readValue()] : readValues();
    position = (position + cell - from) & Layout.POSITIONS;
    free();
  }

  /** Reads the values of a record into an array of exactly that size: a growing one has room for 17 at once. */
  function readValues(): unknown[] {
    const values = new PlainArray<unknown>(count);
    for (let i = 0; i < count; i++) values[i] = readValue();
    return values;
  }

  function takeAll(kind: number, numbers: number[], labels: unknown[], most: number): void {
    writtenTo = load(words, Layout.WRITTEN);
    const cells = (writtenTo - position) & Layout.POSITIONS;
    // As many as there can be, a cell each: lists that grow take three times as much memory. For a few that takes longer than it saves.
    if (cells > Limit.FEW) numbers.length = labels.length = min(most, cells, size);
    taken = 0;
    try {
      while (takeSome(kind, numbers, labels, most - taken) && !queue.isAstray);
    } finally {
      if (taken < labels.length) numbers.length = labels.length = taken;
    }
  }

  /**
   * Takes some of them; true if there may be more. A longer loop would be compiled during its first rounds, before V8 has seen what follows
   * it. It throws such code away when it gets there, but V8 14 uses the same code again for the next call.
   */
  function takeSome(kind: number, numbers: number[], labels: unknown[], most: number): boolean {
    let { number } = queue;
    let left: number = min(most, Limit.SOME);
    while (left > 0 && findNext()) {
      const isFirst = begins();
      const from = cell;
      if (isFirst) {
        if (words[2 * from + 1] !== kind) break;
        number = words[2 * from + 2]!;
        cell += 2;
        queue.kind = kind;
        count = 0;
      } else if (queue.kind !== kind) break;
      else number++;
      labels[taken] = readValue();
      numbers[taken++] = number;
      position = (position + cell - from) & Layout.POSITIONS;
      left--;
    }
    queue.number = number;
    free();
    return left === 0 && most > Limit.SOME;
  }

  /** Tells the writer that the room of what was read is free. */
  function free(): void {
    if (bulkPosition !== bulkReadTo) store(words, Layout.BULK_READ, bulkReadTo = bulkPosition);
    store(words, Layout.READ, position);
  }

  const queue = {
    kind: 0,
    number: 0,
    label: undefined as unknown,
    values: none,
    push,
    take,
    takeNext,
    takeAll,
    reuse(buffer: ArrayBuffer) {
      const { byteLength } = buffer;
      if (spares[0]?.byteLength !== byteLength) spares = [];
      const count = spares.length + 1;
      if (byteLength > 0 && count <= Limit.MOST_SPARES && count * byteLength <= bulk.byteLength) spares.push(buffer);
    },
    close() {
      closed = true;
      nextNumber = NaN;
    },
    get hasRoom() {
      return !writing && size - ((words[Layout.WRITTEN]! - load(words, Layout.READ)) & Layout.POSITIONS) > size >> 1;
    },
    get isCrowded() {
      return !queue.hasRoom || ((bulkWritten - load(words, Layout.BULK_READ)) & Layout.POSITIONS) > bulkSize >> 1;
    },
    // A separate function, as V8 compiles a loop quickly if it is the whole function.
    spin(time: number) {
      const end = clock() + time;
      // The loop ends even if the clock stands still.
      for (let i = 1; i <= Limit.MOST_LOOKS; i++) {
        if (position !== load(words, Layout.WRITTEN)) return true;
        // Leaves what the core can do meanwhile to the other thread of the core, and gives V8 less of a reason to compile this.
        pause();
        if (i % Limit.LOOKS_A_READING === 0 && clock() >= end) return false;
      }
      return false;
    },
    get nextKind() {
      if (!findNext()) return undefined;
      return begins() ? words[2 * cell + 1]! : queue.kind;
    },
    get isAstray() {
      return ((writtenTo - position) & Layout.POSITIONS) > size;
    },
    get hasNext() {
      return position !== writtenTo || position !== (writtenTo = load(words, Layout.WRITTEN));
    },
    get end() {
      return load(words, Layout.WRITTEN);
    },
    hasNextBefore(end: number) {
      const left = (end - position) & Layout.POSITIONS;
      return left > 0 && left <= size;
    },
  };
  return queue;
}
