import { assertEquals } from "@std/assert";
import { Portion } from "../worker/portion.ts";

/** A portion, and what lets this many ms pass until the next tick of its event loop. */
function opened() {
  let now = 0;
  const ticks: (() => void)[] = [];
  const portion = new Portion(() => now, (callback) => ticks.push(callback));
  const tick = (ms: number): number => {
    now += ms;
    const waiting = ticks.splice(0);
    for (const callback of waiting) callback();
    return waiting.length;
  };
  return { portion, tick };
}

Deno.test("A portion is as large as fits five milliseconds, going by the one before it", () => {
  const { portion, tick } = opened();
  const sizes = [portion.left];
  for (const timeOfEach of [0.001, 0.001, 0.001, 0.5, 0.5, 20, 20, 0, 0, 0, 0.1]) {
    const results = portion.left;
    portion.handOver(results);
    assertEquals(portion.left, 0);
    tick(results * timeOfEach);
    sizes.push(portion.left);
  }
  // It grows by steps, and to 256 at most; it shrinks at once, and never to nothing.
  assertEquals(sizes, [64, 256, 256, 256, 10, 10, 1, 1, 4, 16, 64, 50]);
});

Deno.test("A portion takes in what is handed over until the next tick, however much", () => {
  const { portion, tick } = opened();
  portion.handOver(40);
  assertEquals(portion.left, 64);
  portion.handOver(50);
  assertEquals(portion.left, 14);
  portion.handOver(200);
  assertEquals(portion.left, 0);
  // 250 were measured.
  tick(50);
  assertEquals(portion.left, 25);
});

Deno.test("Few results are not measured, unless a portion is no larger", () => {
  const { portion, tick } = opened();
  for (let i = 0; i < 63; i++) portion.handOver(1);
  assertEquals(tick(1000), 0);
  portion.handOver(64);
  assertEquals(tick(160), 1);
  assertEquals(portion.left, 2);
  portion.handOver(1);
  assertEquals(tick(1), 0);
  portion.handOver(1);
  assertEquals(tick(1), 1);
});
