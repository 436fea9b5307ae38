import { assert, assertEquals, assertInstanceOf, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import {
  asCompleted,
  currentJob,
  type Future,
  Job,
  JobCancelledError,
  PoolClosedError,
  ProcessPool,
  wait,
  WorkerDiedError,
} from "@procpool/process-pool";
import { granted, moduleOf, within } from "./fixtures.ts";
import { meet, Meeting, thrownBy, turn } from "./helpers.ts";

const BACKENDS = ["worker", "killable", "inline"] as const;
const add = (a: number, b: number) => a + b;

/** Waits in a way that works in both backends: without blocking its thread. */
async function meetAsync(memory: Int32Array): Promise<string> {
  Atomics.store(memory, 0, 1);
  Atomics.notify(memory, 0);
  await Atomics.waitAsync(memory, 1, 0).value;
  return "met";
}

for (const backend of BACKENDS) {
  Deno.test(`ProcessPool.run() submits and gives the result (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    assertEquals(await within(pool.run(add, 1, 2)), 3);
    assertEquals(await within(pool.run(new Job({ func: add, args: [3, 4] }))), 7);
    assertEquals(await within(pool.run(async (x: number) => await Promise.resolve(x), 5)), 5);
    const greet = (greeting: string, { name }: { name: string }) => `${greeting} ${name}`;
    assertEquals(await within(pool.run(new Job({ func: greet, args: ["Hello"], kwargs: { name: "bear" } }))), "Hello bear");
  });

  Deno.test(`ProcessPool.submit() waits at the gate until a job settles, first come, first served (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 1, backend });
    const meeting = new Meeting();
    const first = await pool.submit(meetAsync, meeting.memory);
    await meeting.come();
    const order: number[] = [];
    const second = pool.submit(add, 1, 1).then((future) => (order.push(2), future));
    const third = pool.submit(add, 2, 2).then((future) => (order.push(3), future));
    await turn();
    assertEquals([order.length, pool.stats().waiting, pool.trySubmit(add, 0, 0)], [0, 2, undefined]);
    meeting.letGo();
    assertEquals(await within(first.result()), "met");
    assertEquals(await within((await second).result()), 2);
    assertEquals(await within((await third).result()), 4);
    assertEquals(order, [2, 3]);
  });

  Deno.test(`ProcessPool holds at most 'queueSize' unsettled jobs of 100 submitters, and all settle (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, queueSize: 8, backend });
    let unsettled = 0;
    let most = 0;
    const submitted: number[] = [];
    const admitted: number[] = [];
    const results: number[] = [];

    async function submitter(_: unknown, name: number): Promise<void> {
      for (let i = 0; i < 100; i++) {
        const id = name * 100 + i;
        submitted.push(id);
        const job = new Job({ id, func: (x: number) => x, args: [id], onDone: () => void unsettled-- });
        const future = await pool.submit(job);
        admitted.push(id);
        most = Math.max(most, ++unsettled);
        future.addDoneCallback(async () => results.push(await future.result()));
      }
    }

    await within(Promise.all(Array.from({ length: 100 }, submitter)));
    await within(pool.shutdown());
    assertEquals(results.sort((a, b) => a - b), Array.from({ length: 10_000 }, (_, i) => i));
    assert(most <= 8, `${most} jobs were unsettled at once`);
    assertEquals(admitted, submitted);
    const { finished, failed, cancelled, queued, waiting } = pool.stats();
    assertEquals({ finished, failed, cancelled, queued, waiting }, { finished: 10_000, failed: 0, cancelled: 0, queued: 0, waiting: 0 });
  });

  Deno.test(`ProcessPool starts workers as jobs need them, and reuses idle ones first (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 3, backend });
    assertEquals(pool.stats().workers, 0);
    for (let i = 0; i < 5; i++) await within(pool.run(add, i, 1));
    assertEquals(pool.stats().workers, 1);
    const meetings = [new Meeting(), new Meeting()];
    const futures = await Promise.all(meetings.map(({ memory }) => pool.submit(meetAsync, memory)));
    await within(Promise.all(meetings.map((meeting) => meeting.come())));
    assertEquals([pool.stats().workers, pool.stats().busy], [2, 2]);
    for (const meeting of meetings) meeting.letGo();
    await within(Promise.all(futures.map((future) => future.result())));
  });

  Deno.test(`ProcessPool lets go of workers that are idle for 'idleTimeout', and starts them again (${backend})`, async () => {
    const closed = Promise.withResolvers<void>();
    const pool = new ProcessPool({
      maxWorkers: 1,
      idleTimeout: 1,
      backend,
      finalizer: () => {
        throw new Error("closed");
      },
      onError: () => closed.resolve(),
    });
    assertEquals(await within(pool.run(add, 1, 2)), 3);
    await within(closed.promise);
    while (pool.stats().workers > 0) await turn();
    assertEquals(await within(pool.run(add, 3, 4)), 7);
    await within(pool.shutdown());
  });

  Deno.test(`ProcessPool replaces a worker after 'maxJobsPerWorker' jobs (${backend})`, async () => {
    let finalized = 0;
    await using pool = new ProcessPool({
      maxWorkers: 1,
      maxJobsPerWorker: 2,
      backend,
      finalizer: () => {
        throw new Error("finalized");
      },
      onError: () => finalized++,
    });
    const sums: number[] = [];
    for (let i = 0; i < 6; i++) sums.push(await within(pool.run(add, i, 0)));
    await within(pool.shutdown());
    assertEquals([sums, finalized], [[0, 1, 2, 3, 4, 5], 3]);
  });

  Deno.test(`ProcessPool with 'jobsPerWorker' runs so many jobs at a time in one worker (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 3, backend });
    const meetings = [new Meeting(), new Meeting(), new Meeting(), new Meeting()];
    const futures = [];
    for (const { memory } of meetings) futures.push(await pool.submit(meetAsync, memory));
    await within(Promise.all(meetings.slice(0, 3).map((meeting) => meeting.come())));
    assertEquals(futures.map(({ state }) => state), ["running", "running", "running", "queued"]);
    for (const meeting of meetings) meeting.letGo();
    await within(Promise.all(futures.map((future) => future.result())));
  });

  Deno.test(`ProcessPool runs the initializer with 'initArgs' once in each worker, before its first job (${backend})`, async () => {
    const url = moduleOf(`
      let state = [];
      export function init(...args) { state.push("init", ...args); }
      export function look() { return state; }
    `);
    const task = { module: url, name: "look" };
    await using pool = new ProcessPool({
      maxWorkers: 1,
      backend,
      modules: [url],
      initializer: { module: url, name: "init" },
      initArgs: [1, "a"],
    });
    await within(pool.warmUp());
    assertEquals(await within(pool.run(task)), ["init", 1, "a"]);
    assertEquals(await within(pool.run(task)), ["init", 1, "a"]);
  });

  Deno.test(`ProcessPool.warmUp() starts all workers, and is refused when there can be none (${backend})`, async () => {
    const pool = new ProcessPool({ maxWorkers: 3, backend });
    await within(pool.warmUp());
    assertEquals([pool.stats().workers, pool.stats().busy], [3, 0]);
    await within(pool.warmUp());
    await within(pool.shutdown());
    await assertRejects(() => pool.warmUp(), PoolClosedError);
  });

  Deno.test(`ProcessPool.shutdown() lets admitted jobs finish and refuses all others (${backend})`, async () => {
    const pool = new ProcessPool({ maxWorkers: 1, queueSize: 3, backend });
    const meeting = new Meeting();
    const running = await pool.submit(meetAsync, meeting.memory);
    const queued = [await pool.submit(add, 1, 1), await pool.submit(add, 2, 2)];
    const waiting = pool.submit(add, 3, 3);
    await within(meeting.come());
    const over = pool.shutdown();
    await assertRejects(() => within(waiting), PoolClosedError, "shut down meanwhile");
    await assertRejects(() => pool.submit(add, 0, 0), PoolClosedError, "Cannot submit to pool as it is shut down");
    assertThrows(() => pool.trySubmit(add, 0, 0), PoolClosedError);
    assertThrows(() => pool.map((x: number) => x, [1]), PoolClosedError);
    meeting.letGo();
    await within(over);
    assertEquals(running.state, "finished");
    assertEquals(await Promise.all(queued.map((future) => future.result())), [2, 4]);
    assertEquals(pool.stats().workers, 0);
    await pool.shutdown();
    await pool.terminate();
  });

  Deno.test(`ProcessPool.shutdown({ cancelPending }) cancels what has not started (${backend})`, async () => {
    const pool = new ProcessPool({ maxWorkers: 1, backend });
    const meeting = new Meeting();
    const running = await pool.submit(meetAsync, meeting.memory);
    const queued = await pool.submit(add, 1, 1);
    await within(meeting.come());
    const over = pool.shutdown({ cancelPending: true });
    assertInstanceOf(await within(queued.exception()), JobCancelledError);
    meeting.letGo();
    await within(over);
    assertEquals([running.state, queued.state], ["finished", "cancelled"]);
  });

  Deno.test(`ProcessPool.shutdown({ timeout }) terminates a pool that is not done (${backend})`, async () => {
    const pool = new ProcessPool({ maxWorkers: 1, backend });
    const meeting = new Meeting();
    const running = await pool.submit(meetAsync, meeting.memory);
    await within(meeting.come());
    const over = pool.shutdown({ timeout: 1 });
    const error = await within(running.exception());
    assertInstanceOf(error, PoolClosedError);
    assertEquals((error.cause as Error).name, "TimeoutError");
    meeting.letGo();
    await within(over);
  });

  Deno.test(`ProcessPool.terminate() without a reason leaves no property 'cause' in errors (${backend})`, async () => {
    const pool = new ProcessPool({ backend, maxWorkers: 1, queueSize: 2 });
    const running = await pool.submit(() => new Promise(() => {}));
    while (!running.running()) await turn();
    const queued = await pool.submit(() => 1);
    const waiting = thrownBy(() => pool.submit(() => 1));
    await within(pool.terminate());
    const errors = [await running.exception(), await queued.exception(), await waiting] as Error[];
    assertEquals(errors.map(({ name }) => name), ["PoolClosedError", "JobCancelledError", "PoolClosedError"]);
    assertEquals(errors.map((error) => "cause" in error), [false, false, false]);
  });

  Deno.test(`ProcessPool.terminate() settles everything at once, with the reason as the cause (${backend})`, async () => {
    const pool = new ProcessPool({ maxWorkers: 1, queueSize: 2, backend });
    const meeting = new Meeting();
    const running = await pool.submit(meetAsync, meeting.memory);
    const queued = await pool.submit(add, 1, 1);
    const waiting = pool.submit(add, 2, 2);
    const results = pool.map((x: number) => x, [1, 2, 3]);
    const firstResult = results.next();
    await within(meeting.come());
    const over = pool.terminate("enough");
    assertEquals([running.state, queued.state], ["failed", "cancelled"]);
    meeting.letGo();
    for (
      const error of [
        await running.exception(),
        await queued.exception(),
        await assertRejects(() => within(waiting), PoolClosedError),
      ]
    ) {
      assertStrictEquals((error as Error).cause, "enough");
    }
    await assertRejects(() => within(firstResult), PoolClosedError);
    assertEquals(await within(results.next()), { done: true, value: undefined });
    await within(over);
    await within(pool.shutdown());
  });

  Deno.test(`ProcessPool is shut down by 'await using' (${backend})`, async () => {
    let future: Future<number>;
    {
      await using pool = new ProcessPool({ maxWorkers: 1, backend });
      future = await pool.submit(add, 1, 2);
    }
    assertEquals(future.state, "finished");
  });

  Deno.test(`ProcessPool waits for whatever thenable a task returns, be it a function (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    const query = (x: number) => {
      const then = (resolve: (value: number) => void) => resolve(x + 1);
      const thenable = { then } as PromiseLike<number>;
      return x % 2 === 0 ? thenable : Object.assign(() => thenable, { then }) as unknown as PromiseLike<number>;
    };
    assertEquals(await within(Promise.all([1, 2].map((x) => pool.run(query, x)))), [2, 3]);
    assertEquals(await within(Array.fromAsync(pool.map(query, [1, 2, 3], { chunkSize: 3 }))), [2, 3, 4]);
  });

  Deno.test(`currentJob() tells a task its job until its first await (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    const task = async () => {
      const scope = globalThis as Record<symbol, unknown>;
      const key = Symbol.for("process-pool.job");
      const { id, attempt, signal } = scope[key] as { id: string; attempt: number; signal: AbortSignal };
      await null;
      return [id, attempt, signal.aborted, scope[key]];
    };
    assertEquals(await within(pool.run(new Job({ id: "a", func: task }))), ["a", 1, false, undefined]);
    const items = await within(Array.fromAsync(pool.map(task, [0, 0], { chunkSize: 2 })));
    assertEquals<unknown>(items, [[0, 1, false, undefined], [1, 1, false, undefined]]);
    assertEquals(currentJob(), undefined);
  });

  Deno.test(`currentJob() is one object a job, also where jobs alternate and throw (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, jobsPerWorker: 2, backend });
    const task = async (x: number) => {
      const scope = globalThis as Record<symbol, unknown>;
      const key = Symbol.for("process-pool.job");
      if (x % 5 === 4) throw (scope[key] as { id: number }).id;
      const job = scope[key] as { id: number };
      const same = job === scope[key];
      if (x % 3 === 0) await new Promise((resolve) => setTimeout(resolve));
      return [job.id, same];
    };
    const jobs = Array.from({ length: 60 }, (_, x) => pool.run(new Job({ id: x, func: task, args: [x] })));
    const outcomes = await within(Promise.allSettled(jobs));
    const expected = outcomes.map((_, x) => x % 5 === 4 ? { status: "rejected", reason: x } : { status: "fulfilled", value: [x, true] });
    assertEquals<unknown>(outcomes, expected);
    let index = 0;
    for await (const outcome of pool.map(task, Array(60).keys(), { settled: true })) assertEquals<unknown>(outcome, expected[index++]);
    assertEquals([index, currentJob()], [60, undefined]);
  });
}

