import { assert, assertEquals, assertThrows } from "@std/assert";
import { openSharedQueue, type SharedQueue } from "../worker/shared_queue.ts";
import { Random } from "./simulation/random.ts";

/** Both ends of a queue of so many cells, through which so many have gone. */
function open(cells = 1024, gone = 0): { writer: SharedQueue; reader: SharedQueue } {
  const memory = new SharedArrayBuffer(8 * (16 + cells));
  const words = new Int32Array(memory);
  words[0] = words[16] = gone;
  return { writer: openSharedQueue(memory), reader: openSharedQueue(memory) };
}

function take(reader: SharedQueue): [number, number, unknown, unknown[]] {
  assert(reader.hasNext);
  reader.next();
  return [reader.kind, reader.number, reader.label, reader.values()];
}

Deno.test("openSharedQueue() carries what it takes as structured cloning does", () => {
  const { writer, reader } = open();
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
    "x".repeat(200),
    true,
    false,
    null,
    undefined,
    [],
    [1, [undefined, "two"], null],
    {},
    { a: 1, "b c": { d: [true] }, 7: "seven", "line\nbreak": 0 },
  ];
  for (const value of values) {
    assert(writer.push(3, -5, value, [structuredClone(value), 1]), Deno.inspect(value));
    assertEquals(take(reader), [3, -5, structuredClone(value), [structuredClone(value), 1]]);
  }
  assert(!reader.hasNext);
  assert(writer.push(0, 0, 0, []));
  assertEquals(take(reader), [0, 0, 0, []]);
});

Deno.test("openSharedQueue() refuses what it cannot carry faithfully, and goes on", () => {
  const { writer, reader } = open();
  class Point {
    x = 1;
  }
  const shared = { x: 1 };
  const circle: unknown[] = [];
  circle.push(circle);
  const refused: unknown[] = [
    1n,
    Symbol("no"),
    () => 1,
    new Date(0),
    new Uint8Array(1),
    new Point(),
    Object.create(null),
    new Map(),
    /x/,
    new Error("no"),
    [shared, shared],
    circle,
    // deno-lint-ignore no-sparse-arrays -- a hole is not undefined
    [1, , 2],
    "abc".match(/b/),
    JSON.parse(`{ "__proto__": 1 }`),
    "x".repeat(201),
    Array.from({ length: 65 }, () => 1),
    Array.from({ length: 13 }, () => [1]),
  ];
  for (const value of refused) {
    assertEquals(writer.push(1, 1, { new: value }, []), false, Deno.inspect(value));
    assertEquals(writer.push(1, 1, 0, [1, value]), false, Deno.inspect(value));
    // What was written of it, such as keys that nobody has seen yet, has left no trace.
    assert(writer.push(1, 1, 0, [{ new: 1 }, { old: 2 }]));
    assertEquals(take(reader), [1, 1, 0, [{ new: 1 }, { old: 2 }]]);
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
  // The positions begin again at 0 on the way.
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

Deno.test("openSharedQueue() gives up on keys when objects are dictionaries", () => {
  const { writer, reader } = open();
  let refused = 0;
  for (let i = 0; i < 1000; i++) {
    if (writer.push(1, i, 0, [{ [`key ${i}`]: i }])) assertEquals(take(reader), [1, i, 0, [{ [`key ${i}`]: i }]]);
    else refused++;
  }
  assertEquals(refused, 1000 - 256);
});
