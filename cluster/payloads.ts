import { show } from "@procpool/process-pool/executor";
import { LARGEST_PAYLOAD } from "./envelope.ts";
import { uniqueName } from "./names.ts";
import { sizeOf } from "./values.ts";

/**
 * Where arguments and results that are too large for Redis go: a bucket, a shared disk. Producers and hosts must use the same store.
 * Results of jobs whose id is a string stay there for whoever asks again; what a producer had there when it died, and what a host puts
 * there too late, is never deleted: let it expire, after ten minutes at the earliest.
 */
export interface PayloadStore {
  /**
   * Stores a text under a key, replacing any other: a concurrent `get` returns the whole of one of them. A key has at most 255 letters,
   * digits and characters of `-_.!~*'()%`.
   */
  put(key: string, text: string): Promise<void>;
  /** Returns the text stored under a key. */
  get(key: string): Promise<string>;
  /** Deletes a key, if it exists. */
  delete(key: string): Promise<void>;
}

/** Under which key the store has a job's result, or the arguments that a producer has put there under a name of their own. */
export function payloadKey(queue: string, name: string, what: "args" | "result"): string {
  return `${queue}.${name}.${what}`;
}

/** What jobs of one name have in the store. */
interface Holding {
  /** How many jobs of that name there are. */
  holders: number;
  /**
   * The name of their arguments there: not the jobs' own, under which another producer may have put those of another job that still needs
   * them.
   */
  storedAs: string;
  /** Resolves when their arguments are there. */
  put: Promise<void> | undefined;
  /** Whether others may ask for the result. */
  named: boolean;
}

/**
 * A pool's use of the store. Jobs of the same name share what they have there, until the last of them lets go. Operations for a name are
 * done in turn: it may be used again before earlier ones have finished.
 */
export class Payloads {
  #store: PayloadStore;
  #queue: string;
  #holdings = new Map<string, Holding>();
  #turns = new Map<string, Promise<void>>();

  constructor(store: PayloadStore, queue: string) {
    this.#store = store;
    this.#queue = queue;
  }

  /** Keeps what a job has there until it lets go. */
  hold({ travelId, named }: { travelId: string; named: boolean }): void {
    const holding = this.#holdings.get(travelId);
    if (holding === undefined) this.#holdings.set(travelId, { holders: 1, storedAs: uniqueName(), put: undefined, named });
    else holding.holders++;
  }

  /**
   * Stores the arguments of a held job, unless one of its name already has: the queue takes the first of them.
   *
   * @returns Their name there.
   */
  async putArguments({ travelId }: { travelId: string }, text: string): Promise<string> {
    const holding = this.#holdings.get(travelId)!;
    const { storedAs } = holding;
    await (holding.put ??= this.#inTurn(travelId, () => this.#store.put(payloadKey(this.#queue, storedAs, "args"), text)));
    return storedAs;
  }

  /** The result of a job. */
  async result({ travelId }: { travelId: string }): Promise<unknown> {
    return JSON.parse(await this.#store.get(payloadKey(this.#queue, travelId, "result")));
  }

  /**
   * Lets go of a job, and deletes what nobody needs any more.
   *
   * @param out Resolves when no host will begin the job any more.
   */
  async letGo({ travelId }: { travelId: string }, out: Promise<void> | undefined): Promise<void> {
    const holding = this.#holdings.get(travelId)!;
    holding.holders--;
    if (holding.holders > 0) return;
    this.#holdings.delete(travelId);
    await this.#inTurn(travelId, async () => {
      await out;
      const unwanted = [payloadKey(this.#queue, holding.storedAs, "args")];
      // Someone attached to the job may be reading it.
      if (!holding.named && !this.#holdings.has(travelId)) unwanted.push(payloadKey(this.#queue, travelId, "result"));
      await Promise.all(unwanted.map((key) => this.#store.delete(key)));
    });
  }

  /** Does something after all earlier operations for this name, whether they succeeded or not. */
  #inTurn(travelId: string, work: () => Promise<void>): Promise<void> {
    const turn = (this.#turns.get(travelId) ?? Promise.resolve()).then(work, work);
    this.#turns.set(travelId, turn);
    const end = (): void => {
      if (this.#turns.get(travelId) === turn) this.#turns.delete(travelId);
    };
    turn.then(end, end);
    return turn;
  }
}

/** The error for something that the store does not return. */
export function unreadable(what: string, cause: unknown): Error {
  return new Error(`Cannot read ${what} from the payload store: ${cause instanceof Error ? cause.message : cause}`, { cause });
}

/** Whether a payload has to go into the store; throws a RangeError if there is none. */
export function isTooLarge(payload: unknown, { what, store }: { what: string; store: PayloadStore | undefined }): boolean {
  const size = sizeOf(payload);
  if (size <= LARGEST_PAYLOAD) return false;
  if (store !== undefined) return true;
  throw tooLarge(size, { what, most: LARGEST_PAYLOAD });
}

/** The error for a payload that is too large without a store. */
export function tooLarge(size: number, { what, most }: { what: string; most: number }): RangeError {
  return new RangeError(
    `Cannot send ${what} through the queue as it must be at most ${Math.floor(most)} bytes of JSON without 'payloads', ` +
      `the store for larger ones: current value is ${size} bytes`,
  );
}

/** Checks the store. */
export function checkedStore(action: string, store: unknown): PayloadStore | undefined {
  if (store === undefined) return undefined;
  const given = (store ?? {}) as Record<string, unknown>;
  if (["put", "get", "delete"].every((name) => typeof given[name] === "function")) return store as PayloadStore;
  throw new TypeError(`Cannot ${action} as 'payloads' must have the methods put, get and delete: current value is ${show(store)}`);
}
