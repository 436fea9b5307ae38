import { assert, assertEquals, assertInstanceOf, assertMatch, assertRejects, assertStrictEquals } from "@std/assert";
import {
  type Future,
  Job,
  JobCancelledError,
  JobTimeoutError,
  MemoryLimitError,
  PoolBrokenError,
  PoolClosedError,
  type PoolObserver,
  ProcessPool,
  type ProcessPoolOptions,
  WorkerDiedError,
} from "@procpool/process-pool";
import { internalsOf } from "../pool.ts";
import { granted, moduleOf, within } from "./fixtures.ts";
import { meet, Meeting, thrownBy, turn, until } from "./helpers.ts";

const BACKENDS = ["worker", "killable"] as const;

/** Words that all workers share with the test. */
function sharedWords(count: number): Int32Array {
  return new Int32Array(new SharedArrayBuffer(count * Int32Array.BYTES_PER_ELEMENT));
}

/** An initializer: gives tasks the shared memory as `counts`. */
function share(counts: Int32Array): void {
  (globalThis as { counts?: Int32Array }).counts = counts;
}

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

// What no worker can read

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

// Retries

for (const backend of BACKENDS) {
  Deno.test(`Job.retries runs a job again whose worker died, and the last error lists the earlier ones (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    const runs = sharedWords(1);
    const func = (runs: Int32Array) => Deno.exit(10 + Atomics.add(runs, 0, 1));
    const future = await pool.submit(new Job({ func, args: [runs], retries: 2 }));
    const error = await within(future.exception());
    assertInstanceOf(error, WorkerDiedError);
    assertEquals([error.attempts, error.exitCode, runs[0]], [3, 12, 3]);
    assertInstanceOf(error.cause, AggregateError);
    assertEquals(error.cause.errors.map(({ exitCode, attempts }) => [exitCode, attempts]), [[10, 1], [11, 2]]);
    assertEquals(pool.stats().failed, 1);
  });

  Deno.test(`Job.retries lets a job finish in a later run, under the same future (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend, retries: 2 });
    const runs = sharedWords(1);
    const done: unknown[] = [];
    const func = (runs: Int32Array) => Atomics.add(runs, 0, 1) < 2 ? Deno.exit(3) : "third time";
    const future = await pool.submit(new Job({ func, args: [runs], onDone: ({ state }) => done.push(state) }));
    assertEquals(await within(future.result()), "third time");
    assertEquals([done, runs[0], pool.stats().finished, pool.stats().failed], [["finished"], 3, 1, 0]);
  });

  Deno.test(`Job.retries does not run a job again that threw, unless 'retryIf' says so (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend, retries: 5 });
    const runs = sharedWords(1);
    const func = (runs: Int32Array) => {
      throw new RangeError(`run ${Atomics.add(runs, 0, 1) + 1}`);
    };
    await assertRejects(() => within(pool.run(func, runs)), RangeError, "run 1");
    const asked: unknown[] = [];
    const retryIf = (error: unknown, attempt: number) => {
      asked.push([(error as Error).message, attempt]);
      return attempt < 3;
    };
    await assertRejects(() => within(pool.run(new Job({ func, args: [runs], retryIf }))), RangeError, "run 4");
    assertEquals(asked, [["run 2", 1], ["run 3", 2], ["run 4", 3]]);
  });

  Deno.test(`Job.retryIf that throws is reported, and the job fails with its own error (${backend})`, async () => {
    const reported: unknown[] = [];
    await using pool = new ProcessPool({ maxWorkers: 1, backend, retries: 5, onError: (error) => reported.push(error) });
    const mistake = new Error("retryIf");
    const retryIf = () => {
      throw mistake;
    };
    const error = await within(pool.run(new Job({ func: () => Deno.exit(3), retryIf })).catch((error) => error));
    assertInstanceOf(error, WorkerDiedError);
    assertEquals([error.attempts, error.cause], [1, undefined]);
    assertEquals(reported.length, 1);
    assertStrictEquals(reported[0], mistake);
    assertEquals(await within(pool.run((x: number) => x, 1)), 1);
  });
}

for (const backend of BACKENDS) {
  Deno.test(`A task that replaces what errors are sent with ends only its worker (${backend})`, async () => {
    const ways = {
      push: () => void (Array.prototype.push = () => 7),
      names: () => void (Object.getOwnPropertyNames = () => [{ toString: 1, valueOf: 1 }] as never),
      texts: () => void (globalThis.String = (() => ({ toString: 1 })) as never),
    };
    for (const [way, spoil] of Object.entries(ways)) {
      const task = (0, eval)(`(x) => { (${spoil})(); throw Object.assign(new Error("mine"), { code: {} }); }`) as (x: number) => number;
      await using pool = new ProcessPool({ maxWorkers: 2, backend, onError: () => {} });
      const words = sharedWords(2);
      const neighbour = await pool.submit(meet, words);
      while (!neighbour.running()) await turn();
      assertInstanceOf(await within(thrownBy(() => pool.run(task, 1))), Error, way);
      const outcomes = await within(Array.fromAsync(pool.map(task, [1, 2, 3], { settled: true, chunkSize: 3 })));
      for (const outcome of outcomes) assert(outcome.status === "rejected" && outcome.reason instanceof Error, way);
      Atomics.store(words, 1, 1);
      Atomics.notify(words, 1);
      assertEquals(await within(neighbour.result()), "met");
    }
  });

  Deno.test(`A finalizer that leaves a rejection unhandled is reported (${backend})`, async () => {
    const reported: unknown[] = [];
    const finalizer = () => void Promise.reject(new Error("stray"));
    const pool = new ProcessPool({ maxWorkers: 1, backend, finalizer, onError: (error) => reported.push((error as Error).cause) });
    await pool.run(() => 1);
    await within(pool.shutdown());
    assertEquals(reported.map((cause) => (cause as Error).message), ["stray"]);
  });
}

Deno.test("Job.retryIf that gives a promise counts as false, and is reported, with what the promise rejects with", async () => {
  const reported: unknown[] = [];
  await using pool = new ProcessPool({ maxWorkers: 1, retries: 5, onError: (error) => reported.push((error as Error).message) });
  const retryIf = (() => Promise.reject(new Error("later"))) as unknown as () => boolean;
  const runs = sharedWords(1);
  const func = (runs: Int32Array) => {
    throw new RangeError(`run ${Atomics.add(runs, 0, 1) + 1}`);
  };
  await assertRejects(() => within(pool.run(new Job({ id: "a", func, args: [runs], retryIf }))), RangeError, "run 1");
  await turn();
  assertEquals(reported, [`Cannot wait for 'retryIf' of job "a" as it must be decided at once: current value is a promise`, "later"]);
});

Deno.test("Job.retries does not run a job again that threw another pool's error about a dead worker, and leaves that error unchanged", async () => {
  await using pool = new ProcessPool({ backend: "inline", retries: 5 });
  const thrown = new WorkerDiedError("In another pool", { cause: "unknown" });
  let runs = 0;
  const error = await thrownBy(() =>
    pool.run(() => {
      runs++;
      throw thrown;
    })
  );
  assertStrictEquals(error, thrown);
  assertEquals([runs, thrown.cause], [1, "unknown"]);
});

Deno.test("Job.retries runs a job again that filled its heap, and the last error lists the earlier one", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, memoryLimit: 64, retries: 1 });
  const error = await within(
    pool.run(() => {
      const kept: unknown[] = [];
      for (;;) kept.push({ values: [kept.length, 1, 2, 3] });
    }).catch((error) => error),
  );
  assertInstanceOf(error, MemoryLimitError);
  assertEquals([error.attempts, error.limit], [2, 64]);
  assertInstanceOf(error.cause, AggregateError);
  assertEquals(error.cause.errors.map((error) => error instanceof MemoryLimitError), [true]);
});

Deno.test("Job.timeout is no reason to run a job again, unless 'retryIf' says so", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, backend: "killable", retries: 2 });
  const runs = sharedWords(1);
  const func = (runs: Int32Array) => {
    Atomics.add(runs, 0, 1);
    for (;;);
  };
  const once = await within(pool.run(new Job({ func, args: [runs], timeout: 50 })).catch((error) => error));
  assertInstanceOf(once, JobTimeoutError);
  assertEquals([once.attempts, runs[0]], [1, 1]);
  const retryIf = (error: unknown) => error instanceof JobTimeoutError;
  const thrice = await within(pool.run(new Job({ func, args: [runs], timeout: 50, retryIf })).catch((error) => error));
  assertInstanceOf(thrice, JobTimeoutError);
  assertEquals([thrice.attempts, runs[0]], [3, 4]);
});

Deno.test("Job.retries brings back the innocent neighbours of a job that was stopped", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 3, backend: "killable" });
  const runs = sharedWords(1);
  const func = (runs: Int32Array) => Atomics.add(runs, 0, 1) > 0 ? "second run" : new Promise<string>(() => {});
  const retried = await pool.submit(new Job({ func, args: [runs], retries: 1 }));
  const lost = await pool.submit(() => new Promise(() => {}));
  const culprit = await pool.submit(
    new Job({
      func: () => {
        for (;;);
      },
      timeout: 50,
    }),
  );
  assertInstanceOf(await within(culprit.exception()), JobTimeoutError);
  const error = await within(lost.exception());
  assertInstanceOf(error, WorkerDiedError);
  assertInstanceOf(error.cause, JobTimeoutError);
  assertEquals(error.cause.jobId, culprit.id);
  assertEquals(await within(retried.result()), "second run");
});

// Timeouts

Deno.test("Job.timeout counts from the real start, not while a neighbour in the same worker blocks it", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 2, backend: "killable" });
  const meeting = new Meeting();
  const blocking = await pool.submit(meet, meeting.memory);
  await within(meeting.come());
  const waiting = await pool.submit(new Job({ func: (x: number) => x, args: [1], timeout: 500 }));
  assertEquals(pool.stats().running, 2);
  // More time than it has passes until another job has used up as much.
  await using other = new ProcessPool({ maxWorkers: 1, jobTimeout: 500 });
  const late = await within(
    other.run(() => {
      for (;;);
    }).catch((error) => error),
  );
  assertInstanceOf(late, JobTimeoutError);
  assertEquals(waiting.state, "queued");
  meeting.letGo();
  assertEquals(await within(blocking.result()), "met");
  assertEquals(await within(waiting.result()), 1);
});

Deno.test("Job.timeout does not count the queue", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobTimeout: 300 });
  const loop = () => {
    for (;;);
  };
  const loops = [await pool.submit(loop), await pool.submit(loop), await pool.submit(loop)];
  const last = await pool.submit((x: number) => x, 1);
  for (const future of loops) assertInstanceOf(await within(future.exception()), JobTimeoutError);
  assertEquals(await within(last.result()), 1);
});

for (const backend of BACKENDS) {
  Deno.test(`Job.timeout ends a job beside others that return faster than the caller takes up what they return (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 20, backend });
    const endless = await pool.submit(new Job({ func: () => new Promise(() => {}), timeout: 50 }));
    // A pattern goes by the port.
    const answer = async (x: number) => {
      await new Promise((resolve) => setTimeout(resolve));
      return [/x/, x];
    };
    const most = 3000;
    let answers = 0;
    const ask = async (): Promise<void> => {
      while (!endless.done() && answers < most) {
        await pool.run(answer, answers++).catch(() => {});
        const end = performance.now() + 3;
        while (performance.now() < end);
      }
    };
    await Promise.all(Array.from({ length: 100 }, ask));
    assertInstanceOf(await within(endless.exception()), JobTimeoutError);
    assert(answers < most);
  });

  Deno.test(`Job.timeout does not fail a job that has finished while the caller was busy (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    await within(pool.warmUp());
    const done = sharedWords(1);
    const func = (done: Int32Array) => void Atomics.store(done, 0, 1);
    const future = await pool.submit(new Job({ func, args: [done], timeout: 50 }));
    const end = performance.now() + 100;
    while (Atomics.load(done, 0) === 0 || performance.now() < end);
    await within(future.result());
  });
}

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

Deno.test("A job's worker keeps its own Atomics, timers and clocks, whatever tasks put in their place", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobTimeout: 30_000 });
  await pool.run(() => {
    Object.assign(Atomics, { compareExchange: () => 0, store: () => 0 });
    Date.now = performance.now = () => 0;
    (globalThis as { setTimeout?: unknown }).setTimeout = (globalThis as { clearTimeout?: unknown }).clearTimeout = undefined;
    Object.defineProperty(Object.prototype, "func", { value: () => "inherited", configurable: true });
  });
  assertEquals(await within(pool.run((x: number) => x + 1, 1)), 2);
  const results = await within(Array.fromAsync(pool.map(async (x: number) => await x * 2, [1, 2, 3, 4, 5, 6, 7, 8])));
  assertEquals(results, [2, 4, 6, 8, 10, 12, 14, 16]);
});

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

for (const backend of BACKENDS) {
  Deno.test(`Jobs of one worker that have run for too long at once all fail for that (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1, jobsPerWorker: 4 });
    const forever = () => new Promise<never>(() => {});
    const futures: Future<unknown>[] = [];
    for (const timeout of [50, 60, 60_000, 70]) futures.push(await pool.submit(new Job({ func: forever, timeout })));
    while (!futures.every((future) => future.running())) await turn();
    // Their limits have passed before anybody looks.
    for (const end = performance.now() + 100; performance.now() < end;);
    const errors = await within(Promise.all(futures.map((future) => future.exception())));
    assertEquals(errors.map((error) => error instanceof JobTimeoutError ? error.limit : (error as Error).name), [
      50,
      60,
      "WorkerDiedError",
      70,
    ]);
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

