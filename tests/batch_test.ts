import { assert, assertEquals, assertRejects } from "@std/assert";
import { BatchError, type BatchProgress } from "@procpool/process-pool/batch";
import { doubles, Folder, ignore, NEEDS, numbers, run } from "./batch_fixtures.ts";
import { assertFails } from "./helpers.ts";

const double = (x: number) => 2 * x;

// Without any permission: streams

/** A stream of a text, and a promise of the text that is written to another stream. */
function streams(
  text: string | Uint8Array<ArrayBuffer>,
): { input: ReadableStream<Uint8Array>; output: WritableStream<Uint8Array>; written: Promise<string> } {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  return { input: new Response(text).body!, output: writable, written: new Response(readable).text() };
}

Deno.test("batch() runs a function on the records of a stream", async () => {
  const { input, output, written } = streams(numbers(10_000));
  const { outcome, records, failed, slowest, errorNames, ...rest } = await run(double, {
    input,
    output,
    permissions: "inherit",
    chunk: 1024,
  });
  assertEquals(await written, doubles(10_000));
  assertEquals([outcome, records, failed, errorNames], ["complete", 10_000, 0, []]);
  assert(slowest.length > 0 && rest.p50! <= rest.p95! && rest.p95! <= rest.p99! && rest.utilisation <= 1);
});

Deno.test("batch() writes to a stream that takes any bytes, such as one that compresses them", async () => {
  const { readable, writable } = new CompressionStream("gzip");
  const written = new Response(readable.pipeThrough(new DecompressionStream("gzip"))).text();
  await run(double, { input: streams(numbers(10)).input, output: writable, permissions: "inherit" });
  assertEquals(await written, doubles(10));
});

Deno.test("batch() decompresses a stream that is compressed, also one of several members", async () => {
  const member = async (text: string) =>
    new Uint8Array(await new Response(new Response(text).body!.pipeThrough(new CompressionStream("gzip"))).arrayBuffer());
  const { input, output, written } = streams(new Uint8Array([...await member("1\n2\n"), ...await member("3\n4")]));
  await run(double, { input, output, permissions: "inherit" });
  assertEquals(await written, "2\n4\n6\n8\n");
});

Deno.test("batch() with 'limit' runs only the first records", async () => {
  const { input, output, written } = streams(numbers(5000));
  const { records } = await run(double, { input, output, limit: 3, permissions: "inherit", chunk: 1024 });
  assertEquals([await written, records], ["0\n2\n4\n", 3]);
});

Deno.test("batch() with 'limit' runs no more records than that, even if a worker dies", async () => {
  const { input, output, written } = streams(numbers(5000));
  const task = (x: number) => x === 1 ? Deno.exit() : x;
  const { records, failed } = await run(task, { input, output, limit: 3, permissions: "inherit", chunk: 1024 });
  assertEquals([await written, records, failed], ["0\n2\n", 3, 1]);
});

/** Settles when two workers have one record each. */
async function meet(record: unknown): Promise<unknown> {
  const worker = globalThis as { met?: Promise<void> };
  await (worker.met ??= new Promise((resolve) => {
    const channel = new BroadcastChannel("workers of a batch");
    channel.onmessage = ({ data }) => {
      if (data === "I am here") channel.postMessage("So am I");
      resolve();
    };
    channel.postMessage("I am here");
  }));
  return record;
}

for (const [inputFormat, text] of [["ndjson", numbers(100)], ["csv", `x\n${numbers(100)}`]] as const) {
  Deno.test(`batch() lets all workers have some of a short stream (${inputFormat})`, async () => {
    const { input, output, written } = streams(text);
    const { records } = await run(meet, { input, output, inputFormat, permissions: "inherit" });
    const expected = inputFormat === "csv" ? numbers(100).replace(/.+/g, '{"x":"$&"}') : numbers(100);
    assertEquals([await written, records], [expected, 100]);
  });
}

