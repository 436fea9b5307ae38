import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import {
  ASLEEP,
  AWAKE,
  CALLER,
  CHUNK,
  ITEM,
  ITEMS,
  Line,
  type LineMemory,
  LISTENING,
  MAY_SPIN,
  PACE,
  RETURNED,
  WORKER,
} from "../worker/line.ts";
import { type LineEnd, openLine } from "../worker/line_end.ts";
import type { Runtime } from "../worker/runtime.ts";
import { openSharedQueue, type QueueMemory } from "../worker/shared_queue.ts";
import { chunkOf, within } from "./fixtures.ts";
import { turn, until } from "./helpers.ts";

/** Who spins for the next job or for a reply before it sleeps, and who is woken, and when: by a clock that these tests turn. */

const CORES = navigator.hardwareConcurrency;

/** During the action, the clock of this thread shows what `now` returns. */
async function withClock(now: () => number, act: () => Promise<void>): Promise<void> {
  Object.defineProperty(performance, "now", { value: now, configurable: true });
  try {
    await act();
  } finally {
    Reflect.deleteProperty(performance, "now");
  }
}

function makeMemory(): LineMemory {
  const queue = (): QueueMemory => ({ ring: new SharedArrayBuffer(2 ** 17), bulk: new SharedArrayBuffer(2 ** 12) });
  return { requests: queue(), replies: queue(), bells: new SharedArrayBuffer(256) };
}

interface Jobs {
  jobs: number;
  /** How long each takes. */
  ms: number;
  core?: boolean;
  /** After how many ms of spinning the core is taken. */
  taken?: number;
  /** How many jobs there were before. */
  before?: number;
  /** How many ms the worker waits for a job, again and again, and the last time for all of them. */
  gaps?: readonly number[];
}

/** How long a worker spins after these jobs, in ms. */
async function timeSpun({ jobs, ms, core = true, taken = Infinity, before = 0, gaps = [0.1] }: Jobs): Promise<number> {
  const memory = makeMemory();
  const bells = new Int32Array(memory.bells);
  bells[MAY_SPIN] = core ? 1 : 0;
  bells[WORKER] = LISTENING;
  new Float64Array(memory.bells)[PACE] = ms;
  let time = 0, spun = 0, done = 0;
  const runtime = {
    hasRoom: true,
    idle: true,
    callAll(calls, most) {
      let count = 0;
      do {
        count++;
        time += ms;
      } while (count < most && calls.takeNext());
      done += count;
      return count;
    },
  } satisfies Partial<Runtime> as Runtime;
  const requests = openSharedQueue(memory.requests);
  await withClock(() => time, async () => {
    const end = openLine({
      memory,
      runtime,
      hasTimers: false,
      openSharedQueue: (memory) => {
        const queue = openSharedQueue(memory);
        queue.spin = (part) => {
          spun += part;
          if (spun >= taken) bells[MAY_SPIN] = 0;
          return false;
        };
        return Object.create(queue, {
          hasNext: {
            get() {
              if (bells[WORKER] === ASLEEP) come();
              return queue.hasNext;
            },
          },
        });
      },
    });
    let come = (): void => {};
    async function run(jobs: number, gaps: readonly number[]): Promise<void> {
      const toCome = [...gaps];
      come = () => {
        const gap = toCome.shift();
        if (gap === undefined) return;
        time += gap;
        spun = 0;
        bells[MAY_SPIN] = core ? 1 : 0;
        for (let i = 0; i < (toCome.length > 0 ? 1 : jobs); i++) requests.push(1, i, 0, []);
      };
      requests.push(1, 0, 0, []);
      done = 0;
      end.receive({ type: "wake" });
      while (done < gaps.length + jobs || Atomics.load(bells, WORKER) !== LISTENING) await turn();
    }
    for (let left = before; left > 0; left -= 1000) await run(1000, [0.1]);
    await run(jobs, gaps);
  });
  return Number(spun.toFixed(3));
}

