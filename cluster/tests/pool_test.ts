import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { Queue } from "bullmq";
import { Redis } from "ioredis";
import {
  asCompleted,
  ClusterPool,
  defineTasks,
  type Future,
  Job,
  JobCancelledError,
  JobTimeoutError,
  MemoryLimitError,
  PoolClosedError,
  serve,
  type Task,
  WorkerDiedError,
} from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";
import { folderStore } from "./folder_store.ts";
import { callsOf, openClient, openHost, openPool, READING_FAILS, RedisServer, startHost, sweepOften, until, within } from "./helpers.ts";
import { add, echo, greet } from "./tasks.ts";

/** How often a task that records its runs has run. */
async function runs(file: string): Promise<number> {
  try {
    return (await Deno.readTextFile(file)).split("\n").length - 1;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

Deno.test("ClusterPool.run() runs a task on a host, by its function or by its definition", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  assertEquals(await within(pool.run(add, 1, 2)), 3);
  assertEquals(await within(pool.run(tasks.add, 3, 4)), 7);
  assertEquals(await within(pool.run(new Job({ func: greet, args: ["Hello"], kwargs: { name: "bear" } }))), "Hello, bear!");
  assertEquals(await within(pool.run(tasks.nothing)), undefined);
});

Deno.test("ClusterPool.submit() of a function copies its arguments at once, also if it is not known yet which task that is", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  const bytes = new Uint8Array(1);
  const results = Array.from({ length: 3 }, (_, i) => {
    bytes[0] = i;
    return pool.run(echo, bytes);
  });
  assertEquals(await within(Promise.all(results)), [0, 1, 2].map((i) => new Uint8Array([i])));
});

Deno.test("ClusterPool passes JSON and bytes both ways, and errors as the core does", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  const value = { text: "ü", list: [1, null, { $bytes: "AAA=" }], bytes: new Uint8Array([1, 2, 255]), __proto__: null };
  assertEquals(await within(pool.run(tasks.echo, value)), { ...value });
  const error = await within((await pool.submit(tasks.fail)).exception());
  assertInstanceOf(error, RangeError);
  assertEquals([error.message, (error.cause as Error).message, Reflect.get(error, "code")], ["out of range", "within", 7]);
  assertStringIncludes(error.stack!, "tasks.ts");
  await assertRejects(() => within(pool.run(tasks.bad, "map")), TypeError, "Cannot send the result through the queue");
  await assertRejects(() => within(pool.run(tasks.bad, "bigint")), TypeError, "current value is 1n");
  const died = await within((await pool.submit(tasks.exitAt, 1, 1)).exception());
  assertInstanceOf(died, WorkerDiedError);
  assertEquals([died.exitCode, died.taskName], [3, "exitAt"]);
});

Deno.test("ClusterPool refuses what cannot travel before it is queued, and takes no permit for it", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, { queueSize: 1 });
  // deno-lint-ignore no-explicit-any -- what the types would refuse
  const submit = (...args: any[]) => within((pool.submit as (...args: any[]) => Promise<unknown>).call(pool, ...args));
  await assertRejects(() => submit(tasks.echo, new Map()), TypeError, "Cannot send argument 1 through the queue");
  await assertRejects(() => submit(tasks.echo, { when: new Date() }), TypeError, "Cannot send argument 1.when through the queue");
  await assertRejects(() => submit(tasks.echo, undefined), TypeError, "current value is undefined");
  await assertRejects(() => submit(tasks.add, "1", 2), TypeError, "add() takes numbers");
  await assertRejects(() => submit(tasks.echo, "x".repeat(300_000)), RangeError, "must be at most 262144 bytes of JSON without 'payloads'");
  await assertRejects(() => submit((x: number) => x, 1), TypeError, "as a cluster runs named tasks only");
  await assertRejects(() => submit({ module: "file:///etc/x.ts", name: "add" }, 1), TypeError, "as it is none of the pool's");
  await assertRejects(() => submit(7), TypeError, "'func' must be a function");
  await assertRejects(() => submit(new Job({ func: tasks.echo, args: [1] }), 1), TypeError, "its arguments belong in the job");
  const bytes = new Uint8Array(1);
  await assertRejects(() => submit(new Job({ func: tasks.echo, args: [bytes], transfer: [bytes.buffer] })), TypeError, "'transfer'");
  await assertRejects(() => submit(new Job({ func: tasks.echo, args: [1], retryIf: () => true })), TypeError, "'retryIf'");
  await assertRejects(
    () => submit(new Job({ id: "x".repeat(300), func: tasks.nothing })),
    RangeError,
    "submit job as its id must be at most",
  );
  await assertRejects(() => pool.attach("x".repeat(300)), RangeError, "attach to job as its id must be at most");
  for (const id of [NaN, Infinity]) {
    await assertRejects(
      () => submit(new Job({ id, func: tasks.nothing })),
      TypeError,
      `a string or a finite number: current value is ${id}`,
    );
  }
  await assertRejects(() => submit(new Job({ id: "\ud800", func: tasks.nothing })), TypeError, "half a character");
  await assertRejects(() => pool.attach("\ud800"), TypeError, "half a character");
  {
    // A store may keep a payload in a file whose name contains both.
    await using long = await openPool(server, { queue: "q".repeat(60) });
    await assertRejects(() => long.submit(new Job({ id: "i".repeat(184), func: tasks.nothing })), RangeError, "its id must be at most 183");
    await long.submit(new Job({ id: "i".repeat(183), func: tasks.nothing }));
  }
  assertEquals(pool.stats(), { running: 0, queued: 0, waiting: 0, finished: 0, failed: 0, cancelled: 0, redelivered: 0 });
  assertEquals((await pool.status()).waiting, 0);
  await within(pool.submit(tasks.nothing));
});

