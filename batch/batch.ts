import type { ProcessPool } from "../pool.ts";
import { count } from "../report/figures.ts";
import type { Part, RangeRun } from "./active_part.ts";
import { loadCsvParser, readHeader } from "./csv.ts";
import { Coverage } from "./coverage.ts";
import { foundToResume, type LoggedPaths, refuseExisting, refuseForeign } from "./earlier_run.ts";
import { BatchError, explained, WRITING } from "./errors.ts";
import { ErrorsFile } from "./errors_file.ts";
import { Files, type Totals } from "./files.ts";
import { expandInputs, findSources, readHere, refuseChangedInputs, type Source } from "./inputs.ts";
import { JobLog, type StreamBegin } from "./job_log.ts";
import { type BatchOptions, type BatchTask, isPath, resolveBatchOptions, type ResolvedBatch } from "./options.ts";
import { NOTHING_WRITTEN, openOutput, type Output, StreamOutput } from "./output.ts";
import { checkReport, writeReport } from "./page.ts";
import { type Measured, partSizes } from "./part_sizes.ts";
import { divide } from "./parts.ts";
import { dirname, relative, resolve } from "./paths.ts";
import { isAnyRetryable } from "./record_errors.ts";
import { fingerprintOf, formatsOf, prepareTask, taskCheck } from "./prepare.ts";
import { type BatchSummary, progressOf, quantilesOf, speedOf, summaryOf } from "./progress.ts";
import { retryFailed } from "./retry_failed.ts";
import { checkDistinct, folderOf, followLinks, leftBefore, type Paths, pathsOf, type Plan, sizeOf } from "./plan.ts";
import { createPool, taskIsLoaded } from "./pool.ts";
import { BatchRecorder } from "./recorder.ts";
import { BatchRun } from "./run.ts";
import { noTimes } from "./times.ts";

/**
 * Runs a task on every record of a file, however many there are, on all cores, and writes the results to another file.
 *
 * Workers read the input themselves, each a range at a time, and may do nothing else unless `permissions` says so. A record that fails
 * costs only itself: it goes to the errors file. Progress is saved every second, and a batch that was stopped goes on with `resume`.
 *
 * @param task What is called with each record: a function, a task of a module, or the address of a module whose default export or only
 * function it is. A function is sent to the workers as source text.
 * @param options What to read, where results go, and what to do about failures.
 * @returns The result. A batch that its signal stopped, or that was halted since too many records failed, has that as its `outcome`.
 *
 * @throws {TypeError} If an option is unknown or of the wrong type.
 * @throws {RangeError} If a number is out of its range.
 * @throws {BatchError} If the batch cannot be run, or cannot go on.
 * @throws {unknown} What `onProgress` throws, or rejects with.
 *
 * @example A file of JSON lines
 * ```ts
 * import { batch } from "@procpool/process-pool/batch";
 * import { assertEquals } from "@std/assert";
 *
 * const input = new Response('{"price":2}\n{"price":3}\n').body!;
 * const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
 * const output = new Response(readable).text();
 * const summary = await batch((item: { price: number }) => ({ ...item, gross: item.price * 1.5 }), {
 *   input,
 *   output: writable,
 *   permissions: "inherit",
 * });
 * assertEquals(await output, '{"price":2,"gross":3}\n{"price":3,"gross":4.5}\n');
 * assertEquals([summary.records, summary.failed], [2, 0]);
 * ```
 */
export async function batch(task: BatchTask, options: BatchOptions): Promise<BatchSummary> {
  const given = resolveBatchOptions(task, options);
  const prepared = await prepareTask(given.task);
  const resolved = await followLinks(given);
  const paths = isPath(resolved.output) ? pathsOf(resolved) : undefined;
  const inputs = await expandInputs(resolved.inputs, paths === undefined ? new Set() : await leftBefore(resolved, paths));
  const formats = formatsOf(resolved, inputs);
  const sources = await findSources(inputs, formats.input);
  const recorder = resolved.report === undefined ? undefined : new BatchRecorder(rangeName(resolved, sources));
  const plan: Plan = { options: resolved, formats, task: prepared, sources, recorder };
  await checkDistinct(plan, paths);
  checkReport(resolved);
  // Loaded here first: otherwise the error would say that workers cannot load the task's module.
  if (formats.input === "csv") await loadCsvParser();
  if (paths === undefined) return await runToStream(plan);
  // Locked before anything is looked at, so that what is found still holds when it is relied on.
  using log = await explained(() => JobLog.open(paths.log), folderOf(paths), WRITING);
  if (resolved.mode === "retry-failed") return await retryFailed(plan, { paths, log });
  return await runToFile(plan, { paths, log });
}

/** What a range is called on the timeline of a report. */
function rangeName({ mode }: ResolvedBatch, sources: readonly Source[]): (range: RangeRun) => string {
  if (mode === "retry-failed") return ({ index }) => `record ${count(index + 1)} of those that had failed`;
  return ({ source, start, end }) => `bytes ${count(start)} to ${count(end)} of ${sources[source]!.name}`;
}

