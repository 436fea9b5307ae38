import { assert, assertEquals, assertMatch } from "@std/assert";
import { fateOf } from "../demo/fate.ts";
import type { Reporter, Settled, Summary } from "../demo/reporter.ts";
import { type DemoOptions, runDemo } from "../demo/run_demo.ts";
import { within } from "./fixtures.ts";

/** Records what it is told. */
class Record implements Reporter {
  /** The order in which jobs were put in and were done. */
  events: string[] = [];
  ended: Settled[] = [];
  summaries: Summary[] = [];
  onEvent: (event: string) => void = () => {};

  submitted(job: number): void {
    this.#tell(`put in ${job}`);
  }

  settled(settled: Settled): void {
    this.ended.push(settled);
    this.#tell(`${settled.state} ${settled.job}`);
  }

  summary(summary: Summary): void {
    this.summaries.push(summary);
  }

  #tell(event: string): void {
    this.events.push(event);
    this.onEvent(event);
  }
}

/** A worker that cannot be started, as Deno reports it. */
class NoWorker {
  onerror: (event: { message: string; preventDefault(): void }) => void = () => {};

  #timer: ReturnType<typeof setTimeout>;

  constructor() {
    this.#timer = setTimeout(() => this.onerror({ message: "There are no threads left", preventDefault() {} }));
  }

  postMessage(_message: unknown, transfer: MessagePort[]): void {
    for (const port of transfer) port.close();
  }

