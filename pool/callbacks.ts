import { type Semaphore, takePermit } from "../semaphore.ts";
import type { Clock } from "./clock.ts";

/** Called with errors that belong to no future. */
export type OnError = (error: unknown) => void;

/**
 * Runs calls one after another, never nested: one call may lead to the next, thousands of times, and nested they would overflow the stack.
 */
export class InTurn {
  /** The running call, and those that follow. */
  #calls: (() => void)[] | undefined;

  call(call: () => void): void {
    if (this.#calls !== undefined) return void this.#calls.push(call);
    this.#calls = [call];
    try {
      for (const each of this.#calls) each();
    } finally {
      this.#calls = undefined;
    }
  }
}

/**
 * Calls the callbacks of a pool's futures: one object per pool. It knows how many are still running, so that `shutdown()` can wait for
 * them, and reports what they throw when nobody else would hear of it.
 */
export class Callbacks {
  #clock: Clock;
  #onError: OnError;
  #pending = 0;
  #waiting: (() => void)[] = [];
  #turns = new InTurn();

  constructor(clock: Clock, onError: OnError) {
    this.#clock = clock;
    this.#onError = onError;
  }

  /** Resolves when no callback is running. */
  idle(): Promise<void> {
    if (this.#pending === 0) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Hands an error to the pool's `onError`; if that throws too, to the platform. */
  report(error: unknown): void {
    try {
      this.#onError(error);
    } catch (second) {
      reportError(second);
    }
  }

  /**
   * Runs this call, and after it those that come meanwhile: a callback may cancel thousands of jobs, each with a callback that does the
   * same.
   */
  inTurn(call: () => void): void {
    this.#turns.call(call);
  }

  /** Calls a job's `onDone`. If it is asynchronous, the returned promise resolves when it has finished, and never rejects. */
  callOnDone(callback: () => unknown): Promise<void> | undefined {
    try {
      const outcome = callback();
      if (!isThenable(outcome)) return undefined;
      return this.#track(Promise.resolve(outcome).then(() => {}, (error) => this.report(error)));
    } catch (error) {
      this.report(error);
      return undefined;
    }
  }

  /**
   * Calls a job's `onDone` in its turn, and gives the job's permit back. If nobody waits at the gate, that happens before the call, so that
   * `onDone` can submit; a promise that it returns takes the permit again, unless that is gone. Otherwise it happens after the call, or
   * when that promise has settled.
   */
  callOnDoneWithPermit(callback: () => unknown, gate: Semaphore): void {
    let isReleased = releaseUnawaited(gate);
    this.inTurn(() => {
      isReleased ||= releaseUnawaited(gate);
      const finished = this.callOnDone(callback);
      const isHeld = !isReleased || (finished !== undefined && takePermit(gate));
      if (!isHeld) return;
      if (finished === undefined) gate.release();
      else finished.then(() => gate.release());
    });
  }

  /** Prepares a callback: returns a promise that settles as the callback does, and the function that calls it. */
  prepare<T>(callback: () => T | PromiseLike<T>): { promise: Promise<T>; call: () => void } {
    let settle: (outcome: Promise<T>) => void;
    const promise = new CallbackPromise<T>((resolve) => settle = resolve);
    const call = (): void => {
      const outcome = attempt(callback);
      settle(outcome);
      this.#track(outcome.then(() => {}, (error) => this.#reportUnlessUsed(promise, error)));
    };
    return { promise, call };
  }

  /** As on the platform, a rejection counts as unhandled if nobody has handled it within a turn of the event loop. */
  #reportUnlessUsed(promise: CallbackPromise<unknown>, error: unknown): Promise<void> | void {
    if (promise.used) return;
    return new Promise((resolve) => {
      this.#clock.after(0, () => {
        if (!promise.used) this.report(error);
        resolve();
      });
    });
  }

  async #track(work: Promise<void>): Promise<void> {
    this.#pending++;
    await work;
    if (--this.#pending > 0) return;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** Gives a permit back if nobody waits for one. */
function releaseUnawaited(gate: Semaphore): boolean {
  const isUnawaited = gate.waiting === 0;
  if (isUnawaited) gate.release();
  return isUnawaited;
}

/**
 * A promise that knows whether anyone uses it. It has to be a subclass: `await` reads a plain promise without calling `then`. Its rejection
 * counts as handled, since {@linkcode Callbacks} reports it if nobody else does.
 */
class CallbackPromise<T> extends Promise<T> {
  used = false;

  constructor(executor: (resolve: (value: T | PromiseLike<T>) => void, reject: (reason?: unknown) => void) => void) {
    super(executor);
    super.then(undefined, () => {});
  }

  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  override then<A = T, B = never>(
    onFulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.used = true;
    return super.then(onFulfilled, onRejected);
  }
}

async function attempt<T>(callback: () => T | PromiseLike<T>): Promise<T> {
  return await callback();
}

/** Whether a value is a promise, or acts like one. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  if (typeof value !== "object" && typeof value !== "function" || value === null) return false;
  return typeof (value as { then?: unknown }).then === "function";
}
