import type { ExportMessage, FromRuntime, TaskMessage, Thrown, TimesMemory, ToRuntime } from "./protocol.ts";

/** What {@linkcode createRuntime} needs of the thread that it is in. */
export interface RuntimeHost {
  /** Sends a message to the slot, and moves with it what is to be moved. */
  post(message: FromRuntime, transfer?: Transferable[]): void;
  /** Sends what a job returned, if that is small enough to go without a message; false if it is not. What is to be moved with it is gone then, as if it was. */
  returned?(run: number, value: unknown, transfer?: Transferable[]): boolean;
  /** Makes something thrown fit to be sent. */
  encode(thrown: unknown, exportedClass: (constructor: unknown) => { module: number; name: string } | undefined): Thrown;
  /** Import the task modules. */
  imports: (() => Promise<Record<string, unknown>>)[];
  /** Called when there is room for a job again, after there was none. */
  hasRoom?(): void;
}

/** The part of a thread that runs tasks. */
export interface Runtime {
  /** Takes a message of the slot's; a job only if there is room. */
  receive(message: ToRuntime): void;
  /** The same for the first run of a job whose task is known already by this key. */
  call(key: number, run: number, id: string | number, args: readonly unknown[]): void;
  /** Whether it takes a job now. */
  readonly hasRoom: boolean;
  /** Whether it runs no job. */
  readonly idle: boolean;
  /** Makes something thrown outside of any job fit to be sent. */
  encode(thrown: unknown): Thrown;
  /** Sends what is finished and was held back, and starts nothing any more: for a thread that is about to end. */
  end(): void;
  /** Aborts the signals of the jobs that run; calls back when none runs any more. */
  abort(reason: unknown, idle?: () => void): void;
}