Deno.test("Future.cancel() wins over a job that was sent and has not started", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  await pool.warmUp();
  const ran = new Int32Array(new SharedArrayBuffer(4));
  const mark = (ran: Int32Array) => void Atomics.add(ran, 0, 1);
  let cancelled = 0;
  for (let i = 0; i < 2000; i++) {
    const future = await pool.submit(mark, ran);
    // It is on its way to the worker, which may or may not have started it.
    if (future.cancel()) cancelled++;
    await future.exception();
    assertEquals(future.state, future.cancelled() ? "cancelled" : "finished");
  }
  await within(pool.shutdown());
  assertEquals(Atomics.load(ran, 0) + cancelled, 2000);
  assertEquals([pool.stats().finished, pool.stats().cancelled], [2000 - cancelled, cancelled]);
});

Deno.test("Future.cancel({ force }) ends a running job, and its neighbours share its fate", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 2 });
  const meetings = [new Meeting(), new Meeting()];
  const culprit = await pool.submit(meetAsync, meetings[0]!.memory);
  const neighbour = await pool.submit(meetAsync, meetings[1]!.memory);
  const behind = await pool.submit(add, 1, 2);
  await within(Promise.all(meetings.map((meeting) => meeting.come())));
  assertEquals([culprit.cancel(), culprit.cancel({ force: true, reason: "why" }), culprit.cancel({ force: true })], [false, true, false]);
  const error = await culprit.exception();
  assertInstanceOf(error, JobCancelledError);
  assertEquals([error.jobId, error.taskName, error.cause, culprit.state], [culprit.id, "meetAsync", "why", "cancelled"]);
  assertInstanceOf(await within(neighbour.exception()), WorkerDiedError);
  assertEquals(await within(behind.result()), 3);
});

