/**
 * What the queue costs: the figures on which docs/cluster.md bases its calculations. It starts a Redis server and two hosts of one worker
 * each; the tasks do next to nothing, so that only the way there and back is measured.
 *
 * ```sh
 * deno run --allow-all --config cluster/deno.json cluster/bench.ts
 * ```
 *
 * @module
 */

import { Redis } from "ioredis";
import { tasks } from "./tests/cluster_tasks.ts";
import { openPool, RedisServer, startHost } from "./tests/helpers.ts";

await using server = await RedisServer.start();
await using one = await startHost(server, { workers: 1, lockDuration: 15_000, stalledInterval: 5000 });
await using two = await startHost(server, { workers: 1, lockDuration: 15_000, stalledInterval: 5000 });
await using pool = await openPool(server);
const client = new Redis(server.url);

/** Seconds of processor time that the server has used. */
async function serverTime(): Promise<number> {
  const info = await client.info("cpu");
  return Number(/used_cpu_sys:([\d.]+)/.exec(info)![1]) + Number(/used_cpu_user:([\d.]+)/.exec(info)![1]);
}

async function memory(): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await client.info("memory"))![1]);
}

async function measure(name: string, jobs: number, items: number, work: () => Promise<unknown>): Promise<void> {
  const [start, before] = [performance.now(), await serverTime()];
  await work();
  const seconds = (performance.now() - start) / 1000;
  const server = await serverTime() - before;
  console.log(
    `${name.padEnd(28)} ${(jobs / seconds).toFixed(0).padStart(7)} jobs/s ${(items / seconds).toFixed(0).padStart(9)} items/s ` +
      `${(1e6 * server / jobs).toFixed(0).padStart(6)} us of the server a job`,
  );
}

await pool.run(tasks.add, 1, 1);
const trips: number[] = [];
for (let i = 0; i < 300; i++) {
  const start = performance.now();
  await pool.run(tasks.add, i, 1);
  trips.push(performance.now() - start);
}
trips.sort((a, b) => a - b);
console.log(`one job there and back: median ${trips[150]!.toFixed(2)} ms, 99 of 100 within ${trips[297]!.toFixed(2)} ms`);

const numbers = (count: number): Iterable<number> => Array.from({ length: count }, (_, n) => n);
await measure("submit, 1000 in flight", 5000, 5000, async () => {
  const results: Promise<number>[] = [];
  for (const n of numbers(5000)) results.push((await pool.submit(tasks.add, n, 1)).result());
  await Promise.all(results);
});
for (const [chunkSize, count] of [[1, 3000], [10, 30_000], [100, 100_000], [1000, 300_000]] as const) {
  await measure(`map, chunks of ${chunkSize}`, count / chunkSize, count, async () => {
    for await (const _ of pool.map(tasks.double, numbers(count), { chunkSize }));
  });
}

// The size of a job while it waits: the hosts are gone.
await one[Symbol.asyncDispose]();
await two[Symbol.asyncDispose]();
const before = await memory();
for (const n of numbers(1000)) await pool.submit(tasks.add, n, 1);
while ((await pool.status()).waiting < 1000) await new Promise((resolve) => setTimeout(resolve, 10));
console.log(`a small job takes ${((await memory() - before) / 1000).toFixed(0)} bytes of the server's memory while it waits`);
await client.quit();
