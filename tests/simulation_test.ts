import { assertEquals } from "@std/assert";
import { Balance } from "../pool/balance.ts";
import { type Block, Chunk } from "../pool/chunk.ts";
import { ChunkSizer } from "../pool/chunk_sizer.ts";
import { MapRun } from "../pool/map.ts";
import { JobTicket } from "../pool/ticket.ts";
import { Watchdog } from "../pool/watchdog.ts";
import { Semaphore } from "../semaphore.ts";
import { Holding } from "../worker/holding.ts";
import { Slot } from "../worker/slot.ts";
import { Workload } from "../worker/workload.ts";
import { simulate } from "./simulation/schedule.ts";
import { simulateInTime } from "./simulation/timed_run.ts";

/** Replaces a method until it is disposed of. */
function replace<T extends object, K extends keyof T>(object: T, method: K, by: (original: T[K]) => T[K]): Disposable {
  const original = object[method];
  object[method] = by(original);
  return { [Symbol.dispose]: () => object[method] = original };
}

Deno.test("simulate() finds that all invariants hold in thousands of schedules", async () => {
  for (let seed = 1; seed <= 5000; seed++) {
    const violation = await simulate(seed);
    assertEquals(violation, undefined, `seed ${seed}, replay it: deno run tests/simulation/main.ts --seed ${seed}`);
  }
});

Deno.test("simulate() does the same for the same seed", async () => {
  for (let seed = 1; seed <= 50; seed++) {
    const [first, second]: [string[], string[]] = [[], []];
    await simulate(seed, (line) => first.push(line));
    await simulate(seed, (line) => second.push(line));
    assertEquals(first, second);
  }
});

// Proof that it finds bugs: known kinds of bugs, put back, and the seed that finds each.

Deno.test("simulate() finds a permit that is not given back on abort", async () => {
  let aborting = false;
  using _abort = replace(AbortController.prototype, "abort", (abort) =>
    function (this: AbortController, reason) {
      aborting = true;
      abort.call(this, reason);
      aborting = false;
    });
  using _release = replace(Semaphore.prototype, "release", (release) =>
    function (this: Semaphore) {
      if (!aborting) release.call(this);
    });
  assertEquals((await simulate(2))?.invariant, "permits in use equal unsettled jobs");
});

Deno.test("simulate() finds a job that is settled before it leaves its slot", async () => {
  using _ = replace(Slot.prototype, "withdraw", () =>
    function (this: Slot, ticket) {
      return !this.hasStarted(ticket);
    });
  assertEquals((await simulate(19))?.invariant, "no slot holds a settled job");
});

Deno.test("simulate() finds a watchdog that sleeps while a job runs again", async () => {
  using _ = replace(Watchdog.prototype, "watch", (watch) =>
    function (this: Watchdog, ticket) {
      if (!ticket.watched) watch.call(this, ticket);
    });
  assertEquals((await simulate(2))?.invariant, "the time of work that has a limit is watched");
});

Deno.test("simulate() finds a job that is run again without end", async () => {
  using _ = replace(JobTicket.prototype, "lost", () => () => undefined);
  assertEquals((await simulate(13))?.invariant, "nothing runs more often than 'retries' say");
});

Deno.test("simulate() finds a job that is stopped a moment too early", async () => {
  using _ = replace(Slot.prototype, "runningFor", (runningFor) =>
    function (this: Slot, ticket, timeOfDay) {
      const running = runningFor.call(this, ticket, timeOfDay);
      return running && { ...running, time: running.time + 1 };
    });
  assertEquals((await simulate(245))?.invariant, "what is stopped for its time has run for so long");
});

Deno.test("simulate() finds a worker that takes up nothing and is waited for", async () => {
  using _ = replace(Slot.prototype, "isKeptBusy", () => () => false);
  assertEquals((await simulate(2))?.invariant, "every schedule comes to rest");
});

Deno.test("simulate() finds a worker that is given up too soon", async () => {
  using _ = replace(Slot.prototype, "isKeptBusy", () =>
    function (this: Slot) {
      return this.load > 0;
    });
  assertEquals(
    (await simulate(168))?.invariant,
    "a worker that has jobs is stopped only to end one of them, or when it does not take them up",
  );
});

Deno.test("simulate() finds jobs that have finished and are lost when their worker is stopped for another", async () => {
  const original = Object.getOwnPropertyDescriptor(Slot.prototype, "hasUnread")!;
  Object.defineProperty(Slot.prototype, "hasUnread", { configurable: true, get: () => false });
  const violation = await simulate(4591);
  Object.defineProperty(Slot.prototype, "hasUnread", original);
  assertEquals(violation?.invariant, "a worker that is stopped takes no more jobs with it than it runs at a time");
});

Deno.test("simulate() finds a call that is dropped where many are sent together", async () => {
  using _ = replace(Slot.prototype, "sendCalls", (sendCalls) =>
    function (this: Slot, queue) {
      const sent = sendCalls.call(this, queue);
      if (sent > 3) queue.shift();
      return sent;
    });
  assertEquals((await simulate(44))?.invariant, "permits in use equal unsettled jobs");
});

