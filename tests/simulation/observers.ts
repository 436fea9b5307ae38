import type { ObservedJob, PoolObserver, ProcessPool, WorkerChange } from "../../mod.ts";
import type { Stage } from "./jobs.ts";
import { check, Violation } from "./violation.ts";

/** What may be reported of a job next. `retried` follows a run, and is followed by another. */
const NEXT_OF_JOB: Record<string, readonly string[]> = {
  submitted: ["refused", "admitted"],
  admitted: ["sent", "settled"],
  sent: ["sent", "retried", "settled"],
  retried: ["sent", "settled"],
  refused: [],
  settled: [],
};

const NEXT_OF_WORKER: Record<WorkerChange, readonly WorkerChange[]> = {
  starting: ["ready", "stopped", "failed to start"],
  ready: ["closed", "stopped", "died"],
  closed: [],
  stopped: [],
  died: [],
  "failed to start": [],
};

/** Is told what happens in a pool, and then does anything that a program may do in an observer. */
export class SimulatedObserver implements Required<PoolObserver> {
  #stage: Stage;
  #jobs = new Map<ObservedJob, string>();
  #workers = new Map<number, WorkerChange>();
  #counts = { finished: 0, failed: 0, cancelled: 0 };
  #timesClosed = 0;

  constructor(stage: Stage) {
    this.#stage = stage;
  }

  opened(): void {}

  submitted(job: ObservedJob): void {
    this.#check(() => check(!this.#jobs.has(job), "a job is submitted once", () => job.id));
    this.#jobs.set(job, "submitted");
  }

  refused(job: ObservedJob): void {
    this.#told(job, "refused");
  }

  admitted(job: ObservedJob): void {
    this.#told(job, "admitted");
  }

  sent(job: ObservedJob): void {
    this.#told(job, "sent");
  }

  retried(job: ObservedJob): void {
    this.#told(job, "retried");
  }

  settled(job: ObservedJob): void {
    const { finished, failed, cancelled, items } = job;
    this.#check(() => check(finished + failed + cancelled === items, "each item of a job has ended in one way", () => job.id));
    this.#counts.finished += finished;
    this.#counts.failed += failed;
    this.#counts.cancelled += cancelled;
    this.#told(job, "settled");
  }

  worker(worker: number, change: WorkerChange): void {
    const before = this.#workers.get(worker);
    const right = before === undefined ? change === "starting" : NEXT_OF_WORKER[before].includes(change);
    this.#check(() => check(right, "what becomes of a worker is told once, in its order", () => `${worker}: ${before}, ${change}`));
    this.#workers.set(worker, change);
    this.#meddle();
  }

  closed(): void {
    this.#timesClosed++;
  }

  /** After the last step. */
  checkAtEnd(pool: ProcessPool): void {
    const open = this.#jobs.entries().find(([, last]) => NEXT_OF_JOB[last]!.length > 0);
    check(open === undefined, "observers are told of the end of every job", () => `job ${open![0].id}: ${open![1]}`);
    const alive = this.#workers.entries().find(([, last]) => NEXT_OF_WORKER[last].length > 0);
    check(alive === undefined, "observers are told of the end of every worker", () => alive!.join(": "));
    const { finished, failed, cancelled } = pool.stats();
    const { finished: f, failed: e, cancelled: c } = this.#counts;
    check(f === finished && e === failed && c === cancelled, "observers are told how each job has ended", () => `${f}, ${e}, ${c}`);
    check(this.#timesClosed === 1, "observers are told once that the pool has ended", () => this.#timesClosed);
  }

  #told(job: ObservedJob, what: string): void {
    const last = this.#jobs.get(job)!;
    const right = NEXT_OF_JOB[last]!.includes(what);
    this.#check(() => check(right, "what becomes of a job is told in its order", () => `job ${job.id}: ${last}, ${what}`));
    this.#jobs.set(job, what);
    this.#meddle();
  }

  #meddle(): void {
    this.#stage.world.activity++;
    if (!this.#stage.chance.chance(0.05)) return;
    const before = this.#stage.observing;
    this.#stage.observing = true;
    this.#stage.meddle();
    this.#stage.observing = before;
  }

  /** To the pool this is just an observer that throws. */
  #check(condition: () => void): void {
    try {
      condition();
    } catch (error) {
      this.#stage.fail(error instanceof Violation ? error : new Violation("an observer can look", error));
    }
  }
}
