import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { realClock } from "../pool/clock.ts";
import { Crew } from "../pool/crew.ts";
import { ENVIRONMENT, type Environment, type ProcessPoolOptions } from "../pool/options.ts";
import { type Future, Job } from "../job.ts";
import type { PoolObserver } from "../pool/observation.ts";
import { asCompleted } from "../pool/wait.ts";
import { JobCancelledError, PoolBrokenError, PoolClosedError, WorkerDiedError } from "../errors.ts";
import { internalsOf, ProcessPool } from "../pool.ts";
import { CLAIM_WORDS, FINISHED, STARTED, type StartThread, type Thread, type ThreadEvents, type ToRuntime } from "../worker/protocol.ts";
import { type OpenSlot, slotsOf } from "../worker/slot.ts";
import { within } from "./fixtures.ts";
import { countCalls, turn, until } from "./helpers.ts";
import { SimulatedClock } from "./simulation/simulated_clock.ts";

/** A thread that takes jobs and finishes them when told to. */
class StubThread implements Thread {
  pace = Infinity;
  /** The runs that it holds. */
  readonly runs: number[] = [];
  /** How many items the chunks have that it was sent. */
  readonly sizes: number[] = [];
  #events: ThreadEvents;
  #claims: Int32Array = new Int32Array(0);
  #pace: number;

  constructor(events: ThreadEvents, pace: number) {
    this.#events = events;
    this.#pace = pace;
    queueMicrotask(() => events.alive());
  }

  post(message: ToRuntime): void {
    switch (message.type) {
      case "load":
        this.#claims = message.claims;
        return this.#send({ type: "loaded", exports: [] });
      case "chunk":
        this.sizes.push(message.items.length);
        return void this.runs.push(message.run);
      case "run":
        return void this.runs.push(message.run);
      case "close":
        return this.#send({ type: "closed", thrown: undefined });
    }
  }

  /** Has finished the initializer. */
  initialized(): void {
    this.#send({ type: "initialized" });
  }

  #send(message: Parameters<ThreadEvents["message"]>[0]): void {
    queueMicrotask(() => {
      this.#events.message(message);
      this.#events.delivered();
    });
  }

  /** Starts the first run that it holds, or another one. */
  begin(index = 0): void {
    this.#claim(index, STARTED);
  }

  /** Finishes this run; the answer is on its way. */
  end(index: number): void {
    this.#claim(index, FINISHED);
  }

  #claim(index: number, state: number): void {
    Atomics.store(this.#claims, this.runs[index]! % (this.#claims.length / CLAIM_WORDS) * CLAIM_WORDS, state);
  }

  /** Finishes this many runs. From then on it is known how long they take. */
  finish(count: number): void {
    this.pace = this.#pace;
    for (const run of this.runs.splice(0, count)) this.#events.message({ type: "returned", run, value: undefined });
    this.#events.delivered();
  }

  /** Finishes the first run that it holds, which is a chunk of one item. */
  finishChunk(): void {
    this.pace = this.#pace;
    const run = this.runs.shift()!;
    this.#events.message({ type: "items", run, from: 0, values: [0], thrown: [], last: true, elapsed: this.#pace });
    this.#events.delivered();
  }

  /** Delivers an item of the first chunk that it holds, which continues. */
  progress(from: number): void {
    this.#events.message({ type: "items", run: this.runs[0]!, from, values: [0], thrown: [], last: false, elapsed: 0 });
    this.#events.delivered();
  }

  /** Finishes as many runs as there are values; they arrive together. */
  finishTogether(values: unknown[]): void {
    this.#events.returned(this.runs.splice(0, values.length), values);
    this.#events.delivered();
  }

  /** Ends, and may have sent something that has not arrived. */
  ending(): void {
    this.#events.ending();
  }

  /** Ends by itself, with everything it holds; `unread`: of something that it could not read. */
  die(unread = false): void {
    this.runs.length = 0;
    this.#events.died({ reason: "died", unread });
    queueMicrotask(() => this.#events.gone());
  }

  drain(): void {}

  stop(): void {
    queueMicrotask(() => this.#events.gone());
  }
}

/** A thread with a fast path, which takes calls of known tasks as long as it has room. */
class CallableStubThread extends StubThread {
  /** How many calls it had taken each time it was rung. */
  readonly rung: number[] = [];
  /** How many calls it takes, including those that it holds. */
  room = Infinity;

  /** Whether it takes up what it is sent without being woken. */
  isAwake = true;

  /** Called while a call is written, like a getter of an argument. */
  onCall = (): void => {};

  get fastPath(): this {
    return this;
  }

  reuse(): void {}

  takeReturned(): number {
    return 0;
  }

  call(_key: number, run: number): boolean {
    this.onCall();
    if (this.isFull) return false;
    this.runs.push(run);
    return true;
  }

  get isFull(): boolean {
    return this.runs.length >= this.room;
  }

  ring(calls: number): void {
    this.rung.push(calls);
  }
}

type StubClass<T extends StubThread> = new (events: ThreadEvents, pace: number) => T;

/** Opens slots whose threads are stubs with jobs that take this many ms. The stubs are in this list. */
function stubSlots<T extends StubThread>(threads: T[], pace: number, Stub: StubClass<T>): OpenSlot {
  return slotsOf((events) => {
    const thread = new Stub(events, pace);
    threads.push(thread);
    return thread;
  });
}

function poolIn(environment: Environment, options: ProcessPoolOptions): ProcessPool {
  return new ProcessPool({ ...options, [ENVIRONMENT]: environment } as ProcessPoolOptions);
}

interface Stubs<T> {
  pool: ProcessPool;
  threads: T[];
  /** Lets this many ms pass for the pool, for which no time passes otherwise; its timers are real. */
  wait(time: number): void;
}

/** A pool of stubs whose jobs take this many ms, and the stubs, each of which has done a job. */
function stubs(pace: number, options: ProcessPoolOptions = {}): Promise<Stubs<StubThread>> {
  return stubsOf(StubThread, pace, options);
}

async function stubsOf<T extends StubThread>(
  Stub: StubClass<T>,
  pace: number,
  options: ProcessPoolOptions,
): Promise<Stubs<T>> {
  const threads: T[] = [];
  let time = 0;
  const environment: Environment = { openSlot: stubSlots(threads, pace, Stub), clock: { ...realClock, now: () => time } };
  const pool = poolIn(environment, { maxWorkers: 3, queueSize: 1000, ...options });
  await pool.warmUp();
  submit(pool, threads.length);
  for (const thread of threads) thread.finish(1);
  return { pool, threads, wait: (ms) => void (time += ms) };
}

function submit(pool: ProcessPool, count: number): void {
  for (let i = 0; i < count; i++) pool.trySubmit(() => {});
}

async function end(pool: ProcessPool, threads: StubThread[]): Promise<void> {
  const ended = pool.shutdown();
  while (threads.some(({ runs }) => runs.length > 0)) {
    for (const thread of threads) thread.finish(Infinity);
    await turn();
  }
  await ended;
}

Deno.test("A caller of thousands of jobs in one turn pauses for a worker whose jobs are tiny, wherever they wait, and for no other", async () => {
  for (const [pace, queueSize, expected] of [[0.002, 1000, 20], [0.002, 100_000, 20], [0.02, 1000, 0]] as const) {
    const { pool, threads } = await stubsOf(CallableStubThread, pace, { maxWorkers: 1, queueSize });
    const [pauses] = await countCalls([[Atomics, "wait"]], () => {
      void Promise.allSettled(Array.from({ length: 10_000 }, () => pool.run(() => {})));
    });
    // Nothing comes of these pauses.
    assertEquals(pauses, expected);
    await end(pool, threads);
  }
});

Deno.test("A pool gives tiny jobs to one worker, until it has enough to do", async () => {
  const { pool, threads } = await stubs(0.002);
  submit(pool, 280);
  assertEquals(threads.map(({ runs }) => runs.length), [250, 30, 0]);
  threads[0]!.finish(40);
  submit(pool, 45);
  assertEquals(threads.map(({ runs }) => runs.length), [250, 35, 0]);
  await end(pool, threads);
});

Deno.test("A pool does not report a worker as idle that ends before it is stopped for an aborted job", async () => {
  const errors: unknown[] = [];
  const { pool, threads } = await stubs(Infinity, { maxWorkers: 1, jobsPerWorker: 2, onError: (error) => errors.push(error) });
  const [thread] = threads as [StubThread];
  const controller = new AbortController();
  submit(pool, 1);
  const aborted = pool.run(new Job({ func: () => {}, signal: controller.signal })).catch((reason) => reason);
  thread.begin(1);
  // It is not stopped before this has arrived.
  thread.end(0);
  controller.abort("enough");
  assertEquals(await aborted, "enough");
  thread.finish(1);
  thread.die();
  assertEquals([pool.stats().workers, errors], [0, []]);
  await end(pool, threads);
});

Deno.test("A pool stops the worker of an aborted job once the answers that were on their way are there, unless the job has ended by then", async () => {
  for (const hasEnded of [false, true]) {
    const { pool, threads } = await stubs(Infinity, { maxWorkers: 1, jobsPerWorker: 2 });
    const [thread] = threads as [StubThread];
    const controller = new AbortController();
    const other = pool.trySubmit(() => {})!;
    const aborted = pool.run(new Job({ func: () => {}, signal: controller.signal })).catch((reason) => reason);
    thread.begin(1);
    thread.end(0);
    controller.abort("enough");
    assertEquals(await aborted, "enough");
    if (hasEnded) thread.end(1);
    thread.finish(hasEnded ? 2 : 1);
    await within(other.result());
    if (!hasEnded) await until(() => pool.stats().workers === 0);
    // It has not ended the run that was aborted.
    thread.runs.length = 0;
    submit(pool, 1);
    await until(() => threads.at(-1)!.runs.length === 1);
    assertEquals(threads.length, hasEnded ? 1 : 2);
    await end(pool, threads);
  }
});

Deno.test("A pool closes a worker that has been idle for 'idleTimeout' since its last job", async () => {
  const { pool, threads, pass } = await afterOneJob({ maxWorkers: 1, idleTimeout: 1000 });
  pass(900);
  submit(pool, 1);
  await turn();
  threads[0]!.finish(1);
  for (const [time, workers] of [[900, 1], [200, 0]] as const) {
    pass(time);
    await turn();
    assertEquals(pool.stats().workers, workers);
  }
  await end(pool, threads);
});

Deno.test("A pool sends the first of the tiny calls of a turn at once, and the others together", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.001, { maxWorkers: 1 });
  const { runs, rung } = threads[0]!;
  submit(pool, 150);
  assertEquals([runs.length, rung, pool.stats().queued], [129, [1, 64, 64], 21]);
  // The rest is sent after everything else that was to run at the end of this turn.
  await undefined;
  assertEquals([runs.length, rung, pool.stats().queued], [150, [1, 64, 64, 21], 0]);
  submit(pool, 2);
  assertEquals(runs.length, 151);
  // Whatever makes the pool look makes it send what there is.
  threads[0]!.finish(100);
  assertEquals(runs.length, 52);
  await end(pool, threads);
});

