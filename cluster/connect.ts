import { Redis } from "ioredis";
import type { ResolvedConnection } from "./address.ts";
import { Connection, LONGEST_SILENCE } from "./connection.ts";
import { databaseOf, PREFIX, queueName } from "./names.ts";
import { HOPELESS, mayPass, REFUSED_PAUSE, tellOnce, unusable } from "./server_errors.ts";

/** Shorter, and nobody waits for a server that starts at the same time; longer, and a wrong address is reported late. In ms. */
export const OPEN_TIMEOUT = 10_000;

/** Longer, and a server that is back is found late; shorter, and a server that is away is asked all the time. In ms. */
const LONGEST_RETRY = 2000;

/** Errors of a program that may not connect to the server: Deno's own, and that of the look-up of a name. */
const NOT_PERMITTED = /Requires net access|getaddrinfo EPERM/;

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