Deno.test("batch() refuses options that are wrong, before it does anything", async () => {
  const { input, output } = streams("");
  const locked = streams("");
  locked.input.getReader();
  locked.output.getWriter();
  for (
    const [options, errorClass, message] of [
      [{ input: [], output }, TypeError, "Cannot run batch as 'input' must not be empty: current value is an array of 0"],
      [
        { input: 5 as never, output },
        TypeError,
        "Cannot run batch as 'input' must be a path, a URL of a file, a stream, or a list of them: current value is 5",
      ],
      ...[[input, "x", input], ["-", "x", "-"]].map((input) =>
        [
          { input, output },
          TypeError,
          "Cannot run batch as 'input' must name a stream, or the standard input, once: it is read to its end",
        ] as const
      ),
      [
        { input: locked.input, output },
        TypeError,
        "Cannot run batch as 'input' must be a stream that nobody else reads: it is locked",
      ],
      [
        { input, output: locked.output },
        TypeError,
        "Cannot run batch as 'output' must be a stream that nobody else writes to: it is locked",
      ],
      [{ input, output: "" }, TypeError, `Cannot run batch as 'output' must be a path, a URL of a file or a stream: current value is ""`],
      ...["input", "output", "errors", "report"].map((option) =>
        [
          { input, output, [option]: new URL("https://a.org/x") },
          TypeError,
          `Cannot run batch as '${option}' must be ${
            { input: "a path, a URL of a file, a stream, or a list of them", output: "a path, a URL of a file or a stream" }[option] ??
              "a path or a URL of a file"
          }: current value is "https://a.org/x"`,
        ] as const
      ),
      ...["errors", "report"].map((option) =>
        [
          { input, output, [option]: "-" },
          TypeError,
          `Cannot run batch as '${option}' must be a path or a URL of a file: current value is "-"`,
        ] as const
      ),
      [{ input, output, workers: 0 }, RangeError, "Cannot run batch as 'workers' must be a positive integer: current value is 0"],
      [
        { input, output, workers: 70_000 },
        RangeError,
        "Cannot run batch as 'workers' must be a positive integer, at most 65536: current value is 70000",
      ],
      [
        { input, output, memoryLimit: 15 },
        RangeError,
        "Cannot run batch as 'memoryLimit' must be an integer of at least 16: current value is 15",
      ],
      [
        { input, output, permissions: "none" as never },
        TypeError,
        `Cannot run batch as 'permissions' must be an object, or "inherit": current value is "none"`,
      ],
      [
        { input, output, permissions: { nett: true } as never },
        TypeError,
        "Cannot run batch as there is no permission 'nett': known permissions are 'read', 'write', 'net', 'env', 'sys', 'run', 'ffi', 'import'",
      ],
      [{ input, output, chunk: 5 }, RangeError, "Cannot run batch as 'chunk' must be an integer of at least 1024: current value is 5"],
      [
        { input, output, resume: true },
        TypeError,
        "Cannot run batch as 'resume' needs an 'output' that is a file: current value is an object of class WritableStream",
      ],
      [
        { input, output: "x", limit: 2 },
        TypeError,
        "Cannot run batch as 'limit' needs an 'output' that is no file: current value is \"x\"",
      ],
      ...["x", output].map((output) =>
        [
          { input, output, limit: 2, retryFailed: true },
          TypeError,
          "Cannot run batch as 'retryFailed' and 'limit' exclude each other: leave one of them out",
        ] as const
      ),
      [
        { input, output: "x", resume: true, overwrite: true },
        TypeError,
        "Cannot run batch as 'resume' and 'overwrite' exclude each other: leave one of them out",
      ],
      [
        { input, output, timeout: "5" as never },
        TypeError,
        `Cannot run batch as 'timeout' must be a number of milliseconds or a share such as "500%": current value is "5"`,
      ],
      [
        { input, output, halt: "some" as never },
        TypeError,
        `Cannot run batch as 'halt' must be "never", a number of records or a share such as "5%": current value is "some"`,
      ],
      [
        { input, output, inputFormat: "xml" as never },
        TypeError,
        `Cannot run batch as 'inputFormat' must be "ndjson", "lines" or "csv": current value is "xml"`,
      ],
    ] as const
  ) await assertFails(() => run(double, options), errorClass, message);
  class Private {
    #rate = 2;
    task = (x: number) => x * this.#rate;
  }
  const advice = "export a function from a module, and give the module's address";
  for (
    const [task, complaint] of [
      [
        function () {
          return () => arguments[0];
        }(),
        `uses 'arguments' that are not its own, as those of an arrow function are: name its parameters, or ${advice}`,
      ],
      [
        new Private().task,
        `uses '#rate', which exists only within a class: let it take what it needs from its arguments, or ${advice}`,
      ],
      [() => import.meta.url, `uses 'import.meta', which exists only within a module: ${advice}`],
      [Math.max, `is native or bound and has no text: wrap it in a function, or ${advice}`],
      [Private as never, `is a class, which cannot be called: ${advice}`],
      [
        function* (x: number) {
          yield x;
        },
        "is a generator, whose values cannot come back: return an array of them",
      ],
    ] as const
  ) await assertFails(() => run(task, { input, output }), TypeError, `Cannot run batch as its task ${complaint}`);
});

