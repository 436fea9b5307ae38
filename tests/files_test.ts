import { assertEquals } from "@std/assert";
import { BatchError } from "@procpool/process-pool/batch";
import { Coverage } from "../batch/coverage.ts";
import { ErrorsFile } from "../batch/errors_file.ts";
import { Files } from "../batch/files.ts";
import { JobLog } from "../batch/job_log.ts";
import { NOTHING_WRITTEN, openOutput, StreamOutput } from "../batch/output.ts";
import type { DonePart } from "../batch/done_parts.ts";
import { Folder, ignore, NEEDS } from "./batch_fixtures.ts";
import { assertFails } from "./helpers.ts";

const encoder = new TextEncoder();

/** A part with one record that has a result, and one that failed. */
function part(index: number): DonePart {
  const [start, end] = [index * 10, index * 10 + 10];
  const output = encoder.encode(`${index}\n`);
  const members = encoder.encode(`"record":"${index}","error":{"name":"Error","message":"no","stack":""},"attempts":1`);
  return {
    source: 0,
    index,
    start,
    end,
    torn: false,
    state: { position: end, lines: 2, records: 2, failed: 1, outputLength: output.length, errorsLength: members.length, busy: 1 },
    output,
    errors: [{ line: 1, offset: start + 5, position: output.length, members }],
    slowest: [],
  };
}

/** A job log of one input. */
async function beginLog(folder: Folder): Promise<JobLog> {
  const log = await JobLog.open(folder.of("log"));
  await log.begin({
    version: 1,
    inputs: [{ path: "in", size: null, changed: null, sample: null }],
    task: { module: "a function", name: null, hash: "" },
    options: {},
  });
  return log;
}

const source = { name: "in", path: undefined, size: undefined, seen: undefined, ranges: false, open: () => Promise.reject() };
const before = { records: 0, failed: 0, busy: 0, wall: 0 };

for (const name of ["out", "out.gz"]) {
  for (const what of ["output.write", "output.state", "output.sync", "errors.write", "errors.sync", "log.append"]) {
    // The state of a plain file needs no write.
    if (what === "output.state" && name === "out") continue;
    Deno.test(`Files.save() saves nothing once ${what} has failed, even if it does not fail again (${name}) ${NEEDS}`, {
      ignore,
    }, async () => {
      using folder = new Folder();
      const log = await beginLog(folder);
      const output = await openOutput(folder.of(name), { partial: folder.of("partial"), state: NOTHING_WRITTEN });
      const errors = await ErrorsFile.begin(folder.of("errors"));
      const files = new Files({ sources: [source], coverages: [new Coverage()], output, errors, log, before });
      await files.take(part(0));
      await files.save();
      const saved = folder.read("log");

      const [object, member] = what.split(".") as [keyof typeof parts, string];
      const parts = { output, errors, log };
      Object.defineProperty(parts[object], member, {
        configurable: true,
        get() {
          // Only once: from then on it is as it was.
          delete (this as Record<string, unknown>)[member];
          throw new Error("No space left on device (os error 28)");
        },
      });
      await assertFails(
        async () => {
          await files.take(part(1));
          await files.save();
        },
        BatchError as never,
        "Cannot write results: the disk is full",
      );
      await files.save();
      assertEquals(folder.read("log"), saved);
      errors.close();
      log.close();
      await output.close();
    });
  }
}