Deno.test("ClusterPool.open() and serve() refuse wrong options at once", async () => {
  // deno-lint-ignore no-explicit-any -- what the types would refuse
  const open = ClusterPool.open as (options: any) => Promise<unknown>;
  const good = { queue: "q", connection: "redis://127.0.0.1:1", tasks };
  const cases: [Record<string, unknown>, string][] = [
    [{ queue: "a:b" }, "'queue' must be a name of letters"],
    [{ queue: "" }, "'queue' must be a name of letters"],
    [{ connection: "http://127.0.0.1" }, "must be redis://HOST:PORT or rediss://HOST:PORT"],
    [{ connection: { url: "redis://127.0.0.1:1", extra: 1 } }, "there is no option 'extra'"],
    [{ connection: { url: "redis://127.0.0.1:1", ca: "-" } }, "'ca' needs an address that begins with rediss://"],
    [{ connection: 7 }, "'connection' must be an address"],
    [{ connection: "redis://user:1/secret@127.0.0.1:1" }, `must be the number of a database: a '/' in a password is written "%2F"`],
    [{ connection: "redis://127.0.0.1:1?family=6" }, "must have no parameters"],
    [{ connection: "rediss://user:1#secret@127.0.0.1:1" }, `must have no parameters: a '?' or '#' in a password is written "%3F" or "%23"`],
    [{ connection: "redis://:100%@127.0.0.1:1" }, `the password in the address of the connection must be encoded: a '%' is written "%25"`],
    [{ connection: "redis://100%:secret@127.0.0.1:1" }, "the user in the address of the connection must be encoded"],
    [{ tasks: {} }, "'tasks' must come from defineTasks()"],
    [{ openTimeout: "1" }, "'openTimeout' must be a number of milliseconds"],
    [{ payloads: {} }, "'payloads' must have the methods put, get and delete"],
    [{ release: 1 }, "'release' must be a string"],
    [{ mystery: 1 }, "there is no option 'mystery'"],
  ];
  for (const [options, message] of cases) {
    await assertRejects(() => open({ ...good, ...options }), TypeError, message);
    await assertRejects(() => serve({ ...good, ...options } as never), TypeError, message);
  }
  await assertRejects(() => open({ ...good, queueSize: 0 }), RangeError, "'queueSize' must be a positive integer");
  await assertRejects(() => serve({ ...good, workers: 0 }), RangeError, "'workers' must be a positive integer");
  await assertRejects(() => serve({ ...good, name: "a b" }), TypeError, "'name' must be of letters");
  await assertRejects(() => serve({ ...good, redeliveries: -1 }), RangeError, "'redeliveries' must be an integer of at least 0");
});

Deno.test("ClusterPool with 'payloads' sends what is too large for Redis through the store, and leaves nothing there", async () => {
  await using server = await RedisServer.start();
  const folder = await Deno.makeTempDir({ dir: server.folder });
  await using _host = await startHost(server, { store: folder });
  await using pool = await openPool(server, { payloads: folderStore(folder) });
  const text = "y".repeat(400_000);
  assertEquals(await within(pool.run(tasks.echo, text)), text);
  assertEquals((await within(pool.run(tasks.large, 500_000)) as string).length, 500_000);
  assertEquals(await within(Array.fromAsync(pool.map(tasks.echo, [text, "small"], { chunkSize: 2 }))), [text, "small"]);
  await within(pool.shutdown());
  assertEquals(await Array.fromAsync(Deno.readDir(folder)), []);
});

Deno.test("ClusterPool with 'payloads' leaves the arguments of an id there until none of its jobs needs them", async () => {
  await using server = await RedisServer.start();
  const folder = await Deno.makeTempDir({ dir: server.folder });
  const store = folderStore(folder);
  const may = Promise.withResolvers<void>();
  await using pool = await openPool(server, { payloads: { ...store, delete: (key) => may.promise.then(() => store.delete(key)) } });
  const text = "y".repeat(400_000);
  const job = (id: string) => new Job({ id, func: tasks.echo, args: [text] });
  const [kept, unwanted] = [await pool.submit(job("twice")), await pool.submit(job("twice"))];
  await until(async () => (await pool.status()).waiting === 1);
  assert(unwanted.cancel());
  const cancelled = await pool.submit(job("again"));
  await until(async () => (await pool.status()).waiting === 2);
  assert(cancelled.cancel());
  // What it has there is about to be deleted.
  const again = await pool.submit(job("again"));
  may.resolve();
  await using _host = await startHost(server, { store: folder });
  assertEquals([await within(kept.result()), await within(again.result())], [text, text]);
});

Deno.test("ClusterPool with 'payloads' leaves the result of a string id there, for whoever asks again, and says what is gone", async () => {
  await using server = await RedisServer.start();
  const folder = await Deno.makeTempDir({ dir: server.folder });
  await using _host = await startHost(server, { store: folder });
  const payloads = folderStore(folder);
  await using pool = await openPool(server, { payloads });
  await using other = await openPool(server, { payloads });
  const job = () => new Job({ id: "asked", func: tasks.large, args: [500_000] });
  assertEquals((await within(pool.run(job()))).length, 500_000);
  for (const future of [await other.attach<string>("asked"), await other.submit(job())]) {
    assertEquals((await within(future.result())).length, 500_000);
  }
  await within(other.shutdown());
  assertEquals((await within((await pool.attach<string>("asked")).result())).length, 500_000);
  for await (const { name } of Deno.readDir(folder)) await Deno.remove(`${folder}/${name}`);
  const error = await within((await pool.attach("asked")).exception());
  assertInstanceOf(error, Error);
  assertStringIncludes(error.message, 'Cannot read the result of job "asked" (task "large") from the payload store: ');
  assertInstanceOf(error.cause, Deno.errors.NotFound);
});

