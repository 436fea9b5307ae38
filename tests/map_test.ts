import { assert, assertEquals, assertInstanceOf, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { currentJob, type ObservedJob, PoolBrokenError, PoolClosedError, ProcessPool } from "@procpool/process-pool";
import { PART_OF_MAP, type PartOfMap, type PartOfMapOptions } from "@procpool/process-pool/executor";
import { granted, moduleOf, within } from "./fixtures.ts";
import { internalsOf } from "../pool.ts";
import { realClock } from "../pool/clock.ts";
import { ENVIRONMENT, type ProcessPoolOptions } from "../pool/options.ts";
import { assertFails, meet, Meeting, SpiedSignal, thrownBy, turn, until } from "./helpers.ts";

const double = (x: number) => x * 2;

/** The natural numbers, and how far they were read. */
class Naturals implements Iterable<number> {
  read = 0;
  closed = false;

  *[Symbol.iterator](): Generator<number> {
    try {
      for (let n = 0;; n++) {
        this.read++;
        yield n;
      }
    } finally {
      this.closed = true;
    }
  }
}

for (const backend of ["worker", "killable", "inline"] as const) {
  Deno.test(`ProcessPool.map() gives the results in the order of the items, whatever the chunks (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const items = Array.from({ length: 1000 }, (_, i) => i);
    for (const chunkSize of ["auto", 1, 7, 1000, 5000] as const) {
      assertEquals(await within(Array.fromAsync(pool.map(double, items, { chunkSize }))), items.map(double));
    }
    assertEquals(await within(Array.fromAsync(pool.map(double, []))), []);
  });

  Deno.test(`ProcessPool.map() reads every kind of input (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const inputs = [
      new Set([1, 2, 3]),
      (async function* () {
        yield* [1, 2, 3];
      })(),
      ReadableStream.from([1, 2, 3]),
    ];
    for (const input of inputs) assertEquals(await within(Array.fromAsync(pool.map(double, input))), [2, 4, 6]);
  });

  Deno.test(`ProcessPool.map() reads an array of a class of one's own as it iterates (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    class Vector extends Float64Array {
      constructor(x = 0, y = 0, z = 0) {
        super([x, y, z]);
      }
    }
    class Rows extends Array<number> {
      constructor(rows: Iterable<number>) {
        super();
        this.push(...rows);
      }
    }
    const disguised = Object.assign([1, 2, 3], { constructor: { [Symbol.species]: Rows } });
    for (
      const items of [new Vector(1, 2, 3), new Rows([1, 2, 3]), disguised, Object.setPrototypeOf([1, 2, 3], Object.create(Array.prototype))]
    ) {
      const results: number[] = [];
      for await (const result of pool.map(double, items as Iterable<number>)) {
        results.push(result);
        if (results.length > 3) break;
      }
      assertEquals(results, [2, 4, 6]);
    }
  });

  Deno.test(`ProcessPool.map() reads an array that makes its items up when it is asked for them (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const get = (known: number[], key: string | symbol): unknown => {
      if (key === "length") return 100;
      return typeof key === "symbol" || Number.isNaN(Number(key)) ? Reflect.get(known, key) : Number(key);
    };
    for (const known of [[], [0, 1, 2]]) {
      for (const chunkSize of ["auto", 1, 40] as const) {
        const results = await within(Array.fromAsync(pool.map(double, new Proxy(known, { get }), { chunkSize })));
        assertEquals(results, Array.from({ length: 100 }, (_, i) => 2 * i));
      }
    }
    const broken = Object.defineProperty([1, 2, 3, 4, 5], 3, {
      get() {
        throw new RangeError("no fourth");
      },
    });
    const results = pool.map(double, broken, { chunkSize: 5 });
    for (const expected of [2, 4, 6]) assertEquals((await within(results.next())).value, expected);
    await assertFails(() => within(results.next()), RangeError, "no fourth");
    let reads = 0;
    const absent = new Proxy(new Array<undefined>(100).fill(undefined), {
      get(items, key) {
        if (typeof key === "string" && Number(key) >= 0) reads++;
        return Reflect.get(items, key);
      },
    });
    assertEquals(
      await within(Array.fromAsync(pool.map((x: undefined) => `${x}`, absent, { chunkSize: 10 }))),
      Array(100).fill("undefined"),
    );
    // The first chunk is read twice.
    assertEquals(reads, 110);
    const gaps = [1, , undefined, 4, ,] as (number | undefined)[];
    assertEquals(await within(Array.fromAsync(pool.map((x: number | undefined) => `${x}`, gaps))), [...gaps].map(String));
  });

  Deno.test(`ProcessPool.map() lets timers run out beside an input that computes its items (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    await within(pool.run(double, 1));
    let turns = 0;
    function* compute(): Generator<number> {
      while (turns < 10) {
        for (const end = performance.now() + 2; performance.now() < end;);
        yield 1;
      }
    }
    async function* computeAsync(): AsyncGenerator<number> {
      yield* compute();
    }
    for (const chunkSize of ["auto", 1, 5] as const) {
      for (const input of [compute, computeAsync]) {
        turns = 0;
        const timer = setInterval(() => turns++);
        const results = await within(Array.fromAsync(pool.map(double, input(), { chunkSize })));
        clearInterval(timer);
        // If there is always something to do, Deno looks at timers in about one of sixty ticks of the event loop, each of which may read a
        // chunk.
        assert(results.length < 200, `${results.length} items`);
      }
    }
  });

  Deno.test(`ProcessPool.map() refuses what a loop would refuse of an iterator (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    for (const key of [Symbol.iterator, Symbol.asyncIterator]) {
      for (const chunkSize of ["auto", 2] as const) {
        let calls = 0;
        const items = { [key]: () => ({ next: () => calls++ === 0 ? { done: false, value: 1 } : 7 }) } as unknown as Iterable<number>;
        const results: number[] = [];
        const loop = async () => {
          for await (const result of pool.map(double, items, { chunkSize })) if (results.push(result) > 3) break;
        };
        await assertFails(loop, TypeError, "Cannot read input as its next() must give an object: current value is 7");
        assertEquals(results, [2]);
      }
    }
  });

  Deno.test(`ProcessPool.map() cancels a stream that is silent when nobody wants more of it (${backend})`, async () => {
    for (const how of ["abort", "return", "shutdown"] as const) {
      const pool = new ProcessPool({ maxWorkers: 1, backend });
      const cancelled = Promise.withResolvers<unknown>();
      const stream = new ReadableStream<number>({
        start: (controller) => controller.enqueue(1),
        pull: () => new Promise(() => {}),
        cancel: cancelled.resolve,
      });
      const controller = new AbortController();
      const map = pool.map(double, stream, { signal: controller.signal });
      assertEquals(await within(map.next()), { done: false, value: 2 });
      const next = map.next().catch((error: Error) => error.name);
      if (how === "abort") controller.abort();
      else if (how === "return") await within(map.return!());
      else await within(pool.shutdown());
      await within(cancelled.promise);
      const end: unknown = await within(next);
      assertEquals(end, { abort: "AbortError", return: { done: true, value: undefined }, shutdown: "PoolClosedError" }[how]);
      assertEquals(stream.locked, false);
      await pool.shutdown();
    }
  });

  Deno.test(`ProcessPool.map() may be ended just when its stream has ended (${backend})`, async () => {
    const errors: unknown[] = [];
    await using pool = new ProcessPool({ maxWorkers: 1, backend, onError: (error) => errors.push(error) });
    for (const how of ["close", "error"] as const) {
      for (let microtasks = 0; microtasks < 10; microtasks++) {
        const { promise: asked, resolve: ask } = Promise.withResolvers<ReadableStreamDefaultController<number>>();
        const stream = new ReadableStream<number>({ pull: ask }, { highWaterMark: 0 });
        const aborter = new AbortController();
        const next = pool.map(double, stream, { signal: aborter.signal }).next().catch((reason) => reason);
        const controller = await asked;
        if (how === "close") controller.close();
        else controller.error("lost");
        for (let i = 0; i < microtasks; i++) await undefined;
        aborter.abort("enough");
        await within(next);
        assertEquals(stream.locked, false);
      }
    }
    await turn();
    assertEquals(errors.filter((error) => error !== "lost"), []);
  });

  Deno.test(`ProcessPool.map() pulls no more than 'buffer' items ahead of an infinite input (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    for (
      const options of [{ buffer: 10 }, { buffer: 1 }, { buffer: 10, chunkSize: 4 }, { buffer: 10, chunkSize: 100 }, {
        buffer: 10,
        ordered: false,
      }]
    ) {
      const naturals = new Naturals();
      const results = pool.map(double, naturals, options);
      assertEquals(naturals.read, 0);
      let consumed = 0;
      for await (const _ of results) {
        consumed++;
        assert(naturals.read <= consumed + options.buffer, `${naturals.read} were read when ${consumed} were consumed`);
        if (consumed === 100) break;
      }
      assert(naturals.closed);
      const { read } = naturals;
      await turn();
      assertEquals(naturals.read, read);
    }
  });

  Deno.test(`ProcessPool.map({ ordered: false }) gives results as they are ready (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const first = new Meeting();
    const task = async (memory: Int32Array | undefined) => {
      if (memory !== undefined) await Atomics.waitAsync(memory, 1, 0).value;
      return memory === undefined ? "quick" : "slow";
    };
    const results = pool.map(task, [first.memory, undefined, undefined], { ordered: false, chunkSize: 1 });
    assertEquals((await within(results.next())).value, "quick");
    assertEquals((await within(results.next())).value, "quick");
    first.letGo();
    assertEquals((await within(results.next())).value, "slow");
    assertEquals(await within(results.next()), { done: true, value: undefined });
  });

  Deno.test(`ProcessPool.map() throws the error of an item at its place and cancels the rest (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const naturals = new Naturals();
    const seen: number[] = [];
    const task = (x: number) => {
      if (x === 25) throw new RangeError("25");
      return x;
    };
    await assertRejects(
      async () => {
        for await (const x of pool.map(task, naturals, { chunkSize: 10, buffer: 100 })) seen.push(x);
      },
      RangeError,
      "25",
    );
    assertEquals(seen, Array.from({ length: 25 }, (_, i) => i));
    assert(naturals.closed);
    assertEquals(await within(pool.run(double, 1)), 2);
  });

  Deno.test(`ProcessPool.map({ settled: true }) gives each item's outcome and goes on (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const task = (x: number) => {
      if (x % 3 === 0) throw new RangeError(String(x));
      return x;
    };
    const outcomes = await within(Array.fromAsync(pool.map(task, [0, 1, 2, 3], { settled: true, chunkSize: 2 })));
    assertEquals(outcomes.map((each) => each.status === "fulfilled" ? each.value : each.reason.message), ["0", 1, 2, "3"]);
  });

  Deno.test(`ProcessPool.map() gives what was read before the input failed, and then its error (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const error = new Error("no more");
    for (const chunkSize of ["auto", 1, 10] as const) {
      const seen: number[] = [];
      const results = pool.map(
        double,
        (function* () {
          yield 1;
          yield 2;
          throw error;
        })(),
        { chunkSize, settled: true },
      );
      const thrown = await assertRejects(async () => {
        for await (const outcome of results) if (outcome.status === "fulfilled") seen.push(outcome.value);
      });
      assertStrictEquals(thrown, error);

      assertEquals(seen, [2, 4]);
    }
  });

  Deno.test(`ProcessPool.map({ signal }) ends with the signal's reason (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const controller = new AbortController();
    const naturals = new Naturals();
    const results = pool.map(double, naturals, { signal: controller.signal, buffer: 4 });
    assertEquals((await within(results.next())).value, 0);
    controller.abort("enough");
    assertStrictEquals(await results.next().catch((reason) => reason), "enough");
    assertEquals(await results.next(), { done: true, value: undefined });
    assert(naturals.closed);
    const none = pool.map(double, new Naturals(), { signal: controller.signal });
    assertStrictEquals(await none.next().catch((reason) => reason), "enough");
  });

  Deno.test(`ProcessPool.map() takes one permit a chunk, in turn with submissions (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 1, backend });
    const results = pool.map(double, [1, 2, 3, 4], { chunkSize: 2 });
    const first = results.next();
    const sum = pool.run(double, 100);
    assertEquals((await within(first)).value, 2);
    assertEquals(await within(sum), 200);
    assertEquals(await within(Array.fromAsync(results)), [4, 6, 8]);
  });

  Deno.test(`ProcessPool.map() answers calls of next() that overlap in their order (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const results = pool.map(double, [1, 2, 3]);
    const all = await within(Promise.all([results.next(), results.next(), results.next(), results.next(), results.next()]));
    assertEquals(all.map(({ value }) => value), [2, 4, 6, undefined, undefined]);
  });
}

