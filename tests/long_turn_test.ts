import { assert, assertEquals, assertRejects } from "@std/assert";
import { Job, ProcessPool, type ProcessPoolOptions } from "@procpool/process-pool";

const increment = (x: number) => x + 1;

/** How many milliseconds of work a worker is sent ahead at most. */
const PATIENCE = 30_000;

/** A pool of one worker, which knows the task. */
async function pooled(options: ProcessPoolOptions): Promise<ProcessPool> {
  const pool = new ProcessPool({ maxWorkers: 1, queueSize: 10, ...options });
  await pool.run(increment, 0);
  return pool;
}

/** Calls the task more and more often, never giving anything else its turn, until this holds. Returns the results. */
function callUntil(pool: ProcessPool, holds: () => boolean): Promise<number>[] {
  const results: Promise<number>[] = [];
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let left = PATIENCE; left > 0 && !holds(); left--) {
    for (let i = 0; i < 64; i++) results.push(pool.run(increment, results.length));
    Atomics.wait(pause, 0, 0, 1);
  }
  return results;
}

const POOLS: [kind: string, options: ProcessPoolOptions][] = [
  ["on the backend worker", { backend: "worker" }],
  ["on the backend killable", { backend: "killable" }],
  ["with a limit", { jobTimeout: PATIENCE }],
  ["with observers", { observers: [{}] }],
];
for (const [kind, options] of POOLS) {
  Deno.test(`Jobs run and settle during a turn that submits more than the gate admits, in a pool ${kind}`, async () => {
    await using pool = await pooled(options);
    const before = pool.stats().finished;
    // More than are admitted at a time: others have been let in, and have settled too.
    const results = callUntil(pool, () => pool.stats().finished >= before + 25);
    assert(pool.stats().finished >= before + 25);
    assertEquals(await Promise.all(results), results.map((_, i) => i + 1));
  });
}

for (const [kind, options] of POOLS) {
  Deno.test(`Jobs run and settle during a turn that submits more than a worker is sent ahead, in a pool ${kind}`, async () => {
    await using pool = await pooled({ ...options, queueSize: Number.MAX_SAFE_INTEGER });
    const before = pool.stats().finished;
    const results = callUntil(pool, () => pool.stats().finished > before + 1024);
    assert(pool.stats().finished > before + 1024);
    assertEquals(pool.stats().waiting, 0);
    assertEquals(await Promise.all(results), results.map((_, i) => i + 1));
  });
}

Deno.test("Callbacks of a job that settles during a turn come after that turn, before who awaits the result", async () => {
  await using pool = await pooled({});
  const told: string[] = [];
  const job = new Job({ func: increment, args: [1], onDone: () => void told.push("onDone") });
  const future = pool.trySubmit(job)!;
  future.addDoneCallback(() => void told.push("callback"));
  const result = future.result().then(() => told.push("result"));
  const results = callUntil(pool, () => future.done());
  assertEquals([future.state, told], ["finished", []]);
  await result;
  assertEquals(told, ["onDone", "callback", "result"]);
  await Promise.all(results);
  // Its permit has come back as well.
  assertEquals(await Promise.all(Array.from({ length: 10 }, (_, i) => pool.trySubmit(increment, i)!.result())), [
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
  ]);
});

Deno.test("Callbacks of a job that settles at the first look of a turn come before who awaits the result", async () => {
  await using pool = await pooled({});
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let left = PATIENCE; left > 0; left--) {
    const told: string[] = [];
    const future = pool.trySubmit(increment, 0)!;
    future.addDoneCallback(() => void told.push("callback"));
    const result = future.result().then(() => told.push("result"));
    // The worker is woken.
    await undefined;
    Atomics.wait(pause, 0, 0, 1);
    // The last of them checks.
    const others = Array.from({ length: 9 + 64 }, (_, i) => pool.run(increment, i));
    const settled = future.done();
    await Promise.all([result, ...others]);
    assertEquals(told, ["callback", "result"]);
    if (settled) return;
  }
  throw new Error("No job has settled while others were submitted");
});

