import { assert, assertEquals, assertInstanceOf, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { ProcessPool } from "@procpool/process-pool";
import { decodeError } from "../worker/decode_error.ts";
import { encodeError } from "../worker/encode_error.ts";
import {
  CLAIM_WORDS,
  FINISHED,
  type FromRuntime,
  NO_MORE,
  NUMBERS,
  SENT,
  STARTED,
  type TaskMessage,
  type ToRuntime,
  WITHDRAWN,
} from "../worker/protocol.ts";
import { type Calls, createRuntime, runtimeParts } from "../worker/runtime.ts";
import { isolated } from "../worker/function_text.ts";
import { granted, moduleOf } from "./fixtures.ts";
import { turn, until } from "./helpers.ts";
import { Random } from "./simulation/random.ts";

// What runs in workers, run here, since coverage does not count lines in workers.

/** A runtime whose messages are copied, as a worker's are. */
function start(namespace: Record<string, unknown> = {}, places = 1, reuse?: (buffer: ArrayBuffer) => void) {
  const told: FromRuntime[] = [];
  const runtime = createRuntime({
    ...reuse && { reuse },
    post: (message, transfer = []) => void told.push(structuredClone(message, { transfer })),
    encode: encodeError,
    imports: [() => Promise.resolve(namespace)],
  }, runtimeParts);
  const claims = new Int32Array(places * CLAIM_WORDS);
  runtime.receive({ type: "load", claims, capacity: 1, times: undefined });
  const bySource = (name: string, text: string): TaskMessage => ({ key: name.length, name, text: isolated(text) });
  const header = (task: TaskMessage) => ({ run: 1, task, id: 0, attempt: 1, from: 0 });

  /** Sends a message and returns what follows from it. */
  async function answers(message: ToRuntime): Promise<FromRuntime[]> {
    while (told.length === 0) await turn();
    told.length = 0;
    if ("run" in message && claims[0] === 0) claims[0] = SENT;
    runtime.receive(message);
    await turn();
    return [...told];
  }
  return { runtime, claims, told, bySource, header, answers };
}

/** A slow machine may send the items of a chunk in more than one message. */
function itemsOf(messages: FromRuntime[]) {
  return messages.filter((message) => message.type === "items");
}

Deno.test("createRuntime() runs a task that is sent as source text, and claims its job", async () => {
  const { claims, bySource, header, answers } = start();
  const task = bySource("add", "(a, b) => a + b");
  assertEquals(await answers({ type: "run", ...header(task), args: [1, 2] }), [{ type: "returned", run: 1, value: 3 }]);
  assertEquals(claims[0], FINISHED);
});

Deno.test("createRuntime() answers a job or a chunk that was taken back without running it", async () => {
  const { claims, bySource, header, answers } = start();
  const task = bySource("never", "() => { throw 1 }");
  claims[0] = WITHDRAWN;
  assertEquals(await answers({ type: "run", ...header(task), args: [] }), [{ type: "returned", run: 1, value: 0 }]);
  assertEquals(await answers({ type: "chunk", ...header(task), items: [1], skip: [], eager: false, timed: true, numbers: undefined }), [{
    type: "skipped",
    run: 1,
  }]);
});

Deno.test("createRuntime() calls back once the jobs whose signals it has aborted have cleaned up, and not before", async () => {
  const { runtime, bySource, header, answers } = start();
  const job = 'globalThis[Symbol.for("process-pool.job")]';
  const task = bySource(
    "wait",
    `() => { const { signal } = ${job}; return new Promise((end) => signal.onabort = () => end(signal.reason)); }`,
  );
  assertEquals(await answers({ type: "run", ...header(task), args: [] }), []);
  const order: string[] = [];
  const idle = Promise.withResolvers<void>();
  runtime.abort("why", () => (order.push("idle"), idle.resolve()));
  order.push("aborted");
  await idle.promise;
  runtime.abort("again", () => order.push("idle at once"));
  assertEquals(order, ["aborted", "idle", "idle at once"]);
});

Deno.test("createRuntime() explains a ReferenceError of a task that is sent as source text, wherever it comes from", async () => {
  for (const text of ["() => outer", "async () => outer", "(() => { throw outer })()"]) {
    const { bySource, header, answers } = start();
    const [answer] = await answers({ type: "run", ...header(bySource("task", text)), args: [] });
    assert(answer?.type === "threw");
    const error = decodeError(answer.thrown, () => undefined);
    assertInstanceOf(error, ReferenceError);
    assertMatch(error.message, /^outer is not defined; a function that is sent as source text cannot see .* 'modules'/);
  }
});

Deno.test("createRuntime() leaves a ReferenceError of an exported task as it is", async () => {
  const error = new ReferenceError("outer is not defined");
  const { header, answers } = start({
    task() {
      throw error;
    },
  });
  const task = { key: 1, name: "task", export: { module: 0, name: "task" } };
  const [answer] = await answers({ type: "run", ...header(task), args: [] });
  assert(answer?.type === "threw");
  assertEquals((decodeError(answer.thrown, () => undefined) as Error).message, "outer is not defined");
});

Deno.test("createRuntime() fails each item of a chunk whose task its module does not export", async () => {
  const { header, answers } = start({ other: () => 1 });
  const task = { key: 1, name: "absent", export: { module: 0, name: "absent" } };
  const items = itemsOf(
    await answers({ type: "chunk", ...header(task), items: [1, 2], skip: [], eager: false, timed: true, numbers: undefined }),
  );
  assert(items.at(-1)!.last);
  assertEquals(items.flatMap(({ thrown }) => thrown.map(([index]) => index)), [0, 1]);
});

Deno.test("createRuntime() fails the item of a chunk whose result cannot be copied, and no other", async () => {
  const { bySource, header, answers } = start();
  const task = bySource("task", "(x) => x === 1 ? () => 1 : x");
  const items = itemsOf(
    await answers({ type: "chunk", ...header(task), items: [0, 1, 2, 3], skip: [3], eager: false, timed: true, numbers: undefined }),
  );
  assertEquals(items.flatMap(({ values }) => values!), [0, undefined, 2, undefined]);
  assertEquals(items.flatMap(({ thrown }) => thrown.map(([index]) => index)), [1]);
});

// The runtime has copies of the constants of protocol.ts, which a worker does not have: these tests fail if one of them differs.

Deno.test("createRuntime() sends results whose prototype was changed as the platform copies them", async () => {
  const { bySource, header, answers } = start({}, 1, () => {});
  const task = bySource("task", "(item) => Object.setPrototypeOf(item === 0 ? new Uint8Array(2) : new ArrayBuffer(2), null)");
  const messages = itemsOf(
    await answers({ type: "chunk", ...header(task), items: [0, 1], skip: [], eager: false, timed: false, numbers: undefined }),
  );
  assertEquals(messages.flatMap(({ thrown }) => thrown), []);
  assertEquals(messages.flatMap(({ values }) => [...values as unknown[]]), [new Uint8Array(2), new ArrayBuffer(2)]);
});

Deno.test("createRuntime() runs a task that is sent as source text and whose name is no text that can stand in an address", async () => {
  const { header, answers } = start();
  const task = { key: 1, name: "\ud800", text: "() => 1" };
  assertEquals(await answers({ type: "run", ...header(task), args: [] }), [{ type: "returned", run: 1, value: 1 }]);
});

Deno.test("createRuntime() loads a module with classes that have something else in the place of their name", async () => {
  class Model {
    static name() {}
  }
  class Shy {
    static get name(): string {
      throw new Error("I have none");
    }
  }
  const { told } = start({ Model, Shy });
  await until(() => told.length > 0);
  const [message] = told;
  assert(message?.type === "loaded");
  assertEquals(message.exports.map(({ functionName }) => functionName), ["Model", "Shy"]);
});

Deno.test("encodeError() takes a class by its name only if that is a text", () => {
  class Odd extends TypeError {
    static override name() {}
  }
  const error = decodeError(encodeError(new Odd("odd"), () => undefined), () => undefined) as Error;
  assertEquals([error.constructor, error.name, error.message], [TypeError, "TypeError", "odd"]);
});

/** A self-contained task: throws, or returns, data nested this deep. */
function nest(depth: number, throws: boolean): unknown {
  let data: unknown = 0;
  for (let i = 0; i < depth; i++) data = [data];
  if (throws) throw Object.assign(new Error("mine", { cause: new Error("deeper", { cause: data }) }), { data, code: 7 });
  return data;
}

// Between these lies the depth that can be copied on its own, but not in a message, which nests it deeper.
const DEPTHS = Array.from({ length: 90 }, (_, i) => 50 * (i + 1));

Deno.test("createRuntime() sends an error without its data if that is too deep for a message", async () => {
  const { claims, bySource, header, answers } = start();
  const task = bySource("nest", nest.toString());
  const withData = new Set<boolean>();
  for (const depth of DEPTHS) {
    claims[0] = SENT;
    const [answer] = await answers({ type: "run", ...header(task), args: [depth, true] });
    assert(answer?.type === "threw");
    const error = decodeError(answer.thrown, () => undefined) as Error & { data?: unknown; code: number };
    const cause = error.cause as Error;
    assertEquals([error.message, error.code, cause.message, "data" in error], ["mine", 7, "deeper", "cause" in cause]);
    withData.add("data" in error);
  }
  assertEquals(withData.size, 2);
});

Deno.test("createRuntime() loses no other item of a chunk for items that are too deep for a message", async () => {
  const { claims, bySource, header, answers } = start();
  const task = bySource("task", `(item) => (${nest})(...item)`);
  for (const depth of DEPTHS.slice(30)) {
    claims.set([SENT, 0]);
    const items = [[1, false], [depth, true], [depth, false], [1, true], [2, false]];
    const messages = itemsOf(
      await answers({ type: "chunk", ...header(task), items, skip: [], eager: false, timed: false, numbers: undefined }),
    );
    const values = messages.flatMap(({ values }) => [...values as unknown[]]);
    const errors = new Map(messages.flatMap(({ thrown }) => thrown.map(([i, error]) => [i, decodeError(error, () => undefined) as Error])));
    assertEquals([values.length, values[0], values[4]], [5, [0], [[0]]]);
    assertEquals([errors.get(1)?.message, errors.get(3)?.message], ["mine", "mine"]);
    assertEquals(values[2] === undefined, errors.has(2));
    assertEquals(messages.map(({ last }) => last), messages.map((_, i) => i === messages.length - 1));
  }
});

Deno.test("createRuntime() loses no buffer, which it moves, to an error of the same chunk that is too deep for a message", async () => {
  const { claims, bySource, header, answers } = start({}, 1, () => {});
  const task = bySource("task", `(item) => typeof item === "number" ? new Uint8Array(5000).fill(item) : (${nest})(...item)`);
  for (const depth of DEPTHS.slice(30)) {
    claims.set([SENT, 0]);
    const chunk = { type: "chunk", items: [1, [depth, true], 2], skip: [], eager: false, timed: false, numbers: undefined } as const;
    const messages = itemsOf(await answers({ ...chunk, ...header(task) }));
    assertEquals(messages.flatMap(({ thrown }) => thrown.map(([i]) => i)), [1]);
    const values = messages.flatMap(({ values }) => [...values as unknown[]]);
    assertEquals(values, [new Uint8Array(5000).fill(1), undefined, new Uint8Array(5000).fill(2)]);
  }
});

Deno.test("createRuntime() claims a job that was sent, and no other, in the words that protocol.ts gives it", async () => {
  const { claims, header, answers } = start({}, 3);
  // The claim of run 1.
  const claim = CLAIM_WORDS;
  const task: TaskMessage = { key: 1, name: "look", func: () => [...claims] };
  const run = { type: "run", ...header(task), args: [] } as const;
  claims.fill(-7);
  claims.set([SENT, 0], claim);
  const [answer] = await answers(run);
  assert(answer?.type === "returned");
  const words = answer.value as number[];
  assertEquals(words.slice(claim, claim + 2), [STARTED, 0]);
  // The last of its words, which is written last, is the time when it started.
  assertEquals(words.map((word) => word !== -7), words.map((_, i) => i >= claim && i < claim + CLAIM_WORDS));
  assertEquals([...claims.subarray(claim, claim + 2)], [FINISHED, 0]);
  for (const other of [STARTED, WITHDRAWN, FINISHED]) {
    claims[claim] = other;
    assertEquals(await answers(run), [{ type: "returned", run: 1, value: 0 }]);
    assertEquals(claims[claim], other);
  }
});

Deno.test("createRuntime() puts numbers in the place of their items if nobody else has those, and gives their memory back", async () => {
  const { now } = performance;
  let time = 0;
  // Now and then a millisecond passes, and what there is by then is sent.
  performance.now = () => time += 0.3;
  try {
    for (const kind of ["", "async "]) {
      const text = `${kind}(x) => { if (x === 50) throw x; return x % 40 === 39 ? "" + x : x > 30 ? -x : x / 2; }`;
      for (const memory of ["ours", "shared", "somebody's"] as const) {
        for (const [from, length] of [[0, 20], [0, 30], [7, 30], [0, 200], [20, 200]] as const) {
          const reused: ArrayBuffer[] = [];
          const { claims, bySource, header, answers, told } = start(
            {},
            1,
            memory === "somebody's" ? undefined : (buffer) => void reused.push(buffer),
          );
          claims[1] = from;
          const expected = Array.from({ length: length - from }, (_, i) => i + from);
          const size = 8 * expected.length;
          const buffer = memory === "shared" ? new SharedArrayBuffer(size) : new ArrayBuffer(size);
          const items = new Float64Array(buffer);
          items.set(expected);
          const chunk = { type: "chunk", items, skip: [], eager: false, timed: false, numbers: undefined } as const;
          await answers({ ...chunk, ...header(bySource("task", text)), from });
          await until(() => itemsOf(told).some(({ last }) => last));
          const results = itemsOf(told).flatMap(({ values }) => Array.from(values!));
          assertEquals(results, expected.map((x) => x === 50 ? undefined : x % 40 === 39 ? `${x}` : x > 30 ? -x : x / 2));
          assertEquals(itemsOf(told).flatMap(({ thrown }) => thrown.map(([, thrown]) => thrown)).length, length > 50 ? 1 : 0);
          if (length > 50) assert(itemsOf(told).length > 2);
          assertEquals([items.every((x, i) => x === from + i), reused], memory === "ours" ? [false, [buffer as ArrayBuffer]] : [true, []]);
        }
      }
    }
  } finally {
    performance.now = now;
  }
});

Deno.test("createRuntime() shares numbers with the caller, also behind an item that threw, but not behind a result that is none", async () => {
  const { bySource, header, answers } = start();
  const task = bySource("task", "(x) => { if (x === 12) throw x; return x === 15 ? 'text' : -x; }");
  const numbers = new SharedArrayBuffer(NUMBERS + 20 * Float64Array.BYTES_PER_ELEMENT);
  const items = [10, 11, 12, 13, 14, 15, 16, 17];
  const told = itemsOf(await answers({ type: "chunk", ...header(task), items, skip: [], eager: true, timed: false, numbers }));
  // A slow machine may tell in between that more are shared.
  assertEquals(
    told.filter(({ values }) => values !== undefined).map(({ from, values, thrown, last }) => [from, values, thrown.length, last]),
    [
      [2, [undefined], 1, false],
      [5, ["text"], 0, false],
      [6, [-16], 0, false],
      [7, [-17], 0, true],
    ],
  );
  assertEquals([...new Int32Array(numbers, 0, 2)], [3, 5]);
  assertEquals([...new Float64Array(numbers, NUMBERS, 8)], [-10, -11, 0, -13, -14, 0, 0, 0]);
});

Deno.test("createRuntime() claims the items of a chunk one by one, until there are to be no more", async () => {
  const { claims, header, answers } = start();
  const seen: number[][] = [];
  function look(x: number): void {
    seen.push([...claims.subarray(0, 2)]);
    if (x === 2) claims[1] = NO_MORE;
  }
  await answers({
    type: "chunk",
    ...header({ key: 1, name: "look", func: look as () => void }),
    items: [0, 1, 2, 3],
    skip: [],
    eager: false,
    numbers: undefined,
    timed: true,
  });
  assertEquals(seen, [[STARTED, 1], [STARTED, 2], [STARTED, 3]]);
  assertEquals([...claims.subarray(0, 2)], [FINISHED, NO_MORE]);
});

for (const timed of [true, false]) {
  Deno.test(`createRuntime() notes the time of day when it begins a chunk${timed ? ", and each of its items" : ""} (timed: ${timed})`, async () => {
    const { now } = Date;
    let time = 0;
    Date.now = () => time += 10;
    const { claims, header, answers } = start();
    Date.now = now;
    const seen: number[] = [];
    const look = (): void => void seen.push(claims[2]!);
    const task = { key: 1, name: "look", func: look };
    await answers({ type: "chunk", ...header(task), items: [0, 1, 2], skip: [1], eager: false, numbers: undefined, timed });
    assertEquals(seen, timed ? [20, 40] : [10, 10]);
  });
}

Deno.test("createRuntime() runs as many consecutive calls as it is told to, as long as it has room", async () => {
  const { runtime, claims, told, answers, header } = start({}, 4);
  const seen: unknown[] = [];
  const job = Symbol.for("process-pool.job");
  const func = (x: number) => {
    seen.push((globalThis as unknown as Record<symbol, { id: number }>)[job]!.id);
    if (x === 1) throw new RangeError("one");
    if (x === 5) return Promise.resolve(5);
    if (x === 8) runtime.end();
    return x;
  };
  await answers({ type: "run", ...header({ key: 9, name: "func", func: func as (...args: unknown[]) => unknown }), args: [0] });
  /** Calls of the task, from this one on: the argument is a number greater than the run and less than the id. */
  function callsFrom(x: number): Calls {
    let at = x;
    return {
      kind: 9,
      get number() {
        return at % 4;
      },
      get label() {
        return at + 100;
      },
      get values() {
        return [at];
      },
      takeNext: () => (at++, true),
    };
  }
  const states = () => [0, 1, 2, 3].map((i) => claims[i * CLAIM_WORDS]);
  const send = () => [0, 1, 2, 3].forEach((i) => claims[i * CLAIM_WORDS] = SENT);
  const ends = () => told.splice(0).map((message) => "run" in message && [message.type, message.run, "value" in message && message.value]);
  told.length = seen.length = 0;
  send();
  claims[2 * CLAIM_WORDS] = WITHDRAWN;
  assertEquals(runtime.callAll(callsFrom(0), 3), 2);
  // A call that was taken back ends like one that returned a number, and was not run.
  assertEquals(ends(), [["returned", 0, 0], ["threw", 1, false], ["returned", 2, 0]]);
  assertEquals([seen, states()], [[100, 101], [FINISHED, FINISHED, WITHDRAWN, SENT]]);
  // A call that waits for something takes the room of the others.
  send();
  assertEquals(runtime.callAll(callsFrom(4), 4), 2);
  assertEquals([runtime.hasRoom, states()], [false, [FINISHED, STARTED, SENT, SENT]]);
  await turn();
  assertEquals([runtime.hasRoom, ends()], [true, [["returned", 0, 4], ["returned", 1, 5]]]);
  // Nothing is started once it has ended.
  send();
  assertEquals(runtime.callAll(callsFrom(7), 4), 2);
  assertEquals(runtime.callAll(callsFrom(7), 4), 0);
  assertEquals([ends(), states()], [[["returned", 3, 7]], [FINISHED, SENT, SENT, FINISHED]]);
});

Deno.test("createRuntime() tells that it has room again when a job ends while there is none", async () => {
  let told = 0;
  let loaded = false;
  const ends: (() => void)[] = [];
  const waits = () => new Promise<void>((resolve) => ends.push(resolve));
  const runtime = createRuntime({
    post: ({ type }) => void (loaded ||= type === "loaded"),
    hasRoom: () => void told++,
    encode: encodeError,
    imports: [() => Promise.resolve({ waits })],
  }, runtimeParts);
  const claims = new Int32Array(2 * CLAIM_WORDS);
  runtime.receive({ type: "load", claims, capacity: 2, times: undefined });
  await until(() => loaded);
  const task = { key: 1, name: "waits", export: { module: 0, name: "waits" } };
  const rooms: boolean[] = [];
  for (let run = 0; run < 2; run++) {
    claims[run * CLAIM_WORDS] = SENT;
    runtime.receive({ type: "run", run, task, id: run, attempt: 1, args: [] });
    rooms.push(runtime.hasRoom);
  }
  assertEquals([rooms, told], [[true, false], 0]);
  for (const times of [1, 1]) {
    ends.shift()!();
    await turn();
    assertEquals([runtime.hasRoom, told], [true, times]);
  }
});

Deno.test("createRuntime() keeps as many tasks as its slot remembers, as many of those before, and no more", async () => {
  const places = 100;
  const { runtime, told, claims, header } = start({}, places);
  function learn(key: number, text = "() => 1"): void {
    claims[0] = SENT;
    runtime.receive({ type: "run", ...header({ key, name: "task", text }), run: 0, args: [] });
  }
  /** The outcome of a call that names the first task without carrying it. */
  async function callZero(): Promise<FromRuntime["type"] | undefined> {
    await turn();
    told.length = 0;
    claims[0] = SENT;
    runtime.callAll({ kind: 0, number: 0, label: 0, values: [], takeNext: () => false }, 1);
    await turn();
    return told[0]?.type;
  }
  learn(0, "() => 0");
  for (let key = 1; key < places; key++) learn(key);
  assertEquals(await callZero(), "returned");
  // A call may come that its slot sent before the task that has displaced its own.
  for (let key = places; key < 2 * places; key++) learn(key);
  assertEquals(await callZero(), "returned");
  learn(2 * places);
  assertEquals(await callZero(), "threw");
});

Deno.test("createRuntime() says that its modules are loaded in a later turn, when a rejection that they left has shown", async () => {
  const { setTimeout } = globalThis;
  let timers = 0;
  // On a busy machine a timer may fire in the turn in which it was set.
  const early = (callback: () => void) => timers++ === 0 ? queueMicrotask(callback) : setTimeout(callback);
  globalThis.setTimeout = early as typeof setTimeout;
  try {
    const { told } = start();
    for (let i = 0; i < 100; i++) await Promise.resolve();
    assertEquals([timers > 0, told], [true, []]);
    await until(() => told.length === 1);
  } finally {
    globalThis.setTimeout = setTimeout;
  }
});

Deno.test("createRuntime() says nothing once it has ended", async () => {
  const { runtime, told, claims, bySource, header } = start();
  while (told.length === 0) await turn();
  told.length = 0;
  for (const name of ["running", "late"]) {
    claims[0] = SENT;
    runtime.receive({ type: "run", ...header(bySource(name, "async () => 1")), args: [] });
    runtime.end();
    await turn();
  }
  assertEquals(told, []);
  // The first was claimed, the second was not.
  assertEquals(claims[0], SENT);
});

Deno.test("createRuntime() sends a result that is moved once, and nothing behind it, where each is sent before the next item begins", async () => {
  const { bySource, header, answers } = start();
  const task = bySource("task", '(x) => ({ value: x, [Symbol.for("process-pool.move")]: [] })');
  const chunk = { type: "chunk", items: [5, 6], skip: [], eager: true, timed: true, numbers: undefined } as const;
  const items = itemsOf(await answers({ ...chunk, ...header(task) }));
  assertEquals(items.map(({ values, last }) => [values, last]), [[[5], false], [[6], false], [[], true]]);
});

/**
 * What a task may return for an item, and what arrives of it: something copied, moved or taken over, something that refers to what is moved
 * later, or what cannot be sent.
 */
const RESULTS: Record<string, [result: string, arrives: unknown]> = {
  number: ["1", 1],
  text: ['"text"', "text"],
  small: ["bytes(10)", 10],
  large: ["bytes(5000)", 5000],
  // Both lengths are multiples of 256.
  view: ["bytes(5120).subarray(0, 4608)", 4608],
  // What the constructor of such a class makes of its arguments is its own affair.
  ofOwnClass: ["new (class extends Uint8Array { constructor() { super(12); } })().fill(12)", 12],
  held: ["({ held: globalThis.held = bytes(9) })", { held: 9 }],
  movesHeld: ["moved(globalThis.held, [globalThis.held.buffer])", 9],
  moved: ["((own) => moved(own, [own.buffer]))(bytes(7000))", 7000],
  movesTwo: ["((one, two) => moved([one, two], [one.buffer, two.buffer]))(bytes(8), bytes(8))", [8, 8]],
  function: ["() => 1", "DataCloneError"],
  movesFunction: ["moved(() => 1, [bytes(8).buffer])", "DataCloneError"],
  movesNothing: ["moved({ a: 1 }, [4])", "TypeError"],
};

Deno.test("createRuntime() loses no result of a chunk to another that is moved, or that cannot be sent", async () => {
  // With memory that it may use again it takes buffers over.
  const { claims, bySource, header, answers } = start({}, 1, () => {});
  const cases = Object.entries(RESULTS).map(([kind, [result]]) => `case "${kind}": return ${result};`);
  const task = bySource(
    "task",
    `(kind) => {
      const bytes = (length) => new Uint8Array(length).fill(length);
      const moved = (value, transfer) => ({ value, [Symbol.for("process-pool.move")]: transfer });
      switch (kind) { ${cases.join("\n")} }
    }`,
  );
  const random = new Random(1);
  for (let round = 0; round < 300; round++) {
    const kinds: string[] = [];
    while (kinds.length < 8) {
      const kind = random.pick(Object.keys(RESULTS));
      // It can be moved once.
      const isHeld = kinds.lastIndexOf("held") > kinds.lastIndexOf("movesHeld");
      kinds.push(kind === "movesHeld" && !isHeld ? "held" : kind);
    }
    claims.set([SENT, 0]);
    const chunk = { type: "chunk", items: kinds, skip: [], eager: round % 2 === 0, timed: false, numbers: undefined } as const;
    const arrived = itemsOf(await answers({ ...chunk, ...header(task) })).flatMap(({ from, values, thrown }) =>
      Array.from(values!, (value, i) => {
        const error = thrown.find(([index]) => index === from + i);
        return error === undefined ? lengths(value) : (decodeError(error[1], () => undefined) as Error).name;
      })
    );
    assertEquals(arrived, kinds.map((kind) => RESULTS[kind]![1]), kinds.join());
  }
});

/** The same value, but in place of bytes that all are their number, modulo 256, that number. */
function lengths(value: unknown): unknown {
  if (value instanceof Uint8Array) return value.every((byte) => byte === value.length % 256) ? value.length : [...value.subarray(0, 2)];
  if (Array.isArray(value)) return value.map(lengths);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, lengths(each)]));
}