Deno.test("Job.signal ends a running job with its own reason, and the next job gets a new worker", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const controller = new AbortController();
  const meeting = new Meeting();
  const future = await pool.submit(new Job({ func: meetAsync, args: [meeting.memory], signal: controller.signal }));
  await within(meeting.come());
  controller.abort("stop");
  assertEquals([future.state, await future.exception()], ["cancelled", "stop"]);
  assertEquals(await within(pool.run(add, 1, 2)), 3);
});

Deno.test("currentJob().signal of a task in a Web Worker aborts with the job, and the task has a moment to clean up", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const meeting = new Meeting();
  const cleaned = new Int32Array(new SharedArrayBuffer(4));
  const future = await pool.submit(
    async (memory: Int32Array, cleaned: Int32Array) => {
      const { signal } = (globalThis as Record<symbol, unknown>)[Symbol.for("process-pool.job")] as { signal: AbortSignal };
      Atomics.store(memory, 0, 1);
      Atomics.notify(memory, 0);
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      Atomics.store(cleaned, 0, signal.reason.message.startsWith("Cancelled job") ? 1 : 2);
      Atomics.notify(cleaned, 0);
    },
    meeting.memory,
    cleaned,
  );
  await within(meeting.come());
  assert(future.cancel({ force: true }) && future.cancelled());
  await Atomics.waitAsync(cleaned, 0, 0).value;
  assertEquals(Atomics.load(cleaned, 0), 1);
});

