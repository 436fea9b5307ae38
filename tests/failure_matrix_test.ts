import { assert, assertEquals, assertInstanceOf, assertStringIncludes } from "@std/assert";
import { Job, PoolBrokenError, ProcessPool, type ProcessPoolOptions, Semaphore, WorkerDiedError } from "@procpool/process-pool";
import { tryCell } from "./failure_cell.ts";
import { type Cell, cells, DEEDS as ALL_DEEDS, harmsProgram, type Kind, KINDS, MATRIX } from "./failure_matrix.ts";
import { granted, moduleOf, within } from "./fixtures.ts";
import { thrownBy } from "./helpers.ts";
import { matrixTables, section } from "../tools/reliability_table.ts";

// The whole matrix, from its table. (To try a single cell: deno run tests/failure_cell.ts worker loading throws)

/** How many pools are tried at a time in this process: they mostly wait, for timeouts and for workers to start. */
const POOLS = 6;

/** How many processes run at a time: with more, those that burn a core would take the processors from each other. */
const PROCESSES = 3;

for (const kind of Object.keys(KINDS) as Kind[]) {
  Deno.test(`A task that misbehaves, at any stage of its worker, costs what the matrix says (${kind})`, async (test) => {
    const [pools, processes] = [new Semaphore(POOLS), new Semaphore(PROCESSES)];
    // What is left behind is detected at the end of the whole test: steps that run at the same time cannot be told apart.
    const atTheSameTime = { sanitizeExit: false, sanitizeOps: false, sanitizeResources: false };
    async function step(name: string, fn: () => Promise<void>): Promise<void> {
      using _permit = await pools.acquire();
      await test.step({ name, fn, ...atTheSameTime });
    }
    async function childStep(name: string, fn: () => Promise<void>): Promise<void> {
      using _permit = await processes.acquire();
      const ignore = !granted("run") || !granted("read");
      await test.step({ name: `${name} (needs --allow-run and --allow-read)`, fn, ignore, ...atTheSameTime });
    }
    await Promise.all([
      childStep("a program that has tried each deed that leaves it alone ends by itself", async () => {
        const { code, lines, errors } = await runCell([kind]);
        assertEquals([code, lines], [0, ["tried each"]], errors);
      }),
      ...cells(kind).map((cell) => {
        const { stage, deed, expected } = cell;
        const name = `${stage}, ${deed}: ${expected}`;
        if (harmsProgram(cell)) return childStep(name, async () => assertEquals(await tryInChild(cell), expected));
        return step(name, async () => assertEquals(await within(tryCell(cell)), expected));
      }),
    ]);
  });
}

Deno.test("The matrix has kinds of pools that differ, and for each an outcome of each deed", () => {
  assertEquals(new Set(Object.values(KINDS).map((options) => JSON.stringify(options))).size, Object.keys(KINDS).length);
  for (const kind of Object.keys(KINDS) as Kind[]) assertEquals(Object.keys(MATRIX[kind]), Object.keys(ALL_DEEDS));
});

Deno.test("docs/reliability.md shows the matrix as it is tested (needs --allow-read)", { ignore: !granted("read") }, async () => {
  const text = await Deno.readTextFile(new URL("../docs/reliability.md", import.meta.url));
  // If this fails: deno run --allow-read --allow-write tools/reliability_table.ts
  assertEquals(section(text), matrixTables());
});

/** How a program ends that tries a cell, in the words of the matrix. */
async function tryInChild({ kind, stage, deed, expected }: Cell): Promise<string> {
  const { code, signal, lines, errors } = await runCell([kind, stage, deed], { hangs: expected === "program hangs" });
  const [first, seen] = lines;
  assertEquals(first, "tries", errors);
  if (expected.endsWith(", program fails") && code === 1) return `${seen}, program fails`;
  if (seen !== undefined && code === 0) return seen;
  if (errors.includes("JavaScript out of memory")) return "process aborts";
  return signal === "SIGKILL" ? "program hangs" : "program exits";
}

/** How long a program that is expected to hang is watched, in ms, from its first output on. That it hangs can only be seen by waiting. */
const HANGS_FOR = 1000;

