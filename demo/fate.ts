/** What becomes of a job of the demo. */
export interface Fate {
  /** How long it takes, in seconds, to the millisecond. */
  seconds: number;
  /** Whether it fails at the end of that time. */
  fails: boolean;
}

/** The parameters of fates. */
export interface FateOptions {
  seed: number;
  /** The share of jobs that fail, from 0 to 1. */
  failRate: number;
  /** How long a job may take, in seconds. */
  longest: number;
}

/** The fate of a job. It depends only on the seed and the job's number, not on the workers or the order in which they work. */
export function fateOf(job: number, { seed, failRate, longest }: FateOptions): Fate {
  return {
    seconds: Math.floor(draw(seed, job, 0) * longest * 1000) / 1000,
    fails: draw(seed, job, 1) < failRate,
  };
}

/** A number in [0, 1), made from 32-bit words by the finalizer of MurmurHash3. */
function draw(...words: number[]): number {
  let hash = 0;
  for (const word of words) {
    hash = Math.imul(hash ^ word, 0x9e3779b1) + 0x6d2b79f5 | 0;
    hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
    hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
    hash ^= hash >>> 16;
  }
  return (hash >>> 0) / 0x1_0000_0000;
}