Deno.test("A pool sends as many short calls together as take a third of a millisecond, and shares them out a few at a time", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.02, { maxWorkers: 3 });
  submit(pool, 20);
  const rung = () => threads.map((thread) => thread.rung);
  assertEquals(rung(), [[1, 2, 2], [2, 2, 2], [2, 2, 2]]);
  await undefined;
  assertEquals(rung(), [[1, 2, 2, 2], [2, 2, 2, 1], [2, 2, 2]]);
  await end(pool, threads);
});

Deno.test("A pool sends tiny calls together that are submitted one after another", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.001, { maxWorkers: 1 });
  for (let i = 0; i < 20; i++) await pool.submit(() => {});
  assertEquals(threads[0]!.rung, [1]);
  await until(() => threads[0]!.rung.length > 1);
  assertEquals(threads[0]!.rung, [1, 19]);
  await end(pool, threads);
});

Deno.test("A pool sends calls one by one that are not tiny, or that are more than mere calls", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.05, { maxWorkers: 1 });
  submit(pool, 3);
  assertEquals(threads[0]!.rung, [1, 1, 1]);
  await end(pool, threads);

  const tiny = await stubsOf(CallableStubThread, 0.001, { maxWorkers: 1, jobTimeout: 1000 });
  submit(tiny.pool, 2);
  // The first one carries the task.
  for (let i = 0; i < 2; i++) tiny.pool.trySubmit(new Job({ func: () => {}, onDone: () => {} }));
  assertEquals(tiny.threads[0]!.rung, [1, 1, 1]);
  await end(tiny.pool, tiny.threads);
});

for (const pace of [0.001, 0.02]) {
  Deno.test(`A pool keeps calls that a worker has no room for, until it has answered some (of ${pace} ms)`, async () => {
    const { pool, threads } = await stubsOf(CallableStubThread, pace, { maxWorkers: 1 });
    const [thread] = threads as [CallableStubThread];
    thread.room = 10;
    submit(pool, 30);
    await undefined;
    assertEquals([thread.runs.length, pool.stats().queued], [10, 20]);
    thread.finish(4);
    assertEquals([thread.runs.length, pool.stats().queued], [10, 16]);
    await end(pool, threads);
    assertEquals(pool.stats().finished, 31);
  });
}

Deno.test("ProcessPool.stats() counts the jobs of all workers, and the workers that hold some", async () => {
  const { pool, threads } = await stubs(Infinity, { jobsPerWorker: 2 });
  submit(pool, 4);
  assertEquals(threads.map(({ runs }) => runs.length), [2, 1, 1]);
  threads[2]!.finish(1);
  const { busy, running } = pool.stats();
  assertEquals([busy, running], [2, 3]);
  await end(pool, threads);
});

Deno.test("ProcessPool.stats() no longer counts calls as running that were sent ahead of time and then cancelled", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.02, { maxWorkers: 1 });
  const futures = Array.from({ length: 4 }, () => pool.trySubmit(() => {})!);
  await undefined;
  threads[0]!.begin();
  const counts = () => [pool.stats().busy, pool.stats().running, pool.stats().queued];
  assertEquals([threads[0]!.runs.length, counts()], [4, [1, 4, 0]]);
  for (const future of futures.slice(1)) assert(future.cancel());
  assertEquals(counts(), [1, 1, 0]);
  assert(futures[0]!.cancel({ force: true }));
  assertEquals(counts(), [0, 0, 0]);
  await end(pool, threads);
});

Deno.test("A pool sends what is to be moved ahead of time if copying is as cheap, and still has it when the worker dies", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.02, { maxWorkers: 1, onError: () => {} });
  const [small, large] = [1000, 2 ** 19].map((size) => Array.from({ length: 3 }, () => new ArrayBuffer(size)));
  const moving = (buffer: ArrayBuffer) => pool.trySubmit(new Job({ func: (_: ArrayBuffer) => {}, args: [buffer], transfer: [buffer] }))!;
  const sizes = (buffers: ArrayBuffer[]) => buffers.map((buffer) => buffer.byteLength);
  const futures = small!.map(moving);
  assertEquals([threads[0]!.runs.length, pool.stats().queued, sizes(small!)], [3, 0, [0, 0, 0]]);
  threads[0]!.begin();
  threads[0]!.die();
  await turn();
  assertEquals(threads[1]!.runs.length, 1);
  threads[1]!.finish(1);
  assertEquals(futures.map(({ state }) => state), ["failed", "finished", "queued"]);
  threads[1]!.finish(1);
  for (const buffer of large!) moving(buffer);
  assertEquals([threads[1]!.runs.length, pool.stats().queued], [1, 2]);
  await end(pool, threads);
});

