import { guardedThreads, type Launch, type Launcher } from "./guarded_thread.ts";
import { type Connection, type StartInside, workerSource, workerUrl } from "./inside.ts";
import type { FromWorker, StartThread } from "./protocol.ts";
import { deathOf, type NodeConnection, type WorkerThreads } from "./node_threads.ts";
import { Supervisor } from "./supervisor.ts";

/** What all workers of a pool have in common. */
export interface KillableOptions {
  /** The addresses of the task modules. */
  modules: readonly string[];
  /** What the workers may do; undefined for what this thread may. */
  permissions: Deno.PermissionOptions | undefined;
  /** How much heap a worker may have, in MB; undefined for as much as V8 gives it. */
  memoryLimit: number | undefined;
}

/**
 * The backend `killable`: each thread is a worker of node:worker_threads.
 *
 * Deno 2.9 does not stop a worker that is busy in synchronous code, unless that holds a Web Lock: to hand the lock on, Deno halts all its
 * JavaScript (runtime/ops/worker_host.rs, Drop for WorkerThread; denoland/deno pull request 35657 would do so for Web Workers). The guard in
 * our workers holds one from before their first job.
 *
 * Such workers cannot be given permissions: they have those of the thread that creates them. So where there are to be some, that thread is a
 * Web Worker which has them, the {@linkcode Supervisor}.
 */
export function killableWorkers({ modules, permissions, memoryLimit }: KillableOptions): StartThread {
  const resourceLimits = memoryLimit === undefined ? {} : { maxOldGenerationSizeMb: memoryLimit };
  let start: Launcher | undefined;

  function starter(): Launcher {
    const url = workerUrl(modules, { connect: connectNodeWorker, prefetched: false });
    if (permissions === undefined) return (launch) => startHere(new URL(url), launch, resourceLimits);
    const supervisor = new Supervisor({ url, resourceLimits, permissions });
    return (launch) => supervisor.start(launch);
  }

  const launch: Launcher = (launch) => (start ??= starter())(launch);
  return guardedThreads({ launch, killable: true, heapLimit: () => memoryLimit ?? heapLimitOfV8() });
}

/** How much heap V8 gives each thread, in MB. */
function heapLimitOfV8(): number {
  const { getHeapStatistics } = process.getBuiltinModule("node:v8") as NodeV8;
  return Math.round(getHeapStatistics().heap_size_limit / 2 ** 20);
}

function startHere(url: URL, { lock, port, died }: Launch, resourceLimits: object): () => void {
  // Not imported: node:worker_threads takes 10 ms to load, which nobody should pay for who does not use it.
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

/** In the worker: waits for what it is to be. What tasks find in a Web Worker they are to find here. */
function connectNodeWorker(imports: Connection["imports"]): void {
  (globalThis as { self?: unknown }).self ??= globalThis;
  const { connector } = (process.getBuiltinModule("node:worker_threads") as WorkerThreads).workerData;
  connector.onmessage = ({ data: { port, lock, source } }: MessageEvent<NodeConnection>) => {
    connector.close();
    const v8 = process.getBuiltinModule("node:v8") as NodeV8;
    const limit = v8.getHeapStatistics().heap_size_limit;
    const isHeapFull = () => v8.getHeapStatistics().heap_size_limit > limit;
    // Deno stops the JavaScript of a worker that has filled its heap. If that ran for a message, no event tells of it: the worker looks
    // alive, and never answers the job. But V8 has then granted it a larger heap. Of that a timer tells, and not the worker when it is asked:
    // with the job V8 drops all microtasks, and a port that one of them was about to read is never read again. It tells by the port, behind
    // what the worker has answered.
    const post: (message: FromWorker) => void = port.postMessage.bind(port);
    setInterval(() => {
      if (isHeapFull()) post({ type: "dying", reason: "filled its heap", memoryLimit: NaN });
    }, 200);
    // Node's timers are loaded at their first use, and Deno 2.9 panics if the worker is terminated just then: better now.
    clearTimeout(setTimeout(() => {}));
    const start: StartInside = (0, eval)(source);
    start({ port, lock, imports, killable: true, isHeapFull });
  };
}
