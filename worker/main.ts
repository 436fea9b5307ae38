import type { Connection, WorkerParts, WorkerScope } from "./inside.ts";
import type { LineEnd } from "./line_end.ts";
import type { Death, FromWorker, Thrown, ToWorker } from "./protocol.ts";
import type { RuntimeHost } from "./runtime.ts";

/**
 * What a worker runs: it puts up the guard, starts the runtime, and tells the parent.
 *
 * The guard stands before any module of the caller's is evaluated. It tells the slot when the worker is about to end, and why. Behind it
 * there is the worker's lock, which becomes free for the parent if the worker ends in a way that the guard did not see. Messages go by a
 * port that no task can reach, not by the worker's global one.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export async function workerMain(
  { createRuntime, encodeError, openLine, openSharedQueue, ...runtimeParts }: WorkerParts,
  { port, lock, imports, killable, isHeapFull }: Connection,
): Promise<void> {
  type Func = (this: unknown, ...args: never[]) => unknown;
  const scope = globalThis as unknown as WorkerScope;
  const exit = Deno.exit;
  const close = scope.close.bind(scope);

  // Taken now: a task may replace them.
  const { postMessage } = port;
  const { apply, defineProperty } = Reflect;
  const platform = [globalThis, Deno.errors, globalThis.WebAssembly];
  const { href } = scope.location;
  // Deno takes half a megabyte in each worker for a transfer list, even an empty one.
  const post = (message: FromWorker, transfer: Transferable[] = []): void =>
    void apply(postMessage, port, transfer.length > 0 ? [message, transfer] : [message]);
  let line: LineEnd | undefined;

  const LOADING = Symbol.for("process-pool.loading");
  let loading = 0;
  /** Imports a task module, and shows that it does: a pool must not start workers meanwhile. */
  async function load(module: () => Promise<Record<string, unknown>>): Promise<Record<string, unknown>> {
    loading++;
    Reflect.set(scope, LOADING, true);
    try {
      return await module();
    } finally {
      if (--loading === 0) Reflect.deleteProperty(scope, LOADING);
    }
  }

  const host: RuntimeHost = {
    post(message, transfer) {
      if (line?.reply(message, transfer)) return;
      post(message, transfer);
      line?.posted(message);
    },
    encode: (thrown, exportedClass) => encodeError(thrown, exportedClass, platform, href),
    imports: imports.map((module) => () => load(module)),
    reuse: (buffer) => line!.reuse(buffer),
    hasRoom: () => line?.resume(),
  };
  const runtime = createRuntime(host, runtimeParts);

  function dying(death: Omit<Death, "thrown">, uncaught?: { thrown: unknown }): void {
    runtime.end();
    line?.close();
    const send = (thrown?: Thrown): void => post({ type: "dying", ...death, thrown });
    try {
      if (uncaught !== undefined) return runtime.sendThrown(uncaught.thrown, send);
    } catch {
      // A task has replaced what errors are taken apart with.
    }
    send();
  }

  /** The reason of an abort. Structured cloning loses the name of an error whose class is not the platform's. */
  function named({ reason, name }: ToWorker & { type: "abort" }): unknown {
    const error = reason as Error;
    if (name !== undefined && error.name !== name) {
      defineProperty(error, "name", { value: name, enumerable: false, writable: true, configurable: true });
    }
    return reason;
  }

  /**
   * Keeps tasks away from the locks of workers. Code that knows a lock's name could steal it, which would end the worker, or leave nothing
   * to kill a killable one by. Tasks with pools of their own request such locks too, but steal none. Workers that a task starts without a
   * pool are not covered: none of our code runs there.
   */
  function hideLocks(): void {
    const prototype: { request: Func; query: Func } = Object.getPrototypeOf(scope.navigator.locks);
    const { request, query } = prototype;
    const { then } = Promise.prototype as { then: Func };
    const { filter } = Array.prototype as { filter: Func };
    const { startsWith } = String.prototype;
    const isOurs = (name: string): boolean => apply(startsWith, name, ["process-pool worker "]);
    const withoutOurs = (locks: unknown): unknown => apply(filter, locks, [({ name }: { name: string }) => !isOurs(name)]);
    prototype.request = async function (this: unknown, name: unknown, ...rest: unknown[]) {
      const text = `${name}`;
      if (rest.length > 1 && isOurs(text)) {
        const { steal, ...options } = (rest[0] ?? {}) as { steal?: unknown };
        if (steal) throw new DOMException("The lock of a worker cannot be stolen", "NotSupportedError");
        rest[0] = { ...options, steal: false };
      }
      // Without the platform's iterator, by which a task could put the theft back in.
      return await apply(request, this, rest.length > 1 ? [text, rest[0], rest[1]] : [text, rest[0]]);
    };
    // The list passes through no function that a task could have replaced.
    prototype.query = function (this: unknown) {
      const hide = ({ held, pending }: Record<string, unknown>) => ({ held: withoutOurs(held), pending: withoutOurs(pending) });
      return apply(then, apply(query, this, []), [hide]);
    };
  }

  // `process.exit` of node:process goes through this one.
  Deno.exit = (code?: number): never => {
    const exitCode = code ?? Number(Deno.exitCode);
    dying({ reason: `called Deno.exit(${exitCode})`, exitCode });
    // Deno 2.9 panics now and then if a worker that ends itself is terminated at the same time. A killable one waits here to be terminated.
    if (killable) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    return exit(code);
  };
  // The parent ends the worker when it hears of this.
  scope.close = () => dying({ reason: "called self.close()" });
  scope.addEventListener("error", (event) => {
    event.preventDefault();
    const { error, message } = event as ErrorEvent;
    // An error in a worker that a task has started comes only with its message.
    dying({ reason: "had an uncaught error" }, { thrown: error ?? new Error(message) });
  });
  scope.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    dying({ reason: "had an unhandled rejection" }, { thrown: (event as PromiseRejectionEvent).reason });
  });
  // Reported at once: jobs that come after such a message would be started here, and share this worker's fate.
  port.onmessageerror = () => {
    const memoryLimit = isHeapFull?.() ? NaN : undefined;
    dying({ reason: "was sent a message that cannot be read", memoryLimit, unread: true });
  };

  await new Promise<void>((held) => {
    scope.navigator.locks.request(lock, () => {
      held();
      return new Promise(() => {});
    });
  });
  hideLocks();
  port.onmessage = ({ data }: MessageEvent<ToWorker>) => {
    switch (data.type) {
      case "run":
      case "chunk":
      case "nothing":
      case "wake":
        return line!.receive(data);
      case "abort":
        // Nobody waits for the jobs' results any more.
        runtime.end();
        return runtime.abort(named(data), close);
      case "load":
        line = openLine({ memory: data.line, openSharedQueue, runtime, hasTimers: killable });
        host.returned = line.returned;
    }
    runtime.receive(data);
  };
  post({ type: "alive" });
}
