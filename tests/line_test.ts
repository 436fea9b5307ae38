import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Job, ProcessPool } from "@procpool/process-pool";
import { move } from "@procpool/process-pool/task";
import {
  ASLEEP,
  AWAKE,
  BY_PORT,
  CALLER,
  CHUNK,
  ITEM,
  ITEMS,
  Line,
  type LineEvents,
  LISTENING,
  PACE,
  RETURNED,
  SKIPPED,
  THREW,
  WORKER,
} from "../worker/line.ts";
import { openLine } from "../worker/line_end.ts";
import type { FromRuntime, FromWorker, ItemsMessage, RunMessage } from "../worker/protocol.ts";
import type { Calls, Runtime } from "../worker/runtime.ts";
import { portions } from "../worker/portion.ts";
import { openSharedQueue } from "../worker/shared_queue.ts";
import { atNextTick } from "../worker/soon.ts";
import { chunkOf, granted, moduleOf, within } from "./fixtures.ts";
import { turn, until } from "./helpers.ts";

// What goes beside the port and what goes by it: nobody may notice the difference, except by the time it takes.

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`Jobs whose arguments and results are small, large and in between come through, in any order (${backend})`, async () => {
    const reported: unknown[] = [];
    await using pool = new ProcessPool({ backend, maxWorkers: 2, queueSize: 200, onError: (error) => reported.push(error) });
    const task = (x: number, argument: unknown, answer: number) => {
      // Small, or too large or too odd for shared memory.
      const results = [
        x,
        `${x}`,
        { x },
        [x, [x]],
        "x".repeat(3000) + x,
        [/odd/g, new Map([[x, argument]])],
        new Uint8Array(300).fill(x),
        new Date(x),
      ];
      return [results[answer], argument];
    };
    const others = [
      1,
      "text",
      { a: { b: [1, 2] } },
      null,
      undefined,
      -0,
      new Set([1]),
      /odd/,
      "y".repeat(5000),
      Array(100).fill("z"),
      new Float64Array(50),
    ];
    for (let round = 0; round < 30; round++) {
      const jobs = Array.from({ length: 200 }, (_, i) => [round * 200 + i, others[i % others.length], i % 7 % 8] as const);
      const results = await within(Promise.all(jobs.map((job) => pool.run(task, ...job))));
      for (const [i, [x, argument, answer]] of jobs.entries()) assertEquals(results[i], structuredClone(task(x, argument, answer)));
    }
    assertEquals(reported, []);
  });

  Deno.test(`Each of many calls has its own result, however they come to be sent (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 2 });
    const half = (x: number) => x / 2;
    let next = 0;
    for (const window of [1, 2, 30, 1000, 1, 500, 7]) {
      for (let rounds = Math.min(40, Math.ceil(40_000 / window)); rounds > 0; rounds--) {
        const calls = Array.from({ length: window }, (_, i) => next + i);
        assertEquals(await within(Promise.all(calls.map((x) => pool.run(half, x)))), calls.map(half));
        next += window;
      }
    }
  });

  Deno.test(`Errors come through in their order, whatever is in them (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 2 });
    const task = (x: number) => {
      // Small, or too large or too odd for shared memory.
      const causes = [undefined, x, { x }, "y".repeat(3000), /odd/, new TypeError(`inner ${x}`)];
      if (x % 5 === 0) throw Object.assign(new RangeError(`no ${x}`, { cause: causes[x / 5 % causes.length] }), { code: x });
      if (x % 53 === 0) throw `text ${x}`;
      return { x };
    };
    const check = (outcome: PromiseSettledResult<unknown>, x: number) => {
      try {
        assertEquals(outcome, { status: "fulfilled", value: task(x) });
      } catch (error) {
        if (outcome.status === "fulfilled") throw error;
        if (!(error instanceof Error)) return assertEquals(outcome.reason, error);
        assertEquals([outcome.reason.constructor, outcome.reason.message], [error.constructor, error.message]);
        const { cause } = outcome.reason;
        assertEquals(cause instanceof Error ? cause.message : cause, error.cause instanceof Error ? error.cause.message : error.cause);
        assertEquals(outcome.reason.code, x);
      }
    };
    const calls = await within(Promise.allSettled(Array.from({ length: 1000 }, (_, x) => pool.run(task, x))));
    for (const [x, outcome] of calls.entries()) check(outcome, x);
    let next = 0;
    // With a time limit, each result is sent before the next item begins.
    for await (const outcome of pool.map(task, Array(2000).keys(), { settled: true, timeout: 60_000 })) check(outcome, next++);
    assertEquals(next, 2000);
  });

  Deno.test(`No job waits for a message that has already come (${backend})`, async () => {
    // The pool would make up for a lost message after seconds, and report it.
    const reported: unknown[] = [];
    await using pool = new ProcessPool({ backend, maxWorkers: 2, onError: (error) => reported.push(error) });
    let sum = 0;
    for await (const x of pool.map((x: number) => x + 1, Array(200_000).keys(), { timeout: 60_000 })) sum += x;
    assertEquals(sum, 200_000 * 200_001 / 2);
    assertEquals(reported, []);
  });

  Deno.test(`A result does not wait for a long job that comes after it (${backend})`, async () => {
    const gate = new Int32Array(new SharedArrayBuffer(4));
    await using pool = new ProcessPool({
      backend,
      maxWorkers: 1,
      initializer: (gate: Int32Array) => void Object.assign(globalThis, { gate }),
      initArgs: [gate],
    });
    const compute = (ms: number) => {
      for (const end = performance.now() + ms; performance.now() < end;);
      return ms;
    };
    const hold = () => Atomics.wait((globalThis as unknown as { gate: Int32Array }).gate, 0, 0);
    for (let round = 0; round < 10; round++) {
      // So that the worker expects short jobs, whose ends it does not report one by one.
      await within(Promise.all(Array.from({ length: 30 }, () => pool.run(compute, 0.1))));
      const short = [pool.run(compute, 0.1), pool.run(compute, 0.1), pool.run(compute, 0.1)];
      const long = pool.run(hold);
      assertEquals(await within(Promise.all(short)), [0.1, 0.1, 0.1]);
      Atomics.store(gate, 0, 1);
      Atomics.notify(gate, 0);
      await within(long);
      Atomics.store(gate, 0, 0);
    }
  });

  for (const [eager, quick] of [[false, 1], [true, 1], [true, 2]] as const) {
    const which = `${eager ? "eager" : "gathered"}, ${quick} before it`;
    Deno.test(`Results of a chunk do not wait for a long item that comes after them (${which}, ${backend})`, async () => {
      const gate = new Int32Array(new SharedArrayBuffer(4));
      const work = (x: number) => {
        const { gate, quick, eager } = globalThis as unknown as { gate: Int32Array; quick: number; eager: boolean };
        // Gathered results are sent after a millisecond.
        for (const end = performance.now() + 2; x < quick && !eager && performance.now() < end;);
        if (x === quick) Atomics.wait(gate, 0, 0);
        return { x };
      };
      await using pool = new ProcessPool({
        backend,
        maxWorkers: 1,
        initializer: (gate: Int32Array, quick: number, eager: boolean) => void Object.assign(globalThis, { gate, quick, eager }),
        initArgs: [gate, quick, eager],
      });
      const options = eager ? { chunkSize: 4, timeout: 60_000 } : { chunkSize: 4 };
      const results = pool.map(work, [0, 1, 2, 3], options)[Symbol.asyncIterator]();
      // If one of these were held back, the worker would wait forever.
      for (let x = 0; x < quick; x++) assertEquals((await within(results.next())).value, { x });
      Atomics.store(gate, 0, 1);
      Atomics.notify(gate, 0);
      for (let x = quick; x < 4; x++) assertEquals((await within(results.next())).value, { x });
      assertEquals((await results.next()).done, true);
    });
  }

  Deno.test(`Chunks of numbers of every type, large and small, come through with their errors (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 2 });
    const inputs = [
      Float64Array.from({ length: 1000 }, (_, i) => i % 3 === 0 ? -0 : i / 7),
      Uint8Array.from({ length: 1000 }, (_, i) => i),
      BigInt64Array.from({ length: 1000 }, (_, i) => BigInt(i) ** 5n),
      // Views of parts of other buffers.
      new Int16Array(2000).map((_, i) => i).subarray(500, 1500),
      new Float64Array(120_000).map((_, i) => i),
    ] as unknown as number[][];
    // The last of them is larger than what goes beside the port.
    for (const [i, chunkSize] of [50, 500, 100, 17, 60_000].entries()) {
      const items = inputs[i]!;
      const same = (x: unknown) => x;
      let next = 0;
      for await (const result of pool.map(same, items, { chunkSize })) {
        if (!Object.is(result, items[next++])) assertEquals(result, items[next - 1]);
      }
      assertEquals(next, items.length);
    }
    const odd = (x: number) => {
      if (x % 100 === 99) throw new RangeError(`no ${x}`);
      return x % 50 === 49 ? `${x}` : x;
    };
    for (const length of [40, 1000]) {
      const numbers = Float64Array.from({ length }, (_, i) => i) as unknown as number[];
      const outcomes = await within(Array.fromAsync(pool.map(odd, numbers, { chunkSize: 40, settled: true })));
      for (const [x, outcome] of outcomes.entries()) {
        if (x % 100 === 99) assertEquals((outcome as PromiseRejectedResult).reason.message, `no ${x}`);
        else assertEquals(outcome, { status: "fulfilled", value: x % 50 === 49 ? `${x}` : x });
      }
      assertEquals(outcomes.length, length);
    }
  });

  Deno.test(`What a getter throws while a result is written fails the job (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    const task = () => ({
      get value() {
        throw new RangeError("no");
      },
    });
    await assertRejects(() => pool.run(task), RangeError, "no");
    assertEquals(await pool.run((x: number) => x, 1), 1);
  });

  Deno.test(`What a getter throws, or does, while arguments are written concerns its own call (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1, queueSize: 1000 });
    const value = ({ value }: { value: number }) => value;
    // So that the worker expects tiny ones.
    for (let i = 0; i < 5; i++) await Promise.all(Array.from({ length: 100 }, (_, n) => pool.run(value, { value: n })));
    const inner: Promise<number>[] = [];
    const arg = (i: number): { value: number } => {
      if (i % 10 === 3) {
        return {
          get value(): number {
            throw new RangeError(`no ${i}`);
          },
        };
      }
      if (i % 10 !== 7) return { value: i };
      return {
        get value() {
          inner.push(pool.run(value, { value: -i }));
          return i;
        },
      };
    };
    const outcomes = await within(Promise.allSettled(Array.from({ length: 200 }, (_, i) => pool.run(value, arg(i)))));
    for (const [i, outcome] of outcomes.entries()) {
      if (i % 10 === 3) {
        assertEquals([outcome.status, String((outcome as PromiseRejectedResult).reason)], ["rejected", `RangeError: no ${i}`]);
      } else assertEquals(outcome, { status: "fulfilled", value: i });
    }
    assert(inner.length >= 20);
    for (const value of await within(Promise.all(inner))) assertEquals(Math.abs(value) % 10, 7);
    assertEquals(pool.stats().failed, 20);
  });

  Deno.test(`A getter that makes a call and then throws holds up no other call (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 2, idleTimeout: Infinity });
    const value = ({ value }: { value: number }) => value;
    for (let i = 0; i < 5; i++) await Promise.all(Array.from({ length: 100 }, (_, n) => pool.run(value, { value: n })));
    let inner: Promise<number> | undefined;
    const outer = pool.run(value, {
      get value(): number {
        inner = pool.run(value, { value: 1 });
        throw new RangeError("no");
      },
    });
    await assertRejects(() => within(outer), RangeError, "no");
    assertEquals(await within(inner!), 1);
    assertEquals(await within(pool.run(value, { value: 2 })), 2);
  });

  Deno.test(`A getter may call the task that its own call is about to bring to the worker, and fails to (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    await pool.run(() => 0);
    const task = (x: unknown) => typeof x;
    let inner: Promise<string> | undefined;
    const outer = pool.run(task, {
      get value() {
        inner = pool.run(task, 1);
        return Symbol("cannot be copied");
      },
    });
    await assertRejects(() => within(outer), DOMException);
    assertEquals(await within(inner!), "number");
    assertEquals(await pool.run(task, "text"), "string");
  });

  Deno.test(`Calls with large arguments in great number are answered in order and in full (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 2, queueSize: 2000 });
    const task = (record: { id: number; text: string }) => ({ id: record.id, length: record.text.length });
    for (let round = 0; round < 5; round++) {
      const results = await within(Promise.all(Array.from(
        { length: 2000 },
        // Some are too long to go beside messages.
        (_, id) => pool.run(task, { id, text: "é".repeat(id % 100 === 99 ? 3000 : id % 400) }),
      )));
      for (const [id, result] of results.entries()) assertEquals(result, { id, length: id % 100 === 99 ? 3000 : id % 400 });
    }
  });

  Deno.test(`A worker that is called without a pause gives its own timers and promises their turn (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    await pool.run(() => {
      const scope = globalThis as { ticks?: number; later?: boolean };
      scope.ticks = 0;
      setInterval(() => scope.ticks!++, 1);
      Promise.resolve().then(() => scope.later = true);
    });
    assertEquals(await pool.run(() => (globalThis as { later?: boolean }).later), true);
    const ticks = () => (globalThis as { ticks?: number }).ticks!;
    // It ends when the timer has fired; if that never happened, the test would hang.
    while (await within(pool.run(ticks)) < 3);
  });

  for (const how of ["a map of numbers", "calls"]) {
    for (const what of ["timer", "message", "connection"] as const) {
      const ignore = what === "connection" && !granted("net");
      const needs = what === "connection" ? ", needs net" : "";
      const name = `A ${what} that a job waits for has its turn while its worker has ${how} to do without a pause (${backend}${needs})`;
      Deno.test(name, { ignore }, async () => {
        await using pool = new ProcessPool({ backend, maxWorkers: 1, jobsPerWorker: 2 });
        using listener = what === "connection" ? Deno.listen({ hostname: "127.0.0.1", port: 0 }) : undefined;
        await pool.run(() => void Object.assign(globalThis, { burned: 0 }));
        const burn = () => {
          for (const end = performance.now() + 5; performance.now() < end;);
          return ++(globalThis as unknown as { burned: number }).burned;
        };
        const nap = async (what: string, port: number) => {
          const scope = globalThis as unknown as { burned: number };
          const before = scope.burned;
          if (what === "timer") await new Promise((resolve) => setTimeout(resolve, 30));
          else if (what === "connection") (await Deno.connect({ hostname: "127.0.0.1", port })).close();
          else {
            const { port1, port2 } = new MessageChannel();
            await new Promise((resolve) => {
              port2.onmessage = resolve;
              port1.postMessage("wake up");
            });
            port2.close();
          }
          return scope.burned - before;
        };
        const napped = pool.run(nap, what, (listener?.addr as Deno.NetAddr | undefined)?.port ?? 0);
        if (how === "calls") await within(Promise.all(Array.from({ length: 100 }, () => pool.run(burn))));
        else for await (const _ of pool.map(burn, new Float64Array(100) as Iterable<number>, { chunkSize: 4 }));
        // They take 500 ms, and it should be woken after at most 30.
        const burned = await within(napped);
        assert(burned < 50, `${burned} jobs of 5 ms were done meanwhile`);
      });
    }
  }

  for (const [jobs, jobsPerWorker, steps] of [["one after the other", 1, 1], ["several at a time", 4, 5]] as const) {
    const name = `A connection has its turn while its worker has jobs that only wait for microtasks, ${jobs} (${backend}, needs net)`;
    Deno.test(name, { ignore: !granted("net") }, async () => {
      await using pool = new ProcessPool({ backend, maxWorkers: 1, jobsPerWorker });
      using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const echoed = listener.accept().then((connection) => connection.readable.pipeTo(connection.writable));
      await pool.run((port: number) => {
        const scope = globalThis as unknown as { burned: number; waited: number };
        scope.burned = 0;
        const exchange = async () => {
          const before = scope.burned;
          using connection = await Deno.connect({ hostname: "127.0.0.1", port });
          await connection.write(new Uint8Array(1));
          await connection.read(new Uint8Array(1));
          scope.waited = scope.burned - before;
        };
        setTimeout(exchange, 30);
      }, (listener.addr as Deno.NetAddr).port);
      const burn = async (steps: number) => {
        for (let i = 0; i < steps; i++) {
          await undefined;
          for (const end = performance.now() + 1; performance.now() < end;);
          (globalThis as unknown as { burned: number }).burned++;
        }
      };
      await within(Promise.all(Array.from({ length: 1000 / steps }, () => pool.run(burn, steps))));
      const waited = await pool.run(() => (globalThis as { waited?: number }).waited);
      await within(echoed);
      // They take 1,000 ms.
      assert(waited !== undefined && waited < 400, `it waited for ${waited} ms of work`);
    });
  }

  Deno.test(`The next job does not wait for dozens of steps of one that is at work at each turn of the event loop (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1, jobsPerWorker: 2 });
    const isOver = new Int32Array(new SharedArrayBuffer(4));
    const stepped = pool.run(async (isOver: Int32Array) => {
      const scope = globalThis as { steps?: number };
      for (scope.steps = 0; Atomics.load(isOver, 0) === 0; scope.steps++) {
        for (const end = performance.now() + 3; performance.now() < end;);
        await new Promise((resolve) => void setImmediate(resolve));
      }
    }, isOver);
    const burn = () => {
      for (const end = performance.now() + 5; performance.now() < end;);
      return (globalThis as { steps?: number }).steps!;
    };
    const steps = await within(Promise.all(Array.from({ length: 30 }, () => pool.run(burn))));
    Atomics.store(isOver, 0, 1);
    await within(stepped);
    // If this thread was late to send one, it is reported later.
    const least = Math.min(...steps.slice(1).map((step, i) => step - steps[i]!));
    assert(least < 20, `${least} steps`);
  });

  Deno.test(`A task that stops the clock stops only its own (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    await pool.run(() => {
      performance.now = () => 0;
      Date.now = () => 0;
    });
    for (let i = 0; i < 20; i++) {
      const calls = Array.from({ length: 10 }, (_, x) => pool.run((x: number) => x + 1, x));
      assertEquals(await within(Promise.all(calls)), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }
    let sum = 0;
    for await (const x of pool.map((x: number) => x, Array(1000).keys())) sum += x;
    assertEquals(sum, 499_500);
    assertEquals(await pool.run(() => performance.now() + Date.now()), 0);
  });

  Deno.test(`A task that puts others in the place of the platform's arrays spoils only its own (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    const numbers = Float64Array.from({ length: 100 }, (_, x) => x) as unknown as number[];
    const task = (x: number) => {
      Object.getPrototypeOf(Int8Array).prototype.slice = () => ({ length: 7 });
      Array.from = () => [];
      globalThis.Float64Array = class {} as never;
      // So that results are sent while there are more to come.
      for (const end = performance.now() + 1.5; x % 40 === 20 && performance.now() < end;);
      return x % 50 === 49 ? `${x}` : x;
    };
    for (const timeout of [Infinity, 60_000]) {
      const results = await within(Array.fromAsync(pool.map(task, numbers, { chunkSize: 45, timeout })));
      assertEquals(results, Array.from({ length: 100 }, (_, x) => x % 50 === 49 ? `${x}` : x));
    }
  });

  Deno.test(`A task that replaces what the platform reads and writes memory with gets hold of nothing but its own values (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    const task = (text: string, bytes: Uint8Array) => {
      const scope = globalThis as unknown as { shared?: string[]; wrap?: (prototype: object, ...names: string[]) => void };
      if (scope.shared === undefined) {
        const shared: string[] = scope.shared = [];
        const look = (name: string, ...values: unknown[]) => {
          for (const value of values) {
            const memory = ArrayBuffer.isView(value) ? value.buffer : value;
            if (memory instanceof SharedArrayBuffer && memory.byteLength > 1000) shared.push(name);
          }
        };
        const wrap = (prototype: object, name: string) => {
          const { value } = Object.getOwnPropertyDescriptor(prototype, name)!;
          Object.defineProperty(prototype, name, {
            value(...args: unknown[]) {
              look(name, this, ...args);
              return value.apply(this, args);
            },
          });
        };
        for (const name of ["set", "subarray", "slice", "fill"]) wrap(Object.getPrototypeOf(Uint8Array.prototype), name);
        wrap(TextEncoder.prototype, "encodeInto");
        wrap(TextDecoder.prototype, "decode");
        const Bytes = Uint8Array;
        const species = function (...args: [SharedArrayBuffer, number, number]) {
          look("species", ...args);
          return new Bytes(...args);
        };
        for (const prototype of [Bytes.prototype, Object.getPrototypeOf(Bytes.prototype)]) {
          Object.defineProperty(prototype, "constructor", { value: { [Symbol.species]: species } });
        }
      }
      return { text, bytes, shared: scope.shared };
    };
    for (let i = 0; i < 5; i++) {
      for (const length of [100, 5000]) {
        const text = "é".repeat(length), bytes = new Uint8Array(length).fill(i);
        assertEquals(await within(pool.run(task, text, bytes)), { text, bytes, shared: [] });
      }
    }
  });

  Deno.test(`What is moved with an item, whatever it is, changes nothing in the order of those behind it (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    const task = (x: number) => {
      for (const end = performance.now() + 1.2; x < 4 && performance.now() < end;);
      // The queue knows only one of these.
      const moved = new ArrayBuffer(8, x === 2 ? {} : { maxByteLength: 16 });
      return x < 3 ? { [Symbol.for("process-pool.move")]: [moved], value: x } as unknown as number : x;
    };
    const numbers = Float64Array.from({ length: 100 }, (_, x) => x) as unknown as number[];
    for (const timeout of [Infinity, 60_000]) {
      for (let round = 0; round < 3; round++) {
        const results = Array.fromAsync(pool.map(task, numbers, { chunkSize: 50, timeout }));
        // What comes by the port waits meanwhile; what does not is checked first.
        setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 30));
        assertEquals(await within(results), [...numbers]);
      }
    }
  });

  Deno.test(`Items that cannot be moved arrive in order, even if they are the last and others come by the port (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 2 });
    const task = (x: number) => {
      const scope = globalThis as unknown as { kept?: ArrayBuffer };
      // Anything this long goes by the port.
      if (x === 0) throw new Error("long ".repeat(20_000));
      if (x < 48) return x;
      // One buffer cannot be moved twice.
      scope.kept ??= new ArrayBuffer(8);
      return { [Symbol.for("process-pool.move")]: [scope.kept], value: x } as unknown as number;
    };
    const numbers = Float64Array.from({ length: 1000 }, (_, i) => i % 50) as unknown as number[];
    for (const timeout of [Infinity, 60_000]) {
      const outcomes = await within(Array.fromAsync(pool.map(task, numbers, { chunkSize: 50, settled: true, timeout })));
      assertEquals(outcomes.length, 1000);
      for (const [i, outcome] of outcomes.entries()) {
        if (i % 50 === 0) assertEquals(outcome.status, "rejected");
        else assertEquals(outcome, { status: "fulfilled", value: i % 50 });
      }
    }
  });

  Deno.test(`The memory of a chunk's items is nobody else's when other numbers lie there (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1, jobsPerWorker: 3 });
    const keep = (numbers: Float64Array) => {
      ((globalThis as unknown as { kept?: Float64Array[] }).kept ??= []).push(numbers);
      return numbers[0];
    };
    const numbers = Float64Array.from({ length: 20_000 }, (_, i) => i) as unknown as number[];
    const tasks = [
      (x: number) => x * 2,
      (x: number) => x % 64 ? x * 2 : Promise.resolve(x * 2),
      (x: number) => x % 1000 === 99 ? `${x * 2}` : x * 2,
    ];
    const maps = tasks.map((task) => Array.fromAsync(pool.map(task as (x: number) => number, numbers, { chunkSize: 64 })));
    for (let i = 0; i < 300; i++) assertEquals(await within(pool.run(keep, new Float64Array(64).fill(i))), i);
    for (const results of await within(Promise.all(maps))) {
      assertEquals(results.map(Number), Array.from(numbers, (x) => x * 2));
    }
    const kept = await pool.run(() => (globalThis as unknown as { kept: Float64Array[] }).kept.map((each) => [...new Set(each)]));
    assertEquals(kept, Array.from({ length: 300 }, (_, i) => [i]));
  });

  Deno.test(`A job's arguments are taken one by one, whatever class their list is of (${backend})`, async () => {
    class Rows extends Array<unknown> {
      constructor(rows: Iterable<unknown>) {
        super();
        this.push(...rows);
      }
    }
    await using pool = new ProcessPool({ backend, maxWorkers: 1 });
    const func = (bytes: Uint8Array, x: number) => bytes.length + x;
    for (const length of [8, 1_000_000]) {
      const bytes = new Uint8Array(length);
      const args = new Rows([bytes, 1]) as unknown as [Uint8Array, number];
      assertEquals(await within(pool.run(new Job({ func, args, transfer: [bytes.buffer] }))), length + 1);
      assertEquals(bytes.length, 0);
    }
  });

  Deno.test(`move() moves a result instead of copying it (${backend})`, async () => {
    const url = moduleOf(`
      let last;
      export function make(length) {
        last = new Uint8Array(length).fill(7);
        return { [Symbol.for("process-pool.move")]: [last.buffer], value: last };
      }
      export const left = () => last.length;
    `);
    await using pool = new ProcessPool({ backend, maxWorkers: 1, modules: [url] });
    const make = { module: url, name: "make" };
    const left = { module: url, name: "left" };
    assertEquals(await pool.run(make, 1000), new Uint8Array(1000).fill(7));
    assertEquals(await pool.run(left), 0);
    const lengths: number[] = [];
    for await (const bytes of pool.map(make, [10, 2000, 400_000, 30])) lengths.push((bytes as Uint8Array).length);
    assertEquals([lengths, await pool.run(left)], [[10, 2000, 400_000, 30], 0]);
    assertEquals([(await pool.run(make, 400_000) as Uint8Array).length, await pool.run(left)], [400_000, 0]);
  });

  Deno.test(`A result that cannot be sent takes no moved results of others with it (${backend})`, async () => {
    const url = moduleOf(`
      let bytes;
      export function make(kind) {
        if (kind === "function") return () => {};
        if (kind === "text") return kind;
        if (kind !== "again") bytes = new Float64Array(typeof kind === "number" ? kind : 9).fill(7);
        const { buffer } = bytes;
        const parts = { buffer, part: kind === "part" && bytes.subarray(2, 4), object: { buffer }, odd: { buffer, make } };
        const value = parts[kind] ?? bytes;
        return { [Symbol.for("process-pool.move")]: kind === "twice" ? [buffer, buffer] : [buffer], value };
      }
      export const left = () => bytes.length;
    `);
    await using pool = new ProcessPool({ backend, maxWorkers: 1, modules: [url] });
    const bytes = (length: number) => new Float64Array(length).fill(7);
    const kinds = [10, 20, "again", 30, "text", "part", "function", "buffer", 50_000, "twice", 5, "object", "odd", "object", 40, "text"];
    const expected = [
      bytes(10),
      bytes(20),
      "DataCloneError",
      bytes(30),
      "text",
      bytes(9).subarray(2, 4),
      "DataCloneError",
      bytes(9).buffer,
      bytes(50_000),
      "DataCloneError",
      bytes(5),
      { buffer: bytes(9).buffer },
      "DataCloneError",
      { buffer: bytes(9).buffer },
      bytes(40),
      "text",
    ];
    // The first results take so long that each is sent by itself.
    const all = (list: unknown[]): unknown[] => Array.from({ length: 10 }, () => list).flat();
    const outcomes = await within(Array.fromAsync(pool.map({ module: url, name: "make" }, all(kinds), { chunkSize: 160, settled: true })));
    assertEquals(outcomes.map((each) => each.status === "fulfilled" ? each.value : (each.reason as Error).name), all(expected));
    assertEquals(await pool.run({ module: url, name: "left" }), 0);
  });
}

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`A buffer that a task fills anew for each item comes as it was returned (${backend})`, async () => {
    const url = moduleOf(`
      const made = {
        large: new Float64Array(1000),
        small: new Uint8Array(8),
        whole: new Int16Array(4),
        buffer: new ArrayBuffer(16),
        own: new (class Own extends Uint8Array {})(8),
        shared: new Int32Array(new SharedArrayBuffer(8)),
      };
      export function fill([kind, i]) {
        const result = made[kind];
        if (kind === "buffer") new Uint8Array(result).fill(i);
        else result.fill(i);
        return result;
      }
    `);
    await using pool = new ProcessPool({ backend, maxWorkers: 1, modules: [url] });
    const kinds = ["large", "small", "whole", "buffer", "own"] as const;
    const fill = { module: url, name: "fill" };
    for (
      const items of [
        ...kinds.map((kind) => Array.from({ length: 50 }, (_, i) => [kind, i])),
        kinds.flatMap((kind, i) => [[kind, i], [kind, 9]]),
      ]
    ) {
      const results = await within(Array.fromAsync(pool.map(fill, items, { chunkSize: 50 })));
      for (const [i, result] of results.entries()) {
        const [kind, x] = items[i] as [string, number];
        const wanted = {
          large: new Float64Array(1000),
          small: new Uint8Array(8),
          whole: new Int16Array(4),
          buffer: new Uint8Array(16),
          own: new Uint8Array(8),
        }[kind]!;
        assertEquals(result instanceof ArrayBuffer ? new Uint8Array(result) : result, wanted.fill(x));
      }
    }
    const shared = await within(Array.fromAsync(pool.map(fill, [["shared", 1], ["shared", 2]], { chunkSize: 2 }))) as Int32Array[];
    assertEquals(shared.map((each) => each[0]), [2, 2]);
  });

  Deno.test(`Parts of one large buffer are not copied with all of it for each item (${backend})`, async () => {
    const url = moduleOf(`
      const large = new Uint8Array(4_000_000).map((_, i) => i);
      export const part = (i) => large.subarray(i, i + 4);
    `);
    await using pool = new ProcessPool({ backend, maxWorkers: 1, modules: [url] });
    const items = Array.from({ length: 20 }, (_, i) => i);
    const parts = await within(Array.fromAsync(pool.map({ module: url, name: "part" }, items, { chunkSize: 20 }))) as Uint8Array[];
    assertEquals(parts.map((part) => part[0]), items);
    if (backend === "worker") assert(new Set(parts.map(({ buffer }) => buffer)).size < 20);
  });

  Deno.test(`What refers to a buffer that a later item moves is sent before (${backend})`, async () => {
    const url = moduleOf(`
      const bytes = new Uint8Array(5000).fill(7);
      export const task = (i) => i === 0 ? { part: bytes.subarray(0, 2) } : { [Symbol.for("process-pool.move")]: [bytes.buffer], value: bytes };
    `);
    await using pool = new ProcessPool({ backend, maxWorkers: 1, modules: [url] });
    const results = await within(Array.fromAsync(pool.map({ module: url, name: "task" }, [0, 1], { chunkSize: 2 })));
    assertEquals(results, [{ part: new Uint8Array(2).fill(7) }, new Uint8Array(5000).fill(7)]);
  });

  Deno.test(`Buffers that go back and forth share memory with no buffer that is still in use (${backend})`, async () => {
    const url = moduleOf(`
      const kept = [];
      export function stamp(buffer, i) {
        const bytes = new Uint8Array(buffer);
        if (bytes.some((x) => x !== bytes[0])) throw new Error("mixed");
        for (const [x, each] of kept) if (each.some((y) => y !== x)) throw new Error("kept in vain");
        // Some stay, some go back.
        if (i % 7 === 0 && kept.push([bytes[0], bytes]) > 5) kept.shift();
        const back = i % 7 === 0 ? new Uint8Array(bytes.length) : bytes;
        back.fill(i % 251);
        return { [Symbol.for("process-pool.move")]: [back.buffer], value: i % 2 ? back : back.buffer };
      }
    `);
    await using pool = new ProcessPool({ backend, maxWorkers: 2, modules: [url] });
    const kept: [number, Uint8Array][] = [];
    let next = 0;
    const lane = async (size: number): Promise<void> => {
      let buffer = new ArrayBuffer(size);
      while (next < 1500) {
        const i = next++;
        const args: unknown[] = i % 3 ? [buffer, i] : [new Uint8Array(buffer), i];
        const job = new Job({ func: { module: url, name: "stamp" }, args: i % 5 ? args : [...args, { more: i }], transfer: [buffer] });
        const result = await within(pool.run(job)) as ArrayBuffer | Uint8Array<ArrayBuffer>;
        const bytes = new Uint8Array(result instanceof ArrayBuffer ? result : result.buffer);
        assertEquals([bytes.length, bytes[0], bytes[size - 1]], [size, i % 251, i % 251]);
        if (i % 4 === 0) kept.push([i % 251, bytes]);
        buffer = i % 4 === 0 ? new ArrayBuffer(size) : bytes.buffer;
      }
    };
    await Promise.all([100, 100, 5000, 5000, 5000, 2 ** 16].map(lane));
    for (const [x, bytes] of kept) assert(bytes.every((y) => y === x));
  });
}

