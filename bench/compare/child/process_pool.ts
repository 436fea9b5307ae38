import { Job, ProcessPool } from "../../../mod.ts";
import { asPool, type Pool } from "./pool.mjs";
import * as tasks from "./tasks.mjs";

const byName = tasks as unknown as Record<string, (arg: unknown) => unknown>;

/** The pool of this repository. Functions go by source; nothing but the number of workers and the backend is set. */
export function open({ workers, variant }: { workers: number; variant: string }): Promise<Pool> {
  const pool = new ProcessPool({ maxWorkers: workers, backend: variant === "killable" ? "killable" : "worker" });
  const all = asPool({
    call: (task, arg) => pool.run(byName[task]!, arg),
    async map(items, _chunk, each) {
      for await (const result of pool.map(tasks.increment, items)) each(result);
    },
    async mapTyped(items, chunk, each) {
      for await (const part of pool.map(tasks.incrementAll<Float64Array>, parts(items, chunk))) {
        for (let i = 0; i < part.length; i++) each(part[i]!);
      }
    },
    async mapRecords(items, _chunk, each) {
      for await (const outcome of pool.map(tasks.reprice, items, { settled: true })) each(outcome);
    },
    move: (buffer) => pool.run(new Job({ func: tasks.stampBuffer, args: [buffer], transfer: [buffer] })),
    close: () => pool.shutdown(),
  });
  return Promise.resolve(variant === "submit" ? { ...all, ...bySubmit(pool) } : all);
}

/** One by one through the gate, whose width is the default. */
function bySubmit(pool: ProcessPool): Pick<Pool, "calls" | "settle"> {
  async function submitAll(jobs: [task: string, arg: unknown][]): Promise<Promise<unknown>[]> {
    const results: Promise<unknown>[] = [];
    for (const [task, arg] of jobs) {
      const future = await pool.submit(byName[task]!, arg);
      const result = future.result();
      // It is looked at when all are submitted, which is too late for the platform.
      result.catch(() => {});
      results.push(result);
    }
    return results;
  }
  return {
    calls: async (task, args) => await Promise.all(await submitAll(args.map((arg) => [task, arg]))),
    settle: async (jobs) => await Promise.allSettled(await submitAll(jobs)),
  };
}

function* parts(items: Float64Array, size: number): Generator<Float64Array> {
  for (let at = 0; at < items.length; at += size) yield items.slice(at, at + size);
}