for (const backend of ["worker", "inline"] as const) {
  Deno.test(`currentJob().signal of a task aborts with the name and message of the error that the caller gets (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    const tellReason = async (memory: Int32Array) => {
      const { signal } = (globalThis as Record<symbol, unknown>)[Symbol.for("process-pool.job")] as { signal: AbortSignal };
      Atomics.store(memory, 0, 1);
      Atomics.notify(memory, 0);
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      const text = `${signal.reason.name}: ${signal.reason.message}`;
      for (let i = 0; i < text.length; i++) memory[2 + i] = text.charCodeAt(i);
      Atomics.store(memory, 1, text.length);
      Atomics.notify(memory, 1);
    };
    class OutOfOrder extends RangeError {
      override name = "OutOfOrder";
    }
    const starts: Record<string, (memory: Int32Array, signal: AbortSignal) => Promise<unknown>> = {
      "JobTimeoutError": (memory) => pool.run(new Job({ func: tellReason, args: [memory], timeout: 1 })),
      "OutOfOrder: a job": (memory, signal) => pool.run(new Job({ func: tellReason, args: [memory], signal })),
      "OutOfOrder: a map": (memory, signal) => pool.map(tellReason, [memory], { signal }).next(),
    };
    for (const [name, start] of Object.entries(starts)) {
      const memory = new Int32Array(new SharedArrayBuffer(4 * 200));
      const controller = new AbortController();
      const thrown = thrownBy(() => start(memory, controller.signal));
      await within(Promise.resolve(Atomics.waitAsync(memory, 0, 0).value));
      controller.abort(new OutOfOrder(name.slice("OutOfOrder: ".length)));
      await within(Promise.resolve(Atomics.waitAsync(memory, 1, 0).value));
      const told = String.fromCharCode(...memory.subarray(2, 2 + memory[1]!));
      assertEquals(told, String(await within(thrown)));
      assert(told.startsWith(name), told);
    }
  });
}

Deno.test("currentJob().signal of a task on the calling thread aborts with the job", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, backend: "inline" });
  const started = Promise.withResolvers<void>();
  const aborted = Promise.withResolvers<unknown>();
  const future = await pool.submit(() => {
    const { signal } = currentJob()!;
    return new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => (aborted.resolve(signal.reason), resolve()));
      started.resolve();
    });
  });
  await within(started.promise);
  assert(future.cancel({ force: true, reason: "why" }));
  const reason = await within(aborted.promise);
  assertInstanceOf(reason, JobCancelledError);
  assertEquals(reason.cause, "why");
});

Deno.test("currentJob().signal of a task on the calling thread aborts also when the task itself ends its job before it returns", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, backend: "inline" });
  const controller = new AbortController();
  let own: AbortSignal | undefined;
  const task = async () => {
    own = currentJob()!.signal;
    controller.abort("why");
    await null;
  };
  const error = await within(pool.run(new Job({ func: task, signal: controller.signal })).catch((error) => error));
  assertEquals([error, own!.aborted], ["why", true]);
});

Deno.test("currentJob().signal of a task on the calling thread does not abort with a job that was called before and still runs", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, backend: "inline", jobsPerWorker: 2 });
  const controller = new AbortController();
  let before: AbortSignal | undefined, last: AbortSignal | undefined;
  const func = () => {
    const signal = before = currentJob()!.signal;
    return new Promise<void>((end) => signal.onabort = () => end());
  };
  const waiting = pool.run(new Job({ func, signal: controller.signal })).catch((error) => error);
  // It is over, but nothing has been called since.
  await within(pool.run(() => void (last = currentJob()!.signal)));
  controller.abort("why");
  assertEquals([await within(waiting), before!.aborted, last!.aborted], ["why", true, false]);
});

Deno.test("ProcessPool.stats() counts a worker that cannot be stopped, and terminate() does not wait for it", async () => {
  const pool = new ProcessPool({ maxWorkers: 1 });
  const meeting = new Meeting();
  // A worker asleep in Atomics.wait is as deaf as one in an endless loop, and can be woken after the test.
  const future = await pool.submit(meet, meeting.memory);
  await within(meeting.come());
  assert(future.cancel({ force: true }));
  assertEquals(await within(pool.run(add, 1, 2)), 3);
  assertEquals(pool.stats().unstoppable, 1);
  await within(pool.terminate());
  assertEquals([future.state, pool.stats().unstoppable], ["cancelled", 1]);
  meeting.letGo();
  while (pool.stats().unstoppable > 0) await turn();
});

Deno.test("Job.transfer moves arguments instead of copying them", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const moved = new ArrayBuffer(8);
  const copied = new ArrayBuffer(4);
  const lengths = (a: ArrayBuffer, b: ArrayBuffer) => [a.byteLength, b.byteLength];
  assertEquals(await within(pool.run(new Job({ func: lengths, args: [moved, copied], transfer: [moved] }))), [8, 4]);
  assertEquals([moved.byteLength, copied.byteLength], [0, 4]);
  const { readable, writable } = new TransformStream<string, string>();
  const read = async (stream: ReadableStream<string>) => (await Array.fromAsync(stream)).join("");
  const result = pool.run(new Job({ func: read, args: [readable], transfer: [readable] }));
  const writer = writable.getWriter();
  await writer.write("thr");
  await writer.write("ough");
  await writer.close();
  assertEquals(await within(result), "through");
});

Deno.test("Job.transfer is what was listed when the job was made", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const list: ArrayBuffer[] = [];
  const results = [1, 2, 3].map((size) => {
    const buffer = new ArrayBuffer(size);
    list[0] = buffer;
    return pool.run(new Job({ func: (moved: ArrayBuffer) => moved.byteLength, args: [buffer], transfer: list }));
  });
  assertEquals(await within(Promise.all(results)), [1, 2, 3]);
});

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`Job.transfer moves every listed part of the arguments, small or large (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    const see = function see(...args: unknown[]): unknown[] {
      return args.map((each) => {
        if (ArrayBuffer.isView(each)) {
          return [each.constructor.name, each.byteOffset, each.byteLength, each.buffer.byteLength, see(each.buffer)];
        }
        if (each instanceof ArrayBuffer) {
          return [
            each.byteLength,
            each.resizable,
            new Uint8Array(each).reduce((sum, x) => sum + x, 0),
          ];
        }
        if (Array.isArray(each)) return [see(...each), new Set(each).size];
        return each;
      });
    };
    const filled = (length: number) => new Uint8Array(length).fill(1).buffer;
    const resizable = new ArrayBuffer(8, { maxByteLength: 16 });
    const cases: ((size: number) => { args: unknown[]; transfer: ArrayBuffer[]; kwargs?: object })[] = [
      (size) => (([a]) => ({ args: [a], transfer: [a!] }))([filled(size)]),
      (size) => (([a]) => ({ args: [new Uint8Array(a!)], transfer: [a!] }))([filled(size)]),
      (size) => (([a]) => ({ args: [new Uint8Array(a!, 8, 8)], transfer: [a!] }))([filled(size)]),
      (size) => (([a]) => ({ args: [new Float64Array(a!), 1], transfer: [a!] }))([filled(size)]),
      (size) => (([a]) => ({ args: [a, [a, a, new Uint8Array(a!, 1)]], transfer: [a!] }))([filled(size)]),
      (size) => (([a, b]) => ({ args: [a, b, filled(3)], transfer: [b!, a!] }))([filled(size), filled(5)]),
      (size) => (([a, b]) => ({ args: ["neither"], transfer: [b!, a!], kwargs: { left: 1 } }))([filled(size), filled(5)]),
      (size) => ({ args: [filled(size)], transfer: [] }),
      () => ({ args: [resizable], transfer: [resizable] }),
    ];
    for (const size of [64, 4096, 2 ** 17, 2 ** 19]) {
      for (const make of cases.slice(0, size === 64 ? undefined : -1)) {
        const { args, transfer, kwargs } = make(size);
        const expected = see(...args, ...kwargs ? [kwargs] : []);
        const job = kwargs === undefined ? new Job({ func: see, args, transfer }) : new Job({ func: see, args, transfer, kwargs });
        assertEquals(await within(pool.run(job)), expected);
        assertEquals(transfer.map(({ detached }) => detached), transfer.map(() => true));
      }
    }
  });

  Deno.test(`Job.transfer of something that cannot be moved fails the job, small or large (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    for (const size of [8, 2 ** 19]) {
      const buffer = () => new ArrayBuffer(size);
      const [twice, gone, beside, deeper] = [buffer(), buffer(), buffer(), buffer()];
      gone.transfer();
      const cases: [args: unknown[], transfer: ArrayBuffer[], message: string][] = [
        [[twice], [twice, twice], "duplicate"],
        [[gone], [gone], "detached"],
        [[beside, Symbol("odd")], [beside], "odd"],
        [[deeper, { at: Symbol("odd") }], [deeper], "odd"],
      ];
      for (const [args, transfer, message] of cases) {
        const failing = new Job({ func: (..._: unknown[]) => {}, args, transfer });
        await assertRejects(() => within(pool.run(failing)), DOMException, message);
      }
    }
  });

  Deno.test(`Job.transfer of something that only passes for a buffer fails that job alone (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    for (const odd of [new Proxy(new ArrayBuffer(8), {}), Object.create(ArrayBuffer.prototype)]) {
      const failing = new Job({ func: (_: unknown) => {}, args: [odd], transfer: [odd] });
      await assertRejects(() => within(pool.run(failing)), DOMException, "cannot be copied or moved");
      assertEquals(await within(pool.run((x: number) => x + 1, 1)), 2);
    }
  });
}

