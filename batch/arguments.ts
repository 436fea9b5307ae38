import { parseArgs } from "@std/cli/parse-args";
import { nearest } from "../command/nearest.ts";
import { orRefused, Refusal, type Refused, refuseFlagValue } from "../command/refusal.ts";
import { FILE, joinValues, oneOf, quote, type ValueOptions, valueReader, wholeNumber } from "../command/values.ts";
import { MEMORY_LIMITS, show } from "../pool/checks.ts";
import type { BatchOptions } from "./options.ts";

/** What the command line of `batch` asks for. */
export type BatchRequest =
  | { action: "run"; task: { module: string; name: string }; options: BatchOptions; reporter: ReporterOptions }
  | { action: "help" }
  | Refused;

/** How a batch reports its progress. */
export interface ReporterOptions {
  progress: "auto" | "json" | "none";
  dryRun: boolean;
}

export const BATCH_HELP = `Runs a task on every record of a file, on all cores.

Usage: deno run --allow-read --allow-write cli.ts batch TASKS.ts
         --input FILE --output FILE [options]

TASKS.ts is a module that exports a function: what it returns for a record, or
what its promise resolves with, is the result. Outside of a checkout this needs
'deno run --unstable-worker-options ...', or '--permissions inherit'.

Options:
  --task <name>          which export of TASKS.ts is the task (default: the
                         default export, or the only function)
  --input <file>         what to read: a path, a glob in quotes, or - for
                         standard input; may be given more than once
  --output <file>        where results go: a path, or - for standard output
  --format <format>      the format of the input: ndjson, lines or csv
                         (default: by the name of the input, else ndjson)
  --output-format <format>
                         ndjson, or lines for strings as they are (default: by
                         the name of the output, else ndjson)
  --errors <file>        where failed records go (default: the output's name
                         plus .errors.ndjson)
  --retries <number>     how often a failed record is run again (default: 0)
  --timeout <time>       how long a record may run: 500ms, 5s, 2m, or a share
                         of the median such as 500% (default: no limit)
  --memory-limit <MB>    how much heap a worker may have (default: V8's limit;
                         without this or --timeout a full heap ends the program)
  --halt <when>          when to give up: never, first, a number of failed
                         records, or a share such as 5% (default: never)
  --resume               go on where an earlier run ended
  --retry-failed         run only the failed records, and insert their results
                         where they belong
  --overwrite            replace the output
  --unordered            write results as they come
  --workers <number>     how many workers there are (default: one per core)
  --chunk <size>         how much a worker reads at a time, such as 256KB
                         (default: what takes about 100 ms, at most 1MB)
  --permissions <list>   what workers may do beyond reading the input, such as
                         net=example.com,api.org or env; inherit for what the
                         program may; may be given more than once
  --progress <how>       json for one JSON object per line on stderr, none for
                         nothing (default: one line that is kept up to date,
                         if stderr is a terminal and the results go elsewhere)
  --report <file>        write a report of the run as one page of HTML
  --dry-run <number>     only print the results of this many first records
  --help                 show this

At a terminal Deno asks before it denies a task something, and the batch waits
for the answer: 'deno run --no-prompt ...' prevents that.

Inputs compressed with gzip are decompressed; an output whose name ends in .gz
is compressed. Ctrl-C ends in an orderly way: go on with --resume. Exit
code: 0 if all went well, 1 if a record failed, 2 if something is wrong with
the command or its files, 3 if the batch gave up or could not go on, 130 after
Ctrl-C, 143 after SIGTERM.`;

interface Values {
  task: string;
  output: string;
  format: "ndjson" | "lines" | "csv";
  "output-format": "ndjson" | "lines";
  errors: string;
  retries: number;
  timeout: number | `${number}%`;
  "memory-limit": number;
  halt: number | "never" | `${number}%`;
  workers: number;
  chunk: number;
  progress: "json" | "none";
  report: string;
  "dry-run": number;
}

/** Each worker is a thread of some 10 MB, plus its lanes: no machine has room for many more. */
const MOST_WORKERS = 256;

const UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const SIZES = { B: 1, KB: 2 ** 10, MB: 2 ** 20 };

const VALUES: ValueOptions<Values> = {
  task: { need: "the name of an export", read: (text) => text },
  output: { need: "a path, or -", read: (text) => text },
  format: oneOf("ndjson", "lines", "csv"),
  "output-format": oneOf("ndjson", "lines"),
  errors: FILE,
  retries: wholeNumber(0, 1000),
  timeout: {
    need: "a time such as 500ms, 5s or 2m, or a share of the median such as 500%",
    read: (text) => readShare(text) ?? readQuantity(text, UNITS),
  },
  "memory-limit": wholeNumber(MEMORY_LIMITS.min, MEMORY_LIMITS.max),
  halt: {
    need: "never, first, a number of records, or a share such as 5%",
    read: (text) => text === "never" ? text : text === "first" ? 1 : readHalt(text),
  },
  workers: wholeNumber(1, MOST_WORKERS),
  chunk: {
    need: "a size from 1KB to 64MB, such as 256KB",
    read: (text) => {
      const bytes = readQuantity(text, SIZES);
      return bytes !== undefined && bytes >= SIZES.KB && bytes <= 64 * SIZES.MB ? Math.round(bytes) : undefined;
    },
  },
  progress: oneOf("json", "none"),
  report: FILE,
  "dry-run": wholeNumber(1, 1_000_000),
};

/** Options that may be given more than once. */
const LISTS = ["input", "permissions"];
const FLAGS = ["resume", "retry-failed", "overwrite", "unordered", "help"];
/** All options; of those that a mistyped one may mean, the first is suggested: `-h` means help, not halt. */
export const NAMES: readonly string[] = [...FLAGS, ...Object.keys(VALUES), ...LISTS];

