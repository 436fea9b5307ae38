import { assert, assertEquals, assertInstanceOf, assertStringIncludes } from "@std/assert";
import { Redis } from "ioredis";
import { Connection } from "../connection.ts";
import { cancelMessage } from "../names.ts";
import {
  type ClusterHost,
  type ClusterPool,
  type Future,
  Job,
  JobCancelledError,
  type PayloadStore,
  serve,
  type ServeOptions,
  WorkerDiedError,
} from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";
import { lines, openClient, openPool, READING_FAILS, RedisServer, startHost, until, within } from "./helpers.ts";
import { Line } from "./line.ts";

/** A lock that lasts longer than any test. */
const LONG = 60_000;

/** A host within the test, and what it reports. */
async function serveHere(server: RedisServer, options: Partial<ServeOptions>): Promise<{ host: ClusterHost; reported: string[] }> {
  const reported: string[] = [];
  const host = await serve({
    queue: "test",
    connection: server.url,
    tasks,
    workers: 2,
    stalledInterval: 200,
    onError: (error) => void reported.push(String(error)),
    ...options,
  });
  return { host, reported };
}

/** Submits a job that notes its run in `file` and goes on until there is a file at `gate`; resolves when it runs. */
async function startNote(
  { folder }: RedisServer,
  pool: ClusterPool,
): Promise<{ file: string; gate: string; future: Future<string> }> {
  const [file, gate] = [`${folder}/runs`, `${folder}/go`];
  const future = await pool.submit(tasks.note, file, gate);
  await until(async () => (await lines(file)).length === 1);
  return { file, gate, future };
}

/** The keys of locks. */
async function locks(client: Redis): Promise<string[]> {
  return await client.keys("dpool:test.v1:*:lock");
}

Deno.test("a job whose lock is gone does not run beside itself on the same host, and its second run keeps its lock", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const { host, reported } = await serveHere(server, { lockDuration: LONG });
  await using _host = host;
  const { file, gate, future } = await startNote(server, pool);
  await using client = openClient(server);
  await client.del(await locks(client));
  await until(async () => (await lines(file)).length === 2);
  assertEquals(host.stats().running, 1);
  assertStringIncludes(reported.join("\n"), "as its lock has expired");
  await Deno.writeTextFile(gate, "");
  assertEquals(await within(future.result()), "noted");
  assertEquals([(await lines(file)).length, pool.stats().redelivered], [2, 1]);
});

Deno.test("with 'redeliveries' of 0 a job whose lock is gone is stopped where it runs, and does not run again", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const { host } = await serveHere(server, { lockDuration: LONG, redeliveries: 0 });
  await using _host = host;
  const file = `${server.folder}/runs`;
  const future = await pool.submit(tasks.note, file, `${server.folder}/never`);
  await until(async () => (await lines(file)).length === 1);
  await using client = openClient(server);
  await client.del(await locks(client));
  assertInstanceOf(await within(future.exception()), WorkerDiedError);
  await until(() => host.stats().running === 0);
  assertEquals([(await lines(file)).length, pool.stats().redelivered], [1, 0]);
});

Deno.test("a host that cannot renew a lock stops its job when the lock has expired, and not when the server says so", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, { onError: () => {} });
  const { host, reported } = await serveHere(server, { lockDuration: 1000 });
  await using _host = host;
  const { file, gate, future } = await startNote(server, pool);
  await using client = openClient(server);
  await client.config("SET", "min-replicas-to-write", "1");
  await until(() => host.stats().running === 0);
  assertStringIncludes(reported.join("\n"), "as its lock has expired");
  await client.config("SET", "min-replicas-to-write", "0");
  await Deno.writeTextFile(gate, "");
  assertEquals(await within(future.result()), "noted");
  assertEquals([(await lines(file)).length, pool.stats().redelivered], [2, 1]);
});