Deno.test("move() marks what is moved, and requires a list", () => {
  const bytes = new Uint8Array(3);
  const moved = move(bytes, [bytes.buffer]) as unknown as Record<PropertyKey, unknown>;
  assertEquals([moved.value, moved[Symbol.for("process-pool.move")]], [bytes, [bytes.buffer]]);
  assertThrows(() => move(bytes, bytes.buffer as never), TypeError, "Cannot move result as 'transfer' must be an array: current value is");
  assertThrows(() => move(bytes, [bytes as never]), TypeError, "'transfer[0]' must be an object that can be moved, such as the 'buffer'");
});

Deno.test("A task sent as source text that gives no list of what is moved with its result fails with an error that says so", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const task = (x: number) => {
    const bytes = new Uint8Array(4);
    return { [Symbol.for("process-pool.move")]: x === 0 ? bytes.buffer : null, value: bytes };
  };
  const message = "Cannot move result as what is at 'Symbol.for(\"process-pool.move\")' must be an array: current value is ";
  const said = [`${message}[object ArrayBuffer]`, `${message}null`];
  for (const [x, expected] of said.entries()) await assertRejects(() => pool.run(task, x), TypeError, expected);
  const outcomes = await Array.fromAsync(pool.map(task, [0, 1], { chunkSize: 2, settled: true }));
  assertEquals(outcomes.map((outcome) => outcome.status === "rejected" && outcome.reason.message), said);
});

