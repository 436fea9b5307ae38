import { assert, assertEquals, assertThrows } from "@std/assert";
import { openSharedQueue, type SharedQueue } from "../worker/shared_queue.ts";
import * as namespace from "./simulation/random.ts";
import { Random } from "./simulation/random.ts";

/** Both ends of a queue with this many cells, through which this many have passed. */
function open(cells = 1024, gone = 0): { writer: SharedQueue; reader: SharedQueue } {
  const memory = { ring: new SharedArrayBuffer(8 * (16 + cells)), bulk: new SharedArrayBuffer(2 ** 16) };
  const words = new Int32Array(memory.ring);
  words[0] = words[16] = words[17] = gone;
  return { writer: openSharedQueue(memory), reader: openSharedQueue(memory) };
}

function take(reader: SharedQueue): [number, number, unknown, readonly unknown[]] {
  assert(reader.hasNext);
  assert(reader.take());
  return [reader.kind, reader.number, reader.label, reader.values];
}

class Point {
  #secret = 1;
  x: unknown;
  y: unknown;
  constructor(x: unknown, y: unknown) {
    this.x = x;
    this.y = y;
  }
  get sum() {
    return [this.x, this.y, this.#secret];
  }
}

class Far extends Point {
  far = true;
}

/** An instance as programs made them before there were classes. */
function Old(kind: string): object {
  function Kind(this: { kind: string }) {
    this.kind = kind;
  }
  return Reflect.construct(Kind, []);
}

/** A struct of WebAssembly: it has no prototype and no properties, like a pointer of FFI, which would need a permission. */
function makeStruct(): unknown {
  const source = "AGFzbQEAAAABCgJfAX8AYAABZAADAgEBBwgBBG1ha2UAAAoHAQUA+wEACw==";
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.fromBase64(source)));
  return (exports.make as () => unknown)();
}

Deno.test("openSharedQueue() carries what it takes as structured cloning does", () => {
  const { writer, reader } = open(8192);
  const values: unknown[] = [
    0,
    -0,
    1.5,
    -7,
    2 ** 31,
    NaN,
    -Infinity,
    "",
    "text",
    "é and ÿ",
    "日本 \ud800",
    "x".repeat(80),
    "x".repeat(81),
    "x".repeat(1024),
    "x".repeat(1025),
    "\ufeff日本é".repeat(50),
    "\ufeff日本é\ud800".repeat(50),
    "x".repeat(20_000),
    "日".repeat(2000),
    `${"x".repeat(5000)}${"日".repeat(2000)}x`,
    true,
    false,
    null,
    undefined,
    [],
    [1, [undefined, "two"], null],
    {},
    { a: 1, "b c": { d: [true] }, 7: "seven", "line\nbreak": 0 },
    { a: { a: { a: 1 } }, b: { a: 2 } },
    { new: { other: 1 }, newer: [{ new: 2, other: 3 }, { new: { new: 4, other: 5 }, other: 6 }] },
    { "": 1, '"': 2, "\\": 3, "\ud800": 4, constructor: 5, "\u2028": 6 },
    [undefined],
    1n,
    -(2n ** 63n),
    new Date(1.5),
    new Date(NaN),
    new ArrayBuffer(0),
    new Uint8Array([1, 2, 3]).buffer,
    new Uint8Array(0),
    new Uint8Array(1024).fill(7),
    new Uint8Array(1025).fill(7),
    new Float64Array(2 ** 11).fill(7),
    [new Uint8Array(9999).fill(8), "x".repeat(2000), new Uint8Array(3000).fill(9).subarray(1000)],
    { bytes: new Uint8Array([1, 2, 3, 4, 5]), at: [new Date(0)] },
    ...[Int8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, Float32Array, Float64Array].map((View) =>
      new View([1, 2, -3])
    ),
    new BigInt64Array([1n, -2n]),
    new BigUint64Array([1n, 2n]),
    new Uint8Array([1, 2, 3, 4]).subarray(1, 3),
    new Uint16Array(new Uint8Array([1, 2, 3, 4, 5]).buffer, 2, 1),
    Object.defineProperty(new Uint8Array([1, 2]), "buffer", { value: "mine" }),
    new (class extends Uint8Array {})([1, 2]),
    new Map(),
    new Map<unknown, unknown>([["a", { b: 1 }], [{ key: 2 }, new Map([[NaN, [0]]])], [-0, undefined]]),
    Object.assign(new Map([["a", 1]]), { lost: 1 }),
    new Map(Array.from({ length: 500 }, (_, i) => [i, `${i}`])),
    new Set([1, "1", undefined, { a: new Set() }]),
    new Point(1, { y: new Point(2, 3) }),
    [new Far(1, 2), new Far(3, 4)],
    Old("function"),
    new (class {})(),
    Object.assign(Object.create(null), { a: 1, b: Object.create(null) }),
    Object.freeze(Object.assign(Object.create(null), { a: 1 })),
    JSON.parse(`{ "a": 1, "__proto__": { "toString": 2 }, "b": 3 }`),
  ];
  for (const value of values) {
    assert(writer.push(3, -5, value, [structuredClone(value), 1]), Deno.inspect(value).slice(0, 80));
    const [kind, number, label, rest] = take(reader);
    assertEquals([kind, number], [3, -5]);
    assertSame([label, ...rest], [structuredClone(value), structuredClone(value), 1]);
  }
  assert(!reader.hasNext);
  assert(writer.push(0, 0, 0, []));
  assertEquals(take(reader), [0, 0, 0, []]);
});

