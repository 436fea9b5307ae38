import { locks } from "./locks.ts";
import type { Death, FromWorker, StartThread, Thread, ThreadEvents, ToWorker } from "./protocol.ts";

/** How a kind of worker is started. */
export interface Launch {
  /** The lock that the worker is to hold; its name as well. */
  lock: string;
  /** The worker's end of the port that all messages go by. */
  port: MessagePort;
  /** To be called if the worker ends without its guard's word. */
  died: (death: Death) => void;
}

/** Starts a worker that runs `workerMain`, and returns what stops it. */
export type Launcher = (launch: Launch) => () => void;

/** A backend whose threads are workers that run `workerMain`. */
export function guardedThreads(launcher: Launcher): StartThread {
  // No two workers of a program may have the same lock.
  return (events, name) => new GuardedThread(events, launcher, `${name} ${crypto.randomUUID()}`);
}

/**
 * A worker with a guard inside. Deno tells nobody when one closes itself, so its end is known from the lock that it holds: this side asks for the
 * same lock and is granted it when the worker is no more.
 */
class GuardedThread implements Thread {
  #events: ThreadEvents;
  #lock: string;
  #port: MessagePort;
  #stop: () => void;
  #alive = false;
  #ended = false;

  constructor(events: ThreadEvents, launcher: Launcher, lock: string) {
    this.#events = events;
    this.#lock = lock;
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#receive(data);
    port1.onmessageerror = () => this.#died({ reason: "sent a message that cannot be read" });
    try {
      this.#stop = launcher({ lock, port: port2, died: (death) => this.#died(death) });
    } catch (error) {
      port1.close();
      throw error;
    }
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
    // Once it is granted, and given back.
    locks.request(this.#lock, () => {}).then(() => this.#lockFreed());
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
    this.#stop();
    this.#port.close();
    // A worker that was never alive has run nothing that could resist, and holds no lock that could tell.
    if (!this.#alive) queueMicrotask(() => this.#events.gone());
  }
}
