import type { Launch } from "./guarded_thread.ts";
import { dataUrl } from "./inside.ts";
import { deathOf, type NodeWorker, type WorkerThreads } from "./node_worker.ts";

/** What a supervisor is told. */
type ToSupervisor =
  | { type: "start"; id: number; lock: string; port: MessagePort; pulse: MessagePort | undefined }
  | { type: "stop"; id: number };

/** What a supervisor tells. */
type FromSupervisor =
  | { type: "failed"; id: number; code: string | undefined; message: string }
  | { type: "stopped"; id: number };

/** How a supervisor makes workers. */
interface SupervisorOptions {
  /** The workers' source. */
  url: string;
  resourceLimits: object;
  permissions: Deno.PermissionOptions;
}

/** A Web Worker with permissions of its own that creates the workers of a pool, which have the same, and kills them. It lives while one of them does. */
export class Supervisor {
  #options: SupervisorOptions;
  #worker: Worker | undefined;
  #workers = new Map<number, Launch>();
  #nextId = 0;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /** Has a worker started; returns what stops it. */
  start(launch: Launch, pulse: MessagePort | undefined): () => void {
    const worker = this.#worker ??= this.#createWorker();
    const id = this.#nextId++;
    const { lock, port } = launch;
    this.#workers.set(id, launch);
    const message: ToSupervisor = { type: "start", id, lock, port, pulse };
    worker.postMessage(message, pulse === undefined ? [port] : [port, pulse]);
    return () => worker.postMessage({ type: "stop", id } satisfies ToSupervisor);
  }

  #createWorker(): Worker {
    const { url, resourceLimits, permissions } = this.#options;
    const source = `(${supervise})(${JSON.stringify({ url, resourceLimits })});`;
    const worker = new Worker(dataUrl(source), { type: "module", name: "process-pool supervisor", deno: { permissions } });
    worker.onmessage = ({ data }: MessageEvent<FromSupervisor>) => {
      if (data.type === "failed") return this.#workers.get(data.id)?.died(deathOf(data));
      this.#workers.delete(data.id);
      if (this.#workers.size === 0) this.#end();
    };
    worker.onerror = (event) => {
      event.preventDefault();
      const orphans = [...this.#workers.values()];
      this.#workers.clear();
      this.#end();
      for (const { died } of orphans) died({ reason: "lost its supervisor", thrown: { raw: new Error(event.message) } });
    };
    return worker;
  }

  #end(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
  }
}

/**
 * What a supervisor runs. It keeps one worker ahead: Deno 2.9 starts a worker that a worker creates half a second late, which a slot whose worker
 * was killed would otherwise wait for.
 *
 * This function is sent to the supervisor as its text: it refers to nothing outside itself.
 */
function supervise({ url, resourceLimits }: { url: string; resourceLimits: object }): void {
  const { Worker } = process.getBuiltinModule("node:worker_threads") as WorkerThreads;
  const scope = globalThis as unknown as {
    onmessage: (event: MessageEvent<ToSupervisor>) => void;
    postMessage(message: FromSupervisor): void;
  };
  const workers = new Map<number, NodeWorker>();
  /** Whom an error of a worker is told of. */
  const ids = new Map<NodeWorker, number>();
  let ahead = create();

  function create(): NodeWorker {
    const worker = new Worker(new URL(url), { resourceLimits });
    worker.on("error", ({ code, message }) => {
      const id = ids.get(worker);
      if (id !== undefined) scope.postMessage({ type: "failed", id, code, message });
    });
    return worker;
  }

  scope.onmessage = async ({ data }) => {
    const { id } = data;
    if (data.type === "start") {
      const { lock, port, pulse } = data;
      const worker = ahead;
      workers.set(id, worker);
      ids.set(worker, id);
      worker.postMessage({ port, lock, pulse }, pulse === undefined ? [port] : [port, pulse]);
      ahead = create();
    } else {
      const worker = workers.get(id)!;
      workers.delete(id);
      ids.delete(worker);
      await worker.terminate();
      scope.postMessage({ type: "stopped", id });
    }
  };
}

declare const process: { getBuiltinModule(name: string): unknown };
