/**
 * Figures formatted for people: the same on a page as in a summary on a terminal.
 *
 * @module
 */

/** A number and its unit. */
export interface Figure {
  value: number;
  /** `"share"` is from 0 to 1. */
  unit: "count" | "ms" | "per second" | "share";
}

/** A figure as text. */
export function text({ value, unit }: Figure): string {
  switch (unit) {
    case "count":
      return count(value);
    case "ms":
      return duration(value);
    case "per second":
      return rounded(value);
    case "share":
      return percent(value);
  }
}

/** An integer with thousands separators. */
export function count(number: number): string {
  return Math.round(number).toLocaleString("en");
}

/** How many things there are: a noun whose plural takes an s. */
export function counted(number: number, noun: string): string {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** To three significant digits, and to no fewer than there are before the point. */
export function rounded(number: number): string {
  return number >= 99.95 ? count(number) : String(Number(number.toPrecision(3)));
}

/** A share, from 0 to 1. */
export function percent(part: number): string {
  return `${Math.round(part * 100)} %`;
}

const UNITS = [["ns", 1e-6], ["µs", 1e-3], ["ms", 1]] as const;

/** A duration in milliseconds, in a suitable unit, to three significant digits or to the second. */
export function duration(ms: number): string {
  if (ms === 0) return "0";
  const [unit, size] = UNITS.find(([, size]) => Math.round(ms / size) < 1000) ?? ["s", 1000];
  const seconds = Math.round(ms / 1000);
  if (unit !== "s" || ms < 99_950) return `${rounded(ms / size)} ${unit}`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return `${count(Math.floor(minutes / 60))} h ${minutes % 60} min`;
}

/** The first of some names, and how many more there are. */
export function listed(names: string[], most: number): string {
  const more = names.length - most;
  return names.slice(0, most).join(", ") + (more > 0 ? ` and ${count(more)} more` : "");
}
