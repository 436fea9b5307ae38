import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { type Job as QueuedJob, Queue, QueueEvents, UnrecoverableError, Worker } from "bullmq";
import { Redis } from "ioredis";
import { type ClusterPool, type Future, Job, JobCancelledError, type PayloadStore } from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";
import {
  callsOf,
  Child,
  lines,
  openClient,
  openHost,
  openPool,
  READING_FAILS,
  RedisServer,
  startHost,
  sweepOften,
  takeMemory,
  until,
  within,
} from "./helpers.ts";
import { Line } from "./line.ts";

const silent = { onError: () => {} };

/** Submits a job of the id "same" that spins, and waits until it runs. */
async function spinSame(pool: ClusterPool) {
  const job = await pool.submit(new Job({ id: "same", func: tasks.spinForEver }));
  await until(() => job.running());
  return job;
}

/** Makes a host die with a job of the id "same", which is then cancelled. */
async function cancelOnDead(host: Child, pool: ClusterPool): Promise<void> {
  const job = await spinSame(pool);
  host.kill("SIGKILL");
  assert(job.cancel({ force: true }));
}

/** A host of BullMQ's own, which hears nothing of cancelled jobs, and ends each as the test says. */
class DeafHost implements AsyncDisposable {
  readonly client: Redis;
  #worker: Worker;

  constructor(server: RedisServer) {
    this.client = new Redis(server.url, { maxRetriesPerRequest: null });
    this.#worker = new Worker("test.v1", null, { connection: this.client, prefix: "dpool" });
  }

  /** The next job of the queue. */
  async next(): Promise<QueuedJob> {
    let job: QueuedJob | undefined;
    await until(async () => (job = await this.#worker.getNextJob("token", { block: false })) !== undefined);
    return job!;
  }

  /** Ends the next job of the queue with this value. */
  async complete(value: number): Promise<void> {
    await complete(await this.next(), value);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.close();
    await this.client.quit();
  }
}

async function complete(job: QueuedJob, value: number): Promise<void> {
  await job.moveToCompleted({ v: 1, value }, "token", false);
}

/** Submits a job of the id "same" that adds a number to itself. */
function submitSame(pool: ClusterPool, summand: number): Promise<Future<number>> {
  return pool.submit(new Job({ id: "same", func: tasks.add, args: [summand, summand] }));
}

/** Cancels the job of the id "same" while it runs, and waits until the server knows. */
async function cancelSame(future: Future<number>, client: Redis): Promise<void> {
  await until(() => future.running());
  assert(future.cancel({ force: true }));
  await until(async () => (await client.hget("dpool:test.v1:job-same", "data"))!.includes("cancelled"));
}

/** Waits until a pool has heard of all that has ended. Events come in order: those are heard before this job's. */
async function hearAll(pool: ClusterPool, host: DeafHost): Promise<void> {
  const last = await pool.submit(tasks.add, 3, 3);
  await host.complete(6);
  assertEquals(await within(last.result()), 6);
}

/** Replaces the sending of the next job to the queue; `add` sends it. */
function replaceNextAdd(by: (add: () => Promise<QueuedJob>) => Promise<QueuedJob>): void {
  const { add } = Queue.prototype;
  Queue.prototype.add = function (...args) {
    Queue.prototype.add = add;
    return by(() => add.apply(this, args));
  };
}

const RECORD = "dpool:test.v1:job-import";

/** Submits a job of the id "import", and waits until the server has a record of it. */
async function submitRecorded(pool: ClusterPool, client: Redis): Promise<Future<number>> {
  const future = await pool.submit(new Job({ id: "import", func: tasks.add, args: [1, 2] }));
  await until(async () => await client.exists(RECORD) === 1);
  return future;
}

/** A store of payloads in this map. */
function storeIn(texts: Map<string, string>): PayloadStore {
  return {
    put: (key, text) => Promise.resolve(void texts.set(key, text)),
    get: (key) => Promise.resolve(texts.get(key)!),
    delete: (key) => Promise.resolve(void texts.delete(key)),
  };
}

Deno.test("a job that is cancelled while its host does not listen is stopped as soon as it does again", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  // A lock of a minute: no renewal comes first.
  await using host = await openHost(server, { lockDuration: 60_000 });
  const future = await pool.submit(tasks.spinForEver);
  await until(() => future.running());
  await using client = openClient(server);
  await client.client("KILL", "TYPE", "pubsub");
  assert(future.cancel({ force: true }));
  await until(() => host.stats().running === 0);
});

Deno.test("a host that has not heard that a job was cancelled finds out when it renews the lock", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using host = await openHost(server, { lockDuration: 1000 });
  const file = `${server.folder}/runs`;
  const future = await pool.submit(tasks.note, file, `${server.folder}/never`);
  await until(async () => (await lines(file)).length === 1);
  await using client = openClient(server);
  await client.hset(`dpool:test.v1:job-${future.id}`, "data", JSON.stringify({ v: 1, task: "note", cancelled: true }));
  await until(() => host.stats().running === 0);
  assertEquals((await lines(file)).length, 1);
});

