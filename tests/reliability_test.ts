/**
 * A fault of one job, its worker or its caller costs only that, and every pool ends.
 *
 * @module
 */

import { assert, assertEquals, assertInstanceOf, assertMatch, assertRejects } from "@std/assert";
import {
  type Future,
  Job,
  JobCancelledError,
  JobTimeoutError,
  MemoryLimitError,
  PoolBrokenError,
  PoolClosedError,
  ProcessPool,
  type ProcessPoolOptions,
  WorkerDiedError,
} from "@procpool/process-pool";
import { moduleOf, within } from "./fixtures.ts";
import { Meeting, share, sharedWords, thrownBy, turn, until } from "./helpers.ts";

const BACKENDS = ["worker", "killable"] as const;

/** Resolves when nothing of the stopped workers runs any more. */
async function allStopped(pool: ProcessPool): Promise<void> {
  while (pool.stats().unstoppable > 0) await turn();
}

// Many jobs, every hundredth of which is bad

/** Submits `count` calls of a task with 0, 1, 2, ... and checks the results; returns the errors of those that failed, by number. */
async function runAll(pool: ProcessPool, task: (x: number) => number, count: number): Promise<Map<number, unknown>> {
  const futures: Future<number>[] = [];
  for (let x = 0; x < count; x++) futures.push(await pool.submit(task, x));
  const errors = new Map<number, unknown>();
  for (const [x, future] of futures.entries()) {
    const error = await within(future.exception());
    if (error === undefined) assertEquals(await future.result(), x * 2);
    else errors.set(x, error);
  }
  return errors;
}

Deno.test("ProcessPool with 'jobTimeout' loses every hundredth of 1,000 jobs, which loops for ever, and stops each loop", async () => {
  const counts = sharedWords(1);
  await using pool = new ProcessPool({ maxWorkers: 2, jobTimeout: 200, initializer: share, initArgs: [counts] });
  const errors = await runAll(pool, (x) => {
    const { counts } = globalThis as unknown as { counts: Int32Array };
    if (x % 100 === 50) { for (;;) Atomics.add(counts, 0, 1); }
    return x * 2;
  }, 1000);
  assertEquals([...errors.keys()], [50, 150, 250, 350, 450, 550, 650, 750, 850, 950]);
  for (const error of errors.values()) {
    assertInstanceOf(error, JobTimeoutError);
    assertEquals(error.limit, 200);
  }
  await within(allStopped(pool));
  const before = Atomics.load(counts, 0);
  assert(before !== 0);
  assertEquals(await within(pool.run((x: number) => x, 1)), 1);
  assertEquals(Atomics.load(counts, 0), before);
  const { finished, failed, unstoppable } = pool.stats();
  assertEquals([finished, failed, unstoppable], [991, 10, 0]);
});

Deno.test("ProcessPool with 'memoryLimit' loses every hundredth of 300 jobs, which fills its heap", async () => {
  await using pool = new ProcessPool({ maxWorkers: 2, memoryLimit: 64 });
  const errors = await runAll(pool, (x) => {
    const kept: unknown[] = [];
    while (x % 100 === 50) kept.push({ values: [kept.length, 1, 2, 3] });
    return x * 2;
  }, 300);
  assertEquals([...errors.keys()], [50, 150, 250]);
  for (const error of errors.values()) {
    assertInstanceOf(error, MemoryLimitError);
    assertEquals(error.limit, 64);
  }
  await within(allStopped(pool));
  assertEquals(await within(pool.run((x: number) => x, 1)), 1);
});

