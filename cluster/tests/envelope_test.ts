import { assert, assertEquals, assertInstanceOf, assertStringIncludes, assertThrows } from "@std/assert";
import { JobTimeoutError, MemoryLimitError, WorkerDiedError } from "../mod.ts";
import { isUnwanted, readEnvelope, readFailedReason, readFailure, readItem, readReply, writeFailure } from "../envelope.ts";

/** What arrives of something thrown. */
function sent(thrown: unknown): unknown {
  return readFailedReason(JSON.stringify(writeFailure(thrown)), { jobId: 1, taskName: "t" });
}

Deno.test("writeFailure() brings errors across with class, message, stack, cause and the properties that are JSON", () => {
  const error = Object.assign(new RangeError("out", { cause: new TypeError("in") }), { code: 7, detail: { a: [1] }, when: new Date(0) });
  const back = sent(error);
  assertInstanceOf(back, RangeError);
  assertEquals([back.message, back.stack], [error.message, error.stack]);
  assertInstanceOf(back.cause, TypeError);
  assertEquals(back.cause.message, "in");
  const { code, detail, when } = back as unknown as Record<string, unknown>;
  assertEquals([code, detail, when], [7, { a: [1] }, undefined]);
});

Deno.test("writeFailure() brings the core's errors across as themselves", () => {
  const timeout = sent(new JobTimeoutError("late", { jobId: "a", taskName: "t", limit: 5, attempts: 2 }));
  assertInstanceOf(timeout, JobTimeoutError);
  assertEquals([timeout.message, timeout.jobId, timeout.taskName, timeout.limit, timeout.attempts], ["late", "a", "t", 5, 2]);
  const died = sent(new WorkerDiedError("gone", { jobId: 1, taskName: "t", exitCode: 3, attempts: 1, cause: new Error("why") }));
  assertInstanceOf(died, WorkerDiedError);
  assertEquals([died.exitCode, (died.cause as Error).message], [3, "why"]);
  assertInstanceOf(sent(new MemoryLimitError("full", { limit: 64 })), MemoryLimitError);
});

Deno.test("writeFailure() brings other errors and values across", () => {
  const many = sent(new AggregateError([new Error("a"), 1], "both"));
  assertInstanceOf(many, AggregateError);
  assertEquals(many.errors.map(String), ["Error: a", "1"]);
  const odd = sent(new AggregateError([{ status: 500, body: undefined }, NaN, new Error("c")], "all")) as AggregateError;
  assertEquals([odd.errors.slice(0, 2), odd.errors[2].message], [[{ status: 500 }, "NaN"], "c"]);
  const aborted = sent(new DOMException("stop", "AbortError"));
  assertInstanceOf(aborted, DOMException);
  assertEquals(aborted.name, "AbortError");
  assertInstanceOf(sent(new Deno.errors.NotFound("no file")), Deno.errors.NotFound);
  class OwnError extends Error {
    override name = "OwnError";
  }
  assertEquals([(sent(new OwnError("o")) as Error).name, (sent(new OwnError("o")) as Error).message], ["OwnError", "o"]);
  const loop = new Error("loop");
  loop.cause = loop;
  const back = sent(loop) as Error;
  assert(back.cause === back);
  for (const value of ["text", 7, null, undefined, { a: 1 }]) assertEquals(sent(value), value);
});

Deno.test("writeFailure() replaces what is neither an error nor JSON by an error whose cause has the parts that are JSON", () => {
  const cases: [unknown, unknown][] = [
    [{ status: 500, body: undefined, when: new Date(0), bytes: new Uint8Array(2) }, { status: 500, bytes: new Uint8Array(2) }],
    [new Map([[1, 2]]), "an object of class Map"],
    [10n, "10n"],
    [NaN, "NaN"],
    [{ large: "x".repeat(100_000), body: undefined }, undefined],
  ];
  for (const [thrown, cause] of cases) {
    const error = sent(thrown);
    assertInstanceOf(error, TypeError);
    assertEquals([error.message, error.cause], ["The task threw something that is no error and cannot be sent through the queue", cause]);
  }
});

Deno.test("writeFailure() keeps the order of the errors of a large AggregateError", () => {
  const body = "x".repeat(100_000);
  const list = [{ status: 500, body, when: new Date(0) }, new Error("b"), { body }, new Error("d"), body];
  const many = sent(new AggregateError(list, "all")) as AggregateError;
  const said = many.errors.map((error) => error instanceof Error ? error.message : error);
  assertEquals(said, ["an object of class Object", "b", "an object of class Object", "d", `"${"x".repeat(80)}..."`]);
});

Deno.test("writeFailure() keeps an error small", () => {
  const back = sent(Object.assign(new Error("m".repeat(100_000)), { much: "x".repeat(1_000_000) })) as Error;
  assertEquals(back.message.length, 4096);
  assertEquals("much" in back, false);
});

