import { assert, assertEquals } from "@std/assert";
import { WorkerDiedError } from "../errors.ts";
import { type Clock, realClock } from "../pool/clock.ts";
import { Chunk, type ChunkListener } from "../pool/chunk.ts";
import { type MapHost, MapRun } from "../pool/map.ts";
import { type MapOptions, type ResolvedMapOptions, resolveMapOptions } from "../pool/map_options.ts";
import { NumberMemory } from "../pool/number_memory.ts";
import { encodeError } from "../worker/encode_error.ts";
import { decodeError } from "../worker/decode_error.ts";
import { CLAIM_WORDS, type FromRuntime, type ItemsMessage, NO_MORE, NUMBERS, SENT, type TaskMessage } from "../worker/protocol.ts";
import { createRuntime, runtimeParts } from "../worker/runtime.ts";
import { turn, until } from "./helpers.ts";
import { Random } from "./simulation/random.ts";

/** What a task returns for an item: mostly numbers, so that results in shared memory pay off; sometimes something else, or it throws. */
type Kind = "number" | "text" | "error" | "moved";

interface World {
  kinds: Kind[];
  /** How often each item has run. */
  runs: number[];
  /** The item after which the worker ends. */
  death: number;
  end: () => void;
  deaths: number;
}

declare global {
  var world: World;
}

const TASK: TaskMessage = { key: 1, name: "task", text: "(x) => x" };

/** The options of a chunk of which nothing else matters. */
const OPTIONS = { func: () => 0, timeout: Infinity, retries: 0, eager: false, firstIndex: 0 };

/** Notes the outcomes of a chunk's items; for those that failed, the message. */
function noting(outcomes: unknown[]): ChunkListener {
  return {
    ended: false,
    memory: new NumberMemory(),
    outcomes(_, { values, errors }) {
      for (let i = 0; i < values.length; i++) outcomes.push(errors?.has(i) ? (errors.get(i) as Error).message : values[i]);
    },
    ran() {},
    expectNumbers() {},
    settled() {},
  };
}

/**
 * Has a runtime run a chunk each of whose results must reach the caller before the next item, and ends it now and then; returns the
 * outcomes of the items. Messages that come by the port may be late, as those beside it overtake them.
 */
async function runChunk(random: Random, kinds: Kind[]): Promise<unknown[]> {
  const outcomes: unknown[] = [];
  const items = kinds.map((_, i) => i);
  const chunk = new Chunk(items, { ...OPTIONS, eager: true, listener: noting(outcomes) });
  const task: TaskMessage = {
    key: 1,
    name: "task",
    text: `(i) => {
      world.runs[i]++;
      if (i === world.death) world.end();
      if (world.kinds[i] === "error") throw new RangeError("error " + i);
      if (world.kinds[i] === "moved") {
        const bytes = new Uint8Array([i]);
        return { [Symbol.for("process-pool.move")]: [bytes.buffer], value: bytes };
      }
      return world.kinds[i] === "text" ? "text " + i : i / 2;
    }`,
  };
  globalThis.world = { kinds, runs: kinds.map(() => 0), death: -1, end: () => {}, deaths: 0 };
  for (;;) {
    const claims = new Int32Array(CLAIM_WORDS);
    let dead = false;
    let diesNext = false;
    const told: FromRuntime[] = [];
    const runtime = createRuntime({
      post: (message) => {
        if (dead) return;
        told.push(structuredClone(message));
        dead = diesNext;
      },
      encode: encodeError,
      imports: [],
    }, runtimeParts);
    runtime.receive({ type: "load", claims, capacity: 1, times: undefined });
    await turn();
    told.length = 0;
    const message = chunk.message(0, task);
    assert(message.type === "chunk");
    claims[0] = SENT;
    claims[1] = message.from;
    const death = world.death = random.chance(0.5) ? random.below(kinds.length + 1) : -1;
    world.end = () => {
      // If this is a number in memory, it sends nothing more; otherwise it still sends the outcome.
      const isNumber = (kind: Kind | undefined) => kind === "number" || kind === "error";
      dead = message.numbers !== undefined && kinds[death] === "number" && kinds.slice(message.from, death).every(isNumber);
      diesNext = true;
      claims[1] = NO_MORE;
    };
    runtime.receive(message);
    await turn();
    const late: ItemsMessage[] = [];
    let last = false;
    for (const each of told as ItemsMessage[]) {
      if (random.chance(0.3)) chunk.collect();
      // What is in memory needs no message, so the message may come at any time.
      if (each.values === undefined && !each.last && random.chance(0.5)) late.push(each);
      else last = chunk.answered(each, (thrown) => decodeError(thrown, () => undefined)) !== undefined;
    }
    for (const each of late) chunk.answered(each, () => {});
    if (last) return outcomes;
    assert(dead);
    world.deaths++;
    if (chunk.lost((id) => new WorkerDiedError(`lost ${id}`), death + 1) !== undefined) return outcomes;
  }
}