for (const backend of BACKENDS) {
  Deno.test(`ProcessPool loses every hundredth of 1,000 jobs, which exits (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const errors = await runAll(pool, (x) => x % 100 === 50 ? Deno.exit(3) : x * 2, 1000);
    assertEquals([...errors.keys()], [50, 150, 250, 350, 450, 550, 650, 750, 850, 950]);
    for (const error of errors.values()) {
      assertInstanceOf(error, WorkerDiedError);
      assertEquals(error.exitCode, 3);
    }
  });
}

// Maps

/** Maps 0 to 99 in chunks of ten and checks the results; returns the errors by number, and how often each item ran. */
async function mapAll(
  options: ProcessPoolOptions,
  task: (x: number) => number,
): Promise<{ errors: Map<number, unknown>; runs: number[] }> {
  const counts = sharedWords(100);
  await using pool = new ProcessPool({ maxWorkers: 2, initializer: share, initArgs: [counts], ...options });
  const items = Array.from({ length: 100 }, (_, x) => x);
  const errors = new Map<number, unknown>();
  let x = 0;
  for (const outcome of await within(Array.fromAsync(pool.map(task, items, { chunkSize: 10, settled: true })))) {
    if (outcome.status === "rejected") errors.set(x, outcome.reason);
    else assertEquals(outcome.value, x * 2);
    x++;
  }
  assertEquals(x, 100);
  return { errors, runs: [...counts] };
}

/** One run of each item, with these exceptions. */
function runsBut(exceptions: Record<number, number>): number[] {
  return Array.from({ length: 100 }, (_, x) => exceptions[x] ?? 1);
}

Deno.test("ProcessPool.map() with 'timeout' fails only the items of a chunk that loop, and runs no item twice", async () => {
  const { errors, runs } = await mapAll({ jobTimeout: 200 }, (x) => {
    const { counts } = globalThis as unknown as { counts: Int32Array };
    Atomics.add(counts, x, 1);
    while (x === 0 || x === 45 || x === 99);
    return x * 2;
  });
  assertEquals([...errors.keys()], [0, 45, 99]);
  for (const [x, error] of errors) {
    assertInstanceOf(error, JobTimeoutError);
    assertEquals([error.jobId, error.limit], [x, 200]);
  }
  assertEquals(runs, runsBut({}));
});

for (const backend of BACKENDS) {
  Deno.test(`ProcessPool.map() fails only the items of a chunk that exit, and runs no item twice (${backend})`, async () => {
    const { errors, runs } = await mapAll({ backend }, (x) => {
      const { counts } = globalThis as unknown as { counts: Int32Array };
      Atomics.add(counts, x, 1);
      if (x === 0 || x === 45 || x === 46 || x === 99) Deno.exit(x);
      return x * 2;
    });
    assertEquals([...errors.keys()], [0, 45, 46, 99]);
    for (const [x, error] of errors) {
      assertInstanceOf(error, WorkerDiedError);
      assertEquals([error.jobId, error.exitCode], [x, x]);
    }
    assertEquals(runs, runsBut({}));
  });

  Deno.test(`ProcessPool.map() with 'retries' runs again only the items that lost their worker (${backend})`, async () => {
    const { errors, runs } = await mapAll({ backend, retries: 2 }, (x) => {
      const { counts } = globalThis as unknown as { counts: Int32Array };
      const run = Atomics.add(counts, x, 1);
      if (x === 45 || (x === 71 && run < 2)) Deno.exit(3);
      if (x === 50) throw new RangeError("deed");
      return x * 2;
    });
    assertEquals([...errors.keys()], [45, 50]);
    const died = errors.get(45);
    assertInstanceOf(died, WorkerDiedError);
    assertInstanceOf(died.cause, AggregateError);
    assertEquals([died, ...died.cause.errors].map(({ jobId, attempts }) => [jobId, attempts]), [[45, 3], [45, 1], [45, 2]]);
    assertInstanceOf(errors.get(50), RangeError);
    assertEquals(runs, runsBut({ 45: 3, 71: 3 }));
  });

  Deno.test(`ProcessPool.map() with 'retries' tells each item which run of it this is (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend, retries: 2 });
    const task = (x: number) => {
      const scope = globalThis as unknown as Record<symbol, { id: number; attempt: number }>;
      const { id, attempt } = scope[Symbol.for("process-pool.job")]!;
      if (x === 13 && attempt < 3) Deno.exit(3);
      return [id, attempt];
    };
    const seen = await within(Array.fromAsync(pool.map(task, [10, 11, 12, 13, 14, 15], { chunkSize: 6 })));
    assertEquals(seen, [[0, 1], [1, 1], [2, 1], [3, 3], [4, 1], [5, 1]]);
  });
}

