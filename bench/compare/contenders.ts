/**
 * Who is compared: one entry each, with what it cannot do and why.
 *
 * @module
 */

import type { Drive, Workload } from "./workloads.ts";

export type Runtime = "deno" | "node" | "python";

export interface Contender {
  /** What `--pools` calls it. */
  name: string;
  /** What tables and charts call it. */
  title: string;
  runtime: Runtime;
  /** Ours, a baseline without a pool, or another pool. */
  kind: "ours" | "baseline" | "rival";
  /** In `child/`: a module with `open`, or a Python module with `Contender`. */
  file: string;
  variant: string;
  /** The npm package that it needs. */
  npm?: string;
  /** What it takes part in; undefined for all. A variant stays out of what it does as the contender without the variant. */
  only: readonly Drive[] | undefined;
  /** Why it has no figure for what it cannot do. */
  cannot: Partial<Record<Drive, string>>;
  /** What has to be known about a figure that it has. */
  notes: Partial<Record<Drive, string>>;
}

/**
 * The versions that are compared: the latest on npm, where poolifier-web-worker is behind the 0.6 on JSR, which the README describes. They
 * are installed outside of this repository, which depends on none of them.
 */
export const PACKAGES: Readonly<Record<string, string>> = {
  "piscina": "5.3.2",
  "poolifier": "5.3.2",
  "poolifier-web-worker": "0.5.15",
  "tinypool": "2.2.0",
  "workerpool": "10.0.3",
};

const BARE: Contender = {
  name: "bare",
  title: "bare workers",
  runtime: "deno",
  kind: "baseline",
  file: "bare.ts",
  variant: "",
  only: undefined,
  cannot: {},
  notes: {},
};
const OURS: Contender = { ...BARE, name: "process-pool", title: "process-pool", kind: "ours", file: "process_pool.ts" };

const COPIES_RESULTS: Contender["notes"] = { move: "arguments are moved, results are copied" };
const PYTHON: Contender["cannot"] = { move: "Python moves nothing", mapTyped: "Python has no arithmetic on packed arrays" };
const FUTURES: Contender = {
  ...BARE,
  name: "futures",
  title: "concurrent.futures",
  runtime: "python",
  kind: "rival",
  file: "executor",
  cannot: PYTHON,
};
const MULTIPROCESSING: Contender = { ...FUTURES, name: "multiprocessing", title: "multiprocessing", file: "processes" };
/** Batches of 100 that are made by hand. */
const BATCH = { variant: "batch", notes: { calls: "100 jobs a message, made by hand", mixed: "100 jobs a message, made by hand" } };

export const CONTENDERS: readonly Contender[] = [
  OURS,
  { ...OURS, name: "process-pool/submit", title: "process-pool, submit", variant: "submit", only: ["calls", "mixed"] },
  { ...OURS, name: "process-pool/chunks", title: "process-pool, chunks()", variant: "chunks", only: ["map", "mixedMap"] },
  { ...OURS, name: "process-pool/killable", title: "process-pool, killable", variant: "killable" },
  { ...BARE },
  { ...BARE, ...BATCH, name: "bare/batch", title: "bare workers, by 100", only: ["calls", "mixed"] },
  rival("piscina", "deno", "piscina"),
  { ...rival("tinypool", "deno", "tinypool"), title: "tinypool, no Atomics" },
  rival("workerpool", "deno", "workerpool"),
  { ...rival("poolifier", "deno", "poolifier-web-worker"), notes: COPIES_RESULTS },
  rival("piscina", "node", "piscina"),
  rival("tinypool", "node", "tinypool"),
  rival("workerpool", "node", "workerpool"),
  { ...rival("poolifier", "node", "poolifier"), notes: COPIES_RESULTS },
  { ...FUTURES },
  { ...FUTURES, ...BATCH, name: "futures/batch", title: "concurrent.futures, by 100", only: ["calls"] },
  { ...MULTIPROCESSING },
  { ...MULTIPROCESSING, ...BATCH, name: "multiprocessing/batch", title: "multiprocessing, by 100", only: ["calls"] },
];

/** Whether a table shows it, be it with a dash. */
export function takesPart({ only }: Contender, { drive }: Workload): boolean {
  return only === undefined || only.includes(drive);
}

function rival(file: string, runtime: "deno" | "node", npm: string): Contender {
  return { ...BARE, name: runtime === "deno" ? file : `${file}@node`, title: npm, runtime, kind: "rival", file: `${file}.mjs`, npm };
}
