import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import type { MapOptions } from "@procpool/process-pool";
import { Queue } from "bullmq";
import { Redis } from "ioredis";
import { type Chunk, mapChunks, type MapHost } from "../map.ts";
import { type ClusterPool, PoolClosedError, WorkerDiedError } from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";
import { LARGE_REPLIES, lines, openClient, openHost, openPool, RedisServer, startHost, until, within } from "./helpers.ts";

function* numbers(): Generator<number> {
  for (let n = 0;; n++) yield n;
}

interface EchoOptions {
  chunksInFlight?: number;
  /** How long a chunk takes, in ms. */
  elapsed?: number;
  /** Called with each chunk before it has its outcomes. */
  before?: (chunk: Chunk) => void | Promise<void>;
}

/** The host of a map whose items come back as they are. */
function echo({ chunksInFlight = 1, elapsed = 1, before = () => {} }: EchoOptions = {}): MapHost {
  return {
    chunksInFlight,
    prepare: () => Promise.resolve(),
    encode: (item) => ({ json: item as number, large: false }),
    begin: () => new DisposableStack(),
    async run(chunk) {
      await before(chunk);
      return { outcomes: chunk.items.map((value) => ({ status: "fulfilled", value })), elapsed };
    },
    report(error) {
      throw error;
    },
  };
}

Deno.test("ClusterPool.map() gives results in order, each once, whatever the chunks", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server, { workers: 2 });
  await using pool = await openPool(server);
  const expected = Array.from({ length: 500 }, (_, n) => n * 2);
  for (const options of [{}, { chunkSize: 1 }, { chunkSize: 7 }, { chunkSize: 1000 }, { chunkSize: 10, buffer: 3 }]) {
    assertEquals(await within(Array.fromAsync(pool.map(tasks.double, numbers().take(500), options))), expected);
  }
  const unordered = await within(Array.fromAsync(pool.map(tasks.double, numbers().take(500), { ordered: false, chunkSize: 20 })));
  assertEquals(unordered.sort((a, b) => a - b), expected);
  assertEquals(await Array.fromAsync(pool.map(tasks.double, [])), []);
  assertEquals(pool.stats().finished, 3000);
  // Nothing of it remains in Redis, except for the queue's own records.
  await within(pool.shutdown());
  await using client = openClient(server);
  assertEquals((await client.keys("dpool:test.v1:map-*")).length, 0);
});

Deno.test("ClusterPool.map() reads no more than 'buffer' items ahead, and sends no more chunks than the gate has permits", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, { queueSize: 4 });
  let read = 0;
  function* counted(): Generator<number> {
    for (const n of numbers()) {
      read++;
      yield n;
    }
  }
  // There is no host: nothing is consumed, and everything that may be read is read.
  const bounded = pool.map(tasks.double, counted(), { chunkSize: 5, buffer: 12 });
  const first = bounded.next();
  await until(() => read === 10);
  await until(async () => (await pool.status()).waiting === 2);
  const other = pool.map(tasks.double, numbers(), { chunkSize: 1 });
  const otherFirst = other.next();
  await until(async () => (await pool.status()).waiting === 4);
  assertEquals([read, pool.stats().waiting > 0], [10, true]);
  await using _host = await startHost(server);
  assertEquals([(await within(first)).value, (await within(otherFirst)).value], [0, 0]);
  for (let n = 1; n < 100; n++) {
    assertEquals((await within(bounded.next())).value, n * 2);
    assert(read - (n + 1) <= 12, `${read} items were read when ${n + 1} were consumed`);
  }
  await within(bounded.return!());
  await within(other.return!());
  // The rest is taken out of the queue.
  await until(async () => {
    const { waiting, active } = await pool.status();
    return waiting + active === 0;
  });
});

