/**
 * Makes the source text of workers from functions of ours. These are ordinary, checked TypeScript; what is sent is the JavaScript that Deno
 * has already made of them, so workers need not compile TypeScript again.
 *
 * A worker starts from a `data:` URL, which needs no permission (with deno run, JSR and deno compile alike). It holds only a few lines; the
 * rest comes with the first message, because Deno 2.9 keeps the text of each `data:` worker forever: 18 KB for each replaced worker.
 *
 * @module
 */

import { encodeError } from "./encode_error.ts";
import { openLine } from "./line_end.ts";
import type { LockManager } from "./platform.ts";
import { workerMain } from "./main.ts";
import { createRuntime, type RuntimeParts, runtimeParts } from "./runtime.ts";
import { openSharedQueue } from "./shared_queue.ts";

/** The functions that {@linkcode workerMain} uses. */
export interface WorkerParts extends RuntimeParts {
  createRuntime: typeof createRuntime;
  encodeError: typeof encodeError;
  openLine: typeof openLine;
  openSharedQueue: typeof openSharedQueue;
}

/** What a worker is started with. */
export interface Connection {
  /** Carries all messages. */
  port: MessagePort;
  /** The name of the lock that the worker is to hold. */
  lock: string;
  /** Import the task modules. */
  imports: (() => Promise<Record<string, unknown>>)[];
  /** Whether its parent can halt it whatever it is doing. */
  killable: boolean;
  /** Whether its heap is full; undefined if there is no way to know. */
  isHeapFull?: (() => boolean) | undefined;
}

/** Starts the guard of a worker, with all it needs. {@linkcode workerSource} is the text of this function. */
export type StartInside = (connection: Connection) => void;

/** The part of a worker's global scope that we use: a published module cannot refer to Deno's types of it. */
export interface WorkerScope extends EventTarget {
  navigator: { locks: LockManager };
  location: { href: string };
  close(): void;
}

let source: string | undefined;

/** The source text that is the same for all workers. */
export function workerSource(): string {
  const parts: WorkerParts = { ...runtimeParts, createRuntime, encodeError, openLine, openSharedQueue };
  const texts = Object.entries(parts).map(([name, part]) => `${name}: ${part}`);
  // Strict, like the modules it comes from: otherwise a task could read the arguments of our functions through `caller`.
  return source ??= `"use strict";((connection) => (${workerMain})({ ${texts.join(", ")} }, connection))
//# sourceURL=process-pool/worker`;
}

/**
 * The URL of a worker that calls `connect` with functions that import these task modules.
 *
 * With `prefetched`, the imports are literals in the source, so that Deno finds them: it loads the modules with the permissions of the
 * worker's parent before the worker runs, and evaluates them when they are imported. So a worker needs no permission of its own for its
 * task modules, our guard is in place before they are evaluated, and a module that cannot be loaded is an error that can be caught. A
 * worker with its parent's permissions does without: where types are checked, as under `deno test`, Deno would print this whole URL as what
 * it checks.
 */
export function workerUrl(
  modules: readonly string[],
  { connect, prefetched }: { connect: (imports: Connection["imports"]) => void; prefetched: boolean },
): string {
  const imports = modules.map((url) => JSON.stringify(url)).map((url) => `() => import(${prefetched ? url : `String(${url})`})`);
  return dataUrl(`(${connect})([${imports}]);`);
}

/** The URL of a module with this source. */
export function dataUrl(source: string): string {
  return `data:text/javascript,${encodeURIComponent(source)}`;
}
