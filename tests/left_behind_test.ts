import { assertEquals } from "@std/assert";
import type { Ticket } from "../pool/ticket.ts";
import { type LeftBehind, suspectOf } from "../worker/left_behind.ts";
import type { Death } from "../worker/protocol.ts";

const UNREAD: Death = { reason: "died", unread: true };
const FULL: Death = { reason: "died", memoryLimit: 64 };

/** Six jobs, in the order in which they were sent. */
const jobs = Array.from({ length: 6 }, (_, sentAs) => ({ sentAs }) as Ticket);

/** Which job is suspected; jobs are given as numbers. */
function suspect(
  death: Death,
  { started = [], unstarted = [], posted, withdrawn = Infinity }: {
    started?: number[];
    unstarted?: number[];
    posted: number[];
    withdrawn?: number;
  },
): number | string | undefined {
  const left: LeftBehind = { started: started.map((i) => ({ ticket: jobs[i]!, nextItem: 0 })), unstarted: unstarted.map((i) => jobs[i]!) };
  const found = suspectOf(death, left, { posted: new Set(posted.map((i) => jobs[i]!)), withdrawnAs: withdrawn });
  return typeof found === "object" ? found.sentAs : found;
}

Deno.test("suspectOf() finds the first job that was sent by a message and not started, if reading a message ended the worker", () => {
  assertEquals(suspect(UNREAD, { started: [0], unstarted: [1, 2, 3], posted: [0, 2, 3] }), 2);
  assertEquals(suspect({ reason: "died" }, { started: [0], unstarted: [1, 2, 3], posted: [0, 2, 3] }), undefined);
  assertEquals(suspect(UNREAD, { started: [0], unstarted: [1], posted: [0] }), undefined, "no message was left to be read");
});

Deno.test("suspectOf() blames a full heap on reading only if no running job was sent before", () => {
  assertEquals(suspect(FULL, { unstarted: [1, 2], posted: [1, 2] }), 1);
  assertEquals(suspect(FULL, { started: [3], unstarted: [2], posted: [2] }), 2);
  assertEquals(suspect(FULL, { started: [0, 3], unstarted: [2], posted: [2] }), undefined);
});

Deno.test("suspectOf() says so if the first message that was not read is that of a job that was taken back", () => {
  assertEquals(suspect(UNREAD, { unstarted: [2], posted: [2], withdrawn: 1 }), "withdrawn");
  assertEquals(suspect(UNREAD, { unstarted: [2], posted: [2], withdrawn: 3 }), 2);
  assertEquals(suspect(UNREAD, { posted: [], withdrawn: 1 }), "withdrawn");
  assertEquals(suspect(FULL, { started: [0], posted: [], withdrawn: 1 }), undefined);
});
