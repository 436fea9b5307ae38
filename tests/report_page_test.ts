import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type ObservedJob, ProcessPool } from "@procpool/process-pool";
import { main } from "@procpool/process-pool/cli";
import type { ReportData } from "../report/data.ts";
import { duration, type Figure } from "../report/figures.ts";
import { Kinds } from "../report/kinds.ts";
import { renderReport } from "../report/page.ts";
import { Recorder } from "../report/recorder.ts";
import { Stretches } from "../report/stretches.ts";
import { Timeline } from "../report/timeline.ts";
import { Browser, browserAllowed, NEEDS_BROWSER } from "./browser.ts";
import { granted } from "./fixtures.ts";
import { thrownBy } from "./helpers.ts";

const SETTINGS = { workers: 2, 'a "name"': "<b>&amp;" };

/** What a recorder makes of a run. */
async function recorded(title: string, use: (pool: ProcessPool) => Promise<unknown>): Promise<ReportData> {
  const recorder = new Recorder();
  const begin = performance.now();
  await using pool = new ProcessPool({ maxWorkers: 2, observers: [recorder] });
  await use(pool);
  await pool.shutdown();
  return recorder.data({ title, counts: pool.stats(), settings: SETTINGS, wall: performance.now() - begin });
}

/** Jobs of which every tenth fails, in one of two ways. */
async function withErrors(pool: ProcessPool): Promise<void> {
  const task = (x: number) => {
    if (x % 20 === 0) throw new RangeError(`<script>alert(${x})</script>`);
    if (x % 10 === 0) throw new TypeError("no");
    return x;
  };
  await Promise.all(Array.from({ length: 100 }, (_, x) => pool.run(task, x).catch(() => {})));
}

const total = (counts: number[]): number => counts.reduce((sum, count) => sum + count, 0);

Deno.test("Recorder gathers what a report shows", async () => {
  const data = await recorded("a run", withErrors);
  const { figures, throughput, latency, workers, errors, slowest, wall } = data;
  const distributions = latency.map(({ distribution }) => distribution);
  assertEquals(["finished", "failed", "cancelled"].map((name) => figures[name]?.value), [90, 10, 0]);
  assertEquals([total(throughput.finished), total(throughput.failed)], [90, 10]);
  for (const { bins } of distributions) assertEquals(total(bins.map(({ count }) => count)), 100);
  assertEquals(total(workers.map(({ jobs }) => jobs)), 100);
  assertEquals(workers.flatMap(({ bars }) => bars!).filter((bar) => bar.failed === 1).length, 10);
  for (const bar of workers.flatMap(({ bars }) => bars!)) assert(0 <= bar.start && bar.start <= bar.end && bar.end <= wall);
  assertEquals(errors.map(({ kind, count }) => [kind, count]), [["RangeError", 5], ["TypeError", 5]]);
  const ran = slowest.rows.map((row) => (row[slowest.head.indexOf("ran")] as Figure).value);
  assertEquals(ran.length, 10);
  assertEquals(ran, ran.toSorted((a, b) => b - a));
  assertEquals(ran[0], Math.max(...workers.flatMap(({ bars }) => bars!.map(({ start, end }) => end - start))));
});

Deno.test("Recorder gathers chunks with their items, and the errors that it is told of", async () => {
  const recorder = new Recorder();
  await using pool = new ProcessPool({ maxWorkers: 2, observers: [recorder] });
  const task = (x: number) => {
    if (x % 10 === 0) throw new Error("no");
    return x;
  };
  for await (const outcome of pool.map(task, Array(1000).keys(), { settled: true })) {
    if (outcome.status === "rejected") recorder.failed(outcome.reason);
  }
  const { throughput, errors } = recorder.data({ title: "", counts: pool.stats(), settings: {}, wall: 1 });
  assertEquals([total(throughput.finished), total(throughput.failed)], [900, 100]);
  assertEquals(errors, [{ kind: "Error", count: 100, example: "no" }]);
});