Deno.test("ProcessPool with 'memoryLimit' loses nothing that a worker has done before it fills its heap, however busy the caller is", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, memoryLimit: 64, jobsPerWorker: 101 });
  const begin = new Int32Array(new SharedArrayBuffer(4));
  // A pattern goes by the port.
  const done = async (begin: Int32Array, x: number) => {
    await Atomics.waitAsync(begin, 0, 0).value;
    return [/x/, x];
  };
  const fill = async (begin: Int32Array) => {
    await Atomics.waitAsync(begin, 0, 0).value;
    // The others are done.
    await new Promise((resolve) => setTimeout(resolve));
    for (const all: unknown[] = [];;) all.push([all.length]);
  };
  const futures = await Promise.all(Array.from({ length: 100 }, (_, x) => pool.submit(done, begin, x)));
  const filling = await pool.submit(fill, begin);
  await until(() => filling.running());
  Atomics.store(begin, 0, 1);
  Atomics.notify(begin, 0);
  // Until the worker has filled its heap, and reported that.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2000);
  assertInstanceOf(await within(filling.exception()), MemoryLimitError);
  assertEquals(futures.map(({ state }) => state), Array(100).fill("finished"));
});

Deno.test("ProcessPool.map() with 'memoryLimit' fails only the item of a chunk that fills the heap", async () => {
  const { errors, runs } = await mapAll({ memoryLimit: 64 }, (x) => {
    const { counts } = globalThis as unknown as { counts: Int32Array };
    Atomics.add(counts, x, 1);
    const kept: unknown[] = [];
    while (x === 45) kept.push({ values: [kept.length, 1, 2, 3] });
    return x * 2;
  });
  assertEquals([...errors.keys()], [45]);
  assertInstanceOf(errors.get(45), MemoryLimitError);
  assertEquals(runs, runsBut({}));
});

// The end of a pool, at bad moments

/** Whatever makes a pool's workers start, die or be replaced; `now` is to be called at that moment. */
const MOMENTS: Record<string, (pool: ProcessPool, now: () => void) => Promise<Future<unknown>[]>> = {
  "start": async (pool, now) => {
    const futures = await Promise.all(Array.from({ length: 6 }, (_, i) => pool.submit((x: number) => x, i)));
    now();
    return futures;
  },
  "die": async (pool, now) => {
    const culprit = new Job({ func: () => Deno.exit(3), onDone: now });
    const futures = [await pool.submit(culprit), await pool.submit((): void => Deno.exit(3))];
    for (let i = 0; i < 4; i++) futures.push(await pool.submit((x: number) => x, i) as Future<never>);
    await within(futures[0]!.exception());
    return futures;
  },
  "have just died and are replaced": async (pool, now) => {
    const future = await pool.submit((): void => Deno.exit(3));
    await within(future.exception());
    const futures = await Promise.all(Array.from({ length: 6 }, (_, i) => pool.submit((x: number) => x, i)));
    now();
    return [future, ...futures];
  },
  "are worn and replaced": async (pool, now) => {
    const first = new Job({ func: (x: number) => x, args: [0], onDone: now });
    const futures: Future<unknown>[] = [await pool.submit(first)];
    for (let i = 1; i < 6; i++) futures.push(await pool.submit((x: number) => x, i));
    await within(futures[0]!.result());
    return futures;
  },
};