/** Runs `failure_cell.ts` in a process of its own, which is killed if it hangs. */
async function runCell(
  args: string[],
  { hangs = false } = {},
): Promise<{ code: number; signal: string | null; lines: string[]; errors: string }> {
  const file = (path: string) => new URL(path, import.meta.url);
  // A small heap fills quickly.
  const heap = args.includes("fills the heap") ? ["--v8-flags=--max-old-space-size=100"] : [];
  const flags = ["--quiet", ...heap, "--config", file("../deno.json").pathname];
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", ...flags, file("failure_cell.ts").pathname, ...args],
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let timer = setTimeout(() => child.kill("SIGKILL"), 60_000);
  let printed = "";
  async function read(): Promise<void> {
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      printed += text;
      if (!hangs) continue;
      clearTimeout(timer);
      timer = setTimeout(() => child.kill("SIGKILL"), HANGS_FOR);
    }
  }
  const [{ code, signal }, errors] = await Promise.all([child.status, new Response(child.stderr).text(), read()]);
  clearTimeout(timer);
  return { code, signal, lines: printed.trim().split("\n"), errors };
}

// What the errors say

/** What a task may do, as source text, and the error that its caller gets. */
interface Deed {
  /** Only where `await` is allowed. */
  asynchronous?: true;
  source: string;
  /** What becomes of the worker; undefined if it lives on, as after an ordinary error. */
  death?: string;
  exitCode?: number;
  /** Whether a RangeError with the message "deed" is the error, or the cause of the worker's death. */
  error?: true;
}

const DEEDS: Record<string, Deed> = {
  "throws": { source: `throw new RangeError("deed");`, error: true },
  "rejects": { source: `await Promise.reject(new RangeError("deed"));`, error: true, asynchronous: true },
  "calls Deno.exit()": { source: `Deno.exit(3);`, death: "called Deno.exit(3)", exitCode: 3 },
  "calls process.exit()": { source: `globalThis.process.exit(4);`, death: "called Deno.exit(4)", exitCode: 4 },
  "calls self.close()": { source: `self.close();`, death: "called self.close()" },
  "throws in a timer": {
    source: `setTimeout(() => { throw new RangeError("deed"); }); await new Promise(() => {});`,
    death: "had an uncaught error",
    error: true,
    asynchronous: true,
  },
  "leaves a rejection unhandled": {
    source: `Promise.reject(new RangeError("deed")); await new Promise(() => {});`,
    death: "had an unhandled rejection",
    error: true,
    asynchronous: true,
  },
};

/** The permissions of a worker only matter to the part of the matrix that loads its modules. */
const LOADING: Record<string, ProcessPoolOptions> = {
  "worker": {},
  "worker, permissions none": { permissions: "none" },
  "killable": { backend: "killable" },
};

for (const [kind, options] of Object.entries(LOADING)) {
  for (const [name, deed] of Object.entries(DEEDS)) {
    Deno.test(`A module that ${name} while it loads breaks the pool (${kind})`, async () => {
      const url = moduleOf(deed.source);
      const pool = new ProcessPool({ maxWorkers: 2, modules: [url], ...options });
      const futures = [await pool.submit(() => 1), await pool.submit(() => 2)];
      for (const future of futures) assertBroken(await within(future.exception()), deed, "could not load its modules");
      assertBroken(await within(pool.run(() => 1).catch((error) => error)), deed, "could not load its modules");
      await within(pool.shutdown());
    });
  }
}

for (const backend of ["worker", "killable"] as const) {
  for (const deed of Object.entries(DEEDS)) testDeed(backend, deed);
}

