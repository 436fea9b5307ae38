/** The figures of several rounds. */
export interface Summary {
  median: number;
  min: number;
  max: number;
  count: number;
}

/** @throws {RangeError} If there are no figures, or one is not finite. */
export function summarise(figures: readonly number[]): Summary {
  if (figures.length === 0) throw new RangeError("Cannot summarise figures as there must be one: current number is 0");
  const odd = figures.find((figure) => !Number.isFinite(figure));
  if (odd !== undefined || figures.includes(NaN)) {
    throw new RangeError(`Cannot summarise figures as they must be finite: current value is ${odd}`);
  }
  const sorted = figures.toSorted((a, b) => a - b);
  return { median: median(sorted), min: sorted[0]!, max: sorted.at(-1)!, count: sorted.length };
}

/** The middle one of sorted figures, or the mean of the middle two. */
export function median(sorted: readonly number[]): number {
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Three digits that count, with thousands set apart: 1,230,000, 45.6, 0.078. */
export function format(figure: number): string {
  if (figure === 0) return "0";
  const rounded = Number(figure.toPrecision(3));
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(rounded))));
  return rounded.toLocaleString("en-US", { minimumFractionDigits: Math.min(decimals, 6), maximumFractionDigits: Math.min(decimals, 6) });
}

/** A ratio with two digits, and one if it is very small: 12, 1.6, 0.05, 0.003. */
export function formatRatio(ratio: number): string {
  const rounded = Number(ratio.toPrecision(2));
  if (rounded < 0.01) return String(Number(ratio.toPrecision(1)));
  return rounded >= 10 ? rounded.toLocaleString("en-US") : rounded >= 1 ? rounded.toFixed(1) : rounded.toFixed(2);
}
