import { parseArgs } from "@std/cli/parse-args";
import { show } from "../pool/checks.ts";
import { nearest } from "./nearest.ts";
import type { ReportOptions } from "./report.ts";
import type { DemoOptions } from "./run_demo.ts";

/** What the command line asks for. */
export type Request =
  | { action: "run"; options: DemoOptions; report: ReportOptions; page: string | undefined }
  | { action: "help" | "version" }
  | { action: "refuse"; message: string };

export const HELP = `Runs jobs that each sleep for up to a second on a pool of workers, and draws
which worker ran which job when.

Usage: deno run cli.ts [options]
       deno run cli.ts batch --help

Options:
  --jobs <number>        how many jobs to run (default: 10)
  --workers <number>     how many workers there are at the most (default: 4)
  --queue-size <number>  how many jobs may be in flight; the next one waits
                         until one of them is done (default: one a worker)
  --fail-rate <number>   what part of the jobs fails, from 0 to 1 (default: 0)
  --seed <number>        the same run again: each summary tells its seed
  --permissions none     workers may do nothing; outside of a checkout this
                         needs 'deno run --unstable-worker-options ...'
  --json                 one JSON object a line, in place of all text
  --quiet                no line for each job
  --no-timeline          no timeline
  --trace <file>         writes a trace, for ui.perfetto.dev; needs
                         'deno run --allow-write ...'
  --report <file>        writes a report as one page of HTML; needs the same
  --help                 show this
  --version              show the version

Ctrl-C puts in no more jobs and gives those that run a second; once more ends
at once. Exit code: 0 if all jobs finished, 1 if one failed, 2 if an option is
wrong, 130 after Ctrl-C.`;

/** An option with a value. */
interface ValueOption<T> {
  /** What the value has to be. */
  need: string;
  /** The value; undefined if the text is not one. */
  read(text: string): T | undefined;
}

interface Values {
  jobs: number;
  workers: number;
  "queue-size": number;
  "fail-rate": number;
  seed: number;
  permissions: "none";
  trace: string;
  report: string;
}

/** More jobs than this and the timeline's memory of them, about 100 bytes each, is worth thinking about. */
const MOST_JOBS = 1_000_000;

/** Each worker is a thread of about 9 MB, and all start at once: many more, and the first job waits for minutes. */
const MOST_WORKERS = 256;

/** What fates are drawn from has 32 bits; a longer seed would be the same as a shorter one. */
const LAST_SEED = 2 ** 32 - 1;

const VALUES: { [Name in keyof Values]: ValueOption<Values[Name]> } = {
  jobs: wholeNumber(1, MOST_JOBS),
  workers: wholeNumber(1, MOST_WORKERS),
  "queue-size": wholeNumber(1, MOST_JOBS),
  "fail-rate": {
    need: "a number from 0 to 1",
    read: (text) => /^(\d+\.?\d*|\.\d+)(e-?\d+)?$/.test(text) && Number(text) <= 1 ? Number(text) : undefined,
  },
  seed: wholeNumber(0, LAST_SEED),
  permissions: { need: '"none"', read: (text) => text === "none" ? text : undefined },
  trace: { need: "the path of a file", read: (text) => text },
  report: { need: "the path of a file", read: (text) => text },
};

const FLAGS = ["json", "quiet", "timeline", "help", "version"];

/** What is suggested in place of a mistyped option. */
const NAMES = [...Object.keys(VALUES), ...FLAGS.map((name) => name === "timeline" ? "no-timeline" : name)];

/** Why a command line is refused. */
class Refusal extends Error {}

/** Reads the command line. */
export function readArguments(args: readonly string[]): Request {
  try {
    return read(args);
  } catch (error) {
    if (error instanceof Refusal) return { action: "refuse", message: `process-pool: ${error.message}` };
    throw error;
  }
}

function read(args: readonly string[]): Request {
  const parsed: Record<string, unknown> & { _: unknown[] } = parseArgs(joinValues(args), {
    string: [...Object.keys(VALUES), "_"],
    boolean: FLAGS,
    negatable: ["timeline"],
    default: { timeline: true },
    unknown: refuseUnknown,
  });
  // What stands behind a '--' is not told to `unknown`.
  if (parsed._.length > 0) refuseArgument(String(parsed._[0]));
  for (const arg of args) refuseValue(arg);
  if (parsed.help) return { action: "help" };
  if (parsed.version) return { action: "version" };

  function value<Name extends keyof Values>(name: Name): Values[Name] | undefined {
    const text = parsed[name];
    return text === undefined ? undefined : readValue(name, text as string);
  }

  const { jobs = 10, workers = 4 } = { jobs: value("jobs"), workers: value("workers") };
  return {
    action: "run",
    options: {
      jobs,
      workers,
      queueSize: value("queue-size") ?? workers,
      failRate: value("fail-rate") ?? 0,
      seed: value("seed"),
      permissions: value("permissions"),
      trace: value("trace"),
    },
    report: { json: parsed.json === true, quiet: parsed.quiet === true, timeline: parsed.timeline === true },
    page: value("report"),
  };
}

/** Makes `--seed -1` into `--seed=-1`: parseArgs takes what begins with a dash for the next option. */
function joinValues(args: readonly string[]): string[] {
  const joined: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const [arg, next] = [args[i]!, args[i + 1]];
    if (arg === "--") return [...joined, ...args.slice(i)];
    const takesNext = arg.startsWith("--") && Object.hasOwn(VALUES, arg.slice(2)) && next !== undefined && !/^-[^\d.]/.test(next);
    if (takesNext) i++;
    joined.push(takesNext ? `${arg}=${next}` : arg);
  }
  return joined;
}

function readValue<Name extends keyof Values>(name: Name, text: string): Values[Name] {
  const { need, read } = VALUES[name];
  if (text === "") throw new Refusal(`'--${name}' needs a value: ${need}`);
  const value = read(text);
  if (value === undefined) throw new Refusal(`'--${name}' must be ${need}: current value is ${show(text)}`);
  return value;
}

/** Flags take no value; parseArgs would read `--json=no` as true. */
function refuseValue(arg: string): void {
  const [, option, name, value] = /^(--(?:no-)?([^=]*))=(.*)$/s.exec(arg) ?? [];
  if (name !== undefined && FLAGS.includes(name)) throw new Refusal(`'${option}' takes no value: current value is ${show(value)}`);
}

function refuseUnknown(arg: string): never {
  if (!arg.startsWith("-") || arg === "-") refuseArgument(arg);
  const [name] = arg.split("=", 1) as [string];
  throw new Refusal(`there is no option ${quote(name)}: ${suggestion(name) ?? "'--help' shows what there is"}`);
}

function refuseArgument(arg: string): never {
  const meant = /^\d+$/.test(arg) ? `did you mean '--jobs ${arg}'?` : suggestion(arg);
  throw new Refusal(`cli.ts takes no argument ${quote(arg)}: ${meant ?? "'--help' shows its options"}`);
}

function suggestion(mistyped: string): string | undefined {
  const name = nearest(mistyped.replace(/^-+|=.*$/gs, "").toLowerCase(), NAMES);
  return name && `did you mean '--${name}'?`;
}

/** In single quotes and on one line, whatever is in it. */
function quote(text: string): string {
  return `'${show(text).slice(1, -1)}'`;
}

function wholeNumber(min: number, max: number): ValueOption<number> {
  return {
    need: `an integer from ${min} to ${max}`,
    read: (text) => /^\d+$/.test(text) && Number(text) >= min && Number(text) <= max ? Number(text) : undefined,
  };
}
