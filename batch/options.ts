import { checkedFunc, type Task, type TaskRef } from "../job.ts";
import { Checks, MEMORY_LIMITS, MOST_WORKERS, show } from "../pool/checks.ts";
import { CORES } from "../worker/platform.ts";
import type { BatchInput } from "./inputs.ts";
import type { BatchProgress } from "./progress.ts";
import type { InputFormat, OutputFormat } from "./range.ts";

/** A task for {@linkcode batch}: a function, a task of a module, or the address of a module whose default export or only function it is. */
// deno-lint-ignore no-explicit-any -- whatever the input holds
export type BatchTask = Task<[record: any], unknown> | TaskRef<[record: any], unknown> | string | URL;

/** When a batch gives up: never, after this many records have failed, or when more than this share has. */
export type BatchHalt = "never" | number | `${number}%`;

/** Options of {@linkcode batch}. */
export interface BatchOptions {
  /** What to read: a path, a glob, `"-"` for standard input, or a stream of bytes; one, or a list. Gzip is decompressed. */
  input: BatchInput | readonly BatchInput[];
  /**
   * Where results go: a path, compressed if it ends in `.gz`; `"-"` for standard output; or a stream, which is closed at the end.
   */
  output: string | URL | WritableStream<Uint8Array<ArrayBuffer>>;
  /**
   * The format of records: `"ndjson"`, one JSON value per line; `"lines"`, plain text; `"csv"`, where the first row names the fields,
   * parsed by `npm:papaparse@5.7.1`, which is downloaded at first use.
   *
   * @default {by the name of the first input: .csv and .tsv, .txt and .log, else NDJSON}
   */
  inputFormat?: InputFormat | undefined;
  /**
   * How results are written, one per line: as JSON, or as they are, which must be strings. There is no line for undefined.
   *
   * @default {by the name of the output: "lines" for .txt, else "ndjson"}
   */
  outputFormat?: OutputFormat | undefined;
  /**
   * The file for records that fail, one JSON object per line.
   *
   * @default {the output's path plus ".errors.ndjson"; none if the output has no path}
   */
  errors?: string | URL | undefined;
  /**
   * Whether results are in the order of the records.
   *
   * @default {true}
   */
  ordered?: boolean | undefined;
  /**
   * The number of workers.
   *
   * @default {navigator.hardwareConcurrency}
   */
  workers?: number | undefined;
  /**
   * How many bytes of the input a worker takes at a time: at least 1024.
   *
   * @default {as many as take about 100 ms, at most 1 MiB}
   */
  chunk?: number | undefined;
  /**
   * How long one record may run, each time it is run: milliseconds, or a percentage of the median of earlier records, such as `"500%"`, but
   * at least 100 ms, once 50 are done in this run. With a limit, workers are of the backend `killable`.
   *
   * @default {Infinity}
   */
  timeout?: number | `${number}%` | undefined;
  /**
   * How much heap a worker may have, in MB: 16 to 65,536. With a limit, workers are of the backend `killable`; without one, and without a
   * `timeout`, a full heap ends the program.
   *
   * @default {undefined}
   */
  memoryLimit?: number | undefined;
  /**
   * How often a failed record is run again, whatever the failure, unless it cannot be parsed.
   *
   * @default {0}
   */
  retries?: number | undefined;
  /**
   * When to give up: `"never"`, after this many failed records, or when more than a share such as `"5%"` of at least 100 records has
   * failed. What is done is kept, and the batch can be resumed.
   *
   * @default {"never"}
   */
  halt?: BatchHalt | undefined;
  /**
   * What workers may do beyond reading the inputs and the task's modules. This needs `--unstable-worker-options`, or
   * `"unstable": ["worker-options"]` in deno.json; without it Deno ends the whole program with exit code 70. `"inherit"`, the permissions
   * of this thread, works without it.
   *
   * @default {no more}
   */
  permissions?: "inherit" | Deno.PermissionOptionsObject | undefined;
  /**
   * Whether to go on where an earlier batch with the same input, task and options ended; if there was none, it begins.
   *
   * @default {false}
   */
  resume?: boolean | undefined;
  /**
   * Whether to replace an existing output, and what an earlier batch left.
   *
   * @default {false}
   */
  overwrite?: boolean | undefined;
  /**
   * Whether to run the task just on the records in the errors file, and to insert their results where they belong in the output.
   *
   * @default {false}
   */
  retryFailed?: boolean | undefined;
  /**
   * How many records to run: only the first ones, in order and by one worker. The output cannot be a file then.
   *
   * @default {Infinity}
   */
  limit?: number | undefined;
  /**
   * Where a report of the run goes, as one page of HTML. A run that is stopped, halted, or cannot go on has a report, too.
   *
   * @default {undefined}
   */
  report?: string | URL | undefined;
  /**
   * Ends the batch in an orderly way when it aborts: what is done is kept, and the batch can be resumed.
   *
   * @default {undefined}
   */
  signal?: AbortSignal | undefined;
  /**
   * Called with the progress twice a second, and once at the end; not with `retryFailed`. What it throws, or rejects with, ends the batch.
   * A promise that it returns at the end is waited for.
   *
   * @default {undefined}
   */
  onProgress?: ((progress: BatchProgress) => unknown) | undefined;
}