const ENDS: Record<string, (pool: ProcessPool) => Promise<void>> = {
  "shutdown()": (pool) => pool.shutdown(),
  "shutdown({ cancelPending })": (pool) => pool.shutdown({ cancelPending: true }),
  "shutdown({ timeout: 0 })": (pool) => pool.shutdown({ timeout: 0 }),
  "terminate()": (pool) => pool.terminate(),
  "terminate() and shutdown()": async (pool) => void await Promise.all([pool.terminate(), pool.shutdown(), pool.terminate()]),
};

for (const backend of BACKENDS) {
  for (const [action, end] of Object.entries(ENDS)) {
    for (const [moment, reach] of Object.entries(MOMENTS)) {
      Deno.test(`ProcessPool.${action} while workers ${moment} settles everything and resolves (${backend})`, async () => {
        const pool = new ProcessPool({
          backend,
          maxWorkers: 2,
          maxJobsPerWorker: moment === "are worn and replaced" ? 1 : Infinity,
          finalizer: () => {},
          onError: () => {},
        });
        const ended = Promise.withResolvers<void>();
        const futures = await within(reach(pool, () => ended.resolve(end(pool))));
        await within(ended.promise);
        await Promise.all(futures.map((future) => within(future.exception())));
        for (const future of futures) assert(future.done());
        const { workers, queued, finished, failed, cancelled } = pool.stats();
        assertEquals([workers, queued, finished + failed + cancelled], [0, 0, futures.length]);
        if (action === "shutdown()") assertEquals(cancelled, 0);
        await assertRejects(() => pool.submit(() => 1), PoolClosedError);
        await within(allStopped(pool));
      });
    }
  }

  Deno.test(`ProcessPool.shutdown() during a map lets it end with a PoolClosedError, its workers dying all the while (${backend})`, async () => {
    const url = moduleOf(`export function task(x) { if (x % 5 === 4) Deno.exit(3); return x; }`);
    const pool = new ProcessPool({ backend, maxWorkers: 2, modules: [url], onError: () => {} });
    function* naturals() {
      for (let n = 0;; n++) yield n;
    }
    let shutdown: Promise<void> | undefined;
    let seen = 0;
    async function consume(): Promise<void> {
      for await (const outcome of pool.map({ module: url, name: "task" }, naturals(), { chunkSize: 3, buffer: 12, settled: true })) {
        assertEquals(outcome.status, seen % 5 === 4 ? "rejected" : "fulfilled");
        if (++seen === 20) shutdown = pool.shutdown();
      }
    }
    const error = await within(consume().catch((error) => error));
    assertInstanceOf(error, PoolClosedError);
    await within(shutdown!);
  });
}

for (const backend of [...BACKENDS, "inline"] as const) {
  Deno.test(`ProcessPool.terminate() and AbortController.abort() settle all jobs with a reason that has no text (${backend})`, async () => {
    const reason: unknown = Object.assign(Object.create(null), { code: 1 });
    const task = () => new Promise(() => {});
    const pool = new ProcessPool({ maxWorkers: 1, backend });
    const controller = new AbortController();
    const aborted = await pool.submit(new Job({ func: task, signal: controller.signal }));
    while (!aborted.running()) await turn();
    controller.abort(reason);
    assertEquals(await within(aborted.exception()), reason);
    const running = await pool.submit(task);
    const queued = await pool.submit(task);
    while (!running.running()) await turn();
    const over = pool.terminate(reason);
    assertEquals((await within(running.exception()) as PoolClosedError).cause, reason);
    await assertRejects(() => within(queued.result()));
    await within(over);
  });
}

Deno.test("ProcessPool whose finalizer ends its workers starts others, and is as closed as any when it is shut down", async () => {
  const reported: unknown[] = [];
  await using pool = new ProcessPool({
    maxWorkers: 3,
    idleTimeout: 1,
    finalizer: () => Deno.exit(3),
    onError: (error) => reported.push(error),
  });
  await within(pool.warmUp());
  while (pool.stats().workers > 0) await turn();
  assertEquals(await within(pool.run(() => "fine")), "fine");
  await within(pool.warmUp());
  await within(pool.shutdown());
  await assertRejects(() => pool.run(() => 1), PoolClosedError, "shut down");
  for (const error of reported) assertInstanceOf(error, WorkerDiedError);
});