for (const backend of BACKENDS) {
  Deno.test(`A task cannot steal the lock of a worker, be it its own, and has its own locks as ever (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const wait = async (words: Int32Array) => {
      await Atomics.waitAsync(words, 0, 0).value;
      return "through";
    };
    const words = sharedWords(1);
    const waiting = await pool.submit(wait, words);
    while (!waiting.running()) await turn();
    const names = await heldLocks();
    for (const name of names) assertMatch(name, /^process-pool worker /);
    assert(names.length > 0);
    const steal = async (names: string[]) => {
      type Request = (name: unknown, options: object | (() => unknown), holder?: () => unknown) => Promise<unknown>;
      const { locks } = navigator as unknown as {
        locks: { request: Request; query(): Promise<Record<"held" | "pending", { name: string }[]>> };
      };
      const outcomes: unknown[] = [];
      for (const name of names) {
        let looks = 0;
        const second = { toString: () => looks++ === 0 ? "another" : name };
        const inherited = Object.assign(Object.create({ steal: true }), { ifAvailable: true });
        for (
          const [lock, options] of [[name, { steal: true }], [second, { steal: true }], [name, inherited]] as const
        ) {
          outcomes.push(await locks.request(lock, options, () => "had").catch((error: Error) => error.message));
        }
        const iterate = Array.prototype[Symbol.iterator];
        Array.prototype[Symbol.iterator] = function () {
          for (let i = 0; i < this.length; i++) if (typeof this[i] === "object") this[i].steal = true;
          return iterate.call(this);
        };
        let smuggled = "waits";
        locks.request(name, {}, () => smuggled = "stolen").catch(() => {});
        Array.prototype[Symbol.iterator] = iterate;
        // The answer to a later request: by then the earlier one has got the lock, or waits for it.
        await locks.request(name, { ifAvailable: true }, () => {});
        outcomes.push(smuggled);
      }
      locks.request("mine", () => new Promise(() => {})).catch(() => {});
      const own = (await locks.query()).held.map(({ name }) => name);
      outcomes.push(await locks.request("mine", { steal: true }, () => "stolen"), await locks.request("mine", () => "had"));
      return { outcomes, own };
    };
    const { outcomes, own } = await within(pool.run(steal, names));
    Atomics.store(words, 0, 1);
    Atomics.notify(words, 0);
    const refused = "The lock of a worker cannot be stolen";
    assertEquals(outcomes, [...names.flatMap(() => [refused, "had", refused, "waits"]), "stolen", "had"]);
    assertEquals(own, ["mine"]);
    assertEquals(await within(waiting.result()), "through");
  });
}

async function heldLocks(): Promise<string[]> {
  const { locks } = navigator as unknown as { locks: { query(): Promise<{ held: { name: string }[] }> } };
  return (await locks.query()).held.map(({ name }) => name);
}

for (const backend of BACKENDS) {
  Deno.test(`A worker goes on when a task has taken Deno, WebAssembly and eval away, and errors are what they are (${backend})`, async () => {
    const takeAway = () => {
      Object.assign(globalThis, { NotFound: Deno.errors.NotFound, CompileError: WebAssembly.CompileError });
      for (const name of ["Deno", "WebAssembly", "eval"]) Reflect.deleteProperty(globalThis, name);
    };
    await using pool = new ProcessPool({ backend, maxWorkers: 1, initializer: takeAway });
    const fail = (name: string) => {
      throw new (Reflect.get(globalThis, name))(`a ${name}`);
    };
    const errors: unknown[] = [];
    for (const name of ["NotFound", "CompileError", "RangeError"]) errors.push(await (await pool.submit(fail, name)).exception());
    const classes = [Deno.errors.NotFound, WebAssembly.CompileError, RangeError];
    assertEquals(errors.map((error) => (error as Error).constructor), classes);
    assertEquals(errors.map((error) => (error as Error).message), ["a NotFound", "a CompileError", "a RangeError"]);
    assertEquals([await pool.run((x: number) => x + 1, 1), pool.inspect().map(({ worker }) => worker)], [2, [1]]);
  });
}

/** Does something while another navigator is in the place of the platform's, as libraries that emulate a DOM for tests put one there. */
async function withOtherNavigator<T>(action: () => Promise<T>): Promise<T> {
  const own = Object.getOwnPropertyDescriptor(globalThis, "navigator")!;
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { userAgent: "test" } });
  try {
    return await action();
  } finally {
    Object.defineProperty(globalThis, "navigator", own);
  }
}

for (const backend of BACKENDS) {
  Deno.test(`A pool does without the platform's navigator (${backend})`, async () => {
    await withOtherNavigator(async () => {
      await using pool = new ProcessPool({ backend });
      assertEquals(await within(pool.run((x: number) => x + 1, 1)), 2);
      assertInstanceOf(await (await pool.submit(() => Deno.exit(3))).exception(), WorkerDiedError);
    });
  });
}

