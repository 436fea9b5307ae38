/**
 * Argument checks with uniform messages: what was attempted, what is needed, what was given. A wrong type is a TypeError, a number out of
 * range a RangeError.
 *
 * @module
 */

/** The longest delay that the platform's timers accept; with a longer one they fire at once. */
const LONGEST_DELAY = 2 ** 31 - 1;

/** No machine has room for so many threads; with far more, the default of `queueSize` would not be an integer. */
export const MOST_WORKERS = 65_536;

/** How much heap a worker may be given, in MB. With less, V8 may abort the program when a worker starts; it does not accept more. */
export const MEMORY_LIMITS = { min: 16, max: 65_536 };

/** How a value is shown in a message: briefly, and distinguishing `"4"` from `4`. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}...` : value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return value.name === "" ? "a function" : `function ${value.name}`;
  if (typeof value !== "object" || value === null) return String(value);
  try {
    if (Array.isArray(value)) return `an array of ${value.length}`;
    return `an object of class ${value.constructor?.name ?? "null"}`;
  } catch {
    // Its class cannot be read.
    return "an object";
  }
}

/** How a job is shown in a message. */
export function showJob(id: string | number, taskName: string): string {
  return `job ${show(id)} (task ${show(taskName)})`;
}

/** The text of a reason, or of something thrown: that may be any value, even one that cannot be converted to a string. */
export function textOf(value: unknown): string {
  try {
    return String(value);
  } catch {
    return show(value);
  }
}

/** Whether something thrown is of this class. It may be any value, even one that cannot be examined, such as a revoked proxy. */
export function isOfClass<T>(value: unknown, Class: abstract new (...args: never[]) => T): value is T {
  try {
    return value instanceof Class;
  } catch {
    return false;
  }
}

/** Whether it is a plain object, of any realm, or one without a prototype. */
function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || (Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, "isPrototypeOf"));
}

/** The checks of one action, such as "create pool". Each returns the value that it was given. */
export class Checks {
  #action: string;

  /** Constructs the checks of this action. */
  constructor(action: string) {
    this.#action = action;
  }

  /** An integer from `min` to `max`. `or` names what else the caller accepts, and has checked itself. */
  wholeNumber(name: string, value: unknown, { min = 1, max = Number.MAX_SAFE_INTEGER, or = "" } = {}): number {
    const integer = min === 1 ? "a positive integer" : `an integer of at least ${min}`;
    const wanted = or === "" ? integer : `${integer}, or ${or}`;
    if (typeof value !== "number") throw this.#wrongType(name, wanted, value);
    if (!Number.isSafeInteger(value) || value < min) throw this.#wrongSize(name, wanted, value);
    if (value > max) throw this.#wrongSize(name, `${wanted}, at most ${max}`, value);
    return value;
  }

  /** A time in milliseconds that a timer can wait. Infinity, where allowed, means forever. */
  milliseconds(name: string, value: unknown, { infinite = false } = {}): number {
    const wanted = `a number of milliseconds from 0 to ${LONGEST_DELAY}${infinite ? ", or Infinity" : ""}`;
    if (typeof value !== "number") throw this.#wrongType(name, wanted, value);
    const fits = (value >= 0 && value <= LONGEST_DELAY) || (infinite && value === Infinity);
    if (!fits) throw this.#wrongSize(name, wanted, value);
    return value;
  }

  /** True or false. */
  boolean(name: string, value: unknown): boolean {
    if (typeof value !== "boolean") throw this.#wrongType(name, "true or false", value);
    return value;
  }

  /** A function. */
  callable<F>(name: string, value: F): F {
    if (typeof value !== "function") throw this.#wrongType(name, "a function", value);
    return value;
  }

  /** An array. */
  array(name: string, value: unknown): unknown[] {
    if (!Array.isArray(value)) throw this.#wrongType(name, "an array", value);
    return value;
  }

  /**
   * A list of objects to be moved. Whether one can be is left to the platform, except for a view, where the platform's error does not name
   * the buffer.
   */
  transfer(name: string, value: unknown): readonly Transferable[] {
    const list = this.array(name, value);
    for (const [i, each] of list.entries()) {
      if (typeof each !== "object" || each === null || ArrayBuffer.isView(each)) {
        throw this.#wrongType(`${name}[${i}]`, "an object that can be moved, such as the 'buffer' of a typed array", each);
      }
    }
    return list as Transferable[];
  }

  /** An object that is not an array. `or` names what else the caller accepts, and has checked itself. */
  object(name: string, value: unknown, { or = "" } = {}): object {
    const wanted = or === "" ? "an object" : `an object, or ${or}`;
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw this.#wrongType(name, wanted, value);
    return value;
  }

  /** An AbortSignal. */
  signal(name: string, value: unknown): AbortSignal {
    if (!(value instanceof AbortSignal)) throw this.#wrongType(name, "an AbortSignal", value);
    return value;
  }

  /** One of some words. */
  oneOf<T extends string>(name: string, value: unknown, allowed: readonly T[]): T {
    if (allowed.includes(value as T)) return value as T;
    const words = allowed.map((word) => `"${word}"`);
    throw this.#wrongType(name, `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`, value);
  }

  /**
   * An options object with known names only: a mistyped option would otherwise pass for one that was left out. Likewise a signal or a map,
   * which has no own properties, would pass for no options at all, so it has to be a plain object.
   */
  options<T extends object>(value: T, known: readonly string[]): T {
    if (typeof value !== "object" || value === null || !isPlain(value)) {
      throw new TypeError(`Cannot ${this.#action} as its options must be a plain object: current value is ${show(value)}`);
    }
    for (const name of Object.keys(value)) {
      if (known.includes(name)) continue;
      throw new TypeError(`Cannot ${this.#action} as there is no option '${name}': known options are '${known.join("', '")}'`);
    }
    return value;
  }

  #wrongType(name: string, wanted: string, value: unknown): TypeError {
    return new TypeError(this.#message(name, wanted, value));
  }

  #wrongSize(name: string, wanted: string, value: unknown): RangeError {
    return new RangeError(this.#message(name, wanted, value));
  }

  #message(name: string, wanted: string, value: unknown): string {
    return `Cannot ${this.#action} as '${name}' must be ${wanted}: current value is ${show(value)}`;
  }
}

/** Whether a value can be iterated. */
export function isIterable(value: unknown): value is Iterable<unknown> {
  return typeof (value as Partial<Iterable<unknown>> | null | undefined)?.[Symbol.iterator] === "function";
}
