import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { batch, BatchError, type BatchOptions, type BatchSummary } from "@procpool/process-pool/batch";
import { Folder, ignore, NEEDS, numbers, run, same, tenth } from "./batch_fixtures.ts";
import { within } from "./fixtures.ts";
import { assertFails, thrownBy, until } from "./helpers.ts";

Deno.test(`batch() never writes to a file that it reads, nor two things to one file ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const output = folder.of("out");
  for (
    const [name, options, message] of [
      ["in.ndjson", { errors: folder.of("in.ndjson") }, `'${folder.of("in.ndjson")}' is an input and the errors file`],
      ["out.log", {}, `'${folder.of("out.log")}' is an input and the job log`],
      ["out.partial", {}, `'${folder.of("out.partial")}' is an input and the output, as it grows`],
      ["in.ndjson", { errors: output }, `'${output}' is the output and the errors file`],
    ] as const
  ) {
    const input = folder.write(name, "1\n");
    await assertFails(() => run(same, { input, output, overwrite: true, ...options }), BatchError, `Cannot run batch as ${message}`);
    assertEquals([folder.read(name), folder.names()], ["1\n", [name]]);
    Deno.removeSync(input);
  }
  const input = folder.write("in.ndjson", "1\n");
  const { writable } = new TransformStream<Uint8Array, Uint8Array>();
  await assertFails(
    () => run(same, { input, output: writable, errors: input }),
    BatchError,
    `Cannot run batch as '${input}' is an input and the errors file`,
  );
  assertEquals(folder.read("in.ndjson"), "1\n");
});

Deno.test(`batch() does not match by a glob what it wrote itself, in any mode ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  folder.write("a.ndjson", numbers(3000));
  folder.write("b.ndjson", numbers(100));
  const output = folder.of("out.ndjson");
  const glob = { input: folder.of("*"), output, report: folder.of("report.html"), chunk: 1024 };
  assertEquals((await run(tenth, { ...glob, halt: 5 })).outcome, "halted");
  assertEquals(folder.names().length, 6);
  const { records, failed } = await run(tenth, { ...glob, resume: true });
  assertEquals([records, failed], [3100, 310]);
  assertEquals((await run(tenth, { ...glob, resume: true })).recordsOfRun, 0);
  assertEquals((await run(same, { ...glob, retryFailed: true })).failed, 0);
  assertEquals((await run(same, { ...glob, overwrite: true })).records, 3100);
  Deno.removeSync(folder.of("report.html"));
  assertEquals(folder.names(), ["a.ndjson", "b.ndjson", "out.ndjson", "out.ndjson.log"]);
  // An input that is named is read, whatever it is.
  await assertFails(
    () => run(same, { input: [folder.of("a*"), output], output, overwrite: true }),
    BatchError,
    `Cannot run batch as '${output}' is an input and the output`,
  );
});

Deno.test(
  `batch() does not match by a glob the errors file of an earlier run, even if it is to have another ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    folder.write("a.ndjson", numbers(30));
    const [output, errors] = [folder.of("out"), folder.of("bad.ndjson")];
    const glob = { input: folder.of("*.ndjson"), output };
    assertEquals((await run(tenth, { ...glob, errors })).failed, 3);
    await assertFails(
      () => run(tenth, { ...glob, resume: true }),
      BatchError,
      `Cannot resume '${output}' as its errors file is '${errors}', and not '${output}.errors.ndjson': name that one with '--errors', ` +
        "or begin anew with '--overwrite'",
    );
    const { records, failed } = await run(tenth, { ...glob, overwrite: true });
    assertEquals([records, failed], [30, 3]);
  },
);

Deno.test(`batch() takes no file that a glob matches for one of its own if there was no earlier run ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [a, b] = [folder.write("a.ndjson", "1\n"), folder.write("b.ndjson", "2\n")];
  for (
    const [options, what] of [[{ output: b }, "output"], [{ output: folder.of("out"), errors: b }, "errors file"]] as const
  ) {
    await assertFails(
      () => run(same, { input: folder.of("*"), ...options, overwrite: true }),
      BatchError,
      `Cannot run batch as '${b}' is an input and the ${what}`,
    );
  }
  assertEquals([Deno.readTextFileSync(a), Deno.readTextFileSync(b), folder.names()], ["1\n", "2\n", ["a.ndjson", "b.ndjson"]]);
});