Deno.test("openSharedQueue() refuses what it cannot carry faithfully, and goes on", () => {
  const { writer, reader } = open();
  const shared = { x: 1 };
  const circle: unknown[] = [];
  circle.push(circle);
  const detached = new Uint8Array(1);
  detached.buffer.transfer();
  const views = new Uint8Array(4);
  const refused: unknown[] = [
    2n ** 63n,
    Symbol("no"),
    () => 1,
    new (class extends Date {})(),
    Object.create(Date.prototype),
    Object.create(ArrayBuffer.prototype),
    Object.create(Uint8Array.prototype),
    new (class extends ArrayBuffer {})(1),
    detached,
    detached.buffer,
    new ArrayBuffer(1, { maxByteLength: 2 }),
    new Uint8Array(new ArrayBuffer(1, { maxByteLength: 2 })),
    new Uint8Array(new SharedArrayBuffer(1)),
    new SharedArrayBuffer(1),
    new DataView(new ArrayBuffer(1)),
    new Uint8Array(2 ** 14 + 1),
    new Uint8Array(2 ** 14 + 1).subarray(0, 1),
    [views, views.subarray(1)],
    [views, views.buffer],
    [views.buffer, views],
    new (class extends Map {})(),
    new (class extends Set {})(),
    new Map(Array.from({ length: 1025 }, (_, i) => [i, i])),
    new Set(Array.from({ length: 1025 }, (_, i) => i)),
    new Map([[1, shared], [2, shared]]),
    new Set([() => 1]),
    Object.create(Map.prototype),
    Object.create(Set.prototype),
    Object.create(Point.prototype, { [Symbol("own")]: {} }),
    Object.create({}),
    Object.create(new Proxy({}, {})),
    new (class extends Error {})(),
    new (class extends URL {})("http://localhost"),
    Object.setPrototypeOf({}, class {}),
    Object.create(Object.assign((class {}).prototype, { inherited: 1 })),
    new WeakMap(),
    Promise.resolve(),
    new Blob(),
    new Number(1),
    namespace,
    makeStruct(),
    { struct: makeStruct() },
    /x/,
    new Error("no"),
    [shared, shared],
    circle,
    // deno-lint-ignore no-sparse-arrays -- a hole is not undefined
    [1, , 2],
    // deno-lint-ignore no-sparse-arrays -- as many keys as elements
    Object.assign([1, , 2], { more: 3 }),
    "abc".match(/b/),
    "x".repeat(20_001),
    "日".repeat(2001),
    `${"x".repeat(9000)}${"日".repeat(4000)}${"x".repeat(3000)}`,
    "\ud800".repeat(2001),
    Array.from({ length: 1025 }, () => 1),
    Array.from({ length: 1024 }, () => [1]),
    [...Array.from({ length: 100 }, () => [1]), shared, shared],
    [shared, ...Array.from({ length: 100 }, () => [1]), shared],
    [views, ...Array.from({ length: 100 }, () => [1]), views.buffer],
  ];
  for (const value of refused) {
    assertEquals(writer.push(1, 1, { new: value }, []), false, Deno.inspect(value));
    assertEquals(writer.push(1, 1, 0, [1, value]), false, Deno.inspect(value));
    // What was written of it, such as new keys, has left no trace.
    assert(writer.push(1, 1, 0, [{ new: 1 }, { old: 2 }]));
    assertEquals(take(reader), [1, 1, 0, [{ new: 1 }, { old: 2 }]]);
  }
});