Deno.test(`Files.save() saves nothing that 'check' refuses, then or later ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const log = await beginLog(folder);
  const output = await openOutput(folder.of("out"), { partial: folder.of("partial"), state: NOTHING_WRITTEN });
  let changed = false;
  const check = () => changed ? Promise.reject(new BatchError("changed")) : Promise.resolve();
  const files = new Files({ sources: [source], coverages: [new Coverage()], output, errors: undefined, log, check, before });
  await files.take(part(0));
  await files.save();
  const saved = folder.read("log");
  await files.take(part(1));
  changed = true;
  await assertFails(() => files.save(), BatchError as never, "changed");
  changed = false;
  await files.take(part(2));
  await files.save();
  assertEquals(folder.read("log"), saved);
  await output.close();
  log.close();
});

Deno.test("Files.save() asks 'check' also where there is no job log", async () => {
  const output = new StreamOutput(new WritableStream(), "close");
  const check = () => Promise.reject(new BatchError("changed"));
  const files = new Files({ sources: [source], coverages: [new Coverage()], output, errors: undefined, log: undefined, check, before });
  await assertFails(() => files.save(), BatchError as never, "changed");
  await output.close();
});

Deno.test("Files keeps the slowest records, slowest first, by the lines of their input where these are known", async () => {
  const output = new StreamOutput(new WritableStream(), "close");
  const sources = [source, { ...source, name: "other" }];
  const coverages = [new Coverage(), new Coverage()];
  const files = new Files({ sources, coverages, output, errors: undefined, log: undefined, before });
  const take = (index: number, { source = 0, times }: { source?: number; times: number[] }) =>
    files.take({ ...part(index), source, slowest: times.map((time, line) => ({ time, line, lastLine: line + 1, offset: 10 * index })) });
  await take(0, { times: [5, 1] });
  await take(2, { times: [3, 7] });
  await take(1, { times: [2, 6] });
  await take(0, { source: 1, times: [4, 1] });
  assertEquals(files.slowest.map(({ input, time, line, lastLine, offset }) => [input, time, line, lastLine, offset]), [
    ["in", 7, undefined, undefined, 20],
    ["in", 6, 4, 5, 10],
    ["in", 5, 1, 2, 0],
    ["other", 4, 1, 2, 0],
    ["in", 3, undefined, undefined, 20],
  ]);
  await output.close();
});

Deno.test("Files takes what may be half a record last, in the order of the inputs, but before the next input", async () => {
  const written: string[] = [];
  const output = new StreamOutput(new WritableStream({ write: (bytes) => void written.push(new TextDecoder().decode(bytes)) }), "close");
  const sources = [source, source, source];
  const files = new Files({ sources, coverages: sources.map(() => new Coverage()), output, errors: undefined, log: undefined, before });
  await files.take({ ...part(1), source: 1, torn: "in a line" });
  await files.take({ ...part(2), source: 0, torn: "in a line" });
  assertEquals([files.isTorn, written], [true, []]);
  await files.take({ ...part(3), source: 1 });
  assertEquals(written, ["2\n", "3\n"]);
  await files.take({ ...part(4), source: 0, torn: "in a line" });
  await files.takeTorn();
  assertEquals([files.isTorn, written.slice(2), files.failedWhole], [false, ["4\n", "1\n"], 3]);
  await output.close();
});

Deno.test("Files.save() checks the inputs that are in use, or of which something was run or done since the last check", async () => {
  const checked: string[][] = [];
  const { readable, writable } = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>();
  const text = new Response(readable).text();
  const files = new Files({
    sources: ["a", "b"].map((name) => ({ ...source, name })),
    coverages: [new Coverage(), new Coverage()],
    output: new StreamOutput(writable, "close"),
    errors: undefined,
    log: undefined,
    before,
    check: (used) => Promise.resolve(void checked.push(used.map(({ name }) => name))),
  });
  const save = async () => {
    await files.save();
    return checked.pop();
  };
  // The first is read, a part of it is handed out and run, waits, and is done in two pieces.
  files.use(0, 1);
  assertEquals(await save(), ["a"]);
  files.use(0, 1);
  files.use(0, -1);
  assertEquals([await save(), await save()], [["a"], ["a"]]);
  files.ran(0);
  assertEquals([await save(), await save()], [["a"], []]);
  await files.take(part(0));
  assertEquals([await save(), await save()], [["a"], []]);
  await files.take(part(1));
  // Of the second, all is half a record that is held back.
  files.use(1, 1);
  files.use(1, 1);
  files.use(1, -1);
  assertEquals([await save(), await save()], [["a", "b"], ["b"]]);
  files.ran(1);
  await files.take({ ...part(2), source: 1, torn: "in a line" });
  assertEquals([await save(), await save()], [["b"], []]);
  await files.takeTorn();
  assertEquals([await save(), await save()], [["b"], []]);
  await files.finish();
  assertEquals(await text, "0\n1\n2\n");
});
