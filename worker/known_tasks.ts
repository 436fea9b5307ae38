import type { lackOf } from "./lack.ts";
import type { ExportMessage, TaskMessage } from "./protocol.ts";

/** A task, to be called. */
export type Func = (...args: unknown[]) => unknown;

/** What {@linkcode createKnownTasks} needs. */
export interface KnownTasksParts {
  /** Import the task modules. */
  imports: (() => Promise<Record<string, unknown>>)[];
  /** What a task that was sent as text lacked when it threw. */
  lackOf: typeof lackOf;
}

/** The tasks that a runtime can call. */
export interface KnownTasks {
  /**
   * Imports the task modules.
   *
   * @throws {unknown} What a module throws.
   */
  load(): Promise<void>;
  /** Lists the functions that they export. */
  listExports(): ExportMessage[];
  /**
   * The task of a message, which from now on is known; of these the last `most` are kept at least. If it cannot be made, a function that
   * throws: the slot counts it as known all the same.
   */
  learn(message: TaskMessage, most: number): Func;
  /** A known task. */
  get(key: number): Func;
  /** Where a class is exported. */
  classOf(constructor: unknown): { module: number; name: string } | undefined;
  /** What a task has thrown: with advice, if the reason is that it was sent as text. */
  explained(thrown: unknown, func: Func | undefined): unknown;
}

/**
 * Keeps the tasks of a runtime: exports of task modules, and functions that were sent as text. How a function gets here is decided on the
 * calling thread, by {@linkcode TaskTable}.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function createKnownTasks({ imports, lackOf }: KnownTasksParts): KnownTasks {
  // Taken now: tasks may replace it.
  const { hasOwn } = Object;
  const evaluate = eval;
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
  let modules: Record<string, unknown>[] = [];

  function listExports(): ExportMessage[] {
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
    return exports;
  }

  function learn(message: TaskMessage, most: number): Func {
    if (hasOwn(message, "func")) return given = message.func!;
    const known = tasks.get(message.key);
    if (known !== undefined) return known;
    if (tasks.size >= most) {
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
      throw withAdvice(thrown);
    }
  }

  /** Makes the error of a function that was sent as text tell what to do about that, if that is the reason. */
  function withAdvice(thrown: unknown, func?: Func): unknown {
    // The address of a worker's own source.
    const ownAddress = /"data:text\/javascript,[^"]*"/;
    // Without an import map Deno does not name it; for an import of a module it adds where that is.
    const unresolved = /^(?:invalid URL: relative URL with a cannot-be-a-base base|Import ".*" not a dependency(?:\n +hint: .*)?)$/;
    const thisless = "a function that is sent as source text has no 'this': give it what it needs as arguments";
    const others = modules.length > 0 ? ", none of which exports this very function" : "";
    const advice = `export it from a module and name that in the pool's 'modules'${others}`;
    try {
      if (!(thrown instanceof Error)) return thrown;
      const lack = lackOf(thrown, func);
      if (lack === "variable") {
        thrown.message += `; a function that is sent as source text cannot see the variables and imports around it: ${advice}`;
      } else if (lack === "this") {
        // The platform ends one of these messages with a full stop.
        thrown.message = thrown.message.replace(/\.?$/, `; ${thisless}`);
      } else if (thrown instanceof TypeError && (ownAddress.test(thrown.message) || unresolved.test(thrown.message))) {
        const { message, stack } = thrown;
        const source = "a function that is sent as source text";
        const limit = "it can only import absolute addresses and names of the import map";
        thrown.message = `${message.replace(ownAddress, source)}; ${limit}: use one, or ${advice}`;
        thrown.stack = stack!.replace(ownAddress, source);
      }
    } catch {
      // It is frozen, or throws itself: it is sent as it is.
    }
    return thrown;
  }

  return {
    async load() {
      modules = await Promise.all(imports.map((load) => load()));
    },
    listExports,
    learn,
    get: (key) => tasks.get(key) ?? earlierTasks.get(key) ?? given!,
    classOf: (constructor) => classes.get(constructor),
    explained: (thrown, func) => func !== undefined && bySource.has(func) ? withAdvice(thrown, func) : thrown,
  };
}