Deno.test("a server whose memory is full, as of jobs that wait, hands them out, renews their locks and finds those of dead hosts", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, { onError: () => {} });
  await using other = await startHost(server);
  const { file, gate, future } = await startNote(server, pool);
  const others = [await pool.submit(tasks.spin, 1500), await pool.submit(tasks.add, 1, 2)];
  await until(async () => (await pool.status()).waiting === 2);
  await using client = openClient(server);
  await client.config("SET", "maxmemory", "1");
  other.kill("SIGKILL");
  const { host } = await serveHere(server, { lockDuration: 1000 });
  await using _host = host;
  await until(async () => (await lines(file)).length === 2);
  await Deno.writeTextFile(gate, "");
  assertEquals(await within(Promise.all([future, ...others].map((each) => each.result()))), ["noted", "span", 3]);
  assertEquals([(await lines(file)).length, pool.stats().redelivered], [2, 1]);
});

Deno.test("a job that is delivered only to be failed, again after a host died with that, is failed although the server's memory is full", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, { onError: () => {} });
  await using client = openClient(server);
  const future = await pool.submit(tasks.add, 1, 2);
  await until(async () => (await pool.status()).waiting === 1);
  // As after the deaths of three hosts, of which the last did not run it.
  await client.hset(`dpool:test.v1:job-${future.id}`, { stc: 3, defa: "job stalled more than allowable limit" });
  await client.config("SET", "maxmemory", "1");
  const { host } = await serveHere(server, {});
  await using _host = host;
  assertInstanceOf(await within(future.exception()), WorkerDiedError);
});

Deno.test("a host whose clock is set back goes on renewing the locks of what runs", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  const { host } = await serveHere(server, { lockDuration: 4000 });
  await using _host = host;
  const { file, gate, future } = await startNote(server, pool);
  await using client = openClient(server);
  const now = Date.now;
  Date.now = () => now() - 3_600_000;
  try {
    const [lock] = await locks(client);
    let left = Infinity;
    await until(async () => left < (left = await client.pttl(lock!)));
    await Deno.writeTextFile(gate, "");
    assertEquals(await within(future.result()), "noted");
  } finally {
    Date.now = now;
  }
  assertEquals([(await lines(file)).length, pool.stats().redelivered], [1, 0]);
});

Deno.test(
  "what a job returned while the server was read-only is delivered later, and such a server is left alone for a second",
  READING_FAILS,
  async () => {
    await using server = await RedisServer.start();
    await using pool = await openPool(server, { onError: () => {} });
    const { host, reported } = await serveHere(server, { lockDuration: LONG, stalledInterval: LONG });
    await using _host = host;
    const [file, one, two] = [`${server.folder}/runs`, `${server.folder}/one`, `${server.folder}/two`];
    const futures = [await pool.submit(tasks.note, file, one), await pool.submit(tasks.note, file, two)];
    await until(async () => (await lines(file)).length === 2);
    await using client = openClient(server);
    await client.replicaof("127.0.0.1", "1");
    await Deno.writeTextFile(one, "");
    await until(() => reported.some((error) => error.includes("READONLY")));
    const asked = async (): Promise<number> => Number(/total_commands_processed:(\d+)/.exec(await client.info("stats"))![1]);
    const before = await asked();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const commands = await asked() - before;
    assert(commands < 100, `${commands} commands within a second`);
    await client.replicaof("NO", "ONE");
    await Deno.writeTextFile(two, "");
    assertEquals(await within(Promise.all(futures.map((future) => future.result()))), ["noted", "noted"]);
    assertEquals((await lines(file)).length, 2);
  },
);

Deno.test("a record whose data is not JSON fails after one attempt", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await using client = openClient(server);
  await client.hset("dpool:test.v1:job-bad", { name: "double", data: "{", opts: "{}", timestamp: "1", delay: "0", priority: "0" });
  await client.lpush("dpool:test.v1:wait", "job-bad");
  const { host } = await serveHere(server, { lockDuration: 500 });
  await using _host = host;
  const future = await pool.attach("bad");
  assertStringIncludes(String(await within(future.exception())), 'it must be an object: current value is "{"');
  assertEquals(await client.hget("dpool:test.v1:job-bad", "ats"), "1");
});