Deno.test("ClusterPool and hosts with 'payloads' say so if the store returns only half of a text", async () => {
  await using server = await RedisServer.start();
  const whole = folderStore(await Deno.makeTempDir({ dir: server.folder }));
  const cut = { ...whole, get: async (key: string) => (await whole.get(key)).slice(0, 200_000) };
  const cases = [{ pool: whole, host: cut, what: "the arguments" }, { pool: cut, host: whole, what: "the result" }];
  for (const [i, { pool: payloads, host, what }] of cases.entries()) {
    await using _host = await openHost(server, { payloads: host });
    await using pool = await openPool(server, { payloads });
    const job = new Job({ id: i, func: tasks.echo, args: ["y".repeat(400_000)] });
    await assertRejects(
      () => within(pool.run(job)),
      Error,
      `Cannot read ${what} of job ${i} (task "echo") from the payload store: Unterminated string in JSON`,
    );
  }
});

Deno.test("a host with 'payloads' says so if the store returns something else than arguments", async () => {
  await using server = await RedisServer.start();
  const whole = folderStore(await Deno.makeTempDir({ dir: server.folder }));
  await using _host = await openHost(server, { payloads: { ...whole, get: () => Promise.resolve("{}") } });
  await using pool = await openPool(server, { payloads: whole });
  const large = "y".repeat(400_000);
  const what = "from the payload store: it must be an array: current value is an object";
  await assertRejects(() => within(pool.run(new Job({ id: 1, func: tasks.echo, args: [large] }))), Error, what);
  const [outcome] = await within(Array.fromAsync(pool.map(tasks.echo, [large], { settled: true })));
  assertStringIncludes(String((outcome as PromiseRejectedResult).reason), what);
});

Deno.test("ClusterPool fails a job whose result is too large, if there is no store", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  await assertRejects(() => within(pool.run(tasks.large, 300_000)), RangeError, "Cannot send the result through the queue");
});

Deno.test("ClusterPool.submit() gives the core's futures: states, callbacks, asCompleted", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const [file, gate] = [`${server.folder}/runs`, `${server.folder}/go`];
  const seen: unknown[] = [];
  const slow = await pool.submit(new Job({ id: 7, func: tasks.note, args: [file, gate], onDone: ({ id, state }) => seen.push(id, state) }));
  const next = await pool.submit(tasks.add, 1, 1);
  assertEquals([slow.state, next.state, pool.stats().queued], ["queued", "queued", 2]);
  await using _host = await startHost(server, { workers: 2 });
  await until(() => slow.running());
  assertEquals(await within(next.result()), 2);
  await Deno.writeTextFile(gate, "");
  const order = [];
  for await (const future of asCompleted([slow, next])) order.push(future.id);
  assertEquals(order, [next.id, 7]);
  assertEquals([seen, await runs(file)], [[7, "finished"], 1]);
  const { finished, failed, cancelled } = pool.stats();
  assertEquals([finished, failed, cancelled], [2, 0, 0]);
});

Deno.test("ClusterPool admits no more than 'queueSize' jobs, in order, and an abort leaves the gate", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, { queueSize: 1 });
  const first = await pool.submit(tasks.add, 1, 1);
  const controller = new AbortController();
  const aborted = pool.submit(new Job({ func: tasks.add, args: [1, 2], signal: controller.signal }));
  const last = pool.submit(tasks.add, 1, 3);
  assertEquals(pool.stats().waiting, 2);
  controller.abort(new Error("no more"));
  await assertRejects(() => aborted, Error, "no more");
  await using _host = await startHost(server);
  assertEquals([await within(first.result()), await within((await last).result())], [2, 4]);
});

Deno.test("Future.cancel() takes a waiting job out of the queue, and stops one that computes only with 'force'", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  const file = `${server.folder}/runs`;
  const busy = await pool.submit(tasks.spinForEver);
  const waiting = await pool.submit(tasks.note, file);
  await until(() => busy.running());
  assertEquals([waiting.cancel({ reason: "no time" }), waiting.state], [true, "cancelled"]);
  const error = await waiting.exception();
  assertInstanceOf(error, JobCancelledError);
  assertEquals(error.cause, "no time");
  assertEquals(busy.cancel(), false);
  assertEquals([busy.cancel({ force: true }), busy.state], [true, "cancelled"]);
  // The only worker of the only host is not computing any more.
  assertEquals(await within(pool.run(tasks.add, 1, 1)), 2);
  assertEquals(await runs(file), 0);
  const { waiting: left, active } = await pool.status();
  assertEquals([left, active], [0, 0]);
});

Deno.test("Job.signal stops a job that computes, and Job.timeout fails it; the worker is free again", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  const controller = new AbortController();
  const busy = await pool.submit(new Job({ func: tasks.spinForEver, signal: controller.signal }));
  await until(() => busy.running());
  controller.abort(new Error("stop"));
  await assertRejects(() => busy.result(), Error, "stop");
  const late = await within((await pool.submit(new Job({ id: 5, func: tasks.spinForEver, timeout: 100 }))).exception());
  assertInstanceOf(late, JobTimeoutError);
  assertEquals([late.jobId, late.taskName, late.limit], [5, "spinForEver", 100]);
  assertEquals(await within(pool.run(tasks.add, 1, 1)), 2);
});