Deno.test("ProcessPool.map() does not keep an item waiting for an input that is slow to give the next", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const next = Promise.withResolvers<void>();
  const results = pool.map(
    double,
    (async function* () {
      // Chunks have grown by now.
      yield* Array.from({ length: 500 }, (_, i) => i);
      await next.promise;
      yield 500;
    })(),
  );
  for (let i = 0; i < 500; i++) assertEquals((await within(results.next())).value, i * 2);
  next.resolve();
  assertEquals((await within(results.next())).value, 1000);
  assertEquals((await within(results.next())).done, true);
});

Deno.test("ProcessPool.map() leaves out no item of a synchronous iterator whose next() returns promises", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  let left = 3;
  let give = Promise.withResolvers<void>();
  give.resolve();
  const next = async () => {
    await give.promise;
    give = Promise.withResolvers();
    return left === 0 ? { done: true, value: undefined } : { done: false, value: left-- };
  };
  const items = { [Symbol.iterator]: () => ({ next }) } as unknown as Iterable<number>;
  const results: number[] = [];
  // The next item only comes after the one before was passed on without it.
  for await (const result of pool.map(double, items)) {
    results.push(result);
    give.resolve();
  }
  assertEquals(results, [6, 4, 2]);
});

Deno.test("ProcessPool.map() ended early does not wait for an input that is about to give an item", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const hang = Promise.withResolvers<void>();
  const source = (async function* () {
    yield 1;
    await hang.promise;
  })();
  for await (const result of pool.map(double, source)) {
    assertEquals(result, 2);
    break;
  }
  hang.resolve();
  assertEquals(await within(source.next()), { done: true, value: undefined });
});

