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

/** So many bins of a histogram can be told apart. */
const MOST_BINS = 60;

/** A histogram for people, from the shortest time to the longest: bins of a quarter of a power of two, or of more if there were too many. */
export function bins(times: Times): { from: number; to: number; count: number }[] {
  const [first, last] = [times.findIndex((count) => count > 0), times.findLastIndex((count) => count > 0)];
  if (first < 0) return [];
  const buckets = [4, 8, 16].find((buckets) => (last - first) / buckets < MOST_BINS - 1) ?? 16;
  const all: { from: number; to: number; count: number }[] = [];
  for (let at = first - first % buckets; at <= last; at += buckets) {
    const count = times.subarray(at, at + buckets).reduce((a, b) => a + b, 0);
    all.push({ from: begin(at), to: begin(at + buckets), count });
  }
  return all;
}

/** The time at which a bucket begins. */
function begin(bucket: number): number {
  return 2 ** (LAYOUT.smallestExponent + Math.floor(bucket / 16)) * (1 + bucket % 16 / 16);
}

/** Below which time, in milliseconds, this share of the records lies; undefined if there are none. */
export function quantile(times: Times, share: number): number | undefined {
  const total = times.reduce((a, b) => a + b, 0);
  if (total === 0) return undefined;
  let left = Math.max(1, Math.ceil(total * share));
  const bucket = times.findIndex((count) => (left -= count) <= 0);
  return begin(bucket + 0.5);
}
