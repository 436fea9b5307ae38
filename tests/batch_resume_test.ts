import { assert, assertEquals, assertRejects } from "@std/assert";
import { BatchError, type BatchProgress } from "@procpool/process-pool/batch";
import { hashOf } from "../batch/bytes.ts";
import { doubles, Folder, ignore, NEEDS, numbers, run } from "./batch_fixtures.ts";
import { assertFails, until } from "./helpers.ts";

const COUNT = 20_000;

const double = (x: number) => 2 * x;

/** Fails some records, the same in all runs of these tests. */
const task = (x: number) => {
  if (x % 1000 === 999) throw new Error("bad");
  return 2 * x;
};
const isBad = (x: number) => x % 1000 === 999;

/** Starts a batch, and stops it when part of it is done. */
async function begin(folder: Folder, { name = "out", ordered = true } = {}): Promise<void> {
  const input = folder.write("in.ndjson", numbers(COUNT));
  const controller = new AbortController();
  // It cannot finish before it is stopped.
  const stuck = (x: number) => {
    if (x % 1000 === 999) throw new Error("bad");
    return x === 15_000 ? new Promise(() => {}) : 2 * x;
  };
  const { outcome, records } = await run(stuck, {
    input,
    output: folder.of(name),
    ordered,
    chunk: 1024,
    signal: controller.signal,
    onProgress: ({ records }) => records > 0 && controller.abort(),
  });
  assertEquals(outcome, "stopped");
  assert(records > 0 && records < COUNT, `${records} records`);
  assertEquals(folder.names(), ["in.ndjson", `${name}.errors.ndjson`, `${name}.log`, `${name}.partial`]);
  // One hash for all functions here, as if they were the same module.
  replaceTask(folder, name);
}

/** Makes the log name the task that continues. */
function replaceTask(folder: Folder, name: string): void {
  const log = folder.json(`${name}.log`);
  log[0].task.hash = hash;
  folder.write(`${name}.log`, log.map((line) => `${JSON.stringify(line)}\n`).join(""));
}

const hash = await hashOf(new TextEncoder().encode(String(task)));

function check(folder: Folder): void {
  assertEquals(folder.read("out"), doubles(COUNT, isBad));
  assertEquals(
    folder.json("out.errors.ndjson").map(({ record, line }) => [record, line]),
    Array.from({ length: 20 }, (_, i) => [`${i * 1000 + 999}`, (i + 1) * 1000]),
  );
  assertEquals(folder.names(), ["in.ndjson", "out", "out.errors.ndjson", "out.log"]);
}

Deno.test(`batch() with 'resume' goes on where it was stopped ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  await begin(folder);
  const { records, recordsOfRun, failed } = await run(task, { input: folder.of("in.ndjson"), output: folder.of("out"), resume: true });
  assertEquals([records, failed], [COUNT, 20]);
  assert(recordsOfRun < COUNT);
  check(folder);
  const again = await run(task, { input: folder.of("in.ndjson"), output: folder.of("out"), resume: true });
  assertEquals([again.records, again.recordsOfRun, again.outcome], [COUNT, 0, "complete"]);
});

Deno.test(
  `batch() with 'resume' cuts off what is behind the last entry of the job log, and a torn line of that ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    await begin(folder);
    const append = { append: true };
    Deno.writeTextFileSync(folder.of("out.partial"), "12\n345", append);
    Deno.writeTextFileSync(folder.of("out.errors.ndjson"), '{"input":"x"', append);
    Deno.writeTextFileSync(folder.of("out.log"), '{"done":[[0,0,99', append);
    await run(task, { input: folder.of("in.ndjson"), output: folder.of("out"), resume: true });
    check(folder);
  },
);