Deno.test("simulate() finds jobs that were sent ahead and wait while another worker is idle", async () => {
  using _ = replace(Slot.prototype, "isLate", () => () => false);
  assertEquals((await simulate(16))?.invariant, "what was sent ahead does not wait while a worker is idle");
});

Deno.test("simulate() finds results that lie in memory and are not taken from there", async () => {
  using _ = replace(Chunk.prototype, "collect", () => () => {});
  assertEquals((await simulate(263))?.invariant, "a map that ends by itself is complete");
});

Deno.test("simulate() finds a job without a future whose caller does not hear that it is refused", async () => {
  using _ = replace(JobTicket.prototype, "refuse", (refuse) =>
    function (this: JobTicket, reason) {
      if (!this.wantsResult) refuse.call(this, reason);
    });
  assertEquals((await simulate(31))?.invariant, "nothing hangs");
});

Deno.test("simulateInTime() finds that a hundred scenarios take hardly longer than they must, and that hardly any job waits for nothing", async () => {
  for (let seed = 1; seed <= 100; seed++) {
    const violation = await simulateInTime(seed);
    assertEquals(violation, undefined, `scenario ${seed}, replay it: deno run tests/simulation/main.ts --scenario ${seed}`);
  }
});

Deno.test("simulateInTime() does the same for the same seed", async () => {
  for (const seed of [4, 8, 15]) {
    const [first, second]: [string[], string[]] = [[], []];
    await simulateInTime(seed, (line) => first.push(line));
    await simulateInTime(seed, (line) => second.push(line));
    assertEquals(first, second);
  }
});

// Proof that it finds what makes jobs wait: each mechanism against that, put out of action.

const EXCESS = "all jobs have ended when they would if started in order";
const IDLE = "no job waits for long while a worker is idle", OVERTAKEN = "no job is overtaken for long";

Deno.test("simulateInTime() finds that nothing can be taken back from a worker", async () => {
  using _ = replace(Holding.prototype, "takeBack", () => () => false);
  assertEquals((await simulateInTime(1))?.invariant, IDLE);
});

Deno.test("simulateInTime() finds that it is not noticed when a job holds up others while a worker is idle", async () => {
  using _ = replace(Workload.prototype, "isLate", () => () => false);
  assertEquals((await simulateInTime(2))?.invariant, IDLE);
});

Deno.test("simulateInTime() finds that it is not noticed when a job holds up others while no worker is idle", async () => {
  using _ = replace(Workload.prototype, "hasKeptWaiting", () => () => false);
  assertEquals((await simulateInTime(325))?.invariant, OVERTAKEN);
});

Deno.test("simulateInTime() finds that nothing is done about it", async () => {
  using _ = replace(Balance.prototype, "keepOrder", () => () => {});
  assertEquals((await simulateInTime(325))?.invariant, OVERTAKEN);
});

Deno.test("simulateInTime() finds that what was taken back is sent ahead again at once", async () => {
  using _ = replace(Slot.prototype, "sendNothingAhead", () => () => {});
  assertEquals((await simulateInTime(76))?.invariant, OVERTAKEN);
});

Deno.test("simulateInTime() finds a map whose chunks are sent one after the other", async () => {
  using _ = replace(ChunkSizer.prototype, "hasRoom", (hasRoom) =>
    function (this: ChunkSizer, state) {
      return state.inFlight === 0 && hasRoom.call(this, state);
    });
  assertEquals((await simulateInTime(2))?.invariant, EXCESS);
});

Deno.test("simulateInTime() finds a map that does not find how large its chunks should be", async () => {
  using _ = replace(ChunkSizer.prototype, "ran", () => () => {});
  assertEquals((await simulateInTime(3))?.invariant, EXCESS);
});

Deno.test("simulateInTime() finds a map that hands over results only once their chunk has ended", async () => {
  const { outcomes } = MapRun.prototype;
  const held = new Map<Chunk, Block[]>();
  using _outcomes = replace(MapRun.prototype, "outcomes", () => (chunk, block) => void held.set(chunk, [...held.get(chunk) ?? [], block]));
  using _settled = replace(MapRun.prototype, "settled", (settled) =>
    function (this: MapRun, chunk) {
      for (const block of held.get(chunk) ?? []) outcomes.call(this, chunk, block);
      settled.call(this, chunk);
    });
  assertEquals((await simulateInTime(1))?.invariant, "who waits for a result hears of it soon");
});

Deno.test("simulateInTime() finds a map that reads too far ahead", async () => {
  using _ = replace(ChunkSizer.prototype, "returned", () =>
    function (this: ChunkSizer) {
      this.buffer = Infinity;
    });
  assertEquals((await simulateInTime(2))?.invariant, "a map reads no more than 'buffer' items ahead");
});

Deno.test("simulateInTime() finds a map that leaves no room for jobs beside it", async () => {
  using _ = replace(ChunkSizer.prototype, "hasRoom", (hasRoom) =>
    function (this: ChunkSizer, state) {
      return hasRoom.call(this, { ...state, inFlight: 0 });
    });
  assertEquals((await simulateInTime(3))?.invariant, "a job waits for few chunks of a map");
});