Deno.test("errors made on a host have the job's own id and the name of its task", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  const id = "import:17 ü";
  assertEquals(await within(pool.run(new Job({ id: "import:16 ü", func: tasks.jobId }))), "import:16 ü");
  for (const future of [await pool.submit(new Job({ id, func: tasks.exitAt, args: [1, 1] })), await pool.submit(tasks.exitAt, 1, 1)]) {
    const error = await within(future.exception());
    assertInstanceOf(error, WorkerDiedError);
    assertEquals([error.jobId, error.taskName], [future.id, "exitAt"]);
    assertStringIncludes(error.message, JSON.stringify(future.id));
  }
  // The other pool learns from the host what this one cancels.
  await using other = await openPool(server);
  const busy = await pool.submit(new Job({ id: "busy ü", func: tasks.spinForEver }));
  await until(() => busy.running());
  const attached = await other.attach("busy ü");
  assert(busy.cancel({ force: true }));
  await using expired = await openPool(server, { expiresIn: 0 });
  const gate = `${server.folder}/go`;
  const blocker = await pool.submit(tasks.note, `${server.folder}/runs`, gate);
  await until(() => blocker.running());
  const late = await expired.submit(new Job({ id: "late ü", func: tasks.spin, args: [1] }));
  const start = Date.now();
  await until(() => Date.now() > start + 1);
  await Deno.writeTextFile(gate, "");
  for (const [future, task] of [[attached, "spinForEver"], [late, "spin"]] as const) {
    const error = await within(future.exception());
    assertInstanceOf(error, JobCancelledError);
    assertEquals([error.jobId, error.taskName], [future.id, task]);
    assertStringIncludes(error.message, `Cancelled job ${JSON.stringify(future.id)} (task "${task}")`);
  }
  assertEquals(await within(blocker.result()), "noted");
});

Deno.test("ClusterPool with 'jobTimeout' limits each job, and each item of a map", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server, { jobTimeout: 300 });
  await assertRejects(() => within(pool.run(tasks.spinForEver)), JobTimeoutError);
  const outcomes = await within(Array.fromAsync(pool.map(tasks.spin, [1, 60_000, 1], { chunkSize: 3, settled: true })));
  assertEquals(outcomes.map(({ status }) => status), ["fulfilled", "rejected", "fulfilled"]);
});

Deno.test("Job.retries runs a job again whose worker died, on its host", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server, { retries: 1 });
  assertEquals(await within(pool.run(tasks.unsteady, `${server.folder}/one`)), "steady");
  const once = new Job({ func: tasks.unsteady, args: [`${server.folder}/two`], retries: 0 });
  await assertRejects(() => within(pool.run(once)), WorkerDiedError);
});

Deno.test("serve() with 'permissions' and 'memoryLimit' keeps tasks to them", async () => {
  await using server = await RedisServer.start();
  const read = [new URL("../..", import.meta.url).pathname];
  await using _host = await startHost(server, { permissions: { read }, memoryLimit: 64 });
  await using pool = await openPool(server);
  assertEquals(await within(pool.run(tasks.double, 4)), 8);
  await assertRejects(() => within(pool.run(tasks.note, `${server.folder}/runs`)), Deno.errors.NotCapable);
  const full = await within((await pool.submit(tasks.fill)).exception());
  assertInstanceOf(full, MemoryLimitError);
  assertEquals([full.limit, full.taskName], [64, "fill"]);
});

Deno.test("ClusterPool with 'expiresIn' cancels a job that no host started in time, and its id is free again", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, { expiresIn: 0 });
  const job = (): Job<[number, number], number> => new Job({ id: "import", func: tasks.add, args: [1, 1] });
  const future = await pool.submit(job());
  const start = Date.now();
  await until(() => Date.now() > start + 1);
  await using _host = await startHost(server);
  const error = await within(future.exception());
  assertInstanceOf(error, JobCancelledError);
  assertEquals([future.state, (error.cause as DOMException).name], ["cancelled", "TimeoutError"]);
  await using patient = await openPool(server);
  assertEquals(await within(patient.run(job())), 2);
});

Deno.test("ClusterPool with 'expiresIn' cancels a job that comes back too late from the host that started it, and says so", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, { expiresIn: 3_600_000 });
  await using first = await startHost(server, { grace: 0 });
  const future = await pool.submit(new Job({ id: "same", func: tasks.spinForEver }));
  await until(() => future.running());
  await using client = openClient(server);
  const key = "dpool:test.v1:job-same";
  await client.hset(key, "data", JSON.stringify({ ...JSON.parse((await client.hget(key, "data"))!), expiresAt: 0 }));
  first.kill("SIGTERM");
  await using _second = await startHost(server);
  const error = await within(future.exception());
  assertInstanceOf(error, JobCancelledError);
  assertEquals(error.message, 'Cancelled job "same" (task "spinForEver") as it came to a host too late');
});

Deno.test("ClusterPool runs the same id once, whoever submits it and how often", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using other = await openPool(server);
  const file = `${server.folder}/runs`;
  const job = () => new Job({ id: "import:2026 ü", func: tasks.note, args: [file] });
  const futures = [await pool.submit(job()), await pool.submit(job()), await other.submit(job())];
  await using _host = await startHost(server, { workers: 2 });
  assertEquals(await within(Promise.all(futures.map((future) => future.result()))), ["noted", "noted", "noted"]);
  // A job that has ended is not run again either.
  assertEquals(await within(pool.run(job())), "noted");
  assertEquals(await runs(file), 1);
});

Deno.test("ClusterPool knows that a job runs for a later future of it, too, which cannot be cancelled without 'force'", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  const job = () => new Job({ id: "import", func: tasks.spinForEver });
  const first = await pool.submit(job());
  await until(() => first.running());
  const later = [await pool.submit(job()), await pool.attach("import")];
  // The server answers in order.
  await within(pool.status());
  assertEquals(later.map((future) => [future.state, future.cancel()]), Array(2).fill(["running", false]));
  assertEquals(pool.stats().running, 3);
});

