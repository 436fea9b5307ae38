import { JobTimeoutError, MemoryLimitError, WorkerDiedError } from "../../mod.ts";
import { MOST_UNREAD } from "../../pool/ticket.ts";
import { check } from "./violation.ts";

/** What comes of one run in a worker. */
export type WorkOutcome = { value: number } | { error: Error };

/** How a worker ended that took runs with it: by itself, with its heap full, stopped to end one of its jobs, or with the pool. */
export type Fate = "died" | "full" | "stopped" | "terminated";

/** How much heap the workers say that they had, in MB. */
export const HEAP = 64;

/** What the caller has said about a piece of work. */
export interface WorkOptions {
  /** What errors call it: a text for a job, a number for an item of a map. */
  id: string | number;
  /** How long it may run, in ms. */
  limit: number;
  /** How often it may be run again. */
  retries: number;
  /** Whether it ends each worker that runs it. */
  deadly: boolean;
  /** Whether anybody waits for it still. */
  isWanted: () => boolean;
}

/** A job's argument or an item of a map: what is really done to it in workers, and what may be. */
export class Work {
  /** What tasks are given. */
  readonly number: number;
  readonly id: string | number;
  /** What the pool calls it. */
  jobId: string | number;
  readonly limit: number;
  readonly retries: number;
  readonly deadly: boolean;
  readonly isWanted: () => boolean;
  /** `finished` when its answer is on the way, `answered` when that has arrived at a slot which had not stopped its thread. */
  state: "new" | "running" | "finished" | "answered" | "lost" = "new";
  /** How often a worker has started it. */
  runs = 0;
  /** How many workers have died, their heaps full, that were sent it. */
  unread = 0;
  /** What came of the last run that finished. */
  outcome: WorkOutcome | undefined;
  /** That of the last run that was lost. */
  fate: Fate | undefined;
  /** Whether no loss is a reason any more to run it again. */
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

  /** Whether it may come to another run. */
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

  // What is said about it

  /** Whether it may run for no longer. That an item is through is not known before the next is claimed. */
  hasOverrun(now: number): boolean {
    const runs = this.state === "running" || (this.state === "finished" && !this.isJob && !this.over);
    return runs && now - this.#startedAt >= this.limit;
  }

  /** When it will have run for as long as it may. */
  get due(): number {
    return this.#startedAt + this.limit;
  }

  /** Whether the error tells how its last run was lost. */
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

  /** Whether the error says that workers die of it before they start it, and enough have. */
  #isUnread(error: unknown): boolean {
    if (!(error instanceof MemoryLimitError) || !error.message.startsWith("Cannot start job")) return false;
    return !this.isRunning && this.state !== "answered" && this.unread >= MOST_UNREAD && error.limit === HEAP && this.#isMine(error);
  }

  /** A chunk counts how often it was started itself, and not each of its items. */
  #isMine({ jobId, attempts }: JobTimeoutError | MemoryLimitError | WorkerDiedError): boolean {
    return jobId === this.jobId && (this.isJob ? attempts === this.runs : attempts >= this.runs);
  }

  /** Checks the error of a loss that is the end of it: it had all the runs that it may have, and the error tells of each. */
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
