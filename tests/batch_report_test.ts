import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { BatchError, type BatchSummary } from "@procpool/process-pool/batch";
import type { RangeRun } from "../batch/active_part.ts";
import { speedOf } from "../batch/progress.ts";
import { BatchRecorder } from "../batch/recorder.ts";
import type { ObservedJob } from "../pool/observation.ts";
import { duration, percent, rounded } from "../report/figures.ts";
import { Folder, ignore, NEEDS, numbers, run } from "./batch_fixtures.ts";
import { Browser, browserAllowed, NEEDS_BROWSER } from "./browser.ts";
import { granted, within } from "./fixtures.ts";
import { assertFails, thrownBy, until } from "./helpers.ts";

// The summary

Deno.test("speedOf() gives the records per second, and the share of their time that workers were busy, which is never more than all", () => {
  const speed = speedOf({ records: 500, busy: 150, wall: 250, workers: 3 });
  assertEquals(speed, { recordsOfRun: 500, wall: 250, recordsPerSecond: 2000, utilisation: 0.2 });
  assertEquals(speedOf({ records: 1, busy: 251, wall: 250, workers: 1 }).utilisation, 1);
});

// The recorder

const RANGE: RangeRun = { job: 0, index: 0, source: 0, start: 0, end: 100, records: 10, failed: 0, busy: 5, begun: true };

const ITEMS = { finished: 1, failed: 0, cancelled: 0, timedOut: 0 };

/** The events that a pool reports of a job that ran, at times since the start of the recorder. */
function job(id: number, worker: number, begin: number, { start, end }: { start: number; end: number }): ObservedJob {
  const times = { submitted: 0, admitted: 0, sent: 0, started: begin + start, ended: begin + end, settled: begin + end };
  return { id, task: "runRange", items: 1, worker, runs: 1, state: "finished", error: undefined, ...ITEMS, ...times };
}

function begun(): { recorder: BatchRecorder; begin: number } {
  const recorder = new BatchRecorder(({ start, end }) => `${start} to ${end}`);
  recorder.begin();
  return { recorder, begin: performance.now() };
}

Deno.test("BatchRecorder draws a range when both sides have reported it, whichever comes first", () => {
  const { recorder, begin } = begun();
  recorder.settled(job(0, 1, begin, { start: 10, end: 20 }));
  assertEquals(recorder.data(100).workers, []);
  recorder.range({ ...RANGE, failed: 1 });
  recorder.range({ ...RANGE, job: 1, records: 1, busy: 20 });
  recorder.settled(job(1, 2, begin, { start: 0, end: 40 }));
  const { workers } = recorder.data(100);
  assertEquals(workers.map(({ worker, jobs, utilisation, replaced }) => [worker, jobs, utilisation, replaced]), [
    [1, 1, 0.05, 0],
    [2, 1, 0.2, 0],
  ]);
  const [bar] = workers[0]!.bars!;
  assertEquals([bar!.label, bar!.outcome, bar!.failed], ["0 to 100", "10 records, 1 failed", 0.1]);
  assertEquals(workers[1]!.bars![0]!.outcome, "1 record");
});

Deno.test("BatchRecorder lets a range that was sent ahead begin when the one before it has ended", () => {
  const { recorder, begin } = begun();
  for (const [id, times] of [[0, { start: 0, end: 20 }], [1, { start: 1, end: 30 }]] as const) {
    recorder.settled(job(id, 1, begin, times));
    recorder.range({ ...RANGE, job: id });
  }
  const [first, second] = recorder.data(100).workers[0]!.bars!;
  assertEquals(second!.start, first!.end);
});

Deno.test("BatchRecorder draws nothing of a job that never ran, nor of a range that its worker had not begun", () => {
  const { recorder, begin } = begun();
  recorder.settled({ ...job(0, 1, begin, { start: 0, end: 1 }), started: undefined, ended: undefined });
  recorder.range(RANGE);
  recorder.range({ ...RANGE, job: 1, begun: false });
  recorder.settled(job(1, 1, begin, { start: 0, end: 1 }));
  assertEquals(recorder.data(100).workers, []);
});

