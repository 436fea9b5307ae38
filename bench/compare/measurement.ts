import type { Contender, Runtime } from "./contenders.ts";
import type { Outcome } from "./results.ts";
import { median } from "./statistics.ts";
import type { Workload } from "./workloads.ts";

/** What every measurement is given. */
export interface MeasureOptions {
  packages: string | undefined;
  /** In seconds. */
  timeout: number;
  /** Ends the measurement: its process is killed. */
  signal: AbortSignal;
}

const root = new URL("../../", import.meta.url);

/** How each runtime is started. Ours needs the configuration of this repository; the others must not be slowed down by reading it. */
function command(contender: Contender, request: string): [string, string[]] {
  const script = new URL(`bench/compare/child/main.${contender.runtime === "python" ? "py" : "mjs"}`, root);
  const args = [contender.runtime === "python" ? contender.file : `./${contender.file}`, request];
  const commands: Record<Runtime, [string, string[]]> = {
    deno: [Deno.execPath(), ["run", "--allow-all", "--quiet", ...config(contender), path(script), ...args]],
    node: ["node", [path(script), ...args]],
    python: ["python3", ["-B", path(script), ...args]],
  };
  return commands[contender.runtime];
}

function config({ kind }: Contender): string[] {
  return kind === "ours" ? ["--config", path(new URL("deno.json", root))] : ["--no-config", "--no-lock", "--node-modules-dir=manual"];
}

/** Measures once, in a fresh process. */
export async function measure(workload: Workload, contender: Contender, options: MeasureOptions): Promise<Outcome> {
  if (workload.drive !== "coldStart") return (await runChild(workload, contender, options)).outcome;
  // Once for the caches of disk and compiler, which a program that is run again has filled.
  const first = await runChild(workload, contender, options);
  if ("failure" in first.outcome) return first.outcome;
  const times: number[] = [];
  for (let i = 0; i < workload.size.repeats!; i++) {
    const { outcome, time } = await runChild(workload, contender, options);
    if ("failure" in outcome) return outcome;
    times.push(time);
  }
  return { figures: { time: median(times.sort((a, b) => a - b)) } };
}

/** Runs a child to its end; gives what it printed last, and how long it took, in ms. */
async function runChild(
  { drive, size, workers }: Workload,
  contender: Contender,
  { packages, timeout, signal }: MeasureOptions,
): Promise<{ outcome: Outcome; time: number }> {
  signal.throwIfAborted();
  const [name, args] = command(contender, JSON.stringify({ drive, size, workers, variant: contender.variant }));
  const limit = AbortSignal.timeout(timeout * 1000);
  const begin = performance.now();
  const child = new Deno.Command(name, {
    args,
    env: packages === undefined ? {} : { COMPARE_PACKAGES: packages },
    stdout: "piped",
    stderr: "piped",
    stdin: "null",
    signal: AbortSignal.any([signal, limit]),
  }).spawn();
  const [status, time, stdout, stderr] = await Promise.all([
    child.status,
    child.status.then(() => performance.now() - begin),
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  signal.throwIfAborted();
  if (limit.aborted) return { outcome: { failure: { kind: "timeout", message: `took more than ${timeout} s` } }, time };
  return { outcome: read(stdout) ?? { failure: { kind: "failed", message: lastWords(stderr) || `exit code ${status.code}` } }, time };
}

/** The outcome that a child printed in its last line. */
function read(stdout: string): Outcome | undefined {
  const last = stdout.trimEnd().split("\n").at(-1)!;
  return last.startsWith("{") ? JSON.parse(last) : undefined;
}

/** The last line that says something. */
function lastWords(stderr: string): string {
  return stderr.trimEnd().split("\n").findLast((line) => /error/i.test(line))?.trim() ?? "";
}

function path(url: URL): string {
  const text = decodeURIComponent(url.pathname);
  return Deno.build.os === "windows" ? text.slice(1) : text;
}
