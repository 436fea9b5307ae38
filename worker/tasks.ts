import { ownName, type Task, taskName, type TaskRef } from "../job.ts";
import { show } from "../pool/checks.ts";
import { decodeError } from "./decode_error.ts";
import { type Complaint, expressionOf, isolated } from "./function_text.ts";
import type { ExportMessage, TaskMessage, Thrown } from "./protocol.ts";

/** A task module: its address, and its exports if this thread has them. */
export interface KnownModule {
  url: string;
  exports: Record<string, unknown> | undefined;
}

/** What a {@linkcode TaskTable} has to know about its pool. */
export interface TaskTableOptions {
  modules: readonly KnownModule[];
  /** Whether modules whose exports are not given may be imported here. */
  mayImport: boolean;
  /** Whether functions are passed as they are. */
  inline: boolean;
}

/** How many tasks other than exports are kept for later calls: a program that keeps making up functions must not grow because of them. */
const KEPT_TASKS = 1000;

/**
 * Knows how each function reaches a worker: by reference if a task module exports it, else as source text. A function can be recognised by
 * identity only if this thread has the modules' exports; for the first function that it does not know, it imports them, after a worker has
 * loaded them without harm. If it must not, functions are recognised by name and text as the worker announced them.
 */
export class TaskTable {
  #modules: KnownModule[];
  #options: TaskTableOptions;
  #nextKey = 0;
  #byFunction = new WeakMap<Task, TaskMessage>();
  #byText = new Map<string, TaskMessage>();
  #byExport = new Map<string, TaskMessage>();
  #exports: readonly ExportMessage[] | undefined;
  /** By name and text; undefined if there are several. */
  #announced = new Map<string, TaskMessage | undefined>();
  /** Whether everything that will ever be known of the modules is known. */
  #complete: boolean;
  #completion: Promise<void> | undefined;

  constructor(options: TaskTableOptions) {
    this.#options = options;
    this.#modules = options.modules.map((module) => ({ ...module }));
    for (const index of this.#modules.keys()) this.#learnExports(index);
    this.#complete = options.inline || this.#modules.every((module) => module.exports !== undefined);
  }

  /**
   * Refuses a task if it is already known that no worker can run it.
   *
   * @returns How the task reaches a worker, if that is already known.
   *
   * @throws {TypeError} If no worker will be able to run it.
   */
  check(func: Task | TaskRef): TaskMessage | undefined {
    if (typeof func !== "function") return this.resolve(func);
    return this.#byFunction.get(func) ?? (this.#complete ? this.resolve(func) : undefined);
  }

  /**
   * How the task reaches a worker.
   *
   * @returns The whole message; undefined if that is not known before {@linkcode TaskTable.learn}.
   *
   * @throws {TypeError} If it cannot reach one.
   */
  resolve(func: Task | TaskRef): TaskMessage | undefined {
    if (typeof func !== "function") return this.#reference(func);
    const known = this.#byFunction.get(func);
    if (known !== undefined) return known;
    if (!this.#complete) return undefined;
    const task = this.#options.inline ? this.#message({ name: taskName(func), func }) : this.#recognise(func);
    this.#byFunction.set(func, task);
    return task;
  }

  /** Notes what the modules export, as a worker that has loaded them announces; all announce the same. */
  announce(exports: readonly ExportMessage[]): void {
    this.#exports ??= exports;
  }

  /** Finds out everything about the modules; there must have been an announcement. Resolves when the table is complete. */
  learn(): Promise<void> {
    return this.#completion ??= this.#learn();
  }

  /** What was thrown in a worker, as it is thrown here. */
  decode(thrown: Thrown): unknown {
    return decodeError(thrown, ({ module, name }) => this.#modules[module]?.exports?.[name]);
  }

  async #learn(): Promise<void> {
    if (this.#options.mayImport) await Promise.all(this.#modules.map((module) => this.#import(module)));
    for (const { module, name, functionName, text } of this.#exports!) {
      if (this.#modules[module]?.exports !== undefined) continue;
      const id = `${functionName}\n${text}`;
      this.#announced.set(id, this.#announced.has(id) ? undefined : this.#export(module, name));
    }
    this.#complete = true;
  }

  async #import(module: KnownModule): Promise<void> {
    if (module.exports !== undefined) return;
    try {
      module.exports = await import(module.url);
      this.#learnExports(this.#modules.indexOf(module));
    } catch {
      // It loads in a worker but not here: its functions are recognised by name and text, like those of a module that must not be imported.
      module.exports = undefined;
    }
  }

  #learnExports(index: number): void {
    for (const [name, value] of Object.entries(this.#modules[index]!.exports ?? {})) {
      if (typeof value === "function") this.#byFunction.set(value as Task, this.#export(index, name));
    }
  }

  #reference({ module, name }: TaskRef): TaskMessage {
    const url = URL.canParse(module) ? new URL(module).href : String(module);
    const index = this.#modules.findIndex((known) => known.url === url);
    if (index < 0) {
      const known = this.#modules.map((each) => show(each.url)).join(", ");
      throw new TypeError(
        `Cannot run task ${show(name)} as its module must be one of the pool's 'modules' (${known === "" ? "there are none" : known}): ` +
          `current value is ${show(url)}`,
      );
    }
    return this.#export(index, name);
  }

  #export(module: number, name: string): TaskMessage {
    const id = `${module} ${name}`;
    return this.#byExport.get(id) ?? keep(this.#byExport, id, this.#message({ name, export: { module, name } }));
  }

  #recognise(func: Task): TaskMessage {
    const text = Function.prototype.toString.call(func);
    const id = `${ownName(func)}\n${text}`;
    const announced = this.#announced.get(id);
    if (announced === undefined && this.#announced.has(id)) {
      throw new TypeError(
        `Cannot tell which task '${taskName(func)}' is as the pool's 'modules' export several functions with this name and text: ` +
          "give the module as { url, exports }, or the task as { module, name }",
      );
    }
    return announced ?? this.#byText.get(id) ??
      keep(this.#byText, id, this.#message({ name: taskName(func), text: isolated(expressionOf(func, text, complaint(func))) }));
  }

  #message(task: Omit<TaskMessage, "key">): TaskMessage {
    return { key: this.#nextKey++, ...task };
  }
}

function keep(tasks: Map<string, TaskMessage>, id: string, task: TaskMessage): TaskMessage {
  if (tasks.size === KEPT_TASKS) tasks.clear();
  tasks.set(id, task);
  return task;
}

function complaint(func: Task): Complaint {
  return {
    cannot: `Cannot send '${taskName(func)}' to a worker as it`,
    advice: "export a function from a module, name that module in the pool's 'modules', and give the function",
  };
}
