import { Checks, show } from "@procpool/process-pool/executor";
import { Redis, type RedisOptions } from "ioredis";
import { VERSION } from "./envelope.ts";

/** Where Redis or Valkey is, and how to log in. */
export interface RedisConnection {
  /**
   * Its address: `redis://HOST:PORT`, or `rediss://HOST:PORT` for TLS. It may contain a user, a password and a database number, as in
   * `redis://HOST:PORT/2`; queues in different databases are independent.
   */
  url: string;
  /**
   * The user's name, instead of the one in `url`.
   *
   * @default {undefined}
   */
  username?: string | undefined;
  /**
   * The password, instead of the one in `url`.
   *
   * @default {undefined}
   */
  password?: string | undefined;
  /**
   * The certificate of the authority that issued the server's certificate, in PEM; only for `rediss`.
   *
   * @default {what Deno trusts}
   */
  ca?: string | undefined;
}

/** All keys begin with this, so that one ACL pattern covers them. */
export const PREFIX = "dpool";

/** Shorter, and nobody waits for a server that starts at the same time; longer, and a wrong address is reported late. In ms. */
export const OPEN_TIMEOUT = 10_000;

/**
 * How long a server that refuses is left alone, in ms. Shorter, and all hosts hammer it; longer, and they stand idle when it takes writes
 * again.
 */
export const REFUSED_PAUSE = 1000;

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

/**
 * An error that has not come for this long, in ms, is over. Less, and one that lasts is reported again and again; more, and the next one is
 * not reported.
 */
const OVER_AFTER = 60_000;

/** Errors after which trying again does not help. */
const HOPELESS = /WRONGPASS|NOAUTH|NOPERM|invalid password|certificate|UnknownIssuer/i;

/** Errors of a program that may not connect to the server: Deno's own, and that of the look-up of a name. */
const NOT_PERMITTED = /Requires net access|getaddrinfo EPERM/;

/** What a replica says to who would write, or to everyone while it waits for its primary. */
const FROM_A_REPLICA = /\b(READONLY|MASTERDOWN)\b/;

/** What a replica says about itself. */
const IS_A_REPLICA = /^role:(slave|replica)/m;

/** The queue's name in Redis. */
export function queueName(queue: string): string {
  return `${queue}.v${VERSION}`;
}

/**
 * The channel on which hosts hear of jobs to be stopped. Channels are shared by all databases, so its name includes the database number.
 */
export function cancelChannel(queue: string, client: Redis): string {
  return `${PREFIX}:${queueName(queue)}:cancel:${databaseOf(client)}`;
}

/**
 * The message there about a job that has this timestamp in the queue: another of the same name may have been sent by the time a host hears
 * it.
 */
export function cancelMessage(id: string, timestamp: string | number): string {
  return `${id} ${timestamp}`;
}

/** The number of the database that a client uses. */
export function databaseOf(client: Redis): number {
  return client.options.db ?? 0;
}

/** A queue's name as users give it. */
export function checkedQueue(action: string, queue: unknown): string {
  if (typeof queue === "string" && /^[A-Za-z0-9][\w.-]{0,99}$/.test(queue)) return queue;
  throw new TypeError(
    `Cannot ${action} as 'queue' must be a name of letters, digits, '.', '-' and '_', such as "images": current value is ${show(queue)}`,
  );
}

/** A host's name as users give it. */
export function checkedHostName(action: string, name: unknown): string {
  if (typeof name === "string" && /^[\w.@-]{1,100}$/.test(name)) return name;
  throw new TypeError(`Cannot ${action} as 'name' must be of letters, digits and '.@_-': current value is ${show(name)}`);
}

/** The release of a program as users give it. */
export function checkedRelease(action: string, release: unknown): string | undefined {
  if (release === undefined || typeof release === "string") return release;
  throw new TypeError(`Cannot ${action} as 'release' must be a string: current value is ${show(release)}`);
}

/** The options of a client, and its address without user and password. */
export interface ResolvedConnection {
  address: string;
  options: RedisOptions;
}

