/**
 * The process pool of `concurrent.futures`: `map` of a function that computes, on all cores. The function comes from a task module, so a
 * worker needs to read that file.
 *
 * ```sh
 * deno run --allow-read=examples/factorize.ts examples/process_pool.ts
 * ```
 *
 * In Python:
 *
 * ```python
 * def pool_factorizer_go(nums, nprocs):
 *     with ProcessPoolExecutor(max_workers=nprocs) as executor:
 *         return {num: factors for num, factors in
 *                 zip(nums, executor.map(factorize_naive, nums))}
 * ```
 *
 * @module
 */

import { ProcessPool } from "@procpool/process-pool";
import { assertEquals } from "@std/assert";
import { factorize } from "./factorize.ts";

async function poolFactorizer(nums: number[], maxWorkers: number): Promise<Record<number, number[]>> {
  await using pool = new ProcessPool({ maxWorkers, modules: [import.meta.resolve("./factorize.ts")] });
  const factors = await Array.fromAsync(pool.map(factorize, nums));
  return Object.fromEntries(nums.map((num, i) => [num, factors[i]!]));
}

const nums = Array.from({ length: 20_000 }, (_, i) => 1_000_000_000 + i);
const factorsOf = await poolFactorizer(nums, navigator.hardwareConcurrency);

for (const num of nums.slice(0, 8)) console.log(`${num} = ${factorsOf[num]!.join(" * ")}`);
console.log(`and ${nums.length - 8} more`);

assertEquals(Object.keys(factorsOf).length, 20_000);
for (const num of nums) assertEquals(factorsOf[num]!.reduce((product, factor) => product * factor), num);

// Output:
// 1000000000 = 2 * 2 * 2 * 2 * 2 * 2 * 2 * 2 * 2 * 5 * 5 * 5 * 5 * 5 * 5 * 5 * 5 * 5
// 1000000001 = 7 * 11 * 13 * 19 * 52579
// 1000000002 = 2 * 3 * 43 * 983 * 3943
// 1000000003 = 23 * 307 * 141623
// 1000000004 = 2 * 2 * 41 * 41 * 148721
// 1000000005 = 3 * 5 * 66666667
// 1000000006 = 2 * 500000003
// 1000000007 = 1000000007
// and 19992 more
