/**
 * Fixtures for tests of pools: task modules that need no permission, a deadline for what must not hang, messages.
 *
 * @module
 */

import { withDeadline } from "../pool/deadline.ts";
import type { RunMessage } from "../worker/protocol.ts";

/** The URL of a module with this source. */
export function moduleOf(source: string): string {
  return `data:text/javascript,${encodeURIComponent(source)}`;
}

/** A deadline for what must not hang: long enough for a machine that is busy with other things. */
export function within<T>(promise: Promise<T>): Promise<T> {
  return withDeadline(promise, { timeout: 60_000 });
}

/** Whether a permission is granted: tests that need one say so in their name, and are ignored without it. */
export function granted(name: "read" | "write" | "run" | "ffi" | "net"): boolean {
  const permission: Deno.PermissionDescriptor = name === "net" ? { name, host: "127.0.0.1" } : { name };
  return Deno.permissions.querySync(permission).state === "granted";
}

/** A chunk of a map, as its slot sends it. */
export function chunkOf(items: ArrayLike<unknown>, run: number): RunMessage {
  return {
    type: "chunk",
    run,
    task: { key: 3, name: "task" },
    id: 0,
    attempt: 1,
    items,
    from: 0,
    skip: [],
    eager: false,
    timed: false,
    numbers: undefined,
  };
}
