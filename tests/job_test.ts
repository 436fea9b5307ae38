import { assert, assertEquals, assertInstanceOf, assertMatch, assertRejects, assertStrictEquals } from "@std/assert";
import {
  asCompleted,
  currentJob,
  Future,
  Job,
  JobCancelledError,
  PoolClosedError,
  ProcessPool,
  type ProcessPoolOptions,
  wait,
} from "@procpool/process-pool";
import { within } from "./fixtures.ts";
import { Held, inlinePool } from "./held.ts";
import { assertFails, meet, Meeting, SpiedSignal, thrownBy, turn, until } from "./helpers.ts";

/** A pool of one worker that is held, with this many jobs waiting behind it. */
async function heldPool(queued: number, options: ProcessPoolOptions = {}) {
  const pool = inlinePool(options);
  const held = new Held();
  const runs: number[] = [];
  const running = await pool.submit(held.task);
  const waiting: Future<number>[] = [];
  for (let i = 0; i < queued; i++) {
    waiting.push(
      await pool.submit(() => {
        runs.push(i);
        return i;
      }),
    );
  }
  await held.started;
  return { pool, held, running, waiting, runs };
}

/** The unhandled rejections that the platform reports during an action and the turns after it. */
async function unhandledRejections(action: () => Promise<unknown>): Promise<unknown[]> {
  const reasons: unknown[] = [];
  const listener = (event: PromiseRejectionEvent): void => {
    event.preventDefault();
    reasons.push(event.reason);
  };
  globalThis.addEventListener("unhandledrejection", listener);
  try {
    await action();
    await turn();
    await turn();
  } finally {
    globalThis.removeEventListener("unhandledrejection", listener);
  }
  return reasons;
}

function boom(): never {
  throw new RangeError("boom");
}

const same = (value: number): number => value;

const echo = (value: string): string => value;

// Job

Deno.test("Job() gives each job without an id one of its own", () => {
  const ids = Array.from({ length: 1000 }, () => new Job({ func: () => 1 }).id);
  assertEquals(new Set(ids).size, 1000);
  assert(ids.every((id) => Number.isSafeInteger(id)));
});

Deno.test("Job() keeps what it was given", () => {
  const func = (a: number, b: string, c: { d: boolean }): string => `${a}${b}${c.d}`;
  const { signal } = new AbortController();
  const buffer = new ArrayBuffer(8);
  const onDone = (): void => {};
  const job = new Job({ id: "seven", func, args: [1, "b"], kwargs: { d: true }, signal, transfer: [buffer], onDone });
  assertEquals([job.id, job.args, job.kwargs], ["seven", [1, "b"], { d: true }]);
  assertStrictEquals(job.func as unknown, func);
  assertStrictEquals(job.signal, signal);
  assertStrictEquals(job.transfer[0], buffer);
  assertStrictEquals(job.onDone as unknown, onDone);
});

Deno.test("Job() without optional options has no arguments, and nothing else", () => {
  const job = new Job({ func: () => 1 });
  assertEquals([job.args, job.kwargs, job.signal, job.transfer, job.onDone], [[], undefined, undefined, [], undefined]);
});

Deno.test("Job() takes any string and number for its id, also 0 and the empty string", async () => {
  await using pool = inlinePool();
  for (const id of [0, "", -1, 1.5, "a b"]) {
    const future = await pool.submit(new Job({ id, func: () => 1 }));
    assertEquals([future.id, await future.result()], [id, 1]);
  }
});

Deno.test("Job() passes kwargs as one more, last argument", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const all = (...args: unknown[]): string => JSON.stringify(args);
  assertEquals(await pool.run(new Job({ func: all, args: [1, 2], kwargs: { name: "bear" } })), '[1,2,{"name":"bear"}]');
  assertEquals(await pool.run(new Job({ func: all, kwargs: {} })), "[{}]");
  assertEquals(await pool.run(new Job({ func: all, args: [1] })), "[1]");
});

Deno.test("Job() can be submitted again and again", async () => {
  await using pool = inlinePool();
  const done: unknown[] = [];
  const job = new Job({ id: "again", func: () => 7, onDone: (future) => done.push(future) });
  const [first, second] = [await pool.submit(job), await pool.submit(job)];
  assert(first !== second);
  assertEquals([await first.result(), await second.result()], [7, 7]);
  assertEquals(done, [first, second]);
});

// The states of a future

Deno.test("Future.state goes from queued through running to finished", async () => {
  const { pool, held, running, waiting: [queued] } = await heldPool(1);
  const seen = (future: Future<unknown>) => [future.state, future.running(), future.done(), future.cancelled()];
  assertEquals(seen(running), ["running", true, false, false]);
  assertEquals(seen(queued!), ["queued", false, false, false]);
  held.finish("result");
  assertEquals(await running.result(), "result");
  assertEquals(seen(running), ["finished", false, true, false]);
  assertEquals(await queued!.result(), 0);
  assertEquals(seen(queued!), ["finished", false, true, false]);
  await pool.shutdown();
});

