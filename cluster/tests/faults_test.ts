import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { type Job as QueuedJob, Queue, Worker } from "bullmq";
import { Redis } from "ioredis";
import { ClusterPool, defineTasks, Job, JobCancelledError, PoolBrokenError, PoolClosedError, serve, WorkerDiedError } from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";
import {
  Child,
  LEAVES_SERVER,
  lines,
  openClient,
  openPool,
  RedisServer,
  startHost,
  sweepOften,
  until,
  within,
  writeFragileModule,
} from "./helpers.ts";
import { Line } from "./line.ts";

Deno.test("200 jobs over two hosts: both are used, and all results arrive", async () => {
  await using server = await RedisServer.start();
  await using one = await startHost(server, { workers: 2 });
  await using two = await startHost(server, { workers: 2 });
  await using pool = await openPool(server);
  const futures = [];
  for (let n = 0; n < 200; n++) futures.push(await pool.submit(tasks.hostOf, 5));
  const pids = await within(Promise.all(futures.map((future) => future.result())));
  assertEquals(new Set(pids), new Set([one.process.pid, two.process.pid]));
  assertEquals(pool.stats().finished, 200);
});

Deno.test("200 jobs over two hosts, one of which is killed: all results arrive, each once, and what ran there runs again", async () => {
  await using server = await RedisServer.start();
  await using one = await startHost(server, { workers: 2 });
  await using two = await startHost(server, { workers: 2 });
  const redelivered: unknown[] = [];
  await using pool = await openPool(server, { onRedelivered: ({ id }) => redelivered.push(id) });
  const done: unknown[] = [];
  const futures = [];
  for (let id = 0; id < 200; id++) {
    futures.push(await pool.submit(new Job({ id, func: tasks.hostOf, args: [20], onDone: ({ id }) => void done.push(id) })));
  }
  await until(() => done.length > 20 && pool.stats().running === 4);
  one.kill("SIGKILL");
  const pids = await within(Promise.all(futures.map((future) => future.result())));
  assertEquals(done.length, 200);
  assertEquals(new Set(done).size, 200);
  assert(pids.includes(one.process.pid) && pids.includes(two.process.pid));
  // As many as it had workers, unless one of them was about to start the next job.
  assert(redelivered.length >= 1 && redelivered.length <= 2, `${redelivered.length} jobs were redelivered`);
  assertEquals(pool.stats().redelivered, redelivered.length);
});

Deno.test("a map over two hosts, one of which is killed: all results arrive in order, each once", async () => {
  await using server = await RedisServer.start();
  await using one = await startHost(server, { workers: 2 });
  await using _two = await startHost(server, { workers: 2 });
  await using pool = await openPool(server);
  const results: number[] = [];
  for await (const x of pool.map(tasks.double, Array.from({ length: 2000 }, (_, n) => n), { chunkSize: 10 })) {
    results.push(x);
    if (results.length === 300) one.kill("SIGKILL");
  }
  assertEquals(results, Array.from({ length: 2000 }, (_, n) => n * 2));
});

Deno.test("Redis is killed in the middle and comes back with its log: all results arrive", async () => {
  await using server = await RedisServer.start();
  const [reported, warnings]: [unknown[], string[]] = [[], []];
  await using pool = await openPool(server, { onError: (error) => reported.push(error), onWarning: (message) => warnings.push(message) });
  await using _host = await startHost(server, { workers: 2 });
  let done = 0;
  const futures = [];
  for (let n = 0; n < 200; n++) {
    futures.push(await pool.submit(new Job({ func: tasks.hostOf, args: [10], onDone: () => void done++ })));
  }
  await until(() => done > 20);
  await server.kill();
  await until(() => reported.length > 0);
  const meanwhile = await pool.submit(tasks.add, 1, 1);
  await server.restart();
  await within(Promise.all(futures.map((future) => future.result())));
  assertEquals([await within(meanwhile.result()), done], [2, 200]);
  assertStringIncludes(String(reported[0]), `Lost connection to redis://127.0.0.1:${server.port}`);
  assertEquals([reported.length, warnings], [1, [`redis://127.0.0.1:${server.port}: connected again`]]);
});