Deno.test("createRuntime() leaves memory for numbers alone once it has sent the end of the chunk: the caller may use it for another", async () => {
  const { claims, bySource, header, answers, told } = start();
  const memory = new SharedArrayBuffer(NUMBERS + 4 * Float64Array.BYTES_PER_ELEMENT);
  const bounds = new Int32Array(memory, 0, 2);
  const numbers = new Float64Array(memory, NUMBERS);
  const push = told.push.bind(told);
  told.push = (...messages) => {
    if (itemsOf(messages).some(({ last }) => last)) {
      bounds.fill(-1);
      numbers.fill(-1);
    }
    return push(...messages);
  };
  const texts = {
    numbers: "(x) => x",
    error: "(x) => { if (x === 3) throw x; return x; }",
    text: "(x) => x < 3 ? x : 'text'",
    rejection: "async (x) => { if (x === 3) throw x; return x; }",
  };
  for (const [name, text] of Object.entries(texts)) {
    const task = { ...bySource(name, text), key: name.charCodeAt(0) };
    claims.set([SENT, 0]);
    const chunk = { type: "chunk", items: [0, 1, 2, 3], skip: [], eager: true, timed: false, numbers: memory } as const;
    const { last } = itemsOf(await answers({ ...chunk, ...header(task) })).at(-1)!;
    assertEquals([last, [...bounds], [...numbers]], [true, [-1, -1], [-1, -1, -1, -1]], name);
  }
});