Deno.test("ProcessPool.terminate() ends as many jobs as one worker can run", async () => {
  const jobs = 150_000;
  const pool = new ProcessPool({ backend: "inline", maxWorkers: 1, jobsPerWorker: jobs, queueSize: jobs });
  const forever = () => new Promise<never>(() => {});
  const outcomes = Promise.allSettled(Array.from({ length: jobs }, () => pool.run(forever)));
  while (pool.stats().running < jobs) await turn();
  await within(pool.terminate());
  for (const outcome of await within(outcomes)) assert(outcome.status === "rejected" && outcome.reason instanceof PoolClosedError);
});

for (const deed of ["shutdown", "terminate"] as const) {
  Deno.test(`ProcessPool.${deed}() out of a getter of an item that is being copied ends the map as ever`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1 });
    const type = (x: unknown) => typeof x;
    await pool.run(type, 1);
    let called = 0;
    const ending = {
      get x() {
        called++;
        pool[deed]();
        return 1;
      },
    };
    // As one item cannot be sent, the others are copied one by one.
    const outcomes = await within(Array.fromAsync(pool.map(type, [Symbol(), ending, 3], { chunkSize: 3, settled: true })));
    assertEquals([outcomes.length, called > 0], [3, true]);
    await within(pool.shutdown());
  });
}

for (const backend of BACKENDS) {
  Deno.test(`A finalizer that leaves a rejection unhandled is reported (${backend})`, async () => {
    const reported: unknown[] = [];
    const finalizer = () => void Promise.reject(new Error("stray"));
    const pool = new ProcessPool({ maxWorkers: 1, backend, finalizer, onError: (error) => reported.push((error as Error).cause) });
    await pool.run(() => 1);
    await within(pool.shutdown());
    assertEquals(reported.map((cause) => (cause as Error).message), ["stray"]);
  });
}

// Workers that take too long, outside of any job

Deno.test("ProcessPool with 'startTimeout' does not blame its workers for the time in which the caller is busy, be it that they start or close", async () => {
  const startTimeout = 1500;
  const beBusy = () => void Atomics.wait(sharedWords(1), 0, 0, startTimeout + 100);
  const errors: unknown[] = [];
  {
    await using pool = new ProcessPool({ maxWorkers: 3, startTimeout, finalizer: () => {}, onError: (error) => errors.push(error) });
    const ready = pool.warmUp();
    beBusy();
    await within(ready);
    const closed = pool.shutdown();
    beBusy();
    await within(closed);
  }
  assertEquals(errors, []);
});

Deno.test("ProcessPool with 'startTimeout' breaks when its workers are never ready, and says why", async () => {
  const pool = new ProcessPool({ maxWorkers: 1, startTimeout: 100, initializer: () => new Promise(() => {}) });
  const error = await within(assertRejects(() => pool.run((x: number) => x, 1), PoolBrokenError));
  assertEquals(
    error.message,
    "Cannot start the workers of the pool, 3 times in a row: the last one was not ready within 100 ms ('startTimeout')",
  );
  await within(pool.shutdown());
});

/** What ends a worker that has started a job. */
const ENDINGS: [how: string, end: (future: Future<unknown>) => void][] = [
  ["died of it", () => {}],
  ["was stopped for it", (future) => void future.cancel({ force: true })],
];

