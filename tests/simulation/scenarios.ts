import { Random } from "./random.ts";
import type { TimedJob } from "./timetable.ts";

/** How jobs are submitted: all in one turn, each once the one before is admitted, by so many callers, or so many at a time. */
export type Submission =
  | { how: "together" }
  | { how: "in turn" }
  | { how: "by callers"; callers: number }
  | { how: "in bursts"; size: number; pause: number };

/** A map, and how its results are taken. */
export interface TimedMap {
  items: TimedJob[];
  chunkSize: number | "auto";
  buffer: number | undefined;
  ordered: boolean;
  /** For how long the consumer pauses after each result, in ms; 0 if it takes all at once. */
  pause: number;
}

/** Jobs, and maps beside them, that are submitted once all before them have ended. */
export interface Phase {
  submission: Submission;
  jobs: TimedJob[];
  maps: TimedMap[];
}

/** What a pool is given to do, and with what. */
export interface Scenario {
  maxWorkers: number;
  jobsPerWorker: number;
  /** Whether all workers have started before the first phase. */
  isWarm: boolean;
  /** Whether long jobs are calls of another task. */
  hasTwoTasks: boolean;
  /** Whether some jobs kill their worker. */
  isDeadly: boolean;
  phases: Phase[];
}

/** How long jobs take, in ms. A job of 0 is as short as a call can be. */
const TIMES = [0, 0, 0.05, 0.3, 1, 5, 30, 300] as const;

/** How long the jobs of a phase take, in the order of their submission. */
const MIXTURES: readonly ((random: Random) => number[])[] = [
  function uniform(random) {
    return some(random.pick(TIMES), random);
  },
  function tiny() {
    return repeat(0, 3000);
  },
  function fewLong(random) {
    const long = repeat(random.pick([30, 1000]), random.between(1, 6));
    return shuffled([...some(random.pick([0, 0.05, 1]), random), ...long], random);
  },
  function various(random) {
    return shuffled([1, 2, 3].flatMap(() => some(random.pick(TIMES), random)), random);
  },
  function rising(random) {
    const longest = random.pick([1, 5, 20]);
    return Array.from({ length: 200 }, (_, i) => longest * i / 200);
  },
  function falling(random) {
    return [1, 2, 3].flatMap(() => some(random.pick(TIMES), random)).sort((a, b) => b - a);
  },
  function alternating(random) {
    const period = random.pick([7, 50]);
    return Array.from({ length: 300 }, (_, i) => i % period === period - 1 ? 30 : 0.05);
  },
];

function repeat(time: number, count: number): number[] {
  return new Array<number>(count).fill(time);
}

/** So many that they take some seconds at most. */
function some(time: number, random: Random): number[] {
  return repeat(time, Math.min(random.pick([1, 10, 100, 1000]), Math.ceil(2000 / Math.max(time, 1))));
}

function shuffled<T>(list: T[], random: Random): T[] {
  for (let i = list.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [list[i], list[j]] = [list[j]!, list[i]!];
  }
  return list;
}

function submissionOf(random: Random): Submission {
  switch (random.below(5)) {
    case 0:
      return { how: "in turn" };
    case 1:
      return { how: "by callers", callers: random.pick([1, 2, 4, 16, 64]) };
    case 2:
      return { how: "in bursts", size: random.pick([1, 3, 20]), pause: random.pick([0.3, 2, 10]) };
    default:
      return { how: "together" };
  }
}

function newMaps(random: Random, newJob: (time: number) => TimedJob): TimedMap[] {
  return Array.from({ length: random.pick([1, 1, 2]) }, () => ({
    items: random.pick(MIXTURES)(random).map(newJob),
    chunkSize: random.pick(["auto", "auto", 5, 50] as const),
    buffer: random.pick([undefined, undefined, 10, 100]),
    ordered: random.chance(0.5),
    pause: random.pick([0, 0, 0.1, 2]),
  }));
}

export function isLong({ time }: TimedJob): boolean {
  return time >= 1;
}

/** The scenario of a seed. */
export function scenarioOf(seed: number): Scenario {
  const random = new Random(seed);
  const maxWorkers = random.pick([1, 2, 2, 3, 4, 8]);
  const jobsPerWorker = random.pick([1, 1, 1, 2, 4]);
  const waits = jobsPerWorker > 1 || random.chance(0.2);
  const isDeadly = random.chance(0.2);
  const newJob = (time: number): TimedJob => ({ number: -1, time, waits, kills: isDeadly && random.chance(0.01) });
  const phases = Array.from({ length: random.between(1, 3) }, (): Phase => {
    const submission = submissionOf(random);
    const times = random.pick(MIXTURES)(random);
    return { submission, jobs: times.map(newJob), maps: [] };
  });
  const isWarm = random.chance(0.8), hasTwoTasks = random.chance(0.5);
  // Chunks of jobs that wait, or that kill their worker, are another matter.
  const mayMap = !waits && !isDeadly;
  for (const phase of phases) if (mayMap && random.chance(0.5)) phase.maps = newMaps(random, newJob);
  return { maxWorkers, jobsPerWorker, isWarm, hasTwoTasks, isDeadly, phases };
}