/** The options of a map over these items in a pool of one worker. */
function optionsOf(items: unknown, options: MapOptions = {}): ResolvedMapOptions {
  return resolveMapOptions(options, { task: () => 0, items, capacity: 1, jobTimeout: Infinity, retries: 0, eager: false });
}

/** A host that admits each chunk into this list, and throws what is reported. */
function hostInto(chunks: Chunk[], clock: Clock = realClock): MapHost {
  return {
    acquire: () => Promise.resolve(),
    release() {},
    admit: (chunk) => void chunks.push(chunk),
    cancel() {},
    report: (error) => {
      throw error;
    },
    refusal: () => undefined,
    waits() {},
    goesOn() {},
    clock,
  };
}

Deno.test("A chunk has each result once and in its place, in memory or by messages, whenever its worker ends", async () => {
  let deaths = 0;
  for (let seed = 1; seed <= 300; seed++) {
    const random = new Random(seed);
    const share = random.pick([0, 0, 0.02, 0.3]);
    const others: Kind[] = random.pick([["text"], ["error"], ["error", "text", "moved"]]);
    const kinds = Array.from({ length: random.below(200) + 1 }, (): Kind => random.chance(share) ? random.pick(others) : "number");
    const outcomes = await runChunk(random, kinds);
    const expected = kinds.map((kind, i) => kind === "number" ? i / 2 : kind === "moved" ? new Uint8Array([i]) : `${kind} ${i}`);
    assertEquals(outcomes, expected, `seed ${seed}`);
    assertEquals(world.runs, kinds.map(() => 1), `seed ${seed}`);
    deaths += world.deaths;
  }
  assert(deaths > 100, String(deaths));
});

Deno.test("A chunk that cannot be sent as a whole goes item by item, and only items that cannot be sent even then fail", () => {
  const outcomes: unknown[] = [];
  const chunk = new Chunk(["a", "b", "c"], { ...OPTIONS, listener: noting(outcomes) });
  function sent(): unknown[] {
    const message = chunk.message(0, TASK);
    assert(message.type === "chunk");
    return Array.from(message.items);
  }
  const answered = (from: number, values: unknown[]) =>
    chunk.answered({ type: "items", run: 0, from, values, thrown: [], last: true, elapsed: 0 }, () => {});
  assertEquals([sent(), chunk.sendFailed(new Error("all")), sent(), chunk.sendFailed(new Error("all"))], [
    ["a", "b", "c"],
    undefined,
    ["a", "b", "c"],
    undefined,
  ]);
  assertEquals([sent(), answered(0, [1])], [["a"], undefined]);
  assertEquals([sent(), chunk.sendFailed(new Error("second"))], [["b"], undefined]);
  assertEquals([sent(), chunk.sendFailed(new Error("third"))], [[undefined, "c"], undefined]);
  assertEquals([sent(), answered(1, [undefined, undefined])?.state], [[undefined, undefined], "finished"]);
  assertEquals(outcomes, [1, "second", "third"]);
});

Deno.test("A chunk is at the item that its worker runs once all before it have arrived, and has some unread until then", () => {
  const outcomes: unknown[] = [];
  const chunk = new Chunk(Array.from({ length: 20 }, (_, i) => i), {
    ...OPTIONS,
    timeout: 1000,
    eager: true,
    firstIndex: 100,
    listener: noting(outcomes),
  });
  const message = chunk.message(0, TASK);
  assert(message.type === "chunk");
  const bounds = new Int32Array(message.numbers!, 0, 2);
  const places = (item: number) => [chunk.isAt(item), chunk.hasItemsOnTheirWay(item), chunk.idOf(item)];
  assertEquals([places(1), places(2)], [[true, false, 100], [false, true, 101]]);
  Atomics.store(bounds, 1, 3);
  assertEquals([places(3), places(4), places(5), outcomes.length], [[false, false, 102], [true, false, 103], [false, true, 104], 3]);
  assertEquals(places(NO_MORE), [true, false, 100]);
});

