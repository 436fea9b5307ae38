import { Redis } from "ioredis";
import type { ResolvedConnection } from "./address.ts";
import { databaseOf, PREFIX, queueName } from "./names.ts";
import { HOPELESS, mayPass, REFUSED_PAUSE, tellOnce, unusable } from "./server_errors.ts";

/** Shorter, and nobody waits for a server that starts at the same time; longer, and a wrong address is reported late. In ms. */
export const OPEN_TIMEOUT = 10_000;

/** Longer, and a server that is back is found late; shorter, and a server that is away is asked all the time. In ms. */
const LONGEST_RETRY = 2000;

/**
 * How long a server may be silent, in ms, before the connection is made anew: the other end may be gone without notice. Shorter, and a
 * server that is held up loses the answers it was about to give; longer, and hosts and producers wait in vain. Blocking commands wait for
 * ten seconds.
 */
const LONGEST_SILENCE = 15_000;

/**
 * How many checks the connection makes within that time. Fewer, and silence is found later; more, and an idle server is asked more often.
 */
const LOOKS = 3;

/** Errors of a program that may not connect to the server: Deno's own, and that of the look-up of a name. */
const NOT_PERMITTED = /Requires net access|getaddrinfo EPERM/;

/** What a replica says to who would write, or to everyone while it waits for its primary. */
const FROM_A_REPLICA = /\b(READONLY|MASTERDOWN)\b/;

/** What a replica says about itself. */
const IS_A_REPLICA = /^role:(slave|replica)/m;

/** How {@linkcode connect} connects, and what it tells. */
export interface ConnectOptions {
  /** The action that messages name. */
  action: string;
  queue: string;
  /** What the server must allow a script to do with a key of the queue that does not exist. */
  command: "EXISTS" | "DEL";
  /** How long to try, in ms. */
  timeout: number;
  /**
   * Called once if the server is not ready yet, and with errors of the established connection: each is reported once, as
   * {@linkcode tellOnce} does it.
   */
  onError: (error: unknown) => void;
  /** Called with warnings about how the server is configured, and when a lost connection is back. */
  onWarning: (message: string) => void;
  /**
   * How long the server may be silent, in ms, before the connection is made anew.
   *
   * @default {15000}
   */
  silence?: number;
}

/**
 * Connects to a server that is ready, within a time limit: the client itself would try forever. It stays connected, trying again whenever
 * the server is away, and commands wait meanwhile.
 */
export async function connect(to: ResolvedConnection, options: ConnectOptions): Promise<Connection> {
  const { action, timeout, onError, onWarning, silence = LONGEST_SILENCE } = options;
  const { address } = to;
  const { client, info } = await connectClient(to, options);
  try {
    for (const warning of warningsOf(info)) onWarning(`${address}: ${warning}`);
  } catch (error) {
    client.disconnect();
    throw error;
  }
  reportLosses(client, address, { onError, onWarning });
  return new Connection(client, { action, address, timeout, silence });
}

/**
 * Connects a client for the first time. As long as the server is busy, loading, or a replica as during a failover, it is tried again. Also
 * returns what the server says about itself.
 */
