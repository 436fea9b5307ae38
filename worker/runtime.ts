import { createKnownTasks, type Func } from "./known_tasks.ts";
import { lackOf } from "./lack.ts";
import type { StartStage, Thrown, TimesMemory, ToRuntime } from "./protocol.ts";
import { createReplies, type RepliesHost } from "./replies.ts";
import { createRunningChunks, type RunningChunk, type RunningChunksParts } from "./running_chunks.ts";

/** What {@linkcode createRuntime} needs of its thread. */
export interface RuntimeHost extends RepliesHost {
  /** Import the task modules. */
  imports: (() => Promise<Record<string, unknown>>)[];
  /** Takes back the memory of a chunk's items, which nobody else uses. Undefined if nothing is copied, so that the caller uses it. */
  reuse?: (buffer: ArrayBuffer) => void;
  /** Called when there is room for a job again, after there was none. */
  hasRoom?(): void;
  /** Timers that are not the thread's current ones. */
  timers?: RunningChunksParts["timers"];
}

/** What {@linkcode createRuntime} is made of. */
export interface RuntimeParts {
  createKnownTasks: typeof createKnownTasks;
  createReplies: typeof createReplies;
  createRunningChunks: typeof createRunningChunks;
  lackOf: typeof lackOf;
}

/** Passed, as a worker, which has the text of {@linkcode createRuntime}, has no modules. */
export const runtimeParts: RuntimeParts = { createKnownTasks, createReplies, createRunningChunks, lackOf };

/** A call of a task and those that follow it, as a queue has them. */
export interface Calls {
  /** The key of the task. */
  readonly kind: number;
  /** The run, the id and the arguments of the current call. */
  readonly number: number;
  readonly label: string | number;
  readonly values: readonly unknown[];
  /** Moves on to the next call of this task; false if there is none. */
  takeNext(): boolean;
}

/** The part of a thread that runs tasks. */
export interface Runtime {
  /** Takes a message from the slot; a job only if there is room. */
  receive(message: ToRuntime): void;
  /**
   * Runs up to `most` calls of a known task, each for the first time, as long as there is room.
   *
   * @returns How many it ran, without those that had been taken back.
   */
  callAll(calls: Calls, most: number): number;
  /** Whether it takes a job now. */
  readonly hasRoom: boolean;
  /** Whether it runs no job. */
  readonly idle: boolean;
  /** Sends something that was thrown outside of any job, in a form that can be sent. */
  sendThrown(thrown: unknown, send: (thrown: Thrown) => void): void;
  /** Sends finished results that were held back, and starts nothing more: for a thread that is about to end. */
  end(): void;
  /** Aborts the signals of the running jobs; calls back when none is left. */
  abort(reason: unknown, idle?: () => void): void;
}