// Files

Deno.test(`batch() lets all workers have some of a short file ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const { records } = await run(meet, { input: folder.write("in.ndjson", numbers(100)), output: folder.of("out") });
  assertEquals([records, folder.read("out")], [100, numbers(100)]);
});

for (const ordered of [true, false]) {
  Deno.test(
    `batch() runs a task of a module on every record of a file, ${ordered ? "in order" : "as they come"} ${NEEDS}`,
    { ignore },
    async () => {
      using folder = new Folder();
      const input = folder.write("in.ndjson", numbers(20_000));
      const task = folder.write("tasks.js", "export function double(x) { return 2 * x; }");
      const output = folder.of("out.ndjson");
      const summary = await run(task, { input, output, ordered, chunk: 1024 });
      assertEquals([summary.outcome, summary.records, summary.failed, summary.output], ["complete", 20_000, 0, output]);
      const written = folder.read("out.ndjson");
      const sorted = (text: string) => text.trimEnd().split("\n").sort();
      if (ordered) assertEquals(written, doubles(20_000));
      else assertEquals(sorted(written), sorted(doubles(20_000)));
      assertEquals(folder.names(), ["in.ndjson", "out.ndjson", "out.ndjson.log", "tasks.js"]);
    },
  );
}

Deno.test(
  `batch() reads several files, globs and compressed files, in the order in which they are given ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    Deno.mkdirSync(folder.of("deep"));
    folder.write("b.ndjson", "3\n4");
    folder.write("a.ndjson", "1\n2\n");
    folder.write("deep/c.ndjson", "5\n");
    const compressed = new Response(new Response("7\n8").body!.pipeThrough(new CompressionStream("gzip")));
    folder.write("z.gz", new Uint8Array(await compressed.arrayBuffer()));
    const input = [folder.of("z.gz"), folder.of("**/*.ndjson")];
    const { records } = await run(double, { input, output: folder.of("out") });
    assertEquals([folder.read("out"), records], ["14\n16\n2\n4\n6\n8\n10\n", 7]);
  },
);

Deno.test(`batch() compresses an output whose name ends in .gz, so that a DecompressionStream reads it ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(100_000));
  const output = folder.of("out.gz");
  await run(double, { input, output });
  const bytes = Deno.readFileSync(output);
  const text = await new Response(new Response(bytes).body!.pipeThrough(new DecompressionStream("gzip"))).text();
  assertEquals(text, doubles(100_000));
  assert(bytes.length < text.length / 2);
  await run(double, { input: folder.write("none.ndjson", ""), output: folder.of("none.gz") });
  const none = new Response(Deno.readFileSync(folder.of("none.gz"))).body!.pipeThrough(new DecompressionStream("gzip"));
  assertEquals(await new Response(none).text(), "");
});

Deno.test(`batch() makes objects of the rows of CSV, by the header of each file ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  folder.write("a.csv", '\ufeffname,note\r\nann,"a, ""b""\nc"\r\n\r\nbob\r\neve,\n');
  folder.write("b.csv", "note,name\nx,zoe");
  const output = folder.of("out.ndjson");
  const { failed } = await run((row: { name: string; note: string }) => ({ ...row }), { input: folder.of("*.csv"), output });
  assertEquals(folder.json("out.ndjson"), [
    { name: "ann", note: 'a, "b"\nc' },
    { name: "eve", note: "" },
    { note: "x", name: "zoe" },
  ]);
  const [error] = folder.json("out.ndjson.errors.ndjson");
  assertEquals([failed, error.line, error.record, error.error.message], [1, 5, "bob", "The row has 1 fields and the header 2"]);
});

Deno.test(`batch() finds the header of CSV behind blank lines ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const output = folder.of("out.ndjson");
  for (const before of ["", "\n", "\r\n  \r\n", "\ufeff\n", "\ufeff"]) {
    const input = folder.write("in.tsv", `${before}\ta b\r\n1\t2\r\nbad\r\n`);
    await run((row: unknown) => row, { input, output, overwrite: true });
    assertEquals(folder.json("out.ndjson"), [{ "": "1", "a b": "2" }], before);
    const [{ line, record }] = folder.json("out.ndjson.errors.ndjson");
    assertEquals([line, record], [before.split("\n").length + 2, "bad"], before);
  }
});

Deno.test(`batch() permits its workers to read the input, and nothing else ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", `${JSON.stringify(folder.write("secret", "s"))}\n`);
  const read = (path: string) => Deno.readTextFileSync(path);
  const first = await run(read, { input, output: folder.of("out") });
  assertEquals([first.failed, first.denied, first.errorNames], [1, [`read=${folder.of("secret")}`], [["NotCapable", 1]]]);
  await run(read, { input, output: folder.of("out"), overwrite: true, permissions: { read: [folder.of("secret")] } });
  assertEquals(folder.read("out"), '"s"\n');
});

