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
   * SHARE_ENV: the worker sees as much of the environment as it is permitted, as in a Web Worker. Making a copy would need a permission of
   * its creator, for which Deno asks at a terminal, and waits.
   */
  env: symbol;
  resourceLimits: object;
  workerData: NodeWorkerData;
  transferList: Transferable[];
}

/** What a worker gets when it is created, possibly before there is anything to connect it to. */
interface NodeWorkerData {
  /** The port by which its {@linkcode NodeConnection} arrives. */
  connector: MessagePort;
}

/** A worker of node:worker_threads. */
export interface NodeWorker {
  on(event: "error", listener: (error: Error & { code?: string }) => void): void;
  terminate(): Promise<number>;
}

/** What such a worker gets from its parent. */
export interface NodeConnection extends Omit<Connection, "imports" | "killable" | "isHeapFull"> {
  /** The source text that it runs. */
  source: string;
}

/** The death that an error means which ended a worker without its guard having seen it. Only its parent knows its heap limit. */
export function deathOf({ code, message }: { code?: string | undefined; message: string }): Death {
  if (code === "ERR_WORKER_OUT_OF_MEMORY") return { reason: "filled its heap", memoryLimit: NaN };
  return { reason: "could not be started", thrown: { raw: new Error(message) } };
}
