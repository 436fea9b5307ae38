import { assertEquals } from "@std/assert";
import { LongTurn } from "../pool/turn.ts";
import { countCalls } from "./helpers.ts";
import { SimulatedClock } from "./simulation/simulated_clock.ts";

/**
 * A turn in which this many submissions wait before each look for results, and how many wait after it. Returns how often the caller paused at
 * each of them.
 */
async function pausesOf(looks: [before: number, after: number][]): Promise<number[]> {
  let waiting = 0;
  let next = 0;
  const turn = new LongTurn(new SimulatedClock(), {
    takeReturned: () => waiting = next,
    callBack() {},
    waiting: () => waiting,
  });
  const pauses: number[] = [];
  for (const [before, after] of looks) {
    [waiting, next] = [before, after];
    // As many submissions as bring about one look, within one turn.
    pauses.push(
      ...await countCalls([[Atomics, "wait"]], () => {
        for (let i = 0; i < 64; i++) turn.goesOn();
      }),
    );
  }
  return pauses;
}

Deno.test("LongTurn pauses after each look while thousands of submissions wait, and at no other", async () => {
  assertEquals(await pausesOf([[0, 0], [64, 0], [4000, 3900], [4001, 3900], [50_000, 49_999], [3900, 3800]]), [0, 0, 0, 1, 1, 0]);
});

Deno.test("LongTurn pauses no more when twenty pauses in a row have brought nothing, until something comes", async () => {
  const inVain = Array.from({ length: 30 }, (): [number, number] => [9000, 9000]);
  const paused = Array.from({ length: 30 }, (_, i) => i < 20 ? 1 : 0);
  assertEquals(await pausesOf([...inVain, [9000, 8000], ...inVain]), [...paused, 1, ...paused]);
});
