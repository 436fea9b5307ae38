import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { type Future, Job, type PoolObserver, ProcessPool, type ProcessPoolOptions } from "@procpool/process-pool";
import { JobRecord } from "../pool/observation.ts";
import { openTrace } from "../pool/trace.ts";
import { granted, within } from "./fixtures.ts";
import { meet, Meeting, thrownBy, turn, until } from "./helpers.ts";

/** An event of Chrome's trace event format, as far as we write it. */
interface TraceEvent {
  ph: "X" | "i" | "s" | "f" | "C" | "M";
  pid: number;
  tid: number;
  ts: number;
  name: string;
  cat?: string;
  dur?: number;
  id?: number;
  s?: string;
  bp?: string;
  args?: Record<string, unknown>;
}

/** A stream that records what was written to it, and when it was closed. */
class Memory {
  chunks: Uint8Array[] = [];
  closed = false;
  readonly stream: WritableStream<Uint8Array> = new WritableStream({
    write: (chunk) => void this.chunks.push(chunk),
    close: () => void (this.closed = true),
  });

  get text(): string {
    const decoder = new TextDecoder();
    return this.chunks.map((chunk) => decoder.decode(chunk, { stream: true })).join("");
  }

  get events(): TraceEvent[] {
    return JSON.parse(this.text);
  }
}

/** What happens in a pool, according to its trace. */
async function traced(options: ProcessPoolOptions, use: (pool: ProcessPool) => Promise<unknown>): Promise<TraceEvent[]> {
  const memory = new Memory();
  {
    await using pool = new ProcessPool({ maxWorkers: 2, ...options, trace: memory.stream });
    await within(use(pool));
  }
  assert(memory.closed);
  assertConforms(memory.events);
  return memory.events;
}

/**
 * Asserts what the format's description requires ("Trace Event Format", the JSON array format), and what viewers need beyond it: the fields
 * of each kind of event; slices of a thread that lie beside or within each other; flows that begin and end once, in this order, each within
 * a slice; counters with numbers; a name for each thread.
 */
function assertConforms(events: TraceEvent[]): void {
  assert(Array.isArray(events));
  const named = new Set<number>();
  const flows = new Map<number, TraceEvent[]>();
  for (const event of events) {
    const { ph, pid, tid, ts, name, dur, id, args } = event;
    const shown = JSON.stringify(event);
    assert(Number.isInteger(pid) && Number.isInteger(tid) && typeof name === "string" && name !== "", shown);
    assert(ph === "M" || (Number.isFinite(ts) && ts >= 0), shown);
    switch (ph) {
      case "M":
        if (name === "thread_name") named.add(tid);
        assert(["process_name", "thread_name", "thread_sort_index"].includes(name) && args !== undefined, shown);
        break;
      case "X":
        assert(Number.isFinite(dur) && dur! >= 0, shown);
        break;
      case "i":
        assert(["g", "p", "t"].includes(event.s!), shown);
        break;
      case "C":
        assert(Object.values(args!).length > 0 && Object.values(args!).every((value) => Number.isFinite(value)), shown);
        break;
      case "s":
      case "f":
        assert(id !== undefined && event.cat !== undefined, shown);
        flows.set(id, [...flows.get(id) ?? [], event]);
        break;
      default:
        throw new Error(`There is no such event in a trace of ours: ${shown}`);
    }
  }
  const threads = Map.groupBy(events.filter(({ ph }) => ph === "X"), ({ tid }) => tid);
  for (const [tid, slices] of threads) {
    assert(named.has(tid), `thread ${tid} has no name`);
    slices.sort((a, b) => a.ts - b.ts || b.dur! - a.dur!);
    for (const [i, slice] of slices.entries()) {
      const before = slices[i - 1];
      // Only three decimals are written.
      assert(
        before === undefined || before.ts + before.dur! <= slice.ts + 0.0015,
        `${JSON.stringify(before)} runs into ${JSON.stringify(slice)}`,
      );
    }
  }
  const begins = new Set(events.filter(({ ph }) => ph === "X").map(({ tid, ts }) => `${tid} ${ts}`));
  for (const [id, ends] of flows) {
    assertEquals(ends.map(({ ph }) => ph).sort(), ["f", "s"], `flow ${id}`);
    const [from, to] = ends.toSorted((a, b) => b.ph.localeCompare(a.ph)) as [TraceEvent, TraceEvent];
    assert(from.ts <= to.ts && from.name === to.name && from.cat === to.cat, JSON.stringify(ends));
    // Where slices begin: more than the format requires.
    for (const { tid, ts } of ends) assert(begins.has(`${tid} ${ts}`), `flow ${id}`);
  }
}

