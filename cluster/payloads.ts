import { show } from "@procpool/process-pool/executor";
import { MAX_PAYLOAD } from "./envelope.ts";
import { sizeOf } from "./values.ts";

/**
 * Where arguments and results go that are too large for Redis: a bucket, a shared disk. Producers and hosts are given the same. Results of jobs
 * whose id is a text stay there for whoever asks for them again, and what a producer had there when it died is never deleted: let it expire, after
 * ten minutes at the earliest.
 */
export interface PayloadStore {
  /**
   * Keeps a text under a key, in the place of another: who gets that meanwhile gets all of one of them. A key is of letters, digits and
   * `-_.!~*'()%`, 255 at the most.
   */
  put(key: string, text: string): Promise<void>;
  /** The text that was kept under a key. */
  get(key: string): Promise<string>;
  /** Forgets a key, if it is there. */
  delete(key: string): Promise<void>;
}

/** Under which key the store has a job's result, or the arguments that a producer has put there under a name of their own. */
export function payloadKey(queue: string, name: string, what: "args" | "result"): string {
  return `${queue}.${name}.${what}`;
}

/** What the jobs of one name have in the store. */
interface Holding {
  /** How many of them there are. */
  holders: number;
  /** What their arguments are called there: under the jobs' own name another producer may have put those of another job, which needs them yet. */
  storedAs: string;
  /** Resolves when their arguments are there. */
  put: Promise<void> | undefined;
  /** Whether others may ask for the result. */
  named: boolean;
}

/**
 * A pool's use of the store. Jobs of the same name hold the same things there, until the last of them lets go. What is done for a name is done in
 * turn: it may be used again before all that was done for it has come through.
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

  /** What a job has there is kept until it lets go. */
  hold({ travelId, named }: { travelId: string; named: boolean }): void {
    const holding = this.#holdings.get(travelId);
    if (holding === undefined) this.#holdings.set(travelId, { holders: 1, storedAs: crypto.randomUUID(), put: undefined, named });
    else holding.holders++;
  }

  /**
   * Puts the arguments of a job that is held there, unless one of its name has: the queue takes the first of them.
   *
   * @returns What they are called there.
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
   * Lets go of a job. What nobody needs any more is deleted.
   *
   * @param out Resolves when no host begins with the job any more.
   */
  async letGo({ travelId }: { travelId: string }, out: Promise<void> | undefined): Promise<void> {
    const holding = this.#holdings.get(travelId)!;
    holding.holders--;
    if (holding.holders > 0) return;
    this.#holdings.delete(travelId);
    await this.#inTurn(travelId, async () => {
      await out;
      const unwanted = [payloadKey(this.#queue, holding.storedAs, "args")];
      // Who is attached to it may be reading that by now.
      if (!holding.named && !this.#holdings.has(travelId)) unwanted.push(payloadKey(this.#queue, travelId, "result"));
      await Promise.all(unwanted.map((key) => this.#store.delete(key)));
    });
  }

  /** Does something when all is through that was to be done for this name before, however that went. */
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

/** The error of what the store does not give. */
export function unreadable(what: string, cause: unknown): Error {
  return new Error(`Cannot read ${what} from the payload store: ${cause instanceof Error ? cause.message : cause}`, { cause });
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
