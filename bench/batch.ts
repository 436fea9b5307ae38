/**
 * Compares a batch over many records with a single-threaded loop in Deno and with Python's `ProcessPoolExecutor.map`, each a program of its
 * own, in turns. It generates the records, checks that the output is complete and in order by computing its expected content, and watches
 * the memory of the batch.
 *
 * ```sh
 * deno run --allow-all bench/batch.ts [records] [rounds]
 * ```
 *
 * It needs all permissions, as otherwise Deno does not let it see the memory of another process. Python runs a twentieth of the records
 * with each chunk size, and its best result counts. Without Python on the machine, it is left out.
 *
 * @module
 */

import { summarise } from "./compare/statistics.ts";

const [count = "20000000", rounds = "3"] = Deno.args;
const workers = navigator.hardwareConcurrency;
const root = new URL("../", import.meta.url);
const folder = await Deno.makeTempDir();
const input = `${folder}/records.ndjson`;
const OUTPUTS = ["single", "first", "second", "batch"];

interface Run {
  records: number;
  seconds: number;
}

/** Runs a program to its end; returns its standard output. */
async function program(command: string, args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args, cwd: root, env: { NO_COLOR: "1" } }).output();
  if (!success) throw new Error(`${command} ${args.join(" ")} failed: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/**
 * Gives a program a clean start: no output for it to replace, whose pages would be freed during one of the runs, and nothing still to be
 * written to the disk.
 */
async function cleanUp(): Promise<void> {
  for (const name of OUTPUTS) await Deno.remove(`${folder}/${name}.ndjson`).catch(() => {});
  await program("sync", []);
}

async function singleLoop(output = `${folder}/single.ndjson`): Promise<Run> {
  return JSON.parse(
    await program(Deno.execPath(), ["run", "--allow-read", "--allow-write", "bench/batch/single_loop.ts", input, output]),
  );
}

/**
 * Runs the loop in two processes at a time, each over all records: what two of this machine's cores yield for programs that share nothing.
 */
async function twoLoops(): Promise<Run> {
  const runs = await Promise.all([singleLoop(`${folder}/first.ndjson`), singleLoop(`${folder}/second.ndjson`)]);
  return { records: runs[0].records + runs[1].records, seconds: Math.max(...runs.map(({ seconds }) => seconds)) };
}

async function python(chunk: number, limit: number): Promise<Run> {
  return JSON.parse(
    await program("python3", ["bench/batch/process_pool.py", input, `${folder}/python.ndjson`, `${chunk}`, `${workers}`, `${limit}`]),
  );
}

/** Runs the command, and reads the peak memory of its process. */
async function batch(): Promise<Run & { peaks: number[] }> {
  const args = ["run", "--allow-read", "--allow-write", "cli.ts", "batch", "bench/batch/task.ts", "--input", input];
  const options = ["--output", `${folder}/batch.ndjson`, "--overwrite", "--progress", "json"];
  const child = new Deno.Command(Deno.execPath(), { args: [...args, ...options], cwd: root, stderr: "piped" }).spawn();
  const peaks: number[] = [];
  let text = "";
  for await (const part of child.stderr.pipeThrough(new TextDecoderStream())) {
    text += part;
    peaks.push(await peakMemory(child.pid) ?? peaks.at(-1) ?? 0);
  }
  const { code } = await child.status;
  if (code !== 0) throw new Error(`The batch failed: ${text}`);
  const { records, wall } = JSON.parse(text.trimEnd().split("\n").at(-1)!);
  return { records, seconds: wall / 1000, peaks };
}

/** In MB; undefined if the system does not tell, or no longer does. */
async function peakMemory(pid: number): Promise<number | undefined> {
  try {
    const status = await Deno.readTextFile(`/proc/${pid}/status`);
    const kilobytes = /VmHWM:\s+(\d+) kB/.exec(status)?.[1];
    return kilobytes === undefined ? undefined : Number(kilobytes) / 1000;
  } catch {
    return undefined;
  }
}

/** Computes the expected content of an output, record by record, and throws if it differs. */
async function check(path: string): Promise<void> {
  let state = 1;
  let id = 0;
  let rest = "";
  using file = await Deno.open(path);
  const block = new Uint8Array(2 ** 20);
  const decoder = new TextDecoder();
  for (let read = file.readSync(block); read !== null; read = file.readSync(block)) {
    const lines = (rest + decoder.decode(block.subarray(0, read))).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      const expected = `{"id":${id},"area":${((state % 1000) * ((state >>> 10) % 1000)) % 9973}}`;
      if (line !== expected) throw new Error(`Line ${id + 1} of ${path} is ${line} and must be ${expected}`);
      id++;
    }
  }
  if (id !== Number(count) || rest !== "") throw new Error(`${path} has ${id} lines and must have ${count}`);
}

function rate({ records, seconds }: Run): number {
  return records / seconds;
}

function inMillions(rate: number): string {
  return `${(rate / 1e6).toFixed(2)} million records/s`;
}

try {
  console.log(
    `${
      (await program(Deno.execPath(), ["run", "--allow-write", "examples/generate_records.ts", input, count])).trim()
    }, ${workers} workers`,
  );
  const [ours, single, double]: [number[], number[], number[]] = [[], [], []];
  let peaks: number[] = [];
  for (let round = 0; round < Number(rounds); round++) {
    await cleanUp();
    single.push(rate(await singleLoop()));
    await cleanUp();
    double.push(rate(await twoLoops()));
    await cleanUp();
    const run = await batch();
    peaks = run.peaks;
    ours.push(rate(run));
    const [one, two, batched] = [single, double, ours].map((rates) => inMillions(rates.at(-1)!));
    console.log(`round ${round + 1}: single loop ${one}, two of them side by side ${two}, batch ${batched}`);
  }
  await check(`${folder}/batch.ndjson`);
  const [best, alone, sideBySide] = [ours, single, double].map((rates) => summarise(rates).median) as [number, number, number];
  console.log(`batch: complete and in order; ${(best / alone).toFixed(2)} times the single loop`);
  console.log(`two single loops side by side: ${(sideBySide / alone).toFixed(2)} times the single loop`);
  console.log(`memory: ${peaks[1]?.toFixed(0)} MB at the most after a second, ${peaks.at(-1)?.toFixed(0)} MB at the end`);
  let theirs = 0;
  for (const chunk of [500, 5000, 20_000]) {
    const run = await python(chunk, Math.ceil(Number(count) / 20)).catch((error) => {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    });
    if (run === undefined) break;
    console.log(`ProcessPoolExecutor.map with chunks of ${chunk}: ${inMillions(rate(run))}`);
    theirs = Math.max(theirs, rate(run));
  }
  if (theirs > 0) console.log(`batch: ${(best / theirs).toFixed(1)} times ProcessPoolExecutor.map`);
} finally {
  await Deno.remove(folder, { recursive: true });
}