Deno.test("ClusterPool.map() runs with however many permits the gate has", async () => {
  await using server = await RedisServer.start();
  await using _host = await openHost(server);
  await using pool = await openPool(server, { queueSize: Number.MAX_SAFE_INTEGER });
  assertEquals(await within(Array.fromAsync(pool.map(tasks.double, [1, 2, 3]))), [2, 4, 6]);
});

Deno.test("ClusterPool.map() throws at the place of an item that fails, or gives outcomes", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  const seen: unknown[] = [];
  await assertRejects(
    async () => {
      for await (const x of pool.map(tasks.exitAt13, numbers(), { chunkSize: 5 })) seen.push(x);
    },
    WorkerDiedError,
    "job 13 ",
  );
  assertEquals(seen, Array.from({ length: 13 }, (_, n) => n * 2));
  const mixed = [1, new Map(), "x".repeat(300_000), 4];
  const outcomes = await within(Array.fromAsync(pool.map(tasks.echo, mixed, { settled: true, chunkSize: 4 })));
  assertEquals(outcomes.map(({ status }) => status), ["fulfilled", "rejected", "rejected", "fulfilled"]);
  assertInstanceOf((outcomes[1] as PromiseRejectedResult).reason, TypeError);
  assertInstanceOf((outcomes[2] as PromiseRejectedResult).reason, RangeError);
});

Deno.test("ClusterPool.map() cuts a chunk that grows too large for Redis", LARGE_REPLIES, async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  const texts = Array.from({ length: 10 }, (_, n) => String(n).repeat(100_000));
  const back = await within(Array.fromAsync(pool.map(tasks.echo, texts, { chunkSize: 10 })));
  assertEquals(back.map((text) => (text as string)[0]), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
});

Deno.test("ClusterPool.map() sends the items that an input has computed slowly, although no timer fires", async () => {
  const { now } = performance;
  let time = 0;
  performance.now = () => time;
  try {
    for (const [chunkSize, largest] of [["auto", 5], [40, 40]] as const) {
      const chunks: Chunk[] = [];
      const host = echo({ elapsed: 0.01, before: (chunk) => void chunks.push(chunk) });
      const input = numbers().take(400).map((n) => {
        time += 5;
        return n;
      });
      assertEquals(await within(Array.fromAsync(mapChunks(host, input, { chunkSize }))), [...numbers().take(400)]);
      assertEquals(Math.max(...chunks.map(({ items }) => items.length)), largest);
    }
  } finally {
    performance.now = now;
  }
});

Deno.test("ClusterPool.map() accepts streams and slow inputs, and throws an input's error after its items", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  assertEquals(await within(Array.fromAsync(pool.map(tasks.double, ReadableStream.from([1, 2, 3])))), [2, 4, 6]);
  let closed = false;
  async function* halting(): AsyncGenerator<number> {
    try {
      yield 1;
      yield 2;
      await new Promise(() => {});
    } finally {
      closed = true;
    }
  }
  // The items that are there do not wait for one that does not come.
  const slow = pool.map(tasks.double, halting());
  assertEquals([(await within(slow.next())).value, (await within(slow.next())).value], [2, 4]);
  await within(slow.return!());
  assertEquals(closed, false);
  async function* broken(): AsyncGenerator<number> {
    yield 1;
    throw new Error("input");
  }
  const seen: unknown[] = [];
  await assertRejects(
    async () => {
      for await (const x of pool.map(tasks.double, broken())) seen.push(x);
    },
    Error,
    "input",
  );
  assertEquals(seen, [2]);
});

Deno.test("ClusterPool.map() ends when its signal aborts or its pool is shut down, and stops what runs for it", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  const pool = await openPool(server);
  const controller = new AbortController();
  const spinning = pool.map(tasks.spin, [600_000, 600_000], { signal: controller.signal, chunkSize: 1 }).next();
  await until(() => pool.stats().running === 1);
  controller.abort(new Error("enough"));
  await assertRejects(() => within(spinning), Error, "enough");
  assertEquals(await within(pool.run(tasks.add, 1, 1)), 2);

  const seen: number[] = [];
  let shutdown: Promise<void> | undefined;
  await assertRejects(
    async () => {
      for await (const x of pool.map(tasks.double, numbers(), { chunkSize: 2, buffer: 8 })) {
        seen.push(x);
        if (seen.length === 10) shutdown = pool.shutdown();
      }
    },
    PoolClosedError,
  );
  assert(seen.length >= 10);
  await within(shutdown!);
});

