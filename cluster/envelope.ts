/**
 * What is written into the queue: a call on the way there, a reply or a failure on the way back. Everything that comes out of Redis is
 * checked before it is used, since others may write there too.
 *
 * @module
 */

import {
  JobCancelledError,
  JobTimeoutError,
  MemoryLimitError,
  PoolBrokenError,
  PoolClosedError,
  WorkerDiedError,
} from "@procpool/process-pool";
import { decodeError, encodeError, show, showJob, type Thrown } from "@procpool/process-pool/executor";
import { fromJson, type Json, sizeOf, toJson } from "./values.ts";

/** The version of what is written. Queues carry it in their names, so that hosts and producers of different versions do not meet. */
export const VERSION = 1;

/** A call: of a task with arguments, or of a task with each of some items. */
export interface Envelope {
  v: typeof VERSION;
  /** The task's name. */
  task: string;
  /** The job's id in errors: it travels under another name. */
  id?: string | number;
  args?: Json[];
  items?: Json[];
  /** The index of the first item in the input, for errors. */
  first?: number;
  /** Whether `args` or `items` are in the payload store instead. */
  stored?: "args" | "items";
  /** Their name there. */
  storedAs?: string;
  /** How long the job, or each item, may run, in ms. */
  timeout?: number;
  /** How often it is run again after its worker died. */
  retries?: number;
  /** From when it is too late to start it, in ms since 1970. */
  expiresAt?: number;
  /** The release of the producer's program. */
  release?: string;
  /** Whether the job is no longer wanted. */
  cancelled?: true;
}

/** An item's outcome: a value, nothing, or what was thrown. */
export type ItemReply = { value: Json } | { failure: Failure } | Record<never, never>;

/**
 * A host's reply: a value or nothing; or the outcomes of items, only the first ones if all would be too large, and how long they took, in
 * ms; or that either is in the payload store.
 */
export interface Reply {
  v: typeof VERSION;
  value?: Json;
  items?: ItemReply[];
  elapsed?: number;
  stored?: true;
}

/** Something thrown, in JSON. Name and message are for people who look into Redis. */
export interface Failure {
  v: typeof VERSION;
  name: string;
  message: string;
  thrown: Json;
}

/**
 * How many bytes arguments, results and chunks may take in Redis. Redis holds all of it in memory, and results twice: as such and in the
 * events stream. More, and a few thousand jobs fill it; less, and ordinary records need a store.
 */
export const LARGEST_PAYLOAD = 256 * 1024;

/** How many bytes the items of a chunk, and their outcomes, may take, leaving room for the rest of the envelope. */
export const LARGEST_CHUNK = 0.95 * LARGEST_PAYLOAD;

/** How many bytes a failure may take. What exceeds that is left out. */
const LARGEST_FAILURE = 32 * 1024;

/**
 * How many bytes a property of an error may take when a failure is cut: numbers and short texts tell most, and are not what makes it large.
 */
const LARGEST_PROPERTY = 256;

/** How many characters a message may have when a failure is cut. */
const LONGEST_MESSAGE = 4096;

/** The same for an error that is sent alone: each of its texts occurs twice in a failure, and a character may take six bytes. */
const LONGEST_ROOT = 1024;

/** BullMQ's error for a job that was delivered too often. */
export const STALLED = "job stalled more than allowable limit";

/** A host's error for a job whose record the server has evicted, but not its name in the list: it is not started. */
export const FORGOTTEN = "the server has lost the call";

/** The classes that come back as themselves. */
const CLASSES = new Map<string, unknown>(
  Object.entries({ JobCancelledError, JobTimeoutError, MemoryLimitError, PoolBrokenError, PoolClosedError, WorkerDiedError }),
);