Deno.test(
  `batch() finds by a glob what is in folders behind links, but not by '**', where they may lead round ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    for (const name of ["logs", "logs/monday", "elsewhere"]) Deno.mkdirSync(folder.of(name));
    folder.write("logs/monday/a", "1\n");
    folder.write("elsewhere/a", "2\n");
    Deno.symlinkSync("../elsewhere", folder.of("logs/tuesday"));
    Deno.symlinkSync("..", folder.of("logs/up"));
    Deno.symlinkSync("nowhere", folder.of("logs/wednesday"));
    const output = folder.of("out");
    const globs = {
      "logs/*day/a": "1\n2\n",
      "logs/*/logs/monday/*": "1\n",
      "logs/**/a": "1\n",
      "*/tues*/*": "2\n",
      "{logs/m*,else*}/a": "2\n1\n",
    };
    for (const [glob, results] of Object.entries(globs)) {
      await run(same, { input: folder.of(glob), output, overwrite: true });
      assertEquals([glob, folder.read("out")], [glob, results]);
    }
  },
);

Deno.test(`batch() looks only into folders that a glob means, and refuses links that it cannot follow ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  for (const name of ["a", "a/b", "c", "c/b"]) Deno.mkdirSync(folder.of(name));
  folder.write("a/b/x", "1\n");
  folder.write("c/b/x", "2\n");
  for (const name of ["d", "a/d"]) Deno.symlinkSync(folder.path, folder.of(name));
  Deno.symlinkSync(folder.of("c"), folder.of("hidden"));
  const output = folder.of("out");
  const { readDir, stat } = Deno;
  const seen: string[] = [];
  Deno.readDir = (path) => {
    seen.push(String(path).slice(folder.path.length));
    return readDir(path);
  };
  // As one into a folder of somebody else's.
  Deno.stat = (path) =>
    path === folder.of("hidden") ? Promise.reject(new Deno.errors.PermissionDenied("Permission denied (os error 13)")) : stat(path);
  try {
    const globs = {
      "[ac]/b/*": ["1\n2\n", "/", "/a/", "/a/b/", "/c/", "/c/b/"],
      "d/[a]/b/x": ["1\n", "/d/", "/d/a/", "/d/a/b/"],
      "**/x": ["1\n2\n", "/", "/a/", "/a/b/", "/c/", "/c/b/"],
    };
    for (const [glob, expected] of Object.entries(globs)) {
      seen.length = 0;
      await run(same, { input: folder.of(glob), output, overwrite: true });
      assertEquals([glob, folder.read("out"), ...seen.sort()], [glob, ...expected]);
    }
    await assertFails(
      () => run(same, { input: folder.of("*/b/x"), output, overwrite: true }),
      BatchError,
      `Cannot run batch as it cannot access the folder '${folder.path}/' of the input: Permission denied (os error 13)`,
    );
  } finally {
    Object.assign(Deno, { readDir, stat });
  }
});

Deno.test(`batch() knows a file that it reads by its other names: links, and paths through links ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "1\n");
  const task = folder.write("task.js", "export const task = (x) => x;");
  Deno.linkSync(input, folder.of("hard.log"));
  Deno.symlinkSync(input, folder.of("soft"));
  Deno.symlinkSync(task, folder.of("report.html"));
  Deno.symlinkSync(folder.path, folder.of("here"));
  const names = folder.names();
  const same = (other: string, what: string, path: string, called: string) =>
    `Cannot run batch as '${folder.of(other)}', ${what}, and '${path}', ${called}, are the same file`;
  for (
    const [options, message] of [
      [{ output: folder.of("hard") }, same("in.ndjson", "an input", folder.of("hard.log"), "the job log")],
      [
        { output: folder.of("out"), errors: folder.of("soft") },
        `Cannot run batch as '${input}' is an input and the errors file`,
      ],
      [{ output: folder.of("here/in.ndjson") }, same("in.ndjson", "an input", folder.of("here/in.ndjson"), "the output")],
      [
        { output: folder.of("out"), report: folder.of("report.html") },
        same("task.js", "a part of the task", folder.of("report.html"), "the report"),
      ],
      // Neither exists yet.
      [{ output: folder.of("out"), errors: folder.of("here/out") }, same("out", "the output", folder.of("here/out"), "the errors file")],
    ] as const
  ) {
    await assertFails(() => run(task, { input, overwrite: true, ...options }), BatchError, message);
  }
  assertEquals([folder.read("in.ndjson"), folder.names()], ["1\n", names]);
});

Deno.test(`batch() refuses an output or an errors file that is something else than a file, whatever it is to do ${NEEDS}`, {
  ignore: ignore || Deno.build.os === "windows",
}, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(10));
  Deno.mkdirSync(folder.of("folder"));
  Deno.mkdirSync(folder.of("out.errors.ndjson"));
  // Through a link, so that no device is lost if this is not refused.
  Deno.symlinkSync("/dev/null", folder.of("device"));
  const names = folder.names();
  for (const mode of [{}, { resume: true }, { overwrite: true }, { retryFailed: true }]) {
    for (
      const [options, message] of [
        [{ output: folder.of("folder") }, `output '${folder.of("folder")}' is a folder`],
        [{ output: folder.of("device") }, `output '${folder.of("device")}' is no regular file`],
        [{ output: folder.of("x"), errors: folder.of("folder") }, `errors file '${folder.of("folder")}' is a folder`],
        [{ output: folder.of("x"), errors: folder.of("device") }, `errors file '${folder.of("device")}' is no regular file`],
        [{ output: folder.of("out") }, `errors file '${folder.of("out.errors.ndjson")}' is a folder`],
      ] as const
    ) {
      await assertFails(() => run(tenth, { input, ...options, ...mode }), BatchError, `Cannot run batch as the ${message}: name a file`);
    }
  }
  const { writable } = new TransformStream<Uint8Array, Uint8Array>();
  await assertFails(
    () => run(tenth, { input, output: writable, errors: folder.of("device") }),
    BatchError,
    `Cannot run batch as the errors file '${folder.of("device")}' is no regular file: name a file`,
  );
  assertEquals([folder.names(), Deno.lstatSync(folder.of("device")).isSymlink], [names, true]);
});

Deno.test(`batch() writes to the files that links lead to, and leaves the links ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(3000));
  for (const name of ["links", "large"]) Deno.mkdirSync(folder.of(name));
  const [output, errors] = [folder.of("links/results"), folder.of("links/errors")];
  Deno.symlinkSync("../large/out", folder.of("links/between"));
  Deno.symlinkSync("between", output);
  Deno.symlinkSync(folder.of("large/bad"), errors);
  const names = (of: string) => [...Deno.readDirSync(folder.of(of))].map(({ name }) => name).sort();
  // Both where nothing exists yet and where there is a file.
  for (const mode of [{}, { overwrite: true }]) {
    const halted = await run(tenth, { input, output, errors, ...mode, halt: 20, chunk: 1024 });
    assertEquals([halted.outcome, names("large").includes("out.partial")], ["halted", true]);
    const { failed, output: written } = await run(tenth, { input, output, errors, resume: true });
    assertEquals([failed, written, folder.json("large/bad").length], [300, folder.of("large/out"), 300]);
    assertEquals((await run(same, { input, output, errors, retryFailed: true })).failed, 0);
    assertEquals([folder.read("large/out"), names("large")], [numbers(3000), ["out", "out.log"]]);
    assertEquals(names("links").filter((name) => Deno.lstatSync(folder.of(`links/${name}`)).isSymlink), ["between", "errors", "results"]);
    assertEquals(names("links").length, 3);
  }
});

