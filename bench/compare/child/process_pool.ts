import { type Future, Job, type MapResults, ProcessPool } from "../../../mod.ts";
import { asPool, type Pool } from "./pool.mjs";
import * as tasks from "./tasks.mjs";

const byName = tasks as unknown as Record<string, (arg: unknown) => unknown>;

/** The pool of this repository. Functions go as source text; nothing but the number of workers and the backend is set. */
export function open({ workers, variant }: { workers: number; variant: string }): Promise<Pool> {
  const pool = new ProcessPool({ maxWorkers: workers, backend: variant === "killable" ? "killable" : "worker" });
  const all = asPool({
    call: (task, arg) => pool.run(byName[task]!, arg),
    async map(items, _chunk, each) {
      for await (const result of pool.map(tasks.increment, items)) each(result);
    },
    async mapTyped(items, _chunk, each) {
      await takeChunks(pool.map(tasks.increment, items), each);
    },
    async mapRecords(items, _chunk, each) {
      for await (const outcome of pool.map(tasks.reprice, items, { settled: true })) each(outcome);
    },
    move: (buffer) => pool.run(new Job({ func: stampAndMove, args: [buffer], transfer: [buffer] })),
    start: () => pool.warmUp(),
    close: () => pool.shutdown(),
  });
  const variants: Record<string, Partial<Pool>> = { submit: bySubmit(pool), chunks: byChunks(pool) };
  return Promise.resolve({ ...all, ...variants[variant] });
}

/** One by one through the gate, whose width is the default. */
function bySubmit(pool: ProcessPool): Pick<Pool, "calls" | "settle"> {
  async function submitAll<T>(jobs: T[], submit: (job: T) => Promise<Future<unknown>>): Promise<Promise<unknown>[]> {
    const futures: Future<unknown>[] = [];
    for (const job of jobs) futures.push(await submit(job));
    return futures.map((future) => future.result());
  }
  return {
    calls: async (task, args) => await Promise.all(await submitAll(args, (arg) => pool.submit(byName[task]!, arg))),
    settle: async (jobs) => await Promise.allSettled(await submitAll(jobs, ([task, arg]) => pool.submit(byName[task]!, arg))),
  };
}

/** Results are taken a chunk at a time, as those of chunks that are made by hand. */
function byChunks(pool: ProcessPool): Pick<Pool, "map" | "mapRecords"> {
  return {
    map: async (items, _chunk, each) => await takeChunks(pool.map(tasks.increment, items), each),
    mapRecords: async (items, _chunk, each) => await takeChunks(pool.map(tasks.reprice, items, { settled: true }), each),
  };
}

async function takeChunks<R>(results: MapResults<R>, each: (result: R) => void): Promise<void> {
  for await (const chunk of results.chunks()) {
    for (let i = 0; i < chunk.length; i++) each(chunk[i]!);
  }
}

/** As `stampBuffer`; what it returns is moved as well. */
function stampAndMove(buffer: ArrayBuffer): ArrayBuffer {
  const bytes = new Uint8Array(buffer);
  bytes[0] = (bytes[0] ?? 0) + 1;
  return { [Symbol.for("process-pool.move")]: [buffer], value: buffer } as unknown as ArrayBuffer;
}
