import type { Redis } from "ioredis";

/**
 * How long a server that refuses is left alone, in ms. Shorter, and all hosts hammer it; longer, and they stand idle when it takes writes
 * again.
 */
export const REFUSED_PAUSE = 1000;

/**
 * An error that has not come for this long, in ms, is over. Less, and one that lasts is reported again and again; more, and the next one is
 * not reported.
 */
const OVER_AFTER = 60_000;

/** Errors after which trying again does not help. */
export const HOPELESS = /WRONGPASS|NOAUTH|NOPERM|invalid password|certificate|UnknownIssuer/i;

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

/** The error for a connection that cannot be used, with what was behind it, if that is known. */
export function unusable(message: string, error: unknown): Error {
  if (!(error instanceof Error)) return new Error(message);
  const cause = plain(error);
  return new Error(`${message}: ${cause.message}`, { cause });
}
