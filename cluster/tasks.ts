import type { Task, TaskRef } from "@procpool/process-pool";
import { Checks, show } from "@procpool/process-pool/executor";

/** Where a task is, and which arguments it accepts. */
export interface TaskDefinition {
  /** The address of its module, as `import.meta.resolve("./tasks.ts")` gives it. */
  module: string | URL;
  /**
   * The name under which the module exports it.
   *
   * @default {the task's own name}
   */
  name?: string | undefined;
  /**
   * Checks the arguments of a call, and throws if they are wrong: before they are queued, and again on the host, since others may write to
   * the queue as well. For a map it checks each item.
   *
   * @default {undefined}
   */
  validate?: ((args: unknown[]) => void) | undefined;
}

/** A task as both sides know it: can be given to a pool instead of its function, with the same type. */
// deno-lint-ignore no-explicit-any -- the default has to admit every task
export interface ClusterTask<A extends unknown[] = any[], R = unknown> extends TaskRef<A, R> {
  /** The address of its module. */
  readonly module: string;
  /** The name under which the module exports it. */
  readonly name: string;
  /** The name that travels. */
  readonly task: string;
  /** Checks the arguments of a call. */
  readonly validate: ((args: unknown[]) => void) | undefined;
}

/** The names of a module's functions. */
export type TaskNames<M> = { [N in keyof M]: M[N] extends Task ? N : never }[keyof M] & string;

/** What {@linkcode defineTasks} returns: the tasks by the names that travel. */
export type ClusterTasks<M = Record<string, Task>, N extends string = string> = {
  readonly [K in N]: K extends keyof M ? M[K] extends (...args: infer A) => infer R ? ClusterTask<A, Awaited<R>> : never
    // deno-lint-ignore no-explicit-any -- nothing is known of a task that is given only by its address
    : ClusterTask<any[], unknown>;
};

/** What names may be: those of exports, so that a path or an address is none. */
const NAME = /^[\p{ID_Start}_$][\p{ID_Continue}$]{0,99}$/u;

const ACTION = "define tasks";

const made = new WeakSet<object>();

/**
 * Defines what a cluster can run: producers and hosts share this. Only a task's name travels; a host looks it up here and imports nothing
 * that came from the queue.
 *
 * The type parameter is the type of the module that has the functions, so that calls are type-checked; nothing is imported for it.
 *
 * @typeParam M The type of the module or modules.
 * @typeParam N The names.
 * @param definitions The tasks by name: the address of the module that exports them, or a definition in full.
 * @returns The tasks by name, to be given to `ClusterPool.open` and `serve`, and one by one to `run`, `submit` and `map`.
 *
 * @throws {TypeError} If a name cannot be that of an export, or a definition is of the wrong type.
 *
 * @example A task of a module
 * ```ts
 * import { defineTasks } from "@procpool/cluster";
 * import { assertEquals } from "@std/assert";
 *
 * const tasks = defineTasks({ resize: "file:///srv/tasks.ts", upload: { module: "file:///srv/storage.ts", name: "put" } });
 * assertEquals(Object.keys(tasks), ["resize", "upload"]);
 * assertEquals(tasks.upload.name, "put");
 * ```
 */
export function defineTasks<M extends object = Record<never, never>, N extends string = TaskNames<M>>(
  definitions: { readonly [K in N]: string | URL | TaskDefinition },
): ClusterTasks<M, N> {
  const checks = new Checks(ACTION);
  checks.object("definitions", definitions);
  const tasks: Record<string, ClusterTask> = Object.create(null);
  for (const [task, given] of Object.entries(definitions)) tasks[checkedName(task)] = resolveTask(checks, task, given);
  made.add(tasks);
  return Object.freeze(tasks) as ClusterTasks<M, N>;
}

/** Whether {@linkcode defineTasks} made it. */
export function areTasks(value: unknown): value is ClusterTasks {
  return typeof value === "object" && value !== null && made.has(value);
}

/** The tasks, if {@linkcode defineTasks} made them. */
export function checkedTasks(action: string, value: unknown): ClusterTasks {
  if (areTasks(value)) return value;
  throw new TypeError(`Cannot ${action} as 'tasks' must come from defineTasks(): current value is ${show(value)}`);
}

