/**
 * What the parts cost, each compared with a baseline: `deno bench`.
 *
 * @module
 */

import { ProcessPool, Semaphore } from "@procpool/process-pool";
import { Queue } from "../pool/queue.ts";
import { makeQueueMemory, openSharedQueue } from "../worker/shared_queue.ts";

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

// The protocol: a hundred small values, to the other end and back within this thread.

const memory = makeQueueMemory(2 ** 14, 2 ** 20);
const [writer, reader] = [openSharedQueue(memory), openSharedQueue(memory)];
const nothing: unknown[] = [];

function throughQueue(values: unknown[]): void {
  for (const value of values) writer.push(1, 2, value, nothing);
  while (reader.take());
}

class Point {
  x: number;
  y: number;

  constructor(x: number, y: number) {
    this.x = x;
    this.y = y;
  }
}

const hundred = Array.from({ length: 100 }, (_, i) => i);
const samples: Record<string, unknown[]> = {
  "numbers": hundred,
  "records of 200 bytes": hundred.map((id) => ({
    id,
    name: `a record with the number ${id}`,
    place: { lat: 48.137 + id / 100, lon: 11.576 - id / 100 },
    tags: ["alpha", "beta"],
    note: "some text of a few words, as records have it",
  })),
  "instances": hundred.map((i) => new Point(i, i / 2)),
  "Maps of 10 entries": hundred.map((i) => new Map(Array.from({ length: 10 }, (_, k) => [`key ${k}`, i]))),
};
// The queue knows the keys of all these, and then no others: so each of the following has its keys with it.
for (const values of Object.values(samples)) throughQueue(values);
for (let i = 0; i < 300; i++) throughQueue([{ [`other ${i}`]: i }]);
samples["dictionaries of 10 keys"] = hundred.map((i) => Object.fromEntries(hundred.slice(0, 10).map((k) => [`key ${i} ${k}`, k])));

for (const [name, values] of Object.entries(samples)) {
  Deno.bench(`structuredClone() of an array of 100 ${name}`, { group: `100 ${name}`, baseline: true }, () => {
    structuredClone(values);
  });

  Deno.bench(`100 ${name} through shared memory, one by one`, { group: `100 ${name}` }, () => throughQueue(values));
}

const bare = new Worker(`data:text/javascript,${encodeURIComponent("onmessage = ({ data }) => postMessage(data + 1)")}`, {
  type: "module",
});
const hundreds = new Worker(
  `data:text/javascript,${encodeURIComponent("onmessage = ({ data }) => postMessage(data.map((x) => x + 1))")}`,
  { type: "module" },
);
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

Deno.bench("1,000 numbers in ten messages of 100, there and back, one worker", { group: "1,000 calls", baseline: true }, async () => {
  let left = 10;
  await new Promise<void>((resolve) => {
    hundreds.onmessage = () => --left === 0 && resolve();
    for (let i = 0; i < 1000; i += 100) hundreds.postMessage(items.slice(i, i + 100));
  });
});

Deno.bench("1,000 calls of ProcessPool.run(), one worker", { group: "1,000 calls" }, async () => {
  await Promise.all(items.map((item) => pool.run(increment, item)));
});

Deno.bench("1,000 items by Array.map", { group: "map", baseline: true }, () => {
  items.map(increment);
});

Deno.bench("1,000 items by ProcessPool.map()", { group: "map" }, async () => {
  for await (const _ of pool.map(increment, items));
});