Deno.test(`batch() to a stream replaces no errors file in which there is something ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const errors = folder.write("errors", "important\n");
  const to = (writable: WritableStream<Uint8Array>) => run(tenth, { input: new Response("10\n").body!, output: writable, errors });
  const { writable } = new TransformStream<Uint8Array, Uint8Array>();
  await assertFails(
    () => to(writable),
    BatchError,
    `Cannot run batch as the errors file '${errors}' exists: move it away, or name another one`,
  );
  assertEquals([folder.read("errors"), writable.locked], ["important\n", false]);
  folder.write("errors", "");
  const stream = new TransformStream<Uint8Array, Uint8Array>();
  const text = new Response(stream.readable).text();
  assertEquals([(await to(stream.writable)).failed, await text, folder.json("errors").length], [1, "", 1]);
});

Deno.test(`batch() to a file says so if its errors file cannot be opened, and leaves nothing behind ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, errors] = [folder.write("in.ndjson", "1\n"), folder.of("none/errors")];
  await assertFails(
    () => run(same, { input, output: folder.of("out"), errors }),
    BatchError,
    `Cannot run batch as there is no folder of the errors file '${errors}'`,
  );
  assertEquals(folder.names(), ["in.ndjson"]);
});

Deno.test(`batch() needs no empty errors file at its end ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, errors] = [folder.write("in.ndjson", numbers(10)), folder.of("out.errors.ndjson")];
  const removing = folder.write("task.js", `export default (x) => { if (x === 9) Deno.removeSync(${JSON.stringify(errors)}); return x; };`);
  const { failed } = await run(removing, { input, output: folder.of("out"), permissions: "inherit", workers: 1 });
  assertEquals([failed, folder.names()], [0, ["in.ndjson", "out", "out.log", "task.js"]]);
});

Deno.test(`batch() with 'inherit' loads the task's module in workers only ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "1\n2\n");
  const task = folder.write("task.js", "globalThis.taskIsLoaded = true; export default () => globalThis.taskIsLoaded;");
  await run(task, { input, output: folder.of("out"), permissions: "inherit" });
  assertEquals([folder.json("out"), "taskIsLoaded" in globalThis], [[true, true], false]);
});

Deno.test(`batch() to a stream says so if its errors file cannot be opened, and lets go of the stream ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const { writable } = new TransformStream<Uint8Array, Uint8Array>();
  const error = await thrownBy(() =>
    run(same, { input: new Response("1\n").body!, output: writable, errors: folder.of("none/errors") })
  ) as Error;
  assertEquals([error.constructor, error.message], [
    BatchError,
    `Cannot run batch as there is no folder of the errors file '${folder.of("none/errors")}'`,
  ]);
  assertEquals(writable.locked, false);
});

Deno.test(
  `batch() to a stream lets go of its errors file if somebody else has begun to write to the stream ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const to = (output: BatchOptions["output"]) => run(tenth, { input: new Response("10\n").body!, output, errors: folder.of("errors") });
    const output = new WritableStream();
    const refused = to(output);
    output.getWriter();
    await assertRejects(() => refused, TypeError, "locked");
    assertEquals((await to(new WritableStream())).failed, 1);
  },
);