Deno.test("createRuntime() tells the first item of a chunk how often it has run, and sends the last with the end", async () => {
  const { runtime, claims, bySource, header, answers, told } = start();
  const texts = { plain: '() => globalThis[Symbol.for("process-pool.job")].attempt', asynchronous: "async (x) => x" };
  for (const [name, text] of Object.entries(texts)) {
    const task = bySource(name, text);
    for (const eager of [true, false]) {
      claims.set([SENT, 0]);
      const chunk = { type: "chunk", items: [5, 6, 7], skip: [], eager, timed: false, numbers: undefined } as const;
      const items = itemsOf(await answers({ ...chunk, ...header(task), attempt: 3 }));
      assertEquals(items.flatMap(({ values }) => [...values as unknown[]]), name === "plain" ? [3, 1, 1] : [5, 6, 7]);
      assertEquals(items.map(({ values, last }) => values!.length > 0 && last), items.map((each) => each === items.at(-1)));
      // Nothing follows, not even from a timer that was set before.
      const { length } = told;
      await new Promise((resolve) => setTimeout(resolve, 2));
      assertEquals(told.length, length);
    }
  }
  // Nor when the thread ends: it holds on to no chunk that is done.
  const { length } = told;
  runtime.end();
  assertEquals(told.length, length);
});