Deno.test("BatchRecorder has one row for a worker and those that take its place", () => {
  const { recorder, begin } = begun();
  for (let worker = 1; worker <= 1000; worker++) {
    recorder.worker(worker, "starting");
    recorder.worker(worker, "died");
    recorder.settled(job(worker, worker, begin, { start: worker, end: worker + 1 }));
    recorder.range({ ...RANGE, job: worker });
  }
  const { workers } = recorder.data(1001);
  assertEquals(workers.map(({ worker, replaced, jobs }) => [worker, replaced, jobs]), [[1, 999, 1000]]);
});

Deno.test("BatchRecorder merges ranges when there are too many to be drawn, and keeps how busy workers were", () => {
  const { recorder, begin } = begun();
  const RANGES = 5000;
  for (let id = 0; id < RANGES; id++) {
    recorder.settled(job(id, 1 + id % 2, begin, { start: id * 10, end: id * 10 + 20 }));
    recorder.range({ ...RANGE, job: id, busy: 10 });
  }
  const { workers, throughput: { width } } = recorder.data(RANGES * 10);
  assertEquals(workers.map(({ jobs, bars, utilisation }) => [jobs, bars, Math.round(utilisation * 1000)]), [
    [2500, undefined, 500],
    [2500, undefined, 500],
  ]);
  const [{ busy }] = workers as [typeof workers[number]];
  assert(busy.length <= 200 && busy.length * width >= RANGES * 10, `${busy.length} of ${width} ms`);
  assert(busy.slice(1, -1).every((part) => Math.abs(part - 0.5) < 0.1), `${busy}`);
});

Deno.test("BatchRecorder.sample() counts every record once, as whole numbers, even if fewer are known for a moment", () => {
  const { recorder } = begun();
  for (const [records, failed] of [[7, 1], [3, 0], [7, 1], [10, 3], [10, 3]] as const) recorder.sample({ records, failed });
  const { throughput: { finished, failed } } = recorder.data(0);
  const total = (counts: number[]) => counts.reduce((sum, count) => sum + count, 0);
  assertEquals([total(finished), total(failed)], [7, 3]);
  assert([...finished, ...failed].every((count) => Number.isInteger(count) && count >= 0));
});

Deno.test("BatchRecorder.sample() spreads what was done since the last one, and nothing less than that", () => {
  const { now } = performance;
  let time = 0;
  performance.now = () => time;
  try {
    const recorder = new BatchRecorder(() => "");
    recorder.begin();
    for (const [at, records, failed] of [[10, 7, 1], [20, 3, 0], [30, 9, 1]] as const) {
      time = at;
      recorder.sample({ records, failed });
    }
    // The last one may come after the end.
    assertEquals(recorder.data(20).throughput, { width: 5, finished: [3, 3, 0, 0, 1, 1], failed: [1, 0, 0, 0, 0, 0] });
  } finally {
    performance.now = now;
  }
});

// The report of a batch

/** The parts of a page that programs read: the figures at its head and those of the latency, and the notes. */
function figuresOf(page: string): { tiles: Record<string, number>; notes: string[] } {
  const tiles = [...page.matchAll(/data-(?:tile|quantile)="([^"]+)"><dt>[^<]*<\/dt><dd><data value="([^"]+)"/g)];
  const notes = [...page.matchAll(/<p class="note">(.*?)<\/p>/g)];
  return { tiles: Object.fromEntries(tiles.map(([, name, value]) => [name, Number(value)])), notes: notes.map(([, note]) => note!) };
}

/** Asserts what the page of a batch with this outcome must show. */
function expected(
  { records, failed, recordsOfRun, wall, recordsPerSecond, utilisation, workers, p50, p95, p99 }: BatchSummary,
): Record<string, number> {
  return {
    records,
    ...recordsOfRun === records ? {} : { "in this run": recordsOfRun },
    failed,
    "wall time": wall,
    "records per second": recordsPerSecond,
    workers,
    busy: utilisation,
    ...p50 === undefined ? {} : { p50, p95: p95!, p99: p99! },
  };
}

