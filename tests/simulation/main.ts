/**
 * Runs schedules of the simulation on all cores, by the pool itself, or replays one here:
 *
 * ```
 * deno run --allow-read tests/simulation/main.ts --count 200000 [--from 1]
 * deno run tests/simulation/main.ts --seed 4711
 * deno run tests/simulation/main.ts --scenario 4711
 * ```
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { ProcessPool } from "../../mod.ts";
import { simulate } from "./schedule.ts";
import { runSeeds, type Seeds } from "./seeds.ts";
import { simulateInTime } from "./timed_run.ts";

/** So many seeds are a job. */
const SEEDS_A_JOB = 1000;

function* parts(from: number, count: number): Generator<Seeds> {
  for (let done = 0; done < count; done += SEEDS_A_JOB) yield { from: from + done, count: Math.min(SEEDS_A_JOB, count - done) };
}

/** Runs this many seeds; false if one of them breaks an invariant. */
async function runMany(from: number, count: number): Promise<boolean> {
  const begin = performance.now();
  await using pool = new ProcessPool({ modules: [import.meta.resolve("./seeds.ts")] });
  let allHeld = 0;
  for await (const { held, violation } of pool.map(runSeeds, parts(from, count), { chunkSize: 1 })) {
    allHeld += held;
    if (violation === undefined) continue;
    const { seed, message } = violation;
    console.error(`seed ${seed} failed: ${message}`);
    console.error(`replay it: deno run tests/simulation/main.ts --seed ${seed}`);
    return false;
  }
  // The pool that is under test must not pass over schedules.
  if (allHeld !== count) {
    console.error(`Cannot say that all schedules hold as only ${allHeld} of ${count} were run`);
    return false;
  }
  const seconds = (performance.now() - begin) / 1000;
  console.log(`${count} schedules from seed ${from} hold in ${seconds.toFixed(1)} s: ${Math.round(count / seconds)} a second`);
  return true;
}

/** Runs one seed and shows what happens; false if it breaks an invariant. */
async function replay(seed: number, run: typeof simulate): Promise<boolean> {
  const violation = await run(seed, (line) => console.log(line));
  if (violation === undefined) console.log(`seed ${seed} holds`);
  else console.error(`seed ${seed} failed: ${violation.message}`, violation.cause ?? violation);
  return violation === undefined;
}

const options = ["seed", "scenario", "count", "from"];
const { seed, scenario, count, from } = parseArgs(Deno.args, { string: options, default: { count: "200000", from: "1" } });
const holds = scenario !== undefined
  ? await replay(Number(scenario), simulateInTime)
  : seed !== undefined
  ? await replay(Number(seed), simulate)
  : await runMany(Number(from), Number(count));
if (!holds) Deno.exit(1);