Deno.test("ProcessPool with killable workers and no 'memoryLimit' fails a job that fills the heap (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    await using pool = new ProcessPool({ backend: "killable", maxWorkers: 1 });
    const future = await pool.submit(() => {
      for (const kept = [];;) kept.push({ index: kept.length });
    });
    const { name, message, limit } = await future.exception();
    console.log(name, message.endsWith("filled its heap of " + limit + " MB"), limit >= 100);
    console.log(await pool.run((x) => x + 1, 1));
  `;
  const { code, stdout } = await within(runProgram(source, {}, { env: { DENO_V8_FLAGS: "--max-old-space-size=100" } }));
  assertEquals([code, stdout], [0, "MemoryLimitError true true\n2\n"]);
});

Deno.test("ProcessPool that nobody shuts down lets the program end (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    const pool = new ProcessPool({ idleTimeout: 10 });
    console.log(await pool.run((x) => x + 1, 1));
  `;
  const { code, stdout } = await runProgram(source);
  assertEquals([code, stdout], [0, "2\n"]);
});

Deno.test("ProcessPool on the calling thread keeps no function that it has run, nor what that holds (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    import v8 from "node:v8";
    import vm from "node:vm";
    v8.setFlagsFromString("--expose-gc");
    const gc = vm.runInNewContext("gc");
    await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1 });
    const all = [];
    async function runAnother() {
      const held = { size: all.length };
      all.push(new WeakRef(held));
      await pool.run(() => held.size);
    }
    for (let i = 0; i < 100; i++) await runAnother();
    // What a weak reference was made for in this turn lives until the next.
    await new Promise((resolve) => setTimeout(resolve));
    gc();
    console.log(all.filter((each) => each.deref() !== undefined).length < 10);
  `;
  const { code, stdout, stderr } = await runProgram(source);
  assertEquals([code, stdout, stderr], [0, "true\n", ""]);
});

Deno.test("ProcessPool says nothing on stderr that its caller was told by a promise (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    for (const deed of ["throw new Error('deed')", "Deno.exit(3)", "self.close()", "await Promise.reject(1)", "import 'file:///nowhere.ts'"]) {
      for (const permissions of [undefined, "none"]) {
        await using pool = new ProcessPool({ modules: ["data:text/javascript," + deed], permissions });
        await pool.run(() => 1).then(console.log, (error) => console.log(error.name));
      }
    }
    await using pool = new ProcessPool({ onError: (error) => console.log(error.name) });
    for (const task of [() => Deno.exit(3), () => self.close(), () => { throw 1 }, () => new Promise(() => { setTimeout(() => { throw 1 }) })]) {
      await pool.submit(task);
    }
    await pool.submit(() => { setTimeout(() => Promise.reject(2)); });
    await pool.shutdown();
  `;
  const { code, stdout, stderr } = await runProgram(source);
  assertEquals([code, stderr], [0, ""]);
  assertEquals(stdout.trim().split("\n").filter((line) => line !== "WorkerDiedError"), Array(10).fill("PoolBrokenError"));
});

