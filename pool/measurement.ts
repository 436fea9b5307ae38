import type { Clock } from "./clock.ts";
import type { WorkerInspection } from "./inspection.ts";
import type { ObservedJob, ObservedPool, PoolObserver, WorkerChange } from "./observation.ts";

/** Quantiles of times in milliseconds, to three significant digits. All are 0 if there are no times. */
export interface TimeQuantiles {
  /** How many times there are. */
  count: number;
  /** Half of the times were at most this. */
  p50: number;
  /** 90 percent of the times were at most this. */
  p90: number;
  /** 95 percent of the times were at most this. */
  p95: number;
  /** 99 percent of the times were at most this. */
  p99: number;
  /** The longest. */
  max: number;
}

/** What a pool with `measure: true` has measured since it was made. */
export interface PoolMeasurements {
  /** How long jobs waited, at the gate and in the queue, until a worker started them. A chunk of a map counts once. */
  waiting: TimeQuantiles;
  /** How long jobs ran. A chunk of a map counts once, with the mean of its items. Runs that were followed by a retry count as well. */
  running: TimeQuantiles;
  /** How many jobs, or items of maps, settled per second, from the first submission to the latest settlement. */
  throughput: number;
  /** The present workers. */
  workers: WorkerMeasurements[];
}

/** What was measured of one worker. */
export interface WorkerMeasurements {
  /** Its number. */
  worker: number;
  /** How many jobs, or chunks of maps, it has run. */
  jobs: number;
  /** The share of its time since it was ready in which it ran jobs, from 0 to 1; with several jobs at a time their mean. */
  utilisation: number;
}

/** The part of a histogram of `node:perf_hooks` that we use: an HdrHistogram, which only takes integers. */
export interface Histogram {
  readonly count: number;
  readonly max: number;
  record(value: number): void;
  percentile(percentile: number): number;
  add(other: Histogram): void;
}

declare const process: {
  getBuiltinModule(name: "node:perf_hooks"): {
    createHistogram(options: { lowest: number; highest: number; figures: number }): Histogram;
  };
};

/** How many times are gathered before they are recorded. Fewer, and the histogram is called more often; more only take memory. */
const GATHERED = 4096;

/** Times are recorded in nanoseconds, up to a day: with three significant digits that takes 300 KB. */
const PER_MS = 1e6, LONGEST = 24 * 60 * 60 * 1000 * PER_MS;

/** Gathers many times in constant memory, and computes their quantiles. */
export class Times {
  #gathered = new Float64Array(GATHERED);
  #length = 0;
  #histogram: Histogram | undefined;
  #max = 0;

  /** Adds a time in milliseconds. */
  record(time: number): void {
    if (time > this.#max) this.#max = time;
    this.#gathered[this.#length++] = time;
    if (this.#length === GATHERED) this.#flush();
  }

  /** The quantiles of all times so far. */
  quantiles(): TimeQuantiles {
    const histogram = this.#flush();
    const { count } = histogram;
    if (count === 0) return { count, p50: 0, p90: 0, p95: 0, p99: 0, max: 0 };
    const [p50, p90, p95, p99] = [50, 90, 95, 99].map((percentile) => Math.min(histogram.percentile(percentile) / PER_MS, this.#max));
    return { count, p50: p50!, p90: p90!, p95: p95!, p99: p99!, max: this.#max };
  }

  /** Adds all times of another. */
  merge(other: Times): void {
    this.#flush().add(other.#flush());
    this.#max = Math.max(this.#max, other.#max);
  }

  #flush(): Histogram {
    // Not imported: node:perf_hooks takes a tenth of a second to load, which only its users should pay for.
    this.#histogram ??= process.getBuiltinModule("node:perf_hooks").createHistogram({ lowest: 1, highest: LONGEST, figures: 3 });
    for (let i = 0; i < this.#length; i++) {
      this.#histogram.record(Math.min(Math.max(1, Math.round(this.#gathered[i]! * PER_MS)), LONGEST));
    }
    this.#length = 0;
    return this.#histogram;
  }
}

/** What was noted of one worker. */
interface NotedWorker {
  /** On the pool's clock, in ms; undefined until it is ready. */
  readyAt: number | undefined;
  /** For how many ms it has run jobs. */
  busy: number;
  jobs: number;
}

/** The observer behind `measure: true`. */
export class Measurement implements PoolObserver {
  #clock: Clock;
  #waiting = new Times();
  #running = new Times();
  #workers = new Map<number, NotedWorker>();
  #jobsPerWorker = 1;
  /** When the first job was submitted. */
  #first: number | undefined;
  /** When the latest settled. */
  #last = 0;
  /** How many jobs have settled; each item of a map counts. */
  #settled = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  opened({ jobsPerWorker }: ObservedPool): void {
    this.#jobsPerWorker = jobsPerWorker;
  }

  submitted({ submitted }: ObservedJob): void {
    this.#first ??= submitted;
  }

  retried(job: ObservedJob): void {
    this.#ran(job);
  }

  settled(job: ObservedJob): void {
    this.#ran(job);
    this.#settled += job.items;
    this.#last = job.settled!;
  }

  worker(id: number, change: WorkerChange): void {
    if (change === "starting") this.#workers.set(id, { readyAt: undefined, busy: 0, jobs: 0 });
    else if (change === "ready") this.#workers.get(id)!.readyAt = this.#clock.now();
    else this.#workers.delete(id);
  }

  #ran({ started, ended, submitted, runs, items, worker }: ObservedJob): void {
    if (started === undefined) return;
    const time = ended! - started;
    if (runs === 1) this.#waiting.record(started - submitted);
    this.#running.record(time / items);
    const noted = this.#workers.get(worker!);
    if (noted === undefined) return;
    noted.busy += time;
    noted.jobs++;
  }

  /** What was measured, including the jobs that run at this moment. */
  read(workers: readonly WorkerInspection[]): PoolMeasurements {
    const elapsed = this.#last - (this.#first ?? 0);
    const now = this.#clock.now();
    return {
      waiting: this.#waiting.quantiles(),
      running: this.#running.quantiles(),
      throughput: this.#settled === 0 ? 0 : this.#settled / Math.max(elapsed, 1e-3) * 1000,
      workers: workers.map(({ worker, jobs }) => {
        // An observer may ask before the start of a worker is noted here.
        const { readyAt = now, busy = 0, jobs: done = 0 } = this.#workers.get(worker) ?? {};
        const running = jobs.reduce((sum, job) => sum + job.for, 0);
        const time = (now - readyAt) * this.#jobsPerWorker;
        return { worker, jobs: done, utilisation: time === 0 ? 0 : Math.min(1, (busy + running) / time) };
      }),
    };
  }
}
