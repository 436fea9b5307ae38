import type { TaskRef } from "../job.ts";
import { type Complaint, expressionOf } from "../worker/function_text.ts";
import { hashOf, joined } from "./bytes.ts";
import { BatchError, explainPath, readAgain } from "./errors.ts";
import type { BatchInput, Source } from "./inputs.ts";
import type { Fingerprint } from "./job_log.ts";
import { isPath, type ResolvedBatch } from "./options.ts";
import { ifThere, resolve, toFileUrl } from "./paths.ts";
import { delimiterOf } from "./csv.ts";
import type { InputFormat, OutputFormat } from "./range.ts";
import { taskParts } from "./task_files.ts";

/** A task, and how it reaches its workers. */
export interface PreparedTask {
  /** The module as the user named it; undefined for a function that is sent as text. */
  module: string | undefined;
  name: string | undefined;
  /** The module that makes it known to a worker. */
  source: { module: string } | { text: string };
  /** The local files that it consists of. */
  files: string[];
  /** The hosts from which these import. */
  hosts: string[];
  hash: string;
}

const COMPLAINT: Complaint = {
  cannot: "Cannot run batch as its task",
  advice: "export a function from a module, and give the module's address",
};

/**
 * Examines a task without running any of it.
 *
 * @throws {BatchError} If there is no such module.
 * @throws {TypeError} If a function cannot be sent to workers.
 */
export async function prepareTask(task: ResolvedBatch["task"]): Promise<PreparedTask> {
  if (typeof task === "function") {
    const text = Function.prototype.toString.call(task);
    const hash = await hashOf(new TextEncoder().encode(text));
    return { module: undefined, name: undefined, source: { text: expressionOf(task, text, COMPLAINT) }, files: [], hosts: [], hash };
  }
  const { module, name } = task as TaskRef;
  const given = String(module);
  const url = /^[a-z][a-z+.-]+:/i.test(given) ? new URL(given).href : toFileUrl(resolve(given)).href;
  const shown = url.startsWith("file:") ? given : url;
  if (url.startsWith("file:")) {
    try {
      await Deno.stat(new URL(url));
    } catch (error) {
      throw explainPath(error, `task module '${shown}'`, { flag: `--allow-read=${shown}` });
    }
  }
  const { files, hosts } = await taskParts(url);
  const hash = await hashOf(files.size === 0 ? new TextEncoder().encode(url) : joined([...files.values()]));
  return {
    module: shown,
    name: name === "" ? undefined : name,
    source: { module: url },
    files: [...files.keys()],
    hosts: [...hosts],
    hash,
  };
}

/**
 * Makes a check that the files of a task are unchanged: a worker that replaces another loads them anew, and results of two versions would
 * end up in one output. Calling it often is cheap: files are read again only if the system reports a change.
 *
 * @returns The check, which rejects with a {@linkcode BatchError} if they have changed.
 */
export function taskCheck({ module, files, hash }: PreparedTask): () => Promise<void> {
  let known: string | undefined;
  return async () => {
    const found = await Promise.all(files.map((file) => Deno.stat(file).catch(() => undefined)));
    const now = found.map((info) => `${info?.mtime?.getTime()} ${info?.size} ${info?.ino}`).join();
    if (files.length === 0 || now === known) return;
    // Only files that existed at the start: what is loaded may make others.
    const contents = await Promise.all(files.map(contentNow));
    if (await hashOf(joined(contents)) !== hash) {
      throw new BatchError(
        `Cannot go on as the task module '${module}', or what it imports, was changed while it ran, and workers may have either version: ` +
          "put the original back",
        { resumable: true },
      );
    }
    known = now;
  };
}

/** The content of a part of a task; nothing if it was removed. */
async function contentNow(file: string): Promise<Uint8Array> {
  return await readAgain(ifThere(Deno.readFile(file)), `'${file}', a part of the task,`) ?? new Uint8Array();
}

/** The formats of a batch. */
export interface Formats {
  input: InputFormat;
  output: OutputFormat;
  delimiter: string;
}

/** The format of an input according to its name, in upper or lower case, as on Windows. */
function formatOf(name: string): InputFormat {
  const plain = name.replace(/\.gz$/i, "");
  return /\.[ct]sv$/i.test(plain) ? "csv" : /\.(txt|log)$/i.test(plain) ? "lines" : "ndjson";
}

/**
 * The format of the inputs, according to the first, and of the results.
 *
 * @throws {BatchError} If the inputs differ in format.
 */
export function formatsOf({ inputFormat, output, outputFormat }: ResolvedBatch, inputs: readonly BatchInput[]): Formats {
  const names = inputs.map((input) => input instanceof ReadableStream ? "stream" : String(input));
  const [first] = names as [string];
  const format = inputFormat ?? formatOf(first);
  const delimiter = delimiterOf(first);
  const other = names.find((name) => delimiterOf(name) !== delimiter);
  if (format === "csv" && other !== undefined) {
    throw new BatchError(
      `Cannot run batch as '${first}' and '${other}' have different delimiters: run them separately`,
    );
  }
  const lines = isPath(output) && /\.txt(\.gz)?$/i.test(String(output));
  return { input: format, output: outputFormat ?? (lines ? "lines" : "ndjson"), delimiter };
}

/** What must be the same for a batch to be resumed. */
export function fingerprintOf(
  { task, sources, formats, ordered, errors }: {
    task: PreparedTask;
    sources: readonly Source[];
    formats: Formats;
    ordered: boolean;
    errors: string;
  },
): Fingerprint {
  return {
    version: 1,
    inputs: sources.map(({ name, seen: { size, changed, sample } = { size: null, changed: null, sample: null } }) => ({
      path: name,
      size,
      changed,
      sample,
    })),
    task: { module: task.module ?? "a function", name: task.name ?? null, hash: task.hash },
    options: { inputFormat: formats.input, outputFormat: formats.output, ordered },
    errors,
  };
}
