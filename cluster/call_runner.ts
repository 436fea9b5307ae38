import { Job, PoolBrokenError, PoolClosedError, type ProcessPool } from "@procpool/process-pool";
import { PART_OF_MAP, type PartOfMapOptions, show, showJob } from "@procpool/process-pool/executor";
import {
  type Envelope,
  type ItemReply,
  LARGEST_CHUNK,
  LARGEST_PAYLOAD,
  type Reply,
  VERSION,
  writeFailure,
  writeValue,
} from "./envelope.ts";
import { isTooLarge, payloadKey, type PayloadStore, tooLarge, unreadable } from "./payloads.ts";
import type { Settings } from "./serve_options.ts";
import type { ClusterTask } from "./tasks.ts";
import { fromJson, type Json, sizeOf } from "./values.ts";

/** Why a local job is stopped that is no longer wanted. */
export const CANCELLED = Symbol("cancelled");
/** Why a job is not started that comes too late. */
export const EXPIRED = Symbol("expired");

/** The name of a job in errors. */
export interface Called {
  jobId: string | number;
  taskName: string;
}

export function showCalled({ jobId, taskName }: Called): string {
  return showJob(jobId, taskName);
}

/** What a runner tells its host. */
export interface CallRunnerEvents {
  /** The pool can start no workers any more. */
  broken(error: PoolBrokenError): void;
  /** The store has no arguments for a job: it may have been cancelled. */
  argumentsGone(id: string): Promise<void>;
}

/** Runs what a host takes from the queue: looks up the task, checks the arguments, runs it in the local pool, and makes the reply. */
export class CallRunner {
  #pool: ProcessPool;
  #options: Settings;
  #events: CallRunnerEvents;

  constructor(pool: ProcessPool, options: Settings, events: CallRunnerEvents) {
    this.#pool = pool;
    this.#options = options;
    this.#events = events;
  }

