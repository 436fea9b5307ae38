import { assert, assertEquals, assertThrows } from "@std/assert";
import { ChunkSizer } from "../pool/chunk_sizer.ts";
import { CHUNK_PATIENCE, MapInput } from "../pool/map_input.ts";
import { resolveMapOptions } from "../pool/map_options.ts";
import { SimulatedClock } from "./simulation/simulated_clock.ts";

/** How many turns of the microtask queue an input may take for what needs no time. */
const TURNS = 10;

/** An open input of a map that reads automatic chunks of up to `size` items, and what it says to that map. */
function opened(items: unknown, size: number) {
  const clock = new SimulatedClock();
  const parts = { task: () => {}, items, capacity: 1, jobTimeout: Infinity, retries: 0, eager: false };
  const options = resolveMapOptions({}, parts);
  const sizer = new ChunkSizer(options);
  sizer.size = size;
  const map = { isReading: true, refusal: undefined as unknown, waiting: 0, said: [] as unknown[] };
  const input = new MapInput(options, sizer, {
    isReading: () => map.isReading,
    refusal: () => map.refusal,
    refused: (error) => map.said.push("refused", error),
    failed: (error) => map.said.push("failed", error),
    waits: () => map.waiting++,
    goesOn: () => map.waiting = 0,
    report: (error) => map.said.push("reported", error),
    clock,
  });
  input.open();

  /** Reads a chunk, for which it waits as long as it may. */
  async function read(): Promise<unknown> {
    const chunk = Promise.resolve(input.readChunk());
    for (let i = 0; i < TURNS; i++) await undefined;
    if (clock.timers > 0) clock.fire();
    return await chunk;
  }

  return { clock, map, input, read };
}

/** An asynchronous iterator whose items are given by the test. */
class Source {
  #calls: PromiseWithResolvers<IteratorResult<unknown>>[] = [];
  #given = 0;
  returns = 0;