Deno.test("a late message that a job is cancelled stops no later job of its name", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using host = await openHost(server, { workers: 2, lockDuration: 60_000 });
  const [client, listener] = [new Redis(server.url), new Redis(server.url)];
  await listener.subscribe("dpool:test.v1:cancel:0");
  const word = new Promise<string>((resolve) => listener.once("message", (_channel, word) => resolve(word)));
  const job = (until: string) => new Job({ id: "same", func: tasks.note, args: [`${server.folder}/runs`, `${server.folder}/${until}`] });
  const first = await pool.submit(job("never"));
  await until(() => first.running());
  assert(first.cancel({ force: true }));
  await until(() => host.stats().running === 0);
  const second = await pool.submit(job("go"));
  const other = await pool.submit(tasks.spinForEver);
  await until(() => host.stats().running === 2 && other.running());
  await client.publish("dpool:test.v1:cancel:0", await word);
  // Messages are handled in order.
  assert(other.cancel({ force: true }));
  await until(() => host.stats().running < 2);
  await Deno.writeTextFile(`${server.folder}/go`, "");
  assertEquals(await within(second.result()), "noted");
  await Promise.all([client.quit(), listener.quit()]);
});

Deno.test("a job that is cancelled while the server takes no writes is stopped at once, and one that waits is taken out later", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using pool = await openPool(server, silent);
  await using host = await openHost(server, { lockDuration: 60_000, ...silent });
  const running = await pool.submit(tasks.spinForEver);
  await until(() => running.running());
  const waiting = await pool.submit(tasks.add, 1, 1);
  await using client = openClient(server);
  await until(async () => (await pool.status()).waiting === 1);
  await client.config("SET", "min-replicas-to-write", "1");
  assert(waiting.cancel() && running.cancel({ force: true }));
  await until(() => host.stats().running === 0);
  assertEquals((await pool.status()).waiting, 1);
  await host.shutdown({ timeout: 0 });
  await client.config("SET", "min-replicas-to-write", "0");
  await until(async () => (await pool.status()).waiting === 0);
});

Deno.test("a job that is cancelled while the server takes no writes is taken out also if its pool ends before the server is asked again", async () => {
  await using server = await RedisServer.start();
  const refused = Promise.withResolvers<void>();
  const onError = (error: unknown) => /NOREPLICAS/.test(String(error)) && refused.resolve();
  await using pool = await openPool(server, { onError });
  const future = await pool.submit(tasks.add, 1, 1);
  await using client = openClient(server);
  await until(async () => await client.llen("dpool:test.v1:wait") === 1);
  await client.config("SET", "min-replicas-to-write", 1);
  assert(future.cancel());
  await within(refused.promise);
  await client.config("SET", "min-replicas-to-write", 0);
  await within(pool.shutdown());
  assertEquals(await client.llen("dpool:test.v1:wait"), 0);
});

Deno.test("a job that ends at the very moment when it is cancelled is no error", async () => {
  await using server = await RedisServer.start();
  const reported: unknown[] = [];
  await using pool = await openPool(server, { onError: (error) => void reported.push(error) });
  await using _host = await openHost(server, silent);
  await using client = openClient(server);
  const future = await pool.submit(tasks.note, `${server.folder}/runs`, `${server.folder}/go`);
  await until(() => future.running());
  const { getJob } = Queue.prototype;
  const ended = Promise.withResolvers<void>();
  Queue.prototype.getJob = async function (id) {
    const job = await getJob.call(this, id);
    await client.del(`dpool:test.v1:${id}`);
    ended.resolve();
    return job;
  };
  try {
    assert(future.cancel({ force: true }));
    await within(ended.promise);
  } finally {
    Queue.prototype.getJob = getJob;
  }
  await Deno.writeTextFile(`${server.folder}/go`, "");
  // What was sent before is answered before.
  for (let i = 0; i < 3; i++) await pool.status();
  assertEquals(reported, []);
});

Deno.test("an id whose job ends at the very moment when it is cancelled is free again", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, silent);
  await using host = new DeafHost(server);
  const old = await submitSame(pool, 1);
  const job = await host.next();
  await until(() => old.running());
  const { getJob } = Queue.prototype;
  const ended = Promise.withResolvers<void>();
  Queue.prototype.getJob = async function (id) {
    await complete(job, 2);
    ended.resolve();
    return await getJob.call(this, id);
  };
  try {
    assert(old.cancel({ force: true }));
    await within(ended.promise);
  } finally {
    Queue.prototype.getJob = getJob;
  }
  const future = await submitSame(pool, 2);
  await host.complete(4);
  assertEquals(await within(future.result()), 4);
});

Deno.test("an id does not get the outcome of its cancelled job that ends before its pool hears that it was sent", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, silent);
  await using host = new DeafHost(server);
  const heard = Promise.withResolvers<void>();
  replaceNextAdd(async (add) => {
    const added = await add();
    await heard.promise;
    return added;
  });
  const old = await submitSame(pool, 1);
  const job = await host.next();
  assert(old.cancel({ force: true }));
  const future = await submitSame(pool, 2);
  await complete(job, 2);
  await hearAll(pool, host);
  heard.resolve();
  await host.complete(4);
  assertEquals(await within(future.result()), 4);
});

Deno.test("an id does not get the outcome of a cancelled job of another pool that ends before it is sent", async () => {
  await using server = await RedisServer.start();
  await using one = await openPool(server, silent);
  await using two = await openPool(server, silent);
  await using host = new DeafHost(server);
  const old = await submitSame(one, 1);
  const job = await host.next();
  await cancelSame(old, host.client);
  const heard = Promise.withResolvers<void>();
  replaceNextAdd(async (add) => {
    await heard.promise;
    return await add();
  });
  const future = await submitSame(two, 2);
  await complete(job, 2);
  await hearAll(two, host);
  heard.resolve();
  await host.complete(4);
  assertEquals(await within(future.result()), 4);
});