/** Runs a batch whose results go to a stream. It cannot be resumed. */
async function runToStream(plan: Plan): Promise<BatchSummary> {
  const { output, errors } = plan.options;
  if (errors !== undefined && (await sizeOf(resolve(errors)) ?? 0) > 0) {
    throw new BatchError(`Cannot run batch as the errors file '${errors}' exists: move it away, or name another one`);
  }
  const coverages = plan.sources.map(() => new Coverage());
  plan = { ...plan, sources: readHere(plan.sources) };
  return await withWorkers(plan, async (workers) => {
    using errorsFile = errors === undefined
      ? undefined
      : await explained(() => ErrorsFile.begin(resolve(errors)), `folder of the errors file '${errors}'`, WRITING);
    const stream = output === "-"
      ? new StreamOutput(Deno.stdout.writable, "leave")
      : new StreamOutput(output as WritableStream<Uint8Array<ArrayBuffer>>, "close");
    return await run(plan, workers, {
      coverages,
      begins: new Map(),
      output: stream,
      errors: errorsFile,
      log: undefined,
      before: NOTHING_DONE,
      paths: undefined,
    });
  });
}

const NOTHING_DONE: Totals = { records: 0, failed: 0, busy: 0, wall: 0 };

/** Runs a batch whose results go to a file, or what is left of it. */
async function runToFile(plan: Plan, { paths, log }: LoggedPaths): Promise<BatchSummary> {
  const { ordered, mode } = plan.options;
  const fingerprint = fingerprintOf({ ...plan, ordered, errors: relative(dirname(paths.output), paths.errors) });
  await refuseForeign({ paths, log });
  const found = mode === "resume" ? await foundToResume({ paths, log }, fingerprint) : undefined;
  if (mode === "begin") await refuseExisting({ paths, log });
  const { coverages, begins, last } = found ?? { coverages: plan.sources.map(() => new Coverage()), begins: new Map(), last: undefined };
  const before: Totals = last === undefined
    ? NOTHING_DONE
    : { records: last.records, failed: last.failed, busy: last.busy, wall: last.wall };
  if (last?.stage === "finished") {
    const { records, failed } = last;
    const retryable = failed > 0 && await isAnyRetryable(paths.errors);
    const summary = { ...summaryOf(plan, paths), records, failed, errors: failed > 0 ? paths.errors : undefined, retryable };
    await writeReport(plan, { summary, times: noTimes(), errors: [], run: 0 });
    return summary;
  }
  plan = { ...plan, sources: readHere(plan.sources) };
  return await withWorkers(plan, async (workers) => {
    // Nothing of an earlier run has been touched before this point.
    if (!await taskIsLoaded(workers.pool, plan.options.signal)) return await stoppedSummary(plan, paths, before);
    using errors = await explained(() => ErrorsFile.open(paths.errors), `folder of the errors file '${paths.errors}'`, WRITING);
    await explained(() => found === undefined ? log.begin(fingerprint) : log.goOn(found.length), folderOf(paths), WRITING);
    try {
      const open = () => openOutput(paths.output, { partial: paths.partial, state: last?.output ?? NOTHING_WRITTEN });
      const output = await explained(open, folderOf(paths), WRITING);
      try {
        await explained(() => errors.goOn(last?.errors ?? 0), `errors file '${paths.errors}'`, WRITING);
      } catch (error) {
        await output.close();
        throw error;
      }
      return await run(plan, workers, { coverages, begins, output, errors, log, before, paths });
    } catch (error) {
      // A run that could not even begin leaves nothing to resume.
      const resumable = last !== undefined || log.hasAppended || (error instanceof BatchError && error.resumable);
      if (!resumable) await removeAll([paths.partial, paths.log, paths.errors]);
      throw error;
    }
  });
}

/** The summary of a batch that was stopped before any record was run. */
async function stoppedSummary(plan: Plan, paths: Paths, { records, failed }: Totals): Promise<BatchSummary> {
  const summary: BatchSummary = { ...summaryOf(plan, paths), outcome: "stopped", records, failed };
  await writeReport(plan, { summary, times: noTimes(), errors: [], run: 0 });
  return summary;
}

/** The pool of a run, and when it began. */
interface Workers {
  pool: ProcessPool;
  begin: number;
}

/** Does something with the workers of a batch, and ends them. */
async function withWorkers<T>(plan: Plan, work: (workers: Workers) => Promise<T>): Promise<T> {
  const begin = performance.now();
  plan.recorder?.begin();
  const pool = createPool(plan);
  try {
    return await work({ pool, begin });
  } finally {
    await pool.terminate();
  }
}

async function removeAll(paths: string[]): Promise<void> {
  // Files that do not exist, or may not be written, were not made by this run.
  for (const path of paths) await Deno.remove(path).catch(() => {});
}

