import type { Launch } from "./guarded_thread.ts";
import { dataUrl, workerSource } from "./inside.ts";
import { deathOf, type NodeConnection, type NodeWorker, type WorkerThreads } from "./node_threads.ts";

/** The messages to a supervisor. */
type ToSupervisor =
  | { type: "start"; id: number; lock: string; port: MessagePort; source: string }
  | { type: "stop"; id: number };

/** The messages from a supervisor. */
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

/**
 * A Web Worker with permissions of its own that creates the workers of a pool, which have the same permissions, and kills them. It lives as
 * long as one of them does.
 */
export class Supervisor {
  #options: SupervisorOptions;
  #worker: Worker | undefined;
  #workers = new Map<number, Launch>();
  #nextId = 0;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /** Has a worker started; returns what stops it. */
  start(launch: Launch): () => void {
    const worker = this.#worker ??= this.#createWorker();
    const id = this.#nextId++;
    const { lock, port } = launch;
    this.#workers.set(id, launch);
    const message: ToSupervisor = { type: "start", id, lock, port, source: workerSource() };
    worker.postMessage(message, [port]);
    return () => worker.postMessage({ type: "stop", id } satisfies ToSupervisor);
  }

  #createWorker(): Worker {
    const { url, resourceLimits, permissions } = this.#options;
    const source = `(${supervise})(${JSON.stringify({ url, resourceLimits })});`;
    // In a variable, since in a program whose 'lib' is the DOM's the type has no 'deno'.
    const options = { type: "module" as const, name: "process-pool supervisor", deno: { permissions } };
    const worker = new Worker(dataUrl(source), options);
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
      for (const { died } of orphans) died({ reason: "lost the thread that started it", thrown: { raw: new Error(event.message) } });
    };
    return worker;
  }

  #end(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
  }
}

/** A worker, and the port by which it is connected. */
interface Supervised {
  worker: NodeWorker;
  connector: MessagePort;
  /** Undefined while it is kept ready. */
  id: number | undefined;
}

/**
 * What a supervisor runs. It keeps one worker ready ahead: Deno 2.9 starts a worker that a worker creates half a second late, for which a
 * slot whose worker was killed would otherwise wait. (The worker is connected by a separate port, as the first message to its `parentPort`
 * is just as late.)
 *
 * This function is sent to the supervisor as its text: it refers to nothing outside itself.
 */
function supervise({ url, resourceLimits }: { url: string; resourceLimits: object }): void {
  const { Worker, SHARE_ENV: env } = process.getBuiltinModule("node:worker_threads") as WorkerThreads;
  const scope = globalThis as unknown as {
    onmessage: (event: MessageEvent<ToSupervisor>) => void;
    postMessage(message: FromSupervisor): void;
  };
  const workers = new Map<number, Supervised>();
  let ahead = create();

  function create(): Supervised {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(new URL(url), { env, resourceLimits, workerData: { connector: port2 }, transferList: [port2] });
    const supervised: Supervised = { worker, connector: port1, id: undefined };
    worker.on("error", ({ code, message }) => {
      if (supervised.id !== undefined) scope.postMessage({ type: "failed", id: supervised.id, code, message });
    });
    return supervised;
  }

  scope.onmessage = async ({ data }) => {
    const { id } = data;
    if (data.type === "start") {
      const { lock, port, source } = data;
      workers.set(id, ahead);
      ahead.id = id;
      const connection: NodeConnection = { port, lock, source };
      ahead.connector.postMessage(connection, [port]);
      ahead = create();
    } else {
      const supervised = workers.get(id)!;
      workers.delete(id);
      supervised.id = undefined;
      supervised.connector.close();
      await supervised.worker.terminate();
      scope.postMessage({ type: "stopped", id });
    }
  };
}

declare const process: { getBuiltinModule(name: string): unknown };