async function connectClient({ address, options }: ResolvedConnection, given: ConnectOptions): Promise<{ client: Redis; info: string }> {
  const { action, timeout, onError } = given;
  const end = performance.now() + timeout;
  /** What the server answered last. */
  let answer: Error | undefined;
  for (let left = timeout; left > 0; left = end - performance.now()) {
    // A new one each time, as the address may lead to another server by now.
    const client = new Redis({
      ...options,
      lazyConnect: true,
      // Needed by BullMQ: a command waits for as long as the server is away.
      maxRetriesPerRequest: null,
      retryStrategy: (times) => Math.min(50 * 2 ** times, LONGEST_RETRY),
      // What it says of itself comes a moment after it has connected: of each connection that is lost by then it would keep one, to be sent
      // later.
      disableClientInfo: true,
      // By itself it waits for as long as the server guesses that it loads its data, up to ten seconds, with a timer that nothing ends.
      maxLoadingRetryTime: REFUSED_PAUSE,
    });
    try {
      return { client, info: await logIn(client, address, { ...given, left, answer }) };
    } catch (error) {
      const { cause } = error as Error;
      if (!(cause instanceof Error && mayPass(cause))) throw error;
      if (answer === undefined) onError(new Error(`Cannot ${action} yet as ${address} is not ready: ${cause.message}`));
      answer = cause;
    }
    const pause = Math.max(0, Math.min(REFUSED_PAUSE, end - performance.now()));
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  throw unusable(`Cannot ${action} as ${address} was not ready within ${timeout} ms`, answer);
}

/** How {@linkcode logIn} connects. */
interface LogInOptions extends ConnectOptions {
  /** How much of the time is left, in ms. */
  left: number;
  /** What the server answered before. */
  answer: Error | undefined;
}

/**
 * Connects a client, and has the server run a script with several keys, as all are that BullMQ runs: a server in cluster mode accepts only
 * keys that lie together. Returns what the server says about itself.
 */
async function logIn(client: Redis, address: string, { action, queue, command, timeout, left, answer }: LogInOptions): Promise<string> {
  let last = answer;
  const failed = Promise.withResolvers<never>();
  const watch = (error: Error): void => {
    last = error;
    if (HOPELESS.test(error.message) || NOT_PERMITTED.test(error.message)) failed.reject(error);
  };
  client.on("error", watch);
  // By itself the client waits in silence while a server loads its data.
  const look = async (): Promise<void> => {
    if (/^loading:1/m.test(await client.info())) failed.reject(new Error("LOADING Redis is loading the dataset in memory"));
  };
  const connected = (): void => void look().catch(() => {});
  client.on("connect", connected);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    failed.reject(last);
  }, left);
  const db = databaseOf(client);
  let refusal = "cannot be used";
  const use = async (): Promise<string> => {
    const info = await client.info();
    // If the client fails to select the database itself, it silently stays in database 0.
    refusal = `refused access to database ${db}`;
    if (db !== 0) await client.select(db);
    refusal = "refuses to run a script, as BullMQ has to";
    // As long as each other: so, whatever the queue's name is, they do not lie together in cluster mode, which goes by a checksum.
    const [probe, other] = ["probe", "other"].map((key) => `${PREFIX}:${queueName(queue)}:${key}`);
    await client.eval(`return redis.call("${command}", KEYS[1])`, 2, probe!, other!);
    return info;
  };
  try {
    client.connect().catch(() => {});
    return await Promise.race([use(), failed.promise]);
  } catch (error) {
    // Errors of a connection that was given up concern nobody.
    client.on("error", () => {});
    client.disconnect();
    if (late) refusal = `could not be reached within ${timeout} ms`;
    else if (NOT_PERMITTED.test((error as Error).message)) refusal = "may not be reached without '--allow-net'";
    throw unusable(`Cannot ${action} as ${address} ${refusal}`, error);
  } finally {
    clearTimeout(timer);
    client.off("error", watch);
    client.off("connect", connected);
  }
}

/** Reports when the connection of a client is lost, and when it is back. */
function reportLosses(client: Redis, address: string, { onError, onWarning }: Pick<ConnectOptions, "onError" | "onWarning">): void {
  let lost = false;
  client.on("ready", () => {
    if (!lost) return;
    lost = false;
    try {
      onWarning(`${address}: connected again`);
    } catch (error) {
      // Thrown from here, it would keep others from hearing that the client is ready.
      onError(error);
    }
  });
  const tell = tellOnce(client, (error) => onError(new Error(`Lost connection to ${address}: ${error.message}`, { cause: error })));
  client.on("error", (error: Error) => {
    lost = true;
    tell(error);
  });
  // Servers that close connections in an orderly way, and proxies in front of a server that is away, leave no error.
  client.on("reconnecting", () => {
    if (!lost) tell(new Error("it was closed at the other end"));
    lost = true;
  });
}

/** What a connection is for, where it goes, how long it may take to become ready, and how long it may be silent, in ms. */
interface ConnectionOptions {
  action: string;
  address: string;
  timeout: number;
  silence: number;
}