Deno.test("what is submitted while the server takes no writes waits until it does, and can be cancelled meanwhile", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  const reported: string[] = [];
  await using pool = await openPool(server, { ...silent, onError: (error) => void reported.push(String(error)) });
  await using _host = await openHost(server, silent);
  await using client = openClient(server);
  await client.config("SET", "maxmemory", "1");
  const cancelled = await pool.submit(tasks.note, `${server.folder}/runs`);
  const results = Array.fromAsync(pool.map(tasks.double, [1, 2, 3], { chunkSize: 1 }));
  await until(() => reported.length > 0);
  assertStringIncludes(reported[0]!, "Error: Submissions wait, as the server refuses them: OOM command not allowed");
  assert(cancelled.cancel());
  await client.config("SET", "maxmemory", "0");
  assertEquals(await within(results), [2, 4, 6]);
  assertEquals(await lines(`${server.folder}/runs`), []);
});

Deno.test("ClusterPool.attach() finds a job that its pool has submitted and that the server has not taken yet", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using pool = await openPool(server, silent);
  await using _host = await openHost(server, silent);
  await using client = openClient(server);
  await client.config("SET", "maxmemory", "1");
  const submitted = await pool.submit(new Job({ id: "waits", func: tasks.add, args: [20, 22] }));
  const attached = await pool.attach<number>("waits");
  assert(attached.cancel());
  assertEquals(submitted.state, "queued");
  const again = await pool.attach<number>("waits");
  await client.config("SET", "maxmemory", "0");
  assertEquals(await within(Promise.all([submitted.result(), again.result()])), [42, 42]);
});

Deno.test("ClusterPool.attach() finds a job that its pool has submitted and whose arguments the store has not taken yet", async () => {
  await using server = await RedisServer.start();
  const store = storeIn(new Map());
  const taken = Promise.withResolvers<void>();
  const payloads = { ...store, put: (key: string, text: string) => taken.promise.then(() => store.put(key, text)) };
  await using pool = await openPool(server, { payloads });
  await using _host = await openHost(server, { payloads: store });
  const job = (id: string) => new Job({ id, func: tasks.echo, args: ["x".repeat(400_000)] });
  const [submitted, dropped] = [await pool.submit(job("large")), await pool.submit(job("dropped"))];
  const attaching = pool.attach("large");
  const inVain = assertRejects(() => within(pool.attach("dropped")), Deno.errors.NotFound);
  // What they have asked the server is answered before this.
  await pool.status();
  assert(dropped.cancel());
  await inVain;
  taken.resolve();
  const attached = await within(attaching);
  assertEquals(await within(attached.result()), await within(submitted.result()));
});

Deno.test("ClusterPool.terminate() ends also if the server refuses a job just after a sweep has made room", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using client = openClient(server);
  const pool = await openPool(server, silent);
  const [makesRoom, goesOn, swept] = [1, 2, 3].map(() => Promise.withResolvers<void>());
  const { xtrim } = Redis.prototype;
  Redis.prototype.xtrim = async function (this: Redis, ...args: Parameters<typeof xtrim>) {
    Redis.prototype.xtrim = xtrim;
    makesRoom!.resolve();
    await goesOn!.promise;
    return await xtrim.apply(this, args);
  } as typeof xtrim;
  await client.config("SET", "maxmemory", 1);
  await pool.submit(tasks.add, 1, 1);
  await makesRoom!.promise;
  replaceNextAdd(async (add) => {
    await swept!.promise;
    return await add();
  });
  await pool.submit(tasks.add, 1, 1);
  const ended = pool.terminate();
  const evals = await callsOf(client, "eval");
  goesOn!.resolve();
  // The answers to these come before that to the submission.
  await until(async () => await callsOf(client, "eval") === evals + 2);
  swept!.resolve();
  await within(ended);
});

for (const what of ["events", "few events of large results", "results that were kept long enough", "failures that were kept long enough"]) {
  Deno.test(`what is submitted is sent although ${what} have filled the memory of the server`, {
    sanitizeOps: false,
    sanitizeResources: false,
  }, async () => {
    using _sweeps = sweepOften();
    await using server = await RedisServer.start();
    const reported: string[] = [];
    await using pool = await openPool(server, { ...silent, onError: (error) => void reported.push(String(error)) });
    await using _host = await openHost(server, { workers: 2, ...silent });
    await using client = openClient(server);
    let excess = 1_000_000;
    if (what === "events") await Array.fromAsync(pool.map(tasks.large, Array(200).fill(100_000), { chunkSize: 1 }));
    else if (what === "few events of large results") {
      await Array.fromAsync(pool.map(tasks.large, Array(40).fill(200_000), { chunkSize: 1 }));
      excess = 6_000_000;
    } else {
      const failures = what.startsWith("failures");
      for (let i = 0; i < 20; i++) {
        await (failures ? pool.run(tasks.bad, "x".repeat(100_000)).catch(() => {}) : pool.run(tasks.large, 100_000));
      }
      const key = `dpool:test.v1:${failures ? "failed" : "completed"}`;
      for (const id of await client.zrange(key, 0, -1)) await client.zadd(key, 1, id);
    }
    await takeMemory(client, excess);
    // As if the events were old enough to be removed.
    const { time } = Redis.prototype;
    using _later = { [Symbol.dispose]: () => void (Redis.prototype.time = time) };
    Redis.prototype.time = async function () {
      const [seconds, micros] = await time.call(this) as [number, number];
      return [Number(seconds) + 11, micros];
    };
    assertEquals(await within(pool.run(tasks.add, 1, 2)), 3);
    assertEquals(reported.map((error) => error.slice(0, 60)), ["Error: Submissions wait, as the server refuses them: OOM com"]);
  });
}

