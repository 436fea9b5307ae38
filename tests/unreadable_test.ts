/**
 * What no worker can read: nested too deeply, or larger than its heap. Such a job fails alone.
 *
 * @module
 */

import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  Job,
  MemoryLimitError,
  PoolClosedError,
  type PoolObserver,
  ProcessPool,
  type ProcessPoolOptions,
  WorkerDiedError,
} from "@procpool/process-pool";
import { within } from "./fixtures.ts";
import { Meeting, turn } from "./helpers.ts";

/** Nested so deeply that a thread can send it, but none can read it. */
function unreadable(): object {
  let nested: object = {};
  for (let depth = 1;; depth++) {
    nested = { nested };
    if (depth % 100 > 0) continue;
    try {
      structuredClone(nested);
    } catch {
      return nested;
    }
  }
}

/** More records than a heap of 32 MB has room for. */
function tooMany(): object[] {
  return Array.from({ length: 600_000 }, (_, id) => ({ id, name: `record ${id}` }));
}

const UNREAD: [name: string, options: ProcessPoolOptions, make: () => object, error: typeof WorkerDiedError | typeof MemoryLimitError][] = [
  ["worker, nested too deeply", { backend: "worker" }, unreadable, WorkerDiedError],
  ["killable, nested too deeply", { backend: "killable" }, unreadable, WorkerDiedError],
  ["killable, larger than the heap", { memoryLimit: 32 }, tooMany, MemoryLimitError],
];

for (const [name, options, make, errorClass] of UNREAD) {
  Deno.test(`ProcessPool fails only the job that no worker can read, and goes on (${name})`, async () => {
    const reported: unknown[] = [];
    await using pool = new ProcessPool({ maxWorkers: 1, ...options, onError: (error) => reported.push(error) });
    const size = (value: object): number => Object.keys(value).length;
    const future = await pool.submit(size, make());
    const neighbours = [pool.run(size, [1]), pool.run(size, [1, 2])];
    const error = await within(future.exception());
    assertInstanceOf(error, errorClass);
    const { message, attempts } = error;
    const deed = errorClass === MemoryLimitError ? "filled its heap of 32 MB" : "was sent a message that cannot be read";
    assertEquals(message, `Cannot start job ${future.id} (task "size") as each of the 3 workers that read its message ${deed}`);
    assertEquals(attempts, 0);
    assertEquals(await within(Promise.all(neighbours)), [1, 2]);
    // What an earlier job left behind may have filled a heap.
    assert(reported.every((error) => error instanceof MemoryLimitError && errorClass === MemoryLimitError));
  });

  Deno.test(`ProcessPool goes on when workers have died of jobs that were cancelled before they could be read (${name})`, async () => {
    let died = Promise.withResolvers<void>();
    const observer: PoolObserver = { worker: (_worker, change) => void (change === "died" && died.resolve()) };
    await using pool = new ProcessPool({ maxWorkers: 1, ...options, observers: [observer] });
    const value = make();
    for (let i = 0; i < 3; i++) {
      await within(pool.warmUp());
      died = Promise.withResolvers();
      const future = pool.trySubmit((value: object) => typeof value, value)!;
      assertEquals(future.cancel(), true);
      await within(died.promise);
    }
    assertEquals(await within(pool.run((value: object) => typeof value, {})), "object");
  });

  Deno.test(`ProcessPool.map() fails only the item that no worker can read (${name})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, ...options });
    const items = [[1], [2], make(), [3], [4], [5], [6]];
    const outcomes = pool.map((item: unknown) => (item as number[])[0]!, items, { settled: true, chunkSize: 8 });
    const got = await within(Array.fromAsync(outcomes));
    const names = got.map((outcome) => outcome.status === "fulfilled" ? outcome.value : outcome.reason.name);
    assertEquals(names, [1, 2, errorClass.name, 3, 4, 5, 6]);
    const { finished, failed } = pool.stats();
    assertEquals([finished, failed], [6, 1]);
  });

  Deno.test(`ProcessPool runs others while workers die of a job that they cannot read (${name})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, ...options });
    const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms, ms));
    assertEquals(await within(pool.run(later, 1)), 1);
    const future = await pool.submit((value: object) => Object.keys(value).length, make());
    let settled = false;
    future.exception().then(() => settled = true);
    await within((async () => {
      while (!settled) assertEquals(await pool.run(later, 5), 5);
    })());
    assertInstanceOf(await future.exception(), errorClass);
  });
}

