/** A part of one input that is done: its bytes, and how many lines begin in it. */
export interface Stretch {
  start: number;
  end: number;
  lines: number;
}

/** Which parts of one input are done. Parts never overlap, and those that touch are one unless their lines have to be told apart. */
export class Coverage {
  #byStart = new Map<number, Stretch>();
  #merge: boolean;
  /** What is done from the begin without a gap. */
  #first: Stretch = { start: 0, end: 0, lines: 0 };

  /** @param merge Whether parts are given in order and may become one. */
  constructor({ merge }: { merge: boolean }) {
    this.#merge = merge;
  }

  add(stretch: Stretch): void {
    this.#byStart.set(stretch.start, stretch);
    for (
      let next = this.#byStart.get(this.#first.end);
      next !== undefined && next.end > next.start;
      next = this.#byStart.get(this.#first.end)
    ) {
      this.#first.end = next.end;
      this.#first.lines += next.lines;
      if (this.#merge) this.#byStart.delete(next.start);
    }
  }

  /** What is done from the begin without a gap. */
  get first(): Readonly<Stretch> {
    return this.#first;
  }

  /** All that is done, in order. */
  stretches(): Stretch[] {
    const all = [...this.#byStart.values()];
    if (this.#merge && this.#first.end > 0) all.push(this.#first);
    return all.sort((a, b) => a.start - b.start);
  }

  /** What is not done, up to `size`. */
  gaps(size: number): { start: number; end: number }[] {
    const gaps: { start: number; end: number }[] = [];
    let at = 0;
    for (const { start, end } of this.stretches()) {
      if (start > at) gaps.push({ start: at, end: start });
      at = Math.max(at, end);
    }
    if (size > at) gaps.push({ start: at, end: size });
    return gaps;
  }

  /** How many lines begin before each part. */
  linesBefore(): Map<number, number> {
    const before = new Map<number, number>();
    let lines = 0;
    for (const stretch of this.stretches()) {
      before.set(stretch.start, lines);
      lines += stretch.lines;
    }
    return before;
  }
}
