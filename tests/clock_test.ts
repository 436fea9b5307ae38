import { assertEquals } from "@std/assert";
import { afterInParts, Cadence, Rounds, Timer } from "../pool/clock.ts";
import { SimulatedClock } from "./simulation/simulated_clock.ts";

/** A clock that calls back while the first timer is being set, as Deno runs microtasks then under `deno test`. */
class InterruptedClock extends SimulatedClock {
  /** What is called then. */
  interruption: (() => void) | undefined;

  override after(delay: number, callback: () => void): () => void {
    const { interruption } = this;
    this.interruption = undefined;
    interruption?.();
    return super.after(delay, callback);
  }
}

Deno.test("Timer.set() replaces what the timer was set for", () => {
  const clock = new SimulatedClock();
  const timer = new Timer(clock);
  const called: string[] = [];
  timer.set(10, () => called.push("first"));
  timer.set(20, () => called.push(`second at ${clock.now()}`));
  assertEquals([timer.isSet, clock.timers], [true, 1]);
  clock.fire();
  assertEquals([called, timer.isSet], [["second at 20"], false]);
});

Deno.test("Timer.stop() keeps the timer from calling back, and it can be set again", () => {
  const clock = new SimulatedClock();
  const timer = new Timer(clock);
  timer.set(10, () => {});
  timer.stop();
  assertEquals([timer.isSet, clock.timers], [false, 0]);
  timer.set(10, () => timer.set(10, () => {}));
  clock.fire();
  assertEquals([timer.isSet, clock.timers], [true, 1]);
});

Deno.test("Timer.set() yields to what sets or stops the timer while it is being set", () => {
  const clock = new InterruptedClock();
  const timer = new Timer(clock);
  const called: string[] = [];
  clock.interruption = () => timer.set(20, () => called.push("within"));
  timer.set(10, () => called.push("without"));
  assertEquals([timer.isSet, clock.timers], [true, 1]);
  clock.fire();
  assertEquals(called, ["within"]);

  clock.interruption = () => timer.stop();
  timer.set(10, () => called.push("stopped"));
  assertEquals([timer.isSet, clock.timers], [false, 0]);
});

Deno.test("Rounds go on at their interval, however often they are begun, until there is no reason for another, or they are ended", () => {
  const clock = new SimulatedClock();
  const at: number[] = [];
  const rounds = new Rounds(clock, 10, () => at.push(clock.now()) < 3);
  rounds.begin();
  for (let i = 0; i < 3; i++) {
    clock.creep(5);
    rounds.begin();
    assertEquals(clock.timers, 1);
    clock.fire();
  }
  assertEquals([at, clock.timers], [[10, 20, 30], 0]);
  rounds.begin();
  rounds.end();
  assertEquals(clock.timers, 0);
});

Deno.test("afterInParts() calls back once after its delay, or later by what the caller was busy for; until then that can be cancelled", () => {
  const clock = new SimulatedClock();
  const called: number[] = [];
  afterInParts(clock, 1000, () => called.push(clock.now()));
  while (clock.timers > 0) clock.fire();
  assertEquals(called, [1000]);

  const busy = 5000;
  afterInParts(clock, 1000, () => called.push(clock.now()));
  clock.creep(busy);
  while (clock.timers > 0) clock.fire();
  assertEquals(called, [1000, 1000 + busy + 900]);

  const cancel = afterInParts(clock, 1000, () => called.push(clock.now()));
  clock.fire();
  cancel();
  assertEquals([called.length, clock.timers], [2, 0]);
});

Deno.test("Cadence.isDue() after its interval, reading the clock only then, however often it is asked", () => {
  for (const [time, calls] of [[1 / 64, 32], [1 / 32, 16], [0.5, 1], [2, 1]] as const) {
    const clock = new SimulatedClock();
    const cadence = new Cadence(clock, 0.5, 64);
    const asked: number[] = [];
    let since = 0;
    for (let i = 0; i < 400; i++) {
      clock.creep(time);
      since++;
      if (!cadence.isDue()) continue;
      asked.push(since);
      since = 0;
    }
    // The first call tells nothing about the time between two.
    assertEquals(new Set(asked.slice(1)), new Set([calls]), `${time} ms between calls`);
  }
});

Deno.test("Cadence.isDue() after its most calls if no time passes, and follows calls that become slower", () => {
  const clock = new SimulatedClock();
  const cadence = new Cadence(clock, 0.5, 64);
  const until = (time: number): number => {
    for (let calls = 1;; calls++) {
      clock.creep(time);
      if (cadence.isDue()) return calls;
    }
  };
  assertEquals([until(0), until(0), until(0)], [1, 64, 64]);
  assertEquals([until(0.25), until(0.25), until(0.25)], [64, 2, 2]);
  assertEquals([until(0), until(0)], [2, 64]);
});