/** A job that an observer is told of, and that finished unless something else is said. */
function observed(job: Partial<ObservedJob>): ObservedJob {
  const { submitted = 0 } = job;
  const ended = { state: "finished", error: undefined, finished: 1, failed: 0, cancelled: 0, timedOut: 0 } as const;
  return {
    id: 0,
    task: "task",
    items: 1,
    submitted,
    admitted: submitted,
    sent: submitted,
    worker: 1,
    runs: 1,
    ...ended,
    ...job,
  } as ObservedJob;
}

Deno.test("Recorder counts the first waiting of a job, each of its runs, and for a chunk the mean of its items and no error of its own", () => {
  const recorder = new Recorder();
  recorder.retried(observed({ id: "a", started: 10, ended: 20 }));
  recorder.settled(observed({ id: "a", started: 50, ended: 80, settled: 80, runs: 2 }));
  const lost = new Error("of all of it");
  recorder.settled(
    observed({ id: 7, items: 4, started: 0, ended: 400, settled: 401, state: "failed", error: lost, finished: 0, failed: 4 }),
  );
  // It never ran.
  recorder.settled(observed({ id: "b", settled: 500, state: "failed", error: new RangeError("none"), finished: 0, failed: 1 }));
  const data = recorder.data({ title: "", counts: { finished: 1, failed: 5, cancelled: 0 }, settings: {}, wall: 450 });
  const [waiting, running] = data.latency.map(({ distribution: { bins, quantiles } }) => {
    const counts = bins.flatMap(({ from, to, count }) => count === 0 ? [] : [[from, to, count].map((each) => Number(each.toPrecision(3)))]);
    return [counts, quantiles.max];
  });
  assertEquals(waiting, [[[0.001, 0.00158, 1], [10, 15.8, 1]], 10]);
  assertEquals(running, [[[10, 15.8, 1], [25.1, 39.8, 1], [100, 158, 1]], 100]);
  assertEquals(data.errors, [{ kind: "RangeError", count: 1, example: "none" }]);
  assertEquals([data.wall, data.figures["jobs per second"]!.value], [500, 6 / 450 * 1000]);
  assertEquals(data.slowest.rows.map(([id, , ran]) => [id, (ran as Figure).value]), [["7 and 3 more", 400], ["a", 30], ["a", 10]]);
});

Deno.test("Recorder keeps the ten slowest of many jobs", () => {
  const recorder = new Recorder();
  for (let id = 0; id < 100; id++) recorder.settled(observed({ id, started: 0, ended: id * 37 % 100, settled: 100 }));
  const { slowest } = recorder.data({ title: "", counts: { finished: 100, failed: 0, cancelled: 0 }, settings: {}, wall: 100 });
  assertEquals(slowest.rows.map(([, , ran]) => (ran as Figure).value), [99, 98, 97, 96, 95, 94, 93, 92, 91, 90]);
});

Deno.test("Kinds counts up to a hundred kinds of errors one by one, the most frequent first", () => {
  const kinds = new Kinds();
  for (let round = 0; round < 2; round++) for (let i = 0; i < 150; i++) kinds.add(`E${i}`, () => `${round} ${i}`);
  kinds.add("E7", () => "once more");
  const all = kinds.get();
  assertEquals([all.length, all[0], all[1]], [101, { kind: "other kinds", count: 100, example: "0 100" }, {
    kind: "E7",
    count: 3,
    example: "0 7",
  }]);
});

Deno.test("Stretches adds amounts where they were, also those of no time at all", () => {
  const stretches = new Stretches();
  stretches.spread("a", { start: 7, end: 7 }, 3);
  stretches.spread("a", { start: 8, end: 18 }, 20);
  stretches.add("a", 10, 1);
  assertEquals(stretches.get("a", 18), [0, 7, 11, 6]);
  for (const wall of [0, 1, 5]) assertEquals(stretches.get("a", wall), [0]);
  // Twice as wide.
  stretches.add("a", 1000, 1);
  assertEquals([stretches.width, stretches.get("a", 1001).slice(0, 3), stretches.get("a", 1001).at(-1)], [10, [7, 17, 0], 1]);
});

