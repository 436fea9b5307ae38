import { assertEquals, assertThrows } from "@std/assert";
import { fromJson, toJson } from "../values.ts";

/** What arrives after a round trip through JSON text. */
function sent(value: unknown): unknown {
  return fromJson(JSON.parse(JSON.stringify(toJson(value, "it"))));
}

Deno.test("toJson() and fromJson() bring JSON and bytes across", () => {
  for (const value of [null, true, 0, -1.5, 1e300, "", "ü\u0000", [], [1, [2]], {}, { a: { b: [null] } }]) assertEquals(sent(value), value);
  assertEquals(sent(new Uint8Array([0, 255, 7])), new Uint8Array([0, 255, 7]));
  assertEquals(sent({ bytes: [new Uint8Array(0)] }), { bytes: [new Uint8Array(0)] });
});

Deno.test("toJson() and fromJson() do not mistake an object that looks like bytes for bytes", () => {
  for (const value of [{ $bytes: "AAA=" }, { $plain: { $bytes: "AAA=" } }, { $plain: 1 }, { $bytes: { $bytes: 1 } }]) {
    assertEquals(sent(value), value);
  }
  for (const value of [{ $bytes: "AAA=", more: 1 }, { $plain: {}, more: 1 }]) assertEquals(sent(value), value);
  // From elsewhere.
  assertEquals(fromJson({ $bytes: 7 }), { $bytes: 7 });
});

Deno.test("fromJson() makes plain objects, whatever their properties are called", () => {
  const value = fromJson(JSON.parse('{"__proto__": {"admin": true}, "constructor": 1}')) as Record<string, unknown>;
  assertEquals(Object.getPrototypeOf(value), Object.prototype);
  assertEquals(Object.keys(value), ["__proto__", "constructor"]);
  assertEquals(value.admin, undefined);
  assertEquals(sent(Object.assign(Object.create(null), { a: 1 })), { a: 1 });
});

Deno.test("toJson() refuses what JSON would change or lose, and says where it is", () => {
  const circle: unknown[] = [];
  circle.push({ circle });
  class Own {}
  const cases: [unknown, string][] = [
    [undefined, "Cannot send it through the queue as it must be JSON"],
    [{ a: [1, undefined] }, "Cannot send it.a[1] through the queue"],
    [[new Date(0)], "current value is an object of class Date"],
    [new Map(), "current value is an object of class Map"],
    [new Set(), "current value is an object of class Set"],
    [{ n: NaN }, "Cannot send it.n through the queue"],
    [Infinity, "current value is Infinity"],
    [1n, "current value is 1n"],
    [() => 1, "current value is a function"],
    [Symbol("s"), "Cannot send it through the queue"],
    [{ [Symbol("s")]: 1 }, "Cannot send it[Symbol(s)] through the queue"],
    [new Own(), "current value is an object of class Own"],
    [new Float32Array(1), "current value is an object of class Float32Array"],
    // deno-lint-ignore no-sparse-arrays -- a hole is what it is about
    [[1, , 2], "Cannot send it[1] through the queue"],
    [circle, "Cannot send it[0].circle through the queue as it contains itself"],
  ];
  for (const [value, message] of cases) assertThrows(() => toJson(value, "it"), TypeError, message);
  assertThrows(
    () => toJson("a1".match(/(\d)/), "it"),
    TypeError,
    "Cannot send it through the queue as an array in JSON has nothing but items",
  );
  assertThrows(
    () => toJson([Object.assign([1], { [Symbol("s")]: 1 })], "it"),
    TypeError,
    "Cannot send it[0] through the queue as an array",
  );
  const twice = { a: 1 };
  assertEquals(sent([twice, twice]), [twice, twice]);
});

Deno.test("toJson() and fromJson() bring -0 across as 0, and what is nested deeply up to a limit", () => {
  assertEquals(sent({ n: -0 }), { n: 0 });
  const nested = (depth: number) => {
    let value: unknown = 1;
    for (let i = 0; i < depth; i++) value = i % 2 === 0 ? [value] : { a: value };
    return value;
  };
  assertEquals(sent(nested(500)), nested(500));
  for (const depth of [501, 100_000]) {
    assertThrows(() => sent(nested(depth)), TypeError, "as it lies too deep: at most 500 arrays and objects within each other");
  }
});
