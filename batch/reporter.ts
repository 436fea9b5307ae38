import { count, counted, duration, percent, rounded } from "../report/figures.ts";
import { leftOf, notKeptOf, placeOf } from "./page.ts";
import type { BatchProgress, BatchSummary, SlowRecordReport } from "./progress.ts";

/** Where a batch reports its progress: standard error. */
export interface ReporterTerminal {
  /** Writes text as it is. */
  write(text: string): void;
  isTerminal: boolean;
  /** Its width. */
  columns: number;
}

/** Reports the progress of a batch. */
export interface Reporter {
  progress(progress: BatchProgress): void;
  /** Removes the progress line, before something else is written. */
  clear(): void;
  /** Reports anything else: a signal, or why the batch cannot be run. */
  tell(event: "signal" | "error", message: string): void;
  summary(summary: BatchSummary): void;
}

/** The kind of run, on which the advice at the end depends. */
export type RunKind = "batch" | "overwrite" | "dry run" | "retry";

/** The reporter that the options ask for. */
export function createReporter(progress: "auto" | "json" | "none", terminal: ReporterTerminal, kind: RunKind = "batch"): Reporter {
  if (progress === "json") return jsonReporter(terminal);
  return textReporter(terminal, { kind, live: progress === "auto" && terminal.isTerminal });
}

function textReporter(terminal: ReporterTerminal, { kind, live }: { kind: RunKind; live: boolean }): Reporter {
  let shown = false;
  function clear(): void {
    if (shown) terminal.write("\r\x1b[K");
    shown = false;
  }
  return {
    progress(progress) {
      if (!live) return;
      terminal.write(`\r\x1b[K${progressLine(progress).slice(0, terminal.columns - 1)}`);
      shown = true;
    },
    clear,
    tell(event, message) {
      clear();
      terminal.write(event === "error" ? `process-pool: ${message}\n` : `${message}\n`);
    },
    summary(summary) {
      clear();
      terminal.write(summaryLines(summary, kind).map((line) => `${line}\n`).join(""));
    },
  };
}

/** One JSON object per line, for programs. */
function jsonReporter({ write }: ReporterTerminal): Reporter {
  const line = (event: string, value: object) => write(`${JSON.stringify({ event, ...value })}\n`);
  return {
    progress: (progress) => line("progress", progress),
    clear() {},
    tell: (event, message) => line(event, { message }),
    summary: (summary) => line("summary", summary),
  };
}

/** The progress in one line, with what matters most first. */
export function progressLine(
  { records, failed, bytes, totalBytes, elapsed, recordsPerSecond, timeLeft, workers, busy, memory }: BatchProgress,
): string {
  const share = totalBytes === undefined ? undefined : totalBytes === 0 ? 1 : bytes / totalBytes;
  return [
    `${count(records)} records`,
    ...share === undefined ? [] : [`${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`],
    `${rounded(recordsPerSecond)}/s`,
    `${count(failed)} failed`,
    timeLeft === undefined ? `${duration(elapsed)} so far` : `${duration(timeLeft)} left`,
    `${busy} of ${workers} workers busy`,
    `${Math.round(memory / 1e6)} MB`,
  ].join(", ");
}

/** The summary. */
export function summaryLines(summary: BatchSummary, kind: RunKind = "batch"): string[] {
  const { outcome, records, failed, recordsOfRun, wall, recordsPerSecond, utilisation, workers, p50, p95, p99 } = summary;
  const earlier = recordsOfRun < records ? ` (${count(recordsOfRun)} of them in this run)` : "";
  if (outcome === "complete" && recordsOfRun === 0 && records > 0) {
    return [`nothing to do: ${summary.output} is complete, with ${count(records)} records, ${count(failed)} of which failed`];
  }
  const lines = [
    `${counted(records, "record")}${earlier}, ${count(failed)} failed, ${duration(wall)}, ${rounded(recordsPerSecond)} records/s`,
  ];
  if (p50 !== undefined) {
    const quantiles = `time per record: p50 ${duration(p50)}, p95 ${duration(p95!)}, p99 ${duration(p99!)}`;
    lines.push(`${quantiles}; ${counted(workers, "worker")}, ${percent(utilisation)} of the time busy`);
  }
  for (const slow of summary.slowest.filter((slow) => isTelling(slow, p50 ?? 0))) {
    lines.push(`slow: ${duration(slow.time)}, ${slow.input}, ${placeOf(slow)}`);
  }
  if (summary.errorNames.length > 0) {
    const names = summary.errorNames.slice(0, 5).map(([name, times]) => `${name === "" ? "unnamed" : safe(name)} ${count(times)}`);
    const known = summary.errorNames.reduce((sum, [, times]) => sum + times, 0);
    // What the records of earlier runs failed with is only in the errors file.
    const which = earlier !== "" && known < failed ? "failed in this run with" : "failed with";
    lines.push(`${which}: ${names.join(", ")}${summary.errorNames.length > 5 ? ", ..." : ""}`);
  }
  for (const denied of summary.denied) {
    const what = safe(denied);
    lines.push(`the task was denied '${what}': run with '--allow-${what}', and give it to the workers with '--permissions ${what}'`);
  }
  if (summary.errors !== undefined) lines.push(`failed records are in ${summary.errors}${adviceOn(summary)}`);
  else if (failed > 0 && kind !== "dry run") lines.push("failed records were not kept: '--errors FILE' keeps them");
  if (summary.left.length > 0) lines.push(`left for another batch, as more of the record has been written since: ${leftOf(summary)}`);
  for (const failure of notKeptOf(summary)) lines.push(`not kept, as something before it was not done: ${safe(failure)}`);
  const next = summary.output === undefined ? "" : `: ${nextOf(summary, kind)}`;
  if (outcome === "halted") lines.push(`gave up, as '--halt' says${next}`);
  if (outcome === "stopped") lines.push(`stopped${next}`);
  return lines;
}

/** What takes up a batch that has not ended. One that was stopped before it replaced an earlier one has left that for '--resume'. */
function nextOf({ records }: BatchSummary, kind: RunKind): string {
  if (kind === "overwrite" && records === 0) return "'--overwrite' begins anew";
  return `'--${kind === "retry" ? "retry-failed" : "resume"}' goes on`;
}

/** Text that a task may have made up, without control sequences for a terminal. */
function safe(text: string): string {
  return JSON.stringify(text).slice(1, -1).replace(/[\x7f-\x9f]/g, (code) => `\\u00${code.charCodeAt(0).toString(16)}`).replaceAll(
    '\\"',
    '"',
  );
}

/** What can be done about failed records. A batch that has not ended cannot be retried yet, nor records that are in no file. */
function adviceOn({ outcome, output, retryable }: BatchSummary): string {
  if (!retryable) return ", and cannot be run again: they could not be parsed, or were too long to be kept whole";
  return outcome === "complete" && output !== undefined ? ": '--retry-failed' runs them again" : "";
}

/** Among quick records that are timed together, a pause of V8 or of the system looks like a slow record. */
function isTelling({ time, line, lastLine }: SlowRecordReport, p50: number): boolean {
  return time >= 1 && time > 10 * p50 && (line === lastLine || time >= 1000);
}
