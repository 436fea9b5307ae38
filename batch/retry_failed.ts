import type { Part } from "./active_part.ts";
import type { DonePart } from "./done_parts.ts";
import { foldersOf, type LoggedPaths, refuseChangedOutput, refuseOtherErrors, settledLog } from "./earlier_run.ts";
import { BatchError, explained, WRITING } from "./errors.ts";
import { ErrorsFile, errorsState } from "./errors_file.ts";
import { MOST_NOT_KEPT } from "./files.ts";
import type { FoundLog, LogEntry } from "./job_log.ts";
import { Merge, Tally } from "./merge.ts";
import { writeReport } from "./page.ts";
import { taskCheck } from "./prepare.ts";
import type { Paths, Plan } from "./plan.ts";
import { createPool } from "./pool.ts";
import { type BatchSummary, quantilesOf, speedOf, summaryOf } from "./progress.ts";
import type { InputFormat, OutputFormat } from "./range.ts";
import { parseMembers, readErrors, retryableErrors, saidBy } from "./record_errors.ts";
import { BatchRun } from "./run.ts";

/**
 * Runs the task on the records of the errors file, and puts their results where they belong in the output:
 *
 * ```
 * errors file ----> records ----> pool ----> outcomes, in order --+
 * errors file ---------------------------------------------------+--> output and errors file, written anew
 * output --------------------------------------------------------+
 * ```
 *
 * All three are read from start to end, and the errors are in the order of the output: memory does not grow with them. Output and errors
 * file are replaced together: when both are complete, a line in the job log says so, and whoever finds that line after a crash only has to
 * rename them.
 *
 * @throws {BatchError} If there is no finished batch.
 */
export async function retryFailed(plan: Plan, { paths, log }: LoggedPaths): Promise<BatchSummary> {
  const found = await settledLog({ paths, log });
  if (found === undefined) {
    throw new BatchError(`Cannot retry as there is no job log '${paths.name}.log': run the batch first, without '--retry-failed'`);
  }
  const { last } = found;
  if (last?.stage !== "finished") {
    throw new BatchError(`Cannot retry as the run to '${paths.name}' was not finished: go on with '--resume'`);
  }
  await refuseChangedOutput("retry", { paths, last });
  // Another path may lead to the same file.
  if (!await withErrors(paths.errors, () => isAsLogged(paths.errors, last))) refuseOtherErrors("retry", { paths, found });
  // So that nobody else begins to write to it while it is read. On Windows, a lock also excludes this thread's other handles.
  using errorsFile = last.failed === 0 ? undefined : await openErrors(paths.errors);
  if (Deno.build.os === "windows") errorsFile?.close();
  const before = last.failed === 0 ? new Tally() : await tallyOf(paths, found);
  const { inputFormat, outputFormat } = found.fingerprint.options as { inputFormat: InputFormat; outputFormat: OutputFormat };
  const check = taskCheck(plan.task);
  const begin = performance.now();
  plan.recorder?.begin();
  // Do not copy in vain.
  await using merge = before.retryable === 0
    ? undefined
    : await explained(() => Merge.open({ paths, log }, found), foldersOf(paths), WRITING);
  const { run, outcome, notKept } = await runAgain(
    { ...plan, formats: { ...plan.formats, input: inputFormat, output: outputFormat } },
    paths,
    { merge, check },
  );
  await check();
  await merge?.finish();
  const { retried, left } = merge === undefined || merge.retried === 0 ? { retried: 0, left: before } : merge;
  const wall = performance.now() - begin;
  plan.recorder?.sample(run.counts);
  const summary: BatchSummary = {
    ...summaryOf(plan, paths),
    ...speedOf({ records: retried, busy: run.counts.busy, wall, workers: plan.options.workers }),
    ...quantilesOf(run.times),
    outcome,
    records: last.records,
    failed: left.count,
    ...left.failures.summary(),
    errors: left.count > 0 ? paths.errors : undefined,
    retryable: left.retryable > 0,
    notKept,
  };
  await writeReport(plan, { summary, times: run.times, errors: left.failures.kinds.get(), run: run.counts.records });
  return summary;
}

/** Opens an existing errors file exclusively. */
async function openErrors(path: string): Promise<ErrorsFile> {
  return await withErrors(path, async () => {
    // A missing one must not be made.
    await Deno.stat(path);
    return await ErrorsFile.open(path);
  });
}

/**
 * Does something with an errors file.
 *
 * @throws {BatchError} If it cannot be accessed.
 */
