/**
 * The messages between a slot and its worker. All of them are data; no function ever crosses, and nothing that arrives is run except the
 * text of a task that the pool's own caller gave.
 *
 * ```
 *   slot                                   worker
 *    | -- (a port) --------------------->    |    the rest goes by it
 *    |            <-- alive ---------------- |    its guard stands, its lock is held
 *    | -- load ------------------------->    |
 *    |            <-- loaded --------------- |    or failed
 *    | -- initialize ------------------->    |    only if the pool has an initializer
 *    |            <-- initialized ---------- |    or failed
 *    | -- run, chunk ------------------->    |    as often as there are jobs; `load` and `initialize` are behind it then
 *    |            <-- returned, threw,       |
 *    |                skipped, items ------- |
 *    | -- wake ------------------------->    |    if it listens: see {@linkcode Line}
 *    | -- abort ------------------------>    |    aborts the signals of what runs; the worker ends when that has
 *    | -- close ------------------------>    |    no job runs; the finalizer does
 *    |            <-- closed --------------- |
 *    |            <-- dying ---------------- |    at any time, and last
 * ```
 *
 * Small jobs and results go beside the port, through shared memory: {@linkcode Line} does that.
 *
 * In addition there are the claims, an Int32Array in shared memory with three words for each job that a worker may hold: who has it, which
 * of its items is next, and when it or its last item was started (the time of day, truncated to 32 bits). A job that was sent is claimed by
 * a compare-and-exchange: by the worker, which then runs it, or by the slot, which then knows that it will never run. In the same way the
 * worker claims each item of a chunk before starting it, or the slot claims all that are left. So what `cancel()` and `running()` say is
 * exact at any moment, and so is the account of what a death took.
 *
 * @module
 */

import type { LineMemory } from "./line.ts";

/** The words that a job has in the claims. */
export const CLAIM_WORDS = 3;
/** The slot has sent the job. */
export const SENT = 1;
/** The worker runs the job. */
export const STARTED = 2;
/** The slot has taken the job back. */
export const WITHDRAWN = 3;
/** The worker has sent the job's answer. */
export const FINISHED = 4;
/** In place of the next item: the slot wants no more of them. */
export const NO_MORE = -1;

/** Tells a worker which task to run. The first message about a task carries the task itself, later ones only its key. */
export interface TaskMessage {
  key: number;
  /** Its name in messages and in stack traces. */
  name: string;
  /** An export of the task module with this index. */
  export?: { module: number; name: string };
  /** A self-contained expression that evaluates to the function. */
  text?: string;
  /** The function itself: only on the backend `inline`, where nothing is copied. It comes with every message, and is not kept. */
  func?: (...args: unknown[]) => unknown;
  /** Whether calls of it were small enough to go through shared memory. The worker does not need to know. */
  isSmall?: boolean;
}

/** Names a job to its worker. */
export interface RunHeader {
  /** Tells apart the jobs that a slot has sent. Modulo the number of places in the claims, it is the job's place there. */
  run: number;
  task: TaskMessage;
  id: string | number;
  /** Which run of the job this is, counted from 1; for a chunk, of its first item. */
  attempt: number;
}

/** A job, or a chunk of a map. */
export type RunMessage = RunHeader & ({ type: "run"; args: readonly unknown[] } | ChunkPart);

/**
 * A job or a chunk that comes by the port. With `inTurn` it waits until the queue says that it is its turn; "nothing" comes instead of one
 * that could not be sent.
 */
export type RunByPort = (RunMessage | { type: "nothing" }) & { inTurn: boolean };

interface ChunkPart {
  type: "chunk";
  /** The items to be run: an array, or, far cheaper, a Float64Array if all are numbers. */
  items: ArrayLike<unknown>;
  /** The index of the first of them in the chunk. */
  from: number;
  /** The indexes of items that are not to be run. */
  skip: readonly number[];
  /** Whether each result is sent before the next item is started. */
  eager: boolean;
  /** Whether the start of each item is noted. */
  timed: boolean;
  /** With `eager`, where results that are numbers are put, as {@linkcode NUMBERS} says; undefined if there are few items. */
  numbers: SharedArrayBuffer | undefined;
}

/**
 * The memory for a chunk's numbers begins with two words; from this byte on there is a double for each item. If all items are numbers, each
 * is there until its result takes the place. The words are indexes: the worker has put results there for items from the first index up to,
 * but not including, the second. So the caller has them before the next item is started, whatever happens to the worker then, for much less
 * than a message each. If the first word changes, it does so before the second.
 */
export const NUMBERS = 8;

/** Where a worker notes when jobs begin and end, if there are observers. */
export interface TimesMemory {
  /** Two for each place in the claims, in milliseconds of the caller's `performance.now()`; 0 if not noted. */
  times: Float64Array;
  /** The caller's `performance.timeOrigin`, and its `performance.now()` when this was sent. */
  origin: number;
  now: number;
}

/** The messages to the runtime, the part of a worker that runs tasks. */
export type ToRuntime =
  | { type: "load"; claims: Int32Array; capacity: number; times: TimesMemory | undefined }
  | { type: "initialize"; task: TaskMessage; args: readonly unknown[] }
  | RunMessage
  | { type: "close"; finalizer: TaskMessage | undefined };

export type ToWorker =
  | Exclude<ToRuntime, RunMessage | { type: "load" }>
  | ToRuntime & { type: "load" } & { line: LineMemory }
  | RunByPort
  | { type: "wake" }
  | { type: "abort"; reason: unknown; name?: string | undefined };