Deno.test("openSharedQueue() carries as many objects as it may, again and again", () => {
  const { writer, reader } = open(2 ** 14);
  for (const count of [64, 65, 1023, 65, 64]) {
    const records = Array.from({ length: count }, (_, i) => ({ i, even: i % 2 === 0 }));
    assert(writer.push(1, 1, 0, [records]));
    assertEquals(take(reader), [1, 1, 0, [records]]);
  }
});

Deno.test("openSharedQueue() throws what a getter throws, and goes on", () => {
  const { writer, reader } = open();
  const value = {
    get secret() {
      throw new RangeError("no");
    },
  };
  assertThrows(() => writer.push(1, 1, 0, [value]), RangeError, "no");
  assert(!reader.hasNext);
  assert(writer.push(1, 1, 0, [{ secret: 1 }]));
  assertEquals(take(reader), [1, 1, 0, [{ secret: 1 }]]);
});

Deno.test("openSharedQueue() refuses when it is full and takes more when there is room, round and round", () => {
  // The positions wrap around to 0 on the way.
  const { writer, reader } = open(256, 2 ** 31 - 20_000);
  const random = new Random(7);
  const expected: [number, number, unknown, unknown[]][] = [];
  let full = 0;
  for (let i = 0; i < 20_000; i++) {
    if (random.chance(0.5)) {
      const values = Array.from(
        { length: random.below(4) },
        () => random.pick([i, i / 3, "x".repeat(random.below(90)), { a: i }, { [`key${i % 9}`]: [i] }]),
      );
      if (writer.push(i, -i, `${i}`, values)) expected.push([i, -i, `${i}`, structuredClone(values)]);
      else full++;
    } else if (expected.length > 0) assertEquals(take(reader), expected.shift()!);
    else assert(!reader.hasNext);
  }
  assert(full > 100 && full < 10_000, String(full));
});

Deno.test("openSharedQueue() has records of numbers that go on with the one before take one cell for each number, round and round", () => {
  for (let seed = 1; seed <= 10; seed++) {
    const { writer, reader } = open(256, 2 ** 31 - 3000);
    const random = new Random(seed);
    const expected: [kind: number, number: number, label: unknown, values: unknown[]][] = [];
    const numbers = [0, -0, NaN, 1.5, -1, 2 ** 31, 7];
    let [kind, number, label, length] = [0, 0, 0 as unknown, 0];
    let full = 0, wentOn = 0;
    for (let i = 0; i < 20_000; i++) {
      if (random.chance(0.5)) {
        // One in ten does not continue the one before, for one reason or another.
        number++;
        label = length === 0 ? random.pick<unknown>([...numbers, "text"]) : typeof label === "number" ? label + 1 : label;
        if (random.chance(0.02)) kind = random.below(3);
        if (random.chance(0.02)) number = random.below(2 ** 30);
        if (random.chance(0.02)) label = random.pick<unknown>([...numbers, 2 ** 53 - 2, "text"]);
        if (random.chance(0.02)) length = random.below(3);
        const values: unknown[] = Array.from({ length }, () => random.pick<unknown>(random.chance(0.02) ? ["text", null, [1]] : numbers));
        if (writer.push(kind, number, label, values)) expected.push([kind, number, label, values]);
        else full++;
      } else if (expected.length === 0) {
        assertEquals([reader.hasNext, reader.nextKind, reader.take(), reader.takeNext()], [false, undefined, false, false]);
      } else if (random.chance(0.3)) {
        assertEquals(reader.nextKind, expected[0]![0]);
        if (!reader.takeNext()) continue;
        wentOn++;
        assertEquals([reader.kind, reader.number, reader.label, reader.values], expected.shift()!);
      } else if (expected[0]![3].length === 0 && random.chance(0.4)) {
        const [runs, labels]: [number[], unknown[]] = [[], []];
        const [next] = expected[0]!;
        // It takes all records of this kind that have no values; for records with values nobody calls it.
        const others = expected.findIndex(([kind, , , { length }]) => kind !== next || length > 0);
        if (others >= 0 && expected[others]![0] === next) continue;
        const most = random.chance(0.5) ? 1000 : random.below(40);
        reader.takeAll(next, runs, labels, most);
        const taken = expected.splice(0, Math.min(most, others < 0 ? expected.length : others));
        assertEquals([[...runs], [...labels]], [taken.map(([, number]) => number), taken.map(([, , label]) => label)]);
      } else assertEquals(take(reader), expected.shift()!);
    }
    assert(full > 100 && wentOn > 500, `${full}, ${wentOn}`);
  }
  const { writer, reader } = open(256);
  let count = 0;
  while (writer.push(1, count, count, [count])) count++;
  assert(count > 240, String(count));
  // Not a cell is left.
  assert(reader.hasNextBefore(reader.end));
  for (let i = 0; i < count; i++) assertEquals(take(reader), [1, i, i, [i]]);
});

