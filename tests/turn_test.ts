import { assertEquals } from "@std/assert";
import type { Ticket } from "../pool/ticket.ts";
import { type Defer, Gathering, LongTurn } from "../pool/turn.ts";
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
    takeReturned() {
      waiting = next;
      return 0;
    },
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

Deno.test("LongTurn takes few results for each submission, as whoever hears of them may compute before the event loop has its turn", async () => {
  const clock = new SimulatedClock();
  const waiting: (() => void)[] = [];
  clock.soon = (callback) => void waiting.push(callback);
  const allowed: number[] = [];
  let returned = 6;
  const takeReturned = (most: number): number => {
    allowed.push(most);
    const taken = Math.min(most, returned);
    returned -= taken;
    return taken;
  };
  const turn = new LongTurn(clock, { takeReturned, callBack() {}, waiting: () => 0 });
  const submit = (): void => {
    // So that there is a look for results at each submission.
    clock.creep(1);
    turn.goesOn();
  };
  // What was not taken for one submission may be for the next.
  for (let i = 0; i < 4; i++) submit();
  assertEquals(allowed.splice(0), [4, 4, 6, 10]);
  await undefined;
  // While other work has its turn, nothing is taken, and nothing saved up.
  for (let i = 0; i < 100; i++) submit();
  assertEquals(allowed, []);
  for (const callBack of waiting) callBack();
  submit();
  assertEquals(allowed, [4]);
});

Deno.test("LongTurn.resolved() waits from when results were taken within a turn until other work has had its turn", async () => {
  const clock = new SimulatedClock();
  const waiting: (() => void)[] = [];
  clock.soon = (callback) => void waiting.push(callback);
  const turn = new LongTurn(clock, { takeReturned: () => 0, callBack() {}, waiting: () => 0 });
  const resolved: string[] = [];
  const submit = (name: string): Promise<unknown> => turn.resolved(name).then((name) => resolved.push(name));
  await submit("before");
  turn.goesOn();
  await undefined;
  const during = submit("during");
  await Promise.resolve().then(() => {});
  assertEquals(resolved, ["before"]);
  for (const callBack of waiting) callBack();
  await during;
  await submit("after");
  assertEquals(resolved, ["before", "during", "after"]);
});

const smallCall = { callArgs: [], task: { isSmall: true } } as unknown as Ticket;
const largeCall = { callArgs: [], task: {} } as unknown as Ticket;
const notCall = { task: { isSmall: true } } as unknown as Ticket;

/** A gathering, with what was deferred to the end of the turn. */
function gathering(send = () => {}): { calls: Gathering; deferred: (() => void)[]; defer: Defer } {
  const deferred: (() => void)[] = [];
  return { calls: new Gathering(send), deferred, defer: (callback) => deferred.push(callback) };
}

Deno.test("Gathering keeps small calls up to as many as are sent together, and again after those", () => {
  const { calls, deferred, defer } = gathering();
  const keep = () => calls.keeps(smallCall, false);
  assertEquals([keep(), keep()], [false, false]);
  calls.begin(3, defer);
  assertEquals([keep(), keep(), keep()], [true, true, false]);
  calls.clear();
  // Still the same turn.
  calls.begin(2, defer);
  assertEquals([keep(), keep()], [true, false]);
  assertEquals(deferred.length, 1);
});

Deno.test("Gathering keeps nothing where only one is sent at a time", () => {
  const { calls, deferred, defer } = gathering();
  calls.begin(1, defer);
  assertEquals([calls.keeps(smallCall, false), deferred.length], [false, 0]);
  calls.begin(2, defer);
  assertEquals([calls.keeps(smallCall, false), deferred.length], [true, 1]);
});

Deno.test("Gathering keeps no other jobs than small calls, unless no worker has room", () => {
  const { calls, defer } = gathering();
  calls.begin(64, defer);
  assertEquals([largeCall, notCall].map((ticket) => calls.keeps(ticket, false)), [false, false]);
  assertEquals([largeCall, notCall].map((ticket) => calls.keeps(ticket, true)), [true, true]);
});

Deno.test("Gathering sends at the end of the turn what it has kept, and keeps nothing more until it begins again", () => {
  let sent = 0;
  const { calls, deferred, defer } = gathering(() => sent++);
  calls.begin(3, defer);
  calls.keeps(smallCall, false);
  calls.keeps(smallCall, false);
  deferred[0]!();
  assertEquals(sent, 1);
  assertEquals(calls.keeps(smallCall, false), false);
  calls.begin(3, defer);
  assertEquals([calls.keeps(smallCall, false), deferred.length], [true, 2]);
});
