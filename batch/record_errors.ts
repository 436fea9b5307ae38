import type { LaneError } from "./lane.ts";

/** Where a part with errors is. */
export interface ErrorPlace {
  /** The input. */
  input: string;
  /** How many lines precede the part; undefined while that is not known. */
  lines: number | undefined;
  /** The byte at which the part begins. */
  start: number;
  /** How many bytes of results precede the part's. */
  position: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** An error as a line of the errors file. If its line number is not known yet, the line says how to find it. */
export function errorLine({ line, offset, position, members }: LaneError, place: ErrorPlace): Uint8Array {
  const number = place.lines === undefined ? `null,"part":[${place.start},${line}]` : place.lines + line + 1;
  const head = encoder.encode(
    `{"input":${JSON.stringify(place.input)},"line":${number},"offset":${offset},"position":${place.position + position},`,
  );
  const entry = new Uint8Array(head.length + members.length + 2);
  entry.set(head);
  entry.set(members, head.length);
  entry.set([0x7d, 10], head.length + members.length);
  return entry;
}

/** A parsed line of the errors file. */
export interface ErrorEntry {
  input: string;
  line: number | null;
  /** The part that it came from, and its line within that, both counted from 0. */
  part?: [start: number, line: number];
  offset: number;
  /** The byte of the uncompressed output at which its result would be. */
  position: number;
  header?: string[];
  record: string;
  /** Whether only the beginning of the record is kept. */
  truncated?: true;
  error: { name: string; message: string; stack: string };
  attempts: number;
}

/** How many bytes of an errors file are read at once: more take memory, fewer take longer. */
const BLOCK = 2 ** 18;

/** Reads an errors file of any length, one error after the other. */
export async function* readErrors(path: string): AsyncGenerator<ErrorEntry, void> {
  using file = await Deno.open(path);
  const decoder = new TextDecoder();
  const block = new Uint8Array(BLOCK);
  let rest = "";
  for (let length = await file.read(block); length !== null; length = await file.read(block)) {
    const text = decoder.decode(block.subarray(0, length), { stream: true });
    const [end, ...lines] = text.split("\n");
    rest += end;
    for (const line of lines) {
      if (rest !== "") yield JSON.parse(rest);
      rest = line;
    }
  }
  rest += decoder.decode();
  if (rest !== "") yield JSON.parse(rest);
}

/** The name and message of an error. */
export function saidBy(members: Uint8Array): string {
  const { name, message } = readError(members);
  return `${name}: ${message}`;
}

/** Whether a record can be run again: not if it could not be parsed, which has not changed, or was not kept whole. */
export function isRetryable({ error, truncated }: Pick<ErrorEntry, "error" | "truncated">): boolean {
  // A task may throw a ParseError of its own, which has a stack.
  const unparsed = error.name === "ParseError" && error.stack === "";
  return !unparsed && !truncated;
}

/** Reads those errors of an errors file whose records can be run again. */
export async function* retryableErrors(path: string): AsyncGenerator<ErrorEntry, void> {
  for await (const entry of readErrors(path)) if (isRetryable(entry)) yield entry;
}

/** Whether any record of an errors file can be run again. If the file cannot be read, trying will tell. */
export async function isAnyRetryable(path: string): Promise<boolean> {
  try {
    for await (const _ of retryableErrors(path)) return true;
    return false;
  } catch {
    return true;
  }
}

/** An error as a line of an errors file, when all of it is known. */
export function errorText(entry: ErrorEntry): Uint8Array {
  return encoder.encode(`${JSON.stringify(entry)}\n`);
}

/** Parses what a worker wrote about an error. */
export function parseMembers(members: Uint8Array): Pick<ErrorEntry, "error" | "attempts" | "truncated"> {
  return JSON.parse(`{${decoder.decode(members)}}`);
}

/**
 * The error in what a worker wrote, without parsing the record, which may be long. Nothing within quotes can look like the beginning of the
 * error, since quotes there are escaped.
 */
export function readError(members: Uint8Array): ErrorEntry["error"] {
  const text = decoder.decode(members);
  return JSON.parse(`{${text.slice(text.lastIndexOf(`"error":{"name":"`))}}`).error;
}

/** The permission that an error says was denied, as Deno names it: a kind and usually a value. */
export function deniedBy({ name, message }: Pick<ErrorEntry["error"], "name" | "message">): string | undefined {
  const [, kind, value] = /^Requires (\w+) access(?: to "([^"\\]*)")?/.exec(message) ?? [];
  return name !== "NotCapable" || kind === undefined ? undefined : value === undefined ? kind : `${kind}=${value}`;
}
