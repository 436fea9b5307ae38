import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { BATCH_HELP, NAMES, readBatchArguments } from "../batch/arguments.ts";
import { batchCommand } from "../batch/command.ts";
import { createReporter, progressLine, summaryLines } from "../batch/reporter.ts";
import type { BatchProgress, BatchSummary } from "@procpool/process-pool/batch";
import { doubles, Folder, numbers } from "./batch_fixtures.ts";
import { granted, within } from "./fixtures.ts";

// Arguments

const NEEDED = ["tasks.ts", "--input", "in", "--output", "out"];

Deno.test("readBatchArguments() reads every option", () => {
  const request = readBatchArguments([
    ..."tasks.ts --task enrich --input a --input=- --output out --format csv --output-format lines --errors bad --retries 2".split(" "),
    ..."--timeout 1.5s --memory-limit 64 --halt 3 --resume --unordered --workers 4 --chunk 64KB --progress json --report report.html".split(
      " ",
    ),
    ..."--permissions net=a.org,b.org --permissions env --permissions net=c.org".split(" "),
  ]);
  assertEquals(request, {
    action: "run",
    task: { module: "tasks.ts", name: "enrich" },
    options: {
      input: ["a", "-"],
      output: "out",
      inputFormat: "csv",
      outputFormat: "lines",
      errors: "bad",
      ordered: false,
      workers: 4,
      chunk: 65_536,
      timeout: 1500,
      memoryLimit: 64,
      retries: 2,
      halt: 3,
      permissions: { net: ["a.org", "b.org", "c.org"], env: true },
      resume: true,
      overwrite: false,
      retryFailed: false,
      limit: undefined,
      report: "report.html",
    },
    reporter: { progress: "json", dryRun: false },
  });
});

Deno.test("readBatchArguments() reads times, shares and sizes", () => {
  const option = (name: string, text: string, key: string) => {
    const request = readBatchArguments([...NEEDED, `--${name}`, text]);
    return request.action === "run" ? (request.options as unknown as Record<string, unknown>)[key] : request;
  };
  assertEquals(["250ms", "5s", "2m", "1h", "500%"].map((text) => option("timeout", text, "timeout")), [
    250,
    5000,
    120_000,
    3_600_000,
    "500%",
  ]);
  assertEquals(["never", "first", "7", "2.5%"].map((text) => option("halt", text, "halt")), ["never", 1, 7, "2.5%"]);
  assertEquals(["2KB", "1.5MB"].map((text) => option("chunk", text, "chunk")), [2048, 1_572_864]);
  assertEquals(option("permissions", "inherit", "permissions"), "inherit");
});

for (
  const [args, message] of [
    ["", "batch needs a module with the task: 'cli.ts batch TASKS.ts --input FILE --output FILE'"],
    ["a.ts b.ts", "batch takes one module, and no argument 'b.ts': name inputs with '--input'"],
    ["a.ts -- --input x", "batch takes one module, and no argument '--input': leave out the '--' before it"],
    ["-- a.ts --input x", "batch takes one module, and no argument '--input': leave out the '--' before it"],
    ["-- --input x", "batch takes one module, and no argument '--input': leave out the '--' before it"],
    ["a.ts -- -h", "batch takes one module, and no argument '-h': leave out the '--' before it"],
    ["a.ts", "'--input' needs a value: a path, a glob in quotes, or -"],
    ["a.ts --input", "'--input' needs a value: a path, a glob in quotes, or -"],
    ["a.ts --input x", "'--output' needs a value: a path, or - for the standard output"],
    ["a.ts --inptu x", "there is no option '--inptu': did you mean '--input'?"],
    ["-h", "there is no option '-h': did you mean '--help'?"],
    ["a.ts --zzz", "there is no option '--zzz': 'batch --help' shows what there is"],
    ["a.ts --input x --output y --resume=no", `'--resume' takes no value: current value is "no"`],
    ["a.ts --input x --output y --workers 0", `'--workers' must be an integer from 1 to 256: current value is "0"`],
    [
      "a.ts --input x --output y --timeout 5",
      `'--timeout' must be a time such as 500ms, 5s or 2m, or a share of the median such as 500%: current value is "5"`,
    ],
    [
      "a.ts --input x --output y --halt soon",
      `'--halt' must be never, first, a number of records, or a share such as 5%: current value is "soon"`,
    ],
    ...["101%", "99999999999999999999"].map((value) => [
      `a.ts --input x --output y --halt ${value}`,
      `'--halt' must be never, first, a number of records, or a share such as 5%: current value is "${value}"`,
    ]),
    ["a.ts --input - --input - --output y", "'--input' must name the standard input once: it is read to its end"],
    ["a.ts --input x --output y --chunk 1", `'--chunk' must be a size from 1KB to 64MB, such as 256KB: current value is "1"`],
    ["a.ts --input x --output y --format xml", `'--format' must be ndjson, lines or csv: current value is "xml"`],
    ["a.ts --input x --output y --progress yes", `'--progress' must be json or none: current value is "yes"`],
    ["a.ts --input x --output y --errors -", `'--errors' must be the path of a file: current value is "-"`],
    ["a.ts --input x --output y --report -", `'--report' must be the path of a file: current value is "-"`],
    ["a.ts --input x --output y --report", "'--report' needs a value: the path of a file"],
    ["a.ts --input x --output y --memory-limit lots", `'--memory-limit' must be an integer from 16 to 65536: current value is "lots"`],
    [
      "a.ts --input x --output y --permissions web",
      `'--permissions' must be inherit, or one of env, ffi, import, net, read, run, sys, write, with or without a list: current value is "web"`,
    ],
    ...["net=", "net=a.org,", "net=,a.org", "read=,"].map((value) => [
      `a.ts --input x --output y --permissions ${value}`,
      `'--permissions' must have an item behind '=' and between commas, as in net=a.org,b.org: current value is "${value}"`,
    ]),
    ["a.ts --input x --output y --resume --overwrite", "'--resume' and '--overwrite' exclude each other: leave one of them out"],
    ["a.ts --input x --output - --resume", "'--resume' needs an '--output' that is a file"],
    ["a.ts --input x --output y --dry-run 1 --resume", "'--dry-run' and '--resume' exclude each other: leave one of them out"],
  ]
) {
  Deno.test(`readBatchArguments() refuses 'batch ${args}'`, () => {
    const words = args === "" ? [] : args!.split(" ");
    assertEquals(readBatchArguments(words), { action: "refuse", message: `process-pool: ${message}` });
  });
}

