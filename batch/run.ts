/**
 * How a batch is driven. The calling thread hands out parts of the input, watches the clock, and passes on what is done:
 *
 * ```
 * parts ----> a free lane ----> pool: runRange(lane, part) ----> done? ----> consumer, in order
 *   ^                                   |                          |
 *   +--- the rest of a part that ended early, before all others <--+
 *                                       +-- died: the same lane goes on, where the record that ran is run again, or fails
 * ```
 *
 * @module
 */

import { PoolClosedError } from "../errors.ts";
import { Job } from "../job.ts";
import type { ProcessPool } from "../pool.ts";
import { onAbort } from "../pool/signals.ts";
import { ActivePart, type Part, type RangeRun } from "./active_part.ts";
import { type DonePart, DoneParts } from "./done_parts.ts";
import { BatchError, explainRun } from "./errors.ts";
import { Lane, type LaneState } from "./lane.ts";
import type { HaltLimit, TimeLimit } from "./options.ts";
import type { RangeReply, RunnerLimits, Suspect } from "./range.ts";
import { noTimes, quantile, type Times } from "./times.ts";
import { runRange } from "./worker_source.ts";

/** Where finished parts go. */
export interface Consumer {
  /** Takes a part. Nothing is written after a part that could not be written. */
  take(part: DonePart): void | Promise<void>;
  /** Called when all of a part of this input was run, which then may have to wait. */
  ran?(source: number): void;
  /** Makes what was taken durable. */
  save(): Promise<void>;
  /** Called with the parts, in order, that come after something that was not done when too many records had failed. */
  leave?(parts: readonly DonePart[]): void;
  /** How many failed records might have been halves, but are now known to be whole. */
  readonly failedWhole?: number;
}

/** What a run needs. */
export interface RunParts {
  pool: ProcessPool;
  parts: AsyncIterator<Part>;
  consumer: Consumer;
  options: RunOptions;
  /** Called at each tick while the run goes on. If it fails, so does the run. */
  onTick: () => void | Promise<void>;
  /** Called after each run over a part. */
  onRange?: ((range: RangeRun) => void) | undefined;
}

/** The options of a batch that a run needs. */
export interface RunOptions {
  workers: number;
  ordered: boolean;
  retries: number;
  timeout: TimeLimit;
  memoryLimit: number | undefined;
  halt: HaltLimit;
  limit: number;
  signal: AbortSignal | undefined;
}

/** How much is done at a moment. */
export interface RunCounts {
  records: number;
  failed: number;
  bytes: number;
  /** How long the records took together, in milliseconds. */
  busy: number;
  /** How many lanes have a part. */
  lanes: number;
}

/**
 * Lanes per worker: for the range that it runs, the one that it has been sent ahead, and one that is being written. Fewer, and it waits;
 * more only take memory.
 */
const LANES_PER_WORKER = 3;

/**
 * While this many bytes of results and errors wait for an earlier part or a slow output, no new part starts; and while it is as many for
 * each worker, nor does the rest of one. Fewer, and one slow record, or parts that take longer than they were expected to, hold up all
 * workers sooner; more, and memory is no longer flat.
 */
const MOST_HELD = 2 ** 25;

/**
 * After how many ms a worker returns with what it has done. Shorter, and it asks for more too often; longer, and slow tasks are seen and
 * saved late.
 */
const SLICE = 500;

/** How often time limits are checked, in ms: a record may run that much longer. */
const TICK = 25;

/**
 * If a tick is this many ms late, the whole program stood still, as after SIGSTOP: that counts against no record. Less, and records get
 * extra time when the thread is just busy; more, and a shorter stop counts against them.
 */
const MOST_LATE = 250;

/** How often progress is saved, in ms: less often, and more is run again after a crash; more often, and the disk has more to do. */
const SAVE_EVERY = 1000;

/**
 * How long running records may take when a run is told to end, in ms. Shorter, and what is about to be done is lost; longer, and Ctrl-C
 * seems to do nothing.
 */
const GRACE = 1000;

/** When this many workers in a row die while running no record, that is no accident: the run cannot go on. */
const MOST_IDLE_DEATHS = 3;