/** The runs of jobs, on any worker. */
function runs(events: TraceEvent[]): TraceEvent[] {
  return events.filter(({ ph, tid }) => ph === "X" && tid > 0);
}

/** What became of workers, in order. */
function changes(events: TraceEvent[]): string[] {
  return events.filter(({ cat }) => cat === "worker").map(({ name }) => name);
}

for (const backend of ["worker", "killable", "inline"] as const) {
  Deno.test(`A trace has each job once, with a flow from its submission to its start (${backend})`, async () => {
    const task = (x: number) => x * 2;
    const events = await traced({ backend, queueSize: 10 }, async (pool) => {
      await pool.warmUp();
      await Promise.all(Array.from({ length: 500 }, (_, id) => pool.run(new Job({ id, func: task, args: [id] }))));
    });
    const done = runs(events);
    assertEquals(done.map(({ args }) => args!.id as number).sort((a, b) => a - b), Array(500).keys().toArray());
    assert(done.every(({ name, args }) => name === "task" && args!.outcome === "finished" && args!.run === 1));
    assertEquals(events.filter(({ ph }) => ph === "s").length, 500);
    const gate = events.filter(({ ph, name }) => ph === "C" && name === "gate").map(({ args }) => args!.waiting as number);
    assert(Math.max(...gate) > 0 && Math.max(...gate) <= 490, `${gate}`);
    assertEquals(new Set(changes(events)), new Set(["starting", "ready", "closed"]));
  });
}

Deno.test("A trace tells how jobs ended, and names each in quotes that hold", async () => {
  const reason = 'a "reason"\n';
  const events = await traced({ maxWorkers: 1 }, async (pool) => {
    const bad = {
      'with "quotes"': () => {
        throw new RangeError('no "more"\n');
      },
    };
    await pool.run(new Job({ id: 'the "first"', func: bad['with "quotes"'] })).catch(() => {});
    const meeting = new Meeting();
    const running = await pool.submit(meet, meeting.memory);
    await meeting.come();
    const queued = await pool.submit(new Job({ id: "never", func: (x: number) => x, args: [1] }));
    assert(queued.cancel({ reason }));
    meeting.letGo();
    await running.result();
  });
  const [failed, met] = runs(events);
  assertEquals([failed!.name, failed!.args!.id, failed!.args!.outcome], ['with "quotes"', 'the "first"', "failed"]);
  assertEquals(failed!.args!.error, 'RangeError: no "more"\n');
  assertEquals([met!.name, met!.args!.outcome], ["meet", "finished"]);
  assertEquals(runs(events).length, 2);
  const submissions = events.filter(({ ph, tid }) => ph === "X" && tid === 0).map(({ args }) => args!.id);
  assertEquals(submissions.length, 3);
  assert(submissions.includes("never"));
});

Deno.test("A trace says how many items a chunk had and how many failed", async () => {
  const events = await traced({}, async (pool) => {
    const task = (x: number) => {
      if (x % 10 === 0) throw new Error("no");
      return x;
    };
    for await (const _ of pool.map(task, Array(1000).keys(), { settled: true, chunkSize: 100 }));
  });
  const chunks = runs(events);
  assertEquals(chunks.length, 10);
  assert(chunks.every(({ args }) => args!.items === 100 && args!.failed === 10));
});

Deno.test("A trace shows a worker that died, the run that it took with it, and the next run", async () => {
  const events = await traced({ maxWorkers: 1 }, async (pool) => {
    const memory = new Int32Array(new SharedArrayBuffer(4));
    const task = (memory: Int32Array) => Atomics.add(memory, 0, 1) === 0 ? Deno.exit(3) : "done";
    assertEquals(await pool.run(new Job({ func: task, args: [memory], retries: 1 })), "done");
  });
  assertEquals(runs(events).map(({ args }) => [args!.outcome, args!.run]), [["retried", 1], ["finished", 2]]);
  const died = events.find(({ name }) => name === "died");
  assertEquals(died?.args?.reason, "called Deno.exit(3)");
  assertEquals(changes(events), ["starting", "ready", "died", "starting", "ready", "closed"]);
});