Deno.test(`batch() closes files that it does not read to their end ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const text = `a,b\n${"1,2\n".repeat(500_000)}`;
  folder.write("in.csv", text);
  folder.write("in.csv.gz", await new Response(new Response(text).body!.pipeThrough(new CompressionStream("gzip"))).bytes());
  for (const name of ["in.csv", "in.csv.gz"]) {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const output = new Response(readable).text();
    await run(same, { input: folder.of(name), output: writable, limit: 1 });
    assertEquals(await output, '{"a":"1","b":"2"}\n');
  }
  // The sanitizer checks that they are closed.
});

/** The contents of a file in the format that its name implies: records of one number each, from 0. */
async function recordsFor(name: string, count: number): Promise<Uint8Array<ArrayBuffer>> {
  const text = new TextEncoder().encode(name.includes("csv") ? `n\n${numbers(count)}` : numbers(count));
  if (!name.endsWith(".gz")) return text;
  return await new Response(new Response(text).body!.pipeThrough(new CompressionStream("gzip"))).bytes();
}

for (const name of ["in.ndjson", "in.csv", "in.ndjson.gz"]) {
  Deno.test(`batch() does not complete an output whose input was changed while it was read (${name}) ${NEEDS}`, { ignore }, async () => {
    using folder = new Folder();
    const [input, output] = [folder.of(name), folder.of("out")];
    const [bytes, more, other] = await Promise.all([recordsFor(name, 10), recordsFor(name, 5), recordsFor(name, 20)]);
    const is = (size: number) => `has ${size}, of 2026-02-03T04:05:06.000Z`;
    for (
      const [what, content, message] of [
        ["touched", bytes, is(bytes.length)],
        ["cut off", bytes.subarray(0, 5), is(5)],
        ["emptied", bytes.subarray(0, 0), is(0)],
        ["replaced by what is longer", name.endsWith(".gz") ? other : other.fill(51, 0, 4), is(other.length)],
        ["appended to", new Uint8Array([...bytes, ...more]), undefined],
      ] as const
    ) {
      folder.write(name, bytes);
      Deno.utimeSync(input, new Date("2026-01-02T03:04:05Z"), new Date("2026-01-02T03:04:05Z"));
      folder.write("next", content);
      // When the last record runs, everything has been read.
      const change = `Deno.copyFileSync(${JSON.stringify(folder.of("next"))}, ${JSON.stringify(input)});
        Deno.utimeSync(${JSON.stringify(input)}, new Date("2026-02-03T04:05:06Z"), new Date("2026-02-03T04:05:06Z"));`;
      const task = folder.write(
        `${what.replaceAll(" ", "_")}.js`,
        `export default (row) => { const n = Number(row.n ?? row); if (n === 9) { ${change} } return n; };`,
      );
      const result = await run(task, { input, output, overwrite: true, permissions: "inherit", workers: 1 }).catch((error) => error);
      if (message === undefined) {
        assertEquals([result.outcome, folder.read("out")], ["complete", numbers(10)], what);
        continue;
      }
      assertEquals(
        [result.constructor, result.message, result.resumable],
        [
          BatchError,
          `Cannot go on as the input '${input}' was changed while it was read: it had ${bytes.length} bytes, of 2026-01-02T03:04:05.000Z, and ${message}: begin anew with '--overwrite', or put the original back`,
          true,
        ],
        what,
      );
      assertEquals(folder.names().filter((name) => name.startsWith("out")), ["out.errors.ndjson", "out.log", "out.partial"], what);
    }
  });

  Deno.test(`batch() goes on with 'resume' once an input that was moved away while it was read is back (${name}) ${NEEDS}`, {
    ignore,
  }, async () => {
    using folder = new Folder();
    const [input, away, output] = [folder.write(name, await recordsFor(name, 10)), folder.of("away"), folder.of("out")];
    // When the last record runs, everything has been read.
    const task = folder.write(
      "task.js",
      `export default (row) => {
        const n = Number(row.n ?? row);
        if (n === 9) Deno.renameSync(${JSON.stringify(input)}, ${JSON.stringify(away)});
        return n;
      };`,
    );
    const go = (resume: boolean) => run(task, { input, output, resume, permissions: "inherit", workers: 1 });
    const error = await go(false).catch((error) => error);
    assertEquals(
      [error.constructor, error.message, error.resumable],
      [BatchError, `Cannot go on as the input '${input}' is not there any more: put it back`, true],
    );
    Deno.renameSync(away, input);
    const { records, recordsOfRun } = await go(true);
    assertEquals([records, recordsOfRun, folder.read("out")], [10, 0, numbers(10)]);
  });
}

Deno.test(`batch() with 'resume' reads again what was read of an input after it had been changed ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [text, time] = [numbers(20_000), new Date("2026-01-02T03:04:05Z")];
  const [input, other, output] = [folder.write("in", text), folder.of("other"), folder.of("out")];
  const restore = () => {
    folder.write("in", text);
    Deno.utimeSync(input, time, time);
  };
  restore();
  folder.write("other", numbers(40_000).slice(-text.length));
  // When the first record runs, the last one has not been read.
  const change = `Deno.copyFileSync(${JSON.stringify(other)}, ${JSON.stringify(input)}); Deno.removeSync(${JSON.stringify(other)});`;
  const task = folder.write("task.js", `export default (n) => { if (n === 0) try { ${change} } catch {} return n; };`);
  const go = (resume: boolean) => run(task, { input, output, resume, permissions: "inherit", workers: 1 });
  const error = await thrownBy(() => go(false)) as BatchError;
  assertMatch(error.message, /was changed while it was read/);
  assert(error.resumable);
  restore();
  await go(true);
  assertEquals(folder.read("out"), text);
});

for (const name of ["in.ndjson", "in.csv", "in.ndjson.gz"]) {
  for (const to of ["a file", "a stream"]) {
    Deno.test(
      `batch() to ${to} ends as an input is changed, though nothing of it is done by then (${name}) ${NEEDS}`,
      { ignore },
      async () => {
        using folder = new Folder();
        const [input, other] = [folder.write(name, await recordsFor(name, 10)), folder.write("other", await recordsFor(name, 5))];
        const change = `Deno.copyFileSync(${JSON.stringify(other)}, ${JSON.stringify(input)});`;
        const task = folder.write("task.js", `export default () => { ${change} return new Promise(() => {}); };`);
        const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
        const text = new Response(readable).text().catch(() => {});
        const output = to === "a file" ? folder.of("out") : writable;
        const error = await thrownBy(() => run(task, { input, output, permissions: "inherit", workers: 1 })) as BatchError;
        assertMatch(error.message, /^Cannot go on as the input '.+' was changed while it was read/);
        if (to === "a stream") await within(text);
        else assertEquals(folder.read("out.partial"), "");
      },
    );
  }
}