/** A store in memory whose results wait until they are let in, or until the test is over. */
function heldStore(): { payloads: PayloadStore; texts: Map<string, string>; puts: () => number; release: () => void } & Disposable {
  const texts = new Map<string, string>();
  const gate = Promise.withResolvers<void>();
  let puts = 0;
  const payloads: PayloadStore = {
    async put(key, text) {
      if (key.endsWith(".result")) {
        puts++;
        await gate.promise;
      }
      texts.set(key, text);
    },
    get: (key) => Promise.resolve(texts.get(key)!),
    delete: (key) => Promise.resolve(void texts.delete(key)),
  };
  return { payloads, texts, puts: () => puts, release: gate.resolve, [Symbol.dispose]: gate.resolve };
}

Deno.test("with 'redeliveries' of 0 nothing runs twice whose lock is gone while the store takes its time", async () => {
  await using server = await RedisServer.start();
  using store = heldStore();
  const { payloads } = store;
  await using pool = await openPool(server, { payloads });
  const { host } = await serveHere(server, { lockDuration: 500, redeliveries: 0, payloads });
  await using _host = host;
  const file = `${server.folder}/runs`;
  const future = await pool.submit(tasks.noteLarge, { file, length: 400_000 });
  await until(() => store.puts() === 1);
  await using client = openClient(server);
  await client.del(await locks(client));
  assertInstanceOf(await within(future.exception()), WorkerDiedError);
  await until(async () => (await locks(client)).length === 0);
  assertEquals([(await lines(file)).length, pool.stats().redelivered], [1, 0]);
});

Deno.test("a job whose lock is gone while the store takes its time runs again without waiting for that", async () => {
  await using server = await RedisServer.start();
  using store = heldStore();
  const { payloads } = store;
  await using pool = await openPool(server, { payloads });
  const { host } = await serveHere(server, { lockDuration: LONG, payloads });
  await using _host = host;
  const file = `${server.folder}/runs`;
  const future = await pool.submit(tasks.noteLarge, { file, length: 400_000 });
  await until(() => store.puts() === 1);
  await using client = openClient(server);
  await client.del(await locks(client));
  await until(() => store.puts() === 2);
  store.release();
  assertEquals((await within(future.result())).length, 400_000);
  assertEquals([(await lines(file)).length, pool.stats().redelivered], [2, 1]);
});

/** The host has been told that the job 'same', which is running there, is cancelled. */
async function hasHeardOfSame(client: Redis, pool: ClusterPool, host: ClusterHost): Promise<void> {
  await until(async () => (await client.hget("dpool:test.v1:job-same", "data"))?.includes('"cancelled":true') === true);
  // Messages are handled in order.
  const other = await pool.submit(tasks.spinForEver);
  await until(() => other.running());
  assert(other.cancel({ force: true }));
  await until(() => host.stats().running === 0);
}

Deno.test("a job that is cancelled while its result is put into the store leaves nothing there", async () => {
  await using server = await RedisServer.start();
  using store = heldStore();
  const { payloads } = store;
  await using pool = await openPool(server, { payloads });
  const { host, reported } = await serveHere(server, { lockDuration: LONG, payloads });
  await using _host = host;
  const future = await pool.submit(new Job({ id: "same", func: tasks.large, args: [400_000] }));
  await until(() => store.puts() === 1);
  assert(future.cancel({ force: true }));
  await using client = openClient(server);
  await hasHeardOfSame(client, pool, host);
  store.release();
  await until(async () => (await client.exists("dpool:test.v1:job-same")) === 0);
  assertEquals([[...store.texts.keys()], reported], [[], []]);
});

