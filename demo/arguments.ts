import { parseArgs } from "@std/cli/parse-args";
import type { DemoOptions } from "./run_demo.ts";

/** What the command line asks for. */
export type Request = { action: "run"; options: DemoOptions } | { action: "help" | "version" } | { action: "refuse"; message: string };

export const HELP = `Runs jobs that each take a random time of up to a second through a pool of workers.

Usage: deno run cli.ts [options]

Options:
  --jobs <number>     how many jobs to run (default: 10)
  --workers <number>  how many workers there are, and how many jobs may be in flight (default: 4)
  --help              show this
  --version           show the version`;

const NUMBERS = ["jobs", "workers"] as const;

/** Reads the command line. */
export function readArguments(args: readonly string[]): Request {
  let stray: string | undefined;
  const parsed = parseArgs([...args], {
    string: NUMBERS,
    boolean: ["help", "version"],
    default: { jobs: "10", workers: "4" },
    unknown: (arg) => {
      stray ??= arg;
      return false;
    },
  });
  if (stray !== undefined) return refuse(`there is no option '${stray}'`);
  if (parsed.help) return { action: "help" };
  if (parsed.version) return { action: "version" };
  for (const name of NUMBERS) {
    if (!/^[1-9]\d{0,8}$/.test(parsed[name])) return refuse(`'--${name}' must be a positive integer: current value is "${parsed[name]}"`);
  }
  return { action: "run", options: { jobs: Number(parsed.jobs), workers: Number(parsed.workers) } };
}

function refuse(what: string): Request {
  return { action: "refuse", message: `process-pool: ${what}; '--help' shows what there is` };
}
