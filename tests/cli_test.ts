import { assert, assertEquals, assertMatch } from "@std/assert";
import { main } from "@procpool/process-pool/cli";
import manifest from "../deno.json" with { type: "json" };
import { HELP } from "../demo/arguments.ts";
import { granted, within } from "./fixtures.ts";

/** Runs the command within this program. */
async function run(...args: string[]): Promise<{ code: number; stdout: string[]; stderr: string[] }> {
  const [stdout, stderr]: [string[], string[]] = [[], []];
  const { log, error } = console;
  console.log = (line: string) => stdout.push(line);
  console.error = (line: string) => stderr.push(line);
  try {
    return { code: await main(args), stdout, stderr };
  } finally {
    Object.assign(console, { log, error });
  }
}

Deno.test("main() gives exit code 0 for help and version", async () => {
  assertEquals(await run("--help"), { code: 0, stdout: [HELP], stderr: [] });
  assertEquals(await run("--version"), { code: 0, stdout: [manifest.version], stderr: [] });
});

Deno.test("main() returns exit code 2 for a mistake, and says what is wrong and what would be right", async () => {
  const message = `process-pool: '--jobs' must be an integer from 1 to 1000000: current value is "0"`;
  assertEquals(await run("--jobs", "0", "--json"), { code: 2, stdout: [], stderr: [message] });
});

Deno.test("main() gives exit code 0 if all jobs finish and 1 if one fails", async () => {
  const quick = ["--jobs", "2", "--workers", "2", "--quiet", "--no-timeline", "--seed", "5"];
  const finished = await run(...quick);
  assertEquals([finished.code, finished.stderr, finished.stdout.length], [0, [], 1]);
  assertMatch(finished.stdout[0]!, /^2 jobs, 0 failed, wall \d+\.\d\d s, busy \d+\.\d\d s, speed-up \d\.\d\d, seed 5$/);
  const failed = await run(...quick, "--fail-rate", "1");
  assertEquals([failed.code, failed.stderr, failed.stdout.length], [1, [], 1]);
});

Deno.test(
  "main() waits for who reads a trace from a pipe before it listens for Ctrl-C (needs --allow-read, --allow-write and --allow-run)",
  { ignore: Deno.build.os === "windows" || !(granted("read") && granted("write") && granted("run")) },
  async () => {
    const folder = Deno.makeTempDirSync();
    const trace = `${folder}/trace`;
    const { addSignalListener, openSync } = Deno;
    const steps: string[] = [];
    try {
      assertEquals((await new Deno.Command("mkfifo", { args: [trace] }).output()).code, 0);
      const reader = new Deno.Command("cat", { args: [trace], stdout: "piped" }).spawn();
      Deno.openSync = (path, options) => {
        const file = openSync(path, options);
        if (path === trace) steps.push("opened");
        return file;
      };
      Deno.addSignalListener = (signal, listener) => {
        steps.push(signal);
        addSignalListener(signal, listener);
      };
      assertEquals((await run("--jobs", "1", "--quiet", "--seed", "5", "--trace", trace)).code, 0);
      assertEquals(steps, ["opened", "SIGINT", "SIGTERM", "opened"]);
      const { stdout } = await within(reader.output());
      assert(JSON.parse(new TextDecoder().decode(stdout)).length > 0);
    } finally {
      Object.assign(Deno, { addSignalListener, openSync });
      Deno.removeSync(folder, { recursive: true });
    }
  },
);

Deno.test("main() says so if the report cannot be written in the end (needs --allow-write)", { ignore: !granted("write") }, async () => {
  const folder = Deno.makeTempDirSync();
  const running = run("--jobs", "1", "--workers", "1", "--quiet", "--no-timeline", "--report", `${folder}/r.html`);
  // The path was checked at the start.
  Deno.removeSync(folder);
  const { code, stdout, stderr } = await running;
  assertEquals([code, stdout.length, stderr.length], [2, 1, 1]);
  assert(stderr[0]!.startsWith(`process-pool: '--report' cannot write ${JSON.stringify(`${folder}/r.html`)}: `), stderr[0]);
});

