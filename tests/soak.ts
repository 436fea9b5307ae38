/**
 * Hours of use in minutes: random jobs, among them the faults of the failure matrix, on pools of all kinds of workers at once, cancelled,
 * aborted, timed out and retried at random; pools are shut down, terminated and replaced at random. Each job must settle exactly once, in a
 * way that is right for it; none may be lost, or run more often than its retries allow; in the end memory and threads must be back where
 * they were after the warm-up, except for what Deno keeps of each worker.
 *
 * ```sh
 * deno task soak --minutes 3 --seed 1
 * ```
 *
 * A seed determines what is submitted, not how threads are scheduled.
 *
 * @module
 */

import {
  type Future,
  Job,
  JobCancelledError,
  JobTimeoutError,
  MemoryLimitError,
  PoolClosedError,
  ProcessPool,
  type ProcessPoolOptions,
  WorkerDiedError,
} from "@procpool/process-pool";
import { parseArgs } from "@std/cli/parse-args";
import { internalsOf } from "../pool.ts";
import { seeded } from "./helpers.ts";

/** The kinds of pools. */
const POOLS = {
  "worker": { backend: "worker" },
  "killable": { backend: "killable", memoryLimit: 64 },
  "killable with permissions": { backend: "killable", memoryLimit: 64, permissions: "none" },
} as const satisfies Record<string, ProcessPoolOptions>;

type PoolKind = keyof typeof POOLS;

/** What a job may do, and whether pools of Web Workers, which cannot stop a busy worker, are given it as well. */
const KINDS = {
  computes: { weight: 400, onWorker: true },
  waits: { weight: 100, onWorker: true },
  throws: { weight: 60, onWorker: true },
  rejects: { weight: 60, onWorker: true },
  "is thenable": { weight: 20, onWorker: true },
  "throws a text": { weight: 20, onWorker: true },
  exits: { weight: 20, onWorker: true },
  closes: { weight: 20, onWorker: true },
  "throws in a timer": { weight: 20, onWorker: true },
  "returns the uncloneable": { weight: 20, onWorker: true },
  "takes the uncloneable": { weight: 20, onWorker: true },
  carries: { weight: 60, onWorker: true },
  moves: { weight: 60, onWorker: true },
  floods: { weight: 5, onWorker: true },
  "never settles": { weight: 15, onWorker: true },
  loops: { weight: 15, onWorker: false },
  "loops in microtasks": { weight: 10, onWorker: false },
  "waits in memory": { weight: 10, onWorker: false },
  "fills the heap": { weight: 3, onWorker: false },
} as const;

type Kind = keyof typeof KINDS;

/** The time limit of a job that would never end by itself, in ms. */
const SHORT = 100;

/** The time limit of any other job, in ms: a busy machine must not make it fail. */
const LONG = 60_000;

/** How long the calling thread is busy with something else now and then, in ms: longer than jobs may run. */
const HELD_UP = 200;

/** How many jobs of a pool may be admitted. */
const QUEUE_SIZE = 1000;

/** How many jobs a pool gets before it is ended. */
const JOBS_PER_POOL = 1500;

const { minutes, seed } = readArguments();
console.log(`seed ${seed}, ${minutes} minutes`);

const poolKinds = Object.keys(POOLS) as PoolKind[];
/** Each kind of pool has its own random numbers, so that none depends on how fast the others are. */
const randoms = poolKinds.map((_, i) => seeded(seed + i));
/** How many workers have been started. */
const starts = new Int32Array(new SharedArrayBuffer(4));
const violations: string[] = [];
const tally = new Map<string, number>();