Deno.test(`batch() with 'resume' takes up an unordered run, with each result once ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  await begin(folder, { ordered: false });
  await run(task, { input: folder.of("in.ndjson"), output: folder.of("out"), resume: true, ordered: false });
  const sorted = (text: string) => text.split("\n").map(Number).sort((a, b) => a - b);
  assertEquals(sorted(folder.read("out")), sorted(doubles(COUNT, isBad)));
  const lines = folder.json("out.errors.ndjson").map(({ line, part }) => [line, part]).sort(([a], [b]) => a - b);
  assertEquals(lines, Array.from({ length: 20 }, (_, i) => [(i + 1) * 1000, undefined]));
});

Deno.test(`batch() with 'resume' goes on with a compressed output ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  await begin(folder, { name: "out.gz" });
  Deno.writeTextFileSync(folder.of("out.gz.partial"), "torn", { append: true });
  await run(task, { input: folder.of("in.ndjson"), output: folder.of("out.gz"), resume: true });
  const stream = new Response(Deno.readFileSync(folder.of("out.gz"))).body!.pipeThrough(new DecompressionStream("gzip"));
  assertEquals(await new Response(stream).text(), doubles(COUNT, isBad));
});

Deno.test(`batch() with 'resume' begins if there is nothing to go on with ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  folder.write("in.ndjson", numbers(COUNT));
  await run(task, { input: folder.of("in.ndjson"), output: folder.of("out"), resume: true });
  check(folder);
});

Deno.test(`batch() says that an earlier run was not finished ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  await begin(folder);
  const output = folder.of("out");
  const message =
    `Cannot run batch as an earlier run to '${output}' was not finished: go on with '--resume', or begin anew with '--overwrite'`;
  await assertFails(() => run(task, { input: folder.of("in.ndjson"), output }), BatchError as never, message);
  const retry = `Cannot retry as the run to '${output}' was not finished: go on with '--resume'`;
  await assertFails(() => run(task, { input: folder.of("in.ndjson"), output, retryFailed: true }), BatchError as never, retry);
  Deno.removeSync(folder.of("out.log"));
  const gone =
    `Cannot run batch as an earlier run to '${output}' was not finished, and its job log is not there: begin anew with '--overwrite'`;
  await assertFails(() => run(task, { input: folder.of("in.ndjson"), output, resume: true }), BatchError as never, gone);
  await run(task, { input: folder.of("in.ndjson"), output, overwrite: true });
  check(folder);
});

Deno.test(
  `batch() with 'resume' refuses to go on with another input, task or option, and says what differs ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    await begin(folder);
    const [input, output] = [folder.of("in.ndjson"), folder.of("out")];
    const refuses = (what: typeof task, options: object, differs: string) =>
      assertFails(
        () => run(what, { input, output, resume: true, ...options }),
        BatchError as never,
        `Cannot resume '${output}' as ${differs}: go on as it was, or begin anew with '--overwrite'`,
      );
    await refuses(double, {}, "the task module 'a function', or what it imports, has different content");
    await refuses(
      task,
      { ordered: false, outputFormat: "lines" },
      `'outputFormat' was "ndjson" and is "lines", and 'ordered' was true and is false`,
    );
    const other = folder.write("other.ndjson", "1\n");
    await refuses(task, { input: other }, `the input was '${input}' and is '${other}'`);
    const before = folder.read("in.ndjson");
    folder.write("in.ndjson", `${before}1\n`);
    await refuses(task, {}, `the input '${input}' had ${before.length} bytes and has ${before.length + 2}`);
    folder.write("in.ndjson", before.replace("\n5\n", "\n6\n"));
    await refuses(task, {}, `the input '${input}' has different content`);
    folder.write("in.ndjson", before);
    Deno.utimeSync(input, 1, 1);
    await refuses(task, {}, `the input '${input}' was changed at 1970-01-01T00:00:01.000Z`);
  },
);

Deno.test(`batch() with 'resume' refuses an output that is shorter than its job log tells ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  await begin(folder);
  const { length } = folder.json("out.log").at(-1).output;
  Deno.truncateSync(folder.of("out.partial"), 1);
  const output = folder.of("out");
  const message =
    `Cannot resume '${output}' as '${output}.partial' has 1 bytes, but its job log says ${length}: begin anew with '--overwrite'`;
  await assertFails(() => run(task, { input: folder.of("in.ndjson"), output, resume: true }), BatchError as never, message);
});

