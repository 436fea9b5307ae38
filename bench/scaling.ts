/**
 * How speed and memory change with the number of workers, the number of jobs, and the size of their payloads. Each point of a curve is the
 * median of some rounds, each in a fresh process.
 *
 * ```sh
 * deno task scaling --quick --json scaling.json
 * ```
 *
 * @module
 */

import { ProcessPool } from "@procpool/process-pool";
import { parseArgs } from "@std/cli/parse-args";
import { format, summarise } from "./compare/statistics.ts";

/** What one process measures. */
export interface Point {
  curve: "workers" | "jobs" | "payload";
  /**
   * `run`: one call per job, 1,000 at a time. `map`: over a generator. `compute`: jobs of 1 ms. `echo`: bytes in and out, a few at a time.
   */
  by: "run" | "map" | "compute" | "echo";
  workers: number;
  jobs: number;
  /** The size of each argument and each result. */
  bytes: number;
}

interface Figures {
  jobsPerSecond: number;
  /** The peak memory of the process, in MB. */
  memory: number;
}

/** A point with the figures of all rounds. */
interface Measured extends Point {
  figures: Figures[];
}

const HELP = `Measures how the pool scales: 1 to 8 workers, 1,000 to 20,000,000 jobs, payloads
of 8 bytes to 8 MiB.

Usage: deno task scaling [options]

Options:
  --quick            fewer points, fewer jobs, one round: about half a minute
  --rounds <number>  how often each point is measured (default: 3)
  --json <file>      write all figures there
  --help             show this`;

const WINDOW = 1_000;
const KIB = 1024;
const MIB = 1024 * KIB;

/** Each payload is sent until this many bytes have gone out, but at most that many times. */
const [PAYLOAD_TOTAL, PAYLOAD_JOBS] = [256 * MIB, 50_000];

/** What is measured: three curves. */
export function pointsOf(quick: boolean): Point[] {
  const small = { workers: 2, bytes: 8 };
  const workers = quick ? [1, 2, 4, 8] : [1, 2, 3, 4, 5, 6, 7, 8];
  const runs = quick ? [1e3, 1e4, 1e5] : [1e3, 1e4, 1e5, 1e6, 1e7, 2e7];
  const maps = quick ? [1e3, 1e4, 1e5, 1e6] : [1e3, 1e4, 1e5, 1e6, 1e7, 2e7];
  const sizes = quick ? [8, 4 * KIB, MIB] : [8, 64, 512, 4 * KIB, 32 * KIB, 256 * KIB, MIB, 8 * MIB];
  return [
    ...(["run", "map", "compute"] as const).flatMap((by) =>
      workers.map((count): Point => {
        const jobs = { run: 100_000, map: 1_000_000, compute: 2_000 }[by] / (quick ? 4 : 1);
        return { ...small, curve: "workers", by, workers: count, jobs };
      })
    ),
    ...runs.map((jobs): Point => ({ ...small, curve: "jobs", by: "run", jobs })),
    ...maps.map((jobs): Point => ({ ...small, curve: "jobs", by: "map", jobs })),
    ...sizes.map((bytes): Point => {
      const jobs = Math.ceil(Math.min(PAYLOAD_JOBS, PAYLOAD_TOTAL / bytes) / (quick ? 8 : 1));
      return { curve: "payload", by: "echo", workers: 2, jobs, bytes };
    }),
  ];
}

// In the process of one point

async function measureHere({ by, workers, jobs, bytes }: Point): Promise<Figures> {
  await using pool = new ProcessPool({ maxWorkers: workers });
  await pool.warmUp();
  let memory = 0;
  const look = () => memory = Math.max(memory, Deno.memoryUsage().rss / 1e6);
  const drives = { run: byRun, map: byMap, compute: byCompute, echo: byEcho };
  await drives[by](pool, Math.min(jobs, 1_000), bytes, look);
  const begin = performance.now();
  await drives[by](pool, jobs, bytes, look);
  const jobsPerSecond = jobs / (performance.now() - begin) * 1000;
  look();
  return { jobsPerSecond, memory };
}

async function byRun(pool: ProcessPool, jobs: number, _bytes: number, look: () => void): Promise<void> {
  let sum = 0;
  for (let at = 0; at < jobs; at += WINDOW) {
    const window = Array.from({ length: Math.min(WINDOW, jobs - at) }, (_, i) => pool.run((x: number) => x + 1, at + i));
    for (const result of await Promise.all(window)) sum += result;
    if (at % 100_000 === 0) look();
  }
  expect(sum, jobs * (jobs + 1) / 2);
}

async function byMap(pool: ProcessPool, jobs: number, _bytes: number, look: () => void): Promise<void> {
  let count = 0;
  for await (const result of pool.map((x: number) => x + 1, naturals(jobs))) {
    if (result !== ++count) expect(result, count);
    if (count % 100_000 === 0) look();
  }
  expect(count, jobs);
}

async function byCompute(pool: ProcessPool, jobs: number): Promise<void> {
  const spin = (id: number) => {
    const end = performance.now() + 1;
    while (performance.now() < end);
    return id;
  };
  let sum = 0;
  for (const result of await Promise.all(Array.from({ length: jobs }, (_, i) => pool.run(spin, i)))) sum += result;
  expect(sum, jobs * (jobs - 1) / 2);
}