Deno.test(
  "ClusterPool.map() yields results that are too large for one reply, and fails only those that are too large by themselves",
  LARGE_REPLIES,
  async () => {
    await using server = await RedisServer.start();
    await using _host = await startHost(server);
    await using pool = await openPool(server);
    const lengths = Array.from({ length: 100 }, (_, i) => i === 70 ? 300_000 : 5000 + i);
    for (const chunkSize of [100, "auto"] as const) {
      const outcomes = await within(Array.fromAsync(pool.map(tasks.large, lengths, { chunkSize, settled: true })));
      assertEquals(
        outcomes.map((outcome) => outcome.status === "fulfilled" ? (outcome.value as string).length : outcome.reason.constructor),
        lengths.map((length) => length === 300_000 ? RangeError : length),
      );
    }
    assertEquals([pool.stats().finished, pool.stats().failed], [198, 2]);
  },
);

Deno.test("ClusterPool.map() with a 'chunkSize' whose results do not go into one reply runs few items twice", LARGE_REPLIES, async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  const file = `${server.folder}/runs`;
  // Four results fit into one reply.
  const items = Array.from({ length: 120 }, (_, i) => ({ file, length: 60_000 + i }));
  const results = await within(Array.fromAsync(pool.map(tasks.noteLarge, items, { chunkSize: 40 })));
  assertEquals(results.map(({ length }) => length), items.map(({ length }) => length));
  const runs = (await Deno.readTextFile(file)).trimEnd().split("\n").length;
  // Once before that is known, once for the result, and once more for some.
  assert(runs <= 3 * items.length, `${runs} runs of ${items.length} items`);
});

Deno.test(
  "ClusterPool.shutdown() waits for all items of a chunk that was admitted, also if their results do not go into one reply",
  LARGE_REPLIES,
  async () => {
    await using server = await RedisServer.start();
    await using pool = await openPool(server);
    const lengths = Array(100).fill(5000);
    const results = Array.fromAsync(pool.map(tasks.large, lengths, { chunkSize: 100 }));
    await until(() => pool.stats().queued === 1);
    const end = pool.shutdown();
    await using _host = await startHost(server);
    assertEquals((await within(results)).map(({ length }) => length), lengths);
    await within(end);
  },
);

Deno.test(
  "ClusterPool.shutdown() refuses what waits at the gate, except the rest of a chunk that was admitted",
  LARGE_REPLIES,
  async () => {
    await using server = await RedisServer.start();
    await using pool = await openPool(server, { queueSize: 1 });
    const lengths = Array(100).fill(5000);
    const results = Array.fromAsync(pool.map(tasks.large, lengths, { chunkSize: 100 }));
    await until(() => pool.stats().queued === 1);
    const gate = `${server.folder}/go`;
    const between = pool.run(tasks.note, `${server.folder}/runs`, gate);
    await until(() => pool.stats().waiting === 1);
    await using _host = await startHost(server);
    await until(() => pool.stats().running === 1 && pool.stats().finished > 0 && pool.stats().waiting === 1);
    const refused = assertRejects(() => within(pool.run(tasks.add, 1, 1)), PoolClosedError);
    await until(() => pool.stats().waiting === 2);
    const end = pool.shutdown();
    await refused;
    await Deno.writeTextFile(gate, "");
    assertEquals(await within(between), "noted");
    assertEquals((await within(results)).map(({ length }) => length), lengths);
    await within(end);
  },
);

