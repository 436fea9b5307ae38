/**
 * What is taken from the platform when the pool and its workers are loaded: nothing that a task or the program puts in its place later does
 * harm to others.
 *
 * @module
 */

import { assert, assertEquals, assertInstanceOf, assertMatch } from "@std/assert";
import { Job, JobTimeoutError, ProcessPool, WorkerDiedError } from "@procpool/process-pool";
import { granted, moduleOf, within } from "./fixtures.ts";
import { meet, Meeting, sharedWords, thrownBy, turn } from "./helpers.ts";

const BACKENDS = ["worker", "killable"] as const;

for (const backend of BACKENDS) {
  Deno.test(`A task that replaces what errors are sent with ends only its worker (${backend})`, async () => {
    const ways = {
      push: () => void (Array.prototype.push = () => 7),
      names: () => void (Object.getOwnPropertyNames = () => [{ toString: 1, valueOf: 1 }] as never),
      texts: () => void (globalThis.String = (() => ({ toString: 1 })) as never),
    };
    for (const [way, spoil] of Object.entries(ways)) {
      const task = (0, eval)(`(x) => { (${spoil})(); throw Object.assign(new Error("mine"), { code: {} }); }`) as (x: number) => number;
      await using pool = new ProcessPool({ maxWorkers: 2, backend, onError: () => {} });
      const words = sharedWords(2);
      const neighbour = await pool.submit(meet, words);
      while (!neighbour.running()) await turn();
      assertInstanceOf(await within(thrownBy(() => pool.run(task, 1))), Error, way);
      const outcomes = await within(Array.fromAsync(pool.map(task, [1, 2, 3], { settled: true, chunkSize: 3 })));
      for (const outcome of outcomes) assert(outcome.status === "rejected" && outcome.reason instanceof Error, way);
      Atomics.store(words, 1, 1);
      Atomics.notify(words, 1);
      assertEquals(await within(neighbour.result()), "met");
    }
  });
}

Deno.test("A job's worker keeps its own Atomics, timers and clocks, whatever tasks put in their place", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobTimeout: 30_000 });
  await pool.run(() => {
    Object.assign(Atomics, { compareExchange: () => 0, store: () => 0 });
    Date.now = performance.now = () => 0;
    (globalThis as { setTimeout?: unknown }).setTimeout = (globalThis as { clearTimeout?: unknown }).clearTimeout = undefined;
    Object.defineProperty(Object.prototype, "func", { value: () => "inherited", configurable: true });
  });
  assertEquals(await within(pool.run((x: number) => x + 1, 1)), 2);
  const results = await within(Array.fromAsync(pool.map(async (x: number) => await x * 2, [1, 2, 3, 4, 5, 6, 7, 8])));
  assertEquals(results, [2, 4, 6, 8, 10, 12, 14, 16]);
});