export type FromWorker =
  | { type: "alive" }
  | { type: "loaded"; exports: ExportMessage[] }
  | { type: "initialized" }
  | { type: "failed"; stage: StartStage; thrown: Thrown }
  | { type: "returned"; run: number; value: unknown }
  | { type: "threw"; run: number; thrown: Thrown }
  | { type: "skipped"; run: number }
  | ItemsMessage
  | { type: "closed"; thrown: Thrown | undefined }
  | { type: "dying" } & Death;

/** The messages from the runtime. */
export type FromRuntime = Exclude<FromWorker, { type: "alive" | "dying" }>;

/** The stage in which a worker failed to start. */
export type StartStage = "loading" | "initializing";

/** Outcomes of consecutive items of a chunk. */
export interface ItemsMessage {
  type: "items";
  run: number;
  /** The index of the first of them. */
  from: number;
  /**
   * What the task returned, with undefined for items that threw. Numbers may come as a Float64Array. Undefined if all are in the memory for
   * numbers.
   */
  values: ArrayLike<unknown> | undefined;
  /** What it threw, by index in the chunk. */
  thrown: [index: number, thrown: Thrown][];
  /** Whether the chunk is done: no more of it will come. */
  last: boolean;
  /** How long the worker has worked on the chunk so far, in milliseconds. */
  elapsed: number;
}

/** An exported function, as the worker sees it. */
export interface ExportMessage {
  module: number;
  name: string;
  /** The name that the function itself has. */
  functionName: string;
  text: string;
}

/** Something thrown: itself if nothing has to be copied, else taken apart. */
export type Thrown = { raw: unknown } | { errors: ErrorMessage[]; root: ValueMessage };

/** A value within something thrown: data, or the index of an error. Errors may refer to each other in cycles. */
export type ValueMessage = { value: unknown } | { error: number };

/** An error, taken apart. */
export interface ErrorMessage {
  /** Its nearest class of the platform. */
  builtin: string;
  /** Its nearest class that a task module exports. */
  exported: { module: number; name: string } | undefined;
  /** Its name. */
  name: string;
  /** Its message. */
  message: string;
  /** Its stack, down to the task's own lines. */
  stack: string;
  /** Own properties that can be copied: name, whether enumerable, and value. */
  properties: [name: string, enumerable: boolean, value: ValueMessage][];
}

/** How a thread ended without having been told to. */
export interface Death {
  /** What it did, to follow "its worker". */
  reason: string;
  exitCode?: number | undefined;
  /** The limit in MB, if reaching it ended the thread; NaN from the worker, which does not know it. */
  memoryLimit?: number | undefined;
  /** Whether a message that it could not read ended it. */
  unread?: boolean | undefined;
  thrown?: Thrown | undefined;
}

/** The fast path to a thread, beside messages: through memory that it shares with its slot. */
export interface FastPath {
  /**
   * Sends the first run of a job whose task the worker knows, if it is small enough. If not, returns false: `post` then sends it.
   *
   * @throws {unknown} What a getter of an argument throws. Nothing was sent then.
   */
  call(key: number, run: number, id: string | number, args: readonly unknown[]): boolean;
  /** Makes the thread take up this many calls: to be called after the last of them. */
  ring(calls: number): void;
  /**
   * Called within a long turn: reports what jobs have returned by now, `most` at most, and makes the thread take up what it was sent. Returns
   * how many it has reported.
   */
  takeReturned(most: number): number;
  /** Whether a call may have been refused for lack of room. */
  readonly isFull: boolean;
  /** Whether the thread takes up what it is sent without having to be woken. */
  readonly isAwake: boolean;
  /** Hands over the memory of a buffer that nobody else uses, to be filled with a result. */
  reuse(buffer: ArrayBuffer): void;
}

/** One thread that runs tasks, as its slot sees it. */
export interface Thread {
  /**
   * Sends a message.
   *
   * @throws {DOMException & { name: "DataCloneError" }} If it holds something that cannot be copied. Nothing was sent then.
   */
  post(message: ToRuntime, transfer?: readonly Transferable[]): void;
  /** Undefined if the thread shares no memory. */
  readonly fastPath?: FastPath;
  /** How long recent jobs took, in ms; Infinity if that is not known. */
  readonly pace: number;
  /** Reports at once what has arrived in shared memory by now. */
  drain(): void;
  /**
   * Stops the thread at once, as far as the backend can. With `abort` it still runs jobs: if it cannot just be killed, their signals abort
   * with this reason first.
   */
  stop(abort?: { reason: unknown }): void;
}

/** What a thread reports to its slot. */
export interface ThreadEvents {
  /** It can be sent messages. */
  alive(): void;
  message(message: FromRuntime): void;
  /** Jobs returned these values: like a message for each, without making any. The listener may change the lists. */
  returned(runs: number[], values: unknown[]): void;
  /** There are no more messages at this moment: time to act on those that came. */
  delivered(): void;
  /** It has ended without having been told to stop: it no longer runs anything. What it has sent may still come, and then `died`. */
  ending(): void;
  /** It has ended, or could not start, without having been told to stop. Only `gone` follows. */
  died(death: Death): void;
  /** It was stopped a while ago, but still runs. */
  stuck(): void;
  /** Nothing of it runs any more. */
  gone(): void;
}

/**
 * Starts a thread: what a backend implements.
 *
 * @throws If such a thread cannot be started.
 */
export type StartThread = (events: ThreadEvents, name: string) => Thread;
