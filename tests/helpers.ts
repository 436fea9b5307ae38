/**
 * Helpers for any test: assertions, counts of calls, turns of the event loop, random numbers from a seed, signals, shared memory and handshakes.
 *
 * @module
 */

import { assertEquals } from "@std/assert";

/** How often methods are called during an action. */
export async function countCalls(methods: [object: object, name: string][], act: () => void | Promise<void>): Promise<number[]> {
  const counts = methods.map(() => 0);
  const restore = methods.map(([object, name], i) => {
    const original = Reflect.get(object, name);
    Reflect.set(object, name, function (this: unknown, ...args: unknown[]) {
      counts[i]!++;
      return new.target ? Reflect.construct(original, args, new.target) : Reflect.apply(original, this, args);
    });
    // A constructor keeps its static members and what it constructs.
    if (typeof original === "function" && original.prototype !== undefined) Object.setPrototypeOf(Reflect.get(object, name), original);
    if (typeof original === "function" && original.prototype !== undefined) Reflect.get(object, name).prototype = original.prototype;
    return () => Reflect.set(object, name, original);
  });
  try {
    await act();
  } finally {
    for (const undo of restore) undo();
  }
  return counts;
}

/** Returns what an action throws, or what its promise rejects with; an error of its own if it does neither. */
export async function thrownBy(action: () => unknown): Promise<unknown> {
  try {
    await action();
  } catch (error) {
    return error;
  }
  throw new Error("Nothing was thrown");
}

/** Asserts that an action throws or rejects with an error of exactly this class and message. */
export async function assertFails(action: () => unknown, errorClass: new (message: string) => Error, message: string): Promise<void> {
  const error = await thrownBy(action) as Error;
  assertEquals([error?.constructor, error?.message], [errorClass, message]);
}

/** Waits for a turn of the event loop, after which the platform has reported events such as an unhandled rejection. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

/** Lets turns of the event loop pass until the condition holds; throws if it does not after very many. */
export async function until(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    if (turns === 10_000) throw new Error(`It has not come to this: ${condition}`);
    await turn();
  }
}

/** Numbers from 0 to 1 that are the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A signal that counts who listens to it. */
export class SpiedSignal {
  readonly signal: AbortSignal;
  /** How many listeners were added so far. */
  added = 0;
  #controller = new AbortController();
  /** Whether every listener listens only once. */
  #listeners = new Map<unknown, boolean>();

  constructor() {
    const { signal } = this.#controller;
    const { addEventListener, removeEventListener } = signal;
    signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
      this.added++;
      const [, listener, options] = args;
      this.#listeners.set(listener, typeof options === "object" && options.once === true);
      addEventListener.apply(signal, args);
    };
    signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
      this.#listeners.delete(args[1]);
      removeEventListener.apply(signal, args);
    };
    this.signal = signal;
  }

  /** How many listeners there are now. */
  get listening(): number {
    return this.#listeners.size;
  }

  abort(reason: unknown): void {
    for (const [listener, once] of this.#listeners) if (once) this.#listeners.delete(listener);
    this.#controller.abort(reason);
  }
}

/** Words that all workers share with the test. */
export function sharedWords(count: number): Int32Array {
  return new Int32Array(new SharedArrayBuffer(count * Int32Array.BYTES_PER_ELEMENT));
}

/** An initializer: gives tasks the shared memory as `counts`. */
export function share(counts: Int32Array): void {
  (globalThis as { counts?: Int32Array }).counts = counts;
}

/** A meeting of the test with a task in a worker, in shared memory: the task announces that it has come, and waits until it may go on. */
export class Meeting {
  /** The argument of the task {@linkcode meet}. */
  readonly memory: Int32Array = new Int32Array(new SharedArrayBuffer(8));

  /** Resolves when the task has come. */
  async come(): Promise<void> {
    await Atomics.waitAsync(this.memory, 0, 0).value;
  }

  /** Lets the task go on. */
  letGo(): void {
    Atomics.store(this.memory, 1, 1);
    Atomics.notify(this.memory, 1);
  }
}

/** A self-contained task: holds its worker until the test lets it go. */
export function meet(memory: Int32Array): string {
  Atomics.store(memory, 0, 1);
  Atomics.notify(memory, 0);
  Atomics.wait(memory, 1, 0);
  return "met";
}
