import type { TimeQuantiles } from "../pool/measurement.ts";
import type { Figure } from "./figures.ts";

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
  /** What is to be known before all else, such as that the run was stopped. */
  notes: string[];
  words: Words;
  /** What it came to, by name. */
  figures: Record<string, Figure>;
  /** What it ran with, by name. */
  settings: Record<string, string | number>;
  /** How many jobs, or records, were through in each stretch of time. */
  throughput: { width: number; finished: number[]; failed: number[] };
  /** What took how long. */
  latency: Latency[];
  /** The rows of the timeline. */
  workers: WorkerRow[];
  /** Kinds of errors, the most frequent first. */
  errors: ErrorKind[];
  /** What took longest, the longest first. */
  slowest: { head: string[]; rows: (string | Figure)[][] };
}

/** What things are called: nouns that take an s. */
export interface Words {
  /** What is counted, such as `"record"`. */
  item: string;
  /** What a bar of the timeline is. */
  bar: string;
  /** What is to be known of such bars, in sentences. */
  about: string;
}

/** Times of one kind. */
export interface Latency {
  /** Such as `"Waiting"`. */
  name: string;
  /** Such as `"from submission to start"`. */
  what: string;
  distribution: Distribution;
}

/** How times are distributed. */
export interface Distribution {
  quantiles: Partial<Omit<TimeQuantiles, "count">>;
  /** How many times there were from `from` up to `to`; neighbours. There are none if there were no times. */
  bins: { from: number; to: number; count: number }[];
}

/** What a worker did, or one after the other in the same place. */
export interface WorkerRow {
  /** Its number, or that of the first of them. */
  worker: number;
  /** How many took the place of another. */
  replaced: number;
  /** How many bars it has, drawn or not. */
  jobs: number;
  /** What part of the run it worked, from 0 to 1. */
  utilisation: number;
  /** What it ran, one by one; undefined if there was too much to be drawn. */
  bars: WorkerBar[] | undefined;
  /** How much of each stretch of time it worked, from 0 to 1; the stretches are those of the throughput. */
  busy: number[];
}

/** What a worker ran at a time. */
export interface WorkerBar {
  /** What it was, such as `"job 3 (resize)"`. */
  label: string;
  start: number;
  end: number;
  /** What part of it failed, from 0 to 1. */
  failed: number;
  /** What came of it, such as `"10 records, 1 failed"`; nothing if that goes without saying. */
  outcome: string;
}

/** Errors of one kind. */
export interface ErrorKind {
  /** The name of their class. */
  kind: string;
  count: number;
  /** The message of the first of them. */
  example: string;
}
