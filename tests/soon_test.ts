/**
 * What else a thread has to do goes on beside a pool that keeps it busy.
 *
 * @module
 */

import { assert } from "@std/assert";
import { asCompleted, ProcessPool, wait } from "@procpool/process-pool";
import { betweenTurns } from "../worker/soon.ts";
import { granted } from "./fixtures.ts";
import { turn, until } from "./helpers.ts";

/**
 * How many turns of the event loop an exchange over sockets takes, from its start, beside something that keeps this thread busy until it is
 * over.
 */
async function turnsOfExchange(keepBusy: (begin: () => void, isOver: () => boolean) => Promise<void>): Promise<number> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let isOver = false;
  let turns = 0;
  let exchange: Promise<unknown> | undefined;
  async function answer(): Promise<void> {
    using connection = await listener.accept();
    await connection.write(new Uint8Array(1));
    await connection.read(new Uint8Array(1));
  }
  async function ask(): Promise<void> {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port: (listener.addr as Deno.NetAddr).port });
    await connection.read(new Uint8Array(1));
    await connection.write(new Uint8Array(1));
  }
  const begin = (): void => {
    const timer = setInterval(() => turns++);
    exchange = Promise.all([answer(), ask()]).finally(() => {
      isOver = true;
      clearInterval(timer);
    });
  };
  await keepBusy(begin, () => isOver);
  await exchange;
  return turns;
}

Deno.test("An inline pool lets the network go on beside tiny jobs that follow each other (needs --allow-net=127.0.0.1)", {
  ignore: !granted("net"),
}, async () => {
  await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1 });
  const turns = await turnsOfExchange(async (begin, isOver) => {
    begin();
    while (!isOver()) await pool.run(() => {});
  });
  // It needs several looks at sockets, which would be sixty turns apart.
  assert(turns < 60, `${turns} turns`);
});

Deno.test("An inline pool lets the network go on beside queued jobs of several workers that compute (needs --allow-net=127.0.0.1)", {
  ignore: !granted("net"),
}, async () => {
  await using pool = new ProcessPool({ backend: "inline", maxWorkers: 2 });
  const compute = (ms: number): void => {
    for (const end = performance.now() + ms; performance.now() < end;);
  };
  let jobs = 0;
  await turnsOfExchange(async (begin, isOver) => {
    const futures = await Promise.all(Array.from({ length: 300 }, () => pool.submit(compute, 5)));
    begin();
    for (const future of futures) {
      if (isOver()) future.cancel();
      else await future.result().then(() => jobs++);
    }
  });
  // With one tick a turn it needs hundreds.
  assert(jobs < 100, `${jobs} jobs`);
});

Deno.test("An inline pool does not wait for dozens of turns of other work on this thread", async () => {
  await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1 });
  let isOver = false;
  let steps = 0;
  async function step(): Promise<void> {
    for (; !isOver; steps++) {
      for (const end = performance.now() + 5; performance.now() < end;);
      await new Promise((resolve) => void setImmediate(resolve));
    }
  }
  const stepped = step();
  let most = 0;
  for (let i = 0; i < 10; i++) {
    const before = steps;
    await pool.run(() => {});
    most = Math.max(most, steps - before);
    await new Promise((resolve) => void setImmediate(resolve));
  }
  isOver = true;
  await stepped;
  assert(most < 30, `${most} steps`);
});

/** How many results a consumer that computes has taken when an exchange over the network is over that began with the first. */
async function takenDuringExchange(results: AsyncIterable<unknown>): Promise<number> {
  let taken = 0;
  await turnsOfExchange(async (begin, isOver) => {
    for await (const _ of results) {
      if (taken++ === 0) begin();
      if (isOver()) break;
      for (const end = performance.now() + 5; performance.now() < end;);
    }
  });
  return taken;
}

for (const settled of [false, true]) {
  const kind = settled ? "outcomes, some of errors," : "results";
  Deno.test(`A map lets the network go on beside a consumer that computes, of ${kind} that are ready (needs --allow-net=127.0.0.1)`, {
    ignore: !granted("net"),
  }, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1 });
    const task = (x: number) => {
      if (x < 0) throw new Error("no");
    };
    const items = Array.from({ length: 300 }, (_, i) => settled ? i - 10 : i);
    const options = settled ? { settled, chunkSize: 300 } : { chunkSize: 300 };
    const taken = await takenDuringExchange(pool.map<number, unknown>(task, items, options));
    assert(taken < 200, `${taken} results`);
  });
}

Deno.test("asCompleted() lets the network go on beside a consumer that computes (needs --allow-net=127.0.0.1)", {
  ignore: !granted("net"),
}, async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const futures = await Promise.all(Array.from({ length: 300 }, (_, i) => pool.submit((x: number) => x, i)));
  await wait(futures);
  const taken = await takenDuringExchange(asCompleted(futures));
  assert(taken < 200, `${taken} futures`);
});

Deno.test("A map lets the network go on beside an input that never waits (needs --allow-net=127.0.0.1)", {
  ignore: !granted("net"),
}, async () => {
  await using pool = new ProcessPool({ maxWorkers: 2 });
  const turns = await turnsOfExchange(async (begin, isOver) => {
    async function* input() {
      for (let i = 0; !isOver(); i++) yield i;
    }
    let results = 0;
    // Its chunks are large by then.
    for await (const _ of pool.map((x: number) => x, input())) if (++results === 300_000) begin();
  });
  // Each of its looks at sockets would be sixty turns apart.
  assert(turns < 120, `${turns} turns`);
});

Deno.test("betweenTurns() calls back although tests have put something in the place of what it waits with, for a while", async () => {
  const original = { queueMicrotask, setImmediate };
  const lost: (() => void)[] = [];
  let called = 0;
  const hear = (): void => {
    called++;
    for (const end = performance.now() + 15; performance.now() < end;);
  };
  // No turn has begun.
  await new Promise<void>((resolve) => betweenTurns(resolve));
  await turn();
  // One is due now, so that it looks how long it keeps the thread busy.
  hear();
  const lose = (callback: () => void): void => void lost.push(callback);
  Object.assign(globalThis, { queueMicrotask: lose, setImmediate: lose });
  betweenTurns(hear);
  Object.assign(globalThis, original);
  try {
    await until(() => called === 2);
    betweenTurns(hear);
    betweenTurns(hear);
    await until(() => called === 4);
  } finally {
    for (const callback of lost) callback();
  }
});
