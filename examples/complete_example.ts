/**
 * The complete job model: ten jobs with an id, a function, arguments and named arguments, on four workers, never more than four in flight,
 * and a callback for each. `docs/from-concurrent-futures.md` has the Python program beside it.
 *
 * ```sh
 * deno run examples/complete_example.ts
 * ```
 *
 * @module
 */

import { type Future, Job, ProcessPool } from "@procpool/process-pool";
import { assert, assertEquals } from "@std/assert";

interface Person {
  name: string;
  age: number;
}

async function funDemo(_a: number, _b: number, _c: number, _person: Person): Promise<number> {
  const seconds = Math.random();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return seconds;
}

let inFlight = 0;
let most = 0;
let finished = 0;

async function jobExecuted(future: Future<number>): Promise<void> {
  inFlight--;
  const error = await future.exception();
  if (error !== undefined) return console.log(`job[${future.id}] worker[${future.job.func.name}] error : [${error}]`);
  console.log(`job[${future.id}] worker[${future.job.func.name}] finish: [${await future.result()}]`);
  finished++;
}

{
  // The gate has as many permits as there are workers: four of the ten jobs are in flight, and `submit` waits for the next permit.
  await using pool = new ProcessPool({ maxWorkers: 4, queueSize: 4 });
  for (let id = 0; id < 10; id++) {
    const job = new Job({ id, func: funDemo, args: [1, 2, 3], kwargs: { name: "bear", age: 26 }, onDone: jobExecuted });
    await pool.submit(job);
    most = Math.max(most, ++inFlight);
    console.log(`put in job[${id}]`);
  }
}

assertEquals(finished, 10);
assert(most <= 4, `${most} jobs were in flight at once`);

// Output, in an order that varies:
// put in job[0]
// put in job[1]
// put in job[2]
// put in job[3]
// job[3] worker[funDemo] finish: [0.…]
// put in job[4]
// job[1] worker[funDemo] finish: [0.…]
// put in job[5]
// job[0] worker[funDemo] finish: [0.…]
// put in job[6]
// job[2] worker[funDemo] finish: [0.…]
// put in job[7]
// job[5] worker[funDemo] finish: [0.…]
// put in job[8]
// job[8] worker[funDemo] finish: [0.…]
// put in job[9]
// job[4] worker[funDemo] finish: [0.…]
// job[7] worker[funDemo] finish: [0.…]
// job[6] worker[funDemo] finish: [0.…]
// job[9] worker[funDemo] finish: [0.…]
