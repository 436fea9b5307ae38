import type { lackOf } from "./lack.ts";
import type { ErrorMessage, ExportMessage, FromRuntime, ItemsMessage, TaskMessage, Thrown, TimesMemory, ToRuntime } from "./protocol.ts";

/** What {@linkcode createRuntime} needs of its thread. */
export interface RuntimeHost {
  /** Sends a message to the slot, moving the objects in `transfer`. */
  post(message: FromRuntime, transfer?: Transferable[]): void;
  /**
   * Sends what a job returned without a message, if that is small enough, and detaches what was to be moved with it; false if it is not.
   */
  returned?(run: number, value: unknown, transfer?: Transferable[]): boolean;
  /** Encodes something thrown, to be sent. */
  encode(thrown: unknown, exportedClass: (constructor: unknown) => { module: number; name: string } | undefined): Thrown;
  /** What a task that was sent as text lacked when it threw. */
  lackOf: typeof lackOf;
  /** Import the task modules. */
  imports: (() => Promise<Record<string, unknown>>)[];
  /** Takes back the memory of a chunk's items, which nobody else uses. Undefined if nothing is copied, so that the caller uses it. */
  reuse?(buffer: ArrayBuffer): void;
  /** Called when there is room for a job again, after there was none. */
  hasRoom?(): void;
  /** Whether Deno has loaded what timers need, as it has in a worker of node:worker_threads. */
  hasTimers?: boolean | undefined;
}

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
   * @returns How many it ran.
   */
  callAll(calls: Calls, most: number): number;
  /** Whether it takes a job now. */
  readonly hasRoom: boolean;
  /** Whether it runs no job. */
  readonly idle: boolean;
  /**
   * Gives the event loop a turn. Not by a message to itself: the loop would always have something to do, and Deno then looks at timers and
   * sockets only at one tick in sixty (tokio's `event_interval`).
   */
  turn(): Promise<void>;
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
export function createRuntime(host: RuntimeHost): Runtime {
  type Func = (...args: unknown[]) => unknown;
  type Moved = { value: unknown; [move: symbol]: unknown };
  type Own = { value: unknown; buffer: ArrayBuffer };
  // As in protocol.ts, which a worker does not have.
  const SENT = 1, STARTED = 2, FINISHED = 4, CLAIM_WORDS = 3, NUMBERS = 8;
  /** How long small results are gathered, in ms: shorter costs messages, longer holds results back. */
  const GATHER = 1;
  /**
   * How many items are run at most between two looks at the clock: more, and slower results wait; fewer, and the clock takes more of the
   * time.
   */
  const LONGEST_STRIDE = 512;
  /** From this many on, numbers are cheaper to send in a typed array. */
  const WORTH_PACKING = 16;
  /** From this many bytes on, a copy that nobody else uses is cheaper to move than to copy again. */
  const WORTH_MOVING = 4096;
  /**
   * How long a message takes to arrive at most, in ms. Longer, and a change of the time of day might pass; shorter, and a busy machine
   * looks like one.
   */
  const LONGEST_DELIVERY = 1000;
  /**
   * How many ticks of the event loop, of a µs each, make a turn: after 30 Deno has looked for messages, after 60 at sockets, and timers are
   * due in each. Fewer, and messages may wait for another turn; more only take time.
   */
  const TICKS = 32;
  /**
   * A turn is over earlier if it has taken this many ms, as waiting jobs did work in it. Shorter, and others may not have had a turn;
   * longer, and the next jobs wait for all of that work.
   */
  const LONGEST_TURN = 1;
  const ticks = new Int32Array(new SharedArrayBuffer(4));
  const JOB = Symbol.for("process-pool.job"), CALLED = Symbol.for("process-pool.called"), MOVE = Symbol.for("process-pool.move");
  // Taken now: tasks may replace them.
  const clock = performance.now.bind(performance);
  const startTimer = global<typeof setTimeout>("setTimeout");
  const startImmediate = global<(callback: () => void) => unknown>("setImmediate");
  const stopTimer = global<typeof clearTimeout>("clearTimeout");
  const { store, compareExchange, waitAsync, notify } = Atomics;
  const { now: timeOfDay } = Date;
  const { hasOwn } = Object;
  const { apply, getPrototypeOf } = Reflect;
  const evaluate = eval;
  const Doubles = Float64Array, Words = Int32Array, Memory = ArrayBuffer, Refusal = DOMException, Overflow = RangeError;
  const { isView } = Memory;
  const { isArray } = Array;
  const { transfer: moveAway, slice: copyAll } = Memory.prototype;
  const typedArrays = getPrototypeOf(Doubles.prototype) as Float64Array;
  const { slice } = typedArrays;
  const nothing: [] = [];

  const scope = globalThis as Record<symbol, unknown>;
  /** What {@linkcode currentJob} reads; shared, as the calling thread may have several runtimes. */
  const called = (scope[CALLED] ??= showCalled()) as { job: (() => unknown) | undefined };
  /** The latest tasks, and as many before: a call may arrive after a later one whose task made the slot forget this call's. */
  let tasks = new Map<number, Func>();
  let earlierTasks = tasks;
  /**
   * The latest task that was passed as it is. It comes with each message, and is not kept longer, since a closure holds on to its
   * variables.
   */
  let given: Func | undefined;
  /** Tasks that were sent as text. */
  const bySource = new WeakSet<Func>();
  const classes = new Map<unknown, { module: number; name: string }>();
  /** The jobs that wait for something. */
  const running = new Map<number, RunningJob>();
  /** The running chunks. */
  const chunks = new Set<RunningChunk>();
  let modules: Record<string, unknown>[] = [];
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

  function post(message: FromRuntime, transfer?: Transferable[]): void {
    if (!ended) host.post(message, transfer);
  }

  function postResult(run: number, value: unknown): void {
    if (isMoved(value)) return postMoved(run, value.value, movedWith(value));
    if (!ended && !host.returned?.(run, value)) postWhole(run, value);
  }

  function postMoved(run: number, value: unknown, transfer: Transferable[]): void {
    if (!ended && !host.returned?.(run, value, transfer)) postWhole(run, value, transfer);
  }

  function postWhole(run: number, value: unknown, transfer?: Transferable[]): void {
    try {
      host.post({ type: "returned", run, value }, transfer);
    } catch (refusal) {
      throw unsendable(refusal);
    }
  }

  /** The error for a result that cannot be sent: the platform's could as well be about an argument. What a getter threw stays as it is. */
  function unsendable(refusal: unknown): unknown {
    // What is nested too deeply.
    const isOverflow = refusal instanceof Overflow && refusal.message === "Maximum call stack size exceeded";
    if (!isOverflow && !(refusal instanceof Refusal && refusal.name === "DataCloneError")) return refusal;
    const message = `Cannot send what the task returned as it cannot be copied or moved: ${refusal.message}`;
    return isOverflow ? new Overflow(message) : new Refusal(message, refusal.name);
  }

  function isMoved(value: unknown): value is Moved {
    return typeof value === "object" && value !== null && MOVE in value;
  }

  /** What is moved with a result. Nothing has checked the list of a task sent as text yet. */
  function movedWith({ [MOVE]: transfer = [] }: Moved): Transferable[] {
    if (isArray(transfer)) return transfer;
    throw new TypeError(
      `Cannot move result as what is at 'Symbol.for("process-pool.move")' must be an array: current value is ${text(transfer)}`,
    );
  }

  /** Never throws, whatever was thrown: an error may be too deep, or lie about itself. */
  function encode(thrown: unknown): Thrown {
    try {
      return host.encode(thrown, (constructor) => classes.get(constructor));
    } catch (second) {
      return host.encode(new Error("The task threw something that cannot be sent", { cause: text(second) }), () => undefined);
    }
  }

  /**
   * Sends what was thrown. In a message the data of an error is nested deeper than in the error, possibly too deeply for the platform; then
   * the error goes without it.
   */
  function sendThrown(thrown: Thrown, send: (thrown: Thrown) => void): void {
    try {
      send(thrown);
    } catch (refusal) {
      if ("raw" in thrown) throw refusal;
      send(withoutData(thrown));
    }
  }

  /** The same errors, with the errors within them, but without objects. */
  function withoutData({ errors, root }: Exclude<Thrown, { raw: unknown }>): Thrown {
    if (!("error" in root)) return encode(new Error("The task threw something that cannot be sent"));
    const isFlat = ([, , value]: ErrorMessage["properties"][number]): boolean => "error" in value || typeof value.value !== "object";
    return { errors: errors.map((error) => ({ ...error, properties: error.properties.filter(isFlat) })), root };
  }

  function text(value: unknown): string {
    try {
      return String(value);
    } catch {
      return "something that has no text";
    }
  }

  async function load(message: ToRuntime & { type: "load" }): Promise<void> {
    ({ claims, capacity } = message);
    places = claims.length / CLAIM_WORDS;
    if (message.times !== undefined) noteTimesIn(message.times);
    try {
      modules = await Promise.all(host.imports.map((load) => load()));
      // The caller may import them next, trusting that they do no harm.
      if (modules.length > 0) await rejectionsShown();
    } catch (thrown) {
      return sendThrown(encode(thrown), (thrown) => post({ type: "failed", stage: "loading", thrown }));
    }
    const exports: ExportMessage[] = [];
    for (const [module, namespace] of modules.entries()) {
      for (const [name, value] of Object.entries(namespace)) {
        if (typeof value !== "function") continue;
        // A function may be exported under several names.
        if (!classes.has(value)) {
          // A class may have something else as its name.
          const own: unknown = Object.getOwnPropertyDescriptor(value, "name")?.value;
          const functionName = typeof own === "string" ? own : name;
          exports.push({ module, name, functionName, text: Function.prototype.toString.call(value) });
        }
        classes.set(value, { module, name });
      }
    }
    post({ type: "loaded", exports });
  }

  /**
   * Waits until rejections left unhandled in this turn have been reported: at the end of the turn, before which one timer may fire on a
   * busy machine, but not two in a row.
   */
  async function rejectionsShown(): Promise<void> {
    for (let timers = 0; timers < 2; timers++) await new Promise((resolve) => startTimer()(resolve));
  }

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

  /** The task of a message. If it cannot be made, a function that throws: the slot counts it as known all the same. */
  function task(message: TaskMessage): Func {
    if (hasOwn(message, "func")) return given = message.func!;
    const known = tasks.get(message.key);
    if (known !== undefined) return known;
    if (tasks.size >= places) {
      earlierTasks = tasks;
      tasks = new Map();
    }
    const func = earlierTasks.get(message.key) ?? make(message);
    tasks.set(message.key, func);
    return func;
  }

  function make(message: TaskMessage): Func {
    try {
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
    const others = names.length === 0 ? "it exports no function" : `it exports '${names.join("', '")}'`;
    throw new TypeError(`Cannot run task as its module does not export a function '${name}': ${others}`);
  }

  function compile(text: string, name: string): Func {
    try {
      const func: Func = evaluate(`${text}\n//# sourceURL=process-pool/${encodeURIComponent(name.toWellFormed())}`);
      bySource.add(func);
      return func;
    } catch (thrown) {
      // The computed name of a method may use missing variables, too.
      throw explained(thrown);
    }
  }

  /** Encodes what a task has thrown. */
  function encodeFailure(func: Func, thrown: unknown): Thrown {
    return encode(bySource.has(func) ? explained(thrown, func) : thrown);
  }

  function postThrown(run: number, func: Func, thrown: unknown): void {
    sendThrown(encodeFailure(func, thrown), (thrown) => post({ type: "threw", run, thrown }));
  }

  function explained(thrown: unknown, func?: Func): unknown {
    // The address of a worker's own source.
    const ownAddress = /"data:text\/javascript,[^"]*"/;
    const thisless = "a function that is sent by source has no 'this': give it what it needs as arguments";
    const others = modules.length > 0 ? ", none of which exports this very function" : "";
    const advice = `export it from a module and name that in the pool's 'modules'${others}`;
    try {
      if (!(thrown instanceof Error)) return thrown;
      const lack = host.lackOf(thrown, func);
      if (lack === "variable") {
        thrown.message += `; a function that is sent by source cannot see the variables and imports around it: ${advice}`;
      } else if (lack === "this") {
        // The platform ends one of these messages with a full stop.
        thrown.message = thrown.message.replace(/\.?$/, `; ${thisless}`);
      } else if (thrown instanceof TypeError && ownAddress.test(thrown.message)) {
        const { message, stack } = thrown;
        const source = "a function that is sent by source";
        const limit = "it can only import absolute addresses and names of the import map";
        thrown.message = `${message.replace(ownAddress, source)}; ${limit}: use one, or ${advice}`;
        thrown.stack = stack!.replace(ownAddress, source);
      }
    } catch {
      // It is frozen, or throws itself: it is sent as it is.
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

  function runJob({ run, task: message, id, attempt, args }: ToRuntime & { type: "run" }): void {
    // Even for a job that was taken back: the slot counts the task as known from this message on.
    task(message);
    callTasks({ kind: message.key, number: run, label: id, values: args, takeNext: () => false }, attempt, 1);
  }

  /**
   * Runs jobs whose task is known. One that was taken back ends like one that returned: nobody looks at that, and so there is one path,
   * which V8 compiles once. Stacks are cut where this calls the task: see encode_error.ts.
   */
  function callTasks(calls: Calls, attempt: number, most: number): number {
    const func = tasks.get(calls.kind) ?? earlierTasks.get(calls.kind) ?? given!;
    let done = 0;
    do {
      done++;
      const { number: run } = calls;
      const isClaimed = claim(run);
      // The result of a job that was taken back: nobody hears of it, and a number continues the results before it.
      let value: unknown = 0;
      try {
        if (isClaimed) {
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
        postResult(run, value);
      } catch (thrown) {
        called.job = undefined;
        noteTime(run, 1);
        // Thrown by the task, or because its result cannot be copied.
        postThrown(run, func, thrown);
      }
      if (isClaimed) finish(run);
    } while (done < most && !ended && calls.takeNext());
    return done;
  }

  async function settleLater(run: number, func: Func, outcome: PromiseLike<unknown>): Promise<void> {
    running.set(run, theCalledJob());
    try {
      const value = await outcome;
      noteTime(run, 1);
      postResult(run, value);
    } catch (thrown) {
      noteTime(run, 1);
      postThrown(run, func, thrown);
    }
    settled(run);
  }

  /** Notes that the answer is on its way: a caller that was busy must not take the job for one that still runs. */
  function finish(run: number): void {
    // Unless the slot already has the answer and has reused the claim.
    compareExchange(claims, claimOf(run), STARTED, FINISHED);
  }

  /** The same for a job that has waited for something, and for a chunk. */
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

  /** Copies a buffer, or a view of a whole buffer; undefined if it is something else. */
  function copyOf(value: unknown): Own | undefined {
    if (!isView(value)) return takeOver(value, value, copyAll);
    const { buffer, byteLength } = value;
    // A view whose prototype was changed has neither.
    return byteLength === buffer?.byteLength ? takeOver(value, buffer, copyAll) : undefined;
  }

  /**
   * Copies or moves a buffer, or a view of one, into memory that nobody else uses, so that it can certainly be sent. Undefined if it is
   * something else, or the platform refuses: then it is sent as it is, which may be refused as well.
   */
  function takeOver(value: unknown, buffer: unknown, take: (this: ArrayBuffer) => ArrayBuffer): Own | undefined {
    if (host.reuse === undefined || !(buffer instanceof Memory) || buffer.resizable) return undefined;
    try {
      if (value === buffer) {
        const own = apply(take, buffer, nothing);
        return { value: own, buffer: own };
      }
      if (!isView(value) || value.buffer !== buffer) return undefined;
      // An instance of a user's subclass arrives as one of the platform's class.
      let kind: object = value;
      do kind = getPrototypeOf(kind)!; while (getPrototypeOf(kind) !== typedArrays);
      const View = kind.constructor as new (buffer: ArrayBuffer, from: number, length: number) => unknown;
      const { byteOffset, length } = value as Uint8Array;
      const own = apply(take, buffer, nothing);
      return { value: new View(own, byteOffset, length), buffer: own };
    } catch {
      return undefined;
    }
  }

  /** Whether nobody else uses the memory of these items. */
  function isOurs(items: ArrayBufferView): boolean {
    return host.reuse !== undefined && items.buffer instanceof Memory;
  }

  /**
   * A running chunk, with the outcomes of its items that were not sent yet. Results are listed; but as long as they are numbers, they are
   * put into an array of such. The caller shares that if each result has to be there before the next item begins; else it is sent.
   */
  class RunningChunk {
    // Copied from the message, which comes as several kinds of objects: V8 would compile for each kind what it compiles once for this
    // class.
    readonly run: number;
    readonly firstId: number;
    readonly items: ArrayLike<unknown>;
    /** The index of the first item. */
    readonly from: number;
    /** The index after the last. */
    readonly end: number;
    readonly attempt: number;
    readonly eager: boolean;
    readonly timed: boolean;
    /** The index of the item to be run next. */
    next: number;
    readonly #skip: Set<number> | undefined;
    /** The memory that the caller shares; undefined if numbers are sent. */
    readonly #shared: Float64Array | undefined;
    /** The range of items that have a number there, as {@linkcode NUMBERS} says. */
    readonly #bounds: Int32Array | undefined;
    /** The first item whose outcome was not sent. */
    #from: number;
    /** The item after the last of those. */
    #to: number;
    /**
     * Where results are put as long as they are numbers: a growing list would be copied again and again. Undefined while results are
     * listed.
     */
    #numbers: Float64Array | undefined;
    /** The item whose number is the first there. */
    #firstNumber = 0;
    #listed: unknown[] = [];
    /** Whether all results were numbers. */
    #onlyNumbers = true;
    #thrown: [number, Thrown][] = [];
    #transfer: Transferable[] = [];
    #timer: ReturnType<typeof setTimeout> | undefined;
    readonly #begin = clock();
    #sent = this.#begin;
    /** After how many items the clock is read: that takes longer than the shortest ones. */
    #stride = 1;
    #nextLook: number;
    #lastLook = this.#begin;

    constructor(message: ToRuntime & { type: "chunk" }) {
      const { run, id, items, from, attempt, eager, timed, skip, numbers } = message;
      this.run = run;
      this.firstId = Number(id);
      this.items = items;
      this.from = from;
      this.end = from + items.length;
      this.attempt = attempt;
      this.eager = eager;
      this.timed = timed;
      this.next =
        this.#from =
        this.#to =
        this.#nextLook =
          from;
      if (skip.length > 0) this.#skip = new Set(skip);
      if (numbers === undefined) return;
      this.#shared = new Doubles(numbers, NUMBERS);
      this.#bounds = new Words(numbers, 0, 2);
      this.#share();
    }

    /** Whether an item is not to be run. */
    skips(i: number): boolean {
      return this.#skip !== undefined && this.#skip.has(i);
    }

    /** Takes the next outcome: what the item returned. */
    returned(value: unknown): void {
      if (typeof value === "object") return this.#returnedObject(value);
      this.#noteApart(value);
    }

    #returnedObject(value: object | null): void {
      if (isMoved(value)) return this.#moved(value.value, movedWith(value));
      // The task may refill it for the next item.
      const copy = this.eager ? undefined : copyOf(value);
      if (copy === undefined) return this.#noteApart(value);
      this.#noteApart(copy.value, copy.buffer.byteLength >= WORTH_MOVING ? copy.buffer : undefined);
    }

    #moved(value: unknown, transfer: Transferable[]): void {
      // Kept results may refer to what is about to be moved away, unless they were taken over.
      if (this.#transfer.length === 0) this.#flushKept();
      const own = this.eager || transfer.length !== 1 ? undefined : takeOver(value, transfer[0], moveAway);
      if (own !== undefined) return this.#noteApart(own.value, own.buffer);
      this.#flushKept();
      this.#transfer.push(...transfer);
      this.#note(value, false);
      this.flush(false);
    }

    /**
     * Notes a result with others that are sent in the same way, moved or copied. If a message cannot be sent, everything that was to be
     * moved with it is lost: so what is moved can certainly be sent, or goes alone.
     */
    #noteApart(value: unknown, moved?: ArrayBuffer): void {
      if (this.#transfer.length > 0 !== (moved !== undefined)) this.#flushKept();
      if (moved !== undefined) this.#transfer.push(moved);
      this.#note(value, false);
    }

    #flushKept(): void {
      if (this.#from < this.#to) this.flush(false);
    }

    threw(thrown: Thrown): void {
      this.#thrown.push([this.#to, thrown]);
      this.#note(undefined, true);
    }

    #note(value: unknown, threw: boolean): void {
      const isNumber = typeof value === "number";
      if (isNumber && this.#numbers === undefined && this.#from === this.#to) this.#pack();
      if (this.#numbers !== undefined) {
        if (isNumber) {
          this.#numbers[this.#to++ - this.#firstNumber] = value;
          if (this.#bounds !== undefined) store(this.#bounds, 1, this.#to);
          return;
        }
        this.#list();
      }
      this.#onlyNumbers &&= isNumber || threw;
      this.#listed.push(value);
      this.#to++;
    }

    /** Has the caller read numbers from here on by itself. */
    #share(): void {
      this.#numbers = this.#shared;
      store(this.#bounds!, 0, this.#to);
      store(this.#bounds!, 1, this.#to);
    }

    /** Packs results from here on, where the first is a number, if that is worth it. */
    #pack(): void {
      const { items, from } = this;
      const { length } = items;
      // With `eager` each result is sent by itself, unless it is shared.
      if (this.eager || length < WORTH_PACKING) return;
      // A result takes the place of its item, or of an earlier one: those have been read.
      if (items instanceof Doubles && isOurs(items)) this.#numbers = items;
      // Only once: most of this would be wasted if a result soon is not a number.
      else if (this.#to === from) this.#numbers = new Doubles(length);
      this.#firstNumber = this.#to;
    }

    /** Lists results from here on, as one is not a number. */
    #list(): void {
      const numbers = this.#numbers!, count = this.#to - this.#from;
      this.#numbers = undefined;
      // The caller has what it shares.
      if (this.#bounds !== undefined) this.#from = this.#to;
      else for (let i = 0; i < count; i++) this.#listed.push(numbers[i]);
    }

    /** Gives the memory of its items back, when it is done and everything has been sent. */
    release(): void {
      const { items } = this;
      // A chunk with memory for its results came by the port, and so will the next one.
      if (this.#shared === undefined && isView(items) && isOurs(items)) host.reuse!(items.buffer as ArrayBuffer);
    }

    /** Sends what is ready soon, as the next item may take long. */
    flushSoon(): void {
      if (this.#from < this.#to) this.#timer ??= startTimer()(() => this.flush(false), GATHER);
    }

    flushIfDue(): void {
      if (this.#to < this.end && this.#isDue()) this.flush(false);
    }

    #isDue(): boolean {
      if (this.eager && this.#numbers === undefined) return this.#from < this.#to;
      if (this.#to <= this.#nextLook) return false;
      const now = clock();
      this.#stride = now - this.#lastLook < GATHER / 10 ? Math.min(2 * this.#stride, LONGEST_STRIDE) : 1;
      this.#nextLook = this.#to - 1 + this.#stride;
      this.#lastLook = now;
      return now - this.#sent >= GATHER;
    }

    flush(last: boolean): void {
      if (this.#timer !== undefined) stopTimer()(this.#timer);
      this.#timer = undefined;
      this.#sent = clock();
      this.#send(last);
      this.#from = this.#to;
      this.#listed = [];
      this.#thrown = [];
      this.#transfer = [];
      if (this.#shared === undefined) this.#firstNumber = this.#from;
      else if (this.#numbers === undefined && this.#onlyNumbers) this.#share();
    }

    /** The unsent results; undefined if they are shared. */
    #unsent(): ArrayLike<unknown> | undefined {
      const numbers = this.#numbers, count = this.#to - this.#from;
      if (numbers === undefined) return this.#listed;
      if (this.#shared !== undefined) return undefined;
      return numbers.length === count ? numbers : apply(slice, numbers, [0, count]);
    }

    #send(last: boolean): void {
      postItems({
        type: "items",
        run: this.run,
        from: this.#from,
        values: this.#unsent(),
        thrown: this.#thrown,
        last,
        elapsed: this.#sent - this.#begin,
      }, this.#transfer);
    }
  }

  /**
   * Sends items. If one of several cannot be sent, they are sent in halves, and halves of those: so the platform tells which one it is, and
   * that item fails.
   */
  function postItems(message: ItemsMessage, transfer?: Transferable[]): void {
    try {
      return post(message, transfer);
    } catch (refusal) {
      const { from, values, thrown, last } = message;
      // Numbers can be sent: what was to be moved with them cannot.
      if (!isArray(values)) return post(message);
      if (values.length > 1) {
        const half = values.length >> 1, middle = from + half;
        postItems({ ...message, values: values.slice(0, half), thrown: thrown.filter(([i]) => i < middle), last: false });
        return postItems({ ...message, from: middle, values: values.slice(half), thrown: thrown.filter(([i]) => i >= middle), last });
      }
      const error = thrown[0]?.[1] ?? encode(unsendable(refusal));
      sendThrown(error, (error) => post({ ...message, values: [undefined], thrown: [[from, error]] }));
    }
  }

  async function runChunk(message: ToRuntime & { type: "chunk" }): Promise<void> {
    const { run } = message;
    const func = task(message.task);
    if (!claim(run)) return post({ type: "skipped", run });
    const chunk = new RunningChunk(message);
    chunks.add(chunk);
    running.set(run, new RunningJob(message.id, message.attempt));
    for (let outcome = runItems(chunk, func); outcome !== undefined; outcome = runItems(chunk, func)) {
      called.job = undefined;
      running.set(run, theCalledJob());
      chunk.flushSoon();
      try {
        const value = await outcome;
        if (!ended) chunk.returned(value);
      } catch (error) {
        if (!ended) chunk.threw(encodeFailure(func, error));
      }
      if (ended) break;
      chunk.flushIfDue();
    }
    called.job = undefined;
    if (ended) return settled(run);
    chunks.delete(chunk);
    noteTime(run, 1);
    chunk.flush(true);
    chunk.release();
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
          if (!ended) chunk.threw(encodeFailure(func, error));
        }
      }
      if (ended) return undefined;
      chunk.flushIfDue();
    }
    return undefined;
  }

  function isThenable(value: unknown): value is PromiseLike<unknown> {
    return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
  }

  async function turn(): Promise<void> {
    const end = clock() + LONGEST_TURN;
    for (let i = 0; i < TICKS && clock() < end; i++) await tick();
  }

  /**
   * `setImmediate` and `setTimeout`, even for one tick, make Deno load something that takes 4 ms and 1.5 MB in a worker. A worker of
   * node:worker_threads has loaded it anyway; and if it ended during a tick of `Atomics.waitAsync`, Deno might print that its execution was
   * terminated.
   */
  function tick(): unknown {
    if (host.hasTimers) return new Promise<void>((resolve) => void startImmediate()(resolve));
    const { value } = waitAsync(ticks, 0, 0);
    notify(ticks, 0);
    return value;
  }

  async function callInitializer({ task: message, args }: ToRuntime & { type: "initialize" }): Promise<void> {
    const func = task(message);
    try {
      await apply(func, undefined, args);
      post({ type: "initialized" });
    } catch (thrown) {
      sendThrown(encodeFailure(func, thrown), (thrown) => post({ type: "failed", stage: "initializing", thrown }));
    }
  }

  async function callFinalizer({ finalizer }: ToRuntime & { type: "close" }): Promise<void> {
    if (finalizer === undefined) return post({ type: "closed", thrown: undefined });
    const func = task(finalizer);
    let thrown: Thrown | undefined;
    try {
      await func();
    } catch (error) {
      thrown = encodeFailure(func, error);
    }
    await rejectionsShown();
    if (thrown === undefined) post({ type: "closed", thrown });
    else sendThrown(thrown, (thrown) => post({ type: "closed", thrown }));
  }

  return {
    get hasRoom() {
      return hasRoom();
    },
    get idle() {
      return running.size === 0;
    },
    turn,
    sendThrown: (thrown, send) => sendThrown(encode(thrown), send),
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
      for (const chunk of chunks) {
        try {
          chunk.flush(false);
        } catch {
          // It is lost with the worker; the results of others are not.
        }
      }
      // Running jobs end with the thread: so a caller that was busy does not take them for jobs that still run.
      for (let word = 0; word < claims.length; word += CLAIM_WORDS) compareExchange(claims, word, STARTED, FINISHED);
      ended = true;
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
