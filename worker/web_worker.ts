import { workerUrl } from "./inside.ts";
import { locks } from "./locks.ts";
import type { Death, FromWorker, StartThread, Thread, ThreadEvents, ToWorker } from "./protocol.ts";

/**
 * The backend `worker`: each thread is a Web Worker.
 *
 * @param modules The addresses of the task modules.
 * @param permissions What the workers may do; undefined for what this thread may.
 */
export function webWorkers(modules: readonly string[], permissions: Deno.PermissionOptions | undefined): StartThread {
  const options: WorkerOptions = permissions === undefined ? {} : { deno: { permissions } };
  let url: string | undefined;
  return (events, name) => {
    url ??= workerUrl(modules, { prefetched: permissions !== undefined });
    // It is the name of the worker's lock as well, so no two workers of a program may have the same.
    const lock = `${name} ${crypto.randomUUID()}`;
    return new WebWorkerThread(events, new Worker(url, { ...options, type: "module", name: lock }), lock);
  };
}

/**
 * A Web Worker. Deno tells nobody when one closes itself, so its end is known from the lock that it holds: this side asks for the same lock and
 * is granted it when the worker is no more.
 */
class WebWorkerThread implements Thread {
  #events: ThreadEvents;
  #worker: Worker;
  #lock: string;
  #port: MessagePort;
  #alive = false;
  #ended = false;

  constructor(events: ThreadEvents, worker: Worker, lock: string) {
    this.#events = events;
    this.#worker = worker;
    this.#lock = lock;
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#receive(data);
    port1.onmessageerror = () => this.#died({ reason: "sent a message that cannot be read" });
    worker.onerror = (event) => {
      // Else the error would end the whole program.
      event.preventDefault();
      this.#died({ reason: "could not be started", thrown: { raw: new Error(firstLine(event.message)) } });
    };
    worker.postMessage(undefined, [port2]);
  }

  post(message: ToWorker, transfer: readonly Transferable[] = []): void {
    this.#port.postMessage(message, transfer as Transferable[]);
  }

  stop(): void {
    if (!this.#ended) this.#end();
  }

  #receive(message: FromWorker): void {
    if (this.#ended) return;
    if (message.type === "dying") return this.#died(message);
    if (message.type !== "alive") return this.#events.message(message);
    this.#alive = true;
    locks.request(this.#lock, () => this.#lockFreed());
    this.#events.alive();
  }

  #lockFreed(): void {
    if (this.#ended) return this.#events.gone();
    // What it sent before its end may be on the way still, and has a turn of the event loop to arrive.
    setTimeout(() => {
      this.#died({ reason: "ended without a word" });
      this.#events.gone();
    });
  }

  #died(death: Death): void {
    if (this.#ended) return;
    this.#end();
    this.#events.died(death);
  }

  #end(): void {
    this.#ended = true;
    this.#worker.terminate();
    this.#port.close();
    // A worker that was never alive has run nothing that could resist, and holds no lock that could tell.
    if (!this.#alive) queueMicrotask(() => this.#events.gone());
  }
}

/** Deno's message goes on with colours and with the address of whatever imported the module, which is our worker's whole source. */
function firstLine(message: string): string {
  // deno-lint-ignore no-control-regex -- colours begin with one
  return message.split("\n")[0]!.replaceAll(/\x1b\[\d+m/g, "");
}
