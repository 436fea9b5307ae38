import type { Part } from "./active_part.ts";
import type { DonePart } from "./done_parts.ts";
import { foldersOf, type LoggedPaths, refuseChangedOutput, refuseOtherErrors, removeEmpty, settledLog } from "./earlier_run.ts";
import { BatchError, explained, explainStorage, WRITING } from "./errors.ts";
import { ErrorsFile, errorsState } from "./errors_file.ts";
import { Failures } from "./failures.ts";
import { MOST_NOT_KEPT } from "./files.ts";
import type { FoundLog, JobLog, LogEntry } from "./job_log.ts";
import { isCompressed, NOTHING_WRITTEN, openOutput, type Output, partialOf, renameForGood } from "./output.ts";
import { writeReport } from "./page.ts";
import { taskCheck } from "./prepare.ts";
import type { Paths, Plan } from "./plan.ts";
import { createPool } from "./pool.ts";
import { type BatchSummary, quantilesOf, speedOf, summaryOf } from "./progress.ts";
import type { InputFormat, OutputFormat } from "./range_runner.ts";
import { type ErrorEntry, errorText, isRetryable, parseMembers, readError, readErrors, retryableErrors, saidBy } from "./record_errors.ts";
import { BatchRun } from "./run.ts";

/** The outcome of a record that was run again. */
interface Retried {
  output: Uint8Array;
  /** Its error, if it failed again. */
  error: Pick<ErrorEntry, "error" | "attempts"> | undefined;
}

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

/** What a summary tells of an errors file. */
class Tally {
  count = 0;
  /** How many of them can be run again. */
  retryable = 0;
  readonly failures = new Failures();

  add(entry: ErrorEntry): void {
    const { error } = entry;
    this.count++;
    if (isRetryable(entry)) this.retryable++;
    const { denied } = readError(new TextEncoder().encode(`,"error":${JSON.stringify(error)}`));
    this.failures.add({ name: error.name, denied }, () => error.message);
  }
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

/** The new output and errors file, under temporary names until both are complete. */
class Merge implements AsyncDisposable {
  /** How many records were run again. */
  retried = 0;
  /** The failures, earlier and new. */
  readonly left = new Tally();
  #paths: Paths;
  #found: FoundLog;
  #log: JobLog;
  #output: Output;
  #errors: ErrorsFile;
  /** The old output and errors. */
  #results: Results;
  #entries: AsyncGenerator<ErrorEntry, void>;
  /** How many of the records that can be run again have been passed. */
  #passed = 0;
  #open: AsyncDisposableStack;
  #progress: MergeProgress;

  private constructor(
    paths: Paths,
    found: FoundLog,
    files: { log: JobLog; output: Output; errors: ErrorsFile; results: Results },
    { open, progress }: { open: AsyncDisposableStack; progress: MergeProgress },
  ) {
    this.#paths = paths;
    this.#found = found;
    this.#log = files.log;
    this.#output = files.output;
    this.#errors = files.errors;
    this.#results = files.results;
    this.#open = open;
    this.#progress = progress;
    this.#entries = readErrors(paths.errors);
  }

  static async open({ paths, log }: LoggedPaths, found: FoundLog): Promise<Merge> {
    await using open = new AsyncDisposableStack();
    const progress: MergeProgress = { isLogged: false };
    // The original error matters more than files that cannot be removed.
    const removeAtEnd = (path: string) => open.defer(() => progress.isLogged ? undefined : Deno.remove(path).catch(() => {}));
    await log.goOn(found.length);
    removeAtEnd(paths.partial);
    const output = open.adopt(
      await openOutput(paths.output, { partial: paths.partial, state: NOTHING_WRITTEN }),
      (output) => output.close(),
    );
    removeAtEnd(partialOf(paths.errors));
    const errors = open.adopt(await ErrorsFile.begin(partialOf(paths.errors), paths.errors), (errors) => errors.close());
    const results = open.use(await Results.open(paths.output));
    return new Merge(paths, found, { log, output, errors, results }, { open: open.move(), progress });
  }

  /**
   * Takes the outcome of a record, given its index among those that are run again. Earlier ones without an outcome are left as they were.
   */
  async take(index: number, retried: Retried): Promise<void> {
    try {
      for (let { value: entry } = await this.#entries.next(); entry; { value: entry } = await this.#entries.next()) {
        const found = isRetryable(entry) && this.#passed++ === index;
        await this.#put(entry, found ? retried : undefined);
        if (found) return void this.retried++;
      }
      throw new Error("the errors file was changed meanwhile");
    } catch (error) {
      throw explainStorage(error);
    }
  }

  /** Completes both and moves them into place, if any record was run again. */
  async finish(): Promise<void> {
    if (this.retried === 0) return;
    try {
      await this.#complete();
    } catch (error) {
      throw explainStorage(error);
    }
  }

  async #complete(): Promise<void> {
    for await (const entry of this.#entries) await this.#put(entry, undefined);
    await this.#results.copy(Infinity, this.#output);
    await this.#results[Symbol.asyncDispose]();
    await this.#errors.sync();
    this.#errors.close();
    const last = this.#found.last!;
    const entry: LogEntry = { ...last, done: [], output: this.#output.state, errors: 0, failed: this.left.count };
    delete entry.errorsSample;
    await this.#output.finish(() => {
      this.#progress.isLogged = true;
      return this.#log.append({ ...entry, stage: "merging" });
    });
    await renameForGood(partialOf(this.#paths.errors), this.#paths.errors);
    await removeEmpty(this.#paths.errors);
    await this.#log.append({ ...entry, ...await errorsState(this.#paths.errors), output: this.#output.state, stage: "finished" });
  }

  async #put(entry: ErrorEntry, retried: Retried | undefined): Promise<void> {
    await this.#results.copy(entry.position, this.#output);
    const { position } = this.#output;
    if (retried !== undefined) await this.#output.write(retried.output);
    if (retried !== undefined && retried.error === undefined) return;
    const attempts = entry.attempts + (retried?.error?.attempts ?? 0);
    const failed: ErrorEntry = { ...entry, ...retried?.error, attempts, position };
    this.#errors.write([errorText(failed)]);
    this.left.add(failed);
  }

  /** Closes all files. If the new ones are not complete they are removed, and everything is as it was. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#entries.return();
    await this.#open.disposeAsync();
  }
}

interface MergeProgress {
  /** Whether the job log may mention the new files: then they must not be removed. */
  isLogged: boolean;
}

/** The results of an earlier run. */
class Results implements AsyncDisposable {
  #reader: ReadableStreamDefaultReader<Uint8Array>;
  #chunk = new Uint8Array();
  #at = 0;

  private constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
  }

  static async open(path: string): Promise<Results> {
    const { readable } = await Deno.open(path);
    return new Results(isCompressed(path) ? readable.pipeThrough(new DecompressionStream("gzip")) : readable);
  }

  /** Copies everything up to a byte that has not been copied yet. */
  async copy(end: number, output: Output): Promise<void> {
    while (this.#at < end) {
      if (this.#chunk.length === 0) {
        const { value, done } = await this.#reader.read();
        if (done) return;
        this.#chunk = value as Uint8Array<ArrayBuffer>;
      }
      const count = Math.min(this.#chunk.length, end - this.#at);
      await output.write(this.#chunk.subarray(0, count));
      this.#chunk = this.#chunk.subarray(count);
      this.#at += count;
    }
  }

  /** Closes the file. Failures to read have already been thrown. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader.cancel().catch(() => {});
  }
}
