/**
 * What observing costs: the same 100,000 jobs on a pool without observers, on one that measures, and on one that writes a trace, in turns.
 *
 * ```sh
 * deno run --allow-write bench/observation.ts
 * ```
 *
 * The figures are medians; what matters is the ratio to the pool without observers.
 *
 * @module
 */

import { ProcessPool, type ProcessPoolOptions } from "@procpool/process-pool";
import { summarise } from "./compare/statistics.ts";

const JOBS = 100_000;
const ROUNDS = 5;
/** How many calls are made at a time. */
const WINDOW = 1000;

/** Computes for this many microseconds. */
function compute(microseconds: number): number {
  const end = performance.now() + microseconds / 1000;
  while (performance.now() < end);
  return microseconds;
}

async function run(options: ProcessPoolOptions, microseconds: number): Promise<number> {
  await using pool = new ProcessPool({ maxWorkers: 2, queueSize: WINDOW, ...options });
  await pool.warmUp();
  await pool.run(compute, microseconds);
  const begin = performance.now();
  for (let i = 0; i < JOBS; i += WINDOW) {
    await Promise.all(Array.from({ length: WINDOW }, () => pool.run(compute, microseconds)));
  }
  // Including what is still to be written.
  await pool.shutdown();
  return performance.now() - begin;
}

const file = Deno.makeTempFileSync({ suffix: ".json" });
const observed: [name: string, options: ProcessPoolOptions][] = [
  ["unobserved", {}],
  ["measure", { measure: true }],
  ["trace", { trace: file }],
  ["both", { measure: true, trace: file }],
];

try {
  for (const microseconds of [0, 10, 100]) {
    const times = observed.map((): number[] => []);
    for (let round = 0; round < ROUNDS; round++) {
      for (const [i, [, options]] of observed.entries()) times[i]!.push(await run(options, microseconds));
    }
    const medians = times.map((each) => summarise(each).median);
    console.log(`${JOBS} jobs of ${microseconds} µs`);
    for (const [i, [name]] of observed.entries()) {
      const ratio = (medians[i]! / medians[0]!).toFixed(2);
      console.log(`  ${name.padEnd(10)} ${medians[i]!.toFixed(0).padStart(6)} ms  ${ratio}`);
    }
  }
} finally {
  Deno.removeSync(file);
}