for (const [how, end] of ENDINGS) {
  Deno.test(`ProcessPool does not count a worker that could not be started with those before one that started a job and ${how}`, async () => {
    const starts = sharedWords(1);
    const failNowAndThen = (starts: Int32Array) => {
      if (Atomics.add(starts, 0, 1) % 3 > 0) throw new Error("passing shortage");
    };
    await using pool = new ProcessPool({ maxWorkers: 1, initializer: failNowAndThen, initArgs: [starts] });
    for (let i = 0; i < 3; i++) {
      const meeting = new Meeting();
      const met = meeting.come();
      const future = await pool.submit(async (memory: Int32Array) => {
        Atomics.store(memory, 0, 1);
        Atomics.notify(memory, 0);
        await Atomics.waitAsync(memory, 1, 0).value;
        Deno.exit(1);
      }, meeting.memory);
      await within(Promise.race([met, future.exception()]));
      end(future);
      meeting.letGo();
      const error = await within(future.exception());
      assert(error instanceof WorkerDiedError || error instanceof JobCancelledError, String(error));
    }
    assertEquals(Atomics.load(starts, 0), 7);
  });
}

Deno.test("ProcessPool.warmUp() outlasts one worker that was not ready in time", async () => {
  const starts = sharedWords(1);
  const hangOnce = (starts: Int32Array) => Atomics.add(starts, 0, 1) === 0 ? new Promise(() => {}) : undefined;
  await using pool = new ProcessPool({ maxWorkers: 1, startTimeout: 3000, initializer: hangOnce, initArgs: [starts] });
  await within(pool.warmUp());
  assertEquals(Atomics.load(starts, 0), 2);
});

Deno.test("ProcessPool stops a worker that an earlier job keeps busy, and runs the job elsewhere that was sent to it", async () => {
  const reported: unknown[] = [];
  await using pool = new ProcessPool({ backend: "killable", maxWorkers: 1, onError: (error) => reported.push(error) });
  const spins = sharedWords(1);
  await pool.run((spins: Int32Array) => {
    setTimeout(() => {
      Atomics.store(spins, 0, 1);
      Atomics.notify(spins, 0);
      for (;;);
    });
  }, spins);
  await Atomics.waitAsync(spins, 0, 0).value;
  const withdrawn = await pool.submit(() => "never runs");
  assert(withdrawn.cancel());
  const future = await pool.submit(() => (globalThis as Record<symbol, { attempt: number }>)[Symbol.for("process-pool.job")]!.attempt);
  assertEquals(await within(future.result()), 1);
  assertEquals(reported.map((error) => [(error as Error).name, (error as Error).message]), [
    ["WorkerDiedError", "An idle worker was stopped, as something that an earlier job left behind kept it busy"],
  ]);
});

// Errors that do harm, and jobs that end beside others

for (const backend of BACKENDS) {
  Deno.test(`A task that throws what lies about itself ends neither its worker nor a neighbour there (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 2, backend });
    const meeting = new Meeting();
    const neighbour = await pool.submit(async (memory: Int32Array) => {
      await Atomics.waitAsync(memory, 1, 0).value;
      return "fine";
    }, meeting.memory);
    while (!neighbour.running()) await turn();
    const throwers: (() => never)[] = [
      () => {
        throw Object.freeze(new ReferenceError("x is not defined"));
      },
      () => {
        throw new (class extends ReferenceError {
          override get message(): string {
            throw Object.create(null);
          }
        })();
      },
    ];
    const messages: unknown[] = [];
    for (const thrower of throwers) {
      const error = await within((await pool.submit(thrower)).exception());
      assertInstanceOf(error, ReferenceError);
      messages.push(error.message);
    }
    assertEquals(messages, ["x is not defined", ""]);
    meeting.letGo();
    assertEquals(await within(neighbour.result()), "fine");
  });
}

Deno.test("ProcessPool fails thousands of waiting jobs that cannot be sent, one after the other, and goes on", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 2 });
  const task = (x: unknown) => x;
  const calls = Array.from({ length: 5000 }, (_, i) => pool.run(task, i === 2500 ? "fine" : () => i));
  const outcomes = await within(Promise.allSettled(calls));
  for (const [i, outcome] of outcomes.entries()) {
    if (i === 2500) assertEquals(outcome, { status: "fulfilled", value: "fine" });
    else assert(outcome.status === "rejected" && outcome.reason.name === "DataCloneError", String(i));
  }
  const { waiting, queued, running, failed } = pool.stats();
  assertEquals([waiting, queued, running, failed], [0, 0, 0, 4999]);
  assertEquals(await within(pool.run(task, 1)), 1);
});

for (const backend of [...BACKENDS, "inline"] as const) {
  Deno.test(`One signal aborts all jobs that run in one worker with its own reason (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1, jobsPerWorker: 3 });
    const controller = new AbortController();
    const forever = () => new Promise<never>(() => {});
    const futures: Future<unknown>[] = [];
    for (let i = 0; i < 4; i++) futures.push(await pool.submit(new Job({ func: forever, signal: controller.signal, retries: i % 2 })));
    const other = await pool.submit(() => "elsewhere");
    while (!futures.slice(0, 3).every((future) => future.running())) await turn();
    controller.abort("enough");
    for (const future of futures) assertEquals([await within(future.exception()), future.state], ["enough", "cancelled"]);
    assertEquals(await within(other.result()), "elsewhere");
  });
}

