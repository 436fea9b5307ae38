/**
 * The pool that a batch runs on: what its workers are given, and whether they have loaded the task.
 *
 * @module
 */

import { Job } from "../job.ts";
import { ProcessPool } from "../pool.ts";
import type { ProcessPoolOptions } from "../pool/options.ts";
import { explainLoading, explainPool } from "./errors.ts";
import { LAYOUT } from "./lane.ts";
import { resolve } from "./paths.ts";
import type { Plan } from "./plan.ts";
import { closeWorker, prepareWorker, taskModuleUrl, workerSetup } from "./worker_source.ts";

/** The pool of a batch. */
export function createPool(plan: Plan): ProcessPool {
  try {
    const observers = plan.recorder === undefined ? undefined : [plan.recorder];
    return new ProcessPool({ ...poolOptions(plan), observers });
  } catch (error) {
    throw explainPool(error);
  }
}

/**
 * Resolves when a worker has loaded the task: the files of an earlier run are not touched before.
 *
 * @returns False if the batch was told to stop meanwhile.
 *
 * @throws {BatchError} If the task cannot be loaded.
 */
export async function taskIsLoaded(pool: ProcessPool, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    await pool.run(new Job({ func: doNothing, signal }));
  } catch (error) {
    if (!signal?.aborted) throw explainLoading(error);
  }
  return !signal?.aborted;
}

/** Sent to a worker as text. */
function doNothing(): void {}

/** The options of the pool that a batch runs on. */
function poolOptions({ task, sources, formats, options }: Plan): ProcessPoolOptions {
  const { workers, retries, timeout, memoryLimit, permissions } = options;
  const killable = memoryLimit !== undefined || "ofMedian" in timeout || timeout.ms !== Infinity;
  const csv = formats.input === "csv";
  const setup = workerSetup({
    options: {
      layout: LAYOUT,
      inputFormat: formats.input,
      outputFormat: formats.output,
      delimiter: formats.delimiter,
      retries,
      heap: memoryLimit === undefined ? Infinity : memoryLimit * 2 ** 20,
    },
    module: task.module,
    task: task.name,
  });
  const readable = [...sources.flatMap(({ ranges, path }) => ranges ? [path!] : []), ...killable ? task.files : []];
  // What only looks like an import must not be asked for; if another is denied, Deno complains when it loads the module.
  const importable = killable ? task.hosts.filter(mayImportFrom) : [];
  return {
    maxWorkers: workers,
    // The module exports nothing. Without `exports`, the pool would import it here to learn that, and whatever the task's module does when
    // it is loaded would happen on this thread too.
    modules: [{ url: taskModuleUrl(task.source, { csv }), exports: {} }],
    permissions: permissions === "inherit" ? undefined : withNeeded(permissions, readable, importable),
    backend: killable ? "killable" : "worker",
    memoryLimit,
    initializer: prepareWorker,
    initArgs: [setup],
    finalizer: closeWorker,
    // The second job waits in the worker for the first, so that a worker never waits for this thread to send it another.
    jobsPerWorker: 2,
    // A slow stream must not cost the workers.
    idleTimeout: 60_000,
  };
}

/** Exactly the named permissions: others are denied, not asked for. */
const DENIED: Deno.PermissionOptionsObject = {
  env: false,
  ffi: false,
  import: false,
  net: false,
  read: false,
  run: false,
  sys: false,
  write: false,
};

function mayImportFrom(host: string): boolean {
  return Deno.permissions.querySync({ name: "import", host }).state === "granted";
}

function withNeeded(permissions: Deno.PermissionOptionsObject, paths: string[], hosts: string[]): Deno.PermissionOptionsObject {
  const { read, import: given = false } = permissions;
  const all = { ...DENIED, ...permissions, import: given === false ? hosts : Array.isArray(given) ? [...hosts, ...given] : given };
  if (read === true || read === "inherit") return all;
  return { ...all, read: [...paths, ...(Array.isArray(read) ? read.map((each) => resolve(each)) : [])] };
}
