/** A place in a {@linkcode Queue}; whoever holds it can leave the queue from anywhere in constant time. */
export interface Place<T> {
  readonly value: T;
  /** The neighbours; undefined while it is in no queue. */
  before: Place<unknown> | undefined;
  after: Place<unknown> | undefined;
}

/**
 * A first-in, first-out queue that can be left from the middle. It is a doubly linked ring with a sentinel, so joining, leaving and serving
 * take constant time: a million submitters under one `Promise.all` wait here, and any of them may be aborted.
 */
export class Queue<T> {
  #ends: Place<T>;
  #size = 0;

  constructor() {
    const ends: Place<T> = placeOf(undefined as T);
    ends.before = ends.after = ends;
    this.#ends = ends;
  }

  get size(): number {
    return this.#size;
  }

  /** The value that comes next. */
  get first(): T | undefined {
    return this.#ends.after!.value as T;
  }

  /** Joins at the end. */
  push(value: T): Place<T> {
    return this.join(placeOf(value));
  }

  /** Joins at the end with the caller's place, which must be in no queue. */
  join(place: Place<T>): Place<T> {
    return this.#insert(place, this.#ends.before!, this.#ends);
  }

  /** Joins at the front with the caller's place: for what was served already and came back through no fault of its own. */
  joinFront(place: Place<T>): Place<T> {
    return this.#insert(place, this.#ends, this.#ends.after!);
  }

  shift(): T | undefined {
    const place = this.#ends.after as Place<T>;
    if (place === this.#ends) return undefined;
    this.remove(place);
    return place.value;
  }

  /** Leaves the queue; false if the place has left already. */
  remove(place: Place<T>): boolean {
    const { before, after } = place;
    if (before === undefined) return false;
    before.after = after;
    after!.before = before;
    place.before = place.after = undefined;
    this.#size--;
    return true;
  }

  /** Empties the queue and returns its values in order. */
  clear(): T[] {
    const values: T[] = [];
    while (this.#size > 0) values.push(this.shift()!);
    return values;
  }

  #insert(place: Place<T>, before: Place<unknown>, after: Place<unknown>): Place<T> {
    place.before = before;
    place.after = after;
    before.after = after.before = place;
    this.#size++;
    return place;
  }
}

/** A place that is in no queue yet. */
export function placeOf<T>(value: T): Place<T> {
  return { value, before: undefined, after: undefined };
}
