/**
 * What tests of anything need: assertions, turns of the event loop, chance from a seed, signals and handshakes.
 *
 * @module
 */

import { assertEquals } from "@std/assert";

/** What an action throws, or what its promise rejects with; an error of its own if it does neither. */
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

/** A turn of the event loop: what the platform reports after one, such as an unhandled rejection, has been reported when it is over. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

/** Lets turns of the event loop pass until this is so; throws if it is not after very many. */
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
  /** How many have begun to listen so far. */
  added = 0;
  #controller = new AbortController();
  /** Whether each listens only once. */
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

  /** How many listen at this moment. */
  get listening(): number {
    return this.#listeners.size;
  }

  abort(reason: unknown): void {
    for (const [listener, once] of this.#listeners) if (once) this.#listeners.delete(listener);
    this.#controller.abort(reason);
  }
}

/** A meeting of the test and a task in a worker, in shared memory: the task says that it has come, and waits until it may go. */
export class Meeting {
  /** Given to the task {@linkcode meet}. */
  readonly memory: Int32Array = new Int32Array(new SharedArrayBuffer(8));

  /** Resolves when the task has come. */
  async come(): Promise<void> {
    await Atomics.waitAsync(this.memory, 0, 0).value;
  }

  /** Lets the task go. */
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