Deno.test("events that producers may be about to read are left, however long the server's memory is full", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using client = openClient(server);
  await using pool = await openPool(server, silent);
  // As if they had just been written all the time.
  for (let i = 0; i < 3; i++) {
    await client.xadd("dpool:test.v1:events", `${Date.now() + 3_600_000}-${i}`, "event", "removed", "jobId", "other");
  }
  await client.config("SET", "maxmemory", 1);
  const future = await pool.submit(tasks.add, 1, 2);
  await until(async () => await callsOf(client, "xtrim") >= 5);
  assertEquals([await client.xlen("dpool:test.v1:events"), future.done()], [3, false]);
});

Deno.test("a job whose producer was held up runs once, although its result was the last of those that had filled the server", {
  sanitizeOps: false,
  sanitizeResources: false,
}, async () => {
  await using server = await RedisServer.start();
  await using client = openClient(server);
  const cli = new URL("../cli.ts", import.meta.url).pathname;
  const module = new URL("./cli_tasks.ts", import.meta.url).pathname;
  const command = ["run", module, "add", "1", "2", "--redis", server.url, "--queue", "test"];
  await using held = new Child(Deno.execPath(), ["run", "--allow-all", "--no-check", cli, ...command]);
  await until(async () => await client.llen("dpool:test.v1:wait") === 1);
  held.kill("SIGSTOP");
  // That is all that it reads of the events before they are removed.
  await client.xadd("dpool:test.v1:events", "*", "event", "added", "jobId", "other");
  await using host = await openHost(server, { workers: 2, ...silent });
  await using pool = await openPool(server, silent);
  await Array.fromAsync(pool.map(tasks.large, Array(200).fill(100_000), { chunkSize: 1 }));
  const [id] = await client.zrange("dpool:test.v1:completed", 0, -1);
  await client.zadd("dpool:test.v1:completed", 1, id!);
  await takeMemory(client, 1_000_000);
  const gate = `${server.folder}/go`;
  const last = await pool.submit(tasks.note, `${server.folder}/runs`, gate);
  await until(() => last.running());
  held.kill("SIGCONT");
  assertEquals((await held.status()).code, 0);
  await Deno.writeTextFile(gate, "");
  assertEquals(await within(last.result()), "noted");
  assertEquals(host.stats().finished, 202);
});

Deno.test("a job that is cancelled while one of its name is taken out of the queue is never sent", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, silent);
  const submit = () => pool.submit(new Job({ id: "same", func: tasks.nothing }));
  const first = await submit();
  await until(async () => (await pool.status()).waiting === 1);
  assert(first.cancel());
  const second = await submit();
  assert(second.cancel());
  await within(pool.shutdown());
  await using client = openClient(server);
  const events = await client.xrange("dpool:test.v1:events", "-", "+");
  assertEquals(events.filter(([, fields]) => fields[1] === "added").length, 1);
});

Deno.test("a job that is cancelled keeps its arguments until no host can begin with it", async () => {
  await using server = await RedisServer.start();
  await using line = new Line(server.port);
  await using client = openClient(server);
  const texts = new Map<string, string>();
  const inQueue: number[] = [];
  const payloads: PayloadStore = {
    ...storeIn(texts),
    async delete(key) {
      inQueue.push(await client.exists("dpool:test.v1:job-same"));
      texts.delete(key);
    },
  };
  await using pool = await openPool(server, { connection: line.url, payloads });
  const job = (text: string) => new Job({ id: "same", func: tasks.echo, args: [text.repeat(400_000)] });
  const future = await pool.submit(job("x"));
  await until(async () => (await client.llen("dpool:test.v1:wait")) === 1);
  line.hold();
  assert(future.cancel());
  // Another job of its name waits for that.
  const second = await pool.submit(job("y"));
  await client.ping();
  line.release();
  await until(async () => texts.values().some((text) => text.includes("y")) && (await client.llen("dpool:test.v1:wait")) === 1);
  assertEquals(inQueue, [0]);
  line.hold();
  assert(second.cancel());
  const closed = pool.shutdown();
  await client.ping();
  line.release();
  await within(closed);
  assertEquals([inQueue, texts.size], [[0, 0], 0]);
});

Deno.test("the result of a job that is cancelled, and of whose end the pool hears before the server's answer to its submission, leaves the store", async () => {
  await using server = await RedisServer.start();
  await using host = new DeafHost(server);
  const texts = new Map<string, string>();
  const payloads = storeIn(texts);
  await using pool = await openPool(server, { payloads });
  const answered = Promise.withResolvers<void>();
  replaceNextAdd(async (add) => {
    const job = await add();
    await answered.promise;
    return job;
  });
  const future = await pool.submit(tasks.echo, 1);
  const job = await host.next();
  assert(future.cancel({ force: true }));
  texts.set(`test.${job.id}.result`, JSON.stringify({ v: 1, value: 1 }));
  await job.moveToCompleted({ v: 1, stored: true }, "token", false);
  await hearAll(pool, host);
  answered.resolve();
  await until(() => texts.size === 0);
});

Deno.test("the arguments of a job that is cancelled stay in the store while somebody is attached to it", async () => {
  await using server = await RedisServer.start();
  const texts = new Map<string, string>();
  const payloads = storeIn(texts);
  await using pool = await openPool(server, { payloads });
  const text = "x".repeat(400_000);
  const future = await pool.submit(new Job({ id: "same", func: tasks.echo, args: [text] }));
  await using client = openClient(server);
  await until(async () => await client.exists("dpool:test.v1:job-same") === 1);
  const attached = await pool.attach("same");
  assert(future.cancel());
  await pool.status();
  await using _host = await openHost(server, { payloads });
  assertEquals(await within(attached.result()), text);
  await within(pool.shutdown());
  assertEquals([...texts.keys()], ["test.job-same.result"]);
});

