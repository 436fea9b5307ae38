/**
 * Who is compared: one entry each, with what it cannot do and why.
 *
 * @module
 */

import { type Drive, type Workload, WORKLOADS } from "./workloads.ts";

export type Runtime = "deno" | "node" | "python";

export interface Contender {
  /** What `--pools` calls it. */
  name: string;
  /** What tables and charts call it. */
  title: string;
  runtime: Runtime;
  /** Ours, a baseline without a pool, or another pool. */
  kind: "ours" | "baseline" | "rival";
  /** In `child/`: a module with `open`, or a Python module with `Session`. */
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

/** The versions that are compared. They are installed outside of this repository, which depends on none of them. */
export const PACKAGES: Readonly<Record<string, string>> = {
  "piscina": "5.3.2",
  "poolifier": "5.3.2",
  "poolifier-web-worker": "0.5.15",
  "tinypool": "2.2.0",
  "workerpool": "10.0.3",
};

const COPIES_RESULTS = "arguments are moved, results are copied";
const PYTHON: Contender["cannot"] = {
  move: "Python moves nothing",
  mapTyped: "Python has no arithmetic on packed arrays",
};

export const CONTENDERS: readonly Contender[] = [
  { ...ours("process-pool", ""), notes: { move: COPIES_RESULTS } },
  { ...ours("process-pool/submit", "submit"), title: "process-pool, submit", only: ["calls", "mixed"] },
  { ...ours("process-pool/killable", "killable"), title: "process-pool, killable", notes: { move: COPIES_RESULTS } },
  contender("bare", "bare workers", "deno", "bare.ts", { kind: "baseline" }),
  contender("bare/batch", "bare workers, 100 jobs a message", "deno", "bare.ts", {
    kind: "baseline",
    variant: "batch",
    only: ["calls", "mixed"],
  }),
  contender("piscina", "piscina", "deno", "piscina.mjs", { npm: "piscina" }),
  contender("tinypool", "tinypool", "deno", "tinypool.mjs", {
    npm: "tinypool",
    notes: everywhere("without its Atomics, with which it hangs on Deno"),
  }),
  contender("workerpool", "workerpool", "deno", "workerpool.mjs", { npm: "workerpool" }),
  contender("poolifier", "poolifier-web-worker", "deno", "poolifier.mjs", { npm: "poolifier-web-worker", notes: { move: COPIES_RESULTS } }),
  contender("piscina@node", "piscina", "node", "piscina.mjs", { npm: "piscina" }),
  contender("tinypool@node", "tinypool", "node", "tinypool.mjs", { npm: "tinypool" }),
  contender("workerpool@node", "workerpool", "node", "workerpool.mjs", { npm: "workerpool" }),
  contender("poolifier@node", "poolifier", "node", "poolifier.mjs", { npm: "poolifier", notes: { move: COPIES_RESULTS } }),
  contender("futures", "concurrent.futures", "python", "executor", { cannot: PYTHON }),
  contender("futures/batch", "concurrent.futures, chunks of 100", "python", "executor", { variant: "batch", only: ["calls"] }),
  contender("multiprocessing", "multiprocessing", "python", "processes", { cannot: PYTHON }),
  contender("multiprocessing/batch", "multiprocessing, chunks of 100", "python", "processes", { variant: "batch", only: ["calls"] }),
];

/** Whether a table shows it, be it with a dash. */
export function takesPart({ only }: Contender, { drive }: Workload): boolean {
  return only === undefined || only.includes(drive);
}

function contender(name: string, title: string, runtime: Runtime, file: string, more: Partial<Contender> = {}): Contender {
  return { name, title, runtime, kind: "rival", file, variant: "", only: undefined, cannot: {}, notes: {}, ...more };
}

function ours(name: string, variant: string): Contender {
  return contender(name, "process-pool", "deno", "process_pool.ts", { kind: "ours", variant });
}

function everywhere(note: string): Contender["notes"] {
  return Object.fromEntries(WORKLOADS.map(({ drive }) => [drive, note]));
}