/** Reads a call; throws a TypeError that says what is wrong with it. */
export function readEnvelope(data: unknown): Envelope {
  if (!isObject(data)) throw malformed("it must be an object", data);
  const { v, task, args, items, first, stored, storedAs, timeout, retries, expiresAt, release, id } = data;
  if (v !== VERSION) throw malformed(`this host reads version ${VERSION}`, v);
  if (typeof task !== "string") throw malformed("'task' must be a string", task);
  for (const [name, value] of Object.entries({ timeout, retries, expiresAt, first })) {
    if (value !== undefined && !(typeof value === "number" && value >= 0)) throw malformed(`'${name}' must be a number`, value);
  }
  if (release !== undefined && typeof release !== "string") throw malformed("'release' must be a string", release);
  if (id !== undefined && typeof id !== "string" && typeof id !== "number") throw malformed("'id' must be a string or a number", id);
  if (data.cancelled === true) return data as unknown as Envelope;
  const payloads = [args, items].filter((each) => each !== undefined);
  if (
    stored === undefined
      ? payloads.length !== 1 || !Array.isArray(payloads[0])
      : payloads.length !== 0 || !["args", "items"].includes(stored as string)
  ) {
    throw malformed("it must have either 'args' or 'items'", data);
  }
  // It becomes part of a key, which may be the name of a file.
  if (stored !== undefined && !(typeof storedAs === "string" && /^[\w-]{1,100}$/.test(storedAs))) {
    throw malformed("'storedAs' must be a name of letters, digits, '-' and '_'", storedAs);
  }
  return data as unknown as Envelope;
}

/** Whether this is what a producer writes in place of a cancelled call. Most calls need not be parsed to tell. */
export function isUnwanted(data: string): boolean {
  try {
    return data.includes('"cancelled":true') && JSON.parse(data).cancelled === true;
  } catch {
    return false;
  }
}

/** Reads a reply; throws a TypeError that says what is wrong with it. */
export function readReply(data: unknown): Reply {
  if (!isObject(data)) throw malformed("a reply must be an object", data);
  if (data.v !== VERSION) throw malformed(`this producer reads version ${VERSION}`, data.v);
  if (data.items !== undefined && !Array.isArray(data.items)) throw malformed("'items' of a reply must be an array", data.items);
  return data as unknown as Reply;
}

/** The outcome of an item. */
export function readItem(reply: unknown): PromiseSettledResult<unknown> {
  if (!isObject(reply)) return { status: "rejected", reason: malformed("an item of a reply must be an object", reply) };
  if ("failure" in reply) return { status: "rejected", reason: readFailure(reply.failure) };
  return { status: "fulfilled", value: "value" in reply ? fromJson(reply.value as Json) : undefined };
}

/** A result, possibly undefined. */
export function writeValue(value: unknown): { value: Json } | Record<never, never> {
  return value === undefined ? {} : { value: toJson(value, "the result") };
}

/**
 * Takes something thrown apart. What JSON cannot express of an error is left out. If it is too large, the least useful goes first: stacks
 * and large properties; then everything but the name, the message and the class of what was thrown.
 */
export function writeFailure(thrown: unknown): Failure {
  const encoded = encodeError(thrown, (constructor) => {
    const name = (constructor as { name?: string } | undefined)?.name ?? "";
    return CLASSES.get(name) === constructor ? { module: 0, name } : undefined;
  });
  if ("raw" in encoded) throw new TypeError("Cannot send what was not taken apart");
  if (valueOf(encoded.root) === undefined) return writeFailure(inPlaceOf(thrown));
  for (const shorten of [whole, cut, rootAlone]) {
    const failure = writeEncoded(shorten(encoded));
    if (sizeOf(failure) <= LARGEST_FAILURE) return failure;
  }
  return writeFailure(new Error(show(thrown).slice(0, LONGEST_MESSAGE)));
}

/** The error that is sent in place of something thrown that is neither an error nor JSON. */
function inPlaceOf(thrown: unknown): TypeError {
  const error = new TypeError("The task threw something that is no error and cannot be sent through the queue", { cause: partOf(thrown) });
  error.stack = String(error);
  return error;
}

/** The properties of a value that JSON can express; without any, its description. */
function partOf(value: unknown): unknown {
  const properties = Object.entries(value as object).filter(([, each]) => each !== undefined && valueOf({ value: each }) !== undefined);
  return properties.length > 0 ? Object.fromEntries(properties) : show(value);
}

/** The list of an AggregateError travels as an error of this class, whose properties are its elements. */
const LIST = "Array";

/** Something thrown that was taken apart. */
type Encoded = Exclude<Thrown, { raw: unknown }>;

function whole(encoded: Encoded): Encoded {
  return encoded;
}

/** Errors with the same classes, referring to each other as before. */
function cut(
  { errors, root }: Encoded,
  most: number = Math.min(LONGEST_MESSAGE, Math.floor(LARGEST_FAILURE / 4 / errors.length)),
): Encoded {
  return {
    root,
    errors: errors.map(({ builtin, exported, name, message, stack, properties }) => ({
      builtin,
      exported,
      name: name.slice(0, most),
      message: message.slice(0, most),
      stack: stack === "" ? "" : `${name}: ${message}`.slice(0, most),
      properties: properties.flatMap((property) => {
        const [name, enumerable, value] = property;
        if ("error" in value || sizeOf(propertyOf(builtin, value) ?? null) <= LARGEST_PROPERTY) return [property];
        return builtin === LIST ? [[name, enumerable, { value: show(value.value) }]] : [];
      }),
    })),
  };
}

