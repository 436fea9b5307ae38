import { show, textOf } from "./checks.ts";
import type { OnError } from "./callbacks.ts";
import { realClock } from "./clock.ts";
import type { ObservedJob, ObservedPool, PoolLevels, PoolObserver, WorkerChange } from "./observation.ts";

/** Where a trace goes. */
interface Sink {
  write(text: string): void;
  close(): void | Promise<void>;
}

/**
 * How many characters are written at a time. Fewer, and there is a write for every few jobs; more would be lost if the program is killed.
 */
const WRITTEN_AT_ONCE = 2 ** 16;

/**
 * The shortest time between two values of the counters, in ms. Shorter only makes the trace larger than a viewer can show; longer, and
 * bursts do not show.
 */
const COUNT_EVERY = 1;

/** The numbers of the process and of the calling thread. A worker's first track has the worker's number times {@linkcode TRACKS}. */
const PROCESS = 1, CALLER = 0;

/** How long a submission lasts in the trace, in microseconds: a flow must begin within an event, and two submissions are further apart. */
const POINT = 0.1;

/** Jobs that a worker runs at the same time are on separate tracks. This is the most that a worker has: the last takes what is left. */
const TRACKS = 1000;

const ENDS: ReadonlySet<WorkerChange> = new Set(["closed", "stopped", "died", "failed to start"]);

/**
 * Opens a trace.
 *
 * @throws {TypeError} If it is neither a path nor a stream, or if the stream is locked.
 * @throws {Deno.errors.Busy} If another pool is writing its trace to the file.
 * @throws {Deno.errors.NotCapable} If there is no permission to write the file; other errors if writing fails.
 */
export function openTrace(trace: unknown, onError: OnError): PoolObserver {
  if (trace instanceof WritableStream) {
    if (trace.locked) throw new TypeError("Cannot create pool as 'trace' must not be locked: somebody else writes to the stream");
    return new TraceWriter(new StreamSink(trace.getWriter(), onError));
  }
  if (typeof trace === "string" || trace instanceof URL) return new TraceWriter(new FileSink(openFile(trace)));
  throw new TypeError(`Cannot create pool as 'trace' must be a path or a WritableStream: current value is ${show(trace)}`);
}

function openFile(path: string | URL): Deno.FsFile {
  let file: Deno.FsFile | undefined;
  try {
    file = Deno.openSync(path, { write: true, create: true });
    if (!lockAndEmpty(file)) throw new Deno.errors.Busy("another pool writes its trace to it until that is shut down");
    return file;
  } catch (cause) {
    file?.close();
    if (!(cause instanceof Error)) throw cause;
    const why = cause instanceof Deno.errors.NotCapable ? `run it with --allow-write=${path}` : cause.message;
    const ErrorClass = cause.constructor as new (message: string, options: ErrorOptions) => Error;
    throw new ErrorClass(`Cannot create pool as its 'trace' ${show(String(path))} cannot be written: ${why}`, { cause });
  }
}

/**
 * Locks a file for this pool and empties it; false if another pool has it. On a file system without locks several may write to it.
 */
function lockAndEmpty(file: Deno.FsFile): boolean {
  let isLocked = false;
  try {
    isLocked = file.tryLockSync(true);
    if (!isLocked) return false;
  } catch {
    // It works without a lock.
  }
  try {
    file.truncateSync();
  } catch (error) {
    // A pipe or device cannot be emptied, and several may write to it. Asking what it is would need the permission to read it.
    if (!(error instanceof TypeError)) throw error;
    if (isLocked) file.unlockSync();
  }
  return true;
}

/** Writes synchronously: so the trace holds no memory, and what was written survives if the program is killed. */
class FileSink implements Sink {
  #file: Deno.FsFile;
  #encoder = new TextEncoder();

  constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  write(text: string): void {
    let bytes = this.#encoder.encode(text);
    while (bytes.length > 0) bytes = bytes.subarray(this.#file.writeSync(bytes));
  }

  close(): void {
    this.#file.close();
  }
}

/** Writes to a stream, and reports once if that fails. */
class StreamSink implements Sink {
  #writer: WritableStreamDefaultWriter<Uint8Array>;
  #onError: OnError;
  #encoder = new TextEncoder();
  #failed = false;