Deno.test("A trace tells nothing more of a job that was cancelled before it ran again", async () => {
  let future: Future<never> | undefined;
  let sent = 0;
  const observer = { sent: () => ++sent === 3 && future!.cancel() };
  const events = await traced({ backend: "inline", observers: [observer as PoolObserver] }, async (pool) => {
    const fail = (): never => {
      throw new Error("again");
    };
    future = await pool.submit(new Job({ func: fail, retries: 5, retryIf: () => true }));
    await thrownBy(() => future!.result());
  });
  assertEquals(runs(events).map(({ args }) => [args!.outcome, args!.run]), [["retried", 1], ["retried", 2]]);
  assertEquals(events.filter(({ ph, tid }) => ph === "X" && tid === 0).length, 1);
});

Deno.test("A trace shows a worker that was stopped for its job", async () => {
  const events = await traced({ maxWorkers: 1, jobTimeout: 20 }, async (pool) => {
    const spin = () => {
      for (;;);
    };
    await thrownBy(() => pool.run(spin));
  });
  const [run] = runs(events);
  assertEquals(run!.args!.outcome, "failed");
  assert(run!.dur! >= 15_000, `${run!.dur}`);
  assertStringIncludes(String(events.find(({ name }) => name === "stopped")?.args?.reason), "JobTimeoutError: Stopped job");
});

Deno.test("A trace gives jobs that a worker runs at a time tracks of their own", async () => {
  const events = await traced({ maxWorkers: 1, jobsPerWorker: 3 }, async (pool) => {
    // Each waits for all of them.
    const memory = new Int32Array(new SharedArrayBuffer(4));
    const task = async (memory: Int32Array) => {
      Atomics.add(memory, 0, 1);
      while (Atomics.load(memory, 0) < 3) await new Promise((resolve) => setTimeout(resolve));
    };
    await Promise.all([1, 2, 3].map(() => pool.run(task, memory)));
  });
  assertEquals(new Set(runs(events).map(({ tid }) => tid)).size, 3);
});

/** A trace that the test itself tells of jobs, all of worker 2. */
function told(jobsPerWorker: number) {
  const memory = new Memory();
  const trace = openTrace(memory.stream, (error) => {
    throw error;
  });
  const levels = { waiting: 0, queued: 0, running: 0, workers: 1 };
  trace.opened!({ maxWorkers: 1, jobsPerWorker, queueSize: 1, opened: 100, levels: () => levels });
  trace.worker!(2, "starting", undefined);

  function settled(id: number, { started, ended }: { started: number; ended: number }): void {
    const job = new JobRecord(id, () => {}, { items: 1, submitted: 100 });
    trace.settled!(Object.assign(job, { worker: 2, started, ended, runs: 1, settled: ended, state: "finished" }));
  }

  async function events(): Promise<TraceEvent[]> {
    await trace.closed!();
    return memory.events;
  }

  return { levels, settled, events };
}

Deno.test("A trace has times to the nanosecond", async () => {
  const { settled, events } = told(1);
  const times = [0.1, 0.09, 0.01, 0.009, 0.001, 1, 1000, 1000.1, 999.999];
  for (const [id, time] of times.entries()) settled(id, { started: 100 + id, ended: 100 + id + time / 1000 });
  assertEquals(runs(await events()).map(({ dur }) => dur), times);
});

Deno.test("A trace has at most a thousand tracks of a worker, each free again when its job has ended", async () => {
  const { settled, events } = told(2000);
  for (let id = 0; id < 1002; id++) settled(id, { started: 200, ended: 300 });
  settled(1002, { started: 300, ended: 400 });
  settled(1003, { started: 300, ended: 400 });
  const tracks = runs(await events()).map(({ tid }) => tid);
  assertEquals(tracks, [...Array(1000).keys().map((track) => 2000 + track), 2999, 2999, 2000, 2001]);
});

Deno.test("A trace has the counters at most once a millisecond, and only when they have changed", async () => {
  const { levels, settled, events } = told(1);
  for (const [ended, waiting] of [[101, 1], [101.5, 2], [102, 3], [104, 3], [106, 4]] as const) {
    levels.waiting = waiting;
    settled(waiting, { started: 100, ended });
  }
  const counts = (await events()).filter(({ ph, name }) => ph === "C" && name === "gate").map(({ ts, args }) => [ts, args!.waiting]);
  assertEquals(counts, [[1000, 1], [2000, 3], [6000, 4]]);
});