Deno.test("the result of a job that was cancelled stays in the store for somebody who is attached to it", async () => {
  await using server = await RedisServer.start();
  const texts = new Map<string, string>();
  const deleted = Promise.withResolvers<void>();
  const payloads: PayloadStore = {
    ...storeIn(texts),
    async get(key) {
      if (key.endsWith(".result")) await deleted.promise;
      return texts.get(key)!;
    },
    delete(key) {
      texts.delete(key);
      // Everything that is removed is deleted at once.
      return Promise.resolve().then(deleted.resolve);
    },
  };
  await using pool = await openPool(server, { payloads });
  const text = "x".repeat(400_000);
  const future = await pool.submit(tasks.echo, text);
  await using client = openClient(server);
  await until(async () => await client.exists(`dpool:test.v1:job-${future.id}`) === 1);
  const attached = await pool.attach(String(future.id));
  assert(future.cancel());
  await using _host = await openHost(server, { payloads });
  assertEquals(await within(attached.result()), text);
});

Deno.test("what a job returns at the very moment when it is cancelled stays neither in the store nor, of a map, on the server", async () => {
  await using server = await RedisServer.start();
  const texts = new Map<string, string>();
  let hear = (_key: string): void => {};
  const payloads: PayloadStore = {
    ...storeIn(texts),
    put: (key, text) => Promise.resolve(void texts.set(key, text)).then(() => hear(key)),
  };
  await using pool = await openPool(server, { payloads });
  await using _host = await openHost(server, { payloads, ...silent });
  await using client = openClient(server);
  const map = new AbortController();
  const future = await pool.submit(tasks.large, 400_000);
  const outcomes = Array.fromAsync(pool.map(tasks.large, [400_000], { signal: map.signal }));
  outcomes.catch(() => {});
  let put = 0;
  hear = (key) => {
    put++;
    if (key.includes(".map-")) map.abort();
    else future.cancel({ force: true });
  };
  await until(() => put === 2 && texts.size === 0);
  await until(async () => (await client.keys("dpool:test.v1:map-*")).length === 0);
});

Deno.test("a chunk whose result is in the store does not stay on the server when its map ends while that is read", async () => {
  await using server = await RedisServer.start();
  const texts = new Map<string, string>();
  const map = new AbortController();
  const payloads: PayloadStore = {
    ...storeIn(texts),
    get: (key) => {
      map.abort();
      return Promise.resolve(texts.get(key)!);
    },
  };
  await using pool = await openPool(server, { payloads });
  await using _host = await openHost(server, { payloads, ...silent });
  await Array.fromAsync(pool.map(tasks.large, [400_000], { signal: map.signal })).catch(() => {});
  assert(map.signal.aborted);
  await using client = openClient(server);
  await until(async () => texts.size === 0 && (await client.keys("dpool:test.v1:map-*")).length === 0);
});

Deno.test("a chunk that has returned does not stay on the server, although that takes no writes when its pool hears of it", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using line = new Line(server.port);
  const refused = Promise.withResolvers<void>();
  const onError = (error: unknown) => /NOREPLICAS/.test(String(error)) && refused.resolve();
  await using pool = await openPool(server, { connection: line.url, onError });
  await using host = new DeafHost(server);
  const results = Array.fromAsync(pool.map(tasks.double, [1]));
  const chunk = await host.next();
  await until(() => pool.stats().running === 1);
  // What it was told before is answered.
  await pool.status();
  line.hold();
  await chunk.moveToCompleted({ v: 1, items: [{ value: 2 }] }, "token", false);
  await host.client.config("SET", "min-replicas-to-write", 1);
  line.release();
  assertEquals(await within(results), [2]);
  await within(refused.promise);
  await host.client.config("SET", "min-replicas-to-write", 0);
  await until(async () => await host.client.exists(`dpool:test.v1:${chunk.id}`) === 0);
});

Deno.test("the arguments of a job stay in the store when another producer has cancelled one of its name", async () => {
  await using server = await RedisServer.start();
  const texts = new Map<string, string>();
  const [put, deleted] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let deletes = false;
  const payloads: PayloadStore = {
    put(key, text) {
      texts.set(key, text);
      if (deletes) put.resolve();
      return Promise.resolve();
    },
    async get(key) {
      if (deletes) await deleted.promise;
      return texts.get(key)!;
    },
    async delete(key) {
      await put.promise;
      texts.delete(key);
      deleted.resolve();
    },
  };
  await using _host = await openHost(server, { payloads });
  await using one = await openPool(server, { payloads });
  await using two = await openPool(server, { payloads });
  const first = await one.submit(new Job({ id: "same", func: tasks.note, args: [`${server.folder}/runs`, "x".repeat(400_000)] }));
  await until(async () => (await lines(`${server.folder}/runs`)).length === 1);
  deletes = true;
  assert(first.cancel({ force: true }));
  await using client = openClient(server);
  await until(async () => await client.exists("dpool:test.v1:job-same") === 0);
  const text = "y".repeat(400_000);
  assertEquals(await within(two.run(new Job({ id: "same", func: tasks.echo, args: [text] }))), text);
});

Deno.test("a producer that has missed thousands of events reads a part of them at a time", async () => {
  await using server = await RedisServer.start();
  await using _pool = await openPool(server);
  await using client = openClient(server);
  await until(async () => (await client.info("clients")).includes("blocked_clients:1"));
  const events = client.multi();
  for (let i = 0; i < 10_000; i++) events.xadd("dpool:test.v1:events", "*", "event", "none");
  await events.exec();
  // A reader of all of them reads again after ten seconds.
  await until(async () => await callsOf(client, "xread") > 10);
});

