import { JobTimeoutError, MemoryLimitError, WorkerDiedError } from "../errors.ts";
import type { Torn } from "./inputs.ts";
import type { Lane, LaneState } from "./lane.ts";
import type { Piece, Suspect, Verdict } from "./range.ts";

/** A part of the input to be run: from `start`, the lines that begin before `end`. */
export interface Part {
  /** The index of its input. */
  source: number;
  /** The number of the part, in the order of handing out; the rest of one that ended early keeps it. */
  index: number;
  start: number;
  end: number;
  /** Whether, and where, it may end within a record. */
  torn: Torn | false;
  piece: Piece;
}

/** One run of a worker over a part, or over the rest of one. */
export interface RangeRun {
  /** The id of its job in the pool. */
  job: string | number;
  /** The part's index. */
  index: number;
  /** The index of the input, and which of its bytes were done. */
  source: number;
  start: number;
  end: number;
  records: number;
  failed: number;
  /** How long the records took, in milliseconds. */
  busy: number;
  /** Whether the worker had begun with it at all. */
  begun: boolean;
}

/** The job in which a worker runs a part. */
export interface RangeJob {
  id: string | number;
  /** What was done before it. */
  before: LaneState;
  /** Stops its worker. */
  kill: () => void;
}

/**
 * A part that a worker has, or that waits for one: how long its record has run, and, after a worker has died, of which record the next one
 * must beware.
 */
export class ActivePart {
  readonly part: Part;
  readonly lane: Lane;
  /** The job that runs it; undefined while there is none. */
  job: RangeJob | undefined;
  /** How often its worker has died while running no record, since a record was last done. */
  idleDeaths = 0;
  #suspect = suspectAfter(-1);
  /** The commit after which it was halted, and the time limit for which, in ms; undefined if it was not. */
  #halted: { sequence: number; limit: number } | undefined;
  /** The last commit seen. */
  #seen = 0;
  /** How many records were finished after it. */
  #current = 0;
  /** Which attempt at the next one ran. */
  #attempt = 0;
  /** When that was first seen. */
  #since = performance.now();

  constructor(part: Part, lane: Lane) {
    this.part = part;
    this.lane = lane;
    lane.begin(part.start);
  }

  /** The record of which its next worker must beware. */
  get suspect(): Suspect {
    return this.#suspect;
  }

  /** Whether its worker is being stopped, as a record has run for too long: what it does is no longer counted. */
  get isHalted(): boolean {
    return this.#halted !== undefined;
  }