// As a process

const ignore = !granted("run") || !granted("read");
const NEEDS = "(needs --allow-run and --allow-read)";

/** Windows sends no signals other than a kill. */
const noSignals = ignore || Deno.build.os === "windows";

const cwd = new URL("../", import.meta.url);

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** A program that is running, and whose output is read line by line. */
class Child implements AsyncDisposable {
  #child: Deno.ChildProcess;
  #stdin: WritableStreamDefaultWriter<Uint8Array>;
  #streams: { stdout: ReadableStreamDefaultReader<string>; stderr: ReadableStreamDefaultReader<string> };
  #read = { stdout: "", stderr: "" };

  constructor(command: string, args: string[], env: Record<string, string> = {}) {
    this.#child = new Deno.Command(command, { args, cwd, env, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
    this.#stdin = this.#child.stdin.getWriter();
    this.#streams = {
      stdout: this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader(),
      stderr: this.#child.stderr.pipeThrough(new TextDecoderStream()).getReader(),
    };
  }

  /** Waits until the program has printed this. */
  async reads(stream: "stdout" | "stderr", what: string): Promise<void> {
    while (!this.#read[stream].includes(what)) {
      if (!await within(this.#readMore(stream))) {
        throw new Error(`The program ended and never wrote '${what}', but: ${JSON.stringify(this.#read)}`);
      }
    }
  }

  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  async types(text: string): Promise<void> {
    await this.#stdin.write(new TextEncoder().encode(text));
  }

  /** Sends a signal again and again until the program ends: one that comes soon after the first does not count. */
  async endsBy(signal: Deno.Signal): Promise<Ended> {
    const timer = setInterval(() => {
      try {
        this.kill(signal);
      } catch {
        // It has ended just now.
      }
    }, 100);
    return await this.ends().finally(() => clearInterval(timer));
  }

  /** Waits for the program to end. */
  async ends(): Promise<Ended> {
    const drain = async (stream: "stdout" | "stderr") => {
      while (await this.#readMore(stream));
    };
    const [{ code }] = await within(Promise.all([this.#child.status, drain("stdout"), drain("stderr")]));
    return { code, ...this.#read };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
    await this.ends();
    await this.#stdin.close().catch(() => {});
  }

  async #readMore(stream: "stdout" | "stderr"): Promise<boolean> {
    const { done, value } = await this.#streams[stream].read();
    this.#read[stream] += value ?? "";
    return !done;
  }
}

/** A program that Deno runs without any permission, and without prompts for one. */
function deno(...args: string[]): Child {
  return new Child(Deno.execPath(), ["run", "--quiet", "--no-prompt", ...args]);
}

function linesOf(text: string): string[] {
  return text.trimEnd().split("\n");
}

Deno.test(`cli.ts runs ten jobs on four workers without any permission, and ends by itself ${NEEDS}`, { ignore }, async () => {
  await using child = deno("cli.ts");
  const { code, stdout, stderr } = await child.ends();
  assertEquals([code, stderr], [0, ""]);
  assert(!stdout.includes("\x1b"), "there are no escape codes in a pipe");
  const lines = linesOf(stdout);
  const jobs = lines.slice(0, 20);
  assertEquals(jobs.slice(0, 4), [0, 1, 2, 3].map((id) => `put in job[${id}]`));
  assertEquals(jobs.filter((line) => line.startsWith("put in")).length, 10);
  assertEquals(jobs.filter((line) => /^job\[\d\] worker\[funDemo\] finish: \[0\.\d{3}\]$/.test(line)).length, 10);
  assertMatch(lines[20]!, /^10 jobs, 0 failed, wall \d+\.\d\d s, busy \d+\.\d\d s, speed-up \d\.\d\d, seed \d+$/);
  const rows = lines.filter((line) => /^worker [1-4] [.|=\d#]+$/.test(line));
  assertEquals([rows.length > 0, lines.length], [true, 21 + rows.length + (lines.at(-1)!.includes("# several jobs") ? 3 : 2)]);
  for (const row of rows) assertEquals(row.length, 80);
});

Deno.test(`cli.ts with '--permissions none' runs its jobs on workers that may do nothing ${NEEDS}`, { ignore }, async () => {
  await using child = deno("cli.ts", "--permissions", "none", "--jobs", "1", "--quiet");
  const { code, stdout, stderr } = await child.ends();
  assertEquals([code, stderr], [0, ""]);
  assert(stdout.startsWith("1 job, 0 failed, "), stdout);
});

Deno.test(`cli.ts ends with code 2 and one line on stderr for an unknown option ${NEEDS}`, { ignore }, async () => {
  await using child = deno("cli.ts", "--nope");
  const stderr = "process-pool: there is no option '--nope': '--help' shows what there is\n";
  assertEquals(await child.ends(), { code: 2, stdout: "", stderr });
});

Deno.test(
  `cli.ts with '--json' writes objects that agree with each other, and ends with code 1 if a job fails ${NEEDS}`,
  { ignore },
  async () => {
    await using child = deno("cli.ts", "--json", "--jobs", "8", "--workers", "3", "--queue-size", "5", "--fail-rate", "0.5", "--seed", "5");
    const { code, stdout, stderr } = await child.ends();
    assertEquals([code, stderr], [1, ""]);
    const events = linesOf(stdout).map((line) => JSON.parse(line));
    const of = (...names: string[]) => events.filter(({ event }) => names.includes(event));
    const summary = events.at(-1);
    assertEquals(of("summary"), [summary]);
    assertEquals(of("submitted").map(({ job }) => job), [0, 1, 2, 3, 4, 5, 6, 7]);
    assertEquals(of("finished", "failed").map(({ job }) => job).sort(), [0, 1, 2, 3, 4, 5, 6, 7]);
    assertEquals([of("finished").length, of("failed").length], [summary.finished, summary.failed]);
    let busy = 0;
    for (const { event, worker, seconds, error, start, end } of of("finished", "failed")) {
      assert([1, 2, 3].includes(worker) && start >= 0 && end >= start && end <= summary.wall, JSON.stringify({ worker, start, end }));
      assertEquals([typeof seconds, typeof error], event === "finished" ? ["number", "undefined"] : ["undefined", "string"]);
      busy += end - start;
    }
    const speedUp = summary.busy / summary.wall;
    assert(Math.abs(summary.busy - busy) < 0.1 && Math.abs(summary.speedUp - speedUp) < 0.1, JSON.stringify({ busy, summary }));
    const { jobs, cancelled, neverPutIn, seed, stopped } = summary;
    assertEquals({ jobs, cancelled, neverPutIn, seed, stopped }, { jobs: 8, cancelled: 0, neverPutIn: 0, seed: 5, stopped: false });
  },
);

Deno.test(`cli.ts gives the same results for the same seed ${NEEDS}`, { ignore }, async () => {
  const results: unknown[] = [];
  for (const workers of ["2", "5"]) {
    await using child = deno("cli.ts", "--jobs", "5", "--workers", workers, "--seed", "9", "--fail-rate", "0.3", "--no-timeline");
    const { stdout } = await child.ends();
    results.push(linesOf(stdout).slice(0, -1).sort());
  }
  assertEquals(results[0], results[1]);
});

for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  Deno.test(
    `cli.ts puts in no more jobs after ${signal}, says what was left and ends with code ${code} ${NEEDS}`,
    { ignore: noSignals },
    async () => {
      await using child = deno("cli.ts", "--jobs", "1000", "--workers", "2", "--queue-size", "6");
      await child.reads("stdout", "finish:");
      child.kill(signal);
      const ended = await child.ends();
      assertEquals(ended.code, code);
      assertEquals(ended.stderr, `${signal}: no more jobs; running ones get 1 s, a second signal ends at once\n`);
      const lines = linesOf(ended.stdout);
      const counts = lines.flatMap((line) =>
        /^stopped: (\d+) finished, (\d+) failed, (\d+) cancelled, (\d+) never put in$/.exec(line)?.slice(1) ?? []
      );
      const [finished, failed, cancelled, neverPutIn] = counts.map(Number) as [number, number, number, number];
      assertEquals(finished + failed + cancelled + neverPutIn, 1000);
      const count = (begin: RegExp) => lines.filter((line) => begin.test(line)).length;
      assertEquals([count(/^job.* finish: /), count(/^job.* error: /), count(/^put in /)], [finished, failed, 1000 - neverPutIn]);
      assertEquals(count(/^1000 jobs, /), 1);
    },
  );
}

Deno.test(`cli.ts ends at once at a second signal, with the code of that ${NEEDS}`, { ignore: noSignals }, async () => {
  await using child = deno("cli.ts", "--jobs", "1000", "--json");
  await child.reads("stdout", "finished");
  child.kill("SIGINT");
  await child.reads("stderr", "SIGINT: no more jobs");
  child.kill("SIGTERM");
  const { code, stdout, stderr } = await child.ends();
  assertEquals([code, linesOf(stderr).at(-1)], [143, "SIGTERM: ended at once"]);
  for (const line of linesOf(stdout)) JSON.parse(line);
});

for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  Deno.test(`Interrupt ends a program that goes on after the first ${signal} at the second, with code ${code} ${NEEDS}`, {
    ignore: noSignals,
  }, async () => {
    await using child = deno("tests/fixtures/interrupted.ts");
    await child.reads("stdout", "ready\n");
    child.kill(signal);
    await child.reads("stdout", "aborted\n");
    assertEquals(await child.endsBy(signal), { code, stdout: `ready\n${signal} first\naborted\n${signal} again\n`, stderr: "" });
  });
}

// In a terminal: that of `script`, which is on every Linux as part of util-linux

const noTerminal = ignore || Deno.build.os !== "linux";

/** The command in a terminal of this size. */
function inTerminal(columns: number, args: string, setting = "-u NO_COLOR"): Child {
  const command = `stty cols ${columns} rows 24 && exec env ${setting} "${Deno.execPath()}" run --quiet --no-prompt cli.ts ${args}`;
  try {
    return new Child("script", ["--quiet", "--return", "--command", command, "/dev/null"], { TERM: "xterm-256color", SHELL: "/bin/sh" });
  } catch (cause) {
    throw new Error("This test needs a terminal, which the program 'script' of util-linux makes", { cause });
  }
}

for (const columns of [40, 80, 200]) {
  Deno.test(
    `cli.ts draws a timeline as wide as its terminal of ${columns} columns, with colours ${NEEDS}`,
    { ignore: noTerminal },
    async () => {
      await using child = inTerminal(columns, "--jobs 3 --seed 5 --fail-rate 1 --quiet");
      const { code, stdout } = await child.ends();
      assertEquals(code, 1);
      const lines = stdout.replaceAll("\r\n", "\n").split("\n");
      const rows = lines.filter((line) => line.startsWith("worker "));
      assert(rows.length > 0, stdout);
      for (const row of rows) {
        assert(row.includes("\x1b[31m"), row);
        assertEquals(row.replaceAll("\x1b[31m", "").replaceAll("\x1b[39m", "").length, columns);
      }
    },
  );
}

Deno.test(`cli.ts uses no colours in a terminal with NO_COLOR ${NEEDS}`, { ignore: noTerminal }, async () => {
  await using child = inTerminal(80, "--jobs 1 --seed 5 --fail-rate 1", "NO_COLOR=1");
  const { code, stdout } = await child.ends();
  assertEquals(code, 1);
  assert(!stdout.includes("\x1b"), stdout);
});

Deno.test(`cli.ts takes Ctrl-C in a terminal ${NEEDS}`, { ignore: noTerminal }, async () => {
  await using child = inTerminal(80, "--jobs 1000");
  await child.reads("stdout", "finish:");
  await child.types("\x03");
  const { code, stdout } = await child.ends();
  assertEquals(code, 130);
  assert(stdout.includes("\rSIGINT: no more jobs"), stdout);
  assertMatch(stdout, /\nstopped: \d+ finished, /);
});