Deno.test("ProcessPool.map() ended early waits for its input to be closed if that has given an item for which there was no room", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, backend: "inline" });
  const given = Array.from({ length: 5 }, () => Promise.withResolvers<void>());
  const ran = Array.from({ length: 4 }, () => Promise.withResolvers<void>());
  let closed = false;
  const source = (async function* () {
    try {
      for (const [i, { promise }] of given.entries()) {
        await promise;
        yield i;
      }
    } finally {
      await turn();
      closed = true;
    }
  })();
  const results = pool.map((i: number) => ran[i]!.resolve(), source, { buffer: 4 });
  const first = results.next();
  given[0]!.resolve();
  await within(first);
  for (let i = 1; i < 4; i++) {
    given[i]!.resolve();
    await within(ran[i]!.promise);
  }
  // Nobody awaits this one: as many as possible have been read ahead.
  given[4]!.resolve();
  await turn();
  await within(results.return!());
  assert(closed);
});

Deno.test("ProcessPool.map() ended early starts no more items of a chunk that runs", async () => {
  const pool = new ProcessPool({ maxWorkers: 1 });
  const meeting = new Meeting();
  const count = new Int32Array(new SharedArrayBuffer(4));
  const url = moduleOf(`
    export function task([memory, count]) {
      if (Atomics.add(count, 0, 1) !== 1) return;
      Atomics.store(memory, 0, 1);
      Atomics.notify(memory, 0);
      Atomics.wait(memory, 1, 0);
    }
  `);
  const own = new ProcessPool({ maxWorkers: 1, modules: [url] });
  const results = own.map({ module: url, name: "task" }, Array(100).fill([meeting.memory, count]), { chunkSize: 100 });
  const first = results.next();
  await within(meeting.come());
  await within(results.return!());
  meeting.letGo();
  await within(own.shutdown());
  assertEquals(Atomics.load(count, 0), 2);
  assertEquals((await first).done, true);
  assertEquals(own.stats().cancelled, 98);
  await pool.shutdown();
});

Deno.test("ProcessPool.map() throws PoolClosedError when the pool is shut down before its input has ended", async () => {
  const pool = new ProcessPool({ maxWorkers: 1 });
  const results = pool.map(double, new Naturals(), { buffer: 2, chunkSize: 1 });
  assertEquals((await within(results.next())).value, 0);
  const over = pool.shutdown();
  const seen: unknown[] = [];
  const error = await assertRejects(async () => {
    for await (const result of results) seen.push(result);
  });
  assertInstanceOf(error, PoolClosedError);
  assertEquals(seen, [2, 4].slice(0, seen.length));
  await within(over);
});

Deno.test("ProcessPool.map() that waits for room when its pool is shut down reads one item more at the most", async () => {
  for (const key of [Symbol.iterator, Symbol.asyncIterator]) {
    const pool = new ProcessPool({ maxWorkers: 1 });
    const naturals = new Naturals();
    const values = naturals[Symbol.iterator]();
    const input = { [key]: () => ({ next: () => values.next(), return: () => values.return(undefined) }) } as unknown as Iterable<number>;
    const results = pool.map(double, input, { chunkSize: 10, buffer: 10 });
    assertEquals((await within(results.next())).value, 0);
    const over = pool.shutdown();
    const seen: number[] = [];
    await assertRejects(async () => {
      for await (const result of results) seen.push(result);
    }, PoolClosedError);
    await within(over);
    assertEquals([seen.length, naturals.read, naturals.closed], [9, 11, true]);
  }
});

