import type { ErrorMessage, Thrown, ValueMessage } from "./protocol.ts";

/** Finds the class of errors that a task module exports, if this thread has it. */
export type FindClass = (exported: { module: number; name: string }) => unknown;

/**
 * Puts together what a task threw. An error gets the class that its task module exports, if this thread has that class too, else the
 * nearest class of the platform with the original's name. Its constructor is not called again.
 */
export function decodeError(thrown: Thrown, findClass: FindClass): unknown {
  if ("raw" in thrown) return thrown.raw;
  const shells = thrown.errors.map((message) => shell(message, findClass));
  const decode = (value: ValueMessage): unknown => "error" in value ? shells[value.error] : value.value;
  for (const [i, { properties }] of thrown.errors.entries()) {
    for (const [name, enumerable, value] of properties) {
      Object.defineProperty(shells[i], name, { value: decode(value), enumerable, writable: true, configurable: true });
    }
  }
  return decode(thrown.root);
}

/** Makes just the object: its properties may refer to errors that do not exist yet. */
function shell({ builtin, exported, name, message, stack }: ErrorMessage, findClass: FindClass): object {
  if (builtin === "Array") return [];
  const error = platformError(builtin, { message, name });
  const known = exported === undefined ? undefined : findClass(exported) as { prototype?: unknown } | undefined;
  if (known?.prototype instanceof Error) Object.setPrototypeOf(error, known.prototype);
  else if (error.name !== name) hide(error, "name", name);
  // The stack of a class that sets no name begins with the name of its parent.
  hide(error, "stack", stack.startsWith(`${builtin}: `) ? name + stack.slice(builtin.length) : stack);
  return error;
}

function platformError(builtin: string, { message, name }: { message: string; name: string }): Error {
  if (builtin === "DOMException") return new DOMException(message, name);
  if (builtin === "AggregateError") return new AggregateError([], message);
  if (builtin === "SuppressedError") return new SuppressedError(undefined, undefined, message);
  return new (PLATFORM.get(builtin) ?? Error)(message);
}

/** Deno has this class, its types do not. */
const { QuotaExceededError } = globalThis as { QuotaExceededError?: new (message: string) => DOMException };
/** Without a JIT (`--v8-flags=--jitless`) there is no WebAssembly. */
const { CompileError, LinkError, RuntimeError } = (globalThis.WebAssembly ?? {}) as Partial<typeof WebAssembly>;
const PLATFORM = new Map<string, (new (message: string) => Error) | undefined>(Object.entries({
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
  CompileError,
  LinkError,
  RuntimeError,
  QuotaExceededError,
  ...Deno.errors,
}));

function hide(error: Error, name: string, value: string): void {
  Object.defineProperty(error, name, { value, enumerable: false, writable: true, configurable: true });
}