Deno.test("createRuntime() sends the items that are finished before it ends", async () => {
  const { runtime, told, bySource, header, answers } = start();
  const task = bySource("task", "(x) => x < 2 ? x : new Promise(() => {})");
  // Those that are ready are sent when the third has taken a while, or at the end.
  await answers({ type: "chunk", ...header(task), items: [0, 1, 2, 3], skip: [], eager: false, timed: true, numbers: undefined });
  runtime.end();
  const items = told.filter((message) => message.type === "items");
  assertEquals(items.flatMap(({ values }) => values), [0, 1]);
  assertEquals(items.map(({ last }) => last), items.map(() => false));
});

Deno.test("createRuntime() has nothing in memory of the item that ended the thread", async () => {
  for (const ending of [(x: number) => x, (x: number) => Promise.resolve(x)]) {
    const { runtime, header, answers } = start({
      task(x: number) {
        if (x === 2) runtime.end();
        return ending(x);
      },
    });
    const task = { key: 1, name: "task", export: { module: 0, name: "task" } };
    const numbers = new SharedArrayBuffer(NUMBERS + 4 * Float64Array.BYTES_PER_ELEMENT);
    const bounds = new Int32Array(numbers, 0, 2);
    await answers({ type: "chunk", ...header(task), items: [0, 1, 2, 3], skip: [], eager: true, timed: true, numbers });
    assertEquals([...bounds], [0, 2]);
  }
  // A flush that was scheduled has nothing left to send.
  await new Promise((resolve) => setTimeout(resolve, 20));
});