Deno.test("ProcessPool.run() of jobs that throw does not affect the others, whatever was sent ahead", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 100 });
  const results = await within(Promise.allSettled(Array.from({ length: 100 }, (_, i) =>
    pool.run((i: number) => {
      if (i % 10 === 3) throw new RangeError(`no ${i}`);
      return i;
    }, i))));
  for (const [i, result] of results.entries()) {
    if (i % 10 === 3) assertEquals((result as PromiseRejectedResult).reason.message, `no ${i}`);
    else assertEquals((result as PromiseFulfilledResult<number>).value, i);
  }
});

Deno.test("What was sent ahead to a worker runs elsewhere while that is held up", async () => {
  await using pool = new ProcessPool({ maxWorkers: 2, queueSize: 1000 });
  const inc = (x: number) => x + 1;
  await pool.warmUp();
  await Promise.all(Array.from({ length: 1000 }, (_, i) => pool.run(inc, i)));
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const held = (gate: Int32Array) => {
    Atomics.wait(gate, 0, 0);
    return "let go";
  };
  // The quick ones around it are sent ahead to both workers; all of them get through while it waits.
  const before = Array.from({ length: 50 }, (_, i) => pool.run(inc, i));
  const slow = await pool.submit(held, gate);
  const after = Array.from({ length: 200 }, (_, i) => pool.run(inc, i));
  await within(Promise.all([...before, ...after]));
  assert(slow.running());
  Atomics.store(gate, 0, 1);
  Atomics.notify(gate, 0);
  assertEquals(await within(slow.result()), "let go");
});

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`A job that cannot be sent leaves the line as it was: those before and behind it come through in their order (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1, jobsPerWorker: 4 });
    const order = () =>
      (globalThis as unknown as { order?: number }).order = ((globalThis as unknown as { order?: number }).order ?? 0) + 1;
    const count = (_: unknown) => (globalThis as unknown as { order: number }).order;
    await pool.run(order);
    const large = "x".repeat(1000);
    for (let round = 0; round < 50; round++) {
      const jobs = [
        pool.run(count, large),
        pool.run(count, () => {}),
        pool.run(count, 1),
        pool.run(count, [large, Symbol()]),
        pool.run(order),
      ];
      const outcomes = await within(Promise.allSettled(jobs));
      const before = round + 1;
      assertEquals(
        outcomes.map((outcome) => outcome.status === "fulfilled" ? outcome.value : (outcome.reason as Error).name),
        [before, "DataCloneError", before, "DataCloneError", before + 1],
      );
    }
  });
}

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`A task that is new to a worker is there before it is called, however full the line is (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1, queueSize: 1000 });
    const lengthOf = (value: { length: number }) => value.length;
    // So that many are sent ahead.
    for (let i = 0; i < 10; i++) await within(Promise.all(Array.from({ length: 200 }, () => pool.run(lengthOf, "short"))));
    for (let round = 0; round < 60; round++) {
      const add = new Function("x", `return x + ${round}`) as (x: number) => number;
      const large = Array.from({ length: 10 }, (_, i) => "x".repeat(190) + i);
      const before = Array.from({ length: 45 }, () => pool.run(lengthOf, round % 2 === 0 ? large : "y".repeat(1900)));
      const behind = Array.from({ length: 5 }, (_, x) => pool.run(add, x));
      assertEquals(await within(Promise.all(behind)), Array.from({ length: 5 }, (_, x) => x + round));
      assertEquals(await within(Promise.all(before)), Array(45).fill(round % 2 === 0 ? 10 : 1900));
    }
  });
}