/** A self-contained task. It counts its runs, in memory that the soak shares. */
function soakTask(kind: string, x: number, bytes: Uint8Array<ArrayBuffer>): unknown {
  Atomics.add((globalThis as unknown as { soakRuns: Int32Array }).soakRuns, x, 1);
  switch (kind) {
    case "computes": {
      let sum = 0;
      for (let i = 0; i < 2000; i++) sum += (i * x) % 7;
      return sum < 0 ? sum : x * 2;
    }
    case "waits":
      return new Promise((resolve) => setTimeout(() => resolve(x * 2), x % 5));
    case "throws":
      throw new RangeError("deed");
    case "rejects":
      return Promise.reject(new RangeError("deed"));
    case "is thenable":
      return { then: (resolve: (value: unknown) => void) => resolve(Promise.resolve(x * 2)) };
    case "throws a text":
      throw "deed";
    case "exits":
      return Deno.exit(3);
    case "closes":
      return (globalThis as unknown as { close(): void }).close();
    case "throws in a timer":
      setTimeout(() => {
        throw new RangeError("deed");
      });
      return new Promise(() => {});
    case "returns the uncloneable":
      return () => 1;
    case "takes the uncloneable":
      return "ran";
    case "carries":
    case "moves": {
      if (bytes.some((byte) => byte !== x % 256)) throw new Error(`Bytes of ${x} are ${bytes}`);
      if (kind === "carries") return new Uint8Array(bytes.length).fill((x + 1) % 256);
      bytes.fill((x + 1) % 256);
      return { [Symbol.for("process-pool.move")]: [bytes.buffer], value: bytes };
    }
    case "floods":
      for (let i = 0; i < 2000; i++) (globalThis as unknown as Worker).postMessage({ type: "returned", run: i, value: "forged" });
      return x * 2;
    case "never settles":
      return new Promise(() => {});
    case "loops":
      for (;;);
    case "loops in microtasks":
      return (async () => {
        for (;;) await 1;
      })();
    case "waits in memory":
      return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    case "fills the heap": {
      const kept: unknown[] = [];
      for (;;) kept.push({ values: [kept.length, 1, 2, 3] });
    }
  }
  throw new Error(`There is no kind ${kind}`);
}

/** The sizes of the buffers that some jobs have, in bytes: some go through shared memory in one way or another, some do not. */
const SIZES = [10, 900, 5000, 70_000, 400_000];

/** A job and what is done to it. */
interface Trial {
  kind: Kind;
  x: number;
  /** How often each job of its pool has run, by `x`. */
  runs: Int32Array;
  retries: number;
  interference: "none" | "cancel" | "force" | "abort";
  /** Whether the pool may run others in the same worker, which may end this one with them. */
  shared: boolean;
  /** Whether its pool was terminated. */
  terminated: { yes: boolean };
  settled: number;
}

type Random = () => number;

function pick<T>(random: Random, items: readonly T[]): T {
  return items[Math.floor(random() * items.length)]!;
}

function pickKind(random: Random, killable: boolean): Kind {
  const kinds = Object.entries(KINDS).filter(([, { onWorker }]) => killable || onWorker);
  let at = random() * kinds.reduce((sum, [, { weight }]) => sum + weight, 0);
  return kinds.find(([, { weight }]) => (at -= weight) < 0)![0] as Kind;
}

/** An initializer. The counters are not among the arguments of the tasks, which would then have to go as messages. */
function countStart(starts: Int32Array, runs: Int32Array): void {
  Atomics.add(starts, 0, 1);
  (globalThis as unknown as { soakRuns: Int32Array }).soakRuns = runs;
}