/** The options of a batch, checked and complete. */
export interface ResolvedBatch {
  task: Task | TaskRef;
  inputs: readonly BatchInput[];
  output: string | URL | WritableStream<Uint8Array<ArrayBuffer>>;
  inputFormat: InputFormat | undefined;
  outputFormat: OutputFormat | undefined;
  errors: string | URL | undefined;
  ordered: boolean;
  workers: number;
  chunk: number | undefined;
  timeout: TimeLimit;
  memoryLimit: number | undefined;
  retries: number;
  halt: HaltLimit;
  permissions: "inherit" | Deno.PermissionOptionsObject;
  mode: "begin" | "resume" | "overwrite" | "retry-failed";
  limit: number;
  report: string | URL | undefined;
  signal: AbortSignal | undefined;
  onProgress: ((progress: BatchProgress) => unknown) | undefined;
}

/** How long a record may run: milliseconds, or a multiple of the median. */
export type TimeLimit = { ms: number } | { ofMedian: number };

/** This many failed records, or more than this share of all. */
export interface HaltLimit {
  failed: number;
  share: number;
}

const ACTION = "run batch";

const OPTIONS = [
  "input",
  "output",
  "inputFormat",
  "outputFormat",
  "errors",
  "ordered",
  "workers",
  "chunk",
  "timeout",
  "memoryLimit",
  "retries",
  "halt",
  "permissions",
  "resume",
  "overwrite",
  "retryFailed",
  "limit",
  "report",
  "signal",
  "onProgress",
] as const;

/** Smaller, and a worker spends its time asking for more. */
const SMALLEST_CHUNK = 1024;

/** Checks and completes the options; the caller's object is left as it is. */
export function resolveBatchOptions(task: BatchTask, options: BatchOptions): ResolvedBatch {
  const checks = new Checks(ACTION);
  const given = checks.options(options, OPTIONS);
  const {
    input,
    output,
    inputFormat,
    outputFormat,
    errors,
    ordered = true,
    workers = CORES,
    chunk,
    timeout = Infinity,
    memoryLimit,
    retries = 0,
    halt = "never",
    permissions = {},
    resume = false,
    overwrite = false,
    retryFailed = false,
    limit = Infinity,
    report,
    signal,
    onProgress,
  } = given;
  const inputs = Array.isArray(input) ? input as BatchInput[] : [input as BatchInput];
  checkInputs(inputs);
  checkOutput(output);
  for (const [name, value] of Object.entries({ errors, report })) {
    // For input and output "-" is a standard stream: here it would be a file of that name, which nobody expects.
    if (value === undefined || isFile(value) && value !== "-") continue;
    throw new TypeError(`Cannot ${ACTION} as '${name}' must be a path or a URL of a file: current value is ${showFile(value)}`);
  }
  if (inputFormat !== undefined) checks.oneOf("inputFormat", inputFormat, ["ndjson", "lines", "csv"]);
  if (outputFormat !== undefined) checks.oneOf("outputFormat", outputFormat, ["ndjson", "lines"]);
  for (const [name, value] of Object.entries({ ordered, resume, overwrite, retryFailed })) checks.boolean(name, value);
  checks.wholeNumber("workers", workers, { max: MOST_WORKERS });
  if (chunk !== undefined) checks.wholeNumber("chunk", chunk, { min: SMALLEST_CHUNK });
  if (memoryLimit !== undefined) checks.wholeNumber("memoryLimit", memoryLimit, MEMORY_LIMITS);
  checks.wholeNumber("retries", retries, { min: 0 });
  if (limit !== Infinity) checks.wholeNumber("limit", limit);
  if (signal !== undefined) checks.signal("signal", signal);
  if (onProgress !== undefined) checks.callable("onProgress", onProgress);
  if (permissions !== "inherit") checks.object("permissions", permissions, { or: '"inherit"' });
  const mode = modeOf({ resume, overwrite, retryFailed }, { output, limit });
  if (limit !== Infinity && isPath(output)) {
    throw new TypeError(`Cannot ${ACTION} as 'limit' needs an 'output' that is no file: current value is ${showFile(output)}`);
  }
  return {
    task: resolveTask(task),
    inputs,
    output,
    inputFormat,
    outputFormat,
    errors,
    ordered: ordered || limit !== Infinity,
    workers: limit === Infinity ? workers : 1,
    chunk,
    timeout: timeLimit(checks, timeout),
    memoryLimit,
    retries,
    halt: haltLimit(checks, halt),
    permissions,
    mode,
    limit,
    report,
    signal,
    onProgress,
  };
}

