import { guardedThreads, type Launch, type Launcher } from "./guarded_thread.ts";
import { workerUrl } from "./inside.ts";
import type { Connection } from "./main.ts";
import type { Death, StartThread } from "./protocol.ts";
import { Supervisor } from "./supervisor.ts";

/** The part of node:worker_threads that we use. */
export interface WorkerThreads {
  Worker: new (url: URL, options: { resourceLimits: object; workerData: NodeWorkerData; transferList: Transferable[] }) => NodeWorker;
  workerData: NodeWorkerData;
}

/** What a worker gets when it is created, which may be before there is anything to connect it to. */
interface NodeWorkerData {
  /** By it comes the {@linkcode NodeConnection}. */
  line: MessagePort;
}

/** A worker of node:worker_threads. */
export interface NodeWorker {
  on(event: "error", listener: (error: Error & { code?: string }) => void): void;
  terminate(): Promise<number>;
}

/** What such a worker has from its parent. */
export interface NodeConnection extends Connection {
  /** By it the worker is asked for the size that its heap may have; there if that is limited. */
  pulse: MessagePort | undefined;
}

/** What all workers of a pool have in common. */
export interface KillableOptions {
  /** The addresses of the task modules. */
  modules: readonly string[];
  /** What the workers may do; undefined for what this thread may. */
  permissions: Deno.PermissionOptions | undefined;
  /** How much heap a worker may have, in MB. */
  memoryLimit: number | undefined;
}

/** How often a worker is asked for its pulse, in ms: less often, and a job that has filled its heap is noticed later; more often, and it works less. */
const PULSE = 400;

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
  let start: ((launch: Launch, pulse: MessagePort | undefined) => () => void) | undefined;

  function starter(): NonNullable<typeof start> {
    const url = workerUrl(modules, { connect: connectNodeWorker, prefetched: false });
    if (permissions === undefined) return (launch, pulse) => startHere(new URL(url), { launch, pulse, resourceLimits });
    const supervisor = new Supervisor({ url, resourceLimits, permissions });
    return (launch, pulse) => supervisor.start(launch, pulse);
  }

  const launcher: Launcher = (launch) => {
    start ??= starter();
    const full: Death = { reason: `filled its heap of ${memoryLimit} MB`, memoryLimit };
    const pulse = memoryLimit === undefined ? undefined : feelPulse(() => launch.died(full));
    const died = (death: Death): void => launch.died(death.memoryLimit === undefined ? death : full);
    const stop = start({ ...launch, died }, pulse?.port);
    return () => {
      pulse?.stop();
      stop();
    };
  };
  return guardedThreads({ launch: launcher, killable: true });
}

function startHere(
  url: URL,
  { launch: { lock, port, died }, pulse, resourceLimits }: { launch: Launch; pulse: MessagePort | undefined; resourceLimits: object },
): () => void {
  // Not imported: node:worker_threads takes 10 ms to load, which nobody should pay for who does not use it.
  const { Worker } = process.getBuiltinModule("node:worker_threads") as WorkerThreads;
  const { port1, port2: line } = new MessageChannel();
  const worker = new Worker(url, { resourceLimits, workerData: { line }, transferList: [line] });
  worker.on("error", (error) => died(deathOf(error)));
  port1.postMessage({ port, lock, pulse }, pulse === undefined ? [port] : [port, pulse]);
  return () => {
    port1.close();
    worker.terminate();
  };
}

/** What the error means that a worker ended with and that its guard did not see. */
export function deathOf({ code, message }: { code?: string | undefined; message: string }): Death {
  if (code === "ERR_WORKER_OUT_OF_MEMORY") return { reason: "filled its heap", memoryLimit: NaN };
  return { reason: "could not be started", thrown: { raw: new Error(message) } };
}

/**
 * Notices that a worker has filled its heap. Deno stops the JavaScript of such a worker, and if that ran for a message no event tells of it: the
 * worker looks alive, and never answers the job. But V8 has then granted it a larger heap, which another port can be asked about.
 */
function feelPulse(isFull: () => void): { port: MessagePort; stop: () => void } {
  const { port1, port2 } = new MessageChannel();
  let limit: number | undefined;
  port1.onmessage = ({ data }: MessageEvent<number>) => {
    limit ??= data;
    if (data > limit) isFull();
  };
  const timer = setInterval(() => port1.postMessage(undefined), PULSE);
  port1.postMessage(undefined);
  return {
    port: port2,
    stop() {
      clearInterval(timer);
      port1.close();
    },
  };
}

declare const process: { getBuiltinModule(name: string): unknown };

/** In the worker: waits for its port and its lock. What tasks find in a Web Worker they are to find here. */
function connectNodeWorker(): Promise<Connection> {
  (globalThis as { self?: unknown }).self ??= globalThis;
  const { line } = (process.getBuiltinModule("node:worker_threads") as WorkerThreads).workerData;
  return new Promise((resolve) => {
    line.onmessage = ({ data }: MessageEvent<NodeConnection>) => {
      line.close();
      const { pulse } = data;
      if (pulse !== undefined) {
        const v8 = process.getBuiltinModule("node:v8") as { getHeapStatistics(): { heap_size_limit: number } };
        pulse.onmessage = () => pulse.postMessage(v8.getHeapStatistics().heap_size_limit);
      }
      resolve(data);
    };
  });
}
