/**
 * Fixtures for the tests of batches: a folder of their own, and what its files contain.
 *
 * @module
 */

import { batch, type BatchOptions, type BatchSummary, type BatchTask } from "@procpool/process-pool/batch";
import { createExplainer } from "../batch/explainer.ts";
import { LAYOUT } from "../batch/lane.ts";
import { createRangeReader } from "../batch/range_reader.ts";
import { createRangeRunner, type RangeRunner, type RunnerParts } from "../batch/range_runner.ts";
import { rowEnd } from "../batch/rows.ts";
import { lackOf } from "../worker/lack.ts";
import { granted, within } from "./fixtures.ts";

/** The permissions that batches of files need. */
export const ignore: boolean = !granted("read") || !granted("write");
/** The same for the names of the tests. */
export const NEEDS = "(needs --allow-read and --allow-write)";

/** A folder that is removed at the end of the test. */
export class Folder implements Disposable {
  readonly path: string = Deno.makeTempDirSync();

  /** The path of a file in it. */
  of(name: string): string {
    return `${this.path}/${name}`;
  }

  write(name: string, content: string | Uint8Array): string {
    Deno.writeFileSync(this.of(name), typeof content === "string" ? new TextEncoder().encode(content) : content);
    return this.of(name);
  }

  read(name: string): string {
    return Deno.readTextFileSync(this.of(name));
  }

  /** The JSON values in a file, one per line. */
  // deno-lint-ignore no-explicit-any -- whatever is there
  json(name: string): any[] {
    return this.read(name).trimEnd().split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
  }

  /** The names of its files. */
  names(): string[] {
    return [...Deno.readDirSync(this.path)].map(({ name }) => name).sort();
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

/** A task that returns the record. */
export function same(x: unknown): unknown {
  return x;
}

/** The same, but it fails for every tenth record. */
export function tenth(x: number): number {
  if (x % 10 === 0) throw new Error("no");
  return x;
}

/** A batch of two workers that must not hang. */
export function run(task: BatchTask, options: BatchOptions): Promise<BatchSummary> {
  return within(batch(task, { workers: 2, ...options }));
}

/** Numbers from 0, one per line. */
export function numbers(count: number): string {
  return Array.from({ length: count }, (_, i) => `${i}\n`).join("");
}

/** Their doubles, with some exceptions. */
export function doubles(count: number, without: (x: number) => boolean = () => false): string {
  return Array.from({ length: count }, (_, i) => without(i) ? "" : `${2 * i}\n`).join("");
}

/** What runs the records of a range in this thread: lines, which are the results as well, unless other parts are given. */
export function runner(parts: Partial<RunnerParts>): RangeRunner {
  return createRangeRunner({
    layout: LAYOUT,
    inputFormat: "lines",
    outputFormat: "lines",
    retries: 0,
    heap: Infinity,
    task: (x) => x,
    ownAddress: undefined,
    bySource: false,
    createRangeReader,
    createExplainer,
    lackOf,
    delimiter: ",",
    parseCsv: undefined,
    rowEnd,
    isOther: () => Promise.resolve(false),
    sampleOf: () => Promise.resolve(""),
    ...parts,
  });
}
