import { Kinds } from "../report/kinds.ts";
import { BatchError, explainPath } from "./errors.ts";
import { writeErrors } from "./files.ts";
import { type FoundLog, JobLog, type LogEntry, readLog } from "./job_log.ts";
import { NOTHING_WRITTEN, openOutput, type Output, partialOf } from "./output.ts";
import { writeReport } from "./page.ts";
import { createPool, type Paths, type Plan, sizeOf, speedOf, summaryOf } from "./plan.ts";
import { type BatchSummary, quantilesOf } from "./progress.ts";
import type { InputFormat, OutputFormat } from "./range_runner.ts";
import { type ErrorEntry, parseErrors, parseMembers, readError } from "./record_errors.ts";
import { BatchRun, type DonePart, type Part } from "./run.ts";

/** What came of a record that was run again. */
interface Retried {
  output: Uint8Array;
  /** What it failed with this time. */
  error: Pick<ErrorEntry, "error" | "attempts"> | undefined;
}

/**
 * Runs the task on the records of the errors file, and puts their results where they belong in the output. Output and errors file are replaced
 * together: when both are complete, a line in the job log says so, and whoever finds that line after a crash has only to rename them.
 *
 * @throws {BatchError} If there is no batch that is through.
 */
export async function retryFailed(plan: Plan, paths: Paths): Promise<BatchSummary> {
  const found = await settledLog(paths);
  if (found === undefined) {
    throw new BatchError(`Cannot retry as there is no job log '${paths.name}.log': run the batch first, without '--retry-failed'`);
  }
  const last = found.entries.at(-1);
  if (last?.stage !== "finished") {
    throw new BatchError(`Cannot retry as the run to '${paths.name}' was not finished: go on with '--resume'`);
  }
  const entries = last.failed === 0 ? [] : await readErrors(paths.errors);
  const { inputFormat, outputFormat } = found.fingerprint.options as { inputFormat: InputFormat; outputFormat: OutputFormat };
  const begin = performance.now();
  plan.recorder?.begin();
  const retried = new Map<ErrorEntry, Retried>();
  const { run, pool } = runAgain({ ...plan, formats: { ...plan.formats, input: inputFormat, output: outputFormat } }, entries, retried);
  let outcome: BatchSummary["outcome"];
  try {
    outcome = await run.run();
  } finally {
    await pool.terminate();
  }
  // Nothing is copied for nothing.
  const left = retried.size === 0 ? entries : await merge({ paths, found, last, entries, retried });
  const wall = performance.now() - begin;
  plan.recorder?.sample(run.counts);
  const errors = new Kinds();
  for (const { error: { name, message } } of left) errors.add(name, () => message);
  const summary: BatchSummary = {
    ...summaryOf(plan, paths),
    ...speedOf({ records: run.counts.records, busy: run.counts.busy, wall, workers: plan.options.workers }),
    ...quantilesOf(run.times),
    outcome,
    records: last.records,
    failed: left.length,
    errorNames: errors.get().map(({ kind, count }) => [kind, count]),
    denied: [...new Set(left.flatMap((entry) => deniedBy(entry) ?? []))],
    errors: left.length > 0 ? paths.errors : undefined,
  };
  await writeReport(plan, { summary, times: run.times, errors: errors.get(), run: run.counts.records });
  return summary;
}

/** What failed, in the order of the output. */
async function readErrors(path: string): Promise<ErrorEntry[]> {
  let bytes: Uint8Array;
  try {
    bytes = await Deno.readFile(path);
  } catch (error) {
    throw explainPath(error, `errors file '${path}'`, { flag: `--allow-read=${path}` });
  }
  try {
    return parseErrors(bytes).sort((a, b) => a.position - b.position);
  } catch (error) {
    throw new BatchError(`Cannot retry as the errors file '${path}' is damaged: ${(error as Error).message}`, { cause: error });
  }
}

function deniedBy({ error }: ErrorEntry): string | undefined {
  return readError(new TextEncoder().encode(`,"error":${JSON.stringify(error)}`)).denied;
}