Deno.test("encodeError() cuts the pool's lines from a stack, and none of the task's", () => {
  const error = new Error("no");
  const own = "Error: no\n    at close (file:///home/me/runtime.ts:2:26)\n    at async task (file:///home/me/runtime.ts:8:3)";
  for (const frame of ["callTasks", "async settleLater", "runItems", "async runChunk", "async callInitializer", "async callFinalizer"]) {
    error.stack = `${own}\n    at ${frame} (process-pool/worker, <anonymous>:300:5)\n    at work (process-pool/worker, <anonymous>:800:5)`;
    const thrown = encodeError(error, () => undefined);
    assertEquals("errors" in thrown && thrown.errors[0]?.stack, own);
  }
});

Deno.test("encodeError() cuts the pool's lines from the error of a task that could not be made on this thread", async () => {
  const url = moduleOf("export const one = 1;");
  await using pool = new ProcessPool({ backend: "inline", modules: [url] });
  const error = await assertRejects(() => pool.run({ module: url, name: "task" }), TypeError);
  const thrown = encodeError(error, () => undefined);
  assertEquals("errors" in thrown && thrown.errors[0]?.stack, `TypeError: ${error.message}`);
});

Deno.test("encodeError() takes what it can of an error whose parts resist", () => {
  class Odd extends Error {
    override name = "";
    get broken(): number {
      throw new Error("never read");
    }
  }
  const error = new Odd("message") as Odd & Record<string, unknown>;
  Object.defineProperty(error, "stack", {
    get() {
      throw new Error("no");
    },
  });
  Object.defineProperty(error, "getter", {
    enumerable: true,
    get() {
      throw new Error("no");
    },
  });
  error.callback = () => 1;
  error.port = new Proxy({}, {});
  error.kept = { a: 1 };
  error.errors = Object.assign([], { 2: "third" });
  const decoded = decodeError(structuredClone(encodeError(error, () => undefined)), () => undefined) as typeof error;
  assertInstanceOf(decoded, Error);
  const { message, kept, callback, port, errors } = decoded;
  assertEquals([message, kept, callback, port, errors], ["message", { a: 1 }, undefined, undefined, Object.assign([], { 2: "third" })]);
  assertThrows(() => error.broken);
});

