import type { Future } from "../../job.ts";
import { Job, JobCancelledError, PoolBrokenError, PoolClosedError, type ProcessPool } from "../../mod.ts";
import { internalsOf } from "../../pool.ts";
import type { Abort } from "./aborts.ts";
import type { Random } from "./random.ts";
import type { SimulatedWorld } from "./simulated_world.ts";
import { check, Violation } from "./violation.ts";
import type { Work } from "./works.ts";

/** The only task. Nobody calls it: the world decides its outcome. */
export function double(x: number): number {
  return x * 2;
}

/** What jobs and callbacks share with the rest of a schedule. */
export interface Stage {
  world: SimulatedWorld;
  /** Another source of chance, for features that were added later: seeds that do not use it give the same schedules as before. */
  chance: Random;
  /** A third one, for the same reason. */
  whim: Random;
  pool: ProcessPool;
  /** The pool's defaults for jobs that do not set these options. */
  jobTimeout: number;
  retries: number;
  /** Does one more thing that a program might do within a callback. */
  meddle(): void;
  /** Ends the schedule with an error that would otherwise be thrown where only the pool, or nobody, sees it. */
  fail(error: unknown): void;
  /** Whether an observer is acting, which may hear of the end of a job before the job's future does. */
  observing: boolean;
  /** How the pool was told to end. */
  end: { asked: boolean; cancelPending: boolean; terminated: boolean };
}

/** One submission, what the schedule did to it, and what it expects of it. */
export class SimulatedJob {
  readonly work: Work;
  readonly name: string;
  readonly abort: Abort | undefined;
  /** A job whose argument cannot be copied fails when it is sent. */
  readonly cloneable: boolean;
  future: Future<number> | undefined;
  /** The error that the submission ended with, instead of a future. */
  refusal: { error: unknown } | undefined;
  #stage: Stage;
  #job: Job<[number], number>;
  /** Whether it is submitted as a call, like most jobs. */
  #isCall: boolean;
  #cancelled: { reason: unknown; runs: number } | undefined;
  #calledOnDone = 0;
  #callbacks: { calls: number; error: unknown }[] = [];
  #done: DoneMode;
  #onDoneError: Error | undefined;
  #retryMode: RetryMode;
  /** The errors after which `retryIf` asked for another run. */
  #retried: unknown[] = [];
  #retryError: Error | undefined;
  /** Whether a promise of its `onDone` holds its permit. */
  holds = false;
  /** Since the last check of the invariants. */
  justAdmitted = false;