/** Opens a line and the other ends of what is between it and its worker. It is closed at the end of the test. */
function openBothEnds(events: Partial<LineEvents> = {}) {
  const { port1, port2: port } = new MessageChannel();
  const line = new Line(port1, { message() {}, returned() {}, delivered() {}, unreadable() {}, ...events });
  const { requests, replies, bells } = line.memory;
  return {
    line,
    port,
    requests: openSharedQueue(requests),
    replies: openSharedQueue(replies),
    bells: new Int32Array(bells),
    [Symbol.dispose]() {
      line.close();
      port.close();
    },
  };
}

Deno.test("A worker that is called when it is about to sleep goes to its event loop instead", async () => {
  const { wait } = Atomics;
  const slept: boolean[] = [];
  for (const called of [false, true]) {
    using opened = openBothEnds();
    const { line } = opened;
    const runtime = {
      hasRoom: true,
      get idle() {
        if (called) line.post({ type: "close", finalizer: undefined }, []);
        return true;
      },
    } as Runtime;
    let sleeps = 0;
    Atomics.wait = () => {
      sleeps++;
      return "timed-out";
    };
    try {
      const { receive, close } = openLine({ memory: line.memory, openSharedQueue, runtime, hasTimers: false });
      receive({ type: "wake" });
      await turn();
      close();
    } finally {
      Atomics.wait = wait;
    }
    slept.push(sleeps > 0);
  }
  assertEquals(slept, [true, false]);
});