  terminate(): void {
    clearTimeout(this.#timer);
  }
}

/** Jobs of up to 20 ms. */
const QUICK: DemoOptions = { jobs: 12, workers: 2, queueSize: 2, failRate: 0.4, seed: 1, longest: 0.02, grace: 60_000 };

/** How each job ended, in the order of their numbers. */
function outcomes({ ended }: Record): unknown[] {
  return ended.toSorted((a, b) => a.job - b.job).map(({ job, state, seconds, error }) => [job, state, seconds, error && String(error)]);
}

Deno.test("runDemo() reports each job that passed the gate and each that is done, with no more in flight than the gate admits", async () => {
  const record = new Record();
  let inFlight = 0;
  let most = 0;
  record.onEvent = (event) => {
    // The report of a job that was admitted may come after reports of jobs that were admitted and are done.
    inFlight += event.startsWith("put in") ? 1 : -1;
    most = Math.max(most, inFlight);
  };
  const summary = await within(runDemo({ ...QUICK, queueSize: 3 }, record));
  assertEquals(record.events.filter((event) => event.startsWith("put in")), Array.from({ length: 12 }, (_, job) => `put in ${job}`));
  assertEquals(record.ended.map(({ job }) => job).sort((a, b) => a - b), Array.from({ length: 12 }, (_, job) => job));
  assert(most <= 3, `${most} jobs were in flight at once`);
  assertEquals(record.summaries, [summary]);
});

Deno.test("runDemo() has jobs end as their fate says, and sums them up", async () => {
  const record = new Record();
  const summary = await within(runDemo(QUICK, record));
  const expected = Array.from({ length: 12 }, (_, job) => {
    const { seconds, fails } = fateOf(job, { seed: 1, failRate: 0.4, longest: 0.02 });
    const error = `Error: bear was woken after ${seconds.toFixed(3)} s`;
    return fails ? [job, "failed", undefined, error] : [job, "finished", seconds, undefined];
  });
  assertEquals(outcomes(record), expected);
  const failed = expected.filter(([, state]) => state === "failed").length;
  assert(failed > 0 && failed < 12);
  const { wall, busy, ...counts } = summary;
  assertEquals(counts, { jobs: 12, finished: 12 - failed, failed, cancelled: 0, neverPutIn: 0, seed: 1, stopped: false });
  assertEquals(wall, Math.max(...record.ended.map(({ end }) => end)));
  assertEquals(busy, record.ended.reduce((sum, { start, end }) => sum + (end - start!), 0));
});

Deno.test("runDemo() tells which worker had a job when: no worker has two at a time", async () => {
  const record = new Record();
  await within(runDemo(QUICK, record));
  assertEquals(record.ended.length, QUICK.jobs);
  for (const worker of new Set(record.ended.map(({ worker }) => worker))) {
    const ended = record.ended.filter((each) => each.worker === worker).sort((a, b) => a.start! - b.start!);
    for (const [i, { start, end }] of ended.entries()) {
      assert(0 <= start! && start! <= end);
      assert(i === 0 || ended[i - 1]!.end <= start!);
    }
  }
  assert(record.ended.every(({ worker }) => worker === 1 || worker === 2));
});

Deno.test("runDemo() has the same results and failures for the same seed, whatever the workers and the queue", async () => {
  const [one, other, another] = [new Record(), new Record(), new Record()];
  await within(runDemo(QUICK, one));
  await within(runDemo({ ...QUICK, workers: 3, queueSize: 12 }, other));
  await within(runDemo({ ...QUICK, seed: 2 }, another));
  assertEquals(outcomes(one), outcomes(other));
  assert(JSON.stringify(outcomes(one)) !== JSON.stringify(outcomes(another)));
});

Deno.test("runDemo() draws a seed where none is given, and the same run follows from it", async () => {
  const [drawn, again] = [new Record(), new Record()];
  const { seed } = await within(runDemo({ ...QUICK, seed: undefined }, drawn));
  await within(runDemo({ ...QUICK, seed }, again));
  assertEquals(outcomes(drawn), outcomes(again));
});

Deno.test("runDemo() gives workers no permission where it is to", async () => {
  const record = new Record();
  const { finished } = await within(runDemo({ ...QUICK, failRate: 0, permissions: "none" }, record));
  assertEquals(finished, 12);
});

Deno.test("runDemo() runs nothing when it is told to stop before it begins", async () => {
  const record = new Record();
  const summary = await within(runDemo(QUICK, record, AbortSignal.abort()));
  assertEquals([record.events, summary.neverPutIn, summary.stopped], [[], 12, true]);
});

Deno.test("runDemo() that is told to stop lets the running job end, cancels those that have not started, and puts in no more", async () => {
  const record = new Record();
  const controller = new AbortController();
  // By then job 1 has been sent to the place of job 0, jobs 2 and 3 are queued, and job 4 waits at the gate.
  record.onEvent = (event) => event === "finished 0" && controller.abort();
  const options = { ...QUICK, jobs: 10, workers: 1, queueSize: 4, failRate: 0 };
  const summary = await within(runDemo(options, record, controller.signal));
  // Only its worker knows whether it had started.
  const hadStarted = record.events.includes("finished 1");
  assertEquals(record.events, [
    ...["put in 0", "put in 1", "put in 2", "put in 3", "finished 0"],
    ...hadStarted ? ["cancelled 2", "cancelled 3", "finished 1"] : ["cancelled 1", "cancelled 2", "cancelled 3"],
  ]);
  const { finished, failed, cancelled, neverPutIn, stopped } = summary;
  assertEquals({ finished, failed, cancelled, neverPutIn, stopped }, {
    finished: hadStarted ? 2 : 1,
    failed: 0,
    cancelled: hadStarted ? 2 : 3,
    neverPutIn: 6,
    stopped: true,
  });
});

Deno.test("runDemo() that is told to stop ends what still runs when the grace is over, and reports it before it returns", async () => {
  const record = new Record();
  const controller = new AbortController();
  record.onEvent = (event) => event === "finished 0" && controller.abort();
  // With this seed, job 0 takes no time, and job 1 longer than anybody waits.
  const longest = 1000;
  let seed = 0;
  while (fateOf(0, { seed, failRate: 0, longest }).seconds > 0.1 || fateOf(1, { seed, failRate: 0, longest }).seconds < 600) seed++;
  const options = { jobs: 3, workers: 1, queueSize: 2, failRate: 0, seed, longest, grace: 0 };
  const summary = await within(runDemo(options, record, controller.signal));
  assertEquals([summary.finished, summary.failed + summary.cancelled, summary.neverPutIn], [1, 1, 1]);
  assertEquals(record.ended.map(({ job }) => job), [0, 1]);
});

Deno.test("runDemo() fails the jobs that are in, and puts in no more, when no worker can be started", async () => {
  const { Worker } = globalThis;
  globalThis.Worker = NoWorker as unknown as typeof Worker;
  try {
    const record = new Record();
    const { finished, failed, neverPutIn, stopped } = await within(runDemo(QUICK, record));
    assertEquals({ finished, inAll: failed + neverPutIn, stopped }, { finished: 0, inAll: 12, stopped: false });
    assert(failed > 0);
    assertMatch(String(record.ended[0]!.error), /^PoolBrokenError: Cannot start the workers of the pool/);
  } finally {
    globalThis.Worker = Worker;
  }
});

Deno.test("fateOf() spreads evenly: times over the whole range, failures at their rate, and none or all at the ends", () => {
  const jobs = Array.from({ length: 10_000 }, (_, job) => job);
  for (const seed of [0, 1, 2 ** 32 - 1]) {
    const fates = jobs.map((job) => fateOf(job, { seed, failRate: 0.25, longest: 1 }));
    for (let tenth = 0; tenth < 10; tenth++) {
      const share = fates.filter(({ seconds }) => Math.floor(seconds * 10) === tenth).length / jobs.length;
      assert(share > 0.08 && share < 0.12, `seed ${seed}: a share of ${share} takes from ${tenth} tenths of a second`);
    }
    const failed = fates.filter(({ fails }) => fails).length / jobs.length;
    assert(failed > 0.23 && failed < 0.27, `seed ${seed}: a share of ${failed} fails`);
    assertEquals(jobs.some((job) => fateOf(job, { seed, failRate: 0, longest: 1 }).fails), false);
    assertEquals(jobs.every((job) => fateOf(job, { seed, failRate: 1, longest: 1 }).fails), true);
  }
});

Deno.test("fateOf() is the same for ever", () => {
  const fates = [0, 1, 2].map((job) => fateOf(job, { seed: 5, failRate: 0.3, longest: 1 }));
  assertEquals(fates, [{ seconds: 0.39, fails: true }, { seconds: 0.256, fails: false }, { seconds: 0.053, fails: true }]);
});