Deno.test("openSharedQueue() takes the records before one that cannot be read", () => {
  const memory = { ring: new SharedArrayBuffer(8 * (16 + 256)), bulk: new SharedArrayBuffer(2 ** 16) };
  const writer = openSharedQueue(memory), reader = openSharedQueue(memory);
  for (const each of [5, 6, 7, 8]) assert(writer.push(1, each, 10 * each, []));
  // Each number has a cell, behind the header, which has two: an array of -1 elements takes the place of the third.
  new Int32Array(memory.ring).set([8, -1], 2 * (16 + 2 + 2));
  const runs: number[] = [], labels: unknown[] = [];
  assertThrows(() => reader.takeAll(1, runs, labels, 100), RangeError);
  // Copied, as a list with holes behind its elements counts as equal to one without.
  assertEquals([[...runs], [...labels]], [[5, 6], [50, 60]]);
});

Deno.test("openSharedQueue() takes a record as what it is that is written between two looks", () => {
  const { load } = Atomics;
  let look = (): void => {};
  Atomics.load = ((array: Int32Array, index: number) => {
    const value = load(array, index);
    look();
    return value;
  }) as typeof load;
  let queue: ReturnType<typeof open>;
  try {
    queue = open();
  } finally {
    Atomics.load = load;
  }
  const { writer, reader } = queue;
  const taken: unknown[] = [];
  let next = 0;
  for (const [round, kind] of [1, 1, 1, 2, 2, 1, 1].entries()) {
    // It has just looked in vain, and then there is one.
    for (const takes of ["take", "takeNext", "nextKind", "hasNext"] as const) {
      look = () => {
        look = () => {};
        assert(writer.push(kind, next, next, [-next]));
        next++;
      };
      const result = reader[takes];
      assert(!(typeof result === "function" ? result() : result), `${takes} in round ${round}`);
      while (reader.take()) taken.push([reader.kind, reader.number, reader.label, ...reader.values]);
    }
  }
  assertEquals(taken, [1, 1, 1, 2, 2, 1, 1].flatMap((kind, i) => [0, 1, 2, 3].map((j) => [kind, 4 * i + j, 4 * i + j, -4 * i - j])));
});

