/**
 * What a task may do to its worker, when, and what the pool promises then. `failure_matrix_test.ts` tries each cell, and
 * `tools/reliability_table.ts` writes the tables into `docs/reliability.md`.
 *
 * @module
 */

import type { ProcessPoolOptions } from "@procpool/process-pool";

/** The kinds of pools, and the options that make them. The modules of the matrix are `data:` URLs, for which workers need no permission. */
export const KINDS = {
  "worker": { backend: "worker" },
  "killable": { backend: "killable" },
  "killable with permissions": { backend: "killable", permissions: "none" },
  "inline": { backend: "inline" },
} as const satisfies Record<string, ProcessPoolOptions>;

export type Kind = keyof typeof KINDS;

/** When a deed is done. */
export const STAGES = ["loading", "initializer", "running", "replying", "idle", "finalizer"] as const;
export type Stage = typeof STAGES[number];

/** The deed as the source of statements, where `await` is allowed. */
export interface Deed {
  source: string;
  /** The same where `await` is not possible, while a result is copied. Undefined if it cannot be done there. */
  synchronous?: string | undefined;
  /** The statement that does it by returning something, where that is possible. */
  returning?: string;
}

/** A deed that is written the same everywhere. */
function anywhere(source: string): Deed {
  return { source, synchronous: source };
}

export const DEEDS = {
  "throws": anywhere(`throw new RangeError("deed");`),
  "rejects": { source: `await Promise.reject(new RangeError("deed"));` },
  "exits": anywhere(`Deno.exit(3);`),
  "closes itself": anywhere(`self.close();`),
  "posts the uncloneable": { source: `self.postMessage(() => 1);`, synchronous: `return () => 1;`, returning: `return () => 1;` },
  "spins in synchronous code": anywhere(`for (;;);`),
  "spins in microtasks": {
    source: `for (;;) await 1;`,
    synchronous: `(function again() { queueMicrotask(again); })();`,
  },
  "never settles": { source: `await new Promise(() => {});` },
  "fills the heap": anywhere(`const kept = []; for (;;) kept.push({ values: [kept.length, 1, 2, 3] });`),
  "meddles with its channel": anywhere(`
    self.dispatchEvent(new MessageEvent("message", { data: { type: "closed" }, ports: [new MessageChannel().port1] }));
    self.dispatchEvent(new MessageEvent("messageerror"));
    self.postMessage = self.onmessage = self.name = undefined;
  `),
  "mutes every port": anywhere(`MessagePort.prototype.postMessage = () => {};`),
  "floods the parent with messages": anywhere(
    `for (let i = 0; i < 20_000; i++) self.postMessage({ type: "returned", run: i, value: "forged" });`,
  ),
} satisfies Record<string, Deed>;

export type DeedName = keyof typeof DEEDS;

/** The outcome of a deed. {@linkcode MEANINGS} says what job, pool and program do. */
export type Outcome = keyof typeof MEANINGS;

/** What each outcome means, as documentation. After all of them the next job runs, unless the text says otherwise. */
export const MEANINGS = {
  "no harm": "the job, if there is one, returns the right result",
  "its error": "the job fails with what was thrown; its worker lives on",
  "WorkerDiedError": "the job fails with it; a new worker takes the next job",
  "JobTimeoutError":
    "the job fails with it after its timeout, and what it did is stopped; without a timeout it runs until it is cancelled by force",
  "JobTimeoutError, burns a core":
    "the job fails with it after its timeout; what it does goes on until the program ends, and `stats().unstoppable` counts it",
  "MemoryLimitError": "the job fails with it; a new worker takes the next job",
  "pool breaks": "after three workers, all jobs fail with a PoolBrokenError that has the cause",
  "reported": "`onError` is told",
  "reported, replaced": "`onError` is told; a new worker takes the next job",
  "reported, replaced, burns a core":
    "`onError` is told; a new worker takes the next job; a core burns until the program ends, and `stats().unstoppable` counts it",
  "reported in time": "after `startTimeout` the worker is stopped, and `onError` is told",
  "reported in time, burns a core":
    "after `startTimeout` the worker counts as gone, and `onError` is told; a core burns until the program ends",
  "pool breaks in time": "each worker is stopped after `startTimeout`; after three, all jobs fail with a PoolBrokenError that says so",
  "pool breaks in time, burns a core": "the same, but what they do goes on until the program ends: a core burns",
  "pool breaks in time, program fails": "the same; when the program ends, Deno gives it exit code 1 for it",
  "process aborts": "V8 ends the whole program",
  "program exits": "it is the program's own thread",
  "program hangs": "it is the program's own thread",
  "-": "cannot be done there, or is not tried",
} as const;

