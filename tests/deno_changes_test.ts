/**
 * Behaviour of Deno 2.9 that the pool is built around, or that the documentation warns of. Each of these tests fails once Deno behaves
 * differently, and says what can be changed then. Loops that cannot be stopped run in programs of their own, which are killed.
 *
 * @module
 */

import { ProcessPool } from "@procpool/process-pool";
import { assert, assertEquals } from "@std/assert";
import { granted, within } from "./fixtures.ts";

const needsRun = { ignore: !granted("run") || !granted("read") };

/** In a worker: announces that it has begun, and counts forever. */
const COUNT = `Atomics.store(words, 0, 1); Atomics.notify(words, 0); for (;;) Atomics.add(words, 1, 1);`;

/** Prints whether the counter is still running some time after it was stopped. */
const TELL = `
  const pause = () => new Promise((resolve) => setTimeout(resolve, 500));
  await pause();
  const before = Atomics.load(words, 1);
  await pause();
  console.log(Atomics.load(words, 1) === before ? "stands still" : "goes on");
  Deno.exit();
`;

/** A program that starts a node worker with this source, gives it `words`, and runs `then` once it has begun. */
function nodeProgram({ source, then, lock = true, resourceLimits = {} }: {
  source: string;
  then: string;
  lock?: boolean;
  resourceLimits?: object;
}): string {
  const held = lock ? `await new Promise((held) => navigator.locks.request("lock", () => (held(), new Promise(() => {}))));` : "";
  const inside = `
    import { getHeapStatistics } from "node:v8";
    import { parentPort, workerData } from "node:worker_threads";
    const { words, pulse } = workerData;
    pulse.onmessage = () => pulse.postMessage(getHeapStatistics().heap_size_limit);
    ${held}
    parentPort.on("message", () => { ${source} });
  `;
  return `
    import { Worker } from "node:worker_threads";
    const words = new Int32Array(new SharedArrayBuffer(8));
    const { port1: pulse, port2 } = new MessageChannel();
    const worker = new Worker(new URL("data:text/javascript," + encodeURIComponent(${JSON.stringify(inside)})), {
      workerData: { words, pulse: port2 }, transferList: [port2], resourceLimits: ${JSON.stringify(resourceLimits)},
    });
    worker.postMessage("begin");
    await Atomics.waitAsync(words, 0, 0).value;
    ${then}
  `;
}

/** Starts a program. */
function spawn(source: string): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-config", "--no-lock", `data:text/javascript,${encodeURIComponent(source)}`],
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Returns what a program prints. */
async function run(source: string): Promise<string> {
  const child = spawn(source);
  const timer = setTimeout(() => child.kill("SIGKILL"), 30_000);
  const { stdout, stderr } = await within(child.output());
  clearTimeout(timer);
  return new TextDecoder().decode(stdout).trim() || new TextDecoder().decode(stderr).trim();
}

Deno.test("Deno does not stop a Web Worker that is busy (needs --allow-run and --allow-read)", needsRun, async () => {
  const source = `
    const words = new Int32Array(new SharedArrayBuffer(8));
    const inside = "onmessage = ({ data: words }) => { ${COUNT} }";
    const worker = new Worker("data:text/javascript," + encodeURIComponent(inside), { type: "module" });
    worker.postMessage(words);
    await Atomics.waitAsync(words, 0, 0).value;
    worker.terminate();
    ${TELL}
  `;
  // Otherwise: the backend "worker" can stop everything that "killable" can. Let a jobTimeout choose "worker" again, remove the warning and
  // `stats().unstoppable`, and change the first table of tests/failure_matrix.ts.
  assertEquals(await run(source), "goes on");
});

Deno.test("Deno halts a busy node worker that holds a Web Lock (needs --allow-run and --allow-read)", needsRun, async () => {
  // Otherwise: the backend "killable" cannot keep its promise. Find another way to halt workers, or refuse jobTimeout, before supporting
  // this Deno.
  assertEquals(await run(nodeProgram({ source: COUNT, then: `await worker.terminate(); ${TELL}` })), "stands still");
});

Deno.test("Deno does not halt a busy node worker that holds no lock (needs --allow-run and --allow-read)", needsRun, async () => {
  // Otherwise: the lock is not needed to stop a worker, only to notice its end; say so in worker/node_worker.ts.
  assertEquals(await run(nodeProgram({ source: COUNT, then: `await worker.terminate(); ${TELL}`, lock: false })), "goes on");
});

Deno.test(
  "Deno reports no full heap of a node worker in a message handler, but grants it more (needs --allow-run and --allow-read)",
  needsRun,
  async () => {
    const source = nodeProgram({
      source: `Atomics.store(words, 0, 1); Atomics.notify(words, 0); const kept = []; for (;;) kept.push({ values: [kept.length, 1] });`,
      resourceLimits: { maxOldGenerationSizeMb: 32 },
      then: `
      const seen = [];
      for (const name of ["error", "exit"]) worker.on(name, () => seen.push(name));
      const limit = () => new Promise((resolve) => {
        pulse.onmessage = ({ data }) => resolve(data);
        pulse.postMessage("");
      });
      // It answers when its JavaScript was stopped; an event would come then too.
      const after = await limit();
      await new Promise((resolve) => setTimeout(resolve, 500));
      console.log(after > 40 * 2 ** 20 ? "more granted" : "no more granted", seen);
      Deno.exit();
    `,
    });
    // Otherwise, if there is an "error" now: the timer in worker/node_worker.ts that notices a full heap can go, with its cost. If no more
    // heap is granted and nothing comes: a memoryLimit is no longer noticed; find another sign.
    assertEquals(await run(source), "more granted []");
  },
);