// A read that was given up is answered when its connection is closed.
Deno.test(
  "a producer whose link is too slow for many events at a time reads fewer of them",
  { sanitizeOps: false, sanitizeResources: false },
  async () => {
    await using server = await RedisServer.start();
    const { xread } = Redis.prototype;
    const answered = Promise.withResolvers<number>();
    let asked = 0;
    Redis.prototype.xread = function (...args: unknown[]) {
      const count = Number(args[args.indexOf("COUNT") + 1]);
      asked = Math.max(asked, count);
      if (count > 10) return new Promise<never>(() => {});
      answered.resolve(count);
      return xread.apply(this, args as Parameters<typeof xread>);
    };
    try {
      await using _pool = await openPool(server);
      assert(await within(answered.promise) < asked);
    } finally {
      Redis.prototype.xread = xread;
    }
  },
);

Deno.test("an event that is not JSON does not end listening", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using _host = await openHost(server);
  assertEquals(await within(pool.run(tasks.add, 1, 1)), 2);
  await using client = openClient(server);
  await client.xadd("dpool:test.v1:events", "*", "event", "completed", "jobId", "x", "returnvalue", "{");
  const start = performance.now();
  for (let n = 0; n < 3; n++) assertEquals(await within(pool.run(tasks.add, n, n)), 2 * n);
  const elapsed = performance.now() - start;
  // A sweep comes every other second: each of them would wait for one.
  assert(elapsed < 4000, `${elapsed} ms`);
});

Deno.test(
  "a cancelled job that ends between two tries to take it out is not mistaken for one that another producer sends under its name",
  READING_FAILS,
  async () => {
    await using server = await RedisServer.start();
    await using one = await openPool(server, silent);
    await using two = await openPool(server, silent);
    await using _host = await openHost(server, { workers: 2, lockDuration: 60_000, ...silent });
    await using client = openClient(server);
    const gate = `${server.folder}/go`;
    const old = await spinSame(one);
    await client.config("SET", "maxmemory", "1");
    assert(old.cancel({ force: true }));
    await new Promise((resolve) => setTimeout(resolve, 100));
    await client.config("SET", "maxmemory", "0");
    await until(async () => await client.exists("dpool:test.v1:job-same") === 0);
    const future = await two.submit(new Job({ id: "same", func: tasks.note, args: [`${server.folder}/runs`, gate] }));
    // The next try comes with a sweep, which is every other second.
    await new Promise((resolve) => setTimeout(resolve, 2500));
    await Deno.writeTextFile(gate, "");
    assertEquals(await within(future.result()), "noted");
  },
);

Deno.test("an id does not get the outcome of its cancelled job that ends between two tries to take it out", async () => {
  await using server = await RedisServer.start();
  const refused = Promise.withResolvers<void>();
  const onError = (error: unknown) => /NOREPLICAS/.test(String(error)) && refused.resolve();
  await using pool = await openPool(server, { onError });
  await using host = new DeafHost(server);
  const future = await submitSame(pool, 1);
  const first = await host.next();
  await until(() => future.running());
  await host.client.config("SET", "min-replicas-to-write", 1);
  assert(future.cancel({ force: true }));
  await within(refused.promise);
  await host.client.config("SET", "min-replicas-to-write", 0);
  await complete(first, 2);
  const later = await submitSame(pool, 2);
  await host.complete(4);
  assertEquals(await within(later.result()), 4);
});

Deno.test(
  "a job that is cancelled while the server takes no writes does not end one of its name that its pool submits later",
  { sanitizeOps: false, sanitizeResources: false },
  async () => {
    await using server = await RedisServer.start();
    await using pool = await openPool(server, silent);
    await using _host = await openHost(server, { workers: 2, lockDuration: 60_000, ...silent });
    await using client = openClient(server);
    const old = await spinSame(pool);
    await client.replicaof("127.0.0.1", "1");
    assert(old.cancel({ force: true }));
    await new Promise((resolve) => setTimeout(resolve, 200));
    await client.replicaof("NO", "ONE");
    const future = await submitSame(pool, 1);
    assertEquals(await within(future.result()), 2);
  },
);

Deno.test(
  "a producer that hears late of the end of a cancelled job does not mistake it for that of its own job of the same name",
  READING_FAILS,
  async () => {
    await using server = await RedisServer.start();
    await using one = await openPool(server, silent);
    await using two = await openPool(server, silent);
    await using _host = await openHost(server, { workers: 2, lockDuration: 60_000, ...silent });
    await using client = openClient(server);
    const old = await spinSame(one);
    // The server becomes a replica, which ends the reading of events.
    await client.replicaof("127.0.0.1", "1");
    await client.replicaof("NO", "ONE");
    assert(old.cancel({ force: true }));
    await until(async () => await client.exists("dpool:test.v1:job-same") === 0);
    const future = await two.submit(new Job({ id: "same", func: tasks.note, args: [`${server.folder}/runs`, `${server.folder}/go`] }));
    await new Promise((resolve) => setTimeout(resolve, 6000));
    await Deno.writeTextFile(`${server.folder}/go`, "");
    assertEquals(await within(future.result()), "noted");
  },
);

Deno.test("an id whose job another producer has cancelled runs when that has ended, although its host is dead", async () => {
  await using server = await RedisServer.start();
  await using host = await startHost(server);
  const one = await openPool(server, silent);
  await cancelOnDead(host, one);
  await within(one.shutdown());
  await using two = await openPool(server, silent);
  const future = await submitSame(two, 1);
  await using _other = await startHost(server);
  assertEquals(await within(future.result()), 2);
});

