/**
 * How wide should the gate be? Submits tiny jobs one after another, as the original does, through gates of several widths, in interleaved rounds, and
 * prints the jobs a second of each relative to the default of 30 a worker.
 *
 * ```sh
 * deno run bench/queue_size.ts
 * ```
 *
 * @module
 */

import { ProcessPool } from "@procpool/process-pool";

const WORKERS = 2;
const JOBS = 20_000;
const ROUNDS = 5;
const DEFAULT = 30;
const WIDTHS = [1, 2, 4, 10, DEFAULT, 100, 1000];

async function jobsPerSecond(width: number): Promise<number> {
  await using pool = new ProcessPool({ maxWorkers: WORKERS, queueSize: width * WORKERS });
  await pool.warmUp();
  const begin = performance.now();
  for (let i = 0; i < JOBS; i++) await pool.submit((x: number) => x + 1, i);
  await pool.shutdown();
  return JOBS / (performance.now() - begin) * 1000;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}

const rounds = new Map(WIDTHS.map((width) => [width, [] as number[]]));
for (let round = 0; round < ROUNDS; round++) {
  for (const width of WIDTHS) rounds.get(width)!.push(await jobsPerSecond(width));
}
const baseline = median(rounds.get(DEFAULT)!);
for (const [width, values] of rounds) {
  console.log(
    `${String(width).padStart(5)} a worker: ${(median(values) / baseline).toFixed(2)} of the default's ${baseline.toFixed(0)} jobs/s`,
  );
}