function checkInputs(inputs: readonly BatchInput[]): void {
  if (inputs.length === 0) throw new TypeError(`Cannot ${ACTION} as 'input' must not be empty: current value is ${show(inputs)}`);
  for (const each of inputs) {
    if (isFile(each) || each instanceof ReadableStream) continue;
    throw new TypeError(
      `Cannot ${ACTION} as 'input' must be a path, a URL of a file, a stream, or a list of them: current value is ${showFile(each)}`,
    );
  }
  const streams = inputs.filter((each) => each === "-" || each instanceof ReadableStream);
  if (new Set(streams).size < streams.length) {
    throw new TypeError(`Cannot ${ACTION} as 'input' must name a stream, or the standard input, once: it is read to its end`);
  }
  if (inputs.some((each) => each instanceof ReadableStream && each.locked)) {
    throw new TypeError(`Cannot ${ACTION} as 'input' must be a stream that nobody else reads: it is locked`);
  }
}

function checkOutput(output: ResolvedBatch["output"]): void {
  if (!(isFile(output) || output instanceof WritableStream)) {
    throw new TypeError(`Cannot ${ACTION} as 'output' must be a path, a URL of a file or a stream: current value is ${showFile(output)}`);
  }
  if (output instanceof WritableStream && output.locked) {
    throw new TypeError(`Cannot ${ACTION} as 'output' must be a stream that nobody else writes to: it is locked`);
  }
}

/** The options that say what to do about an earlier batch, and what a batch with one of them does. */
const MODES = { resume: "resume", overwrite: "overwrite", retryFailed: "retry-failed" } as const;

function modeOf(
  chosen: Record<keyof typeof MODES, boolean>,
  { output, limit }: Pick<ResolvedBatch, "output" | "limit">,
): ResolvedBatch["mode"] {
  const [name, second] = (Object.keys(MODES) as (keyof typeof MODES)[]).filter((name) => chosen[name]);
  if (name === undefined) return "begin";
  const other = second ?? (limit === Infinity ? undefined : "limit");
  if (other !== undefined) throw new TypeError(`Cannot ${ACTION} as '${name}' and '${other}' exclude each other: leave one of them out`);
  if (!isPath(output)) {
    throw new TypeError(`Cannot ${ACTION} as '${name}' needs an 'output' that is a file: current value is ${showFile(output)}`);
  }
  return MODES[name];
}

/** Whether results go to a file, so that the batch can be resumed. */
export function isPath(output: ResolvedBatch["output"]): output is string | URL {
  return output !== "-" && !(output instanceof WritableStream);
}

function isFile(value: unknown): value is string | URL {
  return value instanceof URL ? value.protocol === "file:" : typeof value === "string" && value !== "";
}

function showFile(value: unknown): string {
  return show(value instanceof URL ? value.href : value);
}

function resolveTask(task: BatchTask): Task | TaskRef {
  if (typeof task !== "string" && !(task instanceof URL)) return checkedFunc(ACTION, "task", task);
  return { module: task, name: "" };
}

/** Matches a percentage, and takes its number. */
const SHARE = /^(\d+(?:\.\d+)?)%$/;

function timeLimit(checks: Checks, timeout: unknown): TimeLimit {
  const [, share] = SHARE.exec(String(timeout)) ?? [];
  if (typeof timeout === "string" && Number(share) > 0) return { ofMedian: Number(share) / 100 };
  if (typeof timeout === "string") {
    throw new TypeError(
      `Cannot ${ACTION} as 'timeout' must be a number of milliseconds or a share such as "500%": current value is ${show(timeout)}`,
    );
  }
  return { ms: checks.milliseconds("timeout", timeout, { infinite: true }) };
}

function haltLimit(checks: Checks, halt: unknown): HaltLimit {
  if (halt === "never") return { failed: Infinity, share: 1 };
  const [, share] = SHARE.exec(String(halt)) ?? [];
  if (typeof halt === "string" && Number(share) <= 100) return { failed: Infinity, share: Number(share) / 100 };
  if (typeof halt === "string") {
    throw new TypeError(
      `Cannot ${ACTION} as 'halt' must be "never", a number of records or a share such as "5%": current value is ${show(halt)}`,
    );
  }
  return { failed: checks.wholeNumber("halt", halt), share: 1 };
}
