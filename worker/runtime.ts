import type { ExportMessage, FromRuntime, RunHeader, TaskMessage, Thrown, ToRuntime } from "./protocol.ts";

/** What {@linkcode createRuntime} needs of the thread that it is in. */
export interface RuntimeHost {
  /** Sends a message to the slot. */
  post(message: FromRuntime): void;
  /** Makes something thrown fit to be sent. */
  encode(thrown: unknown, exportedClass: (constructor: unknown) => { module: number; name: string } | undefined): Thrown;
  /** Import the task modules. */
  imports: (() => Promise<Record<string, unknown>>)[];
}

/** The part of a thread that runs tasks. */
export interface Runtime {
  /** Takes a message of the slot's. */
  receive(message: ToRuntime): void;
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
  // As in protocol.ts, which is not there in a worker.
  const SENT = 1, STARTED = 2, FINISHED = 4, KNOWN_TASKS = 1000;
  /** Small results are gathered for so long, in ms: shorter costs messages, longer holds results back. */
  const GATHER = 1;
  const JOB = Symbol.for("process-pool.job");
  // As they are now: tasks may put others in their place.
  const { setTimeout, clearTimeout, performance } = globalThis;
  const { store, compareExchange } = Atomics;
  const { now: timeOfDay } = Date;

  const tasks = new Map<number, Func>();
  const classes = new Map<unknown, { module: number; name: string }>();
  /** How to abort what runs. */
  const running = new Map<number, (reason: unknown) => void>();
  /** Flushes the chunks that run. */
  const flushes = new Set<() => void>();
  let modules: Record<string, unknown>[] = [];
  let claims: Int32Array = new Int32Array(0);
  let ended = false;
  let whenIdle: (() => void) | undefined;

  function post(message: FromRuntime): void {
    if (!ended) host.post(message);
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
    claims = message.claims;
    try {
      modules = await Promise.all(host.imports.map((load) => load()));
      // A rejection that a module left unhandled shows within a turn; the caller may import it next, relying on it to do no harm.
      if (modules.length > 0) await new Promise((resolve) => setTimeout(resolve));
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
    const func = evaluate(`"use strict";(${text}\n)\n//# sourceURL=process-pool/${encodeURIComponent(name)}`);
    return function callBySource(...args) {
      try {
        const value = func.apply(undefined, args);
        return value instanceof Promise ? value.catch(explain) : value;
      } catch (thrown) {
        return explain(thrown);
      }
    };
  }

  /** The computed name of a method may use what is not there, too. */
  function evaluate(source: string): Func {
    try {
      return (0, eval)(source);
    } catch (thrown) {
      return explain(thrown);
    }
  }

  function explain(thrown: unknown): never {
    if (thrown instanceof ReferenceError && / is not defined$/.test(thrown.message)) {
      thrown.message += "; a function that is sent by source cannot see the variables and imports around it: export it from a module " +
        "and name that in the pool's 'modules'";
    }
    throw thrown;
  }

  /** Calls a task with its job to be read by `currentJob()` until the task first awaits. */
  function callTask(func: Func, args: readonly unknown[], run: number, { id, attempt }: { id: string | number; attempt: number }): unknown {
    let controller: AbortController | undefined;
    const scope = globalThis as Record<symbol, unknown>;
    const before = scope[JOB];
    running.set(run, (reason) => (controller ??= new AbortController()).abort(reason));
    scope[JOB] = {
      id,
      attempt,
      get signal() {
        return (controller ??= new AbortController()).signal;
      },
    };
    try {
      return func(...args);
    } finally {
      scope[JOB] = before;
    }
  }

  /** Claims a job; false if it was taken back. */
  function claim({ run, claim, task: message }: RunHeader): boolean {
    store(claims, claim + 2, timeOfDay() | 0);
    if (compareExchange(claims, claim, SENT, STARTED) === SENT) return true;
    // The slot counts it as known from this message on.
    task(message);
    post({ type: "skipped", run });
    return false;
  }

  async function run(message: ToRuntime & { type: "run" }): Promise<void> {
    if (!claim(message)) return;
    const { run } = message;
    try {
      const value = await callTask(task(message.task), message.args, run, message);
      post({ type: "returned", run, value });
    } catch (thrown) {
      // Among the errors that come here is that of a result that cannot be copied.
      post({ type: "threw", run, thrown: encode(thrown) });
    } finally {
      settled(message);
    }
  }

  /** The answer is on its way: a caller that was busy meanwhile does not take the job for one that runs still. */
  function settled({ run, claim }: RunHeader): void {
    // Unless the slot has the answer and has used the claim again.
    compareExchange(claims, claim, STARTED, FINISHED);
    running.delete(run);
    if (running.size === 0) whenIdle?.();
  }

  async function runChunk(message: ToRuntime & { type: "chunk" }): Promise<void> {
    if (!claim(message)) return;
    const { run, items, eager } = message;
    const skip = new Set(message.skip);
    const func = task(message.task);
    const begin = performance.now();
    let sent = begin;
    let from = message.from;
    let values: unknown[] = [];
    let thrown: [number, Thrown][] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;

    function flush(last: boolean): void {
      clearTimeout(timer);
      timer = undefined;
      sent = performance.now();
      const message: FromRuntime = { type: "items", run, from, values, thrown, last, elapsed: sent - begin };
      try {
        post(message);
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
      from += values.length;
      values = [];
      thrown = [];
    }

    const flushThis = (): void => flush(false);
    flushes.add(flushThis);
    for (let i = from; i < items.length; i++) {
      store(claims, message.claim + 2, timeOfDay() | 0);
      if (compareExchange(claims, message.claim + 1, i, i + 1) !== i) break;
      if (skip.has(i)) {
        values.push(undefined);
        continue;
      }
      try {
        const value = callTask(func, [items[i]], run, { id: Number(message.id) + i, attempt: i === message.from ? message.attempt : 1 });
        if (isThenable(value)) {
          // It may take long: what is ready does not wait for it.
          if (values.length > 0) timer ??= setTimeout(flushThis, GATHER);
          // After it, for the values may have been sent meanwhile.
          const settledValue = await value;
          values.push(settledValue);
        } else values.push(value);
      } catch (error) {
        values.push(undefined);
        thrown.push([i, encode(error)]);
      }
      if (ended) return settled(message);
      if (i + 1 < items.length && (eager || performance.now() - sent >= GATHER)) flush(false);
    }
    flushes.delete(flushThis);
    flush(true);
    settled(message);
  }

  function isThenable(value: unknown): boolean {
    return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
  }

  async function initialize(message: ToRuntime & { type: "initialize" }): Promise<void> {
    try {
      await task(message.task)(...message.args);
      post({ type: "initialized" });
    } catch (thrown) {
      post({ type: "failed", stage: "initializing", thrown: encode(thrown) });
    }
  }

  async function close({ finalizer }: ToRuntime & { type: "close" }): Promise<void> {
    try {
      if (finalizer !== undefined) await task(finalizer)();
      post({ type: "closed", thrown: undefined });
    } catch (thrown) {
      post({ type: "closed", thrown: encode(thrown) });
    }
  }

  return {
    encode,
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
      for (const abort of [...running.values()]) abort(reason);
      if (running.size === 0) idle?.();
    },
  };
}