Deno.test("openSharedQueue() goes on only with a record that was written, whatever getters do", () => {
  const { writer, reader } = open();
  const push = (number: number, ...values: unknown[]): boolean => writer.push(1, number, number, values);
  const withGetter = (number: number, get: () => number): boolean =>
    writer.push(1, number, number, Object.defineProperty([0, 0], 1, { get }));
  assert(push(1, 10, 11));
  // A record is refused; then one with the same number continues.
  assertEquals(push(2, 20, Symbol()), false);
  assert(push(2, 20, 21));
  const fail = () => {
    throw new RangeError("no");
  };
  assertThrows(() => withGetter(3, fail), RangeError, "no");
  assert(push(3, 30, 31));
  // A getter writes the record that would have continued, which therefore comes first; when it is called again, nothing else can be
  // written.
  const nested: boolean[] = [];
  assert(withGetter(4, () => nested.push(push(4 + nested.length, 40, 42))));
  assertEquals(nested, [true, false]);
  assert(push(5, 50, 51));
  for (const [number, second] of [[1, 11], [2, 21], [3, 31], [4, 42], [4, 2], [5, 51]] as const) {
    assertEquals(take(reader), [1, number, number, [second === 2 ? 0 : 10 * number, second]]);
  }
  writer.close();
  assertEquals(push(6, 60, 61), false);
  assert(!reader.hasNext);
});

Deno.test("openSharedQueue() has all its room again after records that it refused or that were read", () => {
  const { writer, reader } = open();
  const large = new Uint8Array(2 ** 14);
  for (let round = 0; round < 10; round++) {
    for (let i = 0; i < 10; i++) assert(!writer.push(1, 1, 0, [large, Symbol()]));
    for (let i = 0; i < 4; i++) assert(writer.push(1, 1, 0, [large]));
    assert(writer.isCrowded && !writer.push(1, 1, 0, [large]));
    assert(writer.push(1, 1, 0, ["small"]));
    for (let i = 0; i < 5; i++) assert(reader.take());
    assert(!writer.isCrowded);
  }
});

Deno.test("openSharedQueue() reads a buffer into memory that it was given if that has its size, once", () => {
  const { writer, reader } = open();
  const given = new Uint8Array(2000).fill(9).buffer;
  reader.reuse(given);
  for (const size of [1999, 2000, 2000]) assert(writer.push(1, 1, 0, [new Uint8Array(size).fill(size % 256)]));
  const buffers = [1999, 2000, 2000].map((size) => {
    const [, , , [bytes]] = take(reader) as [number, number, unknown, Uint8Array[]];
    assertEquals(bytes, new Uint8Array(size).fill(size % 256));
    return bytes!.buffer;
  });
  assertEquals(buffers.map((buffer) => buffer === given), [false, true, false]);
});

Deno.test("openSharedQueue() keeps memory for as many buffers as are read before any of them is done with, and no more", () => {
  const { writer, reader } = open();
  // As many as it keeps, as many as fit into the bulk, and none without bytes.
  for (const [size, kept] of [[2000, 8], [2 ** 14, 4], [0, 0]] as const) {
    const given = Array.from({ length: 8 }, () => new ArrayBuffer(size));
    for (const buffer of given) reader.reuse(buffer);
    let found = 0;
    for (let i = 0; i < 8; i++) {
      assert(writer.push(1, 1, 0, [new Uint8Array(size).fill(i)]));
      const [, , , [bytes]] = take(reader) as [number, number, unknown, Uint8Array[]];
      assertEquals(bytes, new Uint8Array(size).fill(i));
      if (given.includes(bytes!.buffer as ArrayBuffer)) found++;
    }
    assertEquals(found, kept, `of ${size} bytes`);
  }
  const tiny = Array.from({ length: 100 }, () => new ArrayBuffer(8));
  for (const buffer of tiny) reader.reuse(buffer);
  const read = tiny.map(() => {
    assert(writer.push(1, 1, 0, [new Uint8Array(8)]));
    return (take(reader) as [number, number, unknown, Uint8Array[]])[3][0]!.buffer as ArrayBuffer;
  });
  assertEquals(read.filter((buffer) => tiny.includes(buffer)).length, 64);
});