Deno.test("BATCH_HELP names every option, and fits a terminal", () => {
  for (const line of BATCH_HELP.split("\n")) assert(line.length <= 80, line);
  for (const name of NAMES) assertMatch(BATCH_HELP, new RegExp(`^  --${name}( |$)`, "m"));
  assertEquals(readBatchArguments(["--help"]), { action: "help" });
});

// Output

const PROGRESS: BatchProgress = {
  records: 1_234_567,
  failed: 12,
  bytes: 25,
  totalBytes: 100,
  elapsed: 90_000,
  recordsPerSecond: 2_500_000,
  timeLeft: 270_000,
  workers: 2,
  busy: 1,
  memory: 95_000_000,
};

const SUMMARY: BatchSummary = {
  outcome: "complete",
  records: 1000,
  failed: 2,
  recordsOfRun: 1000,
  wall: 1500,
  recordsPerSecond: 667,
  utilisation: 0.9,
  workers: 2,
  p50: 0.0005,
  p95: 0.02,
  p99: 3,
  slowest: [{ input: "in", line: 5, lastLine: 5, offset: 40, time: 1200 }, { input: "in", line: 1, lastLine: 8, offset: 0, time: 1100 }, {
    input: "in",
    line: 9,
    lastLine: 16,
    offset: 80,
    time: 15,
  }],
  errorNames: [["TypeError", 2]],
  denied: ["net=example.com"],
  output: "out",
  errors: "out.errors.ndjson",
  retryable: true,
  left: [],
  notKept: [],
};

Deno.test("progressLine() has what matters", () => {
  assertEquals(progressLine(PROGRESS), "1,234,567 records, 25 %, 2,500,000/s, 12 failed, 4 min 30 s left, 1 of 2 workers busy, 95 MB");
  const line = progressLine({ ...PROGRESS, totalBytes: undefined, timeLeft: undefined, elapsed: 30_000 });
  assertEquals(line, "1,234,567 records, 2,500,000/s, 12 failed, 30 s so far, 1 of 2 workers busy, 95 MB");
});

