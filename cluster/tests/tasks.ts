/**
 * The tasks of the tests. They run in the workers of real hosts.
 *
 * @module
 */

import { currentJob, PoolBrokenError, PoolClosedError } from "@procpool/process-pool";

export function add(a: number, b: number): number {
  return a + b;
}

export function double(x: number): number {
  return x * 2;
}

/** The process id of the host, after a while. */
export async function hostOf(ms: number): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, ms));
  return Deno.pid;
}

export function echo(value: unknown): unknown {
  return value;
}

export function nothing(): void {}

export function greet(greeting: string, { name }: { name: string }): string {
  return `${greeting}, ${name}!`;
}

export function jobId(): unknown {
  return currentJob()?.id;
}

/** Computes for this long, in ms. */
export function spin(ms: number): string {
  const end = performance.now() + ms;
  while (performance.now() < end);
  return "span";
}

export function spinForEver(): never {
  for (;;);
}

/** A result of this many characters. */
export function large(length: number): string {
  return "x".repeat(length);
}

/** The same, with a line in a file for each run. */
export function noteLarge({ file, length }: { file: string; length: number }): string {
  Deno.writeTextFileSync(file, "run\n", { append: true });
  return "x".repeat(length);
}

/** Throws what a host without workers would throw. */
export function pretend(name: "PoolBrokenError" | "PoolClosedError"): never {
  throw name === "PoolBrokenError" ? new PoolBrokenError("mine", { attempts: 1, cause: undefined }) : new PoolClosedError("mine");
}

export { PoolBrokenError, PoolClosedError };

export function bad(value: unknown): unknown {
  return value === "map" ? new Map() : 1n;
}

export function fail(): never {
  throw Object.assign(new RangeError("out of range", { cause: new TypeError("within") }), { code: 7, when: new Date(0) });
}

/** Ends its worker if it is given this number. */
export function exitAt(x: number, bad: number): number {
  if (x === bad) Deno.exit(3);
  return x;
}

export function exitAt13(x: number): number {
  if (x === 13) Deno.exit(3);
  return x * 2;
}

/** Ends the whole host if it is given 13. */
export function killHostAt13(x: number): number {
  if (x === 13) Deno.kill(Deno.pid, "SIGKILL");
  return x * 2;
}

/** The same, with a line in a file for each run. */
export function noteAndKillHostAt13({ file, x }: { file: string; x: number }): number {
  Deno.writeTextFileSync(file, `${x}\n`, { append: true });
  return killHostAt13(x);
}

/** Adds a line to a file for each run, so that a test can count runs, and then waits until another file exists. */
export async function note(file: string, until?: string): Promise<string> {
  Deno.writeTextFileSync(file, `${Deno.pid}\n`, { append: true });
  while (until !== undefined && !exists(until)) await new Promise((resolve) => setTimeout(resolve, 5));
  return "noted";
}

/** Ends its worker in its first run, which it recognises by a file. */
export function unsteady(file: string): string {
  if (exists(file)) return "steady";
  Deno.writeTextFileSync(file, "");
  Deno.exit(3);
}

/** Which item this is in which run. If it is given a file, it ends its worker in its first run. */
export function whichRun(file: string): unknown {
  if (file !== "") unsteady(file);
  const { id, attempt } = currentJob()!;
  return [id, attempt];
}

/** Fills the heap. */
export function fill(): never {
  for (const kept: unknown[] = [];;) kept.push({ values: [kept.length, 1, 2, 3] });
}

function exists(file: string): boolean {
  try {
    return Deno.statSync(file).isFile;
  } catch {
    return false;
  }
}
