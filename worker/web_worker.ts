import { guardedThreads, type Launcher } from "./guarded_thread.ts";
import { type Connection, type StartInside, workerSource, workerUrl } from "./inside.ts";
import type { StartThread } from "./protocol.ts";

/**
 * The backend `worker`: each thread is a Web Worker.
 *
 * @param modules The addresses of the task modules.
 * @param permissions The permissions of the workers; undefined for those of this thread.
 */
export function webWorkers(modules: readonly string[], permissions: Deno.PermissionOptions | undefined): StartThread {
  // Not passed as a literal, since the type has no 'deno' in a program whose 'lib' is the DOM's.
  const options = { type: "module" as const, ...(permissions === undefined ? {} : { deno: { permissions } }) };
  let url: string | undefined;
  const launch: Launcher = ({ lock, port, died }) => {
    url ??= workerUrl(modules, { connect: connectWebWorker, prefetched: permissions !== undefined });
    const worker = new Worker(url, { ...options, name: lock });
    worker.onerror = (event) => {
      // Otherwise the error would end the whole program.
      event.preventDefault();
      died({ reason: "could not be started", thrown: { raw: new Error(firstLine(event.message)) } });
    };
    worker.postMessage({ lock, source: workerSource() }, [port]);
    return () => worker.terminate();
  };
  return guardedThreads({ launch, killable: false });
}

/** In the worker: waits for its source, which the parent has sent before any code of the caller could listen for it. */
function connectWebWorker(imports: Connection["imports"]): void {
  addEventListener("message", (event) => {
    const { data: { lock, source }, ports: [port] } = event as MessageEvent<{ lock: string; source: string }>;
    const start: StartInside = (0, eval)(source);
    start({ port: port!, lock, imports, killable: false });
  }, { once: true });
}

/** Deno's message has colours, and goes on with the address of the module's importer, which is the whole source of our worker. */
function firstLine(message: string): string {
  // deno-lint-ignore no-control-regex -- colours begin with one
  return message.split("\n")[0]!.replaceAll(/\x1b\[\d+m/g, "");
}