async function withErrors<T>(path: string, work: () => Promise<T>): Promise<T> {
  return await explained(work, `errors file '${path}'`, { flag: `--allow-read=${path} --allow-write=${path}` });
}

/** Whether this is the errors file described in the job log; false also if the log does not tell enough. */
async function isAsLogged(path: string, { errors, errorsSample }: LogEntry): Promise<boolean> {
  const is = await errorsState(path);
  return errorsSample !== undefined && is.errors === errors && is.errorsSample === errorsSample;
}

/** Reads a whole errors file, before anything relies on it. */
async function tallyOf({ errors: path, name }: Paths, { last, fingerprint: { inputs } }: FoundLog): Promise<Tally> {
  const tally = new Tally();
  const known = new Set(inputs.map(({ path }) => path));
  const other = (why: string) =>
    new BatchError(`Cannot retry as the errors file '${path}' is not what the run to '${name}' left: it ${why}: put the original back`);
  let position = 0;
  try {
    for await (const entry of readErrors(path)) {
      if (!(entry.position >= position)) throw new Error("its lines are not in the order of the output");
      position = entry.position;
      if (!known.has(entry.input)) throw other(`names the input '${entry.input}', which that run did not read`);
      tally.add(entry);
    }
    if (tally.count !== last!.failed) throw other(`has ${tally.count} records, but the job log says ${last!.failed}`);
    if (last!.errorsSample !== undefined && !await isAsLogged(path, last!)) throw other("was changed since");
  } catch (error) {
    if (error instanceof BatchError) throw error;
    throw new BatchError(`Cannot retry as the errors file '${path}' is damaged: ${(error as Error).message}`, { cause: error });
  }
  return tally;
}

/** Runs each record as a separate part. */
async function runAgain(
  plan: Plan,
  paths: Paths,
  { merge, check }: { merge: Merge | undefined; check: () => Promise<void> },
): Promise<{ run: BatchRun } & Pick<BatchSummary, "outcome" | "notKept">> {
  const { options, recorder } = plan;
  const pool = createPool(plan);
  const parts = merge === undefined ? noParts() : partsOf(paths.errors);
  /** What failed after a record that was not done when too many had failed, by its number among those that are run again. */
  const failures = new Map<number, string>();
  const consumer = {
    take({ index, state, output, errors }: DonePart): void | Promise<void> {
      // It was stopped before the record was done.
      if (state.records === 0) return;
      const [failed] = errors.map(({ members }) => parseMembers(members));
      return merge!.take(index, { output, error: failed });
    },
    // Nothing has to be saved before everything is done; but there is no point in going on if the task has changed.
    save: check,
    leave(parts: readonly DonePart[]) {
      for (const { index, errors: [error] } of parts) {
        if (error !== undefined && failures.size < MOST_NOT_KEPT) failures.set(index, saidBy(error.members));
      }
    },
  };
  const run: BatchRun = new BatchRun({
    pool,
    parts,
    consumer,
    // In the order of the output, whatever that is.
    options: { ...options, ordered: true },
    onTick: () => recorder?.sample(run.counts),
    onRange: recorder && ((range) => recorder.range(range)),
  });
  try {
    const outcome = await run.run();
    return { run, outcome, notKept: await placed(failures, paths.errors) };
  } finally {
    await pool.terminate();
    await parts.return(undefined);
  }
}

/** Failures of records that were run again, by the numbers of these, with the places that the errors file tells. */
async function placed(failures: ReadonlyMap<number, string>, errors: string): Promise<BatchSummary["notKept"]> {
  const found: BatchSummary["notKept"] = [];
  if (failures.size === 0) return found;
  let index = 0;
  for await (const entry of retryableErrors(errors)) {
    const failure = failures.get(index++);
    if (failure !== undefined) found.push([entry.input, entry.offset, failure]);
    if (found.length === failures.size) break;
  }
  return found;
}

async function* noParts(): AsyncGenerator<Part> {}

async function* partsOf(errors: string): AsyncGenerator<Part> {
  let index = 0;
  for await (const entry of retryableErrors(errors)) {
    // A record that itself ended in a carriage return keeps it: of two, the line end takes one.
    const bytes = new TextEncoder().encode(`${entry.record}\r\n`);
    // Not at 0, where a byte order mark would not belong to the record.
    const [start, end] = [1, 1 + bytes.length];
    yield {
      source: 0,
      index: index++,
      start,
      end,
      torn: false,
      piece: { input: entry.input, bytes, offset: start, end, header: entry.header },
    };
  }
}
