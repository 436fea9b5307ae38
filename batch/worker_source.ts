/**
 * How the workers of a batch get the user's task and the code that runs it. The task module is imported by a small module of ours, which
 * leaves its exports where the initializer finds them: a restricted worker cannot import anything itself. The code comes with the
 * initializer, as text, so that no worker needs a permission for it, and none of it is kept for workers that were replaced.
 *
 * @module
 */

import { isolated } from "../worker/function_text.ts";
import { dataUrl } from "../worker/inside.ts";
import { lackOf } from "../worker/lack.ts";
import { createExplainer } from "./explainer.ts";
import type { LaneMemory } from "./lane.ts";
import type { Piece, RangeReply, RunnerLimits } from "./range.ts";
import { createRangeReader } from "./range_reader.ts";
import { createRangeRunner, type RangeRunner, type RunnerOptions } from "./range_runner.ts";
import { rowEnd } from "./rows.ts";
import { isOther, sampleOf } from "./seen_file.ts";

/** Our functions that run in workers. */
const RUNNER_PARTS = { createRangeRunner, createRangeReader, createExplainer, lackOf, rowEnd, isOther, sampleOf };

/** The argument of the initializer. */
export interface WorkerSetup {
  /** The texts of {@linkcode createRangeRunner} and of what it needs. */
  sources: Record<keyof typeof RUNNER_PARTS, string>;
  options: RunnerOptions;
  /** The module as the user named it; undefined for a function that is sent as text. */
  module: string | undefined;
  /** The export that is the task; undefined for the default export, or the only function. */
  task: string | undefined;
}

/** The CSV parser: only loaded for CSV. */
export const PAPA_PARSE = "npm:papaparse@5.7.1";

/** The part of it that we use. */
export interface CsvParser {
  parse(text: string, options: object): { data: string[][]; errors: { message: string }[] };
}

/** The URL of a module that makes a task known to the initializer, with `csv` also the CSV parser, and where the worker's own source is. */
export function taskModuleUrl(task: { module: string } | { text: string }, { csv }: { csv: boolean }): string {
  // Imported first: a task module may put something else in the place of its address, as those that imitate a browser do.
  const address = dataUrl('globalThis[Symbol.for("process-pool.batch")] = { ownAddress: location.href };');
  const lines = [
    `import ${JSON.stringify(address)};`,
    ..."module" in task
      ? [`import * as tasks from ${JSON.stringify(task.module)};`]
      : [`const tasks = { default: (0, eval)(${JSON.stringify(`${isolated(task.text)}\n//# sourceURL=process-pool/task`)}) };`],
    ...csv ? [`import papa from ${JSON.stringify(PAPA_PARSE)};`] : ["const papa = undefined;"],
    'Object.assign(globalThis[Symbol.for("process-pool.batch")], { tasks, papa });',
  ];
  return dataUrl(lines.join("\n"));
}

/** The argument of the initializer, without what is the same in all batches. */
export function workerSetup(setup: Omit<WorkerSetup, "sources">): WorkerSetup {
  const sources = Object.entries(RUNNER_PARTS).map(([name, part]) => [name, `(${part})\n//# sourceURL=process-pool/batch`]);
  return { ...setup, sources: Object.fromEntries(sources) };
}

/** What the module of {@linkcode taskModuleUrl} leaves, and what the initializer makes from it. */
interface BatchWorker {
  ownAddress: string;
  tasks: Record<string, unknown>;
  papa: CsvParser | undefined;
  runner: RangeRunner;
  /** Settles when the previous range is done. */
  last: Promise<unknown> | undefined;
}

/** The initializer of the workers. This function is sent as text: it refers to nothing outside itself. */
export function prepareWorker({ sources, options, module, task: name }: WorkerSetup): void {
  const worker = (globalThis as unknown as Record<symbol, BatchWorker>)[Symbol.for("process-pool.batch")]!;
  const { ownAddress, tasks, papa } = worker;
  const names = Object.keys(tasks).filter((each) => typeof tasks[each] === "function");
  const chosen = name ?? (names.includes("default") ? "default" : names.length === 1 ? names[0] : undefined);
  const exported = names.length === 0 ? "it exports no function" : `it exports '${names.join("', '")}'`;
  if (chosen === undefined) {
    throw new TypeError(
      `Cannot run batch as the module '${module}' does not tell which function is the task: ${exported}` +
        (names.length === 0 ? "" : `; name one, as in '--task ${names[0]}'`),
    );
  }
  const task = tasks[chosen];
  if (typeof task !== "function") {
    throw new TypeError(`Cannot run batch as the module '${module}' does not export a function '${chosen}': ${exported}`);
  }
  if (/Generator/.test(Object.getPrototypeOf(task)?.constructor?.name)) {
    throw new TypeError(
      `Cannot run batch as the task '${chosen}' is a generator, whose values would not be written: return an array of them`,
    );
  }
  if (/^class[\s{/](?!\s*\()/.test(Function.prototype.toString.call(task))) {
    throw new TypeError(`Cannot run batch as the task '${chosen}' is a class, which cannot be called: export a function that uses it`);
  }
  const parseCsv = papa && ((text: string) => {
    const { data, errors } = papa.parse(text, { delimiter: options.delimiter, newline: "\n" });
    // If rows were cut differently from how the parser sees them, this is the only place to notice.
    return { fields: data[0] ?? [""], error: errors[0]?.message ?? (data.length > 1 ? `It is ${data.length} rows` : undefined) };
  });
  const evaluated = Object.entries(sources).map(([name, source]) => [name, (0, eval)(source)]);
  const { createRangeRunner, ...parts }: typeof RUNNER_PARTS = Object.fromEntries(evaluated);
  worker.runner = createRangeRunner({
    ...options,
    ...parts,
    task: task as (record: unknown) => unknown,
    ownAddress,
    bySource: module === undefined,
    parseCsv,
  });
}

/**
 * The task of the workers, as the pool sees it: runs one range after the other, where the next is already here when one ends. This function
 * is sent as text: it refers to nothing outside itself.
 */
export function runRange(lane: LaneMemory, piece: Piece, limits: RunnerLimits): Promise<RangeReply> {
  const worker = (globalThis as unknown as Record<symbol, BatchWorker>)[Symbol.for("process-pool.batch")]!;
  const reply = (worker.last ?? Promise.resolve()).then(() => worker.runner.run(lane, piece, limits));
  worker.last = reply.catch(() => {});
  return reply;
}

/** The finalizer of the workers. This function is sent as text: it refers to nothing outside itself. */
export function closeWorker(): void {
  (globalThis as unknown as Record<symbol, BatchWorker>)[Symbol.for("process-pool.batch")]!.runner.close();
}