function testDeed(backend: "worker" | "killable", [name, deed]: [string, Deed]): void {
  Deno.test(`An initializer that ${name} breaks the pool (${backend})`, async () => {
    const { url, task } = await moduleWith(deed);
    const pool = new ProcessPool({ backend, maxWorkers: 2, modules: [url], initializer: task });
    assertBroken(await within(pool.run(() => 1).catch((error) => error)), deed, "failed in its initializer");
    assertBroken(await within(pool.warmUp().catch((error) => error)), deed, "failed in its initializer");
    await within(pool.shutdown());
  });

  Deno.test(`A task that ${name} fails alone (${backend})`, async () => {
    const { url, task } = await moduleWith(deed);
    await using pool = new ProcessPool({ backend, maxWorkers: 1, modules: [url] });
    const before = await pool.submit((x: number) => x, 1);
    const culprit = await pool.submit(task);
    const behind = await pool.submit((x: number) => x, 2);
    assertEquals(await within(before.result()), 1);
    assertFailed(await within(culprit.exception()), deed);
    assertEquals(culprit.state, "failed");
    assertEquals(await within(behind.result()), 2);
  });

  Deno.test(`A finalizer that ${name} is reported and harms nothing (${backend})`, async () => {
    const errors: unknown[] = [];
    const { url, task } = await moduleWith(deed);
    const pool = new ProcessPool({ backend, maxWorkers: 1, modules: [url], finalizer: task, onError: (error) => errors.push(error) });
    assertEquals(await within(pool.run((x: number) => x, 1)), 1);
    await within(pool.shutdown());
    assertEquals(errors.length, 1);
    assertFailed(errors[0], deed);
  });

  Deno.test(`An idle worker whose old task ${name} is reported and replaced (${backend})`, async () => {
    const reported = Promise.withResolvers<unknown>();
    const url = moduleOf(`export function task() { setTimeout(async () => { ${deed.source} }); }`);
    await using pool = new ProcessPool({ backend, maxWorkers: 1, modules: [url], onError: reported.resolve });
    await within(pool.run({ module: url, name: "task" }));
    const error = await within(reported.promise);
    assertInstanceOf(error, WorkerDiedError);
    assertEquals([error.jobId, error.exitCode], [undefined, deed.exitCode]);
    assertEquals(await within(pool.run((x: number) => x, 1)), 1);
  });

  if (deed.asynchronous) return;

  Deno.test(`A result that ${name} while it is copied fails only its job (${backend})`, async () => {
    const url = moduleOf(`export function task() { return { get value() { ${deed.source} } }; }`);
    await using pool = new ProcessPool({ backend, maxWorkers: 1, modules: [url] });
    const culprit = await pool.submit({ module: url, name: "task" });
    const behind = await pool.submit((x: number) => x, 2);
    assertFailed(await within(culprit.exception()), deed);
    assertEquals(await within(behind.result()), 2);
  });

  Deno.test(`An item of a map that ${name} fails alone, inside its chunk (${backend})`, async () => {
    const url = moduleOf(`export function task(x) { if (x === 3) { ${deed.source} } return x * 10; }`);
    await using pool = new ProcessPool({ backend, maxWorkers: 2, modules: [url] });
    const outcomes = [];
    for await (const outcome of pool.map({ module: url, name: "task" }, [0, 1, 2, 3, 4, 5, 6, 7], { chunkSize: 8, settled: true })) {
      outcomes.push(outcome);
    }
    const failed = outcomes.findIndex(({ status }) => status === "rejected");
    assertEquals(failed, 3);
    const [{ reason }] = outcomes.splice(failed, 1) as [PromiseRejectedResult];
    assertFailed(reason, deed);
    if (deed.death !== undefined) assertEquals((reason as WorkerDiedError).jobId, 3);
    assertEquals(outcomes.map((outcome) => outcome.status === "fulfilled" && outcome.value), [0, 10, 20, 40, 50, 60, 70]);
  });
}

Deno.test("A module that leaves a rejection unhandled and loads breaks the pool, and is not imported by the caller", async () => {
  const url = moduleOf(`Promise.reject(new RangeError("deed"));`);
  const pool = new ProcessPool({ maxWorkers: 1, modules: [url] });
  assertBroken(await within(pool.run(() => 1).catch((error) => error)), DEEDS["leaves a rejection unhandled"]!, "");
  await within(pool.shutdown());
});

Deno.test("A module that kills its workers soon after they were ready breaks the pool", async () => {
  const errors: unknown[] = [];
  const url = moduleOf(`setTimeout(() => { throw new RangeError("deed"); }, 5); export const task = () => new Promise(() => {});`);
  const pool = new ProcessPool({ maxWorkers: 1, modules: [url], onError: (error) => errors.push(error) });
  // They are idle when that happens, or not yet ready on a busy machine: the pool has to tell these apart.
  assertBroken(await within(untilBroken(pool)), DEEDS["throws in a timer"]!, "");
  await within(pool.shutdown());
  for (const error of errors) assertInstanceOf(error, WorkerDiedError);
});

/** Has workers started again and again until the pool gives up. */
async function untilBroken(pool: ProcessPool): Promise<unknown> {
  for (;;) {
    try {
      await pool.warmUp();
      await new Promise((resolve) => setTimeout(resolve));
    } catch (error) {
      return error;
    }
  }
}