/** Each record as a part of its own. One that could not be parsed is the same as ever, and is left as it is, as is one that was not kept whole. */
function runAgain(
  plan: Plan,
  entries: ErrorEntry[],
  retried: Map<ErrorEntry, Retried>,
): { run: BatchRun; pool: ReturnType<typeof createPool> } {
  const again = entries.filter(({ error, truncated }) => error.name !== "ParseError" && !truncated);
  const pool = createPool(plan);
  async function* parts(): AsyncGenerator<Part> {
    for (const [index, { record, header }] of again.entries()) {
      const bytes = new TextEncoder().encode(`${record}\n`);
      // Not at 0, where a byte order mark would be no part of the record.
      const [start, end] = [1, 1 + bytes.length];
      yield await Promise.resolve({ source: 0, index, start, end, piece: { bytes, offset: start, end, header } });
    }
  }
  const consumer = {
    take({ index, output, errors }: DonePart): void {
      const entry = again[index]!;
      const [failed] = errors.map(({ members }) => parseMembers(members));
      const error = failed && { error: failed.error, attempts: entry.attempts + failed.attempts };
      retried.set(entry, { output: output.slice(), error });
    },
    save: () => Promise.resolve(),
  };
  const { options, recorder } = plan;
  const run: BatchRun = new BatchRun({
    pool,
    parts: parts(),
    consumer,
    options,
    onTick: () => recorder?.sample(run.counts),
    onRange: recorder && ((range) => recorder.range(range)),
  });
  return { pool, run };
}

/** Writes output and errors file anew; returns what is left of the errors. */
async function merge(
  { paths, found, last, entries, retried }: {
    paths: Paths;
    found: FoundLog;
    last: LogEntry;
    entries: ErrorEntry[];
    retried: Map<ErrorEntry, Retried>;
  },
): Promise<ErrorEntry[]> {
  const left: ErrorEntry[] = [];
  using log = await JobLog.reopen(paths.log, found.length);
  const output = await openOutput(paths.output, { partial: paths.partial, state: NOTHING_WRITTEN });
  try {
    const copy = await copier(paths.output, output);
    for (const entry of entries) {
      await copy(entry.position);
      const again = retried.get(entry);
      const position = output.position;
      await output.write(again?.output ?? new Uint8Array());
      if (again === undefined || again.error !== undefined) left.push({ ...entry, ...again?.error, position });
    }
    await copy(Infinity);
    await writeErrors(partialOf(paths.errors), left);
    const entry: LogEntry = { ...last, done: [], output: output.state, errors: 0, failed: left.length };
    await output.finish(() => log.append({ ...entry, stage: "merging" }));
    await renameErrors(paths.errors);
    await log.append({ ...entry, stage: "finished" });
  } catch (error) {
    await output.close().catch(() => {});
    throw error;
  }
  return left;
}

/** Copies what an output held before, up to a byte. */
async function copier(path: string, output: Output): Promise<(end: number) => Promise<void>> {
  const { readable } = await Deno.open(path);
  const stream: ReadableStream<Uint8Array> = path.endsWith(".gz") ? readable.pipeThrough(new DecompressionStream("gzip")) : readable;
  const reader = stream.getReader();
  let chunk = new Uint8Array();
  let at = 0;
  return async (end) => {
    while (at < end) {
      if (chunk.length === 0) {
        const { value, done } = await reader.read();
        if (done) return;
        chunk = value as Uint8Array<ArrayBuffer>;
      }
      const count = Math.min(chunk.length, end - at);
      await output.write(chunk.subarray(0, count));
      chunk = chunk.subarray(count);
      at += count;
    }
  };
}

async function renameErrors(path: string): Promise<void> {
  await Deno.rename(partialOf(path), path);
  if ((await Deno.stat(path)).size === 0) await Deno.remove(path);
}

/** The job log, once a merge is through that a crash has cut short. */
export async function settledLog(paths: Paths): Promise<FoundLog | undefined> {
  const found = await readLog(paths.log);
  const last = found?.entries.at(-1);
  if (found === undefined || last?.stage !== "merging") return found;
  if (await sizeOf(paths.partial) !== undefined) await Deno.rename(paths.partial, paths.output);
  if (await sizeOf(partialOf(paths.errors)) !== undefined) await renameErrors(paths.errors);
  using log = await JobLog.reopen(paths.log, found.length);
  await log.append({ ...last, stage: "finished" });
  return await readLog(paths.log);
}
