import { assertEquals } from "@std/assert";
import { bins, noTimes, quantile } from "../batch/times.ts";
import { count, duration, listed, percent, rounded } from "../report/figures.ts";

Deno.test("duration() tells a time in the unit that suits it", () => {
  const times = [0, 0.00002, 0.05, 0.9999, 0.99999, 9.444, 999.6, 61_000, 99_940, 99_950, 119_600, 600_000, 7_500_000, 3.6e9];
  assertEquals(times.map(duration), [
    "0",
    "20 ns",
    "50 µs",
    "1 ms",
    "1 ms",
    "9.44 ms",
    "1 s",
    "61 s",
    "99.9 s",
    "1 min 40 s",
    "2 min 0 s",
    "10 min 0 s",
    "2 h 5 min",
    "1,000 h 0 min",
  ]);
});

Deno.test("rounded() keeps three figures, and all that are before the point", () => {
  assertEquals([0, 0.01234, 1.5, 99.94, 99.96, 1234.5, 2_500_000].map(rounded), [
    "0",
    "0.0123",
    "1.5",
    "99.9",
    "100",
    "1,235",
    "2,500,000",
  ]);
});

Deno.test("count() and percent() have no decimals", () => {
  assertEquals([count(1_234_567), percent(0.875), percent(1)], ["1,234,567", "88 %", "100 %"]);
});

Deno.test("listed() tells how many are left out, if any are", () => {
  assertEquals([0, 1, 2, 3].map((most) => listed(["a", "b"], most)), [" and 2 more", "a and 1 more", "a, b", "a, b"]);
});

Deno.test("quantile() gives the time below which at least that share of the times lies", () => {
  assertEquals(quantile(noTimes(), 0.5), undefined);
  const times = noTimes();
  // From 1 ms on, a bucket is a sixteenth of a power of two.
  for (const [bucket, count] of [[320, 1], [336, 1], [352, 1], [368, 97]] as const) times[bucket] = count;
  const shares = [0, 0.01, 0.011, 0.02, 0.03, 0.031, 1];
  assertEquals(shares.map((share) => Math.floor(quantile(times, share)!)), [1, 1, 2, 2, 4, 8, 8]);
});

Deno.test("bins() makes of many times a histogram that has them all, in neighbours that hold what they say", () => {
  assertEquals(bins(noTimes()), []);
  for (const buckets of [[320], [101, 110, 130], [0, 703]]) {
    const times = noTimes();
    for (const bucket of buckets) times[bucket] = bucket + 1;
    const all = bins(times);
    assertEquals(all.reduce((sum, { count }) => sum + count, 0), buckets.reduce((sum, bucket) => sum + bucket + 1, 0));
    assertEquals(all.slice(1).map(({ from }) => from), all.slice(0, -1).map(({ to }) => to));
    assertEquals([all[0]!.count > 0, all.at(-1)!.count > 0, all.length <= 60], [true, true, true]);
    // They begin at quarters of a power of two, or at powers.
    assertEquals([...all, { from: all.at(-1)!.to }].every(({ from }) => from / 2 ** Math.floor(Math.log2(from)) * 4 % 1 === 0), true);
    const median = quantile(times, 0.5)!;
    const { from, to } = all.find(({ from, to }) => from <= median && median < to)!;
    assertEquals(from < to, true);
  }
});