/** What a run writes to. */
interface Destination {
  coverages: Coverage[];
  /** How streams that are read once more began, by input. */
  begins: ReadonlyMap<number, StreamBegin>;
  output: Output;
  errors: ErrorsFile | undefined;
  log: JobLog | undefined;
  /** What earlier runs had done. */
  before: Totals;
  /** Undefined if the output is a stream. */
  paths: Paths | undefined;
}

/** Runs what is left of a batch, wherever its results go. Closes output and errors file. */
async function run(plan: Plan, { pool, begin }: Workers, destination: Destination): Promise<BatchSummary> {
  const { options, sources, recorder } = plan;
  const { coverages, output, errors, log, before } = destination;
  const taskIsSame = taskCheck(plan.task);
  const check = async (used: readonly Source[]) => {
    await taskIsSame();
    await refuseChangedInputs(used, { stillRead: true });
  };
  const files = new Files({ sources, coverages, output, errors, log, check, signal: options.signal, before });
  const enough = new AbortController();
  const earlier = coverages.reduce((sum, { bytes }) => sum + bytes, 0);
  const tell = progressOf({
    plan,
    pool,
    begin,
    before,
    counts: () => batchRun.counts,
    covered: () => earlier + files.passed,
  });
  const batchRun: BatchRun = new BatchRun({
    pool,
    parts: partsOf(plan, destination, { files, measured: () => batchRun.counts, enough: enough.signal }),
    consumer: files,
    options,
    onTick() {
      recorder?.sample(batchRun.counts);
      return tell("now and then");
    },
    onRange: recorder && ((range) => recorder.range(range)),
  });
  const summarise = (outcome: BatchSummary["outcome"], wall: number) =>
    summaryOfRun(plan, destination, { files, run: batchRun, outcome, wall });
  const report = (summary: BatchSummary, failure?: unknown) =>
    writeReport(plan, { summary, times: batchRun.times, errors: files.failures.kinds.get(), run: batchRun.counts.records, failure });
  let failure: { error: unknown } | undefined;
  try {
    let outcome = await batchRun.run();
    // Killed workers take a moment, for which we do not wait long.
    if (outcome === "complete") await pool.shutdown({ timeout: 1000 });
    else await pool.terminate();
    const wall = performance.now() - begin;
    recorder?.sample(batchRun.counts);
    if (files.isTorn && options.signal?.aborted) outcome = "stopped";
    if (outcome !== "stopped") {
      await files.takeTorn();
      if (batchRun.isToHalt) outcome = "halted";
      // The job log must cover everything in the output before that gets its name.
      await files.save();
    }
    if (outcome === "complete") {
      await refuseChangedInputs(sources);
      await taskIsSame();
      await files.finish();
    }
    await tell("at the end");
    const summary = await summarise(outcome, wall);
    await report(summary);
    return summary;
  } catch (error) {
    failure = { error };
    recorder?.sample(batchRun.counts);
    // Why the batch cannot go on matters more than that its report cannot be written either.
    if (error instanceof BatchError && error.resumable) {
      await summarise("stopped", performance.now() - begin).then((summary) => report(summary, error)).catch(() => {});
    }
    throw error;
  } finally {
    enough.abort();
    errors?.close();
    await output.close(failure);
  }
}

/** What is left of the inputs, divided into parts. */
function partsOf(
  { options, sources, formats: { input: format, delimiter } }: Plan,
  { coverages, begins }: Destination,
  { files, measured, enough }: { files: Files; measured: () => Measured; enough: AbortSignal },
): AsyncGenerator<Part> {
  return divide(sources, coverages, {
    format,
    delimiter,
    ...partSizes(options, measured),
    fields: (row, { name }) => readHeader(row, { input: name, delimiter }),
    passed: (source, stretch) => files.pass(source, stretch),
    begins,
    begun: (source, begin) => files.noteBegin(source, begin),
    uses: (source, change) => files.use(source, change),
    enough,
  });
}

/** The summary of a run, however it ended. */
async function summaryOfRun(
  plan: Plan,
  { before, errors, paths }: Destination,
  { files, run, outcome, wall }: { files: Files; run: BatchRun; outcome: BatchSummary["outcome"]; wall: number },
): Promise<BatchSummary> {
  const { records, failed } = files.totals;
  const errorsPath = paths?.errors ?? plan.options.errors;
  return {
    ...summaryOf(plan, paths),
    ...whatFilesTell(files),
    ...speedOf({ records: records - before.records, busy: run.counts.busy, wall, workers: plan.options.workers }),
    ...quantilesOf(run.times),
    outcome,
    records,
    failed,
    errors: failed > 0 && errorsPath !== undefined ? String(errorsPath) : undefined,
    // What an earlier run put there is only in the file.
    retryable: errorsPath !== undefined && (files.retryable || before.failed > 0 && await isAnyRetryable(errors!.path)),
  };
}

function whatFilesTell(
  { slowest, failures, left, notKept }: Files,
): Pick<BatchSummary, "slowest" | "errorNames" | "denied" | "left" | "notKept"> {
  return { slowest, ...failures.summary(), left, notKept };
}
