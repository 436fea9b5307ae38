import type { TimeQuantiles } from "../pool/measurement.ts";
import type { Figure } from "./figures.ts";

/**
 * What a report shows: plain data, so that it can come from anywhere. Times are in milliseconds, and moments count from the start of the
 * run.
 */
export interface ReportData {
  /** What ran: the heading. */
  title: string;
  /** When the run began, as an ISO date. */
  begun: string;
  /** How long it took. */
  wall: number;
  /** Something to be read first, such as that the run was stopped. */
  notes: string[];
  words: Words;
  /** Its results, by name. */
  figures: Record<string, Figure>;
  /** Its settings, by name. */
  settings: Record<string, string | number>;
  /** How many jobs, or records, ended in each stretch of time. */
  throughput: { width: number; finished: number[]; failed: number[] };
  /** How long things took. */
  latency: Latency[];
  /** The rows of the timeline. */
  workers: WorkerRow[];
  /** Kinds of errors, the most frequent first. */
  errors: ErrorKind[];
  /** What took longest, slowest first. */
  slowest: { head: string[]; rows: (string | Figure)[][] };
}

/** The names of things: nouns whose plural takes an s. */
export interface Words {
  /** What is counted, such as `"record"`. */
  item: string;
  /** What a bar of the timeline stands for. */
  bar: string;
  /** Notes about such bars, in sentences. */
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
  /** How many times there were from `from` up to `to`, in adjacent bins; no bins if there were no times. */
  bins: { from: number; to: number; count: number }[];
}

/** What a worker did, or several that replaced each other. */
export interface WorkerRow {
  /** Its number, or that of the first. */
  worker: number;
  /** How many replaced another. */
  replaced: number;
  /** How many bars it has, drawn or not. */
  jobs: number;
  /** The share of the run in which it worked, from 0 to 1. */
  utilisation: number;
  /** What it ran, one by one; undefined if that is too much to draw. */
  bars: WorkerBar[] | undefined;
  /** The share of each stretch of time in which it worked, from 0 to 1; the stretches are those of the throughput. */
  busy: number[];
}

/** Something that a worker ran. */
export interface WorkerBar {
  /** What it was, such as `"job 3 (resize)"`. */
  label: string;
  start: number;
  end: number;
  /** The share of it that failed, from 0 to 1. */
  failed: number;
  /** Its outcome, such as `"10 records, 1 failed"`; empty if that goes without saying. */
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
