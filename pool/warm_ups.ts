/** Those who wait until all workers are ready. */
export class WarmUps {
  #now: () => number;
  #waiting: PromiseWithResolvers<void>[] = [];
  /** When the first of them began. */
  #since = 0;

  /** @param now The pool's clock, in milliseconds. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Whether anybody waits. */
  get isOn(): boolean {
    return this.#waiting.length > 0;
  }

  /** For how long somebody has waited, in ms. */
  get time(): number {
    return this.isOn ? this.#now() - this.#since : 0;
  }

  join(): Promise<void> {
    if (!this.isOn) this.#since = this.#now();
    const ready = Promise.withResolvers<void>();
    this.#waiting.push(ready);
    return ready.promise;
  }

  /** All workers are ready. */
  resolve(): void {
    for (const { resolve } of this.#waiting.splice(0)) resolve();
  }

  /** They will not be. */
  reject(error: unknown): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}
