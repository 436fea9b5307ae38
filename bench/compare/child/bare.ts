import { asPool, type Pool } from "./pool.mjs";

/** Jobs of one task, or of several as pairs, that travel in one message. */
type Request = [id: number, task: string, args: unknown[], move: boolean];
type Reply = [id: number, outcomes: PromiseSettledResult<unknown>[] | undefined, results: unknown[] | undefined];

/** Jobs a message, for who makes batches by hand. */
const BATCH = 100;

/** Web Workers and postMessage, without a pool: each worker in turn gets a message, and nobody looks who is busy. */
export function open({ workers, variant }: { workers: number; variant: string }): Promise<Pool> {
  let nextId = 0;
  const waiting = new Map<number, (reply: Reply) => void>();
  const crew = Array.from({ length: workers }, () => {
    const worker = new Worker(new URL("./bare_worker.mjs", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      waiting.get(data[0])!(data);
      waiting.delete(data[0]);
    };
    return worker;
  });

  function post(task: string, args: unknown[], transfer: Transferable[] = []): Promise<Reply> {
    const id = nextId++;
    const request: Request = [id, task, args, transfer.length > 0];
    return new Promise((resolve) => {
      waiting.set(id, resolve);
      crew[id % workers]!.postMessage(request, transfer);
    });
  }

  async function one(task: string, arg: unknown, transfer?: Transferable[]): Promise<unknown> {
    const [, outcomes, results] = await post(task, [arg], transfer);
    if (results !== undefined) return results[0];
    const [outcome] = outcomes!;
    if (outcome!.status === "rejected") throw outcome!.reason;
    return outcome!.value;
  }

  const all = asPool({
    call: one,
    move: (buffer) => one("stampBuffer", buffer, [buffer]) as Promise<ArrayBuffer>,
    close: () => {
      for (const worker of crew) worker.terminate();
      return Promise.resolve();
    },
  });
  if (variant !== "batch") return Promise.resolve(all);
  return Promise.resolve({
    ...all,
    calls: async (task, args) => (await Promise.all(batches(args).map((batch) => post(task, batch)))).flatMap(([, , results]) => results!),
    settle: async (jobs) => (await Promise.all(batches(jobs).map((batch) => post("", batch)))).flatMap(([, outcomes]) => outcomes!),
  });
}

function batches<T>(items: T[]): T[][] {
  return Array.from({ length: Math.ceil(items.length / BATCH) }, (_, i) => items.slice(i * BATCH, (i + 1) * BATCH));
}
