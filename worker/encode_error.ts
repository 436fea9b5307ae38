import type { ErrorMessage, Thrown, ValueMessage } from "./protocol.ts";

/**
 * Takes apart what a task threw, so that it survives the way to the caller: structured clone loses user-defined classes and their names,
 * own properties, the errors of an AggregateError, and Deno's own error classes.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 *
 * @param thrown What was thrown.
 * @param exportedClass Tells which task module exports a class.
 * @param platform The objects with the platform's classes: passed by a thread whose tasks may have removed some of those meanwhile.
 * @param ownAddress The address of a worker's own source, which tasks may have hidden meanwhile.
 */
export function encodeError(
  thrown: unknown,
  exportedClass: (constructor: unknown) => { module: number; name: string } | undefined,
  platform: readonly (object | undefined)[] = [globalThis, Deno.errors, globalThis.WebAssembly],
  ownAddress?: string,
): Thrown {
  /** The most errors within one; the rest is left out: an endless chain of causes helps nobody. */
  const MOST_ERRORS = 1000;
  const errors: ErrorMessage[] = [];
  const indexes = new Map<Error, number>();

  function encodeValue(value: unknown): ValueMessage | undefined {
    if (value instanceof Error) {
      const index = indexes.get(value) ?? (errors.length < MOST_ERRORS ? encode(value) : undefined);
      return index === undefined ? undefined : { error: index };
    }
    return encodeData(value);
  }

  function encodeData(value: unknown): { value: unknown } | undefined {
    if (typeof value === "function" || typeof value === "symbol") return undefined;
    if (typeof value !== "object" || value === null) return { value };
    try {
      return { value: structuredClone(value) };
    } catch {
      return undefined;
    }
  }

  function encode(error: Error): number {
    const index = errors.length;
    indexes.set(error, index);
    const message: ErrorMessage = {
      builtin: "Error",
      exported: undefined,
      name: text(error, "name"),
      message: text(error, "message"),
      stack: tasksPart(text(error, "stack")),
      properties: [],
    };
    errors.push(message);
    for (let prototype = Object.getPrototypeOf(error); prototype !== null; prototype = Object.getPrototypeOf(prototype)) {
      const constructor = prototype.constructor;
      message.exported ??= exportedClass(constructor);
      // A class may have something else as its name.
      const name = typeof constructor?.name === "string" ? constructor.name : "";
      if (platform.some((classes) => (classes as Record<string, unknown> | undefined)?.[name] === constructor)) {
        message.builtin = name;
        // Other subclasses of DOMException, which are unstable ones, are sent as a DOMException, as the platform copies them.
        if (name === "QuotaExceededError" || Object.getPrototypeOf(prototype)?.constructor?.name !== "DOMException") break;
      }
      // An error whose class sets no name gets the name of the class, which would be lost with it.
      if (message.name === "Error" && name !== "") message.name = name;
    }
    const names = Object.getOwnPropertyNames(error);
    // What an error of this class says is not in properties of its own.
    if (message.builtin === "QuotaExceededError") names.push("quota", "requested");
    for (const name of names) {
      if (name === "message" || name === "stack") continue;
      const value = read(error, name);
      const encoded = name === "errors" && Array.isArray(value) ? encodeList(value) : encodeValue(value);
      if (encoded !== undefined) message.properties.push([name, Object.prototype.propertyIsEnumerable.call(error, name), encoded]);
    }
    return index;
  }

  /** The properties of an object that can be copied. An error there is data: the platform's copy of it is good enough. */
  function copyable(value: unknown): unknown {
    if (typeof value !== "object" || value === null) return value;
    const entries = Object.entries(value).map(([name, each]) => [name, encodeData(each)] as const);
    return Object.fromEntries(entries.flatMap(([name, each]) => each !== undefined ? [[name, each.value]] : []));
  }

  /** Encodes the errors of an AggregateError, as a separate "error" with these as properties. */
  function encodeList(values: unknown[]): ValueMessage {
    const index = errors.length;
    const properties: ErrorMessage["properties"] = [];
    errors.push({ builtin: "Array", exported: undefined, name: "", message: "", stack: "", properties });
    // The list may have holes.
    for (const [i, value] of Object.entries(values)) properties.push([i, true, encodeValue(value) ?? { value: show(value) }]);
    return { error: index };
  }

  /** A getter may throw: its property then counts as undefined. */
  function read(error: Error, name: string): unknown {
    try {
      return (error as unknown as Record<string, unknown>)[name];
    } catch {
      return undefined;
    }
  }

  function text(error: Error, name: string): string {
    const value = read(error, name);
    return value === undefined ? "" : withoutBase(show(value));
  }

  /** Leaves out the base that the platform names when an address is relative: in a worker it is a whole program. */
  function withoutBase(text: string): string {
    return ownAddress === undefined ? text : text.replaceAll(` with base '${ownAddress}'`, "");
  }

  /** A text instead of what cannot be copied. */
  function show(value: unknown): string {
    try {
      return String(value);
    } catch {
      return "something that has no text";
    }
  }

  /** The stack down to the task's own lines, without those of the pool that called it. */
  function tasksPart(stack: string): string {
    const end = stack.search(
      /\n\s+at (async )?(callTasks|settleLater|runChunk|runItems|callInitializer|callFinalizer|exported) \((process-pool\/worker|file:.*\/(runtime|known_tasks)\.ts)/,
    );
    return end < 0 ? stack : stack.slice(0, end);
  }

  const root = encodeValue(thrown);
  if (root !== undefined) return { errors, root };
  // Neither an error nor something that can be copied: a function, or an object that has one.
  const cause = typeof thrown === "object" && thrown !== null ? { ...thrown } : show(thrown);
  const error = new TypeError("The task threw something that is no error and cannot be copied", { cause: copyable(cause) });
  error.stack = String(error);
  encode(error);
  return { errors, root: { error: 0 } };
}