Deno.test(
  "ProcessPool with permissions ends the program with exit code 70 without --unstable-worker-options (needs --allow-run and --allow-read)",
  {
    ignore: !granted("run") || !granted("read"),
  },
  async () => {
    const source = `
    import { ProcessPool } from ${JSON.stringify(import.meta.resolve("../mod.ts"))};
    await using pool = new ProcessPool({ permissions: "none" });
    await pool.run(() => 1).catch(() => {});
  `;
    // When this fails, Deno has made the option stable: say so in README.md and at the option, and remove "unstable" from deno.json.
    const { code, stderr } = await runProgram(source, { unstable: [] });
    assertEquals(code, 70);
    assert(stderr.includes("worker-options"), stderr);
  },
);

Deno.test("ProcessPool with permissions 'inherit' does without --unstable-worker-options (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from ${JSON.stringify(import.meta.resolve("../mod.ts"))};
    for (const backend of ["worker", "killable", "inline"]) {
      await using pool = new ProcessPool({ backend, permissions: "inherit" });
      console.log(await pool.run((x) => x, backend));
    }
  `;
  assertEquals((await runProgram(source, { unstable: [] })).stdout, "worker\nkillable\ninline\n");
});

Deno.test("mod.ts and batch/mod.ts compile in a program whose 'lib' is the DOM's (needs --allow-run, --allow-read and --allow-write)", {
  ignore: !granted("run") || !granted("read") || !granted("write"),
}, async () => {
  const source = ["mod.ts", "batch/mod.ts"].map((name) => `import ${JSON.stringify(import.meta.resolve(`../${name}`))};`).join("\n");
  const compilerOptions = { lib: ["dom", "dom.asynciterable", "dom.iterable", "deno.ns"] };
  const { code, stderr } = await runProgram(source, { compilerOptions }, { flag: "--check" });
  assertEquals([code, stderr], [0, ""]);
});

Deno.test("An inline pool whose caller was busy has its jobs run before the program ends (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    const pool = new ProcessPool({ backend: "inline", idleTimeout: Infinity, startTimeout: Infinity });
    for (const end = performance.now() + 20; performance.now() < end;);
    console.log(await pool.run((x) => x + 1, 1));
  `;
  assertEquals((await runProgram(source)).stdout, "2\n");
});

