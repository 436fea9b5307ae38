import { parseArgs } from "@std/cli/parse-args";
import { normalize } from "node:path";
import { nearest } from "../command/nearest.ts";
import { orRefused, Refusal, type Refused, refuseFlagValue } from "../command/refusal.ts";
import { FILE, joinValues, quote, type ValueOptions, valueReader, wholeNumber } from "../command/values.ts";
import type { ReporterOptions } from "./reporter.ts";
import type { DemoOptions } from "./run_demo.ts";

/** What the command line asks for. */
export type Request =
  | { action: "run"; options: DemoOptions; reporter: ReporterOptions; report: string | undefined }
  | { action: "help" | "version" }
  | Refused;

export const HELP = `Runs jobs that each sleep for up to a second on a pool of workers, and draws
which worker ran which job when.

Usage: deno run cli.ts [options]
       deno run cli.ts batch --help

Options:
  --jobs <number>        how many jobs to run (default: 10)
  --workers <number>     the greatest number of workers (default: 4)
  --queue-size <number>  how many jobs may be in flight; the next one waits
                         until one of them is done (default: one per worker)
  --fail-rate <number>   the share of jobs that fail, from 0 to 1 (default: 0)
  --seed <number>        repeat a run: each summary shows its seed
  --permissions none     workers may do nothing; outside of a checkout this
                         needs 'deno run --unstable-worker-options ...'
  --json                 one JSON object per line, instead of text
  --quiet                no line for each job
  --no-timeline          no timeline
  --trace <file>         write a trace, for ui.perfetto.dev; needs
                         'deno run --allow-write ...'
  --report <file>        write a report as one page of HTML; needs the same
  --help                 show this
  --version              show the version

After Ctrl-C no more jobs are put in, and running ones get a second to finish;
another Ctrl-C ends at once. Exit code: 0 if all jobs finished, 1 if one failed,
2 if an option is wrong, 130 after Ctrl-C, 143 after SIGTERM.`;

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

/** With more jobs than this, what the timeline remembers, about 100 bytes each, becomes too much. */
const MOST_JOBS = 1_000_000;

/** Each worker is a thread of about 9 MB, and all start at once: many more, and the first job waits for minutes. */
const MOST_WORKERS = 256;

/** The generator of fates has 32 bits; a longer seed would equal a shorter one. */
const LAST_SEED = 2 ** 32 - 1;

const VALUES: ValueOptions<Values> = {
  jobs: wholeNumber(1, MOST_JOBS),
  workers: wholeNumber(1, MOST_WORKERS),
  "queue-size": wholeNumber(1, MOST_JOBS),
  "fail-rate": {
    need: "a number from 0 to 1",
    read: (text) => /^(\d+\.?\d*|\.\d+)(e-?\d+)?$/.test(text) && Number(text) <= 1 ? Number(text) : undefined,
  },
  seed: wholeNumber(0, LAST_SEED),
  permissions: { need: '"none"', read: (text) => text === "none" ? text : undefined },
  trace: FILE,
  report: FILE,
};

const FLAGS = ["json", "quiet", "timeline", "help", "version"];

/** The suggestion for a mistyped option. */
const NAMES = [...Object.keys(VALUES), ...FLAGS.map((name) => name === "timeline" ? "no-timeline" : name)];

/** Reads the command line. */
export function readArguments(args: readonly string[]): Request {
  return orRefused(() => read(args));
}

function read(args: readonly string[]): Request {
  const parsed: Record<string, unknown> & { _: unknown[] } = parseArgs(joinValues(args, (name) => Object.hasOwn(VALUES, name)), {
    string: [...Object.keys(VALUES), "_"],
    boolean: FLAGS,
    negatable: ["timeline"],
    default: { timeline: true },
    unknown: refuseUnknown,
  });
  // `unknown` is not called for what follows a '--'.
  if (parsed._.length > 0) refuseArgument(String(parsed._[0]));
  for (const arg of args) refuseFlagValue(arg, FLAGS);
  if (parsed.help) return { action: "help" };
  if (parsed.version) return { action: "version" };

  const value = valueReader(parsed, VALUES);
  const [trace, report] = [value("trace"), value("report")];
  if (trace !== undefined && report !== undefined && normalize(trace) === normalize(report)) {
    throw new Refusal(`'--trace' and '--report' must be two files: both are ${quote(report)}`);
  }
  const workers = value("workers") ?? 4;
  return {
    action: "run",
    options: {
      jobs: value("jobs") ?? 10,
      workers,
      queueSize: value("queue-size") ?? workers,
      failRate: value("fail-rate") ?? 0,
      seed: value("seed"),
      permissions: value("permissions"),
      trace,
    },
    reporter: { json: parsed.json === true, quiet: parsed.quiet === true, timeline: parsed.timeline === true },
    report,
  };
}

function refuseUnknown(arg: string): never {
  if (!arg.startsWith("-") || arg === "-") refuseArgument(arg);
  const [name] = arg.split("=", 1) as [string];
  throw new Refusal(`there is no option ${quote(name)}: ${suggestion(name) ?? "'--help' shows what there is"}`);
}

function refuseArgument(arg: string): never {
  // Only behind a '--' does an option come here.
  const meant = /^-./.test(arg) ? "leave out the '--' before it" : /^\d+$/.test(arg) ? `did you mean '--jobs ${arg}'?` : suggestion(arg);
  throw new Refusal(`cli.ts takes no argument ${quote(arg)}: ${meant ?? "'--help' shows its options"}`);
}

function suggestion(mistyped: string): string | undefined {
  const name = nearest(mistyped.replace(/^-+|=.*$/gs, "").toLowerCase(), NAMES);
  return name && `did you mean '--${name}'?`;
}