/** Checks and completes the address. No message shows a password. */
export function resolveConnection(action: string, connection: unknown): ResolvedConnection {
  const checks = new Checks(action);
  const given = typeof connection === "string" ? { url: connection } : connection;
  if (typeof given !== "object" || given === null) {
    throw new TypeError(
      `Cannot ${action} as 'connection' must be an address such as "redis://HOST:PORT", or an object: ` +
        `current value is ${show(given)}`,
    );
  }
  const { url: text, username, password, ca } = checks.options(given as RedisConnection, ["url", "username", "password", "ca"]);
  const url = typeof text === "string" && URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !["redis:", "rediss:"].includes(url.protocol) || url.hostname === "") {
    throw new TypeError(`Cannot ${action} as the address of the connection must be redis://HOST:PORT or rediss://HOST:PORT`);
  }
  // Neither these nor the path are shown: they may be the end of a password.
  if (url.search !== "" || url.hash !== "") {
    throw new TypeError(
      `Cannot ${action} as the address of the connection must have no parameters: a '?' or '#' in a password is written "%3F" or "%23"`,
    );
  }
  for (const [name, value] of Object.entries({ username, password, ca })) {
    if (value !== undefined && typeof value !== "string") throw new TypeError(`Cannot ${action} as '${name}' must be a string`);
  }
  const tls = url.protocol === "rediss:";
  if (ca !== undefined && !tls) throw new TypeError(`Cannot ${action} as 'ca' needs an address that begins with rediss://`);
  const db = url.pathname.slice(1);
  if (!/^\d*$/.test(db)) {
    throw new TypeError(
      `Cannot ${action} as the path of the address must be the number of a database: a '/' in a password is written "%2F"`,
    );
  }
  const port = url.port === "" ? 6379 : Number(url.port);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return {
    address: `${url.protocol}//${url.hostname}:${port}`,
    options: {
      host,
      port,
      db: Number(db),
      ...optional("username", username ?? decoded(action, "user", url.username)),
      ...optional("password", password ?? decoded(action, "password", url.password)),
      ...(tls ? { tls: ca === undefined ? {} : { ca } } : {}),
    },
  };
}

/** Decodes a part of an address; throws if it was not encoded properly. */
function decoded(action: string, what: "user" | "password", text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new TypeError(`Cannot ${action} as the ${what} in the address of the connection must be encoded: a '%' is written "%25"`);
  }
}

function optional(name: string, value: string): Record<string, string> {
  return value === "" ? {} : { [name]: value };
}

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

/** The error for a connection that cannot be used, with what was behind it, if that is known. */
function unusable(message: string, error: unknown): Error {
  if (!(error instanceof Error)) return new Error(message);
  const cause = plain(error);
  return new Error(`${message}: ${cause.message}`, { cause });
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

/**
 * Hears of every error, and reports each message once until the client is connected again or the message has not come for a while: with a
 * server that refuses to write a second time, the client stays connected.
 */
export function tellOnce(client: Redis, tell: (error: Error) => void): (error: Error) => void {
  /** When each message came last, in ms of `performance.now()`. */
  const heard = new Map<string, number>();
  client.on("ready", () => heard.clear());
  return (error) => {
    const { message } = error;
    const now = performance.now();
    const last = heard.get(message) ?? -Infinity;
    heard.set(message, now);
    if (now - last > OVER_AFTER) tell(plain(error));
  };
}

/**
 * Whether a reachable server refuses writes, as it is out of memory, a replica or busy, cannot save, or no longer accepts clients: all of
 * that may pass.
 */
export function refusesWrites({ message }: Error): boolean {
  return /\b(READONLY|OOM|MISCONF|NOREPLICAS|LOADING|MASTERDOWN|BUSY|CLUSTERDOWN|TRYAGAIN|WRONGPASS|NOAUTH|max number of clients)\b/.test(
    message,
  );
}

/** The same, except that it no longer accepts the client. */
export function mayPass(error: Error): boolean {
  return refusesWrites(error) && !HOPELESS.test(error.message);
}

/** An error without the command that failed: that of a login contains the password. */
export function plain(error: Error): Error {
  const copy = new Error(error.message);
  if (error.name !== "Error") copy.name = error.name;
  return copy;
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
