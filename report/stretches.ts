/** The most stretches of time into which a run is cut (at least half as many once it is long): as many as a narrow chart can show. */
const MOST_STRETCHES = 200;

/** The length of the first stretches, in ms. */
const FIRST_WIDTH = 5;

/** Amounts over time, in stretches whose width doubles whenever there are too many: memory stays the same, however long the run. */
export class Stretches {
  /** How long a stretch is, in milliseconds. */
  width = FIRST_WIDTH;
  #series = new Map<string, Float64Array>();

  /** Adds an amount at a moment. */
  add(name: string, at: number, amount: number): void {
    this.#fit(at);
    this.#of(name)[Math.floor(at / this.width)]! += amount;
  }

  /** Spreads an amount, by default the length of the span, over the stretches that a span of time covers. */
  spread(name: string, { start, end }: { start: number; end: number }, amount: number = end - start): void {
    if (end <= start) return this.add(name, end, amount);
    this.#fit(end);
    const values = this.#of(name);
    const density = amount / (end - start);
    for (let i = Math.floor(start / this.width); i * this.width < end; i++) {
      values[i]! += (Math.min(end, (i + 1) * this.width) - Math.max(start, i * this.width)) * density;
    }
  }

  /** All stretches of a run. */
  get(name: string, wall: number): number[] {
    return [...this.#of(name).slice(0, Math.max(1, Math.min(MOST_STRETCHES, Math.ceil(wall / this.width))))];
  }

  #of(name: string): Float64Array {
    let values = this.#series.get(name);
    if (values === undefined) this.#series.set(name, values = new Float64Array(MOST_STRETCHES));
    return values;
  }

  #fit(at: number): void {
    while (at >= this.width * MOST_STRETCHES) {
      this.width *= 2;
      for (const values of this.#series.values()) {
        for (let i = 0; i < MOST_STRETCHES; i++) {
          values[i] = 2 * i + 1 < MOST_STRETCHES ? values[2 * i]! + values[2 * i + 1]! : 0;
        }
      }
    }
  }
}