const IN_EVENT_LOOP = [
  { what: "A worker in its event loop that has nothing to wait for", idle: true, hasTimers: false, hearsBell: true },
  { what: "A worker in its event loop that has jobs to wait for", idle: false, hasTimers: false, hearsBell: false },
  { what: "A worker of node:worker_threads in its event loop", idle: true, hasTimers: true, hearsBell: false },
];
for (const { what, idle, hasTimers, hearsBell } of IN_EVENT_LOOP) {
  Deno.test(`${what} is woken by ${hearsBell ? "the bell" : "a message"}`, async () => {
    using opened = openBothEnds();
    const { line, port, bells } = opened;
    const taken: number[] = [];
    const runtime = {
      hasRoom: true,
      idle,
      callAll({ number }: Calls) {
        taken.push(number);
        return 1;
      },
    } satisfies Partial<Runtime> as unknown as Runtime;
    const end = openLine({ memory: line.memory, openSharedQueue, runtime, hasTimers });
    let messages = 0;
    port.onmessage = ({ data }) => {
      messages++;
      end.receive(data);
    };
    try {
      // Nobody hears a bell yet, as with a worker that has just been started.
      for (const [run, woken] of [[0, 1], [1, hearsBell ? 1 : 2], [2, hearsBell ? 1 : 3]] as const) {
        line.call(1, run, "id", []);
        line.ring(1);
        await until(() => taken.length > run && bells[WORKER] === LISTENING);
        assertEquals([taken.at(-1), messages], [run, woken]);
      }
    } finally {
      end.close();
    }
  });
}

Deno.test("A worker holds back nothing that jobs return while its event loop has its turn", async () => {
  using opened = openBothEnds();
  const { line, bells } = opened;
  const told = Promise.withResolvers<number>();
  const returnLater = async (run: number) => {
    // The turn has begun by then, but not its first tick.
    for (let i = 0; i < 20; i++) await undefined;
    end.returned(run, "value");
    told.resolve(bells[CALLER]!);
  };
  const runtime = {
    hasRoom: true,
    idle: false,
    callAll({ number }: Calls) {
      for (const end = performance.now() + 15; performance.now() < end;);
      returnLater(number);
      return 1;
    },
  } satisfies Partial<Runtime> as unknown as Runtime;
  const end = openLine({ memory: line.memory, openSharedQueue, runtime, hasTimers: false });
  try {
    bells[CALLER] = ASLEEP;
    line.call(1, 0, "id", []);
    end.receive({ type: "wake" });
    assertEquals(await within(told.promise), AWAKE);
  } finally {
    end.close();
  }
});

for (const what of ["a reply that went by the port", "a turn of its event loop"]) {
  Deno.test(`A worker does not hold back the first reply after a while with nothing but ${what}: the caller no longer looks`, async () => {
    using opened = openBothEnds();
    const { line, bells } = opened;
    const pace = new Float64Array(line.memory.bells);
    const byPort = what === "a reply that went by the port";
    const told = Promise.withResolvers<number>();
    const compute = (ms: number): void => {
      for (const end = performance.now() + ms; performance.now() < end;);
      bells[CALLER] = ASLEEP;
      pace[PACE] = 0.1;
    };
    const runtime = {
      hasRoom: true,
      idle: false,
      callAll({ number }: Calls) {
        // The last one may take long.
        if (number === 2) told.resolve(bells[CALLER]!);
        else if (number === 1) end.returned(1, "value");
        else if (byPort) compute(2);
        else {
          setTimeout(compute, 0, 2);
          // Until a turn is due.
          compute(15);
          end.returned(0, "value");
        }
        return 1;
      },
    } satisfies Partial<Runtime> as unknown as Runtime;
    const end = openLine({ memory: line.memory, openSharedQueue, runtime, hasTimers: false });
    try {
      for (const run of [0, 1, 2]) line.call(1, run, "id", []);
      end.receive({ type: "wake" });
      assertEquals(await within(told.promise), AWAKE);
    } finally {
      end.close();
    }
  });
}

