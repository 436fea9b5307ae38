import { parseArgs } from "@std/cli/parse-args";
import { orRefused, Refusal, type Refused } from "../../command/refusal.ts";
import { valueReader, wholeNumber } from "../../command/values.ts";
import { type Contender, CONTENDERS } from "./contenders.ts";
import { type Workload, WORKLOADS } from "./workloads.ts";

/** What the command line asks for. */
export interface Plan {
  workloads: Workload[];
  contenders: Contender[];
  rounds: number;
  /** How long one measurement may take, in seconds. */
  timeout: number;
  json: string | undefined;
  chart: string | undefined;
  /** Results to show again in place of measuring. */
  from: string | undefined;
}

export type Request = { action: "compare"; plan: Plan } | { action: "help" } | Refused;

export const HELP = `Measures process-pool beside other pools, and prints a table.

Usage: deno task compare [options]

Options:
  --only <names>     only these workloads, separated by commas; the beginning
                     of a name stands for all that begin so: tiny,roundtrip
  --pools <names>    only these contenders; piscina stands for piscina@node
                     too, and node for all that run on Node
  --rounds <number>  how often each is measured, in turn (default: 4)
  --timeout <s>      how long one measurement may take (default: 60)
  --json <file>      write all figures there
  --chart <file>     draw a chart there, as SVG
  --from <file>      measure nothing: show what --json wrote
  --help             show this

The first time, the packages are installed into the user's cache by npm.

Workloads:
${WORKLOADS.map(({ name, title }) => `  ${name.padEnd(18)} ${title}`).join("\n")}

Contenders:
${CONTENDERS.map(({ name, title, runtime }) => `  ${name.padEnd(22)} ${title}, on ${runtime}`).join("\n")}

Exit code: 0 if all went well, 1 if a result was wrong or a measurement failed,
2 if an option is wrong, 130 after Ctrl-C.`;

const OPTIONS = ["only", "pools", "rounds", "timeout", "json", "chart", "from"];

/** Reads the command line. */
export function readArguments(args: readonly string[]): Request {
  return orRefused(() => read(args), "compare");
}

function read(args: readonly string[]): Request {
  const parsed: Record<string, unknown> & { _: unknown[] } = parseArgs([...args], {
    string: [...OPTIONS, "_"],
    boolean: ["help"],
    unknown: (arg: string) => {
      throw new Refusal(
        `there is no ${arg.startsWith("-") ? "option" : "argument"} '${arg.split("=", 1)[0]}': '--help' shows what there is`,
      );
    },
  });
  if (parsed._.length > 0) throw new Refusal(`there is no argument '${parsed._[0]}': '--help' shows what there is`);
  if (parsed.help) return { action: "help" };
  for (const name of OPTIONS) {
    if (parsed[name] === "") throw new Refusal(`'--${name}' needs a value: '--help' shows which`);
  }
  const number = valueReader(parsed, { rounds: wholeNumber(1, 100), timeout: wholeNumber(1, 3600) });
  const file = (name: string) => parsed[name] as string | undefined;
  if (file("from") !== undefined && file("json") !== undefined) throw new Refusal("'--from' measures nothing that '--json' could write");
  return {
    action: "compare",
    plan: {
      workloads: select("only", file("only"), WORKLOADS, isBeginning),
      contenders: select("pools", file("pools"), CONTENDERS, isMeant),
      rounds: number("rounds") ?? 4,
      timeout: number("timeout") ?? 60,
      json: file("json"),
      chart: file("chart"),
      from: file("from"),
    },
  };
}

/** A workload's name means it; what is none means all that begin so. */
function isBeginning({ name }: Workload, wanted: string): boolean {
  return name === wanted || (name.startsWith(wanted) && !WORKLOADS.some((one) => one.name === wanted));
}

/** A name means itself, and all that have more behind it; a runtime means all that run on it. */
function isMeant({ name, runtime }: Contender, wanted: string): boolean {
  return name === wanted || runtime === wanted || name.startsWith(`${wanted}/`) || name.startsWith(`${wanted}@`);
}

function select<T extends { name: string }>(
  option: string,
  names: string | undefined,
  all: readonly T[],
  meant: (one: T, wanted: string) => boolean,
): T[] {
  if (names === undefined) return [...all];
  const wanted = names.split(",").map((name) => name.trim());
  for (const name of wanted) {
    if (name === "" || !all.some((one) => meant(one, name))) {
      throw new Refusal(
        `'--${option}' must be one or more of ${all.map(({ name }) => name).join(", ")}: current value is ${JSON.stringify(name)}`,
      );
    }
  }
  return all.filter((one) => wanted.some((name) => meant(one, name)));
}