Deno.test("Timeline gives a worker the row of one that is gone, whose last job may be reported later, and leaves out those without jobs", () => {
  const timeline = new Timeline(new Stretches());
  const bar = (start: number, end: number) => ({ label: "", start, end, failed: 0, outcome: "" });
  for (const worker of [3, 2, 1]) timeline.entered(worker);
  timeline.left(3);
  timeline.entered(4);
  timeline.add(2, bar(0, 10));
  timeline.add(3, bar(0, 10));
  timeline.add(4, bar(10, 20));
  timeline.add(4, bar(10, 15));
  assertEquals(timeline.rows(20, 2).map(({ worker, replaced, jobs, utilisation }) => [worker, replaced, jobs, utilisation]), [
    [2, 0, 1, 0.25],
    [3, 1, 3, 0.625],
  ]);
  assertEquals(timeline.rows(20, 2).map(({ busy }) => busy), [[0.5, 0.5, 0, 0], [0.5, 0.5, 1, 0.5]]);
  assertEquals([timeline.endOf(4), timeline.endOf(1), timeline.endOf(9)], [20, 0, 0]);
});

Deno.test("Recorder keeps its memory however long the run: stretches get longer, and bars are given up", () => {
  const recorder = new Recorder();
  recorder.opened({
    opened: 0,
    jobsPerWorker: 1,
    maxWorkers: 1,
    queueSize: 1,
    levels: () => ({ waiting: 0, queued: 0, running: 0, workers: 1 }),
  });
  const JOBS = 5000;
  for (let i = 0; i < JOBS; i++) {
    const at = i * 100;
    recorder.settled(observed({ id: i, submitted: at, started: at + 50, ended: at + 75, settled: at + 75 }));
  }
  const { throughput, workers, wall } = recorder.data({
    title: "",
    counts: { finished: JOBS, failed: 0, cancelled: 0 },
    settings: {},
    wall: 0,
  });
  assertEquals([wall, total(throughput.finished)], [(JOBS - 1) * 100 + 75, JOBS]);
  assert(throughput.finished.length <= 200 && throughput.finished.length > 90, `${throughput.finished.length}`);
  const [{ bars, utilisation, busy }] = workers as [ReportData["workers"][number]];
  assertEquals(bars, undefined);
  assert(Math.abs(utilisation - 0.25) < 0.001 && busy.slice(0, -1).every((part) => Math.abs(part - 0.25) < 0.02), `${utilisation} ${busy}`);
});

Deno.test("renderReport() puts no text of a run into the page as markup, and needs no network", async () => {
  const page = renderReport(await recorded('<script>alert("title")</script>', withErrors));
  assert(!page.includes("<script>alert"));
  assertMatch(page, /&lt;script&gt;alert\(\d+\)&lt;\/script&gt;/);
  assertStringIncludes(page, "&lt;b&gt;&amp;amp;");
  assert(!/https?:/.test(page), "there is no address in it");
});

Deno.test("renderReport() has a page for a run without jobs", () => {
  const data = new Recorder().data({ title: "nothing", counts: { finished: 0, failed: 0, cancelled: 0 }, settings: {}, wall: 0 });
  const page = renderReport(data);
  assertStringIncludes(page, "No job has started.");
  const [body] = page.split("<script>") as [string];
  assert(!/NaN|Infinity|undefined/.test(body), body);
});

// In a browser

const ignore = !browserAllowed;