Deno.test("ProcessPool.map() sends an item that could not be copied at first, if it can be the second time", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  let reads = 0;
  const fickle = {
    get value() {
      if (++reads % 2 === 1) throw new RangeError("not now");
      return reads;
    },
  };
  const results = await within(Array.fromAsync(pool.map((x: unknown) => x, [1, fickle], { chunkSize: 2 })));
  assertEquals(results, [1, { value: 2 }]);
});

Deno.test("ProcessPool.map() sends an item beside one that cannot be copied as it does without that one", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const task = (x: unknown) => typeof x;
  const items = [new URL("https://deno.com"), new Headers(), new Uint8Array(new SharedArrayBuffer(1)), {
    url: new URL("https://deno.com"),
  }];
  for (const others of [[], [() => 1]]) {
    const outcomes = await within(Array.fromAsync(pool.map(task, [...items, ...others], { settled: true, chunkSize: 5 })));
    assertEquals(outcomes.slice(0, 4), new Array(4).fill({ status: "fulfilled", value: "object" }));
  }
});

Deno.test("ProcessPool.map() sends an item to another worker if copying it has ended the one that was to have it", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 2 });
  const forever = await pool.submit(() => new Promise<void>(() => {}));
  await until(() => forever.running());
  const ending = {
    get x() {
      forever.cancel({ force: true });
      return 5;
    },
  };
  // As the first cannot be copied, each is copied by itself.
  const items = [{ x: () => {} }, ending];
  const outcomes = await within(Array.fromAsync(pool.map((item: { x: unknown }) => item.x, items, { chunkSize: 2, settled: true })));
  assertEquals(outcomes.map((outcome) => outcome.status === "fulfilled" ? outcome.value : outcome.reason.name), ["DataCloneError", 5]);
  assertEquals(forever.state, "cancelled");
});

Deno.test("ProcessPool.map() ends chunks of any size whole", async () => {
  const items = Array(300_000).fill(1);
  const pool = new ProcessPool({ modules: [moduleOf(`throw new RangeError("deed");`)] });
  const results = pool.map((x: number) => x, items, { chunkSize: items.length });
  assertInstanceOf(await within(results.next().catch((error) => error)), PoolBrokenError);
  await within(pool.shutdown());
});

Deno.test("ProcessPool.map() tells which of many items cannot be copied in one go", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const items = Array.from({ length: 4000 }, (_, i) => i % 2 === 0 ? i : () => i);
  const outcomes = await within(Array.fromAsync(pool.map((x: unknown) => x, items, { chunkSize: items.length, settled: true })));
  assertEquals(outcomes.map(({ status }) => status), items.map((item) => typeof item === "number" ? "fulfilled" : "rejected"));
});

Deno.test("ProcessPool.map({ signal }) ends items that run when it aborts", async () => {
  const controller = new AbortController();
  const meeting = new Meeting();
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const task = (memory: Int32Array) => {
    Atomics.store(memory, 0, 1);
    Atomics.notify(memory, 0);
    return new Promise<never>(() => {});
  };
  const results = pool.map(task, [meeting.memory], { signal: controller.signal });
  const first = results.next();
  await within(meeting.come());
  controller.abort("enough");
  assertStrictEquals(await within(first).catch((reason) => reason), "enough");
});

Deno.test("ProcessPool.map({ signal }) ends, and closes its input, if that aborts it while it is opened", async () => {
  await using pool = new ProcessPool({ backend: "inline" });
  const controller = new AbortController();
  const closed = Promise.withResolvers<void>();
  const input = {
    [Symbol.iterator]() {
      controller.abort("enough");
      return {
        next: () => ({ done: false as const, value: 1 }),
        return() {
          closed.resolve();
          return { done: true as const, value: undefined };
        },
      };
    },
  };
  const results = pool.map(double, input, { signal: controller.signal });
  assertStrictEquals(await within(results.next()).catch((reason) => reason), "enough");
  await within(closed.promise);
});

Deno.test("ProcessPool.map({ signal }) listens to its signal from the first result on, and no longer than its loop lasts", async () => {
  await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1 });
  const spied = new SpiedSignal();
  const { signal } = spied;
  const fail = (): never => {
    throw new Error("no");
  };
  const failing = function* () {
    yield 1;
    throw new Error("no");
  };
  const left = pool.map(double, new Naturals(), { signal });
  assertEquals(spied.listening, 0);
  await left.next();
  assertEquals(spied.listening, 1);
  await left.return!();
  assertEquals(spied.listening, 0);
  assertEquals(await Array.fromAsync(pool.map(double, [1, 2], { signal })), [2, 4]);
  for (
    const results of [
      pool.map(fail, [1], { signal }),
      pool.map(double, failing(), { signal }),
      pool.map(double, { [Symbol.iterator]: fail } as unknown as [], { signal }),
    ]
  ) {
    await thrownBy(() => Array.fromAsync<unknown>(results));
  }
  assertEquals([spied.added, spied.listening], [5, 0]);
});

