import type { ResolvedBatch } from "./options.ts";
import type { DivideOptions } from "./parts.ts";
import type { RunCounts } from "./run.ts";

/** The length of a part in ms: long enough that handing it out costs next to nothing, and short enough that all workers end together. */
const PART_TIME = 100;

/** Near the end, parts get shorter, down to this in ms: each part takes 0.3 ms to hand out and to take back. */
const SHORTEST_PART_TIME = 1;

/**
 * The smallest part, in bytes, used while no record is done, so that nobody knows how long they take. With larger first parts a few slow
 * records would go to few workers; smaller ones would contain no record.
 */
const SMALLEST_PART = 2 ** 6;
/** Larger parts only take memory. */
const LARGEST_PART = 2 ** 20;

/** The least of a stream that is handed out before its end, and by which it is recognised when it is read again. */
const SMALLEST_BLOCK = 2 ** 14;

/** How many bytes are done, and how long their records took, in milliseconds. */
export type Measured = Pick<RunCounts, "bytes" | "busy">;

/** How large parts and blocks are to be: as the options say, or else by the measured speed, and near the end so that every worker gets one. */
export function partSizes({ chunk, workers }: ResolvedBatch, measured: () => Measured): Pick<DivideOptions, "chunk" | "block"> {
  if (chunk !== undefined) return { chunk: () => chunk, block: () => chunk };
  const next = (left: number): number => {
    const { bytes, busy } = measured();
    // After much input without a record, there may be more of it.
    const speed = bytes / (busy > 0 ? busy : PART_TIME);
    const share = Math.max(left / (2 * workers), speed * SHORTEST_PART_TIME);
    return Math.round(Math.max(SMALLEST_PART, Math.min(speed * PART_TIME, share, LARGEST_PART)));
  };
  return { chunk: next, block: () => Math.max(SMALLEST_BLOCK, next(Infinity)) };
}
