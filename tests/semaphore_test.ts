import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { Semaphore } from "@procpool/process-pool";
import { assertFails, SpiedSignal, thrownBy } from "./helpers.ts";

Deno.test("Semaphore.acquire() takes what is available, then waits", async () => {
  const semaphore = new Semaphore(2);
  assertEquals([semaphore.available, semaphore.waiting], [2, 0]);
  const first = await semaphore.acquire();
  assertEquals([semaphore.available, semaphore.waiting], [1, 0]);
  await semaphore.acquire();
  assertEquals([semaphore.available, semaphore.waiting], [0, 0]);
  const third = semaphore.acquire();
  assertEquals([semaphore.available, semaphore.waiting], [0, 1]);
  first[Symbol.dispose]();
  assertEquals([semaphore.available, semaphore.waiting], [0, 0]);
  (await third)[Symbol.dispose]();
  assertEquals([semaphore.available, semaphore.waiting], [1, 0]);
});

Deno.test("Semaphore.acquire() takes the permit at the call", () => {
  const semaphore = new Semaphore(1);
  semaphore.acquire();
  assertEquals(semaphore.available, 0);
  assertEquals(semaphore.tryAcquire(), undefined);
});

Deno.test("Semaphore.acquire() serves in the order of arrival", async () => {
  const semaphore = new Semaphore(3);
  const expected = Array.from({ length: 1000 }, (_, i) => i);
  const served: number[] = [];
  await Promise.all(expected.map(async (i) => {
    using _permit = await semaphore.acquire();
    served.push(i);
    await Promise.resolve();
  }));
  assertEquals(served, expected);
  assertEquals([semaphore.available, semaphore.waiting], [3, 0]);
});

Deno.test("Semaphore.acquire() lets no more in than there are permits", async () => {
  const semaphore = new Semaphore(4);
  let inside = 0;
  let most = 0;
  await Promise.all(Array.from({ length: 100 }, async () => {
    using _permit = await semaphore.acquire();
    most = Math.max(most, ++inside);
    await Promise.resolve();
    inside--;
  }));
  assertEquals(most, 4);
});

Deno.test("Semaphore.acquire() gives permits that `using` gives back, also when the block throws", async () => {
  const semaphore = new Semaphore(1);
  const reason = new Error("of the block");
  const error = await thrownBy(async () => {
    using _permit = await semaphore.acquire();
    throw reason;
  });
  assertStrictEquals(error, reason);
  assertEquals(semaphore.available, 1);
});

Deno.test("Semaphore.acquire() accepts undefined for its options and its signal", async () => {
  const semaphore = new Semaphore(3);
  await semaphore.acquire(undefined);
  await semaphore.acquire({});
  await semaphore.acquire({ signal: undefined });
  assertEquals(semaphore.available, 0);
});

Deno.test("Semaphore.tryAcquire() gives a permit, or undefined at once", () => {
  const semaphore = new Semaphore(1);
  const permit = semaphore.tryAcquire();
  assert(permit !== undefined);
  assertEquals(semaphore.tryAcquire(), undefined);
  assertEquals([semaphore.available, semaphore.waiting], [0, 0]);
  permit[Symbol.dispose]();
  assertEquals(semaphore.available, 1);
});

Deno.test("Semaphore.tryAcquire() never overtakes those who wait", async () => {
  const semaphore = new Semaphore(1);
  const permit = await semaphore.acquire();
  const second = semaphore.acquire();
  const third = semaphore.acquire();
  permit[Symbol.dispose]();
  assertEquals(semaphore.tryAcquire(), undefined, "the permit is the second one's although it has not seen it yet");
  (await second)[Symbol.dispose]();
  assertEquals(semaphore.tryAcquire(), undefined);
  (await third)[Symbol.dispose]();
  assert(semaphore.tryAcquire() !== undefined);
});

Deno.test("Semaphore.acquire() rejects with the reason of a signal that is aborted already", async () => {
  const semaphore = new Semaphore(1);
  for (const reason of [new Error("own"), "a string", null, { code: 7 }]) {
    assertStrictEquals(await thrownBy(() => semaphore.acquire({ signal: AbortSignal.abort(reason) })), reason);
    assertEquals([semaphore.available, semaphore.waiting], [1, 0]);
  }
  await assertRejects(() => semaphore.acquire({ signal: AbortSignal.abort() }), DOMException, "aborted");
  assertEquals([semaphore.available, semaphore.waiting], [1, 0]);
});

