/**
 * What is measured: the workloads as data. How each is driven stands in `child/drive.mjs`, and in `child/drive.py` for Python.
 *
 * @module
 */

/** One figure that a workload gives. */
export interface Measure {
  /** Its name among the figures. */
  name: string;
  /** What it is called beside the workload's title; empty if the title says it. */
  title: string;
  unit: string;
  better: "higher" | "lower";
}

/** How a workload is driven. */
export type Drive =
  | "calls"
  | "roundTrip"
  | "map"
  | "mapTyped"
  | "copy"
  | "move"
  | "compute"
  | "prepared"
  | "coldStart"
  | "mixed"
  | "mixedMap"
  | "fairness"
  | "handOver";

/** Something that every contender is asked to do. */
export interface Workload {
  name: string;
  title: string;
  /** What it tells about a pool. */
  about: string;
  drive: Drive;
  /** How much of it: what the drive takes. */
  size: Record<string, number>;
  workers: number;
  /** The first is the one that charts show. */
  measures: [Measure, ...Measure[]];
}

const KIB = 1024;
const JOBS_PER_SECOND: Measure = { name: "rate", title: "", unit: "jobs/s", better: "higher" };
const ITEMS_PER_SECOND: Measure = { name: "rate", title: "", unit: "items/s", better: "higher" };
const BOTH_WAYS: Measure = { name: "rate", title: "", unit: "MB/s", better: "higher" };
const EFFICIENCY: Measure = { name: "efficiency", title: "", unit: "of the cores", better: "higher" };
const ROUND_TRIP: [Measure, Measure] = [
  { name: "median", title: "median", unit: "µs", better: "lower" },
  { name: "p99", title: "p99", unit: "µs", better: "lower" },
];