Deno.test("Callbacks of a job that waits for its permit, and then cannot be sent, come after the turn in which that is seen", async () => {
  await using pool = await pooled({});
  const told: string[] = [];
  const gate = new Int32Array(new SharedArrayBuffer(4));
  // None of these returns before the next one has to wait.
  const early = Array.from({ length: 10 }, () => pool.run((gate: Int32Array) => void Atomics.wait(gate, 0, 0), gate));
  const unsendable = (() => 0) as unknown as number;
  const refused = pool.run(new Job({ func: increment, args: [unsendable], onDone: () => void told.push("onDone") }))
    .catch((error) => told.push(error.name));
  Atomics.store(gate, 0, 1);
  Atomics.notify(gate, 0);
  const results = callUntil(pool, () => pool.stats().failed > 0);
  assertEquals([pool.stats().failed, told], [1, []]);
  await refused;
  assertEquals(told, ["onDone", "DataCloneError"]);
  await Promise.all([...early, ...results]);
});

const FEEDERS: [who: string, feed: (pool: ProcessPool, next: () => boolean) => Promise<unknown>][] = [
  ["who awaits a result", (pool, next) => {
    const lane = async () => {
      while (next()) await pool.run(increment, 0);
    };
    return Promise.all(Array.from({ length: 20 }, lane));
  }],
  ["a callback", (pool, next) => {
    const chain = () =>
      new Promise<void>((resolve) => {
        const submit = () => void (next() ? pool.submit(new Job({ func: increment, args: [0], onDone: submit })) : resolve());
        submit();
      });
    return Promise.all(Array.from({ length: 20 }, chain));
  }],
  ["who awaits only that it is admitted", async (pool, next) => {
    while (next()) await pool.submit(increment, 0);
  }],
];
for (const [who, feed] of FEEDERS) {
  Deno.test(`Timers have their turn although ${who} always has a job to submit, and workers are faster`, async () => {
    await using pool = await pooled({});
    const pause = new Int32Array(new SharedArrayBuffer(4));
    let fired = false;
    setTimeout(() => fired = true);
    let left = 200;
    await feed(pool, () => {
      // The worker has done by then what it was sent.
      Atomics.wait(pause, 0, 0, 5);
      return !fired && --left > 0;
    });
    assert(left > 0);
  });
}

const UNSENDABLE = (() => 0) as unknown as number;
const DOOMED: [what: string, submit: (pool: ProcessPool) => Promise<unknown>][] = [
  ["calls", (pool) => pool.run(increment, UNSENDABLE)],
  ["jobs", async (pool) => (await pool.submit(new Job({ func: increment, args: [UNSENDABLE] }))).result()],
];
for (const [what, submit] of DOOMED) {
  Deno.test(`Timers have their turn although who awaits ${what} that cannot be sent always has another to submit`, async () => {
    await using pool = await pooled({});
    let fired = false;
    setTimeout(() => fired = true);
    let left = 20_000;
    const lane = async () => {
      while (!fired && --left > 0) await assertRejects(() => submit(pool));
    };
    await Promise.all(Array.from({ length: 20 }, lane));
    assert(left > 0);
  });
}

Deno.test("A job that cannot be sent is queued while other work has its turn, if another has just settled like that", async () => {
  for (const end of ["shutdown", "terminate"] as const) {
    await using pool = await pooled({});
    const submit = () => pool.trySubmit(increment, UNSENDABLE)!;
    const first = submit();
    await undefined;
    const [cancelled, other] = [submit(), submit()];
    assertEquals([first.state, cancelled.state, other.state, pool.stats().queued], ["failed", "queued", "queued", 2]);
    assertEquals([cancelled.cancel(), cancelled.cancel()], [true, false]);
    await pool[end]();
    assertEquals([cancelled.state, other.state], ["cancelled", end === "shutdown" ? "failed" : "cancelled"]);
  }
});

Deno.test("A pool that ends in the turn in which a job settles calls its callbacks before it has ended", async () => {
  for (const end of ["shutdown", "terminate"] as const) {
    await using pool = await pooled({});
    const told: string[] = [];
    const future = pool.trySubmit(new Job({ func: increment, args: [1], onDone: () => void told.push("onDone") }))!;
    const results = callUntil(pool, () => future.done());
    assertEquals([future.state, told], ["finished", []]);
    const ended = pool[end]().then(() => told.push("end"));
    await Promise.allSettled(results);
    await ended;
    assertEquals(told, ["onDone", "end"]);
  }
});
