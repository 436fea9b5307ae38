/**
 * What sets the limits: how fast Deno itself iterates, what futures cost that are kept, how long workers take to start, what they need of
 * memory, and how long the module takes to load. Each figure is the median of some rounds, each in a fresh process.
 *
 * ```sh
 * deno run --allow-all bench/limits.ts [rounds] [words of the figures]
 * ```
 *
 * @module
 */

import type { Future, ProcessPoolOptions } from "@procpool/process-pool";
import { format, summarise } from "./compare/statistics.ts";

const CALLS = 100_000;
/** How many workers more: their memory is told from that of the program. */
const MORE = 8;
const BARE = `data:text/javascript,${encodeURIComponent("onmessage = ({ data }) => postMessage(data + 1)")}`;

const increment = (x: number) => x + 1;

/** Loads the module, which a process must not have done before it measures that. */
const load = () => import("@procpool/process-pool");

/** A worker, called by whatever means. */
interface Caller {
  call(x: number): Promise<unknown>;
  close(): unknown;
}

function bare(): Promise<Caller> {
  const worker = new Worker(BARE, { type: "module" });
  const waiting: ((event: MessageEvent) => void)[] = [];
  worker.onmessage = (event) => waiting.shift()!(event);
  return Promise.resolve({
    call(x: number) {
      worker.postMessage(x);
      return new Promise((resolve) => waiting.push(resolve));
    },
    close: () => worker.terminate(),
  });
}

async function pooled(options: ProcessPoolOptions): Promise<Caller> {
  const { ProcessPool } = await load();
  const pool = new ProcessPool({ maxWorkers: 1, idleTimeout: Infinity, ...options });
  return { call: (x) => pool.run(increment, x), close: () => pool.shutdown() };
}

async function millisecondsOf(action: () => unknown): Promise<number> {
  const begin = performance.now();
  await action();
  return performance.now() - begin;
}

/** How long it takes until a new worker has answered. */
async function start(open: () => Promise<Caller>): Promise<number> {
  await load();
  let caller: Caller | undefined;
  const milliseconds = await millisecondsOf(async () => {
    caller = await open();
    await caller.call(1);
  });
  await caller!.close();
  return milliseconds;
}

/** The memory of a worker after so many calls, in MB: what a program needs more with more of them. */
async function memory(open: () => Promise<Caller>, calls: number): Promise<number> {
  const callers: Caller[] = [];
  const add = async (calls: number) => {
    const caller = await open();
    callers.push(caller);
    await caller.call(1);
    for (let at = 0; at < calls; at += 1000) await Promise.all(Array.from({ length: 1000 }, (_, j) => caller.call(at + j)));
    return Deno.memoryUsage().rss;
  };
  // The first makes as many calls as the others together: what the calling thread needs for them is no part of a worker.
  const first = await add(MORE * calls);
  let last = first;
  for (let i = 0; i < MORE; i++) last = await add(calls);
  for (const caller of callers) await caller.close();
  return (last - first) / MORE / 1e6;
}

/** A million jobs, submitted one after another. */
async function futures(kept: number): Promise<number> {
  const { ProcessPool } = await load();
  await using pool = new ProcessPool({ maxWorkers: 2 });
  await pool.warmUp();
  const window = new Array<Future<number>>(kept);
  return await millisecondsOf(async () => {
    for (let i = 0; i < 1_000_000; i++) window[i % kept] = await pool.submit(increment, i);
    await Promise.all(window.map((future) => future.result()));
  }) / 1000;
}

async function* empty(count: number): AsyncGenerator<number> {
  for (let i = 0; i < count; i++) yield i;
}

async function iterated(): Promise<number> {
  const count = 5_000_000;
  let sum = 0;
  const milliseconds = await millisecondsOf(async () => {
    for await (const n of empty(count)) sum += n;
  });
  if (sum !== count * (count - 1) / 2) throw new Error(`Wrong sum: ${sum}`);
  return count / milliseconds * 1000;
}

const KILLABLE: ProcessPoolOptions = { backend: "killable" };
const FIGURES: Record<string, () => Promise<number>> = {
  "an empty async generator, items/s": iterated,
  "a million jobs, a thousand futures kept, s": () => futures(1000),
  "a million jobs, all futures kept, s": () => futures(1_000_000),
  "loading the module, ms": () => millisecondsOf(load),
  "first answer of a bare worker, ms": () => start(bare),
  "... of a pool, ms": () => start(() => pooled({})),
  "... of a killable pool, ms": () => start(() => pooled(KILLABLE)),
  "... of a killable pool with permissions, ms": () => start(() => pooled({ ...KILLABLE, permissions: "none" })),
  "a bare worker, idle, MB": () => memory(bare, 0),
  "a worker, idle, MB": () => memory(() => pooled({}), 0),
  "a killable one, idle, MB": () => memory(() => pooled(KILLABLE), 0),
  "a bare worker, after 100,000 calls, MB": () => memory(bare, CALLS),
  "a worker, after 100,000 calls, MB": () => memory(() => pooled({}), CALLS),
  "a killable one, after 100,000 calls, MB": () => memory(() => pooled(KILLABLE), CALLS),
};

async function measureInChild(name: string): Promise<number> {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--quiet", import.meta.filename!, "--figure", name],
    stdout: "piped",
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`Cannot measure "${name}" as its process failed`);
  return Number(new TextDecoder().decode(stdout));
}

const [option, words = ""] = Deno.args;
if (option === "--figure") {
  console.log(await FIGURES[words]!());
} else {
  const rounds = Number(option ?? 3);
  for (const name of Object.keys(FIGURES).filter((name) => name.includes(words))) {
    const values: number[] = [];
    for (let round = 0; round < rounds; round++) values.push(await measureInChild(name));
    const { median, min, max } = summarise(values);
    console.log(`${name.padEnd(44)} ${format(median).padStart(12)}   ${format(min)} to ${format(max)}`);
  }
}