Deno.test("encodeError() and decodeError() keep what tells errors apart: names, stacks, which properties show, and what a list has", () => {
  const sent = (error: unknown, known?: unknown) =>
    decodeError(structuredClone(encodeError(error, () => ({ module: 0, name: "it" }))), () => known) as Error & { errors: unknown[] };
  class Own extends Error {}
  const own = Object.assign(new Own("mine", { cause: 1 }), { code: 7 });
  own.stack = "Error: mine\n    at task (file:///task.ts:1:1)\n    at runItems (process-pool/worker:1:1)";
  const back = sent(own);
  assertEquals([back.name, back.stack, back.cause], ["Own", "Own: mine\n    at task (file:///task.ts:1:1)", 1]);
  assertEquals([Object.keys(back), back.constructor], [["code"], Error]);
  // This thread has something else by the name of its class.
  assertEquals(sent(own, class {}).constructor, Error);
  assertEquals(sent(own, Own).constructor, Own);
  assertEquals(sent(new AggregateError([Symbol("s"), 2n])).errors, ["Symbol(s)", 2n]);
});

Deno.test("encodeError() takes the first thousand errors of an endless chain", () => {
  let error = new Error("first");
  for (let i = 0; i < 5000; i++) error = new Error(`${i}`, { cause: error });
  let length = 0;
  for (
    let each: unknown = decodeError(encodeError(error, () => undefined), () => undefined);
    each !== undefined;
    each = (each as Error).cause
  ) {
    assertEquals((each as Error).message, `${4999 - length++}`);
  }
  assertEquals(length, 1000);
});

Deno.test("Errors are taken apart and put together where there is no WebAssembly, as with --v8-flags=--jitless", {
  ignore: !granted("read"),
}, async () => {
  const own = Object.getOwnPropertyDescriptor(globalThis, "WebAssembly")!;
  Reflect.deleteProperty(globalThis, "WebAssembly");
  try {
    const { decodeError } = await import("../worker/decode_error.ts?jitless");
    const error = decodeError(encodeError(new RangeError("no"), () => undefined), () => undefined) as Error;
    assertEquals([error.constructor, error.message], [RangeError, "no"]);
  } finally {
    Object.defineProperty(globalThis, "WebAssembly", own);
  }
});