Deno.test("Future.state says running only when a worker has really started the job", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const meeting = new Meeting();
  const future = await pool.submit(meet, meeting.memory);
  assertEquals(future.state, "queued", "the worker is still to be started");
  const behind = await pool.submit(same, 2);
  await meeting.come();
  assertEquals([future.state, behind.state], ["running", "queued"]);
  meeting.letGo();
  assertEquals(await future.result(), "met");
  assertEquals([future.state, await behind.result()], ["finished", 2]);
});

Deno.test("Future.state is failed when the task throws, in a worker and inline", async () => {
  for (const backend of ["worker", "inline"] as const) {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    const future = await pool.submit(boom);
    const error = await thrownBy(() => future.result());
    assertInstanceOf(error, RangeError);
    assertEquals([error.message, future.state, future.done(), future.cancelled()], ["boom", "failed", true, false]);
    assertStrictEquals(await future.exception(), error);
    assertStrictEquals(await thrownBy(() => future.result()), error, "every look finds the same error");
  }
});

Deno.test("Future.state is cancelled after cancel(), in a worker and inline", async () => {
  for (const backend of ["worker", "inline"] as const) {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    const [future, behind] = [pool.trySubmit(same, 1)!, pool.trySubmit(same, 2)!];
    assert(future.cancel());
    assertEquals([future.state, future.running(), future.done(), future.cancelled()], ["cancelled", false, true, true]);
    assertEquals(await behind.result(), 2);
  }
});

Deno.test("Future.id and Future.job are those of its job", async () => {
  await using pool = inlinePool();
  const job = new Job({ id: "mine", func: () => 1 });
  const future = await pool.submit(job);
  assertEquals(future.id, "mine");
  assertStrictEquals(future.job, job);
  const other = await pool.submit((a: number) => a, 5);
  assertEquals([other.id === other.job.id, other.job.args, other.job.transfer], [true, [5], []]);
});

Deno.test("Future is not thenable", async () => {
  await using pool = inlinePool();
  const future = await pool.submit(same, 1);
  assertEquals("then" in future, false);
  assertStrictEquals(await future, future);
  assert(future instanceof Future);
});

// result() and exception()

Deno.test("Future.result() gives the same to all who ask, before and after", async () => {
  const { pool, held, running } = await heldPool(0);
  const value = { a: 1 } as unknown as string;
  const early = [running.result(), running.result({}), running.result({ timeout: undefined, signal: undefined })];
  held.finish(value);
  for (const promise of early) assertStrictEquals(await promise, value);
  assertStrictEquals(await running.result(), value);
  await pool.shutdown();
});

Deno.test("Future.result({ timeout }) gives up with a TimeoutError and leaves the job alone", async () => {
  const { pool, held, running } = await heldPool(0);
  const error = await thrownBy(() => running.result({ timeout: 1 }));
  assertInstanceOf(error, DOMException);
  assertEquals([error.name, error.message], ["TimeoutError", "Not settled within 1 ms"]);
  assertEquals((await thrownBy(() => running.result({ timeout: 0 })) as Error).name, "TimeoutError");
  assertEquals([running.state, running.done()], ["running", false]);
  held.finish("still there");
  assertEquals(await running.result({ timeout: 60_000 }), "still there");
  assertEquals(await running.result({ timeout: 0 }), "still there");
  await pool.shutdown();
});

Deno.test("Future.result({ signal }) gives up with the signal's own reason and leaves the job alone", async () => {
  const { pool, held, running } = await heldPool(0);
  const spied = new SpiedSignal();
  const reason = { own: true };
  const waiting = running.result({ signal: spied.signal, timeout: 60_000 });
  assertEquals(spied.listening, 1);
  spied.abort(reason);
  assertStrictEquals(await thrownBy(() => waiting), reason);
  assertStrictEquals(await thrownBy(() => running.result({ signal: spied.signal })), reason, "aborted before the call");
  assertEquals(running.state, "running");
  const other = new SpiedSignal();
  const patient = running.result({ signal: other.signal });
  held.finish("still there");
  assertEquals(await patient, "still there");
  assertEquals([other.added, other.listening], [1, 0]);
  await pool.shutdown();
});

Deno.test("Future.result() keeps nothing of those who have given up", async () => {
  const { pool, held, running } = await heldPool(0);
  const promise = running.result();
  let followers = 0;
  const { then } = promise;
  promise.then = (...args: unknown[]) => {
    followers++;
    return Reflect.apply(then, promise, args);
  };
  for (let i = 0; i < 3; i++) {
    const controller = new AbortController();
    const given = running.result({ signal: controller.signal });
    controller.abort("given up");
    assertEquals(await thrownBy(() => given), "given up");
  }
  assertEquals(followers, 0);
  const patient = running.result({ timeout: 60_000 });
  held.finish("done");
  assertEquals(await patient, "done");
  await pool.shutdown();
});