for (const inputFormat of ["ndjson", "csv"] as const) {
  Deno.test(`batch() reads no other file that has been put in the place of an input (${inputFormat}) ${NEEDS}`, { ignore }, async () => {
    using folder = new Folder();
    const [text, other] = inputFormat === "csv" ? ["x\n1\n", "x\n10\n"] : ["1\n", "10\n"];
    const input = folder.write("in", text);
    const [there, away] = [folder.write("other", other), folder.of("away")];
    const streamOf = (end: () => void) =>
      ReadableStream.from((async function* () {
        yield new TextEncoder().encode(text);
        end();
      })());
    const go = (end: () => void, resume: boolean) =>
      run(same, { input: [streamOf(end), input], inputFormat, output: folder.of("out"), resume, permissions: "inherit", workers: 1 });
    const error = await thrownBy(() =>
      go(() => {
        Deno.renameSync(input, away);
        Deno.renameSync(there, input);
      }, false)
    ) as BatchError;
    assertMatch(error.message, /^Cannot go on as .+ is a different file than when the batch began: put the original back$/);
    assert(error.resumable);
    Deno.renameSync(away, input);
    assertEquals([(await go(() => {}, true)).records, folder.read("out").match(/1/g)?.length], [2, 2]);
    assert(!folder.read("out").includes("10"));
  });

  Deno.test(`batch() reads an input also in a longer copy that has replaced it (${inputFormat}) ${NEEDS}`, { ignore }, async () => {
    using folder = new Folder();
    const text = inputFormat === "csv" ? "x\n1\n" : "1\n";
    const input = folder.write("in", text);
    const stream = ReadableStream.from((async function* () {
      yield new TextEncoder().encode(text);
      // As rsync does with a log in use.
      Deno.renameSync(folder.write("copy", `${text}2\n`), input);
    })());
    const { records } = await run(same, {
      input: [stream, input],
      inputFormat,
      output: folder.of("out"),
      permissions: "inherit",
      workers: 1,
    });
    assertEquals([records, folder.read("out").match(/[12]/g)], [2, ["1", "1"]]);
  });
}

for (const [name, head] of [["in.ndjson", ""], ["in.log", ""], ["in.csv", "n\n"]] as const) {
  Deno.test(`batch() runs no half of a record of which the rest comes later (${name}) ${NEEDS}`, { ignore }, async () => {
    using folder = new Folder();
    const [input, other] = [folder.of(name), folder.write(`other-${name}`, `${head}3\n`)];
    for (const [more, result] of [["4\n", "1\n3\n"], ["\n4\n", "1\n2\n3\n"], ["\r\n", "1\n2\n3\n"], ["", "1\n2\n3\n"]] as const) {
      const task = folder.write(
        "task.js",
        `export default (row) => {
          const n = Number(row.n ?? row);
          if (n === 1) Deno.writeTextFileSync(${JSON.stringify(input)}, ${JSON.stringify(more)}, { append: true });
          return n;
        };`,
      );
      for (const ordered of [true, false]) {
        folder.write(name, `${head}1\n2`);
        const [output, report] = [folder.of("out"), folder.of("report.html")];
        const options = { output, report, overwrite: true, permissions: "inherit", workers: 1, ordered } as const;
        const { records, failed, left } = await run(task, { ...options, input: [input, other] });
        assertEquals([records, failed, folder.read("out")], [result.length / 2, 0, result], more);
        const from = head.length + 2;
        assertEquals(left, records === 2 ? [[input, from]] : []);
        assertEquals(folder.read("report.html").includes(`${name} from byte ${from} on`), records === 2);
      }
    }
  });
}

Deno.test(`batch() leaves a row of CSV whose quotes are open to another batch, whatever comes next ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.csv", 'n\n1\n"2');
  const task = folder.write(
    "task.js",
    `export default ({ n }) => {
      if (n === "1") Deno.writeTextFileSync(${JSON.stringify(input)}, '\\n3"\\n4\\n', { append: true });
      return n;
    };`,
  );
  const { failed, left } = await run(task, { input, output: folder.of("out"), permissions: "inherit", workers: 1 });
  assertEquals([failed, left, folder.read("out")], [0, [[input, 4]], '"1"\n']);
});

Deno.test(`batch() gives up for a record without a newline that failed, but not for half of one ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, other, output] = [folder.of("in.ndjson"), folder.write("other.ndjson", "3\n"), folder.of("out")];
  const task = folder.write(
    "task.js",
    `export default (n) => {
      if (n === 1) Deno.writeTextFileSync(${JSON.stringify(input)}, Deno.readTextFileSync(${
      JSON.stringify(folder.of("more"))
    }), { append: true });
      return n;
    };`,
  );
  const whole = { "\n": "halted", "]\n": "complete" } as const;
  for (const inputs of [[input], [input, other]]) {
    for (const [more, outcome] of Object.entries(whole)) {
      folder.write("in.ndjson", "1\n[2");
      folder.write("more", more);
      const summary = await run(task, { input: inputs, output, permissions: "inherit", workers: 1, halt: 1, overwrite: true });
      assertEquals([summary.outcome, summary.failed], [outcome, outcome === "halted" ? 1 : 0], more);
    }
  }
  const { outcome, failed } = await run((n) => n, { input: new Response("1\n[2").body!, output, halt: 1, overwrite: true });
  assertEquals([outcome, failed], ["halted", 1]);
});

for (const name of ["in.ndjson", "in.csv"]) {
  Deno.test(`batch() says so if an input ends before it has been read (${name}) ${NEEDS}`, { ignore }, async () => {
    using folder = new Folder();
    const bytes = await recordsFor(name, 200_000);
    const [input, output] = [folder.write(name, bytes), folder.of("out")];
    const task = folder.write("task.js", `export default () => Deno.truncateSync(${JSON.stringify(input)}, 3);`);
    const error = await thrownBy(() => run(task, { input, output, permissions: "inherit", workers: 1, chunk: 1024 })) as BatchError;
    const ends = name === "in.csv"
      ? `the input '${input}' cannot be read: it ends at byte \\d+, and had ${bytes.length} when the batch began`
      : `a worker cannot read the input: '${input}' ends at byte \\d+, and had \\d+ or more when the batch began`;
    // On a slow machine, progress may have been saved before.
    const changed = `the input '${input}' was changed while it was read: it had ${bytes.length} bytes, of .+, and has 3, of .+`;
    assertMatch(error.message, new RegExp(`^Cannot go on as (?:${ends}|${changed})$`));
    assertEquals([error.constructor, error.resumable], [BatchError, true]);
  });
}

