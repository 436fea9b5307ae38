import type { Redis } from "ioredis";
import { unusable } from "./server_errors.ts";

/**
 * How long a server may be silent, in ms, before the connection is made anew: the other end may be gone without notice. Shorter, and a
 * server that is held up loses the answers it was about to give; longer, and hosts and producers wait in vain. Blocking commands wait for
 * ten seconds.
 */
export const LONGEST_SILENCE = 15_000;

/**
 * How many checks the connection makes within that time. Fewer, and silence is found later; more, and an idle server is asked more often.
 */
const LOOKS = 3;

/** What a replica says to who would write, or to everyone while it waits for its primary. */
const FROM_A_REPLICA = /\b(READONLY|MASTERDOWN)\b/;

/** What a replica says about itself. */
const IS_A_REPLICA = /^role:(slave|replica)/m;

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
  #clients: Redis[] = [];
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
    // Its copies have the same options.
    client.options.reconnectOnError = ({ message }) => {
      this.#mayBeReplica ||= FROM_A_REPLICA.test(message);
      return false;
    };
    this.#keep(client);
    const duplicate = client.duplicate.bind(client);
    client.duplicate = (override) => {
      // With a client that connects on demand, BullMQ only waits for the first try.
      const copy = duplicate({ lazyConnect: false, ...override });
      this.#keep(copy);
      return copy;
    };
    const heard = new Map<Redis, Heard>();
    this.#timer = setInterval(() => {
      for (const each of this.#clients) heard.set(each, this.#lookAt(each, heard.get(each)));
      this.#follow().catch(() => {});
    }, options.silence / LOOKS);
  }

  /** Keeps a client connected, and its commands. */
  #keep(client: Redis): void {
    this.#clients.push(client);
    client.on("error", (error) => this.#last = error);
    client.on("close", () => keepEarly(client));
    // BullMQ ends some by itself.
    client.on("end", () => rejectKept(client));
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
