/**
 * Values on their way through Redis: JSON, plus bytes. What JSON would silently change or lose is refused, except -0, which arrives as 0:
 * it results from ordinary arithmetic, and hardly anything tells it from 0.
 *
 * @module
 */

import { show } from "@procpool/process-pool/executor";

/** What JSON can express. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** The key of an object that stands for bytes in base64. */
const BYTES = "$bytes";
/** The key of an object that stands for an object which would be taken for one of these two. */
const PLAIN = "$plain";

/**
 * Encodes a value in JSON.
 *
 * @param value The value.
 * @param what The name of the value in messages.
 *
 * @throws {TypeError} If something in it cannot be expressed in JSON; the message has the path to it.
 */
export function toJson(value: unknown, what: string): Json {
  return convert(value, what, new Set());
}

/** Decodes a value. Its objects are plain, whatever their property names. */
export function fromJson(json: Json): unknown {
  if (typeof json !== "object" || json === null) return json;
  if (Array.isArray(json)) return json.map(fromJson);
  const names = Object.keys(json);
  if (names.length === 1 && names[0] === BYTES && typeof json[BYTES] === "string") return Uint8Array.fromBase64(json[BYTES]);
  const plain = names.length === 1 && names[0] === PLAIN ? json[PLAIN] as { [name: string]: Json } : json;
  return Object.fromEntries(Object.entries(plain).map(([name, each]) => [name, fromJson(each)]));
}

/** How many bytes it takes in Redis. */
export function sizeOf(json: unknown): number {
  return encoder.encode(JSON.stringify(json)).length;
}

const encoder = new TextEncoder();

/** Deeper, and code on either side that walks through it may run out of stack. */
const DEEPEST = 500;

function convert(value: unknown, path: string, around: Set<object>): Json {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      if (Number.isFinite(value)) return value;
      throw refusal(path, value);
    case "object":
      if (value === null) return null;
      if (value instanceof Uint8Array) return { [BYTES]: value.toBase64() };
      break;
    default:
      throw refusal(path, value);
  }
  if (around.size >= DEEPEST) {
    throw new TypeError(
      `Cannot send ${path} through the queue as it lies too deep: at most ${DEEPEST} arrays and objects within each other`,
    );
  }
  if (around.has(value)) throw new TypeError(`Cannot send ${path} through the queue as it contains itself`);
  around.add(value);
  const json = Array.isArray(value) ? convertArray(value, path, around) : convertObject(value as Record<string, unknown>, path, around);
  around.delete(value);
  return json;
}

function convertArray(array: unknown[], path: string, around: Set<object>): Json {
  const json = Array.from(array, (each, i) => convert(each, `${path}[${i}]`, around));
  const more = Object.keys(array)[array.length] ?? Object.getOwnPropertySymbols(array)[0];
  if (more === undefined) return json;
  throw new TypeError(
    `Cannot send ${path} through the queue as an array in JSON has nothing but items: this one also has '${String(more)}'`,
  );
}

function convertObject(object: Record<string, unknown>, path: string, around: Set<object>): Json {
  const prototype = Object.getPrototypeOf(object);
  if (prototype !== null && prototype !== Object.prototype) throw refusal(path, object);
  const [symbol] = Object.getOwnPropertySymbols(object);
  if (symbol !== undefined) throw refusal(`${path}[${String(symbol)}]`, object);
  const names = Object.keys(object);
  const json = Object.fromEntries(names.map((name) => [name, convert(object[name], `${path}.${name}`, around)]));
  return names.length === 1 && (names[0] === BYTES || names[0] === PLAIN) ? { [PLAIN]: json } : json;
}

function refusal(path: string, value: unknown): TypeError {
  return new TypeError(
    `Cannot send ${path} through the queue as it must be JSON (null, booleans, finite numbers, strings, arrays, plain objects) or a Uint8Array: ` +
      `current value is ${show(value)}`,
  );
}