/** Throws. */
function fail(error: Error): never {
  throw error;
}

const mine = new Error("mine");
for (
  const [how, onProgress] of [["throws", () => fail(mine)], ["rejects with", () => Promise.reject(mine)]] as const
) {
  Deno.test(`batch() rejects with what 'onProgress' ${how}`, async () => {
    const input = new ReadableStream<Uint8Array>({ start: (stream) => stream.enqueue(new TextEncoder().encode("1\n")) });
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const text = new Response(readable).text().catch(() => {});
    assertEquals(
      await thrownBy(() => within(batch((x) => x, { input, output: writable, permissions: "inherit", workers: 1, onProgress }))),
      mine,
    );
    await within(text);
  });

  Deno.test(`batch() rejects with what 'onProgress' ${how} at the end`, async () => {
    const input = new Response("1\n").body!;
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const text = new Response(readable).text().catch(() => {});
    assertEquals(await thrownBy(() => within(batch((x) => x, { input, output: writable, permissions: "inherit", onProgress }))), mine);
    await within(text);
  });
}

Deno.test(`batch() does not resume where the errors file is not what the job log tells of ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, output] = [folder.write("in.ndjson", numbers(3000)), folder.of("out")];
  const { outcome } = await run(tenth, { input, output, halt: 20, chunk: 1024 });
  assertEquals(outcome, "halted");
  const length = folder.read("out.errors.ndjson").length;
  const [path, kept] = [folder.of("out.errors.ndjson"), folder.of("kept")];
  Deno.renameSync(path, kept);
  await assertFails(
    () => run(tenth, { input, output, resume: true }),
    BatchError,
    `Cannot resume '${output}' as the errors file '${path}' has 0 bytes, but the job log says ${length}: begin anew with '--overwrite'`,
  );
  assertEquals(folder.names(), ["in.ndjson", "kept", "out.log", "out.partial"]);
  Deno.renameSync(kept, path);
  const { failed } = await run(tenth, { input, output, resume: true });
  assertEquals([failed, folder.json("out.errors.ndjson").length], [300, 300]);
});

Deno.test(`batch() of many small files opens them itself: workers take longer to open a file the more they may read ${NEEDS}`, {
  ignore,
}, async () => {
  using folder = new Folder();
  const input = Array.from({ length: 1000 }, (_, i) => folder.of(`${i}.ndjson`));
  for (const [i, path] of input.entries()) Deno.writeTextFileSync(path, `${JSON.stringify(path)}${i % 3 === 0 ? "" : "\n"}`);
  const mayRead = (path: string) => [path, Deno.permissions.querySync({ name: "read", path }).state === "granted"];
  await run(mayRead, { input, output: folder.of("out") });
  assertEquals(folder.json("out"), input.map((path) => [path, false]));
  await run(mayRead, { input: input.slice(1), output: folder.of("few") });
  assertEquals(folder.json("few"), input.slice(1).map((path) => [path, true]));
});

Deno.test(`batch() of many small files goes on within a line where workers had read up to there ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = Array.from({ length: 1000 }, (_, i) => folder.write(`${i}.ndjson`, `${i}\n12345\n6\n`));
  const output = folder.of("out");
  await run(same, { input, output });
  const results = folder.read("out");
  const [fingerprint, last] = folder.json("out.log");
  // As if a worker had run the lines of the first file that begin before its fifth byte.
  const done = { ...last, done: [[0, 0, 5, 2]], output: { length: 8, position: 8, crc: 0 }, records: 2, stage: undefined };
  folder.write("out.log", `${JSON.stringify(fingerprint)}\n${JSON.stringify(done)}\n`);
  folder.write("out.partial", results.slice(0, 8));
  Deno.removeSync(output);
  const { records, recordsOfRun } = await run(same, { input, output, resume: true });
  assertEquals([records, recordsOfRun, folder.read("out")], [3000, 2998, results]);
});

Deno.test(`batch() reads a file of which the system does not tell where it is, as on some drives of Windows ${NEEDS}`, {
  ignore,
}, async () => {
  using folder = new Folder();
  const [input, output] = [folder.write("in.ndjson", numbers(3)), folder.of("out")];
  const { realPath } = Deno;
  Deno.realPath = () => Promise.reject(new Error("Incorrect function. (os error 1)"));
  try {
    await run(same, { input, output });
  } finally {
    Deno.realPath = realPath;
  }
  assertEquals(folder.read("out"), numbers(3));
});