/** Private fields of a client that we read. */
interface Internals {
  stream: { bytesRead: number; destroy(error: Error): void } | null;
  /** Commands that the server has not answered. */
  commandQueue: Redis["commandQueue"];
  /** The same for a lost connection that had been ready: they are sent again. */
  prevCommandQueue?: Redis["commandQueue"] | null;
  /** Commands that are sent once it is connected. */
  offlineQueue: Redis["commandQueue"];
}

/** What one check has found. */
interface Heard {
  stream: Internals["stream"];
  bytes: number;
  /** How many checks in a row have found no answer although something was asked. */
  silent: number;
}

/** How much a client has heard on its present connection. */
function heardBy(client: Redis): Pick<Heard, "stream" | "bytes"> {
  const { stream } = client as unknown as Internals;
  return { stream, bytes: stream?.bytesRead ?? 0 };
}

/** A client, and those that BullMQ derives from it for blocking commands. */
export class Connection {
  readonly client: Redis;
  #clients: Redis[];
  #options: ConnectionOptions;
  /** The last error of any of them. */
  #last: Error | undefined;
  #timer: ReturnType<typeof setInterval>;
  /** Whether the server has seemed to be a replica since it was last asked. */
  #mayBeReplica = false;
  /** When that was, in ms of `performance.now()`. */
  #askedForRole = -Infinity;
  #ended = false;

  constructor(client: Redis, options: ConnectionOptions) {
    this.client = client;
    this.#options = options;
    this.#clients = [client];
    // Its copies have the same options.
    client.options.reconnectOnError = ({ message }) => {
      this.#mayBeReplica ||= FROM_A_REPLICA.test(message);
      return false;
    };
    const note = (error: Error): void => void (this.#last = error);
    const keep = (client: Redis): void => {
      client.on("close", () => keepEarly(client));
      // BullMQ ends some by itself.
      client.on("end", () => rejectKept(client));
    };
    client.on("error", note);
    keep(client);
    const duplicate = client.duplicate.bind(client);
    client.duplicate = (override) => {
      // With a client that connects on demand, BullMQ only waits for the first try.
      const copy = duplicate({ lazyConnect: false, ...override });
      copy.on("error", note);
      keep(copy);
      this.#clients.push(copy);
      return copy;
    };
    const heard = new Map<Redis, Heard>();
    this.#timer = setInterval(() => {
      for (const each of this.#clients) heard.set(each, this.#lookAt(each, heard.get(each)));
      this.#follow().catch(() => {});
    }, options.silence / LOOKS);
  }

  /**
   * Connects all clients anew if the server has become a replica: after a failover the address leads to another one, but the connections
   * lead to the old one for as long as that runs. Those that only listen must follow as well.
   */
  async #follow(): Promise<void> {
    const now = performance.now();
    if (!this.#mayBeReplica || now - this.#askedForRole < this.#options.silence) return;
    this.#mayBeReplica = false;
    this.#askedForRole = now;
    // If it takes writes again, connections must stay: what it hands out on them would be lost.
    if (!IS_A_REPLICA.test(await this.client.info("replication")) || this.#ended) return;
    for (const each of this.#clients) {
      const { stream } = each as unknown as Internals;
      if (each.status === "ready") {
        stream?.destroy(new Error("Connection is closed as the server is a replica, and its address may lead to another"));
      }
    }
  }

  /** Reconnects a client that is silent, and makes one speak that was asked nothing. */
  #lookAt(client: Redis, last: Heard | undefined): Heard {
    const { commandQueue } = client as unknown as Internals;
    const now: Heard = { ...heardBy(client), silent: 0 };
    const { stream } = now;
    if (commandQueue.length === 0) {
      if (client.status === "ready") client.ping().catch(() => {});
      return now;
    }
    if (last === undefined || last.stream !== stream || last.bytes !== now.bytes) return now;
    now.silent = last.silent + 1;
    const { silence } = this.#options;
    if (now.silent === LOOKS) stream?.destroy(new Error(`Connection is closed as nothing was heard on it for ${silence / 1000} s`));
    return now;
  }

