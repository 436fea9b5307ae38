import { textOf } from "../pool/checks.ts";
import { Interrupt } from "../pool/interrupt.ts";
import { BATCH_HELP, type BatchRequest, readBatchArguments } from "./arguments.ts";
import { batch } from "./batch.ts";
import { writeAll } from "./bytes.ts";
import { BatchError, CANNOT_RUN } from "./errors.ts";
import { createReporter, type ReporterTerminal } from "./reporter.ts";

/**
 * Runs the command `batch`. While it runs it listens for Ctrl-C.
 *
 * @param args The arguments after `batch`.
 * @returns The exit code, as the help says.
 */
export async function batchCommand(args: readonly string[]): Promise<number> {
  const request = readBatchArguments(args);
  switch (request.action) {
    case "help":
      console.log(BATCH_HELP);
      return 0;
    case "refuse":
      console.error(request.message);
      return 2;
    case "run":
      return await run(request);
  }
}

async function run({ task, options, reporter: { progress: wanted, dryRun } }: BatchRequest & { action: "run" }): Promise<number> {
  // Results on a terminal show the progress themselves, and would mix with a progress line.
  const isShown = options.output === "-" && Deno.stdout.isTerminal();
  const progress = wanted === "auto" && isShown ? "none" : wanted;
  const kind = dryRun ? "dry run" : options.retryFailed ? "retry" : options.overwrite ? "overwrite" : "batch";
  const reporter = createReporter(progress, stderr, kind);
  using interrupt = new Interrupt({
    onSignal(signal, received) {
      reporter.tell(
        "signal",
        `${signal}: ${received === "first" ? "running records get 1 s, a second signal ends at once" : "ended at once"}`,
      );
    },
  });
  using _ = throughHangup();
  try {
    const summary = await batch(task.name === "" ? task.module : task, {
      ...options,
      signal: interrupt.signal,
      onProgress: (progress) => reporter.progress(progress),
    });
    reporter.summary(summary);
    if (summary.outcome === "halted") return 3;
    return interrupt.exitCode ?? (summary.failed === 0 ? 0 : 1);
  } catch (error) {
    reporter.clear();
    const known = error instanceof BatchError || error instanceof TypeError || error instanceof RangeError;
    const resumable = error instanceof BatchError && error.resumable;
    const hint = !resumable || options.output === "-"
      ? ""
      : options.retryFailed
      ? ": all is as it was before, '--retry-failed' begins anew"
      : ": what is done is kept, '--resume' goes on";
    reporter.tell("error", known ? `${error.message.replace(CANNOT_RUN, "")}${hint}` : `Cannot go on: ${textOf(error)}`);
    if (known && !resumable) return 2;
    return interrupt.exitCode ?? 3;
  }
}

/**
 * Lets the program go on after a hangup, if none of its streams is a terminal, as under `nohup`. Such a program should ignore SIGHUP, but
 * Deno overrides that, and would let it end.
 */
function throughHangup(): Disposable | undefined {
  const streams = [Deno.stdin, Deno.stdout, Deno.stderr];
  if (Deno.build.os === "windows" || streams.some((stream) => stream.isTerminal())) return undefined;
  const ignore = () => {};
  Deno.addSignalListener("SIGHUP", ignore);
  return { [Symbol.dispose]: () => Deno.removeSignalListener("SIGHUP", ignore) };
}

const encoder = new TextEncoder();

const stderr: ReporterTerminal = {
  write(text) {
    try {
      writeAll(Deno.stderr, encoder.encode(text));
    } catch {
      // Nobody reads it any more, as with `2>&1 | head`, its terminal is closed, or its disk is full: no reason to end a batch.
    }
  },
  get isTerminal() {
    return Deno.stderr.isTerminal();
  },
  get columns() {
    try {
      return Deno.consoleSize().columns || 80;
    } catch {
      return 80;
    }
  },
};