Deno.test("Future.result() rejects with what the task threw, whatever that is", async () => {
  await using pool = inlinePool();
  for (const thrown of [undefined, null, 0, "text", { code: 7 }]) {
    const future = await pool.submit(() => {
      throw thrown;
    });
    assertStrictEquals(await thrownBy(() => future.result()), thrown);
    assertStrictEquals(await future.exception(), thrown);
    assertEquals(future.state, "failed");
  }
});

Deno.test("Future.exception() is undefined for a job that finishes, and never rejects", async () => {
  const { pool, held, running, waiting: [queued] } = await heldPool(1);
  const early = running.exception();
  const cancelled = queued!.exception();
  queued!.cancel();
  held.finish("result");
  assertEquals([await early, await running.exception()], [undefined, undefined]);
  assertInstanceOf(await cancelled, JobCancelledError);
  await pool.shutdown();
});

Deno.test("Future of a job that fails causes no unhandled rejection when nobody looks", async () => {
  const reasons = await unhandledRejections(async () => {
    await using pool = inlinePool();
    await pool.submit(boom);
    await pool.submit(async () => await Promise.reject(new Error("later")));
    pool.trySubmit(same, 1)!.cancel();
    const looked = await pool.submit(boom);
    assertInstanceOf(await looked.exception(), RangeError);
    await pool.submit(new Job({ func: boom, onDone: () => {} }));
    (await pool.submit(boom)).addDoneCallback(() => {});
    await wait([await pool.submit(boom)]);
    for await (const _future of asCompleted([await pool.submit(boom)])) break;
    asCompleted([await pool.submit(boom)]);
  });
  assertEquals(reasons, []);
});

Deno.test("Future of a job that fails makes no unhandled rejection after somebody has given up waiting", async () => {
  const reasons = await unhandledRejections(async () => {
    const { pool, held, running } = await heldPool(0);
    await assertRejects(() => running.result({ timeout: 0 }), DOMException);
    await assertRejects(() => running.result({ signal: AbortSignal.abort() }), DOMException);
    held.fail(new Error("nobody waits any more"));
    await pool.shutdown();
  });
  assertEquals(reasons, []);
});

Deno.test("Future of a job that fails makes no unhandled rejection after a look with a signal that is aborted already", async () => {
  const reasons = await unhandledRejections(async () => {
    const { pool, held, running } = await heldPool(0);
    await assertRejects(() => running.result({ signal: AbortSignal.abort() }), DOMException);
    held.fail(new Error("nobody waits any more"));
    await pool.shutdown();
  });
  assertEquals(reasons, []);
});

// cancel()

Deno.test("Future.cancel() of a queued job is true: it never runs, and its permit is back at once", async () => {
  const { pool, held, waiting: [first, second], runs } = await heldPool(2, { queueSize: 3 });
  assertEquals(pool.trySubmit(same, 1), undefined);
  assertEquals(first!.cancel(), true);
  assertEquals([first!.state, pool.stats().cancelled, pool.stats().queued], ["cancelled", 1, 1]);
  const instead = pool.trySubmit(same, 5);
  assert(instead !== undefined);
  held.finish("");
  assertEquals([await second!.result(), await instead.result()], [1, 5]);
  assertEquals(runs, [1]);
  await pool.shutdown();
});

Deno.test("Future.cancel() lets in who waits at the gate", async () => {
  const { pool, held, waiting: [queued] } = await heldPool(1, { queueSize: 2 });
  const waiting = pool.submit(echo, "in");
  assertEquals(pool.stats().waiting, 1);
  queued!.cancel();
  const future = await waiting;
  assertEquals([pool.stats().waiting, future.state], [0, "queued"]);
  held.finish("");
  assertEquals(await future.result(), "in");
  await pool.shutdown();
});

Deno.test("Future.cancel() of a running or settled job is false and changes nothing", async () => {
  const { pool, held, running, waiting: [cancelled] } = await heldPool(1);
  assertEquals([running.cancel(), running.state], [false, "running"]);
  assertEquals([cancelled!.cancel({ reason: "first" }), cancelled!.cancel({ reason: "second" })], [true, false]);
  assertEquals((await cancelled!.exception() as Error).cause, "first");
  held.finish("result");
  assertEquals(await running.result(), "result");
  assertEquals([running.cancel(), running.cancel({ force: true }), running.state], [false, false, "finished"]);
  const failed = await pool.submit(boom);
  await failed.exception();
  assertEquals([failed.cancel({ force: true }), failed.state], [false, "failed"]);
  await pool.shutdown();
});

Deno.test("Future.cancel() rejects with a JobCancelledError that names the job and has the reason as its cause", async () => {
  await using pool = inlinePool();
  const reason = new Error("not needed");
  const named = pool.trySubmit(new Job({ id: "a7", func: boom }))!;
  named.cancel({ reason });
  const error = await thrownBy(() => named.result());
  assertInstanceOf(error, JobCancelledError);
  assertEquals(error.message, 'Cancelled job "a7" (task "boom")');
  assertEquals([error.name, error.jobId, error.taskName], ["JobCancelledError", "a7", "boom"]);
  assertStrictEquals(error.cause, reason);
  assertEquals((await named.exception()) === error, true);
});