  constructor(stage: Stage, abort: Abort | undefined) {
    const { random } = stage.world;
    this.#stage = stage;
    this.#isCall = stage.world.tiny && abort === undefined && random.chance(0.9);
    const timeout = !stage.world.tiny && random.chance(0.3) ? random.pick(LIMITS) : undefined;
    const retries = !this.#isCall && random.chance(0.3) ? random.below(4) : undefined;
    this.name = `job ${stage.world.works.length}`;
    this.work = stage.world.newWork({
      id: this.name,
      limit: timeout ?? stage.jobTimeout,
      retries: retries ?? stage.retries,
      isWanted: () => !this.settled,
    });
    this.abort = abort;
    this.cloneable = !random.chance(0.05);
    this.#done = this.#isCall ? "none" : random.pick(DONE_MODES);
    this.#retryMode = this.#isCall || random.chance(0.7) ? "none" : random.pick(RETRY_MODES);
    const args: [number] = [this.cloneable ? this.work.number : Symbol("uncloneable") as unknown as number];
    this.#job = new Job<[number], number>({
      id: this.name,
      func: double,
      args,
      timeout,
      retries,
      retryIf: this.#retryMode === "none" ? undefined : (error, attempt) => this.#retryIf(error, attempt),
      signal: abort?.signal,
      onDone: this.#done === "none" ? undefined : () => this.#onDone(),
    });
  }

  get settled(): boolean {
    return this.future?.done() ?? false;
  }

  /** Whether it waits at the gate. */
  get waits(): boolean {
    return this.future === undefined && this.refusal === undefined;
  }

  get #terms(): string {
    return `at most ${this.work.limit} ms, ${this.work.retries} retries, retryIf: ${this.#retryMode}, onDone: ${this.#done}`;
  }

  // What is done to it

  /** Submits it, waiting at the gate. */
  submit(): void {
    const { world, pool } = this.#stage;
    world.note(() => `submit ${this.name}${this.abort === undefined ? "" : ` with ${this.abort.name}`}, ${this.#terms}`);
    const admission = this.#isCall ? pool.submit(double, this.#job.args[0] as number) : pool.submit(this.#job);
    admission.then((future) => this.#admitted(future), (error) => this.#refused(error)).catch((error) => this.#stage.fail(error));
  }

  trySubmit(): void {
    const { world, pool } = this.#stage;
    const { available } = internalsOf(pool).gate;
    try {
      const future = this.#isCall ? pool.trySubmit(double, this.#job.args[0] as number) : pool.trySubmit(this.#job);
      world.note(() => `trySubmit ${this.name}: ${future === undefined ? "no place" : "admitted"}, ${this.#terms}`);
      check((future === undefined) === (available === 0), "trySubmit admits when there is a place");
      if (future !== undefined) this.#admitted(future);
      else this.refusal = { error: undefined };
    } catch (error) {
      if (error instanceof Violation) throw error;
      world.note(() => `trySubmit ${this.name}: refused`);
      this.#refused(error);
    }
  }

  cancel(force: boolean): void {
    const { world } = this.#stage;
    const future = this.future!;
    const before = future.state;
    const reason = force ? new Error(`${this.name} is not wanted`) : undefined;
    world.note(() => `cancel ${this.name}${force ? " by force" : ""}, which is ${before}`);
    const wanted = before === "queued" || (before === "running" && force);
    const cancelledBefore = this.#cancelled;
    if (wanted) this.#cancelled = { reason, runs: this.work.runs };
    const cancelled = future.cancel({ reason, force });
    // Its answer may have been on the way, or a callback of another job may have cancelled it.
    const late = !cancelled && (this.#stage.observing || (before === "running" && future.done()));
    if (late && !future.cancelled()) this.#cancelled = cancelledBefore;
    check(cancelled === wanted || late, "cancel() tells the truth", () => `${this.name} was ${before}: ${cancelled}`);
    if (late) return;
    check(future.state === (cancelled ? "cancelled" : before), "cancel() takes effect at once", () => `${this.name}: ${future.state}`);
  }

  addDoneCallback(): void {
    const { world } = this.#stage;
    const { random } = world;
    const mode = random.pick(["returns", "throws", "throws and is looked at", "rejects later", "meddles"]);
    const record = { calls: 0, error: undefined as unknown };
    world.note(() => `add a callback that ${mode} to ${this.name}`);
    const promise = this.future!.addDoneCallback((future) => {
      world.activity++;
      record.calls++;
      check(future.done(), "callbacks come after the end of the job", () => this.name);
      if (mode === "meddles") this.#stage.meddle();
      if (mode === "returns" || mode === "meddles") return;
      const error = new Error(`a callback of ${this.name} failed`);
      if (mode === "throws and is looked at") throw error;
      record.error = error;
      if (mode === "throws") throw error;
      return world.pause().then(() => Promise.reject(error));
    });
    if (mode === "throws and is looked at") promise.catch(() => world.activity++);
    this.#callbacks.push(record);
  }

  #admitted(future: Future<number>): void {
    this.#stage.world.activity++;
    this.future = future;
    this.work.jobId = future.id;
    this.justAdmitted = true;
  }

  #refused(error: unknown): void {
    this.#stage.world.activity++;
    this.refusal = { error };
    const { asked } = this.#stage.end;
    const known = error instanceof PoolBrokenError || (asked && error instanceof PoolClosedError) || this.abort?.wasReason(error);
    check(known === true, "a submission is refused for a reason", () => `${this.name}: ${error}`);
  }

  // What is seen of it

  /** Runs while the pool settles it; what it returns holds the permit if nobody has taken that meanwhile. */
  #onDone(): unknown {
    const { world, pool } = this.#stage;
    const { gate } = internalsOf(pool);
    const handsOver = gate.waiting > 0;
    world.activity++;
    this.#calledOnDone++;
    world.note(() => `onDone of ${this.name}`);
    if (this.#done === "throws") throw this.#onDoneError = new Error(`onDone of ${this.name} failed`);
    if (this.#done === "meddles" || this.#done === "meddles and holds") this.#stage.meddle();
    if (this.#done === "returns" || this.#done === "meddles") return "nothing of interest";
    this.holds = handsOver || gate.available > 0;
    return world.pause().then(() => {
      this.holds = false;
      if (this.#done === "rejects later") throw this.#onDoneError = new Error(`onDone of ${this.name} failed later`);
    });
  }

  #retryIf(error: unknown, attempt: number): boolean {
    const { work } = this;
    const { world } = this.#stage;
    world.activity++;
    world.note(() => `retryIf of ${this.name} after ${attempt}: ${error}`);
    check(this.#retried.length < work.retries, "'retryIf' is not asked when 'retries' are used up", () => this.name);
    check(attempt === work.runs, "'retryIf' is told how often the job has run", () => `${this.name}: ${attempt}, not ${work.runs}`);
    check(this.#isAnswer(error) || work.isLoss(error), "'retryIf' is told what came of the run", () => `${this.name}: ${error}`);
    check(!this.settled, "'retryIf' is not asked about what has settled", () => this.name);
    if (this.#retryMode === "meddles") {
      const { state, over } = work;
      // The outcome of the job is still open, so it can still be changed.
      Object.assign(work, { state: "lost", over: false });
      this.#stage.meddle();
      if (this.settled) return world.random.chance(0.5);
      Object.assign(work, { state, over });
    }
    const again = this.#retryMode === "always" || (this.#retryMode !== "never" && world.random.chance(0.5));
    work.retry(again);
    if (again) this.#retried.push(error);
    else if (this.#retryMode === "throws") throw this.#retryError = new Error(`retryIf of ${this.name} failed`);
    return again;
  }

  #isAnswer(error: unknown): boolean {
    const { state, outcome } = this.work;
    return state === "answered" && "error" in outcome! && outcome.error === error;
  }

  /** After every step. */
  checkNow(): void {
    const { future, work } = this;
    if (future === undefined) return;
    const { state } = future;
    if (state === "queued" || state === "running") {
      check(work.state !== "answered", "a job that was answered has settled", () => this.name);
      check((state === "running") === work.isRunning, "running() is true from the start in a worker", () => this.name);
      check(this.abort?.aborted !== true, "an abort takes effect at once", () => this.name);
    } else check(this.#calledOnDone === (this.#done === "none" ? 0 : 1), "onDone is called once", () => this.name);
  }

  /** After the last step. */
  async checkAtEnd(reported: Map<unknown, number>): Promise<void> {
    const { future } = this;
    if (future === undefined) {
      check(this.refusal !== undefined, "every submission settles", () => this.name);
      check(this.work.runs === 0, "a job that was refused never runs", () => this.name);
      return;
    }
    check(future.done(), "every job settles", () => this.name);
    this.checkNow();
    const error = await future.exception();
    if (future.state === "finished") await this.#checkFinished(future);
    else if (future.state === "failed") this.#checkFailed(error);
    else this.#checkCancelled(error);
    for (const { calls, error } of this.#callbacks) {
      check(calls === 1, "every callback is called once", () => this.name);
      if (error !== undefined) check(reported.get(error) === 1, "what a callback throws is reported once", () => this.name);
    }
    if (this.#done === "throws" || this.#done === "rejects later") {
      check(reported.get(this.#onDoneError) === 1, "what onDone throws is reported once", () => this.name);
    }
    if (this.#retryError !== undefined) {
      check(reported.get(this.#retryError) === 1, "what retryIf throws is reported once", () => this.name);
    }
    check(!this.holds, "the world settles every promise", () => this.name);
  }

  async #checkFinished(future: Future<number>): Promise<void> {
    const { state, outcome } = this.work;
    const value = await future.result();
    const right = state === "answered" && "value" in outcome! && outcome.value === value;
    check(right, "a finished job has its own result", () => this.name);
  }

  #checkFailed(error: unknown): void {
    const { work } = this;
    const right = this.#isAnswer(error) ||
      (error instanceof PoolClosedError
        ? work.state === "lost" && work.fate === "terminated"
        : error instanceof PoolBrokenError
        ? work.mayRun
        : error instanceof DOMException && error.name === "DataCloneError"
        ? !this.cloneable && work.runs === 0
        : work.isLoss(error));
    check(right, "a job fails for its own reason", () => `${this.name}: ${error}`);
    if (!work.isLoss(error)) return;
    work.checkLastLoss(error);
    if (this.#retryMode === "none" || work.runs <= 1) return;
    const { errors } = (error as Error).cause as AggregateError;
    check(this.#retried.every((each, i) => errors[i] === each), "the last error has those of earlier runs in its cause", () => this.name);
  }

  #checkCancelled(error: unknown): void {
    const { work } = this;
    const { end } = this.#stage;
    if (this.abort?.wasReason(error)) return;
    check(error instanceof JobCancelledError && error.jobId === work.jobId, "a cancelled job says so", () => `${this.name}: ${error}`);
    if (this.#cancelled !== undefined) {
      check(error.cause === this.#cancelled.reason, "a cancelled job knows the reason", () => this.name);
      check(work.runs === this.#cancelled.runs, "a job that was cancelled never runs any more", () => this.name);
    } else {
      check(end.cancelPending || end.terminated, "nobody but the caller cancels a job", () => this.name);
      // Jobs that have left a worker are not settled while `retryIf` is called for one of them: an end of the pool takes effect then.
      check(!work.isRunning && work.fate !== "terminated", "a pool that ends cancels only what has not started", () => this.name);
    }
  }
}

const DONE_MODES = ["none", "none", "returns", "throws", "meddles", "holds", "rejects later", "meddles and holds"] as const;
type DoneMode = typeof DONE_MODES[number];

const RETRY_MODES = ["always", "sometimes", "never", "throws", "meddles"] as const;
type RetryMode = "none" | typeof RETRY_MODES[number];

/** Time limits for work, in ms: about as long as simulated work takes. Infinity lifts the limit of the pool. */
export const LIMITS = [0, 1, 2, 3, 5, 10, 30, Infinity] as const;