/** A time limit that is a share of the median applies once this many records have been timed: with fewer the median says little. */
const ENOUGH_TIMED = 50;

/** Such a limit is never less than this, in ms: otherwise a pause of V8's would be a timeout. */
const SHORTEST_LIMIT = 100;

/** A share of failed records can end a run once this many have been run: with fewer, a single failure might. */
const ENOUGH_RECORDS = 100;

/** One run over an input. */
export class BatchRun {
  readonly times: Times = noTimes();
  #parts: RunParts;
  #free: Lane[] = [];
  #active = new Set<ActivePart>();
  /** The rests of parts that ended early. */
  #rest: Part[] = [];
  /** The next part, which waits for a lane. */
  #arrived: Part | undefined;
  /** Whether the next part is awaited. */
  #reading = false;
  /** Whether there are no more parts. */
  #exhausted = false;
  #done: DoneParts;
  /** Whether finished parts are being passed on. */
  #draining = false;
  #counts: RunCounts = { records: 0, failed: 0, bytes: 0, busy: 0, lanes: 0 };
  /** How many of the failures may be of half records: those never end a run. */
  #failedTorn = 0;
  #ending: "stopped" | "halted" | undefined;
  #failure: { error: unknown } | undefined;
  #changed = Promise.withResolvers<void>();
  /** When the last tick was. */
  #ticked = performance.now();
  /** When progress was last saved. */
  #saved = performance.now();
  /** Resolves when progress is saved; undefined while it is not being saved. */
  #saving: Promise<void> | undefined;

  constructor(parts: RunParts) {
    this.#parts = parts;
    const { limit, ordered, workers } = parts.options;
    this.#done = new DoneParts(ordered);
    const lanes = limit === Infinity ? workers * LANES_PER_WORKER : 1;
    for (let i = 0; i < lanes; i++) this.#free.push(new Lane());
  }

