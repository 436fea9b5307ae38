import { show } from "@procpool/process-pool/executor";
import { MAX_PAYLOAD } from "./envelope.ts";
import { sizeOf } from "./values.ts";

/**
 * Where arguments and results go that are too large for Redis: a bucket, a shared disk. Producers and hosts are given the same. What is left
 * there when a producer dies is never deleted: let it expire.
 */
export interface PayloadStore {
  /** Keeps a text under a key, in the place of another. A key is of letters, digits and `-_.!~*'()%`. */
  put(key: string, text: string): Promise<void>;
  /** The text that was kept under a key. */
  get(key: string): Promise<string>;
  /** Forgets a key, if it is there. */
  delete(key: string): Promise<void>;
}

/** Whether it has to go into the store; throws a RangeError if there is none. */
export function isTooLarge(payload: unknown, { what, store }: { what: string; store: PayloadStore | undefined }): boolean {
  const size = sizeOf(payload);
  if (size <= MAX_PAYLOAD) return false;
  if (store !== undefined) return true;
  throw tooLarge(size, { what, most: MAX_PAYLOAD });
}

/** The error of what is too large without a store. */
export function tooLarge(size: number, { what, most }: { what: string; most: number }): RangeError {
  return new RangeError(
    `Cannot send ${what} through the queue as it must be at most ${Math.floor(most)} bytes of JSON without 'payloads', ` +
      `the store for larger ones: current value is ${size} bytes`,
  );
}

/** The store, if it is one. */
export function checkedStore(action: string, store: unknown): PayloadStore | undefined {
  if (store === undefined) return undefined;
  const given = (store ?? {}) as Record<string, unknown>;
  if (["put", "get", "delete"].every((name) => typeof given[name] === "function")) return store as PayloadStore;
  throw new TypeError(`Cannot ${action} as 'payloads' must have the methods put, get and delete: current value is ${show(store)}`);
}