Deno.test("summaryLines() has what matters, and what to do next", () => {
  assertEquals(summaryLines(SUMMARY), [
    "1,000 records, 2 failed, 1.5 s, 667 records/s",
    "time per record: p50 500 ns, p95 20 µs, p99 3 ms; 2 workers, 90 % of the time busy",
    "slow: 1.2 s, in, line 5",
    "slow: 1.1 s, in, one of lines 1 to 8",
    "failed with: TypeError 2",
    "the task was denied 'net=example.com': run with '--allow-net=example.com', and give it to the workers with '--permissions net=example.com'",
    "failed records are in out.errors.ndjson: '--retry-failed' runs them again",
  ]);
  assertEquals(
    summaryLines({ ...SUMMARY, outcome: "halted", slowest: [], denied: [], failed: 0, errors: undefined, errorNames: [] }).at(-1),
    "gave up, as '--halt' says: '--resume' goes on",
  );
  assertEquals(
    summaryLines({ ...SUMMARY, outcome: "halted", notKept: [["in", 8, "Error: \x1b[2J"]] }).slice(-2),
    ["not kept, as something before it was not done: in, byte 8: Error: \\u001b[2J", "gave up, as '--halt' says: '--resume' goes on"],
  );
  assertEquals(
    summaryLines({ ...SUMMARY, left: [["a.log", 8], ["b.log", 0]] }).at(-1),
    "left for another batch, as more of the record has been written since: a.log from byte 8 on, b.log from byte 0 on",
  );
  const odd = summaryLines({ ...SUMMARY, errorNames: [['\x1b[2J"\x9b\n', 1]], denied: ["read=\x1b"] });
  assert(odd.includes('failed with: \\u001b[2J"\\u009b\\n 1'), odd.join());
  assert(odd.some((line) => line.startsWith("the task was denied 'read=\\u001b': ")), odd.join());
  const resumed = summaryLines({ ...SUMMARY, recordsOfRun: 400, failed: 5 });
  assertEquals(
    [resumed[0], resumed[4]],
    ["1,000 records (400 of them in this run), 5 failed, 1.5 s, 667 records/s", "failed in this run with: TypeError 2"],
  );
  assertEquals(summaryLines({ ...SUMMARY, outcome: "stopped" }).at(-1), "stopped: '--resume' goes on");
  assertEquals(summaryLines({ ...SUMMARY, outcome: "stopped" }, "retry").at(-1), "stopped: '--retry-failed' goes on");
  assertEquals(summaryLines({ ...SUMMARY, outcome: "stopped" }, "overwrite").at(-1), "stopped: '--resume' goes on");
  for (const outcome of ["halted", "stopped"] as const) {
    assertEquals(summaryLines({ ...SUMMARY, outcome }).at(-2), "failed records are in out.errors.ndjson");
  }
  assertEquals(summaryLines({ ...SUMMARY, output: undefined }).at(-1), "failed records are in out.errors.ndjson");
  assertEquals(
    summaryLines({ ...SUMMARY, retryable: false }).at(-1),
    "failed records are in out.errors.ndjson, and cannot be run again: they could not be parsed, or were too long to be kept whole",
  );
  const notKept: BatchSummary = { ...SUMMARY, denied: [], output: undefined, errors: undefined };
  assertEquals(summaryLines(notKept).at(-1), "failed records were not kept: '--errors FILE' keeps them");
  assertEquals(summaryLines(notKept, "dry run").at(-1), "failed with: TypeError 2");
  assertEquals(summaryLines({ ...SUMMARY, recordsOfRun: 0 }), ["nothing to do: out is complete, with 1,000 records, 2 of which failed"]);
});

Deno.test("createReporter() draws a progress line only on a terminal, and removes it before the summary", () => {
  const written: string[] = [];
  const terminal = { write: (text: string) => void written.push(text), isTerminal: true, columns: 20 };
  const reporter = createReporter("auto", terminal);
  reporter.progress(PROGRESS);
  reporter.summary({ ...SUMMARY, recordsOfRun: 0 });
  assertEquals(written, [
    "\r\x1b[K1,234,567 records, ",
    "\r\x1b[K",
    "nothing to do: out is complete, with 1,000 records, 2 of which failed\n",
  ]);
  written.length = 0;
  for (const [progress, isTerminal] of [["auto", false], ["none", true]] as const) {
    createReporter(progress, { ...terminal, isTerminal }).progress(PROGRESS);
  }
  assertEquals(written, []);
  createReporter("json", terminal).progress(PROGRESS);
  assertEquals(JSON.parse(written[0]!), { event: "progress", ...PROGRESS });
  written.length = 0;
  reporter.progress(PROGRESS);
  reporter.tell("signal", "SIGINT: no");
  reporter.tell("error", "no");
  assertEquals(written.slice(1), ["\r\x1b[K", "SIGINT: no\n", "process-pool: no\n"]);
});

// As a process

const ignore = !granted("run") || !granted("read") || !granted("write");
const NEEDS = "(needs --allow-run, --allow-read and --allow-write)";
const noSignals = ignore || Deno.build.os === "windows";
const cwd = new URL("../", import.meta.url);

function command(args: string[], flags = ["--allow-read", "--allow-write"]): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", ...flags, "cli.ts", "batch", ...args],
    cwd,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
}

/** Runs the command to its end. */
async function ended(
  args: string[],
  { stdin = "", flags }: { stdin?: string; flags?: string[] } = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  await using child = command(args, flags).spawn();
  const output = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(stdin)).then(() => writer.close()).catch(() => {});
  const { code, stdout, stderr } = await within(output);
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

/** Sends SIGINT to a command once it has written this to stderr, and waits for its end. */
async function interrupted(child: Deno.ChildProcess, text: string): Promise<{ code: number; stderr: string }> {
  void child.stdin.close();
  let stderr = "";
  let sent = false;
  const read = async () => {
    for await (const part of child.stderr.pipeThrough(new TextDecoderStream())) {
      stderr += part;
      if (sent || !stderr.includes(text)) continue;
      sent = true;
      child.kill("SIGINT");
    }
  };
  const [{ code }] = await within(Promise.all([child.status, child.stdout.cancel(), read()]));
  return { code, stderr };
}

/** Runs the command where the system lets no file grow beyond 200 KB; the signal for that is ignored. */
async function limited(args: string[]): Promise<{ code: number; stderr: string }> {
  const deno = [Deno.execPath(), "run", "--no-prompt", "--no-check", "--allow-read", "--allow-write", "cli.ts", "batch", ...args];
  const shell = `trap '' XFSZ; ulimit -f 400; exec ${deno.map((word) => `'${word}'`).join(" ")}`;
  const { code, stderr } = await within(new Deno.Command("sh", { args: ["-c", shell], cwd, stdout: "null", stderr: "piped" }).output());
  return { code, stderr: new TextDecoder().decode(stderr) };
}