Deno.test("Future.cancel() without a reason makes an error without a cause", async () => {
  await using pool = inlinePool();
  for (const options of [undefined, {}, { reason: undefined, force: undefined }, { force: false }]) {
    const future = pool.trySubmit(new Job({ id: 3, func: (() => () => 1)() }))!;
    assertEquals(future.cancel(options), true);
    const error = await future.exception();
    assertInstanceOf(error, JobCancelledError);
    assertEquals([error.message, "cause" in error], ['Cancelled job 3 (task "anonymous")', false]);
  }
});

Deno.test("Future.cancel({ force: true }) ends a running job on the backend inline, as far as that can", async () => {
  await using pool = inlinePool();
  const reason = new Error("enough");
  const started = Promise.withResolvers<AbortSignal>();
  const end = Promise.withResolvers<string>();
  const future = await pool.submit(() => {
    const job = (globalThis as Record<symbol, unknown>)[Symbol.for("process-pool.job")] as { signal: AbortSignal };
    started.resolve(job.signal);
    return end.promise;
  });
  const signal = await started.promise;
  const behind = await pool.submit(echo, "behind");
  assertEquals(future.cancel({ force: true, reason }), true);
  assertEquals([future.state, signal.aborted], ["cancelled", true]);
  const error = await future.exception();
  assertInstanceOf(error, JobCancelledError);
  assertStrictEquals(error.cause, reason);
  assertEquals(await behind.result(), "behind", "another lane has taken its place");
  end.resolve("too late");
  await turn();
  assertStrictEquals(await future.exception(), error, "a job settles once");
});

Deno.test("A task on the backend inline is told to stop even if it causes that itself, before its first await", async () => {
  const pool = inlinePool();
  const controller = new AbortController();
  const reason = new Error("enough");
  const told: unknown[] = [];
  const task = () => {
    const { signal } = currentJob()!;
    const end = new Promise<void>((resolve) =>
      signal.addEventListener("abort", () => {
        told.push(signal.reason);
        resolve();
      })
    );
    controller.abort(reason);
    return end;
  };
  assertStrictEquals(await thrownBy(() => within(pool.run(new Job({ func: task, signal: controller.signal })))), reason);
  assertEquals(told, [reason]);
  await within(pool.shutdown());
  assertEquals(pool.stats().unstoppable, 0);
});

Deno.test("A task on the backend inline may terminate the pool when it is told to stop: what ran beside it is not run again", async () => {
  const pool = inlinePool({ jobsPerWorker: 2, retries: 1 });
  const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
  const runs: string[] = [];
  const run = (name: string) => {
    runs.push(name);
    return stopped;
  };
  const future = await pool.submit(() => {
    currentJob()!.signal.addEventListener("abort", () => {
      pool.terminate("enough");
      stop();
    });
    return run("first");
  });
  const beside = await pool.submit(run, "beside");
  await until(() => runs.length === 2);
  assertEquals(future.cancel({ force: true, reason: "not wanted" }), true);
  for (const [each, reason] of [[future, "not wanted"], [beside, "enough"]] as const) {
    const error = await within(each.exception());
    assertInstanceOf(error, JobCancelledError);
    assertEquals(error.cause, reason);
  }
  assertEquals(runs, ["first", "beside"]);
  await within(pool.shutdown());
});

Deno.test("Future.cancel({ force: true }) ends a running job in a worker, and the next runs in another", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const meeting = new Meeting();
  const future = await pool.submit(meet, meeting.memory);
  const behind = await pool.submit(echo, "behind");
  await meeting.come();
  assertEquals([future.cancel(), future.cancel({ force: true }), future.state], [false, true, "cancelled"]);
  assertInstanceOf(await future.exception(), JobCancelledError);
  meeting.letGo();
  assertEquals(await behind.result(), "behind");
});

Deno.test("Future.cancel({ force: true }) of a queued job cancels it as without", async () => {
  const { pool, held, running, waiting: [queued], runs } = await heldPool(1);
  assertEquals([queued!.cancel({ force: true }), queued!.state, running.state], [true, "cancelled", "running"]);
  held.finish("goes on");
  assertEquals([await running.result(), runs], ["goes on", []]);
  await pool.shutdown();
});

// The signal of a job

Deno.test("Job's signal that is aborted before the submission refuses it", async () => {
  await using pool = inlinePool({ queueSize: 1 });
  const reason = { own: 1 };
  let ran = false;
  const job = new Job({ func: () => ran = true, signal: AbortSignal.abort(reason) });
  assertStrictEquals(await thrownBy(() => pool.submit(job)), reason);
  assertStrictEquals(await thrownBy(() => pool.trySubmit(job)), reason);
  assertStrictEquals(await thrownBy(() => pool.run(job)), reason);
  assertEquals(await pool.run(same, 2), 2, "the permit is there");
  assertEquals(ran, false);
});

