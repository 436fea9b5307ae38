/**
 * A cluster on one machine: a Redis server, two hosts, and a producer that maps 10,000 records. In the middle one of the hosts is killed,
 * as a power cut would do it. All results arrive, in order, each once.
 *
 * It needs `redis-server` (`apt-get install redis-server`), which it starts and stops.
 *
 * ```sh
 * deno run --allow-run --allow-net=127.0.0.1 -R -W --ignore-env --no-prompt --config cluster/deno.json examples/cluster/main.ts
 * ```
 *
 * @module
 */

import { ClusterPool } from "@procpool/cluster";
import { assert, assertEquals } from "@std/assert";
import { tasks } from "./cluster_tasks.ts";
import { steps } from "./tasks.ts";

const RECORDS = 10_000;
const CHUNK = 50;

const folder = await Deno.makeTempDir({ prefix: "cluster-example-" });
const children: Deno.ChildProcess[] = [];

/** Starts a program and waits until it says that it is ready. */
async function start(command: string, args: string[], ready: string): Promise<Deno.ChildProcess> {
  const child = new Deno.Command(command, { args, stdin: "null", stdout: "piped" }).spawn();
  children.push(child);
  const reader = child.stdout.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  for (let said = ""; !said.includes(ready);) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`${command} did not start: ${said}`);
    said += value;
  }
  // What it says from now on is of no interest, but must not fill the pipe.
  (async () => {
    while (!(await reader.read()).done);
  })();
  return child;
}

async function stop(child: Deno.ChildProcess): Promise<void> {
  try {
    child.kill("SIGKILL");
  } catch (error) {
    // It has ended already.
    if (!(error instanceof TypeError)) throw error;
  }
  await child.status;
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return (listener.addr as Deno.NetAddr).port;
}

function startHost(name: string): Promise<Deno.ChildProcess> {
  const host = new URL("./host.ts", import.meta.url).pathname;
  const config = new URL("../../cluster/deno.json", import.meta.url).pathname;
  // This is all that a host may do.
  const permissions = [
    `--allow-net=127.0.0.1:${port}`,
    `--allow-read=${new URL(".", import.meta.url).pathname}`,
    "--ignore-env",
    "--no-prompt",
  ];
  return start(Deno.execPath(), ["run", "--config", config, ...permissions, host, url, name], "is ready");
}

function* records(): Generator<number> {
  for (let n = 1; n <= RECORDS; n++) yield n;
}

const port = freePort();
const url = `redis://127.0.0.1:${port}`;
try {
  const memory = ["--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"];
  await start("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder, ...memory], "Ready to accept connections");
  const [_one, two] = [await startHost("host-1"), await startHost("host-2")];

  const redelivered: string[] = [];
  await using pool = await ClusterPool.open({
    queue: "example",
    connection: url,
    tasks,
    queueSize: 8,
    onRedelivered: ({ id, items = 1 }) => redelivered.push(`${Number(id) + 1} to ${Number(id) + items}`),
  });
  const { hosts } = await pool.status();
  console.log(`hosts: ${hosts?.map(({ name }) => name).sort().join(", ")}`);

  const results: number[] = [];
  for await (const result of pool.map(steps, records(), { chunkSize: CHUNK })) {
    results.push(result);
    if (results.length === RECORDS / 2) {
      two.kill("SIGKILL");
      console.log(`${results.length} results: killed host-2`);
    }
  }

  console.log(`${results.length} results, in order`);
  for (const range of redelivered) console.log(`redelivered: records ${range}`);
  const { completed, failed, hosts: left } = await pool.status();
  console.log(`chunks: ${completed} completed, ${failed} failed; hosts left: ${left?.map(({ name }) => name).join(", ")}`);

  // In order and each once: the same as one process computes.
  assertEquals(results, await Promise.all([...records()].map(steps)));
  assert(redelivered.length >= 1, "nothing was redelivered");
  assertEquals([completed, failed], [RECORDS / CHUNK, 0]);
} finally {
  for (const child of children.reverse()) await stop(child);
  await Deno.remove(folder, { recursive: true });
}

// Output, in which the records that are redelivered vary:
// hosts: host-1, host-2
// 5000 results: killed host-2
// 10000 results, in order
// redelivered: records … to …
// redelivered: records … to …
// chunks: 200 completed, 0 failed; hosts left: host-1
