import { BatchError, explained } from "./errors.ts";
import type { Source } from "./inputs.ts";
import { loggedErrors } from "./job_log.ts";
import { isPath, type ResolvedBatch } from "./options.ts";
import type { BatchRecorder } from "./recorder.ts";
import { errorsOf, logOf, partialOf } from "./output.ts";
import { dirname, followed, identityOf, ifThere, resolve } from "./paths.ts";
import type { Formats, PreparedTask } from "./prepare.ts";

/** Everything known of a batch before it begins. */
export interface Plan {
  options: ResolvedBatch;
  formats: Formats;
  task: PreparedTask;
  sources: Source[];
  /** Gathers what a report shows; undefined without a report. */
  recorder: BatchRecorder | undefined;
}

/** The files of a batch. */
export interface Paths {
  output: string;
  partial: string;
  log: string;
  errors: string;
  /** The output as the user named it. */
  name: string;
}

/** The name of the folder with the output and the job log, for messages. */
export function folderOf({ name }: Paths): string {
  return `folder of the output '${name}'`;
}

/**
 * Replaces links given as output and errors file by the files to which they lead: what grows beside a file must be in the same folder, and
 * a link must not be replaced by a file.
 *
 * @throws {BatchError} If one is not a file but a folder, a device or a pipe.
 */
export async function followLinks(options: ResolvedBatch): Promise<ResolvedBatch> {
  const output = isPath(options.output) ? await fileOf("output", options.output) : options.output;
  const errors = options.errors ?? (isPath(output) ? errorsOf(resolve(output)) : undefined);
  return {
    ...options,
    output,
    errors: errors === undefined ? undefined : await fileOf("errors file", errors),
    // A task may change the current folder of the whole program.
    report: options.report && resolve(options.report),
  };
}

async function fileOf(what: string, given: string | URL): Promise<string | URL> {
  const path = resolve(given);
  // By the given path: what an open pipe such as /dev/stdout links to is no path.
  const look = async () => ({ file: await followed(path), info: await ifThere(Deno.stat(path)) });
  const { file, info } = await explained(look, `${what} '${given}'`, { flag: `--allow-read=${given}` });
  if (info === undefined || info.isFile) return file === path ? given : file;
  throw new BatchError(`Cannot run batch as the ${what} '${given}' is ${info.isDirectory ? "a folder" : "no regular file"}: name a file`);
}

/** The files of a batch whose output is a file. */
export function pathsOf({ output, errors }: ResolvedBatch): Paths {
  const path = resolve(output as string | URL);
  return {
    output: path,
    partial: partialOf(path),
    log: logOf(path),
    errors: resolve(errors ?? errorsOf(path)),
    name: output instanceof URL ? path : output as string,
  };
}

/**
 * The identities of the files that an earlier run to the same output left: a glob does not match them. Without a job log there was no such
 * run, and a file with one of these names is someone else's.
 */
export async function leftBefore({ report }: ResolvedBatch, paths: Paths): Promise<Set<string>> {
  if (await sizeOf(paths.log) === undefined) return new Set();
  const { output, partial, log, errors } = paths;
  const logged = await loggedErrors(log);
  const earlier = logged === undefined ? [] : [resolve(logged, dirname(output))];
  const files = [output, partial, log, ...[errors, ...earlier].flatMap((path) => [path, partialOf(path)])];
  if (report !== undefined) files.push(resolve(report));
  return new Set(await Promise.all(files.map(identityOf)));
}

/**
 * Checks that no file of a batch has two roles, under any names; otherwise an input could be lost.
 *
 * @throws {BatchError} If one has two.
 */
export async function checkDistinct({ options: { errors, report }, sources, task }: Plan, paths: Paths | undefined): Promise<void> {
  const errorsPath = paths?.errors ?? (errors && resolve(errors));
  const files: [what: string, path: string | undefined][] = [
    ...sources.map(({ path }): [string, string | undefined] => ["an input", path]),
    ...task.files.map((path): [string, string] => ["a part of the task", path]),
    ["the output", paths?.output],
    ["the output, as it grows", paths?.partial],
    ["the job log", paths?.log],
    ["the errors file", errorsPath],
    ["the errors file, as it is replaced", errorsPath && partialOf(errorsPath)],
    ["the report", report && resolve(report)],
  ];
  const known = new Map<string, [what: string, path: string]>();
  for (const [what, path] of files) {
    if (path === undefined) continue;
    const identity = await identityOf(path);
    const [other, otherPath] = known.get(identity) ?? [what, path];
    // Giving the same input twice does no harm.
    if (other !== what) {
      throw new BatchError(
        path === otherPath
          ? `Cannot run batch as '${path}' is ${other} and ${what}`
          : `Cannot run batch as '${otherPath}', ${other}, and '${path}', ${what}, are the same file`,
      );
    }
    known.set(identity, [what, path]);
  }
}

/** A file's size; undefined if there is none. */
export async function sizeOf(path: string): Promise<number | undefined> {
  const info = await explained(() => ifThere(Deno.stat(path)), `file '${path}'`, { flag: "--allow-read" });
  return info?.size;
}