Deno.test("only a job that kills each of its hosts fails: not those that wait, nor the others of its chunk", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const outcomes = Array.fromAsync(pool.map(tasks.killHostAt13, Array.from({ length: 40 }, (_, n) => n), { chunkSize: 10, settled: true }));
  const poison = await pool.submit(tasks.killHostAt13, 13);
  const others = [];
  for (let n = 0; n < 10; n++) others.push(await pool.submit(tasks.add, n, n));
  let over = false;
  const all = Promise.all([outcomes, poison.exception(), ...others.map((future) => future.result())]).finally(() => over = true);
  let hosts = 0;
  while (!over) {
    await using host = await startHost(server);
    hosts++;
    await within(Promise.race([host.process.status, all]));
  }
  const [settled, error, ...sums] = await all;
  assertEquals(sums, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
  assertInstanceOf(error, WorkerDiedError);
  assertStringIncludes(error.message, "it is not delivered again");
  const rejected = settled.flatMap((outcome, n) => outcome.status === "rejected" ? [[n, outcome.reason]] : []);
  assertEquals(rejected.map(([n]) => n), [13]);
  assertInstanceOf(rejected[0]![1], WorkerDiedError);
  // Twice for the job, twice for the chunk and twice for the single item; the last host does the rest.
  assertEquals(hosts, 7);
  const { finished, failed, redelivered } = pool.stats();
  assertEquals([finished, failed, redelivered], [39 + 10, 1 + 1, 3]);
});

Deno.test("a host with 'redeliveries' of 0 starts a job once at the most", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const file = `${server.folder}/runs`;
  const future = await pool.submit(tasks.note, file, `${server.folder}/never`);
  {
    await using host = await startHost(server, { redeliveries: 0 });
    await until(async () => (await lines(file)).length === 1);
    host.kill("SIGKILL");
  }
  await using _host = await startHost(server, { redeliveries: 0 });
  assertInstanceOf(await within(future.exception()), WorkerDiedError);
  assertEquals([(await lines(file)).length, pool.stats().redelivered], [1, 0]);
});

Deno.test("hosts with 'redeliveries' of 0 run no item of a map twice whose host died", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const file = `${server.folder}/runs`;
  const items = [11, 12, 13, 14].map((x) => ({ file, x }));
  const outcomes = Array.fromAsync(pool.map(tasks.noteAndKillHostAt13, items, { chunkSize: 4, settled: true }));
  let over = false;
  const all = outcomes.finally(() => over = true);
  while (!over) {
    await using host = await startHost(server, { redeliveries: 0 });
    await within(Promise.race([host.process.status, all]));
  }
  for (const outcome of await all) {
    assertInstanceOf((outcome as PromiseRejectedResult).reason, WorkerDiedError);
    assertStringIncludes((outcome as PromiseRejectedResult).reason.message, "it is not delivered again");
  }
  assertEquals(await lines(file), ["11", "12", "13"]);
});

Deno.test("hosts with 'redeliveries' of 0 run no item of a map twice, even if a host dies that had only come to fail its chunk", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const file = `${server.folder}/runs`;
  const items = [12, 13, 14].map((x) => ({ file, x }));
  const outcomes = Array.fromAsync(pool.map(tasks.noteAndKillHostAt13, items, { chunkSize: 3, settled: true }));
  {
    await using host = await startHost(server, { redeliveries: 0 });
    await host.status();
  }
  const client = new Redis(server.url, { maxRetriesPerRequest: null });
  const options = { connection: client, prefix: "dpool", lockDuration: 500, stalledInterval: 200, maxStalledCount: 0 };
  const second = new Worker("test.v1", null, options);
  await second.startStalledCheckTimer();
  await until(async () => await second.getNextJob("token", { block: false }) !== undefined);
  await second.close(true);
  let over = false;
  const all = outcomes.finally(() => over = true);
  while (!over) {
    await using host = await startHost(server, { redeliveries: 0 });
    await within(Promise.race([host.process.status, all]));
  }
  for (const outcome of await all) assertInstanceOf((outcome as PromiseRejectedResult).reason, WorkerDiedError);
  assertEquals(await lines(file), ["12", "13"]);
  await client.quit();
});