/** Runs one pool after another until the time is over. */
async function soak(poolKind: PoolKind, random: Random, end: number): Promise<void> {
  const killable = POOLS[poolKind].backend === "killable";
  while (performance.now() < end) {
    const shared = random() < 0.3;
    const terminated = { yes: false };
    const retries = pick(random, [0, 0, 1]);
    const runs = new Int32Array(new SharedArrayBuffer(4 * JOBS_PER_POOL));
    const options: ProcessPoolOptions = {
      ...POOLS[poolKind],
      maxWorkers: pick(random, [1, 2, 3]),
      queueSize: QUEUE_SIZE,
      jobsPerWorker: shared ? 3 : 1,
      maxJobsPerWorker: pick(random, [Infinity, 50, 7]),
      initializer: countStart,
      initArgs: [starts, runs],
      retries,
      // Errors of idle workers come from an earlier task; nothing has to be done about them.
      onError: () => {},
    };
    const pool = new ProcessPool(options);
    const trials: Promise<void>[] = [];
    for (let i = 0; i < JOBS_PER_POOL && performance.now() < end; i++) {
      const trial: Trial = {
        kind: pickKind(random, killable),
        x: i,
        runs,
        retries,
        interference: random() < 0.9 ? "none" : pick(random, ["cancel", "force", "abort"]),
        shared,
        terminated,
        settled: 0,
      };
      trials.push((await start(pool, trial, random() * 20)).judged);
      if (random() < 0.01) await mapSome(pool, { shared, retries, random });
      if (random() < 0.01) await callMany(pool, { shared, random });
      if (random() < 0.01) holdUp(random() * HELD_UP);
    }
    const how = pick(random, ["shutdown", "shutdown", "terminate", "cancelPending"]);
    if (how === "terminate") {
      terminated.yes = true;
      await pool.terminate(new Error("soak"));
    } else {
      terminated.yes = how === "cancelPending";
      await pool.shutdown({ cancelPending: how === "cancelPending" });
    }
    await Promise.all(trials);
    const { workers, queued, running } = pool.stats();
    if (workers + queued + running > 0) violations.push(`a pool was left with ${JSON.stringify(pool.stats())}`);
    const { available } = internalsOf(pool).gate;
    if (available !== QUEUE_SIZE) violations.push(`a pool was left with ${available} permits of ${QUEUE_SIZE}`);
    while (pool.stats().unstoppable > 0) await pause(1);
    count(`pool ${poolKind}, ${how}`);
  }
}

/** Submits a job and interferes with it after so many ms; `judged` resolves when it has settled and was judged. */
async function start(pool: ProcessPool, trial: Trial, delay: number): Promise<{ judged: Promise<void> }> {
  const { kind, x, retries, interference } = trial;
  const endless = kind === "never settles" || kind === "waits in memory" || kind.startsWith("loops");
  const controller = new AbortController();
  const bytes = kind === "carries" || kind === "moves" ? new Uint8Array(SIZES[x % SIZES.length]!).fill(x % 256) : undefined;
  const args = kind === "takes the uncloneable" ? [kind, x, () => 1] : [kind, x, bytes];
  const future = await pool.submit(
    new Job({
      func: soakTask as (...args: unknown[]) => unknown,
      args,
      // Arguments that are moved cannot be run again.
      transfer: kind === "moves" && retries === 0 ? [bytes!.buffer] : [],
      timeout: endless ? SHORT : LONG,
      signal: interference === "abort" ? controller.signal : undefined,
      onDone: () => void trial.settled++,
    }),
  );
  async function interfere(): Promise<boolean> {
    if (interference === "none") return false;
    await pause(delay);
    if (interference !== "abort") return future.cancel({ force: interference === "force" });
    const wasDone = future.done();
    controller.abort(new Error("aborted"));
    if (!future.done()) violations.push(`job ${future.id} was aborted and is ${future.state}`);
    // Its answer may already have been there, unread.
    return !wasDone && future.cancelled();
  }
  return { judged: judge(future, trial, interfere()) };
}

