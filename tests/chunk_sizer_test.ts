import { assert, assertEquals } from "@std/assert";
import { ChunkSizer } from "../pool/chunk_sizer.ts";
import type { ResolvedMapOptions } from "../pool/map_options.ts";

/** The sizer of a map with four chunks in flight. */
function sizer(options: Partial<ResolvedMapOptions> = {}): ChunkSizer {
  const defaults = { chunkSize: undefined, buffer: 40_000, bufferOfNumbers: 160_000, mostAhead: 2 ** 27, chunksInFlight: 4, eager: false };
  return new ChunkSizer({ ...defaults, ...options } as ResolvedMapOptions);
}

/** How a chunk of numbers was run. */
function work(count: number, elapsed: number, items: ArrayLike<unknown> = Array(count).fill(1)) {
  return { count, elapsed, items, results: [1] as unknown[] };
}

/** The size after chunks that took no time at all, for as long as it grows. */
function largest(sizer: ChunkSizer, { item = 1 as unknown, results = [1] as unknown[] | null } = {}): number {
  for (let i = 0; i < 10; i++) sizer.ran({ ...work(sizer.size, 0, [item]), results: results ?? undefined });
  return sizer.size;
}

const MEGABYTE = "x".repeat(2 ** 20);

Deno.test("ChunkSizer gives chunks 5 ms of work, and grows by a factor of 8 at the most", () => {
  const chunks = sizer();
  const sizes = [chunks.size];
  for (const itemTime of [0.01, 0.01, 0.01, 0.01, 2, 10]) {
    chunks.ran(work(chunks.size, chunks.size * itemTime));
    sizes.push(chunks.size);
  }
  assertEquals(sizes, [1, 8, 64, 500, 500, 2, 1]);
  // It ran none, as the map has ended.
  chunks.ran(work(0, 0));
  assertEquals(chunks.size, 1);
  const fixed = sizer({ chunkSize: 7 });
  fixed.ran(work(7, 0));
  assertEquals([fixed.size, sizer({ chunkSize: 7, buffer: 3 }).size], [7, 3]);
});

Deno.test("ChunkSizer gives no chunk more than a share of the buffer, 4 MB, or what fits into the line to a worker", () => {
  assertEquals([largest(sizer()), largest(sizer({ buffer: 3 }))], [10_000, 1]);
  const list = Array(2 ** 17).fill(1);
  for (const item of [MEGABYTE, new Uint8Array(2 ** 20), new ArrayBuffer(2 ** 20), list, [[list]], { text: [MEGABYTE] }]) {
    const sizes = [largest(sizer(), { item }), largest(sizer(), { results: [item] })];
    assert(sizes.every((size) => size === 3 || size === 4), `${sizes} of ${Deno.inspect(item).slice(0, 20)}`);
  }
  // Some of all of it is looked at.
  assertEquals(largest(sizer(), { item: [...Array(8).fill(1), ...Array(8).fill(MEGABYTE)] }), 1);
  assert(largest(sizer(), { item: [{}, [], MEGABYTE] }) <= 4);
  for (const item of [{}, []]) assertEquals(largest(sizer(), { item }), 10_000);
  assertEquals([largest(sizer({ eager: true })), largest(sizer({ eager: true }), { results: null })], [512, 10_000]);
});

Deno.test("ChunkSizer reads as far ahead of the consumer and of the workers as it may", () => {
  const none = { ahead: 0, ready: 0, inFlight: 0 };
  const chunks = sizer({ buffer: 10 });
  assertEquals([9, 10].map((ahead) => chunks.hasRoom({ ...none, ahead })), [true, false]);
  assertEquals([15, 16].map((ready) => chunks.hasRoom({ ...none, ready })), [true, false]);
  assertEquals([3, 4].map((inFlight) => chunks.hasRoom({ ...none, inFlight })), [true, false]);
  const larger = sizer({ buffer: 100, chunkSize: 5 });
  assertEquals([95, 96].map((ahead) => larger.hasRoom({ ...none, ahead })), [true, false]);
  // Four of these are 128 MB: but a chunk must have room, and none of several workers stand idle.
  const chunk = [MEGABYTE.repeat(32)];
  for (const [chunkSize, most] of [[20, 60], [1, 3]] as const) {
    const huge = sizer({ chunkSize });
    huge.ran(work(chunkSize, 0, chunk));
    assertEquals([0, most, most + 1].map((ahead) => huge.hasRoom({ ...none, ahead })), [true, true, false], `${chunkSize}`);
  }
});

