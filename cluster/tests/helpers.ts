/**
 * A Redis server of its own for each test, and hosts in processes of their own. All of it ends with the test.
 *
 * @module
 */

import { Redis } from "ioredis";
import { SWEEP_INTERVAL } from "../link.ts";
import { type ClusterHost, ClusterPool, type ClusterPoolOptions, serve, type ServeOptions } from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";

/** A deadline for what must not hang: long enough for a machine that is busy with other things. */
export async function within<T>(promise: Promise<T>, ms = 60_000): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => timer = setTimeout(() => reject(new Error(`Not settled within ${ms} ms`)), ms));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Resolves when the condition holds. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 30_000;
  while (!await condition()) {
    if (performance.now() > end) throw new Error(`Not true within half a minute: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The runs recorded by a task: one line each. */
export async function lines(file: string): Promise<string[]> {
  try {
    return (await Deno.readTextFile(file)).trimEnd().split("\n");
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** Options of a host with which tests need not wait for the defaults: dead hosts are found within two seconds. */
export const QUICK = { lockDuration: 1000, stalledInterval: 500 } as const;

/**
 * Has the producers of this process look their jobs up every 50 ms, for a test that waits for several sweeps. To be called before a pool is
 * opened.
 */
export function sweepOften(): Disposable {
  const { setTimeout } = globalThis;
  globalThis.setTimeout = new Proxy(setTimeout, {
    apply: (_target, _this, [handler, delay, ...args]) => setTimeout(handler, delay === SWEEP_INTERVAL ? 50 : delay, ...args),
  });
  return { [Symbol.dispose]: () => void (globalThis.setTimeout = setTimeout) };
}

const UNSANITIZED = { sanitizeOps: false, sanitizeResources: false } as const;

/** For a test in which a client leaves a server: it keeps a timer for two seconds. */
export const LEAVES_SERVER = UNSANITIZED;

/** For a test in which reading events fails: BullMQ's reader then waits for five seconds, with a timer that nobody can stop. */
export const READING_FAILS = UNSANITIZED;

/** For a test with large replies: the client's parser starts a timer of its own for these. */
export const LARGE_REPLIES = UNSANITIZED;

/** A port that is free at this moment. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return (listener.addr as Deno.NetAddr).port;
}

/** A child process whose output is read line by line. */
export class Child implements AsyncDisposable {
  readonly process: Deno.ChildProcess;
  /** Everything that it has printed so far. */
  said = "";
  #done: Promise<void>;
  #heard: () => void = () => {};

  constructor(command: string, args: string[], env: Record<string, string> = {}) {
    this.process = new Deno.Command(command, { args, env, stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
    this.#done = Promise.all([this.#listen(this.process.stdout), this.#listen(this.process.stderr)]).then(() => this.#heard());
  }

  /** Resolves when it has printed something. */
  async says(text: string): Promise<void> {
    let ended = false;
    this.#done.then(() => ended = true);
    while (!this.said.includes(text)) {
      if (ended) throw new Error(`The process ended and never said ${JSON.stringify(text)}:\n${this.said}`);
      await within(new Promise<void>((resolve) => this.#heard = resolve));
    }
  }

  /** How it ended. */
  async status(): Promise<Deno.CommandStatus> {
    const status = await within(this.process.status);
    await this.#done;
    return status;
  }

  kill(signal: Deno.Signal): void {
    try {
      this.process.kill(signal);
    } catch (error) {
      // It has already ended by itself.
      if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill("SIGKILL");
    await this.status();
  }

  async #listen(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)) {
      this.said += text;
      this.#heard();
    }
  }
}

/** A Redis server on the loopback interface, with its files in a folder of its own. */
export class RedisServer implements AsyncDisposable {
  readonly port: number;
  readonly folder: string;
  #args: string[];
  #process: Child | undefined;

  private constructor(port: number, folder: string, args: string[]) {
    this.port = port;
    this.folder = folder;
    this.#args = args;
  }

  /** Starts a server; `args` are appended to its command line. */
  static async start(args: string[] = [], { folder }: { folder?: string } = {}): Promise<RedisServer> {
    const server = new RedisServer(freePort(), folder ?? await Deno.makeTempDir({ prefix: "cluster-test-" }), args);
    await server.restart();
    return server;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts it again, on the same port and with the same files. */
  async restart(): Promise<void> {
    const { port, folder } = this;
    const ports = this.#args.includes("--tls-port") ? ["--port", "0"] : ["--port", String(port)];
    const common = ["--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"];
    this.#process = new Child("redis-server", [...ports, ...common, ...this.#args.map((arg) => arg.replace("PORT", String(port)))]);
    await this.#process.says("Ready to accept connections");
  }

  /** Kills it, like a power cut. */
  async kill(): Promise<void> {
    this.#process!.kill("SIGKILL");
    await this.#process!.status();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Writes a task module that can be loaded until there is a file at `broken`. */
export async function writeFragileModule(module: string, { broken, exports }: { broken: string; exports: string }): Promise<void> {
  await Deno.writeTextFile(
    module,
    `let broken = false;
    try { Deno.statSync(${JSON.stringify(broken)}); broken = true; } catch { /* it is whole */ }
    if (broken) throw new Error("the module is broken");
    ${exports}`,
  );
}

/** Options of a host, as they travel to its process. */
export interface HostOptions {
  connection?: unknown;
  workers?: number;
  lockDuration?: number;
  stalledInterval?: number;
  redeliveries?: number;
  /** How long jobs that are running when it is told to stop may take, in ms. */
  grace?: number;
  /** The folder of the payload store. */
  store?: string;
  release?: string;
  name?: string;
  permissions?: Deno.PermissionOptions;
  memoryLimit?: number;
  /** Hosts of the same seed draw the same random numbers. */
  seed?: number;
}

/** Starts a host and waits until it takes jobs. */
export async function startHost(server: RedisServer, { seed, ...options }: HostOptions = {}): Promise<Child> {
  const all = { queue: "test", connection: server.url, workers: 1, ...QUICK, ...options };
  const script = new URL("./host.ts", import.meta.url);
  const flags = ["--allow-all", "--no-check", ...(seed === undefined ? [] : [`--seed=${seed}`])];
  const host = new Child(Deno.execPath(), ["run", ...flags, script.pathname, JSON.stringify(all)]);
  try {
    await host.says("ready\n");
  } catch (error) {
    await host[Symbol.asyncDispose]();
    throw error;
  }
  return host;
}

/**
 * Opens a pool on a server. It is terminated at the end of the test, so that a job that does not end fails the test instead of blocking it.
 */
export async function openPool(server: RedisServer, options: Partial<ClusterPoolOptions> = {}): Promise<ClusterPool> {
  const pool = await ClusterPool.open({ queue: "test", connection: server.url, tasks, ...options });
  pool[Symbol.asyncDispose] = () => pool.terminate();
  return pool;
}

/** Starts a host of one worker in this process. */
export function openHost(server: RedisServer, options: Partial<ServeOptions> = {}): Promise<ClusterHost> {
  return serve({ queue: "test", connection: server.url, tasks, workers: 1, ...options });
}

/** A client of the server beside those of the cluster. */
export function openClient(server: RedisServer): Redis & AsyncDisposable {
  const client = new Redis(server.url);
  return Object.assign(client, {
    async [Symbol.asyncDispose]() {
      // A server that is away would not answer.
      if (client.status === "ready") await client.quit();
      else client.disconnect();
    },
  });
}

/** How many times a server was told this command. */
export async function callsOf(client: Redis, command: string): Promise<number> {
  return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(await client.info("commandstats"))?.[1] ?? 0);
}

/** Leaves a server so many bytes less memory than it has taken. */
export async function takeMemory(client: Redis, excess: number): Promise<void> {
  const [, used] = /^used_memory:(\d+)/m.exec(await client.info("memory"))!;
  await client.config("SET", "maxmemory", Number(used) - excess);
}
