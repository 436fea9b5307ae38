import { guardedThreads } from "./guarded_thread.ts";
import { workerUrl } from "./inside.ts";
import type { Connection } from "./main.ts";
import type { StartThread } from "./protocol.ts";

/** The part of node:worker_threads that we use. */
interface WorkerThreads {
  Worker: new (url: URL, options: { workerData: unknown; transferList: Transferable[]; name: string }) => {
    on(event: "error", listener: (error: Error) => void): void;
    terminate(): Promise<number>;
  };
  workerData: Connection;
}

/**
 * The backend `killable`: each thread is a worker of node:worker_threads.
 *
 * Deno 2.9 does not stop a worker that is busy in synchronous code, unless that holds a Web Lock: to hand the lock on, Deno halts all its
 * JavaScript (runtime/ops/worker_host.rs, Drop for WorkerThread; denoland/deno pull request 35657 would do so for Web Workers). The guard in
 * our workers holds one from before their first job.
 *
 * @param modules The addresses of the task modules.
 */
export function killableWorkers(modules: readonly string[]): StartThread {
  let url: URL | undefined;
  return guardedThreads(({ lock, port, failed }) => {
    url ??= new URL(workerUrl(modules, { connect: connectNodeWorker, prefetched: false }));
    // Not imported: node:worker_threads takes 10 ms to load, which nobody should pay for who does not use it.
    const { Worker } = workerThreads();
    const worker = new Worker(url, { workerData: { port, lock }, transferList: [port], name: lock });
    worker.on("error", failed);
    return () => void worker.terminate();
  });
}

function workerThreads(): WorkerThreads {
  return process.getBuiltinModule("node:worker_threads") as unknown as WorkerThreads;
}

declare const process: { getBuiltinModule(name: string): unknown };

/** In the worker: its port and its lock came with it. What tasks find in a Web Worker they are to find here. */
function connectNodeWorker(): Promise<Connection> {
  (globalThis as { self?: unknown }).self ??= globalThis;
  const { workerData } = process.getBuiltinModule("node:worker_threads") as WorkerThreads;
  return Promise.resolve(workerData);
}
