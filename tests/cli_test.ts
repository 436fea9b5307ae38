import { assert, assertEquals, assertMatch } from "@std/assert";
import { main } from "@procpool/process-pool/cli";
import manifest from "../deno.json" with { type: "json" };
import { HELP, readArguments } from "../demo/arguments.ts";
import { runDemo } from "../demo/run_demo.ts";
import { granted } from "./fixtures.ts";

Deno.test("readArguments() takes the defaults, numbers, and what is asked about the command itself", () => {
  assertEquals(readArguments([]), { action: "run", options: { jobs: 10, workers: 4 } });
  assertEquals(readArguments(["--jobs", "3", "--workers=2"]), { action: "run", options: { jobs: 3, workers: 2 } });
  assertEquals(readArguments(["--help"]), { action: "help" });
  assertEquals(readArguments(["--version"]), { action: "version" });
});

const MISTAKES: [args: string[], message: string][] = [
  [["--job", "3"], "there is no option '--job'"],
  [["-x"], "there is no option '-x'"],
  [["run"], "there is no option 'run'"],
  [["--jobs", "0"], "'--jobs' must be a positive integer: current value is \"0\""],
  [["--jobs", "1.5"], "'--jobs' must be a positive integer: current value is \"1.5\""],
  [["--jobs"], "'--jobs' must be a positive integer: current value is \"\""],
  [["--workers", "four"], "'--workers' must be a positive integer: current value is \"four\""],
  [["--workers=-1"], "'--workers' must be a positive integer: current value is \"-1\""],
];

for (const [args, message] of MISTAKES) {
  Deno.test(`readArguments() refuses '${args.join(" ")}' in one line`, () => {
    assertEquals(readArguments(args), { action: "refuse", message: `process-pool: ${message}; '--help' shows what there is` });
  });
}

Deno.test("runDemo() prints a line for each job that passed the gate and for each that is done, with no more in flight than workers", async () => {
  const lines: string[] = [];
  let inFlight = 0;
  let most = 0;
  const failed = await runDemo({ jobs: 6, workers: 2 }, (line) => {
    lines.push(line);
    // The line of a job that came in may follow those of jobs that came in and are done.
    inFlight += line.startsWith("put in") ? 1 : -1;
    most = Math.max(most, inFlight);
  });
  assertEquals([failed, lines.length], [0, 12]);
  assertEquals(lines.filter((line) => line.startsWith("put in")), [0, 1, 2, 3, 4, 5].map((id) => `put in job[${id}]`));
  const done = lines.filter((line) => !line.startsWith("put in")).sort();
  for (const [id, line] of done.entries()) assertMatch(line, new RegExp(`^job\\[${id}\\] worker\\[funDemo\\] finish: \\[0\\.\\d+\\]$`));
  assert(most <= 2, `${most} jobs were in flight at once`);
});

Deno.test("main() gives exit code 0 for help and version, 2 for a mistake", async () => {
  const printed: string[] = [];
  const { log, error } = console;
  console.log = console.error = (line: string) => printed.push(line);
  try {
    assertEquals([await main(["--help"]), await main(["--version"]), await main(["--nope"])], [0, 0, 2]);
  } finally {
    Object.assign(console, { log, error });
  }
  assertEquals(printed, [HELP, manifest.version, "process-pool: there is no option '--nope'; '--help' shows what there is"]);
});

Deno.test("cli.ts runs ten jobs on four workers without any permission, and ends by itself (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const { code, stdout, stderr } = await deno("run", "--no-prompt", "cli.ts");
  assertEquals([code, stderr], [0, ""]);
  const lines = stdout.trimEnd().split("\n");
  assertEquals(lines.length, 20);
  assertEquals(lines.slice(0, 4), [0, 1, 2, 3].map((id) => `put in job[${id}]`));
  assertEquals(lines.filter((line) => /^job\[\d\] worker\[funDemo\] finish: \[0\.\d+\]$/.test(line)).length, 10);
});

Deno.test("cli.ts ends with code 2 and one line on stderr for an unknown option (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const { code, stdout, stderr } = await deno("run", "cli.ts", "--nope");
  assertEquals([code, stdout, stderr], [2, "", "process-pool: there is no option '--nope'; '--help' shows what there is\n"]);
});

async function deno(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const cwd = new URL("../", import.meta.url);
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: ["--quiet", ...args], cwd, env: { NO_COLOR: "1" } })
    .output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}
