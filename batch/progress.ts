import { quantile, type Times } from "./times.ts";

/** How a batch goes. */
export interface BatchProgress {
  /** Records that are done, those of an earlier run included. */
  records: number;
  /** Those of them that failed. */
  failed: number;
  /** Bytes of the input that are done. */
  bytes: number;
  /** How many there are; undefined if that is not known, as with a stream. */
  totalBytes: number | undefined;
  /** Milliseconds since this run began. */
  elapsed: number;
  /** Records of this run in a second. */
  recordsPerSecond: number;
  /** Milliseconds that the rest will take at this speed; undefined if that is not known. */
  timeLeft: number | undefined;
  /** How many workers there are. */
  workers: number;
  /** How many of them have something to do. */
  busy: number;
  /** What the program holds, in bytes. */
  memory: number;
}

/** A record, or one of a few neighbours, that took long. */
export interface SlowRecordReport {
  /** The input. */
  input: string;
  /** Its line, counted from 1, or the first of its neighbours that were timed together; undefined where lines are not known. */
  line: number | undefined;
  /** The last of them. */
  lastLine: number | undefined;
  /** The byte of the input at which it begins. */
  offset: number;
  /** Milliseconds. */
  time: number;
}

/** What a batch came to. */
export interface BatchSummary {
  /** How it ended: `"complete"`, `"stopped"` by its signal, or `"halted"`, since too many records failed. */
  outcome: "complete" | "stopped" | "halted";
  /** Records that are done, those of an earlier run included. */
  records: number;
  /** Those of them that failed. */
  failed: number;
  /** Records of this run alone. */
  recordsOfRun: number;
  /** Milliseconds that this run took. */
  wall: number;
  /** Records of this run in a second. */
  recordsPerSecond: number;
  /** What share of the workers' time records took, from 0 to 1. */
  utilisation: number;
  /** How many workers there were. */
  workers: number;
  /** What half of the records took at the most, in milliseconds; undefined if there were none. */
  p50: number | undefined;
  /** The same of 95 % of them. */
  p95: number | undefined;
  /** The same of 99 % of them. */
  p99: number | undefined;
  /** The slowest records of this run, at most five. */
  slowest: SlowRecordReport[];
  /** Names and counts of the errors that records failed with in this run, the most frequent first. Beyond a hundred they are put together. */
  errorNames: [name: string, count: number][];
  /** What tasks were denied, the first twenty, as Deno names it: a kind and, in most cases, a value. */
  denied: string[];
  /** The output's path; undefined if it is a stream. */
  output: string | undefined;
  /** The errors file, if a record failed and there is one. */
  errors: string | undefined;
  /** Whether `retryFailed` can run any of the records in the errors file again: not those that could not be parsed, or were not kept whole. */
  retryable: boolean;
  /** Inputs that ended within a record, of which more has come since, and the byte from which on each is left to another batch. */
  left: [input: string, offset: number][];
}

/** The quantiles of a summary. */
export function quantilesOf(times: Times): Pick<BatchSummary, "p50" | "p95" | "p99"> {
  return { p50: quantile(times, 0.5), p95: quantile(times, 0.95), p99: quantile(times, 0.99) };
}
