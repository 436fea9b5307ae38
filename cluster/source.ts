/** How long an automatic chunk waits for a slow input, in ms: longer delays results, shorter sends smaller chunks. */
export const CHUNK_PATIENCE = 20;

/** Instead of an item: waiting for it was given up. */
export const LATE = Symbol("late");

/** For how long an item is waited for. */
export interface Patience {
  over: Promise<typeof LATE>;
  end(): void;
}

/** Begins to wait for {@linkcode CHUNK_PATIENCE}. */
export function startPatience(): Patience {
  const { promise, resolve } = Promise.withResolvers<typeof LATE>();
  const timer = setTimeout(() => resolve(LATE), CHUNK_PATIENCE);
  return { over: promise, end: () => clearTimeout(timer) };
}

/** An input of a map that may be slow: after giving up waiting, the item is there the next time. */
export class Source {
  #iterator: AsyncIterator<unknown> | Iterator<unknown>;
  #report: (error: unknown) => void;
  /** The next item: pending, or given when nobody waited for it any more. */
  #pulled: Promise<IteratorResult<unknown>> | IteratorResult<unknown> | undefined;
  #ended = false;

  constructor(iterator: AsyncIterator<unknown> | Iterator<unknown>, report: (error: unknown) => void) {
    this.#iterator = iterator;
    this.#report = report;
  }

  async pull(patience: Patience | undefined): Promise<IteratorResult<unknown> | typeof LATE> {
    try {
      if (this.#pulled === undefined) {
        const result = this.#iterator.next();
        if (!("then" in result)) return this.#took(result);
        this.#pulled = Promise.resolve(result);
      }
      const pulled = this.#pulled;
      const result = await (patience === undefined ? pulled : Promise.race([pulled, patience.over]));
      if (result !== LATE) return this.#took(result);
      if (pulled instanceof Promise) this.#keepWhenGiven(pulled);
      return LATE;
    } catch (error) {
      this.#ended = true;
      throw error;
    }
  }

  /** Closes the input. If an item is pending, the input ends after that, and this does not wait for it. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    const pulled = this.#pulled instanceof Promise ? this.#pulled : undefined;
    pulled?.catch((error) => this.#report(error));
    const closed = Promise.resolve(this.#iterator.return?.());
    if (pulled === undefined) await closed;
    else closed.catch((error) => this.#report(error));
  }

  /** Replaces a pending item by itself once it is given: it may be long before there is room for it. */
  #keepWhenGiven(pulled: Promise<IteratorResult<unknown>>): void {
    const keep = (result: IteratorResult<unknown>): void => {
      if (this.#pulled === pulled) this.#pulled = result;
    };
    // An error is handled by whoever takes the item, or reported by whoever closes the input.
    pulled.then(keep, () => {});
  }

  #took(result: IteratorResult<unknown>): IteratorResult<unknown> {
    this.#pulled = undefined;
    if (result.done) this.#ended = true;
    return result;
  }
}
