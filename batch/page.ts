import { tryToWrite } from "../command/files.ts";
import type { ErrorKind, Latency, ReportData } from "../report/data.ts";
import { count, counted, type Figure, listed } from "../report/figures.ts";
import { renderReport } from "../report/page.ts";
import { BatchError, explainPath } from "./errors.ts";
import type { ResolvedBatch } from "./options.ts";
import { resolve } from "./paths.ts";
import type { Plan } from "./plan.ts";
import type { BatchSummary, SlowRecordReport } from "./progress.ts";
import { bins, type Times } from "./times.ts";

/**
 * Checks that the report can be written, before anything is run. This changes nothing.
 *
 * @throws {BatchError} If it cannot.
 */
export function checkReport({ report }: ResolvedBatch): void {
  if (report === undefined) return;
  const path = resolve(report);
  try {
    tryToWrite(path);
  } catch (error) {
    const what = error instanceof Deno.errors.NotFound ? "folder of the report" : "report";
    throw explainPath(error, `${what} '${report}'`, { flag: `--allow-write=${report}` });
  }
}

/** The data of a report. */
export interface Reported {
  summary: BatchSummary;
  /** How long the records took. */
  times: Times;
  errors: ErrorKind[];
  /** How many records were run, including those whose results could not be kept. */
  run: number;
  /** Why the batch could not go on, if it could not. */
  failure?: unknown;
}

/**
 * Writes the report, if there is to be one.
 *
 * @throws {BatchError} If it cannot be written.
 */
export async function writeReport(plan: Plan, reported: Reported): Promise<void> {
  const { report } = plan.options;
  if (report === undefined) return;
  try {
    await Deno.writeTextFile(resolve(report), renderReport(reportOf(plan, reported)));
  } catch (error) {
    const complete = reported.summary.outcome === "complete";
    const whole = complete ? ", though the results are written" : "";
    throw new BatchError(`Cannot write the report '${report}'${whole}: ${(error as Error).message}`, {
      resumable: !complete,
      cause: error,
    });
  }
}

const RANGE = "A range is a part of the input, or what was left of one, that a worker ran in one go.";
const BUSY = "Busy is the share of the whole run that records took; the rest is reading, and waiting.";

/** What a report shows. Its figures are those of the summary. */
function reportOf(plan: Plan, reported: Reported): ReportData {
  const { summary, errors } = reported;
  const { records, failed, recordsOfRun, wall, recordsPerSecond, utilisation, workers } = summary;
  const figures: Record<string, Figure> = {
    records: { value: records, unit: "count" },
    ...recordsOfRun === records ? {} : { "in this run": { value: recordsOfRun, unit: "count" } },
    failed: { value: failed, unit: "count" },
    "wall time": { value: wall, unit: "ms" },
    "records per second": { value: recordsPerSecond, unit: "per second" },
    workers: { value: workers, unit: "count" },
    busy: { value: utilisation, unit: "share" },
  };
  return {
    title: `process-pool: ${taskOf(plan)} on ${listed(plan.sources.map(({ name }) => name), 1)}`,
    ...plan.recorder!.data(wall),
    wall,
    notes: notesOf(plan, reported),
    words: {
      item: "record",
      ...plan.options.mode === "retry-failed" ? { bar: "record", about: BUSY } : { bar: "range", about: `${RANGE} ${BUSY}` },
    },
    figures,
    settings: settingsOf(plan),
    latency: [latencyOf(reported)],
    errors: errors.map((error) => ({ ...error, kind: error.kind === "" ? "unnamed" : error.kind })),
    slowest: {
      head: ["input", "place", "took"],
      rows: summary.slowest.map((slow) => [slow.input, placeOf(slow), { value: slow.time, unit: "ms" }]),
    },
  };
}

/** Where a slow record is. */
export function placeOf({ line, lastLine, offset }: SlowRecordReport): string {
  return line === undefined ? `byte ${offset}` : line === lastLine ? `line ${line}` : `one of lines ${line} to ${lastLine}`;
}

/** From where on inputs are left for another batch. */
export function leftOf({ left }: BatchSummary): string {
  return listed(left.map(([input, offset]) => `${input} from byte ${offset} on`), 5);
}

/** How much of an error is shown that is not kept, in characters: most messages are shorter, and some quote megabytes of input. */
const MOST_SHOWN = 500;