Deno.test("openSharedQueue() writes nothing beyond the room that there is, whatever does not fit", () => {
  for (
    const last of [
      new Uint8Array(2000),
      new Uint8Array(9),
      new Uint8Array(8),
      "x".repeat(2000),
      "x".repeat(99),
      "日".repeat(9),
      "x".repeat(8),
      "日".repeat(8),
      [1.5],
      new Date(1),
      1n,
      {
        a: 1,
      },
      null,
    ]
  ) {
    let refused = 0;
    for (let fill = 0; fill < 62; fill++) {
      const { writer, reader } = open(128);
      writer.push(1, 1, 0, [Array(56).fill(1)]);
      reader.take();
      writer.push(2, 2, "next", [2]);
      writer.push(3, 3, 0, [Array(30).fill(3)]);
      // This one begins at the start of the ring, and ends before the next one.
      if (!writer.push(4, 4, 0, [Array(fill).fill(4), last])) refused++;
      assertEquals(take(reader), [2, 2, "next", [2]]);
      take(reader);
      assertEquals(reader.take(), refused === 0);
      if (refused === 0) assertEquals([reader.number, reader.values], [4, [Array(fill).fill(4), structuredClone(last)]]);
    }
    assert(refused > 0 && refused < 40, `${refused} refused`);
  }
});

Deno.test("openSharedQueue() goes on when there are too many keys to remember, as objects are dictionaries", () => {
  for (const keys of [1, 3, 20]) {
    const { writer, reader } = open();
    assert(writer.push(1, 0, 0, [{ known: "to both" }]));
    take(reader);
    for (let i = 0; i < 600; i++) {
      const value = () => Object.fromEntries(Array.from({ length: keys }, (_, k) => [i % 2 === 0 ? `key ${i} ${k}` : `${k * i}`, { k }]));
      assert(writer.push(1, i, 0, [value(), { known: i }, value()]));
      const [, number, , values] = take(reader);
      assertSame([number, values], [i, [value(), { known: i }, value()]]);
    }
  }
});

Deno.test("openSharedQueue() carries objects of the platform's classes as structured cloning does, or not at all", () => {
  const { writer, reader } = open();
  const one = new URLSearchParams("a=1");
  const objects: unknown[] = [
    new Intl.NumberFormat(),
    new Response(),
    one,
    one.entries(),
    [1].values(),
    "a".matchAll(/a/g),
    Symbol.iterator,
  ];
  objects.push(new Deno.Command(""), Temporal.Now.instant());
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    if (!/^[A-Z]/.test(name) || ["Buffer", "MessageChannel"].includes(name)) continue;
    try {
      objects.push(new (globalThis as unknown as Record<string, new () => object>)[name]!());
    } catch {
      // It is no class, or needs arguments.
    }
  }
  assert(objects.length > 60, `${objects.length}`);
  for (const object of objects) {
    if (writer.push(1, 1, 0, [object])) assertSame(take(reader)[3], [structuredClone(object)]);
  }
});

Deno.test("openSharedQueue() carries what a Map or Set has when it is written, whatever getters do to it", () => {
  const { writer, reader } = open();
  const map = new Map<unknown, unknown>();
  const set = new Set<unknown>();
  const busy = () => ({
    get value() {
      map.clear();
      set.add("more").add("and more");
      return 1;
    },
  });
  map.set("a", busy()).set("b", 2);
  set.add(busy()).add(2);
  assert(writer.push(1, 1, 0, [map]));
  assert(writer.push(1, 2, 0, [set]));
  assertEquals(take(reader)[3], [new Map<unknown, unknown>([["a", { value: 1 }], ["b", 2]])]);
  assertEquals(take(reader)[3], [new Set<unknown>([{ value: 1 }, 2, "more", "and more"])]);
});

Deno.test("openSharedQueue() carries the keys that a dictionary has when it is written, whatever getters do to it", () => {
  const { writer, reader } = open();
  // With a key like this an object is a dictionary, from there on.
  const odd = "__proto__";
  const makers: (() => object)[] = [
    () => ({
      kept: undefined as unknown,
      get total() {
        return Object.assign(this, { remembered: 1 }).remembered;
      },
      [odd]: 1,
      get later() {
        return Object.assign(this, { more: 1 }).more;
      },
    }),
    () => {
      const before = {
        get a() {
          return Reflect.deleteProperty(before, "a");
        },
        [odd]: 1,
      };
      return before;
    },
    () => {
      const later = {
        get [odd]() {
          return Reflect.deleteProperty(later, "b");
        },
        b: undefined,
      };
      return later;
    },
  ];
  for (const make of makers) {
    assert(writer.push(1, 1, 0, [make()]));
    assertSame(take(reader)[3], [structuredClone(make())]);
  }
  assert(writer.push(1, 1, 0, [{ a: 1 }]));
  assertEquals(take(reader), [1, 1, 0, [{ a: 1 }]]);
});