export const WORKLOADS: readonly Workload[] = [
  {
    name: "tiny-windows",
    title: "100,000 calls of x => x + 1, 1,000 at a time",
    about: "what a job costs",
    drive: "calls",
    size: { jobs: 100_000, window: 1_000 },
    workers: 2,
    measures: [JOBS_PER_SECOND],
  },
  {
    name: "tiny-many",
    title: "1,000,000 calls of x => x + 1, 1,000 at a time",
    about: "what a job costs in a long run: of a tenth as many, V8's compiler takes as much time as the jobs",
    drive: "calls",
    size: { jobs: 1_000_000, window: 1_000 },
    workers: 2,
    measures: [JOBS_PER_SECOND],
  },
  {
    name: "tiny-few",
    title: "200,000 calls of x => x + 1, 40 at a time",
    about: "what a job costs who has some tens of them in flight",
    drive: "calls",
    size: { jobs: 200_000, window: 40 },
    workers: 2,
    measures: [JOBS_PER_SECOND],
  },
  {
    name: "tiny-all",
    title: "100,000 calls of x => x + 1, all under one Promise.all",
    about: "whether a long queue is dear",
    drive: "calls",
    size: { jobs: 100_000, window: 100_000 },
    workers: 2,
    measures: [JOBS_PER_SECOND],
  },
  {
    name: "roundtrip-asleep",
    title: "one call after another, a pause between them",
    about: "how long a call takes when caller and workers have gone to sleep",
    drive: "roundTrip",
    size: { calls: 500, warmUp: 50, pause: 2 },
    workers: 2,
    measures: ROUND_TRIP,
  },
  {
    name: "roundtrip-awake",
    title: "one call after another, back to back",
    about: "how long a call takes; after 40,000 others, as V8 compiles until then, which takes cores from workers",
    drive: "roundTrip",
    size: { calls: 10_000, warmUp: 40_000, pause: 0 },
    workers: 2,
    measures: ROUND_TRIP,
  },
  {
    name: "map",
    title: "1,000,000 integers mapped in order",
    about: "what an item of a long input costs; in chunks of 1,000 by hand where the pool makes none",
    drive: "map",
    size: { items: 1_000_000, chunk: 1_000 },
    workers: 2,
    measures: [ITEMS_PER_SECOND],
  },
  {
    name: "map-typed",
    title: "4,000,000 numbers mapped in order, in Float64Arrays of 1,000",
    about: "what numbers cost that travel packed",
    drive: "mapTyped",
    size: { items: 4_000_000, chunk: 1_000 },
    workers: 2,
    measures: [ITEMS_PER_SECOND],
  },
  {
    name: "copy-bytes",
    title: "64 KiB in and out, copied, as a Uint8Array",
    about: "what data costs; in MB/s of both ways together",
    drive: "copy",
    size: { jobs: 4_000, bytes: 64 * KIB, inFlight: 8, seconds: 4, view: 1 },
    workers: 2,
    measures: [BOTH_WAYS],
  },
  {
    name: "copy-buffer",
    title: "64 KiB in and out, copied, as an ArrayBuffer",
    about: "the same without the view, which node:worker_threads on Deno is slow with",
    drive: "copy",
    size: { jobs: 4_000, bytes: 64 * KIB, inFlight: 8, seconds: 4, view: 0 },
    workers: 2,
    measures: [BOTH_WAYS],
  },
  {
    name: "move",
    title: "64 KiB in and out, moved",
    about: "what data costs that is transferred; in MB/s of both ways together",
    drive: "move",
    size: { jobs: 10_000, bytes: 64 * KIB, inFlight: 8, seconds: 4 },
    workers: 2,
    measures: [BOTH_WAYS],
  },
  {
    name: "compute-35ms",
    title: "64 computing jobs of 35 ms",
    about: "whether long jobs keep all cores busy: the jobs' time on one thread / (wall time * workers)",
    drive: "compute",
    size: { jobs: 64, microseconds: 35_000, alone: 8 },
    workers: 2,
    measures: [EFFICIENCY],
  },
  {
    name: "compute-100us",
    title: "10,000 computing jobs of 100 µs",
    about: "whether short jobs keep all cores busy: the jobs' time on one thread / (wall time * workers)",
    drive: "compute",
    size: { jobs: 10_000, microseconds: 100, alone: 2_000 },
    workers: 2,
    measures: [EFFICIENCY],
  },
  {
    name: "prepared",
    title: "5,000 jobs of 50 µs, each made ready by 50 µs of computing, 1,000 at a time",
    about: "whether a worker works while its caller makes the next job ready: the jobs' time on one thread / wall time",
    drive: "prepared",
    size: { jobs: 5_000, microseconds: 50, window: 1_000, alone: 2_000 },
    workers: 1,
    measures: [EFFICIENCY],
  },
  {
    name: "cold-start",
    title: "a program with 4 workers and 10 jobs, from start to exit",
    about: "what a pool adds to a short program",
    drive: "coldStart",
    size: { jobs: 10, repeats: 5 },
    workers: 4,
    measures: [{ name: "time", title: "", unit: "ms", better: "lower" }],
  },
  {
    name: "mixed-calls",
    title: "100,000 calls of three tasks, objects of 200 bytes in and out, 1 % fail",
    about: "what a job costs that is not x => x + 1; 1,000 at a time",
    drive: "mixed",
    size: { jobs: 100_000, window: 1_000 },
    workers: 2,
    measures: [JOBS_PER_SECOND],
  },
  {
    name: "mixed-map",
    title: "200,000 objects of 200 bytes mapped in order to such objects, 1 % fail",
    about: "what an item costs that is no number; in chunks of 100 by hand where the pool makes none",
    drive: "mixedMap",
    size: { items: 200_000, chunk: 100 },
    workers: 2,
    measures: [ITEMS_PER_SECOND],
  },
  {
    name: "fairness",
    title: "200 jobs of 1 ms and one of 1 s among them, at once",
    about: "whether a short job waits behind a long one: the wait is 200 ms at best, and none of it while a worker is idle",
    drive: "fairness",
    size: { bursts: 3, before: 50, after: 150, short: 1, long: 1_000, warmUp: 200 },
    workers: 2,
    measures: [
      { name: "idle", title: "longest time that one waited while a worker was idle", unit: "ms", better: "lower" },
      { name: "wait", title: "longest wait of a short one", unit: "ms", better: "lower" },
    ],
  },
  {
    name: "handover",
    title: "from the end of a task of 1 to 20 ms until its caller has the result",
    about: "whether results are held back, for a batch or by the next job; 240 jobs at once, which leave the cores to others",
    drive: "handOver",
    size: { jobs: 240 },
    workers: 2,
    measures: [
      { name: "p99", title: "p99", unit: "ms", better: "lower" },
      { name: "median", title: "median", unit: "ms", better: "lower" },
    ],
  },
];