Deno.test("ProcessPool.map() hands over results of a chunk that were ready before an item that takes long", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const meeting = new Meeting();
  const task = async (memory: Int32Array | number) => {
    if (typeof memory === "number") return memory;
    await Atomics.waitAsync(memory, 1, 0).value;
    return 2;
  };
  const results = pool.map(task, [0, 1, meeting.memory], { chunkSize: 3 });
  assertEquals((await within(results.next())).value, 0);
  assertEquals((await within(results.next())).value, 1);
  meeting.letGo();
  assertEquals((await within(results.next())).value, 2);
});

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`ProcessPool.map() with 'timeout' hands over numbers while a later item of their chunk runs (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    const meeting = new Meeting();
    const task = (item: number | Int32Array) => {
      if (typeof item === "number") return item / 2;
      Atomics.wait(item, 1, 0);
      return -1;
    };
    const items = [...Array(50).keys(), meeting.memory, ...Array(50).keys()];
    const results = pool.map(task, items, { chunkSize: items.length, timeout: 60_000 });
    for (let i = 0; i < 50; i++) assertEquals((await within(results.next())).value, i / 2);
    meeting.letGo();
    assertEquals((await within(results.next())).value, -1);
    for (let i = 0; i < 50; i++) assertEquals((await within(results.next())).value, i / 2);
    assertEquals((await within(results.next())).done, true);
  });
}

Deno.test("ProcessPool.map({ ordered: false }) with 'timeout' hands over numbers of a chunk while an earlier one is held up", async () => {
  await using pool = new ProcessPool({ maxWorkers: 2 });
  const [first, last] = [new Meeting(), new Meeting()];
  const task = (item: number | Int32Array) => {
    if (typeof item === "number") return item / 2;
    Atomics.wait(item, 1, 0);
    return -1;
  };
  const numbers = [...Array(20).keys()];
  const items = [first.memory, ...numbers, ...numbers, last.memory];
  const results = pool.map(task, items, { chunkSize: 21, timeout: 60_000, ordered: false });
  for (const x of numbers) assertEquals((await within(results.next())).value, x / 2);
  first.letGo();
  last.letGo();
  const rest = await within(Array.fromAsync(results));
  assertEquals(rest.sort((a, b) => a - b), [-1, -1, ...numbers.map((x) => x / 2)]);
});

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`ProcessPool.map() with 'timeout' has numbers, errors and all else in their places (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 2 });
    const task = (x: number) => {
      const kind = x < 1000 ? x % 50 : x % 7;
      if (kind === 3 || kind === 4) throw new RangeError(`no ${x}`);
      if (x >= 2000 && kind === 5) return `text ${x}`;
      return x >= 2000 && kind === 6 ? undefined : x;
    };
    const items = Array.from({ length: 3000 }, (_, x) => x);
    for (const chunkSize of [50, 300, undefined]) {
      const outcomes = await within(Array.fromAsync(pool.map(task, items, { settled: true, chunkSize, timeout: 60_000 })));
      const seen = outcomes.map((outcome) => outcome.status === "fulfilled" ? outcome.value : (outcome.reason as Error).message);
      assertEquals(
        seen,
        items.map((x) => {
          try {
            return task(x);
          } catch (error) {
            return (error as Error).message;
          }
        }),
      );
    }
  });
}

Deno.test("ProcessPool.map() that waits at the gate leaves it when its loop ends, and nobody else hears of that", async () => {
  const errors: unknown[] = [];
  await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 1, onError: (error) => errors.push(error) });
  const meeting = new Meeting();
  const future = await pool.submit(async (memory: Int32Array) => void await Atomics.waitAsync(memory, 1, 0).value, meeting.memory);
  const results = pool.map(double, [1, 2, 3]);
  const first = results.next();
  while (pool.stats().waiting === 0) await turn();
  await within(results.return!());
  assertEquals([(await first).done, pool.stats().waiting], [true, 0]);
  meeting.letGo();
  await within(future.result());
  assertEquals(errors, []);
});

Deno.test("ProcessPool.map() reads no further ahead of a consumer that is slow than a few rounds of chunks", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const naturals = new Naturals();
  const results = pool.map(double, naturals, { chunkSize: 10 });
  await within(results.next());
  let read = -1;
  // Until nothing moves any more.
  while (read !== naturals.read) {
    read = naturals.read;
    await pool.run(double, 1);
    await turn();
  }
  assert(read <= 120, `${read} items were read`);
  await results.return!();
});

Deno.test("ProcessPool.map() may be ended more than once", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const results = pool.map(double, new Naturals());
  assertEquals((await within(results.next())).value, 0);
  for (let i = 0; i < 2; i++) assertEquals(await within(results.return!()), { done: true, value: undefined });
  assertEquals(await within(results.next()), { done: true, value: undefined });
});

Deno.test("ProcessPool.map() does not touch an input that it refuses", () => {
  const stream = ReadableStream.from([1]);
  const pool = new ProcessPool();
  try {
    pool.map(double, stream, { buffer: 0 });
  } catch (error) {
    assertInstanceOf(error, RangeError);
  }
  assertEquals(stream.locked, false);
});

Deno.test("ProcessPool.map() holds no more memory for a million items than for a thousand", async () => {
  await using pool = new ProcessPool({ maxWorkers: 2 });
  const naturals = new Naturals();
  let sum = 0;
  let furthest = 0;
  for await (const result of pool.map(double, naturals)) {
    sum += result;
    const consumed = result / 2 + 1;
    furthest = Math.max(furthest, naturals.read - consumed);
    if (consumed === 1_000_000) break;
  }
  assertEquals(sum, 999_999_000_000);
  assert(furthest <= 2 * 16_384, `${furthest} items were read ahead`);
});

Deno.test("ProcessPool.map() treats items whose size cannot be read as small", async () => {
  const revoked = Proxy.revocable([], {});
  revoked.revoke();
  const changed = Object.setPrototypeOf(new Uint8Array(2), null);
  for (const backend of ["worker", "inline"] as const) {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    for (const [item, status] of [[revoked.proxy, backend === "inline" ? "fulfilled" : "rejected"], [changed, "fulfilled"]] as const) {
      const items = new Array(100).fill(item) as unknown[];
      const outcomes = await within(Array.fromAsync(pool.map((x: unknown) => typeof x, items, { settled: true })));
      assertEquals(outcomes.map((outcome) => outcome.status), new Array(100).fill(status));
    }
  }
});

Deno.test("ProcessPool.map() goes on after items that claim to be endless, with a given buffer", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, backend: "inline" });
  const endless = new Proxy([1], { get: (list, key) => key === "length" ? Infinity : Reflect.get(list, key) });
  const outcomes = pool.map((x: unknown) => typeof x, new Array(100).fill(endless), { buffer: 10 });
  assertEquals(await within(Array.fromAsync(outcomes)), new Array(100).fill("object"));
});