for (const [what, pace, state] of [["long", 1, ASLEEP], ["short", 0.1, AWAKE]] as const) {
  Deno.test(`A caller of ${what} jobs that has taken a reply ${state === ASLEEP ? "waits at once" : "looks once more at the next tick"}`, async () => {
    const states: number[] = [];
    const { promise: returned, resolve } = Promise.withResolvers<void>();
    using opened = openBothEnds({
      returned: () =>
        queueMicrotask(() => {
          states.push(bells[CALLER]!);
          resolve();
        }),
    });
    const { line, replies, bells } = opened;
    new Float64Array(line.memory.bells)[PACE] = pace;
    for (const run of [0, 1]) line.call(1, run, run, []);
    line.ring(2);
    await until(() => bells[CALLER] === ASLEEP);
    replies.push(RETURNED, 0, 0, []);
    Atomics.store(bells, CALLER, AWAKE);
    Atomics.notify(bells, CALLER);
    await within(returned);
    assertEquals(states, [state]);
    await until(() => bells[CALLER] === ASLEEP);
  });
}

Deno.test("Jobs that were taken back do not count in how long a worker's jobs take", async () => {
  using opened = openBothEnds();
  const { line, replies } = opened;
  let isTakenBack = false;
  let done = 0;
  const runtime = {
    hasRoom: true,
    idle: true,
    callAll({ number }: Calls) {
      for (const end = performance.now() + 1; !isTakenBack && performance.now() < end;);
      replies.push(RETURNED, number, 0, []);
      done++;
      return isTakenBack ? 0 : 1;
    },
  } satisfies Partial<Runtime> as unknown as Runtime;
  const end = openLine({ memory: line.memory, openSharedQueue, runtime, hasTimers: false });
  async function run(jobs: number): Promise<number> {
    const expected = done + jobs;
    for (let i = 0; i < jobs; i++) line.call(1, i, "id", []);
    end.receive({ type: "wake" });
    await until(() => done === expected && opened.bells[WORKER] === LISTENING);
    return line.pace;
  }
  try {
    const pace = await run(3);
    assert(pace >= 1);
    isTakenBack = true;
    assertEquals(await run(50), pace);
    isTakenBack = false;
    const next = await run(1);
    assert(next >= 1 && next !== pace, String(next));
  } finally {
    end.close();
  }
});

Deno.test("A line reports the items of two chunks in order, even if its listener makes it look for more", () => {
  const told: unknown[] = [];
  using opened = openBothEnds({
    message(message) {
      const { run, from, values } = message as ItemsMessage;
      told.push([run, from, values]);
      line.drain();
    },
  });
  const { line, replies } = opened;
  replies.push(ITEM, 1, "a0", [0]);
  for (let i = 0; i < 3; i++) replies.push(ITEM, 2, `b${i}`, [i]);
  replies.push(ITEM, 1, "a1", [1]);
  line.drain();
  assertEquals(told, [[1, 0, ["a0"]], [2, 0, ["b0", "b1", "b2"]], [1, 1, ["a1"]]]);
});

Deno.test("A line sends nothing beside the port before what it had to post unannounced has been answered", () => {
  const told: unknown[] = [];
  using opened = openBothEnds({ returned: (runs, values) => told.push(runs, values) });
  const { line, requests, replies } = opened;
  let run = 0;
  while (line.call(1, run, run, [])) run++;
  line.post({ type: "run", run, task: { key: 1, name: "task" }, id: run, attempt: 1, args: [] }, []);
  // Everything in the queue has been taken, and some of it answered; what was posted is still to come.
  while (requests.take());
  replies.push(RETURNED, 0, "first", []);
  line.drain();
  assertEquals(line.call(1, run + 1, run + 1, []), false);
  line.post(chunkOf(new Float64Array(2), run + 2), []);
  assertEquals([requests.take(), requests.kind], [true, BY_PORT]);
  replies.push(RETURNED, 1, "second", []);
  replies.push(RETURNED, run, "posted", []);
  line.drain();
  assertEquals(told, [[0], ["first"], [1, run], ["second", "posted"]]);
  assertEquals(line.call(1, run + 1, run + 1, []), true);
});

Deno.test("Consecutive calls of one task, and their results, take little more of a line than their numbers do", () => {
  using opened = openBothEnds();
  const { line, replies } = opened;
  const { memory } = line;
  /** How many cells have been written each way: the first word says where the writer is. */
  const written = () => [memory.requests, memory.replies].map(({ ring }) => new Int32Array(ring)[0]!);
  const before = written();
  for (let run = 0; run < 1000; run++) {
    assert(line.call(1, run, run + 7, [run, -run - 1]));
    assert(replies.push(RETURNED, run, run, []));
  }
  const after = written();
  // Two arguments each, one result each, and a header for one in 65 and one in 129.
  assertEquals(after.map((words, i) => words - before[i]!), [2 * 1000 + 3 * 16, 1000 + 2 * 8]);
});

Deno.test("A line reports each reply once and in order, even if it is asked for more meanwhile", () => {
  const told: unknown[] = [];
  using opened = openBothEnds({
    message: (message) => void told.push(message.type === "threw" ? message.run : message.type),
    returned(runs, values) {
      told.push(...runs.map((run, i) => [run, values[i]]));
      line.drain();
    },
  });
  const { line, replies } = opened;
  replies.push(RETURNED, 0, "a", []);
  replies.push(RETURNED, 1, "b", []);
  replies.push(THREW, 2, { raw: "c" }, []);
  replies.push(RETURNED, 3, "d", []);
  replies.push(SKIPPED, 4, 0, []);
  replies.push(RETURNED, 5, "e", []);
  line.drain();
  assertEquals(told, [[0, "a"], [1, "b"], 2, [3, "d"], "skipped", [5, "e"]]);
});

Deno.test("A line leaves replies for later that come while it reports those before, as these may have led to them", () => {
  const told: unknown[] = [];
  using opened = openBothEnds({
    returned(runs) {
      told.push(...runs);
      // Without end, if the line took them as they come.
      if (told.length < 1000) replies.push(RETURNED, told.length, "next", []);
    },
    delivered: () => void told.push("delivered"),
  });
  const { line, replies } = opened;
  replies.push(RETURNED, 0, "first", []);
  line.drain();
  assertEquals(told.splice(0), [0, "delivered"]);
  line.drain();
  assertEquals(told.splice(0), [1, "delivered"]);
});

for (const way of ["is rung for", "a line looks for in time"]) {
  Deno.test(`A reply that ${way} waits for the end of a whole turn that other work has`, async () => {
    const told: unknown[] = [];
    const reported = Promise.withResolvers<void>();
    using opened = openBothEnds({
      returned(runs) {
        told.push(...runs);
        reported.resolve();
      },
    });
    const { line, replies, bells } = opened;
    line.ring(2);
    assertEquals(bells[CALLER], ASLEEP);
    // Until a turn is due, and the line is about to look.
    for (const end = performance.now() + 15; performance.now() < end;);
    atNextTick(() => told.push("turn"));
    replies.push(RETURNED, 0, "value", []);
    if (way === "is rung for") {
      bells[CALLER] = AWAKE;
      Atomics.notify(bells, CALLER);
    }
    await within(reported.promise);
    assertEquals(told, ["turn", 0]);
  });
}

Deno.test("A reply that a line looks for in time has its portion although another line always has more", async () => {
  const reported = Promise.withResolvers<void>();
  using opened = openBothEnds({ returned: () => reported.resolve() });
  const { line, replies } = opened;
  let isOver = false;
  const other = (most: number): void => {
    portions.handOver(most);
    if (!isOver) portions.join(other);
  };
  portions.join(other);
  try {
    await until(() => portions.few === 0);
    // The worker has another job, and does not ring.
    line.ring(2);
    replies.push(RETURNED, 0, "value", []);
    await within(reported.promise);
  } finally {
    isOver = true;
  }
});

