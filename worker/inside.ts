/**
 * How a worker's source is made: of functions of ours, as their text. They are ordinary, checked TypeScript here; what is sent is what Deno has
 * already made of them, so that no worker has to compile them again, and a `data:` URL of it needs no permission (deno run, JSR and deno
 * compile alike).
 *
 * @module
 */

import { encodeError } from "./encode_error.ts";
import type { LockManager } from "./locks.ts";
import { type Connection, workerMain } from "./main.ts";
import { createRuntime } from "./runtime.ts";

/** What {@linkcode workerMain} is made of. */
export interface RuntimeParts {
  /** Gets the worker's port, in the way of its kind of worker. */
  connect: () => Promise<Connection>;
  createRuntime: typeof createRuntime;
  encodeError: typeof encodeError;
  /** Import the task modules. */
  imports: (() => Promise<Record<string, unknown>>)[];
}

/** The part of a worker's global scope that we use: Deno's types of it cannot be referred to in a published module. */
export interface WorkerScope extends EventTarget {
  name: string;
  navigator: { locks: LockManager };
  close(): void;
}

/**
 * The address of a worker that can import these task modules.
 *
 * `prefetched` writes the imports out in the source, so that Deno finds them there: it then loads the modules with the permissions of the
 * worker's parent before the worker runs, and evaluates them when they are imported. So a worker needs no permission of its own for its task
 * modules, our guard stands before they are evaluated, and one that cannot be loaded is an error that can be caught. A worker with its parent's
 * permissions does without: where types are checked, as under `deno test`, Deno would name this whole address as what it checks.
 */
export function workerUrl(
  modules: readonly string[],
  { connect, prefetched }: { connect: RuntimeParts["connect"]; prefetched: boolean },
): string {
  const imports = modules.map((url) => JSON.stringify(url)).map((url) => `() => import(${prefetched ? url : `String(${url})`})`);
  const parts = `connect: ${connect}, createRuntime: ${createRuntime}, encodeError: ${encodeError}, imports: [${imports}]`;
  return dataUrl(`(${workerMain})({ ${parts} });`);
}

/** A module of this source. */
export function dataUrl(source: string): string {
  return `data:text/javascript,${encodeURIComponent(source)}`;
}