const DOUBLE = "export function double(x) { return 2 * x; }\nexport function bad(x) { throw new Error('bad ' + x); }";

Deno.test(`cli.ts batch says how to get the parser of CSV where it cannot be loaded ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const lock = JSON.parse(Deno.readTextFileSync(new URL("deno.lock", cwd)));
  delete lock.specifiers["npm:papaparse@5.7.1"];
  delete lock.npm["papaparse@5.7.1"];
  const args = [
    folder.write("tasks.js", DOUBLE),
    "--task",
    "bad",
    "--input",
    folder.write("in.csv", "a\n1\n"),
    "--output",
    folder.of("out"),
  ];
  const flags = ["--allow-read", "--allow-write", "--frozen", `--lock=${folder.write("deno.lock", JSON.stringify(lock))}`];
  const { code, stderr } = await ended(args, { flags });
  assertEquals([code, folder.names()], [2, ["deno.lock", "in.csv", "tasks.js"]]);
  const begin = "process-pool: the parser of CSV cannot be loaded: 'deno add npm:papaparse@5.7.1' makes it one of the program's own: ";
  assert(stderr.includes(begin), stderr);
});

Deno.test(`cli.ts batch runs a file, and writes no progress line into a pipe ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, tasks] = [folder.write("in.ndjson", numbers(3000)), folder.write("tasks.js", DOUBLE)];
  const { code, stdout, stderr } = await ended([tasks, "--task", "double", "--input", input, "--output", folder.of("out")]);
  assertEquals([code, stdout, folder.read("out")], [0, "", doubles(3000)]);
  assertMatch(stderr, /^3,000 records, 0 failed, [\d.]+ m?s, [\d,]+ records\/s\ntime per record: /);
  assert(!stderr.includes("\r"));
  const exists = await ended([tasks, "--task", "double", "--input", input, "--output", folder.of("out")]);
  const message = `process-pool: the output '${folder.of("out")}' exists: replace it with '--overwrite', or go on with '--resume'\n`;
  assertEquals(exists, { code: 2, stdout: "", stderr: message });
});

Deno.test(`cli.ts batch reads the standard input and writes the standard output ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const tasks = folder.write("tasks.js", DOUBLE);
  const { code, stdout } = await ended([tasks, "--task", "double", "--input", "-", "--output", "-"], { stdin: numbers(50_000) });
  assertEquals([code, stdout], [0, doubles(50_000)]);
  const failing = await ended([tasks, "--task", "bad", "--input", "-", "--output", "-"], { stdin: "1\n2\n" });
  assertEquals([failing.code, failing.stdout], [1, ""]);
  assert(failing.stderr.includes("failed with: Error 2\nfailed records were not kept: '--errors FILE' keeps them\n"), failing.stderr);
});

Deno.test(`cli.ts batch with '--dry-run' prints the first results, and writes no file ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, tasks] = [folder.write("in.ndjson", numbers(3000)), folder.write("tasks.js", DOUBLE)];
  const { code, stdout } = await ended([tasks, "--task", "double", "--input", input, "--dry-run", "3"]);
  assertEquals([code, stdout, folder.names()], [0, "0\n2\n4\n", ["in.ndjson", "tasks.js"]]);
});

Deno.test(`cli.ts batch with '--progress json' writes objects on stderr ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, tasks] = [folder.write("in.ndjson", numbers(3000)), folder.write("tasks.js", DOUBLE)];
  const { stderr } = await ended([tasks, "--task", "double", "--input", input, "--output", folder.of("out"), "--progress", "json"]);
  const events = stderr.trimEnd().split("\n").map((line) => JSON.parse(line));
  assertEquals(events.map(({ event }) => event).slice(-2), ["progress", "summary"]);
  assertEquals([events.at(-1).records, events.at(-2).records], [3000, 3000]);
  const again = await ended([tasks, "--task", "double", "--input", input, "--output", folder.of("out"), "--progress", "json"]);
  const message = `the output '${folder.of("out")}' exists: replace it with '--overwrite', or go on with '--resume'`;
  assertEquals([again.code, JSON.parse(again.stderr)], [2, { event: "error", message }]);
});

Deno.test(`cli.ts batch goes on when nobody reads its stderr any more ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, tasks] = [folder.write("in.ndjson", numbers(3000)), folder.write("tasks.js", DOUBLE)];
  await using child = command([tasks, "--task", "double", "--input", input, "--output", folder.of("out"), "--progress", "json"]).spawn();
  await Promise.all([child.stdin.close(), child.stdout.cancel(), child.stderr.cancel()]);
  const { code } = await within(child.status);
  assertEquals([code, folder.read("out")], [0, doubles(3000)]);
});

Deno.test(`cli.ts batch with '--timeout' runs a task module that imports from another host ${NEEDS} and --allow-net`, {
  ignore: ignore || !granted("net"),
}, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(100));
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response("export const two = 2;", { headers: { "content-type": "text/javascript" } }),
  );
  const host = `127.0.0.1:${server.addr.port}`;
  // What only looks like an import from somewhere is not to be asked for.
  const comment = `// import { three } from "https://example.com/three.js";`;
  const tasks = folder.write("tasks.js", `import { two } from "http://${host}/two.js"; ${comment}\nexport default (x) => two * x;`);
  const options = [tasks, "--input", input, "--output", folder.of("out"), "--timeout", "1m"];
  // The server's port would get into the lock file.
  const flags = ["--allow-read", "--allow-write", "--no-lock"];
  assertEquals((await ended(options, { flags })).code, 2);
  const { code, stderr } = await ended(options, { flags: [...flags, `--allow-import=${host}`] });
  assertEquals(code, 0, stderr);
  assertEquals(folder.read("out"), doubles(100));
});