/** The thrown error, without the errors that it refers to. */
function rootAlone({ errors, root }: Encoded): Encoded {
  if (!("error" in root)) return { errors: [], root };
  const { errors: [error] } = cut({ errors: [errors[root.error]!], root }, LONGEST_ROOT);
  return { errors: [{ ...error!, properties: [] }], root: { error: 0 } };
}

function writeEncoded({ errors, root }: Encoded): Failure {
  const { name, message } = "error" in root ? errors[root.error]! : { name: "", message: show(root.value) };
  return { v: VERSION, name, message, thrown: jsonOf({ errors, root }) };
}

/** Leaves out, one by one, properties that are not JSON. */
function jsonOf({ errors, root }: Encoded): Json {
  return {
    root: valueOf(root)!,
    errors: errors.map(({ builtin, exported, name, message, stack, properties }) => ({
      builtin,
      exported: exported?.name ?? null,
      name,
      message,
      stack,
      properties: properties.flatMap(([name, enumerable, value]): Json[] => {
        const json = propertyOf(builtin, value);
        return json === undefined ? [] : [[name, enumerable, json]];
      }),
    })),
  };
}

/** A property in JSON; undefined if it cannot be sent. An element of a list keeps its place all the same. */
function propertyOf(builtin: string, value: { value: unknown } | { error: number }): Json | undefined {
  return valueOf(value) ?? (builtin === LIST && "value" in value ? valueOf({ value: partOf(value.value) }) : undefined);
}

function valueOf(value: { value: unknown } | { error: number }): Json | undefined {
  if ("error" in value) return { error: value.error };
  if (value.value === undefined) return {};
  try {
    return { value: toJson(value.value, "a property") };
  } catch {
    return undefined;
  }
}

/** Puts something thrown together again. */
export function readFailure(data: unknown): unknown {
  try {
    const { v, thrown } = data as Failure;
    if (v !== VERSION) throw malformed(`this producer reads failures of version ${VERSION}`, v);
    const { root, errors } = thrown as { root: { value?: Json; error?: number }; errors: Record<string, Json>[] };
    const decoded: Thrown = {
      root: decodedValue(root, errors.length),
      errors: errors.map(({ builtin, exported, name, message, stack, properties }) => ({
        builtin: String(builtin),
        exported: typeof exported === "string" ? { module: 0, name: exported } : undefined,
        name: String(name),
        message: String(message),
        stack: String(stack),
        properties: (properties as [string, boolean, Json][]).map(([name, enumerable, value]) => [
          String(name),
          Boolean(enumerable),
          decodedValue(value as { value?: Json; error?: number }, errors.length),
        ]),
      })),
    };
    return decodeError(decoded, ({ name }) => CLASSES.get(name));
  } catch (cause) {
    return new TypeError("Cannot read what the host reported as a failure", { cause });
  }
}

function decodedValue(data: { value?: Json; error?: number }, errors: number): { value: unknown } | { error: number } {
  if (data.error === undefined) return { value: data.value === undefined ? undefined : fromJson(data.value) };
  if (Number.isInteger(data.error) && data.error >= 0 && data.error < errors) return { error: data.error };
  throw malformed("an error must be one of those listed", data.error);
}

/** Whether a job failed because it was cancelled. */
export function isCancelled(reason: string): boolean {
  return readFailedReason(reason, { jobId: "", taskName: "" }) instanceof JobCancelledError;
}

/** Turns what BullMQ keeps of a failed job into what its future rejects with. */
export function readFailedReason(
  reason: string,
  { jobId, taskName, deaths }: { jobId: string | number; taskName: string; deaths?: number | undefined },
): unknown {
  if (reason === STALLED) {
    return new WorkerDiedError(
      `Lost ${showJob(jobId, taskName)} as the hosts that ran it are gone or have lost its lock, and it is not delivered again`,
      { jobId, taskName, attempts: deaths },
    );
  }
  try {
    return readFailure(JSON.parse(reason));
  } catch {
    return new Error(reason);
  }
}

function malformed(need: string, value: unknown): TypeError {
  return new TypeError(`Cannot read what the queue holds as ${need}: current value is ${show(value)}`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