/** A task that fails for some records. */
function picky(x: number): number {
  if (x % 100 === 7) throw new RangeError(`no <b>${x}</b>`);
  if (x % 100 === 8) throw new TypeError("bad");
  return 2 * x;
}

Deno.test(`batch() writes a report with the figures of its summary ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(20_000));
  const summary = await run(picky, { input, output: folder.of("out"), report: folder.of("r.html"), chunk: 4096 });
  assertEquals([summary.records, summary.failed], [20_000, 400]);
  const page = folder.read("r.html");
  assertEquals(figuresOf(page), { tiles: expected(summary), notes: [] });
  assertStringIncludes(page, "<tr><td>RangeError</td><td>200</td><td>no &lt;b&gt;7&lt;/b&gt;</td></tr>");
  for (const { input, time } of summary.slowest) assertMatch(page, new RegExp(`<td>${input}</td><td>[^<]+</td><td><data value="${time}">`));
  // Every range has a bar, and together they have all records.
  const bars = [
    ...page.matchAll(/<title>bytes [\d,]+ to [\d,]+ of [^:]*: [^,]+, [^,]+, ([\d,]+) records?(?:, ([\d,]+) failed)?<\/title>/g),
  ];
  const sum = (group: number) => bars.reduce((all, bar) => all + Number((bar[group] ?? "0").replaceAll(",", "")), 0);
  assertEquals([sum(1), sum(2)], [20_000, 400]);
});

Deno.test(`batch() that is stopped writes a report that says so, as does the one that goes on ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(20_000));
  const controller = new AbortController();
  // It cannot finish before it is stopped: one record waits until a file exists.
  const tasks = folder.write(
    "tasks.js",
    `export default async (x) => {
    while (x === 15000 && !exists()) await new Promise((resolve) => setTimeout(resolve, 10));
    return x;
  };
  function exists() { try { return Deno.statSync("${folder.of("go")}").isFile; } catch { return false; } }`,
  );
  const options = { input, output: folder.of("out"), chunk: 4096, permissions: { read: [folder.path] } };
  const stopped = await run(tasks, {
    ...options,
    report: folder.of("r.html"),
    signal: controller.signal,
    onProgress: ({ records }) => records > 0 && controller.abort(),
  });
  assertEquals(stopped.outcome, "stopped");
  const { tiles, notes } = figuresOf(folder.read("r.html"));
  assertEquals(tiles, expected(stopped));
  assertEquals(notes[0], "Stopped before the end. What is done is kept, and a later run can go on from there.");
  folder.write("go", "");
  const resumed = await run(tasks, { ...options, report: folder.of("r2.html"), resume: true });
  const after = figuresOf(folder.read("r2.html"));
  assertEquals(after.tiles, expected(resumed));
  assertMatch(after.notes[0]!, /^Earlier runs had done [\d,]+ of the records: /);
  const nothing = await run(tasks, { ...options, report: folder.of("r3.html"), resume: true });
  assertEquals(figuresOf(folder.read("r3.html")), {
    tiles: expected(nothing),
    notes: ["Nothing to do: everything had been done before."],
  });
});

Deno.test(`batch() that gives up or retries writes a report that says so ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(3000));
  const options = { input, output: folder.of("out"), report: folder.of("r.html") };
  const halted = await run(picky, { ...options, halt: 3 });
  const { tiles, notes } = figuresOf(folder.read("r.html"));
  assertEquals([halted.outcome, tiles], ["halted", expected(halted)]);
  assert(notes[0]!.startsWith("Gave up, as too many records failed."), notes[0]);
  await run(picky, { ...options, overwrite: true });
  const retried = await run(picky, { ...options, retryFailed: true });
  assertEquals(figuresOf(folder.read("r.html")), {
    tiles: expected(retried),
    notes: ["Records that had failed were run again, 60 of them: the charts show only those."],
  });
  assertStringIncludes(folder.read("r.html"), "record 60 of those that had failed on worker ");
});

Deno.test(`batch() that cannot go on writes a report that says why ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  let pulled = 0;
  const input = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (pulled++ < 3) controller.enqueue(new TextEncoder().encode(numbers(1000)));
      else controller.error(new Error("the cable was cut"));
    },
  });
  const error = await thrownBy(() => run(picky, { input, output: folder.of("out"), report: folder.of("r.html"), chunk: 1024 }));
  assert(error instanceof BatchError && error.resumable, `${error}`);
  assertStringIncludes(folder.read("r.html"), "<p class=\"note\">Cannot go on as the input 'stream'");
  assertStringIncludes(folder.read("r.html"), "the cable was cut");
});

