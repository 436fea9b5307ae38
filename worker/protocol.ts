/**
 * What goes over the boundary between a slot and its worker. All of it is data; no function ever crosses, and nothing that arrives is run
 * but the text of a task that the pool's own caller gave.
 *
 * ```
 *   slot                                   worker
 *    | -- (a port) --------------------->    |    all else goes by it
 *    |            <-- alive ---------------- |    its guard stands, its lock is held
 *    | -- load ------------------------->    |
 *    |            <-- loaded --------------- |    or failed
 *    | -- initialize ------------------->    |    only if the pool has an initializer
 *    |            <-- initialized ---------- |    or failed
 *    | -- run, chunk ------------------->    |    as often as there are jobs; `load` and `initialize` are behind it then
 *    |            <-- returned, threw,       |
 *    |                skipped, items ------- |
 *    | -- wake ------------------------->    |    to who listens: see {@linkcode Line}
 *    | -- abort ------------------------>    |    aborts the signals of what runs; the worker ends when that has
 *    | -- close ------------------------>    |    no job runs; the finalizer does
 *    |            <-- closed --------------- |
 *    |            <-- dying ---------------- |    at any time, and last
 * ```
 *
 * What is small goes beside the port, through shared memory: {@linkcode Line} sees to that.
 *
 * And there are the claims, an Int32Array in shared memory with three words for each job that a worker may hold: who has it, which of its
 * items is next, and when it or its last item was started (the time of day, cut to 32 bits). A job that was sent is claimed by a
 * compare-and-exchange: by the worker, which then runs it, or by the slot, which then knows that it will never run. In the same way the
 * worker claims each item of a chunk before it starts it, and the slot all that are left. So what `cancel()` and `running()` say is exact
 * at any moment, and so is the account of what a death took.
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
/** In the place of the next item: the slot wants no more of them. */
export const NO_MORE = -1;

/** Tells a worker which task to run. The first message about a task carries the task itself, later ones its key alone. */
export interface TaskMessage {
  key: number;
  /** What it is called in messages and in stack traces. */
  name: string;
  /** An export of the task module with this index. */
  export?: { module: number; name: string };
  /** What makes a self-contained function: an expression that stands alone. */
  text?: string;
  /** The function itself: only where nothing has to be copied. It comes with every message, and is not kept. */
  func?: (...args: unknown[]) => unknown;
  /** Whether calls of it were tiny when some were sent. The worker does not need to know. */
  isSmall?: boolean;
}

/** Names a job to its worker. */
export interface RunHeader {
  /**
   * Tells apart the jobs that a slot has sent. Modulo the number of jobs for which there are claims, it says which claims are this one's.
   */
  run: number;
  task: TaskMessage;
  id: string | number;
  /** Which run of the job this is, counted from 1; of a chunk, of its first item. */
  attempt: number;
}

/** A job, or a chunk of a map. */
export type RunMessage = RunHeader & ({ type: "run"; args: readonly unknown[] } | ChunkPart);

/**
 * A job or a chunk that comes by the port. With `inTurn` it waits until the queue says that it is its turn; "nothing" comes in the place of
 * one that could not be sent.
 */
export type RunByPort = (RunMessage | { type: "nothing" }) & { inTurn: boolean };

interface ChunkPart {
  type: "chunk";
  /** The items that are to be run: an array, or, far cheaper, a Float64Array if all are numbers. */
  items: ArrayLike<unknown>;
  /** The index of the first of them in the chunk. */
  from: number;
  /** The indexes of those that are not to be run. */
  skip: readonly number[];
  /** Whether each result is sent before the next item is started. */
  eager: boolean;
  /** Whether the start of each item is noted. */
  timed: boolean;
  /** With `eager`, where results are put that are numbers, as {@linkcode NUMBERS} says; undefined if there are few items. */
  numbers: SharedArrayBuffer | undefined;
}

/**
 * The memory for a chunk's numbers begins with two words; from this byte on there is a double for each item. The words are indexes: the
 * worker has put results there from the item of the first up to, but not including, that of the second. So they are with the caller before
 * the next item is started, whatever happens to the worker then, for much less than a message each. When the first word changes, it does so
 * before the second.
 */
export const NUMBERS = 8;

/** Where a worker notes when jobs begin and end, if anybody wants to know. */
export interface TimesMemory {
  /** Two for each job that there are claims for, in milliseconds of the caller's `performance.now()`; 0 for what was not noted. */
  times: Float64Array;
  /** The caller's `performance.timeOrigin`, and its `performance.now()` when this was sent. */
  origin: number;
  now: number;
}

