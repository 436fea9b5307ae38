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
  /** Called with a permit taken for it, while another holder releases one. {@linkcode Semaphore.release} gives it back. */
  grant(): void;
  /** Called instead, if it no longer waits: the reason is why. */
  refuse(reason: unknown): void;
}

/** Takes a permit if one is available, to be given back by {@linkcode Semaphore.release}: only for the pool. */
export let takePermit: (semaphore: Semaphore) => boolean;
/** Gives back this many permits, as {@linkcode Semaphore.release} gives back one: only for the pool. */
export let releasePermits: (semaphore: Semaphore, permits: number) => void;
/** Has a waiter wait, without a promise: in the caller's place, or, with a signal to listen to, in a new one. Only for the pool. */
export let waitForPermit: (semaphore: Semaphore, place: Place<Waiter>, signal?: AbortSignal) => void;

/**
 * A counting semaphore: hands out a fixed number of permits. Whoever finds none waits, and is served strictly in the order of arrival;
 * {@linkcode Semaphore.tryAcquire} does not overtake those who wait.
 *
 * A pool's gate is one of these; it is useful wherever something may happen only a limited number of times at once.
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
      // While somebody waits, none is available: a permit that comes back is handed on, never put down.
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
   * Constructs a semaphore with all its permits available.
   *
   * @param permits How many there are: a positive integer.
   *
   * @throws {TypeError} If `permits` is not a number.
   * @throws {RangeError} If `permits` is not a positive integer.
   */
  constructor(permits: number) {
    this.#permits = this.#available = new Checks("create semaphore").wholeNumber("permits", permits);
  }

  /** How many permits are available now. */
  get available(): number {
    return this.#available;
  }

  /** How many wait for a permit. */
  get waiting(): number {
    return this.#waiters.size;
  }

  /**
   * Takes a permit, waiting for one if necessary.
   *
   * @param options How to give up.
   * @returns The permit. Disposing of it gives it back; disposing of it again has no effect.
   *
   * @throws {unknown} The signal's reason, if it aborts before a permit is granted. The semaphore is then as if nobody had waited.
   * @throws {unknown} The reason given to {@linkcode Semaphore.refuseWaiting}, if that is called while this waits.
   * @throws {TypeError} If an option is unknown or of the wrong type.
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
   * Takes a permit if one is available and nobody waits.
   *
   * @returns The permit, or undefined. Disposing of it gives it back, once.
   */
  tryAcquire(): Disposable | undefined {
    return takePermit(this) ? new Permit(this) : undefined;
  }

  /**
   * Gives a permit back: it goes to whoever has waited longest, or becomes available. For callers that do not keep the permit object; a
   * permit that is given back in this way must not be disposed of as well.
   *
   * @throws {RangeError} If all permits are available already. The semaphore is unchanged then.
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
   * Refuses everyone who waits at this moment. Permits in use stay in use, and later callers wait as usual.
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
      // It may be among those being refused right now, one of which has led here.
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

/** Knows its semaphore only while in use, so that disposing of it twice gives back one permit. */
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
