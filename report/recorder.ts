import { Times } from "../pool/measurement.ts";
import type { ObservedJob, ObservedPool, PoolObserver } from "../pool/observation.ts";
import type { Distribution, ErrorKind, ReportData, SlowJob, WorkerBar } from "./data.ts";

/** So many jobs are drawn one by one at the most: more cannot be told apart, and make the page slow. */
const MOST_BARS = 2000;

/** A run is cut into at most so many stretches of time, and at least half as many once it is long: as many as a narrow chart can show. */
const MOST_STRETCHES = 200;

/** The first stretches are so long, in ms. */
const FIRST_WIDTH = 5;

/** Bins of a histogram: so many for each power of ten. */
const BINS_PER_DECADE = 5;

const MOST_SLOW = 10;

/** Kinds of errors that are told apart; more are put together. */
const MOST_KINDS = 20;
const OTHER_KINDS = "other kinds";

/** Amounts over time, in stretches whose width doubles whenever there are too many: memory stays the same, however long the run. */
class Stretches {
  width = FIRST_WIDTH;
  #series = new Map<string, Float64Array>();

  /** Adds an amount at a moment. */
  add(name: string, at: number, amount: number): void {
    this.#fit(at);
    this.#of(name)[Math.floor(at / this.width)]! += amount;
  }

  /** Adds a span of time to the stretches that it lies in. */
  addSpan(name: string, start: number, end: number): void {
    this.#fit(end);
    const values = this.#of(name);
    for (let i = Math.floor(start / this.width); i * this.width < end; i++) {
      values[i]! += Math.min(end, (i + 1) * this.width) - Math.max(start, i * this.width);
    }
  }

  /** As many as the run has. */
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

/** Times with their quantiles and a histogram. */
class Distributed {
  #times = new Times();
  #bins = new Map<number, number>();

  record(time: number): void {
    this.#times.record(time);
    // Less than a microsecond is nothing.
    const bin = Math.floor(Math.log10(Math.max(time, 1e-3)) * BINS_PER_DECADE);
    this.#bins.set(bin, (this.#bins.get(bin) ?? 0) + 1);
  }

  get(): Distribution {
    const bins: Distribution["bins"] = [];
    const [first, last] = [Math.min(...this.#bins.keys()), Math.max(...this.#bins.keys())];
    for (let bin = first; bin <= last; bin++) {
      bins.push({ from: 10 ** (bin / BINS_PER_DECADE), to: 10 ** ((bin + 1) / BINS_PER_DECADE), count: this.#bins.get(bin) ?? 0 });
    }
    return { quantiles: this.#times.quantiles(), bins };
  }
}

interface Worker {
  jobs: number;
  busy: number;
  bars: WorkerBar[];
}

/** An observer that gathers what a report shows, in memory that does not grow with the number of jobs. */
export class Recorder implements PoolObserver {
  #begin = 0;
  #begun = new Date();
  #jobsPerWorker = 1;
  #wall = 0;
  #stretches = new Stretches();
  #waiting = new Distributed();
  #running = new Distributed();
  #workers = new Map<number, Worker>();
  #bars = 0;
  #errors = new Map<string, ErrorKind>();
  #slowest: SlowJob[] = [];

  opened({ opened, jobsPerWorker }: ObservedPool): void {
    this.#begin = opened;
    this.#begun = new Date();
    this.#jobsPerWorker = jobsPerWorker;
  }

  retried(job: ObservedJob): void {
    this.#ran(job, "retried");
  }

  settled(job: ObservedJob): void {
    this.#ran(job, job.state!);
    const at = job.settled! - this.#begin;
    this.#wall = Math.max(this.#wall, at);
    if (job.state === "cancelled") return;
    if (job.failed > 0) this.#stretches.add("failed", at, job.failed);
    this.#stretches.add("finished", at, job.items - job.failed);
    // What the items of a chunk failed with, only the map's consumer knows.
    if (job.items === 1 && job.state === "failed") this.failed(job.error);
  }

  /** Counts the error of an item of a map: the pool tells only how many there were. */
  failed(error: unknown): void {
    const name = error instanceof Error ? error.name : "a value that is no error";
    const kind = this.#errors.has(name) || this.#errors.size < MOST_KINDS ? name : OTHER_KINDS;
    const known = this.#errors.get(kind);
    if (known !== undefined) known.count++;
    else this.#errors.set(kind, { kind, count: 1, example: error instanceof Error ? error.message : String(error) });
  }

  /** What is known by now; what the run was, and how it ended, says whoever ran it. */
  data({ title, counts, settings }: Pick<ReportData, "title" | "counts" | "settings">): ReportData {
    const { width } = this.#stretches;
    const wall = this.#wall;
    const drawn = this.#bars <= MOST_BARS;
    const time = wall * this.#jobsPerWorker;
    const workers = [...this.#workers].sort(([a], [b]) => a - b).map(([worker, { jobs, busy, bars }]) => ({
      worker,
      jobs,
      utilisation: time === 0 ? 0 : Math.min(1, busy / time),
      bars: drawn ? bars : undefined,
      busy: this.#stretches.get(`worker ${worker}`, wall).map((each) => Math.min(1, each / width / this.#jobsPerWorker)),
    }));
    return {
      title,
      begun: this.#begun.toISOString(),
      wall,
      counts: { ...counts },
      settings: { ...settings },
      throughput: { width, finished: this.#stretches.get("finished", wall), failed: this.#stretches.get("failed", wall) },
      waiting: this.#waiting.get(),
      running: this.#running.get(),
      workers,
      errors: [...this.#errors.values()].sort((a, b) => b.count - a.count),
      slowest: [...this.#slowest],
    };
  }

  #ran({ id, task, items, submitted, started, ended, runs, worker: number }: ObservedJob, outcome: string): void {
    if (started === undefined) return;
    const [start, end] = [started - this.#begin, ended! - this.#begin];
    const [waited, ran] = [started - submitted, end - start];
    if (runs === 1) this.#waiting.record(waited);
    this.#running.record(ran / items);
    let worker = this.#workers.get(number!);
    if (worker === undefined) this.#workers.set(number!, worker = { jobs: 0, busy: 0, bars: [] });
    worker.jobs++;
    worker.busy += ran;
    this.#wall = Math.max(this.#wall, end);
    this.#stretches.addSpan(`worker ${number}`, start, end);
    if (++this.#bars <= MOST_BARS) worker.bars.push({ id, task, start, end, failed: outcome !== "finished" });
    const least = this.#slowest.at(-1);
    if (this.#slowest.length === MOST_SLOW && ran <= least!.ran) return;
    this.#slowest.push({ id, task, items, worker: number!, waited, ran, outcome });
    this.#slowest.sort((a, b) => b.ran - a.ran);
    this.#slowest.length = Math.min(this.#slowest.length, MOST_SLOW);
  }
}