const BURN = `
  const started = new Int32Array(new SharedArrayBuffer(4));
  const burn = (started) => { Atomics.add(started, 0, 1); for (;;); };
  const futures = [await pool.submit(burn, started), await pool.submit(burn, started)];
  while (Atomics.load(started, 0) < 2) await new Promise((resolve) => setTimeout(resolve, 1));
`;

Deno.test("endProgram() ends a program although a worker cannot be stopped (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { endProgram, ProcessPool } from "@procpool/process-pool";
    const pool = new ProcessPool({ maxWorkers: 2 });
    ${BURN}
    await endProgram([pool], { exitCode: 5, timeout: 1 });
  `;
  assertEquals((await runProgram(source)).code, 5);
});

Deno.test("ProcessPool warns once of workers that cannot be stopped, and names the cure (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    const pool = new ProcessPool({ maxWorkers: 2 });
    let warnings = 0;
    console.warn = (message) => {
      console.log(++warnings, message);
      // Long enough for the second worker, which was stopped at the same time.
      setTimeout(() => Deno.exit(), 500);
    };
    ${BURN}
    for (const future of futures) future.cancel({ force: true });
  `;
  const { code, stdout } = await runProgram(source);
  assertEquals([code, stdout.trim().split("\n").length], [0, 1]);
  assert(stdout.startsWith("1 process-pool: a worker was stopped and runs on") && stdout.includes('backend: "killable"'), stdout);
});