  /** How much is done so far, including finished records of running parts. */
  get counts(): RunCounts {
    const counts = { ...this.#counts, lanes: this.#active.size };
    for (const { part, lane, isHalted } of this.#active) {
      if (isHalted) continue;
      const { records, failed, position, busy } = lane.state();
      counts.records += records;
      counts.failed += failed;
      counts.busy += busy;
      counts.bytes += Math.max(0, Math.min(position, part.end) - part.start);
    }
    return counts;
  }

  /**
   * Runs all parts, or as many as it may.
   *
   * @returns How it ended. What is done has been saved by then.
   *
   * @throws {BatchError} If it cannot go on.
   */
  async run(): Promise<"complete" | "stopped" | "halted"> {
    const { signal } = this.#parts.options;
    const stop = () => this.#end("stopped");
    const stopListening = onAbort(signal, stop);
    this.#ticked = performance.now();
    const timer = setInterval(() => this.#tick(), TICK);
    try {
      if (signal?.aborted) stop();
      await this.#work();
      if (this.#failure === undefined) await this.#windDown();
      await this.#saving;
      if (this.#failure === undefined) await this.#parts.consumer.save();
      // What it gave up for may be among them.
      if (this.#ending === "halted") this.#parts.consumer.leave?.(this.#done.left());
      if (this.#failure === undefined) return this.#ending ?? "complete";
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      clearInterval(timer);
      stopListening();
    }
    await this.#parts.pool.terminate();
    // Save as much as possible; the first failure is what is thrown.
    await Promise.resolve(this.#saving).then(() => this.#parts.consumer.save()).catch(() => {});
    throw this.#failure!.error;
  }

  // Handing out

  async #work(): Promise<void> {
    while (this.#failure === undefined && this.#ending === undefined && this.#counts.records < this.#parts.options.limit) {
      const free = this.#free.length > 0;
      const [rest] = this.#rest;
      if (free && rest !== undefined && this.#mayStart(rest)) {
        this.#rest.shift();
        this.#start(rest);
      } else if (free && this.#arrived !== undefined && this.#mayStart(this.#arrived)) {
        const part = this.#arrived;
        this.#arrived = undefined;
        this.#done.started(part);
        this.#start(part);
      } else {
        if (free && this.#arrived === undefined) this.#read();
        if (this.#exhausted && this.#active.size === 0 && this.#rest.length === 0 && this.#done.size === 0) return;
        await this.#change();
      }
    }
  }

  /** Whether a part, or the rest of one, may start. The one that is passed on next always may: what is held waits for it. */
  #mayStart(part: Part): boolean {
    const { ordered, workers } = this.#parts.options;
    const most = part === this.#arrived ? MOST_HELD : MOST_HELD * workers;
    return this.#done.held < most || (ordered && this.#done.isNext(part));
  }

  #read(): void {
    if (this.#reading || this.#exhausted) return;
    this.#reading = true;
    this.#parts.parts.next().then(({ value, done }) => {
      if (done) this.#exhausted = true;
      else this.#arrived = value;
    }, (error) => this.#fail(error)).finally(() => {
      this.#reading = false;
      this.#wake();
    });
  }

  #start(part: Part): void {
    const active = new ActivePart(part, this.#free.pop()!);
    this.#active.add(active);
    this.#submit(active);
  }

  async #submit(active: ActivePart): Promise<void> {
    const { part: { piece }, lane, suspect } = active;
    const { halt, limit, ordered } = this.#parts.options;
    const done = lane.state();
    const limits: RunnerLimits = {
      ...suspect,
      // Where each record ends its worker, no worker is through with a slice: a part would be passed on, and saved, only at its end.
      slice: isIdentified(suspect) ? 0 : SLICE,
      maxRecords: ordered ? limit - this.#counts.records - done.records : limit,
      maxFailures: halt.failed - this.#certain(this.#counts.failed) - done.failed,
    };
    let reply: RangeReply;
    try {
      const future = await this.#parts.pool.submit(new Job({ func: runRange, args: [lane.memory, piece, limits] }));
      active.job = { id: future.id, before: done, kill: () => future.cancel({ force: true }) };
      reply = await future.result();
    } catch (error) {
      return this.#died(active, error);
    }
    this.#settled(active, reply);
  }

  // What comes back

  #settled(active: ActivePart, { done }: RangeReply): void {
    if (!this.#active.has(active)) return;
    const { part, lane } = active;
    const state = lane.state();
    this.#report(active.endRun(state));
    if (!done && state.position < part.end) {
      this.#rest.push({ ...part, start: state.position });
      this.#rest.sort((a, b) => a.index - b.index);
    }
    this.#finish(active, { state, end: done ? part.end : Math.min(state.position, part.end) });
  }

  #died(active: ActivePart, error: unknown): void {
    if (!this.#active.has(active)) return;
    if (!active.isLostBy(error)) {
      return this.#fail(
        error instanceof PoolClosedError && this.#failure !== undefined ? this.#failure.error : explainRun(error, this.counts.records > 0),
      );
    }
    const { limit, retries } = this.#parts.options;
    this.#report(active.workerDied(error, retries));
    if (active.idleDeaths >= MOST_IDLE_DEATHS) {
      return this.#fail(
        new BatchError(`Cannot go on as workers die while they run no record: ${(error as Error).message}`, {
          resumable: true,
          cause: error,
        }),
      );
    }
    const state = active.lane.state();
    const enough = this.#counts.records + state.records >= limit;
    if (this.#ending === undefined && !enough) this.#submit(active);
    else this.#leave(active, state);
  }

  /** Leaves a part where its last commit was. */
  #leave(active: ActivePart, state: LaneState): void {
    this.#report(active.endRun(state));
    this.#finish(active, { state, end: Math.min(state.position, active.part.end) });
  }

  #report(run: RangeRun | undefined): void {
    if (run !== undefined) this.#parts.onRange?.(run);
  }