Deno.test(
  "ClusterPool.map() with 'settled' yields outcomes for the rest of a chunk that its pool cancels, and sends none of it",
  LARGE_REPLIES,
  async () => {
    await using server = await RedisServer.start();
    await using _host = await startHost(server);
    const cases: [queueSize: number, end: (pool: ClusterPool) => Promise<void>][] = [
      [2, (pool) => pool.shutdown({ cancelPending: true })],
      [1, (pool) => pool.shutdown({ cancelPending: true })],
      [1, (pool) => pool.terminate()],
    ];
    for (const [i, [queueSize, end]] of cases.entries()) {
      await using pool = await openPool(server, { queueSize });
      await using other = await openPool(server);
      const [first, second] = [0, 1].map((n) => `${server.folder}/go-${i}-${n}`) as [string, string];
      const before = other.run(tasks.note, `${server.folder}/runs`, first);
      await until(() => other.stats().running === 1);
      const outcomes = Array.fromAsync(pool.map(tasks.large, Array(100).fill(5000), { chunkSize: 100, settled: true }));
      await until(() => pool.stats().queued === 1);
      const between = pool.submit(tasks.note, `${server.folder}/runs`, second);
      await until(() => pool.stats().queued + pool.stats().waiting === 2);
      await Deno.writeTextFile(first, "");
      await before;
      await until(() => pool.stats().running === 1 && pool.stats().finished > 0 && pool.stats().queued + pool.stats().waiting === 1);
      // Three replies take them.
      assertEquals([pool.stats().finished, pool.stats().waiting], [49, 2 - queueSize]);
      const ended = end(pool);
      const reasons = (await within(outcomes)).map((outcome) => outcome.status === "fulfilled" ? "" : outcome.reason.name);
      assertEquals(reasons, [...Array(49).fill(""), ...Array(51).fill("JobCancelledError")]);
      assertEquals(pool.stats().cancelled, 51);
      await Deno.writeTextFile(second, "");
      await (await between).result().catch(() => {});
      await within(ended);
    }
  },
);

Deno.test("hosts with 'redeliveries' of 0 run no item of a map twice, however large the results are", LARGE_REPLIES, async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server, { redeliveries: 0 });
  await using pool = await openPool(server);
  const file = `${server.folder}/runs`;
  const items = Array.from({ length: 12 }, (_, i) => ({ file, length: i === 6 ? 300_000 : 100_000 + i }));
  const outcomes = await within(Array.fromAsync(pool.map(tasks.noteLarge, items, { chunkSize: 6, settled: true })));
  assertEquals(
    outcomes.map((outcome) => outcome.status === "fulfilled" ? outcome.value.length : outcome.reason.constructor),
    items.map(({ length }) => length === 300_000 ? RangeError : length),
  );
  assertEquals((await lines(file)).length, 12);
});

Deno.test("ClusterPool.map() with 'settled' gives outcomes of chunks that expired or were removed as well", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, { expiresIn: 1 });
  await using patient = await openPool(server);
  const expired = Array.fromAsync(pool.map(tasks.double, [1, 2, 3], { settled: true, chunkSize: 2 }));
  await until(async () => (await pool.status()).waiting === 2);
  const removed = Array.fromAsync(patient.map(tasks.double, [1, 2, 3], { settled: true, chunkSize: 3 }));
  await until(async () => (await pool.status()).waiting === 3);
  const client = new Redis(server.url, { maxRetriesPerRequest: null });
  const queue = new Queue("test.v1", { connection: client, prefix: "dpool" });
  const [last] = await queue.getJobs(["waiting"], 0, 0);
  await last!.remove();
  await using _host = await startHost(server);
  for (const outcomes of await within(Promise.all([expired, removed]))) {
    assertEquals(outcomes.map((outcome) => outcome.status === "rejected" && outcome.reason.name), Array(3).fill("JobCancelledError"));
  }
  await queue.close();
  await client.quit();
});

