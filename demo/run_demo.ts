import { PoolBrokenError, PoolClosedError } from "../errors.ts";
import { type Future, Job, taskName } from "../job.ts";
import { ProcessPool } from "../pool.ts";
import type { PoolObserver } from "../pool/observation.ts";
import { onAbort } from "../pool/signals.ts";
import type { Ran } from "../report/recorder.ts";
import { fateOf } from "./fate.ts";
import { funDemo } from "./fun_demo.ts";
import type { Reporter, Summary } from "./reporter.ts";

/** What the demo runs. */
export interface DemoOptions {
  jobs: number;
  workers: number;
  /** How many jobs may be in flight. */
  queueSize: number;
  /** The share of jobs that fail, from 0 to 1. */
  failRate: number;
  /** Determines how long jobs take and which fail; random by default. */
  seed?: number | undefined;
  /** What workers may do: nothing. Left out, what the program may. */
  permissions?: "none" | undefined;
  /**
   * How long a job may take, in seconds.
   *
   * @default {1}
   */
  longest?: number | undefined;
  /**
   * How long jobs may go on after the run was told to stop, in milliseconds.
   *
   * @default {GRACE}
   */
  grace?: number | undefined;
  /** Where a trace goes. */
  trace?: string | undefined;
  /** Are told what happens in the pool. */
  observers?: readonly PoolObserver[] | undefined;
}

/**
 * How long jobs may go on after the run was told to stop, in milliseconds. Shorter, and most running jobs are lost; longer, and Ctrl-C
 * seems to do nothing.
 */
export const GRACE = 1000;

/** Random seeds are small enough to be typed again. */
const SEEDS_DRAWN = 1_000_000;

/**
 * Runs the demo: puts jobs through the gate of a pool, and tells the reporter when a job has passed the gate, when it is done, and at the
 * end the result.
 *
 * @param options What to run.
 * @param reporter Is told.
 * @param signal Stops the run: no more jobs are put in, those that have not started are cancelled, running ones get a moment.
 * @returns The result, as the reporter was told last.
 */
export async function runDemo(options: DemoOptions, reporter: Reporter, signal?: AbortSignal): Promise<Summary> {
  const { jobs, workers, queueSize, failRate, permissions, longest = 1, grace = GRACE, trace, observers = [] } = options;
  const seed = options.seed ?? Math.floor(Math.random() * SEEDS_DRAWN);
  const summary: Summary = { jobs, finished: 0, failed: 0, cancelled: 0, neverPutIn: jobs, wall: 0, busy: 0, seed, stopped: false };
  const begin = performance.now();
  const now = () => performance.now() - begin;
  const times = new Map<string | number, { worker: number | undefined; start: number | undefined; end: number }>();

  const observer: PoolObserver = {
    settled: ({ id, worker, sent, started = sent, settled, ended = settled }) => {
      times.set(id, { worker, start: started && started - begin, end: ended! - begin });
    },
  };

  async function jobExecuted(future: Future<number>): Promise<void> {
    const error = await future.exception();
    const state = future.state as "finished" | "failed" | "cancelled";
    const seconds = state === "finished" ? await future.result() : undefined;
    const { worker, start, end } = times.get(future.id)!;
    times.delete(future.id);
    summary[state]++;
    if (start !== undefined) {
      summary.busy += end - start;
      summary.wall = Math.max(summary.wall, end);
    }
    reporter.settled({ job: Number(future.id), task: taskName(future.job.func), state, worker, start, end, seconds, error });
  }

  await using pool = new ProcessPool({ maxWorkers: workers, queueSize, permissions, trace, observers: [observer, ...observers] });
  const stopListening = onAbort(signal, () => void pool.shutdown({ cancelPending: true, timeout: grace }));
  try {
    for (let id = 0; id < jobs && !signal?.aborted; id++) {
      const kwargs = { name: "bear", age: 26, ...fateOf(id, { seed, failRate, longest }) };
      const job = new Job({ id, func: funDemo, args: [1, 2, 3], kwargs, onDone: jobExecuted });
      await pool.submit(job);
      summary.neverPutIn--;
      reporter.submitted(id, now());
    }
  } catch (error) {
    // The pool is closed if the run was told to stop. If it is broken, the jobs that are in already fail with the same error.
    if (!(error instanceof PoolClosedError || error instanceof PoolBrokenError)) throw error;
  }
  await pool.shutdown();
  stopListening();
  summary.stopped = signal?.aborted ?? false;
  reporter.summary(summary);
  return summary;
}

/** What a report says of a run. */
export function describe(options: DemoOptions, summary: Summary): Ran {
  const { jobs, workers, queueSize, failRate, permissions = "those of the program" } = options;
  const { finished, failed, cancelled, neverPutIn, seed, wall } = summary;
  const settings = {
    jobs,
    "never put in": neverPutIn,
    workers,
    "queue size": queueSize,
    "fail rate": failRate,
    seed,
    permissions,
    backend: "worker",
  };
  return { title: "process-pool: the demo", counts: { finished, failed, cancelled }, settings, wall };
}
