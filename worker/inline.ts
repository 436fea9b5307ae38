import { timers } from "./platform.ts";
import type { FromRuntime, StartThread, Thread, ThreadEvents, ToRuntime } from "./protocol.ts";
import { createRuntime, type Runtime, runtimeParts } from "./runtime.ts";
import { soon } from "./soon.ts";
import type { KnownModule } from "./tasks.ts";

/**
 * The backend `inline`: each of its threads is the calling thread. Nothing is copied, closures work, nothing can be stopped.
 *
 * @param modules The task modules. Only those given without exports are imported: another copy of a module would not share the variables of
 * the functions that were given.
 */
export function inlineThreads(modules: readonly KnownModule[]): StartThread {
  return (events) => new InlineThread(events, modules);
}

class InlineThread implements Thread {
  #events: ThreadEvents;
  #runtime: Runtime;
  #inbox: ToRuntime[] = [];
  /** How many messages have not been answered. */
  #open = 0;
  #stopped = false;
  #callOff: () => void = () => {};

  constructor(events: ThreadEvents, modules: readonly KnownModule[]) {
    this.#events = events;
    this.#runtime = createRuntime({
      post: (message) => this.#answered(message),
      encode: (raw) => ({ raw }),
      timers,
      imports: modules.map(({ url, exports }) => async () => exports ?? await import(url)),
    }, runtimeParts);
    queueMicrotask(() => {
      if (!this.#stopped) events.alive();
    });
  }

  post(message: ToRuntime): void {
    this.#open++;
    if (this.#inbox.push(message) === 1) this.#callOff = soon(() => this.#deliver());
  }

  get pace(): number {
    return Infinity;
  }

  drain(): void {}

  stop(abort?: { reason: unknown }): void {
    this.#stopped = true;
    this.#callOff();
    this.#open -= this.#inbox.splice(0).length;
    if (abort !== undefined) this.#runtime.abort(abort.reason);
    if (this.#open === 0) queueMicrotask(() => this.#events.gone());
  }

  #deliver(): void {
    for (const message of this.#inbox.splice(0)) this.#runtime.receive(message);
  }

  #answered(message: FromRuntime): void {
    if (message.type !== "items" || message.last) this.#open--;
    if (!this.#stopped) this.#events.message(message);
    else if (this.#open === 0) this.#events.gone();
    if (!this.#stopped) this.#events.delivered();
  }
}