Deno.test("a job that computes for longer than the lock lasts runs once", async () => {
  await using server = await RedisServer.start();
  await using _one = await startHost(server);
  await using _two = await startHost(server);
  await using pool = await openPool(server);
  // Both hosts have a worker that computes for three lock durations, while they look for jobs of dead hosts six times.
  const spins = [await pool.submit(tasks.spin, 3000), await pool.submit(tasks.spin, 3000)];
  assertEquals(await within(Promise.all(spins.map((future) => future.result()))), ["span", "span"]);
  assertEquals(pool.stats().redelivered, 0);
});

Deno.test("what others write into the queue fails after one attempt: unknown names, addresses, other versions, other releases", async () => {
  await using server = await RedisServer.start();
  await using host = await startHost(server, { release: "7" });
  const client = new Redis(server.url, { maxRetriesPerRequest: null });
  const queue = new Queue("test.v1", { connection: client, prefix: "dpool" });
  const cases: [unknown, string][] = [
    [{ v: 1, task: "none", args: [] }, 'Cannot run task \\"none\\" as this host has none of that name'],
    [{ v: 1, task: "__proto__", args: [] }, 'Cannot run task \\"__proto__\\"'],
    [{ v: 1, task: "constructor", args: [] }, 'Cannot run task \\"constructor\\"'],
    [{ v: 1, task: "file:///etc/passwd", args: [] }, 'Cannot run task \\"file:///etc/passwd\\"'],
    [{ v: 1, task: "(x) => Deno.exit()", args: [] }, "as this host has none of that name"],
    [{ v: 2, task: "add", args: [1, 2] }, "this host reads version 1: current value is 2"],
    [{ v: 1, task: "add", args: ["1", "2"] }, "add() takes numbers"],
    [{ v: 1, task: "add", args: [1, 2], release: "8" }, 'as this host is of release \\"7\\"'],
    [{ v: 1, task: "add", stored: "args", storedAs: "a" }, "as this host was given no 'payloads'"],
    ["text", "it must be an object"],
  ];
  const jobs: QueuedJob[] = [];
  for (const [data] of cases) jobs.push(await queue.add("add", data, { attempts: 5, removeOnFail: false }));
  for (const [i, [, message]] of cases.entries()) {
    await until(async () => await jobs[i]!.isFailed());
    const job = (await queue.getJob(jobs[i]!.id!))!;
    assertStringIncludes(job.failedReason!, message);
    assertEquals([job.attemptsMade, job.stacktrace], [1, []]);
  }
  const good = await queue.add("add", { v: 1, task: "add", args: [1, 2], release: "7" });
  await until(async () => await good.isCompleted());
  await queue.close();
  await client.quit();
  assertEquals(host.said, "ready\n");
});

Deno.test("a host that is told to stop finishes what runs, delivers it and ends with code 0", async () => {
  await using server = await RedisServer.start();
  await using host = await startHost(server);
  await using pool = await openPool(server);
  const [file, gate] = [`${server.folder}/runs`, `${server.folder}/go`];
  const running = await pool.submit(tasks.note, file, gate);
  const next = await pool.submit(tasks.note, file);
  await until(async () => running.running() && (await lines(file)).length === 1);
  host.kill("SIGTERM");
  // It takes no other job meanwhile: it has shown that by disconnecting from the queue.
  await until(async () => (await pool.status()).hosts?.length === 0);
  await Deno.writeTextFile(gate, "");
  assertEquals(await within(running.result()), "noted");
  assertEquals((await host.status()).code, 0);
  assertStringIncludes(host.said, "stopped");
  assertEquals([(await lines(file)).length, next.state, pool.stats().redelivered], [1, "queued", 0]);
});

