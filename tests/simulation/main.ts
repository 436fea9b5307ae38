/**
 * Runs schedules of the simulation, or replays one:
 *
 * ```
 * deno run tests/simulation/main.ts --count 200000 [--from 1]
 * deno run tests/simulation/main.ts --seed 4711
 * deno run tests/simulation/main.ts --scenario 4711
 * ```
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { simulate } from "./schedule.ts";
import { simulateInTime } from "./timed_run.ts";

/** After this many schedules the event loop gets a turn, in which it ends the program if a rejection was left unhandled. */
const SCHEDULES_PER_TURN = 1000;

/** Runs this many seeds; false if one of them breaks an invariant. */
async function runMany(from: number, count: number): Promise<boolean> {
  // Schedules are full of errors, and capturing their stacks takes a third of the time. A replay shows stacks.
  Error.stackTraceLimit = 0;
  const begin = performance.now();
  for (let seed = from; seed < from + count; seed++) {
    if (seed % SCHEDULES_PER_TURN === 0) await new Promise((resolve) => setTimeout(resolve));
    const violation = await simulate(seed);
    if (violation === undefined) continue;
    console.error(`seed ${seed} failed: ${violation.message}`);
    console.error(`replay it: deno run tests/simulation/main.ts --seed ${seed}`);
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
