import { show } from "@procpool/process-pool/executor";
import type { Redis } from "ioredis";
import { VERSION } from "./envelope.ts";

/** All keys begin with this, so that one ACL pattern covers them. */
export const PREFIX = "dpool";

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

/** When this thread began, in µs, and its process. */
const HERE = [Math.round(1000 * performance.timeOrigin), Deno.pid].map((each) => each.toString(36)).join("-");

/**
 * A name that nothing else on the server has. A random UUID alone would not do: under `deno run --seed` all runs of a program draw the same
 * ones, and one would be given the results of another.
 */
export function uniqueName(): string {
  return `${crypto.randomUUID()}-${HERE}`;
}