/** What the part of a worker is told that runs tasks. */
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
  | { type: "abort"; reason: unknown };

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

/** What the part of a worker says that runs tasks. */
export type FromRuntime = Exclude<FromWorker, { type: "alive" | "dying" }>;

/** In which stage a worker could not start. */
export type StartStage = "loading" | "initializing";

/** Outcomes of consecutive items of a chunk. */
export interface ItemsMessage {
  type: "items";
  run: number;
  /** The index of the first of them. */
  from: number;
  /**
   * What the task returned, and undefined where it threw. Numbers may come as a Float64Array; undefined if they are in the memory for
   * numbers.
   */
  values: ArrayLike<unknown> | undefined;
  /** What it threw, by index in the chunk. */
  thrown: [index: number, thrown: Thrown][];
  /** Whether the chunk is through: no more of it will come. */
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

/** Something thrown. Where nothing has to be copied it is the thing itself. */
export type Thrown = { raw: unknown } | { errors: ErrorMessage[]; root: ValueMessage };

/** A value within something thrown: data, or the index of an error. Errors may refer to each other in circles. */
export type ValueMessage = { value: unknown } | { error: number };

/** An error, taken apart. */
export interface ErrorMessage {
  /** The nearest class that the platform has. */
  builtin: string;
  /** The nearest class that a task module exports. */
  exported: { module: number; name: string } | undefined;
  /** Its name. */
  name: string;
  /** Its message. */
  message: string;
  /** Its stack, down to the task's own lines. */
  stack: string;
  /** Own properties that can be copied, whether enumerable, and their values. */
  properties: [name: string, enumerable: boolean, value: ValueMessage][];
}

/** How a thread ended that was not told to. */
export interface Death {
  /** What it did, as in "its worker ...". */
  reason: string;
  exitCode?: number | undefined;
  /** The limit in MB, if that is what ended it; from the worker, which does not know it, NaN. */
  memoryLimit?: number | undefined;
  /** Whether it ended over a message that it could not read. */
  unread?: boolean | undefined;
  thrown?: Thrown | undefined;
}

/** The way to a thread beside messages: by memory that it shares with its slot. */
export interface Beside {
  /**
   * Sends the first run of a job with a task that the worker knows, if it is small enough; false if it is not: `post` sends it then.
   *
   * @throws {unknown} What a getter of an argument throws. Nothing was sent then.
   */
  call(key: number, run: number, id: string | number, args: readonly unknown[]): boolean;
  /** Has the thread take up so many calls: to be called after the last of them. */
  ring(calls: number): void;
  /** Amid a turn that takes its time: tells of what jobs have returned by now, and has the thread take up what it was sent. */
  takeReturned(): void;
  /** Whether a call may have been refused for lack of room. */
  readonly isFull: boolean;
  /** Gives it the memory of a buffer that is in no other hands: a result may lie there. */
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
  /** What goes beside messages; a thread without memory to share has none. */
  readonly beside?: Beside;
  /** How long a job takes lately, in ms; Infinity if that is not known. */
  readonly pace: number;
  /** Tells at once of what has arrived by now in shared memory. */
  drain(): void;
  /**
   * Stops the thread at once, as far as the backend can. With `abort` jobs still run: where they cannot just be killed, their signals abort
   * with this reason first.
   */
  stop(abort?: { reason: unknown }): void;
}

/** What a thread tells its slot. */
export interface ThreadEvents {
  /** It can be sent messages. */
  alive(): void;
  message(message: FromRuntime): void;
  /** Jobs returned these: the same as a message for each, without making any. The lists are the listener's to change. */
  returned(runs: number[], values: unknown[]): void;
  /** There are no more messages at this moment: time to act on those that came. */
  delivered(): void;
  /** It has ended without having been told to stop: it runs nothing any more. What it has sent may still come, and then `died`. */
  ending(): void;
  /** It has ended, or could not start, without having been told to stop. Nothing but `gone` comes after it. */
  died(death: Death): void;
  /** It was stopped a while ago, and runs on. */
  stuck(): void;
  /** Nothing of it runs any more. */
  gone(): void;
}

/**
 * Starts a thread: what a backend is.
 *
 * @throws If there cannot be such a thread.
 */
export type StartThread = (events: ThreadEvents, name: string) => Thread;
