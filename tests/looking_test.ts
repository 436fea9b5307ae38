import { assertEquals } from "@std/assert";
import { ASLEEP, AWAKE, Line, type LineMemory, LISTENING, LOOKING, PACE, RETURNED, WORKER } from "../worker/line.ts";
import { type LineEnd, openLine } from "../worker/line_end.ts";
import type { Runtime } from "../worker/runtime.ts";
import { openSharedQueue, type QueueMemory } from "../worker/shared_queue.ts";
import { within } from "./fixtures.ts";

/** Who looks for the next job, or for a reply, without sleeping, and when: by a clock that these tests turn. */

const CORES = navigator.hardwareConcurrency;

/** While something is done, the clock of this thread tells what it is told. */
async function withClock(now: () => number, act: () => Promise<void>): Promise<void> {
  Object.defineProperty(performance, "now", { value: now, configurable: true });
  try {
    await act();
  } finally {
    Reflect.deleteProperty(performance, "now");
  }
}

/** The ports that are made while something is done: a worker's end closes its own with its worker. */
function portsOf(act: () => void): MessagePort[] {
  const { MessageChannel } = globalThis;
  const ports: MessagePort[] = [];
  globalThis.MessageChannel = class extends MessageChannel {
    constructor() {
      super();
      ports.push(this.port1, this.port2);
    }
  };
  try {
    act();
  } finally {
    globalThis.MessageChannel = MessageChannel;
  }
  return ports;
}

function makeMemory(): LineMemory {
  const queue = (): QueueMemory => ({ ring: new SharedArrayBuffer(2 ** 17), bulk: new SharedArrayBuffer(2 ** 12) });
  return { requests: queue(), replies: queue(), bells: new SharedArrayBuffer(8 * (PACE + 1)) };
}

/** How often a worker looks for its next job when it has done so many, and then so many, which take so many ms each. */
async function countLooks(
  { jobs, ms, core = true, before = 0 }: { jobs: number; ms: number; core?: boolean; before?: number },
): Promise<number> {
  const memory = makeMemory();
  const bells = new Int32Array(memory.bells);
  bells[LOOKING] = core ? 1 : 0;
  bells[WORKER] = LISTENING;
  new Float64Array(memory.bells)[PACE] = ms;
  let time = 0, looks = 0, done = 0;
  const runtime = {
    hasRoom: true,
    idle: true,
    call() {
      time += ms;
      done++;
    },
  } as unknown as Runtime;
  const requests = openSharedQueue(memory.requests);
  await withClock(() => time, async () => {
    let end: LineEnd | undefined;
    const ports = portsOf(() =>
      end = openLine({
        memory,
        runtime,
        openSharedQueue: (memory) => {
          const queue = openSharedQueue(memory);
          return Object.assign(queue, {
            look() {
              looks++;
              return false;
            },
          });
        },
      })
    );
    async function run(count: number): Promise<void> {
      for (let i = 0; i < count; i++) requests.push(1, i, 0, []);
      done = 0;
      end!.receive({ type: "wake" });
      while (done < count || Atomics.load(bells, WORKER) !== LISTENING) await new Promise((resolve) => setTimeout(resolve));
    }
    for (let left = before; left > 0; left -= 1000) await run(1000);
    looks = 0;
    await run(jobs);
    for (const port of ports) port.close();
  });
  return looks;
}

for (
  const [what, looks, given] of [
    ["one long job", 1, { jobs: 1, ms: 100 }],
    ["two long jobs", 1, { jobs: 2, ms: 100 }],
    ["three long jobs", 0, { jobs: 3, ms: 100 }],
    ["32 jobs of 20 µs", 1, { jobs: 32, ms: 0.02 }],
    ["33 jobs of 20 µs", 0, { jobs: 33, ms: 0.02 }],
    ["33 tiny jobs, when it is new", 0, { jobs: 33, ms: 0.001 }],
    ["256 tiny jobs, when it has done 60,000", 1, { jobs: 256, ms: 0.001, before: 60_000 }],
    ["257 tiny jobs, when it has done 60,000", 0, { jobs: 257, ms: 0.001, before: 60_000 }],
    ["33 jobs of 20 µs, when it has done 60,000", 0, { jobs: 33, ms: 0.02, before: 60_000 }],
    ["one job, when the others have all cores", 0, { jobs: 1, ms: 0.001, core: false }],
  ] as const
) {
  Deno.test(`A worker ${looks > 0 ? "looks" : "does not look"} for its next job after ${what}`, async () => {
    assertEquals(await within(countLooks(given)), looks);
  });
}

