import { guardedThreads, type Launch, type Launcher } from "./guarded_thread.ts";
import { type Connection, type StartInside, workerSource, workerUrl } from "./inside.ts";
import type { FromWorker, StartThread } from "./protocol.ts";
import { deathOf, type NodeConnection, type WorkerThreads } from "./node_threads.ts";
import { Supervisor } from "./supervisor.ts";

/** What all workers of a pool have in common. */
export interface KillableOptions {
  /** The addresses of the task modules. */
  modules: readonly string[];
  /** The permissions of the workers; undefined for those of this thread. */
  permissions: Deno.PermissionOptions | undefined;
  /** The largest heap of a worker, in MB; undefined for V8's own limit. */
  memoryLimit: number | undefined;
}

/**
 * The backend `killable`: each thread is a worker of node:worker_threads.
 *
 * Deno 2.9 does not stop a worker that is busy in synchronous code, unless the worker holds a Web Lock: to hand the lock on, Deno halts all
 * JavaScript of the worker (runtime/ops/worker_host.rs, Drop for WorkerThread; denoland/deno pull request 35657 would do so for Web
 * Workers). The guard in our workers takes a lock before their first job.
 *
 * Such workers cannot be given permissions: they have those of the thread that creates them. If they are to have their own, that thread is
 * a Web Worker with these permissions, the {@linkcode Supervisor}.
 */
export function killableWorkers({ modules, permissions, memoryLimit }: KillableOptions): StartThread {
  const resourceLimits = memoryLimit === undefined ? {} : { maxOldGenerationSizeMb: memoryLimit };
  let launcher: Launcher | undefined;

  function createLauncher(): Launcher {
    const url = workerUrl(modules, { connect: connectNodeWorker, prefetched: false });
    if (permissions === undefined) return (launch) => startHere(new URL(url), launch, resourceLimits);
    const supervisor = new Supervisor({ url, resourceLimits, permissions });
    return (launch) => supervisor.start(launch);
  }

  // Made with the first worker: the others share its URL, and its supervisor.
  const launch: Launcher = (worker) => (launcher ??= createLauncher())(worker);
  return guardedThreads({ launch, killable: true, heapLimit: () => memoryLimit ?? heapLimitOfV8() });
}

/** V8's limit for the heap of each thread, in MB. */
function heapLimitOfV8(): number {
  const { getHeapStatistics } = process.getBuiltinModule("node:v8") as NodeV8;
  return Math.round(getHeapStatistics().heap_size_limit / 2 ** 20);
}

function startHere(url: URL, { lock, port, died }: Launch, resourceLimits: object): () => void {
  // Not imported: node:worker_threads takes 10 ms to load, which only its users should pay for.
  const { Worker, SHARE_ENV: env } = process.getBuiltinModule("node:worker_threads") as WorkerThreads;
  const { port1, port2: connector } = new MessageChannel();
  const worker = new Worker(url, { env, resourceLimits, workerData: { connector }, transferList: [connector] });
  worker.on("error", (error) => died(deathOf(error)));
  const connection: NodeConnection = { port, lock, source: workerSource() };
  port1.postMessage(connection, [port]);
  return () => {
    port1.close();
    worker.terminate();
  };
}

/** The part of node:v8 that we use. */
interface NodeV8 {
  getHeapStatistics(): { heap_size_limit: number };
}

declare const process: { getBuiltinModule(name: string): unknown };

/** In the worker: waits for its source. Tasks find the same globals here as in a Web Worker. */
function connectNodeWorker(imports: Connection["imports"]): void {
  (globalThis as { self?: unknown }).self ??= globalThis;
  const { connector } = (process.getBuiltinModule("node:worker_threads") as WorkerThreads).workerData;
  connector.onmessage = ({ data: { port, lock, source } }: MessageEvent<NodeConnection>) => {
    connector.close();
    const v8 = process.getBuiltinModule("node:v8") as NodeV8;
    const limit = v8.getHeapStatistics().heap_size_limit;
    const isHeapFull = () => v8.getHeapStatistics().heap_size_limit > limit;
    // Deno stops the JavaScript of a worker that has filled its heap. If that was handling a message, there is no event: the worker looks
    // alive and never answers the job. But V8 has raised its heap limit then, which a timer notices. Asking the worker would not help: with
    // the job V8 drops all microtasks, and a port that one of them was about to read is never read again. The message goes by the port, so
    // that it comes after the worker's answers.
    const post: (message: FromWorker) => void = port.postMessage.bind(port);
    setInterval(() => {
      if (isHeapFull()) post({ type: "dying", reason: "filled its heap", memoryLimit: NaN });
    }, 200);
    // Loads Node's timers now: else their first use would, and Deno 2.9 panics if the worker is terminated during that.
    clearTimeout(setTimeout(() => {}));
    const start: StartInside = (0, eval)(source);
    start({ port, lock, imports, killable: true, isHeapFull });
  };
}
