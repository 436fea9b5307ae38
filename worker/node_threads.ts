import type { Connection } from "./inside.ts";
import type { Death } from "./protocol.ts";

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
export interface NodeConnection extends Omit<Connection, "imports" | "killable"> {
  /** The text of what it is to be. */
  source: string;
  /** By it the worker is asked for the size that its heap may have; there if that is limited. */
  pulse: MessagePort | undefined;
}

/** What the error means that a worker ended with and that its guard did not see. */
export function deathOf({ code, message }: { code?: string | undefined; message: string }): Death {
  if (code === "ERR_WORKER_OUT_OF_MEMORY") return { reason: "filled its heap", memoryLimit: NaN };
  return { reason: "could not be started", thrown: { raw: new Error(message) } };
}
