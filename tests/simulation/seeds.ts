import { simulate } from "./schedule.ts";

/** Consecutive seeds. */
export interface Seeds {
  from: number;
  count: number;
}

/** What came of them. */
export interface Outcome {
  /** How many hold. */
  held: number;
  /** The first that breaks an invariant, and how. */
  violation?: { seed: number; message: string };
}

/** Runs schedules with these seeds, up to the first that breaks an invariant. */
export async function runSeeds({ from, count }: Seeds): Promise<Outcome> {
  // Schedules are full of errors, and capturing their stacks takes a third of the time. A replay shows stacks.
  Error.stackTraceLimit = 0;
  for (let held = 0; held < count; held++) {
    const seed = from + held;
    const violation = await simulate(seed);
    if (violation !== undefined) return { held, violation: { seed, message: violation.message } };
  }
  // A turn of the event loop, in which a rejection that was left unhandled ends the worker.
  await new Promise((resolve) => setTimeout(resolve));
  return { held: count };
}