Deno.test("A trace has everything when the last worker has ended, as that may be the last for long", async () => {
  const memory = new Memory();
  await using pool = new ProcessPool({ maxWorkers: 1, idleTimeout: 0, trace: memory.stream });
  await pool.run(() => 1);
  await until(() => pool.stats().workers === 0);
  const events = JSON.parse(`${memory.text}]`) as TraceEvent[];
  assertEquals([runs(events).length, changes(events)], [1, ["starting", "ready", "closed"]]);
});

Deno.test("A trace shows a submission that was refused", async () => {
  const events = await traced({ maxWorkers: 1, queueSize: 1 }, async (pool) => {
    const meeting = new Meeting();
    const running = pool.run(meet, meeting.memory);
    await meeting.come();
    const controller = new AbortController();
    const waiting = thrownBy(() => pool.submit(new Job({ func: (x: number) => x, args: [1], id: 5, signal: controller.signal })));
    controller.abort("enough");
    assertEquals(await waiting, "enough");
    meeting.letGo();
    await running;
  });
  const refused = events.find(({ name }) => name.startsWith("refused"));
  assertEquals(refused?.args, { id: 5, error: "enough" });
  assertEquals(runs(events).length, 1);
});

Deno.test("A trace of a pool that is terminated is whole", async () => {
  const memory = new Memory();
  const pool = new ProcessPool({ maxWorkers: 1, trace: memory.stream });
  const running = await pool.submit(() => new Promise(() => {}));
  while (!running.running()) await turn();
  await pool.submit((x: number) => x, 1);
  await pool.terminate("enough");
  await thrownBy(() => running.result());
  assert(memory.closed);
  assertConforms(memory.events);
  assertEquals(memory.events.filter(({ ph, tid }) => ph === "X" && tid === 0).length, 2);
});

Deno.test("A trace can be read after any line of it", async () => {
  const memory = new Memory();
  await using pool = new ProcessPool({ maxWorkers: 2, trace: memory.stream });
  while (memory.chunks.length === 0) await Promise.all(Array.from({ length: 100 }, () => pool.run((x: number) => x, 1)));
  assert(!memory.closed);
  // The format makes the last bracket optional.
  assertConforms(JSON.parse(`${memory.text}]`));
});

Deno.test("A trace that cannot be written is reported once, and the pool goes on", async () => {
  const reported: unknown[] = [];
  const full = Promise.withResolvers<void>();
  const stream = new WritableStream<Uint8Array>({ write: () => full.promise });
  {
    await using pool = new ProcessPool({ maxWorkers: 1, trace: stream, onError: (error) => reported.push(error) });
    for (let i = 0; i < 1000; i++) assertEquals(await pool.run((x: number) => x + 1, i), i + 1);
    full.reject(new Error("The disk is full"));
    await turn();
  }
  assertEquals(reported.map(String), ["Error: The disk is full"]);
});

Deno.test({
  name:
    "A trace is written to its file bit by bit if the system takes no more, or reported once if that takes nothing (needs --allow-write and --allow-read)",
  ignore: !granted("write") || !granted("read"),
  async fn() {
    const path = await Deno.makeTempFile({ suffix: ".json" });
    const { writeSync } = Deno.FsFile.prototype;
    const reported: unknown[] = [];
    const run = async () => {
      await using pool = new ProcessPool({ maxWorkers: 1, trace: path, onError: (error) => reported.push(error) });
      for (let i = 0; i < 1000; i++) assertEquals(await pool.run((x: number) => x + 1, i), i + 1);
    };
    try {
      Deno.FsFile.prototype.writeSync = function (bytes) {
        return writeSync.call(this, bytes.subarray(0, 1000));
      };
      await run();
      assertConforms(JSON.parse(await Deno.readTextFile(path)));
      Deno.FsFile.prototype.writeSync = () => {
        throw new Error("The disk is full");
      };
      await run();
    } finally {
      Deno.FsFile.prototype.writeSync = writeSync;
      await Deno.remove(path);
    }
    assertEquals(reported.map(String), ["Error: The disk is full"]);
  },
});

Deno.test("ProcessPool() refuses a trace that is neither a path nor a stream, or a stream that is locked", () => {
  const message = "Cannot create pool as 'trace' must be a path or a WritableStream: current value is 4";
  assertThrows(() => new ProcessPool({ trace: 4 as never }), TypeError, message);
  const { stream } = new Memory();
  stream.getWriter();
  assertThrows(() => new ProcessPool({ trace: stream }), TypeError, "Cannot create pool as 'trace' must not be locked");
});

