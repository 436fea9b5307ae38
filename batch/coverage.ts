/** A finished part of one input: its bytes, and how many lines begin in it. */
export interface Stretch {
  start: number;
  end: number;
  lines: number;
  /** Whether the number of lines before it has to be known at the end. */
  numbered?: boolean | undefined;
}

/**
 * Which parts of one input are done, in any order. Parts never overlap. Adjacent parts are merged, so memory only grows with the gaps, and
 * with the parts to be numbered: by 16 bytes for each of those, once there is no gap before it.
 */
export class Coverage {
  /** What is done from the beginning without a gap. */
  #first = { start: 0, end: 0, lines: 0 };
  /** Finished parts after a gap, by where they begin and by where they end. */
  #byStart = new Map<number, Stretch>();
  #byEnd = new Map<number, Stretch>();
  /** Where the parts to be numbered begin that have no gap before them, in order, and how many lines come before each. */
  #starts: number[] = [];
  #lines: number[] = [];

  add({ start, end, lines, numbered }: Stretch): void {
    // The first row of an empty file.
    if (start === end) return;
    this.#insert({ start, end, lines, numbered });
    for (let next = this.#byStart.get(this.#first.end); next !== undefined; next = this.#byStart.get(this.#first.end)) {
      this.#remove(next);
      if (next.numbered) {
        this.#starts.push(next.start);
        this.#lines.push(this.#first.lines);
      }
      this.#first.end = next.end;
      this.#first.lines += next.lines;
    }
  }

  /** What is done from the beginning without a gap. */
  get first(): Readonly<{ start: number; end: number; lines: number }> {
    return this.#first;
  }

  /** Up to where anything is done, even if there are gaps before. */
  get end(): number {
    return this.#byEnd.keys().reduce((most, end) => Math.max(most, end), this.#first.end);
  }

  /** How many bytes are done. */
  get bytes(): number {
    return this.#byStart.values().reduce((sum, { start, end }) => sum + end - start, this.#first.end);
  }

  /** The number of pieces that it keeps, with which its memory grows. */
  get pieces(): number {
    return this.#byStart.size + this.#starts.length;
  }

  /** The gaps, up to `size`. */
  gaps(size: number): { start: number; end: number }[] {
    const gaps: { start: number; end: number }[] = [];
    let at = this.#first.end;
    for (const { start, end } of [...this.#byStart.values()].sort((a, b) => a.start - b.start)) {
      if (start > at) gaps.push({ start: at, end: start });
      at = end;
    }
    if (size > at) gaps.push({ start: at, end: size });
    return gaps;
  }

  /** Whether any part was to be numbered. */
  get numbered(): boolean {
    return this.#starts.length > 0 || this.#byStart.values().some(({ numbered }) => numbered);
  }

  /** How many lines come before a part that was to be numbered; undefined if it was not, or if there is a gap before it. */
  linesBefore(start: number): number | undefined {
    let [low, high] = [0, this.#starts.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#starts[middle]! < start) low = middle + 1;
      else high = middle;
    }
    return this.#starts[low] === start ? this.#lines[low] : undefined;
  }

  /** Adds a part to those after a gap. One to be numbered keeps its start; all others are merged with their neighbours. */
  #insert(stretch: Stretch): void {
    const before = this.#byEnd.get(stretch.start);
    if (before !== undefined && !stretch.numbered) {
      this.#remove(before);
      stretch = { ...before, end: stretch.end, lines: before.lines + stretch.lines };
    }
    const after = this.#byStart.get(stretch.end);
    if (after !== undefined && !after.numbered) {
      this.#remove(after);
      stretch = { ...stretch, end: after.end, lines: stretch.lines + after.lines };
    }
    this.#byStart.set(stretch.start, stretch);
    this.#byEnd.set(stretch.end, stretch);
  }

  #remove({ start, end }: Stretch): void {
    this.#byStart.delete(start);
    this.#byEnd.delete(end);
  }
}
