import { Checks, show } from "@procpool/process-pool/executor";
import type { RedisOptions } from "ioredis";

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