/** The outcome of each deed, in the order of {@linkcode STAGES}. */
type Outcomes = Record<DeedName, readonly [Outcome, Outcome, Outcome, Outcome, Outcome, Outcome]>;

/** With permissions or without. */
const KILLABLE: Outcomes = {
  "throws": ["pool breaks", "pool breaks", "its error", "its error", "reported, replaced", "reported"],
  "rejects": ["pool breaks", "pool breaks", "its error", "-", "reported, replaced", "reported"],
  "exits": ["pool breaks", "pool breaks", "WorkerDiedError", "WorkerDiedError", "reported, replaced", "reported"],
  "closes itself": ["pool breaks", "pool breaks", "WorkerDiedError", "WorkerDiedError", "reported, replaced", "reported"],
  "posts the uncloneable": ["pool breaks", "pool breaks", "its error", "its error", "reported, replaced", "reported"],
  "spins in synchronous code": [
    "pool breaks in time",
    "pool breaks in time",
    "JobTimeoutError",
    "JobTimeoutError",
    "reported, replaced",
    "reported in time",
  ],
  "spins in microtasks": [
    "pool breaks in time",
    "pool breaks in time",
    "JobTimeoutError",
    "reported, replaced",
    "reported, replaced",
    "reported in time",
  ],
  "never settles": ["pool breaks in time", "pool breaks in time", "JobTimeoutError", "-", "no harm", "reported in time"],
  "fills the heap": ["pool breaks", "pool breaks", "MemoryLimitError", "MemoryLimitError", "reported, replaced", "reported"],
  "meddles with its channel": ["no harm", "no harm", "no harm", "no harm", "no harm", "no harm"],
  "mutes every port": ["no harm", "no harm", "no harm", "no harm", "no harm", "no harm"],
  "floods the parent with messages": ["no harm", "no harm", "no harm", "no harm", "no harm", "no harm"],
};

/** What the pool promises, by its kind. */
export const MATRIX: Record<Kind, Outcomes> = {
  "worker": {
    ...KILLABLE,
    "spins in synchronous code": [
      "pool breaks in time, burns a core",
      "pool breaks in time, burns a core",
      "JobTimeoutError, burns a core",
      "JobTimeoutError, burns a core",
      "reported, replaced, burns a core",
      "reported in time, burns a core",
    ],
    "spins in microtasks": [
      "pool breaks in time, burns a core",
      "pool breaks in time, burns a core",
      "JobTimeoutError, burns a core",
      "reported, replaced, burns a core",
      "reported, replaced, burns a core",
      "reported in time, burns a core",
    ],
    "fills the heap": ["process aborts", "process aborts", "process aborts", "process aborts", "process aborts", "process aborts"],
  },
  "killable": KILLABLE,
  "killable with permissions": KILLABLE,
  "inline": {
    "throws": ["pool breaks", "pool breaks", "its error", "no harm", "program exits", "reported"],
    "rejects": ["pool breaks", "pool breaks", "its error", "-", "program exits", "reported"],
    "exits": ["program exits", "program exits", "program exits", "no harm", "program exits", "program exits"],
    "closes itself": ["-", "-", "-", "no harm", "-", "-"],
    "posts the uncloneable": ["-", "-", "no harm", "no harm", "-", "-"],
    "spins in synchronous code": ["-", "-", "program hangs", "no harm", "-", "-"],
    "spins in microtasks": ["-", "-", "program hangs", "no harm", "-", "-"],
    "never settles": ["pool breaks in time, program fails", "pool breaks in time", "JobTimeoutError", "-", "no harm", "reported in time"],
    "fills the heap": ["-", "-", "process aborts", "no harm", "-", "-"],
    "meddles with its channel": ["-", "-", "-", "-", "-", "-"],
    "mutes every port": ["-", "-", "-", "-", "-", "-"],
    "floods the parent with messages": ["-", "-", "-", "-", "-", "-"],
  },
};

/** One cell of the matrix. */
export interface Cell {
  kind: Kind;
  stage: Stage;
  deed: DeedName;
  expected: Outcome;
}

/** The cells to try with one kind of pool. */
export function cells(kind: Kind): Cell[] {
  return Object.entries(MATRIX[kind])
    .flatMap(([deed, outcomes]) => STAGES.map((stage, i): Cell => ({ kind, stage, deed: deed as DeedName, expected: outcomes[i]! })))
    .filter(({ expected }) => expected !== "-");
}

/** Whether a cell would harm the program that runs it. */
export function harmsProgram({ expected }: Cell): boolean {
  return /burns|aborts|program/.test(expected);
}