Deno.test("a host that is told to stop gives back what does not finish in time, and another runs it at once", async () => {
  await using server = await RedisServer.start();
  // A lock of an hour: waiting for it would take too long.
  const slow = { lockDuration: 3_600_000, stalledInterval: 3_600_000 };
  await using one = await startHost(server, { ...slow, grace: 50 });
  await using pool = await openPool(server);
  const [file, gate] = [`${server.folder}/runs`, `${server.folder}/go`];
  const future = await pool.submit(tasks.note, file, gate);
  await until(async () => future.running() && (await lines(file)).length === 1);
  await using _two = await startHost(server, slow);
  one.kill("SIGTERM");
  assertEquals((await one.status()).code, 0);
  await Deno.writeTextFile(gate, "");
  assertEquals(await within(future.result()), "noted");
  assertEquals([(await lines(file)).length, pool.stats().redelivered], [2, 1]);
});

Deno.test("a job that was given back and waits does not count as running, and can be cancelled", async () => {
  await using server = await RedisServer.start();
  await using host = await startHost(server, { grace: 50 });
  await using pool = await openPool(server);
  const file = `${server.folder}/runs`;
  const future = await pool.submit(new Job({ id: "back", func: tasks.note, args: [file, `${server.folder}/never`] }));
  await until(async () => future.running() && (await lines(file)).length === 1);
  host.kill("SIGTERM");
  assertEquals((await host.status()).code, 0);
  await until(() => !future.running());
  // A program that attaches asks for the outcome, as each producer does every other second; later questions on the same connection are
  // answered later.
  await using other = await openPool(server);
  const attached = await other.attach("back");
  assertEquals([(await other.status()).waiting, attached.state], [1, "queued"]);
  assert(attached.cancel());
  assertInstanceOf(await within(future.exception()), JobCancelledError);
});

Deno.test("a host with 'redeliveries' of 0 that is told to stop fails what does not finish in time, and no other runs it", async () => {
  await using server = await RedisServer.start();
  await using one = await startHost(server, { redeliveries: 0, grace: 50 });
  await using pool = await openPool(server);
  const file = `${server.folder}/runs`;
  const future = await pool.submit(tasks.note, file, `${server.folder}/never`);
  await until(async () => (await lines(file)).length === 1);
  one.kill("SIGTERM");
  const error = await within(future.exception());
  assertInstanceOf(error, WorkerDiedError);
  assertStringIncludes(error.message, "as its host was told to stop, and it is not delivered again");
  assertEquals((await one.status()).code, 0);
  assertEquals([(await lines(file)).length, pool.stats().redelivered, (await pool.status()).waiting], [1, 0, 0]);
});

Deno.test("a job that was cancelled while its host died is not run again", async () => {
  await using server = await RedisServer.start();
  await using one = await startHost(server);
  await using pool = await openPool(server);
  const file = `${server.folder}/runs`;
  const future = await pool.submit(new Job({ id: "gone", func: tasks.note, args: [file, `${server.folder}/never`] }));
  await until(async () => future.running() && (await lines(file)).length === 1);
  one.kill("SIGKILL");
  await one.status();
  assert(future.cancel({ force: true }));
  await using _two = await startHost(server);
  await until(async () => (await pool.status()).failed === 1);
  await assertRejects(() => pool.attach("gone"), Deno.errors.NotFound);
  assertEquals((await lines(file)).length, 1);
});