Deno.test("Amid a turn a line takes what jobs returned, up to a reply of another kind", () => {
  const told: unknown[] = [];
  using opened = openBothEnds({
    message: (message) => void told.push(message.type),
    returned: (runs, values) => void told.push(runs, values),
    delivered: () => void told.push("delivered"),
  });
  const { line, replies } = opened;
  assertEquals(line.takeReturned(9), 0);
  assertEquals(told, []);
  replies.push(RETURNED, 0, "a", []);
  replies.push(RETURNED, 2, "b", []);
  replies.push(THREW, 1, { raw: "c" }, []);
  replies.push(RETURNED, 3, "d", []);
  assertEquals([line.takeReturned(0), line.takeReturned(1), line.takeReturned(9), line.takeReturned(9)], [0, 1, 1, 0]);
  assertEquals(told.splice(0), [[0], ["a"], "delivered", [2], ["b"], "delivered"]);
  line.drain();
  assertEquals(told, ["threw", [3], ["d"], "delivered"]);
});

Deno.test("Amid a turn a line takes nothing if another has given more than was asked for, as who heard of a result had others taken", async () => {
  let isUnreadable = false;
  using first = openBothEnds({ returned: () => first.line.drain() });
  using second = openBothEnds({ unreadable: () => isUnreadable = true });
  // For a few, no room is made.
  const count = 20;
  for (const { replies } of [first, second]) {
    for (let run = 0; run < count; run++) replies.push(RETURNED, 2 * run, "value", []);
  }
  const taken = first.line.takeReturned(1);
  assertEquals(taken, count);
  assertEquals(second.line.takeReturned(1 - taken), 0);
  await turn();
  assert(!isUnreadable);
  assertEquals(second.line.takeReturned(2 * count), count);
});

/** Counts what is handed over in each stretch of code between which those who await it have their turn. */
class Portions {
  readonly sizes: number[] = [];
  #goesOn = false;

  add(jobs: number): void {
    if (!this.#goesOn) {
      this.#goesOn = true;
      this.sizes.push(0);
      queueMicrotask(() => this.#goesOn = false);
    }
    this.sizes[this.sizes.length - 1]! += jobs;
  }

  get total(): number {
    return this.sizes.reduce((sum, size) => sum + size, 0);
  }
}

for (const kind of [RETURNED, THREW]) {
  const what = kind === RETURNED ? "returned" : "threw";
  Deno.test(`What a thousand jobs ${what} is handed over in portions, which are smaller if that takes long`, async () => {
    const portions = new Portions();
    /** How many portions there were before each job took a millisecond. */
    let quick = 0;
    const all = Promise.withResolvers<void>();
    const hear = (jobs: number): void => {
      portions.add(jobs);
      if (portions.total <= 300) quick = portions.sizes.length;
      else for (const end = performance.now() + jobs; performance.now() < end;);
      if (portions.total === 1000) all.resolve();
    };
    using opened = openBothEnds({ message: () => hear(1), returned: (runs) => hear(runs.length) });
    const { line, replies, bells } = opened;
    line.ring(1000);
    for (let run = 0; run < 1000; run++) assert(replies.push(kind, run, { raw: run }, []));
    Atomics.store(bells, CALLER, AWAKE);
    Atomics.notify(bells, CALLER);
    await within(all.promise);
    assert(Math.max(...portions.sizes) <= 256, `${portions.sizes}`);
    // One may have come before it was known that they take long. From then on five fit.
    assert(portions.sizes.slice(quick + 1).every((size) => size <= 5), `${portions.sizes}`);
  });
}

Deno.test("Results are handed over in large portions where other work keeps the event loop busy", async () => {
  const JOBS = 3000;
  let ticks = 0;
  let left = JOBS;
  const all = Promise.withResolvers<void>();
  const work = (): void => {
    if (left === 0) return all.resolve();
    ticks++;
    for (const end = performance.now() + 5; performance.now() < end;);
    setImmediate(work);
  };
  using opened = openBothEnds({ returned: (runs) => left -= runs.length });
  const { line, replies, bells } = opened;
  line.ring(JOBS);
  for (let run = 0; run < JOBS; run++) assert(replies.push(RETURNED, run, 1, []));
  setImmediate(work);
  Atomics.store(bells, CALLER, AWAKE);
  Atomics.notify(bells, CALLER);
  await within(all.promise);
  // A dozen portions, each after a few ticks, and some smaller ones on a busy machine.
  assert(ticks < JOBS / 10, `${ticks} ticks`);
});

Deno.test("What comes by the port is handed over after what was written before, which goes out in portions all the same", async () => {
  const portions = new Portions();
  const order: number[] = [];
  const all = Promise.withResolvers<void>();
  const hear = (runs: number[]): void => {
    portions.add(runs.length);
    order.push(...runs);
    if (order.length === 1004) all.resolve();
  };
  using opened = openBothEnds({ message: (message) => hear([(message as { run: number }).run]), returned: hear });
  const { line, replies, port } = opened;
  line.ring(1004);
  for (const first of [0, 502]) {
    for (let run = first; run < first + 500; run++) assert(replies.push(RETURNED, run, "", []));
    for (const run of [first + 500, first + 501]) port.postMessage({ type: "returned", run, value: "" } satisfies FromWorker);
  }
  await within(all.promise);
  assert(Math.max(...portions.sizes) <= 256, `${portions.sizes}`);
  // Both ways go their own pace, but nothing by the port comes too early.
  for (const late of [500, 501, 1002, 1003]) {
    const before = order.slice(0, order.indexOf(late));
    for (let run = late < 1000 ? 0 : 502; run < (late < 1000 ? 500 : 1002); run++) assert(before.includes(run), `${late} before ${run}`);
  }
  assertEquals(order.toSorted((a, b) => a - b), Array.from({ length: 1004 }, (_, run) => run));
});

Deno.test("Results that come by the port are handed over in portions, which are smaller if that takes long", async () => {
  const JOBS = 500;
  let left = JOBS;
  const all = Promise.withResolvers<void>();
  let ticks = 0;
  const tick = (): void => {
    ticks++;
    if (left > 0) setImmediate(tick);
  };
  /** How many there were in each tick. */
  const sizes: number[] = [];
  using opened = openBothEnds({
    message() {
      sizes[ticks] = (sizes[ticks] ?? 0) + 1;
      for (const end = performance.now() + 1; performance.now() < end;);
      if (--left === 0) all.resolve();
    },
  });
  const { line, port } = opened;
  line.ring(JOBS);
  for (let run = 0; run < JOBS; run++) port.postMessage({ type: "returned", run, value: "" } satisfies FromWorker);
  setImmediate(tick);
  await within(all.promise);
  // Before it is known that they take long, there may be 64, and then a whole portion. From then on five fit, at once and in a portion.
  const [first = 0, second = 0, ...others] = sizes.filter((size) => size > 0);
  assert(first <= 64 && second <= 256, `${first}, ${second}`);
  assert(others.every((size) => size <= 10), `${others}`);
});

Deno.test("What a worker says of itself waits for no portion, but for what was written before", async () => {
  const told: unknown[] = [];
  const closed = Promise.withResolvers<void>();
  using opened = openBothEnds({
    message({ type }) {
      told.push(type, portions.few);
      if (type === "closed") closed.resolve();
    },
    returned: (runs) => void told.push(runs),
  });
  const { replies, port } = opened;
  // As if those who hear of results had many.
  portions.handOver(1000);
  assertEquals(portions.few, 0);
  port.postMessage({ type: "alive" } satisfies FromWorker);
  await until(() => told.length > 0);
  assertEquals(told.splice(0), ["alive", 0]);
  replies.push(RETURNED, 0, "value", []);
  port.postMessage({ type: "closed", thrown: undefined } satisfies FromWorker);
  await within(closed.promise);
  assertEquals(told.slice(0, 2), [[0], "closed"]);
});

Deno.test("Other work has its turn although many lines are rung for at once, whose replies take long to be heard of", async () => {
  const LINES = 8;
  let left = LINES;
  let ticks = 0;
  /** How many were heard of in each tick. */
  const sizes: number[] = [];
  const all = Promise.withResolvers<void>();
  const tick = (): void => {
    ticks++;
    if (left > 0) setImmediate(tick);
  };
  const hear = (): void => {
    sizes[ticks] = (sizes[ticks] ?? 0) + 1;
    for (const end = performance.now() + 15; performance.now() < end;);
    if (--left === 0) all.resolve();
  };
  using opened = new DisposableStack();
  // As of those who await a result.
  const ends = Array.from({ length: LINES }, () => opened.use(openBothEnds({ returned: () => queueMicrotask(hear) })));
  for (const { line } of ends) line.ring(1);
  for (const { replies, bells } of ends) {
    replies.push(RETURNED, 0, "value", []);
    Atomics.store(bells, CALLER, AWAKE);
    Atomics.notify(bells, CALLER);
  }
  setImmediate(tick);
  await within(all.promise);
  // A second one, if the first was not known to take long.
  assert(sizes.every((size) => size <= 2), `${sizes}`);
});

Deno.test("What comes by the port does not wait for replies that are written after it, however many there always are", async () => {
  const JOBS = 5000;
  let left = JOBS;
  const reported = Promise.withResolvers<number>();
  using opened = openBothEnds({
    message: () => reported.resolve(JOBS - left),
    returned(runs) {
      left -= runs.length;
      // As of a worker that is always faster than who hears of its results.
      if (left > 500) write(runs.length);
    },
  });
  const { line, replies, port } = opened;
  const write = (jobs: number): void => {
    for (let i = 0; i < jobs; i++) assert(replies.push(RETURNED, 1 + i, "", []));
  };
  line.ring(JOBS + 1);
  write(500);
  port.postMessage({ type: "returned", run: 0, value: "" } satisfies FromWorker);
  // After those before it there may be others in the same portion.
  const before = await within(reported.promise);
  assert(500 <= before && before < 500 + 256, `${before}`);
});

Deno.test("A line wakes its worker in the middle of a turn as often as there is enough for it, or when the turn takes its time", async () => {
  using opened = openBothEnds();
  const { line, bells } = opened;
  let run = 0;
  /** Whether the sleeping worker is awake after this many jobs were written and this was done. */
  const wakes = (jobs: number, then = () => {}): boolean => {
    bells[WORKER] = ASLEEP;
    for (let i = 0; i < jobs; i++) {
      line.call(1, run, run, []);
      run++;
      line.ring(1);
    }
    then();
    return bells[WORKER] === AWAKE;
  };
  const pace = new Float64Array(line.memory.bells);
  pace[PACE] = 0.01;
  assertEquals([wakes(63), wakes(1), wakes(63), wakes(64)], [false, true, false, true]);
  // As many as take 0.05 ms together, but at most 256.
  for (const [time, enough] of [[0.001, 64], [0.0005, 100], [0.0001, 256]] as const) {
    pace[PACE] = time;
    await undefined;
    assertEquals([wakes(enough - 1), wakes(1)], [false, true]);
  }
  // One that takes so long is enough.
  pace[PACE] = 0.05;
  assertEquals([wakes(1), wakes(1)], [true, true]);
  pace[PACE] = 0.049;
  assertEquals([wakes(63), wakes(1)], [false, true]);
  await undefined;
  assertEquals([wakes(1), wakes(1, () => line.takeReturned(9)), wakes(0, () => line.takeReturned(9))], [false, true, false]);
  wakes(1);
  await undefined;
  assertEquals(bells[WORKER], AWAKE);
});

/** Opens both ends of a line that notes what it tells, with the memory of its replies. */
function openNoting() {
  const told: unknown[] = [];
  const opened = openBothEnds({
    message: (message) => void told.push(message.type),
    returned: (runs, values) => void told.push(runs, values),
    unreadable: () => void told.push("unreadable"),
  });
  return { ...opened, told, words: new Int32Array(opened.line.memory.replies.ring) };
}

Deno.test("A line tells what it can read of its replies, and then that it can read no more", async () => {
  for (const kind of [RETURNED, THREW, ITEM]) {
    using opened = openNoting();
    const { line, replies, words, told } = opened;
    replies.push(RETURNED, 1, "one", []);
    replies.push(kind, 2, "two", []);
    // The length of the second text.
    words[words.lastIndexOf(3)] = -1;
    replies.push(RETURNED, 3, "three", []);
    line.drain();
    line.drain();
    assertEquals(told, [[1], ["one"]]);
    await turn();
    assertEquals(told, [[1], ["one"], "unreadable"]);
  }
});

Deno.test("A line reads no further than a worker has written, even if a record seems to be longer than it is", async () => {
  for (const kind of [RETURNED, THREW]) {
    using opened = openNoting();
    const { line, replies, words, told } = opened;
    replies.push(kind, 1, [1], []);
    // The length of the list, as if its elements had not been written.
    words[words.lastIndexOf(1) - 2] = 2;
    line.drain();
    line.drain();
    assertEquals(told, []);
    await turn();
    assertEquals(told, ["unreadable"]);
  }
});

Deno.test("A task that changes how lists are iterated over spoils neither what it returns or throws, nor calls beside it", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const task = (x: number, how: string) => {
    if (how !== "") Array.prototype[Symbol.iterator] = (function* () {}) as never;
    if (how === "throws") throw new Error("mine");
    return { [`key${x}`]: x };
  };
  const size = (value: object) => Object.keys(value).length;
  assertEquals([await within(pool.run(task, 0, "")), await within(pool.run(size, {}))], [{ key0: 0 }, 0]);
  for (const how of ["returns", "throws"]) {
    const outcomes = await within(Promise.allSettled(Array.from({ length: 20 }, (_, x) => pool.run(task, x, x === 1 ? how : ""))));
    const said = outcomes.map((outcome) => outcome.status === "fulfilled" ? outcome.value : outcome.reason.message);
    assertEquals(said, outcomes.map((_, x) => x === 1 && how === "throws" ? "mine" : { [`key${x}`]: x }));
    assertEquals(await within(pool.run(size, { [how]: 1, more: 2 })), 2);
  }
});