Deno.test("openSharedQueue() sees when a class gets a property that its instances inherit", () => {
  const { writer, reader } = open();
  class Changing {
    own = 1;
  }
  for (let i = 0; i < 3; i++) {
    assert(writer.push(1, i, 0, [new Changing()]));
    assertEquals(take(reader), [1, i, 0, [{ own: 1 }]]);
  }
  Object.assign(Changing.prototype, { inherited: 1 });
  assertEquals(writer.push(1, 3, 0, [new Changing()]), false);
});

Deno.test("openSharedQueue() carries strings and keys that come again, and forgets those of a record that it refuses", () => {
  const { writer, reader } = open(4096);
  const words = ["Reykjavik", "new", "日本", "é", "\ud800\ud800", "Reykjavix", "x".repeat(32), "x".repeat(33), "abc", "abd"];
  for (let round = 0; round < 100; round++) {
    const value = () => words.map((word, i) => ({ [word]: words[(i + round) % words.length] }));
    const refused = [...value().slice(0, round % 10), { [`only ${round}`]: `refused ${round}` }, /x/];
    assertEquals(writer.push(1, 1, `refused ${round}`, refused), false);
    assert(writer.push(1, 1, `refused ${round}`, value()));
    assertEquals(take(reader), [1, 1, `refused ${round}`, value()]);
  }
});

Deno.test("openSharedQueue() refuses a push by a getter of what it writes, and lets a getter change that", () => {
  const { writer, reader } = open();
  const sent: boolean[] = [];
  const sender = {
    get value() {
      sent.push(writer.hasRoom, writer.push(2, 2, 0, ["from a getter"]));
      return 7;
    },
    other: 1,
  };
  assert(writer.push(1, 1, 0, [sender, "after"]));
  assertEquals(sent, [false, false]);
  assert(writer.hasRoom);
  assertEquals(take(reader), [1, 1, 0, [{ value: 7, other: 1 }, "after"]]);
  assert(!reader.hasNext);

  const growing: unknown[] = [{
    get value() {
      growing.push("more");
      return 1;
    },
  }];
  assert(writer.push(1, 1, 0, [growing]));
  assertEquals(take(reader), [1, 1, 0, [[{ value: 1 }]]]);

  const shrinking: unknown[] = [{
    get value() {
      shrinking.pop();
      return 1;
    },
  }, "gone"];
  assertEquals(writer.push(1, 1, 0, [shrinking]), false);

  const values: unknown[] = [{ known: "to both" }, {
    get value() {
      values.length = 0;
      return 1;
    },
  }, 3];
  assert(writer.push(1, 1, 0, values));
  assertEquals(take(reader), [1, 1, 0, [{ known: "to both" }, { value: 1 }, undefined]]);
  assert(writer.push(1, 1, 0, [{ known: "to both" }]));
  assertEquals(take(reader), [1, 1, 0, [{ known: "to both" }]]);

  const losing: Record<string, unknown> = {
    get value() {
      delete losing.gone;
      losing.more = 1;
      return 1;
    },
    gone: 1,
    stays: 2,
  };
  assert(writer.push(1, 1, 0, [losing]));
  assertEquals(take(reader), [1, 1, 0, [{ value: 1, stays: 2 }]]);
});

Deno.test("openSharedQueue() refuses objects while all objects inherit a key", () => {
  const { writer, reader } = open();
  assert(writer.push(1, 1, 0, [{ a: 1 }]));
  assertEquals(take(reader), [1, 1, 0, [{ a: 1 }]]);
  const all = Object.prototype as unknown as Record<string, unknown>;
  try {
    all.inherited = 1;
    assertEquals(writer.push(1, 1, 0, [{ a: 1 }]), false);
  } finally {
    delete all.inherited;
  }
  assert(writer.push(1, 1, 0, [{ a: 1 }]));
  assertEquals(take(reader), [1, 1, 0, [{ a: 1 }]]);
});