const text = "x".repeat(65_536);
const large: [string, unknown][] = [
  ["texts", text],
  ["bytes", new Uint8Array(65_536)],
  ["lists of numbers", new Array(8192).fill(0)],
  ["objects", Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`key ${i}`, i === 20 ? [text] : i]))],
];
for (const [what, item] of large) {
  Deno.test(`ProcessPool.map() sends no more than some MB of ${what} at a time, however little their task takes`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2 });
    let [read, furthest, consumed] = [0, 0, 0];
    function* items(): Generator<unknown> {
      while (read < 6000) {
        furthest = Math.max(furthest, ++read - consumed);
        yield item;
      }
    }
    for await (const _ of pool.map((x: unknown) => typeof x, items(), { ordered: false })) consumed++;
    assertEquals(consumed, 6000);
    // Chunks of 64: those that are ready, and those in flight.
    assert(furthest <= 64 * (4 * 4 + 4), `${furthest} items were read ahead`);
  });
}

for (const [what, task, most] of [["numbers", (x: number) => x, 65_536], ["objects", (x: number) => ({ x }), 16_384]] as const) {
  Deno.test(`ProcessPool.map() reads ${most} numbers of a typed array ahead for each worker while it gives ${what}`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2 });
    let [read, furthest, consumed] = [0, 0, 0];
    // It is read in batches, into arrays constructed like this.
    const made = function (length: number): Float64Array {
      furthest = Math.max(furthest, (read += length) - consumed);
      return new Float64Array(length);
    };
    // It passes for one of the platform's.
    Object.setPrototypeOf(made, Object.getPrototypeOf(Float64Array));
    const constructor = Object.defineProperty(made, Symbol.species, { value: made });
    const numbers = Object.assign(new Float64Array(600_000), { constructor });
    for await (const _ of pool.map(task as (x: number) => unknown, numbers as Iterable<number>)) consumed++;
    assertEquals(consumed, 600_000);
    // In addition to the one that the loop has.
    assert(furthest <= 2 * most + 1 && furthest > most, `${furthest} items were read ahead`);
  });
}

Deno.test("ProcessPool.map() factorises 20,000 numbers by a task module, and their factors multiply back (needs --allow-read)", {
  ignore: !granted("read"),
}, async () => {
  const url = import.meta.resolve("../examples/factorize.ts");
  const { factorize } = await import("../examples/factorize.ts");
  await using pool = new ProcessPool({ modules: [url] });
  let n = 2;
  for await (const factors of pool.map(factorize, Array.from({ length: 20_000 }, (_, i) => i + 2))) {
    assertEquals(factors.reduce((product, factor) => product * factor, 1), n++);
  }
  assertEquals(n, 20_002);
});

Deno.test("ProcessPool.map() loses no result of a chunk in which some items take long and others do not", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const task = (x: number) => x % 2 === 0 ? x : new Promise<number>((resolve) => setTimeout(() => resolve(x), 5));
  const items = [0, 1, 2, 3, 4, 5, 6, 7];
  assertEquals(await within(Array.fromAsync(pool.map(task, items, { chunkSize: 8 }))), items);
});

/** An input that yields what the test tells it to, when the test tells it. */
class Told implements AsyncIterable<number> {
  closed = false;
  /** Whether it is to yield something. */
  isAsked = false;
  #asked = Promise.withResolvers<PromiseWithResolvers<IteratorResult<number>>>();

  /** Makes it yield this when it is asked, or throw it. */
  async tell(outcome: number | Error): Promise<void> {
    const { resolve, reject } = await this.#asked.promise;
    this.#asked = Promise.withResolvers();
    this.isAsked = false;
    if (outcome instanceof Error) reject(outcome);
    else resolve({ done: false, value: outcome });
  }

  [Symbol.asyncIterator](): AsyncIterator<number> {
    return {
      next: () => {
        const answer = Promise.withResolvers<IteratorResult<number>>();
        this.#asked.resolve(answer);
        this.isAsked = true;
        return answer.promise;
      },
      return: () => {
        this.closed = true;
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }

  /** Resolves when it is asked for more. */
  async asked(): Promise<void> {
    await this.#asked.promise;
  }
}

Deno.test("ProcessPool.map() throws what its input throws while what was read before waits at the gate", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 1 });
  const input = new Told();
  const results = pool.map(double, input);
  // A chunk that may have several items asks for another before it goes to the gate without. As long as the worker is slow, chunks have one
  // item.
  for (let x = 1, asks = false; !asks; x++) {
    const meeting = new Meeting();
    await pool.submit(meet, meeting.memory);
    await within(meeting.come());
    const next = results.next();
    await input.tell(x);
    await until(() => pool.stats().waiting === 1);
    asks = input.isAsked;
    if (asks) await input.tell(new RangeError("reset"));
    await turn();
    meeting.letGo();
    assertEquals((await within(next)).value, 2 * x);
  }
  await assertRejects(() => within(results.next()), RangeError, "reset");
  assertEquals(await within(results.next()), { done: true, value: undefined });
});

Deno.test("ProcessPool.map() reports what its input has thrown to onError if the loop does not come to that", async () => {
  const errors: unknown[] = [];
  await using pool = new ProcessPool({ maxWorkers: 1, onError: (error) => errors.push(error) });
  const [unread, late] = [new RangeError("unread"), new RangeError("late")];
  const results = pool.map(
    double,
    [1, 2].values().map((x) => {
      if (x === 2) throw unread;
      return x;
    }),
  );
  assertEquals((await within(results.next())).value, 2);
  await until(() => pool.stats().finished === 1);
  await turn();
  await within(results.return!());
  assertEquals(errors, [unread]);
  const input = new Told();
  const left = pool.map(double, input);
  const next = left.next();
  await input.asked();
  await within(left.return!());
  assertEquals((await within(next)).done, true);
  await input.tell(late);
  await turn();
  assertEquals(errors, [unread, late]);
});

Deno.test("ProcessPool.map() throws the reason of its signal if its input aborts that and then throws, and reports what it threw", async () => {
  const errors: unknown[] = [];
  await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1, onError: (error) => errors.push(error) });
  const controller = new AbortController();
  const [reason, thrown] = [new RangeError("reason"), new RangeError("thrown")];
  const { promise: isAborted, resolve: aborted } = Promise.withResolvers<void>();
  function* input(): Generator<number> {
    yield 1;
    yield 2;
    controller.abort(reason);
    aborted();
    throw thrown;
  }
  const results = pool.map(double, input(), { chunkSize: 1, buffer: 2, signal: controller.signal });
  assertEquals((await within(results.next())).value, 2);
  // Nobody awaits an outcome at that moment.
  await within(isAborted);
  await turn();
  assertStrictEquals(await thrownBy(() => within(Array.fromAsync(results))), reason);
  assertEquals(errors, [thrown]);
});

