import { assertEquals } from "@std/assert";
import type { Ticket } from "../pool/ticket.ts";
import { Holding } from "../worker/holding.ts";
import { CLAIM_WORDS, FINISHED, NO_MORE, SENT, STARTED, WITHDRAWN } from "../worker/protocol.ts";

const TICKET = {} as Ticket;

/** The second of two places, and its words. */
function open() {
  const all = new Int32Array(new SharedArrayBuffer(2 * CLAIM_WORDS * Int32Array.BYTES_PER_ELEMENT));
  return { holding: new Holding(all, 1), claim: all.subarray(CLAIM_WORDS), neighbour: all.subarray(0, CLAIM_WORDS) };
}

function statesOf({ isRunning, isFinished, hasStarted, isWithdrawn }: Holding): boolean[] {
  return [isRunning, isFinished, hasStarted, isWithdrawn];
}

Deno.test("Holding reads from the claims how far the job is that it holds, if it holds one", () => {
  const { holding, claim, neighbour } = open();
  holding.hold(7, TICKET);
  assertEquals([holding.run, holding.ticket, claim[0], claim[1]], [7, TICKET, SENT, 0]);
  assertEquals(statesOf(holding), [false, false, false, false]);
  claim[0] = STARTED;
  assertEquals(statesOf(holding), [true, false, true, false]);
  claim[0] = FINISHED;
  assertEquals(statesOf(holding), [false, true, true, false]);
  for (const state of [STARTED, FINISHED, WITHDRAWN]) {
    holding.clear();
    claim[0] = state;
    assertEquals(statesOf(holding), [false, false, false, false]);
  }
  assertEquals([...neighbour], [0, 0, 0]);
});

Deno.test("Holding.takeBack() succeeds once, and only before the worker has started the job", () => {
  const { holding, claim } = open();
  holding.hold(7, TICKET);
  assertEquals([holding.takeBack(), holding.takeBack()], [true, false]);
  assertEquals([claim[0], holding.isWithdrawn], [WITHDRAWN, true]);
  for (const state of [STARTED, FINISHED]) {
    holding.hold(8, TICKET);
    claim[0] = state;
    assertEquals([holding.takeBack(), claim[0]], [false, state]);
  }
});

Deno.test("Holding.halt() keeps further items from starting only while the worker runs this one, Holding.curtail() at any time", () => {
  const { holding, claim } = open();
  holding.hold(7, TICKET);
  holding.beginAt(3);
  assertEquals(claim[1], 3);
  [claim[0], claim[1], claim[2]] = [STARTED, 5, 1234];
  assertEquals([holding.item, holding.startedAt], [5, 1234]);
  assertEquals([holding.halt(4), claim[1], holding.halt(5), claim[1]], [false, 5, true, NO_MORE]);
  claim[1] = 6;
  assertEquals([holding.curtail(), holding.curtail()], [6, NO_MORE]);
});
