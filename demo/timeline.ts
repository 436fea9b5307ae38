import { red } from "./colors.ts";

/** One job's time on a worker. */
export interface Bar {
  worker: number;
  job: string | number;
  /** In milliseconds since the start of the timeline. */
  start: number;
  end: number;
  failed: boolean;
}

/** How a timeline is drawn. */
export interface TimelineOptions {
  columns: number;
  color: boolean;
}

/** A timeline with less room than this beside its labels is useless, and left out. */
const FEWEST_CELLS = 10;

/** With fewer columns workers are labelled only with their number. */
const NARROW = 40;

/** The least distance between ticks: a label such as `1000 ms` and a space. */
const CELLS_PER_TICK = 8;

/** What one cell of a row shows. */
interface Cell {
  char: string;
  jobs: number;
  failed: boolean;
}

/**
 * Draws which worker ran which job when, in plain characters: a row for each worker, a scale below.
 *
 * ```
 * worker 1 .|0============|3xxx|5==========
 * worker 2 .|1===|2===================|4==.
 *          +------------------+------------
 *          0 s                0.5
 *          x failed
 * ```
 *
 * A bar begins with a stroke, and has the job's id where that fits; dots are time without a job. A cell that several short jobs share is a
 * `#`.
 */
export function drawTimeline(bars: readonly Bar[], { columns, color }: TimelineOptions): string[] {
  const byWorker = [...Map.groupBy(bars, ({ worker }) => worker)].sort(([a], [b]) => a - b);
  const labels = byWorker.map(([worker]) => columns < NARROW ? `${worker}` : `worker ${worker}`);
  const margin = Math.max(0, ...labels.map((label) => label.length)) + 1;
  const cells = columns - margin;
  const total = bars.reduce((latest, { end }) => Math.max(latest, end), 0);
  if (total === 0 || cells < FEWEST_CELLS) return [];

  const rows = byWorker.map(([, row]) => drawRow(row, { cells, total }));
  const lines = rows.map((row, i) => `${labels[i]!.padStart(margin - 1)} ${paint(row, color)}`);
  const below = drawScale(cells, total);
  const drawn = rows.flat();
  const legend: string[] = [];
  if (drawn.some(({ failed }) => failed)) legend.push("x failed");
  if (drawn.some(({ char }) => char === "#")) legend.push("# several jobs");
  const inOneLine = legend.join("   ");
  if (inOneLine.length > cells) below.push(...legend);
  else if (legend.length > 0) below.push(inOneLine);
  return [...lines, ...below.map((line) => " ".repeat(margin) + line)];
}

function drawRow(bars: readonly Bar[], { cells, total }: { cells: number; total: number }): Cell[] {
  const row = Array.from({ length: cells }, (): Cell => ({ char: ".", jobs: 0, failed: false }));
  const spans = placeBars(bars, { cells, total });
  // First, as placing an id requires knowing which cells belong only to its job.
  for (const { bar, from, to } of spans) {
    for (const cell of row.slice(from, to)) {
      cell.jobs++;
      cell.failed ||= bar.failed;
    }
  }
  for (const { bar, from, to } of spans) {
    const own = row.slice(from, to);
    const id = fittingId(bar.job, own.slice(1));
    for (const [i, cell] of own.entries()) {
      cell.char = i > 0 && i <= id.length ? id[i - 1]! : bar.failed && (i > 0 || own.length === 1) ? "x" : i === 0 ? "|" : "=";
    }
  }
  for (const cell of row) if (cell.jobs > 1) cell.char = cell.failed ? "x" : "#";
  return row;
}

/** The cells of each bar: at least one, and none in which only the next begins. */
function placeBars(bars: readonly Bar[], { cells, total }: { cells: number; total: number }): { bar: Bar; from: number; to: number }[] {
  const inOrder = bars.toSorted((a, b) => a.start - b.start);
  const begins = inOrder.map(({ start }) => Math.min(Math.floor(start / total * cells), cells - 1));
  return inOrder.map((bar, i) => {
    const from = begins[i]!;
    const next = inOrder[i + 1];
    const last = next !== undefined && next.start >= bar.end ? begins[i + 1]! : cells;
    return { bar, from, to: Math.max(from + 1, Math.min(Math.ceil(bar.end / total * cells), last)) };
  });
}

/** A job's id if it fits into these cells; part of it would look like another id. */
function fittingId(job: string | number, cells: readonly Cell[]): string {
  const id = String(job);
  const place = cells.slice(0, id.length);
  const fits = place.length === id.length && place.every(({ jobs }) => jobs === 1) && /^[\x21-\x7e]+$/.test(id);
  return fits ? id : "";
}

/** The row as text. */
function paint(row: readonly Cell[], color: boolean): string {
  const text = row.map(({ char }) => char).join("");
  if (!color) return text;
  let painted = "";
  for (let i = 0; i < text.length;) {
    const from = i;
    const { failed } = row[from]!;
    while (i < text.length && row[i]!.failed === failed) i++;
    const part = text.slice(from, i);
    painted += failed ? red(part) : part;
  }
  return painted;
}

/** An axis with ticks at round times, and its labels. */
function drawScale(cells: number, total: number): string[] {
  const step = roundStep(CELLS_PER_TICK / cells * total);
  const inSeconds = step >= 100;
  let axis = "";
  let labels = "";
  for (let i = 0;; i++) {
    const at = Math.floor(i * step / total * cells);
    if (at >= cells) break;
    axis = axis.padEnd(at, "-") + "+";
    const time = inSeconds ? (i * step / 1000).toFixed(step < 1000 ? 1 : 0) : `${i * step}`;
    const label = i > 0 ? time : inSeconds ? "0 s" : "0 ms";
    if (at + label.length <= cells) labels = labels.padEnd(at) + label;
  }
  return [axis.padEnd(cells, "-"), labels];
}

/** The next of 1, 2, 5, 10, 20, ... milliseconds. */
function roundStep(least: number): number {
  for (let power = 1;; power *= 10) {
    for (const digit of [1, 2, 5]) if (digit * power >= least) return digit * power;
  }
}
