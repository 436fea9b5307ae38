/** A place in a {@linkcode Queue}; whoever holds it can leave the queue at once, from anywhere in it. */
export interface Place<T> {
  readonly value: T;
  /** The neighbours; undefined once the place was left. */
  before: Place<T> | undefined;
  after: Place<T> | undefined;
}

/**
 * A first-in, first-out queue that can be left from the middle. It is a ring of places around a sentinel, so that joining, leaving and
 * serving take the same few steps however long it is: a million submitters under one `Promise.all` wait here, and any of them may be aborted.
 */
export class Queue<T> {
  #ends: Place<T>;
  #size = 0;

  constructor() {
    const ends = { value: undefined as T, before: undefined, after: undefined } as Place<T>;
    ends.before = ends.after = ends;
    this.#ends = ends;
  }

  get size(): number {
    return this.#size;
  }

  /** The value that is served next. */
  get first(): T | undefined {
    return this.#ends.after!.value;
  }

  /** Joins at the end. */
  push(value: T): Place<T> {
    return this.#insert(value, this.#ends.before!, this.#ends);
  }

  /** Joins in front of everybody: for what was served already and came back through no fault of its own. */
  unshift(value: T): Place<T> {
    return this.#insert(value, this.#ends, this.#ends.after!);
  }

  shift(): T | undefined {
    const place = this.#ends.after!;
    if (place === this.#ends) return undefined;
    this.remove(place);
    return place.value;
  }

  /** Leaves the queue; false if that happened before. */
  remove(place: Place<T>): boolean {
    if (place.before === undefined) return false;
    place.before.after = place.after;
    place.after!.before = place.before;
    place.before = place.after = undefined;
    this.#size--;
    return true;
  }

  /** Empties the queue; who was in it, in order. */
  clear(): T[] {
    const values: T[] = [];
    while (this.#size > 0) values.push(this.shift()!);
    return values;
  }

  #insert(value: T, before: Place<T>, after: Place<T>): Place<T> {
    const place: Place<T> = { value, before, after };
    before.after = after.before = place;
    this.#size++;
    return place;
  }
}
