import type { ErrorKind } from "./data.ts";

/** The most kinds that are told apart; further ones are combined. */
const MOST_KINDS = 100;
const OTHER_KINDS = "other kinds";

/** Counts errors by kind, with an example of each, in memory that does not grow with their number. */
export class Kinds {
  #kinds = new Map<string, ErrorKind>();

  /** Counts an error. */
  add(name: string, message: () => string): void {
    const kind = this.#kinds.has(name) || this.#kinds.size < MOST_KINDS ? name : OTHER_KINDS;
    const known = this.#kinds.get(kind);
    if (known !== undefined) known.count++;
    else this.#kinds.set(kind, { kind, count: 1, example: message() });
  }

  /** All kinds, the most frequent first. */
  get(): ErrorKind[] {
    return [...this.#kinds.values()].sort((a, b) => b.count - a.count);
  }
}
