import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { DoneParts } from "../batch/done_parts.ts";
import { Lane } from "../batch/lane.ts";

/** Starts parts of ten bytes each. */
function start(parts: DoneParts, count: number): void {
  for (let index = 0; index < count; index++) {
    const place = { start: 10 * index, end: 10 * (index + 1) };
    const piece = { input: "lines", bytes: new Uint8Array(), offset: place.start, end: place.end, header: undefined };
    parts.started({ source: 0, index, ...place, torn: false, piece });
  }
}

/** Adds a part, or as much of one as is done, with this many bytes of results; returns their lane, and the one that is free instead. */
function add(
  parts: DoneParts,
  index: number,
  { start = 10 * index, end = 10 * (index + 1), outputLength = 0 } = {},
): { lane: Lane; free: Lane | undefined } {
  const lane = new Lane();
  (lane.memory.output as SharedArrayBuffer & { grow(bytes: number): void }).grow(2 ** 20);
  const waits = !parts.isNext({ index, start });
  const state = { ...lane.state(), outputLength };
  const last = end === 10 * (index + 1);
  const free = parts.add({ source: 0, index, start, end, torn: false, state, errors: [], slowest: [], last, waits }, lane);
  return { lane, free };
}

/** Passes on what may be; returns where it begins. */
function passOn(parts: DoneParts): number[] {
  const starts: number[] = [];
  for (let part = parts.takeNext(); part !== undefined; part = parts.takeNext()) {
    starts.push(part.start);
    parts.passedOn(part);
  }
  return starts;
}

Deno.test("DoneParts gives parts in the order of the input, also one that was done in several pieces", () => {
  const parts = new DoneParts(true);
  start(parts, 3);
  add(parts, 2);
  add(parts, 0, { start: 4 });
  assertEquals(passOn(parts), []);
  add(parts, 0, { end: 4 });
  assertEquals(passOn(parts), [0, 4]);
  add(parts, 1, { end: 12 });
  assertEquals(passOn(parts), [10]);
  assertEquals([parts.isNext({ index: 1, start: 12 }), parts.isNext({ index: 2, start: 20 }), parts.size], [true, false, 1]);
  add(parts, 1, { start: 12 });
  assertEquals(passOn(parts), [12, 20]);
  assertEquals(parts.size, 0);
});

Deno.test("DoneParts gives parts as they come if order does not matter", () => {
  const parts = new DoneParts(false);
  start(parts, 3);
  assertEquals(parts.isNext({ index: 2, start: 20 }), true);
  for (const index of [2, 0, 1]) add(parts, index);
  assertEquals(passOn(parts), [20, 0, 10]);
});

Deno.test("DoneParts copies few results that wait, and keeps the lane of many", () => {
  const parts = new DoneParts(true);
  start(parts, 4);
  const few = add(parts, 1, { outputLength: 100 });
  assertStrictEquals(few.free, few.lane);
  const many = add(parts, 2, { outputLength: 2 ** 19 });
  assert(many.free !== undefined && many.free !== many.lane);
  const held = parts.held;
  assert(held > 2 ** 19 + 100);
  const next = add(parts, 0, { outputLength: 100 });
  assertEquals([next.free, parts.held], [undefined, held]);
  const taken = [parts.takeNext()!, parts.takeNext()!, parts.takeNext()!];
  assertEquals(taken.map((part) => part.output.buffer instanceof SharedArrayBuffer), [true, false, true]);
  assertEquals(taken.map((part) => parts.passedOn(part)), [next.lane, undefined, undefined]);
  assertEquals(parts.held, 0);
  // The lane that is no longer needed replaces that of the next part that waits.
  start(parts, 5);
  assertStrictEquals(add(parts, 4, { outputLength: 2 ** 19 }).free, many.lane);
});

Deno.test("DoneParts tells in order what was not passed on", () => {
  const parts = new DoneParts(true);
  start(parts, 4);
  add(parts, 3);
  add(parts, 2, { start: 24 });
  add(parts, 1);
  add(parts, 2, { end: 24 });
  assertEquals(parts.left().map(({ start }) => start), [10, 20, 24, 30]);
});