async function judge(future: Future<unknown>, trial: Trial, interfered: Promise<boolean>): Promise<void> {
  const error = await future.exception();
  const result = error === undefined ? await future.result() : undefined;
  const cancelled = await interfered;
  const { kind, x, retries, shared, terminated } = trial;
  const runs = Atomics.load(trial.runs, x);
  const seen = error === undefined ? "finished" : (error as Error).name;
  count(`${kind}: ${seen}`);

  function violated(what: string): void {
    violations.push(
      `${kind} (job ${future.id}, ${JSON.stringify({ ...trial, runs })}): ${what}; it ended with ${seen}: ${error ?? result}`,
    );
  }
  if (trial.settled !== 1) violated(`it settled ${trial.settled} times`);
  if (runs > 1 + retries) violated(`it ran ${runs} times`);
  if (cancelled) {
    if (future.state !== "cancelled") violated(`it was cancelled and is ${future.state}`);
    return;
  }
  if (terminated.yes && (error instanceof PoolClosedError || error instanceof JobCancelledError)) return;
  // A neighbour took the worker with it.
  const fellWithOther = shared && (error instanceof WorkerDiedError || error instanceof MemoryLimitError);
  // What is actually moved is lost with its worker.
  const isLost = kind === "moves" && retries === 0 && fellWithOther;
  if (kind !== "takes the uncloneable" && !isLost && runs === 0) violated("it never ran");
  if (fellWithOther) return;
  if (error === undefined && runs > 1 && !shared) violated("it finished and was run again");
  const hasBytes = (): boolean =>
    result instanceof Uint8Array && result.length === SIZES[x % SIZES.length] && result.every((byte) => byte === (x + 1) % 256);
  const right: Record<Kind, () => boolean> = {
    carries: hasBytes,
    moves: hasBytes,
    computes: () => result === x * 2,
    waits: () => result === x * 2,
    floods: () => result === x * 2,
    throws: () => error instanceof RangeError,
    rejects: () => error instanceof RangeError,
    "is thenable": () => result === x * 2,
    "throws a text": () => error === "deed",
    exits: () => error instanceof WorkerDiedError && error.exitCode === 3 && runs === retries + 1,
    closes: () => error instanceof WorkerDiedError && runs === retries + 1,
    "throws in a timer": () => error instanceof WorkerDiedError && runs === retries + 1,
    "returns the uncloneable": () => seen === "DataCloneError",
    "takes the uncloneable": () => seen === "DataCloneError" && runs === 0,
    "never settles": () => error instanceof JobTimeoutError,
    loops: () => error instanceof JobTimeoutError,
    "loops in microtasks": () => error instanceof JobTimeoutError,
    "waits in memory": () => error instanceof JobTimeoutError,
    "fills the heap": () => error instanceof MemoryLimitError,
  };
  if (!right[kind]()) violated("that is not right");
}

/** A map whose items may take their worker with them. */
async function mapSome(
  pool: ProcessPool,
  { shared, retries, random }: { shared: boolean; retries: number; random: Random },
): Promise<void> {
  const size = 50;
  const runs = new Int32Array(new SharedArrayBuffer(size * 4));
  const items = Array.from({ length: size }, (_, x) => ({ x, runs, deed: random() < 0.95 ? "none" : pick(random, ["exits", "throws"]) }));
  function task({ x, runs, deed }: { x: number; runs: Int32Array; deed: string }): number {
    Atomics.add(runs, x, 1);
    if (deed === "exits") Deno.exit(3);
    if (deed === "throws") throw new RangeError("deed");
    return x * 2;
  }
  const outcomes = await Array.fromAsync(pool.map(task, items, { settled: true, chunkSize: pick(random, [1, 7, 50]), timeout: LONG }));
  for (const [x, outcome] of outcomes.entries()) {
    const { deed } = items[x]!;
    const ran = runs[x]!;
    const { status } = outcome;
    count(`map item, ${deed}: ${status === "fulfilled" ? status : (outcome.reason as Error).name}`);
    const lost = status === "rejected" && outcome.reason instanceof WorkerDiedError;
    const right = status === "fulfilled"
      ? deed === "none" && outcome.value === x * 2
      : lost
      ? deed === "exits" || shared
      : deed === "throws";
    if (!right || ran < 1 || ran > 1 + retries || (deed !== "exits" && !shared && ran > 1)) {
      violations.push(`item ${x} of a map (${deed}, shared ${shared}, retries ${retries}) ran ${ran} times: ${JSON.stringify(outcome)}`);
    }
  }
  if (outcomes.length !== size) violations.push(`a map of ${size} items gave ${outcomes.length}`);
}

/** Many calls in one turn, some of which throw, or take their worker with them. */
async function callMany(pool: ProcessPool, { shared, random }: { shared: boolean; random: Random }): Promise<void> {
  const deeds = Array.from({ length: pick(random, [30, 1000, 5000]) }, () => {
    const chosen = random();
    return chosen < 0.001 ? "exits" : chosen < 0.01 ? "throws" : "none";
  });
  function task(x: number, deed: string): number {
    if (deed === "exits") Deno.exit(3);
    if (deed === "throws") throw new RangeError("deed");
    return x * 2;
  }
  const outcomes = await Promise.allSettled(deeds.map((deed, x) => pool.run(task, x, deed)));
  for (const [x, outcome] of outcomes.entries()) {
    const deed = deeds[x]!;
    const { status } = outcome;
    count(`call, ${deed}: ${status === "fulfilled" ? status : (outcome.reason as Error).name}`);
    const right = status === "fulfilled"
      ? deed === "none" && outcome.value === x * 2
      : outcome.reason instanceof WorkerDiedError
      ? deed === "exits" || shared
      : deed === "throws" && outcome.reason instanceof RangeError;
    if (!right) {
      violations.push(`call ${x} of many (${deed}, shared ${shared}): ${status === "fulfilled" ? outcome.value : outcome.reason}`);
    }
  }
}