Deno.test(
  "V8 does not interrupt a loop that only makes and fills short arrays (needs --allow-run and --allow-read)",
  needsRun,
  async () => {
    const source = `
    Atomics.store(words, 0, 1); Atomics.notify(words, 0);
    for (;;) new Array(1000).fill(1);
  `;
    const then = `
    const { cpuUsage } = process.getBuiltinModule("node:process");
    // Not before the loop is optimized.
    await new Promise((resolve) => setTimeout(resolve, 500));
    await worker.terminate();
    const before = cpuUsage().user;
    await new Promise((resolve) => setTimeout(resolve, 1000));
    console.log(cpuUsage().user - before < 50_000 ? "stands still" : "goes on");
    Deno.exit();
  `;
    // Otherwise: remove it from the section on memory in docs/reliability.md.
    assertEquals(await run(nodeProgram({ source, then })), "goes on");
  },
);

Deno.test(
  "Deno prints that the execution of a node worker was terminated, if what Atomics.waitAsync led to was halted (needs --allow-run and --allow-read)",
  needsRun,
  async () => {
    const inside = `
    import { parentPort, workerData } from "node:worker_threads";
    const { words, lock } = workerData;
    await new Promise((held) => navigator.locks.request(lock, () => (held(), new Promise(() => {}))));
    parentPort.on("message", () => {});
    const rung = Atomics.waitAsync(words, 0, 0).value;
    Atomics.add(words, 1, 1); Atomics.notify(words, 1);
    await rung;
    Atomics.add(words, 2, 1); Atomics.notify(words, 2);
    Atomics.wait(words, 3, 0);
  `;
    // Not each of them has Deno print it: about one in three; where other programs keep all cores busy, one in sixty.
    const source = `
    import { Worker } from "node:worker_threads";
    const url = new URL("data:text/javascript," + encodeURIComponent(${JSON.stringify(inside)}));
    for (let round = 0; round < 100; round++) {
      const words = new Int32Array(new SharedArrayBuffer(16));
      async function reached(word) {
        for (let count; (count = Atomics.load(words, word)) < 10;) await Atomics.waitAsync(words, word, count).value;
      }
      const workers = Array.from({ length: 10 }, (_, i) => new Worker(url, { workerData: { words, lock: "lock " + i } }));
      await reached(1);
      Atomics.notify(words, 0);
      await reached(2);
      await Promise.all(workers.map((worker) => worker.terminate()));
    }
  `;
    const child = spawn(source);
    await child.stdout.cancel();
    // So long that the program comes to its end even where it has a tenth of a core.
    const timer = setTimeout(() => child.kill("SIGKILL"), 900_000);
    let printed = "";
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
      printed += text;
      if (!printed.includes("execution terminated")) continue;
      child.kill("SIGKILL");
      break;
    }
    await within(child.status);
    clearTimeout(timer);
    // Otherwise: a killable worker may hear the bell in its event loop as a Web Worker does, and both may take turns in the same way: see
    // `listenForBell` and `tick` in worker/line_end.ts.
    assert(printed.includes("execution terminated"), printed);
  },
);

Deno.test("Deno copies nothing of most objects of the platform, and says nothing", async () => {
  const empty = [new URL("data:,"), new URLSearchParams("a=1"), new Headers({ a: "b" }), new Request("data:,"), new Response("a")];
  const given: object[] = [...empty, new FormData(), new Event("a"), new ImageData(1, 1)];
  await using pool = new ProcessPool({ maxWorkers: 1 });
  // Otherwise: remove the warning from README.md, `Job.args` and docs/from-concurrent-futures.md.
  for (const each of given) {
    assertEquals(await within(pool.run((value: object) => [Object.getPrototypeOf(value) === Object.prototype, value], each)), [true, {}]);
  }
  assertEquals(await within(pool.run((): unknown[] => [new URL("data:,"), { nested: new Headers({ a: "b" }) }])), [{}, { nested: {} }]);
  assertEquals(await within(Array.fromAsync(pool.map((value: object) => Object.keys(value).length, given))), given.map(() => 0));
  // A Blob is copied.
  assertEquals(await within(pool.run((blob: Blob) => blob.text(), new Blob(["text"]))), "text");
});

Deno.test("Deno looks at sockets at one tick in sixty where there is always something to do (needs --allow-net=127.0.0.1)", {
  ignore: !granted("net"),
}, async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let most = 0;
  for (let i = 0; i < 10; i++) {
    let isThrough = false;
    const connected = Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port }).finally(() => isThrough = true);
    // By then it is connected.
    for (const end = performance.now() + 5; performance.now() < end;);
    let ticks = 0;
    for (; !isThrough; ticks++) await new Promise((resolve) => void setImmediate(resolve));
    (await connected).close();
    (await listener.accept()).close();
    most = Math.max(most, ticks);
  }
  // Otherwise: one tick is a turn in worker/soon.ts and worker/line_end.ts.
  assert(most > 20, `${most} ticks`);
});

Deno.test("Deno loads what timers need when somebody first looks at them", () => {
  // Otherwise: `setImmediate` may do as well to take a turn in worker/line_end.ts.
  for (const name of ["setImmediate", "setTimeout"]) assert(Object.getOwnPropertyDescriptor(globalThis, name)?.get !== undefined, name);
});