/** Does something while timers that never fire, and a clock that stands still, are in the place of the platform's, as fake ones of tests. */
async function withTimeStopped(action: () => Promise<void>): Promise<void> {
  const own = { setTimeout, Date };
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = within(promise);
  Object.assign(globalThis, { setTimeout: () => 0, Date: Object.assign(function () {}, { now: () => 0 }) });
  try {
    resolve(action());
    await done;
  } finally {
    Object.assign(globalThis, own);
  }
}

for (const backend of [...BACKENDS, "inline"] as const) {
  Deno.test(`A pool goes by the platform's time where a test has stopped its own (${backend})`, async () => {
    await withTimeStopped(async () => {
      const module = moduleOf("export const square = (x) => x * x");
      await using pool = new ProcessPool({ backend, maxWorkers: 1, modules: [module] });
      assertEquals(await Array.fromAsync(pool.map({ module, name: "square" }, [1, 2, 3])), [1, 4, 9]);
      const never = (memory: Int32Array) => {
        Atomics.store(memory, 0, 1);
        Atomics.notify(memory, 0);
        return new Promise<never>(() => {});
      };
      const { memory } = new Meeting();
      assertInstanceOf(await thrownBy(() => pool.run(new Job({ func: never, args: [memory], timeout: 50 }))), JobTimeoutError);
      const meeting = new Meeting();
      const future = await pool.submit(never, meeting.memory);
      await meeting.come();
      assert(future.cancel({ force: true }));
    });
  });
}