  /** The call after those that were answered. */
  #next(): PromiseWithResolvers<IteratorResult<unknown>> {
    return this.#calls[this.#given++] ??= Promise.withResolvers();
  }

  give(value: unknown): void {
    this.#next().resolve({ done: false, value });
  }

  fail(error: unknown): void {
    this.#next().reject(error);
  }

  [Symbol.asyncIterator](): AsyncIterator<unknown> {
    let asked = 0;
    return {
      next: () => (this.#calls[asked++] ??= Promise.withResolvers()).promise,
      return: () => {
        this.returns++;
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }
}

Deno.test("MapInput gives an item that came when nobody waited for it once, and before those that came later", async () => {
  const source = new Source();
  const { read, clock } = opened(source, 3);
  source.give(1);
  assertEquals(await read(), [1]);
  source.give(2);
  // Now it is there, and not only promised.
  for (let i = 0; i < TURNS; i++) await undefined;
  assertEquals(await read(), [2]);
  for (const item of [3, 4, 5, 6]) source.give(item);
  assertEquals([await read(), clock.timers], [[3, 4, 5], 0]);
});

Deno.test("MapInput holds its first item no longer than it may, even if others come meanwhile", async () => {
  const source = new Source();
  const { input, clock } = opened(source, 3);
  source.give(1);
  const chunk = input.readChunk();
  for (let i = 0; i < TURNS; i++) await undefined;
  clock.creep(CHUNK_PATIENCE / 2);
  source.give(2);
  for (let i = 0; i < TURNS; i++) await undefined;
  clock.fire();
  assertEquals([await chunk, clock.now(), clock.timers], [[1, 2], CHUNK_PATIENCE, 0]);
});

Deno.test("MapInput is no longer waited for once it has given an item, or has thrown", async () => {
  const source = new Source();
  const { map, input } = opened(source, 2);
  const first = input.readChunk();
  for (let i = 0; i < TURNS; i++) await undefined;
  assertEquals(map.waiting, 1);
  source.give(1);
  for (let i = 0; i < TURNS; i++) await undefined;
  assertEquals(map.waiting, 0);
  source.give(2);
  assertEquals(await first, [1, 2]);
  const second = input.readChunk();
  for (let i = 0; i < TURNS; i++) await undefined;
  assertEquals(map.waiting, 1);
  source.fail("no");
  assertEquals([await second, map.waiting, map.said, input.ended], [[], 0, ["failed", "no"], true]);
});

Deno.test("MapInput does not take a typed array whose memory was moved away for one that has ended", async () => {
  const numbers = new Float64Array([1, 2, 3]);
  const { input } = opened(numbers, 2);
  assertEquals(await input.readChunk(), new Float64Array([1, 2]));
  numbers.buffer.transfer();
  assertThrows(() => input.readChunk(), TypeError, "detached");
});

Deno.test("MapInput gives the items of an array before the one that throws, and then what that throws", async () => {
  const error = new Error("no item 2");
  const items = Object.defineProperty([0, 1, 2, 3], 2, {
    get() {
      throw error;
    },
  });
  const { input, map } = opened(items, 4);
  assertEquals([await input.readChunk(), map.said, input.ended], [[0, 1], ["failed", error], true]);
});

Deno.test("MapInput that has had to read an array item by item keeps doing so, and reads each item once from then on", async () => {
  let reads = 0;
  const items = Object.defineProperty([undefined, 1, undefined, 3, 4], 3, {
    get() {
      reads++;
      return 3;
    },
  });
  const { input } = opened(items, 2);
  const chunks: unknown[] = [];
  while (!input.ended) chunks.push(await input.readChunk());
  assertEquals([chunks, reads], [[[undefined, 1], [undefined, 3], [4]], 1]);
});

Deno.test("MapInput that is closed within its own next() tells what that throws, as whoever closed it does not hear of it", async () => {
  const source = {
    [Symbol.asyncIterator]: () => ({
      async next(): Promise<never> {
        map.isReading = false;
        await input.close();
        throw "too late";
      },
    }),
  };
  const { map, input, read } = opened(source, 1);
  assertEquals([await read(), map.said], [[], ["failed", "too late"]]);
});

Deno.test("MapInput that is closed while an item is pending reports how that ends, and is closed once", async () => {
  const source = new Source();
  const { map, input } = opened(source, 1);
  const chunk = input.readChunk();
  map.isReading = false;
  await Promise.all([input.close(), input.close()]);
  source.fail("too late");
  assertEquals([await chunk, map.said, source.returns], [[], ["reported", "too late"], 1]);
});

Deno.test("MapInput of a pool that takes nothing more reads one item to tell whether there are any, and waits for it briefly", async () => {
  const refusal = new Error("closed");
  for (const items of [[1, 2, 3], new Set([1, 2, 3]), new Proxy([1, 2, 3], {})]) {
    const { map, input } = opened(items, 3);
    map.refusal = refusal;
    assertEquals([await input.readChunk(), map.said], [[1], []]);
  }
  const { map, read } = opened(new Source(), 3);
  map.refusal = refusal;
  assertEquals([await read(), map.said], [[], ["refused", refusal]]);
});

for (const kind of ["an iterator", "an array"] as const) {
  Deno.test(`MapInput ends a chunk soon after the items of ${kind} have become large, wherever in it that is`, async () => {
    // It exists only once.
    const large = "x".repeat(2 ** 17);
    for (const small of [0, 1, 100, 4000, 7200, 8100]) {
      const items = Array.from({ length: 8192 }, (_, i) => i < small ? "small" : large);
      const { input } = opened(kind === "an array" ? items : items.values(), 8192);
      const { length } = await input.readChunk();
      assert(length > small && length <= small + 64, `${length} after ${small}`);
    }
  });
}

for (const kind of ["iterator", "proxy"] as const) {
  Deno.test(`MapInput sends the items that it has soon after those of its input take long (${kind})`, async () => {
    // Where it would look if it looked ever more seldom, and where it does.
    for (const quick of [1, 10, 130, 1000]) {
      const take = (i: number) => {
        if (i >= quick) clock.creep(1);
        return i;
      };
      const iterated = Array(5000).keys().map(take);
      const proxy = new Proxy(Array(5000), {
        get: (array, key, self) => /^\d+$/.test(String(key)) ? take(Number(key)) : Reflect.get(array, key, self),
      });
      const { clock, input } = opened(kind === "iterator" ? iterated : proxy, 5000);
      const { length } = await input.readChunk();
      assert(length >= quick + CHUNK_PATIENCE && length <= quick + CHUNK_PATIENCE + Math.min(quick, 64), `${length} after ${quick}`);
    }
  });
}