Deno.test(`batch() reads all inputs as the first file that there is is to be read ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  folder.write("a.csv", "id,name\n1,x\n");
  folder.write("b.csv", "id,name\n2,y\n");
  const all = await run(same, { input: folder.of("*"), output: folder.of("o.ndjson") });
  assertEquals([all.failed, folder.json("o.ndjson")], [0, [{ id: "1", name: "x" }, { id: "2", name: "y" }]]);
  const [lines, json] = [folder.write("c.txt", "1\n"), folder.write("d.ndjson", "2\n")];
  await run(same, { input: [lines, json], output: folder.of("p.ndjson") });
  assertEquals(folder.read("p.ndjson"), '"1"\n"2"\n');
  await run(same, { input: [json, folder.write("e.csv", "3\n")], output: folder.of("q.ndjson") });
  assertEquals(folder.read("q.ndjson"), "2\n3\n");
  const tabs = folder.write("f.tsv", "id\tname\n3\tz\n");
  await assertFails(
    () => run(same, { input: [folder.of("a.csv"), tabs], output: folder.of("r") }),
    BatchError,
    `Cannot run batch as '${folder.of("a.csv")}' and '${tabs}' have different delimiters: run them separately`,
  );
  await assertFails(
    () => run(same, { input: [tabs, new Response("id,name\n").body!], output: folder.of("r") }),
    BatchError,
    `Cannot run batch as '${tabs}' and 'stream' have different delimiters: run them separately`,
  );
  const twice = folder.write("g.csv", "id,id\n1,2\n");
  const error = await thrownBy(() => run(same, { input: [folder.of("a.csv"), twice], output: folder.of("s") })) as Error;
  assertEquals(error.message, `Cannot run batch as the first row of '${twice}' names the field 'id' twice`);
});

Deno.test(`batch() knows the format of an input whose name is in capitals ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const output = folder.of("out");
  for (const [name, text, record] of [["A.TSV", "a,b\tc\n1\t2\n", { "a,b": "1", c: "2" }], ["B.TXT", "{}\n", "{}"]] as const) {
    await run(same, { input: folder.write(name, text), output, overwrite: true });
    assertEquals(folder.json("out"), [record]);
  }
});

Deno.test(`batch() compresses an output whose name is in capitals, also when failed records are retried ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(3)), output = folder.of("OUT.TXT.GZ");
  const once = (x: number) => {
    if (x === 1) throw new Error("not yet");
    return `line ${x}`;
  };
  await run(once, { input, output });
  assertEquals((await run((x: number) => `line ${x}`, { input, output, retryFailed: true })).failed, 0);
  const { body } = new Response(Deno.readFileSync(output));
  assertEquals(await new Response(body!.pipeThrough(new DecompressionStream("gzip"))).text(), "line 0\nline 1\nline 2\n");
});

Deno.test(`batch() loses only the record to an error whose message is not text, or is too long ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(10));
  const task = async (x: number) => {
    const cyclic: Record<string, unknown> = {};
    cyclic.self = cyclic;
    const long = "x".repeat(1_000_000);
    const of = (members: object) => Object.defineProperties(new Error("no"), Object.getOwnPropertyDescriptors(members));
    const dies = () => {
      setTimeout(() => {
        throw new Error(long);
      });
      return new Promise(() => {});
    };
    if (x === 0) throw of({ message: { code: 5 } });
    if (x === 1) throw of({ message: { code: 5n } });
    if (x === 2) throw of({ message: cyclic, name: Symbol("mine") });
    if (x === 3) throw of({ message: long, name: long });
    if (x === 4) throw of({ message: undefined, name: null, stack: { toString: null } });
    if (x === 5) throw "\n".repeat(1_000_000);
    if (x === 6) throw { code: 5n };
    if (x === 7) await dies();
    return x;
  };
  const { records, failed } = await run(task, { input, output: folder.of("out"), workers: 1 });
  assertEquals([records, failed, folder.read("out")], [10, 8, "8\n9\n"]);
  const errors = folder.json("out.errors.ndjson").map(({ error }) => error);
  const cut = `${"x".repeat(10_000)}...`;
  assertEquals(errors.slice(0, 7).map(({ name, message }) => [name, message]), [
    ["Error", '{"code":5}'],
    ["Error", "something that has no text"],
    ["Symbol(mine)", "something that has no text"],
    [cut, cut],
    ["", ""],
    ["string", `${"\n".repeat(10_000)}...`],
    ["object", "something that has no text"],
  ]);
  assertEquals([errors[7].name, errors[7].message.length], ["WorkerDiedError", 10_003]);
  for (const { stack } of errors) assert(stack.length <= 10_003, stack);
});

