import { ProcessPool, type ProcessPoolOptions } from "../../mod.ts";
import { ENVIRONMENT, type Environment } from "../../pool/options.ts";
import { slotsOf } from "../../worker/slot.ts";
import { isLong, type Phase, type Scenario, scenarioOf } from "./scenarios.ts";
import { SimulatedClock } from "./simulated_clock.ts";
import { TimedThread, withLateTimers } from "./timed_thread.ts";
import { type Figures, type TimedJob, Timetable } from "./timetable.ts";
import { check, Violation } from "./violation.ts";

/**
 * What no scenario exceeds, in ms; of some thousands one does now and then. The pool takes back what waits while a worker is idle every ms,
 * and what was overtaken every 20 ms.
 */
const LONGEST_IDLE = 15, LONGEST_OVERTAKEN = 75, LONGEST_UNHEARD = 2;

/** How much longer a scenario may take than if all jobs were started in order, in ms: workers may have to be started. */
const MOST_EXCESS = 75;

/** How often a job is taken back at most, on average. */
const MOST_RETURNS = 12;

/** All scenarios end within this many ms. */
const LONGEST = 100_000;

/** Resolves after the microtasks. */
declare const setImmediate: (callback: (value: unknown) => void) => unknown;

// Two tasks, of which only the calls differ.

function short(job: number): number {
  return job;
}

function long(job: number): number {
  return job;
}

/** One scenario in a pool whose workers are simulated, and whose time is that of a clock. */
class TimedRun {
  #scenario: Scenario;
  #clock = new SimulatedClock();
  #timetable: Timetable;
  #pool: ProcessPool;

  constructor(scenario: Scenario, trace: ((line: string) => void) | undefined) {
    this.#scenario = scenario;
    const clock = this.#clock;
    const timetable = this.#timetable = new Timetable(clock, trace);
    timetable.note(() => JSON.stringify(scenario, (key, value) => key === "jobs" ? `${value.length} jobs` : value));
    const openSlot = slotsOf((events, name) => new TimedThread(events, name, { clock, timetable }));
    const environment: Environment = { openSlot, load: () => Promise.resolve(openSlot), clock: withLateTimers(clock) };
    const { maxWorkers, jobsPerWorker } = scenario;
    const options: ProcessPoolOptions = { maxWorkers, jobsPerWorker, retries: 100, idleTimeout: Infinity, onError: () => {} };
    this.#pool = new ProcessPool({ ...options, [ENVIRONMENT]: environment } as ProcessPoolOptions);
  }

  /** Runs it to its end. */
  async run(): Promise<Figures> {
    let isOver = false;
    const end = this.#runPhases().finally(() => isOver = true);
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      if (isOver) break;
      check(this.#clock.timers > 0 && this.#clock.now() < LONGEST, "nothing hangs");
      this.#clock.fire();
    }
    await end;
    return this.#timetable.figures(this.#scenario.maxWorkers * this.#scenario.jobsPerWorker);
  }

  async #runPhases(): Promise<void> {
    if (this.#scenario.isWarm) await this.#pool.warmUp();
    for (const phase of this.#scenario.phases) await this.#runPhase(phase);
    await this.#pool.shutdown();
  }

  async #runPhase({ submission, jobs }: Phase): Promise<void> {
    switch (submission.how) {
      case "together":
        return void await Promise.all(jobs.map((job) => this.#runJob(job)));
      case "in turn":
        return void await Promise.all(await this.#submitInTurn(jobs));
      case "by callers": {
        const rest = jobs.values();
        const call = async (): Promise<void> => {
          for (const job of rest) await this.#runJob(job);
        };
        return void await Promise.all(Array.from({ length: submission.callers }, call));
      }
      case "in bursts": {
        const results: Promise<void>[] = [];
        for (let i = 0; i < jobs.length; i += submission.size) {
          results.push(...jobs.slice(i, i + submission.size).map((job) => this.#runJob(job)));
          await new Promise<void>((resolve) => this.#clock.happens(submission.pause, resolve));
        }
        return void await Promise.all(results);
      }
    }
  }

  async #runJob(job: TimedJob): Promise<void> {
    this.#timetable.submit(job);
    await this.#pool.run(this.#taskOf(job), job.number);
    this.#timetable.hear(job);
  }

  async #submitInTurn(jobs: TimedJob[]): Promise<Promise<void>[]> {
    const results: Promise<void>[] = [];
    for (const job of jobs) {
      this.#timetable.submit(job);
      const future = await this.#pool.submit(this.#taskOf(job), job.number);
      results.push(future.result().then(() => this.#timetable.hear(job)));
    }
    return results;
  }

  #taskOf(job: TimedJob): (job: number) => number {
    return this.#scenario.hasTwoTasks && isLong(job) ? long : short;
  }
}

function checkFigures({ idle, overtaken, unheard, excess, cameBack }: Figures, { phases, isDeadly }: Scenario): void {
  const jobs = phases.reduce((sum, phase) => sum + phase.jobs.length, 0);
  check(idle <= LONGEST_IDLE, "no job waits for long while a worker is idle", () => `${idle} ms`);
  check(overtaken <= LONGEST_OVERTAKEN, "no job is overtaken for long", () => `${overtaken} ms`);
  check(unheard <= LONGEST_UNHEARD, "who waits for a result hears of it soon", () => `${unheard} ms`);
  check(cameBack <= MOST_RETURNS * jobs, "jobs do not go back and forth", () => `${cameBack} times, with ${jobs} jobs`);
  check(isDeadly || excess <= MOST_EXCESS, "all jobs have ended when they would if started in order", () => `${excess} ms later`);
}

/** Runs the scenario of a seed in time. Returns the broken invariant, if there is one. */
export async function simulateInTime(seed: number, trace?: (line: string) => void): Promise<Violation | undefined> {
  const scenario = scenarioOf(seed);
  try {
    const figures = await new TimedRun(scenario, trace).run();
    trace?.(JSON.stringify(figures));
    checkFigures(figures, scenario);
    return undefined;
  } catch (error) {
    if (error instanceof Violation) return error;
    throw error;
  }
}