Deno.test("ProcessPool() leaves the stream of its trace alone if another option is wrong", () => {
  const wrong = [{ initializer: Math.max }, { finalizer: class {} as never }, { observers: [4 as never] }, { measure: 4 as never }];
  for (const options of wrong) {
    const { stream } = new Memory();
    assertThrows(() => new ProcessPool({ ...options, trace: stream }), TypeError);
    assertEquals(stream.locked, false);
  }
});

Deno.test({
  name: "ProcessPool() refuses a trace in a file that it may not write (needs to be without --allow-write)",
  ignore: granted("write"),
  permissions: { write: false },
  fn() {
    const message = `Cannot create pool as its 'trace' "trace.json" cannot be written: run it with --allow-write=trace.json`;
    assertThrows(() => new ProcessPool({ trace: "trace.json" }), Deno.errors.NotCapable, message);
  },
});

Deno.test({
  name: "A trace of 100,000 jobs goes to its file as the run goes on (needs --allow-write and --allow-read)",
  ignore: !granted("write") || !granted("read"),
  async fn() {
    const path = await Deno.makeTempFile({ suffix: ".json" });
    try {
      let written = 0;
      {
        await using pool = new ProcessPool({ maxWorkers: 2, queueSize: 1000, trace: path });
        for (let i = 0; i < 100; i++) {
          await within(Promise.all(Array.from({ length: 1000 }, (_, j) => pool.run((x: number) => x + 1, i + j))));
          const { size } = await Deno.stat(path);
          assert(size > written, `${size} bytes after ${written}`);
          written = size;
        }
      }
      const events = JSON.parse(await Deno.readTextFile(path)) as TraceEvent[];
      assertConforms(events);
      assertEquals(runs(events).length, 100_000);
      assertEquals(events.filter(({ ph }) => ph === "f").length, 100_000);
    } finally {
      await Deno.remove(path);
    }
  },
});

Deno.test({
  name: "ProcessPool() says which trace it cannot write (needs --allow-write)",
  ignore: !granted("write"),
  fn() {
    const path = "no/such/folder/trace.json";
    const error = assertThrows(() => new ProcessPool({ trace: path }), Deno.errors.NotFound) as Error;
    assertStringIncludes(error.message, `Cannot create pool as its 'trace' "${path}" cannot be written: `);
  },
});

Deno.test({
  name:
    "ProcessPool() refuses a trace in the file of another pool's, which stays whole, until that is shut down (needs --allow-write and --allow-read)",
  ignore: !granted("write") || !granted("read"),
  async fn() {
    const path = await Deno.makeTempFile({ suffix: ".json" });
    const other = `${path}.link`;
    try {
      await Deno.writeTextFile(path, "x".repeat(10_000));
      await Deno.symlink(path, other);
      for (let round = 0; round < 2; round++) {
        {
          await using pool = new ProcessPool({ maxWorkers: 1, trace: path });
          for (const trace of [path, other]) {
            const error = assertThrows(() => new ProcessPool({ trace }), Deno.errors.Busy) as Error;
            const why = "another pool writes its trace to it until that is shut down";
            assertEquals(error.message, `Cannot create pool as its 'trace' "${trace}" cannot be written: ${why}`);
          }
          await within(pool.run(() => 1));
        }
        const events = JSON.parse(await Deno.readTextFile(path)) as TraceEvent[];
        assertConforms(events);
        assertEquals(runs(events).length, 1);
      }
    } finally {
      await Deno.remove(other);
      await Deno.remove(path);
    }
  },
});

Deno.test({
  name: "ProcessPool() needs the permission to write its trace alone, and no file system that has locks (needs --allow-write)",
  ignore: !granted("write"),
  permissions: { write: true },
  async fn() {
    const path = await Deno.makeTempFile({ suffix: ".json" });
    const { tryLockSync } = Deno.FsFile.prototype;
    try {
      for (const trace of [path, ...(Deno.build.os === "windows" ? [] : ["/dev/null"])]) {
        await using pool = new ProcessPool({ maxWorkers: 1, trace });
        // There are no two that would write to the same file.
        if (trace === path) assertThrows(() => new ProcessPool({ trace }), Deno.errors.Busy);
        else await new ProcessPool({ trace }).shutdown();
        assertEquals(await within(pool.run(() => 1)), 1);
      }
      Deno.FsFile.prototype.tryLockSync = () => {
        throw new Error("Function not implemented (os error 38)");
      };
      await new ProcessPool({ trace: path }).shutdown();
    } finally {
      Deno.FsFile.prototype.tryLockSync = tryLockSync;
      await Deno.remove(path);
    }
  },
});
