/** One end of a queue of records in shared memory: at one end one thread writes, at the other one reads. */
export interface SharedQueue {
  /**
   * Writes a record: two whole numbers of 32 bits, a value that is called its label, and values. False, and nothing is written, if there is no
   * room, or if a value is not of the kind that can be written.
   *
   * @throws {unknown} What a getter of a value throws. Nothing is written then.
   */
  push(kind: number, number: number, label: unknown, values: readonly unknown[]): boolean;
  /** Writes nothing any more, not even a record that a getter of its values is being asked for. */
  close(): void;
  /** Whether a record without values can be written for certain. */
  readonly hasRoom: boolean;
  /** Whether there is a record to take. */
  readonly hasNext: boolean;
  /** Goes to the next record and reads all but its values, which must be taken before the next one. Only if there is one. */
  next(): void;
  readonly kind: number;
  readonly number: number;
  readonly label: unknown;
  /** The values of the record. The room that it took is free then. */
  values(): unknown[];
}

/**
 * Opens a queue in shared memory. What can be written are small values of the kinds that most arguments and results are of: numbers, strings,
 * booleans, null, undefined, and arrays and plain objects of those. They arrive as structured cloning would have them. All else is refused, for
 * that to do: what is large, what has a class, what refers to itself or to one thing twice.
 *
 * Records do not wait for a turn of the event loop: they are there for the reader as soon as they are written, even if the writer is stopped a
 * moment later. A record of one number is 5 ns of work for the writer, a tenth of its share in a message of a hundred.
 *
 * Memory is a ring of cells of eight bytes; a record lies in consecutive ones. Positions count cells, without end but for the wrap of 31 bits, so
 * the number of cells is a power of two. The keys of an object are written when the first object with these keys is; later ones refer to them.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function openSharedQueue(memory: SharedArrayBuffer): SharedQueue {
  /** Strings of up to so many characters; longer ones are cloned faster than they are written character by character. */
  const LONGEST_STRING = 200;
  /** Strings of up to so many are read faster from an array than from a view. */
  const SHORT_STRING = 24;
  const LONGEST_ARRAY = 64;
  /** So many objects and arrays in a record; each is compared with those before it. */
  const MOST_OBJECTS = 12;
  /** So many lists of keys; where there are more, objects are used as dictionaries. */
  const MOST_SHAPES = 256;
  /** The words before the cells: where the writer is and where the reader is, far enough from each other not to share a cache line. */
  const WRITTEN = 0, READ = 16, FIRST_CELL = 16, POSITIONS = 0x7fffffff;
  const SKIP = -1;
  const INTEGER = 0, DOUBLE = 1, LATIN = 2, WIDE = 3, TRUE = 4, FALSE = 5, UNDEFINED = 6, NULL = 7, ARRAY = 8, OBJECT = 9, NEW_SHAPE = 10;

  const { load, store } = Atomics;
  const { keys: keysOf, is, getPrototypeOf, prototype: plain } = Object;
  const { isArray } = Array;
  const { fromCharCode } = String;
  const { apply } = Reflect;
  const words = new Int32Array(memory);
  const doubles = new Float64Array(memory);
  const bytes = new Uint8Array(memory);
  const characters = new Uint16Array(memory);
  const size = 2 ** Math.floor(Math.log2(doubles.length - FIRST_CELL));
  const inRing = size - 1;
  /** The lists of keys, in the order in which they were written. */
  const shapes: string[][] = [];
  const shapeIds = new Map<string, number>();
  /** The one that was used last. */
  let latest = -1;
  /** The objects of the record that is written. */
  let objects: unknown[] = [];
  /** The next cell, and the end of those that may be written. */
  let cell = 0;
  let end = 0;
  let closed = false;

  /**
   * How far the other end had read and written when this one looked last, which it does only when that is not enough: so the two seldom wait for
   * each other's cache lines. The idea is that of MCRingBuffer (Lee, Bu, Chandranmenon: A lock-free, cache-efficient shared ring buffer for
   * multi-core architectures, 2009).
   */
  let readTo = words[READ]!;
  let writtenTo = words[WRITTEN]!;

  /** Where the next record begins that is to be taken, and where the one ends that is taken, as positions. */
  let position = words[READ]!;
  let recordEnd = 0;
  let count = 0;

  function push(kind: number, number: number, label: unknown, values: readonly unknown[]): boolean {
    const written = words[WRITTEN]!;
    let free = size - ((written - readTo) & POSITIONS);
    if (free < size >> 1) {
      readTo = load(words, READ);
      free = size - ((written - readTo) & POSITIONS);
    }
    let start = written & inRing;
    let skipped = 0;
    // Where little is left before the end, the record begins at the other one.
    if (size - start < size >> 2) {
      skipped = size - start;
      start = 0;
    }
    const room = Math.min(free - skipped, size - start);
    if (room < 2) return false;
    if (skipped > 0) words[2 * (FIRST_CELL + size - skipped)] = SKIP;
    cell = FIRST_CELL + start;
    end = cell + room;
    const header = 2 * cell;
    const before = shapes.length;
    cell += 2;
    let complete = false;
    try {
      complete = write(label) && writeAll(values) && !closed;
    } finally {
      if (objects.length > 0) objects = [];
      // The reader will not see the keys that were new in it.
      if (!complete) forgetShapes(before);
    }
    if (!complete) return false;
    words[header] = cell - (header >> 1);
    words[header + 1] = kind;
    words[header + 2] = number;
    words[header + 3] = values.length;
    store(words, WRITTEN, (written + skipped + cell - (header >> 1)) & POSITIONS);
    return true;
  }

  function writeAll(values: readonly unknown[]): boolean {
    for (let i = 0; i < values.length; i++) if (!write(values[i])) return false;
    return true;
  }

  /** Writes a token: one cell, and so many more that follow. */
  function token(type: number, detail: number, more: number): boolean {
    if (cell + 1 + more > end) return false;
    words[2 * cell] = type;
    words[2 * cell + 1] = detail;
    cell++;
    return true;
  }

  function write(value: unknown): boolean {
    switch (typeof value) {
      case "number":
        if ((value | 0) === value && !is(value, -0)) return token(INTEGER, value, 0);
        if (!token(DOUBLE, 0, 1)) return false;
        doubles[cell++] = value;
        return true;
      case "string":
        return writeString(value);
      case "boolean":
        return token(value ? TRUE : FALSE, 0, 0);
      case "undefined":
        return token(UNDEFINED, 0, 0);
      case "object":
        return value === null ? token(NULL, 0, 0) : writeObject(value);
    }
    return false;
  }

  function writeString(text: string): boolean {
    const { length } = text;
    if (length > LONGEST_STRING || !token(LATIN, length, (length + 7) >> 3)) return false;
    const from = 8 * cell;
    let all = 0;
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i);
      all |= code;
      bytes[from + i] = code;
    }
    if (all < 256) {
      cell += (length + 7) >> 3;
      return true;
    }
    cell--;
    if (!token(WIDE, length, (length + 3) >> 2)) return false;
    for (let i = 0; i < length; i++) characters[4 * cell + i] = text.charCodeAt(i);
    cell += (length + 3) >> 2;
    return true;
  }

  function writeObject(value: object): boolean {
    if (objects.length === MOST_OBJECTS || objects.includes(value)) return false;
    objects.push(value);
    if (isArray(value)) {
      const { length } = value;
      // More keys than elements, or fewer, are cloned as they are.
      return length <= LONGEST_ARRAY && keysOf(value).length === length && token(ARRAY, length, 0) && writeAll(value);
    }
    if (getPrototypeOf(value) !== plain) return false;
    const keys = keysOf(value);
    if (!writeKeys(keys)) return false;
    for (let i = 0; i < keys.length; i++) if (!write((value as Record<string, unknown>)[keys[i]!])) return false;
    return true;
  }

  function writeKeys(keys: string[]): boolean {
    if (latest >= 0 && sameKeys(shapes[latest]!, keys)) return token(OBJECT, latest, 0);
    const id = keys.join("\n");
    const known = shapeIds.get(id);
    if (known !== undefined) return sameKeys(shapes[known]!, keys) && token(OBJECT, latest = known, 0);
    // To assign to it would set the prototype.
    if (shapes.length === MOST_SHAPES || keys.includes("__proto__")) return false;
    if (!token(NEW_SHAPE, keys.length, 0) || !writeAll(keys)) return false;
    shapeIds.set(id, shapes.length);
    latest = shapes.push(keys) - 1;
    return true;
  }

  function sameKeys(some: string[], others: string[]): boolean {
    if (some.length !== others.length) return false;
    for (let i = 0; i < some.length; i++) if (some[i] !== others[i]) return false;
    return true;
  }

  function forgetShapes(from: number): void {
    for (const keys of shapes.splice(from)) shapeIds.delete(keys.join("\n"));
    latest = -1;
  }

  function read(): unknown {
    const type = words[2 * cell]!;
    const detail = words[2 * cell + 1]!;
    cell++;
    switch (type) {
      case INTEGER:
        return detail;
      case DOUBLE:
        return doubles[cell++];
      case LATIN:
      case WIDE:
        return readString(type, detail);
      case TRUE:
      case FALSE:
        return type === TRUE;
      case UNDEFINED:
        return undefined;
      case NULL:
        return null;
      case ARRAY:
        return readAll(detail);
      case NEW_SHAPE:
        shapes.push(readAll(detail) as string[]);
        return readObject(shapes.at(-1)!);
      default:
        return readObject(shapes[detail]!);
    }
  }

  function readAll(length: number): unknown[] {
    const values: unknown[] = [];
    for (let i = 0; i < length; i++) values.push(read());
    return values;
  }

  function readString(type: number, length: number): string {
    const from = type === LATIN ? 8 * cell : 4 * cell;
    const units = type === LATIN ? bytes : characters;
    cell += type === LATIN ? (length + 7) >> 3 : (length + 3) >> 2;
    if (length > SHORT_STRING) return apply(fromCharCode, undefined, units.subarray(from, from + length));
    const codes: number[] = [];
    for (let i = 0; i < length; i++) codes.push(units[from + i]!);
    return apply(fromCharCode, undefined, codes);
  }

  function readObject(keys: string[]): object {
    const object: Record<string, unknown> = {};
    for (let i = 0; i < keys.length; i++) object[keys[i]!] = read();
    return object;
  }

  let kind = 0;
  let number = 0;
  let label: unknown;

  return {
    push,
    close() {
      closed = true;
    },
    get kind() {
      return kind;
    },
    get number() {
      return number;
    },
    get label() {
      return label;
    },
    get hasRoom() {
      return size - ((words[WRITTEN]! - load(words, READ)) & POSITIONS) > size >> 1;
    },
    get hasNext() {
      return position !== writtenTo || position !== (writtenTo = load(words, WRITTEN));
    },
    next() {
      if (words[2 * (FIRST_CELL + (position & inRing))] === SKIP) position += size - (position & inRing);
      cell = FIRST_CELL + (position & inRing);
      const header = 2 * cell;
      recordEnd = (position + words[header]!) & POSITIONS;
      kind = words[header + 1]!;
      number = words[header + 2]!;
      count = words[header + 3]!;
      cell += 2;
      label = read();
    },
    values() {
      const values = readAll(count);
      position = recordEnd;
      store(words, READ, position);
      return values;
    },
  };
}
