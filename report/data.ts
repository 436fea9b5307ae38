import type { TimeQuantiles } from "../pool/measurement.ts";

/**
 * What a report shows: plain data, so that it can come from anywhere. Times are in milliseconds, and moments count from the begin of the run.
 */
export interface ReportData {
  /** What ran: the heading. */
  title: string;
  /** When the run began, as an ISO date. */
  begun: string;
  /** How long it took. */
  wall: number;
  /** How many jobs there were by outcome; each item of a map is one. */
  counts: { finished: number; failed: number; cancelled: number };
  /** What it ran with, by name. */
  settings: Record<string, string | number>;
  /** How many jobs settled in each stretch of time. */
  throughput: { width: number; finished: number[]; failed: number[] };
  /** From submission to start, and from start to end. */
  waiting: Distribution;
  running: Distribution;
  /** The workers, by number. */
  workers: WorkerRow[];
  /** Kinds of errors, the most frequent first. */
  errors: ErrorKind[];
  /** The jobs that ran longest, the longest first. */
  slowest: SlowJob[];
}

/** How times are distributed. */
export interface Distribution {
  quantiles: TimeQuantiles;
  /** How many times there were from `from` up to `to`; neighbours, and their borders a constant ratio apart. */
  bins: { from: number; to: number; count: number }[];
}

/** What a worker did. */
export interface WorkerRow {
  worker: number;
  jobs: number;
  /** What part of the run it ran jobs, from 0 to 1. */
  utilisation: number;
  /** Its jobs one by one; undefined if there were too many to be drawn. */
  bars: WorkerBar[] | undefined;
  /** How much of each stretch of time it ran jobs, from 0 to 1; the stretches are those of the throughput. */
  busy: number[];
}

/** One run of a job on a worker. */
export interface WorkerBar {
  id: string | number;
  task: string;
  start: number;
  end: number;
  failed: boolean;
}

/** Errors of one kind. */
export interface ErrorKind {
  /** The name of their class. */
  kind: string;
  count: number;
  /** The message of the first of them. */
  example: string;
}

/** A job that ran for long. */
export interface SlowJob {
  /** The job's id; of a chunk of a map, the index of its first item. */
  id: string | number;
  task: string;
  /** How many items it had. */
  items: number;
  worker: number;
  waited: number;
  ran: number;
  outcome: string;
}
