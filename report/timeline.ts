import type { WorkerBar, WorkerRow } from "./data.ts";
import type { Stretches } from "./stretches.ts";

/** The most bars that are drawn one by one: more cannot be told apart, and make the page slow. */
const MOST_BARS = 2000;

/** A row of the timeline: for a worker and those that replaced it. */
interface Row {
  /** Its name: the number of the first of them. */
  name: number;
  worker: number;
  /** The worker that it replaced, whose last jobs may be reported after it is gone. */
  former: number | undefined;
  free: boolean;
  replaced: number;
  jobs: number;
  busy: number;
  /** When the last of them ended. */
  end: number;
  bars: WorkerBar[];
}

/** What workers did when: bar by bar unless there are too many, and how busy each was in each stretch of time. */
export class Timeline {
  #stretches: Stretches;
  #rows: Row[] = [];
  #bars = 0;

  constructor(stretches: Stretches) {
    this.#stretches = stretches;
  }

  /** Notes that a worker ran something. `busy` is how much of the time counts as work. */
  add(worker: number, bar: WorkerBar, busy: number = bar.end - bar.start): void {
    const index = this.#rowOf(worker);
    const row = this.#rows[index]!;
    row.jobs++;
    row.busy += busy;
    row.end = Math.max(row.end, bar.end);
    this.#stretches.spread(`row ${index}`, bar, busy);
    if (++this.#bars <= MOST_BARS) row.bars.push(bar);
    // They would not be drawn, so they need not be kept.
    else if (this.#bars === MOST_BARS + 1) { for (const each of this.#rows) each.bars = []; }
  }

  /** Notes a new worker: it gets the row of one that is gone, or a new row. */
  entered(worker: number): void {
    this.#rowOf(worker);
  }

  /** When a worker last finished something; 0 if it never has. */
  endOf(worker: number): number {
    return this.#rows.find((row) => row.worker === worker)?.end ?? 0;
  }

  /** Notes that a worker is gone; what it ran may still be reported. */
  left(worker: number): void {
    const row = this.#rows.find((row) => row.worker === worker);
    if (row !== undefined) row.free = true;
  }

  /** The rows of a run of this duration, whose workers run this many jobs at a time. */
  rows(wall: number, jobsPerWorker = 1): WorkerRow[] {
    const time = wall * jobsPerWorker;
    const drawn = this.#bars <= MOST_BARS;
    const rows = this.#rows.map(({ name, replaced, jobs, busy, bars }, index) => ({
      worker: name,
      replaced,
      jobs,
      utilisation: time === 0 ? 0 : Math.min(1, busy / time),
      bars: drawn ? bars : undefined,
      busy: this.#stretches.get(`row ${index}`, wall).map((each) => Math.min(1, each / this.#stretches.width / jobsPerWorker)),
    }));
    return rows.filter(({ jobs }) => jobs > 0).sort((a, b) => a.worker - b.worker);
  }

  #rowOf(worker: number): number {
    const known = this.#rows.findIndex((row) => row.worker === worker || row.former === worker);
    if (known >= 0) return known;
    const free = this.#rows.findIndex((row) => row.free);
    if (free < 0) {
      return this.#rows.push({ name: worker, worker, former: undefined, free: false, replaced: 0, jobs: 0, busy: 0, end: 0, bars: [] }) - 1;
    }
    const row = this.#rows[free]!;
    [row.former, row.worker, row.free] = [row.worker, worker, false];
    row.replaced++;
    return free;
  }
}