Deno.test("ClusterPool.map() with 'settled' yields outcomes of chunks that its pool cancels when it is shut down or terminated", async () => {
  await using server = await RedisServer.start();
  for (const end of [(pool: ClusterPool) => pool.shutdown({ cancelPending: true }), (pool: ClusterPool) => pool.terminate()]) {
    const pool = await openPool(server);
    const outcomes = Array.fromAsync(pool.map(tasks.double, [1, 2, 3], { settled: true, chunkSize: 2 }));
    await until(async () => (await pool.status()).waiting === 2);
    await within(end(pool));
    const reasons = (await within(outcomes)).map((outcome) => outcome.status === "rejected" && outcome.reason.name);
    assertEquals(reasons, Array(3).fill("JobCancelledError"));
  }
});

for (const ordered of [true, false]) {
  Deno.test(`ClusterPool.map() with an 'ordered' of ${ordered} gives what was admitted before it throws that its pool is shut down`, async () => {
    const gate = Promise.withResolvers<void>();
    const refused = Promise.withResolvers<void>();
    let read = 0;
    let closed = 0;
    function* input(): Generator<number> {
      try {
        for (const n of numbers()) {
          read++;
          yield n;
        }
      } finally {
        closed++;
        refused.resolve();
      }
    }
    const host = echo({
      chunksInFlight: 2,
      async before({ first }) {
        if (first > 0) throw new PoolClosedError("closed");
        await gate.promise;
      },
    });
    const results = mapChunks(host, input(), { ordered, settled: true, chunkSize: 1 });
    const first = results.next();
    await within(refused.promise);
    const before = read;
    gate.resolve();
    assertEquals((await within(first)).value, { status: "fulfilled", value: 0 });
    await assertRejects(() => within(results.next()), PoolClosedError, "closed");
    assertEquals([read, closed], [before, 1]);
  });
}

Deno.test("ClusterPool.map() with many chunks that its pool refuses waits once for all that are under way", async () => {
  const chunksInFlight = 200;
  const ends = Array.from({ length: chunksInFlight }, () => Promise.withResolvers<void>());
  let read = 0;
  let refused = 0;
  const host = {
    chunksInFlight,
    prepare: () => Promise.resolve(),
    encode(item: unknown) {
      read++;
      return { json: item as number, large: false };
    },
    begin: () => new DisposableStack(),
    async run({ first, items }: Chunk) {
      if (first >= chunksInFlight && ++refused > 0) throw new PoolClosedError("closed");
      await ends[first]!.promise;
      return { outcomes: items.map((value): PromiseSettledResult<unknown> => ({ status: "fulfilled", value })), elapsed: 1 };
    },
    report(error: unknown): never {
      throw error;
    },
  };
  let given = 0;
  const loop = async () => {
    for await (const _ of mapChunks(host, numbers(), { ordered: false, chunkSize: 1 })) given++;
  };
  const closed = assertRejects(() => within(loop()), PoolClosedError);
  // As many as run, and as many ahead.
  await until(() => read === 2 * chunksInFlight);
  const { then } = Promise.prototype;
  let waits = 0;
  Promise.prototype.then = function (this: Promise<unknown>, ...args) {
    waits++;
    return Reflect.apply(then, this, args);
  };
  try {
    for (const [n, { resolve }] of ends.entries()) {
      resolve();
      await until(() => given > n);
    }
    await closed;
  } finally {
    Promise.prototype.then = then;
  }
  assertEquals(given, chunksInFlight);
  assert(refused > chunksInFlight / 2);
  assert(waits < 20 * chunksInFlight, `it waited ${waits} times`);
});

