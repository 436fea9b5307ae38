import { assert, assertEquals } from "@std/assert";
import { HELP, readArguments } from "../demo/arguments.ts";

const OPTIONS = { jobs: 10, workers: 4, queueSize: 4, failRate: 0, seed: undefined, permissions: undefined, trace: undefined };
const REPORTER = { json: false, quiet: false, timeline: true };

Deno.test("readArguments() has a default for all", () => {
  assertEquals(readArguments([]), { action: "run", options: OPTIONS, reporter: REPORTER, report: undefined });
});

Deno.test("readArguments() takes all options, with or without an equals sign", () => {
  const spaced = "--jobs 3 --workers 2 --queue-size 7 --fail-rate 0.25 --seed 0 --permissions none --trace a.json --report b.html " +
    "--json --quiet --no-timeline";
  const expected = {
    action: "run" as const,
    options: { jobs: 3, workers: 2, queueSize: 7, failRate: 0.25, seed: 0, permissions: "none" as const, trace: "a.json" },
    reporter: { json: true, quiet: true, timeline: false },
    report: "b.html",
  };
  assertEquals(readArguments(spaced.split(" ")), expected);
  assertEquals(readArguments(spaced.replaceAll(/ (?!--)/g, "=").split(" ")), expected);
});

Deno.test("readArguments() lets as many jobs in flight as there are workers, and takes the last of what comes twice", () => {
  assertEquals(readArguments(["--workers", "9", "--jobs=1", "--jobs=2"]), {
    action: "run",
    options: { ...OPTIONS, jobs: 2, workers: 9, queueSize: 9 },
    reporter: REPORTER,
    report: undefined,
  });
});

for (const text of ["0", "1", "1.0", ".5", "1e-3", "0.125"]) {
  Deno.test(`readArguments() takes '--fail-rate ${text}'`, () => {
    const request = readArguments(["--fail-rate", text]);
    assertEquals(request.action === "run" && request.options.failRate, Number(text));
  });
}

Deno.test("readArguments() takes what is asked about the command itself", () => {
  assertEquals(readArguments(["--help"]), { action: "help" });
  assertEquals(readArguments(["--version"]), { action: "version" });
  assertEquals(readArguments(["--jobs", "3", "--help"]), { action: "help" });
});

Deno.test("HELP names every option, in 80 columns", () => {
  for (const option of "jobs workers queue-size fail-rate seed permissions trace report json quiet no-timeline help version".split(" ")) {
    assert(HELP.includes(`  --${option} `), option);
  }
  for (const line of HELP.split("\n")) assert(line.length <= 80, line);
});

const [MILLION, HUNDREDS] = ["an integer from 1 to 1000000", "an integer from 1 to 256"];
const SEED = "an integer from 0 to 4294967295";

const MISTAKES: [args: string[], message: string][] = [
  [["--job", "3"], "there is no option '--job': did you mean '--jobs'?"],
  [["--jbos=3"], "there is no option '--jbos': did you mean '--jobs'?"],
  [["--JOBS", "3"], "there is no option '--JOBS': did you mean '--jobs'?"],
  [["-jobs", "3"], "there is no option '-jobs': did you mean '--jobs'?"],
  [["-j", "3"], "there is no option '-j': did you mean '--jobs'?"],
  [["-h"], "there is no option '-h': did you mean '--help'?"],
  [["--queuesize", "3"], "there is no option '--queuesize': did you mean '--queue-size'?"],
  [["--rate", "1"], "there is no option '--rate': did you mean '--fail-rate'?"],
  [["--no-timelin"], "there is no option '--no-timelin': did you mean '--no-timeline'?"],
  [["--nope"], "there is no option '--nope': '--help' shows what there is"],
  [["--no-json"], "there is no option '--no-json': '--help' shows what there is"],
  [["-x"], "there is no option '-x': '--help' shows what there is"],
  [["--constructor"], "there is no option '--constructor': '--help' shows what there is"],
  [["--a\n\x1b[2Jb"], "there is no option '--a\\n\\u001b[2Jb': '--help' shows what there is"],
  [["run"], "cli.ts takes no argument 'run': '--help' shows its options"],
  [["help"], "cli.ts takes no argument 'help': did you mean '--help'?"],
  [["20"], "cli.ts takes no argument '20': did you mean '--jobs 20'?"],
  [["jobs=3"], "cli.ts takes no argument 'jobs=3': did you mean '--jobs'?"],
  [["-"], "cli.ts takes no argument '-': '--help' shows its options"],
  [[""], "cli.ts takes no argument '': '--help' shows its options"],
  [["--", "--jobs", "3"], "cli.ts takes no argument '--jobs': leave out the '--' before it"],
  [["--json=yes"], `'--json' takes no value: current value is "yes"`],
  [["--no-timeline=1"], `'--no-timeline' takes no value: current value is "1"`],
  [["--jobs"], `'--jobs' needs a value: ${MILLION}`],
  [["--jobs="], `'--jobs' needs a value: ${MILLION}`],
  [["--jobs", ""], `'--jobs' needs a value: ${MILLION}`],
  [["--jobs", "--json"], `'--jobs' needs a value: ${MILLION}`],
  [["--permissions"], `'--permissions' needs a value: "none"`],
  [["--jobs", "0"], `'--jobs' must be ${MILLION}: current value is "0"`],
  [["--jobs", "-1"], `'--jobs' must be ${MILLION}: current value is "-1"`],
  [["--jobs", "1.5"], `'--jobs' must be ${MILLION}: current value is "1.5"`],
  [["--jobs", "1e3"], `'--jobs' must be ${MILLION}: current value is "1e3"`],
  [["--jobs", "0x10"], `'--jobs' must be ${MILLION}: current value is "0x10"`],
  [["--jobs", "1000001"], `'--jobs' must be ${MILLION}: current value is "1000001"`],
  [["--workers", "four"], `'--workers' must be ${HUNDREDS}: current value is "four"`],
  [["--workers=-1"], `'--workers' must be ${HUNDREDS}: current value is "-1"`],
  [["--workers", "257"], `'--workers' must be ${HUNDREDS}: current value is "257"`],
  [["--queue-size", "0"], `'--queue-size' must be ${MILLION}: current value is "0"`],
  [["--fail-rate", "1.5"], `'--fail-rate' must be a number from 0 to 1: current value is "1.5"`],
  [["--fail-rate", "-0.1"], `'--fail-rate' must be a number from 0 to 1: current value is "-0.1"`],
  [["--fail-rate", "50%"], `'--fail-rate' must be a number from 0 to 1: current value is "50%"`],
  [["--fail-rate", "NaN"], `'--fail-rate' must be a number from 0 to 1: current value is "NaN"`],
  [["--seed", "-1"], `'--seed' must be ${SEED}: current value is "-1"`],
  [["--seed", "4294967296"], `'--seed' must be ${SEED}: current value is "4294967296"`],
  [["--permissions", "all"], `'--permissions' must be "none": current value is "all"`],
  [["--trace", "-"], `'--trace' must be the path of a file: current value is "-"`],
  [["--report", "-"], `'--report' must be the path of a file: current value is "-"`],
];

for (const [args, message] of MISTAKES) {
  Deno.test(`readArguments() refuses ${JSON.stringify(args.join(" "))} in one line`, () => {
    assertEquals(readArguments(args), { action: "refuse", message: `process-pool: ${message}` });
  });
}

Deno.test("readArguments() refuses one file for the trace and the report", () => {
  const message = "process-pool: '--trace' and '--report' must be two files: both are './x'";
  assertEquals(readArguments(["--trace", "x", "--report", "./x"]), { action: "refuse", message });
});
