import { Job, JobCancelledError, PoolBrokenError, PoolClosedError } from "../../mod.ts";
import type { Abort } from "./aborts.ts";
import { double, type Stage } from "./jobs.ts";
import { check } from "./violation.ts";
import type { Work } from "./works.ts";

/** A job of `run()`: its caller wants nothing but the result, so it has no future. */
export class SimulatedRun {
  readonly name: string;
  readonly work: Work;
  #stage: Stage;
  #abort: Abort | undefined;
  #outcome: { value: number } | { error: unknown } | undefined;

  constructor(stage: Stage, abort: Abort | undefined) {
    const { world, jobTimeout, retries } = stage;
    this.#stage = stage;
    this.#abort = abort;
    this.name = `run ${world.works.length}`;
    this.work = world.newWork({ id: this.name, limit: jobTimeout, retries, isWanted: () => !this.settled });
  }

  get settled(): boolean {
    return this.#outcome !== undefined;
  }

  start(): void {
    const { world, pool } = this.#stage;
    const { number, limit } = this.work;
    world.note(() => `${this.name}${this.#abort === undefined ? "" : ` with ${this.#abort.name}`}, at most ${limit} ms`);
    // The id of a mere call is the pool's secret until an error tells it. That is too late where there are time limits.
    const isCall = world.tiny && this.#abort === undefined;
    const signal = this.#abort?.signal;
    const result = isCall ? pool.run(double, number) : pool.run(new Job({ id: this.name, func: double, args: [number], signal }));
    result.then((value) => this.#settled({ value }), (error) => {
      if (isCall) this.work.jobId = (error as { jobId?: number }).jobId ?? this.name;
      this.#settled({ error });
    }).catch((error) => this.#stage.fail(error));
  }

  #settled(outcome: { value: number } | { error: unknown }): void {
    this.#stage.world.activity++;
    this.#outcome = outcome;
  }

  /** After every step. */
  checkNow(): void {
    check(this.work.state !== "answered" || this.settled, "a job that was answered has settled", () => this.name);
    check(this.#abort?.aborted !== true || this.settled, "an abort takes effect at once", () => this.name);
  }

  /** After the last step. */
  checkAtEnd(): void {
    const { work } = this;
    check(this.#outcome !== undefined, "every job settles", () => this.name);
    if ("value" in this.#outcome) {
      const right = work.state === "answered" && "value" in work.outcome! && work.outcome.value === this.#outcome.value;
      return check(right, "a finished job has its own result", () => this.name);
    }
    const { error } = this.#outcome;
    check(this.#isError(error), "a job fails for its own reason", () => `${this.name}: ${error}`);
    if (work.isLoss(error)) work.checkLastLoss(error);
  }

  #isError(error: unknown): boolean {
    const { work } = this;
    const { asked, cancelPending, terminated } = this.#stage.end;
    // Its answer may arrive after it has been let go.
    if (this.#abort?.wasReason(error)) return true;
    if (work.state === "answered") return "error" in work.outcome! && work.outcome.error === error;
    if (error instanceof PoolBrokenError) return work.mayRun;
    if (error instanceof PoolClosedError) return work.runs === 0 ? asked : work.state === "lost" && work.fate === "terminated";
    if (error instanceof JobCancelledError) return cancelPending || terminated;
    return work.isLoss(error);
  }
}