function resolveTask(checks: Checks, task: string, given: unknown): ClusterTask {
  if (typeof given === "string" || given instanceof URL) return resolveTask(checks, task, { module: given });
  checks.object(task, given);
  const { module, name = task, validate } = checks.options(given as TaskDefinition, ["module", "name", "validate"]);
  if ((typeof module !== "string" && !(module instanceof URL)) || !URL.canParse(module)) {
    throw new TypeError(
      `Cannot ${ACTION} as '${task}' must have the address of a module, such as import.meta.resolve("./tasks.ts"): ` +
        `current value is ${show(module)}`,
    );
  }
  if (validate !== undefined) checks.callable(`${task}.validate`, validate);
  return Object.freeze({ module: new URL(module).href, name: checkedName(name), task, validate: validate && atOnce(task, validate) });
}

/** An asynchronous check would let everything pass. */
function atOnce(task: string, validate: (args: unknown[]) => unknown): (args: unknown[]) => void {
  return (args) => {
    const outcome = validate(args);
    if (!(outcome instanceof Promise)) return;
    outcome.catch(() => {});
    throw new TypeError(`Cannot check the arguments of ${show(task)} as its 'validate' must not be asynchronous`);
  };
}

function checkedName(name: unknown): string {
  if (typeof name === "string" && NAME.test(name) && name !== "__proto__") return name;
  throw new TypeError(`Cannot ${ACTION} as a task must have the name of an export, such as "resize": current value is ${show(name)}`);
}

/**
 * Finds the task that a producer means: given as the task itself, as another reference to the same export, or as the function. For a
 * function it imports the modules here, once; modules that the program has already imported give the same functions and need no permission.
 */
export class TaskFinder {
  #tasks: ClusterTasks;
  #own: ReadonlySet<Task | TaskRef>;
  /** Several tasks may share an export, each with its own check. */
  #byExport: Map<string, ClusterTask[]>;
  #byFunction = new Map<Task, ClusterTask[]>();
  #imported: Promise<unknown[]> | undefined;

  constructor(tasks: ClusterTasks) {
    const own = Object.values<ClusterTask>(tasks);
    this.#tasks = tasks;
    this.#own = new Set<Task | TaskRef>(own);
    this.#byExport = Map.groupBy(own, exportKey);
  }

  /** The task, or undefined for a function that is not known yet. */
  known(func: Task | TaskRef): ClusterTask | undefined {
    if (this.#own.has(func)) return func as ClusterTask;
    if (typeof func === "function") return this.#only(this.#byFunction.get(func));
    const task = this.#only(this.#byExport.get(exportKey(func)));
    if (task !== undefined) return task;
    throw new TypeError(
      `Cannot submit task ${show(func.name)} of ${show(String(func.module))} as it is none of the pool's: ${this.#list()}`,
    );
  }

  /** The task that a function is. */
  async find(func: Task | TaskRef): Promise<ClusterTask> {
    const known = this.known(func);
    if (known !== undefined) return known;
    const failures = await (this.#imported ??= this.#import());
    const found = this.known(func);
    if (found !== undefined) return found;
    const refusal = `Cannot submit ${show(func)} as a cluster runs named tasks only, and no task is this very function: ${this.#list()}`;
    if (failures.length === 0) throw new TypeError(refusal);
    const [cause] = failures;
    const detail = cause instanceof Error ? cause.message : show(cause);
    throw new TypeError(`${refusal}, and not all of their modules can be loaded here: ${detail}`, { cause });
  }

  /** Why modules could not be loaded. A program may still submit functions of other modules. */
  async #import(): Promise<unknown[]> {
    const imports = Object.values<ClusterTask>(this.#tasks).map(async (task) => {
      const exported = (await import(task.module))[task.name];
      if (typeof exported !== "function") return;
      const others = this.#byFunction.get(exported);
      if (others === undefined) this.#byFunction.set(exported, [task]);
      else others.push(task);
    });
    const outcomes = await Promise.allSettled(imports);
    return outcomes.flatMap((outcome) => outcome.status === "rejected" ? [outcome.reason] : []);
  }

  #only(tasks: ClusterTask[] = []): ClusterTask | undefined {
    if (tasks.length < 2) return tasks[0];
    const names = tasks.map(({ task }) => show(task)).join(" and ");
    throw new TypeError(`Cannot submit a function that belongs to the tasks ${names}: submit one of these tasks itself`);
  }

  #list(): string {
    return `its tasks are ${Object.keys(this.#tasks).map(show).join(", ") || "none"}`;
  }
}

function exportKey({ module, name }: TaskRef): string {
  return `${URL.canParse(module) ? new URL(module).href : module} ${name}`;
}