Deno.test("ClusterPool.attach() finds a job again after its producer has ended, before and after it is done", async () => {
  await using server = await RedisServer.start();
  {
    const first = await openPool(server);
    await first.submit(new Job({ id: "big", func: tasks.add, args: [20, 22] }));
    await first.submit(new Job({ id: "bad", func: tasks.fail }));
    // As if the program had been killed: nothing is taken back.
    const script = `import { openPool } from ${JSON.stringify(import.meta.resolve("./helpers.ts"))};
      import { tasks } from ${JSON.stringify(import.meta.resolve("./cluster_tasks.ts"))};
      import { Job } from ${JSON.stringify(import.meta.resolve("../mod.ts"))};
      const pool = await openPool({ url: ${JSON.stringify(server.url)} } as never);
      await pool.submit(new Job({ id: "other", func: tasks.add, args: [1, 2] }));
      while ((await pool.status()).waiting < 3) await new Promise((resolve) => setTimeout(resolve, 5));
      Deno.kill(Deno.pid, "SIGKILL");`;
    const file = `${server.folder}/producer.ts`;
    await Deno.writeTextFile(file, script);
    const config = new URL("../deno.json", import.meta.url).pathname;
    const { signal } = await new Deno.Command(Deno.execPath(), { args: ["run", "--allow-all", "--no-check", "--config", config, file] })
      .output();
    assertEquals(signal, "SIGKILL");
    await assertRejects(() => first.attach("none"), Deno.errors.NotFound, 'the queue "test" knows none of this id');
    await using second = await openPool(server);
    const early = await second.attach<number>("big");
    assertEquals(early.state, "queued");
    await using _host = await startHost(server);
    assertEquals(await within(early.result()), 42);
    assertEquals(await within((await second.attach("other")).result()), 3);
    assertEquals(await within((await second.attach("big")).result()), 42);
    assertInstanceOf(await within((await second.attach("bad")).exception()), RangeError);
    await within(first.shutdown());
  }
});

Deno.test(
  "ClusterPool settles jobs whose end no event reports, by looking them up",
  READING_FAILS,
  async () => {
    using _sweeps = sweepOften();
    await using server = await RedisServer.start();
    await using _host = await startHost(server);
    const client = new Redis(server.url);
    // This pool may not read the events at all.
    await client.acl("SETUSER", "deaf", "on", ">word", "~*", "&*", "+@all", "-xread");
    await client.quit();
    const reported: unknown[] = [];
    await using pool = await openPool(server, {
      connection: { url: server.url, username: "deaf", password: "word" },
      onError: (error) => reported.push(error),
    });
    assertEquals(await within(pool.run(tasks.add, 1, 2)), 3);
    await assertRejects(() => within(pool.run(tasks.fail)), RangeError, "out of range");
    assertEquals(await within(Array.fromAsync(pool.map(tasks.double, [1, 2, 3]))), [2, 4, 6]);
    assertStringIncludes(String(reported[0]), "xread");
  },
);

Deno.test("ClusterPool sends a job again that Redis has forgotten", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const future = await pool.submit(tasks.add, 1, 2);
  const client = new Redis(server.url);
  await until(async () => (await client.llen("dpool:test.v1:wait")) === 1);
  await client.flushall();
  // Others have ended since it was sent, as in any queue that has just begun.
  await client.zadd("dpool:test.v1:completed", Date.now() + 1, "other");
  await client.quit();
  await using _host = await startHost(server);
  assertEquals(await within(future.result()), 3);
});

Deno.test("ClusterPool fails jobs that no host will find, as the server has evicted their list", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const futures = await Promise.all([1, 2].map((x) => pool.submit(tasks.add, x, x)));
  await using client = openClient(server);
  await until(async () => (await client.llen("dpool:test.v1:wait")) === 2);
  await client.del("dpool:test.v1:wait");
  for (const future of futures) {
    const error = await within(future.exception());
    assertInstanceOf(error, WorkerDiedError);
    assertStringIncludes(error.message, "as the server has lost the list in which it waited");
  }
  await until(async () => (await client.keys("dpool:test.v1:job-*")).length === 0);
});

Deno.test("ClusterPool fails also many thousands of jobs that no host will find, and asks for some of them at a time", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using pool = await openPool(server, { queueSize: 20_000 });
  await using client = openClient(server);
  const futures = await Promise.all(Array.from({ length: 20_000 }, (_, x) => pool.submit(tasks.add, x, x)));
  await until(async () => (await client.llen("dpool:test.v1:wait")) === 20_000);
  // The names of all of them are more than it takes as an argument.
  await client.config("SET", "proto-max-bulk-len", "1048576");
  await client.del("dpool:test.v1:wait");
  const errors = await within(Promise.all(futures.map((future) => future.exception())), 60_000);
  assertEquals(errors.filter((error) => !(error instanceof WorkerDiedError)), []);
});

Deno.test("ClusterPool fails a job that no host will find, as the server has evicted its list, although another waits in a new one", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using client = openClient(server);
  const [lost, other] = [await pool.submit(tasks.add, 1, 1), await pool.submit(tasks.add, 2, 2)];
  await until(async () => (await client.llen("dpool:test.v1:wait")) === 2);
  await client.lrem("dpool:test.v1:wait", 1, `job-${lost.id}`);
  const error = await within(lost.exception());
  assertInstanceOf(error, WorkerDiedError);
  assertStringIncludes(error.message, "as the server has lost the list in which it waited");
  await using _host = await startHost(server);
  assertEquals(await within(other.result()), 4);
});

