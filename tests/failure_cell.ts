/**
 * Tries a cell of the failure matrix. Run as a program, it tries a cell that would harm the process, and prints what it saw.
 *
 * @module
 */

import { type Future, Job, JobTimeoutError, MemoryLimitError, PoolBrokenError, ProcessPool, WorkerDiedError } from "@procpool/process-pool";
import { type Cell, cells, type Deed, DEEDS, harmsProgram, type Kind, KINDS, type Outcome, type Stage } from "./failure_matrix.ts";
import { moduleOf, within } from "./fixtures.ts";

/** The time limit of a job that is expected to exceed it, in ms. */
const JOB_TIMEOUT = 200;

/**
 * The time limit for starting and for closing of a worker that is expected to exceed it, in ms: long enough to reach its deed on a busy
 * machine.
 */
function startTimeout(kind: Kind, stage: Stage): number {
  return stage === "finalizer" || kind === "killable with permissions" ? 3000 : 1000;
}

/** The time limit of any other job, start or close, in ms. */
const ENDS_WITHIN = 30_000;

/** The source of a module that does the deed at this stage, after announcing it on a channel of this name. */
function sourceOf(deed: Deed, stage: Stage, channel: string): string {
  const { source, synchronous, returning = source } = deed;
  const does = (when: Stage, what: string | undefined) => when === stage ? `begin(); ${what}` : "";
  return `
    function begin() {
      const channel = new BroadcastChannel(${JSON.stringify(channel)});
      channel.postMessage("begun");
      channel.close();
    }
    ${does("loading", source)}
    export function good(x) { return x + 1; }
    export async function initializer() { ${does("initializer", source)} }
    export async function finalizer() { ${does("finalizer", source)} }
    export async function running() { ${does("running", returning)} return 1; }
    export function replying() { return { get value() { ${does("replying", synchronous)} return 1; } }; }
    export function idle() {
      setTimeout(async () => { ${does("idle", source)} });
    }
  `;
}

/**
 * Does the deed at its stage in a new pool, gives the pool another job and shuts it down. Returns the outcome in the words of the matrix.
 */
export async function tryCell({ kind, stage, deed, expected }: Cell): Promise<Outcome | string> {
  const channel = new BroadcastChannel(crypto.randomUUID());
  const begun = new Promise((resolve) => channel.onmessage = resolve);
  const module = moduleOf(sourceOf(DEEDS[deed], stage, channel.name));
  const reported: unknown[] = [];
  const inTime = expected.includes("in time");
  const pool = new ProcessPool({
    ...KINDS[kind],
    maxWorkers: 1,
    modules: [module],
    jobTimeout: expected.startsWith("JobTimeoutError") ? JOB_TIMEOUT : ENDS_WITHIN,
    startTimeout: inTime ? startTimeout(kind, stage) : ENDS_WITHIN,
    memoryLimit: KINDS[kind].backend === "killable" && deed === "fills the heap" ? 32 : undefined,
    initializer: stage === "initializer" ? { module, name: stage } : undefined,
    finalizer: stage === "finalizer" ? { module, name: stage } : undefined,
    onError: (error) => reported.push(error),
  });

  let culprit: Future<unknown> | undefined;
  if (stage === "running" || stage === "replying") culprit = await pool.submit({ module, name: stage });
  if (culprit !== undefined && expected.startsWith("reported")) {
    // It replies, and only then hangs its worker, which may have taken a job that comes at once from its port just before.
    await within(culprit.exception());
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  if (stage === "idle") {
    await within(pool.run(new Job({ func: { module, name: stage }, timeout: ENDS_WITHIN })));
    await within(begun);
  }
  const good = await pool.submit({ module, name: "good" }, 1);
  if (stage === "finalizer") await within(good.exception());
  // The time that a worker takes to start does not count.
  if (stage === "loading" || stage === "initializer") await within(begun);

  await within(pool.shutdown({ timeout: ENDS_WITHIN }));
  channel.close();

  const outcomes = [
    culprit === undefined ? undefined : describe(await within(culprit.exception())),
    await describeGood(good),
    reported.length > 0 ? describeReports(stage, reported) : undefined,
  ];
  const seen = outcomes.filter((outcome) => outcome !== undefined && outcome !== "no harm");
  const outcome = new Set(seen).size === 0 ? "no harm" : [...new Set(seen)].join(" and ");
  // Nothing on this thread keeps the program alive for a promise that never settles.
  return kind !== "inline" && await within(burns(pool, expected)) ? `${outcome}, burns a core` : outcome;
}

function describe(error: unknown): Outcome | string {
  if (error === undefined) return "no harm";
  for (const type of [WorkerDiedError, JobTimeoutError, MemoryLimitError]) if (error instanceof type) return type.name;
  const { name, message } = error as Error;
  if ((name === "RangeError" && message === "deed") || name === "DataCloneError") return "its error";
  return error instanceof PoolBrokenError ? inTime("pool breaks", error) : String(error);
}

async function describeGood(good: Future<unknown>): Promise<Outcome | string | undefined> {
  const error = await within(good.exception());
  if (error !== undefined) return describe(error);
  const result = await good.result();
  return result === 2 ? undefined : `a job that returns 2 returned ${result}`;
}

function describeReports(stage: Stage, reported: unknown[]): Outcome | string | undefined {
  // A pool that breaks lets its jobs know.
  if (stage === "loading" || stage === "initializer") return undefined;
  if (reported.length !== 1) return `${reported.length} reports`;
  return stage === "finalizer" ? inTime("reported", reported[0]) : "reported, replaced";
}

function inTime(outcome: string, error: unknown): string {
  return (error as Error).message.includes("'startTimeout'") ? `${outcome} in time` : outcome;
}

/**
 * Resolves with whether the rest of the pool uses a core while this thread only waits; if nothing should be left, once nothing is. In that
 * case other cells may be running in this process, which use the processors as well.
 */
async function burns(pool: ProcessPool, expected: Outcome): Promise<boolean> {
  const enough = expected.endsWith("burns a core") ? 300 : ENDS_WITHIN;
  const before = processorTime();
  while (pool.stats().unstoppable > 0) {
    if (processorTime() - before > enough) return true;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return false;
}

/** How much processor time the program has used so far, in ms. */
function processorTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

declare const process: { cpuUsage(): { user: number; system: number } };

if (import.meta.main) {
  const [kind, stage, deed] = Deno.args;
  const all = cells(kind as Kind);
  if (deed === undefined) {
    // Several at a time, each deed once for each outcome, and full heaps only once, so that it takes less time than the matrix, which has
    // already checked the outcome of each.
    const harmless = all.filter((cell) => !harmsProgram(cell))
      .filter(({ deed, stage }) => deed !== "fills the heap" || stage === "running");
    const some = Map.groupBy(harmless, ({ deed, expected }) => `${deed}: ${expected}`).values().map(([cell]) => cell!);
    await Promise.all(Array.from({ length: 6 }, async () => {
      for (const cell of some) await tryCell(cell);
    }));
    console.log("tried each");
  } else {
    const cell = all.find((cell) => cell.stage === stage && cell.deed === deed)!;
    console.log("tries");
    console.log(await tryCell(cell));
    // Nothing else would end the process.
    if (cell.expected.endsWith("burns a core")) Deno.exit(0);
  }
}
