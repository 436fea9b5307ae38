import { type LoggedPaths, removeEmpty } from "./earlier_run.ts";
import { explainStorage } from "./errors.ts";
import { ErrorsFile, errorsState } from "./errors_file.ts";
import { Failures } from "./failures.ts";
import type { FoundLog, JobLog, LogEntry } from "./job_log.ts";
import { isCompressed, NOTHING_WRITTEN, openOutput, type Output, partialOf, renameForGood } from "./output.ts";
import type { Paths } from "./plan.ts";
import { type ErrorEntry, errorText, isRetryable, readErrors } from "./record_errors.ts";

/** The outcome of a record that was run again. */
export interface Retried {
  output: Uint8Array;
  /** Its error, if it failed again. */
  error: Pick<ErrorEntry, "error" | "attempts"> | undefined;
}

/** What a summary tells of an errors file. */
export class Tally {
  count = 0;
  /** How many of them can be run again. */
  retryable = 0;
  readonly failures = new Failures();

  add(entry: ErrorEntry): void {
    this.count++;
    if (isRetryable(entry)) this.retryable++;
    this.failures.add(entry.error);
  }
}

/** The new output and errors file, under temporary names until both are complete. */
export class Merge implements AsyncDisposable {
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
