import { textOf } from "../pool/checks.ts";
import { Times } from "../pool/measurement.ts";
import type { ObservedJob, ObservedPool, PoolObserver, WorkerChange } from "../pool/observation.ts";
import type { Distribution, ReportData } from "./data.ts";
import { Kinds } from "./kinds.ts";
import { Stretches } from "./stretches.ts";
import { Timeline } from "./timeline.ts";

/** Bins of a histogram per power of ten. Fewer hide where times cluster; more are too narrow for few jobs. */
const BINS_PER_DECADE = 5;

/** How many of the slowest jobs are shown: as many as anyone looks at. */
const MOST_SLOW = 10;

/** A job that ran for long; for a chunk of a map, the id is the index of its first item. */
interface SlowJob {
  id: string | number;
  task: string;
  items: number;
  worker: number;
  waited: number;
  ran: number;
  outcome: string;
}

/** Times with their quantiles and a histogram. */
class Distributed {
  #times = new Times();
  #bins = new Map<number, number>();

  record(time: number): void {
    this.#times.record(time);
    // Less than a microsecond counts as zero.
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

/** What a run was, and how it ended, as known to the code that ran it. */
export interface Ran extends Pick<ReportData, "title" | "settings"> {
  /** How many jobs there were by outcome; each item of a map counts as one. */
  counts: { finished: number; failed: number; cancelled: number };
  /** How long it took, in milliseconds. */
  wall: number;
}

/** An observer that gathers what a report shows, in memory that does not grow with the number of jobs. */
export class Recorder implements PoolObserver {
  #begin = 0;
  #begun = new Date();
  #jobsPerWorker = 1;
  #wall = 0;
  #stretches = new Stretches();
  #timeline = new Timeline(this.#stretches);
  #waiting = new Distributed();
  #running = new Distributed();
  #errors = new Kinds();
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
    if (job.failed > 0) this.#stretches.add("failed", at, job.failed);
    if (job.finished > 0) this.#stretches.add("finished", at, job.finished);
    // Only the map's consumer knows the errors of a chunk's items.
    if (job.items === 1 && job.state === "failed") this.failed(job.error);
  }

  worker(worker: number, change: WorkerChange): void {
    if (change === "starting") this.#timeline.entered(worker);
    else if (change !== "ready") this.#timeline.left(worker);
  }

  /** Counts the error of an item of a map: the pool only reports how many there were. */
  failed(error: unknown): void {
    if (error instanceof Error) this.#errors.add(error.name, () => error.message);
    else this.#errors.add("a value that is no error", () => textOf(error));
  }

  /** What is known by now. */
  data({ title, counts: { finished, failed, cancelled }, settings, wall: took }: Ran): ReportData {
    const perSecond = took === 0 ? 0 : (finished + failed) / took * 1000;
    // Jobs that failed without having run may have settled later than all others ended.
    const wall = Math.max(took, this.#wall);
    return {
      title,
      begun: this.#begun.toISOString(),
      wall,
      notes: [],
      words: { item: "job", bar: "job", about: "" },
      figures: {
        jobs: { value: finished + failed + cancelled, unit: "count" },
        finished: { value: finished, unit: "count" },
        failed: { value: failed, unit: "count" },
        cancelled: { value: cancelled, unit: "count" },
        "wall time": { value: took, unit: "ms" },
        "jobs per second": { value: perSecond, unit: "per second" },
      },
      settings: { ...settings },
      throughput: {
        finished: this.#stretches.get("finished", wall),
        failed: this.#stretches.get("failed", wall),
        width: this.#stretches.width,
      },
      latency: [
        { name: "Waiting", what: "from submission to start", distribution: this.#waiting.get() },
        { name: "Running", what: "from start to end", distribution: this.#running.get() },
      ],
      workers: this.#timeline.rows(wall, this.#jobsPerWorker),
      errors: this.#errors.get(),
      slowest: {
        head: ["job", "task", "ran", "waited", "worker", "outcome"],
        rows: this.#slowest.map(({ id, task, items, ran, waited, worker, outcome }) => [
          items === 1 ? String(id) : `${id} and ${items - 1} more`,
          task,
          { value: ran, unit: "ms" },
          { value: waited, unit: "ms" },
          String(worker),
          outcome,
        ]),
      },
    };
  }

  #ran({ id, task, items, submitted, started, ended, runs, worker: number }: ObservedJob, outcome: string): void {
    if (started === undefined) return;
    const [worker, start, end] = [number!, started - this.#begin, ended! - this.#begin];
    const [waited, ran] = [started - submitted, end - start];
    if (runs === 1) this.#waiting.record(waited);
    this.#running.record(ran / items);
    this.#wall = Math.max(this.#wall, end);
    const finished = outcome === "finished";
    const label = `job ${id} (${task})`;
    this.#timeline.add(worker, { label, start, end, failed: finished ? 0 : 1, outcome: finished ? "" : "did not finish" });
    const least = this.#slowest.at(-1);
    if (this.#slowest.length === MOST_SLOW && ran <= least!.ran) return;
    this.#slowest.push({ id, task, items, worker, waited, ran, outcome });
    this.#slowest.sort((a, b) => b.ran - a.ran);
    this.#slowest.length = Math.min(this.#slowest.length, MOST_SLOW);
  }
}