Deno.test(`batch() with 'resume' notices that only the last line of the job log was missing ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  folder.write("in.ndjson", numbers(COUNT));
  const options = { input: folder.of("in.ndjson"), output: folder.of("out") };
  await run(task, options);
  const log = folder.read("out.log").trimEnd().split("\n");
  folder.write("out.log", `${log.slice(0, -1).join("\n")}\n`);
  const { recordsOfRun, records } = await run(task, { ...options, resume: true });
  assertEquals([recordsOfRun, records], [0, COUNT]);
  check(folder);
});

Deno.test(`batch() with 'resume' notices the same of a compressed output, and of one without results ${NEEDS}`, { ignore }, async () => {
  const fails = () => {
    throw new Error("bad");
  };
  for (const [name, each] of [["out.gz", task], ["out.gz", fails], ["out", fails]] as const) {
    using folder = new Folder();
    const options = { input: folder.write("in.ndjson", numbers(10)), output: folder.of(name) };
    await run(each, options);
    const log = folder.read(`${name}.log`);
    folder.write(`${name}.log`, `${log.trimEnd().split("\n").slice(0, -1).join("\n")}\n`);
    const { recordsOfRun, records } = await run(each, { ...options, resume: true });
    assertEquals([recordsOfRun, records, folder.json(`${name}.log`).at(-1).stage], [0, 10, "finished"]);
  }
});

for (const name of ["out", "out.gz"]) {
  Deno.test(`batch() says so if the output of a complete run is gone, or is another file (${name}) ${NEEDS}`, { ignore }, async () => {
    using folder = new Folder();
    const [input, output] = [folder.write("in.ndjson", numbers(2000)), folder.of(name)];
    await run(task, { input, output });
    const once = (x: number) => {
      if (x === 999) throw new Error("bad");
      return 2 * x;
    };
    // However it came to be complete.
    for (const how of ["run", "end of a run that was cut short", "retry"]) {
      if (how.startsWith("end")) {
        folder.write(`${name}.log`, folder.read(`${name}.log`).replace(/[^\n]*\n$/, ""));
        await run(task, { input, output, resume: true });
      }
      if (how === "retry") await run(once, { input, output, retryFailed: true });
      const files = () => [folder.names(), folder.read(`${name}.log`), folder.json(`${name}.errors.ndjson`)];
      const results = Deno.readFileSync(output);
      const [log] = folder.json(`${name}.log`).slice(-1);
      assertEquals(log.output.length, results.length, how);
      for (const left of [undefined, results.length - 1]) {
        if (left === undefined) Deno.removeSync(output);
        else folder.write(name, results.subarray(0, left));
        const before = files();
        for (const [action, mode] of [["run batch", {}], ["resume", { resume: true }], ["retry", { retryFailed: true }]] as const) {
          const fact = left === undefined ? "is not there" : `has ${left} bytes`;
          await assertFails(
            () => run(task, { input, output, ...mode }),
            BatchError as never,
            `Cannot ${action} as the output '${output}' ${fact}, but the job log of its complete run says ${results.length} bytes: ` +
              "put the original back, or begin anew with '--overwrite'",
          );
          assertEquals(files(), before);
        }
      }
      folder.write(name, results);
      assertEquals((await run(task, { input, output, resume: true })).recordsOfRun, 0);
    }
    assertEquals((await run(double, { input, output, retryFailed: true })).failed, 0);
  });
}

Deno.test(`batch() with 'retryFailed' finishes a merge that was cut short before its renames ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(10));
  const output = folder.of("out");
  await run((x: number) => {
    if (x < 2) throw new Error("bad");
    return 2 * x;
  }, { input, output });
  const last = folder.json("out.log").at(-1);
  folder.write("out.partial", doubles(10));
  folder.write("out.errors.ndjson.partial", "");
  const { length } = doubles(10);
  const merging = { ...last, output: { length, position: length, crc: 0 }, failed: 0, stage: "merging" };
  Deno.writeTextFileSync(folder.of("out.log"), `${JSON.stringify(merging)}\n`, { append: true });
  const { failed, recordsOfRun } = await run(double, { input, output, retryFailed: true });
  assertEquals([failed, recordsOfRun, folder.read("out")], [0, 0, doubles(10)]);
  assertEquals(folder.names(), ["in.ndjson", "out", "out.log"]);
});