Deno.test("a job that is cancelled while the host reads its arguments frees its worker and its id, although the store never answers", async () => {
  await using server = await RedisServer.start();
  using store = heldStore();
  store.release();
  const { payloads } = store;
  const asked = Promise.withResolvers<void>();
  let gets = 0;
  const get = (key: string): Promise<string> => {
    if (++gets > 1) return payloads.get(key);
    asked.resolve();
    return new Promise(() => {});
  };
  await using pool = await openPool(server, { payloads });
  const { host, reported } = await serveHere(server, { workers: 1, lockDuration: LONG, payloads: { ...payloads, get } });
  await using _host = host;
  const job = () => new Job({ id: "same", func: tasks.echo, args: ["x".repeat(400_000)] });
  const future = await pool.submit(job());
  await within(asked.promise);
  await until(() => future.running());
  assert(future.cancel({ force: true }));
  assertEquals(await within(pool.run(job())), "x".repeat(400_000));
  assertEquals([gets, reported], [2, []]);
});

Deno.test("the id of a job whose arguments are gone, as it is cancelled, is free although the host has not heard of that", async () => {
  await using server = await RedisServer.start();
  await using client = openClient(server);
  const key = "dpool:test.v1:job-same";
  const payloads: PayloadStore = {
    put: () => Promise.resolve(),
    async get() {
      await client.hset(key, "data", JSON.stringify({ v: 1, task: "echo", id: "same", cancelled: true }));
      throw new Error("gone");
    },
    delete: () => Promise.resolve(),
  };
  await using pool = await openPool(server, { payloads });
  const { host } = await serveHere(server, { payloads });
  await using _host = host;
  const future = await pool.submit(new Job({ id: "same", func: tasks.echo, args: ["x".repeat(400_000)] }));
  assertInstanceOf(await within(future.exception()), JobCancelledError);
  assertEquals(await client.exists(key), 0);
});

Deno.test("a job that waits for an earlier run of itself keeps its lock, and does not run if it is cancelled meanwhile", async () => {
  await using server = await RedisServer.start();
  using store = heldStore();
  const { payloads } = store;
  await using pool = await openPool(server, { payloads });
  const { host } = await serveHere(server, { lockDuration: 500, payloads });
  await using _host = host;
  const file = `${server.folder}/runs`;
  const future = await pool.submit(tasks.noteLarge, { file, length: 400_000 });
  await until(() => store.puts() === 1);
  await using client = openClient(server);
  // A host that was told to stop ends when its result is in the store.
  const id = `job-${future.id}`;
  await client.publish("dpool:test.v1:cancel:0", cancelMessage(id, (await client.hget(`dpool:test.v1:${id}`, "timestamp"))!));
  await client.del(await locks(client));
  await until(() => pool.stats().redelivered === 1);
  await until(async () => (await locks(client)).length === 1);
  // The lock must be renewed three times.
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assertEquals((await locks(client)).length, 1);
  assert(future.cancel({ force: true }));
  await until(async () => (await client.hget(`dpool:test.v1:job-${future.id}`, "data"))?.includes('"cancelled":true') === true);
  store.release();
  await until(async () => (await client.exists(`dpool:test.v1:job-${future.id}`)) === 0);
  assertEquals((await lines(file)).length, 1);
});

Deno.test(
  "what a job returned while the server was busy is delivered later, and such a server is left alone for a second",
  READING_FAILS,
  async () => {
    await using server = await RedisServer.start(["--busy-reply-threshold", "100"]);
    await using pool = await openPool(server, { onError: () => {} });
    const { host, reported } = await serveHere(server, { lockDuration: LONG, stalledInterval: LONG });
    await using _host = host;
    const [file, one, two] = [`${server.folder}/runs`, `${server.folder}/one`, `${server.folder}/two`];
    const futures = [await pool.submit(tasks.note, file, one), await pool.submit(tasks.note, file, two)];
    await until(async () => (await lines(file)).length === 2);
    const [client, other] = [new Redis(server.url), new Redis(server.url)];
    const errors = async (): Promise<number> => Number(/total_error_replies:(\d+)/.exec(await other.info("stats"))![1]);
    await errors();
    const script = client.eval("while true do end", 0).catch(() => {});
    await Deno.writeTextFile(one, "");
    await until(() => reported.some((error) => error.includes("BUSY")));
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await other.script("KILL");
    await script;
    const refused = await errors();
    assert(refused < 100, `${refused} errors within a second`);
    await Deno.writeTextFile(two, "");
    assertEquals(await within(Promise.all(futures.map((future) => future.result()))), ["noted", "noted"]);
    assertEquals((await lines(file)).length, 2);
    await client.quit();
    await other.quit();
  },
);