  /**
   * Halts the record that has run for longer than the limit, and stops its worker.
   *
   * @param now The time, in ms.
   * @param times For how long the program has stood still before, which does not count, and the limit, both in ms.
   */
  watch(now: number, { stoodStill, limit }: { stoodStill: number; limit: number }): void {
    this.#since = Math.min(now, this.#since + stoodStill);
    if (this.#halted !== undefined) return;
    const { sequence, current, attempt, running } = this.lane;
    if (sequence !== this.#seen || current !== this.#current || attempt !== this.#attempt || !running) {
      this.#seen = sequence;
      this.#current = current;
      this.#attempt = attempt;
      this.#since = now;
    } else if (now - this.#since > limit && this.job !== undefined && !this.#isSettled(sequence) && this.lane.halt(sequence)) {
      this.#halted = { sequence, limit };
      this.job.kill();
    }
  }

  /** Whether its job failed with this error as it has lost its worker: the part can go on with another. */
  isLostBy(error: unknown): boolean {
    return error instanceof WorkerDiedError || error instanceof MemoryLimitError || this.isHalted;
  }

  /**
   * Makes it ready for another worker after its last one has died.
   *
   * @param error What its job failed with.
   * @param retries How often a failed record is run again.
   * @returns What the last one did.
   */
  workerDied(error: unknown, retries: number): RangeRun | undefined {
    const sequence = this.#halted?.sequence ?? this.lane.sequence;
    const state = this.lane.state(sequence);
    const records = state.records - (this.job?.before.records ?? 0);
    if (records > 0) this.idleDeaths = 0;
    this.#suspect = this.#nextSuspect(error, { sequence, records, retries });
    const run = this.endRun(state);
    this.lane.leave(sequence);
    this.#halted = undefined;
    this.#seen = 0;
    this.#since = performance.now();
    return run;
  }

  /** The record of which the next worker must beware, after one has died at this commit, having done this many records. */
  #nextSuspect(error: unknown, { sequence, records, retries }: { sequence: number; records: number; retries: number }): Suspect {
    const suspect = this.#suspect;
    const { begun } = this.lane;
    // Until a worker is stopped it may have gone on with the next record.
    const { running, attempt, current } = this.isHalted ? { running: true, attempt: this.#attempt, current: this.#current } : this.lane;
    const settled = this.#isSettled(sequence);
    // It died while parsing many records together. They are now parsed one by one, to find the one that kills it.
    if (running && attempt === 0 && suspect.before < 0) return suspectAfter(current);
    if (running && !settled) {
      // It may have died before it noted which attempt ran.
      const attempts = Math.max(1, attempt, this.#isKnown(sequence) ? suspect.attempt : 1);
      if (attempts <= retries) return { ...suspectAfter(current), attempt: attempts + 1 };
      const time = performance.now() - this.#since;
      return { ...suspectAfter(current), verdict: { ...explainDeath(error, { attempts, limit: this.#halted?.limit }), time } };
    }
    if (begun) this.idleDeaths++;
    if (records <= suspect.before) return { ...suspect, before: suspect.before - records, brief: suspect.brief || (begun && settled) };
    // What was known of the next record has been used. After a worker has died while reading many records, they are read one by one, to
    // find the one that kills it.
    return begun || sequence > 0 ? suspectAfter(begun ? 0 : -1) : suspect;
  }

  /** Whether the next record is only written down as failed, and no longer run. */
  #isSettled(sequence: number): boolean {
    return this.#suspect.verdict !== undefined && this.#isKnown(sequence);
  }

  /** Whether the next record is the one that the last worker ran when it died. */
  #isKnown(sequence: number): boolean {
    return this.lane.state(sequence).records - this.#suspect.before === this.job?.before.records;
  }

  /**
   * Keeps its worker from committing anything more.
   *
   * @returns What is committed; undefined if it has just been committing: the worker then returns by itself.
   */
  abandon(): LaneState | undefined {
    if (this.#halted !== undefined) return this.lane.state(this.#halted.sequence);
    const { sequence } = this.lane;
    return this.lane.abandon(sequence) ? this.lane.state(sequence) : undefined;
  }

  /** Notes that its job has ended, and returns what that did, up to this state; undefined if there was none. */
  endRun(state: LaneState): RangeRun | undefined {
    const { job, part: { source, index }, lane } = this;
    if (job === undefined) return undefined;
    this.job = undefined;
    const { id, before } = job;
    return {
      job: id,
      index,
      source,
      start: before.position,
      end: state.position,
      records: state.records - before.records,
      failed: state.failed - before.failed,
      busy: state.busy - before.busy,
      begun: this.isHalted || lane.begun || state.position > before.position,
    };
  }
}

/** A suspect of which nothing is known but its place: how many records come before it. */
function suspectAfter(before: number): Suspect {
  return { before, attempt: 1, verdict: undefined, brief: false };
}

/**
 * Why a record that ended its worker failed.
 *
 * @param error What its job failed with.
 * @param details How often it was run, and the time limit in ms for which its worker was stopped, if it was.
 */
function explainDeath(error: unknown, { attempts, limit }: { attempts: number; limit: number | undefined }): Omit<Verdict, "time"> {
  if (limit !== undefined) {
    const message = `The record ran for more than ${Number(limit.toPrecision(3))} ms`;
    return { name: JobTimeoutError.name, message, stack: "", attempts };
  }
  const { name, message, cause } = error as Error;
  const reason = /\bas its worker (.+)$/s.exec(message)?.[1] ?? "died";
  const stack = cause instanceof Error ? cause.stack ?? "" : "";
  return { name, message: `The worker ${reason}${cause instanceof Error ? `: ${cause.message}` : ""}`, stack, attempts };
}
