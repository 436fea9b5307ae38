/**
 * Jobs that run until the test ends them.
 *
 * @module
 */

import { ProcessPool, type ProcessPoolOptions } from "@procpool/process-pool";

/** A pool that runs tasks on this thread, one at a time, so that a test sees and controls everything. */
export function inlinePool(options: ProcessPoolOptions = {}): ProcessPool {
  return new ProcessPool({ backend: "inline", maxWorkers: 1, ...options });
}

/** A task for an inline pool that runs until the test decides how it ends. */
export class Held<R = string> {
  readonly #started = Promise.withResolvers<void>();
  readonly #end = Promise.withResolvers<R>();
  /** The task. */
  readonly task = (): Promise<R> => {
    this.#started.resolve();
    return this.#end.promise;
  };
  /** Resolves when the task runs. */
  readonly started = this.#started.promise;
  readonly finish = this.#end.resolve;
  readonly fail = this.#end.reject;
}
