import { LAYOUT } from "./lane.ts";

/**
 * A histogram of record times: each bucket is a sixteenth of a power of two wide, so quantiles are accurate to 6 %. The buckets are plain
 * counters, as they are in shared memory where a worker counts: the counts outlive it, and two histograms are merged by adding them.
 */
export type Times = Float64Array;

/** No times. */
export function noTimes(): Times {
  return new Float64Array(LAYOUT.buckets);
}

/** The most bins of a histogram that can be told apart. */
const MOST_BINS = 60;

/**
 * A histogram for people, from the shortest time to the longest: bins of a quarter of a power of two, or of more if there were too many.
 */
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

/** The time, in milliseconds, below which this share of the records lies; undefined if there are none. */
export function quantile(times: Times, share: number): number | undefined {
  const total = times.reduce((a, b) => a + b, 0);
  if (total === 0) return undefined;
  let left = Math.max(1, Math.ceil(total * share));
  const bucket = times.findIndex((count) => (left -= count) <= 0);
  return begin(bucket + 0.5);
}