const KINDS = ["env", "ffi", "import", "net", "read", "run", "sys", "write"] as const;

/** Reads the command line after `batch`. */
export function readBatchArguments(args: readonly string[]): BatchRequest {
  return orRefused(() => read(args));
}

function read(args: readonly string[]): BatchRequest {
  const parsed: Record<string, unknown> & { _: unknown[] } = parseArgs(
    joinValues(args, (name) => Object.hasOwn(VALUES, name) || LISTS.includes(name)),
    {
      string: [...Object.keys(VALUES), ...LISTS, "_"],
      boolean: FLAGS,
      collect: LISTS,
      unknown: (arg: string) => !arg.startsWith("-") || arg === "-" || refuseUnknown(arg),
    },
  );
  for (const arg of args) refuseFlagValue(arg, FLAGS);
  if (parsed.help) return { action: "help" };
  const given = parsed._.map(String);
  const [module, extra] = given;
  if (module === undefined) throw new Refusal("batch needs a module with the task: 'cli.ts batch TASKS.ts --input FILE --output FILE'");
  if (extra !== undefined) {
    const option = given.find((arg) => /^-./.test(arg));
    const advice = option === undefined ? "name inputs with '--input'" : "leave out the '--' before it";
    throw new Refusal(`batch takes one module, and no argument ${quote(option ?? extra)}: ${advice}`);
  }

  const value = valueReader(parsed, VALUES);
  const input = parsed.input as string[];
  if (input.length === 0 || input.includes("")) throw new Refusal("'--input' needs a value: a path, a glob in quotes, or -");
  if (input.indexOf("-") !== input.lastIndexOf("-")) {
    throw new Refusal("'--input' must name the standard input once: it is read to its end");
  }
  const dryRun = value("dry-run");
  const output = value("output");
  if (output === undefined && dryRun === undefined) throw new Refusal("'--output' needs a value: a path, or - for the standard output");
  const modes = ["resume", "overwrite", "retry-failed"].filter((name) => parsed[name]);
  if (modes.length > 1) throw new Refusal(`'--${modes[0]}' and '--${modes[1]}' exclude each other: leave one of them out`);
  const [mode] = modes;
  if (mode !== undefined && dryRun !== undefined) {
    throw new Refusal(`'--dry-run' and '--${mode}' exclude each other: leave one of them out`);
  }
  if (mode !== undefined && output === "-") throw new Refusal(`'--${mode}' needs an '--output' that is a file`);
  return {
    action: "run",
    task: { module, name: value("task") ?? "" },
    options: {
      input,
      output: dryRun === undefined ? output! : "-",
      inputFormat: value("format"),
      outputFormat: value("output-format"),
      errors: dryRun === undefined ? value("errors") : undefined,
      ordered: parsed.unordered !== true,
      workers: value("workers"),
      chunk: value("chunk"),
      timeout: value("timeout"),
      memoryLimit: value("memory-limit"),
      retries: value("retries"),
      halt: value("halt"),
      permissions: readPermissions(parsed.permissions as string[]),
      resume: parsed.resume === true,
      overwrite: parsed.overwrite === true,
      retryFailed: parsed["retry-failed"] === true,
      limit: dryRun,
      report: value("report"),
    },
    reporter: { progress: value("progress") ?? "auto", dryRun: dryRun !== undefined },
  };
}

function readPermissions(texts: readonly string[]): "inherit" | Deno.PermissionOptionsObject {
  if (texts.includes("inherit")) return "inherit";
  const permissions: Record<string, true | string[]> = {};
  for (const text of texts) {
    const [name, ...rest] = text.split("=");
    // An empty variable, as in net=$HOSTS, must not grant everything.
    const items = rest.length === 0 ? undefined : rest.join("=").split(",");
    if (!KINDS.includes(name as typeof KINDS[number])) {
      throw new Refusal(
        `'--permissions' must be inherit, or one of ${KINDS.join(", ")}, with or without a list: current value is ${show(text)}`,
      );
    }
    if (items?.includes("")) {
      throw new Refusal(
        `'--permissions' must have an item behind '=' and between commas, as in net=a.org,b.org: current value is ${show(text)}`,
      );
    }
    const before = permissions[name!];
    permissions[name!] = items === undefined || before === true ? true : [...before ?? [], ...items];
  }
  return permissions;
}

function refuseUnknown(arg: string): never {
  const [name] = arg.split("=", 1) as [string];
  const meant = nearest(name.replace(/^-+/, "").toLowerCase(), NAMES);
  throw new Refusal(
    `there is no option ${quote(name)}: ${meant === undefined ? "'batch --help' shows what there is" : `did you mean '--${meant}'?`}`,
  );
}

function readShare(text: string): `${number}%` | undefined {
  return /^\d+(\.\d+)?%$/.test(text) && parseFloat(text) > 0 ? text as `${number}%` : undefined;
}

function readHalt(text: string): number | `${number}%` | undefined {
  const share = readShare(text);
  if (share !== undefined) return parseFloat(share) <= 100 ? share : undefined;
  return /^[1-9]\d*$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined;
}

function readQuantity(text: string, units: Record<string, number>): number | undefined {
  const [, number, unit] = /^(\d+(?:\.\d+)?)([a-zA-Z]+)$/.exec(text) ?? [];
  const factor = unit === undefined ? undefined : units[unit];
  const quantity = factor === undefined ? undefined : Number(number) * factor;
  return quantity !== undefined && quantity > 0 && quantity < 2 ** 31 ? quantity : undefined;
}
