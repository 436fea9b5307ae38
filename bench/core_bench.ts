/**
 * What the parts cost, each beside a baseline: `deno bench`.
 *
 * @module
 */

import { ProcessPool, Semaphore } from "@procpool/process-pool";
import { Queue } from "../pool/queue.ts";

const gate = new Semaphore(1);

Deno.bench("a resolved promise", { group: "gate", baseline: true }, async () => {
  await Promise.resolve();
});

Deno.bench("Semaphore.acquire() without contention", { group: "gate" }, async () => {
  const permit = await gate.acquire();
  permit[Symbol.dispose]();
});

Deno.bench("Semaphore.tryAcquire()", { group: "gate" }, () => {
  gate.tryAcquire()![Symbol.dispose]();
});

const array: number[] = [];
const queue = new Queue<number>();
for (let i = 0; i < 1000; i++) {
  array.push(i);
  queue.push(i);
}

Deno.bench("Array of 1,000: push and shift", { group: "queue", baseline: true }, () => {
  array.push(1);
  array.shift();
});

Deno.bench("Queue of 1,000: push and shift", { group: "queue" }, () => {
  queue.push(1);
  queue.shift();
});

const bare = new Worker(`data:text/javascript,${encodeURIComponent("onmessage = ({ data }) => postMessage(data + 1)")}`, {
  type: "module",
});
const pool = new ProcessPool({ maxWorkers: 1, idleTimeout: Infinity });
const inline = new ProcessPool({ maxWorkers: 1, idleTimeout: Infinity, backend: "inline" });
const increment = (x: number) => x + 1;
await pool.run(increment, 1);

Deno.bench("bare postMessage, there and back", { group: "round trip", baseline: true }, async () => {
  await new Promise((resolve) => {
    bare.onmessage = resolve;
    bare.postMessage(1);
  });
});

Deno.bench("ProcessPool.run(), there and back", { group: "round trip" }, async () => {
  await pool.run(increment, 1);
});

Deno.bench("ProcessPool.run(), inline", { group: "round trip" }, async () => {
  await inline.run(increment, 1);
});

const items = Array.from({ length: 1000 }, (_, i) => i);

Deno.bench("1,000 items by Array.map", { group: "map", baseline: true }, () => {
  items.map(increment);
});

Deno.bench("1,000 items by ProcessPool.map()", { group: "map" }, async () => {
  for await (const _ of pool.map(increment, items));
});