Deno.test("ProcessPool.map() runs each item of a chunk that as a whole is larger than the heap of a worker", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, memoryLimit: 32 });
  const items: unknown[] = Array.from({ length: 8 }, () => tooMany().slice(0, 50_000));
  items.splice(3, 2, Symbol("uncloneable"), tooMany());
  items.push(Symbol("uncloneable"));
  const outcomes = pool.map((item: unknown) => (item as object[]).length, items, { chunkSize: 9, settled: true });
  const got = await within(Array.fromAsync(outcomes, (outcome) => outcome.status === "fulfilled" ? outcome.value : outcome.reason.name));
  assertEquals(got, [50_000, 50_000, 50_000, "DataCloneError", "MemoryLimitError", 50_000, 50_000, 50_000, "DataCloneError"]);
});

for (const ordered of [true, false]) {
  Deno.test(`ProcessPool.terminate() out of a 'retryIf' ends a map whose item no worker can read (${ordered ? "in order" : "unordered"})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 3, onError: () => {} });
    const type = (x: unknown) => typeof x;
    const results = pool.map(type, [unreadable(), 1, 2, 3], { chunkSize: 4, settled: true, ordered });
    const outcomes = Array.fromAsync(results).then(({ length }) => length, (error) => error);
    let asked = 0;
    const neighbour = pool.run(
      new Job({
        func: () => new Promise<never>(() => {}),
        retries: 9,
        retryIf: () => {
          if (++asked === 3) pool.terminate();
          return true;
        },
      }),
    );
    await assertRejects(() => within(neighbour));
    const outcome = await within(outcomes);
    if (typeof outcome === "number") assertEquals(outcome, 4);
    else assertInstanceOf(outcome, PoolClosedError);
  });
}

Deno.test("A job that no worker can read is sent to a worker that runs nothing, if there is one", async () => {
  await using pool = new ProcessPool({ maxWorkers: 3, jobsPerWorker: 2 });
  await within(pool.warmUp());
  const meetings = [new Meeting(), new Meeting()];
  const running = [];
  for (const { memory } of meetings) {
    running.push(await pool.submit(async (memory: Int32Array) => void await Atomics.waitAsync(memory, 1, 0).value, memory));
  }
  while (!running.every((future) => future.running())) await turn();
  const bad = await pool.submit((x: object) => typeof x, unreadable());
  assertInstanceOf(await within(bad.exception()), WorkerDiedError);
  for (const meeting of meetings) meeting.letGo();
  for (const future of running) assertEquals(await within(future.exception()), undefined);
});

Deno.test("A chunk of numbers ahead of a job that no worker can read is not taken for what cannot be read", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, retries: 5 });
  const type = (x: unknown) => typeof x, double = (x: number) => 2 * x;
  await within(Array.fromAsync(pool.map(double, new Float64Array(1000))));
  await within(Promise.all(Array.from({ length: 100 }, (_, i) => pool.run(type, i))));
  const { postMessage } = MessagePort.prototype;
  let messages = 0;
  MessagePort.prototype.postMessage = function (...args: unknown[]) {
    messages++;
    Reflect.apply(postMessage, this, args);
  };
  try {
    const meeting = new Meeting();
    const wait = async (memory: Int32Array) => void await Atomics.waitAsync(memory, 1, 0, 50).value;
    const running = await pool.submit(wait, meeting.memory);
    const items = 5000;
    const results = Array.fromAsync(pool.map(double, new Float64Array(items), { chunkSize: items, buffer: items }));
    await turn();
    const bad = await pool.submit(type, unreadable());
    assertInstanceOf(await within(bad.exception()), WorkerDiedError);
    assertEquals([(await within(results)).length, await within(running.exception())], [items, undefined]);
  } finally {
    MessagePort.prototype.postMessage = postMessage;
  }
  // If its numbers were sent one by one, each would be a message.
  assert(messages < 1000, String(messages));
});