Deno.test("A chunk is at the item behind one that cannot be sent, which settles with the next result", () => {
  const chunk = new Chunk(["a", () => {}, "c"], { ...OPTIONS, eager: true, listener: noting([]) });
  chunk.sendFailed(new Error("all"));
  chunk.message(0, TASK);
  chunk.answered({ type: "items", run: 0, from: 0, values: ["A"], thrown: [], last: false, elapsed: 0 }, () => {});
  assertEquals([chunk.isAt(2), chunk.isAt(3), chunk.hasItemsOnTheirWay(3)], [false, true, false]);
});

Deno.test("A chunk runs each item again as often as 'retries' says, whatever became of those before it", () => {
  const outcomes: unknown[] = [];
  const causes: unknown[] = [];
  const listener = noting(outcomes);
  const outcomesOf = listener.outcomes.bind(listener);
  listener.outcomes = (chunk, block) => {
    for (const error of block.errors?.values() ?? []) causes.push(((error as Error).cause as AggregateError).errors.map(String));
    outcomesOf(chunk, block);
  };
  const chunk = new Chunk(["a", "b", "c"], { ...OPTIONS, retries: 1, eager: true, listener });
  const lose = (next: number) => chunk.lost((id, attempt) => new WorkerDiedError(`${id} lost in run ${attempt}`), next);
  const attempts = [chunk.attempt];
  // Its worker is lost with the first item; then with the second, where the first had not returned anything yet.
  for (const next of [1, 2]) {
    chunk.message(0, TASK);
    lose(next);
    attempts.push(chunk.attempt);
  }
  assertEquals([outcomes, causes], [["0 lost in run 2"], [["WorkerDiedError: 0 lost in run 1"]]]);
  chunk.message(0, TASK);
  chunk.answered({ type: "items", run: 0, from: 1, values: ["B"], thrown: [], last: false, elapsed: 0 }, () => {});
  attempts.push(chunk.attempt);
  lose(3);
  attempts.push(chunk.attempt);
  assertEquals(lose(3)?.state, "finished");
  assertEquals([attempts, outcomes.slice(1), causes[1]], [[1, 2, 2, 1, 2], ["B", "2 lost in run 2"], ["WorkerDiedError: 2 lost in run 1"]]);
});

Deno.test("A chunk that has lost its worker takes nothing more that this one writes, and does not run again once its map has ended", () => {
  const outcomes: unknown[] = [];
  const chunk = new Chunk(Array.from({ length: 20 }, (_, i) => i), { ...OPTIONS, eager: true, listener: noting(outcomes) });
  const message = chunk.message(0, TASK);
  assert(message.type === "chunk");
  assertEquals(chunk.lost((id) => new WorkerDiedError(`lost ${id}`), 1), undefined);
  Atomics.store(new Int32Array(message.numbers!, 0, 2), 1, 5);
  chunk.collect();
  assertEquals(outcomes, ["lost 0"]);
  const ended = new Chunk(["a", "b"], { ...OPTIONS, listener: { ...noting([]), ended: true } });
  assertEquals(ended.lost((id) => new WorkerDiedError(`lost ${id}`), 1)?.state, "finished");
});