Deno.test({
  name: `The report of the demo, in a browser, has the figures of its summary, and logs nothing ${NEEDS_BROWSER}`,
  ignore: ignore || !granted("read"),
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    const path = await Deno.makeTempFile({ suffix: ".html" });
    const lines: string[] = [];
    const { log } = console;
    console.log = (line: string) => lines.push(line);
    try {
      assertEquals(await main(["--jobs", "12", "--workers", "4", "--fail-rate", "0.4", "--seed", "1", "--json", "--report", path]), 1);
    } finally {
      console.log = log;
    }
    try {
      const events = lines.map((line) => JSON.parse(line));
      const summary = events.at(-1);
      assert(summary.failed > 0 && summary.finished > 0);
      await using browser = await Browser.start();
      for (const look of [{ width: 1100 }, { width: 1100, dark: true }, { width: 360 }]) {
        await browser.look(look);
        await browser.open(`file://${path}`);
        const tiles = await browser.evaluate(`Object.fromEntries([...document.querySelectorAll("[data-tile]")].map((tile) =>
          [tile.dataset.tile, tile.querySelector("dd").textContent]))`) as Record<string, string>;
        assertEquals([tiles.jobs, tiles.finished, tiles.failed, tiles.cancelled], ["12", `${summary.finished}`, `${summary.failed}`, "0"]);
        assertEquals(tiles["wall time"]!.replaceAll("\u00a0", " "), duration(summary.wall));
        // Each job has a bar, in the colour of its outcome, at its time and worker.
        const bars = await browser.evaluate(`[...document.querySelectorAll("#lanes rect")].map((rect) =>
          [rect.querySelector("title").textContent, rect.getBoundingClientRect().width, getComputedStyle(rect).fill])`) as [
          string,
          number,
          string,
        ][];
        assertEquals(bars.length, 12);
        assert(bars.every(([, width]) => width > 0));
        assertEquals(new Set(bars.map(([, , fill]) => fill)).size, 2);
        const ids = bars.map(([title]) => Number(/^job (\d+) /.exec(title)?.[1])).sort((a, b) => a - b);
        assertEquals(ids, Array(12).keys().toArray());
        const errors = await browser.evaluate(`document.querySelector("#errors tbody").innerText`) as string;
        assertEquals(errors.split("\t").slice(0, 2), ["Error", `${summary.failed}`]);
        // Nothing but tables scrolls sideways.
        assertEquals(await browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), true, JSON.stringify(look));
      }
      assertEquals(browser.problems, []);
      assertEquals(browser.requests.filter((url) => !url.startsWith("file:") && url !== "data:,"), []);
    } finally {
      await Deno.remove(path);
    }
  },
});

Deno.test({
  name: `A report can be read by keyboard, in light and in dark ${NEEDS_BROWSER}`,
  ignore,
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    const page = renderReport(
      await recorded("by keyboard", async (pool) => {
        await pool.warmUp();
        const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
        await Promise.all([20, 20, 20, 20].map((ms) => pool.run(sleep, ms)));
        await thrownBy(() => pool.run(() => Promise.reject(new Error("no"))));
      }),
    );
    const path = await Deno.makeTempFile({ suffix: ".html" });
    await Deno.writeTextFile(path, page);
    try {
      await using browser = await Browser.start();
      const backgrounds: unknown[] = [];
      for (const dark of [false, true]) {
        await browser.look({ width: 1100, dark });
        await browser.open(`file://${path}`);
        backgrounds.push(await browser.evaluate("getComputedStyle(document.body).backgroundColor"));
        const reached: unknown[] = [];
        while (!reached.includes("lanes")) {
          await browser.press("Tab");
          reached.push(await browser.evaluate("document.activeElement.id || document.activeElement.tagName"));
          assert(reached.length < 50, `${reached}`);
        }
        const chosen = () => browser.evaluate(`document.getElementById("chosen").textContent`) as Promise<string>;
        await browser.press("ArrowRight");
        const first = await chosen();
        assert(/^job \d+ \(.*\) on worker 1: /.test(first), first);
        await browser.press("ArrowRight");
        const second = await chosen();
        assert(second !== first && second.includes("on worker 1: "), second);
        await browser.press("ArrowDown");
        assertStringIncludes(await chosen(), "on worker 2: ");
        await browser.press("ArrowDown");
        assertStringIncludes(await chosen(), "on worker 2: ");
      }
      assertEquals(backgrounds, ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]);
      assertEquals(browser.problems, []);
    } finally {
      await Deno.remove(path);
    }
  },
});