Deno.test(
  `batch() goes on where a retry was killed before its end was in the job log, even with a compressed output ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const input = folder.write("in.ndjson", numbers(10));
    const output = folder.of("out.gz");
    const failing = (x: number) => {
      if (x < 2) throw new Error("bad");
      return 2 * x;
    };
    await run(failing, { input, output });
    await run((x: number) => {
      if (x < 1) throw new Error("bad");
      return 2 * x;
    }, { input, output, retryFailed: true });
    folder.write("out.gz.log", folder.read("out.gz.log").replace(/[^\n]*\n$/, ""));
    assertEquals((await run(failing, { input, output, resume: true })).recordsOfRun, 0);
    assertEquals((await run(double, { input, output, retryFailed: true })).failed, 0);
    assertEquals(await new Response((await Deno.open(output)).readable.pipeThrough(new DecompressionStream("gzip"))).text(), doubles(10));
    // As if killed before it had removed what is empty.
    folder.write("out.gz.errors.ndjson", "");
    folder.write("out.gz.log", folder.read("out.gz.log").replace(/[^\n]*\n$/, ""));
    assertEquals((await run(double, { input, output, retryFailed: true })).failed, 0);
    assertEquals(folder.names(), ["in.ndjson", "out.gz", "out.gz.log"]);
  },
);

Deno.test(`batch() with 'overwrite' touches nothing of the run before if its task cannot be loaded ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(10));
  const broken = folder.write("broken.js", "throw new Error('no good');");
  const stuck = folder.write("stuck.js", "await new Promise(() => {});\nexport const stuck = (x) => x;");
  await run((x: number) => {
    if (x < 2) throw new Error("bad");
    return 2 * x;
  }, { input, output: folder.of("out") });
  const files = () => ["out", "out.errors.ndjson", "out.log"].map((name) => folder.read(name));
  const before = files();
  await assertFails(
    () => run(broken, { input, output: folder.of("out"), overwrite: true }),
    BatchError as never,
    "Cannot run batch as the task module cannot be loaded: no good",
  );
  assertEquals(files(), before);
  const { outcome } = await run(stuck, { input, output: folder.of("out"), overwrite: true, signal: AbortSignal.timeout(100) });
  assertEquals([outcome, files()], ["stopped", before]);
  const { failed } = await run(double, { input, output: folder.of("out"), retryFailed: true });
  assertEquals([failed, folder.read("out")], [0, doubles(10)]);
  assertEquals(folder.names(), ["broken.js", "in.ndjson", "out", "out.log", "stuck.js"]);
});