  /**
   * Whether the error means that there are no workers left here. Tasks and their checks can throw the same errors, so the pool is asked
   * too.
   */
  hasNoWorkers(error: unknown): boolean {
    return (error instanceof PoolBrokenError || error instanceof PoolClosedError) && !isOpen(this.#pool);
  }

  /** Runs a call and makes its reply; throws what it failed with, or why it was not started or was stopped. */
  async run(id: string, envelope: Envelope, { called, signal }: { called: Called; signal: AbortSignal }): Promise<Reply> {
    const task = this.#admit(envelope);
    const { stored } = envelope;
    if (stored !== undefined) {
      envelope[stored] = await unlessStopped(this.#readArguments(id, { storedAs: envelope.storedAs!, called }), signal);
    }
    signal.throwIfAborted();
    const reply = envelope.items === undefined
      ? await this.#runOne(called, task, envelope, signal)
      : await this.#runItems(task, envelope, signal);
    const { store, queue } = this.#options;
    // Replies with items were cut to what may travel, or go into the store.
    if (store === undefined && reply.items !== undefined) return reply;
    if (!isTooLarge(reply, { what: "the result", store })) return reply;
    const key = payloadKey(queue, id, "result");
    // A cancelled job waits: what it puts there must not arrive after what another job of its name puts.
    await unlessStopped(this.#store().put(key, JSON.stringify(reply)), signal, { unless: CANCELLED });
    if (!signal.aborted) return { v: VERSION, stored: true };
    // It was cancelled meanwhile: nobody reads the result, and nobody else deletes it.
    await this.#store().delete(key).catch(this.#options.onError);
    throw signal.reason;
  }

  /** The task of a call that may be started: looked up among this host's own tasks, whatever the queue says. */
  #admit({ task: name, cancelled: unwanted, expiresAt, release }: Envelope): ClusterTask {
    const { tasks } = this.#options;
    if (unwanted === true) throw CANCELLED;
    if (!Object.hasOwn(tasks, name)) {
      throw new TypeError(
        `Cannot run task ${show(name)} as this host has none of that name: its tasks are ${Object.keys(tasks).map(show).join(", ")}`,
      );
    }
    if (release !== undefined && this.#options.release !== undefined && release !== this.#options.release) {
      throw new TypeError(
        `Cannot run task ${show(name)} of release ${show(release)} as this host is of release ${show(this.#options.release)}`,
      );
    }
    if (expiresAt !== undefined && Date.now() > expiresAt) throw EXPIRED;
    return tasks[name]!;
  }

  async #runOne({ jobId }: Called, task: ClusterTask, envelope: Envelope, signal: AbortSignal): Promise<Reply> {
    const args = envelope.args!.map(fromJson);
    task.validate?.(args);
    const { timeout, retries } = envelope;
    const value = await this.#pool.run(new Job({ id: jobId, func: task, args, timeout, retries, signal }));
    return { v: VERSION, ...writeValue(value) };
  }

  /**
   * Runs items in one worker, one after the other: each fails alone, and a death costs the item that ran. The producer sends items without
   * a reply again.
   */
  async #runItems(task: ClusterTask, { items, timeout, retries = 0, first = 0 }: Envelope, signal: AbortSignal): Promise<Reply> {
    const start = performance.now();
    const replies: ItemReply[] = [];
    const accepted: { index: number; item: unknown }[] = [];
    for (const [index, json] of items!.entries()) {
      const item = fromJson(json);
      replies[index] = attempt(() => {
        task.validate?.([item]);
        accepted.push({ index, item });
        return {};
      });
    }
    // Items that run together are numbered without gaps. If nothing may run twice, none is started whose reply might not fit into the
    // queue.
    const oneByOne = accepted.length < items!.length || (this.#options.redeliveries === 0 && this.#options.store === undefined);
    const together: PartOfMapOptions & { settled: true } = {
      chunkSize: Math.max(1, accepted.length),
      settled: true,
      timeout,
      signal,
      [PART_OF_MAP]: { first, retries },
    };
    const outcomes = oneByOne
      ? this.#whileThereIsRoom(task, { accepted, replies, first, timeout, retries, signal })
      : this.#pool.map(task, accepted.map(({ item }) => item), together);
    let next = 0;
    for await (const outcome of outcomes) {
      const { index } = accepted[next]!;
      if (outcome.status === "rejected" && this.hasNoWorkers(outcome.reason)) {
        // The host failed, not the item: another must run the rest.
        if (index === 0) throw outcome.reason;
        if (outcome.reason instanceof PoolBrokenError) this.#events.broken(outcome.reason);
        break;
      }
      next++;
      replies[index] = attempt(() => {
        if (outcome.status === "rejected") throw outcome.reason;
        return writeValue(outcome.value);
      });
    }
    if (next < accepted.length) replies.length = accepted[next]!.index;
    const reply: Reply = { v: VERSION, items: replies, elapsed: performance.now() - start };
    if (this.#options.store !== undefined || sizeOf(reply) <= LARGEST_PAYLOAD) return reply;
    const ran = this.#options.redeliveries === 0 && next > 0 ? accepted[next - 1]!.index + 1 : 1;
    return { ...reply, items: firstOf(replies, ran) };
  }

  /** Runs items one by one, and without a store ends when their replies fill a chunk; the last may exceed that. */
  async *#whileThereIsRoom(
    task: ClusterTask,
    { accepted, replies, first, timeout, retries, signal }: {
      accepted: { index: number; item: unknown }[];
      replies: ItemReply[];
      first: number;
      timeout: number | undefined;
      retries: number;
      signal: AbortSignal;
    },
  ): AsyncGenerator<PromiseSettledResult<unknown>> {
    let [bytes, counted] = [0, 0];
    for (const { index, item } of accepted) {
      while (counted < index) bytes += sizeOf(replies[counted++]) + 1;
      if (bytes > LARGEST_CHUNK && this.#options.store === undefined) return;
      const job = new Job({ id: first + index, func: task, args: [item], timeout, retries, signal });
      const [outcome] = await Promise.allSettled([this.#pool.run(job)]);
      if (outcome.status === "rejected" && signal.aborted) throw outcome.reason;
      yield outcome;
    }
  }

  async #readArguments(id: string, { storedAs, called }: { storedAs: string; called: Called }): Promise<Json[]> {
    const store = this.#store();
    try {
      const args = JSON.parse(await store.get(payloadKey(this.#options.queue, storedAs, "args")));
      if (!Array.isArray(args)) throw new TypeError(`it must be an array: current value is ${show(args)}`);
      return args;
    } catch (error) {
      // Whoever cancels it deletes them, and the message about that may still be on its way.
      await this.#events.argumentsGone(id);
      throw unreadable(`the arguments of ${showCalled(called)}`, error);
    }
  }

  #store(): PayloadStore {
    const { store } = this.#options;
    if (store !== undefined) return store;
    throw new TypeError("Cannot read arguments that are in the payload store as this host was given no 'payloads'");
  }
}

function attempt(make: () => ItemReply): ItemReply {
  try {
    return make();
  } catch (error) {
    return { failure: writeFailure(error) };
  }
}

/**
 * As many of the first outcomes as Redis takes, and at least `least`: the producer sends the rest of the items again. Outcomes that are too
 * large by themselves fail.
 */
function firstOf(replies: ItemReply[], least: number): ItemReply[] {
  const items = replies.map((reply) =>
    attempt(() => {
      const size = sizeOf(reply);
      if (size > LARGEST_CHUNK) throw tooLarge(size, { what: "the result", most: LARGEST_CHUNK });
      return reply;
    })
  );
  let bytes = 0;
  const end = items.findIndex((item) => (bytes += sizeOf(item) + 1) > LARGEST_CHUNK);
  return end < 0 ? items : items.slice(0, Math.max(least, end));
}

/** Whether a pool takes jobs. It refuses a job before it looks at the job's signal. */
function isOpen(pool: ProcessPool): boolean {
  const aborted = Symbol("aborted");
  try {
    pool.trySubmit(new Job({ func: () => {}, signal: AbortSignal.abort(aborted) }));
    return true;
  } catch (error) {
    return error === aborted;
  }
}

/** Waits for the store, which may be slow or never answer, unless the job is stopped, for another reason than the given one. */
async function unlessStopped<T>(work: Promise<T>, signal: AbortSignal, { unless }: { unless?: symbol } = {}): Promise<T> {
  const stopped = Promise.withResolvers<never>();
  const stop = (): void => {
    if (signal.reason !== unless) stopped.reject(signal.reason);
  };
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
  try {
    return await Promise.race([work, stopped.promise]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