  #finish(active: ActivePart, { state, end }: { state: LaneState; end: number }): void {
    const { part: { source, index, start, torn, ...part }, lane } = active;
    this.#active.delete(active);
    lane.addTimes(this.times);
    this.#counts.records += state.records;
    this.#counts.failed += state.failed;
    if (torn) this.#failedTorn += state.failed;
    this.#counts.busy += state.busy;
    this.#counts.bytes += end - start;
    this.#checkHalt();
    const waits = this.#draining || !this.#done.isNext({ index, start });
    const last = end === part.end;
    if (last) this.#parts.consumer.ran?.(source);
    const done = {
      source,
      index,
      start,
      end,
      torn,
      state,
      slowest: lane.slowest(),
      last,
      errors: lane.errors(state.errorsLength),
      waits,
    };
    const free = this.#done.add(done, lane);
    if (free !== undefined) this.#free.push(free);
    this.#drain();
    this.#wake();
  }

  // Passing on

  async #drain(): Promise<void> {
    if (this.#draining) return;
    this.#draining = true;
    try {
      for (let done = this.#done.takeNext(); done !== undefined && this.#failure === undefined; done = this.#done.takeNext()) {
        const taken = this.#parts.consumer.take(done);
        if (taken !== undefined) await taken;
        const free = this.#done.passedOn(done);
        if (free !== undefined) this.#free.push(free);
        // There may be room for the next part to start, long before everything that waits is passed on.
        this.#wake();
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#draining = false;
      this.#wake();
    }
  }

  // Looking around

  #tick(): void {
    const now = performance.now();
    const late = now - this.#ticked - TICK;
    const stoodStill = late > MOST_LATE ? late : 0;
    this.#ticked = now;
    const limit = this.#timeLimit();
    for (const active of this.#active) active.watch(now, { stoodStill, limit });
    this.#checkHalt();
    if (now - this.#saved > SAVE_EVERY && this.#saving === undefined && this.#failure === undefined) {
      this.#saving = this.#parts.consumer.save().catch((error) => this.#fail(error)).finally(() => {
        this.#saved = performance.now();
        this.#saving = undefined;
      });
    }
    this.#tellOfTick();
  }

  async #tellOfTick(): Promise<void> {
    try {
      await this.#parts.onTick();
    } catch (error) {
      this.#fail(error);
    }
  }

  #timeLimit(): number {
    const { timeout } = this.#parts.options;
    if ("ms" in timeout) return timeout.ms;
    if (this.#counts.records < ENOUGH_TIMED) return Infinity;
    return Math.max(SHORTEST_LIMIT, quantile(this.times, 0.5)! * timeout.ofMedian);
  }

  #checkHalt(): void {
    if (this.isToHalt) this.#end("halted");
  }

  /** Whether enough records have failed to end it. */
  get isToHalt(): boolean {
    const { halt } = this.#parts.options;
    const { records, failed: all } = this.counts;
    let failed = this.#certain(all);
    for (const { part, lane, isHalted } of this.#active) if (part.torn && !isHalted) failed -= lane.state().failed;
    return failed >= halt.failed || (records >= ENOUGH_RECORDS && failed > records * halt.share);
  }

  /** How many of these failures are certain: all except those of possible half records. */
  #certain(failed: number): number {
    return failed - this.#failedTorn + (this.#parts.consumer.failedWhole ?? 0);
  }

  // The end

  #end(why: "stopped" | "halted"): void {
    if (this.#ending !== undefined) return;
    this.#ending = why;
    for (const { lane } of this.#active) lane.stop();
    this.#wake();
  }

  /** Waits for running records, and for what is being written; not for long, if the run was told to end. */
  async #windDown(): Promise<void> {
    let over = false;
    const giveUp = () => {
      // A stream that nobody reads is not waited for either.
      over = this.#ending !== undefined;
      for (const active of [...this.#active]) {
        const state = active.abandon();
        if (state !== undefined) this.#leave(active, state);
      }
      this.#wake();
    };
    const atOnce = this.#ending === undefined ? setTimeout(giveUp, 0) : undefined;
    let grace: ReturnType<typeof setTimeout> | undefined;
    // A lane that was committed just before it was abandoned returns by itself.
    while (this.#failure === undefined && (this.#active.size > 0 || (this.#draining && !over))) {
      if (this.#ending !== undefined) grace ??= setTimeout(giveUp, GRACE);
      await this.#change();
    }
    clearTimeout(atOnce);
    clearTimeout(grace);
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
  }

  /** Resolves when anything has happened since it was called. */
  #change(): Promise<void> {
    return this.#changed.promise;
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** Whether this is the very record that ran when a worker died, rather than the first of those among which it is. */
function isIdentified({ attempt, verdict }: Suspect): boolean {
  return attempt > 1 || verdict !== undefined;
}
