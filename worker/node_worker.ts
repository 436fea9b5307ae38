import { guardedThreads } from "./guarded_thread.ts";
import { workerUrl } from "./inside.ts";
import type { Connection } from "./main.ts";
import type { Death, StartThread } from "./protocol.ts";

/** The parts of node:worker_threads and node:v8 that we use. */
interface WorkerThreads {
  Worker: new (url: URL, options: { workerData: NodeConnection; transferList: Transferable[]; name: string; resourceLimits: object }) => {
    on(event: "error", listener: (error: Error & { code?: string }) => void): void;
    terminate(): Promise<number>;
  };
  workerData: NodeConnection;
}

interface NodeConnection extends Connection {
  /** By it the worker is asked for the size that its heap may have; there if that is limited. */
  pulse: MessagePort | undefined;
}

/** What all workers of a pool have in common. */
export interface KillableOptions {
  /** The addresses of the task modules. */
  modules: readonly string[];
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
 */
export function killableWorkers({ modules, memoryLimit }: KillableOptions): StartThread {
  const resourceLimits = memoryLimit === undefined ? {} : { maxOldGenerationSizeMb: memoryLimit };
  let url: URL | undefined;
  return guardedThreads(({ lock, port, died }) => {
    url ??= new URL(workerUrl(modules, { connect: connectNodeWorker, prefetched: false }));
    // Not imported: node:worker_threads takes 10 ms to load, which nobody should pay for who does not use it.
    const { Worker } = workerThreads();
    const full: Death = { reason: `filled its heap of ${memoryLimit} MB`, memoryLimit };
    const pulse = memoryLimit === undefined ? undefined : feelPulse(() => died(full));
    const transferList = pulse === undefined ? [port] : [port, pulse.port];
    const worker = new Worker(url, { workerData: { port, lock, pulse: pulse?.port }, transferList, name: lock, resourceLimits });
    worker.on("error", (error) => {
      died(error.code === "ERR_WORKER_OUT_OF_MEMORY" ? full : { reason: "could not be started", thrown: { raw: error } });
    });
    return () => {
      pulse?.stop();
      worker.terminate();
    };
  });
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

function workerThreads(): WorkerThreads {
  return process.getBuiltinModule("node:worker_threads") as unknown as WorkerThreads;
}

declare const process: { getBuiltinModule(name: string): unknown };

/** In the worker: its port and its lock came with it. What tasks find in a Web Worker they are to find here. */
function connectNodeWorker(): Promise<Connection> {
  (globalThis as { self?: unknown }).self ??= globalThis;
  const { workerData } = process.getBuiltinModule("node:worker_threads") as WorkerThreads;
  const { pulse } = workerData;
  if (pulse !== undefined) {
    const v8 = process.getBuiltinModule("node:v8") as { getHeapStatistics(): { heap_size_limit: number } };
    pulse.onmessage = () => pulse.postMessage(v8.getHeapStatistics().heap_size_limit);
  }
  return Promise.resolve(workerData);
}
