import { assert, assertEquals, assertInstanceOf, assertStrictEquals } from "@std/assert";
import { asCompleted, type Future, wait } from "@procpool/process-pool";
import { Held, inlinePool } from "./held.ts";
import { countCalls, thrownBy, turn } from "./helpers.ts";

const same = (value: number): number => value;

// asCompleted()

/** Futures of jobs that run concurrently until the test ends them. */
async function heldFutures(count: number) {
  const pool = inlinePool({ maxWorkers: count });
  const helds = Array.from({ length: count }, () => new Held<number>());
  const futures: Future<number>[] = [];
  for (const held of helds) futures.push(await pool.submit(held.task));
  await Promise.all(helds.map(({ started }) => started));
  return { pool, helds, futures };
}

Deno.test("asCompleted() gives the futures in the order in which they settle", async () => {
  const { pool, helds, futures } = await heldFutures(3);
  const loop = asCompleted(futures);
  const first = loop.next();
  helds[2]!.finish(2);
  assertStrictEquals((await first).value, futures[2]);
  helds[0]!.fail(new Error("failed"));
  assertStrictEquals((await loop.next()).value, futures[0]);
  const last = loop.next();
  assert(futures[1]!.cancel({ force: true }));
  assertStrictEquals((await last).value, futures[1]);
  assertEquals(await loop.next(), { done: true, value: undefined });
  helds[1]!.finish(1);
  await pool.shutdown();
});

Deno.test("asCompleted() gives what settles between two steps of the loop in its order", async () => {
  const { pool, helds, futures } = await heldFutures(4);
  const loop = asCompleted(futures);
  for (const i of [3, 1, 0, 2]) {
    helds[i]!.finish(i);
    await futures[i]!.result();
  }
  const order: number[] = [];
  for await (const future of loop) order.push(await future.result());
  assertEquals(order, [3, 1, 0, 2]);
  await pool.shutdown();
});

Deno.test("asCompleted() gives those that have settled already first, in the order given", async () => {
  const { pool, helds, futures } = await heldFutures(3);
  for (const i of [2, 1]) {
    helds[i]!.finish(i);
    await futures[i]!.result();
  }
  const loop = asCompleted(futures);
  assertStrictEquals((await loop.next()).value, futures[1]);
  assertStrictEquals((await loop.next()).value, futures[2]);
  helds[0]!.finish(0);
  assertStrictEquals((await loop.next()).value, futures[0]);
  assertEquals((await loop.next()).done, true);
  await pool.shutdown();
});

Deno.test("asCompleted() gives each future once, even if it is given twice", async () => {
  await using pool = inlinePool();
  const [a, b] = [await pool.submit(same, 1), await pool.submit(same, 2)];
  const order: number[] = [];
  for await (const future of asCompleted([a, b, a, b, b])) order.push(await future.result());
  assertEquals(order, [1, 2]);
});

Deno.test("asCompleted() of nothing ends at once", async () => {
  assertEquals(await asCompleted([]).next(), { done: true, value: undefined });
});

Deno.test("asCompleted() reads its input at the call", async () => {
  await using pool = inlinePool();
  const futures = new Set([await pool.submit(same, 1)]);
  const loop = asCompleted(futures);
  futures.clear();
  assertEquals((await loop.next()).done, false);
  assertEquals((await loop.next()).done, true);
  function* generated(): Generator<Future<number>> {
    yield* [pool.trySubmit(same, 2)!, pool.trySubmit(same, 3)!];
  }
  const results: number[] = [];
  for await (const future of asCompleted(generated())) results.push(await future.result());
  assertEquals(results, [2, 3]);
});

Deno.test("asCompleted() throws a TimeoutError out of the loop, after what settled in time, and leaves the jobs alone", async () => {
  const { pool, helds, futures } = await heldFutures(2);
  helds[1]!.finish(1);
  await futures[1]!.result();
  const given: Future<number>[] = [];
  const error = await thrownBy(async () => {
    for await (const future of asCompleted(futures, { timeout: 1 })) given.push(future);
  });
  assertInstanceOf(error, DOMException);
  assertEquals([error.name, error.message], ["TimeoutError", "Not settled within 1 ms"]);
  assertEquals(given, [futures[1]]);
  assertEquals(futures[0]!.state, "running");
  helds[0]!.finish(0);
  assertEquals(await futures[0]!.result(), 0);
  const all: Future<number>[] = [];
  for await (const future of asCompleted(futures, { timeout: 0 })) all.push(future);
  assertEquals(all, futures, "what has settled needs no time");
  await pool.shutdown();
});

