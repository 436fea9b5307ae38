import { JobTimeoutError, MemoryLimitError, WorkerDiedError } from "../../mod.ts";
import { MOST_UNREAD } from "../../pool/ticket.ts";
import { check } from "./violation.ts";

/** The outcome of one run in a worker. */
export type WorkOutcome = { value: number } | { error: Error };

/** How a worker ended with the runs it held: by itself, with a full heap, stopped to end one of its jobs, or with the pool. */
export type Fate = "died" | "full" | "stopped" | "terminated";

/** The heap sizes that workers report, in MB. */
export const HEAP = 64;

/** What the caller has set for a piece of work. */
export interface WorkOptions {
  /** What errors call it: a text for a job, a number for an item of a map. */
  id: string | number;
  /** How long it may run, in ms. */
  limit: number;
  /** How many more times it may run. */
  retries: number;
  /** Whether it ends each worker that runs it. */
  deadly: boolean;
  /** Whether anybody still waits for it. */
  isWanted: () => boolean;
}

/** A job's argument or an item of a map: what was actually done to it in workers, and what may be. */
export class Work {
  /** The value that tasks are given. */
  readonly number: number;
  readonly id: string | number;
  /** What the pool calls it. */
  jobId: string | number;
  readonly limit: number;
  readonly retries: number;
  readonly deadly: boolean;
  readonly isWanted: () => boolean;
  /** `finished` when its answer is on the way, `answered` when that has arrived at a slot that had not stopped its thread. */
  state: "new" | "running" | "finished" | "answered" | "lost" = "new";
  /** How often a worker has started it. */
  runs = 0;
  /** How many workers it was sent to have died with a full heap. */
  unread = 0;
  /** The outcome of the last run that finished. */
  outcome: WorkOutcome | undefined;
  /** The outcome of the last run that was lost. */
  fate: Fate | undefined;
  /** Whether a loss no longer makes it run again. */
  over = false;
  #startedAt = 0;
  #lostAt = 0;

  constructor(number: number, { id, limit, retries, deadly, isWanted }: WorkOptions) {
    this.number = number;
    this.id = this.jobId = id;
    this.limit = limit;
    this.retries = retries;
    this.deadly = deadly;
    this.isWanted = isWanted;
  }

  get isJob(): boolean {
    return typeof this.id === "string";
  }

  /** Whether a worker has it, as far as a slot can know. */
  get isRunning(): boolean {
    return this.state === "running" || this.state === "finished";
  }

  /** Whether it may still get another run. */
  get mayRun(): boolean {
    return this.state === "new" || (this.state === "lost" && !this.over && this.runs <= this.retries);
  }

  // What is done to it

  start(now: number): void {
    check(this.state === "new" || this.state === "lost", "nothing runs twice but what was lost", () => this.number);
    check(!this.over, "what has ended is not run again", () => this.number);
    check(!this.isJob || this.isWanted(), "what has settled is not started", () => this.number);
    this.runs++;
    check(this.runs <= 1 + this.retries, "nothing runs more often than 'retries' say", () => `${this.number}, ${this.runs} times`);
    this.state = "running";
    this.#startedAt = now;
  }

  finish(outcome: WorkOutcome): void {
    this.state = "finished";
    this.outcome = outcome;
  }

  arrive(): void {
    this.state = "answered";
  }

  /** Its thread has ended. */
  lose(fate: Fate, now: number): void {
    this.state = "lost";
    this.fate = fate;
    this.#lostAt = now;
  }

  /** `retryIf` has decided. */
  retry(again: boolean): void {
    if (again) this.state = "lost";
    this.over = !again;
  }

  // What is reported about it

  /** Whether its time is up. That an item is finished is not known before the next is claimed. */
  hasOverrun(now: number): boolean {
    const runs = this.state === "running" || (this.state === "finished" && !this.isJob && !this.over);
    return runs && now - this.#startedAt >= this.limit;
  }

  /** When its time will be up. */
  get due(): number {
    return this.#startedAt + this.limit;
  }

  /** Whether the error says how its last run was lost. */
  isLoss(error: unknown): boolean {
    if (this.#isUnread(error)) return true;
    if (this.state !== "lost") return false;
    if (error instanceof JobTimeoutError) {
      const overran = this.fate === "stopped" && this.#lostAt - this.#startedAt >= this.limit;
      return overran && error.limit === this.limit && this.#isMine(error);
    }
    if (error instanceof MemoryLimitError) return this.fate === "full" && error.limit === HEAP && this.#isMine(error);
    return error instanceof WorkerDiedError && (this.fate === "died" || this.fate === "stopped") && this.#isMine(error);
  }

  /** Whether the error says that workers die of it before they start it, and enough of them have. */
  #isUnread(error: unknown): boolean {
    if (!(error instanceof MemoryLimitError) || !error.message.startsWith("Cannot start job")) return false;
    return !this.isRunning && this.state !== "answered" && this.unread >= MOST_UNREAD && error.limit === HEAP && this.#isMine(error);
  }

  /** A chunk counts how often it was started itself, not each of its items. */
  #isMine({ jobId, attempts }: JobTimeoutError | MemoryLimitError | WorkerDiedError): boolean {
    return jobId === this.jobId && (this.isJob ? attempts === this.runs : attempts >= this.runs);
  }

  /** Checks the error of a final loss: all permitted runs were made, and the error describes each. */
  checkLastLoss(error: unknown): void {
    const isTimeout = error instanceof JobTimeoutError;
    const isUnread = this.#isUnread(error);
    check(
      isTimeout || isUnread || this.over || this.runs > this.retries,
      "what is lost is run again as often as 'retries' say",
      () => this.number,
    );
    const { cause } = error as Error;
    const earlier = isUnread ? this.runs : this.runs - 1;
    const told = cause instanceof AggregateError ? cause.errors.length : 0;
    const right = earlier === 0 ? told === 0 : told === earlier || told === earlier + 1;
    check(right, "the last error has those of earlier runs in its cause", () => `${this.number}: ${told} of ${earlier}`);
  }
}
