import { assert, assertEquals } from "@std/assert";
import { Job, ProcessPool, wait } from "@procpool/process-pool";
import v8 from "node:v8";
import { Chunk } from "../pool/chunk.ts";
import { NumberMemory } from "../pool/number_memory.ts";
import { within } from "./fixtures.ts";
import { countCalls } from "./helpers.ts";

/**
 * The cost of a call, counted rather than timed: a regression shows on any machine. The bounds of messages and wakes are several times the
 * current counts, since a worker that the machine does not let run returns to its event loop, which costs a wake, or a message.
 */

const JOBS = 20_000;
const WINDOW = 1000;

/** The platform's own, captured before promises are counted: called later, it would make one more for each. */
const all: typeof Promise.all = Promise.all.bind(Promise);

async function inWindows(pool: ProcessPool, task: (x: number) => unknown): Promise<void> {
  for (let i = 0; i < JOBS; i += WINDOW) await within(all(Array.from({ length: WINDOW }, (_, j) => pool.run(task, i + j))));
}

/** What this thread has allocated since it began, in bytes: V8 counts it, but Deno's types do not include it yet. */
function allocated(): number {
  return (v8.getHeapStatistics() as unknown as { total_allocated_bytes: number }).total_allocated_bytes;
}

const PER_CALL: [string, (x: number) => unknown][] = [
  ["numbers", (x) => x + 1],
  ["small objects", (x) => ({ id: x, name: `record ${x}`, tags: ["a", "b"], place: { lat: x / 7, lon: -x / 3 } })],
];

for (const backend of ["worker", "killable"] as const) {
  for (const [what, task] of PER_CALL) {
    Deno.test(`A call for ${what} costs one promise, and no message of its own (${backend})`, async () => {
      await using pool = new ProcessPool({ backend, maxWorkers: 2, queueSize: WINDOW });
      await pool.warmUp();
      await inWindows(pool, task);
      const [messages, wakes, promises, ticks] = await countCalls(
        [[MessagePort.prototype, "postMessage"], [Atomics, "notify"], [globalThis, "Promise"], [globalThis, "setImmediate"]],
        () => inWindows(pool, task),
      );
      assert(messages! < JOBS / 20, `${messages} messages for ${JOBS} jobs`);
      assert(wakes! < JOBS / 5, `${wakes} wakes for ${JOBS} jobs`);
      // The one that the caller awaits, and a few per window. On a busy machine there are more turns of the event loop, of many ticks each.
      assert(promises! >= JOBS && promises! - ticks! < JOBS * 1.05, `${promises} promises and ${ticks} ticks for ${JOBS} jobs`);
    });
  }

  Deno.test(`A call allocates little more than a promise does that has a function of its own (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 2 });
    await pool.warmUp();
    const increment = (x: number) => x + 1;
    const bare = (x: number) => new Promise<number>((resolve) => queueMicrotask(() => resolve(x + 1)));
    /** The least of several runs: V8 compiles in between. */
    async function bytesOf(call: (x: number) => Promise<number>): Promise<number> {
      let least = Infinity;
      for (let i = 0; i < 5 * JOBS; i += JOBS) {
        const before = allocated();
        for (let j = 0; j < JOBS; j += WINDOW) await within(all(Array.from({ length: WINDOW }, (_, k) => call(k))));
        least = Math.min(least, (allocated() - before) / JOBS);
      }
      return least;
    }
    const baseline = await bytesOf(bare);
    const bytes = await bytesOf((x) => pool.run(increment, x));
    assert(bytes < baseline + 200, `${bytes} bytes for a call, and ${baseline} for a promise`);
  });

  Deno.test(`A call allocates little in its worker (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    const allocatedThere = () =>
      pool.run(() => {
        const { getHeapStatistics } = (globalThis as unknown as { process: typeof process }).process.getBuiltinModule("node:v8");
        return (getHeapStatistics() as unknown as { total_allocated_bytes: number }).total_allocated_bytes;
      });
    const increment = (x: number) => x + 1;
    let least = Infinity;
    for (let i = 0; i < 5; i++) {
      const before = await allocatedThere();
      await inWindows(pool, increment);
      least = Math.min(least, (await allocatedThere() - before) / JOBS);
    }
    // An array for its single argument.
    assert(least < 240, `${least} bytes for a call`);
  });

  for (const moved of [false, true]) {
    Deno.test(`A buffer of 64 KiB costs no message, be it copied or moved (${moved ? "moved" : "copied"}, ${backend})`, async () => {
      await using pool = new ProcessPool({ backend, maxWorkers: 2 });
      await pool.warmUp();
      const copy = (buffer: ArrayBuffer) => buffer;
      const move = (buffer: ArrayBuffer) => ({ [Symbol.for("process-pool.move")]: [buffer], value: buffer }) as unknown as ArrayBuffer;
      const jobs = 1000;
      const lane = async (): Promise<void> => {
        let buffer = new ArrayBuffer(2 ** 16);
        for (let i = 0; i < jobs / 5; i++) {
          buffer = await (moved ? pool.run(new Job({ func: move, args: [buffer], transfer: [buffer] })) : pool.run(copy, buffer));
        }
      };
      const lanes = () => within(all(Array.from({ length: 5 }, lane))).then(() => {});
      await lanes();
      const [messages] = await countCalls([[MessagePort.prototype, "postMessage"]], lanes);
      assert(messages! < jobs / 10, `${messages} messages for ${jobs} jobs`);
    });
  }

  Deno.test(`Short jobs wake the caller for several of them at a time (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 2 });
    await pool.warmUp();
    const compute = (ms: number) => {
      for (const end = performance.now() + ms; performance.now() < end;);
    };
    const jobs = 2000;
    const [waits] = await countCalls(
      [[Atomics, "waitAsync"]],
      () => within(all(Array.from({ length: jobs }, () => pool.run(compute, 0.1)))).then(() => {}),
    );
    assert(waits! < jobs / 2, `${waits} waits for ${jobs} jobs`);
  });

  Deno.test(`An item of a map costs no message and no promise of the pool's (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 2 });
    await pool.warmUp();
    async function map(): Promise<void> {
      let sum = 0;
      for await (const results of pool.map((x: number) => x + 1, Array(JOBS).keys()).chunks()) {
        for (let i = 0; i < results.length; i++) sum += results[i]!;
      }
      assertEquals(sum, JOBS * (JOBS + 1) / 2);
    }
    await map();
    const [messages, promises] = await countCalls([[MessagePort.prototype, "postMessage"], [globalThis, "Promise"]], map);
    assert(messages! < JOBS / 20, `${messages} messages for ${JOBS} items`);
    assert(promises! < JOBS / 10, `${promises} promises for ${JOBS} items`);
  });
}