for (const pace of [0.001, 0.02]) {
  Deno.test(`A pool sends what is to be moved to a worker that is free, rather than have it wait for one that is awake (jobs of ${pace} ms)`, async () => {
    const { pool, threads } = await stubsOf(CallableStubThread, pace, { maxWorkers: 2 });
    const [first, second] = threads as [CallableStubThread, CallableStubThread];
    second.isAwake = false;
    submit(pool, 1);
    const buffer = new ArrayBuffer(2 ** 19);
    pool.trySubmit(new Job({ func: (_: ArrayBuffer) => {}, args: [buffer], transfer: [buffer] }));
    assertEquals([first.runs.length, second.runs.length, pool.stats().queued], [1, 1, 0]);
    await end(pool, threads);
  });
}

Deno.test("A pool sends a call by the port to a worker that has nothing else to do", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.02, { maxWorkers: 1 });
  const [thread] = threads as [CallableStubThread];
  thread.room = 0;
  submit(pool, 3);
  assertEquals([thread.runs.length, pool.stats().queued], [1, 2]);
  await end(pool, threads);
});

Deno.test("A pool gives a call that a worker has no room for to another, if that worker runs a single one", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.001, { maxWorkers: 2 });
  threads[0]!.room = 1;
  submit(pool, 1);
  await undefined;
  submit(pool, 1);
  assertEquals(threads.map(({ runs }) => runs.length), [1, 1]);
  await end(pool, threads);
});

Deno.test("A pool has no call in a worker that has ended while another one was written", async () => {
  for (const deed of ["terminates", "dies"]) {
    const { pool, threads } = await stubsOf(CallableStubThread, 0.001, { maxWorkers: 1, onError: () => {} });
    const [thread] = threads as [CallableStubThread];
    let calls = 0;
    thread.onCall = () => {
      if (++calls !== 5) return;
      if (deed === "terminates") pool.terminate();
      else thread.die();
    };
    const futures = Array.from({ length: 20 }, () => pool.trySubmit(() => {})!);
    await undefined;
    if (deed === "terminates") {
      await Promise.allSettled(futures.map((future) => future.result()));
      assertEquals(futures.every((future) => future.cancelled()), true);
    } else {
      while (futures.some((future) => !future.done())) {
        for (const each of threads.slice(1)) each.finish(Infinity);
        await turn();
      }
      assertEquals(futures.every(({ state }) => state === "finished"), true);
      await pool.shutdown();
    }
  }
});

Deno.test("A pool counts the runs of a worker in a row, past those that it holds still", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.001, { maxWorkers: 1 });
  const [{ runs }] = threads as [CallableStubThread];
  const all: number[] = [];
  // The run before was 0, and there are places for 1024.
  for (let i = 1; i <= 2000; i++) {
    submit(pool, 1);
    await undefined;
    // The third takes until all others are done.
    if (runs.length > 1) threads[0]!.runs.reverse();
    all.push(runs[0]!);
    if (i !== 3) threads[0]!.finish(1);
  }
  assertEquals(all, Array.from({ length: 2001 }, (_, i) => i + 1).filter((run) => run <= 3 || run % 1024 !== 3));
  await end(pool, threads);
});

Deno.test("A pool sends a call of another task at once, and with it all that it has gathered", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.001, { maxWorkers: 1 });
  submit(pool, 5);
  assertEquals(threads[0]!.runs.length, 1);
  pool.trySubmit(() => "another");
  assertEquals(threads[0]!.runs.length, 6);
  await end(pool, threads);
});

Deno.test("A pool that loses a worker has the calls run elsewhere that were sent together", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.001, { maxWorkers: 2 });
  submit(pool, 100);
  await undefined;
  assertEquals(threads.map(({ runs }) => runs.length), [100, 0]);
  threads[0]!.die();
  await turn();
  assertEquals(threads[1]!.runs.length, 100);
  await end(pool, threads);
  assertEquals(pool.stats().finished, 102);
});

Deno.test("A pool shares out jobs that are not tiny, or that may take longer than they look", async () => {
  const short = await stubs(0.02);
  submit(short.pool, 30);
  assertEquals(short.threads.map(({ runs }) => runs.length), [10, 10, 10]);
  await end(short.pool, short.threads);

  const several = await stubs(0.002, { jobsPerWorker: 2 });
  submit(several.pool, 30);
  assertEquals(several.threads.map(({ runs }) => runs.length), [10, 10, 10]);
  await end(several.pool, several.threads);
});

Deno.test("A pool gives no tiny job to a worker that should have finished by now", async () => {
  const { pool, threads, wait } = await stubs(0.002);
  submit(pool, 2);
  assertEquals(threads.map(({ runs }) => runs.length), [2, 0, 0]);
  wait(3);
  submit(pool, 5);
  assertEquals(threads.map(({ runs }) => runs.length), [2, 5, 0]);
  await end(pool, threads);
});

Deno.test("A pool gives tiny jobs to others when one of them is not tiny, and to the same worker again when that has finished", async () => {
  const { pool, threads } = await stubs(0.002);
  const [first, second, third] = threads as [StubThread, StubThread, StubThread];
  submit(pool, 10);
  first.begin();
  assertEquals(threads.map(({ runs }) => runs.length), [10, 0, 0]);
  // Those that were taken back stay with the worker until it reaches them. No other is sent all of them before it has answered.
  while (second.runs.length === 0) await turn();
  assertEquals(threads.map(({ runs }) => runs.length), [10, 1, 1]);
  second.finish(1);
  assertEquals(threads.map(({ runs }) => runs.length), [10, 7, 1]);
  third.finish(1);
  second.finish(7);
  submit(pool, 5);
  assertEquals(threads.map(({ runs }) => runs.length), [10, 5, 0]);
  first.finish(10);
  second.finish(5);
  submit(pool, 5);
  assertEquals(threads.map(({ runs }) => runs.length), [5, 0, 0]);
  await end(pool, threads);
});

Deno.test("A pool has jobs run elsewhere that a worker was sent while jobs were tiny, although it goes on answering", async () => {
  const { pool, threads, pass, first, second } = await twoStubs(0.002);
  submit(pool, 100);
  assertEquals([first.runs.length, second.runs.length], [100, 0]);
  first.begin();
  pass(0.5);
  first.finish(1);
  first.begin();
  // It turns out that each takes half a millisecond.
  first.pace = 0.5;
  pass(0.5);
  assert(second.runs.length > 0);
  await end(pool, threads);
  assertEquals(pool.stats().finished, 102);
});

Deno.test("A pool has jobs run elsewhere that a worker was sent while jobs were tiny, although answers are on their way", async () => {
  const { pool, threads, pass, first, second } = await twoStubs(0.002);
  submit(pool, 100);
  assertEquals([first.runs.length, second.runs.length], [100, 0]);
  first.begin();
  first.end(0);
  first.begin(1);
  // It turns out that each takes half a millisecond.
  first.pace = 0.5;
  pass(1);
  assert(second.runs.length > 0);
  await end(pool, threads);
  assertEquals(pool.stats().finished, 102);
});

/** A pool of stubs, none of which was started, with a clock that is turned by hand. */
function coldStubs(
  options: ProcessPoolOptions = {},
  pace = 1,
  Stub = StubThread,
): { pool: ProcessPool; threads: StubThread[]; pass: (time: number) => void } {
  const threads: StubThread[] = [];
  const clock = new SimulatedClock();
  const pool = poolIn({ openSlot: stubSlots(threads, pace, Stub), clock }, { maxWorkers: 4, ...options });
  return {
    pool,
    threads,
    pass(time) {
      const end = clock.now() + time;
      while (clock.nextDue <= end) clock.fire();
      clock.creep(end - clock.now());
    },
  };
}

/** A pool of two stubs that have each done a job, with such a clock. */
async function twoStubs(pace: number): Promise<ReturnType<typeof coldStubs> & { first: StubThread; second: StubThread }> {
  const stubs = coldStubs({ maxWorkers: 2 }, pace);
  const { pool, threads } = stubs;
  const warmed = pool.warmUp();
  await turn();
  await warmed;
  submit(pool, 2);
  const [first, second] = threads as [StubThread, StubThread];
  for (const thread of threads) thread.finish(1);
  return { ...stubs, first, second };
}

