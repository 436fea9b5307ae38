import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { Redis } from "ioredis";
import { resolveConnection } from "../address.ts";
import { connect } from "../connect.ts";
import { tellOnce } from "../server_errors.ts";
import { type ClusterHost, ClusterPool, defineTasks, Job, PoolClosedError, serve } from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";
import { callsOf, freePort, LEAVES_SERVER, openClient, openPool, READING_FAILS, RedisServer, startHost, until, within } from "./helpers.ts";
import { Line } from "./line.ts";

/** The rights of a producer or a host, as docs/cluster.md lists them. */
const ACL = "on ~dpool:* resetchannels &dpool:* +@all -@dangerous +info +client|setname +client|list";

async function openssl(folder: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("openssl", { args, cwd: folder }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

/** Connection options with which an unannounced end of a connection is noticed within two seconds. */
const QUIET = { action: "test", queue: "test", command: "DEL", timeout: 10_000, silence: 1000 } as const;

/** A client that listens: resolves when it is connected anew, and when it has heard something. */
async function subscribed(client: Redis): Promise<{ listens: Promise<unknown>; heard: Promise<string> }> {
  const subscriber = client.duplicate();
  subscriber.on("error", () => {});
  await subscriber.subscribe("channel");
  return {
    listens: new Promise((resolve) => subscriber.on("ready", resolve)),
    heard: new Promise((resolve) => subscriber.on("message", (_channel, message) => resolve(message))),
  };
}

/** An authority, and a certificate that it has issued for a server on the loopback interface. */
async function makeCertificates(folder: string): Promise<{ ca: string; other: string }> {
  for (const name of ["ca", "other"]) {
    await openssl(
      folder,
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-keyout",
      `${name}.key`,
      "-out",
      `${name}.crt`,
      "-subj",
      `/CN=${name}`,
      "-days",
      "2",
    );
  }
  await openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server");
  await Deno.writeTextFile(`${folder}/ext`, "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n");
  const sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.crt"];
  await openssl(folder, ...sign, "-days", "2", "-extfile", "ext");
  return { ca: await Deno.readTextFile(`${folder}/ca.crt`), other: await Deno.readTextFile(`${folder}/other.crt`) };
}

Deno.test(
  "ClusterPool and serve() work with TLS, a user and the few rights that the documentation names",
  LEAVES_SERVER,
  async () => {
    const folder = await Deno.makeTempDir({ prefix: "cluster-test-" });
    const { ca, other } = await makeCertificates(folder);
    const tls = [
      "--tls-port",
      "PORT",
      "--tls-cert-file",
      "server.crt",
      "--tls-key-file",
      "server.key",
      "--tls-ca-cert-file",
      "ca.crt",
      "--tls-auth-clients",
      "no",
    ];
    await using server = await RedisServer.start([...tls, "--user", "dpool", ">word", ...ACL.split(" "), "--user", "default", "off"], {
      folder,
    });
    const url = `rediss://dpool:word@127.0.0.1:${server.port}`;
    const connection = { url, ca };
    await using _host = await startHost(server, { connection, workers: 2 });
    await using pool = await openPool(server, { connection });
    assertEquals(await within(pool.run(tasks.add, 1, 2)), 3);
    assertEquals(await within(Array.fromAsync(pool.map(tasks.double, [1, 2, 3]))), [2, 4, 6]);
    const busy = await pool.submit(tasks.spinForEver);
    while (!busy.running()) await new Promise((resolve) => setTimeout(resolve, 5));
    assert(busy.cancel({ force: true }));
    assertEquals((await pool.status()).hosts?.length, 1);
    await within(pool.shutdown());

    // A client that sends nothing stays connected.
    const quiet = await connect(resolveConnection("test", connection), { ...QUIET, onError: () => {}, onWarning: () => {} });
    const subscriber = quiet.client.duplicate();
    await subscriber.subscribe("dpool:test");
    let ended = 0;
    subscriber.on("close", () => ended++);
    const pings = () => callsOf(quiet.client, "ping");
    await until(async () => await pings() >= 10);
    assertEquals(ended, 0);
    quiet.end();

    // A client that the server rejects hears of it at once, without the password in the message.
    const wrong = [
      { connection: { url, ca: other }, message: "certificate" },
      { connection: { url }, message: "certificate" },
      { connection: { url, ca, password: "hidden-secret" }, message: "WRONGPASS" },
      { connection: { url: `rediss://127.0.0.1:${server.port}`, ca }, message: "NOAUTH" },
    ];
    for (const { connection, message } of wrong) {
      for (const open of [() => openPool(server, { connection }), () => serve({ queue: "test", connection, tasks })]) {
        const start = performance.now();
        const error = await within(open().then(() => undefined, (error) => error));
        assertInstanceOf(error, Error);
        assertStringIncludes(error.message, `rediss://127.0.0.1:${server.port} cannot be used`);
        assertStringIncludes(error.message, message);
        assert(performance.now() - start < 9000, "it waited for the end of its time");
        assertEquals(/word|secret/.test(Deno.inspect(error, { depth: 10 }).replaceAll("password", "")), false);
      }
    }
  },
);

Deno.test(
  "ClusterPool.open() and serve() give up when the time is over, and say why",
  LEAVES_SERVER,
  async () => {
    const port = freePort();
    const options = { queue: "test", connection: `redis://user:secret@127.0.0.1:${port}`, tasks, openTimeout: 200 };
    for (const open of [() => ClusterPool.open(options), () => serve(options)]) {
      const error = await within(open().then(() => undefined, (error) => error));
      assertInstanceOf(error, Error);
      assertStringIncludes(error.message, `as redis://127.0.0.1:${port} could not be reached within 200 ms`);
      assertStringIncludes(error.message, "ECONNREFUSED");
      assertEquals(Deno.inspect(error, { depth: 10 }).includes("secret"), false);
    }
    // A server that accepts connections and does not answer.
    using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const accepted = silent.accept();
    const address = `127.0.0.1:${(silent.addr as Deno.NetAddr).port}`;
    await assertRejects(
      () => within(ClusterPool.open({ ...options, connection: `redis://${address}` })),
      Error,
      `redis://${address} could not be reached`,
    );
    (await accepted).close();
  },
);

Deno.test(
  "ClusterPool.open() that has given up reports nothing of the connection later",
  LEAVES_SERVER,
  async () => {
    using plain = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const accepted = plain.accept();
    const connection = `rediss://127.0.0.1:${(plain.addr as Deno.NetAddr).port}`;
    await assertRejects(
      () => within(ClusterPool.open({ queue: "test", connection, tasks, openTimeout: 200 })),
      Error,
      "could not be reached within 200 ms",
    );
    using server = await accepted;
    const printed: unknown[][] = [];
    const { error } = console;
    console.error = (...args) => void printed.push(args);
    try {
      // An answer that is not TLS: the client closes the connection when it has read it.
      await server.write(new TextEncoder().encode("-ERR\r\n"));
      const block = new Uint8Array(2 ** 12);
      while (await server.read(block).catch(() => null) !== null);
    } finally {
      console.error = error;
    }
    assertEquals(printed, []);
  },
);

Deno.test(
  "ClusterPool.open() and serve() say what a server refuses, and give up if it does not answer all of their clients",
  LEAVES_SERVER,
  async () => {
    await using server = await RedisServer.start(["--user", "dpool", ">word", ...ACL.split(" "), "-@scripting"]);
    const options = { queue: "test", connection: `redis://dpool:word@127.0.0.1:${server.port}`, tasks, workers: 1 };
    const opens = (options: Parameters<typeof serve>[0]): (() => Promise<unknown>)[] => {
      const { workers: _workers, ...others } = options;
      return [() => ClusterPool.open(others), () => serve(options)];
    };
    for (const open of opens(options)) {
      const error = await within(open().then(() => undefined, (error) => error));
      assertInstanceOf(error, Error);
      assertStringIncludes(error.message, `as redis://127.0.0.1:${server.port} refuses to run a script, as BullMQ has to: NOPERM`);
      assertEquals(Deno.inspect(error, { depth: 10 }).includes("word"), false);
    }
    // A read-only copy of a server is of use to a program that only looks at it, but not to a host.
    await using copy = await RedisServer.start(["--replicaof", "127.0.0.1", String(server.port)]);
    await (await openPool(copy)).shutdown();
    const { said, onError } = hearing();
    await assertRejects(
      () => within(serve({ ...options, connection: copy.url, openTimeout: 3000, onError })),
      Error,
      `as ${copy.url} was not ready within 3000 ms: READONLY`,
    );
    assertEquals(said.length, 1);
    assertStringIncludes(said[0]!, `Error: Cannot serve queue yet as ${copy.url} is not ready: READONLY`);
    // In cluster mode the keys of a queue do not lie together, though some do: ":probe" and ":wait" of this one.
    await using cluster = await RedisServer.start(["--cluster-enabled", "yes", "--cluster-port", String(freePort())]);
    const client = new Redis(cluster.url);
    await client.cluster("ADDSLOTS", ...Array(16_384).keys());
    await until(async () => (await client.cluster("INFO")).includes("cluster_state:ok"));
    await client.quit();
    for (const open of opens({ ...options, queue: "q52498", connection: cluster.url })) {
      await assertRejects(() => within(open()), Error, "refuses to run a script, as BullMQ has to: CROSSSLOT");
    }
    // Of the clients of a pool or a host, one gets answers.
    await using free = await RedisServer.start();
    for (const i of [0, 1]) {
      await using line = new Line(free.port, 1);
      const open = opens({ ...options, connection: line.url, openTimeout: 500 })[i]!;
      await assertRejects(() => within(open()), Error, `as ${line.url} was not ready within 500 ms`);
    }
  },
);

/** What a server answers for a while, and how that begins and ends, with two clients that are connected before. */
const REFUSALS: { answer: string; begin: (client: Redis, other: Redis) => Promise<void>; end: (other: Redis) => Promise<unknown> }[] = [
  {
    answer: "BUSY",
    async begin(client, other) {
      client.eval("while true do end", 0).catch(() => {});
      await until(() => says(other, "BUSY"));
    },
    end: (other) => other.script("KILL"),
  },
  {
    answer: "MASTERDOWN",
    async begin(client) {
      await client.config("SET", "replica-serve-stale-data", "no");
      await client.replicaof("127.0.0.1", "1");
    },
    end: (other) => other.replicaof("NO", "ONE"),
  },
  {
    answer: "LOADING",
    async begin(client, other) {
      await client.call("DEBUG", "POPULATE", "20000");
      // In microseconds; it looks at clients only after so many bytes.
      await client.config("SET", "key-load-delay", "1000");
      await client.config("SET", "loading-process-events-interval-bytes", "1024");
      client.call("DEBUG", "RELOAD").catch(() => {});
      await until(() => says(other, "LOADING"));
    },
    end: (other) => other.config("SET", "key-load-delay", "0"),
  },
];

function says(client: Redis, answer: string): Promise<boolean> {
  return client.get("dpool:none").then(() => false, (error) => error.message.startsWith(answer));
}

/** Ends what a server answers when a test is over, however that ends: its clients wait for the server. */
function endLater(end: (other: Redis) => Promise<unknown>, other: Redis): AsyncDisposable {
  return { [Symbol.asyncDispose]: () => end(other).then(() => {}, () => {}) };
}

/** An 'onError' that collects what it hears. */
function hearing(): { said: string[]; heard: Promise<void>; onError: (error: unknown) => void } {
  const said: string[] = [];
  const { promise: heard, resolve } = Promise.withResolvers<void>();
  return { said, heard, onError: (error) => (said.push(String(error)), resolve()) };
}

for (const { answer, begin, end } of REFUSALS) {
  Deno.test(`ClusterPool.open() and serve() wait for a server that answers ${answer}, and say so once`, LEAVES_SERVER, async () => {
    await using server = await RedisServer.start(["--busy-reply-threshold", "1", "--enable-debug-command", "yes"]);
    await using client = openClient(server);
    await using other = openClient(server);
    await using _ending = endLater(end, other);
    for (const [what, connection] of [["pool", server.url], ["pool", `${server.url}/2`], ["host", server.url]] as const) {
      await begin(client, other);
      const { said, heard, onError } = hearing();
      const options = { queue: "test", connection, tasks, openTimeout: 60_000, onError };
      const opening: Promise<ClusterPool | ClusterHost> = what === "pool" ? ClusterPool.open(options) : serve({ ...options, workers: 1 });
      await within(Promise.race([opening, heard]));
      await end(other);
      await within((await within(opening)).shutdown());
      assertEquals(said.length, 1, said.join("\n"));
      assertStringIncludes(said[0]!, ` yet as ${server.url} is not ready: ${answer}`);
    }
  });
}

Deno.test("serve() waits for a server that becomes busy while workers start", LEAVES_SERVER, async () => {
  await using server = await RedisServer.start(["--busy-reply-threshold", "1"]);
  await using client = openClient(server);
  await using other = openClient(server);
  await other.ping();
  const [module, goesOn] = ["tasks.ts", "goes-on"].map((name) => `${server.folder}/${name}`);
  await Deno.writeTextFile(
    module!,
    `for (let there = false; !there;) {
      there = await Deno.stat(${JSON.stringify(goesOn)}).then(() => true, () => new Promise((resolve) => setTimeout(resolve, 5)));
    }
    export const one = () => 1;`,
  );
  const { heard, onError } = hearing();
  const slow = defineTasks({ one: `file://${module}` });
  const starting = serve({ queue: "test", connection: server.url, tasks: slow, workers: 1, openTimeout: 60_000, onError });
  // The host's, with which it asks, listens and takes jobs.
  await until(async () => /^connected_clients:5/m.test(await client.info("clients")) && await callsOf(client, "eval") === 1);
  const { begin, end } = REFUSALS[0]!;
  await using _ending = endLater(end, other);
  await begin(client, other);
  await Deno.writeTextFile(goesOn!, "");
  await within(Promise.race([starting, heard]));
  await end(other);
  await within((await within(starting)).shutdown());
});

Deno.test(
  "serve() waits while the server is a replica, and finds the one to which the address leads after a failover",
  LEAVES_SERVER,
  async () => {
    await using first = await RedisServer.start();
    await using second = await RedisServer.start();
    await using line = new Line(first.port);
    await using client = openClient(first);
    await client.replicaof("127.0.0.1", String(second.port));
    const { said, heard, onError } = hearing();
    const starting = serve({ queue: "test", connection: line.url, tasks, workers: 1, openTimeout: 60_000, onError });
    await within(Promise.race([starting, heard]));
    line.port = second.port;
    await using _host = await within(starting);
    await using pool = await openPool(second);
    assertEquals(await within(pool.run(tasks.add, 1, 2)), 3);
    assertEquals(said.length, 1, said.join("\n"));
    assertStringIncludes(said[0]!, `Cannot serve queue yet as ${line.url} is not ready: READONLY`);
  },
);

Deno.test("ClusterPool.open() waits for a server that is about to start", async () => {
  const port = freePort();
  const opening = ClusterPool.open({ queue: "test", connection: `redis://127.0.0.1:${port}`, tasks });
  await using server = await RedisServer.start(["--port", String(port)]);
  const pool = await within(opening);
  assertEquals((await pool.status()).waiting, 0);
  await pool.shutdown();
  assert(server.folder);
});

Deno.test(
  "commands that are sent while connecting are sent again if connecting fails",
  LEAVES_SERVER,
  async () => {
    await using server = await RedisServer.start();
    await using line = new Line(server.port);
    const connection = await connect(resolveConnection("test", line.url), {
      ...QUIET,
      silence: 60_000,
      onError: () => {},
      onWarning: () => {},
    });
    for (const client of [connection.client, connection.client.duplicate()]) {
      client.on("error", () => {});
      await client.ping();
      line.mute();
      await until(() => client.status === "connect");
      // It is sent even before it may be of use.
      const said = client.publish("channel", "word");
      const asked = client.echo("word");
      line.unmute();
      assertEquals(await within(Promise.all([said, asked])), [0, "word"]);
    }
    // What it sends by itself each time it does not keep for a later connection.
    const named = connection.client.duplicate({ connectionName: "name" });
    named.on("error", () => {});
    await named.ping();
    line.mute();
    await until(() => named.status === "connect");
    const lost = new Promise((resolve) => named.once("reconnecting", resolve));
    line.unmute();
    await within(lost);
    assertEquals((named as unknown as { offlineQueue: { length: number } }).offlineQueue.length, 0);
    connection.end();
  },
);

Deno.test("ClusterPool.open() and serve() try again whichever connection is lost before it is ready", async () => {
  await using server = await RedisServer.start(["--appendonly", "no"]);
  for (const refuses of [1, 2]) {
    await using line = new Line(server.port);
    // The warning about the server comes once the first connection is there.
    const onWarning = () => void (line.refuses = refuses);
    const options = { queue: "test", connection: line.url, tasks, onWarning, onError: () => {} };
    await using _host = await within(serve({ ...options, workers: 1 }));
    await using pool = await within(ClusterPool.open(options));
    assertEquals(await within(pool.run(tasks.add, 1, 2)), 3);
  }
});

Deno.test(
  "a pool and a host report a connection that was closed without an error",
  LEAVES_SERVER,
  async () => {
    await using server = await RedisServer.start();
    for (const what of ["pool", "host"]) {
      await using line = new Line(server.port);
      const told = Promise.withResolvers<unknown>();
      const options = { queue: "test", connection: line.url, tasks, onError: told.resolve };
      const opened = what === "pool" ? await ClusterPool.open(options) : await serve({ ...options, workers: 1 });
      line.mute();
      assertStringIncludes(String(await within(told.promise)), `Lost connection to ${line.url}: `);
      await within(opened.shutdown({ timeout: 0 }));
    }
  },
);

Deno.test(
  "a connection to a server that is silently gone is made anew, by clients that ask and that listen",
  LEAVES_SERVER,
  async () => {
    await using server = await RedisServer.start();
    await using line = new Line(server.port);
    const errors: string[] = [];
    const onError = (error: unknown) => errors.push(String(error));
    const connection = await connect(resolveConnection("test", line.url), { ...QUIET, onError, onWarning: () => {} });
    const { client } = connection;
    const { heard, listens } = await subscribed(client);
    line.cut();
    assertEquals(await within(client.echo("there")), "there");
    assertEquals(errors[0], `Error: Lost connection to ${line.url}: Connection is closed as nothing was heard on it for 1 s`);
    await within(listens);
    await client.publish("channel", "word");
    assertEquals(await within(heard), "word");
    connection.end();
  },
);

Deno.test(
  "clients follow an address that leads to another server, also those that only listen, once the first one has become its replica",
  LEAVES_SERVER,
  async () => {
    await using first = await RedisServer.start();
    await using second = await RedisServer.start();
    await using line = new Line(first.port);
    const told: string[] = [];
    const connection = await connect(resolveConnection("test", line.url), {
      ...QUIET,
      onError: (error) => told.push(String(error)),
      onWarning: (message) => told.push(message),
    });
    const { client } = connection;
    const { heard, listens } = await subscribed(client);
    line.port = second.port;
    await client.replicaof("127.0.0.1", String(second.port));
    await assertRejects(() => client.set("key", "value"), Error, "READONLY");
    await within(listens);
    await within(until(async () => await client.set("key", "value").catch(() => "") === "OK"));
    await client.publish("channel", "word");
    assertEquals(await within(heard), "word");
    assertEquals(told, [
      `Error: Lost connection to ${line.url}: Connection is closed as the server is a replica, and its address may lead to another`,
      `${line.url}: connected again`,
    ]);
    connection.end();
  },
);

Deno.test(
  "a connection that is ended while it asks whether the server is a replica reports nothing",
  LEAVES_SERVER,
  async () => {
    await using server = await RedisServer.start();
    const told: unknown[] = [];
    const onError = (error: unknown) => told.push(error);
    const connection = await connect(resolveConnection("test", server.url), { ...QUIET, onError, onWarning: () => {} });
    const { client } = connection;
    const [asked, answered] = [Promise.withResolvers<void>(), Promise.withResolvers<string>()];
    client.info = () => {
      asked.resolve();
      return answered.promise;
    };
    await client.replicaof("127.0.0.1", "1");
    await assertRejects(() => client.set("key", "value"), Error, "READONLY");
    await within(asked.promise);
    const ended = new Promise((resolve) => client.once("end", resolve));
    connection.end();
    answered.resolve("role:slave");
    await within(ended);
    assertEquals(told, []);
  },
);

Deno.test("tellOnce() reports an error once while it recurs, and again after a pause or a new connection", () => {
  const client = new Redis({ lazyConnect: true });
  const told: string[] = [];
  const hear = tellOnce(client, ({ message }) => told.push(message));
  const now = performance.now;
  let time = 0;
  performance.now = () => time;
  try {
    for (; time < 300_000; time += 10_000) hear(new Error("OOM"));
    assertEquals(told, ["OOM"]);
    hear(new Error("READONLY"));
    assertEquals(told, ["OOM", "READONLY"]);
    time += 61_000;
    for (let i = 0; i < 2; i++) hear(new Error("OOM"));
    assertEquals(told, ["OOM", "READONLY", "OOM"]);
    client.emit("ready");
    hear(new Error("OOM"));
    assertEquals(told.length, 4);
  } finally {
    performance.now = now;
  }
});

Deno.test("ClusterPool.open() and serve() reject with what 'onWarning' throws, and let go of the server", async () => {
  await using server = await RedisServer.start(["--appendonly", "no"]);
  const mine = new Error("mine");
  const onWarning = () => {
    throw mine;
  };
  const options = { queue: "test", connection: server.url, tasks, onWarning };
  for (const open of [() => ClusterPool.open(options), () => serve(options)]) {
    assertEquals(await within(open().then(() => undefined, (error) => error)), mine);
  }
});

Deno.test(
  "a pool and a host report what 'onWarning' throws when they are connected again, and each further loss of the connection",
  LEAVES_SERVER,
  async () => {
    await using server = await RedisServer.start();
    const mine = new Error("mine");
    const onWarning = () => {
      throw mine;
    };
    for (const what of ["pool", "host"]) {
      await using line = new Line(server.port);
      const errors: unknown[] = [];
      const options = { queue: "test", connection: line.url, tasks, onError: (error: unknown) => errors.push(error), onWarning };
      const opened = what === "pool" ? await ClusterPool.open(options) : await serve({ ...options, workers: 1 });
      for (const times of [1, 2]) {
        errors.length = 0;
        line.mute();
        await until(() => errors.some((error) => String(error).includes("Lost connection")));
        line.unmute();
        await until(() => errors.includes(mine));
        assertEquals(errors.filter((error) => error === mine).length, 1, `after ${times} losses`);
      }
      await within(opened.shutdown({ timeout: 0 }));
    }
  },
);

Deno.test("ClusterPool.open() and serve() without 'onWarning' go on where a warning cannot be printed", async () => {
  await using server = await RedisServer.start(["--appendonly", "no"]);
  const { warn } = console;
  let printed = 0;
  console.warn = () => {
    printed++;
    throw new Error("No space left on device");
  };
  try {
    const options = { queue: "test", connection: server.url, tasks };
    await using _host = await within(serve(options));
    await using _pool = await within(ClusterPool.open(options));
    assert(printed >= 2);
  } finally {
    console.warn = warn;
  }
});

Deno.test(
  "ClusterPool.attach() and status() show no password when the server no longer accepts the pool",
  READING_FAILS,
  async () => {
    await using server = await RedisServer.start();
    await using client = openClient(server);
    await client.acl("SETUSER", "user", "on", ">secret", "~*", "&*", "+@all");
    const refused = Promise.withResolvers<void>();
    await using pool = await openPool(server, {
      connection: { url: server.url, username: "user", password: "secret" },
      onError: (error) => {
        if (String(error).includes("WRONGPASS")) refused.resolve();
      },
    });
    await client.acl("SETUSER", "user", "resetpass", ">other");
    await client.client("KILL", "TYPE", "normal", "SKIPME", "yes");
    await refused.promise;
    for (const ask of [() => pool.attach("job"), () => pool.status()]) {
      const error = await assertRejects(() => within<unknown>(ask()), Error, "WRONGPASS");
      assertEquals(Deno.inspect(error, { depth: 10 }).includes("secret"), false);
    }
  },
);

Deno.test(
  "ClusterPool.attach() waits while the server is busy, says so, and gives up if the pool is shut down",
  READING_FAILS,
  async () => {
    await using server = await RedisServer.start(["--busy-reply-threshold", "1"]);
    await using client = openClient(server);
    await using other = openClient(server);
    const waits = Promise.withResolvers<string>();
    await using pool = await openPool(server, {
      onError: (error) => {
        if (String(error).includes("Attaching")) waits.resolve(String(error));
      },
    });
    await using closed = await openPool(server, { onError: () => {} });
    // A pool knows its own jobs without asking.
    await using submitter = await openPool(server, { onError: () => {} });
    await submitter.submit(new Job({ id: "there", func: tasks.add, args: [1, 2] }));
    await until(async () => await client.exists("dpool:test.v1:job-there") === 1);
    const { begin, end } = REFUSALS[0]!;
    await using _ending = endLater(end, other);
    await begin(client, other);
    const attaching = pool.attach("there");
    const refused = assertRejects(() => closed.attach("there"), PoolClosedError);
    assertStringIncludes(
      await within(Promise.race([waits.promise, attaching.then(String)])),
      "Error: Attaching to jobs waits, as the server refuses it: BUSY",
    );
    const ended = closed.terminate();
    await within(refused);
    await end(other);
    assertEquals((await within(attaching)).id, "there");
    await within(ended);
  },
);

Deno.test("queues of the same name in different databases of a server are independent", async () => {
  await using server = await RedisServer.start();
  const [one, two] = [`${server.url}/1`, `${server.url}/2`];
  await using _host = await startHost(server, { connection: one, name: "of-one" });
  await using _other = await startHost(server, { connection: two, name: "of-two" });
  await using pool = await openPool(server, { connection: one });
  await using other = await openPool(server, { connection: two });
  const [file, gate] = [`${server.folder}/runs`, `${server.folder}/go`];
  const job = () => new Job({ id: "same", func: tasks.note, args: [file, gate] });
  const [kept, stopped] = [await pool.submit(job()), await other.submit(job())];
  await until(() => kept.running() && stopped.running());
  assertEquals([(await pool.status()).hosts?.map(({ name }) => name), (await pool.status()).active], [["of-one"], 1]);
  assertEquals([(await other.status()).hosts?.map(({ name }) => name), (await other.status()).active], [["of-two"], 1]);
  assert(stopped.cancel({ force: true }));
  await until(async () => (await other.status()).failed === 1);
  await Deno.writeTextFile(gate, "");
  assertEquals(await within(kept.result()), "noted");
});

Deno.test(
  "ClusterPool.open() and serve() refuse a database that the server does not have",
  LEAVES_SERVER,
  async () => {
    await using server = await RedisServer.start();
    const options = { queue: "test", connection: `${server.url}/99`, tasks };
    const opens: (() => Promise<unknown>)[] = [() => ClusterPool.open(options), () => serve({ ...options, workers: 1 })];
    for (const open of opens) {
      await assertRejects(() => within(open()), Error, `as ${server.url} refused access to database 99: ERR DB index is out of range`);
    }
  },
);

Deno.test("the core's module graph has nothing of the cluster's in it", async () => {
  const root = import.meta.resolve("../../");
  for (const entry of ["../../mod.ts", "../../cli.ts", "../../pool/executor.ts"]) {
    const path = new URL(entry, import.meta.url).pathname;
    const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json", path], cwd: new URL("../..", import.meta.url) })
      .output();
    const { modules, npmPackages = {} } = JSON.parse(new TextDecoder().decode(stdout));
    assert(modules.length > 5);
    const specifiers = modules.map(({ specifier }: { specifier: string }) => specifier.replace(root, ""));
    assertEquals(specifiers.filter((specifier: string) => /cluster|bullmq|redis/.test(specifier)), []);
    assertEquals(specifiers.filter((specifier: string) => specifier.startsWith("npm:") && !specifier.startsWith("npm:/deno-std@")), []);
    assertEquals(Object.keys(npmPackages).filter((name) => /bullmq|redis|msgpackr/.test(name)), []);
  }
});
