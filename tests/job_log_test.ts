import { assert, assertEquals } from "@std/assert";
import { type Fingerprint, JobLog, type LogEntry, readLog } from "../batch/job_log.ts";
import { Folder, ignore, NEEDS } from "./batch_fixtures.ts";

const fingerprint: Fingerprint = {
  version: 1,
  inputs: [{ path: "in", size: null, changed: null, sample: null }],
  task: { module: "a function", name: null, hash: "" },
  options: {},
};

function entry(done: LogEntry["done"]): LogEntry {
  return { done, output: { length: 0, position: 0, crc: 0 }, errors: 0, records: 0, failed: 0, busy: 0, wall: 0 };
}

Deno.test(`readLog() reads what a JobLog wrote, up to a line that is torn or damaged ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const path = folder.of("log");
  assertEquals(await readLog(path), undefined);
  (await JobLog.create(path, fingerprint)).close();
  assertEquals((await readLog(path))!.last, undefined);
  const { size } = Deno.statSync(path);
  using log = await JobLog.reopen(path, size);
  // Lines within one block, across the ends of blocks, and longer than several.
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
    const found = (await readLog(path))!;
    assertEquals([found.fingerprint, found.length, found.last], [fingerprint, whole, entry(parts(1, at - 1))]);
    assertEquals(found.coverages.map(({ first }) => first), [{ start: 0, end: at, lines: at }]);
  }
});

Deno.test(`readLog() does not hold what it reads ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const path = folder.of("log");
  (await JobLog.create(path, fingerprint)).close();
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
  const found = await readLog(path);
  clearInterval(timer);
  assertEquals(found!.coverages[0]!.first, { start: 0, end: lines * perLine, lines: lines * perLine });
  most = Math.max(most, Deno.memoryUsage().rss);
  assert(most - before < size, `${most - before} bytes of memory for a log of ${size}`);
});