Deno.test("A line has chunks of numbers and what they gave go beside the port, and other chunks by it", () => {
  const told: FromWorker[] = [];
  using opened = openBothEnds({ message: (message) => void told.push(message) });
  const { line, requests, replies } = opened;
  const numbers = chunkOf(new Float64Array([1, 2, -0]), 1);
  line.post(numbers, []);
  line.post(chunkOf([1, 2, {}], 2), []);
  line.post({ ...chunkOf(new Float64Array(20), 3), numbers: new SharedArrayBuffer(8) } as RunMessage, []);
  assertEquals([requests.take(), requests.kind, requests.label], [true, CHUNK, numbers]);
  assertEquals([requests.take(), requests.kind], [true, BY_PORT]);
  assertEquals([requests.take(), requests.kind, requests.take()], [true, BY_PORT, false]);
  replies.push(ITEMS, 1, new Float64Array([2]), [0, false, 5]);
  replies.push(ITEMS, 1, undefined, [1, true, 6]);
  line.drain();
  const items = { type: "items" as const, run: 1, thrown: [] };
  assertEquals(told, [
    { ...items, from: 0, values: new Float64Array([2]), last: false, elapsed: 5 },
    { ...items, from: 1, values: undefined, last: true, elapsed: 6 },
  ]);
});

Deno.test("A worker's end of a line sends items by the port after others that went that way, until the next chunk", () => {
  using opened = openBothEnds();
  const { line, port } = opened;
  const { reply, posted, close } = openLine({ memory: line.memory, openSharedQueue, runtime: {} as Runtime, hasTimers: false });
  const refused: FromRuntime[] = [];
  function items(
    run: number,
    values: ArrayLike<unknown> | undefined,
    more: Partial<ItemsMessage> = {},
    transfer: Transferable[] = [],
  ): boolean {
    const message: ItemsMessage = { type: "items", run, from: 0, values, thrown: [], last: false, elapsed: 0, ...more };
    const sent = reply(message, transfer);
    if (!sent) refused.push(message);
    return sent;
  }
  try {
    const numbers = new Float64Array(20);
    assertEquals([items(1, numbers), items(1, [1]), items(1, numbers), items(1, undefined)], [true, true, true, true]);
    // None of these is a single value, or numbers.
    assertEquals([items(2, []), items(3, [1, 2]), items(4, [/odd/]), items(5, ["last"], { last: true })], [false, false, false, false]);
    assertEquals([items(4, [1]), items(4, numbers), items(4, undefined)], [false, false, false]);
    // Items with which something is moved go by the port, and so do those behind them.
    const resizable = new ArrayBuffer(8, { maxByteLength: 16 });
    assertEquals([items(6, [1], {}, [port]), items(6, numbers), items(6, undefined, { last: true }, [resizable])], [false, false, false]);
    // That ends once the port has accepted the last of them: what it refuses is sent in another form.
    assertEquals([items(4, undefined, { last: true }), items(6, undefined, { last: true })], [false, false]);
    for (const message of refused) posted(message);
    assertEquals([items(4, numbers), items(5, numbers), items(5, undefined, { last: true }), items(6, [1])], [true, true, true, true]);
    const replies = openSharedQueue(line.memory.replies);
    for (const [run, label] of [[1, numbers], [1, 1], [1, numbers], [1, undefined], [4, numbers], [5, numbers], [5, undefined], [6, 1]]) {
      assertEquals([replies.take(), replies.number, replies.label], [true, run, label]);
    }
  } finally {
    close();
  }
});
