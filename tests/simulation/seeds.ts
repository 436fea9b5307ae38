import { simulate } from "./schedule.ts";

/** Consecutive seeds. */
export interface Seeds {
  from: number;
  count: number;
}

/** Runs schedules with these seeds: returns the first that breaks an invariant, and which. */
export async function firstViolation({ from, count }: Seeds): Promise<{ seed: number; message: string } | undefined> {
  // Schedules are full of errors, and capturing their stacks takes a third of the time. A replay shows stacks.
  Error.stackTraceLimit = 0;
  for (let seed = from; seed < from + count; seed++) {
    const violation = await simulate(seed);
    if (violation !== undefined) return { seed, message: violation.message };
  }
  // A turn of the event loop, in which a rejection that was left unhandled ends the worker.
  await new Promise((resolve) => setTimeout(resolve));
  return undefined;
}