Deno.test("an id whose job was cancelled runs when that has ended, although its host is dead and it was not to be delivered again", async () => {
  await using server = await RedisServer.start();
  await using host = await startHost(server, { redeliveries: 0 });
  await using pool = await openPool(server, silent);
  await cancelOnDead(host, pool);
  const future = await submitSame(pool, 1);
  await using _other = await startHost(server, { redeliveries: 0 });
  assertEquals(await within(future.result()), 2);
});

Deno.test("an id whose job has ended by itself although it was cancelled runs, and does not get the outcome of that", async () => {
  await using server = await RedisServer.start();
  await using one = await openPool(server, silent);
  await using two = await openPool(server, silent);
  await using host = new DeafHost(server);
  for (const [outcome, pool] of [["completed", one], ["completed", two], ["failed", one], ["failed", two]] as const) {
    const old = await submitSame(one, 1);
    const job = await host.next();
    await cancelSame(old, host.client);
    const [[last]] = await host.client.xrevrange("dpool:test.v1:events", "+", "-", "COUNT", 1) as [[string, string[]]];
    const future = await submitSame(pool, 2);
    await until(async () => JSON.stringify(await host.client.xrange("dpool:test.v1:events", `(${last}`, "+")).includes("duplicated"));
    if (outcome === "completed") await complete(job, 2);
    else await job.moveToFailed(new UnrecoverableError("no"), "token", false);
    const again = await host.next();
    assertEquals(again.data.args, [2, 2]);
    await complete(again, 4);
    assertEquals(await within(future.result()), 4);
    await again.remove();
  }
});

Deno.test("an id whose job has ended by itself although it was cancelled runs, even if nothing is heard of the queue having one", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using pool = await openPool(server, silent);
  await using host = new DeafHost(server);
  const old = await submitSame(pool, 1);
  const job = await host.next();
  await cancelSame(old, host.client);
  await complete(job, 2);
  await hearAll(pool, host);
  const { emit } = QueueEvents.prototype;
  QueueEvents.prototype.emit = function (event, ...args) {
    return event !== "duplicated" && Reflect.apply(emit, this, [event, ...args]);
  };
  try {
    const future = await submitSame(pool, 2);
    await host.complete(4);
    assertEquals(await within(future.result()), 4);
  } finally {
    QueueEvents.prototype.emit = emit;
  }
});

Deno.test("an id whose job another producer has cancelled runs when that has ended, although nothing is heard of the end", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using host = await startHost(server, { lockDuration: 60_000 });
  const one = await openPool(server, silent);
  await cancelOnDead(host, one);
  await within(one.shutdown());
  await using two = await openPool(server, silent);
  const future = await submitSame(two, 1);
  await until(() => future.running());
  await using client = openClient(server);
  await client.del("dpool:test.v1:job-same", "dpool:test.v1:job-same:lock", "dpool:test.v1:active");
  await using _other = await startHost(server);
  assertEquals(await within(future.result()), 2);
});

Deno.test("a future attached to a job that another producer cancels settles, although a third has submitted and cancelled another of its name", async () => {
  await using server = await RedisServer.start();
  // The lock must be there until the job is submitted again, however slow the machine is.
  await using host = await startHost(server, { lockDuration: 60_000 });
  const one = await openPool(server, silent);
  const old = await spinSame(one);
  await using attached = await openPool(server, silent);
  const future = await attached.attach("same");
  host.kill("SIGKILL");
  assert(old.cancel({ force: true }));
  await within(one.shutdown());
  const two = await openPool(server, silent);
  const other = await submitSame(two, 1);
  await using client = openClient(server);
  await until(async () => (await client.xrange("dpool:test.v1:events", "-", "+")).some(([, fields]) => fields[1] === "duplicated"));
  for (let i = 0; i < 3; i++) await attached.status();
  assert(other.cancel({ force: true }));
  await within(two.shutdown());
  await client.del("dpool:test.v1:job-same:lock");
  await using _other = await startHost(server);
  assertInstanceOf(await within(future.exception()), JobCancelledError);
});

Deno.test("a job that is taken out of the queue just before it is looked up is cancelled, and not lost", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  const [one, two, three] = await Promise.all([1, 2, 3].map(() => openPool(server, silent)));
  const job = new Job({ id: "same", func: tasks.spinForEver });
  const first = await one!.submit(job);
  await until(() => first.running());
  const second = await two!.submit(job);
  await until(() => second.running());
  await using client = openClient(server);
  const { hmget } = Redis.prototype;
  let asked = 0;
  Redis.prototype.hmget = async function (...args: unknown[]) {
    const answer = await hmget.apply(this, args as Parameters<typeof hmget>);
    await client.del("dpool:test.v1:job-same");
    asked++;
    return answer;
  };
  try {
    await three!.submit(job);
    await until(() => asked === 3);
  } finally {
    Redis.prototype.hmget = hmget;
  }
  // What was sent before is answered before.
  for (let i = 0; i < 3; i++) await two!.status();
  await client.xadd("dpool:test.v1:events", "*", "event", "removed", "jobId", "job-same", "prev", "active");
  assertInstanceOf(await within(second.exception()), JobCancelledError);
  for (const pool of [one!, two!, three!]) await within(pool.terminate());
});

Deno.test("a job whose record the server has thrown away is sent again when a host comes to its name in the list", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using client = openClient(server);
  const future = await submitRecorded(pool, client);
  await client.del(RECORD);
  await using _host = await startHost(server);
  assertEquals(await within(future.result()), 3);
});

