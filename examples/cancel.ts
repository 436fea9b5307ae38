/**
 * Cancelling and aborting: a queued job, a running job, a submission that waits at the gate, and the rest of a `map`.
 *
 * ```sh
 * deno run examples/cancel.ts
 * ```
 *
 * @module
 */

import { Job, JobCancelledError, ProcessPool } from "@procpool/process-pool";
import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";

function sleep(ms: number): Promise<number> {
  return new Promise((resolve) => setTimeout(() => resolve(ms), ms));
}

const HOUR = 3_600_000;
await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 3 });

// One worker: the first job runs, the others wait in the queue.
const first = await pool.submit(sleep, HOUR);
const second = await pool.submit(sleep, HOUR);
while (!first.running()) await sleep(1);

// `cancel` is for jobs that have not started.
assertEquals([first.cancel(), second.cancel()], [false, true]);
console.log(`first ${first.state}, second ${second.state}`);

// With `force` a running job ends too; its worker is replaced.
assert(first.cancel({ force: true, reason: "I have no hour" }));
const error = await first.exception();
assertInstanceOf(error, JobCancelledError);
console.log(`${error.message}: ${error.cause}`);

// A signal ends a job wherever it is. The job's future rejects with the signal's reason.
const controller = new AbortController();
const jobs = [1, 2, 3].map((id) => new Job({ id, func: sleep, args: [HOUR], signal: controller.signal }));
const futures = await Promise.all(jobs.map((job) => pool.submit(job)));
// The gate admits three, so this one waits there.
const waiting = pool.submit(new Job({ func: sleep, args: [HOUR], signal: controller.signal }));
controller.abort(new Error("The user went home"));
for (const future of futures) {
  await assertRejects(() => future.result(), Error, "The user went home");
  console.log(`job ${future.id} ${future.state}`);
}
await assertRejects(() => waiting, Error, "The user went home");

// Leaving the loop of a `map` cancels what has not started.
function* forEver(): Generator<number> {
  for (let n = 0;; n++) yield n;
}
for await (const n of pool.map((n: number) => n * n, forEver())) {
  if (n > 50) {
    console.log(`the first square above 50 is ${n}`);
    break;
  }
}

// Output:
// first running, second cancelled
// Cancelled job 0 (task "sleep"): I have no hour
// job 1 cancelled
// job 2 cancelled
// job 3 cancelled
// the first square above 50 is 64
