import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  currentJob,
  type Future,
  Job,
  JobCancelledError,
  type ObservedJob,
  PoolBrokenError,
  PoolClosedError,
  type PoolObserver,
  ProcessPool,
} from "@procpool/process-pool";
import type { WorkerInspection } from "../pool/inspection.ts";
import { Measurement, Times } from "../pool/measurement.ts";
import { JobRecord, Observation, type ObservedPool } from "../pool/observation.ts";
import type { Ticket } from "../pool/ticket.ts";
import { within } from "./fixtures.ts";
import { meet, Meeting, seeded, thrownBy, turn, until } from "./helpers.ts";
import { SimulatedClock } from "./simulation/simulated_clock.ts";

/** Returns a quantile by its definition: at least this share of the times is no longer. */
function quantile(times: number[], part: number): number {
  return times.toSorted((a, b) => a - b)[Math.ceil(part * times.length) - 1]!;
}

function assertNear(actual: number, expected: number): void {
  assert(Math.abs(actual - expected) <= expected * 0.002, `${actual} is not ${expected}`);
}

Deno.test("Times gives quantiles to three figures, of a microsecond and of an hour", () => {
  const random = seeded(1);
  const times = Array.from({ length: 20_000 }, () => 10 ** (random() * 9.5 - 3));
  const all = new Times();
  for (const time of times) all.record(time);
  const { count, p50, p90, p95, p99, max } = all.quantiles();
  assertEquals([count, max], [20_000, Math.max(...times)]);
  for (const [actual, part] of [[p50, 0.5], [p90, 0.9], [p95, 0.95], [p99, 0.99]] as const) assertNear(actual, quantile(times, part));
});

Deno.test("Times.merge() is as if all had been recorded in one", () => {
  const [one, other, both] = [new Times(), new Times(), new Times()];
  for (let i = 1; i <= 10_000; i++) {
    (i % 3 === 0 ? one : other).record(i);
    both.record(i);
  }
  one.merge(other);
  assertEquals(one.quantiles(), both.quantiles());
});

Deno.test("Times has zeros without times, and accepts times that are too short or too long for it", () => {
  const times = new Times();
  assertEquals(times.quantiles(), { count: 0, p50: 0, p90: 0, p95: 0, p99: 0, max: 0 });
  times.record(0);
  times.record(1e12);
  assertEquals([times.quantiles().count, times.quantiles().max], [2, 1e12]);
});

/** A measurement of workers that run two jobs at a time, and the means to tell it of jobs. */
function measured() {
  const clock = new SimulatedClock();
  const measurement = new Measurement(clock);
  measurement.opened({ jobsPerWorker: 2 } as ObservedPool);

  function submit(items = 1): JobRecord {
    const job = new JobRecord(0, () => {}, { items, submitted: clock.now() });
    measurement.submitted(job);
    return job;
  }

  /** Notes the next run of a job, which ends now. */
  function ran(job: JobRecord, { worker = 1, ms }: { worker?: number; ms: number }): JobRecord {
    return Object.assign(job, { worker, started: clock.now() - ms, ended: clock.now(), runs: job.runs + 1, settled: clock.now() });
  }

  return { clock, measurement, submit, ran };
}

Deno.test("Measurement counts a chunk with the mean of its items, each run, and the waiting before the first", () => {
  const { clock, measurement, submit, ran } = measured();
  clock.creep(100);
  const chunk = submit(10);
  clock.creep(20);
  const job = submit();
  clock.creep(80);
  measurement.settled(ran(chunk, { ms: 80 }));
  measurement.retried(ran(job, { ms: 50 }));
  clock.creep(800);
  measurement.settled(ran(job, { ms: 700 }));
  const { waiting, running, throughput } = measurement.read([]);
  assertEquals([waiting.count, waiting.max], [2, 30]);
  assertEquals([running.count, Math.round(running.p50), running.max], [3, 50, 700]);
  // Eleven items in 900 ms.
  assertEquals(throughput, 11 / 900 * 1000);
});