/** The failures that are not kept. */
export function notKeptOf({ notKept }: BatchSummary): string[] {
  return notKept.map(([input, offset, error]) => `${input}, byte ${offset}: ${error.slice(0, MOST_SHOWN)}`);
}

function latencyOf({ summary: { p50, p95, p99 }, times }: Reported): Latency {
  return {
    name: "Records",
    what: "from parsing to result; percentiles are right to within 6 %",
    distribution: { quantiles: p50 === undefined ? {} : { p50, p95: p95!, p99: p99! }, bins: bins(times) },
  };
}

function notesOf({ options: { mode, limit } }: Plan, { summary, run, failure }: Reported): string[] {
  const { outcome, records, recordsOfRun, output } = summary;
  const kept = output === undefined ? "" : " What is done is kept, and a later run can go on from there.";
  const notes: string[] = [];
  if (failure !== undefined) notes.push(`${(failure as Error).message}.${kept}`);
  else if (outcome === "stopped") notes.push(`Stopped before the end.${kept}`);
  else if (outcome === "halted") notes.push(`Gave up, as too many records failed.${kept}`);
  else if (recordsOfRun === 0 && records > 0) notes.push("Nothing to do: everything had been done before.");
  if (limit !== Infinity) notes.push(`Limited to the first ${counted(limit, "record")}.`);
  if (mode === "retry-failed") {
    notes.push(`Records that had failed were run again, ${count(recordsOfRun)} of them: the charts show only those.`);
  } else if (0 < recordsOfRun && recordsOfRun < records) {
    notes.push(
      `Earlier runs had done ${count(records - recordsOfRun)} of the records: the charts, times and errors are those of this run.`,
    );
  }
  if (summary.left.length > 0) {
    notes.push(
      `Left for another batch, as more of the record has been written since: ${
        leftOf(summary)
      }. It is in the charts, but its result was not kept.`,
    );
  }
  for (const failure of notKeptOf(summary)) notes.push(`Not kept, as something before it was not done: ${failure}`);
  // One record of each such input has been run.
  const more = run - recordsOfRun - summary.left.length;
  if (mode !== "retry-failed" && more > 0) {
    notes.push(
      `${
        counted(more, "more record")
      } ran and are in the charts, but their results were not kept, as they come after something that was not done.`,
    );
  }
  return notes;
}

function taskOf({ task: { module, name } }: Plan): string {
  return module === undefined ? "a function" : name === undefined ? module : `${name} of ${module}`;
}

function settingsOf(plan: Plan): ReportData["settings"] {
  const { options, formats, sources } = plan;
  const { output, ordered, workers, chunk, timeout, memoryLimit, retries, halt, permissions, mode, limit } = options;
  return {
    task: taskOf(plan),
    input: listed(sources.map(({ name }) => name), 5),
    output: output instanceof WritableStream ? "a stream" : output === "-" ? "the standard output" : String(output),
    "input format": formats.input,
    "output format": formats.output,
    order: ordered ? "that of the input" : "as results come",
    mode: mode === "begin" ? "from the beginning" : mode,
    ...limit === Infinity ? {} : { limit },
    workers,
    chunk: chunk === undefined ? "as measured" : `${count(chunk)} bytes`,
    timeout: "ofMedian" in timeout ? `${timeout.ofMedian * 100} % of the median` : timeout.ms === Infinity ? "none" : `${timeout.ms} ms`,
    "memory limit": memoryLimit === undefined ? "none" : `${memoryLimit} MB`,
    retries,
    halt: haltOf(halt),
    permissions: permissions === "inherit" ? "those of the program" : `the input, ${given(permissions)}`,
  };
}

function haltOf({ failed, share }: ResolvedBatch["halt"]): string {
  if (failed !== Infinity) return `at ${count(failed)} failed records`;
  return share === 1 ? "never" : `at ${Number((share * 100).toPrecision(6))} % failed records`;
}

function given(permissions: Deno.PermissionOptionsObject): string {
  const kinds = Object.entries(permissions).filter(([, value]) => value !== undefined && value !== false);
  if (kinds.length === 0) return "and nothing else";
  return kinds.map(([kind, value]) => Array.isArray(value) ? `${kind}=${value.join(",")}` : kind).join(", ");
}