Deno.test("ProcessPool goes on where a warning cannot be printed (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    const pool = new ProcessPool({ maxWorkers: 2 });
    console.warn = () => {
      setTimeout(() => Deno.exit(5), 0);
      throw new Error("No space left on device");
    };
    ${BURN}
    for (const future of futures) future.cancel({ force: true });
  `;
  assertEquals((await runProgram(source)).code, 5);
});

Deno.test(
  "ProcessPool asks for no permission by itself, so that no program waits at a terminal (needs --allow-run, --allow-read and --allow-write)",
  { ignore: !granted("run") || !granted("read") || !granted("write") },
  async () => {
    const source = `
      import { ProcessPool } from "@procpool/process-pool";
      const kinds = ["worker", "killable", "inline"].map((backend) => ({ backend }));
      for (const options of [...kinds, { memoryLimit: 64 }, { permissions: "none" }, { backend: "killable", permissions: "none" }]) {
        await using pool = new ProcessPool({ maxWorkers: 1, measure: true, ...options });
        const items = await Array.fromAsync(pool.map((x) => x + 1, [1, 2]));
        console.log(await pool.run((x) => x, items[1]), pool.stats().finished);
      }`;
    const { code, stdout, asked } = await runProgram(source, {}, { flag: "--no-prompt" });
    assertEquals([code, stdout, asked], [0, "3 3\n".repeat(6), ""]);
  },
);

/**
 * Runs a program in a process of its own, with the project's configuration unless another is given; returns the permissions it asked for.
 */
async function runProgram(
  source: string,
  changes: object = {},
  { flag = "-A", env = {} }: { flag?: string; env?: Record<string, string> } = {},
): Promise<{ code: number; stdout: string; stderr: string; asked: string }> {
  const root = new URL("../", import.meta.url);
  const config = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  const directory = await Deno.makeTempDir();
  try {
    const absolute = (path: string) => new URL(path, root).href;
    const imports = { ...config.imports, "@procpool/process-pool": absolute("mod.ts") };
    const links = config.links.map((path: string) => new URL(path, root).pathname);
    await Deno.writeTextFile(
      `${directory}/deno.json`,
      JSON.stringify({ imports, links, unstable: config.unstable, lock: false, ...changes }),
    );
    await Deno.writeTextFile(`${directory}/program.js`, source);
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", flag, "--quiet", "program.js"],
      cwd: directory,
      env: { NO_COLOR: "1", DENO_AUDIT_PERMISSIONS: `${directory}/asked`, ...env },
    });
    const { code, stdout, stderr } = await command.output();
    const asked = await Deno.readTextFile(`${directory}/asked`).catch(() => "");
    return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr), asked };
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/**
 * How many turns of the event loop an exchange over sockets takes, from its start, beside something that keeps this thread busy until it is
 * over.
 */
async function turnsOfExchange(keepBusy: (begin: () => void, isOver: () => boolean) => Promise<void>): Promise<number> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let isOver = false;
  let turns = 0;
  let exchange: Promise<unknown> | undefined;
  async function answer(): Promise<void> {
    using connection = await listener.accept();
    await connection.write(new Uint8Array(1));
    await connection.read(new Uint8Array(1));
  }
  async function ask(): Promise<void> {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port: (listener.addr as Deno.NetAddr).port });
    await connection.read(new Uint8Array(1));
    await connection.write(new Uint8Array(1));
  }
  const begin = (): void => {
    const timer = setInterval(() => turns++);
    exchange = Promise.all([answer(), ask()]).finally(() => {
      isOver = true;
      clearInterval(timer);
    });
  };
  await keepBusy(begin, () => isOver);
  await exchange;
  return turns;
}

Deno.test("An inline pool lets the network go on beside tiny jobs that follow each other (needs --allow-net=127.0.0.1)", {
  ignore: !granted("net"),
}, async () => {
  await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1 });
  const turns = await turnsOfExchange(async (begin, isOver) => {
    begin();
    while (!isOver()) await pool.run(() => {});
  });
  // It needs several looks at sockets, which would be sixty turns apart.

  assert(turns < 60, `${turns} turns`);
});

Deno.test("An inline pool lets the network go on beside queued jobs of several workers that compute (needs --allow-net=127.0.0.1)", {
  ignore: !granted("net"),
}, async () => {
  await using pool = new ProcessPool({ backend: "inline", maxWorkers: 2 });
  const compute = (ms: number): void => {
    for (const end = performance.now() + ms; performance.now() < end;);
  };
  let jobs = 0;
  await turnsOfExchange(async (begin, isOver) => {
    const futures = await Promise.all(Array.from({ length: 300 }, () => pool.submit(compute, 5)));
    begin();
    for (const future of futures) {
      if (isOver()) future.cancel();
      else await future.result().then(() => jobs++);
    }
  });

  // With one tick a turn it needs hundreds.
  assert(jobs < 100, `${jobs} jobs`);
});

Deno.test("An inline pool does not wait for dozens of turns of other work on this thread", async () => {
  await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1 });
  let isOver = false;
  let steps = 0;
  async function step(): Promise<void> {
    for (; !isOver; steps++) {
      for (const end = performance.now() + 5; performance.now() < end;);
      await new Promise((resolve) => void setImmediate(resolve));
    }
  }
  const stepped = step();
  let most = 0;
  for (let i = 0; i < 10; i++) {
    const before = steps;
    await pool.run(() => {});
    most = Math.max(most, steps - before);
    await new Promise((resolve) => void setImmediate(resolve));
  }
  isOver = true;
  await stepped;
  assert(most < 30, `${most} steps`);
});

/** How many results a consumer that computes has taken when an exchange over the network is over that began with the first. */
async function takenDuringExchange(results: AsyncIterable<unknown>): Promise<number> {
  let taken = 0;
  await turnsOfExchange(async (begin, isOver) => {
    for await (const _ of results) {
      if (taken++ === 0) begin();
      if (isOver()) break;
      for (const end = performance.now() + 5; performance.now() < end;);
    }
  });
  return taken;
}

for (const settled of [false, true]) {
  const kind = settled ? "outcomes, some of errors," : "results";
  Deno.test(`A map lets the network go on beside a consumer that computes, of ${kind} that are ready (needs --allow-net=127.0.0.1)`, {
    ignore: !granted("net"),
  }, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1 });
    const task = (x: number) => {
      if (x < 0) throw new Error("no");
    };
    const items = Array.from({ length: 300 }, (_, i) => settled ? i - 10 : i);
    const options = settled ? { settled, chunkSize: 300 } : { chunkSize: 300 };
    const taken = await takenDuringExchange(pool.map<number, unknown>(task, items, options));
    assert(taken < 200, `${taken} results`);
  });
}

Deno.test("asCompleted() lets the network go on beside a consumer that computes (needs --allow-net=127.0.0.1)", {
  ignore: !granted("net"),
}, async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const futures = await Promise.all(Array.from({ length: 300 }, (_, i) => pool.submit((x: number) => x, i)));
  await wait(futures);
  const taken = await takenDuringExchange(asCompleted(futures));
  assert(taken < 200, `${taken} futures`);
});

Deno.test("A map lets the network go on beside an input that never waits (needs --allow-net=127.0.0.1)", {
  ignore: !granted("net"),
}, async () => {
  await using pool = new ProcessPool({ maxWorkers: 2 });
  const turns = await turnsOfExchange(async (begin, isOver) => {
    async function* input() {
      for (let i = 0; !isOver(); i++) yield i;
    }
    let results = 0;
    // Its chunks are large by then.
    for await (const _ of pool.map((x: number) => x, input())) if (++results === 300_000) begin();
  });

  // Each of its looks at sockets would be sixty turns apart.
  assert(turns < 120, `${turns} turns`);
});
