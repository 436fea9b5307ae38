import { assert, assertEquals } from "@std/assert";
import { BatchError } from "@procpool/process-pool/batch";
import { differences, type Fingerprint, JobLog, type LogEntry } from "../batch/job_log.ts";
import { Folder, ignore, NEEDS } from "./batch_fixtures.ts";
import { assertFails } from "./helpers.ts";

const fingerprint: Fingerprint = {
  version: 1,
  inputs: [{ path: "in", size: null, changed: null, sample: null }],
  task: { module: "a function", name: null, hash: "" },
  options: {},
};

function entry(done: LogEntry["done"]): LogEntry {
  return { done, output: { length: 0, position: 0, crc: 0 }, errors: 0, records: 0, failed: 0, busy: 0, wall: 0 };
}

Deno.test(`JobLog.read() reads what was written, up to a line that is torn or damaged ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const path = folder.of("log");
  using log = await JobLog.open(path);
  assertEquals(await log.read(), undefined);
  await log.begin(fingerprint);
  const begun = (await log.read())!;
  assertEquals(begun.last, undefined);
  await log.goOn(begun.length);
  // Lines within one block, across the boundaries of blocks, and longer than several blocks.
  const parts = (count: number, from: number): LogEntry["done"] => Array.from({ length: count }, (_, i) => [0, from + i, from + i + 1, 1]);
  const counts = [1, 20_000, 3, 100_000, 1];
  let at = 0;
  for (const count of counts) {
    await log.append(entry(parts(count, at)));
    at += count;
  }
  const whole = Deno.statSync(path).size;
  for (const behind of ["", '{"done":[', '{"done":[\n{"done":[]}\n', "\xff\n"]) {
    Deno.truncateSync(path, whole);
    Deno.writeTextFileSync(path, behind, { append: true });
    const found = (await log.read())!;
    assertEquals([found.fingerprint, found.length, found.last], [fingerprint, whole, entry(parts(1, at - 1))]);
    assertEquals(found.coverages.map(({ first }) => first), [{ start: 0, end: at, lines: at }]);
  }
});

Deno.test(`JobLog.read() does not keep what it reads in memory ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const path = folder.of("log");
  using log = await JobLog.open(path);
  await log.begin(fingerprint);
  const file = Deno.openSync(path, { append: true });
  const lines = 20_000;
  const perLine = 200;
  let at = 0;
  for (let i = 0; i < lines; i++) {
    const done = Array.from({ length: perLine }, (): LogEntry["done"][number] => [0, at, ++at, 1]);
    file.writeSync(new TextEncoder().encode(`${JSON.stringify(entry(done))}\n`));
  }
  file.close();
  const { size } = Deno.statSync(path);
  const before = Deno.memoryUsage().rss;
  let most = before;
  const timer = setInterval(() => most = Math.max(most, Deno.memoryUsage().rss), 1);
  const found = await log.read();
  clearInterval(timer);
  assertEquals(found!.coverages[0]!.first, { start: 0, end: lines * perLine, lines: lines * perLine });
  most = Math.max(most, Deno.memoryUsage().rss);
  assert(most - before < size, `${most - before} bytes of memory for a log of ${size}`);
});

Deno.test(`JobLog.open() opens a log exclusively, and leaves none that was never begun ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const path = folder.of("log");
  for (const content of [undefined, "", '{"version":1,"inputs":[]}\n']) {
    if (content !== undefined) folder.write("log", content);
    const log = await JobLog.open(path);
    const message = `Cannot run batch as another one writes to the same output: its job log '${path}' is locked`;
    await assertFails(() => JobLog.open(path), BatchError as never, message);
    log.close();
    assertEquals(folder.names().length === 0 ? undefined : folder.read("log"), content);
  }
});

Deno.test(`JobLog.goOn() refuses a log that has become shorter ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const path = folder.of("log");
  using log = await JobLog.open(path);
  await log.begin(fingerprint);
  const { length } = (await log.read())!;
  Deno.truncateSync(path, 3);
  await assertFails(
    () => log.goOn(length),
    BatchError as never,
    `Cannot go on as '${path}' has 3 bytes, but the job log says ${length}`,
  );
  assertEquals(folder.read("log"), '{"v');
});

Deno.test("differences() tells whether the task was named, whatever else its module exports", () => {
  const of = (name: string | null): Fingerprint => ({ ...fingerprint, task: { module: "tasks.ts", name, hash: "" } });
  assertEquals(differences(of(null), of("enrich")), ["the task was not named and is 'enrich'"]);
  assertEquals(differences(of("enrich"), of(null)), ["the task was 'enrich' and is not named"]);
});

Deno.test("differences() of many inputs names what has changed, but only the first few", () => {
  const of = (names: string[], changed = "") => ({
    ...fingerprint,
    inputs: names.map((path) => ({ path, size: 1, changed, sample: "" })),
  });
  const names = Array.from({ length: 1500 }, (_, i) => `part-${i}`);
  const told: [now: Fingerprint, string[]][] = [
    [of(names), []],
    [of([...names, "new"]), ["the input was 1,500 files and is 1,501, with 'new'"]],
    [of(names.slice(5)), ["the input was 1,500 files and is 1,495, without 'part-0', 'part-1', 'part-2' and 2 more"]],
    [of(["new", ...names.slice(1)]), ["the input was 1,500 files and is 1,500, without 'part-0' and with 'new'"]],
    [of([...names, "part-0"]), ["the input was 1,500 files and is 1,501, some of them named more or less often"]],
    [of(names.toReversed()), ["the input was 1,500 files and is 1,500, in another order"]],
    [of(names, "now"), [...names.slice(0, 3).map((name) => `the input '${name}' was changed at now`), "1,497 more were changed"]],
  ];
  for (const [now, differs] of told) assertEquals(differences(of(names), now), differs);
});