Deno.test("asCompleted() can be left early, and the jobs go on", async () => {
  const { pool, helds, futures } = await heldFutures(2);
  helds[0]!.finish(0);
  for await (const future of asCompleted(futures, { timeout: 60_000 })) {
    assertStrictEquals(future, futures[0]);
    break;
  }
  assertEquals(futures[1]!.state, "running");
  helds[1]!.finish(1);
  assertEquals(await futures[1]!.result(), 1);
  await pool.shutdown();
});

Deno.test("asCompleted() that is left early listens to none of the others any more", async () => {
  const { pool, helds, futures } = await heldFutures(3);
  helds[0]!.finish(0);
  const loop = asCompleted(futures);
  assertStrictEquals((await loop.next()).value, futures[0]);
  const [stopped] = await countCalls([[Set.prototype, "delete"]], async () => void await loop.return!());
  assertEquals(stopped, 2);
  for (const held of helds) held.finish(1);
  await pool.shutdown();
});

// wait()

Deno.test("wait() waits for all", async () => {
  const { pool, helds, futures } = await heldFutures(3);
  const all = wait(futures);
  const order: string[] = [];
  all.then(() => order.push("all"));
  helds[1]!.finish(1);
  await futures[1]!.result();
  helds[0]!.fail(new Error("does not make it reject"));
  await futures[0]!.exception();
  await turn();
  assertEquals(order, []);
  helds[2]!.finish(2);
  const { done, notDone } = await all;
  assertEquals([[...done], [...notDone]], [futures, []]);
  await pool.shutdown();
});

Deno.test("wait() waits for the first to settle", async () => {
  const { pool, helds, futures } = await heldFutures(3);
  const first = wait(futures, { returnWhen: "first-completed" });
  helds[1]!.finish(1);
  const { done, notDone } = await first;
  assertEquals([[...done], [...notDone]], [[futures[1]], [futures[0], futures[2]]]);
  const again = await wait(futures, { returnWhen: "first-completed" });
  assertEquals([...again.done], [futures[1]], "one has settled before the call");
  for (const held of helds) held.finish(0);
  await pool.shutdown();
});

Deno.test("wait() waits for the first to fail or be cancelled", async () => {
  for (const way of ["fail", "cancel"]) {
    const { pool, helds, futures } = await heldFutures(3);
    const first = wait(futures, { returnWhen: "first-exception" });
    helds[0]!.finish(0);
    await futures[0]!.result();
    await turn();
    if (way === "fail") helds[1]!.fail(new Error("first"));
    else futures[1]!.cancel({ force: true });
    const { done, notDone } = await first;
    assertEquals([[...done], [...notDone]], [[futures[0], futures[1]], [futures[2]]]);
    for (const held of helds) held.finish(0);
    await pool.shutdown();
  }
});

Deno.test("wait() for the first to fail waits for all if none does", async () => {
  const { pool, helds, futures } = await heldFutures(2);
  const all = wait(futures, { returnWhen: "first-exception" });
  for (const held of helds) held.finish(0);
  assertEquals((await all).done.size, 2);
  await pool.shutdown();
});

Deno.test("wait() of nothing is over at once, whatever it waits for", async () => {
  for (const returnWhen of ["first-completed", "first-exception", "all-completed", undefined] as const) {
    const { done, notDone } = await wait([], { returnWhen });
    assertEquals([done.size, notDone.size], [0, 0]);
  }
});

Deno.test("wait() counts a future once that is given twice", async () => {
  await using pool = inlinePool();
  const future = await pool.submit(same, 1);
  assertEquals([...(await wait([future, future])).done], [future]);
});

Deno.test("wait() gives up with a TimeoutError and leaves the jobs alone", async () => {
  const { pool, helds, futures } = await heldFutures(2);
  const error = await thrownBy(() => wait(futures, { timeout: 1 }));
  assertInstanceOf(error, DOMException);
  assertEquals([error.name, error.message], ["TimeoutError", "Not settled within 1 ms"]);
  assertEquals(futures.map(({ state }) => state), ["running", "running"]);
  for (const held of helds) held.finish(0);
  assertEquals((await wait(futures, { timeout: 60_000 })).done.size, 2);
  assertEquals((await wait(futures, { timeout: 0 })).done.size, 2);
  await pool.shutdown();
});