Deno.test(
  "a job that is cancelled on its way to a host does not run there, and one of the same id that is submitted later does",
  LEAVES_SERVER,
  async () => {
    await using server = await RedisServer.start();
    await using line = new Line(server.port);
    await using host = await serve({ queue: "test", connection: line.url, tasks, workers: 1, lockDuration: 60_000 });
    await using pool = await openPool(server);
    await until(() => line.waited);
    line.hold();
    const future = await pool.submit(new Job({ id: "late", func: tasks.spinForEver }));
    await until(() => future.running());
    assert(future.cancel({ force: true }));
    await until(() => line.said.includes("job-late"));
    // A later command on the same connection shows that the host has read it, a few turns later.
    const client = new Redis(server.url);
    for (const turn of ["one", "two", "three"]) {
      await client.publish("dpool:test.v1:cancel:0", turn);
      await until(() => line.said.includes(turn));
    }
    line.release();
    await until(async () => (await pool.status()).failed === 1);
    assertEquals(host.stats().running, 0);
    // The host hears of a job that it never had, under a name that is used again.
    await client.publish("dpool:test.v1:cancel:0", "job-again");
    await client.quit();
    await until(() => line.said.includes("job-again"));
    assertEquals(await within(pool.run(new Job({ id: "again", func: tasks.add, args: [1, 1] }))), 2);
  },
);

Deno.test(
  "a job of an id that was cancelled once runs although the server is busy when the host looks whether it is wanted",
  LEAVES_SERVER,
  async () => {
    await using server = await RedisServer.start(["--busy-reply-threshold", "1"]);
    await using line = new Line(server.port);
    const busy = Promise.withResolvers<void>();
    const onError = (error: unknown) => {
      if (String(error).includes("BUSY")) busy.resolve();
    };
    await using _host = await serve({ queue: "test", connection: line.url, tasks, workers: 1, lockDuration: 60_000, onError });
    await using pool = await openPool(server, { onError: () => {} });
    const [client, script] = [new Redis(server.url), new Redis(server.url)];
    await until(() => line.waited);
    await client.publish("dpool:test.v1:cancel:0", "job-again");
    await until(() => line.said.includes("job-again"));
    line.hold();
    const future = await pool.submit(new Job({ id: "again", func: tasks.add, args: [1, 1] }));
    await until(async () => await client.llen("dpool:test.v1:active") === 1);
    const ended = script.eval("while true do end", 0).catch(() => {});
    await until(() => client.get("dpool:test.v1:none").then(() => false, (error) => error.message.startsWith("BUSY")));
    line.release();
    await within(busy.promise);
    await client.script("KILL");
    await ended;
    assertEquals(await within(future.result()), 2);
    await Promise.all([client.quit(), script.quit()]);
  },
);

Deno.test("ClusterPool.terminate() has jobs stopped also if that takes longer than a silent server is waited for", async () => {
  await using server = await RedisServer.start();
  await using line = new Line(server.port);
  await using _host = await startHost(server, { lockDuration: 60_000 });
  await using pool = await openPool(server, { connection: line.url });
  const running = await pool.submit(tasks.spinForEver);
  await until(() => running.running());
  // Some commands in a row, each of which waits for the answer to the one before.
  line.delay = 1000;
  await within(pool.terminate());
  await using other = await openPool(server);
  assertEquals(await within(other.run(tasks.add, 1, 1)), 2);
});

Deno.test("ClusterPool.terminate() has jobs taken out also if callbacks hold the program up for longer than a silent server is waited for", async () => {
  await using server = await RedisServer.start();
  await using client = openClient(server);
  await using pool = await openPool(server);
  const future = await pool.submit(tasks.add, 1, 1);
  await until(async () => await client.llen("dpool:test.v1:wait") === 1);
  const outcome = future.exception().then(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3500));
  await within(pool.terminate());
  assertEquals([await outcome, await client.llen("dpool:test.v1:wait")], ["timed-out", 0]);
});