Deno.test("ChunkSizer forgets a large item little by little", () => {
  const chunks = sizer();
  const room: boolean[] = [];
  for (const item of [MEGABYTE, ...Array(20).fill(1)]) {
    chunks.ran(work(1, 5, [item]));
    room.push(chunks.hasRoom({ ahead: 200, ready: 0, inFlight: 0 }));
  }
  assertEquals([room[0], room[5], room[20]], [false, false, true]);
});

Deno.test("ChunkSizer has a larger buffer for numbers, and chunks that fit into the usual one once results are no numbers", () => {
  const chunks = sizer();
  chunks.returned(true);
  assertEquals([chunks.buffer, largest(chunks)], [160_000, 40_000]);
  chunks.returned(false);
  assertEquals([chunks.buffer, chunks.size], [40_000, 10_000]);
  const fixed = sizer({ chunkSize: 20_000 });
  fixed.returned(false);
  assertEquals(fixed.size, 20_000);
});

Deno.test("ChunkSizer takes for small what has no size that can be read, or lies about it", () => {
  const liar = { [Symbol.toStringTag]: "Uint8Array" };
  const proxy = new Proxy({}, {
    ownKeys() {
      throw new Error("not to be looked at");
    },
  });
  const endless = Object.defineProperty(new Uint8Array(1), "byteLength", { value: Infinity });
  const none = Object.defineProperty(new Uint8Array(1), "byteLength", { value: NaN });
  for (const item of [liar, proxy, endless, none]) assertEquals(largest(sizer(), { item }), 10_000);
});

Deno.test("ChunkSizer does not count an object once more that refers to itself, but each of many items that are the same", () => {
  const self: Record<string, unknown> = {};
  self.self = self;
  const set = new Set<unknown>();
  set.add(set);
  const child: Record<string, unknown> = {};
  child.parent = { children: [child, child] };
  for (const item of [self, set, child]) assertEquals(largest(sizer(), { item }), 10_000);
  const page = { text: MEGABYTE };
  assertEquals(largest(sizer(), { item: [page, page, page] }), 1);
});

Deno.test("ChunkSizer looks into maps and sets without calling what a subclass has put in place of their iterators", () => {
  const iterate = (): never => {
    throw new Error("not to be called");
  };
  for (const all of [new Map([[1, MEGABYTE]]), new Set([MEGABYTE])]) {
    const item = Object.defineProperty(all, Symbol.iterator, { value: iterate });
    assertEquals(largest(sizer(), { item }), 3);
  }
});

Deno.test("ChunkSizer sees what is large beside maps, sets and lists that are empty", () => {
  for (const empty of [new Map(), new Set(), [], {}, ""]) assertEquals(largest(sizer(), { item: [MEGABYTE, empty] }), 3);
});

Deno.test("ChunkSizer assumes that the other elements of a map, a set or a list are like the first ones", () => {
  const texts = Array.from({ length: 32 }, (_, i) => `${i}`.padEnd(2 ** 15));
  for (const item of [texts, new Set(texts), new Map(texts.entries()), Object.fromEntries(texts.entries())]) {
    assertEquals(largest(sizer(), { item }), 3);
  }
});

Deno.test("ChunkSizer counts the elements of lists that are nested too deeply to be looked into, and takes objects there for small", () => {
  const nested = (item: unknown): unknown => {
    for (let depth = 0; depth < 4; depth++) item = Array(8).fill(item);
    return item;
  };
  assertEquals(largest(sizer(), { item: nested(Array(2 ** 15).fill(1)) }), 1);
  assertEquals(largest(sizer(), { item: [MEGABYTE, nested({ text: MEGABYTE })] }), 3);
});