Deno.test("Semaphore.acquire() that is aborted while it waits costs nothing, and who waits behind it is served", async () => {
  const semaphore = new Semaphore(1);
  const permit = await semaphore.acquire();
  const spied = new SpiedSignal();
  const served: string[] = [];
  const before = semaphore.acquire().then((permit) => {
    served.push("before");
    return permit;
  });
  const aborted = semaphore.acquire({ signal: spied.signal });
  const after = semaphore.acquire().then((permit) => {
    served.push("after");
    return permit;
  });
  assertEquals([semaphore.waiting, spied.listening], [3, 1]);
  const reason = new Error("own");
  spied.abort(reason);
  assertEquals([semaphore.available, semaphore.waiting], [0, 2]);
  assertStrictEquals(await thrownBy(() => aborted), reason);
  permit[Symbol.dispose]();
  (await before)[Symbol.dispose]();
  (await after)[Symbol.dispose]();
  assertEquals(served, ["before", "after"]);
  assertEquals([semaphore.available, semaphore.waiting], [1, 0]);
});

Deno.test("Semaphore.acquire() keeps a permit that was granted before the signal aborted", async () => {
  const semaphore = new Semaphore(1);
  const permit = await semaphore.acquire();
  const spied = new SpiedSignal();
  const waiting = semaphore.acquire({ signal: spied.signal });
  permit[Symbol.dispose]();
  spied.abort(new Error("too late"));
  (await waiting)[Symbol.dispose]();
  assertEquals(semaphore.available, 1);
});

Deno.test("Semaphore.acquire() listens to the signal only while it waits", async () => {
  const semaphore = new Semaphore(1);
  const spied = new SpiedSignal();
  const permit = await semaphore.acquire({ signal: spied.signal });
  assertEquals(spied.added, 0);
  const waiting = semaphore.acquire({ signal: spied.signal });
  assertEquals(spied.listening, 1);
  permit[Symbol.dispose]();
  assertEquals(spied.listening, 0);
  await waiting;
  const refused = semaphore.acquire({ signal: spied.signal });
  assertEquals(spied.listening, 1);
  semaphore.refuseWaiting(new Error("closed"));
  assertEquals(spied.listening, 0);
  await assertRejects(() => refused, Error, "closed");
});

Deno.test("Semaphore.acquire() adds one listener to a signal that 100,000 share", async () => {
  const semaphore = new Semaphore(1);
  const permit = await semaphore.acquire();
  const spied = new SpiedSignal();
  const reason = new Error("all of you");
  // They are handled before they reject, since Deno takes quadratic time for rejections that are handled late.
  const all = Promise.allSettled(Array.from({ length: 100_000 }, () => semaphore.acquire({ signal: spied.signal })));
  const last = semaphore.acquire();
  assertEquals([semaphore.waiting, spied.added, spied.listening], [100_001, 1, 1]);
  spied.abort(reason);
  assertEquals(semaphore.waiting, 1);
  const outcomes = await all;
  assert(outcomes.every((outcome) => outcome.status === "rejected" && outcome.reason === reason));
  permit[Symbol.dispose]();
  (await last)[Symbol.dispose]();
  assertEquals(semaphore.available, 1);
});

Deno.test("Semaphore.acquire() gives a permit that is given back once, however often it is disposed of", async () => {
  const semaphore = new Semaphore(2);
  const permit = await semaphore.acquire();
  const other = semaphore.tryAcquire()!;
  for (let i = 0; i < 3; i++) permit[Symbol.dispose]();
  assertEquals(semaphore.available, 1);
  for (let i = 0; i < 3; i++) other[Symbol.dispose]();
  assertEquals(semaphore.available, 2);
});

Deno.test("Semaphore.acquire() gives a waiter a permit of its own: the old one has no hold on it", async () => {
  const semaphore = new Semaphore(1);
  const permit = await semaphore.acquire();
  const second = semaphore.acquire();
  permit[Symbol.dispose]();
  permit[Symbol.dispose]();
  await second;
  assertEquals(semaphore.available, 0);
});