Deno.test("ProcessPool.map() reports what its input throws after it has left the loop itself", async () => {
  const errors: unknown[] = [];
  await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1, onError: (error) => errors.push(error) });
  const thrown = new RangeError("thrown");
  async function* input(): AsyncGenerator<number> {
    yield 1;
    results.return!();
    throw thrown;
  }
  const results = pool.map(double, input(), { chunkSize: 1 });
  assertEquals((await within(results.next())).done, true);
  await turn();
  assertEquals(errors, [thrown]);
});

type LeavingInput = (leave: () => Promise<unknown>, close: () => void) => Iterable<number> | AsyncIterable<number>;

const LEAVING_INPUTS: Record<string, LeavingInput> = {
  async *"a generator that waits for that"(leave, close) {
    try {
      yield 1;
      await leave();
      yield 2;
    } finally {
      close();
    }
  },
  *"a synchronous generator"(leave, close) {
    try {
      yield 1;
      leave();
      yield 2;
    } finally {
      close();
    }
  },
  "an input that is being opened": (leave, close) => ({
    [Symbol.iterator]() {
      leave();
      const next = () => ({ done: false, value: 1 });
      return { next, return: () => (close(), { done: true, value: undefined }) };
    },
  }),
};

for (const [name, inputOf] of Object.entries(LEAVING_INPUTS)) {
  Deno.test(`ProcessPool.map() closes its input if that leaves the loop itself (${name})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1 });
    const closed = Promise.withResolvers<void>();
    let left: Promise<unknown> | undefined;
    const results: AsyncIterableIterator<number> = pool.map(double, inputOf(() => left = results.return!(), closed.resolve), {
      chunkSize: 1,
    });
    while (!(await within(results.next())).done);
    await within(closed.promise);
    assertEquals(await within(left!), { done: true, value: undefined });
  });
}

Deno.test("ProcessPool.map() throws if its input gives no iterator result, or cannot be opened", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const wrong = { [Symbol.iterator]: () => ({ next: () => undefined as unknown as IteratorResult<number> }) };
  await assertRejects(() => within(pool.map(double, wrong).next()), TypeError);
  const stream = ReadableStream.from([1]);
  stream.getReader();
  const results = pool.map(double, stream);
  await assertRejects(() => within(results.next()), TypeError, "locked");
  assertEquals(await within(results.next()), { done: true, value: undefined });
});

for (const how of ["shutdown", "terminate"] as const) {
  Deno.test(`ProcessPool.map() does not wait for its input when the pool ends (${how})`, async () => {
    const pool = new ProcessPool({ maxWorkers: 1 });
    const [input, another] = [new Told(), new Told()];
    const results = pool.map(double, input);
    const first = results.next();
    await input.tell(1);
    assertEquals((await within(first)).value, 2);
    const next = results.next();
    await input.asked();
    const late = pool.map(double, another);
    const refused = assertRejects(() => within(next), PoolClosedError);
    await within(pool[how]());
    await refused;
    assertEquals(input.closed, true);
    // A reader that starts after that finds out by itself.
    await assertRejects(() => within(late.next()), PoolClosedError);
    assertEquals(another.closed, true);
  });
}

Deno.test("ProcessPool.map() gives all that its input has, if the pool is shut down when all was read", async () => {
  const pool = new ProcessPool({ maxWorkers: 1 });
  async function* input() {
    yield* [1, 2, 3];
  }
  const results = Array.fromAsync(pool.map(double, input(), { chunkSize: 3 }));
  await until(() => pool.stats().running === 1 || pool.stats().queued === 1);
  await within(pool.shutdown());
  assertEquals(await within(results), [2, 4, 6]);
});

Deno.test("ProcessPool.map() reads an array or a typed array item by item if that has a slice of its own", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const own = {
    slice(): never {
      throw new Error("It is not the platform's");
    },
  };
  for (const items of [Object.assign([1, 2, 3], own), Object.assign(new Float64Array([1, 2, 3]), own)]) {
    assertEquals(await within(Array.fromAsync(pool.map(double, items))), [2, 4, 6]);
  }
});

Deno.test("ProcessPool.map() is in its pool's hands only while it waits for an input", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const { waitingMaps } = internalsOf(pool);
  // Nobody may ever ask for more of it.
  const left = pool.map(double, new Naturals(), { buffer: 2 });
  assertEquals((await within(left.next())).value, 0);
  await until(() => pool.stats().running === 0);
  assertEquals(waitingMaps.size, 0);
  const input = new Told();
  const results = pool.map(double, input);
  const first = results.next();
  await input.asked();
  await until(() => waitingMaps.size === 1);
  await input.tell(1);
  assertEquals((await within(first)).value, 2);
  await within(results.return!());
  assertEquals(waitingMaps.size, 0);
  await left.return!();
});

Deno.test("ProcessPool.map() reports what its input throws and what it throws when it is closed, whichever way it does", async () => {
  const errors: unknown[] = [];
  await using pool = new ProcessPool({ maxWorkers: 1, onError: (error) => errors.push((error as Error).message) });
  const answer = Promise.withResolvers<IteratorResult<number>>();
  const asked = Promise.withResolvers<void>();
  const input = {
    [Symbol.asyncIterator]: () => ({
      next() {
        asked.resolve();
        return answer.promise;
      },
      return(): never {
        throw new Error("cannot close");
      },
    }),
  };
  const controller = new AbortController();
  const next = pool.map(double, input, { signal: controller.signal }).next();
  await asked.promise;
  controller.abort(new RangeError("enough"));
  await assertRejects(() => within(next), RangeError, "enough");
  answer.reject(new Error("connection lost"));
  await until(() => errors.length === 2);
  assertEquals(errors, ["cannot close", "connection lost"]);
});

for (const chunkSize of ["auto", 3] as const) {
  Deno.test(`ProcessPool.map() reads no more than 128 MB ahead while an item holds up large ones, but for 'buffer' (chunkSize: ${chunkSize})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend: "inline" });
    // It exists only once.
    const megabyte = "x".repeat(2 ** 20);
    for (const buffer of [undefined, 1000]) {
      const held = Promise.withResolvers<string>();
      const naturals = new Naturals();
      // One in eight is large.
      const task = (n: number) => n === 0 ? held.promise : n % 8 === 1 ? megabyte.concat(megabyte, megabyte, megabyte) : megabyte;
      const results = pool.map(task, naturals, { chunkSize, buffer });
      const first = results.next();
      const most = buffer ?? 128;
      await until(() => naturals.read > most / 5);
      for (let i = 0; i < 300; i++) await turn();
      assert(naturals.read <= most + 3, `${naturals.read} were read`);
      if (buffer !== undefined) assert(naturals.read > 900, `${naturals.read} were read`);
      held.resolve("first");
      assertEquals(await within(first), { done: false, value: "first" });
      for (let i = 1; i < 500; i++) assertEquals((await within(results.next())).value!.length, i % 8 === 1 ? 2 ** 22 : 2 ** 20);
      await results.return!();
    }
  });
}

