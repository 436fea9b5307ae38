/** Work that nobody awaits, except who has to know that all of it is done. What fails is reported. */
export class Errands {
  #report: (error: Error) => void;
  #open = new Set<Promise<void>>();

  constructor(report: (error: Error) => void) {
    this.#report = report;
  }

  /** How many are not done. */
  get size(): number {
    return this.#open.size;
  }

  begin(work: () => Promise<void>): void {
    const errand = work().catch(this.#report).finally(() => this.#open.delete(errand));
    this.#open.add(errand);
  }

  /** Resolves when all are done, also those that others begin meanwhile. */
  async allDone(): Promise<void> {
    while (this.#open.size > 0) await Promise.all(this.#open);
  }
}
