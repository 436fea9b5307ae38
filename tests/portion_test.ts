import { assertEquals } from "@std/assert";
import { Portions } from "../worker/portion.ts";

/** Portions on a thread whose receivers take `timeOfEach` ms for each result, and whose other work takes `otherWork` ms a tick. */
class Opened {
  timeOfEach = 0;
  otherWork = 0;
  /** How many results each portion had, by who took them. */
  log: [name: string, results: number][] = [];
  portions: Portions;
  #now = 0;
  #ticks: (() => void)[] = [];
  #unheard = 0;

  constructor() {
    this.portions = new Portions({
      now: () => this.#now,
      soon: (callback) => callback(),
      atNextTick: (callback) => this.#ticks.push(callback),
    });
  }

  handOver(results: number): void {
    this.portions.handOver(results);
    this.#unheard += results;
  }

  /** Has this many results taken. */
  join(name: string, results: number): void {
    this.portions.join((most) => {
      const taken = Math.min(most, results);
      this.log.push([name, taken]);
      if (results > taken) this.join(name, results - taken);
      this.handOver(taken);
    });
  }

  /** Returns what was taken in one tick. */
  tick(): [name: string, results: number][] {
    for (const callback of this.#ticks.splice(0)) {
      callback();
      this.#now += this.#unheard * this.timeOfEach;
      this.#unheard = 0;
    }
    this.#now += this.otherWork;
    return this.log.splice(0);
  }

  /** The sizes of portions of one taker, in which each result takes this many ms. */
  sizes(...times: number[]): number[] {
    this.join("line", 1_000_000);
    return times.map((time) => {
      this.timeOfEach = time;
      return this.tick()[0]![1];
    });
  }
}

Deno.test("Portions are as large as fits five milliseconds, going by the one before", () => {
  const sizes = new Opened().sizes(0.001, 0.001, 0.001, 0.5, 0.5, 20, 20, 0.001, 0.001, 0.001, 0.1, 0);
  // They grow by steps, and to 256 at most; they shrink at once, and never to nothing.
  assertEquals(sizes, [64, 256, 256, 256, 10, 10, 1, 1, 4, 16, 64, 50]);
});

Deno.test("Portions are no smaller where other work keeps the event loop busy", () => {
  const opened = new Opened();
  opened.otherWork = 1000;
  assertEquals(opened.sizes(0.001, 0.001, 0.001, 0.001), [64, 256, 256, 256]);
});

Deno.test("Portions go in turn to those who have results, whoever has many", () => {
  const opened = new Opened();
  opened.sizes(20);
  for (const name of ["a", "b"]) opened.join(name, 2);
  const taken = Array.from({ length: 6 }, () => opened.tick());
  assertEquals(taken.map((portion) => portion.map(([name]) => name).join()), ["line", "a", "b", "line", "a", "b"]);
});

Deno.test("Portions go only once to whoever asks for one again while waiting", () => {
  const opened = new Opened();
  const taker = (): void => void opened.log.push(["taker", 0]);
  for (let i = 0; i < 3; i++) opened.portions.join(taker);
  assertEquals(opened.tick(), [["taker", 0]]);
  opened.portions.join(taker);
  assertEquals(opened.tick(), [["taker", 0]]);
  assertEquals(opened.tick(), []);
});

Deno.test("Portions are shared by those whose results fit", () => {
  const opened = new Opened();
  for (const name of ["a", "b", "c"]) opened.join(name, 30);
  assertEquals(opened.tick(), [["a", 30], ["b", 30], ["c", 4]]);
  assertEquals(opened.tick(), [["c", 26]]);
  assertEquals(opened.tick(), []);
});

Deno.test("Portions do not count results that come alone, unless they are small", () => {
  const opened = new Opened();
  const { portions } = opened;
  for (let i = 0; i < 100; i++) portions.handOver(1);
  assertEquals(portions.few, 64);
  // One at a time, as errors are handed over.
  portions.join((most) => {
    for (let i = 0; i < most; i++) opened.handOver(1);
  });
  opened.timeOfEach = 1;
  opened.tick();
  portions.join(() => {});
  opened.tick();
  assertEquals(portions.few, 5);
  opened.handOver(1);
  assertEquals(portions.few, 4);
});

Deno.test("Portions begin after 64 results that were handed over at once, or after as many as a portion has", () => {
  const opened = new Opened();
  const { portions } = opened;
  opened.handOver(40);
  assertEquals(portions.few, 24);
  opened.handOver(50);
  assertEquals(portions.few, 0);
  // In the next tick, who heard of these is done, but not if somebody waits for a portion since.
  assertEquals(portions.atTick(), 64);
  opened.handOver(70);
  opened.join("line", 0);
  assertEquals(portions.atTick(), 0);
  opened.tick();
  // Nobody takes anything.
  portions.join(() => {});
  opened.tick();
  assertEquals(portions.few, 64);
  opened.timeOfEach = 1;
  opened.join("line", 50);
  opened.tick();
  assertEquals(portions.few, 0);
  portions.join(() => {});
  opened.tick();
  assertEquals(portions.few, 5);
});