Deno.test("a task or a check that throws the errors of a host without workers fails only its job", async () => {
  await using server = await RedisServer.start();
  const module = import.meta.resolve("./tasks.ts");
  const checked = defineTasks({
    pretend: module,
    double: {
      module,
      validate([x]) {
        if (x === 1) throw new PoolBrokenError("mine", { attempts: 1, cause: undefined });
        if (x === 2) throw new PoolClosedError("mine");
      },
    },
  });
  const reported: unknown[] = [];
  const onError = (error: unknown) => void reported.push(error);
  await using host = await serve({ queue: "test", connection: server.url, tasks: checked, workers: 1, onError });
  await using pool = await openPool(server);
  for (const [i, name] of (["PoolBrokenError", "PoolClosedError"] as const).entries()) {
    for (const future of [await pool.submit(tasks.pretend, name), await pool.submit(tasks.double, i + 1)]) {
      const error = await within(future.exception()) as Error;
      assertEquals([error.name, error.message], [name, "mine"]);
    }
    const [outcome] = await within(Array.fromAsync(pool.map(tasks.pretend, [name], { settled: true })));
    assertEquals((outcome as PromiseRejectedResult).reason.name, name);
  }
  assertEquals(await within(pool.run(tasks.double, 3)), 6);
  assertEquals([reported, host.stats().workers > 0], [[], true]);
});

Deno.test("a job that somebody removes from the queue is cancelled", async () => {
  using often = sweepOften();
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const future = await pool.submit(tasks.add, 1, 1);
  const client = new Redis(server.url, { maxRetriesPerRequest: null });
  const queue = new Queue("test.v1", { connection: client, prefix: "dpool" });
  await until(async () => (await queue.getWaitingCount()) === 1);
  await queue.obliterate();
  await queue.close();
  await client.quit();
  // Obliterating sends no event, so the job is sent again; removing does.
  await until(async () => (await pool.status()).waiting === 1);
  often[Symbol.dispose]();
  const again = new Redis(server.url, { maxRetriesPerRequest: null });
  const same = new Queue("test.v1", { connection: again, prefix: "dpool" });
  for (const job of await same.getWaiting()) await job.remove();
  await same.close();
  await again.quit();
  await assertRejects(() => within(future.result()), JobCancelledError, "as somebody removed it from the queue");
});

Deno.test("a host that was held up for longer than its lock lasts stops its copy of the job, whose result comes once", async () => {
  await using server = await RedisServer.start();
  await using one = await startHost(server);
  await using pool = await openPool(server);
  const [file, gate] = [`${server.folder}/runs`, `${server.folder}/go`];
  const done: unknown[] = [];
  const future = await pool.submit(new Job({ func: tasks.note, args: [file, gate], onDone: ({ state }) => void done.push(state) }));
  await until(async () => (await lines(file)).length === 1);
  one.kill("SIGSTOP");
  await using two = await startHost(server);
  await until(async () => (await lines(file)).length === 2);
  one.kill("SIGCONT");
  await one.says("as its lock has expired");
  await Deno.writeTextFile(gate, "");
  assertEquals(await within(future.result()), "noted");
  assertEquals([done, pool.stats().redelivered], [["finished"], 1]);
  assertEquals(await lines(file), [String(one.process.pid), String(two.process.pid)]);
});

Deno.test("hosts that draw the same random numbers do not take each other's locks for theirs", async () => {
  await using server = await RedisServer.start();
  await using _one = await startHost(server, { seed: 1 });
  await using _two = await startHost(server, { seed: 1 });
  await using pool = await openPool(server);
  await using client = openClient(server);
  const [file, gate] = [`${server.folder}/runs`, `${server.folder}/go`];
  const futures = await Promise.all([1, 2].map(() => pool.submit(tasks.note, file, gate)));
  await until(async () => (await lines(file)).length === 2);
  // A host numbers its locks after a colon.
  const owners = (await client.mget(await client.keys("dpool:test.v1:*:lock"))).map((token) => token!.split(":")[0]);
  assertEquals([owners.length, new Set(owners).size], [2, 2]);
  await Deno.writeTextFile(gate, "");
  await within(Promise.all(futures.map((future) => future.result())));
});