Deno.test("An argument that cannot be copied fails only its job", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const culprit = await pool.submit((x: unknown) => x, () => 1);
  const behind = await pool.submit((x: number) => x, 2);
  assertEquals((await within(culprit.exception()) as Error).name, "DataCloneError");
  assertEquals(await within(behind.result()), 2);
});

Deno.test("A result that cannot be copied fails only its job", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const culprit = await pool.submit(() => () => 1);
  const behind = await pool.submit((x: number) => x, 2);
  assertEquals((await within(culprit.exception()) as Error).name, "DataCloneError");
  assertEquals(await within(behind.result()), 2);
});

Deno.test("Items and results of a map that cannot be copied fail alone, inside their chunk", async () => {
  await using pool = new ProcessPool({ maxWorkers: 2 });
  const items: unknown[] = [0, () => 1, 2, Symbol("no"), 4, "function", 6];
  const task = (item: unknown) => item === "function" ? () => 1 : item;
  const seen: unknown[] = [];
  for await (const outcome of pool.map(task, items, { chunkSize: 7, settled: true })) {
    seen.push(outcome.status === "fulfilled" ? outcome.value : outcome.reason.name);
  }
  assertEquals(seen, [0, "DataCloneError", 2, "DataCloneError", 4, "DataCloneError", 6]);
});

Deno.test("The error for a result that cannot be copied or moved says that it is a result; what a getter has thrown is left unchanged", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const give = (what: string) => {
    const key = Symbol.for("process-pool.move");
    if (what === "symbol") return Symbol("no");
    if (what === "later") return Promise.resolve(Symbol("no"));
    if (what === "stream") return new ReadableStream();
    if (what === "moved") return { value: Symbol("no"), [key]: [new MessageChannel().port1] };
    // It passes for a buffer.
    if (what === "proxy") return new Proxy(new ArrayBuffer(8), {});
    if (what === "moved proxy") return { value: 1, [key]: [new Proxy(new ArrayBuffer(8), {})] };
    if (what === "thrown") throw new DOMException("mine", "DataCloneError");
    if (what === "deep") {
      let deep: unknown[] = [];
      for (let i = 0; i < 100_000; i++) deep = [deep];
      return deep;
    }
    return {
      get a() {
        throw new RangeError("getter");
      },
    };
  };
  const said = "Cannot send what the task returned as it cannot be copied or moved: ";
  const uncopied = `${said}Symbol(no) could not be cloned.`;
  const told = {
    symbol: uncopied,
    later: uncopied,
    stream: `${said}Object that needs transfer was found in message but not listed in transferList`,
    moved: uncopied,
    proxy: `${said}#<ArrayBuffer> could not be cloned.`,
    "moved proxy": `${said}Value not transferable`,
    deep: `${said}Maximum call stack size exceeded`,
    thrown: "mine",
    getter: "getter",
  };
  const messageOf = (error: unknown) => (error as Error).message;
  for (const [what, message] of Object.entries(told)) {
    assertEquals(messageOf(await within((await pool.submit(give, what)).exception())), message);
  }
  const got: string[] = [];
  for await (const outcome of pool.map(give, Object.keys(told), { chunkSize: 10, settled: true })) {
    got.push(outcome.status === "rejected" ? messageOf(outcome.reason) : "");
  }
  assertEquals(got, Object.values(told));
});

Deno.test("A getter that throws what cannot be looked at fails its job or item alone, in arguments and in results", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 1 });
  const give = (x: number) => {
    if (x !== 2) return typeof x;
    const thrown = Object.create(RangeError.prototype, {
      message: {
        get() {
          throw new Error("no message");
        },
      },
    });
    return {
      get a() {
        throw thrown;
      },
    };
  };
  const take = (x: unknown) => typeof x;
  assertInstanceOf(await thrownBy(() => within(pool.run(take, give(2)))), RangeError);
  assertInstanceOf(await thrownBy(() => within(pool.run(give, 2))), RangeError);
  const options = { chunkSize: 3, settled: true } as const;
  for (const outcomes of [pool.map(take, [1, give(2), 3], options), pool.map(give, [1, 2, 3], options)]) {
    assertEquals((await within(Array.fromAsync(outcomes))).map(({ status }) => status), ["fulfilled", "rejected", "fulfilled"]);
  }
});