Deno.test("Chunks use memory that others have used for their numbers, unless a worker may still write there", () => {
  const outcomes: unknown[] = [];
  const listener = noting(outcomes);
  function begin(items: number[]): { chunk: Chunk; send(): SharedArrayBuffer } {
    const chunk = new Chunk(items, { ...OPTIONS, eager: true, listener });
    const send = (): SharedArrayBuffer => {
      const message = chunk.message(0, TASK);
      assert(message.type === "chunk");
      // The worker finds the items there.
      const { buffer } = message.items as Float64Array;
      assertEquals([buffer === message.numbers, Array.from(message.items)], [true, items.slice(message.from)]);
      chunk.collect();
      return message.numbers!;
    };
    return { chunk, send };
  }
  function end(chunk: Chunk, memory: SharedArrayBuffer, results: number[]): void {
    new Float64Array(memory, NUMBERS).set(results);
    Atomics.store(new Int32Array(memory, 0, 2), 1, results.length);
    chunk.answered({ type: "items", run: 0, from: results.length, values: undefined, thrown: [], last: true, elapsed: 0 }, () => {});
  }
  const ones = new Array(1000).fill(1), twos = new Array(900).fill(2), threes = new Array(100_000).fill(3);
  const first = begin(ones);
  const lost = first.send();
  first.chunk.lost((id) => new WorkerDiedError(`lost ${id}`), 1);
  const second = begin(twos);
  const memories = [lost, first.send(), second.send()];
  assertEquals(new Set(memories).size, 3);
  assertEquals(outcomes.splice(0), ["lost 0"]);
  end(first.chunk, memories[1]!, ones);
  assertEquals(outcomes.splice(0), ones.slice(1));
  const third = begin(twos);
  assertEquals(third.send(), memories[1]);
  end(second.chunk, memories[2]!, twos);
  // Too small.
  const fourth = begin(threes);
  const large = fourth.send();
  assertEquals(large.byteLength >= 8 * threes.length, true);
  end(fourth.chunk, large, threes);
  assertEquals(outcomes, [...twos, ...threes]);
});

Deno.test("Chunks do not use memory where a worker may still write, even if the chunk that it was lost with went on without memory", () => {
  const outcomes: unknown[] = [];
  const listener = noting(outcomes);
  const begin = (): Chunk => new Chunk(new Array(20).fill(0), { ...OPTIONS, eager: true, listener });
  const send = (chunk: Chunk): SharedArrayBuffer | undefined => {
    const message = chunk.message(0, TASK);
    return message.type === "chunk" ? message.numbers : undefined;
  };
  const first = begin();
  const lost = send(first)!;
  first.lost((id) => new WorkerDiedError(`lost ${id}`), 10);
  // What is left is little, and comes by messages.
  assertEquals(send(first), undefined);
  const values = new Array(10).fill(1);
  first.answered({ type: "items", run: 0, from: 10, values, thrown: [], last: true, elapsed: 0 }, () => {});
  assertEquals(outcomes.slice(9), ["lost 9", ...values]);
  const next = send(begin());
  assert(next !== undefined && next !== lost);
});

Deno.test("A chunk that is done takes nothing of what a longer one has put into the memory that it had", () => {
  const outcomes: unknown[] = [];
  const listener = noting(outcomes);
  const begin = (count: number): { chunk: Chunk; memory: SharedArrayBuffer } => {
    const chunk = new Chunk(new Array(count).fill(0), { ...OPTIONS, eager: true, listener });
    const message = chunk.message(0, TASK);
    assert(message.type === "chunk");
    return { chunk, memory: message.numbers! };
  };
  const first = begin(20);
  Atomics.store(new Int32Array(first.memory, 0, 2), 1, 20);
  first.chunk.answered({ type: "items", run: 0, from: 20, values: undefined, thrown: [], last: true, elapsed: 0 }, () => {});
  const second = begin(30);
  assertEquals(second.memory, first.memory);
  Atomics.store(new Int32Array(second.memory, 0, 2), 1, 30);
  // A map looks at it for as long as the results of an earlier one are missing.
  first.chunk.collect();
  assertEquals(outcomes.length, 20);
});

for (const kind of ["texts", "numbers"] as const) {
  Deno.test(`A chunk of ${kind} is sent again without the items that have outcomes, and item by item each once`, () => {
    const outcomes: unknown[] = [];
    const items = Array.from({ length: 100 }, (_, i) => kind === "texts" ? `text ${i}` : i);
    const chunk = new Chunk(kind === "texts" ? items : new Float64Array(items as number[]), { ...OPTIONS, listener: noting(outcomes) });
    function run(ends: number): [from: number, items: unknown[]] {
      const message = chunk.message(0, TASK);
      assert(message.type === "chunk");
      const { from } = message, sent = Array.from(message.items);
      if (ends > from) chunk.lost((id) => new WorkerDiedError(`lost ${id}`), ends);
      else chunk.answered({ type: "items", run: 0, from, values: sent, thrown: [], last: true, elapsed: 0 }, () => {});
      return [from, sent];
    }
    assertEquals([run(40), run(50)], [[0, items], [40, items.slice(40)]]);
    for (let i = 50; i < 100; i++) {
      // A worker has died while reading it.
      chunk.unread = 1;
      assertEquals([run(0), chunk.unread], [[i, [items[i]]], 0]);
    }
    assertEquals(outcomes, [...Array.from({ length: 50 }, (_, i) => `lost ${i}`), ...items.slice(50)]);
  });
}