Deno.test("ClusterPool looks for jobs that no host will find also while the server's memory is full, reports nothing, and is sent no lists", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  const reported: string[] = [];
  await using pool = await openPool(server, { onError: (error) => void reported.push(String(error)) });
  await using client = openClient(server);
  const [lost, waits] = await Promise.all([1, 2].map((x) => pool.submit(tasks.add, x, x)));
  await until(async () => (await client.llen("dpool:test.v1:wait")) === 2);
  // Before it in the list, and more than a script reads at a time.
  await client.lpush("dpool:test.v1:wait", ...Array.from({ length: 20_000 }, (_, i) => `other-${i}`));
  await client.config("SET", "maxmemory", "1");
  await client.config("RESETSTAT");
  await client.lrem("dpool:test.v1:wait", 1, `job-${lost!.id}`);
  assertInstanceOf(await within(lost!.exception()), WorkerDiedError);
  assertEquals([reported, waits!.state], [[], "queued"]);
  const [, sent] = /^total_net_output_bytes:(\d+)/m.exec(await client.info("stats"))!;
  assert(Number(sent) < 100_000, `The lists were sent: ${sent} bytes`);
  await client.ltrim("dpool:test.v1:wait", -1, -1);
  await client.config("SET", "maxmemory", "0");
  await using _host = await startHost(server);
  assertEquals(await within(waits!.result()), 4);
});

Deno.test("ClusterPool does not read the lists, which may be long, as a job has just left its own", async () => {
  await using server = await RedisServer.start();
  const original = Redis.prototype.eval;
  Redis.prototype.eval = function (this: Redis, script: string, ...rest: unknown[]) {
    if (script.includes('"LPOS"')) {
      Redis.prototype.eval = original;
      rest[rest.length - 1] = "gone";
    }
    return Reflect.apply(original, this, [script, ...rest]);
  } as typeof original;
  try {
    await using pool = await openPool(server);
    await using client = openClient(server);
    const future = await pool.submit(tasks.add, 1, 1);
    // In each list, and then again until it was found: it has looked twice.
    await until(async () => await callsOf(client, "lpos") >= 4);
    assertEquals([await callsOf(client, "lrange"), future.state], [0, "queued"]);
    await using _host = await startHost(server);
    assertEquals(await within(future.result()), 2);
  } finally {
    Redis.prototype.eval = original;
  }
});

Deno.test("ClusterPool fails a job whose list is lost also if another producer finds that first, and takes it out", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const future = await pool.submit(tasks.add, 1, 1);
  await using client = openClient(server);
  await until(async () => (await client.llen("dpool:test.v1:wait")) === 1);
  await client.del("dpool:test.v1:wait");
  await client.config("RESETSTAT");
  // It has asked once; what it asks when it hears of the other one is answered later.
  await until(async () => await callsOf(client, "lpos") >= 1);
  const queue = new Queue("test.v1", { connection: client, prefix: "dpool", skipVersionCheck: true });
  await queue.remove(`job-${future.id}`);
  const error = await within(future.exception());
  assertInstanceOf(error, WorkerDiedError);
  assertStringIncludes(error.message, "as the server has lost the list in which it waited");
  await queue.close();
});

Deno.test("ClusterPool does not send a job again whose record may have been trimmed", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  for (const set of ["completed", "failed"]) {
    const future = await pool.submit(tasks.add, 1, 2);
    await using client = openClient(server);
    await until(async () => (await client.llen("dpool:test.v1:wait")) === 1);
    const [id] = await client.lrange("dpool:test.v1:wait", 0, 0);
    // As if it had ended, followed by as many others as are kept.
    const others = Array.from({ length: 10_000 }, (_, i) => [Date.now() + 1000, `other-${i}`]).flat();
    await client.multi().del(`dpool:test.v1:${id}`).lrem("dpool:test.v1:wait", 1, id!).zadd(`dpool:test.v1:${set}`, ...others).exec();
    const error = await within(future.exception());
    assertInstanceOf(error, WorkerDiedError);
    assertStringIncludes(error.message, `as the oldest of 10000 ${set} jobs is younger, and is not run again`);
    assertEquals((await pool.status()).waiting, 0);
    await client.flushall();
  }
});

Deno.test("ClusterPool does not send a job again whose record may have been removed for its age, although no other is kept", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using client = openClient(server);
  for (const [set, age] of [["completed", 600], ["failed", 86_400]] as const) {
    const future = await pool.submit(tasks.add, 1, 2);
    await until(async () => (await client.llen("dpool:test.v1:wait")) === 1);
    const [id] = await client.lrange("dpool:test.v1:wait", 0, 0);
    // As if it had ended, and a chunk of a map after the time for which it is kept, which was taken out.
    await client.multi().del(`dpool:test.v1:${id}`).lrem("dpool:test.v1:wait", 1, id!)
      .hset(`dpool:test.v1:metrics:${set}`, "count", 2, "prevTS", Date.now() + 1000 * age, "prevCount", 0).exec();
    const error = await within(future.exception());
    assertInstanceOf(error, WorkerDiedError);
    assertStringIncludes(error.message, `as those of ${set} jobs were removed since, and is not run again`);
    assertEquals((await pool.status()).waiting, 0);
    await client.flushall();
  }
});

Deno.test("ClusterPool does not send a job again that was seen to start", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  const [file, gate] = [`${server.folder}/runs`, `${server.folder}/go`];
  const future = await pool.submit(tasks.note, file, gate);
  await until(async () => future.running() && await runs(file) === 1);
  const client = new Redis(server.url);
  await client.flushall();
  await client.quit();
  await Deno.writeTextFile(gate, "");
  const error = await within(future.exception());
  assertInstanceOf(error, WorkerDiedError);
  assertStringIncludes(error.message, "as the server has lost it after it was started, and it is not run again");
  assertEquals(await runs(file), 1);
});

