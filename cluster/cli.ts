/**
 * The command line: runs a host on a machine, runs a job to try a task, or shows the queue.
 *
 * ```sh
 * deno run --allow-net=10.0.0.1:6379 --allow-read --ignore-env --no-prompt jsr:@procpool/cluster/cli \
 *   serve tasks.ts --redis redis://10.0.0.1:6379 --queue images
 * ```
 *
 * @example From a program
 * ```ts
 * import { main } from "@procpool/cluster/cli";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(await main(["--version"]), 0);
 * ```
 *
 * @module
 */

import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Interrupt } from "@procpool/process-pool";
import { printError } from "@procpool/process-pool/executor";
import manifest from "./deno.json" with { type: "json" };
import { HELP, readArguments, type Request } from "./arguments.ts";
import type { RedisConnection } from "./address.ts";
import type { ClusterStatus } from "./status.ts";
import { areTasks, type ClusterTasks, defineTasks } from "./tasks.ts";
import { toJson } from "./values.ts";

// `host.ts` and `pool.ts` are imported where they are needed: BullMQ reads the environment, and the help must need no permission for that.

/**
 * Runs the command.
 *
 * @param args The arguments of the command line.
 * @returns The exit code: 0 if all went well, also if a host was told to stop; 1 if not; 2 if the arguments are wrong; 130 after Ctrl-C of
 * `run`, 143 after SIGTERM.
 */
export async function main(args: readonly string[]): Promise<number> {
  const request = readArguments(args);
  try {
    switch (request.action) {
      case "help":
        console.log(HELP);
        return 0;
      case "version":
        console.log(manifest.version);
        return 0;
      case "refuse":
        console.error(`cluster: ${request.message}`);
        return 2;
      case "serve":
        return await serveUntilStopped(request);
      case "run":
        return await runOne(request);
      case "status":
        return await showStatus(request);
    }
  } catch (error) {
    console.error(`cluster: ${error instanceof Error ? error.message : error}`);
    return 1;
  }
}

const report = {
  onError: (error: unknown) => printError(`cluster: ${error instanceof Error ? error.message : error}`),
  onWarning: (message: string) => printError(`cluster: ${message}`),
};

async function serveUntilStopped(request: Extract<Request, { action: "serve" }>): Promise<number> {
  const { tasks: file, queue, workers, name, grace } = request;
  using interrupt = new Interrupt({
    onSignal: (_signal, received) => {
      // Over the "^C" that a terminal shows.
      const start = Deno.stdout.isTerminal() ? "\r" : "";
      if (received === "first") console.log(`${start}stops within ${grace / 1000} s; a second signal ends at once`);
    },
  });
  const told = aborted(interrupt.signal);
  const tasks = await loadTasks(file);
  const { serve } = await import("./host.ts");
  const starting = serve({ ...report, queue, connection: await connectionOf(request), tasks, workers, name });
  const host = await Promise.race([starting, told]);
  if (host === undefined) {
    // The server is away. If it comes back, nothing must be left behind there.
    starting.then((late) => late.shutdown({ timeout: 0 }), () => {});
    return 0;
  }
  console.log(`${host.name} serves the queue "${queue}": ${Object.keys(tasks).join(", ")}`);
  await Promise.race([told, host.finished]);
  await host.shutdown({ timeout: grace });
  console.log(`${host.name} has stopped`);
  return 0;
}

async function runOne(request: Extract<Request, { action: "run" }>): Promise<number> {
  const { tasks: file, queue, task, args } = request;
  const tasks = await loadTasks(file);
  if (!Object.hasOwn(tasks, task)) {
    throw new TypeError(
      `Cannot run ${JSON.stringify(task)} as '${file}' has none of that name: its tasks are ${Object.keys(tasks).join(", ")}`,
    );
  }
  const { ClusterPool } = await import("./pool.ts");
  using interrupt = new Interrupt();
  const { signal } = interrupt;
  const told = aborted(signal);
  const opening = ClusterPool.open({ ...report, queue, connection: await connectionOf(request), tasks });
  const pool = await Promise.race([opening, told]);
  if (pool === undefined || interrupt.exitCode !== undefined) {
    opening.then((late) => late.terminate(), () => {});
    return interrupt.exitCode!;
  }
  const stop = (): Promise<void> => pool.terminate(signal.reason);
  signal.addEventListener("abort", stop);
  try {
    const { hosts } = await pool.status();
    if (hosts?.length === 0) console.error(`cluster: no host serves the queue "${queue}" at this moment: the job waits for one`);
    const value = await pool.run(tasks[task]!, ...args);
    console.log(value === undefined ? "undefined" : JSON.stringify(toJson(value, "the result")));
    return 0;
  } catch (error) {
    if (interrupt.exitCode !== undefined) return interrupt.exitCode;
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
    await pool.terminate();
  }
}

async function showStatus(request: Extract<Request, { action: "status" }>): Promise<number> {
  const { queue, json } = request;
  const { ClusterPool } = await import("./pool.ts");
  await using pool = await ClusterPool.open({ ...report, queue, connection: await connectionOf(request), tasks: defineTasks({}) });
  const status = await pool.status();
  console.log(json ? JSON.stringify(status) : describe(status));
  return 0;
}

/** Resolves when a signal aborts. */
function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

/** The status, for people. */
function describe({ queue, hosts, waiting, active, completed, failed, perMinute }: ClusterStatus): string {
  const throughput = perMinute.length === 0
    ? "not measured yet: the first figure comes a minute after the first job"
    : `${perMinute[0]} in the last minute`;
  return [
    `queue      ${queue}`,
    `waiting    ${waiting}`,
    `active     ${active}`,
    `completed  ${completed}`,
    `failed     ${failed}`,
    `throughput ${throughput}`,
    `hosts      ${hosts === undefined ? "unknown: the server does not say" : hosts.length}`,
    ...(hosts ?? []).map(({ name, address, age }) => `           ${name} at ${address}, for ${age} s`),
  ].join("\n");
}

/** The tasks that a module defines, or otherwise all functions that it exports. */
async function loadTasks(file: string): Promise<ClusterTasks> {
  const url = /^[a-z][a-z+.-]+:/i.test(file) ? file : pathToFileURL(resolve(file)).href;
  let module: Record<string, unknown>;
  try {
    module = await import(url);
  } catch (cause) {
    throw new Error(`Cannot load '${file}': ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
  const defined = Object.values(module).find(areTasks);
  if (defined !== undefined) return defined;
  const names = Object.keys(module).filter((name) => name !== "default" && typeof module[name] === "function");
  if (names.length === 0) throw new TypeError(`Cannot use '${file}' as it exports no function`);
  return defineTasks(Object.fromEntries(names.map((name) => [name, url])));
}

async function connectionOf(
  { redis, passwordFile, ca }: { redis: string; passwordFile: string | undefined; ca: string | undefined },
): Promise<RedisConnection> {
  return {
    url: redis,
    password: passwordFile === undefined ? undefined : (await Deno.readTextFile(passwordFile)).trimEnd(),
    ca: ca === undefined ? undefined : await Deno.readTextFile(ca),
  };
}

// Not `Deno.exitCode`: a task that could not be stopped would keep a host alive that has stopped.
if (import.meta.main) Deno.exit(await main(Deno.args));