for (const backend of BACKENDS) {
  Deno.test(`A task cannot steal the lock of a worker, be it its own, and has its own locks as ever (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, backend });
    const wait = async (words: Int32Array) => {
      await Atomics.waitAsync(words, 0, 0).value;
      return "through";
    };
    const words = sharedWords(1);
    const waiting = await pool.submit(wait, words);
    while (!waiting.running()) await turn();
    const names = await heldLocks();
    for (const name of names) assertMatch(name, /^process-pool worker /);
    assert(names.length > 0);
    const steal = async (names: string[]) => {
      type Request = (name: unknown, options: object | (() => unknown), holder?: () => unknown) => Promise<unknown>;
      const { locks } = navigator as unknown as {
        locks: { request: Request; query(): Promise<Record<"held" | "pending", { name: string }[]>> };
      };
      const outcomes: unknown[] = [];
      for (const name of names) {
        let looks = 0;
        const second = { toString: () => looks++ === 0 ? "another" : name };
        const inherited = Object.assign(Object.create({ steal: true }), { ifAvailable: true });
        for (
          const [lock, options] of [[name, { steal: true }], [second, { steal: true }], [name, inherited]] as const
        ) {
          outcomes.push(await locks.request(lock, options, () => "had").catch((error: Error) => error.message));
        }
        const iterate = Array.prototype[Symbol.iterator];
        Array.prototype[Symbol.iterator] = function () {
          for (let i = 0; i < this.length; i++) if (typeof this[i] === "object") this[i].steal = true;
          return iterate.call(this);
        };
        let smuggled = "waits";
        locks.request(name, {}, () => smuggled = "stolen").catch(() => {});
        Array.prototype[Symbol.iterator] = iterate;
        // The answer to a later request: by then the earlier one has got the lock, or waits for it.
        await locks.request(name, { ifAvailable: true }, () => {});
        outcomes.push(smuggled);
      }
      locks.request("mine", () => new Promise(() => {})).catch(() => {});
      const own = (await locks.query()).held.map(({ name }) => name);
      outcomes.push(await locks.request("mine", { steal: true }, () => "stolen"), await locks.request("mine", () => "had"));
      return { outcomes, own };
    };
    const { outcomes, own } = await within(pool.run(steal, names));
    Atomics.store(words, 0, 1);
    Atomics.notify(words, 0);
    const refused = "The lock of a worker cannot be stolen";
    assertEquals(outcomes, [...names.flatMap(() => [refused, "had", refused, "waits"]), "stolen", "had"]);
    assertEquals(own, ["mine"]);
    assertEquals(await within(waiting.result()), "through");
  });
}

async function heldLocks(): Promise<string[]> {
  const { locks } = navigator as unknown as { locks: { query(): Promise<{ held: { name: string }[] }> } };
  return (await locks.query()).held.map(({ name }) => name);
}

for (const backend of BACKENDS) {
  Deno.test(`A worker goes on when a task has taken Deno, WebAssembly and eval away, and errors are what they are (${backend})`, async () => {
    const takeAway = () => {
      Object.assign(globalThis, { NotFound: Deno.errors.NotFound, CompileError: WebAssembly.CompileError });
      for (const name of ["Deno", "WebAssembly", "eval"]) Reflect.deleteProperty(globalThis, name);
    };
    await using pool = new ProcessPool({ backend, maxWorkers: 1, initializer: takeAway });
    const fail = (name: string) => {
      throw new (Reflect.get(globalThis, name))(`a ${name}`);
    };
    const errors: unknown[] = [];
    for (const name of ["NotFound", "CompileError", "RangeError"]) errors.push(await (await pool.submit(fail, name)).exception());
    const classes = [Deno.errors.NotFound, WebAssembly.CompileError, RangeError];
    assertEquals(errors.map((error) => (error as Error).constructor), classes);
    assertEquals(errors.map((error) => (error as Error).message), ["a NotFound", "a CompileError", "a RangeError"]);
    assertEquals([await pool.run((x: number) => x + 1, 1), pool.inspect().map(({ worker }) => worker)], [2, [1]]);
  });
}

/** Does something while another navigator is in the place of the platform's, as libraries that emulate a DOM for tests put one there. */
async function withOtherNavigator<T>(action: () => Promise<T>): Promise<T> {
  const own = Object.getOwnPropertyDescriptor(globalThis, "navigator")!;
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { userAgent: "test" } });
  try {
    return await action();
  } finally {
    Object.defineProperty(globalThis, "navigator", own);
  }
}

for (const backend of BACKENDS) {
  Deno.test(`A pool does without the platform's navigator (${backend})`, async () => {
    await withOtherNavigator(async () => {
      await using pool = new ProcessPool({ backend });
      assertEquals(await within(pool.run((x: number) => x + 1, 1)), 2);
      assertInstanceOf(await (await pool.submit(() => Deno.exit(3))).exception(), WorkerDiedError);
    });
  });
}

/** Does something while timers that never fire, and clocks that stand still, are in the place of the platform's, as fake ones of tests. */
async function withTimeStopped(action: () => Promise<void>): Promise<void> {
  const own = { setTimeout, Date };
  const { now } = performance;
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = within(promise);
  Object.assign(globalThis, { setTimeout: () => 0, Date: Object.assign(function () {}, { now: () => 0 }) });
  performance.now = () => 0;
  try {
    resolve(action());
    await done;
  } finally {
    Object.assign(globalThis, own);
    performance.now = now;
  }
}

for (const backend of [...BACKENDS, "inline"] as const) {
  Deno.test(`A pool goes by the platform's time where a test has stopped its own (${backend})`, async () => {
    await withTimeStopped(async () => {
      const module = moduleOf("export const square = (x) => x * x");
      await using pool = new ProcessPool({ backend, maxWorkers: 1, modules: [module] });
      assertEquals(await Array.fromAsync(pool.map({ module, name: "square" }, [1, 2, 3])), [1, 4, 9]);
      const never = (memory: Int32Array) => {
        Atomics.store(memory, 0, 1);
        Atomics.notify(memory, 0);
        return new Promise<never>(() => {});
      };
      const { memory } = new Meeting();
      assertInstanceOf(await thrownBy(() => pool.run(new Job({ func: never, args: [memory], timeout: 50 }))), JobTimeoutError);
      const meeting = new Meeting();
      const future = await pool.submit(never, meeting.memory);
      await meeting.come();
      assert(future.cancel({ force: true }));
    });
  });
}

Deno.test("locks() are those of the program where they are loaded beside another navigator", { ignore: !granted("read") }, async () => {
  const { locks } = await withOtherNavigator(() => import("../worker/platform.ts?beside"));
  await locks().request("process-pool test", async () => assert((await heldLocks()).includes("process-pool test")));
});
