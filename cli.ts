/**
 * The command line: runs the example of ten jobs on four workers, and draws which worker ran which job when; with `batch`, runs a task on
 * every record of a file.
 *
 * ```sh
 * deno run jsr:@procpool/process-pool/cli
 * deno run jsr:@procpool/process-pool/cli batch --help
 * ```
 *
 * @example From a program
 * ```ts
 * import { main } from "@procpool/process-pool/cli";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(await main(["--jobs", "2", "--workers", "2"]), 0);
 * ```
 *
 * @module
 */

import manifest from "./deno.json" with { type: "json" };
import { batchCommand } from "./batch/command.ts";
import { openPipe } from "./command/files.ts";
import { HELP, readArguments, type Request } from "./demo/arguments.ts";
import { explainUnwritable, writeOrExplain } from "./demo/files.ts";
import { Interrupt } from "./pool/interrupt.ts";
import { createReporter } from "./demo/reporter.ts";
import { describe, runDemo } from "./demo/run_demo.ts";
import { stdout, tellSignal } from "./demo/terminal.ts";
import { renderReport } from "./report/page.ts";
import { Recorder } from "./report/recorder.ts";

/**
 * Runs the command. While it runs it listens for Ctrl-C.
 *
 * @param args The arguments of the command line.
 * @returns The exit code: 0 if all went well, 1 if a job failed, 2 if the arguments are wrong, 130 after Ctrl-C, 143 after SIGTERM;
 * for `batch`, as its help says.
 */
export async function main(args: readonly string[]): Promise<number> {
  if (args[0] === "batch") return await batchCommand(args.slice(1));
  const request = readArguments(args);
  switch (request.action) {
    case "help":
      console.log(HELP);
      return 0;
    case "version":
      console.log(manifest.version);
      return 0;
    case "refuse":
      console.error(request.message);
      return 2;
    case "run":
      return await run(request);
  }
}

async function run({ options, reporter, report }: Extract<Request, { action: "run" }>): Promise<number> {
  const files = [["--trace", options.trace], ["--report", report]] as const;
  const wrong = files.flatMap(([option, path]) => path === undefined ? [] : explainUnwritable(option, path) ?? []);
  if (wrong.length > 0) {
    console.error(wrong.join("\n"));
    return 2;
  }
  // Opening a pipe blocks until somebody reads it. Ctrl-C ends the program meanwhile, as long as nobody listens for it.
  const pipe = options.trace === undefined ? undefined : openPipe(options.trace);
  using interrupt = new Interrupt({ onSignal: tellSignal });
  const recorder = report === undefined ? undefined : new Recorder();
  const observers = recorder === undefined ? [] : [recorder];
  const running = runDemo({ ...options, observers }, createReporter(reporter, stdout), interrupt.signal);
  // The pool has opened the pipe itself by now.
  pipe?.close();
  const summary = await running;
  const page = recorder && renderReport(recorder.data(describe(options, summary)));
  const unwritten = page && await writeOrExplain("--report", report!, page);
  if (unwritten !== undefined) {
    console.error(unwritten);
    return interrupt.exitCode ?? 2;
  }
  return interrupt.exitCode ?? (summary.failed === 0 ? 0 : 1);
}

if (import.meta.main) {
  Deno.exitCode = await main(Deno.args);
  // Standard input that was not read to its end would keep the program waiting.
  if (Deno.args[0] === "batch") Deno.exit();
}
