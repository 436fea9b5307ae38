/**
 * The thread pool of `concurrent.futures`: `map` of a function that waits, three at a time. Nothing leaves the calling thread, so the
 * function may use what is around it.
 *
 * ```sh
 * deno run examples/thread_pool.ts
 * ```
 *
 * In Python:
 *
 * ```python
 * with concurrent.futures.ThreadPoolExecutor(max_workers=3) as executor:
 *     print(list(executor.map(sleeper, x)))
 * ```
 *
 * @module
 */

import { ProcessPool } from "@procpool/process-pool";
import { assertEquals } from "@std/assert";

let asleep = 0;
let most = 0;

async function sleeper(ms: number): Promise<number> {
  most = Math.max(most, ++asleep);
  await new Promise((resolve) => setTimeout(resolve, ms));
  asleep--;
  return ms;
}

const x = [60, 20, 40, 10, 50, 30];

await using pool = new ProcessPool({ maxWorkers: 3, backend: "inline" });
const slept = await Array.fromAsync(pool.map(sleeper, x));
console.log(slept.join(" "));
console.log(`${most} at a time`);

assertEquals(slept, x);
assertEquals(most, 3);

// Output:
// 60 20 40 10 50 30
// 3 at a time