Deno.test("writeFailure() keeps the class of an error that is too large, what it refers to, and what is small", () => {
  const cause = new RangeError("r".repeat(50_000), { cause: new Deno.errors.NotFound("no file") });
  const timeout = new JobTimeoutError("l".repeat(50_000), { jobId: "a", taskName: "t", limit: 5, attempts: 2 });
  const back = sent(new AggregateError([cause, timeout, 7], "many", { cause }));
  assertInstanceOf(back, AggregateError);
  assertEquals(back.message, "many");
  const [first, second, third] = back.errors;
  assert(first instanceof RangeError && first === back.cause);
  assertInstanceOf(first.cause, Deno.errors.NotFound);
  assertInstanceOf(second, JobTimeoutError);
  assertEquals([second.jobId, second.limit, second.message.replaceAll("l", ""), third], ["a", 5, "", 7]);
  const long = Array.from({ length: 20 }, (_, n) => new RangeError(`${n} ${"r".repeat(5000)}`));
  long[0]!.stack = "";
  const { errors } = sent(new AggregateError(long, "long")) as AggregateError;
  assertEquals(errors.map((error) => [error.constructor, parseInt(error.message)]), long.map((_, n) => [RangeError, n]));
  assertEquals([errors[0].stack, errors[1].stack.startsWith("RangeError: 1 rrr")], ["", true]);
  // Too many to be kept.
  const crowd = sent(new AggregateError(Array.from({ length: 999 }, (_, n) => new TypeError(`${n}`)), "crowd"));
  assertInstanceOf(crowd, AggregateError);
  assertEquals([crowd.message, crowd.cause], ["crowd", undefined]);
  const died = sent(
    Object.assign(
      new WorkerDiedError("gone", { jobId: 1, taskName: "t" }),
      Object.fromEntries(Array(2000).fill(0).map((_, n) => [`p${n}`, n])),
    ),
  );
  assertInstanceOf(died, WorkerDiedError);
  assertEquals(died.message, "gone");
  for (const large of ["x".repeat(100_000), { text: "x".repeat(100_000) }]) assertInstanceOf(sent(large), Error);
  for (const text of ["ü".repeat(100_000), "\u0000".repeat(100_000), "\ud800".repeat(100_000)]) {
    const failure = writeFailure(new TypeError(text));
    assert(new TextEncoder().encode(JSON.stringify(failure)).length <= 32 * 1024, "it is too large");
    assertInstanceOf(readFailure(failure), TypeError);
  }
});

Deno.test("readFailedReason() reads lost jobs, and what it does not know", () => {
  const lost = readFailedReason("job stalled more than allowable limit", { jobId: "a", taskName: "t" });
  assertInstanceOf(lost, WorkerDiedError);
  assertEquals([lost.jobId, lost.taskName], ["a", "t"]);
  assertStringIncludes(lost.message, 'Lost job "a" (task "t")');
  assertEquals((readFailedReason("something else", { jobId: 1, taskName: "t" }) as Error).message, "something else");
  for (const data of [{}, { v: 2, thrown: { root: { value: 1 }, errors: [] } }, null, 7]) assertInstanceOf(readFailure(data), TypeError);
  // One that is not listed.
  for (const error of [-1, 0, 0.5, 5]) assertInstanceOf(readFailure({ v: 1, thrown: { root: { error }, errors: [] } }), TypeError);
});

Deno.test("readEnvelope() accepts only calls of its own version", () => {
  assertEquals(readEnvelope({ v: 1, task: "t", args: [1] }).args, [1]);
  const cases: [unknown, string][] = [
    [null, "it must be an object"],
    [[], "it must be an object"],
    [{ v: 2, task: "t", args: [] }, "this host reads version 1: current value is 2"],
    [{ task: "t", args: [] }, "this host reads version 1: current value is undefined"],
    [{ v: 1, args: [] }, "'task' must be a string"],
    [{ v: 1, task: "t" }, "it must have either 'args' or 'items'"],
    [{ v: 1, task: "t", args: 7 }, "it must have either 'args' or 'items'"],
    [{ v: 1, task: "t", args: [], items: [] }, "it must have either 'args' or 'items'"],
    [{ v: 1, task: "t", stored: "other" }, "it must have either 'args' or 'items'"],
    [{ v: 1, task: "t", args: [], stored: "args", storedAs: "it" }, "it must have either 'args' or 'items'"],
    [{ v: 1, task: "t", stored: "args" }, "'storedAs' must be a name"],
    [{ v: 1, task: "t", stored: "args", storedAs: "../secret" }, "'storedAs' must be a name"],
    [{ v: 1, task: "t", args: [], timeout: -1 }, "'timeout' must be a number"],
    [{ v: 1, task: "t", args: [], expiresAt: "now" }, "'expiresAt' must be a number"],
    [{ v: 1, task: "t", args: [], release: 1 }, "'release' must be a string"],
    [{ v: 1, task: "t", args: [], id: {} }, "'id' must be a string or a number"],
  ];
  for (const [data, message] of cases) assertThrows(() => readEnvelope(data), TypeError, message);
});

Deno.test("readEnvelope() and isUnwanted() know what stands in place of a cancelled call, and no other", () => {
  const unwanted = { v: 1, task: "t", cancelled: true };
  assertEquals(readEnvelope(unwanted), unwanted as ReturnType<typeof readEnvelope>);
  assert(isUnwanted(JSON.stringify(unwanted)));
  for (const data of ['{"v":1,"task":"t","args":[{"cancelled":true}]}', '{"cancelled":true', "7"]) assert(!isUnwanted(data), data);
});

Deno.test("readReply() and readItem() accept only replies", () => {
  for (const data of [null, "text", { v: 2 }, { v: 1, items: 7 }]) assertThrows(() => readReply(data), TypeError);
  assertEquals(readItem({ value: 7 }), { status: "fulfilled", value: 7 });
  assertEquals(readItem({}), { status: "fulfilled", value: undefined });
  assertEquals(readItem(7).status, "rejected");
});
