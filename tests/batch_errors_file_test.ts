import { assertEquals } from "@std/assert";
import { BatchError } from "@procpool/process-pool/batch";
import { Coverage } from "../batch/coverage.ts";
import { completeErrors } from "../batch/errors_file.ts";
import { Folder, ignore, NEEDS, numbers, run, same } from "./batch_fixtures.ts";
import { assertFails, until } from "./helpers.ts";

/** Fails every tenth record, as in the runs that others resume. */
const tenth = (x: number) => {
  if (x % 10 === 9) throw new Error("no");
  return x;
};

/** Turns the job log into one of an earlier version, which recorded less about the errors file. */
function makeOld(folder: Folder): void {
  const entries = folder.json("out.log").map(({ errors, errorsSample: _, ...entry }) =>
    typeof errors === "number" ? { ...entry, errors } : entry
  );
  folder.write("out.log", entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
}

Deno.test(`batch() resumes a run only with the errors file with which it began ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, output] = [folder.write("in.ndjson", numbers(1000)), folder.of("out")];
  const [errors, notes] = [folder.of("e.ndjson"), folder.write("notes.txt", "my notes")];
  await run(tenth, { input, output, errors, halt: 20, chunk: 1024 });
  const refused = (action: string) =>
    `Cannot ${action} '${output}' as its errors file is '${errors}', and not '${notes}': name that one with '--errors', ` +
    "or begin anew with '--overwrite'";
  await assertFails(() => run(tenth, { input, output, errors: notes, resume: true }), BatchError as never, refused("resume"));
  await run(tenth, { input, output, errors, resume: true });
  for (const [mode, action] of [["resume", "resume"], ["retryFailed", "retry"]] as const) {
    await assertFails(() => run(tenth, { input, output, errors: notes, [mode]: true }), BatchError as never, refused(action));
  }
  assertEquals([folder.read("notes.txt"), folder.json("e.ndjson").length], ["my notes", 100]);
  assertEquals((await run(same, { input, output, errors, retryFailed: true })).failed, 0);
});

Deno.test(
  `batch() takes up a run whose folder was moved, and one whose job log does not name the errors file ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const input = folder.write("in.ndjson", numbers(1000));
    Deno.mkdirSync(folder.of("a"));
    await run(tenth, { input, output: folder.of("a/out"), halt: 20, chunk: 1024 });
    Deno.renameSync(folder.of("a"), folder.of("b"));
    await run(tenth, { input, output: folder.of("b/out"), resume: true });
    assertEquals(folder.json("b/out.errors.ndjson").length, 100);
    const output = folder.of("out");
    await run(tenth, { input, output, halt: 20, chunk: 1024 });
    makeOld(folder);
    await run(tenth, { input, output, resume: true });
    makeOld(folder);
    assertEquals((await run(same, { input, output, retryFailed: true })).failed, 0);
    assertEquals(folder.read("out"), numbers(1000));
  },
);

