/**
 * How a worker's source is made: of functions of ours, as their text. They are ordinary, checked TypeScript here; what is sent is what Deno has
 * already made of them, so that no worker has to compile them again, and a `data:` URL of it needs no permission (deno run, JSR and deno
 * compile alike).
 *
 * @module
 */

import { encodeError } from "./encode_error.ts";
import type { LockManager } from "./locks.ts";
import { workerMain } from "./main.ts";
import { createRuntime } from "./runtime.ts";

/** What {@linkcode workerMain} is made of. */
export interface RuntimeParts {
  createRuntime: typeof createRuntime;
  encodeError: typeof encodeError;
}

/** The part of a worker's global scope that we use: Deno's types of it cannot be referred to in a published module. */
export interface WorkerScope extends EventTarget {
  name: string;
  navigator: { locks: LockManager };
  close(): void;
  postMessage(message: unknown, transfer: Transferable[]): void;
}

/** The worker's source in which `boot` starts the runtime. It is a module of its own so that its guard stands before other imports. */
function mainUrl(): string {
  return dataUrl(`export const boot = await (${workerMain})({ createRuntime: ${createRuntime}, encodeError: ${encodeError} });`);
}

/**
 * The source of a worker that imports its task modules by itself when it is told to, with its own permissions: errors then come back whole, and
 * nothing is printed.
 */
export function importingWorkerUrl(): string {
  return dataUrl(`import { boot } from ${quote(mainUrl())}; boot();`);
}

/**
 * The source of a worker whose task modules are its static imports: these are loaded with the permissions of its parent, so it needs none of
 * its own. They hang on a module of their own because Deno prints the address of whatever imports a module that cannot be loaded.
 */
export function linkedWorkerUrl(modules: readonly string[]): string {
  const names = modules.map((_, i) => `m${i}`);
  const imports = modules.map((url, i) => `import * as ${names[i]} from ${quote(url)};`).join("");
  const tasks = dataUrl(`${imports}export default [${names}];`);
  return dataUrl(`import { boot } from ${quote(mainUrl())}; import modules from ${quote(tasks)}; boot(modules);`);
}

function dataUrl(source: string): string {
  return `data:text/javascript,${encodeURIComponent(source)}`;
}

function quote(text: string): string {
  return JSON.stringify(text);
}