async function byEcho(pool: ProcessPool, jobs: number, bytes: number, look: () => void): Promise<void> {
  const stamp = (data: Uint8Array) => {
    data[0]! += 1;
    return data;
  };
  let sent = 0;
  await Promise.all(Array.from({ length: 8 }, async () => {
    const data = new Uint8Array(bytes);
    while (sent < jobs) {
      const mark = data[0] = sent++ % 250;
      const back = await pool.run(stamp, data);
      if (back.length !== bytes || back[0] !== mark + 1) throw new Error(`Wrong result: ${back.length} bytes, the first is ${back[0]}`);
      if (mark === 0) look();
    }
  }));
}

function* naturals(count: number): Generator<number> {
  for (let n = 0; n < count; n++) yield n;
}

function expect(actual: number, expected: number): void {
  if (actual !== expected) throw new Error(`Wrong result: ${actual} in place of ${expected}`);
}

// In the process of the command

async function measureInChild(point: Point): Promise<Figures> {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--quiet", import.meta.filename!, "--point", JSON.stringify(point)],
    stdout: "piped",
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`Cannot measure ${JSON.stringify(point)} as its process failed`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

function describe({ curve, by, workers, jobs, bytes }: Point): string {
  const size = bytes >= MIB ? `${bytes / MIB} MiB` : bytes >= KIB ? `${bytes / KIB} KiB` : `${bytes} bytes`;
  const along =
    { workers: `${workers} worker${workers === 1 ? "" : "s"}`, jobs: `${jobs.toLocaleString("en-US")} jobs`, payload: size }[curve];
  return `${curve.padEnd(8)} ${by.padEnd(8)} ${along.padStart(16)}`;
}

function renderRow(point: Measured): string {
  const rate = summarise(point.figures.map(({ jobsPerSecond }) => jobsPerSecond));
  const memory = summarise(point.figures.map(({ memory }) => memory)).median;
  const data = point.by === "echo" ? format(rate.median * point.bytes * 2 / 1e6) : "";
  const range = rate.count === 1 ? "" : `${format(rate.min)} to ${format(rate.max)}`;
  return `${describe(point)} ${format(rate.median).padStart(12)} ${range.padStart(24)} ${data.padStart(8)} ${
    memory.toFixed(0).padStart(7)
  }`;
}

async function main(args: string[]): Promise<number> {
  const unknown: string[] = [];
  const { quick, help, rounds: text, json, point } = parseArgs(args, {
    boolean: ["quick", "help"],
    string: ["rounds", "json", "point"],
    unknown: (arg) => (unknown.push(arg), false),
  });
  if (point !== undefined) {
    console.log(JSON.stringify(await measureHere(JSON.parse(point))));
    return 0;
  }
  const rounds = Number(text ?? (quick ? 1 : 3));
  const mistake = unknown.length > 0
    ? `there is no option '${unknown[0]}'`
    : json === ""
    ? "'--json' needs a value: a file"
    : !Number.isInteger(rounds) || rounds < 1 || rounds > 100
    ? `'--rounds' must be an integer from 1 to 100: current value is ${JSON.stringify(text)}`
    : undefined;
  if (mistake !== undefined) {
    console.error(`scaling: ${mistake}: '--help' shows what there is`);
    return 2;
  }
  if (help) {
    console.log(HELP);
    return 0;
  }

  const points = pointsOf(quick).map((point): Measured => ({ ...point, figures: [] }));
  const live = Deno.stderr.isTerminal();
  for (let round = 1; round <= rounds; round++) {
    for (const [i, measured] of points.entries()) {
      const { figures, ...point } = measured;
      const line = `[${i + 1}/${points.length}] round ${round} of ${rounds}: ${describe(point).replace(/ +/g, " ")}`;
      Deno.stderr.writeSync(new TextEncoder().encode(live ? `\r\x1b[K${line}` : `${line}\n`));
      figures.push(await measureInChild(point));
    }
  }
  if (live) Deno.stderr.writeSync(new TextEncoder().encode("\r\x1b[K"));
  if (json !== undefined) {
    const machine = { cores: navigator.hardwareConcurrency, os: `${Deno.build.os} ${Deno.osRelease()}`, deno: Deno.version.deno };
    await Deno.writeTextFile(json, `${JSON.stringify({ date: new Date().toISOString(), machine, rounds, points }, null, 2)}\n`);
  }
  console.log(
    `${"curve".padEnd(8)} ${"by".padEnd(8)} ${"".padStart(16)} ${"jobs/s".padStart(12)} ${"range".padStart(24)} ${"MB/s".padStart(8)} ${
      "MB held".padStart(7)
    }`,
  );
  for (const [i, point] of points.entries()) {
    if (i > 0 && (points[i - 1]!.curve !== point.curve || points[i - 1]!.by !== point.by)) console.log();
    console.log(renderRow(point));
  }
  return 0;
}

if (import.meta.main) Deno.exitCode = await main(Deno.args);