Deno.test(
  `batch() with 'retryFailed' refuses an errors file that its run did not leave, also after a retry ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const [input, other, output] = [folder.write("in.ndjson", numbers(100)), folder.write("other.ndjson", numbers(100)), folder.of("out")];
    const errors = folder.of("e.ndjson");
    const refused = (why: string) =>
      assertFails(
        () => run(same, { input, output, errors, retryFailed: true }),
        BatchError as never,
        `Cannot retry as the errors file '${errors}' is not what the run to '${output}' left: it ${why}: put the original back`,
      );
    await run(tenth, { input, output, errors });
    const results = folder.read("out");
    let left = folder.read("e.ndjson");
    folder.write("e.ndjson", left.replaceAll("/in.ndjson", "/other.ndjson"));
    await refused(`names the input '${other}', which that run did not read`);
    folder.write("e.ndjson", left.slice(0, left.indexOf("\n") + 1));
    await refused("has 1 records, but the job log says 10");
    folder.write("e.ndjson", left.replace('"record":"9"', '"record":"8"'));
    await refused("was changed since");
    assertEquals(folder.read("out"), results);
    folder.write("e.ndjson", left);
    const half = (x: number) => {
      if (x % 20 === 19) throw new Error("no");
      return x;
    };
    assertEquals((await run(half, { input, output, errors, retryFailed: true })).failed, 5);
    left = folder.read("e.ndjson");
    folder.write("e.ndjson", left.replace('"record":"19"', '"record":"18"'));
    await refused("was changed since");
    folder.write("e.ndjson", left);
    assertEquals((await run(same, { input, output, errors, retryFailed: true })).failed, 0);
    assertEquals(folder.read("out"), numbers(100));
  },
);

Deno.test(`batch() locks its errors file, and touches nothing if another run has locked it ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, errors] = [folder.write("in.ndjson", numbers(100)), folder.of("e.ndjson")];
  const slow = folder.write(
    "slow.js",
    `export default async (x) => {
      if (x % 10 === 9) throw new Error("no");
      if (x === 50) Deno.writeTextFileSync(${JSON.stringify(folder.of("runs"))}, "");
      while (x === 50 && ![...Deno.readDirSync(${JSON.stringify(folder.path)})].some(({ name }) => name === "go")) {
        await new Promise((resolve) => setTimeout(resolve));
      }
      return x;
    };`,
  );
  await run(tenth, { input, output: folder.of("done"), errors: folder.of("d.ndjson") });
  await run(tenth, { input, output: folder.of("b"), errors });
  const before = [folder.read("b"), folder.read("b.log")];
  const first = run(slow, { input, output: folder.of("a"), errors, overwrite: true, permissions: "inherit" });
  await until(() => folder.names().includes("runs"));
  const message = `Cannot run batch as another one writes to the same errors file: '${errors}' is locked`;
  for (const mode of [{ overwrite: true }, { retryFailed: true }]) {
    await assertFails(() => run(tenth, { input, output: folder.of("b"), errors, ...mode }), BatchError as never, message);
  }
  assertEquals([folder.read("b"), folder.read("b.log")], before);
  folder.write("go", "");
  assertEquals((await first).failed, 10);
  assertEquals(folder.json("e.ndjson").length, 10);
});

Deno.test(`batch() with 'retryFailed' accepts the errors file that its run left under any path ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(1000));
  for (const name of ["a", "errors", "deep"]) Deno.mkdirSync(folder.of(name));
  const errors = folder.of("errors/e.ndjson");
  await run(tenth, { input, output: folder.of("a/out"), errors });
  Deno.renameSync(folder.of("a"), folder.of("deep/b"));
  // From there, the path leads to another file.
  assertEquals((await run(same, { input, output: folder.of("deep/b/out"), errors, retryFailed: true })).failed, 0);
  assertEquals(folder.read("deep/b/out"), numbers(1000));
});

Deno.test(`batch() can be run and resumed where a run was killed as it began ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(100));
  for (const resume of [true, false]) {
    const output = folder.of(`out ${resume}`);
    folder.write(`out ${resume}.errors.ndjson`, "");
    folder.write(`out ${resume}.log`, "");
    const { failed } = await run(tenth, { input, output, resume });
    assertEquals([failed, folder.json(`out ${resume}.errors.ndjson`).length], [10, 10]);
  }
});

Deno.test(`completeErrors() numbers lines without looking through all inputs for each ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const names = Array.from({ length: 50 }, (_, i) => `in${i}`);
  const error = { name: "Error", message: "no", stack: "" };
  const entries = names.flatMap((input) =>
    [0, 3].map((line) => ({ input, line: null, part: [10, line], offset: 10, position: 0, record: "", error, attempts: 1 }))
  );
  const path = folder.write("errors", entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
  const coverages = names.map((_, i) => {
    const coverage = new Coverage();
    coverage.add({ start: 0, end: 10, lines: i });
    coverage.add({ start: 10, end: 20, lines: 5, numbered: true });
    return coverage;
  });
  let looks = 0;
  const inputs = new Proxy(names, {
    get(names, key) {
      if (typeof key === "string" && /^\d+$/.test(key)) looks++;
      return Reflect.get(names, key);
    },
  });
  await completeErrors(path, { length: folder.read("errors").length, inputs, coverages });
  assertEquals(
    folder.json("errors").map(({ input, line }) => `${input}: ${line}`),
    names.flatMap((name, i) => [`${name}: ${i + 1}`, `${name}: ${i + 4}`]),
  );
  assertEquals(looks, names.length);
});
