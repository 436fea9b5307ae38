/**
 * What the run and its workers say to each other about a range of the input.
 *
 * @module
 */

import type { SeenFile } from "./seen_file.ts";

/** The format of an input: how its records are told apart. */
export type InputFormat = "ndjson" | "lines" | "csv";

/** How results are written. */
export type OutputFormat = "ndjson" | "lines";

/** A part of the input: the lines that begin in a range of a file, or a block of whole records. */
export type Piece = PieceOfInput & (PieceOfFile | { bytes: Uint8Array<ArrayBuffer>; offset: number });

/** A range of a file. */
export interface PieceOfFile {
  path: string;
  /** The file when the batch began: what was appended since is not read. */
  seen: SeenFile;
}

/** What both have. */
export interface PieceOfInput {
  /** What the input is called in messages. */
  input: string;
  end: number;
  header: string[] | undefined;
}

/** Why a record is no longer run. */
export interface Verdict {
  name: string;
  message: string;
  stack: string;
  attempts: number;
  /** How long its last attempt took, in milliseconds. */
  time: number;
}

/** The record that a worker of this range ran when it died. */
export interface Suspect {
  /** How many records come before it; all of these are committed one by one. -1 if there is no such record. */
  before: number;
  /** The number of its next attempt, from 1. */
  attempt: number;
  /** Its final error, if it is not run any more. */
  verdict: Verdict | undefined;
  /** Whether a worker has died while writing that down: the record is then not decoded, and little of it is kept. */
  brief: boolean;
}

/** How one run through a range differs from another. */
export interface RunnerLimits extends Suspect {
  /** After how many milliseconds the worker returns, at the end of a record, but not before that of the suspect. */
  slice: number;
  /** After how many records and failures it returns. */
  maxRecords: number;
  maxFailures: number;
}

/** What a worker returns for a range; everything else is in the lane. */
export interface RangeReply {
  /** Whether all of the range is done. */
  done: boolean;
}