const NESTED: [what: string, nest: (text: string) => unknown][] = [
  ["objects", (text) => ({ page: { revision: { text } } })],
  ["lists", (text) => ({ messages: [{ parts: [{ text }] }] })],
  ["maps", (text) => new Map([["texts", new Set([text])]])],
];

for (const [what, nest] of NESTED) {
  Deno.test(`ProcessPool.map() reads no more than 128 MB ahead of items whose texts are nested in ${what}`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend: "inline" });
    const megabyte = "x".repeat(2 ** 20);
    const held = Promise.withResolvers<void>();
    const naturals = new Naturals();
    const results = pool.map((item: unknown) => item === undefined ? held.promise : undefined, {
      *[Symbol.iterator]() {
        for (const n of naturals) yield n === 0 ? undefined : nest(megabyte);
      },
    });
    const first = results.next();
    await until(() => naturals.read > 25);
    for (let i = 0; i < 300; i++) await turn();
    const { read } = naturals;
    held.resolve();
    await within(first);
    await results.return!();
    assert(read <= 131, `${read} were read`);
  });
}

for (const input of ["a generator", "an array"]) {
  Deno.test(`ProcessPool.map() sends no chunk of more than some megabytes where items suddenly become large (${input})`, async () => {
    const SMALL = 100_000, LARGE = 5000;
    let most = 0;
    const submitted = ({ id, items }: ObservedJob) => most = Math.max(most, Math.min(items, Number(id) + items - SMALL));
    await using pool = new ProcessPool({ maxWorkers: 1, backend: "inline", observers: [{ submitted }] });
    // It exists only once.
    const large = "x".repeat(2 ** 17);
    function* items() {
      for (let i = 0; i < SMALL + LARGE; i++) yield i < SMALL ? "small" : large;
    }
    const results = pool.map((text: string) => text.length, input === "an array" ? [...items()] : items());
    let length = 0;
    for (const each of await within(Array.fromAsync(results))) length += each;
    assertEquals(length, SMALL * 5 + LARGE * 2 ** 17);
    assert(most <= 64, `${most} were sent together`);
  });
}

Deno.test("ProcessPool.map() of large results reads so far ahead that many workers do not stand idle behind one", async () => {
  await using pool = new ProcessPool({ maxWorkers: 16, backend: "inline" });
  // They exist only once.
  const megabytes = new Uint8Array(2 ** 22);
  const held = Promise.withResolvers<Uint8Array>();
  const naturals = new Naturals();
  const results = pool.map((n: number) => n === 0 ? held.promise : megabytes, naturals);
  const first = results.next();
  // Only 32 can be in flight.
  await within(until(() => naturals.read > 100));
  for (let i = 0; i < 300; i++) await turn();
  assert(naturals.read <= 16 * 8, `${naturals.read} were read`);
  held.resolve(megabytes);
  await within(first);
  await results.return!();
});

Deno.test("ProcessPool.map() of a part of a larger map numbers its items from there, and checks how often they are run again", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, backend: "inline" });
  const partOf = (part: PartOfMap): PartOfMapOptions => ({ chunkSize: 2, [PART_OF_MAP]: part });
  const ids = pool.map(() => currentJob()?.id, [1, 2, 3], partOf({ first: 40, retries: 1 }));
  assertEquals(await within(Array.fromAsync(ids)), [40, 41, 42]);
  assertThrows(() => pool.map(double, [1], partOf({ first: 0, retries: 0.5 })), RangeError, "'retries' must be an integer of at least 0");
});

for (const kind of ["items", "chunks"] as const) {
  Deno.test(`ProcessPool.map() gives no ${kind} while other work has its turn, neither ready ones nor those that come meanwhile`, async () => {
    let asks = false;
    const turns: (() => void)[] = [];
    const soon = (callback: () => void) => asks ? void turns.push(callback) : queueMicrotask(callback);
    await using pool = new ProcessPool({ maxWorkers: 1, [ENVIRONMENT]: { clock: { ...realClock, soon } } } as ProcessPoolOptions);
    const map = pool.map(double, [1, 2, 3], { chunkSize: 1 });
    const results = kind === "items" ? map : map.chunks();
    for (const n of [1, 2, 3]) {
      let given: unknown;
      asks = true;
      const next = results.next().then(({ value }) => given = value);
      asks = false;
      await within(until(() => pool.stats().finished === 3));
      for (let i = 0; i < 10; i++) await turn();
      assertEquals([given, turns.length], [undefined, 1]);
      turns.shift()!();
      await within(next);
      assertEquals(given, kind === "items" ? 2 * n : [2 * n]);
      // The next turn is due.
      for (const end = performance.now() + 11; performance.now() < end;);
    }
    await map.return!();
  });
}