Deno.test(`batch() refuses to write to an output to which another run writes ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(10));
  const log = folder.write("out.log", "");
  using held = Deno.openSync(log, { write: true });
  held.lockSync(true);
  const message = `Cannot run batch as another one writes to the same output: its job log '${log}' is locked`;
  await assertFails(() => run(double, { input, output: folder.of("out"), overwrite: true }), BatchError as never, message);
  assertEquals(folder.names(), ["in.ndjson", "out.log"]);
});

Deno.test(
  `batch() refuses a second run to the same output from the moment on at which the first looks at it ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const [input, output] = [folder.write("in.ndjson", numbers(10)), folder.of("out")];
    const slow = folder.write(
      "slow.js",
      `Deno.writeTextFileSync(${JSON.stringify(folder.of("loading"))}, "");
    while (![...Deno.readDirSync(${
        JSON.stringify(folder.path)
      })].some(({ name }) => name === "go")) await new Promise((resolve) => setTimeout(resolve));
    export const slow = (x) => 2 * x;`,
    );
    const message = `Cannot run batch as another one writes to the same output: its job log '${output}.log' is locked`;
    // To start; to replace what is complete; to look at it.
    for (const mode of [{}, { overwrite: true }]) {
      const first = run(slow, { input, output, ...mode, permissions: "inherit" });
      await until(() => folder.names().includes("loading"));
      for (const other of [{}, { resume: true }, { overwrite: true }, { retryFailed: true }]) {
        await assertFails(() => run((x: number) => x, { input, output, ...other }), BatchError as never, message);
      }
      folder.write("go", "");
      assertEquals([(await first).records, folder.read("out")], [10, doubles(10)]);
      for (const name of ["go", "loading"]) Deno.removeSync(folder.of(name));
    }
  },
);

Deno.test(`batch() with 'resume' fills no gap with zeros if the output has become shorter since it was looked at ${NEEDS}`, {
  ignore,
}, async () => {
  using folder = new Folder();
  await begin(folder);
  const output = folder.of("out");
  const { length } = folder.json("out.log").at(-1).output;
  const module = folder.write("task.js", `Deno.truncateSync(${JSON.stringify(`${output}.partial`)}, 1);\nexport const task = (x) => x;`);
  const log = folder.json("out.log");
  log[0].task = { module, name: null, hash: await hashOf(Deno.readFileSync(module)) };
  folder.write("out.log", log.map((line) => `${JSON.stringify(line)}\n`).join(""));
  await assertFails(
    () => run(module, { input: folder.of("in.ndjson"), output, resume: true, permissions: "inherit", workers: 1 }),
    BatchError as never,
    `Cannot go on as '${output}.partial' has 1 bytes, but the job log says ${length}`,
  );
  assertEquals(folder.read("out.partial").length, 1);
});

/** Rows of CSV with numbers from 0, long enough to be divided into several parts. */
function rows(count: number): string {
  return `x,y\n${numbers(count).replaceAll("\n", `,${"y".repeat(60)}\n`)}`;
}

for (
  const { mode, csv } of [
    { mode: "resume", csv: false },
    { mode: "resume", csv: true },
    { mode: "retryFailed", csv: false },
    { mode: "retryFailed", csv: true },
  ] as const
) {
  Deno.test(
    `batch() with '${mode}' numbers the errors of a run that was cut short behind the rename of its output (${
      csv ? "csv" : "ndjson"
    }) ${NEEDS}`,
    { ignore },
    async () => {
      using folder = new Folder();
      const name = csv ? "in.csv" : "in.ndjson";
      const [input, output, errors] = [
        folder.write(name, csv ? rows(5000) : numbers(5000)),
        folder.of("out"),
        folder.of("out.errors.ndjson"),
      ];
      // The first part is done only after an error of another is written, whose line number is unknown until then.
      const late = folder.write(
        "late.js",
        `export async function late(row) {
        const x = ${csv ? "Number(row.x)" : "row"};
        while (x === 0 && Deno.statSync(${JSON.stringify(errors)}).size === 0) await new Promise((resolve) => setTimeout(resolve, 5));
        if (x % 1000 === 999) throw new Error("bad");
        return 2 * x;
      }`,
      );
      const options = { input, output, ordered: false, chunk: 1024, permissions: "inherit" } as const;
      const { path } = folder;
      // A folder is in the place of the file in which they are numbered.
      Deno.mkdirSync(`${path}/out.errors.ndjson.partial`);
      const error = await assertRejects(() => run(late, options), BatchError, "Cannot write results: ");
      assertEquals(error.resumable, true);
      Deno.removeSync(`${path}/out.errors.ndjson.partial`);
      assertEquals(folder.names(), [name, "late.js", "out", "out.errors.ndjson", "out.log"]);
      assert(folder.json("out.errors.ndjson").some(({ line }) => line === null));

      const { recordsOfRun, failed } = await run(late, { ...options, [mode]: true });
      assertEquals([recordsOfRun, failed], [mode === "resume" ? 0 : 5, 5]);
      const lines = folder.json("out.errors.ndjson").map(({ line, part }) => [line, part]).sort(([a], [b]) => a - b);
      assertEquals(lines, [1000, 2000, 3000, 4000, 5000].map((line) => [csv ? line + 1 : line, undefined]));
      assertEquals(folder.json("out.log").at(-1).stage, "finished");
    },
  );
}

