import { ProcessPool, type ProcessPoolOptions } from "../../mod.ts";
import { ENVIRONMENT, type Environment } from "../../pool/options.ts";
import { slotsOf } from "../../worker/slot.ts";
import { isLong, type Phase, type Scenario, scenarioOf, type Submission, type TimedMap } from "./scenarios.ts";
import { SimulatedClock } from "./simulated_clock.ts";
import { TimedThread, withLateTimers } from "./timed_thread.ts";
import { type Figures, type Taken, type TimedJob, Timetable } from "./timetable.ts";
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

/** How many chunks a map has in flight at most, for each job that runs at a time. */
const MOST_CHUNKS = 2;

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
    timetable.note(() => JSON.stringify(scenario, (key, value) => key === "jobs" || key === "items" ? `${value.length} ${key}` : value));
    const openSlot = slotsOf((events, name) => new TimedThread(events, name, { clock, timetable }));
    const environment: Environment = { openSlot, load: () => Promise.resolve(openSlot), clock: withLateTimers(clock) };
    const { maxWorkers, jobsPerWorker, isDeadly } = scenario;
    const options: ProcessPoolOptions = {
      maxWorkers,
      jobsPerWorker,
      retries: isDeadly ? 100 : 0,
      idleTimeout: Infinity,
      onError: () => {},
    };
    this.#pool = new ProcessPool({ ...options, [ENVIRONMENT]: environment } as ProcessPoolOptions);
  }

  /** Runs it to its end. */
  async run(): Promise<Figures> {
    let isOver = false;
    const end = this.#runPhases().finally(() => isOver = true);
    // It is awaited below.
    end.catch(() => {});
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

  async #runPhase({ submission, jobs, maps }: Phase): Promise<void> {
    await Promise.all([this.#runJobs(submission, jobs), ...maps.map((map) => this.#runMap(map))]);
  }

  async #runJobs(submission: Submission, jobs: TimedJob[]): Promise<void> {
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
          await this.#pause(submission.pause);
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

  async #runMap(map: TimedMap): Promise<void> {
    const { chunkSize, buffer, ordered, pause } = map;
    const taken: Taken[] = [];
    const items = this.#read(map, taken);
    const results = this.#pool.map(short, items, buffer === undefined ? { chunkSize, ordered } : { chunkSize, ordered, buffer });
    for (;;) {
      const asked = this.#clock.now();
      const { done, value } = await results.next();
      if (done) break;
      taken.push({ asked, given: this.#clock.now(), item: this.#timetable.job(value) });
      if (pause > 0) await this.#pause(pause);
    }
    this.#timetable.hearAll(taken, ordered);
  }

  *#read({ items, buffer, pause }: TimedMap, taken: Taken[]): Generator<number> {
    // What a map reads later by right, since its results are not taken or must not be many, has not waited before.
    const begin = this.#clock.now();
    const isWaited = buffer !== undefined || pause > 0;
    for (const [i, item] of items.entries()) {
      // The consumer is just being given one.
      check(i - taken.length <= (buffer ?? Infinity), "a map reads no more than 'buffer' items ahead", () => `${i - taken.length}`);
      this.#timetable.read(item, isWaited ? this.#clock.now() : begin);
      yield item.number;
    }
  }

  #pause(time: number): Promise<void> {
    return new Promise((resolve) => this.#clock.happens(time, resolve));
  }

  #taskOf(job: TimedJob): (job: number) => number {
    return this.#scenario.hasTwoTasks && isLong(job) ? long : short;
  }
}

function checkFigures(
  { idle, overtaken, unheard, excess, cameBack, chunksBefore }: Figures,
  { phases, isDeadly, maxWorkers, jobsPerWorker }: Scenario,
): void {
  const mostChunks = MOST_CHUNKS * maxWorkers * jobsPerWorker * Math.max(...phases.map(({ maps }) => maps.length));
  const jobs = phases.reduce((sum, phase) => sum + phase.jobs.length + phase.maps.reduce((sum, { items }) => sum + items.length, 0), 0);
  check(idle <= LONGEST_IDLE, "no job waits for long while a worker is idle", () => `${idle} ms`);
  check(overtaken <= LONGEST_OVERTAKEN, "no job is overtaken for long", () => `${overtaken} ms`);
  check(unheard <= LONGEST_UNHEARD, "who waits for a result hears of it soon", () => `${unheard} ms`);
  check(chunksBefore <= mostChunks, "a job waits for few chunks of a map", () => `${chunksBefore}`);
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