Deno.test("openSharedQueue() carries keys that cannot be assigned to as all objects inherit them", () => {
  const { writer, reader } = open();
  Object.defineProperty(Object.prototype, "inherited", { value: 1, writable: false, configurable: true });
  try {
    for (let i = 0; i < 30; i++) {
      assert(writer.push(1, i, 0, [{ inherited: i }]));
      assertEquals(take(reader), [1, i, 0, [{ inherited: i }]]);
    }
  } finally {
    Reflect.deleteProperty(Object.prototype, "inherited");
  }
});

Deno.test("openSharedQueue() carries random values as structured cloning does, in their order of keys", () => {
  for (let seed = 1; seed <= 10; seed++) {
    const { writer, reader } = open(seed % 2 === 0 ? 1024 : 128, 2 ** 31 - 5_000);
    const random = new Random(seed);
    const texts = () =>
      random.pick(["", "a", "b", "ab", "1", "10", "Ω", "\udc00", "new", "Reykjavik", `${random.below(99)}`, "y".repeat(random.below(230))]);
    const date = () => new Date(random.pick([NaN, 0, -1, random.below(2 ** 41)]));
    const bigInt = () => random.pick([0n, -1n, 2n ** 63n - 1n, 2n ** 63n, -(2n ** 63n), BigInt(random.below(2 ** 31))]);
    const bytes = () => {
      const View = random.pick<Uint8ArrayConstructor>(
        [Uint8Array, Int16Array, Float32Array, Float64Array, BigInt64Array, DataView] as never,
      );
      const { buffer } = new Uint8Array(8 * random.below(random.chance(0.5) ? 1500 : 6)).map(() => random.below(256));
      if (random.chance(0.1)) return buffer;
      const from = 8 * random.below(1 + buffer.byteLength / 8);
      return random.chance(0.5) ? new View(buffer) : new View(buffer, from, random.below(1 + (buffer.byteLength - from) / 8));
    };
    const value = (depth: number): unknown => {
      const kind = random.below(depth > 3 ? 7 : 12);
      if (kind < 3) return texts();
      if (kind < 6) return random.pick([0, -0, NaN, 1.5, -1, 2 ** 31, -(2 ** 31), Infinity, random.below(1000)]);
      if (kind < 7) return random.pick<() => unknown>([() => random.pick([true, false, null, undefined]), bytes, date, bigInt])();
      if (kind < 8) return Array.from({ length: random.below(4) }, () => value(depth + 1));
      const entries = Array.from({ length: random.below(4) }, () => [texts(), value(depth + 1)] as const);
      if (kind < 10) return Object.fromEntries(entries);
      if (kind < 11) return random.chance(0.5) ? new Map<unknown, unknown>(entries) : new Set<unknown>(entries.flat());
      return Object.assign(random.chance(0.5) ? Object.create(null) : Old("old"), Object.fromEntries(entries));
    };
    const expected: unknown[] = [];
    let refused = 0;
    for (let i = 0; i < 5_000; i++) {
      if (random.chance(0.5)) {
        const values = [value(0), value(1), ...random.chance(0.1) ? [{ [texts()]: texts() }, Symbol()] : []];
        if (writer.push(1, i, values[0], values)) expected.push([i, values[0], values]);
        else refused++;
      } else if (expected.length > 0) {
        const [, number, label, values] = take(reader);
        assertSame([number, label, values], structuredClone(expected.shift()));
      }
    }
    assert(refused > 100 && refused < 2_000, String(refused));
  }
});

/** Equal in everything: `assertEquals` ignores the order of keys. */
function assertSame(actual: unknown, expected: unknown): void {
  assertEquals(withBuffers(actual), withBuffers(expected));
  const options = { depth: 10, iterableLimit: 100, strAbbreviateSize: 1000 };
  assertEquals(Deno.inspect(actual, options), Deno.inspect(expected, options));
}

/** The same with the buffer of each view, and its place in it. */
function withBuffers(value: unknown): unknown {
  if (ArrayBuffer.isView(value)) return [value, value.byteOffset, value.buffer];
  if (Array.isArray(value)) return value.map(withBuffers);
  if (value instanceof Map || value instanceof Set) return [value.constructor, [...value].map(withBuffers)];
  if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, withBuffers(each)]));
}