Deno.test("Job's signal takes it from the gate", async () => {
  const { pool, held } = await heldPool(0, { queueSize: 1 });
  const spied = new SpiedSignal();
  const reason = new Error("own");
  const aborted = pool.submit(new Job({ func: boom, signal: spied.signal }));
  const behind = pool.submit(echo, "behind");
  assertEquals([pool.stats().waiting, spied.listening], [2, 1]);
  spied.abort(reason);
  assertEquals(pool.stats().waiting, 1);
  assertStrictEquals(await thrownBy(() => aborted), reason);
  held.finish("");
  assertEquals(await (await behind).result(), "behind");
  const { finished, failed, cancelled } = pool.stats();
  assertEquals([finished, failed, cancelled], [2, 0, 0], "it was never a job of the pool");
  await pool.shutdown();
});

Deno.test("Job's signal that aborts when its submission has just been admitted, and does not know it yet, cancels the job", async () => {
  const { pool, held, running } = await heldPool(0, { queueSize: 1 });
  const spied = new SpiedSignal();
  const reason = new Error("own");
  const submission = pool.submit(new Job({ func: boom, signal: spied.signal }));
  held.finish("");
  await running.addDoneCallback(() => {
    assertEquals([pool.stats().waiting, spied.listening], [0, 1]);
    spied.abort(reason);
  });
  const future = await submission;
  assertEquals([future.state, spied.listening], ["cancelled", 0]);
  assertStrictEquals(await thrownBy(() => future.result()), reason);
  assertEquals(await pool.run(same, 3), 3, "the permit is back");
  await pool.shutdown();
});

Deno.test("Job's signal cancels it in the queue, with the signal's own reason", async () => {
  const { pool, held } = await heldPool(0, { queueSize: 2 });
  const spied = new SpiedSignal();
  const reason = { own: 2 };
  const future = await pool.submit(new Job({ func: boom, signal: spied.signal }));
  assertEquals([spied.listening, pool.trySubmit(same, 1)], [1, undefined]);
  spied.abort(reason);
  assertEquals([future.state, future.cancelled(), spied.listening, pool.stats().queued], ["cancelled", true, 0, 0]);
  assertStrictEquals(await thrownBy(() => future.result()), reason);
  assert(pool.trySubmit(same, 1) !== undefined, "the permit is back");
  held.finish("");
  await pool.shutdown();
});

Deno.test("Job's signal ends it while it runs, inline", async () => {
  await using pool = inlinePool({ queueSize: 1 });
  const held = new Held();
  const spied = new SpiedSignal();
  const reason = new Error("own");
  const future = await pool.submit(new Job({ func: held.task, signal: spied.signal }));
  await held.started;
  assertEquals([future.state, spied.listening], ["running", 1]);
  spied.abort(reason);
  assertEquals([future.state, spied.listening], ["cancelled", 0]);
  assertStrictEquals(await thrownBy(() => future.result()), reason);
  assertEquals(await pool.run(same, 1), 1);
  held.finish("");
});

Deno.test("Job's signal ends it while it runs, in a worker", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 1 });
  const meeting = new Meeting();
  const spied = new SpiedSignal();
  const reason = new Error("own");
  const future = await pool.submit(new Job({ func: meet, args: [meeting.memory], signal: spied.signal }));
  await meeting.come();
  assertEquals(future.state, "running");
  spied.abort(reason);
  assertEquals([future.state, spied.listening], ["cancelled", 0]);
  assertStrictEquals(await thrownBy(() => future.result()), reason);
  meeting.letGo();
  assertEquals(await pool.run(same, 1), 1, "the permit is back and another worker runs");
});

Deno.test("Job's signal has no listener left when the job has settled, however it did", async () => {
  for (const backend of ["inline", "worker"] as const) {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    const spied = new SpiedSignal();
    const { signal } = spied;
    const futures = [
      pool.trySubmit(new Job({ func: (): number => 1, signal }))!,
      pool.trySubmit(new Job({ func: boom, signal }))!,
      pool.trySubmit(new Job({ func: (): number => 2, signal }))!,
    ];
    futures[2]!.cancel();
    await wait(futures);
    assertEquals(futures.map(({ state }) => state), ["finished", "failed", "cancelled"]);
    assertEquals([spied.added, spied.listening], [1, 0], "they shared one listener");
    spied.abort("too late");
    assertEquals(await futures[0]!.result(), 1);
  }
});

Deno.test("Job's signal that many share cancels all of them", async () => {
  const { pool, held, runs } = await heldPool(0, { queueSize: 2000 });
  const spied = new SpiedSignal();
  const futures: Future<number>[] = [];
  for (let i = 0; i < 1000; i++) futures.push(await pool.submit(new Job({ func: () => runs.push(i), signal: spied.signal })));
  spied.abort("all");
  assert(futures.every(({ state }) => state === "cancelled"));
  assertEquals([spied.added, spied.listening, pool.stats().queued], [1, 0, 0]);
  held.finish("");
  await pool.shutdown();
  assertEquals(runs, []);
});