Deno.test(`batch() of killable workers reads its task module and what that imports ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  folder.write("two.js", "export const two = 2;");
  const task = folder.write("tasks.js", 'import { two } from "./two.js";\nexport default (x) => x * two;');
  const input = folder.write("in.ndjson", numbers(10));
  await run(task, { input, output: folder.of("out"), timeout: 10_000 });
  assertEquals(folder.read("out"), doubles(10));
});

Deno.test(`batch() reports its progress ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(1000));
  const told: BatchProgress[] = [];
  await run(double, { input, output: folder.of("out"), onProgress: (progress) => told.push(progress) });
  const { records, failed, bytes, totalBytes, timeLeft, workers } = told.at(-1)!;
  assertEquals({ records, failed, bytes, totalBytes, timeLeft, workers }, {
    records: 1000,
    failed: 0,
    bytes: 3890,
    totalBytes: 3890,
    timeLeft: 0,
    workers: 2,
  });
});

Deno.test(`batch() runs an empty file ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "");
  const { outcome, records, p50 } = await run(double, { input, output: folder.of("out") });
  assertEquals([outcome, records, p50, folder.read("out")], ["complete", 0, undefined, ""]);
});

// Mistakes

Deno.test(`batch() says which file is not there, or is in the way ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "1\n");
  const output = folder.of("out");
  const fails = (task: string | typeof double, options: Parameters<typeof run>[1], message: string) =>
    assertFails(() => run(task, options), BatchError as never, `Cannot run batch as ${message}`);
  await fails(double, { input: "no.ndjson", output }, "there is no input file 'no.ndjson'");
  await fails(double, { input: "no*.ndjson", output }, "no file matches the input 'no*.ndjson'");
  await fails(double, { input: folder.path, output }, `the input '${folder.path}' is a folder: name its files, as in '${folder.path}/*'`);
  await fails("no.ts", { input, output }, "there is no task module 'no.ts'");
  await fails(double, { input, output: input }, `'${input}' is an input and the output`);
  await fails(double, { input, output: folder.of("no/out") }, `there is no folder of the output '${folder.of("no/out")}'`);
  folder.write("out", "");
  for (const resume of [false, true]) {
    await fails(double, { input, output, resume }, `the output '${output}' exists: replace it with '--overwrite'`);
  }
  assertEquals(folder.names(), ["in.ndjson", "out"]);
});

Deno.test(`batch() says what a task module exports that lacks the task, and leaves nothing behind ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "1\n");
  const output = folder.of("out");
  const two = folder.write("two.js", "export const a = (x) => x;\nexport const b = (x) => x;\nexport const c = 5;");
  const none = folder.write("none.js", "export const c = 5;");
  const fails = (module: string, name: string, message: string) =>
    assertFails(
      () => run({ module, name }, { input, output }),
      BatchError as never,
      `Cannot run batch as the module '${module}' ${message}`,
    );
  await fails(two, "c", "does not export a function 'c': it exports 'a', 'b'");
  await fails(two, "", "does not tell which function is the task: it exports 'a', 'b'; name one, as in '--task a'");
  await fails(none, "", "does not tell which function is the task: it exports no function");
  const broken = folder.write("broken.js", "throw new Error('no good');");
  await assertFails(
    () => run(broken, { input, output }),
    BatchError as never,
    "Cannot run batch as the task module cannot be loaded: no good",
  );
  const unreadable = folder.write("unreadable.js", "export default (x) =>");
  await assertRejects(
    () => run(unreadable, { input, output }),
    BatchError,
    "Cannot run batch as the task module cannot be loaded: ",
  );
  const ended = folder.write("ended.js", "Deno.exit(1);");
  await assertFails(
    () => run(ended, { input, output }),
    BatchError as never,
    "Cannot run batch as the task module cannot be loaded: a worker called Deno.exit(1)",
  );
  await assertFails(
    () => run(broken, { input, output, permissions: { net: ["local host"] } }),
    BatchError as never,
    "Cannot run batch as no worker can be started: invalid host 'local host': invalid char found in FQDN",
  );
  assertEquals(folder.names(), ["broken.js", "ended.js", "in.ndjson", "none.js", "two.js", "unreadable.js"]);
});

Deno.test(`batch() refuses CSV whose header names a field twice ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.csv", "a,a\n1,2\n");
  const message = `Cannot run batch as the first row of '${input}' names the field 'a' twice`;
  await assertFails(() => run(double, { input, output: folder.of("out") }), BatchError as never, message);
});