Deno.test(
  "a host that is told to stop says that it leaves results behind which the server does not take",
  { sanitizeOps: false, sanitizeResources: false },
  async () => {
    await using server = await RedisServer.start();
    await using pool = await openPool(server, { onError: () => {} });
    const { host, reported } = await serveHere(server, { lockDuration: LONG });
    await using _host = host;
    const { gate } = await startNote(server, pool);
    await using client = openClient(server);
    await client.replicaof("127.0.0.1", "1");
    await Deno.writeTextFile(gate, "");
    await until(() => host.stats().running === 0);
    await host.shutdown({ timeout: 100 });
    assertStringIncludes(reported.join("\n"), "Left 1 jobs for other hosts to find, as the server does not answer or takes no writes");
  },
);

Deno.test("a host whose 'onError' throws hands that to the platform, and stops all the same", {
  sanitizeOps: false,
  sanitizeResources: false,
}, async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server, { onError: () => {} });
  const thrown: string[] = [];
  const listener = (event: ErrorEvent) => {
    event.preventDefault();
    thrown.push(event.message);
  };
  globalThis.addEventListener("error", listener);
  try {
    const onError = (error: unknown) => {
      throw error;
    };
    const { host } = await serveHere(server, { lockDuration: 1000, onError });
    const job = await pool.submit(tasks.spinForEver);
    await until(() => job.running());
    await server.kill();
    await until(() => thrown.some((message) => message.includes("as its lock has expired")));
    await within(host.shutdown({ timeout: 0 }));
    await within(host.finished);
    assertStringIncludes(thrown.join("\n"), "Left 1 jobs for other hosts to find");
  } finally {
    globalThis.removeEventListener("error", listener);
  }
});

Deno.test(
  "a host that is told to stop at once gives back what the queue gives it at that very moment, and starts nothing",
  { sanitizeOps: false, sanitizeResources: false },
  async () => {
    await using server = await RedisServer.start();
    await using line = new Line(server.port);
    await using pool = await openPool(server);
    // It would have to fail what was started.
    const { host, reported } = await serveHere(server, { connection: line.url, lockDuration: LONG, redeliveries: 0 });
    await using _host = host;
    await until(() => line.waited);
    await using client = openClient(server);
    line.hold();
    await pool.submit(tasks.note, `${server.folder}/runs`, `${server.folder}/never`);
    await until(async () => await client.llen("dpool:test.v1:active") === 1);
    const stopped = host.shutdown({ timeout: 0 });
    // The time is over with the next turn.
    await new Promise((resolve) => setTimeout(resolve, 100));
    line.release();
    await within(stopped);
    assertEquals([await client.llen("dpool:test.v1:wait"), await lines(`${server.folder}/runs`), reported], [1, [], []]);
  },
);

