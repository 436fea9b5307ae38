/**
 * What a comparison found, as it is written to a file and read from it.
 *
 * @module
 */

import { type Contender, takesPart } from "./contenders.ts";
import { summarise, type Summary } from "./statistics.ts";
import type { Measure, Workload } from "./workloads.ts";

/** What came of one child process. */
export type Outcome = { figures: Record<string, number> } | { failure: Failure };

/** Why there is no figure. `wrong`: a result was not what it had to be. */
export interface Failure {
  kind: "wrong" | "failed" | "timeout";
  message: string;
}

export interface Measurement {
  workload: string;
  contender: string;
  round: number;
  outcome: Outcome;
}

export interface Machine {
  cpu: string;
  cores: number;
  memoryGb: number;
  os: string;
}

export interface Results {
  date: string;
  machine: Machine;
  /** Of runtimes and packages, by name. */
  versions: Record<string, string>;
  rounds: number;
  workloads: Workload[];
  contenders: Contender[];
  /** Why contenders are missing whose runtime or package is not there, by their name. */
  missing: Record<string, string>;
  measurements: Measurement[];
}

/** One contender's line below a measure. */
export interface Row {
  contender: Contender;
  /** Undefined where there is no figure. */
  figure: Summary | undefined;
  /** How many times as good as the first of ours: above 1 is better, whichever direction that is. */
  ratio: number | undefined;
  /** Why there is no figure, or what has to be known about it. */
  remark: string | undefined;
  /** Whether it ought to have one. */
  failed: boolean;
}

/** One measure of one workload with all contenders, the best first. */
export interface Section {
  workload: Workload;
  measure: Measure;
  rows: Row[];
}

/**
 * Reads what was written to a file.
 *
 * @throws {SyntaxError} If it was something else.
 */
export function parseResults(text: string): Results {
  const results = JSON.parse(text) as Partial<Results> | null;
  const { workloads, contenders, measurements } = results ?? {};
  if ([workloads, contenders, measurements].every(Array.isArray)) return results as Results;
  throw new SyntaxError("This file is none that '--json' wrote");
}

/** Sorts what was measured into sections. A contender that failed in any round has no figure. */
export function sectionsOf(results: Results): Section[] {
  return results.workloads.flatMap((workload) =>
    workload.measures.map((measure) => {
      const rows = results.contenders.filter((contender) => takesPart(contender, workload)).map((contender) =>
        rowOf(results, workload, measure, contender)
      );
      const mine = rows.find(({ contender, figure }) => contender.kind === "ours" && figure !== undefined)?.figure?.median;
      for (const row of rows) {
        if (row.figure === undefined || mine === undefined) continue;
        const ratio = measure.better === "higher" ? row.figure.median / mine : mine / row.figure.median;
        if (Number.isFinite(ratio)) row.ratio = ratio;
      }
      return { workload, measure, rows: rows.sort((a, b) => compareRows(a, b, measure)) };
    })
  );
}

function rowOf(results: Results, workload: Workload, measure: Measure, contender: Contender): Row {
  const reason = results.missing[contender.name] ?? contender.cannot[workload.drive];
  const outcomes = results.measurements
    .filter((one) => one.workload === workload.name && one.contender === contender.name)
    .map(({ outcome }) => outcome);
  const failure = outcomes.find((outcome) => "failure" in outcome)?.failure;
  if (reason !== undefined || outcomes.length === 0 || failure !== undefined) {
    const remark = reason ?? (failure === undefined ? "not measured" : describe(failure));
    return { contender, figure: undefined, ratio: undefined, remark, failed: failure !== undefined };
  }
  const figures = outcomes.map((outcome) => (outcome as { figures: Record<string, number> }).figures[measure.name]!);
  return { contender, figure: summarise(figures), ratio: undefined, remark: contender.notes[workload.drive], failed: false };
}

function describe({ kind, message }: Failure): string {
  return kind === "wrong" ? `WRONG RESULT: ${message}` : kind === "timeout" ? message : `failed: ${message}`;
}

function compareRows(a: Row, b: Row, { better }: Measure): number {
  if (a.figure === undefined || b.figure === undefined) return Number(a.figure === undefined) - Number(b.figure === undefined);
  return (better === "higher" ? -1 : 1) * (a.figure.median - b.figure.median);
}