  constructor(writer: WritableStreamDefaultWriter<Uint8Array>, onError: OnError) {
    this.#writer = writer;
    this.#onError = onError;
    // Writing rejects with the same.
    writer.closed.catch(() => {});
  }

  write(text: string): void {
    if (!this.#failed) this.#writer.write(this.#encoder.encode(text)).catch((error) => this.#fail(error));
  }

  async close(): Promise<void> {
    if (this.#failed) return;
    try {
      await this.#writer.close();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#onError(error);
  }
}

/**
 * Writes what happens in a pool in Chrome's trace event format: an array with one event per line, the first of which name the process and
 * its thread. By the format it may end after any line; the closing bracket is written when the pool ends.
 *
 * Each worker is a thread with its jobs (`X`) and its own changes (`i`). Each submission is a point on the calling thread (an `X` with next
 * to no duration), from which a flow (`s`, `f`) leads to where the job began. The gate and the queue are counters (`C`).
 */
class TraceWriter implements PoolObserver {
  #sink: Sink;
  #text = "";
  /** When the pool was made, in ms of the observed times. */
  #opened = 0;
  #levels!: () => PoolLevels;
  #jobsPerWorker = 1;
  /** How many flows were written, and the number of the last. */
  #flows = 0;
  /** When the counters were last written or found unchanged. */
  #countedAt = -Infinity;
  /** The counters as they were last written, without their time. */
  #counters = "";
  /** When the last job on each track of each worker ended. */
  #tracks = new Map<number, number[]>();
  /** Quoted names: every job has one, but few differ. */
  #quoted = new Map<string, string>();
  #closed = false;
  #failed = false;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  opened({ opened, levels, jobsPerWorker }: ObservedPool): void {
    this.#opened = opened;
    this.#levels = levels;
    this.#jobsPerWorker = jobsPerWorker;
    this.#text = `[\n{"ph":"M","pid":${PROCESS},"tid":${CALLER},"name":"process_name","args":{"name":"process-pool"}}`;
    this.#nameTrack(CALLER, "calling thread");
  }

  admitted(job: ObservedJob): void {
    this.#writeCounters(job.admitted!);
  }

  refused({ id, task, submitted }: ObservedJob, error: unknown): void {
    const args = `{"id":${this.#json(id)},"error":${JSON.stringify(textOf(error))}}`;
    this.#write(
      `{"ph":"i","s":"t","pid":${PROCESS},"tid":${CALLER},"ts":${this.#time(submitted)},"name":${
        this.#quote(`refused ${task}`)
      },"args":${args}}`,
    );
  }

  retried(job: ObservedJob): void {
    this.#writeRun(job, "retried");
  }

  settled(job: ObservedJob): void {
    this.#writeRun(job, job.state!);
    this.#writeCounters(job.settled!);
  }

  worker(worker: number, change: WorkerChange, reason: string | undefined): void {
    const track = worker * TRACKS;
    if (change === "starting") {
      this.#tracks.set(worker, [-Infinity]);
      this.#nameTrack(track, `worker ${worker}`);
    }
    const args = reason === undefined ? "" : `,"args":{"reason":${JSON.stringify(reason)}}`;
    const now = this.#time(realClock.now());
    this.#write(`{"ph":"i","s":"t","pid":${PROCESS},"tid":${track},"ts":${now},"cat":"worker","name":"${change}"${args}}`);
    if (!ENDS.has(change)) return;
    this.#tracks.delete(worker);
    // This may be the last event for long.
    if (this.#tracks.size === 0) this.#flush();
  }

  async closed(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#text += "\n]\n";
    try {
      this.#flush();
    } finally {
      await this.#sink.close();
    }
  }

  /** Writes a run of a job; for one that never ran, only its submission. */
  #writeRun(job: ObservedJob, outcome: string): void {
    const { id, task, items, submitted, started, ended, worker, runs, error } = job;
    // Its runs have been written already.
    if (started === undefined && runs > 0) return;
    const name = this.#quote(task);
    const at = this.#time(submitted);
    const flow = ++this.#flows;
    const from = `"pid":${PROCESS},"tid":${CALLER},"ts":${at},"cat":"job","name":`;
    const first = runs < 2 ? `{"ph":"X","dur":${POINT},${from}${name},"args":{"id":${this.#json(id)}}}` : "";
    if (started === undefined) return this.#write(first);
    const track = this.#trackFor(worker!, started, ended!);
    const to = `"pid":${PROCESS},"tid":${worker! * TRACKS + track},"ts":${this.#time(started)},"cat":"job","name":`;
    const chunk = items === 1 ? "" : `,"items":${items},"failed":${job.failed}`;
    const why = outcome === "finished" || error === undefined ? "" : `,"error":${JSON.stringify(textOf(error))}`;
    const waited = inThousandths(started - submitted);
    const args = `{"id":${this.#json(id)},"outcome":"${outcome}","run":${runs},"waited ms":${waited}${chunk}${why}}`;
    const run = `{"ph":"X","dur":${inThousandths((ended! - started) * 1000)},${to}${name},"args":${args}}`;
    if (runs > 1) return this.#write(run);
    this.#write(`${first},\n{"ph":"s","id":${flow},${from}"queue"},\n${run},\n{"ph":"f","bp":"e","id":${flow},${to}"queue"}`);
  }

  /** The first track of a worker on which nothing runs at that time. */
  #trackFor(worker: number, started: number, ended: number): number {
    const ends = this.#tracks.get(worker);
    // What runs one after the other stays on one track, even if the clocks disagree.
    if (ends === undefined || this.#jobsPerWorker === 1) return 0;
    let track = ends.findIndex((end) => end <= started);
    if (track < 0) {
      track = ends.length;
      if (track === TRACKS) return track - 1;
      this.#nameTrack(worker * TRACKS + track, `worker ${worker}, job ${track + 1}`);
    }
    ends[track] = ended;
    return track;
  }

  /** Writes the counters, unless they were just written, or have not changed: so they are compared before they have a time. */
  #writeCounters(now: number): void {
    if (now - this.#countedAt < COUNT_EVERY) return;
    this.#countedAt = now;
    const { waiting, queued, running } = this.#levels();
    const counters =
      `"name":"gate","args":{"waiting":${waiting}}},\n{"ph":"C","pid":${PROCESS},"tid":${CALLER},"ts":TS,"name":"queue","args":{"queued":${queued},"with workers":${running}}}`;
    if (counters === this.#counters) return;
    this.#counters = counters;
    const time = this.#time(now);
    this.#write(`{"ph":"C","pid":${PROCESS},"tid":${CALLER},"ts":${time},${counters.replace("TS", time)}`);
  }

  #nameTrack(track: number, name: string): void {
    const thread = `"ph":"M","pid":${PROCESS},"tid":${track}`;
    this.#write(
      `{${thread},"name":"thread_name","args":{"name":"${name}"}},\n{${thread},"name":"thread_sort_index","args":{"sort_index":${track}}}`,
    );
  }

