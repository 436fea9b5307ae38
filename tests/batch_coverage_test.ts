import { assert, assertEquals } from "@std/assert";
import { Coverage } from "../batch/coverage.ts";

/** A thousand parts of 10 bytes and 2 lines; every hundredth part has its lines numbered. */
const PARTS = Array.from({ length: 1000 }, (_, i) => ({ start: 10 * i, end: 10 * i + 10, lines: 2, numbered: i % 100 === 42 }));

/** Orders in which parts may get done; the multiplier shares no divisor with their number. */
const ORDERS = {
  "in order": PARTS,
  "backwards": PARTS.toReversed(),
  "the first one last": [...PARTS.slice(1), PARTS[0]!],
  "here and there": PARTS.map((_, i) => PARTS[i * 387 % PARTS.length]!),
};

for (const [name, parts] of Object.entries(ORDERS)) {
  Deno.test(`Coverage counts the lines before parts, and merges what touches (${name})`, () => {
    const coverage = new Coverage();
    for (const [i, part] of parts.entries()) {
      coverage.add(part);
      assertEquals(coverage.bytes, 10 * (i + 1));
    }
    assertEquals([coverage.first, coverage.gaps(10_000)], [{ start: 0, end: 10_000, lines: 2000 }, []]);
    assertEquals(coverage.pieces, 10);
    for (const { start, numbered } of PARTS) assertEquals(coverage.linesBefore(start), numbered ? start / 5 : undefined);
  });
}

Deno.test("Coverage after a gap grows only with the parts that are to be numbered", () => {
  const coverage = new Coverage();
  for (const part of PARTS.slice(1)) {
    coverage.add(part);
    assert(coverage.pieces <= 11);
  }
  assertEquals([coverage.first.end, coverage.gaps(10_005)], [0, [{ start: 0, end: 10 }, { start: 10_000, end: 10_005 }]]);
  assertEquals([coverage.numbered, coverage.linesBefore(420)], [true, undefined]);
});

Deno.test("Coverage ignores the empty first row of an empty file", () => {
  const coverage = new Coverage();
  coverage.add({ start: 0, end: 0, lines: 0 });
  assertEquals(coverage.end, 0);
  assertEquals([coverage.pieces, coverage.numbered, coverage.gaps(0), coverage.gaps(Infinity)], [0, false, [], [{
    start: 0,
    end: Infinity,
  }]]);
});

Deno.test("Coverage says up to where anything is done, with and without a gap before", () => {
  const coverage = new Coverage();
  const ends = [[0, 10], [20, 30], [40, 50], [10, 20], [30, 40]].map(([start, end]) => {
    coverage.add({ start: start!, end: end!, lines: 1 });
    return coverage.end;
  });
  assertEquals(ends, [10, 30, 50, 50, 50]);
});