for (
  const [what, spins, given] of [
    ["one long job", 0.2, { jobs: 1, ms: 100 }],
    ["two long jobs", 0.2, { jobs: 2, ms: 100 }],
    ["three long jobs", 0, { jobs: 3, ms: 100 }],
    ["32 jobs of 20 µs", 0.2, { jobs: 32, ms: 0.02 }],
    ["33 jobs of 20 µs", 0, { jobs: 33, ms: 0.02 }],
    ["33 tiny jobs, when it is new", 0, { jobs: 33, ms: 0.001 }],
    ["1024 tiny jobs, when it has done 60,000", 0.2, { jobs: 1024, ms: 0.001, before: 60_000 }],
    ["1025 tiny jobs, when it has done 60,000", 0, { jobs: 1025, ms: 0.001, before: 60_000 }],
    ["33 jobs of 20 µs, when it has done 60,000", 0, { jobs: 33, ms: 0.02, before: 60_000 }],
    ["one job, if two came late", 0.2, { jobs: 1, ms: 0.001, gaps: [0.5, 0.5] }],
    ["one job, if three in a row came late", 0, { jobs: 1, ms: 0.001, gaps: [0.5, 0.5, 0.5] }],
    ["one job, if three came late with one between that did not", 0.2, { jobs: 1, ms: 0.001, gaps: [0.5, 0.5, 0.3, 0.5] }],
    ["one job, until another takes the core", 0.06, { jobs: 1, ms: 0.001, taken: 0.05 }],
    ["one job, when the others have all cores", 0, { jobs: 1, ms: 0.001, core: false }],
  ] as const
) {
  Deno.test(`A worker ${spins > 0 ? "spins" : "does not spin"} after ${what}`, async () => {
    assertEquals(await within(timeSpun(given)), spins);
  });
}

/**
 * What a worker does before the first turn of its event loop: a job comes as it waits, after so many ms each time; with "-" none does, with
 * "two" two come after 9 ms.
 */
async function untilTurn(gaps: readonly (number | "-" | "two")[]): Promise<{ seen: string[]; pace: number }> {
  const memory = makeMemory();
  const bells = new Int32Array(memory.bells);
  bells[WORKER] = LISTENING;
  bells[CALLER] = ASLEEP;
  new Float64Array(memory.bells)[PACE] = 0.01;
  const requests = openSharedQueue(memory.requests);
  const toCome = [...gaps];
  const seen: string[] = [];
  const first = Promise.withResolvers<void>();
  const { wait, waitAsync } = Atomics;
  let time = 0;
  const runtime = {
    hasRoom: true,
    idle: true,
    callAll({ number }) {
      time += 0.01;
      bells[CALLER] = ASLEEP;
      end.returned(number, number);
      seen.push("job");
      return 1;
    },
  } satisfies Partial<Runtime> as unknown as Runtime;
  Atomics.wait = ((_bells: Int32Array, _word: number, _value: number, ms: number) => {
    seen.push(`${bells[CALLER] === AWAKE ? "caller woken, " : ""}sleeps for ${ms} ms`);
    const gap = toCome.shift();
    time += gap === "two" ? 9 : gap === "-" || gap === undefined ? ms : gap;
    for (let left = gap === "two" ? 2 : typeof gap === "number" ? 1 : 0; left > 0; left--) requests.push(1, 0, 0, []);
    return "timed-out";
  }) as typeof wait;
  Atomics.waitAsync = ((...args: Parameters<typeof waitAsync>) => {
    // The others are for the bell.
    if (args[0].length === 1) first.resolve();
    return waitAsync(...args);
  }) as typeof waitAsync;
  let end!: LineEnd;
  await withClock(() => time, async () => {
    end = openLine({ memory, openSharedQueue, runtime, hasTimers: false });
    Object.assign(Atomics, { wait, waitAsync });
    requests.push(1, 0, 0, []);
    end.receive({ type: "wake" });
    await within(first.promise);
    end.close();
  });
  return { seen: seen.slice(-3), pace: new Float64Array(memory.bells)[PACE]! };
}