Deno.test("A chunk of numbers costs no message", async () => {
  await using pool = new ProcessPool({ maxWorkers: 2 });
  await pool.warmUp();
  const numbers = Float64Array.from({ length: JOBS }, (_, i) => i) as unknown as number[];
  async function map(): Promise<void> {
    let sum = 0;
    for await (const results of pool.map((x: number) => x + 1, numbers, { chunkSize: 100 }).chunks()) {
      for (let i = 0; i < results.length; i++) sum += results[i]!;
    }
    assertEquals(sum, JOBS * (JOBS + 1) / 2);
  }
  await map();
  const [messages] = await countCalls([[MessagePort.prototype, "postMessage"]], map);
  assert(messages! < JOBS / 100 / 4, `${messages} messages for ${JOBS / 100} chunks`);
});

Deno.test("The outcome of an item costs no more if many others of its chunk cannot be sent", async () => {
  const items = Array.from({ length: 1000 }, () => () => {});
  const outcomes: unknown[] = [];
  const chunk = new Chunk(items, {
    func: () => 0,
    timeout: Infinity,
    retries: 0,
    eager: true,
    firstIndex: 0,
    listener: {
      ended: false,
      memory: new NumberMemory(),
      outcomes: (_, { errors }) => void outcomes.push(errors?.get(0)),
      ran() {},
      expectNumbers() {},
      settled() {},
    },
  });
  chunk.sendFailed(undefined);
  const [steps] = await countCalls([[Object.getPrototypeOf(new Map().keys()), "next"]], () => {
    for (const from of items.keys()) {
      chunk.answered({ type: "items", run: 1, from, values: [undefined], thrown: [], last: false, elapsed: 0 }, () => undefined);
    }
    return Promise.resolve();
  });
  assert(outcomes.length === items.length && outcomes.every((error) => error instanceof DOMException));
  assert(steps! < 10 * items.length, `${steps} steps for ${items.length} items`);
});

Deno.test("The result of a job that has finished costs a promise without the functions that others are resolved by", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const increment = (x: number) => x + 1;
  // V8 counts some 100 KB at a time.
  const count = 20 * WINDOW;
  let least = Infinity;
  for (let i = 0; i < 5; i++) {
    const futures = await within(all(Array.from({ length: count }, (_, j) => pool.submit(increment, j))));
    await within(wait(futures));
    const before = allocated();
    const results = futures.map((future) => future.result());
    least = Math.min(least, (allocated() - before) / count);
    assertEquals((await all(results)).at(-1), count);
  }
  assert(least < 120, `${least} bytes for a result`);
});