/** The same with one stub that has done a job and had its head start. */
async function afterOneJob(options: ProcessPoolOptions, pace = 0.002, Stub = StubThread): Promise<ReturnType<typeof coldStubs>> {
  const stubs = coldStubs(options, pace, Stub);
  submit(stubs.pool, 1);
  await turn();
  stubs.threads[0]!.finish(1);
  stubs.pass(5);
  return stubs;
}

Deno.test("A pool sends nothing to a worker that has ended, and does not time out the jobs that it ran", async () => {
  const { pool, threads, pass } = await afterOneJob({ maxWorkers: 1 });
  const limited = pool.trySubmit(new Job({ func: () => {}, timeout: 50 }))!;
  threads[0]!.begin();
  threads[0]!.ending();
  submit(pool, 1);
  assertEquals(threads[0]!.runs.length, 1);
  pass(100);
  threads[0]!.die();
  assertInstanceOf(await limited.exception(), WorkerDiedError);
  await turn();
  assertEquals(threads[1]!.runs.length, 1);
  await end(pool, threads);
});

/** A pool whose backend is loaded when the test says so. */
function loadingPool(): { pool: ProcessPool; loads: PromiseWithResolvers<OpenSlot>[]; threads: StubThread[]; openSlot: OpenSlot } {
  const loads: PromiseWithResolvers<OpenSlot>[] = [];
  const threads: StubThread[] = [];
  const load = () => {
    loads.push(Promise.withResolvers());
    return loads.at(-1)!.promise;
  };
  const pool = poolIn({ load, clock: realClock }, { maxWorkers: 1 });
  return { pool, loads, threads, openSlot: stubSlots(threads, 1, StubThread) };
}

Deno.test("A pool loads its backend once, with its first job, and then runs what was submitted meanwhile", async () => {
  const { pool, loads, threads, openSlot } = loadingPool();
  await turn();
  assertEquals(loads.length, 0);
  submit(pool, 2);
  const warm = pool.warmUp();
  await turn();
  assertEquals([loads.length, pool.stats().queued, pool.stats().workers], [1, 2, 0]);
  loads[0]!.resolve(openSlot);
  await warm;
  assertEquals([loads.length, threads.length, threads[0]!.runs.length], [1, 1, 1]);
  await end(pool, threads);
});

Deno.test("A pool that is ended while its backend loads starts no worker", async () => {
  const { pool, loads, threads, openSlot } = loadingPool();
  const future = pool.trySubmit(() => {})!;
  const warm = assertRejects(() => pool.warmUp(), PoolClosedError);
  await pool.terminate();
  assertInstanceOf(await future.exception(), JobCancelledError);
  await warm;
  loads[0]!.resolve(openSlot);
  await turn();
  assertEquals(threads.length, 0);
});

Deno.test("A pool whose backend cannot be loaded is broken after three times, and says why", async () => {
  const { pool, loads } = loadingPool();
  const future = pool.trySubmit(() => {})!;
  const warm = assertRejects(() => pool.warmUp(), PoolBrokenError);
  for (let i = 0; i < 3; i++) {
    loads[i]!.reject(new Error(`not there: ${i}`));
    await turn();
  }
  const error = await future.exception();
  assertInstanceOf(error, PoolBrokenError);
  assertEquals([(error.cause as Error).message, loads.length], ["not there: 2", 3]);
  assertEquals(await warm, error);
  await pool.shutdown();
});

Deno.test("A pool breaks if its workers end as soon as they are ready, and not if they have had nothing to do for long", async () => {
  for (const [idle, error] of [[500, PoolBrokenError], [2000, undefined]] as const) {
    const { pool, threads, pass } = coldStubs({ maxWorkers: 3, idleTimeout: Infinity, onError() {} });
    await pool.warmUp();
    pass(idle);
    for (const thread of threads) thread.die();
    const warmed = await pool.warmUp().catch((error) => error);
    assertEquals([warmed?.constructor, threads.length], [error, error === undefined ? 6 : 3]);
    await end(pool, threads);
  }
});

Deno.test("A job that is to run again fails if the pool breaks while that is decided", async () => {
  const threads: StubThread[] = [];
  const start: StartThread = (events) => {
    if (threads.length > 0) throw new Error("there is no thread");
    threads.push(new StubThread(events, 1));
    return threads[0]!;
  };
  const pool = poolIn({ openSlot: slotsOf(start), clock: realClock }, { maxWorkers: 1 });
  let other: Future<void> | undefined;
  const retryIf = () => {
    // It wants a worker, and none can be started.
    other = pool.trySubmit(() => {});
    return true;
  };
  const future = pool.trySubmit(new Job({ func: () => {}, retries: 1, retryIf }))!;
  await turn();
  threads[0]!.begin();
  threads[0]!.die();
  for (const each of [other!, future]) assertInstanceOf(await within(each.exception()), PoolBrokenError);
  await within(pool.shutdown());
});

Deno.test("A pool does not break if more workers fail to start than it allows, but one in between has done a job", async () => {
  const fails = [true, true, false, true, true, false];
  const threads: StubThread[] = [];
  const start: StartThread = (events) => {
    const thread = new StubThread(events, 1);
    if (fails.shift()) queueMicrotask(() => thread.die());
    else threads.push(thread);
    return thread;
  };
  // Each worker does one job.
  await using pool = poolIn({ openSlot: slotsOf(start), clock: realClock }, { maxWorkers: 1, maxJobsPerWorker: 1 });
  for (const job of [0, 1]) {
    const future = pool.trySubmit(() => {})!;
    await until(() => threads[job]?.runs.length === 1 || future.done());
    threads[job]!.finish(1);
    await within(future.result());
    await until(() => pool.stats().workers === 0);
  }
  assertEquals(fails, []);
});

/** A pool with an idle worker that has done nothing yet; a second one could not be started, which would work the next time. */
async function halfStaffed() {
  const threads: StubThread[] = [];
  let starts = 0;
  let time = 0;
  const start: StartThread = (events) => {
    if (++starts > 1 && starts <= 4) throw new Error("there is no thread");
    threads.push(new StubThread(events, 1));
    return threads.at(-1)!;
  };
  const environment: Environment = { openSlot: slotsOf(start), clock: { ...realClock, now: () => time } };
  const pool = poolIn(environment, { maxWorkers: 2, idleTimeout: Infinity, initializer: () => {}, onError() {} });
  const future = pool.trySubmit(() => {})!;
  await turn();
  future.cancel();
  threads[0]!.initialized();
  await turn();
  await assertRejects(() => pool.warmUp(), PoolBrokenError, "3 times in a row");
  const otherReady = async () => {
    await until(() => threads.length === 2);
    await turn();
    threads[1]!.initialized();
  };
  return { pool, threads, starts: () => starts, wait: (ms: number) => void (time += ms), otherReady };
}

Deno.test("A pool goes on with the worker that it has if no other can be started, and tries again when a job has been done", async () => {
  const { pool, threads, starts, otherReady } = await halfStaffed();
  await until(() => !internalsOf(pool).pausing);
  submit(pool, 3);
  assertEquals([threads[0]!.runs.length, starts()], [1, 4]);
  threads[0]!.finish(1);
  await otherReady();
  await until(() => threads[1]!.runs.length === 1);
  assertEquals(starts(), 5);
  await end(pool, threads);
});

Deno.test("A pool whose other workers could not be started tries again when the only one has gone without having done anything", async () => {
  const { pool, threads, starts, wait, otherReady } = await halfStaffed();
  wait(2000);
  threads[0]!.die();
  assertEquals([starts(), pool.stats().workers], [4, 0]);
  submit(pool, 1);
  await otherReady();
  await until(() => threads[1]!.runs.length === 1);
  assertEquals(starts(), 5);
  await end(pool, threads);
});