Deno.test(`batch() with a limit, from a stream to a stream, writes a report ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = new Response(numbers(1000)).body!;
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const [summary, text] = await Promise.all([
    run(picky, { input, output: writable, limit: 5, report: folder.of("r.html") }),
    new Response(readable).text(),
  ]);
  assertEquals(text, "0\n2\n4\n6\n8\n");
  assertEquals(figuresOf(folder.read("r.html")), { tiles: expected(summary), notes: ["Limited to the first 5 records."] });
});

Deno.test(`batch() refuses a report that cannot be written, or that would replace another file, before anything is run ${NEEDS}`, {
  ignore,
}, async () => {
  using folder = new Folder();
  const [input, tasks] = [folder.write("in.ndjson", "1\n"), folder.write("tasks.js", "export default (x) => x;")];
  const [output, before] = [folder.of("out"), folder.names()];
  for (
    const [report, message] of [
      [folder.of("none/r.html"), `there is no folder of the report '${folder.of("none/r.html")}'`],
      [input, `'${input}' is an input and the report`],
      [tasks, `'${tasks}' is a part of the task and the report`],
      [output, `'${output}' is the output and the report`],
      [`${output}.log`, `'${output}.log' is the job log and the report`],
      [`${output}.errors.ndjson`, `'${output}.errors.ndjson' is the errors file and the report`],
    ] as const
  ) {
    await assertFails(() => run(tasks, { input, output, report }), BatchError, `Cannot run batch as ${message}`);
    assertEquals([folder.names(), folder.read("in.ndjson")], [before, "1\n"]);
  }
  const folderError = await thrownBy(() => run(tasks, { input, output, report: folder.path })) as Error;
  assert(folderError.message.startsWith(`Cannot run batch as it cannot access the report '${folder.path}': `), folderError.message);
  // A run that is refused later leaves the report of an earlier run alone.
  const report = folder.write("r.html", "of yesterday");
  await thrownBy(() => run(tasks, { input: folder.of("none.ndjson"), output, report }));
  await thrownBy(() => run(tasks, { input, output: folder.of("none/out"), report }));
  assertEquals([folder.read("r.html"), folder.names()], ["of yesterday", [...before, "r.html"].sort()]);
});

Deno.test(`batch() says what is left if its report cannot be written in the end ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const report = folder.of("r.html");
  // By then a folder is in its place.
  const task = folder.write(
    "task.js",
    `import { mkdirSync } from "node:fs";
    export default (x) => {
      mkdirSync(${JSON.stringify(report)}, { recursive: true });
      return x === 5 ? new Promise(() => {}) : x;
    };`,
  );
  const say = async (input: string, signal?: AbortSignal) => {
    const options = {
      input: folder.write("in.ndjson", input),
      output: folder.of("out"),
      report,
      permissions: "inherit",
      overwrite: true,
    } as const;
    const { message, resumable } = await thrownBy(() => run(task, { ...options, signal })) as BatchError;
    return [message.split(": ")[0], resumable];
  };
  assertEquals(await say("1\n"), [`Cannot write the report '${report}', though the results are written`, false]);
  Deno.removeSync(report);
  const controller = new AbortController();
  const stopped = say(numbers(10), controller.signal);
  await until(() => folder.names().includes("r.html"));
  controller.abort();
  assertEquals(await stopped, [`Cannot write the report '${report}'`, true]);
});

