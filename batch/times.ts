import { LAYOUT } from "./lane.ts";

/**
 * Times of records, counted by size: each bucket is a sixteenth of a power of two wide, so a quantile is right to within 6 %. The buckets are
 * plain counters, since they lie in shared memory where a worker counts: what it has counted outlives it, and to merge two is to add them.
 */
export type Times = Float64Array;

/** No times. */
export function noTimes(): Times {
  return new Float64Array(LAYOUT.buckets);
}

/** Below which time, in milliseconds, this share of the records lies; undefined if there are none. */
export function quantile(times: Times, share: number): number | undefined {
  const total = times.reduce((a, b) => a + b, 0);
  if (total === 0) return undefined;
  let left = Math.max(1, Math.ceil(total * share));
  const bucket = times.findIndex((count) => (left -= count) <= 0);
  return 2 ** (LAYOUT.smallestExponent + Math.floor(bucket / 16)) * (1 + (bucket % 16 + 0.5) / 16);
}