Deno.test("a host whose task module cannot be loaded does not start, and one whose workers cannot be replaced gives its jobs back and ends", async () => {
  await using server = await RedisServer.start();
  const [module, broken] = [`${server.folder}/fragile.ts`, `${server.folder}/broken`];
  await writeFragileModule(module, {
    broken,
    exports: `export function die(): void { Deno.exit(3); }
    export function one(): number { return 1; }`,
  });
  const fragile = defineTasks({ die: `file://${module}`, one: `file://${module}` });
  await using pool = await ClusterPool.open({ queue: "fragile", connection: server.url, tasks: fragile });
  const reported: unknown[] = [];
  const options = {
    queue: "fragile",
    connection: server.url,
    tasks: fragile,
    workers: 1,
    onError: (error: unknown) => void reported.push(error),
  };
  const host = await serve(options);
  await Deno.writeTextFile(broken, "");
  assertInstanceOf(await within((await pool.submit(fragile.die)).exception()), WorkerDiedError);
  const future = await pool.submit(fragile.one);
  const mapped = Array.fromAsync(pool.map(fragile.one, [1, 2, 3]));
  const error = await assertRejects(() => within(host.finished), PoolBrokenError);
  assertStringIncludes(String(error.cause), "the module is broken");
  assert(reported.includes(error));
  await assertRejects(() => within(serve(options)), PoolBrokenError);
  assertEquals(future.done(), false);
  await Deno.remove(broken);
  await using _whole = await serve(options);
  assertEquals([await within(future.result()), await within(mapped)], [1, [1, 1, 1]]);
});

Deno.test("a host whose workers cannot be replaced delivers what it has done of a chunk, and another runs the rest", async () => {
  await using server = await RedisServer.start();
  const [module, broken, file] = [`${server.folder}/fragile.ts`, `${server.folder}/broken`, `${server.folder}/runs`];
  await writeFragileModule(module, {
    broken,
    exports: `export function step(x: number): number {
      Deno.writeTextFileSync(${JSON.stringify(file)}, x + "\\n", { append: true });
      if (x === 1) {
        Deno.writeTextFileSync(${JSON.stringify(broken)}, "");
        Deno.exit(3);
      }
      return x;
    }`,
  });
  const fragile = defineTasks({ step: `file://${module}` });
  await using pool = await openPool(server, { queue: "fragile", tasks: fragile });
  const options = { queue: "fragile", connection: server.url, tasks: fragile, workers: 1, redeliveries: 0, onError: () => {} };
  const host = await serve(options);
  const mapped = Array.fromAsync(pool.map(fragile.step, [0, 1, 2, 3], { chunkSize: 4, settled: true }));
  await assertRejects(() => within(host.finished), PoolBrokenError);
  await Deno.remove(broken);
  await using _whole = await serve(options);
  const outcomes = await within(mapped);
  assertEquals(outcomes.map((outcome) => outcome.status === "fulfilled" ? outcome.value : outcome.reason.name), [
    0,
    "WorkerDiedError",
    2,
    3,
  ]);
  assertEquals(await lines(file), ["0", "1", "2", "3"]);
});

for (const [arg, what] of [["ends", "ends"], ["opens", "is not opened in time"]] as const) {
  Deno.test(`a pool that ${what} while the server loads its data lets its program end`, async () => {
    const script = new URL("./loading.ts", import.meta.url).pathname;
    await using child = new Child(Deno.execPath(), ["run", "--allow-all", "--no-check", script, arg]);
    const { code } = await child.status();
    assertEquals([code, child.said.includes("ended")], [0, true], child.said);
  });
}

// The last one is about the reader of events, which hosts do not have.
for (const [what, hows] of [["pool", ["away", "silent", "away for long"]], ["host", ["away", "silent"]]] as const) {
  for (const how of hows) {
    Deno.test(`a ${what} that ends while the server is ${how} settles everything and lets its program end`, async () => {
      const script = new URL("./away.ts", import.meta.url).pathname;
      await using child = new Child(Deno.execPath(), ["run", "--allow-all", "--no-check", script, what, how]);
      assert((await child.status()).success, child.said);
      assertStringIncludes(child.said, "ended");
    });
  }
}
