import type { Fate } from "./fate.ts";

/** Who the job is for: the named arguments of the demo's jobs. */
export interface Person {
  name: string;
  age: number;
}

/**
 * The task of the demo: takes its time, and returns it in seconds or fails. It is sent to the workers as its text, so it uses nothing but
 * its arguments and what the platform has.
 */
export async function funDemo(_a: number, _b: number, _c: number, { name, seconds, fails }: Person & Fate): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  if (fails) throw new Error(`${name} was woken after ${seconds.toFixed(3)} s`);
  return seconds;
}