Deno.test("Job's signal may be a proxy of one", async () => {
  const { pool, held, runs } = await heldPool(0);
  const spied = new SpiedSignal();
  const { signal } = spied;
  const futures: Future<number>[] = [];
  for (const each of [signal, new Proxy(signal, {}), new Proxy(signal, {})]) {
    futures.push(await pool.submit(new Job({ func: () => runs.push(1), signal: each })));
  }
  spied.abort("enough");
  assertEquals([futures.map(({ state }) => state), spied.listening], [["cancelled", "cancelled", "cancelled"], 0]);
  held.finish("");
  await pool.shutdown();
  assertEquals(runs, []);
});

Deno.test("Job's signal that thousands share at the gate refuses all of them with its reason, and gives the permit back", async () => {
  const { pool, held } = await heldPool(0, { queueSize: 2 });
  const controller = new AbortController();
  // The first is listening in the queue: when it is cancelled, it makes room for those that wait, one after another.
  const all = Array.from({ length: 20_000 }, () => pool.run(new Job({ func: same, args: [1], signal: controller.signal })));
  controller.abort("all");
  const outcomes = await Promise.allSettled(all);
  assert(outcomes.every((outcome) => outcome.status === "rejected" && outcome.reason === "all"));
  const next = pool.trySubmit(same, 2);
  held.finish("");
  assertEquals(await next?.result(), 2);
  await pool.shutdown();
});

// addDoneCallback()

Deno.test("Future.addDoneCallback() calls back on a result, an error and a cancellation", async () => {
  const { pool, held, running, waiting: [cancelled] } = await heldPool(1);
  const failed = await pool.submit(boom);
  const called: [string, unknown][] = [];
  const all = [running, cancelled!, failed].map((future: Future<unknown>) =>
    future.addDoneCallback((given) => {
      assertStrictEquals(given, future);
      called.push([given.state, given.id]);
    })
  );
  assertEquals(called, []);
  cancelled!.cancel();
  held.finish("");
  await Promise.all(all);
  assertEquals(called, [["cancelled", cancelled!.id], ["finished", running.id], ["failed", failed.id]]);
  await pool.shutdown();
});

Deno.test("Future.addDoneCallback() calls back late, and not within the call", async () => {
  await using pool = inlinePool();
  const future = await pool.submit(same, 5);
  await future.result();
  const calls: number[] = [];
  const promise = future.addDoneCallback(async (future) => {
    calls.push(await future.result());
    return "value";
  });
  assertEquals(calls, []);
  assertEquals(await promise, "value");
  assertEquals(calls, [5]);
});

Deno.test("Future.addDoneCallback() keeps the order of its calls, also for those added meanwhile", async () => {
  const { pool, held, running } = await heldPool(0);
  const order: string[] = [];
  const all: Promise<unknown>[] = [];
  all.push(running.addDoneCallback(() => {
    order.push("first");
    all.push(running.addDoneCallback(() => order.push("added by the first")));
  }));
  all.push(running.addDoneCallback(() => order.push("second")));
  held.finish("");
  await running.result();
  all.push(running.addDoneCallback(() => order.push("late")));
  await Promise.all(all);
  await Promise.all(all);
  assertEquals(order, ["first", "second", "added by the first", "late"]);
  await pool.shutdown();
});

Deno.test("Future.addDoneCallback() calls each callback once, the same one as often as it was added", async () => {
  await using pool = inlinePool();
  const future = await pool.submit(same, 1);
  let calls = 0;
  const count = (): number => ++calls;
  assertEquals(await Promise.all([future.addDoneCallback(count), future.addDoneCallback(count)]), [1, 2]);
  assertEquals(await future.addDoneCallback(count), 3);
});

Deno.test("Future.addDoneCallback() settles with what the callback returns, throws or rejects with", async () => {
  await using pool = inlinePool({ onError: (error) => assertEquals(error, "nothing was to come here") });
  const future = await pool.submit(same, 6);
  const error = new Error("of the callback");
  for (const _moment of ["early", "late"]) {
    assertEquals(await future.addDoneCallback(() => 1), 1);
    assertEquals(await future.addDoneCallback(() => Promise.resolve(2)), 2);
    assertEquals(await future.addDoneCallback((future) => future.result()), 6);
    assertStrictEquals(
      await thrownBy(() =>
        future.addDoneCallback(() => {
          throw error;
        })
      ),
      error,
    );
    assertStrictEquals(await thrownBy(() => future.addDoneCallback(() => Promise.reject(error))), error);
    assertEquals(await future.result(), 6);
  }
});

Deno.test("Future.addDoneCallback() hands a callback's error to onError if nobody looks at its promise", async () => {
  const reported: unknown[] = [];
  const sync = new Error("sync"), asynchronous = new Error("async"), late = new Error("late");
  const reasons = await unhandledRejections(async () => {
    await using pool = inlinePool({ onError: (error) => reported.push(error) });
    const future = await pool.submit(same, 1);
    const after = future.addDoneCallback(() => "after");
    future.addDoneCallback(() => {
      throw sync;
    });
    future.addDoneCallback(() => Promise.reject(asynchronous));
    assertEquals(await after, "after");
    assertEquals(await future.result(), 1);
    future.addDoneCallback(() => {
      throw late;
    });
  });
  assertEquals(reported, [sync, asynchronous, late]);
  assertEquals(reasons, []);
});