Deno.test({
  name: `The report of a batch with errors, in a browser, has the figures of its summary, and logs nothing ${NEEDS_BROWSER}`,
  ignore: !browserAllowed || !granted("read"),
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    using folder = new Folder();
    const input = folder.write("in.ndjson", `${numbers(5000)}{bad\n`);
    const tasks = folder.write("tasks.js", `export default ${picky};`);
    const files = ["--input", input, "--output", folder.of("out"), "--report", folder.of("r.html")];
    const args = ["run", "--no-prompt", "--no-check", "--allow-read", "--allow-write", "cli.ts", "batch", tasks];
    const { code, stderr } = await within(
      new Deno.Command(Deno.execPath(), {
        args: [...args, ...files, "--chunk", "4KB", "--workers", "2", "--progress", "json"],
        cwd: new URL("../", import.meta.url),
        stdin: "null",
      }).output(),
    );
    const summary: BatchSummary = JSON.parse(new TextDecoder().decode(stderr).trimEnd().split("\n").at(-1)!);
    assertEquals([code, summary.records, summary.failed], [1, 5001, 101]);
    await using browser = await Browser.start();
    for (const look of [{ width: 1100 }, { width: 1100, dark: true }, { width: 390 }]) {
      await browser.look(look);
      await browser.open(`file://${folder.of("r.html")}`);
      const read = (selector: string) =>
        browser.evaluate(`Object.fromEntries([...document.querySelectorAll("[data-${selector}]")].map((tile) =>
          [tile.dataset.${selector}, tile.querySelector("dd").innerText.replaceAll("\\u00a0", " ")]))`);
      assertEquals(await read("tile"), {
        records: "5,001",
        failed: "101",
        "wall time": duration(summary.wall),
        "records per second": rounded(summary.recordsPerSecond),
        workers: "2",
        busy: percent(summary.utilisation),
      });
      const [p50, p95, p99] = [summary.p50!, summary.p95!, summary.p99!].map(duration);
      assertEquals(await read("quantile"), { p50, p95, p99 });
      const rows = (section: string) =>
        browser.evaluate(`[...document.querySelectorAll("#${section} tbody tr")].map((row) =>
          [...row.cells].map((cell) => cell.innerText.replaceAll("\\u00a0", " ")))`) as Promise<string[][]>;
      assertEquals((await rows("errors")).map(([kind, count]) => [kind, Number(count)]), summary.errorNames);
      assertEquals(
        await rows("slowest"),
        summary.slowest.map(({ input, line, lastLine, time }) => [
          input,
          line === lastLine ? `line ${line}` : `one of lines ${line} to ${lastLine}`,
          duration(time),
        ]),
      );
      // The summary has the mean of the workers' shares, which are shown in whole percent.
      const shares = await browser.evaluate(`[...document.querySelectorAll("#lanes svg + .busy")].map((share) =>
        parseInt(share.textContent))`) as number[];
      const mean = shares.reduce((sum, share) => sum + share, 0) / summary.workers;
      assert(Math.abs(mean - summary.utilisation * 100) <= 0.5, `${shares} and ${summary.utilisation}`);
      // Together the ranges have all records.
      const titles = await browser.evaluate(
        `[...document.querySelectorAll("#lanes rect:not(.strip) title")].map((title) => title.textContent)`,
      ) as string[];
      const counts = titles.map((title) => /, ([\d,]+) records?(?:, ([\d,]+) failed)?$/.exec(title)!.slice(1));
      const total = (i: number) => counts.reduce((sum, count) => sum + Number((count[i] ?? "0").replaceAll(",", "")), 0);
      assertEquals([total(0), total(1)], [5001, 101]);
      assertEquals(await browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), true, JSON.stringify(look));
    }
    // So does the table beneath the throughput.
    const throughput = await browser.evaluate(`[...document.querySelectorAll("#throughput tbody tr")].map((row) =>
      [...row.cells].slice(1).map((cell) => Number(cell.textContent.replaceAll(",", ""))))`) as [number, number][];
    assertEquals([0, 1].map((i) => throughput.reduce((sum, row) => sum + row[i]!, 0)), [4900, 101]);
    assertEquals(browser.problems, []);
    assertEquals(browser.requests.filter((url) => !url.startsWith("file:") && url !== "data:,"), []);
  },
});
