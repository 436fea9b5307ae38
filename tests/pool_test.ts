import { assert, assertEquals, assertInstanceOf, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { currentJob, type Future, Job, JobCancelledError, PoolClosedError, ProcessPool, WorkerDiedError } from "@procpool/process-pool";
import { moduleOf, within } from "./fixtures.ts";
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

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`A worker whose initializer listens to a BroadcastChannel hears it between jobs (${backend})`, async () => {
    const names = [`settings of ${backend}`, `answers of ${backend}`] as const;
    await using pool = new ProcessPool({
      maxWorkers: 2,
      backend,
      initializer: (channel: string, answers: string) => {
        new BroadcastChannel(channel).onmessage = ({ data }) => {
          Object.assign(globalThis, { settings: data });
          new BroadcastChannel(answers).postMessage("heard");
        };
        Object.assign(globalThis, { settings: "old" });
      },
      initArgs: names,
    });
    await within(pool.warmUp());
    const settings = () => Reflect.get(globalThis, "settings");
    assertEquals(await within(pool.run(settings)), "old");

    const [channel, answers] = names.map((name) => new BroadcastChannel(name)) as [BroadcastChannel, BroadcastChannel];
    const heard = new Promise<void>((resolve) => {
      let left = 2;
      answers.onmessage = () => --left === 0 && resolve();
    });
    channel.postMessage("new");
    await within(heard);
    for (const each of [channel, answers]) each.close();
    assertEquals(await within(Promise.all([1, 2, 3, 4].map(() => pool.run(settings)))), ["new", "new", "new", "new"]);
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
    const isAlwaysTheSame = currentJob()!.signal === signal;
    return new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => (aborted.resolve(isAlwaysTheSame && signal.reason), resolve()));
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