for (
  const [what, gaps, last] of [
    ["sleeps for a moment, so that a caller that takes its time reads the reply", [0.5, 0.5, 0.5, 9, "-"], [
      "caller woken, sleeps for 4 ms",
      "job",
      "caller woken, sleeps for 0.2 ms",
    ]],
    ["runs a job that comes in that moment, but no further one", [0.5, 0.5, 0.5, 9, 0.1, 0.1], [
      "job",
      "caller woken, sleeps for 0.2 ms",
      "job",
    ]],
    ["runs no job that waits already", [0.5, 0.5, 0.5, "two"], ["job", "caller woken, sleeps for 4 ms", "job"]],
    ["does not sleep if its caller is quick", [0.1, 0.1, 0.1, 10], ["job", "caller woken, sleeps for 4 ms", "job"]],
  ] as const
) {
  Deno.test(`Before a turn of its event loop a worker ${what}`, async () => {
    const { seen, pace } = await untilTurn(gaps);
    assertEquals(seen, [...last]);
    // Each job takes 10 µs: the time that the worker sleeps before one does not count.
    assertAlmostEquals(pace, 0.01, 1e-6);
  });
}

Deno.test("Spinning goes by the original clock: a task that stops it keeps no worker from its event loop", async () => {
  const queue = openSharedQueue(makeMemory().requests);
  await withClock(() => {
    throw new Error("The clock has stopped");
  }, () => {
    assertEquals(queue.spin(0.01), false);
    return Promise.resolve();
  });
});

Deno.test("Spinning ends even if the clock stands still", async () => {
  await withClock(() => 0, () => {
    assertEquals(openSharedQueue(makeMemory().requests).spin(1), false);
    return Promise.resolve();
  });
});

function openQuietLine(port: MessagePort, returned: () => void = () => {}): Line {
  return new Line(port, { message() {}, delivered() {}, unreadable() {}, returned });
}

interface Given {
  /** How long a job takes lately, in ms. */
  pace: number;
  calls?: number;
  /** What the worker is doing when calls are sent to it, and afterwards. */
  worker?: number;
  later?: number;
  /** After how many ms it answers one. */
  after?: number;
  /** Called when they are sent. */
  meanwhile?: (line: Line) => void;
}

/** What the caller does after sending calls: whether it finds the first reply, or waits for it. */
async function call(
  { pace, calls = 1, worker = AWAKE, later = worker, after = 0.01, meanwhile }: Given,
): Promise<"found" | "waits" | "nothing"> {
  const { port1, port2 } = new MessageChannel();
  const { waitAsync } = Atomics;
  /** What happened first. */
  let outcome: "found" | "waits" | "nothing" = "nothing";
  const note = (what: "found" | "waits"): void => void (outcome === "nothing" && (outcome = what));
  let time = 0;
  let answer = (): void => {};
  await withClock(() => {
    time += 0.001;
    if (time > after) answer();
    return time;
  }, async () => {
    const line = openQuietLine(port1, () => note("found"));
    const replies = openSharedQueue(line.memory.replies);
    answer = () => {
      answer = () => {};
      replies.push(RETURNED, 0, "value", []);
    };
    const bells = new Int32Array(line.memory.bells);
    new Float64Array(line.memory.bells)[PACE] = pace;
    bells[WORKER] = worker;
    Atomics.waitAsync = ((...args: Parameters<typeof waitAsync>) => {
      note("waits");
      return waitAsync(...args);
    }) as typeof waitAsync;
    try {
      for (let run = 0; run < calls; run++) line.call(1, run, 0, []);
      line.ring(calls);
      bells[WORKER] = later;
      meanwhile?.(line);
      await turn();
    } finally {
      Atomics.waitAsync = waitAsync;
      line.close();
      port2.close();
    }
  });
  return outcome;
}

const NEEDS = "needs two cores";
const ignore = CORES < 2;

Deno.test({
  name: `The caller spins for the result of a short job, and waits for that of a longer one (${NEEDS})`,
  ignore,
  async fn() {
    assertEquals(await call({ pace: 0.001 }), "found");
    assertEquals(await call({ pace: 0.04, after: 0.04 }), "found");
    assertEquals(await call({ pace: 0.04, after: 0.06 }), "waits");
    assertEquals(await call({ pace: 0.06 }), "waits");
    assertEquals(await call({ pace: Infinity }), "waits");
  },
});

