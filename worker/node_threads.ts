import type { Connection } from "./inside.ts";
import type { Death } from "./protocol.ts";

/** The part of node:worker_threads that we use. */
export interface WorkerThreads {
  Worker: new (url: URL, options: NodeWorkerOptions) => NodeWorker;
  SHARE_ENV: symbol;
  workerData: NodeWorkerData;
}

interface NodeWorkerOptions {
  /**
   * SHARE_ENV: the worker sees what it is permitted of the environment, as in a Web Worker. To make a copy would take its creator's
   * permission, for which Deno asks at a terminal, and waits.
   */
  env: symbol;
  resourceLimits: object;
  workerData: NodeWorkerData;
  transferList: Transferable[];
}

/** What a worker gets when it is created, which may be before there is anything to connect it to. */
interface NodeWorkerData {
  /** The port by which its {@linkcode NodeConnection} comes. */
  connector: MessagePort;
}

/** A worker of node:worker_threads. */
export interface NodeWorker {
  on(event: "error", listener: (error: Error & { code?: string }) => void): void;
  terminate(): Promise<number>;
}

/** What such a worker has from its parent. */
export interface NodeConnection extends Omit<Connection, "imports" | "killable" | "isHeapFull"> {
  /** The text of what it is to be. */
  source: string;
}

/** What an error means with which a worker ended, and which its guard did not see. By what limit it has filled its heap, its parent knows. */
export function deathOf({ code, message }: { code?: string | undefined; message: string }): Death {
  if (code === "ERR_WORKER_OUT_OF_MEMORY") return { reason: "filled its heap", memoryLimit: NaN };
  return { reason: "could not be started", thrown: { raw: new Error(message) } };
}