Deno.test("a host that is told to stop lets a job finish that came with the answer to the one before it", async () => {
  await using server = await RedisServer.start();
  await using line = new Line(server.port);
  await using pool = await openPool(server);
  const { host, reported } = await serveHere(server, { connection: line.url, lockDuration: LONG, workers: 1, redeliveries: 0 });
  await using _host = host;
  const gate = `${server.folder}/go`;
  const [first, second] = ["first", "second"].map((name) => pool.run(tasks.note, `${server.folder}/${name}`, gate));
  await until(async () => (await lines(`${server.folder}/first`)).length === 1 && (await pool.status()).waiting === 1);
  line.hold();
  await Deno.writeTextFile(gate, "");
  assertEquals(await within(first!), "noted");
  const stopped = host.shutdown();
  line.release();
  assertEquals(await within(second!), "noted");
  await within(stopped);
  assertEquals([reported, pool.stats().redelivered], [[], 0]);
});

Deno.test(
  "a host that is told to stop while the server is away does not wait if nothing runs, however long jobs may take",
  { sanitizeOps: false, sanitizeResources: false },
  async () => {
    await using server = await RedisServer.start();
    const lost = Promise.withResolvers<unknown>();
    const { host } = await serveHere(server, { onError: lost.resolve });
    await server.kill();
    await lost.promise;
    await within(host.shutdown({ timeout: 3_600_000 }), 30_000);
  },
);

Deno.test(
  "while the server lets neither a host nor its pool in again, results and submissions wait",
  READING_FAILS,
  async () => {
    await using server = await RedisServer.start();
    await using client = openClient(server);
    await client.acl("SETUSER", "user", "on", ">word", "~*", "&*", "+@all");
    const connection = { url: server.url, username: "user", password: "word" };
    const told: string[] = [];
    const onWarning = () => {};
    await using pool = await openPool(server, { connection, onWarning, onError: (error) => void told.push(String(error)) });
    const { host, reported } = await serveHere(server, { connection, onWarning, lockDuration: LONG });
    await using _host = host;
    const { file, gate, future: ran } = await startNote(server, pool);
    await client.acl("SETUSER", "user", "resetpass", ">other");
    await client.client("KILL", "TYPE", "normal", "SKIPME", "yes");
    await until(() => [told, reported].every((errors) => errors.some((error) => error.includes("WRONGPASS"))));
    const submitted = await pool.submit(tasks.add, 1, 2);
    await Deno.writeTextFile(gate, "");
    await until(() => host.stats().running === 0);
    await until(() => told.some((error) => error.includes("Submissions wait, as the server refuses them: WRONGPASS")));
    await client.acl("SETUSER", "user", "resetpass", ">word");
    assertEquals([await within(ran.result()), await within(submitted.result())], ["noted", 3]);
    assertEquals((await lines(file)).length, 1);
  },
);

Deno.test("a host that is no longer permitted to listen says so, and goes on", async () => {
  await using server = await RedisServer.start();
  await using client = openClient(server);
  await client.acl("SETUSER", "host", "on", ">word", "~*", "&*", "+@all");
  const { host, reported } = await serveHere(server, { connection: { url: server.url, username: "host", password: "word" } });
  await using _host = host;
  // The server ends the connections of clients that listen to what they may not.
  await client.acl("SETUSER", "host", "resetchannels");
  await until(() => reported.some((error) => error.includes("NOPERM")));
  await using pool = await openPool(server);
  assertEquals(await within(pool.run(tasks.add, 1, 2)), 3);
});

Deno.test("a host that loses the connection on which it listens while it starts listens all the same", async () => {
  await using server = await RedisServer.start();
  await using client = openClient(server);
  const listening = async (): Promise<number> => Number((await client.pubsub("NUMSUB", "dpool:test.v1:cancel:0"))[1]);
  const clients = async (): Promise<number> => String(await client.client("LIST")).trimEnd().split("\n").length;
  const { ready } = Connection.prototype;
  Connection.prototype.ready = async function (connected) {
    await connected;
    const count = await clients();
    assertEquals(await client.client("KILL", "TYPE", "pubsub"), 1);
    await until(async () => await clients() === count);
    await ready.call(this, connected);
  };
  try {
    const { host } = await serveHere(server, {});
    await using _host = host;
    await until(async () => await listening() === 1);
  } finally {
    Connection.prototype.ready = ready;
  }
});
