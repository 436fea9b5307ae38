import { runInNewContext } from "node:vm";
import { assertEquals, assertStrictEquals } from "@std/assert";
import { Checks, show } from "../pool/checks.ts";

Deno.test("show() tells values apart in a few words", () => {
  const rows: [value: unknown, shown: string][] = [
    ["4", '"4"'],
    [4, "4"],
    [4n, "4n"],
    [-0, "0"],
    [NaN, "NaN"],
    [undefined, "undefined"],
    [null, "null"],
    [true, "true"],
    [Symbol("four"), "Symbol(four)"],
    ["", '""'],
    ['a "quoted"\nline', '"a \\"quoted\\"\\nline"'],
    ["x".repeat(80), `"${"x".repeat(80)}"`],
    ["x".repeat(81), `"${"x".repeat(80)}..."`],
    [[], "an array of 0"],
    [[1, [2]], "an array of 2"],
    [{}, "an object of class Object"],
    [new Map(), "an object of class Map"],
    [Object.create(null), "an object of class null"],
    [show, "function show"],
    [(() => () => 1)(), "a function"],
    [class Klass {}, "function Klass"],
  ];
  for (const [value, shown] of rows) assertEquals(show(value), shown);
});

Deno.test("Checks.options() takes plain objects of all kinds as they are", () => {
  const checks = new Checks("test");
  const bare = Object.assign(Object.create(null), { size: 1 });
  for (const options of [{}, { size: 1 }, bare, runInNewContext("({ size: 1 })")]) {
    assertStrictEquals(checks.options(options, ["size"]), options);
  }
});
