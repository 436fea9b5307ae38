import type { ProcessPool } from "../pool.ts";
import type { Totals } from "./files.ts";
import type { Paths, Plan } from "./plan.ts";
import { quantile, type Times } from "./times.ts";

/** The progress of a batch. */
export interface BatchProgress {
  /** Records that are done, including those of earlier runs. */
  records: number;
  /** How many of them failed. */
  failed: number;
  /** Bytes of the input that are done. */
  bytes: number;
  /** Bytes of the input in all; undefined if that is not known, as with a stream. */
  totalBytes: number | undefined;
  /** Milliseconds since this run began. */
  elapsed: number;
  /** Records per second in this run. */
  recordsPerSecond: number;
  /** Milliseconds that the rest will take at this speed; undefined if that is not known. */
  timeLeft: number | undefined;
  /** The number of workers. */
  workers: number;
  /** How many of them are busy. */
  busy: number;
  /** The memory of the program, in bytes. */
  memory: number;
}

/** A record, or a group of neighbouring records, that took long. */
export interface SlowRecordReport {
  /** The input. */
  input: string;
  /** Its line, counted from 1, or the first line of records that were timed together; undefined if lines are not known. */
  line: number | undefined;
  /** The last line of these. */
  lastLine: number | undefined;
  /** The byte of the input at which it begins. */
  offset: number;
  /** Milliseconds. */
  time: number;
}

/** The result of a batch. */
export interface BatchSummary {
  /** How it ended: `"complete"`, `"stopped"` by its signal, or `"halted"`, since too many records failed. */
  outcome: "complete" | "stopped" | "halted";
  /** Records that are done, including those of earlier runs. */
  records: number;
  /** How many of them failed. */
  failed: number;
  /** Records of just this run. */
  recordsOfRun: number;
  /** Milliseconds that this run took. */
  wall: number;
  /** Records per second in this run. */
  recordsPerSecond: number;
  /** The share of the workers' time that records took, from 0 to 1. */
  utilisation: number;
  /** The number of workers. */
  workers: number;
  /** Half of the records took at most this long, in milliseconds; undefined if there were none. */
  p50: number | undefined;
  /** The same for 95 % of them. */
  p95: number | undefined;
  /** The same for 99 % of them. */
  p99: number | undefined;
  /** The slowest records of this run, at most five. */
  slowest: SlowRecordReport[];
  /** Names and counts of the errors of records in this run, the most frequent first. Beyond a hundred names they are combined. */
  errorNames: [name: string, count: number][];
  /** The first twenty permissions that tasks were denied, as Deno names them: a kind and usually a value. */
  denied: string[];
  /** The output's path; undefined if it is a stream. */
  output: string | undefined;
  /** The errors file, if a record failed and there is one. */
  errors: string | undefined;
  /** Whether `retryFailed` can run any record in the errors file again: it cannot if they were not parsed, or not kept whole. */
  retryable: boolean;
  /** Inputs that ended within a record of which more has come since, and the byte from which each is left to another batch. */
  left: [input: string, offset: number][];
  /**
   * If the batch was halted, the first failures, at most five, that are not kept, since they come after something that was not done: the
   * input, the byte at which the record begins, and the error.
   */
  notKept: [input: string, offset: number, error: string][];
}

/** How often progress is reported, in ms. More often, and nobody can read it; less often, and it seems to stand still. */
const TELL_EVERY = 500;

/** Makes a function that reports the progress, if anyone wants to hear of it, and rejects if they fail. */
export function progressOf(
  { plan: { options, sources }, pool, begin, before, counts, covered }: {
    plan: Plan;
    pool: ProcessPool;
    begin: number;
    before: Totals;
    counts: () => { records: number; failed: number; bytes: number };
    covered: () => number;
  },
): (when: "now and then" | "at the end") => Promise<void> {
  const { onProgress, workers } = options;
  const totalBytes = sources.every(({ size }) => size !== undefined) ? sources.reduce((sum, { size }) => sum + size!, 0) : undefined;
  let told = begin;
  return async (when) => {
    const now = performance.now();
    if (onProgress === undefined || (when === "now and then" && now - told < TELL_EVERY)) return;
    told = now;
    const { records, failed, bytes } = counts();
    const elapsed = now - begin;
    const done = covered() + bytes;
    const left = totalBytes === undefined ? undefined : totalBytes - done;
    const progress: BatchProgress = {
      records: before.records + records,
      failed: before.failed + failed,
      bytes: done,
      totalBytes,
      elapsed,
      recordsPerSecond: records / elapsed * 1000,
      timeLeft: left === undefined || bytes === 0 ? undefined : Math.max(0, left / bytes * elapsed),
      workers,
      busy: pool.stats().busy,
      memory: Deno.memoryUsage().rss,
    };
    await onProgress(progress);
  };
}

/** The summary of a batch before anything has been run. */
export function summaryOf({ options: { workers } }: Plan, paths: Paths | undefined): BatchSummary {
  return {
    outcome: "complete",
    records: 0,
    failed: 0,
    recordsOfRun: 0,
    wall: 0,
    recordsPerSecond: 0,
    utilisation: 0,
    workers,
    p50: undefined,
    p95: undefined,
    p99: undefined,
    slowest: [],
    errorNames: [],
    denied: [],
    output: paths?.name,
    errors: undefined,
    retryable: false,
    left: [],
    notKept: [],
  };
}

/** How fast a run was. Times are in milliseconds. */
export function speedOf(
  { records, busy, wall, workers }: { records: number; busy: number; wall: number; workers: number },
): Pick<BatchSummary, "recordsOfRun" | "wall" | "recordsPerSecond" | "utilisation"> {
  return { recordsOfRun: records, wall, recordsPerSecond: records / wall * 1000, utilisation: Math.min(1, busy / (wall * workers)) };
}

/** The quantiles of a summary. */
export function quantilesOf(times: Times): Pick<BatchSummary, "p50" | "p95" | "p99"> {
  return { p50: quantile(times, 0.5), p95: quantile(times, 0.95), p99: quantile(times, 0.99) };
}