Deno.test("ClusterPool.shutdown() waits for jobs and callbacks, cancels what waits if it is told so, and refuses what comes later", async () => {
  await using server = await RedisServer.start();
  const pool = await openPool(server, { queueSize: 2 });
  const gate = `${server.folder}/go`;
  await using _host = await startHost(server);
  let called = false;
  const running = await pool.submit(
    new Job({ func: tasks.note, args: [`${server.folder}/runs`, gate], onDone: () => void (called = true) }),
  );
  await until(() => running.running());
  const queued = await pool.submit(tasks.add, 1, 1);
  const waiting = pool.submit(tasks.add, 2, 2);
  const shutdown = pool.shutdown({ cancelPending: true });
  await assertRejects(() => waiting, PoolClosedError, "shut down meanwhile");
  await assertRejects(() => pool.submit(tasks.add, 1, 1), PoolClosedError);
  assertEquals([queued.state, running.state], ["cancelled", "running"]);
  await Deno.writeTextFile(gate, "");
  await within(shutdown);
  await within(pool.shutdown());
  assertEquals([running.state, called], ["finished", true]);
});

for (const added of [false, true]) {
  const kind = added ? "Future.addDoneCallback()" : "Job's onDone";
  Deno.test(`ClusterPool: ${kind} may cancel thousands of jobs that have the same callback, and shutdown() waits for all of them`, async () => {
    await using server = await RedisServer.start();
    const reported: unknown[] = [];
    const pool = await openPool(server, { queueSize: 2000, onError: (error) => reported.push(error) });
    const futures: Future<number>[] = [];
    let called = 0;
    const cancelAll = async (): Promise<void> => {
      for (const future of futures) future.cancel();
      await new Promise((resolve) => setTimeout(resolve));
      called++;
    };
    for (let id = 0; id < 2000; id++) {
      futures.push(await pool.submit(new Job({ id, func: tasks.add, args: [1, 1], ...(added ? {} : { onDone: cancelAll }) })));
      if (added) futures[id]!.addDoneCallback(cancelAll);
    }
    const shutdown = pool.shutdown();
    futures[0]!.cancel();
    for (const error of await Promise.all(futures.map((future) => future.exception()))) assertInstanceOf(error, JobCancelledError);
    await within(shutdown);
    assertEquals([called, reported], [2000, []]);
  });
}

Deno.test("ClusterPool.shutdown() within a callback that waits for it cancels jobs that have the same callback", async () => {
  await using server = await RedisServer.start();
  const pool = await openPool(server);
  const onDone = () => pool.shutdown({ cancelPending: true });
  const submit = (id: number) => pool.submit(new Job({ id, func: tasks.add, args: [1, 1], onDone }));
  const futures = await Promise.all([1, 2, 3].map(submit));
  assert(futures[0]!.cancel());
  await within(pool.shutdown());
  assertEquals(futures.map(({ state }) => state), ["cancelled", "cancelled", "cancelled"]);
});

Deno.test("ClusterPool.terminate() and a shutdown whose time is over settle everything, and hosts stop", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  for (const end of [(pool: ClusterPool) => pool.terminate("enough"), (pool: ClusterPool) => pool.shutdown({ timeout: 10 })]) {
    const pool = await openPool(server);
    const running = await pool.submit(tasks.spinForEver);
    const queued = await pool.submit(tasks.add, 1, 1);
    await until(() => running.running());
    await within(end(pool));
    assertInstanceOf(await running.exception(), PoolClosedError);
    assertInstanceOf(await queued.exception(), JobCancelledError);
  }
  await using pool = await openPool(server);
  assertEquals(await within(pool.run(tasks.add, 1, 1)), 2);
});

// What BullMQ has started ends by a timer.
Deno.test(
  "ClusterPool.attach() and status() reject with a PoolClosedError if the pool is shut down while the server is away",
  { sanitizeOps: false, sanitizeResources: false },
  async () => {
    await using server = await RedisServer.start();
    const pool = await openPool(server, { onError: () => {} });
    await server.kill();
    const asked = [pool.attach("job"), pool.status()];
    const refused = asked.map((answer) => assertRejects(() => answer, PoolClosedError, "as it is shut down"));
    await within(Promise.all([pool.shutdown(), ...refused]));
  },
);

Deno.test("ClusterPool.status() counts the last minutes, even if nothing has ended since, or jobs failed and returned at different times", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  await within(pool.run(tasks.add, 1, 1));
  await assertRejects(() => within(pool.run(tasks.fail)), RangeError);
  await using client = openClient(server);
  const minute = (): number => Math.floor(Date.now() / 60_000);
  let now: number;
  let perMinute: number[];
  do {
    now = minute();
    await client.hset("dpool:test.v1:metrics:completed", "prevTS", (now - 3) * 60_000);
    await client.hset("dpool:test.v1:metrics:failed", "prevTS", (now - 1) * 60_000);
    ({ perMinute } = await pool.status());
  } while (now !== minute());
  assertEquals(perMinute, [1, 0, 1]);
  await client.hset("dpool:test.v1:metrics:completed", "prevTS", 0);
  await client.hset("dpool:test.v1:metrics:failed", "prevTS", 0);
  const none = Array.from({ length: 60 }, () => 0);
  ({ perMinute } = await pool.status());
  assertEquals(perMinute, none);
  do {
    now = minute();
    await client.hset("dpool:test.v1:metrics:completed", "prevTS", 0);
    await within(pool.run(tasks.add, 1, 1));
    ({ perMinute } = await pool.status());
  } while (now !== minute());
  assertEquals(perMinute, none);
});

