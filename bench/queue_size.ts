/**
 * How wide should the gate be? Tiny jobs go through gates of several widths, in interleaved rounds: submitted one after another, and called
 * a thousand at a time. Prints the jobs per second of each, relative to the default.
 *
 * ```sh
 * deno run bench/queue_size.ts
 * ```
 *
 * @module
 */

import { ProcessPool } from "@procpool/process-pool";
import { summarise } from "./compare/statistics.ts";

const WORKERS = 2;
const JOBS = 40_000;
const WINDOW = 1000;
const ROUNDS = 7;
const DEFAULT = 500;
const WIDTHS = [1, 10, 30, 100, 250, DEFAULT, 1000, 2000];

const increment = (x: number) => x + 1;

const PATTERNS: Record<string, (pool: ProcessPool) => Promise<void>> = {
  async "one after another"(pool) {
    for (let i = 0; i < JOBS; i++) await pool.submit(increment, i);
  },
  async "a thousand at a time"(pool) {
    for (let i = 0; i < JOBS; i += WINDOW) await Promise.all(Array.from({ length: WINDOW }, (_, j) => pool.run(increment, i + j)));
  },
};

async function jobsPerSecond(width: number, pattern: (pool: ProcessPool) => Promise<void>): Promise<number> {
  await using pool = new ProcessPool({ maxWorkers: WORKERS, queueSize: width * WORKERS });
  await pool.warmUp();
  await pattern(pool);
  const begin = performance.now();
  await pattern(pool);
  return JOBS / (performance.now() - begin) * 1000;
}

for (const [name, pattern] of Object.entries(PATTERNS)) {
  const rounds = new Map(WIDTHS.map((width) => [width, [] as number[]]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const width of WIDTHS) rounds.get(width)!.push(await jobsPerSecond(width, pattern));
  }
  const baseline = summarise(rounds.get(DEFAULT)!).median;
  console.log(`${name}: ${baseline.toFixed(0)} jobs/s with the default of ${DEFAULT} a worker`);
  for (const [width, values] of rounds) {
    console.log(`${String(width).padStart(5)} a worker: ${(summarise(values).median / baseline).toFixed(2)}`);
  }
}
