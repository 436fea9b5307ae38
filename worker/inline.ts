import type { FromWorker, StartThread, Thread, ThreadEvents, ToWorker } from "./protocol.ts";
import { createRuntime, type Runtime } from "./runtime.ts";

/**
 * After so many ms without a turn of the event loop, the next job waits for one. Shorter costs a timer's delay more often, longer lets timers,
 * network and Ctrl-C wait for short jobs that follow each other.
 */
const LONGEST_STRETCH = 10;

/** The backend `inline`: each thread is a lane on the calling thread. Nothing is copied, closures work, nothing can be stopped. */
export const inlineLanes: StartThread = (events) => new InlineThread(events);

class InlineThread implements Thread {
  #events: ThreadEvents;
  #runtime: Runtime;
  #inbox: ToWorker[] = [];
  /** How many messages have not been answered. */
  #open = 0;
  #stopped = false;

  constructor(events: ThreadEvents) {
    this.#events = events;
    this.#runtime = createRuntime({
      post: (message) => this.#answered(message),
      encode: (raw) => ({ raw }),
      modules: undefined,
      import: (url) => import(url),
    });
    queueMicrotask(() => {
      if (!this.#stopped) events.alive();
    });
  }

  post(message: ToWorker): void {
    this.#open++;
    if (this.#inbox.push(message) === 1) soon(() => this.#deliver());
  }

  stop(reason: unknown): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#open -= this.#inbox.splice(0).length;
    this.#runtime.abort(reason);
    if (this.#open === 0) queueMicrotask(() => this.#events.gone());
  }

  #deliver(): void {
    for (const message of this.#inbox.splice(0)) this.#runtime.receive(message);
  }

  #answered(message: FromWorker): void {
    if (message.type !== "items" || message.last) this.#open--;
    if (!this.#stopped) this.#events.message(message);
    else if (this.#open === 0) this.#events.gone();
  }
}

let lastTurn = performance.now();

/** Calls back before other work of the event loop, unless that has waited long. */
function soon(callback: () => void): void {
  if (performance.now() - lastTurn < LONGEST_STRETCH) return queueMicrotask(callback);
  setTimeout(() => {
    lastTurn = performance.now();
    callback();
  });
}