Deno.test(`cli.ts batch says what workers may need to load a task module ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, constant] = [folder.write("in.ndjson", "1\n"), folder.write("constant.js", "export const two = 2;")];
  const tasks = folder.write("tasks.js", `const { two } = await import(["./constant.js"][0]);\nexport default (x) => two * x;`);
  const options = [tasks, "--input", input, "--output", folder.of("out"), "--timeout", "1m"];
  const { code, stderr } = await ended(options);
  assertEquals(code, 2);
  assert(stderr.includes(`Requires read access to "${constant}"`), stderr);
  assert(stderr.includes("; workers may need that among their 'permissions' as well"), stderr);
  assertEquals((await ended([...options, "--permissions", `read=${constant}`])).code, 0);
});

Deno.test(`cli.ts batch says which permission the program or the task needs ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, tasks] = [folder.write("in.ndjson", '"x"\n'), folder.write("tasks.js", "export default (name) => Deno.env.get(name);")];
  const none = await ended([tasks, "--input", input, "--output", folder.of("out")], { flags: [] });
  assertEquals([none.code, none.stderr], [
    2,
    `process-pool: it may not access the task module '${tasks}': run it with --allow-read=${tasks}\n`,
  ]);
  const read = await ended([tasks, "--input", input, "--output", folder.of("out")], { flags: ["--allow-read"] });
  assertEquals([read.code, read.stderr], [
    2,
    `process-pool: it may not access the folder of the output '${folder.of("out")}': run it with --allow-write\n`,
  ]);
  const env = await ended([tasks, "--input", input, "--output", folder.of("out")]);
  assertEquals(env.code, 1);
  assert(
    env.stderr.includes("the task was denied 'env=x': run with '--allow-env=x', and give it to the workers with '--permissions env=x'\n"),
    env.stderr,
  );
  const more = await ended([tasks, "--input", input, "--output", folder.of("out2"), "--permissions", "env=x"]);
  assertEquals([more.code, more.stderr], [
    2,
    "process-pool: its workers are to have a permission that this thread lacks: run it with --allow-env=x\n",
  ]);
});

