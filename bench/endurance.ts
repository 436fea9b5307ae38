/**
 * Is memory flat over a night's run? Submits ten million jobs one after another with a done callback each, and prints the memory of the
 * program after every tenth of them. Ends with exit code 1 if the second half needed a fifth more than the first.
 *
 * ```sh
 * deno run bench/endurance.ts [jobs]
 * ```
 *
 * @module
 */

import { ProcessPool } from "@procpool/process-pool";

const jobs = Number(Deno.args[0] ?? 10_000_000);
const highest = [0, 0];
let done = 0;
let sum = 0;
const begin = performance.now();

await using pool = new ProcessPool({ maxWorkers: 2 });
for (let i = 0; i < jobs; i++) {
  const future = await pool.submit((x: number) => x + 1, i);
  future.addDoneCallback(async () => {
    const result = await future.result();
    sum += result;
    done++;
  });
  if (i % 1000 === 0) {
    const { rss } = Deno.memoryUsage();
    const half = i < jobs / 2 ? 0 : 1;
    highest[half] = Math.max(highest[half]!, rss);
    if (i % (jobs / 10) === 0) {
      const seconds = (performance.now() - begin) / 1000;
      console.log(`${i} jobs: ${(rss / 1e6).toFixed(0)} MB, ${(i / seconds).toFixed(0)} jobs/s`);
    }
  }
}
await pool.shutdown();
const [first, second] = highest as [number, number];
const right = done === jobs && sum === jobs * (jobs + 1) / 2;
console.log(
  `${done} jobs ${right ? "with the right sum" : "WITH A WRONG SUM"}; at most ${(first / 1e6).toFixed(0)} MB, then ${
    (second / 1e6).toFixed(0)
  } MB`,
);
Deno.exitCode = right && second < first * 1.2 ? 0 : 1;
