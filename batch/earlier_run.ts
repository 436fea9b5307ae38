/**
 * What an earlier run to the same output has left: its job log, and what that says of the files beside it.
 *
 * @module
 */

import { BatchError, explained, WRITING } from "./errors.ts";
import { completeErrors, errorsState } from "./errors_file.ts";
import { differences, type Fingerprint, type FoundLog, type JobLog, type LogEntry } from "./job_log.ts";
import { finishedLength, partialOf, renameForGood } from "./output.ts";
import { dirname, resolve } from "./paths.ts";
import { folderOf, type Paths, sizeOf } from "./plan.ts";

/** The files of a batch, to none of which anyone else can write while its job log is open. */
export interface LoggedPaths {
  paths: Paths;
  log: JobLog;
}

/** The job log of an earlier run that can go on; undefined if there was none. */
export async function foundToResume({ paths, log }: LoggedPaths, fingerprint: Fingerprint): Promise<FoundLog | undefined> {
  const found = await settledLog({ paths, log });
  if (found === undefined) {
    await refuseExisting({ paths, log });
    return undefined;
  }
  const changed = differences(found.fingerprint, fingerprint);
  if (changed.length > 0) {
    throw new BatchError(`Cannot resume '${paths.name}' as ${changed.join(", and ")}: go on as it was, or begin anew with '--overwrite'`);
  }
  refuseOtherErrors("resume", { paths, found });
  const { last } = found;
  if (last?.stage === "finished") {
    await refuseChangedOutput("resume", { paths, last });
    return found;
  }
  const partial = await sizeOf(paths.partial);
  const length = last?.output.length ?? 0;
  if ((partial ?? 0) < length) {
    throw new BatchError(
      `Cannot resume '${paths.name}' as '${paths.name}.partial' has ${partial ?? 0} bytes, but its job log says ${length}: ` +
        "begin anew with '--overwrite'",
    );
  }
  const errors = await sizeOf(paths.errors) ?? 0;
  if (errors < (last?.errors ?? 0)) {
    throw new BatchError(
      `Cannot resume '${paths.name}' as the errors file '${paths.errors}' has ${errors} bytes, but the job log says ${last!.errors}: ` +
        "begin anew with '--overwrite'",
    );
  }
  return found;
}

/** Refuses to begin where there is an output, or what an unfinished run has left. */
export async function refuseExisting({ paths, log }: LoggedPaths): Promise<void> {
  const found = await log.read();
  const last = found?.last;
  if (last?.stage === "finished") await refuseChangedOutput("run batch", { paths, last });
  else if (await sizeOf(paths.partial) !== undefined || found !== undefined && await sizeOf(paths.output) === undefined) {
    const how = found === undefined
      ? ", and its job log is not there: begin anew with '--overwrite'"
      : ": go on with '--resume', or begin anew with '--overwrite'";
    throw new BatchError(`Cannot run batch as an earlier run to '${paths.name}' was not finished${how}`);
  }
  // Without a job log there is nothing to resume.
  const orResume = found === undefined ? "" : ", or go on with '--resume'";
  for (const [what, path, name] of [["output", paths.output, paths.name], ["errors file", paths.errors, paths.errors]] as const) {
    const size = await sizeOf(path);
    // A run that was killed as it began has left an empty errors file.
    if (size === undefined || size === 0 && path === paths.errors) continue;
    throw new BatchError(`Cannot run batch as the ${what} '${name}' exists: replace it with '--overwrite'${orResume}`);
  }
}

/** Refuses a foreign file that happens to have the name of the job log: '--overwrite' does not mean that one. */
export async function refuseForeign({ paths, log }: LoggedPaths): Promise<void> {
  if (!await log.isForeign()) return;
  throw new BatchError(
    `Cannot run batch as '${paths.log}' is no job log of a batch, and that of the output '${paths.name}' would replace it: ` +
      "move it away, or give the output another name",
  );
}

/**
 * Checks that the errors file is the one with which the run began: another has nothing to do with its output.
 *
 * @throws {BatchError} If it is a different one.
 */
export function refuseOtherErrors(action: string, { paths, found }: { paths: Paths; found: FoundLog }): void {
  const { errors } = found.fingerprint;
  const was = errors === undefined ? paths.errors : resolve(errors, dirname(paths.output));
  if (was === paths.errors) return;
  throw new BatchError(
    `Cannot ${action} '${paths.name}' as its errors file is '${was}', and not '${paths.errors}': name that one with '--errors', or begin anew with '--overwrite'`,
  );
}

/**
 * Checks that the output of a finished run is still there: so nothing is inserted into another file, nor is another taken for the output.
 *
 * @throws {BatchError} If its size differs.
 */
export async function refuseChangedOutput(action: string, { paths, last }: { paths: Paths; last: LogEntry }): Promise<void> {
  const size = await sizeOf(paths.output);
  const { length } = last.output;
  if (size === length) return;
  throw new BatchError(
    `Cannot ${action} as the output '${paths.name}' ${size === undefined ? "is not there" : `has ${size} bytes`}, ` +
      `but the job log of its complete run says ${length} bytes: put the original back, or begin anew with '--overwrite'`,
  );
}

/** Reads the job log, after finishing what a crash has cut short: a merge, or the end of a run whose output already has its name. */
export async function settledLog(logged: LoggedPaths): Promise<FoundLog | undefined> {
  return await explained(() => settled(logged), foldersOf(logged.paths), WRITING);
}

async function settled({ paths, log }: LoggedPaths): Promise<FoundLog | undefined> {
  const found = await log.read();
  if (found?.last === undefined || found.last.stage === "finished") return found;
  const { last } = found;
  if (last.stage !== "merging" && !await isRenamed(paths, last)) return found;
  await log.goOn(found.length);
  if (last.stage === "merging") {
    if (await sizeOf(paths.partial) !== undefined) await renameForGood(paths.partial, paths.output);
    if (await sizeOf(partialOf(paths.errors)) !== undefined) await renameForGood(partialOf(paths.errors), paths.errors);
    await removeEmpty(paths.errors);
  } else await numberErrors(paths, found);
  const output = { ...last.output, length: finishedLength(paths.output, last.output.length) };
  await log.append({ ...last, output, done: [], ...await errorsState(paths.errors), stage: "finished" });
  return await log.read();
}

/** Whether the output of a run is complete, and has its name. */
async function isRenamed({ partial, output }: Paths, { output: { length } }: LogEntry): Promise<boolean> {
  return await sizeOf(partial) === undefined && await sizeOf(output) === finishedLength(output, length);
}

/** Completes the errors file of a run that was killed after the rename of its output. */
async function numberErrors({ errors, name }: Paths, { last, coverages, fingerprint: { inputs } }: FoundLog): Promise<void> {
  const length = await sizeOf(errors);
  if (length === undefined) {
    if (last!.errors === 0) return;
    throw new BatchError(
      `Cannot complete '${name}' as the errors file '${errors}' is not there, but the job log says ${last!.errors} bytes: ` +
        "put it back, or begin anew with '--overwrite'",
    );
  }
  await completeErrors(errors, { length, inputs: inputs.map(({ path }) => path), coverages });
}

/** What is written to, in messages. */
export function foldersOf(paths: Paths): string {
  return `${folderOf(paths)}, or of its errors file`;
}

/** Removes a file if there is nothing in it. */
export async function removeEmpty(path: string): Promise<void> {
  if (await sizeOf(path) === 0) await Deno.remove(path);
}