Deno.test(
  `cli.ts batch reads a file that is named as an open one, such as /dev/stdin ${NEEDS}`,
  { ignore: ignore || Deno.build.os !== "linux" },
  async () => {
    using folder = new Folder();
    const [input, tasks] = [folder.write("in.ndjson", numbers(3)), folder.write("tasks.js", DOUBLE)];
    const started = async (flag: string, before = "") => {
      const args = [
        "run",
        "--no-prompt",
        "--no-check",
        flag,
        "cli.ts",
        "batch",
        tasks,
        "--task",
        "double",
        "--input",
        "/dev/stdin",
        "--output",
        "-",
      ];
      const shell = `exec < '${input}'; ${before} exec '${Deno.execPath()}' ${args.join(" ")}`;
      const { stdout, stderr } = await within(
        new Deno.Command("sh", { args: ["-c", shell], cwd, stdout: "piped", stderr: "piped" }).output(),
      );
      return [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    };
    assertEquals((await started("--allow-all"))[0], doubles(3));
    assertEquals(
      (await started("--allow-read"))[1],
      "process-pool: it may not access the input file '/dev/stdin': run it with --allow-all\n",
    );
    // The input has no path of its own then, so no worker can open it.
    assertEquals((await started("--allow-all", `rm '${input}';`))[0], doubles(3));
  },
);

Deno.test(
  `cli.ts batch reads a file whose size the system does not tell, such as those in /proc ${NEEDS}`,
  { ignore: ignore || Deno.build.os !== "linux" },
  async () => {
    using folder = new Folder();
    const args = [folder.write("tasks.js", "export default (line) => line;"), "--format", "lines", "--output-format", "lines"];
    const { code, stdout } = await ended([...args, "--input", "/proc/version", "--output", "-"], { flags: ["--allow-all"] });
    assertEquals([code, stdout.split(" ", 1)], [0, ["Linux"]]);
    assertMatch(stdout, /^.+\n$/);
    // One that is empty is still a file, with which a batch can be resumed only as long as it stays empty.
    const [input, output] = [folder.write("in.txt", ""), folder.of("out.txt")];
    assertEquals((await ended([...args, "--input", input, "--output", output])).code, 0);
    assertEquals(folder.json("out.txt.log")[0].inputs[0].size, 0);
  },
);

Deno.test(
  `cli.ts batch refuses an output that is named as an open pipe, such as /dev/stdout ${NEEDS}`,
  { ignore: ignore || Deno.build.os !== "linux" },
  async () => {
    using folder = new Folder();
    const input = folder.write("in.ndjson", numbers(3));
    const args = [folder.write("tasks.js", DOUBLE), "--task", "double", "--input", input, "--output", "/dev/stdout"];
    assertEquals(await ended(args, { flags: ["--allow-all"] }), {
      code: 2,
      stdout: "",
      stderr: "process-pool: the output '/dev/stdout' is no regular file: name a file\n",
    });
  },
);

Deno.test(`cli.ts batch stops cleanly when the output cannot be written, and can go on ${NEEDS}`, { ignore: noSignals }, async () => {
  using folder = new Folder();
  const [input, tasks] = [folder.write("in.ndjson", numbers(200_000)), folder.write("tasks.js", DOUBLE)];
  const args = [tasks, "--task", "double", "--input", input, "--output", folder.of("out"), "--chunk", "4KB"];
  const { code, stderr } = await limited(args);
  assertMatch(stderr, /^process-pool: Cannot write results: File too large.*: what is done is kept, '--resume' goes on\n$/);
  assertEquals(code, 3);
  assertEquals((await ended([...args, "--resume"])).code, 0);
  assertEquals(folder.read("out"), doubles(200_000));
});

for (const name of ["out", "out.gz"]) {
  Deno.test(`cli.ts batch writes no result twice when the errors could not be written (${name}) ${NEEDS}`, {
    ignore: noSignals,
  }, async () => {
    using folder = new Folder();
    const input = folder.write("in.ndjson", numbers(20_000));
    const tasks = folder.write("tasks.js", "export default (x) => { if (x % 10 === 5) throw new Error('bad'); return 2 * x; };");
    const args = [tasks, "--input", input, "--output", folder.of(name), "--chunk", "4KB"];
    // The errors are longer than the results, so they reach the limit.
    const { code, stderr } = await limited(args);
    assertMatch(stderr, /^process-pool: Cannot write results: File too large.*: what is done is kept, '--resume' goes on\n$/);
    assertEquals([code, (await ended([...args, "--resume"])).code], [3, 1]);
    const { body } = new Response(Deno.readFileSync(folder.of(name)));
    const results = name === "out" ? body! : body!.pipeThrough(new DecompressionStream("gzip"));
    assertEquals(await new Response(results).text(), doubles(20_000, (x) => x % 10 === 5));
    assertEquals(folder.json(`${name}.errors.ndjson`).map(({ line }) => line), Array.from({ length: 2000 }, (_, i) => 10 * i + 6));
  });
}

Deno.test(`cli.ts batch ends in an orderly way after SIGINT, and goes on with '--resume' ${NEEDS}`, { ignore: noSignals }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(20_000));
  // It cannot finish before the signal: one record waits until a file exists.
  const tasks = folder.write(
    "tasks.js",
    `export default async (x) => {
    while (x === 15000 && !exists()) await new Promise((resolve) => setTimeout(resolve, 10));
    return 2 * x;
  };
  function exists() { try { return Deno.statSync("${folder.of("go")}").isFile; } catch { return false; } }`,
  );
  const args = [
    tasks,
    "--input",
    input,
    "--output",
    folder.of("out"),
    "--permissions",
    `read=${folder.path}`,
    "--progress",
    "json",
    "--chunk",
    "4KB",
  ];
  const child = command(args).spawn();
  const { code, stderr } = await interrupted(child, '"event":"progress"');
  assertEquals(code, 130);
  const told = stderr.trimEnd().split("\n").map((line) => JSON.parse(line)).filter(({ event }) => event !== "progress");
  assertEquals(told.map(({ event, message, outcome }) => [event, message, outcome]), [
    ["signal", "SIGINT: running records get 1 s, a second signal ends at once", undefined],
    ["summary", undefined, "stopped"],
  ]);
  folder.write("go", "");
  assertEquals((await ended([...args, "--resume"])).code, 0);
  assertEquals(folder.read("out"), doubles(20_000));
});

Deno.test(`cli.ts batch with '--overwrite' that is stopped before it replaces anything does not send to '--resume' ${NEEDS}`, {
  ignore: noSignals,
}, async () => {
  using folder = new Folder();
  const [input, output] = [folder.write("in.ndjson", numbers(10)), folder.of("out")];
  const tasks = folder.write("tasks.js", DOUBLE);
  assertEquals((await ended([tasks, "--task", "double", "--input", input, "--output", output])).code, 0);
  const stuck = folder.write("stuck.js", "console.error('loading');\nawait new Promise(() => {});\nexport const stuck = (x) => x;");
  await using child = command([stuck, "--input", input, "--output", output, "--overwrite"]).spawn();
  const { code, stderr } = await interrupted(child, "loading\n");
  assertEquals([code, stderr.trimEnd().split("\n").at(-1)], [130, "stopped: '--overwrite' begins anew"]);
  assertEquals(folder.read("out"), doubles(10));
});

