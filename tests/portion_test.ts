import { assertEquals } from "@std/assert";
import { Portion } from "../worker/portion.ts";

/** A portion, and what lets this many ms pass for it. */
function opened() {
  let now = 0;
  return { portion: new Portion(() => now), pass: (ms: number) => void (now += ms) };
}

Deno.test("A portion is as large as fits five milliseconds, going by the one before it", async () => {
  const { portion, pass } = opened();
  const sizes = [portion.left()];
  for (const timeOfEach of [0.001, 0.001, 0.001, 0.5, 0.5, 20, 20, 0, 0, 0, 0.1]) {
    const results = sizes.at(-1)!;
    portion.handOver(results);
    assertEquals(portion.left(), 0);
    await undefined;
    pass(results * timeOfEach);
    sizes.push(portion.left());
  }
  // It grows by steps, and to 256 at most; it shrinks at once, and never to nothing.
  assertEquals(sizes, [64, 256, 256, 256, 10, 10, 1, 1, 4, 16, 64, 50]);
});

Deno.test("A portion is judged by all that was handed over since it was enough to be measured, however much", async () => {
  const { portion, pass } = opened();
  portion.handOver(40);
  pass(1000);
  portion.handOver(50);
  // The first 40 were too few to be measured, and nobody has heard of the others yet.
  assertEquals(portion.left(), 14);
  pass(10);
  portion.handOver(200);
  assertEquals(portion.left(), 0);
  await undefined;
  pass(40);
  assertEquals(portion.left(), 25);
  assertEquals(portion.left(), 25);
});

Deno.test("Few results are not measured, unless a portion is no larger", async () => {
  const { portion, pass } = opened();
  for (let i = 0; i < 63; i++) portion.handOver(1);
  await undefined;
  pass(1000);
  assertEquals(portion.left(), 64);
  portion.handOver(64);
  await undefined;
  pass(160);
  assertEquals(portion.left(), 2);
  portion.handOver(1);
  await undefined;
  pass(1000);
  assertEquals(portion.left(), 2);
  portion.handOver(1);
  await undefined;
  pass(1);
  assertEquals(portion.left(), 5);
});