function count(what: string): void {
  tally.set(what, (tally.get(what) ?? 0) + 1);
}

/** Meanwhile the calling thread receives nothing. */
function holdUp(time: number): void {
  const end = performance.now() + time;
  while (performance.now() < end);
}

function pause(delay: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delay));
}

/** What the program uses; memory in MB. */
interface Held {
  rss: number;
  /** The heap that the JavaScript of this thread uses. */
  heap: number;
  threads: number;
  starts: number;
}

function look(): Held {
  const { rss, heapUsed } = Deno.memoryUsage();
  const [, threads] = /^Threads:\s+(\d+)/m.exec(Deno.readTextFileSync("/proc/self/status"))!;
  return {
    rss: Math.round(rss / 2 ** 20),
    heap: Math.round(heapUsed / 2 ** 20),
    threads: Number(threads),
    starts: Atomics.load(starts, 0),
  };
}

/** V8 keeps the pages of freed heaps, 100 MB and more, for the next ones. If they are not needed for this many ms, they are given back. */
const GIVES_BACK = 20_000;

/** What the program uses once nothing runs and everything that can be freed has been freed. */
async function lookAtRest(): Promise<Held> {
  for (let i = 0; i < 4; i++) {
    await pause(GIVES_BACK / 4);
    (globalThis as { gc?: () => void }).gc?.();
  }
  return look();
}

function tell(when: string, { rss, heap, threads, starts }: Held): void {
  console.log(`${when}: ${rss} MB (${heap} MB of JavaScript), ${threads} threads, ${starts} workers started`);
}

function readArguments(): { minutes: number; seed: number } {
  const { minutes, seed } = parseArgs(Deno.args, { string: ["minutes", "seed"] });
  return { minutes: Number(minutes ?? 3), seed: Number(seed ?? Math.floor(Math.random() * 2 ** 31)) };
}

async function soakFor(ms: number): Promise<void> {
  const end = performance.now() + ms;
  await Promise.all(poolKinds.map((kind, i) => soak(kind, randoms[i]!, end)));
}

/**
 * How much more the program may use at rest than after the warm-up, memory in MB: a worker that was left behind is 9, and a thread. The
 * task `soak` makes glibc give back freed buffers: otherwise it sometimes keeps 100 MB of them.
 */
const MORE = { rss: 20, heap: 5, threads: 1 };

/** What Deno 2.9 keeps of each worker, in MB: 7 KB were measured here, and 11 if workers only start and end. */
const KEPT = 11 / 1024;

/** How often the program prints what it uses, in ms. */
const TELL = 30_000;

const begin = performance.now();
const teller = setInterval(() => tell(`${Math.round((performance.now() - begin) / 1000)} s`, look()), TELL);
const total = minutes * 60_000;
// Long enough for every kind of job to have occurred.
const warmUp = Math.min(30_000, total / 3);
await soakFor(warmUp);
const before = await lookAtRest();
tell("after the warm-up", before);
await soakFor(total - warmUp);
const after = await lookAtRest();
clearInterval(teller);
tell("in the end", after);
for (const [what, times] of [...tally].sort()) console.log(`${String(times).padStart(8)}  ${what}`);
const kept = Math.round((after.starts - before.starts) * KEPT);
const most = { rss: before.rss + MORE.rss + kept, heap: before.heap + MORE.heap, threads: before.threads + MORE.threads };
for (const what of ["rss", "heap", "threads"] as const) {
  if (after[what] > most[what]) violations.push(`${what} grew from ${before[what]} to ${after[what]}: ${most[what]} would be right`);
}
for (const violation of violations.slice(0, 20)) console.error(violation);
console.log(violations.length === 0 ? "All jobs were accounted for." : `${violations.length} violations with seed ${seed}`);
if (violations.length > 0) Deno.exitCode = 1;
