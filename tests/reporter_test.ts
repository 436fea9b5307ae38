import { assertEquals } from "@std/assert";
import { createReporter, type ReporterOptions, type Settled, type Summary, type Terminal } from "../demo/reporter.ts";

const SUMMARY: Summary = {
  jobs: 3,
  finished: 1,
  failed: 1,
  cancelled: 0,
  neverPutIn: 1,
  wall: 1000.0004,
  busy: 1250,
  seed: 7,
  stopped: true,
};

const FINISHED: Settled = {
  job: 0,
  task: "funDemo",
  state: "finished",
  worker: 1,
  start: 0,
  end: 500.12345,
  seconds: 0.5,
  error: undefined,
};
const FAILED: Settled = {
  ...FINISHED,
  job: 1,
  state: "failed",
  worker: 2,
  start: 250,
  end: 1000,
  seconds: undefined,
  error: new Error("no"),
};
const CANCELLED: Settled = { ...FAILED, job: 2, state: "cancelled", worker: undefined, start: undefined, error: new Error("gone") };

/** The lines that a reporter prints about this run. */
function report(options: Partial<ReporterOptions>, terminal: Partial<Terminal> = {}, summary: Partial<Summary> = {}): string[] {
  const lines: string[] = [];
  const print = (line: string) => void lines.push(line);
  const reporter = createReporter({ json: false, quiet: false, timeline: true, ...options }, {
    print,
    columns: 40,
    color: false,
    ...terminal,
  });
  reporter.submitted(0, 0.12345);
  reporter.submitted(1, 1);
  for (const settled of [FINISHED, FAILED, CANCELLED]) reporter.settled(settled);
  reporter.summary({ ...SUMMARY, ...summary });
  return lines;
}

const JOBS = ["put in job[0]", "put in job[1]", "job[0] worker[funDemo] finish: [0.500]", "job[1] worker[funDemo] error: [Error: no]"];
const END = [
  "stopped: 1 finished, 1 failed, 0 cancelled, 1 never put in",
  "3 jobs, 1 failed, wall 1.00 s, busy 1.25 s, speed-up 1.25, seed 7",
];
const TIMELINE = [
  "worker 1 |0==============...............",
  "worker 2 .......|1xxxxxxxxxxxxxxxxxxxxxx",
  "         +-----+-----+-----+-----+------",
];

Deno.test("createReporter() prints the lines of jobs, then what was left, a summary and a timeline", () => {
  const lines = report({});
  assertEquals(lines.slice(0, 6), [...JOBS, ...END]);
  assertEquals(lines.slice(6, 8), TIMELINE.slice(0, 2));
  assertEquals(lines.at(-1), "         x failed");
});

Deno.test("createReporter() prints no lines of jobs with 'quiet', no timeline without 'timeline', and no line of what was left if nothing was", () => {
  assertEquals(report({ quiet: true }).slice(0, 3), [...END, TIMELINE[0]!]);
  assertEquals(report({ timeline: false }), [...JOBS, ...END]);
  assertEquals(report({ timeline: false, quiet: true }, {}, { stopped: false, neverPutIn: 0 }), END.slice(1));
});

Deno.test("createReporter() says what was left of a run that ended by itself, as when no worker can be started", () => {
  assertEquals(report({ timeline: false, quiet: true }, {}, { stopped: false }), END);
});

Deno.test("createReporter() says '1 job', and a speed-up of 0 for a run that took no time", () => {
  const [line] = report({ timeline: false, quiet: true }, {}, { jobs: 1, wall: 0, busy: 0, stopped: false, neverPutIn: 0 });
  assertEquals(line, "1 job, 1 failed, wall 0.00 s, busy 0.00 s, speed-up 0.00, seed 7");
});

Deno.test("createReporter() prints failures in red where there are colours", () => {
  const plain = report({});
  const colored = report({}, { color: true });
  assertEquals(colored.map((line) => line.replace("\x1b[31m", "").replace("\x1b[39m", "")), plain);
  assertEquals(colored.flatMap((line, i) => line === plain[i] ? [] : [line]), [
    "\x1b[31mjob[1] worker[funDemo] error: [Error: no]\x1b[39m",
    "worker 2 .......\x1b[31m|1xxxxxxxxxxxxxxxxxxxxxx\x1b[39m",
  ]);
});

Deno.test("createReporter() prints one JSON object a line with 'json', without fields that do not apply, whatever the terminal", () => {
  const summary = { event: "summary", jobs: 3, finished: 1, failed: 1, cancelled: 0, neverPutIn: 1, seed: 7, stopped: true };
  const last = { ...summary, wall: 1000, busy: 1250, speedUp: 1.25 };
  assertEquals(report({ json: true }, { color: true }).map((line) => JSON.parse(line)), [
    { event: "submitted", job: 0, at: 0.123 },
    { event: "submitted", job: 1, at: 1 },
    { event: "finished", job: 0, worker: 1, seconds: 0.5, start: 0, end: 500.123 },
    { event: "failed", job: 1, worker: 2, error: "Error: no", start: 250, end: 1000 },
    { event: "cancelled", job: 2, error: "Error: gone", end: 1000 },
    last,
  ]);
  assertEquals(report({ json: true, quiet: true }).map((line) => JSON.parse(line)), [last]);
});