Deno.test("Future.addDoneCallback() leaves a callback's error to whoever uses its promise, in whichever way", async () => {
  const reported: unknown[] = [];
  const seen: unknown[] = [];
  const looks: ((promise: Promise<never>) => Promise<unknown>)[] = [
    (promise) => promise.catch((error) => seen.push(error)),
    (promise) => promise.then(undefined, (error) => seen.push(error)),
    (promise) => promise.finally(() => {}).catch((error) => seen.push(error)),
    (promise) => Promise.allSettled([promise]).then(([outcome]) => seen.push((outcome as PromiseRejectedResult).reason)),
    async (promise) => {
      try {
        await promise;
      } catch (error) {
        seen.push(error);
      }
    },
  ];
  const reasons = await unhandledRejections(async () => {
    await using pool = inlinePool({ onError: (error) => reported.push(error) });
    const future = await pool.submit(same, 1);
    await Promise.all(looks.map((look, i) =>
      look(future.addDoneCallback((): never => {
        throw i;
      }))
    ));
  });
  assertEquals(seen.sort(), [0, 1, 2, 3, 4]);
  assertEquals([reported, reasons], [[], []]);
});

Deno.test("Future.addDoneCallback() callbacks run when the permit is back", async () => {
  const { pool, held, running } = await heldPool(0, { queueSize: 1 });
  assertEquals(pool.trySubmit(same, 1), undefined);
  const next = running.addDoneCallback(() => pool.trySubmit(echo, "next"));
  held.finish("");
  const future = await next;
  assertEquals(await future!.result(), "next");
  await pool.shutdown();
});

// onDone

Deno.test("Job's onDone is called once with the settled future: on a result, an error, a cancellation and an abort", async () => {
  const { pool, held } = await heldPool(0);
  const called: string[] = [];
  const controller = new AbortController();
  const job = (id: string, func: () => unknown) =>
    new Job({ id, func, signal: controller.signal, onDone: (future) => called.push(`${future.id} ${future.state}`) });
  const aborted = new Held();
  const futures = [
    await pool.submit(job("a", () => 1)),
    await pool.submit(job("b", boom)),
    await pool.submit(job("c", aborted.task)),
    await pool.submit(job("d", () => 1)),
    await pool.submit(job("e", () => 1)),
  ];
  futures[4]!.cancel();
  held.finish("");
  await aborted.started;
  controller.abort("enough");
  await wait(futures);
  assertEquals(called, ["e cancelled", "a finished", "b failed", "c cancelled", "d cancelled"]);
  aborted.finish("");
  await pool.shutdown();
});

Deno.test("Job's onDone sees the result, and is called before the callbacks that were added", async () => {
  await using pool = inlinePool();
  const order: string[] = [];
  const future = await pool.submit(
    new Job({ func: () => 7, onDone: async (future) => order.push(`onDone ${future.done()} ${await future.result()}`) }),
  );
  const calls: boolean[] = [];
  await future.addDoneCallback(() => calls.push(true));
  await pool.shutdown();
  assertEquals([order, calls], [["onDone true 7"], [true]]);
});

Deno.test("Job's onDone that throws or rejects goes to onError and ends nothing", async () => {
  const reported: unknown[] = [];
  const errors = [new Error("sync"), new Error("async")];
  const reasons = await unhandledRejections(async () => {
    await using pool = inlinePool({ queueSize: 1, onError: (error) => reported.push(error) });
    assertEquals(
      await pool.run(
        new Job({
          func: () => 1,
          onDone: () => {
            throw errors[0];
          },
        }),
      ),
      1,
    );
    assertEquals(await pool.run(new Job({ func: () => 2, onDone: () => Promise.reject(errors[1]) })), 2);
    assertEquals(await pool.run(same, 3), 3);
  });
  assertEquals(reported, errors);
  assertEquals(reasons, []);
});

Deno.test("Job's onDone holds the permit until its promise settles", async () => {
  const pool = inlinePool({ queueSize: 1 });
  for (const settle of ["resolve", "reject"] as const) {
    const slow = Promise.withResolvers<void>();
    slow.promise.catch(() => {});
    const entered = Promise.withResolvers<void>();
    const onDone = (): Promise<void> => {
      entered.resolve();
      return slow.promise.catch(() => {});
    };
    const future = await pool.submit(new Job({ func: () => 1, onDone }));
    await entered.promise;
    assertEquals([await future.result(), future.state], [1, "finished"]);
    assertEquals(pool.trySubmit(same, 1), undefined, "the gate is full although the job has finished");
    const waiting = pool.submit(echo, "let in");
    await turn();
    assertEquals(pool.stats().waiting, 1);
    slow[settle]();
    assertEquals(await (await waiting).result(), "let in");
  }
  await pool.shutdown();
});