  /**
   * Resolves when everything is connected.
   *
   * @param connected Resolves when everything is connected; by itself it would wait forever.
   *
   * @throws {Error} If that takes too long, or fails.
   */
  async ready(connected: Promise<unknown>): Promise<void> {
    const { action, address, timeout } = this.#options;
    let reason = "cannot be used";
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      reason = `was not ready within ${timeout} ms`;
      late.reject(this.#last);
    }, timeout);
    try {
      await Promise.race([connected, late.promise]);
      // BullMQ has tried to write by now, which a program that only looks at a queue does not need.
      this.#mayBeReplica = false;
    } catch (error) {
      // A closed connection does not say why it is closed.
      const why = error instanceof Error && /Connection is closed/.test(error.message) ? this.#last ?? error : error;
      throw unusable(`Cannot ${action} as ${address} ${reason}`, why);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Ends all clients once the server has answered nothing for so long, in ms, unless what this returns is disposed of before. A connection
   * made anew does not count as an answer: one that is refused again and again says something each time. One check is not enough: a program
   * that was held up checks before it reads what came meanwhile.
   */
  endWhenSilent(time: number): Disposable {
    const { client } = this;
    let last = heardBy(client);
    let silent = 0;
    const timer = setInterval(() => {
      const now = heardBy(client);
      const isSilent = client.status !== "ready" || now.stream !== last.stream || now.bytes === last.bytes;
      silent = isSilent ? silent + 1 : 0;
      last = now;
      if (silent < LOOKS) return;
      clearInterval(timer);
      this.end();
    }, time / LOOKS);
    return { [Symbol.dispose]: () => clearInterval(timer) };
  }

  /**
   * Ends all clients for good, whether or not the server answers: pending commands are rejected. BullMQ connects a client anew of which it
   * has heard nothing for a while, even if that has ended meanwhile.
   */
  end(): void {
    this.#ended = true;
    clearInterval(this.#timer);
    for (const client of this.#clients) {
      disconnect(client);
      client.connect = () => Promise.reject(new Error("Connection is closed."));
    }
  }
}

/**
 * Ends a client. One that is about to reconnect would forget that when told to disconnect, and never end, so it is made to try at once.
 */
function disconnect(client: Redis): void {
  const { status } = client;
  // Disconnecting a closed client starts a timer that nothing ends.
  if (status === "end" || status === "close") return;
  client.disconnect();
  if (status !== "reconnecting") return;
  // A server that accepts it may still be silent.
  client.once("connect", () => client.disconnect());
  client.connect().catch(() => {});
}

/**
 * Makes a client send commands again that it was given while connecting, if that connection is lost before it is ready: it sends some
 * commands early, and forgets them. The commands of the connecting itself are sent anew each time.
 */
function keepEarly(client: Redis): void {
  const { commandQueue: sent, prevCommandQueue: kept, offlineQueue: waiting } = client as unknown as Internals;
  if (sent === kept) return;
  while (sent.length > 0) {
    const item = sent.pop()!;
    const { name, args } = item.command;
    const connects = ["auth", "hello", "info", "select"].includes(name) || (name === "client" && args[0] === "setname");
    if (!connects) waiting.unshift(item);
  }
}

/**
 * Rejects commands that a client keeps from a lost connection to send again: it forgets them if the next connection ends before it is
 * ready.
 */
function rejectKept(client: Redis): void {
  const { prevCommandQueue: kept } = client as unknown as Internals;
  while (kept?.length) kept.shift()!.command.reject(new Error("Connection is closed."));
}

/** Warnings about how the server is configured. */
function warningsOf(info: string): string[] {
  const field = (name: string): string | undefined => new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(info)?.[1];
  const warnings: string[] = [];
  const policy = field("maxmemory_policy");
  if (policy !== undefined && policy !== "noeviction") {
    warnings.push(`maxmemory-policy is "${policy}": jobs may vanish when the memory is full. Set it to "noeviction"`);
  }
  if (field("aof_enabled") === "0") warnings.push('appendonly is off: jobs may vanish when the server ends. Set it to "yes"');
  return warnings;
}
