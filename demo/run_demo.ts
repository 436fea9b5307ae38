import { type Future, Job, taskName } from "../job.ts";
import { ProcessPool } from "../pool.ts";
import { funDemo } from "./fun_demo.ts";

/** What the demo runs. */
export interface DemoOptions {
  jobs: number;
  workers: number;
}

/**
 * Runs the demo: so many jobs through a gate as wide as there are workers. Prints a line when a job has passed the gate, and one when it is done.
 *
 * @returns How many jobs failed.
 */
export async function runDemo({ jobs, workers }: DemoOptions, print: (line: string) => void): Promise<number> {
  let failed = 0;

  async function jobExecuted(future: Future<number>): Promise<void> {
    const label = `job[${future.id}] worker[${taskName(future.job.func)}]`;
    const error = await future.exception();
    if (future.state === "finished") print(`${label} finish: [${await future.result()}]`);
    else print(`${label} error: [${error}]`);
    if (future.state !== "finished") failed++;
  }

  await using pool = new ProcessPool({ maxWorkers: workers, queueSize: workers });
  for (let id = 0; id < jobs; id++) {
    const job = new Job({ id, func: funDemo, args: [1, 2, 3], kwargs: { name: "bear", age: 26 }, onDone: jobExecuted });
    await pool.submit(job);
    print(`put in job[${id}]`);
  }
  await pool.shutdown();
  return failed;
}
