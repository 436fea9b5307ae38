import type { RuntimeParts, WorkerScope } from "./inside.ts";
import type { FromWorker } from "./protocol.ts";

/**
 * What runs first in a worker: it puts up the guard, tells the parent, and returns what starts the runtime once the task modules are loaded.
 *
 * The guard stands before any module of the caller's is evaluated. It tells the slot when the worker is about to end, by which deed of whose;
 * beneath it lies the lock of the worker's own name, which is free for the parent when the worker ends in a way that nobody foresaw. Messages
 * go by a port that no task can reach, not by the worker's global one.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export async function workerMain({ createRuntime, encodeError }: RuntimeParts): Promise<(modules?: Record<string, unknown>[]) => void> {
  const scope = globalThis as unknown as WorkerScope;
  const { port1: port, port2 } = new MessageChannel();
  const exit = Deno.exit;
  const close = scope.close.bind(scope);

  const runtime = { current: undefined as ReturnType<typeof createRuntime> | undefined };

  function post(message: FromWorker): void {
    port.postMessage(message);
  }

  function dying(reason: string, details: { exitCode?: number; thrown?: unknown }): void {
    runtime.current?.end();
    const encode = runtime.current?.encode ?? ((thrown: unknown) => encodeError(thrown, () => undefined));
    post({ type: "dying", reason, exitCode: details.exitCode, thrown: "thrown" in details ? encode(details.thrown) : undefined });
  }

  // `process.exit` of node:process goes through this one.
  Deno.exit = (code?: number): never => {
    const exitCode = code ?? Number(Deno.exitCode);
    dying(`called Deno.exit(${exitCode})`, { exitCode });
    return exit(code);
  };
  scope.close = () => {
    dying("called self.close()", {});
    close();
  };
  scope.addEventListener("error", (event) => {
    event.preventDefault();
    dying("had an uncaught error", { thrown: (event as ErrorEvent).error });
    close();
  });
  scope.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    dying("had an unhandled rejection", { thrown: (event as PromiseRejectionEvent).reason });
    close();
  });
  port.onmessageerror = () => {
    dying("was sent a message that cannot be read", {});
    close();
  };

  await new Promise<void>((held) => {
    scope.navigator.locks.request(scope.name, () => {
      held();
      return new Promise(() => {});
    });
  });
  scope.postMessage("alive", [port2]);

  return (modules) => {
    const started = runtime.current = createRuntime({ post, encode: encodeError, modules, import: (url) => import(url) });
    port.onmessage = ({ data }) => started.receive(data);
  };
}