for (const key of [Symbol.iterator, Symbol.asyncIterator]) {
  Deno.test(`A map whose input computes its items sends the items that it has after some milliseconds, although no timer fires (${key.description})`, async () => {
    let time = 0;
    // How many ms each item takes.
    for (const [pace, chunkSize, largest] of [[1, "auto", 4], [0.001, "auto", 2048], [0.0001, "auto", 8192], [1, 50, 50]] as const) {
      const next = () => {
        time += pace;
        return { done: false, value: "text" };
      };
      const items = { [key]: () => ({ next }) };
      const options = optionsOf(items, { chunkSize });
      const chunks: Chunk[] = [];
      const run = new MapRun(hostInto(chunks, { ...realClock, now: () => time }), options);
      const sizes: number[] = [];
      const consumer = Array.fromAsync(run.chunks());
      while (sizes.length < 10) {
        await until(() => chunks.length > 0);
        const chunk = chunks.shift()!;
        sizes.push(chunk.size);
        const values = new Array(chunk.size).fill("text");
        const outcome = chunk.answered({ type: "items", run: 1, from: 0, values, thrown: [], last: true, elapsed: 0.01 }, () => {});
        chunk.settle(outcome!, { finished: 0, failed: 0, cancelled: 0 });
      }
      await run.return();
      await consumer;
      assertEquals(Math.max(...sizes), largest);
    }
  });
}

Deno.test("A map whose chunks got large with numbers goes on when no more numbers come", async () => {
  const items = new Float64Array(500_000);
  const options = optionsOf(items, { settled: true });
  const chunks: Chunk[] = [];
  const run = new MapRun(hostInto(chunks), options);
  let consumed = 0;
  const consumer = (async () => {
    for await (const results of run.chunks()) consumed += results.length;
  })();
  const counts = { finished: 0, failed: 0, cancelled: 0 };
  let largest = 0;
  while (consumed < items.length) {
    await until(() => chunks.length > 0 || consumed === items.length);
    const chunk = chunks.shift();
    if (chunk === undefined) break;
    largest = Math.max(largest, chunk.size);
    // The first are numbers; then workers die of each last item, and no message says how long a chunk has taken.
    const outcome = consumed < 200_000
      ? chunk.answered(
        { type: "items", run: 1, from: 0, values: new Float64Array(chunk.size), thrown: [], last: true, elapsed: 0.01 },
        () => {},
      )
      : chunk.lost(() => new WorkerDiedError("died"), chunk.size);
    chunk.settle(outcome!, counts);
    await turn();
  }
  await consumer;
  assertEquals([largest, counts.finished + counts.failed], [32_768, items.length]);
});

Deno.test("A map whose chunks get larger while it waits for an item still reads no further ahead than 'buffer'", async () => {
  const buffer = 8;
  const { promise, resolve: give } = Promise.withResolvers<void>();
  let read = 0, waits = false;
  const items = (async function* () {
    for (;; read++) {
      if (read === buffer) {
        waits = true;
        await promise;
      }
      yield read;
    }
  })();
  const options = optionsOf(items, { buffer });
  const chunks: Chunk[] = [];
  const run = new MapRun(hostInto(chunks), options);
  const answer = (elapsed: number) => {
    const chunk = chunks.shift()!;
    const values = new Array(chunk.size).fill("text");
    const outcome = chunk.answered({ type: "items", run: 1, from: 0, values, thrown: [], last: true, elapsed }, () => {});
    chunk.settle(outcome!, { finished: 0, failed: 0, cancelled: 0 });
  };
  const first = run.next();
  while (!waits) {
    await until(() => chunks.length === 2 || waits);
    if (!waits) answer(5);
  }
  await first;
  // The item that is awaited is the last one for which there is room: one was consumed.
  answer(0.01);
  give();
  await until(() => chunks.length === 1);
  assertEquals(chunks[0]!.size, 1);
  await run.return();
});