Deno.test(
  `batch() that is stopped while a record computes lets the program end when the record has finished ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const [runs, isStopped] = [folder.of("runs"), folder.of("stopped")];
    const task = folder.write(
      "task.js",
      `export default () => {
      Deno.mkdirSync(${JSON.stringify(runs)});
      // Until it is stopped.
      for (;;) try { return Deno.statSync(${JSON.stringify(isStopped)}).size; } catch {}
    };`,
    );
    const source = `
    import { batch } from "@procpool/process-pool/batch";
    const controller = new AbortController();
    const { outcome } = await batch(${JSON.stringify(task)}, {
      input: new Response("1\\n").body,
      output: new WritableStream(),
      permissions: "inherit",
      signal: controller.signal,
      onProgress: () => void Deno.stat(${JSON.stringify(runs)}).then(() => controller.abort(), () => {}),
    });
    console.log(outcome);
    Deno.mkdirSync(${JSON.stringify(isStopped)});
  `;
    const args = ["eval", "--no-check", source];
    await using child = new Deno.Command(Deno.execPath(), { args, cwd, stdin: "null", stdout: "piped", stderr: "null" }).spawn();
    const { code, stdout } = await within(child.output());
    assertEquals([code, new TextDecoder().decode(stdout)], [0, "stopped\n"]);
  },
);

Deno.test(`cli.ts batch without a terminal, as 'nohup' starts it, goes on after SIGHUP ${NEEDS}`, { ignore: noSignals }, async () => {
  using folder = new Folder();
  const tasks = folder.write("tasks.js", DOUBLE);
  const args = ["--task", "double", "--input", "-", "--output", folder.of("out"), "--progress", "json"];
  await using child = command([tasks, ...args]).spawn();
  const stderr = child.stderr.getReader();
  // It is running, and waiting for its input.
  await within(stderr.read());
  child.kill("SIGHUP");
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(numbers(10))).then(() => writer.close()).catch(() => {});
  stderr.releaseLock();
  const [{ code }] = await within(Promise.all([child.status, child.stdout.cancel(), child.stderr.cancel()]));
  assertEquals([code, folder.read("out")], [0, doubles(10)]);
});

Deno.test(`batchCommand() leaves SIGHUP alone where there is a terminal ${NEEDS}`, { ignore: noSignals }, async () => {
  using folder = new Folder();
  const { addSignalListener } = Deno;
  const args = ["data:text/javascript,export default () => {}", "--input", folder.write("in", ""), "--dry-run", "1", "--progress", "none"];
  const signals: Deno.Signal[] = [];
  Deno.addSignalListener = (signal, listener) => {
    signals.push(signal);
    addSignalListener(signal, listener);
  };
  try {
    for (const terminal of [undefined, Deno.stdin, Deno.stdout, Deno.stderr]) {
      for (const stream of [Deno.stdin, Deno.stdout, Deno.stderr]) stream.isTerminal = () => stream === terminal;
      signals.length = 0;
      assertEquals(await batchCommand(args), 0);
      assertEquals(signals, ["SIGINT", "SIGTERM", ...terminal === undefined ? ["SIGHUP" as const] : []]);
    }
  } finally {
    Deno.addSignalListener = addSignalListener;
    for (const stream of [Deno.stdin, Deno.stdout, Deno.stderr]) Reflect.deleteProperty(stream, "isTerminal");
  }
});

Deno.test(`cli.ts batch killed at twenty moments and resumed each time writes what an uninterrupted run does ${NEEDS}`, {
  ignore: noSignals,
}, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(60_000));
  const tasks = folder.write(
    "tasks.js",
    `export default (x) => {
    for (const end = performance.now() + 0.1; performance.now() < end;);
    if (x % 1000 === 999) throw new Error("bad");
    return 2 * x;
  };`,
  );
  const args = [tasks, "--input", input, "--output", folder.of("out"), "--resume", "--workers", "2"];
  let kills = 0;
  for (; kills < 20; kills++) {
    const child = command(args).spawn();
    void child.stdin.close();
    const done = Promise.all([child.stdout.cancel(), child.stderr.cancel()]);
    // Whatever the moment, the same must hold afterwards.
    const timer = setTimeout(() => child.kill("SIGKILL"), Math.random() * 1000);
    const { signal } = await within(child.status);
    clearTimeout(timer);
    await done;
    if (signal === null) break;
  }
  assertEquals((await ended(args)).code, 1);
  const bad = (x: number) => x % 1000 === 999;
  assertEquals(folder.read("out"), doubles(60_000, bad));
  assertEquals(folder.json("out.errors.ndjson").map(({ line }) => line), Array.from({ length: 60 }, (_, i) => (i + 1) * 1000));
});

Deno.test(`cli.ts batch goes on when its stderr cannot be written ${NEEDS}`, { ignore: ignore || Deno.build.os !== "linux" }, async () => {
  using folder = new Folder();
  const [input, tasks] = [folder.write("in.ndjson", numbers(3000)), folder.write("tasks.js", DOUBLE)];
  const args = ["run", "--no-prompt", "--no-check", "--allow-read", "--allow-write", "cli.ts", "batch", tasks, "--task", "double"];
  const words = [Deno.execPath(), ...args, "--input", input, "--output", folder.of("out"), "--progress", "json"];
  const shell = `exec ${words.map((word) => `'${word}'`).join(" ")} 2>/dev/full`;
  const { code } = await within(new Deno.Command("sh", { args: ["-c", shell], cwd, stdin: "null", stdout: "null" }).output());
  assertEquals([code, folder.read("out")], [0, doubles(3000)]);
});

Deno.test(`cli.ts batch says in its own words what is wrong with a glob, or why a retry is refused ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, tasks] = [folder.write("in.ndjson", numbers(30)), folder.write("tasks.js", DOUBLE)];
  const glob = await ended([tasks, "--task", "double", "--input", "x[z-a]*.ndjson", "--output", folder.of("out")]);
  assertEquals(glob.code, 2);
  assertMatch(glob.stderr, /^process-pool: the input 'x\[z-a\]\*\.ndjson' is no glob, and there is no such file: .+\n$/);
  const args = ["--input", input, "--output", folder.of("out")];
  await ended([tasks, "--task", "bad", ...args]);
  const before = folder.names();
  const [out, errors] = [folder.of("out"), folder.of("out.errors.ndjson")];
  const flags = ["--allow-read", `--allow-write=${out},${out}.log,${errors}`];
  const retry = await ended([tasks, "--task", "double", ...args, "--retry-failed"], { flags });
  assertEquals(retry, {
    code: 2,
    stdout: "",
    stderr: `process-pool: it may not access the folder of the output '${out}', or of its errors file: run it with --allow-write\n`,
  });
  assertEquals(folder.names(), before);
});