Deno.test("ProcessPool.warmUp() tries again to start a worker that could not be started", async () => {
  const { pool, threads, starts, otherReady } = await halfStaffed();
  const warm = pool.warmUp();
  await otherReady();
  await within(warm);
  assertEquals([threads.length, starts()], [2, 5]);
  await end(pool, threads);
});

Deno.test("A pool that is shut down does not wait for a worker to start that has nothing to do", async () => {
  const { pool, threads } = coldStubs({ initializer: () => {} });
  const future = pool.trySubmit(() => {})!;
  await turn();
  assertEquals([threads.length, pool.stats().workers], [1, 1]);
  future.cancel();
  await within(pool.shutdown());
});

Deno.test("A pool waits twice as long for a worker to take up a job each time that one was stopped as it did not", async () => {
  const errors: unknown[] = [];
  const { pool, threads, pass } = coldStubs({ maxWorkers: 1, onError: (error) => errors.push(error) });
  submit(pool, 1);
  await turn();
  const waits = [0, 0, 0];
  for (const [i] of waits.entries()) {
    while (errors.length === i) {
      pass(1000);
      waits[i]!++;
      await turn();
    }
  }
  // Looks are a second apart: one hears that it is ready, and then more than 2, 4 or 8 in a row hear nothing.
  assertEquals(waits, [1 + 3, 1 + 5, 1 + 9]);
  await end(pool, threads);
});

Deno.test("A pool stops a worker that does not take up a tiny call", async () => {
  const errors: unknown[] = [];
  const options = { maxWorkers: 1, idleTimeout: Infinity, onError: (error: unknown) => errors.push(error) };
  const { pool, threads, pass } = await afterOneJob(options, 0.002, CallableStubThread);
  // It no longer looks whether the first job is taken up.
  pass(2000);
  submit(pool, 1);
  assertEquals(threads[0]!.runs.length, 1);
  pass(5000);
  assertEquals([threads.length, errors.length], [2, 1]);
  await turn();
  await end(pool, threads.slice(1));
});

Deno.test("A pool that may start no worker when it wants the first is broken at once", async () => {
  let loads = 0;
  const load = () => {
    throw new Error(`not now: ${++loads}`);
  };
  const pool = poolIn({ load, clock: realClock }, {});
  const warm = pool.warmUp();
  assertEquals(loads, 3);
  const error = await assertRejects(() => warm, PoolBrokenError);
  assertEquals((error.cause as Error).message, "not now: 3");
  await assertRejects(() => pool.run(() => {}), PoolBrokenError);
  await pool.shutdown();
  await assertRejects(() => pool.run(() => {}), PoolClosedError);
});

Deno.test("A pool breaks if its workers end before they start their first job, unless they had been idle for long", async () => {
  for (const [idle, sent, error] of [[500, 0, PoolBrokenError], [0, 2000, PoolBrokenError], [2000, 0, undefined]] as const) {
    const { pool, threads, pass } = coldStubs({ maxWorkers: 3, idleTimeout: Infinity, onError() {} });
    await pool.warmUp();
    pass(idle);
    const futures = Array.from({ length: 3 }, () => pool.trySubmit(() => {})!);
    pass(sent);
    assertEquals(threads.map(({ runs }) => runs.length), [1, 1, 1]);
    for (const thread of threads.slice()) thread.die();
    if (error === undefined) await pool.warmUp();
    for (const thread of threads) thread.finish(1);
    const errors = await Promise.all(futures.map((future) => future.exception()));
    assertEquals(errors.map((each) => each?.constructor), [error, error, error]);
    await end(pool, threads);
  }
});

Deno.test("ProcessPool.warmUp() rejects if workers end again and again, however long they were ready, while others are not", async () => {
  const { pool, threads, pass } = coldStubs({ maxWorkers: 2, initializer: () => {}, onError() {} });
  const joined = [pool.warmUp().catch((error) => error)];
  await turn();
  for (const index of [0, 2, 3]) {
    pass(1);
    threads[index]!.initialized();
    await turn();
    assertEquals(pool.inspect().map(({ state }) => state).toSorted(), ["idle", "starting"]);
    pass(2000);
    // Whoever joins later does not make the warm-up any younger.
    joined.push(pool.warmUp().catch((error) => error));
    threads[index]!.die();
    await turn();
  }
  for (const error of await within(Promise.all(joined))) assertInstanceOf(error, PoolBrokenError);
  await end(pool, threads);
});

Deno.test("ProcessPool.warmUp() goes on if workers end that had been idle since before", async () => {
  const { pool, threads, pass } = coldStubs({ maxWorkers: 4, initializer: () => {}, idleTimeout: Infinity, onError() {} });
  async function begin(indexes: number[]): Promise<void> {
    await turn();
    for (const index of indexes) threads[index]!.initialized();
    await turn();
  }
  const warmed = pool.warmUp();
  pass(1000);
  await begin([0, 1, 2, 3]);
  await within(warmed);
  pass(5000);
  threads[0]!.die();
  const warmedAgain = pool.warmUp();
  await turn();
  pass(2000);
  for (const index of [1, 2, 3]) threads[index]!.die();
  await begin([4, 5, 6, 7]);
  await within(warmedAgain);
  assertEquals(pool.stats().workers, 4);
  await end(pool, threads);
});

Deno.test("A pool starts one worker for jobs that are done within its head start", async () => {
  const { pool, threads, pass } = coldStubs();
  submit(pool, 10);
  await turn();
  while (threads[0]!.runs.length > 0) threads[0]!.finish(1);
  pass(100);
  assertEquals(threads.length, 1);
  await end(pool, threads);
});

Deno.test("A pool starts the other workers one after another when the first has had its head start", async () => {
  const { pool, threads, pass } = coldStubs();
  submit(pool, 10);
  assertEquals(threads.length, 1);
  await turn();
  pass(4);
  assertEquals(threads.length, 1);
  pass(1);
  assertEquals(threads.length, 2);
  pass(1);
  assertEquals(threads.length, 3);
  submit(pool, 1);
  assertEquals(threads.length, 3);
  pass(1);
  assertEquals(threads.length, 4);
  await end(pool, threads);
});

Deno.test("A pool waits up to 20 ms for a worker that will soon have done what is queued before it starts another", async () => {
  const { pool, threads, pass } = await afterOneJob({ maxWorkers: 3 }, 0.5);
  const [first] = threads as [StubThread];
  const work = (time: number): void => {
    for (let i = 0; i < time; i++) {
      pass(1);
      first.finish(2);
    }
  };
  submit(pool, 16);
  work(10);
  assertEquals([threads.length, pool.stats().finished], [1, 17]);
  submit(pool, 40);
  work(9);
  assertEquals(threads.length, 1);
  work(1);
  assertEquals(threads.length, 2);
  await turn();
  await end(pool, threads);
});

Deno.test("A pool starts another worker when a job takes longer than those before it", async () => {
  const { pool, threads, pass } = await afterOneJob({}, 0.5);
  submit(pool, 20);
  pass(4);
  assertEquals(threads.length, 1);
  pass(1);
  assertEquals(threads.length, 2);
  await turn();
  await end(pool, threads);
});

Deno.test("A pool starts no other worker for short jobs because it has not taken the answers of those that are done", async () => {
  const { pool, threads, pass } = await afterOneJob({}, 0.5);
  submit(pool, 20);
  threads[0]!.end(0);
  pass(5);
  assertEquals(threads.length, 1);
  await turn();
  await end(pool, threads);
});

Deno.test("A pool starts another worker at once for jobs that are not short, or of which nobody knows how long they take", async () => {
  for (const [pace, options] of [[1, {}], [0.5, { jobsPerWorker: 2 }]] as const) {
    const { pool, threads } = await afterOneJob(options, pace);
    submit(pool, 20);
    assertEquals(threads.length, 2);
    await turn();
    await end(pool, threads);
  }
});