Deno.test("Who looks goes by the clock as it was: a task that stops it keeps no worker from its event loop", async () => {
  const queue = openSharedQueue(makeMemory().requests);
  await withClock(() => {
    throw new Error("The clock has stopped");
  }, () => {
    assertEquals(queue.look(0.01), false);
    return Promise.resolve();
  });
});

/** A line to a worker that answers a call when the caller has looked for a while: whether it was found, or the caller waits. */
async function call(
  { pace, worker = AWAKE, later = worker }: { pace: number; worker?: number; later?: number },
): Promise<"found" | "waits"> {
  const { port1, port2 } = new MessageChannel();
  const answered = Promise.withResolvers<"found" | "waits">();
  const { waitAsync } = Atomics;
  let time = 0;
  let answer = (): void => {};
  await withClock(() => {
    answer();
    return time += 0.001;
  }, async () => {
    const line = new Line(port1, { message() {}, delivered() {}, returned: () => answered.resolve("found") });
    const replies = openSharedQueue(line.memory.replies);
    answer = () => {
      answer = () => {};
      replies.push(RETURNED, 0, "value", []);
    };
    const bells = new Int32Array(line.memory.bells);
    new Float64Array(line.memory.bells)[PACE] = pace;
    bells[WORKER] = worker;
    Atomics.waitAsync = ((...args: Parameters<typeof waitAsync>) => {
      answered.resolve("waits");
      return waitAsync(...args);
    }) as typeof waitAsync;
    try {
      line.call(1, 0, 0, []);
      line.ring(1);
      bells[WORKER] = later;
      await within(answered.promise);
    } finally {
      Atomics.waitAsync = waitAsync;
      line.close();
      port2.close();
    }
  });
  return await answered.promise;
}

const NEEDS = "needs two to eight cores";
const ignore = CORES < 2 || CORES > 8;

Deno.test({
  name: `The caller of a short job looks for its result, of a longer one it waits (${NEEDS})`,
  ignore,
  async fn() {
    assertEquals(await call({ pace: 0.04 }), "found");
    assertEquals(await call({ pace: 0.06 }), "waits");
    assertEquals(await call({ pace: Infinity }), "waits");
  },
});

Deno.test({
  name: `The caller waits for a worker that has to be woken (${NEEDS})`,
  ignore,
  async fn() {
    assertEquals(await call({ pace: 0.001, worker: LISTENING }), "waits");
    assertEquals(await call({ pace: 0.001, worker: ASLEEP }), "waits");
  },
});

Deno.test({
  name: `The caller waits for a worker that has gone to its event loop, where its job waits for something (${NEEDS})`,
  ignore,
  async fn() {
    assertEquals(await call({ pace: 0.001, later: LISTENING }), "waits");
  },
});

Deno.test({
  name: `While other workers have jobs for all cores, neither a caller looks nor its worker (${NEEDS})`,
  ignore,
  async fn() {
    const ports: MessagePort[] = [];
    const others = Array.from({ length: CORES - 1 }, () => {
      const { port1, port2 } = new MessageChannel();
      ports.push(port2);
      return new Line(port1, { message() {}, delivered() {}, returned() {} });
    });
    const looking = (line: Line): number => new Int32Array(line.memory.bells)[LOOKING]!;
    for (const [i, line] of others.entries()) {
      new Int32Array(line.memory.bells)[WORKER] = ASLEEP;
      assertEquals(await call({ pace: 0.001 }), "found", `beside ${i} workers`);
      line.call(1, 0, 0, []);
      line.ring(1);
      assertEquals(looking(line), 1);
    }
    assertEquals(await call({ pace: 0.001 }), "waits");
    const { port1, port2 } = new MessageChannel();
    const last = new Line(port1, { message() {}, delivered() {}, returned() {} });
    last.call(1, 0, 0, []);
    last.ring(1);
    assertEquals(looking(last), 0);
    for (const line of [...others, last]) line.close();
    for (const port of [...ports, port2]) port.close();
    assertEquals(await call({ pace: 0.001 }), "found", "when their lines are closed");
  },
});