Deno.test({
  name: `The caller spins for the results of several jobs if all are due soon (${NEEDS})`,
  ignore,
  async fn() {
    assertEquals(await call({ pace: 0.02, calls: 2 }), "found");
    assertEquals(await call({ pace: 0.02, calls: 3 }), "waits");
  },
});

Deno.test({
  name: `The caller spins for the next result, too, after it has taken one (${NEEDS})`,
  ignore,
  async fn() {
    for (const [pace, expected] of [[0.02, 0], [0.06, 1]] as const) {
      const { port1, port2 } = new MessageChannel();
      const { waitAsync } = Atomics;
      let waits = 0, time = 0, due = Infinity;
      let answer = (): void => {};
      await withClock(() => {
        time += 0.001;
        if (time >= due) answer();
        return time;
      }, async () => {
        const line = openQuietLine(port1, () => due = Math.min(due, time + 0.02));
        const replies = openSharedQueue(line.memory.replies);
        new Float64Array(line.memory.bells)[PACE] = pace;
        new Int32Array(line.memory.bells)[WORKER] = AWAKE;
        Atomics.waitAsync = ((...args: Parameters<typeof waitAsync>) => {
          waits++;
          return waitAsync(...args);
        }) as typeof waitAsync;
        try {
          for (let run = 0; run < 2; run++) line.call(1, run, 0, []);
          line.ring(2);
          replies.push(RETURNED, 0, "value", []);
          answer = () => {
            answer = () => {};
            replies.push(RETURNED, 1, "value", []);
          };
          for (let turns = 0; turns < 5; turns++) await turn();
        } finally {
          Atomics.waitAsync = waitAsync;
          line.close();
          port2.close();
        }
      });
      assertEquals(waits, expected);
    }
  },
});

Deno.test({
  name:
    `The caller waits for a worker that has to be woken, and for one that has gone to its event loop since it was sent a job (${NEEDS})`,
  ignore,
  async fn() {
    assertEquals(await call({ pace: 0.001, worker: LISTENING }), "waits");
    assertEquals(await call({ pace: 0.001, worker: ASLEEP }), "waits");
    assertEquals(await call({ pace: 0.001, later: LISTENING }), "waits");
  },
});

Deno.test("A caller does nothing about a line that is closed before it looks", async () => {
  assertEquals(await call({ pace: 0.001, meanwhile: (line) => line.close() }), "nothing");
});

Deno.test({
  name: `While another worker has a job the caller waits, so that no reply waits for it (${NEEDS})`,
  ignore,
  async fn() {
    const { port1, port2 } = new MessageChannel();
    const other = openQuietLine(port1);
    assertEquals(await call({ pace: 0.001 }), "found");
    other.call(1, 0, 0, []);
    other.ring(1);
    assertEquals(await call({ pace: 0.001 }), "waits");
    openSharedQueue(other.memory.replies).push(RETURNED, 0, "value", []);
    other.drain();
    assertEquals(await call({ pace: 0.001 }), "found");
    other.post(chunkOf(new Float64Array(2), 1), []);
    assertEquals(await call({ pace: 0.001 }), "waits");
    openSharedQueue(other.memory.replies).push(ITEMS, 1, new Float64Array(2), [0, true, 0]);
    other.drain();
    assertEquals(await call({ pace: 0.001 }), "found");
    other.call(1, 1, 0, []);
    other.ring(1);
    other.close();
    port2.close();
    assertEquals(await call({ pace: 0.001 }), "found");
  },
});