Deno.test("A pool starts another worker for many short jobs", async () => {
  const { pool, threads, pass } = await afterOneJob({ maxWorkers: 2 }, 0.5);
  const [first] = threads as [StubThread];
  // From now on it is warm.
  for (let i = 0; i < 64; i++) {
    submit(pool, 1);
    first.finish(1);
  }
  submit(pool, 200);
  pass(4);
  assertEquals(threads.length, 1);
  first.finish(1);
  pass(1);
  assertEquals(threads.length, 2);
  await turn();
  await end(pool, threads);
});

Deno.test("A pool starts no other worker for a map whose chunks the first one does in less than half of the time", async () => {
  const { pool, threads, pass } = await afterOneJob({ maxWorkers: 2 }, 0.2);
  const [first] = threads as [StubThread];
  const results = pool.map((x: number) => x, Array(1000).fill(0), { chunkSize: 1, buffer: 4 })[Symbol.asyncIterator]();
  const readAfter = async (time: number): Promise<void> => {
    const next = results.next();
    await until(() => first.runs.length > 0);
    first.finishChunk();
    await next;
    pass(time);
  };
  for (let i = 0; i < 100; i++) await readAfter(0.5);
  assertEquals(threads.length, 1);
  for (let i = 0; i < 100 && threads.length === 1; i++) await readAfter(0.25);
  assertEquals(threads.length, 2);
  await results.return!();
  await turn();
  await end(pool, threads);
});

Deno.test("A pool starts another worker for a chunk behind one that takes unexpectedly long, although its items keep arriving", async () => {
  for (const [pace, time] of [[0.2, 10], [0.002, 30]] as const) {
    const { pool, threads, pass } = await afterOneJob({ maxWorkers: 2 }, pace);
    const [first] = threads as [StubThread];
    const results = pool.map((x: number) => x, Array(200).fill(0), { chunkSize: 100, buffer: 200 })[Symbol.asyncIterator]();
    const next = results.next();
    await until(() => first.runs.length > 0 && pool.stats().queued + first.runs.length === 2);
    first.begin();
    for (let i = 0; i < time; i++) {
      first.progress(i);
      pass(1);
    }
    assertEquals(threads.length, 2);
    await next;
    await results.return!();
    await turn();
    await end(pool, threads);
  }
});

Deno.test("A pool starts no other worker for tiny jobs as long as the first one keeps up with them", async () => {
  const { pool, threads, pass } = await afterOneJob({ maxWorkers: 2 });
  const [first] = threads as [StubThread];
  for (let i = 0; i < 20; i++) {
    submit(pool, 300);
    assertEquals([first.runs.length, pool.stats().queued], [299, 1]);
    first.finish(299);
    first.finish(1);
    pass(3);
    assertEquals(threads.length, 1);
  }
  submit(pool, 300);
  pass(5);
  assertEquals(threads.length, 2);
  await turn();
  await end(pool, threads);
});

for (const [when, expected] of [["together", [1, 2, 3, 4, 5]], ["one after the other", [1, 2, 3, 4, 5, 6]]] as const) {
  Deno.test(`A pool runs jobs in the order of submission after it took them back from two workers, ${when}`, async () => {
    const { pool, threads, first, second, pass } = await twoStubs(0.5);
    const futures = Array.from({ length: 8 }, () => pool.trySubmit(() => {})!);
    // Each holds every other job.
    first.begin();
    second.begin();
    pass(10);
    second.finish(1);
    second.begin();
    pass(10);
    if (when === "one after the other") {
      second.finish(1);
      second.begin();
    }
    pass(10);
    // What was taken back from the first is sent to the second, which has room for two of these, and then taken back from there.
    pass(20);
    // It comes across those, and is sent others.
    second.finish(second.runs.length);
    second.finish(3);
    assertEquals(futures.flatMap((future, i) => future.done() ? [i] : []), [...expected]);
    await end(pool, threads);
  });
}

Deno.test("A pool runs jobs in the order of submission where one worker is held up and another has turned out to be slow", async () => {
  const { pool, threads, first, second, pass } = await twoStubs(0.2);
  const futures = Array.from({ length: 20 }, () => pool.trySubmit(() => {})!);
  // Each holds every other job.
  first.begin();
  for (let i = 0; i < 3; i++) {
    second.begin();
    // It turns out that each takes ten milliseconds.
    second.pace = 10;
    pass(10);
    second.finish(1);
  }
  // It comes across what was taken back from it, and runs what was taken back from the first.
  second.finish(7);
  second.finish(3);
  assertEquals(futures.flatMap((future, i) => future.done() ? [i] : []), [1, 2, 3, 4, 5, 6]);
  await end(pool, threads);
});

Deno.test("A pool runs what was sent ahead behind a long job elsewhere also while another worker is only idle until its next job is submitted", async () => {
  const { pool, threads, first, second, pass } = await twoStubs(0.5);
  const futures = Array.from({ length: 3 }, () => pool.trySubmit(() => {})!);
  assertEquals([first.runs.length, second.runs.length], [2, 1]);
  first.begin();
  for (let i = 0; i < 25; i++) {
    second.begin();
    pass(1);
    second.finish(1);
    submit(pool, 1);
  }
  assertEquals(futures.map((future) => future.state), ["running", "finished", "finished"]);
  await end(pool, threads);
});

Deno.test("A pool runs a job again behind one that was submitted before it, and that was taken back", async () => {
  const { pool, threads, first, second, pass } = await twoStubs(0.5);
  const futures = Array.from({ length: 8 }, () => pool.trySubmit(new Job({ func: () => {}, retries: 1 }))!);
  first.begin();
  second.begin();
  pass(10);
  second.finish(1);
  second.begin();
  pass(30);
  assertEquals([futures.map((future) => future.running()).indexOf(true, 1), pool.stats().queued], [3, 5]);
  second.die();
  // It comes across what was taken back, and is sent others.
  first.finish(first.runs.length);
  first.finish(1);
  assertEquals(futures.flatMap((future, i) => future.done() ? [i] : []), [0, 1, 2]);
  await end(pool, threads);
});

Deno.test("A pool starts other workers when the first takes long to be ready", async () => {
  const { pool, threads, pass } = coldStubs();
  submit(pool, 10);
  pass(19);
  assertEquals(threads.length, 1);
  pass(1);
  assertEquals(threads.length, 2);
  await turn();
  await end(pool, threads);
});

Deno.test("A pool that is terminated when it stops one of two workers that take up nothing stops each once, and reports that of one", async () => {
  const told: string[] = [], errors: unknown[] = [];
  const observer: PoolObserver = {
    worker(worker, change) {
      if (change !== "stopped") return;
      told.push(`worker ${worker}`);
      pool.terminate();
    },
  };
  const { pool, threads, pass } = coldStubs({ maxWorkers: 2, observers: [observer], onError: (error) => errors.push(error) });
  await pool.warmUp();
  submit(pool, 2);
  assertEquals(threads.map(({ runs }) => runs.length), [1, 1]);
  pass(5000);
  assertEquals([told, errors.length], [["worker 1", "worker 2"], 1]);
  await pool.shutdown();
});

Deno.test("A pool does not take a worker for stuck that needs long to read what took long to write", async () => {
  const errors: string[] = [];
  const { pool, threads, pass } = coldStubs({ maxWorkers: 1, onError: (error) => errors.push(String(error)) });
  await pool.warmUp();
  const [reader] = threads;
  const post = reader!.post.bind(reader);
  reader!.post = (message) => {
    post(message);
    pass(500);
  };
  submit(pool, 1);
  pass(15_000);
  assertEquals([threads.length, errors], [1, []]);
  pass(5000);
  const said = "WorkerDiedError: An idle worker was stopped, as something kept it busy before its first job";
  assertEquals([threads.length, errors], [2, [said]]);
  await turn();
  await end(pool, threads.slice(1));
});