Deno.test(`cli.ts batch says what a retry that could not be written leaves ${NEEDS}`, { ignore: noSignals }, async () => {
  using folder = new Folder();
  const [input, tasks] = [
    folder.write("in.ndjson", numbers(300)),
    folder.write("tasks.js", `${DOUBLE}\nexport const long = (x) => "x".repeat(5000);`),
  ];
  const args = [tasks, "--input", input, "--output", folder.of("out")];
  await ended([...args, "--task", "bad"]);
  const { code, stderr } = await limited([...args, "--task", "long", "--retry-failed"]);
  assertMatch(stderr, /^process-pool: Cannot write results: File too large.*: all is as it was before, '--retry-failed' begins anew\n$/);
  assertEquals([code, folder.json("out.errors.ndjson").length], [3, 300]);
});

Deno.test(`cli.ts batch writes its report to the given path, even if a task changes the current folder ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, tasks] = [folder.write("in.ndjson", "1\n"), folder.write("tasks.js", 'export default () => Deno.chdir("/");')];
  const args = [tasks, "--input", input, "--output", folder.of("out"), "--permissions", "inherit"];
  const { code } = await ended([...args, "--report", relative(fileURLToPath(cwd), folder.of("r.html"))]);
  assertEquals([code, folder.names().includes("r.html")], [0, true]);
});

Deno.test("batchCommand() reports an unexpected error, and returns code 3", async () => {
  const { digest } = crypto.subtle;
  const { writeSync } = Deno.stderr;
  let written = "";
  crypto.subtle.digest = () => Promise.reject(new DOMException("odd", "OperationError"));
  Deno.stderr.writeSync = (bytes) => {
    written += new TextDecoder().decode(bytes);
    return bytes.length;
  };
  try {
    const args = ["data:text/javascript,export default (x) => x", "--input", "-", "--output", "-"];
    assertEquals(await batchCommand(args), 3);
  } finally {
    crypto.subtle.digest = digest;
    Deno.stderr.writeSync = writeSync;
  }
  assertEquals(written, "process-pool: Cannot go on: OperationError: odd\n");
});

Deno.test(`cli.ts batch writes its report into a pipe, which it opens only once ${NEEDS}`, { ignore: noSignals }, async () => {
  using folder = new Folder();
  const [input, report] = [folder.write("in.ndjson", "1\n"), folder.of("report")];
  assertEquals((await new Deno.Command("mkfifo", { args: [report] }).output()).code, 0);
  const args = [folder.write("tasks.js", DOUBLE), "--task", "double", "--input", input, "--output", folder.of("out"), "--report", report];
  await using child = command(args).spawn();
  const page = await within(Deno.readTextFile(report));
  // Opening it again would wait for another reader, deaf to everything else.
  if (page === "") child.kill("SIGKILL");
  const [{ code }] = await within(Promise.all([child.status, child.stdin.close(), child.stdout.cancel(), child.stderr.cancel()]));
  assertEquals(code, 0);
  assertMatch(page, /^<!doctype html>/i);
});

Deno.test(`batchCommand() draws no line of progress among results that go to a terminal ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const { writeSync } = Deno.stderr;
  const args = ["data:text/javascript,export default () => {}", "--input", folder.write("in", ""), "--dry-run", "1"];
  let written = "";
  Deno.stderr.writeSync = (bytes) => {
    written += new TextDecoder().decode(bytes);
    return bytes.length;
  };
  Deno.stderr.isTerminal = () => true;
  try {
    for (const [isTerminal, begin] of [[false, "\r\x1b[K0 records, "], [true, "0 records, "]] as const) {
      Deno.stdout.isTerminal = () => isTerminal;
      written = "";
      assertEquals(await batchCommand(args), 0);
      assertEquals(written.slice(0, begin.length), begin);
    }
  } finally {
    Deno.stderr.writeSync = writeSync;
    for (const stream of [Deno.stderr, Deno.stdout]) Reflect.deleteProperty(stream, "isTerminal");
  }
});