Deno.test("Measurement gives the share of a worker's time in which it ran jobs, also of the present ones, and forgets a worker that has ended", () => {
  const { clock, measurement, submit, ran } = measured();
  const read = (...jobs: number[]) => {
    const worker = { worker: 1, jobs: jobs.map((time) => ({ for: time })) } as unknown as WorkerInspection;
    return measurement.read([worker]).workers;
  };
  measurement.worker(1, "starting");
  clock.creep(5000);
  measurement.worker(1, "ready");
  assertEquals(read(), [{ worker: 1, jobs: 0, utilisation: 0 }]);
  clock.creep(1000);
  measurement.settled(ran(submit(), { ms: 300 }));
  assertEquals(read(), [{ worker: 1, jobs: 1, utilisation: 0.15 }]);
  assertEquals(read(500, 200), [{ worker: 1, jobs: 1, utilisation: 0.5 }]);
  // Clocks of two threads differ a little.
  assertEquals(read(1000, 1000), [{ worker: 1, jobs: 1, utilisation: 1 }]);
  measurement.worker(1, "closed");
  assertEquals(read(), [{ worker: 1, jobs: 0, utilisation: 0 }]);
});

for (const backend of ["worker", "killable", "inline"] as const) {
  Deno.test(`ProcessPool.stats() measures waiting and running as the tasks themselves do (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 2, measure: true });
    const spin = (ms: number) => {
      const begin = performance.now();
      while (performance.now() - begin < ms);
      return performance.now() - begin;
    };
    const ran = await within(Promise.all(Array.from({ length: 100 }, (_, i) => pool.run(spin, i < 90 ? 1 : 4))));
    const { waiting, running, throughput, workers } = pool.stats().measured!;
    assertEquals([waiting.count, running.count], [100, 100]);
    // The worker's own measure includes the task's, except for what is lost when times are added.
    assert(running.p50 >= quantile(ran, 0.5) * 0.998, `${running.p50} < ${quantile(ran, 0.5)}`);
    assert(running.max >= Math.max(...ran) - 1e-6, `${running.max} < ${Math.max(...ran)}`);
    assert(waiting.max > waiting.p50 && waiting.p50 > 0);
    assert(throughput > 0 && throughput < 2 * 1000, `${throughput}`);
    assertEquals(workers.reduce((sum, { jobs }) => sum + jobs, 0), 100);
    assert(workers.every(({ utilisation }) => utilisation > 0 && utilisation <= 1), JSON.stringify(workers));
  });
}

Deno.test("ProcessPool.stats() measures nothing of a pool that is not to measure", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  await pool.run((x: number) => x, 1);
  assertEquals(pool.stats().measured, undefined);
});

Deno.test("ProcessPool.stats() measures chunks with the mean of their items, and counts each item in the throughput", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, measure: true });
  for await (const _ of pool.map((x: number) => x, Array(1000).keys(), { chunkSize: 100 }));
  const { waiting, running, throughput } = pool.stats().measured!;
  assertEquals([waiting.count, running.count], [10, 10]);
  assert(running.max > 0 && throughput > 0);
});

Deno.test("ProcessPool.stats() counts what runs at the moment in the utilisation", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, measure: true });
  const meeting = new Meeting();
  const result = pool.run(meet, meeting.memory);
  await meeting.come();
  while (pool.stats().measured!.workers[0]!.utilisation === 0) await turn();
  assertEquals(pool.stats().measured!.workers[0]!.jobs, 0);
  meeting.letGo();
  await result;
});

Deno.test("ProcessPool.inspect() says what each worker does, and for how long", async () => {
  const start = new Meeting();
  await using pool = new ProcessPool({ maxWorkers: 2, initializer: meet, initArgs: [start.memory] });
  assertEquals(pool.inspect(), []);
  const warm = pool.warmUp();
  await start.come();
  assertEquals(pool.inspect().map(({ worker, state, jobs }) => ({ worker, state, jobs })), [
    { worker: 1, state: "starting", jobs: [] },
    { worker: 2, state: "starting", jobs: [] },
  ]);
  start.letGo();
  await warm;
  assertEquals(pool.inspect().map(({ state }) => state), ["idle", "idle"]);
  const meeting = new Meeting();
  const result = pool.run(new Job({ id: "it", func: meet, args: [meeting.memory] }));
  await meeting.come();
  while (pool.inspect().every(({ for: time, state }) => state !== "running" || time < 5)) await turn();
  const running = pool.inspect().find(({ state }) => state === "running")!;
  assertEquals(running.jobs.map(({ id, task, attempt }) => ({ id, task, attempt })), [{ id: "it", task: "meet", attempt: 1 }]);
  assertEquals([running.for, running.ahead], [running.jobs[0]!.for, 0]);
  meeting.letGo();
  await result;
  assertEquals(pool.inspect().every(({ state, for: time }) => state === "idle" && time >= 0), true);
});

Deno.test("ProcessPool.inspect() tells which item of a map runs", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const meetings = [new Meeting(), new Meeting()];
  meetings[0]!.letGo();
  const results = pool.map(meet, meetings.map(({ memory }) => memory), { chunkSize: 2 });
  const first = results.next();
  await meetings[1]!.come();
  assertEquals(pool.inspect()[0]!.jobs.map(({ id, task }) => [id, task]), [[1, "meet"]]);
  meetings[1]!.letGo();
  await first;
});

Deno.test("console.log() shows what a pool, a job and a future are about", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const square = (x: number) => x * x;
  const job = new Job({ id: 7, func: square, args: [3], timeout: 100 });
  assertEquals(Deno.inspect(job), `Job { id: 7, task: "square", args: [ 3 ], timeout: 100 }`);
  const future = await pool.submit(job);
  assertEquals(Deno.inspect(future), `Future { id: 7, task: "square", state: "queued" }`);
  await future.result();
  assertEquals(Deno.inspect(future), `Future { id: 7, task: "square", state: "finished", result: 9 }`);
  const failed = await pool.submit(() => {
    throw new RangeError("no");
  });
  await failed.exception();
  assert(Deno.inspect(failed).includes('state: "failed",\n  error: RangeError: no\n'), Deno.inspect(failed));
  const shown = Deno.inspect(pool);
  assert(shown.startsWith('ProcessPool {\n  state: "open",\n  workers: 1,'), shown);
  assert(shown.includes("finished: 1") && !shown.includes("measured"), shown);
});

/** The events that an observer receives, as words. */
class Listener implements PoolObserver {
  events: string[] = [];
  jobs: ObservedJob[] = [];
  submitted = (job: ObservedJob) => this.#note("submitted", job);
  refused = (job: ObservedJob) => this.#note("refused", job);
  admitted = (job: ObservedJob) => this.#note("admitted", job);
  sent = (job: ObservedJob) => this.#note("sent", job);
  retried = (job: ObservedJob) => this.#note("retried", job);
  settled = (job: ObservedJob) => this.#note(job.state!, job);
  closed = () => void this.events.push("closed");

  #note(what: string, job: ObservedJob): void {
    this.events.push(`${what} ${job.id}`);
    this.jobs.push(job);
  }
}

Deno.test("PoolObserver is told of each job in order, with times that follow each other", async () => {
  const listener = new Listener();
  {
    await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 1, observers: [listener] });
    const fails = () => {
      throw new Error("no");
    };
    await Promise.all([
      thrownBy(() => pool.run(new Job({ id: "a", func: fails, retries: 1, retryIf: () => true }))),
      pool.run(new Job({ id: "b", func: (x: number) => x, args: [1] })),
    ]);
  }
  const { events } = listener;
  const of = (id: string) => events.filter((event) => event.endsWith(` ${id}`)).map((event) => event.split(" ")[0]);
  assertEquals(of("a"), ["submitted", "admitted", "sent", "retried", "sent", "failed"]);
  assertEquals(of("b"), ["submitted", "admitted", "sent", "finished"]);
  // It waited at the gate.
  assert(events.indexOf("submitted b") < events.indexOf("failed a") && events.indexOf("failed a") < events.indexOf("admitted b"));
  assertEquals(events.at(-1), "closed");
  for (const job of new Set(listener.jobs)) {
    const times = [job.submitted, job.admitted, job.sent, job.started, job.ended, job.settled] as number[];
    assertEquals(times, times.toSorted((a, b) => a - b), `job ${job.id}`);
    assertEquals([job.worker, job.items], [1, 1]);
  }
});

Deno.test("Observation keeps the times that a worker has noted between those of the caller, whose clock may differ a little", async () => {
  let time = 10;
  const observation = new Observation([], { now: () => time, report: () => {} });
  const ticket = { id: 1, func: () => {} } as unknown as Ticket;
  observation.submitted(ticket);
  observation.sent(ticket, 1);
  await undefined;
  time = 20;
  const cases: [started: number, ended: number, expected: number[]][] = [
    [12, 15, [12, 15]],
    [9, 15, [10, 15]],
    [12, 21, [12, 20]],
    [21, 22, [20, 20]],
    [15, 12, [15, 15]],
    // It has noted no end.
    [12, 0, [12, 20]],
  ];
  for (const [started, ended, expected] of cases) {
    observation.ran(ticket, started, ended);
    assertEquals([ticket.observed!.started, ticket.observed!.ended], expected);
  }
});

Deno.test("Observation reads the clock once for what follows from one event, and again for what happens in another turn", async () => {
  let reads = 0;
  const observation = new Observation([], { now: () => ++reads, report: () => {} });
  const ticket = { id: 1, func: () => {}, countItems() {} } as unknown as Ticket;
  observation.submitted(ticket);
  observation.admitted(ticket);
  await undefined;
  observation.sent(ticket, 1);
  await undefined;
  observation.settled(ticket, { state: "cancelled", error: undefined });
  const { submitted, admitted, sent, settled } = ticket.observed!;
  assertEquals([submitted, admitted, sent, settled], [1, 1, 2, 3]);
});

Deno.test("PoolObserver that throws is reported, and the pool goes on", async () => {
  const reported: unknown[] = [];
  const observer: PoolObserver = {
    sent: () => {
      throw new Error("of sent");
    },
    // Its type does not distinguish it from one that returns nothing.
    settled: () => Promise.reject(new Error("of settled")) as unknown as void,
    closed: () => Promise.reject(new Error("of closed")),
  };
  {
    await using pool = new ProcessPool({ maxWorkers: 1, observers: [observer], onError: (error) => reported.push(error) });
    assertEquals(await pool.run((x: number) => x, 1), 1);
  }
  assertEquals(reported.map(String), ["Error: of sent", "Error: of settled", "Error: of closed"]);
});

Deno.test("PoolObserver is told that a job has failed, even if its task has thrown what cannot be examined", async () => {
  const thrown = new Proxy({}, {
    getPrototypeOf() {
      throw new Error("It has no class");
    },
  });
  const told: number[][] = [];
  const observer: PoolObserver = { settled: ({ failed, timedOut }) => void told.push([failed, timedOut]) };
  await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1, queueSize: 1, observers: [observer] });
  const task = (): number => {
    throw thrown;
  };
  assert(await thrownBy(() => within(pool.run(task))) === thrown);
  const [outcome] = await within(Array.fromAsync(pool.map(task, [1], { settled: true })));
  assertEquals(outcome!.status, "rejected");
  assertEquals(told, [[1, 0], [1, 0]]);
});

Deno.test("PoolObserver is told of submissions within the call, where the caller's context is", async () => {
  let current = "none";
  const seen: string[] = [];
  await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 1, observers: [{ submitted: () => void seen.push(current) }] });
  const results: Promise<unknown>[] = [];
  for (const name of ["a", "b", "c"]) {
    current = name;
    results.push(pool.run((x: number) => x, 1));
    current = "none";
  }
  await Promise.all(results);
  assertEquals(seen, ["a", "b", "c"]);
});

Deno.test("PoolObserver is told once that its pool is closed, however often that is ended", async () => {
  let closed = 0;
  const pool = new ProcessPool({ maxWorkers: 1, observers: [{ closed: () => void closed++ }] });
  await Promise.all([pool.shutdown(), pool.terminate()]);
  await pool.shutdown();
  await pool.terminate();
  assertEquals(closed, 1);
});

Deno.test("PoolObserver is told how each item of a chunk that is cut off has ended", async () => {
  const settled: number[][] = [];
  const observer: PoolObserver = {
    settled: ({ finished, failed, cancelled, timedOut }) => void settled.push([finished, failed, cancelled, timedOut]),
  };
  const wait = async (ms: number): Promise<number> => {
    await new Promise((resolve) => setTimeout(resolve, ms));
    if (ms === 2) throw new Error("two");
    return ms;
  };
  {
    await using pool = new ProcessPool({ maxWorkers: 1, observers: [observer] });
    const results = pool.map(wait, [1, 2, 1, 60_000, 1], { chunkSize: 5, settled: true });
    for (let n = 0; n < 3; n++) await results.next();
    await pool.terminate();
    const { finished, failed, cancelled } = pool.stats();
    assertEquals(settled, [[finished, failed, cancelled, 0]]);
    assertEquals(settled.pop(), [2, 3, 0, 0]);
  }
  {
    await using pool = new ProcessPool({ maxWorkers: 1, observers: [observer] });
    const results = pool.map(wait, [1, 100, 1, 1], { chunkSize: 4 });
    await results.next();
    await results.return!();
    await pool.shutdown();
    const { finished, failed, cancelled } = pool.stats();
    assertEquals(settled.pop(), [finished, failed, cancelled, 0]);
    assert(cancelled > 0);
  }
  {
    await using pool = new ProcessPool({ backend: "killable", maxWorkers: 1, observers: [observer] });
    const spin = (x: number): number => {
      while (x === 2);
      return x;
    };
    await Array.fromAsync(pool.map(spin, [1, 2, 3], { chunkSize: 3, settled: true, timeout: 200 }));
    assertEquals(settled.pop(), [2, 1, 0, 1]);
    await thrownBy(() => pool.run(new Job({ func: spin, args: [2], timeout: 100 })));
    assertEquals(settled, [[0, 1, 0, 1]]);
  }
});

Deno.test("PoolObserver may ask how much there is as soon as the pool is made", async () => {
  const levels: unknown[] = [];
  const pool = new ProcessPool({ observers: [{ opened: (pool) => levels.push(pool.levels()) }] });
  assertEquals(levels, [{ waiting: 0, queued: 0, running: 0, workers: 0 }]);
  await pool.shutdown();
});

Deno.test("PoolObserver may ask for measured times when a worker starts", async () => {
  const reported: unknown[] = [];
  const seen: unknown[] = [];
  const observer: PoolObserver = { worker: (_, change) => void seen.push([change, pool.stats().measured!.workers.length]) };
  const pool: ProcessPool = new ProcessPool({
    maxWorkers: 1,
    measure: true,
    observers: [observer],
    onError: (error) => reported.push(error),
  });
  assertEquals(await pool.run((x: number) => x, 1), 1);
  await pool.shutdown();
  assertEquals([reported, seen.slice(0, 2)], [[], [["starting", 1], ["ready", 1]]]);
});

Deno.test("PoolObserver may cancel thousands of jobs when it is told that one has failed: all settle, and each is told, after the one before", async () => {
  const futures: Future<number>[] = [];
  const told: unknown[] = [], reported: unknown[] = [];
  let depth = 0, deepest = 0;
  const failFast: PoolObserver = {
    settled({ id, state }) {
      deepest = Math.max(deepest, ++depth);
      told.push(id);
      if (state !== "finished") { for (const future of futures) future.cancel(); }
      depth--;
    },
  };
  const last: unknown[] = [];
  const observers = [failFast, { settled: ({ id }: ObservedJob) => void last.push(id) }];
  const pool = new ProcessPool({ backend: "inline", maxWorkers: 1, queueSize: 3000, observers, onError: (error) => reported.push(error) });
  await pool.run(new Job({ id: "first", func: () => {} }));
  for (let id = 0; id < 3000; id++) futures.push(pool.trySubmit(new Job({ id, func: () => id }))!);
  futures[0]!.cancel();
  assert(futures.every((future) => future.cancelled()));
  const ids = ["first", ...Array.from({ length: 3000 }, (_, id) => id)];
  assertEquals([told, last, deepest, reported], [ids, ids, 1, []]);
  await pool.shutdown();
});

Deno.test("PoolObserver may abort a job whatever it is told of it", async () => {
  for (const told of ["submitted", "admitted", "sent"] as const) {
    const controller = new AbortController();
    const observer: PoolObserver = { [told]: () => controller.abort(new RangeError(told)) };
    await using pool = new ProcessPool({ maxWorkers: 1, observers: [observer] });
    const meeting = new Meeting();
    const error = await thrownBy(() => within(pool.run(new Job({ func: meet, args: [meeting.memory], signal: controller.signal }))));
    assertEquals((error as Error).message, told);
    meeting.letGo();
  }
});

for (const how of ["submit", "run"] as const) {
  Deno.test(`PoolObserver may abort a job, or shut the pool down, when it is told of a ${how}() that has to wait: it is refused at once`, async () => {
    for (const deed of ["abort", "shutdown"] as const) {
      const controller = new AbortController();
      const refused: unknown[] = [];
      const observer: PoolObserver = {
        submitted({ id }) {
          if (id !== "late") return;
          if (deed === "abort") controller.abort(new RangeError("not wanted"));
          else pool.shutdown();
        },
        refused: (_, error) => void refused.push(error),
      };
      const pool: ProcessPool = new ProcessPool({ maxWorkers: 1, queueSize: 1, observers: [observer] });
      const first = await pool.submit(() => new Promise(() => {}));
      const job = new Job({ id: "late", func: () => {}, signal: controller.signal });
      const late: Promise<unknown> = how === "run" ? pool.run(job) : pool.submit(job);
      const error = await within(assertRejects(() => late, deed === "abort" ? RangeError : PoolClosedError));
      assertEquals([refused, pool.stats().waiting, first.done()], [[error], 0, false]);
      await pool.terminate();
    }
  });
}

Deno.test("PoolObserver may terminate the pool when it is told that a worker has died: what that held is not run again", async () => {
  const told: string[] = [];
  let end: Promise<void> | undefined;
  const observer: PoolObserver = {
    worker(worker, change) {
      told.push(`worker ${worker} ${change}`);
      if (change === "died") end ??= pool.terminate();
    },
    settled: ({ id, state }) => void told.push(`job ${id} ${state}`),
  };
  const pool: ProcessPool = new ProcessPool({ maxWorkers: 1, observers: [observer] });
  const error = await thrownBy(() => within(pool.run(new Job({ id: 1, func: () => Deno.exit(), retries: 1 }))));
  assertInstanceOf(error, JobCancelledError);
  await within(end!);
  assertEquals(told.toSorted(), ["job 1 cancelled", "worker 1 died", "worker 1 ready", "worker 1 starting"]);
});

Deno.test("PoolObserver is told once that a worker was stopped, also if tasks terminate the pool again when they are told to stop", async () => {
  const told: string[] = [];
  const observer: PoolObserver = {
    worker: (worker, change) => void (change === "stopped" && told.push(`worker ${worker}`)),
    settled: ({ id }) => void told.push(`job ${id}`),
  };
  const pool: ProcessPool = new ProcessPool({ backend: "inline", maxWorkers: 3, observers: [observer] });
  await pool.warmUp();
  const untilTold = (): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    currentJob()!.signal.addEventListener("abort", () => {
      pool.terminate("again");
      resolve();
    });
    return promise;
  };
  const runs = [1, 2, 3].map((id) => thrownBy(() => pool.run(new Job({ id, func: untilTold }))));
  await until(() => pool.inspect().every(({ state }) => state === "running"));
  await within(pool.terminate("first"));
  for (const error of await Promise.all(runs)) assertEquals((error as Error).cause, "first");
  assertEquals(told, ["job 1", "job 2", "job 3", "worker 1", "worker 2", "worker 3"]);
});

Deno.test("PoolObserver may terminate the pool when it is told that a worker is ready: the others are told of both, in order", async () => {
  const told: string[] = [];
  const reported: unknown[] = [];
  const observers: PoolObserver[] = [
    { worker: (_, change) => void (change === "ready" && pool.terminate()) },
    { worker: (_, change) => void told.push(change) },
  ];
  const pool: ProcessPool = new ProcessPool({
    backend: "inline",
    maxWorkers: 1,
    measure: true,
    observers,
    onError: (error) => reported.push(error),
  });
  assertInstanceOf(await thrownBy(() => within(pool.warmUp())), PoolClosedError);
  await within(pool.shutdown());
  assertEquals(told, ["starting", "ready", "stopped"]);
  assertEquals(reported, []);
  assertEquals(pool.stats().measured!.workers, []);
});

Deno.test("PoolObserver may cancel a job when it is told that it is run again: nothing more is told of it then", async () => {
  const told: string[] = [];
  const controller = new AbortController();
  const observer: PoolObserver = {
    sent: () => void told.push("sent"),
    retried() {
      told.push("retried");
      controller.abort(new RangeError("enough"));
    },
    settled: ({ state }) => void told.push(state!),
  };
  await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1, observers: [observer] });
  const job = new Job({ func: () => Promise.reject(new Error("again")), retries: 1, retryIf: () => true, signal: controller.signal });
  assertInstanceOf(await thrownBy(() => within(pool.run(job))), RangeError);
  assertEquals(told, ["sent", "retried", "cancelled"]);
});

Deno.test("PoolObserver may abort those that wait when it is told that one is refused: each is refused once", async () => {
  const refused: unknown[] = [];
  const controller = new AbortController();
  const observer: PoolObserver = {
    refused({ id }) {
      refused.push(id);
      controller.abort();
    },
  };
  const pool = new ProcessPool({ backend: "inline", maxWorkers: 1, queueSize: 1, observers: [observer] });
  const { promise, resolve } = Promise.withResolvers<void>();
  const running = pool.run(() => promise);
  const waiting = [1, 2, 3].map((id) => pool.run(new Job({ id, func: () => id, signal: controller.signal })));
  const end = pool.shutdown();
  for (const each of await Promise.allSettled(waiting)) assertEquals(each.status, "rejected");
  assertEquals(refused, [1, 2, 3]);
  resolve();
  await running;
  await end;
});

Deno.test("PoolObserver may want workers when it is told that one was stopped, as the pool is broken: it is refused", async () => {
  let another: Promise<void> | undefined;
  const observer: PoolObserver = {
    worker(_, change) {
      if (change === "stopped") another ??= pool.warmUp();
    },
  };
  const initializer = () => Promise.reject(new Error("never ready"));
  const pool: ProcessPool = new ProcessPool({ maxWorkers: 2, initializer, observers: [observer] });
  assertInstanceOf(await thrownBy(() => within(pool.warmUp())), PoolBrokenError);
  assertInstanceOf(await thrownBy(() => within(another!)), PoolBrokenError);
  await pool.shutdown();
});