Deno.test(`batch() limits the kinds of errors, and the denied permissions, that it keeps ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(1000));
  const denied = (x: number) => Deno.env.get(`VARIABLE_${x}`);
  const named = (x: number) => {
    throw Object.assign(new Error("no"), { name: `Error${x}` });
  };
  const first = await run(named, { input, output: folder.of("a") });
  assertEquals([first.errorNames.length, first.errorNames[0]], [101, ["other kinds", 900]]);
  assertEquals(first.errorNames.reduce((sum, [, count]) => sum + count, 0), 1000);
  const second = await run(denied, { input, output: folder.of("b") });
  assertEquals([second.failed, second.denied.length], [1000, 20]);
});

Deno.test(`batch() that replaces an output and its errors leaves their permissions as they were ${NEEDS}`, {
  ignore: ignore || Deno.build.os === "windows",
}, async () => {
  using folder = new Folder();
  const [input, output] = [folder.write("in.ndjson", numbers(30)), folder.of("out")];
  const modes = () => ["out", "out.errors.ndjson"].map((name) => Deno.statSync(folder.of(name)).mode! & 0o777);
  await run(tenth, { input, output });
  Deno.chmodSync(output, 0o600);
  Deno.chmodSync(`${output}.errors.ndjson`, 0o640);
  await run(tenth, { input, output, overwrite: true });
  assertEquals(modes(), [0o600, 0o640]);
  await run(tenth, { input, output, retryFailed: true });
  assertEquals(modes(), [0o600, 0o640]);
});

/** Runs a task that waits at a record until a file tells it to continue, and changes its module meanwhile. */
async function changeWhileItRuns(folder: Folder, change: (text: string) => string, options: Partial<BatchOptions> = {}): Promise<unknown> {
  const text = `import { other } from "./other.js";
    export default async (x) => {
      if (x === 5) Deno.writeTextFileSync(${JSON.stringify(folder.of("runs"))}, "");
      while (x === 5 && ![...Deno.readDirSync(${JSON.stringify(folder.path)})].some(({ name }) => name === "go")) {
        await new Promise((resolve) => setTimeout(resolve));
      }
      return other(x);
    };`;
  const task = folder.write("task.js", text);
  folder.write("other.js", "export const other = (x) => x;");
  const output = folder.of("out");
  const running = run(task, { input: folder.write("in.ndjson", numbers(10)), output, permissions: "inherit", workers: 1, ...options })
    .catch((error) => error);
  await until(() => folder.names().includes("runs"));
  folder.write("other.js", change(folder.read("other.js")));
  folder.write("go", "");
  return await running;
}

Deno.test(`batch() does not complete an output whose task was changed while it ran ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const error = await changeWhileItRuns(folder, (text) => text.replace("=> x", "=> 2 * x")) as BatchError;
  const why = `Cannot go on as the task module '${folder.of("task.js")}', or what it imports, was changed while it ran, ` +
    "and workers may have either version: put the original back";
  assertEquals([error.message, error.resumable], [why, true]);
  // Nothing that may belong to either is recorded.
  assertEquals(folder.json("out.log").length, 1);
  assertEquals(folder.names().includes("out"), false);
  folder.write("other.js", "export const other = (x) => x;");
  const options = { input: folder.of("in.ndjson"), output: folder.of("out"), resume: true, permissions: "inherit" } as const;
  assertEquals([(await run(folder.of("task.js"), options)).records, folder.read("out")], [10, numbers(10)]);
});

Deno.test(`batch() does not say that its task was changed if that cannot be read, and can be resumed ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const other = folder.of("other.js");
  const { readFile } = Deno;
  let error: unknown;
  try {
    error = await changeWhileItRuns(folder, (text) => {
      const full = new Error("Too many open files (os error 24)");
      Deno.readFile = (path, options) => path === other ? Promise.reject(full) : readFile(path, options);
      return text;
    });
  } finally {
    Deno.readFile = readFile;
  }
  const why = `Cannot go on as '${other}', a part of the task, can no longer be read: Too many open files (os error 24)`;
  assert(error instanceof BatchError);
  assertEquals([error.message, error.resumable], [why, true]);
  const options = { input: folder.of("in.ndjson"), output: folder.of("out"), resume: true, permissions: "inherit" } as const;
  assertEquals([(await run(folder.of("task.js"), options)).outcome, folder.read("out")], ["complete", numbers(10)]);
});

Deno.test(`batch() goes on if its task is written anew with the same content ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const summary = await changeWhileItRuns(folder, (text) => text) as BatchSummary;
  assertEquals([summary.outcome, folder.read("out")], ["complete", numbers(10)]);
});

Deno.test(`batch() with 'retryFailed' leaves all as it is if its task is changed while it runs ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const options = { input: folder.write("in.ndjson", numbers(10)), output: folder.of("out") };
  await run((x: number) => {
    if (x === 5) throw new Error("no");
    return x;
  }, options);
  const files = () => ["out", "out.log", "out.errors.ndjson"].map((name) => folder.read(name));
  const before = files();
  const error = await changeWhileItRuns(folder, (text) => text.replace("=> x", "=> 2 * x"), { retryFailed: true });
  assert(error instanceof BatchError && error.message.includes("was changed while it ran"), `${error}`);
  assertEquals(files(), before);
});

Deno.test(`batch() does not count files that a task makes while it is loaded as a change of the task ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const made = JSON.stringify(folder.of("made.js"));
  const task = folder.write(
    "task.js",
    `Deno.writeTextFileSync(${made}, "export const made = (x) => x;");
    const { made } = await import("./made.js");
    export default made;`,
  );
  const options = { input: folder.write("in.ndjson", numbers(10)), output: folder.of("out"), permissions: "inherit" } as const;
  assertEquals([(await run(task, options)).outcome, folder.read("out")], ["complete", numbers(10)]);
});

Deno.test(`batch() goes on where it may not give an output its permissions, as it is somebody else's ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const output = folder.write("out", "before");
  Deno.chmodSync(output, 0o600);
  const { chmod } = Deno;
  Deno.chmod = () => Promise.reject(new Deno.errors.PermissionDenied("Operation not permitted (os error 1)"));
  try {
    const input = folder.write("in.ndjson", numbers(10));
    assertEquals((await run((x: number) => x, { input, output, overwrite: true })).outcome, "complete");
  } finally {
    Deno.chmod = chmod;
  }
  assertEquals(folder.read("out"), numbers(10));
});

Deno.test(
  `batch() with killable workers runs a task with comments about imports from what is no host or no file ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const input = folder.write("in.ndjson", numbers(10));
    const addresses = [
      "https://.../x.ts",
      "https://${host}/x.ts",
      "https://*.example.com/x.ts",
      `https://${"a".repeat(64)}.example/x.ts`,
      "file://host/x.ts",
    ];
    const comments = addresses.map((address) => `// import x from "${address}";\n`);
    const task = folder.write("task.js", `${comments.join("")}export default (x) => x;`);
    const { records, failed } = await batch(task, { input, output: folder.of("out"), timeout: 60_000 });
    assertEquals([records, failed], [10, 0]);
  },
);