Deno.test({
  name: `Workers may spin as long as there are cores for all that have jobs or may spin, and for the caller (${NEEDS})`,
  ignore,
  fn() {
    const ports: MessagePort[] = [];
    const lines: Line[] = [];
    const open = (): Line => {
      const { port1, port2 } = new MessageChannel();
      ports.push(port2);
      const line = openQuietLine(port1);
      lines.push(line);
      return line;
    };
    let run = 0;
    const ring = (line: Line): void => {
      line.call(1, run++, 0, []);
      line.ring(1);
    };
    const answer = (line: Line): void => {
      openSharedQueue(line.memory.replies).push(RETURNED, run - 1, "value", []);
      line.drain();
    };
    const maySpin = (): number[] => lines.map((line) => new Int32Array(line.memory.bells)[MAY_SPIN]!);
    try {
      const [first, ...others] = Array.from({ length: CORES }, open) as [Line, ...Line[]];
      const calm = (): void => {
        for (let i = 0; i < 65; i++) {
          ring(first);
          answer(first);
        }
      };
      calm();
      assertEquals(maySpin()[0], 1);
      for (const line of others.slice(1)) ring(line);
      assertEquals(maySpin(), [1, 0, ...Array(CORES - 2).fill(1)]);
      // The first has done its job, but may be spinning.
      ring(others[0]!);
      assertEquals(maySpin(), Array(CORES).fill(0));
      for (const line of others) line.close();
      ring(first);
      answer(first);
      assertEquals(maySpin()[0], 0);
      calm();
      assertEquals(maySpin()[0], 1);
    } finally {
      for (const line of lines) line.close();
      for (const port of ports) port.close();
    }
  },
});

Deno.test("A worker wakes the caller for items of a chunk that goes on, if none came within 0.8 ms: the next may take long", async () => {
  const memory = makeMemory();
  const bells = new Int32Array(memory.bells);
  let time = 100;
  new Float64Array(memory.bells)[PACE] = 1;
  const woken: boolean[] = [];
  function wakes(wait: number, values: ArrayLike<unknown>, last = false): boolean {
    time += wait;
    bells[CALLER] = ASLEEP;
    end!.reply({ type: "items", run: 1, from: 0, values, thrown: [], last, elapsed: 0 });
    return bells[CALLER] === AWAKE;
  }
  const numbers = new Float64Array(20);
  const runtime = {
    hasRoom: true,
    idle: true,
    receive() {
      woken.push(wakes(0, [{}]), wakes(0.7, [{}]), wakes(0.7, numbers), wakes(0.9, [{}]), wakes(0.9, numbers));
      // When it is done, it is known at once whether another job comes next.
      woken.push(wakes(0.9, numbers, true));
    },
  } satisfies Partial<Runtime> as unknown as Runtime;
  let end: LineEnd | undefined;
  await withClock(() => time, async () => {
    end = openLine({ memory, runtime, openSharedQueue, hasTimers: false });
    openSharedQueue(memory.requests).push(CHUNK, 1, {}, []);
    end.receive({ type: "wake" });
    await until(() => woken.length > 0 && bells[WORKER] === LISTENING);
  });
  assertEquals(woken, [true, false, false, true, true, false]);
});

for (const [what, items] of [["objects", [1, {}]], ["numbers", new Float64Array(2)]] as const) {
  Deno.test(`A caller looks for items of a chunk that it is not woken for, although it has no other job (${what})`, async () => {
    const { port1, port2 } = new MessageChannel();
    const told: unknown[] = [];
    const line = new Line(port1, { message: (message) => void told.push(message.type), returned() {}, delivered() {}, unreadable() {} });
    const replies = openSharedQueue(line.memory.replies);
    try {
      line.post(chunkOf(items, 1), []);
      // It has no more to do in this turn, and waits.
      await turn();
      replies.push(ITEM, 1, "first", [0]);
      await until(() => told.length > 0);
    } finally {
      line.close();
      port2.close();
    }
  });
}

Deno.test("A worker whose jobs were tiny learns of each chunk how long that took", async () => {
  const memory = makeMemory();
  const pace = new Float64Array(memory.bells);
  pace[PACE] = 0.001;
  let time = 0;
  const paces: number[] = [];
  const runtime = {
    hasRoom: true,
    idle: true,
    receive() {
      paces.push(pace[PACE]!);
      time += 20;
    },
  } satisfies Partial<Runtime> as unknown as Runtime;
  const requests = openSharedQueue(memory.requests);
  for (let i = 0; i < 3; i++) requests.push(CHUNK, i, {}, []);
  await withClock(() => time, async () => {
    openLine({ memory, runtime, openSharedQueue, hasTimers: false }).receive({ type: "wake" });
    await until(() => paces.length === 3 && new Int32Array(memory.bells)[WORKER] === LISTENING);
  });
  assertEquals(paces[0], 0.001);
  assert(paces[1]! > 1 && paces[2]! > paces[1]!, `${paces}`);
});
