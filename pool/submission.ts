import { connectFuture, type Future, type Job } from "../job.ts";
import type { Waiter } from "../semaphore.ts";

/** A submission that waits at the gate: a million of them may wait under one `Promise.all`, so each is no more than this. */
export class Submission implements Waiter {
  #job: Job<never[], unknown>;
  #admit: (job: Job<never[], unknown>, permit: Disposable) => Future<unknown>;
  #wantsResult: boolean;
  #resolve: (value: unknown) => void;
  #reject: (reason: unknown) => void;

  /**
   * @param job The job.
   * @param admit Admits it.
   * @param wantsResult Whether the promise is one of the result; else it is one of the future.
   * @param resolve Resolves the promise.
   * @param reject Rejects it.
   */
  constructor(
    job: Job<never[], unknown>,
    admit: (job: Job<never[], unknown>, permit: Disposable) => Future<unknown>,
    wantsResult: boolean,
    resolve: (value: unknown) => void,
    reject: (reason: unknown) => void,
  ) {
    this.#job = job;
    this.#admit = admit;
    this.#wantsResult = wantsResult;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  grant(permit: Disposable): void {
    try {
      const future = this.#admit(this.#job, permit);
      if (this.#wantsResult) connectFuture(future, this.#resolve, this.#reject);
      else this.#resolve(future);
    } catch (error) {
      this.#reject(error);
    }
  }

  refuse(reason: unknown): void {
    this.#reject(reason);
  }
}