Deno.test("ClusterPool.status() describes the hosts and jobs of the whole queue", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await pool.submit(tasks.add, 1, 1);
  await until(async () => (await pool.status()).waiting === 1);
  assertEquals((await pool.status()).hosts, []);
  await using _host = await startHost(server, { name: "a.b-c" });
  await until(async () => (await pool.status()).completed === 1);
  const { hosts, waiting, active, failed, queue } = await pool.status();
  assertEquals([hosts?.map(({ name }) => name), waiting, active, failed, queue], [["a.b-c"], 0, 0, 0, "test"]);
});

Deno.test("ClusterPool reports what a callback throws, and warns of a server that may lose jobs", async () => {
  await using server = await RedisServer.start(["--maxmemory-policy", "allkeys-lru", "--appendonly", "no"]);
  const warnings: string[] = [];
  const reported: unknown[] = [];
  await using _host = await startHost(server);
  await using pool = await openPool(server, { onWarning: (message) => warnings.push(message), onError: (error) => reported.push(error) });
  assertEquals(warnings.length, 2);
  assertStringIncludes(warnings[0]!, 'maxmemory-policy is "allkeys-lru"');
  assertStringIncludes(warnings[1]!, "appendonly is off");
  const mistake = new Error("callback");
  const onDone: Task = () => {
    throw mistake;
  };
  await within(pool.run(new Job({ func: tasks.add, args: [1, 1], onDone })));
  await until(() => reported.length > 0);
  assertEquals(reported, [mistake]);
});

Deno.test("ClusterPool with 'retries' runs the items of a map again whose worker died, each as often, and no others", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server, { retries: 1 });
  const files = ["one", "two", "three"].map((name) => `${server.folder}/${name}`);
  assertEquals(await within(Array.fromAsync(pool.map(tasks.unsteady, files, { chunkSize: 3 }))), ["steady", "steady", "steady"]);
  const outcomes = await within(Array.fromAsync(pool.map(tasks.exitAt13, [12, 13, 14], { chunkSize: 3, settled: true })));
  assertEquals(outcomes.map((outcome) => outcome.status === "fulfilled" ? outcome.value : outcome.reason.jobId), [24, 1, 28]);
  const { reason } = outcomes[1] as PromiseRejectedResult;
  assertInstanceOf(reason, WorkerDiedError);
  assertEquals([reason.attempts, (reason.cause as Error).message], [2, "2 runs have failed"]);
});

Deno.test("ClusterPool.map() tells items their index in the whole input and the number of their run, also if a host runs them one by one", async () => {
  for (const redeliveries of [1, 0]) {
    await using server = await RedisServer.start();
    await using _host = await startHost(server, { redeliveries });
    // The host checks the items, the pool does not.
    const unchecked = defineTasks<Pick<typeof import("./tasks.ts"), "whichRun">>({ whichRun: tasks.whichRun.module });
    await using pool = await openPool(server, { retries: 1, tasks: unchecked });
    const items = ["", "", `${server.folder}/one`, "", "refused", `${server.folder}/two`, ""];
    const outcomes = await within(Array.fromAsync(pool.map(unchecked.whichRun, items, { chunkSize: 3, settled: true })));
    assertEquals(
      outcomes.map((outcome) => outcome.status === "fulfilled" ? outcome.value : outcome.reason.name),
      [[0, 1], [1, 1], [2, 2], [3, 1], "RangeError", [5, 2], [6, 1]],
    );
  }
});

Deno.test("ClusterPool.submit() of an id that was cancelled a moment ago runs it", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const file = `${server.folder}/runs`;
  const job = () => new Job({ id: "again", func: tasks.note, args: [file] });
  // The first has not reached the queue when it is cancelled.
  const first = await pool.submit(job());
  assertEquals(first.cancel(), true);
  const second = await pool.submit(job());
  await using _host = await startHost(server);
  assertEquals([await within(second.result()), first.state, await runs(file)], ["noted", "cancelled", 1]);
});

Deno.test("ClusterPool.submit() of an id that was stopped while it ran runs it, at once and later", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  for (const id of ["at once", "later"]) {
    const busy = await pool.submit(new Job({ id, func: tasks.spinForEver }));
    await until(() => busy.running());
    assert(busy.cancel({ force: true }));
    if (id === "later") await until(async () => (await pool.status()).active === 0);
    assertEquals([await within(pool.run(new Job({ id, func: tasks.add, args: [1, 1] }))), busy.state], [2, "cancelled"]);
  }
});

Deno.test("ClusterPool.terminate() does not wait for a store that never answers, and says so", async () => {
  await using server = await RedisServer.start();
  const never = () => new Promise<never>(() => {});
  const reported: string[] = [];
  const pool = await openPool(server, {
    payloads: { put: never, get: never, delete: never },
    onError: (error) => reported.push((error as Error).message),
  });
  const future = await pool.submit(tasks.echo, "x".repeat(300_000));
  const shut = pool.shutdown();
  await within(pool.terminate());
  await within(shut);
  assertEquals([future.state, reported], [
    "cancelled",
    ["Left the payload store as it is, as it does not answer: 2 calls are open"],
  ]);
});

Deno.test("ClusterPool.shutdown() with a timeout does not wait for a store that never finishes deleting", async () => {
  await using server = await RedisServer.start();
  const folder = await Deno.makeTempDir({ dir: server.folder });
  await using _host = await startHost(server, { store: folder });
  const reported: string[] = [];
  const pool = await openPool(server, {
    payloads: { ...folderStore(folder), delete: () => new Promise<never>(() => {}) },
    onError: (error) => reported.push((error as Error).message),
  });
  assertEquals((await within(pool.run(tasks.large, 300_000))).length, 300_000);
  await within(pool.shutdown({ timeout: 10 }));
  assertEquals(reported, ["Left the payload store as it is, as it does not answer: 1 calls are open"]);
});