Deno.test("a job that is sent again, as the server has thrown its record away, stands in the list once", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using client = openClient(server);
  await submitRecorded(pool, client);
  await client.del(RECORD);
  await until(async () => await client.exists(RECORD) === 1);
  assertEquals(await client.lrange("dpool:test.v1:wait", 0, -1), ["job-import"]);
});

Deno.test("a job whose record the server has thrown away is sent again, even if a sweep comes before the host's report", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using client = openClient(server);
  const future = await submitRecorded(pool, client);
  // As a host does when it takes a job.
  await client.multi().del(RECORD).xadd("dpool:test.v1:events", "*", "event", "active", "jobId", "job-import")
    .hset(RECORD, "processedOn", 1).exec();
  await swept(client, () => future.done());
  await using _host = await startHost(server);
  assertEquals(await within(future.result()), 3);
});

Deno.test("a job that has waited for long and whose record is gone is sent again, although others have ended of which none is kept", async () => {
  using _sweeps = sweepOften();
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using client = openClient(server);
  const future = await submitRecorded(pool, client);
  const { now } = Date;
  // Records of jobs that ended when it was sent, returned or failed, would be too old to be kept.
  Date.now = () => now() + 100_000_000;
  try {
    await swept(client, () => future.done());
    // As if the server had come back empty, others had been sent, and chunks of maps among them were taken out.
    await client.multi().flushall().hset("dpool:test.v1:metrics:completed", "prevTS", Date.now())
      .zadd("dpool:test.v1:failed", Date.now() + 1, "other").exec();
    await until(async () => future.done() || await client.exists(RECORD) === 1);
  } finally {
    Date.now = now;
  }
  await using _host = await startHost(server);
  assertEquals(await within(future.result()), 3);
});

Deno.test("a job that comes too late counts as cancelled, also if the event of that comes late", async () => {
  await using server = await RedisServer.start();
  await using client = openClient(server);
  using late = comesLate("failed", client);
  await using pool = await openPool(server, { expiresIn: 0 });
  const future = late.future = await pool.submit(tasks.add, 1, 2);
  const start = Date.now();
  await until(() => Date.now() > start + 1);
  await client.xadd("dpool:test.v1:events", "*", "event", "active", "jobId", `job-${future.id}`);
  await until(() => future.running());
  await using _host = await startHost(server);
  assertInstanceOf(await within(future.exception()), JobCancelledError);
});

Deno.test("a job that is sent again because an earlier one of its name is gone is not mistaken for that", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using client = openClient(server);
  const [queue, id] = ["dpool:test.v1", "job-import"];
  const future = await submitRecorded(pool, client);
  // As if the queue took it for a job that others removed and added again.
  const events = client.multi().del(RECORD).lrem(`${queue}:wait`, 1, id);
  for (const event of ["duplicated", "removed", "removed"]) events.xadd(`${queue}:events`, "*", "event", event, "jobId", id);
  await events.exec();
  await using _host = await startHost(server);
  assertEquals(await within(future.result()), 3);
});

Deno.test("a job does not count as removed when its pool hears late that an earlier one of its name was, and the server has thrown its record away", async () => {
  await using server = await RedisServer.start();
  await using client = openClient(server);
  const { xread } = Redis.prototype;
  const gone = Promise.withResolvers<void>();
  Redis.prototype.xread = async function (this: Redis, ...args: unknown[]) {
    const answer = await xread.apply(this, args as Parameters<typeof xread>);
    if (JSON.stringify(answer).includes('"removed"')) await gone.promise;
    return answer;
  } as typeof xread;
  try {
    await using pool = await openPool(server);
    const first = await submitRecorded(pool, client);
    assert(first.cancel());
    await until(async () => await client.exists(RECORD) === 0);
    const second = await submitRecorded(pool, client);
    await client.del(RECORD);
    gone.resolve();
    await using _host = await startHost(server);
    assertEquals(await within(second.result()), 3);
  } finally {
    gone.resolve();
    Redis.prototype.xread = xread;
  }
});

Deno.test("a job that was removed is not sent again, also if the event of that comes late", async () => {
  await using server = await RedisServer.start();
  await using client = openClient(server);
  using late = comesLate("removed", client);
  await using pool = await openPool(server);
  const future = late.future = await pool.submit(tasks.add, 1, 2);
  await until(async () => await client.llen("dpool:test.v1:wait") === 1);
  const queue = new Queue("test.v1", { connection: client, prefix: "dpool", skipVersionCheck: true });
  await queue.remove(`job-${future.id}`);
  await queue.close();
  const error = await within(future.exception());
  assertInstanceOf(error, JobCancelledError);
  assertStringIncludes(error.message, "as somebody removed it from the queue");
  assertEquals((await pool.status()).waiting, 0);
});

/** Has producers hear of such an event only when they have looked for their jobs, unless the future is done by then. */
function comesLate(event: string, client: Redis): { future: Future<unknown> | undefined } & Disposable {
  const { xread } = Redis.prototype;
  const late = { future: undefined as Future<unknown> | undefined, [Symbol.dispose]: () => void (Redis.prototype.xread = xread) };
  Redis.prototype.xread = async function (this: Redis, ...args: unknown[]) {
    const answer = await xread.apply(this, args as Parameters<typeof xread>);
    if (JSON.stringify(answer).includes(`"${event}"`)) await swept(client, () => late.future?.done() ?? false);
    return answer;
  } as typeof xread;
  return late;
}

/** Resolves when a producer has looked for what it waits for, and handled what it found. */
async function swept(client: Redis, isOver: () => boolean): Promise<void> {
  const asked = () => callsOf(client, "zcard");
  const before = await asked();
  // Each time it counts two sets, and asks again when it has handled the last answer.
  await until(async () => isOver() || await asked() >= before + 4);
}