for (const settled of [false, true]) {
  Deno.test(`A map gives several at a time ${settled ? "all outcomes" : "the results before an item that failed, and then its error"}`, async () => {
    const chunks: Chunk[] = [];
    const run = new MapRun(hostInto(chunks), optionsOf(["a", "b", "c", "d", "e"], { chunkSize: 5, settled }));
    const first = run.next();
    await until(() => chunks.length === 1);
    const chunk = chunks[0]!;
    const thrown: ItemsMessage["thrown"] = [[4, { raw: "no E" }], [2, { raw: "no C" }]];
    const answer: ItemsMessage = {
      type: "items",
      run: 1,
      from: 0,
      values: ["A", "B", undefined, "D", undefined],
      thrown,
      last: true,
      elapsed: 1,
    };
    const outcome = chunk.answered(answer, (thrown) => (thrown as { raw: unknown }).raw);
    chunk.settle(outcome!, { finished: 0, failed: 0, cancelled: 0 });
    const lists: unknown[] = [];
    let error: unknown;
    try {
      for await (const results of run.chunks()) lists.push(results);
    } catch (thrown) {
      error = thrown;
    }
    const had = (value: string) => ({ status: "fulfilled", value }) as const;
    const failed = (reason: string) => ({ status: "rejected", reason }) as const;
    assertEquals(
      [(await first).value, lists, error],
      settled ? [had("A"), [[had("B"), failed("no C"), had("D"), failed("no E")]], undefined] : ["A", [["B"]], "no C"],
    );
  });
}

Deno.test("A map whose loop ends while it waits at the gate leaves it, and gives back a permit that comes all the same", async () => {
  const chunks: Chunk[] = [];
  const gate = Promise.withResolvers<void>();
  let signal: AbortSignal | undefined;
  let released = 0;
  const host: MapHost = {
    ...hostInto(chunks),
    acquire(given) {
      signal = given;
      return gate.promise;
    },
    release: () => void released++,
  };
  const options = optionsOf([1, 2]);
  const run = new MapRun(host, options);
  const first = run.next();
  await until(() => signal !== undefined);
  assertEquals(signal!.aborted, false);
  await run.return();
  assertEquals([await first, signal!.aborted], [{ done: true, value: undefined }, true]);
  gate.resolve();
  await until(() => released === 1);
  assertEquals(chunks, []);
});

Deno.test("A map that is refused what its input gave before it failed throws why, and reports the failure", async () => {
  const [refusal, failure] = [new Error("closed"), new Error("no more")];
  const reported: unknown[] = [];
  const host: MapHost = { ...hostInto([]), acquire: () => Promise.reject(refusal), report: (error) => void reported.push(error) };
  const items = (function* () {
    yield 1;
    throw failure;
  })();
  const run = new MapRun(host, optionsOf(items, { chunkSize: 2 }));
  assertEquals(await Promise.allSettled([run.next(), run.next()]), [
    { status: "rejected", reason: refusal },
    { status: "fulfilled", value: { done: true, value: undefined } },
  ]);
  await until(() => reported.length > 0);
  assertEquals(reported, [failure]);
});

for (const end of ["left", "refused", "failed"] as const) {
  Deno.test(`A map is not waiting for its input any more when its loop was ${end}`, async () => {
    const waiting = new Set<MapRun>();
    const { promise: item, reject } = Promise.withResolvers<never>();
    const host: MapHost = {
      ...hostInto([]),
      waits: (map) => void waiting.add(map),
      goesOn: (map) => void waiting.delete(map),
      report() {},
    };
    const items = { [Symbol.asyncIterator]: () => ({ next: () => item }) };
    const options = optionsOf(items);
    const run = new MapRun(host, options);
    const outcome = Promise.allSettled([run.next()]);
    await until(() => waiting.size === 1);
    const no = new Error("no");
    if (end === "left") await run.return();
    else if (end === "refused") run.refused(no);
    else reject(no);
    await until(() => waiting.size === 0);
    const done = { status: "fulfilled", value: { done: true, value: undefined } } as const;
    assertEquals(await outcome, [end === "left" ? done : { status: "rejected", reason: no }]);
    assertEquals(await run.next(), done.value);
  });
}