Deno.test("ClusterPool.map() that ends early tells an input that is waiting", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  function input(): AsyncIterableIterator<number> & { told: boolean } {
    const end = Promise.withResolvers<IteratorResult<number>>();
    let items = 0;
    return {
      told: false,
      [Symbol.asyncIterator]() {
        return this;
      },
      next: () => items++ === 0 ? Promise.resolve({ done: false, value: 1 }) : end.promise,
      return() {
        this.told = true;
        end.resolve({ done: true, value: undefined });
        return end.promise;
      },
    };
  }
  const left = input();
  for await (const x of pool.map(tasks.double, left)) {
    assertEquals(x, 2);
    break;
  }
  await until(() => left.told);
  const aborted = input();
  const controller = new AbortController();
  const results = pool.map(tasks.double, aborted, { signal: controller.signal });
  assertEquals((await within(results.next())).value, 2);
  const next = results.next();
  controller.abort(new Error("enough"));
  await assertRejects(() => within(next), Error, "enough");
  await until(() => aborted.told);
});

Deno.test("ClusterPool.map() that ends early waits for its input to be closed, unless that is about to give an item", async () => {
  let ran = 0;
  const host = echo({ before: ({ items }) => void (ran += items.length) });
  let given: PromiseWithResolvers<void>[] = [];
  let closed = false;
  async function* input(): AsyncGenerator<number> {
    try {
      for (const [i, { promise }] of given.entries()) {
        await promise;
        yield i;
      }
    } finally {
      await new Promise((resolve) => setTimeout(resolve));
      closed = true;
    }
  }
  /** A map of which two results were taken, out of this many items. */
  const begun = async (items: number, options: MapOptions): Promise<AsyncIterableIterator<unknown>> => {
    [given, closed, ran] = [Array.from({ length: 9 }, () => Promise.withResolvers<void>()), false, 0];
    for (let i = 0; i < items; i++) given[i]!.resolve();
    const results = mapChunks(host, input(), options);
    for (let i = 0; i < 2; i++) assertEquals((await within(results.next())).value, i);
    return results;
  };

  const full = await begun(9, { chunkSize: 3, buffer: 3 });
  await within(full.return!());
  assertEquals(closed, true);

  const late = await begun(3, { buffer: 4 });
  // It has not waited for the next item, and has no room for it.
  await until(() => ran === 3);
  given[3]!.resolve();
  await new Promise((resolve) => setTimeout(resolve));
  await within(late.return!());
  assertEquals(closed, true);

  const waiting = await begun(2, {});
  await within(waiting.return!());
  assertEquals(closed, false);
});

Deno.test("ClusterPool.map() that ends early asks its input for nothing more, even amid a chunk", async () => {
  const pending = Promise.withResolvers<IteratorResult<number>>();
  const asked = Promise.withResolvers<void>();
  let asks = 0;
  const input = {
    [Symbol.asyncIterator]() {
      return this;
    },
    next(): Promise<IteratorResult<number>> {
      if (++asks !== 5) return Promise.resolve({ done: false, value: asks });
      asked.resolve();
      return pending.promise;
    },
  };
  const host = echo();
  for await (const _ of mapChunks(host, input, { chunkSize: 3 })) {
    await within(asked.promise);
    break;
  }
  pending.resolve({ done: false, value: asks });
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals(asks, 5);
});

Deno.test("ClusterPool.map() ends early although a requested result waits for its input, which waits for the end", async () => {
  const host = echo();
  const asked = Promise.withResolvers<void>();
  let closed = false;
  async function* input(): AsyncGenerator<number> {
    try {
      yield 1;
      await asked.promise;
      await results.return!();
    } finally {
      closed = true;
    }
  }
  const results = mapChunks(host, input(), { chunkSize: 1 });
  assertEquals((await within(results.next())).value, 1);
  const next = results.next();
  await new Promise((resolve) => setTimeout(resolve));
  asked.resolve();
  assertEquals(await within(next), { done: true, value: undefined });
  await until(() => closed);

  const halting = mapChunks(host, { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) }, {});
  const never = halting.next();
  assertEquals(await within(halting.return!()), { done: true, value: undefined });
  assertEquals(await within(never), { done: true, value: undefined });
});