Deno.test("Future.cancel({ force }) loses no item of a map in the same worker whose result is on its way", async () => {
  const runs = sharedWords(10);
  await using pool = new ProcessPool({
    backend: "killable",
    maxWorkers: 1,
    jobsPerWorker: 2,
    retries: 1,
    initializer: share,
    initArgs: [runs],
  });
  const neighbour = await pool.submit(() => new Promise<never>(() => {}));
  const task = async (i: number) => {
    const { counts } = globalThis as unknown as { counts: Int32Array };
    const run = Atomics.add(counts, i, 1);
    await undefined;
    if (i === 9 && run === 0) await new Promise<never>(() => {});
    // Too large for shared memory.
    return new Map([[i, "x".repeat(50_000)]]);
  };
  const results = pool.map(task, Array(10).keys(), { chunkSize: 10 });
  const first = results.next();
  // This thread takes nothing from the port before all but the last are done.
  const end = performance.now() + 10_000;
  let began = pool.stats().running === 2;
  while (!began) began = (await turn(), pool.stats().running === 2);
  while (Atomics.load(runs, 9) === 0 && performance.now() < end);
  assert(neighbour.cancel({ force: true }));
  const keys = [(await within(first)).value!.keys().next().value];
  for await (const result of results) keys.push(result.keys().next().value);
  assertEquals([keys, [...runs]], [[...Array(10).keys()], [1, 1, 1, 1, 1, 1, 1, 1, 1, 2]]);
});

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`An error that ends its worker says so, however deep its data is (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend, onError: () => {} });
    const stray = async (depth: number) => {
      let data: unknown = 0;
      for (let i = 0; i < depth; i++) data = [data];
      Promise.reject(Object.assign(new Error("stray"), { data }));
      await new Promise(() => {});
    };
    for (const depth of [2500, 3000, 3400, 5000]) {
      const error = await within(thrownBy(() => pool.run(stray, depth))) as Error;
      assertMatch(error.message, /^Cannot finish job \d+ \(task "stray"\) as its worker had an unhandled rejection$/);
      assertEquals((error.cause as Error).message, "stray");
    }
  });
}

for (const backend of BACKENDS) {
  Deno.test(`An uncaught error in a worker that a task has started ends the job with its message (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    const error = await within(thrownBy(() =>
      pool.run(() => {
        new Worker("data:text/javascript,throw new RangeError('of its own')", { type: "module" });
        return new Promise<void>(() => {});
      })
    ));
    assertInstanceOf(error, WorkerDiedError);
    assertInstanceOf(error.cause, Error);
    assertMatch(error.cause.message, /RangeError: of its own/);
  });
}