for (const format of ["ndjson", "csv"]) {
  Deno.test(`batch() tells a function that is sent as text that it sees nothing around it, and nothing of ours (${format}) ${NEEDS}`, {
    ignore,
  }, async () => {
    using folder = new Folder();
    const input = folder.write(`in.${format}`, format === "csv" ? "a\n1\n" : "1\n");
    const [tasks, papa] = [{ double: (x: number) => 2 * x }, 2];
    const advice = "export it from a module, and give the module's address";
    const hint = `; a function that is sent as source text cannot see the variables and imports around it: ${advice}`;
    for (const [task, name] of [[(x: number) => tasks.double(x), "tasks"], [(x: number) => papa * x, "papa"]] as const) {
      const { failed } = await run(task, { input, output: folder.of("out"), overwrite: true });
      const [{ error }] = folder.json("out.errors.ndjson");
      assertEquals([failed, error.name, error.message], [1, "ReferenceError", `${name} is not defined${hint}`]);
    }
    const task = folder.write("tasks.js", "export default (x) => outer * x;");
    await run(task, { input, output: folder.of("out"), overwrite: true });
    assertEquals(folder.json("out.errors.ndjson")[0].error.message, "outer is not defined");
  });
}

Deno.test(`batch() tells a function that is sent as source text that it has no 'this' ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "1\n");
  class Service {
    rate = 2;
    read = (x: number) => x * this.rate;
    take = (x: number) => {
      const { rate } = this;
      return x * rate;
    };
    other = (x: { rate?: { factor: number } }) => x.rate!.factor;
  }
  const { read, take, other } = new Service();
  const hint = "; a function that is sent as source text has no 'this': export it from a module, and give the module's address";
  for (
    const [task, message] of [
      [read, `Cannot read properties of undefined (reading 'rate')${hint}`],
      [take, `Cannot destructure property 'rate' of 'this' as it is undefined${hint}`],
      [other, "Cannot read properties of undefined (reading 'factor')"],
    ] as const
  ) {
    await run(task as (x: number) => number, { input, output: folder.of("out"), overwrite: true });
    assertEquals(folder.json("out.errors.ndjson")[0].error.message, message);
  }
});

Deno.test(`batch() refuses a task that is a generator ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "1\n");
  const module = folder.write("task.js", "export function* all(x) { yield x; }\nexport const later = async function* (x) { yield x; };");
  for (const name of ["all", "later"]) {
    await assertFails(
      () => run({ module, name }, { input, output: folder.of("out") }),
      BatchError as never,
      `Cannot run batch as the task '${name}' is a generator, whose values would not be written: return an array of them`,
    );
  }
  assertEquals(folder.names(), ["in.ndjson", "task.js"]);
});

Deno.test(`batch() takes a method as its task ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "1\n2\n");
  const tasks = {
    double(x: number) {
      return 2 * x;
    },
  };
  await run(tasks.double, { input, output: folder.of("out") });
  assertEquals(folder.read("out"), "2\n4\n");
});

Deno.test(
  `batch() refuses a task that is a class, but not a function whose name or text begins with 'class' ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const input = folder.write("in.ndjson", "1\n");
    const module = folder.write(
      "task.js",
      "export class Doubles {}\nexport const { class: double } = { class(x) { return 2 * x; } };\nexport const triple = class$ => 3 * class$;",
    );
    await assertFails(
      () => run({ module, name: "Doubles" }, { input, output: folder.of("out") }),
      BatchError as never,
      "Cannot run batch as the task 'Doubles' is a class, which cannot be called: export a function that uses it",
    );
    assertEquals(folder.names(), ["in.ndjson", "task.js"]);
    await run({ module, name: "double" }, { input, output: folder.of("out") });
    assertEquals(folder.read("out"), "2\n");
    await run({ module, name: "triple" }, { input, output: folder.of("triple") });
    assertEquals(folder.read("triple"), "3\n");
    await run((0, eval)("class$ => 4 * class$"), { input, output: folder.of("four") });
    assertEquals(folder.read("four"), "4\n");
  },
);