  #write(event: string): void {
    if (this.#closed) return;
    this.#text += ",\n" + event;
    if (this.#text.length >= WRITTEN_AT_ONCE) this.#flush();
  }

  #flush(): void {
    const text = this.#text;
    this.#text = "";
    if (this.#failed) return;
    try {
      this.#sink.write(text);
    } catch (error) {
      // Reported once: a full disk stays full.
      this.#failed = true;
      throw error;
    }
  }

  /** Formats a time as microseconds since the pool was made, to the nanosecond. */
  #time(now: number): string {
    return inThousandths((now - this.#opened) * 1000);
  }

  #json(id: string | number): string {
    return typeof id === "number" && Number.isFinite(id) ? `${id}` : JSON.stringify(String(id));
  }

  #quote(name: string): string {
    let quoted = this.#quoted.get(name);
    if (quoted === undefined) this.#quoted.set(name, quoted = JSON.stringify(name));
    if (this.#quoted.size > 1000) this.#quoted.clear();
    return quoted;
  }
}

/** Prints a number with three decimals, as two integers: printing one with a fraction takes many times as long. */
function inThousandths(value: number): string {
  const all = Math.round(value * 1000);
  const whole = Math.trunc(all / 1000);
  const rest = Math.abs(all - whole * 1000);
  if (rest === 0) return `${whole}`;
  const sign = all < 0 && whole === 0 ? "-" : "";
  return `${sign}${whole}.${rest < 10 ? "00" : rest < 100 ? "0" : ""}${rest}`;
}