Deno.test("locks() are those of the program where they are loaded beside another navigator", { ignore: !granted("read") }, async () => {
  const { locks } = await withOtherNavigator(() => import("../worker/platform.ts?beside"));
  await locks().request("process-pool test", async () => assert((await heldLocks()).includes("process-pool test")));
});

for (const backend of BACKENDS) {
  Deno.test(`A job that ends its worker is not timed out, even if its caller hears of that later (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1, initializer: share, initArgs: [sharedWords(1)] });
    const task = async (how: string) => {
      const { counts } = globalThis as unknown as { counts: Int32Array };
      if (Atomics.add(counts, 0, 1) % 2 === 1) return how;
      if (how === "exit") Deno.exit(3);
      if (how === "close") self.close();
      if (how === "error") {
        setTimeout(() => {
          throw new Error("stray");
        });
      }
      if (how === "rejection") Promise.reject(new Error("stray"));
      return await new Promise<never>(() => {});
    };
    for (const how of ["exit", "close", "error", "rejection", "exit", "close", "error", "rejection"]) {
      await within(pool.warmUp());
      const future = await pool.submit(new Job({ func: task, args: [how], timeout: 200, retries: 1 }));
      const [slot] = internalsOf(pool).slots;
      // The worker ends, and the limit passes, before its last message arrives.
      for (const end = performance.now() + 10_000; !slot!.hasUnread && performance.now() < end;);
      for (const end = performance.now() + 250; performance.now() < end;);
      assertEquals(await within(future.result()), how);
    }
  });
}

Deno.test("A job's limit is kept beside a map whose items never stop arriving, of which some may be lost", async () => {
  await using pool = new ProcessPool({ backend: "killable", maxWorkers: 1, jobsPerWorker: 2 });
  const forever = await pool.submit(new Job({ func: () => new Promise<never>(() => {}), timeout: 50 }));
  const items = 20_000;
  let ended = 0;
  const task = async (x: number) => {
    await undefined;
    // It goes by the port, and takes this thread longer than its worker.
    const own = globalThis as { large?: unknown[] };
    return own.large ??= [/x/, ...Array.from({ length: 300 }, (_, i) => ({ i, x, name: `name ${i}` }))];
  };
  const outcomes = pool.map(task, Array(items).keys(), { chunkSize: items, buffer: items, settled: true, timeout: 60_000 });
  const taken = (async () => {
    for await (const _ of outcomes) ended++;
  })();
  assertInstanceOf(await within(forever.exception()), JobTimeoutError);
  assert(ended < items, String(ended));
  await within(pool.terminate());
  await within(taken);
  assertEquals(ended, items);
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
