/**
 * The gate: a counting semaphore that serves in the order of arrival.
 *
 * @module
 */

import { Checks } from "./pool/checks.ts";
import { type Place, placeOf, Queue } from "./pool/queue.ts";
import { onAbort } from "./pool/signals.ts";

/** Options of {@linkcode Semaphore.acquire}. */
export interface AcquireOptions {
  /**
   * Gives up waiting when it aborts.
   *
   * @default {undefined}
   */
  signal?: AbortSignal | undefined;
}

/** Somebody who waits for a permit. */
export interface Waiter {
  /** Called when it has one, while that is given back by somebody else. {@linkcode Semaphore.release} gives it back. */
  grant(): void;
  refuse(reason: unknown): void;
}

/** Takes a permit if one can be had at once, to be given back by {@linkcode Semaphore.release}: for the pool alone. */
export let takePermit: (semaphore: Semaphore) => boolean;
/** Gives so many permits back that are in use, as {@linkcode Semaphore.release} does: for the pool alone. */
export let releasePermits: (semaphore: Semaphore, permits: number) => void;
/** Has somebody wait for a permit who is called back and needs no promise, in a place of its own: for the pool alone. */
export let waitForPermit: (semaphore: Semaphore, place: Place<Waiter>, signal?: AbortSignal) => void;

/**
 * A counting semaphore: of its permits, no more are out at a time than there are. Who finds none waits, and is served strictly in the order of
 * arrival; {@linkcode Semaphore.tryAcquire} does not overtake those who wait.
 *
 * A pool's gate is one of these; it is of use wherever something may happen only so many times at once.
 *
 * @example At most two at a time
 * ```ts
 * import { Semaphore } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * const gate = new Semaphore(2);
 * let inside = 0;
 * let most = 0;
 * await Promise.all([1, 2, 3, 4, 5].map(async () => {
 *   using _permit = await gate.acquire();
 *   most = Math.max(most, ++inside);
 *   await new Promise((resolve) => setTimeout(resolve, 1));
 *   inside--;
 * }));
 * assertEquals(most, 2);
 * assertEquals(gate.available, 2);
 * ```
 */
export class Semaphore {
  #permits: number;
  #available: number;
  #waiters = new Queue<Waiter>();

  static {
    takePermit = (semaphore) => {
      // While somebody waits nothing is available: a permit that comes back is handed on, never put down.
      if (semaphore.#available === 0) return false;
      semaphore.#available--;
      return true;
    };
    releasePermits = (semaphore, permits) => {
      for (let left = permits; left > 0; left--) {
        const waiter = semaphore.#waiters.shift();
        if (waiter === undefined) return semaphore.#putDown(left);
        waiter.grant();
      }
    };
    waitForPermit = (semaphore, place, signal) => {
      if (signal === undefined) semaphore.#waiters.join(place);
      else semaphore.#enqueue(place, signal);
    };
  }

  /**
   * Constructs a semaphore whose permits are all there.
   *
   * @param permits How many there are: a positive integer.
   *
   * @throws {TypeError} If `permits` is not a number.
   * @throws {RangeError} If `permits` is not a positive integer.
   */
  constructor(permits: number) {
    this.#permits = this.#available = new Checks("create semaphore").wholeNumber("permits", permits);
  }

  /** How many permits can be had at once. */
  get available(): number {
    return this.#available;
  }

  /** How many wait for a permit. */
  get waiting(): number {
    return this.#waiters.size;
  }

  /**
   * Takes a permit, waiting for one if need be.
   *
   * @param options How to give up.
   * @returns The permit. Disposing of it gives it back, once: doing that again has no effect.
   *
   * @throws {unknown} The signal's reason, if it aborts before a permit came. The semaphore is then as if nobody had waited.
   */
  acquire(options?: AcquireOptions): Promise<Disposable> {
    let signal: AbortSignal | undefined;
    try {
      signal = options === undefined ? undefined : checkedSignal(options);
      signal?.throwIfAborted();
    } catch (error) {
      return Promise.reject(error);
    }
    const permit = this.tryAcquire();
    return permit === undefined ? this.#wait(signal) : Promise.resolve(permit);
  }

  /**
   * Takes a permit if one can be had at once and nobody waits.
   *
   * @returns The permit, or undefined. Disposing of it gives it back, once.
   */
  tryAcquire(): Disposable | undefined {
    return takePermit(this) ? new Permit(this) : undefined;
  }

  /**
   * Gives a permit back: to whoever waits longest, or to stay. For those who do not keep the permit itself; a permit that is given back in
   * this way must not be disposed of as well.
   *
   * @throws {RangeError} If all permits are there already. Nothing has changed then.
   */
  release(): void {
    releasePermits(this, 1);
  }

  #putDown(permits: number): void {
    if (this.#available + permits > this.#permits) {
      throw new RangeError(`Cannot release permit as none is in use: all ${this.#permits} are available`);
    }
    this.#available += permits;
  }

  /**
   * Refuses all who wait at this moment. Permits that are out stay out, and who comes later waits as ever.
   *
   * @param reason What their promises reject with.
   */
  refuseWaiting(reason: unknown): void {
    for (const waiter of this.#waiters.clear()) waiter.refuse(reason);
  }

  #wait(signal: AbortSignal | undefined): Promise<Disposable> {
    return new Promise((resolve, refuse) => {
      waitForPermit(this, placeOf({ grant: () => resolve(new Permit(this)), refuse }), signal);
    });
  }

  #enqueue({ value: waiter }: Place<Waiter>, signal: AbortSignal): void {
    const stopListening = onAbort(signal, () => {
      // It may be among those that are refused just now, of which one has led here.
      if (this.#waiters.remove(listening)) waiter.refuse(signal.reason);
    });
    const listening = this.#waiters.push({
      grant() {
        stopListening();
        waiter.grant();
      },
      refuse(reason) {
        stopListening();
        waiter.refuse(reason);
      },
    });
  }
}

function checkedSignal(options: AcquireOptions): AbortSignal | undefined {
  const checks = new Checks("acquire permit");
  const { signal } = checks.options(options, ["signal"]);
  return signal === undefined ? undefined : checks.signal("signal", signal);
}

/** Knows its semaphore only while it is out, so that disposing of it twice gives one permit back. */
class Permit implements Disposable {
  #semaphore: Semaphore | undefined;

  constructor(semaphore: Semaphore) {
    this.#semaphore = semaphore;
  }

  [Symbol.dispose](): void {
    const semaphore = this.#semaphore;
    this.#semaphore = undefined;
    semaphore?.release();
  }
}