Deno.test("A pool takes a chunk for what its worker died of reading, unless a job before it was taken back", async () => {
  for (const [takenBack, size] of [[true, 4], [false, 1]] as const) {
    const { pool, threads } = await stubs(0.1, { maxWorkers: 1 });
    const before = pool.trySubmit(() => {})!;
    if (!takenBack) threads[0]!.begin();
    const results = Array.fromAsync(pool.map((x: number) => x, [1, 2, 3, 4], { chunkSize: 4 })).catch(() => {});
    await until(() => threads[0]!.sizes.length > 0);
    assertEquals([threads[0]!.sizes, before.cancel()], [[4], takenBack]);
    threads[0]!.die(true);
    await until(() => threads[1] !== undefined && threads[1].sizes.length > 0);
    assertEquals(threads[1]!.sizes, [size]);
    await pool.terminate();
    await results;
  }
});

Deno.test("A pool has a job run beside another, where there is room, unless the next worker is about to be there", async () => {
  // How long the first worker takes to start, how long before the job the next one was started, and how many the first one then holds.
  for (const [startTime, before, held] of [[50, 0, 1], [50, 40, 1], [50, 500, 2], [1000, 0, 2], [1000, 500, 2], [1000, 900, 1]] as const) {
    const { pool, threads, pass } = coldStubs({ maxWorkers: 2, jobsPerWorker: 2, initializer: () => {} }, Infinity);
    submit(pool, 1);
    await turn();
    pass(startTime);
    threads[0]!.initialized();
    await turn();
    const warm = before > 0 ? pool.warmUp() : undefined;
    pass(before);
    submit(pool, 1);
    assertEquals(threads.map(({ runs }) => runs.length), [held, 0], `${startTime} ms, ${before} ms`);
    await turn();
    threads[1]!.initialized();
    await warm;
    await end(pool, threads);
  }
});

Deno.test("A pool starts a worker for each job that runs beside another, all at once, though these do not wait for it", async () => {
  const { pool, threads, pass } = coldStubs({ maxWorkers: 5, jobsPerWorker: 8, initializer: () => {} }, Infinity);
  submit(pool, 1);
  await turn();
  pass(1000);
  threads[0]!.initialized();
  await turn();
  submit(pool, 1);
  pass(5);
  assertEquals(threads.map(({ runs }) => runs.length), [2, 0]);
  // Two at a time are no reason for more.
  for (let i = 0; i < 3; i++) {
    threads[0]!.finish(1);
    submit(pool, 1);
    pass(5);
  }
  assertEquals(threads.map(({ runs }) => runs.length), [2, 0]);
  submit(pool, 2);
  pass(5);
  assertEquals(threads.map(({ runs }) => runs.length), [4, 0, 0, 0]);
  await turn();
  for (const thread of threads.slice(1)) thread.initialized();
  await end(pool, threads);
});

Deno.test("A pool starts no worker while it pauses, but all if it is to warm up", async () => {
  const { pool, threads } = coldStubs();
  submit(pool, 10);
  assertEquals(threads.length, 1);
  const ready = pool.warmUp();
  assertEquals(threads.length, 4);
  await ready;
  await end(pool, threads);
});

Deno.test("A pool replaces its only worker at once if that dies within its head start", async () => {
  const { pool, threads } = coldStubs({ onError: () => {} });
  submit(pool, 10);
  await turn();
  threads[0]!.die();
  assertEquals(threads.length, 2);
  await turn();
  await end(pool, threads);
});

Deno.test("A pool starts another worker for jobs that were sent ahead behind one that takes unexpectedly long", async () => {
  const { pool, threads, pass } = await afterOneJob({ maxWorkers: 3 });
  const [first] = threads as [StubThread];
  submit(pool, 10);
  first.begin();
  assertEquals([first.runs.length, pool.stats().queued], [10, 0]);
  pass(19);
  // New jobs join the others: starting a worker takes as long as they have waited.
  submit(pool, 1);
  assertEquals([first.runs.length, threads.length], [11, 1]);
  pass(2);
  assertEquals(threads.length, 2);
  submit(pool, 1);
  assertEquals([first.runs.length, pool.stats().queued], [11, 11]);
  await turn();
  assertEquals([threads[1]!.runs.length, pool.stats().queued], [1, 10]);
  // One may be enough.
  pass(18);
  assertEquals(threads.length, 2);
  pass(2);
  assertEquals(threads.length, 3);
  await end(pool, threads);
  assertEquals(pool.stats().finished, 13);
});

Deno.test("A pool has jobs run elsewhere that were sent ahead behind one that takes unexpectedly long, although no other worker is idle", async () => {
  const { pool, threads, pass, first, second } = await twoStubs(0.5);
  const futures = Array.from({ length: 8 }, () => pool.trySubmit(() => {})!);
  first.begin();
  second.begin();
  assertEquals([first.runs.length, second.runs.length], [4, 4]);
  submit(pool, 100);
  // The other worker always has enough to do, and so does the queue.
  const goOn = (time: number): void => {
    for (let i = 0; i < time; i++) {
      second.finish(1);
      second.begin();
      pass(1);
    }
  };
  goOn(10);
  assertEquals(futures.filter((future) => !future.done()).length, 4);
  assert(pool.stats().queued > 50);
  goOn(20);
  assert(pool.stats().queued > 50);
  assertEquals(futures.map((future) => future.done()), futures.map((future) => future !== futures[0]));
  assertEquals(futures[0]!.state, "running");
  await end(pool, threads);
  assertEquals(pool.stats().finished, 110);
});

Deno.test("A pool has jobs run elsewhere that were sent ahead behind one that takes unexpectedly long, although nothing is queued", async () => {
  const { pool, threads, pass, first, second } = await twoStubs(0.5);
  const futures = Array.from({ length: 4 }, () => pool.trySubmit(() => {})!);
  first.begin();
  second.begin();
  assertEquals([first.runs.length, second.runs.length], [2, 2]);
  // The other worker always has enough to do, as the next job comes with each result.
  const goOn = (time: number): void => {
    for (let i = 0; i < time; i++) {
      second.finish(1);
      second.begin();
      submit(pool, 1);
      assertEquals(pool.stats().queued, 0);
      pass(1);
    }
  };
  goOn(10);
  assertEquals(futures.filter((future) => !future.done()).length, 2);
  goOn(20);
  assertEquals(futures.map((future) => future.done()), [false, true, true, true]);
  assertEquals(futures[0]!.state, "running");
  await end(pool, threads);
  assertEquals(pool.stats().finished, 36);
});

Deno.test("A pool starts another worker for jobs that would wait for long, although each is answered soon", async () => {
  const { pool, threads, pass } = await afterOneJob({ maxWorkers: 2 });
  const [first] = threads as [StubThread];
  submit(pool, 100);
  first.begin();
  first.finish(1);
  first.begin();
  pass(10);
  assertEquals(threads.length, 1);
  // It turns out that each takes a millisecond.
  first.pace = 1;
  pass(2);
  assertEquals(threads.length, 2);
  await turn();
  await end(pool, threads);
});

Deno.test("A pool that is shut down starts another worker for jobs that were sent ahead behind one that takes unexpectedly long", async () => {
  const { pool, threads, pass } = await afterOneJob({ maxWorkers: 2 });
  submit(pool, 10);
  threads[0]!.begin();
  const ended = pool.shutdown();
  pass(19);
  assertEquals([threads.length, threads[0]!.runs.length], [1, 10]);
  pass(2);
  assertEquals(threads.length, 2);
  await turn();
  assertEquals(threads[1]!.runs.length, 1);
  await until(() => {
    threads[1]!.finish(Infinity);
    return pool.stats().finished === 10;
  });
  threads[0]!.finish(Infinity);
  await ended;
  assertEquals(pool.stats().finished, 11);
});

Deno.test("A pool that is shut down keeps an idle worker for jobs that were sent ahead to another, and no longer", async () => {
  const { pool, threads } = await stubs(0.002, { maxWorkers: 2 });
  const [first, second] = threads as [StubThread, StubThread];
  submit(pool, 10);
  first.begin();
  assertEquals([first.runs.length, second.runs.length], [10, 0]);
  const ended = pool.shutdown();
  await until(() => second.runs.length > 0);
  second.finish(1);
  assertEquals(second.runs.length, 8);
  second.finish(8);
  await until(() => pool.stats().workers === 1);
  first.finish(Infinity);
  await ended;
  assertEquals(pool.stats().finished, 12);
});