Deno.test("Job's onDone holds the permit against one who waited at the gate already", async () => {
  const pool = inlinePool({ queueSize: 1 });
  const held = new Held();
  const slow = Promise.withResolvers<void>();
  const entered = Promise.withResolvers<void>();
  await pool.submit(
    new Job({
      func: held.task,
      onDone: () => {
        entered.resolve();
        return slow.promise;
      },
    }),
  );
  const waiting = pool.submit(echo, "let in");
  assertEquals(pool.stats().waiting, 1);
  held.finish("");
  await entered.promise;
  await turn();
  assertEquals(pool.stats().waiting, 1);
  slow.resolve();
  assertEquals(await (await waiting).result(), "let in");
  await pool.shutdown();
});

Deno.test("Job's onDone that throws gives the permit to the next at the gate", async () => {
  const reported: unknown[] = [];
  const pool = inlinePool({ queueSize: 1, onError: (error) => reported.push(error) });
  const held = new Held();
  await pool.submit(new Job({ func: held.task, onDone: boom }));
  const waiting = pool.submit(echo, "let in");
  held.finish("");
  assertEquals(await (await waiting).result(), "let in");
  await pool.shutdown();
  assertEquals(reported.length, 1);
});

Deno.test("Job's onDone can submit at once with a gate of one permit", async () => {
  const pool = inlinePool({ queueSize: 1 });
  const results: number[] = [];
  const finished = Promise.withResolvers<void>();
  const job = (n: number): Job<[], number> =>
    new Job({
      func: () => n,
      onDone: async (future) => {
        const next = n < 5 ? pool.trySubmit(job(n + 1)) : undefined;
        assertEquals(next !== undefined, n < 5);
        results.push(await future.result());
        if (n === 5) finished.resolve();
      },
    });
  await pool.submit(job(1));
  await finished.promise;
  assertEquals(results, [1, 2, 3, 4, 5]);
  await pool.shutdown();
});

for (const added of [false, true]) {
  const kind = added ? "Future.addDoneCallback()" : "Job's onDone";
  Deno.test(`${kind} may cancel thousands of jobs that have the same callback: each is called once, and the permits are back`, async () => {
    const reported: unknown[] = [];
    const { pool, held } = await heldPool(0, { queueSize: 5000, onError: (error) => reported.push(error) });
    const futures: Future<number>[] = [];
    let called = 0;
    const cancelAll = (): void => {
      called++;
      for (const future of futures) future.cancel();
    };
    for (let i = 0; i < 2000; i++) {
      futures.push(await pool.submit(new Job({ func: same, args: [i], ...(added ? {} : { onDone: cancelAll }) })));
      if (added) futures[i]!.addDoneCallback(cancelAll);
    }
    futures[0]!.cancel();
    assertEquals(called, 2000);
    for (const error of await Promise.all(futures.map((future) => future.exception()))) assertInstanceOf(error, JobCancelledError);
    const others = Array.from({ length: 4999 }, () => pool.trySubmit(same, 1));
    assert(others.every((future) => future !== undefined));
    held.finish("");
    await pool.shutdown();
    assertEquals(reported, []);
  });
}

Deno.test("ProcessPool.shutdown() waits for callbacks", async () => {
  for (const way of ["onDone", "addDoneCallback"]) {
    const pool = inlinePool();
    const slow = Promise.withResolvers<void>();
    let finished = false;
    const callback = async (): Promise<void> => {
      await slow.promise;
      finished = true;
    };
    const future = await pool.submit(new Job({ func: () => 1, onDone: way === "onDone" ? callback : undefined }));
    if (way === "addDoneCallback") future.addDoneCallback(callback);
    await future.result();
    const order: string[] = [];
    const end = pool.shutdown().then(() => order.push(`shut down, finished: ${finished}`));
    await turn();
    assertEquals(order, []);
    slow.resolve();
    await end;
    assertEquals(order, ["shut down, finished: true"]);
  }
});

Deno.test("ProcessPool.submit() in a callback of the last job is refused when the pool is shut down", async () => {
  const { pool, held, running } = await heldPool(0);
  const refused = running.addDoneCallback(() => pool.submit(same, 1));
  const end = pool.shutdown();
  held.finish("");
  await assertRejects(() => refused, PoolClosedError);
  await end;
});

// Messages that only a job can have

Deno.test("Job() names an unnamed task anonymous in messages", async () => {
  await using pool = inlinePool();
  const future = pool.trySubmit((() => () => 1)())!;
  future.cancel();
  assertMatch((await future.exception() as Error).message, /^Cancelled job \d+ \(task "anonymous"\)$/);
});

Deno.test("Future() cannot be made by a caller", async () => {
  await assertFails(
    () => {
      const Constructor = Future as unknown as new () => Future<unknown>;
      return new Constructor();
    },
    TypeError,
    "Cannot read properties of undefined (reading 'id')",
  );
});