/**
 * Runs tasks: the same code in a worker and on the calling thread.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function createRuntime(
  host: RuntimeHost,
  { createKnownTasks, createReplies, createRunningChunks, lackOf }: RuntimeParts,
): Runtime {
  // As in protocol.ts, which a worker does not have.
  const SENT = 1, STARTED = 2, FINISHED = 4, CLAIM_WORDS = 3;
  /**
   * How long a message takes to arrive at most, in ms. Longer, and a change of the time of day might pass; shorter, and a busy machine
   * looks like one.
   */
  const LONGEST_DELIVERY = 1000;
  const JOB = Symbol.for("process-pool.job"), CALLED = Symbol.for("process-pool.called");
  // Taken now: tasks may replace them.
  const clock = performance.now.bind(performance);
  const timers = host.timers ??
    { start: global<typeof setTimeout>("setTimeout"), stop: global<typeof clearTimeout>("clearTimeout") };
  const { store, compareExchange } = Atomics;
  const { now: timeOfDay } = Date;
  const { apply } = Reflect;

  const scope = globalThis as Record<symbol, unknown>;
  /** What {@linkcode currentJob} reads; shared, as the calling thread may have several runtimes. */
  const called = (scope[CALLED] ??= showCalled()) as { job: (() => unknown) | undefined };
  const tasks = createKnownTasks({ imports: host.imports, lackOf });
  const replies = createReplies(host, tasks);
  const chunks = createRunningChunks({ replies, timers, reuse: host.reuse });
  /** The jobs that wait for something. */
  const running = new Map<number, RunningJob>();
  let claims: Int32Array = new Int32Array(0);
  /** When jobs began and ended, on the caller's clock; undefined without observers. */
  let times: Float64Array | undefined;
  /** By how much that clock is ahead of this thread's. */
  let ahead = 0;
  /** For how many jobs there is a place in the claims, and one in the times. */
  let places = 0;
  /** How many jobs run at a time. */
  let capacity = 0;
  let ended = false;
  let whenIdle: (() => void) | undefined;

  function showCalled(): { job: (() => unknown) | undefined } {
    const called: { job: (() => unknown) | undefined } = { job: undefined };
    Object.defineProperty(scope, JOB, { configurable: true, get: () => called.job?.() });
    return called;
  }

  /** Remembers a global as it is now, to be read later: timers take a megabyte when they are first read. */
  function global<T>(name: string): () => T {
    const { value, get } = Object.getOwnPropertyDescriptor(globalThis, name)!;
    return () => value ?? get!.call(globalThis);
  }

  // Beginning and end

  async function load(message: ToRuntime & { type: "load" }): Promise<void> {
    ({ claims, capacity } = message);
    places = claims.length / CLAIM_WORDS;
    if (message.times !== undefined) noteTimesIn(message.times);
    try {
      await tasks.load();
      // The caller may import them next, trusting that they do no harm.
      if (host.imports.length > 0) await rejectionsShown();
    } catch (thrown) {
      return sendFailure("loading", thrown);
    }
    replies.post({ type: "loaded", exports: tasks.listExports() });
  }

  function sendFailure(stage: StartStage, thrown: unknown, func?: Func): void {
    replies.sendThrown(replies.encode(thrown, func), (thrown) => replies.post({ type: "failed", stage, thrown }));
  }

  async function callInitializer({ task: message, args }: ToRuntime & { type: "initialize" }): Promise<void> {
    const func = tasks.learn(message, places);
    try {
      await apply(func, undefined, args);
      replies.post({ type: "initialized" });
    } catch (thrown) {
      sendFailure("initializing", thrown, func);
    }
  }

  async function callFinalizer({ finalizer }: ToRuntime & { type: "close" }): Promise<void> {
    if (finalizer === undefined) return replies.post({ type: "closed", thrown: undefined });
    const func = tasks.learn(finalizer, places);
    let thrown: Thrown | undefined;
    try {
      await func();
    } catch (error) {
      thrown = replies.encode(error, func);
    }
    await rejectionsShown();
    if (thrown === undefined) replies.post({ type: "closed", thrown });
    else replies.sendThrown(thrown, (thrown) => replies.post({ type: "closed", thrown }));
  }

  /**
   * Waits until rejections left unhandled in this turn have been reported: at the end of the turn, before which one timer may fire on a
   * busy machine, but not two in a row.
   */
  async function rejectionsShown(): Promise<void> {
    for (let fired = 0; fired < 2; fired++) await new Promise((resolve) => timers.start()(resolve));
  }

  // What the slot sees of a job: its claim and its times

  function noteTimesIn(memory: TimesMemory): void {
    times = memory.times;
    // Too little, as the message took some time to arrive.
    const least = memory.now - clock();
    const byTimeOfDay = performance.timeOrigin - memory.origin;
    // Exact, unless the time of day was changed meanwhile.
    ahead = byTimeOfDay >= least && byTimeOfDay < least + LONGEST_DELIVERY ? byTimeOfDay : least;
  }

  /** Notes that a job begins, or, with 1, that it has ended. */
  function noteTime(run: number, end: 0 | 1): void {
    if (times !== undefined) times[run % places * 2 + end] = clock() + ahead;
  }

  /** The index of a job's first word in the claims. */
  function claimOf(run: number): number {
    return run % places * CLAIM_WORDS;
  }

  /** Claims a job; false if it was taken back. */
  function claim(run: number): boolean {
    const word = claimOf(run);
    store(claims, word + 2, timeOfDay() | 0);
    const isClaimed = compareExchange(claims, word, SENT, STARTED) === SENT;
    if (isClaimed) noteTime(run, 0);
    return isClaimed;
  }

  /** Notes that the answer is on its way: a caller that was busy must not take the job for one that still runs. */
  function finish(run: number): void {
    // Unless the slot already has the answer and has reused the claim.
    compareExchange(claims, claimOf(run), STARTED, FINISHED);
  }

  // What a task sees of its job

  class RunningJob {
    readonly id: string | number;
    readonly attempt: number;
    #controller: AbortController | undefined;

    constructor(id: string | number, attempt: number) {
      this.id = id;
      this.attempt = attempt;
    }

    get signal(): AbortSignal {
      return (this.#controller ??= new AbortController()).signal;
    }

    static abort(job: RunningJob, reason: unknown): void {
      (job.#controller ??= new AbortController()).abort(reason);
    }
  }

  /** The job whose task is being called; made only when asked for, which few tasks do. */
  let calledId: string | number = 0;
  let calledAttempt = 1;
  let calledJob: RunningJob | undefined;

  function theCalledJob(): RunningJob {
    return calledJob ??= new RunningJob(calledId, calledAttempt);
  }

  /** From here on `currentJob()` is this job, until the first `await` of the task. */
  function beginCall(id: string | number, attempt: number): void {
    calledId = id;
    calledAttempt = attempt;
    calledJob = undefined;
    called.job = theCalledJob;
  }

  // Jobs

  function runJob({ run, task: message, id, attempt, args }: ToRuntime & { type: "run" }): void {
    // Even for a job that was taken back: the slot counts the task as known from this message on.
    tasks.learn(message, places);
    callTasks({ kind: message.key, number: run, label: id, values: args, takeNext: () => false }, attempt, 1);
  }

  /**
   * Runs jobs whose task is known. One that was taken back ends like one that returned: nobody looks at that, and so there is one path,
   * which V8 compiles once. Stacks are cut where this calls the task: see encode_error.ts.
   */
  function callTasks(calls: Calls, attempt: number, most: number): number {
    const func = tasks.get(calls.kind);
    let left = most;
    let ran = 0;
    do {
      const { number: run } = calls;
      const isClaimed = claim(run);
      // The result of a job that was taken back: nobody hears of it, and a number continues the results before it.
      let value: unknown = 0;
      try {
        if (isClaimed) {
          ran++;
          beginCall(calls.label, attempt);
          value = apply(func, undefined, calls.values);
          called.job = undefined;
          if (isThenable(value)) {
            settleLater(run, func, value);
            if (hasRoom()) continue;
            break;
          }
          noteTime(run, 1);
        }
        replies.returned(run, value);
      } catch (thrown) {
        called.job = undefined;
        noteTime(run, 1);
        // Thrown by the task, or because its result cannot be copied.
        replies.threw(run, func, thrown);
      }
      if (isClaimed) finish(run);
    } while (--left > 0 && !ended && calls.takeNext());
    return ran;
  }

  async function settleLater(run: number, func: Func, outcome: PromiseLike<unknown>): Promise<void> {
    running.set(run, theCalledJob());
    try {
      const value = await outcome;
      noteTime(run, 1);
      replies.returned(run, value);
    } catch (thrown) {
      noteTime(run, 1);
      replies.threw(run, func, thrown);
    }
    settled(run);
  }

  /** Lets go of a job that has waited for something, or of a chunk. */
  function settled(run: number): void {
    finish(run);
    const hadRoom = hasRoom();
    running.delete(run);
    if (running.size === 0) whenIdle?.();
    if (!hadRoom && hasRoom()) host.hasRoom?.();
  }

  function hasRoom(): boolean {
    return running.size < capacity && !ended;
  }

  // Chunks

  async function runChunk(message: ToRuntime & { type: "chunk" }): Promise<void> {
    const { run } = message;
    const func = tasks.learn(message.task, places);
    if (!claim(run)) return replies.post({ type: "skipped", run });
    const chunk = chunks.begin(message);
    running.set(run, new RunningJob(message.id, message.attempt));
    for (let outcome = runItems(chunk, func); outcome !== undefined; outcome = runItems(chunk, func)) {
      called.job = undefined;
      running.set(run, theCalledJob());
      chunk.flushSoon();
      try {
        const value = await outcome;
        if (!ended) chunk.returned(value);
      } catch (error) {
        if (!ended) chunk.threw(replies.encode(error, func));
      }
      if (ended) break;
      chunk.flushIfDue();
    }
    called.job = undefined;
    if (ended) return settled(run);
    noteTime(run, 1);
    chunk.finish();
    settled(run);
  }

  /**
   * Runs items up to one that returns a promise, and returns that; undefined if no more are to be run. Most of the time of a map goes here.
   * It is a separate function because V8 then compiles it in a fifth of the time, once in each worker. Stacks are cut where this calls the
   * task: see encode_error.ts.
   */
  function runItems(chunk: RunningChunk, func: Func): PromiseLike<unknown> | undefined {
    const { run, firstId, items, from, end, attempt, timed } = chunk;
    const word = claimOf(run);
    while (chunk.next < end) {
      const i = chunk.next;
      if (timed) store(claims, word + 2, timeOfDay() | 0);
      if (compareExchange(claims, word + 1, i, i + 1) !== i) return undefined;
      chunk.next = i + 1;
      if (chunk.skips(i)) chunk.returned(undefined);
      else {
        beginCall(firstId + i, i === from ? attempt : 1);
        try {
          const value = func(items[i - from]);
          if (isThenable(value)) return value;
          if (!ended) chunk.returned(value);
        } catch (error) {
          if (!ended) chunk.threw(replies.encode(error, func));
        }
      }
      if (ended) return undefined;
      chunk.flushIfDue();
    }
    return undefined;
  }

  function isThenable(value: unknown): value is PromiseLike<unknown> {
    if (typeof value !== "object" && typeof value !== "function" || value === null) return false;
    return typeof (value as { then?: unknown }).then === "function";
  }

  return {
    get hasRoom() {
      return hasRoom();
    },
    get idle() {
      return running.size === 0;
    },
    sendThrown: (thrown, send) => replies.sendThrown(replies.encode(thrown), send),
    callAll(calls, most) {
      return ended ? 0 : callTasks(calls, 1, most);
    },
    receive(message) {
      if (ended) return;
      switch (message.type) {
        case "load":
          return void load(message);
        case "initialize":
          return void callInitializer(message);
        case "run":
          return void runJob(message);
        case "chunk":
          return void runChunk(message);
        case "close":
          return void callFinalizer(message);
      }
    },
    end() {
      chunks.flush();
      // Running jobs end with the thread: so a caller that was busy does not take them for jobs that still run.
      for (let word = 0; word < claims.length; word += CLAIM_WORDS) compareExchange(claims, word, STARTED, FINISHED);
      ended = true;
      replies.close();
    },
    abort(reason, idle) {
      whenIdle = idle;
      // On the calling thread a task may lead here itself, before it returns the promise that makes it one of the running jobs.
      if (called.job === theCalledJob) RunningJob.abort(theCalledJob(), reason);
      for (const job of [...running.values()]) RunningJob.abort(job, reason);
      if (running.size === 0) idle?.();
    },
  };
}