Deno.test("A pool leaves a worker what that may be taking up, and what was moved to it, when it takes jobs back", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.002, { maxWorkers: 2 });
  const [first, second] = threads as [CallableStubThread, CallableStubThread];
  const large = new ArrayBuffer(2 ** 20);
  pool.trySubmit(new Job({ func: (_: ArrayBuffer) => {}, args: [large], transfer: [large] }));
  submit(pool, 10);
  await undefined;
  assertEquals([first.runs.length, second.runs.length], [11, 0]);
  while (second.runs.length === 0) await turn();
  second.finish(1);
  assertEquals([first.runs.length, second.runs.length], [11, 8]);
  first.finish(2);
  await end(pool, threads);
  assertEquals(pool.stats().finished, 13);
});

Deno.test("ProcessPool.shutdown({ cancelPending }) cancels what was sent ahead, too", async () => {
  const { pool, threads } = await stubs(0.002, { maxWorkers: 1 });
  const futures = Array.from({ length: 10 }, () => pool.trySubmit(() => {})!);
  threads[0]!.begin();
  const ended = pool.shutdown({ cancelPending: true });
  assertEquals(futures.map((future) => future.cancelled()), futures.map((_, i) => i > 0));
  threads[0]!.finish(10);
  await ended;
  assertEquals(futures[0]!.state, "finished");
});

Deno.test("A pool has settled all that returned together before it calls back", async () => {
  const { pool, threads } = await stubs(0.5, { maxWorkers: 1 });
  const seen: string[][] = [];
  const futures = ["a", "b", "c", "d"].map((id) => {
    const job = new Job({ id, func: () => "", onDone: () => void seen.push([id, ...futures.map(({ state }) => state)]) });
    return pool.trySubmit(job)!;
  });
  assert(futures[1]!.cancel());
  seen.length = 0;
  // What was taken back is answered, too.
  threads[0]!.finishTogether(["A", undefined, "C"]);
  const states = ["finished", "cancelled", "finished", "queued"];
  assertEquals(seen, [["a", ...states], ["c", ...states]]);
  assertEquals(await Promise.all([futures[0]!.result(), futures[2]!.result()]), ["A", "C"]);
  await end(pool, threads);
});

Deno.test("A pool has settled calls that returned together before it calls back for one of them", async () => {
  const { pool, threads } = await stubs(0.5, { maxWorkers: 1 });
  const task = (x: number) => x;
  const order: unknown[] = [];
  const withCallback = pool.trySubmit(task, 1)!;
  withCallback.addDoneCallback(() => order.push(others.map((future) => future.state)));
  const others = [2, 3].map((x) => pool.trySubmit(task, x)!);
  threads[0]!.finishTogether([10, 20, 30]);
  assertEquals(order, [["finished", "finished"]]);
  assertEquals(await Promise.all([withCallback, ...others].map((future) => future.result())), [10, 20, 30]);
  assertEquals(pool.stats().finished, 4);
  await end(pool, threads);
});

Deno.test("A pool that looks for workers that are kept busy takes no answers: those come in portions", async () => {
  const { pool, threads, pass } = await afterOneJob({ maxWorkers: 1 });
  const [thread] = threads as [StubThread];
  let drained = 0;
  const { drain } = thread;
  thread.drain = () => void drained++;
  submit(pool, 1);
  thread.begin();
  pass(3500);
  assertEquals(drained, 0);
  thread.drain = drain;
  await end(pool, threads);
});

Deno.test("A pool sends a job that waits when it finds that the worker has long skipped the one that was taken back", async () => {
  const { pool, threads, pass } = await afterOneJob({ maxWorkers: 1 }, 5);
  const [thread] = threads as [StubThread];
  // It no longer looks whether the first job is taken up.
  pass(2000);
  const [first, second] = [1, 2].map(() => pool.trySubmit(() => {})!);
  assert(first!.cancel());
  assertEquals([thread.runs.length, pool.stats().queued], [1, 1]);
  thread.drain = () => {
    thread.drain = () => {};
    thread.finish(1);
  };
  pass(1000);
  assertEquals([thread.runs.length, pool.stats().queued], [1, 0]);
  thread.finish(1);
  await within(second!.result());
  await end(pool, threads);
});

Deno.test("A pool does not look for room for each of many jobs for which it has none", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.5, { maxWorkers: 1 });
  const choose = Crew.prototype.choose;
  let looks = 0;
  Crew.prototype.choose = function (queued) {
    looks++;
    return choose.call(this, queued);
  };
  try {
    submit(pool, 500);
    const { length } = threads[0]!.runs;
    assertEquals([length, pool.stats().queued], [4, 496]);
    assert(looks < 50, `${looks} looks`);
    // It is sent as soon as there is room, in its turn.
    threads[0]!.finishTogether([0, 0]);
    assertEquals([threads[0]!.runs.length, pool.stats().queued], [4, 494]);
  } finally {
    Crew.prototype.choose = choose;
  }
  await end(pool, threads);
});

Deno.test("A pool gives a short job to a worker that will be done before another has woken up, and otherwise to the other", async () => {
  const { pool, threads, wait } = await stubsOf(CallableStubThread, 0.02, { maxWorkers: 2 });
  const [first, second] = threads as [CallableStubThread, CallableStubThread];
  const given = (): number[] => [first.runs.length, second.runs.length];
  // Other than mere calls, these are not gathered.
  const send = (count: number): void => {
    for (let i = 0; i < count; i++) pool.trySubmit(new Job({ func: () => {} }));
  };
  second.isAwake = false;
  for (const expected of [[1, 0], [2, 0], [3, 0], [3, 1], [3, 2]]) {
    send(1);
    assertEquals(given(), expected);
  }
  second.finishTogether([0, 0]);
  first.finishTogether([0, 0, 0]);
  send(2);
  assertEquals(given(), [2, 0]);
  first.begin();
  wait(2);
  // What it was sent ahead goes to the other, if it takes longer than it seemed.
  await until(() => second.runs.length === 1);
  first.finishTogether([0, 0]);
  second.finishTogether([0]);
  // One that need not be woken takes it at once.
  second.isAwake = true;
  send(2);
  assertEquals(given(), [1, 1]);
  second.finishTogether([0]);
  // So does one that has to be, if the other takes longer than it seemed.
  second.isAwake = false;
  wait(2);
  send(1);
  assertEquals(given(), [1, 1]);
  await end(pool, threads);
});

Deno.test("A pool sends a job when there is room, even if there was none just before", async () => {
  const { pool, threads } = await stubsOf(CallableStubThread, 0.5, { maxWorkers: 1 });
  submit(pool, 5);
  threads[0]!.finishTogether([0, 0, 0]);
  assertEquals([threads[0]!.runs.length, pool.stats().queued], [2, 0]);
  pool.trySubmit((x: number) => -x, 1);
  assertEquals([threads[0]!.runs.length, pool.stats().queued], [3, 0]);
  await end(pool, threads);
});

Deno.test("A pool settles what returned together in the order in which it did, whatever it is", async () => {
  const { pool, threads } = await stubs(0.5, { maxWorkers: 1 });
  const task = (x: number) => x;
  const futures = [
    pool.trySubmit(new Job({ func: task, args: [0] }))!,
    pool.trySubmit(task, 1)!,
    pool.trySubmit(task, 2)!,
    pool.trySubmit(task, 3)!,
  ];
  futures[2]!.addDoneCallback(() => {});
  const completed: number[] = [];
  const all = (async () => {
    for await (const future of asCompleted(futures)) completed.push(futures.indexOf(future));
  })();
  await undefined;
  threads[0]!.finishTogether([0, 1, 2, 3]);
  await all;
  assertEquals(completed, [0, 1, 2, 3]);
  await end(pool, threads);
});
