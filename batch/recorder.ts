import type { ObservedJob, PoolObserver, WorkerChange } from "../pool/observation.ts";
import type { WorkerBar, WorkerRow } from "../report/data.ts";
import { count, counted } from "../report/figures.ts";
import { Stretches } from "../report/stretches.ts";
import { Timeline } from "../report/timeline.ts";
import type { RangeRun } from "./active_part.ts";

/** When a job ran, and on which worker; without a worker it never ran. */
interface JobTimes {
  worker: number | undefined;
  start: number;
  end: number;
}

/** What a recorder knows at the end. Times count from the start of the run. */
export interface Recorded {
  /** When the run began, as an ISO date. */
  begun: string;
  throughput: { width: number; finished: number[]; failed: number[] };
  workers: WorkerRow[];
}

/**
 * Gathers what a report of a batch shows beyond its summary: how many records were done when, and which worker ran which range. The pool
 * reports which worker ran a job and when, the run reports its result; either may come first. Memory does not grow with the number of
 * ranges.
 */
export class BatchRecorder implements PoolObserver {
  #begin = 0;
  #begun = new Date();
  #stretches = new Stretches();
  #timeline = new Timeline(this.#stretches);
  #times = new Map<string | number, JobTimes>();
  #ranges = new Map<string | number, RangeRun>();
  #last = { at: 0, finished: 0, failed: 0 };
  #nameOf: (range: RangeRun) => string;

  /** @param nameOf Names a range on the timeline. */
  constructor(nameOf: (range: RangeRun) => string) {
    this.#nameOf = nameOf;
  }

  /** The run begins now. */
  begin(): void {
    this.#begin = performance.now();
    this.#begun = new Date();
  }

  settled({ id, worker, started, ended }: ObservedJob): void {
    const times = started === undefined
      ? { worker: undefined, start: 0, end: 0 }
      : { worker, start: started - this.#begin, end: ended! - this.#begin };
    this.#times.set(id, times);
    this.#join(id);
  }

  worker(worker: number, change: WorkerChange): void {
    if (change === "starting") this.#timeline.entered(worker);
    else if (change !== "ready") this.#timeline.left(worker);
  }

  /** A worker has finished a range, or is gone. */
  range(range: RangeRun): void {
    this.#ranges.set(range.job, range);
    this.#join(range.job);
  }

  /** Notes how many records are done by now. Those since the last call are assumed to be spread evenly. */
  sample({ records, failed }: { records: number; failed: number }): void {
    const { at, finished: finishedBefore, failed: failedBefore } = this.#last;
    const now = performance.now() - this.#begin;
    // When a worker has just been stopped, its progress is not known for a moment, and the count may go down.
    const finished = Math.max(records - failed, finishedBefore);
    const bad = Math.max(failed, failedBefore);
    this.#stretches.spread("finished", { start: at, end: now }, finished - finishedBefore);
    this.#stretches.spread("failed", { start: at, end: now }, bad - failedBefore);
    this.#last = { at: now, finished, failed: bad };
  }

  /** What is known by now, for a run that took this long. */
  data(wall: number): Recorded {
    const end = Math.max(wall, this.#last.at);
    return {
      begun: this.#begun.toISOString(),
      throughput: {
        finished: whole(this.#stretches.get("finished", end)),
        failed: whole(this.#stretches.get("failed", end)),
        width: this.#stretches.width,
      },
      workers: this.#timeline.rows(wall),
    };
  }

  #join(id: string | number): void {
    const [times, range] = [this.#times.get(id), this.#ranges.get(id)];
    if (times === undefined || range === undefined) return;
    this.#times.delete(id);
    this.#ranges.delete(id);
    const { worker, end } = times;
    if (worker === undefined || !range.begun) return;
    // A range that was sent ahead waits in its worker for the one before.
    const start = Math.min(end, Math.max(times.start, this.#timeline.endOf(worker)));
    this.#timeline.add(worker, this.#bar(range, start, end), range.busy);
  }

  #bar(range: RangeRun, start: number, end: number): WorkerBar {
    const { records, failed } = range;
    const all = counted(records, "record");
    return {
      label: this.#nameOf(range),
      start,
      end,
      failed: records === 0 ? 0 : failed / records,
      outcome: failed === 0 ? all : `${all}, ${count(failed)} failed`,
    };
  }
}

/** Rounds amounts to integers with the same sum. */
function whole(amounts: number[]): number[] {
  let sum = 0;
  return amounts.map((amount) => {
    const before = Math.round(sum);
    sum += amount;
    return Math.round(sum) - before;
  });
}