Deno.test("The error for arguments that cannot be copied or moved says whose they are; what a getter has thrown is left unchanged", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const take = (...args: unknown[]) => args.length;
  const symbol = Symbol("no");
  const moved = new ArrayBuffer(1);
  structuredClone(moved, { transfer: [moved] });
  let deep: unknown[] = [];
  for (let i = 0; i < 100_000; i++) deep = [deep];
  const thrown = new RangeError("getter");
  const throwing = {
    get a() {
      throw thrown;
    },
  };
  const errorOf = async (job: Job<never[], unknown>) => await within((await pool.submit(job)).exception()) as Error;
  const said = (id: string | number) => `Cannot send job ${JSON.stringify(id)} (task "take") as its arguments cannot be copied or moved: `;

  const copied = await errorOf(new Job({ id: "copied", func: take, args: [1, symbol] }));
  assertEquals([copied.name, copied.message], ["DataCloneError", `${said("copied")}Symbol(no) could not be cloned.`]);
  const detached = await errorOf(new Job({ id: "moved", func: take, args: [moved], transfer: [moved] }));
  assertEquals([detached.name, detached.message.startsWith(said("moved"))], ["DataCloneError", true]);
  const nested = await errorOf(new Job({ id: "deep", func: take, args: [deep] }));
  assertEquals([nested.name, nested.message], ["RangeError", `${said("deep")}Maximum call stack size exceeded`]);
  assertEquals(await errorOf(new Job({ func: take, args: [throwing] })), thrown);
  const outcomes = await within(Array.fromAsync(pool.map(take, [0, symbol, throwing, deep], { chunkSize: 4, settled: true })));
  const [, item, got, last] = outcomes.map((outcome) => outcome.status === "rejected" ? outcome.reason : undefined);
  assertEquals([item.message, got], [`${said(1)}Symbol(no) could not be cloned.`, thrown]);
  assertEquals(last.message, `${said(3)}Maximum call stack size exceeded`);
});

Deno.test("A dying worker takes only the jobs with it that it had started, with their share of the blame", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 3 });
  const forever = () => new Promise(() => {});
  const neighbours = [await pool.submit(forever), await pool.submit(forever)];
  const culprit = await pool.submit(() => new Promise(() => setTimeout(() => Deno.exit(7))));
  const behind = await pool.submit((x: number) => x, 2);
  for (const future of [...neighbours, culprit]) {
    const error = await within(future.exception());
    assertInstanceOf(error, WorkerDiedError);
    assertEquals([error.jobId, error.exitCode, error.attempts], [future.id, 7, 1]);
  }
  assertEquals(await within(behind.result()), 2);
});

Deno.test("A worker that ends without telling why is noticed by its lock", async () => {
  const workers: Worker[] = [];
  const Original = globalThis.Worker;
  globalThis.Worker = class extends Original {
    constructor(...args: ConstructorParameters<typeof Original>) {
      super(...args);
      workers.push(this);
    }
  };
  try {
    await using pool = new ProcessPool({ maxWorkers: 1 });
    await pool.warmUp();
    const started = new Int32Array(new SharedArrayBuffer(4));
    const future = await pool.submit((started: Int32Array) => {
      Atomics.store(started, 0, 1);
      Atomics.notify(started, 0);
      return new Promise(() => {});
    }, started);
    await Atomics.waitAsync(started, 0, 0).value;
    assert(future.running());
    workers[0]!.terminate();
    const error = await within(future.exception());
    assertInstanceOf(error, WorkerDiedError);
    assertStringIncludes(error.message, "ended without telling why");
    assertEquals(await within(pool.run((x: number) => x, 2)), 2);
  } finally {
    globalThis.Worker = Original;
  }
});

async function moduleWith(deed: Deed): Promise<{ url: string; task: () => unknown }> {
  const url = moduleOf(`export async function task() { ${deed.source} }`);
  const { task } = await import(url);
  return { url, task };
}

function assertFailed(error: unknown, deed: Deed): void {
  if (deed.death === undefined) return assertDeed(error);
  assertInstanceOf(error, WorkerDiedError);
  assertStringIncludes(error.message, deed.death);
  assertEquals(error.exitCode, deed.exitCode);
  if (deed.error) assertDeed(error.cause);
}

function assertBroken(error: unknown, deed: Deed, otherwise: string): void {
  assertInstanceOf(error, PoolBrokenError);
  assertEquals(error.attempts, 3);
  assertStringIncludes(error.message, deed.death ?? otherwise);
  if (deed.error) assertDeed(error.cause);
}

function assertDeed(error: unknown): void {
  assertInstanceOf(error, RangeError);
  assertEquals(error.message, "deed");
}
