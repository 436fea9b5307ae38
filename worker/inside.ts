/**
 * How a worker's source is made: of functions of ours, as their text. They are ordinary, checked TypeScript here; what is sent is what Deno has
 * already made of them, so that no worker has to compile them again.
 *
 * A worker begins with a `data:` URL, which needs no permission (deno run, JSR and deno compile alike). That holds only a few lines; the rest
 * comes by the first message, because Deno 2.9 keeps the text of each `data:` worker for ever, 18 KB for each worker that would be replaced.
 *
 * @module
 */

import { encodeError } from "./encode_error.ts";
import { lackOf } from "./lack.ts";
import { openLine } from "./line_end.ts";
import type { LockManager } from "./platform.ts";
import { workerMain } from "./main.ts";
import { createRuntime } from "./runtime.ts";
import { openSharedQueue } from "./shared_queue.ts";

/** What {@linkcode workerMain} is made of. */
export interface RuntimeParts {
  createRuntime: typeof createRuntime;
  encodeError: typeof encodeError;
  lackOf: typeof lackOf;
  openLine: typeof openLine;
  openSharedQueue: typeof openSharedQueue;
}

/** What a worker is started with. */
export interface Connection {
  /** All messages go by it. */
  port: MessagePort;
  /** The name of the lock that it is to hold. */
  lock: string;
  /** Import the task modules. */
  imports: (() => Promise<Record<string, unknown>>)[];
  /** Whether its parent can halt it whatever it does. */
  killable: boolean;
  /** Whether its heap is full; there if that can be told. */
  isHeapFull?: (() => boolean) | undefined;
}

/** Starts what a worker is: what {@linkcode workerSource} is the text of. */
export type StartInside = (connection: Connection) => void;

/** The part of a worker's global scope that we use: Deno's types of it cannot be referred to in a published module. */
export interface WorkerScope extends EventTarget {
  navigator: { locks: LockManager };
  close(): void;
}

let source: string | undefined;

/** The text of what all workers are. */
export function workerSource(): string {
  const parts = Object.entries({ createRuntime, encodeError, lackOf, openLine, openSharedQueue }).map(([name, part]) => `${name}: ${part}`);
  // Strict, as it is written: what a task calls or is called by would show it the arguments of other functions.
  return source ??= `"use strict";((connection) => (${workerMain})({ ${parts.join(", ")} }, connection))
//# sourceURL=process-pool/worker`;
}

/**
 * The address of a worker that calls `connect` with what imports these task modules.
 *
 * `prefetched` writes the imports out in the source, so that Deno finds them there: it then loads the modules with the permissions of the
 * worker's parent before the worker runs, and evaluates them when they are imported. So a worker needs no permission of its own for its task
 * modules, our guard stands before they are evaluated, and one that cannot be loaded is an error that can be caught. A worker with its parent's
 * permissions does without: where types are checked, as under `deno test`, Deno would name this whole address as what it checks.
 */
export function workerUrl(
  modules: readonly string[],
  { connect, prefetched }: { connect: (imports: Connection["imports"]) => void; prefetched: boolean },
): string {
  const imports = modules.map((url) => JSON.stringify(url)).map((url) => `() => import(${prefetched ? url : `String(${url})`})`);
  return dataUrl(`(${connect})([${imports}]);`);
}

/** A module of this source. */
export function dataUrl(source: string): string {
  return `data:text/javascript,${encodeURIComponent(source)}`;
}