/**
 * Runs tasks: the same code in a worker and on the calling thread.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function createRuntime(host: RuntimeHost): Runtime {
  type Func = (...args: unknown[]) => unknown;
  type Moved = { value: unknown; [move: symbol]: Transferable[] };
  // As in protocol.ts, which is not there in a worker.
  const SENT = 1, STARTED = 2, FINISHED = 4, CLAIM_WORDS = 3, KNOWN_TASKS = 1000, NUMBERS = 8;
  /** Small results are gathered for so long, in ms: shorter costs messages, longer holds results back. */
  const GATHER = 1;
  /** So many items at the most are run between two looks at the clock. */
  const LONGEST_STRIDE = 512;
  /** So many numbers are cheaper to send in a typed array. */
  const WORTH_PACKING = 16;
  /** A message takes less to arrive, in ms: longer, and a change of the time of day might not be noticed. */
  const LONGEST_DELIVERY = 1000;
  const JOB = Symbol.for("process-pool.job"), CALLED = Symbol.for("process-pool.called"), MOVE = Symbol.for("process-pool.move");
  // As they are now: tasks may put others in their place.
  const { performance } = globalThis;
  const startTimer = global<typeof setTimeout>("setTimeout");
  const stopTimer = global<typeof clearTimeout>("clearTimeout");
  const { store, compareExchange } = Atomics;
  const { now: timeOfDay } = Date;

  const scope = globalThis as Record<symbol, unknown>;
  /** What {@linkcode currentJob} reads: on the calling thread there is more than one runtime. */
  const called = (scope[CALLED] ??= showCalled()) as { job: (() => unknown) | undefined };
  const tasks = new Map<number, Func>();
  /** Those that were sent as their text. */
  const bySource = new WeakSet<Func>();
  const classes = new Map<unknown, { module: number; name: string }>();
  /** The jobs that wait for something. */
  const running = new Map<number, RunningJob>();
  /** Flushes the chunks that run. */
  const flushes = new Set<() => void>();
  let modules: Record<string, unknown>[] = [];
  let claims: Int32Array = new Int32Array(0);
  /** When jobs began and ended, on the caller's clock, which is so much ahead; undefined if nobody wants to know. */
  let times: Float64Array | undefined;
  let ahead = 0;
  /** For how many jobs there are claims, and how many run at a time. */
  let claimed = 0;
  let capacity = 0;
  let ended = false;
  let whenIdle: (() => void) | undefined;

  function showCalled(): { job: (() => unknown) | undefined } {
    const called: { job: (() => unknown) | undefined } = { job: undefined };
    Object.defineProperty(scope, JOB, { configurable: true, get: () => called.job?.() });
    return called;
  }

  /** What a global is now, to be had later: timers take a megabyte when they are first looked at. */
  function global<T>(name: string): () => T {
    const { value, get } = Object.getOwnPropertyDescriptor(globalThis, name)!;
    return () => value ?? get!.call(globalThis);
  }

  function post(message: FromRuntime, transfer?: Transferable[]): void {
    if (!ended) host.post(message, transfer);
  }

  function postResult(run: number, value: unknown): void {
    if (isMoved(value)) return postMoved(run, value.value, value[MOVE]!);
    if (!ended && !host.returned?.(run, value)) host.post({ type: "returned", run, value });
  }

  function postMoved(run: number, value: unknown, transfer: Transferable[]): void {
    if (!ended && !host.returned?.(run, value, transfer)) host.post({ type: "returned", run, value }, transfer);
  }

  function isMoved(value: unknown): value is Moved {
    return typeof value === "object" && value !== null && MOVE in value;
  }

  /** Whatever was thrown, this does not throw: an error may be too deep, or lie about itself. */
  function encode(thrown: unknown): Thrown {
    try {
      return host.encode(thrown, (constructor) => classes.get(constructor));
    } catch (second) {
      return host.encode(new Error("The task threw something that cannot be sent", { cause: String(second) }), () => undefined);
    }
  }

  async function load(message: ToRuntime & { type: "load" }): Promise<void> {
    ({ claims, capacity } = message);
    claimed = claims.length / CLAIM_WORDS;
    if (message.times !== undefined) noteTimesIn(message.times);
    try {
      modules = await Promise.all(host.imports.map((load) => load()));
      // A rejection that a module left unhandled shows within a turn; the caller may import it next, relying on it to do no harm.
      if (modules.length > 0) await new Promise((resolve) => startTimer()(resolve));
    } catch (thrown) {
      return post({ type: "failed", stage: "loading", thrown: encode(thrown) });
    }
    const exports: ExportMessage[] = [];
    for (const [module, namespace] of modules.entries()) {
      for (const [name, value] of Object.entries(namespace)) {
        if (typeof value !== "function") continue;
        classes.set(value, { module, name });
        exports.push({ module, name, functionName: value.name, text: Function.prototype.toString.call(value) });
      }
    }
    post({ type: "loaded", exports });
  }

  function noteTimesIn(memory: TimesMemory): void {
    times = memory.times;
    // It took this message some time to arrive, so this is too little.
    const least = memory.now - performance.now();
    const byTimeOfDay = performance.timeOrigin - memory.origin;
    // Better, unless the time of day was changed meanwhile.
    ahead = byTimeOfDay >= least && byTimeOfDay < least + LONGEST_DELIVERY ? byTimeOfDay : least;
  }

  /** Notes that a job begins, or, with 1, that it has ended. */
  function noteTime(run: number, end: 0 | 1): void {
    if (times !== undefined) times[run % claimed * 2 + end] = performance.now() + ahead;
  }

  /** A task that cannot be had throws whenever it is called: the slot counts it as known all the same. */
  function task(message: TaskMessage): Func {
    const known = tasks.get(message.key);
    if (known !== undefined) return known;
    if (tasks.size === KNOWN_TASKS) tasks.clear();
    const func = make(message);
    tasks.set(message.key, func);
    return func;
  }

  function make(message: TaskMessage): Func {
    try {
      if (Object.hasOwn(message, "func")) return message.func!;
      return message.text !== undefined ? compile(message.text, message.name) : exported(message.export!);
    } catch (thrown) {
      return () => {
        throw thrown;
      };
    }
  }

  function exported({ module, name }: { module: number; name: string }): Func {
    const func = modules[module]?.[name];
    if (typeof func === "function") return func as Func;
    const names = Object.entries(modules[module] ?? {}).filter(([, value]) => typeof value === "function").map(([key]) => key);
    throw new TypeError(`Cannot run task as its module does not export a function '${name}': it exports '${names.join("', '")}'`);
  }

  function compile(text: string, name: string): Func {
    try {
      const func: Func = (0, eval)(`"use strict";(${text}\n)\n//# sourceURL=process-pool/${encodeURIComponent(name)}`);
      bySource.add(func);
      return func;
    } catch (thrown) {
      // The computed name of a method may use what is not there, too.
      throw explained(thrown);
    }
  }

  /** What a task has thrown, fit to be sent. */
  function encodeFailure(func: Func, thrown: unknown): Thrown {
    return encode(bySource.has(func) ? explained(thrown) : thrown);
  }

  function explained(thrown: unknown): unknown {
    if (thrown instanceof ReferenceError && / is not defined$/.test(thrown.message)) {
      thrown.message += "; a function that is sent by source cannot see the variables and imports around it: export it from a module " +
        "and name that in the pool's 'modules'";
    }
    return thrown;
  }

  /** What a task sees of its job. */
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

  /** The job whose task is called at this moment; made when somebody looks, which few tasks do. */
  let calledId: string | number = 0;
  let calledAttempt = 1;
  let calledJob: RunningJob | undefined;

  function theCalledJob(): RunningJob {
    return calledJob ??= new RunningJob(calledId, calledAttempt);
  }

  /** From here on `currentJob()` is this job, until the task that is called first awaits. */
  function beginCall(id: string | number, attempt: number): void {
    calledId = id;
    calledAttempt = attempt;
    calledJob = undefined;
    called.job = theCalledJob;
  }

  /** The index of a job's first word in the claims. */
  function claimOf(run: number): number {
    return run % claimed * CLAIM_WORDS;
  }

  /** Claims a job; false if it was taken back. */
  function claim(run: number): boolean {
    const claim = claimOf(run);
    store(claims, claim + 2, timeOfDay() | 0);
    const claimed = compareExchange(claims, claim, SENT, STARTED) === SENT;
    if (claimed) noteTime(run, 0);
    return claimed;
  }

  function run({ run, task: message, id, attempt, args }: ToRuntime & { type: "run" }): void {
    // Even of one that was taken back: the slot counts its task as known from this message on.
    task(message);
    callTask(message.key, run, id, args, attempt);
  }

  /**
   * Runs a job whose task is known. One that was taken back ends as one that returned nothing: nobody looks at that, and what is done most is compiled but once. Stacks are cut
   * where this calls the task: see encode_error.ts.
   */
  function callTask(key: number, run: number, id: string | number, args: readonly unknown[], attempt = 1): void {
    const func = tasks.get(key)!;
    const claimed = claim(run);
    let value: unknown;
    try {
      if (claimed) {
        beginCall(id, attempt);
        value = func(...args);
        called.job = undefined;
        if (isThenable(value)) return void settleLater(run, func, value);
        noteTime(run, 1);
      }
      postResult(run, value);
    } catch (thrown) {
      called.job = undefined;
      noteTime(run, 1);
      // Among the errors that come here is that of a result that cannot be copied.
      post({ type: "threw", run, thrown: encodeFailure(func, thrown) });
    }
    if (claimed) finish(run);
  }

  async function settleLater(run: number, func: Func, outcome: PromiseLike<unknown>): Promise<void> {
    running.set(run, theCalledJob());
    try {
      const value = await outcome;
      noteTime(run, 1);
      postResult(run, value);
    } catch (thrown) {
      noteTime(run, 1);
      post({ type: "threw", run, thrown: encodeFailure(func, thrown) });
    }
    settled(run);
  }

  /** The answer is on its way: a caller that was busy meanwhile does not take the job for one that runs still. */
  function finish(run: number): void {
    // Unless the slot has the answer and has used the claim again.
    compareExchange(claims, claimOf(run), STARTED, FINISHED);
  }

  /** The same for one that has waited for something. */
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

  async function runChunk(message: ToRuntime & { type: "chunk" }): Promise<void> {
    const { run, items, eager, timed } = message;
    const func = task(message.task);
    if (!claim(run)) return post({ type: "skipped", run });
    const firstId = Number(message.id);
    const first = claimOf(run);
    const skip = message.skip.length === 0 ? undefined : new Set(message.skip);
    const begin = performance.now();
    let sent = begin;
    const numbers = message.numbers && new Float64Array(message.numbers, NUMBERS);
    const bounds = message.numbers && new Int32Array(message.numbers, 0, 2);
    /** The outcomes that were not sent: from this item on, to the one before that. They are in memory, or else in `values`. */
    let from = message.from;
    let to = from;
    let inMemory = numbers !== undefined;
    let values: unknown[] = [];
    /** Whether those are numbers, and whether all results were. */
    let areNumbers = true;
    let onlyNumbers = true;
    let thrown: [number, Thrown][] = [];
    let transfer: Transferable[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    /** After how many items the clock is looked at: that takes longer than the shortest ones. */
    let stride = 1;
    let nextLook = from;
    let lastLook = begin;

    function flush(last: boolean): void {
      if (timer !== undefined) stopTimer()(timer);
      timer = undefined;
      sent = performance.now();
      const packed = areNumbers && values.length >= WORTH_PACKING ? new Float64Array(values as number[]) : values;
      const message: FromRuntime = { type: "items", run, from, values: inMemory ? undefined : packed, thrown, last, elapsed: sent - begin };
      try {
        post(message, transfer);
      } catch {
        // One of the values cannot be copied: that is the error of its item alone.
        for (const [i, value] of values.entries()) {
          try {
            values[i] = structuredClone(value);
          } catch (error) {
            values[i] = undefined;
            thrown.push([from + i, encode(error)]);
          }
        }
        post(message);
      }
      from = to;
      values = [];
      areNumbers = true;
      thrown = [];
      transfer = [];
      if (inMemory || numbers === undefined || !onlyNumbers) return;
      inMemory = true;
      store(bounds!, 0, from);
      store(bounds!, 1, from);
    }

    /** Notes the outcome of the next item: what it returned, or undefined if it threw. */
    function note(value: unknown, threw: boolean): void {
      const isNumber = typeof value === "number";
      if (inMemory && isNumber) {
        numbers![to++] = value;
        return void store(bounds!, 1, to);
      }
      // The numbers before it have arrived.
      if (inMemory) from = to;
      inMemory = false;
      areNumbers &&= isNumber;
      onlyNumbers &&= isNumber || threw;
      values.push(value);
      to++;
    }

    function isTimeToFlush(i: number): boolean {
      if (eager && !inMemory) return true;
      if (i < nextLook) return false;
      const now = performance.now();
      stride = now - lastLook < GATHER / 10 ? Math.min(2 * stride, LONGEST_STRIDE) : 1;
      nextLook = i + stride;
      lastLook = now;
      return now - sent >= GATHER;
    }

    const flushThis = (): void => flush(false);
    flushes.add(flushThis);
    running.set(run, new RunningJob(message.id, message.attempt));
    for (let i = from; i < items.length; i++) {
      if (timed) store(claims, first + 2, timeOfDay() | 0);
      if (compareExchange(claims, first + 1, i, i + 1) !== i) break;
      let value: unknown;
      let threw = false;
      if (skip === undefined || !skip.has(i)) {
        beginCall(firstId + i, i === message.from ? message.attempt : 1);
        try {
          value = func(items[i]);
          if (isThenable(value)) {
            called.job = undefined;
            running.set(run, theCalledJob());
            // It may take long: what is ready does not wait for it.
            if (from < to) timer ??= startTimer()(flushThis, GATHER);
            value = await value;
          }
          if (isMoved(value)) {
            transfer.push(...value[MOVE]!);
            value = value.value;
          }
        } catch (error) {
          value = undefined;
          threw = true;
          thrown.push([i, encodeFailure(func, error)]);
        }
      }
      if (ended) break;
      note(value, threw);
      if (i + 1 < items.length && isTimeToFlush(i)) flush(false);
    }
    called.job = undefined;
    if (ended) return settled(run);
    flushes.delete(flushThis);
    noteTime(run, 1);
    flush(true);
    settled(run);
  }

  function isThenable(value: unknown): value is PromiseLike<unknown> {
    return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
  }

  async function initialize({ task: message, args }: ToRuntime & { type: "initialize" }): Promise<void> {
    const func = task(message);
    try {
      await func(...args);
      post({ type: "initialized" });
    } catch (thrown) {
      post({ type: "failed", stage: "initializing", thrown: encodeFailure(func, thrown) });
    }
  }

  async function close({ finalizer }: ToRuntime & { type: "close" }): Promise<void> {
    const func = finalizer === undefined ? () => {} : task(finalizer);
    try {
      await func();
      post({ type: "closed", thrown: undefined });
    } catch (thrown) {
      post({ type: "closed", thrown: encodeFailure(func, thrown) });
    }
  }

  return {
    get hasRoom() {
      return hasRoom();
    },
    get idle() {
      return running.size === 0;
    },
    encode,
    call(key, run, id, args) {
      if (!ended) callTask(key, run, id, args);
    },
    receive(message) {
      if (ended) return;
      switch (message.type) {
        case "load":
          return void load(message);
        case "initialize":
          return void initialize(message);
        case "run":
          return void run(message);
        case "chunk":
          return void runChunk(message);
        case "close":
          return void close(message);
      }
    },
    end() {
      for (const flush of flushes) flush();
      ended = true;
    },
    abort(reason, idle) {
      whenIdle = idle;
      for (const job of [...running.values()]) RunningJob.abort(job, reason);
      if (running.size === 0) idle?.();
    },
  };
}