Deno.test("Semaphore.release() hands on to the longest waiter", async () => {
  const semaphore = new Semaphore(1);
  await semaphore.acquire();
  const served: string[] = [];
  const first = semaphore.acquire().then(() => served.push("first"));
  const second = semaphore.acquire().then(() => served.push("second"));
  semaphore.release();
  assertEquals([semaphore.available, semaphore.waiting], [0, 1]);
  await first;
  assertEquals(served, ["first"]);
  semaphore.release();
  await second;
  assertEquals(served, ["first", "second"]);
  semaphore.release();
  assertEquals([semaphore.available, semaphore.waiting], [1, 0]);
});

Deno.test("Semaphore.release() throws when all permits are there, and changes nothing", async () => {
  const semaphore = new Semaphore(2);
  const message = "Cannot release permit as none is in use: all 2 are available";
  await assertFails(() => semaphore.release(), RangeError, message);
  assertEquals(semaphore.available, 2);
  semaphore.tryAcquire();
  semaphore.release();
  await assertFails(() => semaphore.release(), RangeError, message);
  assertEquals(semaphore.available, 2);
  assert(semaphore.tryAcquire() !== undefined && semaphore.tryAcquire() !== undefined);
  assertEquals(semaphore.tryAcquire(), undefined);
});

Deno.test("Semaphore.refuseWaiting() refuses those who wait now, and nobody else", async () => {
  const semaphore = new Semaphore(1);
  const permit = await semaphore.acquire();
  const reason = new Error("closed");
  const refused = [semaphore.acquire(), semaphore.acquire()];
  semaphore.refuseWaiting(reason);
  assertEquals([semaphore.available, semaphore.waiting], [0, 0]);
  for (const promise of refused) assertStrictEquals(await thrownBy(() => promise), reason);
  const later = semaphore.acquire();
  permit[Symbol.dispose]();
  (await later)[Symbol.dispose]();
  assertEquals(semaphore.available, 1);
  semaphore.refuseWaiting(reason);
  assertEquals(semaphore.available, 1);
});

Deno.test("Semaphore() refuses permits that are not a positive integer", () => {
  const wrong: [permits: unknown, errorClass: typeof TypeError, shown: string][] = [
    [0, RangeError, "0"],
    [-1, RangeError, "-1"],
    [1.5, RangeError, "1.5"],
    [NaN, RangeError, "NaN"],
    [Infinity, RangeError, "Infinity"],
    [2 ** 53, RangeError, "9007199254740992"],
    ["4", TypeError, '"4"'],
    [4n, TypeError, "4n"],
    [undefined, TypeError, "undefined"],
    [null, TypeError, "null"],
    [[4], TypeError, "an array of 1"],
    [{}, TypeError, "an object of class Object"],
  ];
  for (const [permits, errorClass, shown] of wrong) {
    const error = assertThrows(() => new Semaphore(permits as number), errorClass) as Error;
    assertEquals(error.message, `Cannot create semaphore as 'permits' must be a positive integer: current value is ${shown}`);
  }
});

Deno.test("Semaphore.acquire() refuses options that it does not know", async () => {
  const semaphore = new Semaphore(1);
  const wrong: [options: unknown, message: string][] = [
    [null, "Cannot acquire permit as its options must be a plain object: current value is null"],
    ["now", 'Cannot acquire permit as its options must be a plain object: current value is "now"'],
    [[], "Cannot acquire permit as its options must be a plain object: current value is an array of 0"],
    [{ singal: undefined }, "Cannot acquire permit as there is no option 'singal': known options are 'signal'"],
    [{ signal: null }, "Cannot acquire permit as 'signal' must be an AbortSignal: current value is null"],
    [{ signal: {} }, "Cannot acquire permit as 'signal' must be an AbortSignal: current value is an object of class Object"],
    [
      { signal: new AbortController() },
      "Cannot acquire permit as 'signal' must be an AbortSignal: current value is an object of class AbortController",
    ],
  ];
  for (const [options, message] of wrong) {
    await assertFails(() => semaphore.acquire(options as { signal?: AbortSignal }), TypeError, message);
  }
  assertEquals(semaphore.available, 1);
});