Deno.test(`batch() with 'resume' reads the header of CSV again, and counts it once ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.csv", rows(5000));
  const task = (row: { x: string }) => {
    if (Number(row.x) % 100 === 99) throw new Error("bad");
    return Number(row.x);
  };
  const options = { input, output: folder.of("out"), chunk: 1024 };
  assertEquals((await run(task, { ...options, halt: 20 })).outcome, "halted");
  const told: BatchProgress[] = [];
  await run(task, { ...options, resume: true, onProgress: (progress) => told.push(progress) });
  assertEquals(folder.json("out.errors.ndjson").map(({ line }) => line), Array.from({ length: 50 }, (_, i) => 100 * i + 101));
  const { bytes, totalBytes } = told.at(-1)!;
  assertEquals(bytes, totalBytes);
});

Deno.test(`batch() refuses to replace a file that has the name of the job log but is none ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, output] = [folder.write("in.ndjson", numbers(10)), folder.of("out")];
  for (const content of ["2026-11-23 the server started\n", '{"version":1,"level":"info"}\n', "\0"]) {
    const log = folder.write("out.log", content);
    const message = `Cannot run batch as '${log}' is no job log of a batch, and that of the output '${output}' would replace it: ` +
      "move it away, or give the output another name";
    for (const mode of [{}, { overwrite: true }, { resume: true }]) {
      await assertFails(() => run(double, { input, output, ...mode }), BatchError as never, message);
    }
    assertEquals([folder.read("out.log"), folder.names()], [content, ["in.ndjson", "out.log"]]);
  }
  // A file that was torn at its beginning is ours.
  folder.write("out.log", '{"version":1,"inp');
  await run(double, { input, output });
  assertEquals(folder.read("out"), doubles(10));
});

Deno.test(
  `batch() whose workers cannot be replaced says that it can be taken up again, in its report as well ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const state = folder.write("state", "good");
    const module = folder.write(
      "task.ts",
      `const state = ${JSON.stringify(state)};
    if (Deno.readTextFileSync(state) === "bad") throw new Error("no network");
    export default (x: number) => {
      if (x !== 500 || Deno.readTextFileSync(state) !== "good") return 2 * x;
      Deno.writeTextFileSync(state, "bad");
      self.close();
      return new Promise(() => {});
    };`,
    );
    const [input, output, report] = [folder.write("in.ndjson", numbers(1000)), folder.of("out"), folder.of("report.html")];
    const options = { input, output, report, workers: 1, chunk: 1024, permissions: "inherit" } as const;
    const error = await assertRejects(() => run(module, options), BatchError);
    const why = "Cannot go on as the task module cannot be loaded: no network";
    assertEquals([error.message, error.resumable, folder.read("report.html").includes(why)], [why, true, true]);
    folder.write("state", "better");
    assertEquals((await run(module, { ...options, resume: true })).records, 1000);
    assertEquals(folder.read("out"), doubles(1000));
  },
);
