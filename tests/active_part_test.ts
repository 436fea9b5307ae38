import { assertEquals } from "@std/assert";
import { ActivePart } from "../batch/active_part.ts";
import { Lane, LAYOUT } from "../batch/lane.ts";
import { WorkerDiedError } from "../errors.ts";

const DIED = new WorkerDiedError("Cannot finish job 1 as its worker called Deno.exit(3)");

function activePart(): ActivePart {
  const piece = { input: "lines", bytes: new Uint8Array(), offset: 0, end: 100, header: undefined };
  return new ActivePart({ source: 0, index: 7, start: 0, end: 100, torn: false, piece }, new Lane());
}

/** Gives a part to a worker; returns how often that is killed. */
function begin(part: ActivePart): { kills: number } {
  const worker = { kills: 0 };
  part.job = { id: 1, before: part.lane.state(), kill: () => void worker.kills++ };
  return worker;
}

/** Notes in the lane what its worker does. */
function work({ lane }: ActivePart, { phase, attempt = 0, current = 0 }: { phase: number; attempt?: number; current?: number }): void {
  new Int32Array(lane.memory.control, 0, LAYOUT.words).set([phase, attempt, current], LAYOUT.phase);
}

/** Commits that many records of ten bytes. */
function commit({ lane }: ActivePart, records: number): void {
  const sequence = lane.sequence + 1;
  const { position } = lane.state();
  const bank = new Float64Array(lane.memory.control, (LAYOUT.banks + (sequence & 1) * LAYOUT.bankWords) * 8, LAYOUT.bankWords);
  bank[LAYOUT.records] = lane.state().records + records;
  bank[LAYOUT.position] = position + 10 * records;
  new Int32Array(lane.memory.control)[LAYOUT.sequence] = sequence;
}

const { running, reading } = LAYOUT;

Deno.test("ActivePart stops its worker once an attempt at a record runs for longer than the limit, whatever else takes time", () => {
  const part = activePart();
  const limit = 100;
  // Whole numbers, so that sums are exact.
  const now = Math.ceil(performance.now());
  work(part, { phase: running, attempt: 1 });
  part.watch(now, { stoodStill: 0, limit });
  // There is nothing to be killed yet.
  part.watch(now + 200, { stoodStill: 0, limit });
  assertEquals(part.isHalted, false);
  const worker = begin(part);
  work(part, { phase: reading, attempt: 1 });
  part.watch(now + 250, { stoodStill: 0, limit });
  // Each time, something has just been done.
  work(part, { phase: running, attempt: 1, current: 1 });
  part.watch(now + 400, { stoodStill: 0, limit });
  work(part, { phase: running, attempt: 2, current: 1 });
  part.watch(now + 550, { stoodStill: 0, limit });
  commit(part, 1);
  part.watch(now + 700, { stoodStill: 0, limit });
  part.watch(now + 800, { stoodStill: 0, limit });
  // For a second, the whole program stood still.
  part.watch(now + 1800, { stoodStill: 1000, limit });
  assertEquals([part.isHalted, worker.kills], [false, 0]);
  part.watch(now + 1801, { stoodStill: 0, limit });
  part.watch(now + 9999, { stoodStill: 0, limit });
  assertEquals([part.isHalted, worker.kills, part.lane.sequence], [true, 1, LAYOUT.halted]);
  // Meanwhile that goes on with the next record.
  work(part, { phase: running, attempt: 1, current: 2 });
  const run = part.workerDied(new Error("cancelled"), 1);
  assertEquals({ ...run, busy: 0 }, { job: 1, index: 7, source: 0, start: 0, end: 10, records: 1, failed: 0, busy: 0, begun: true });
  assertEquals([part.isHalted, part.lane.sequence, part.lane.state().records, part.job, part.idleDeaths], [false, 0, 1, undefined, 0]);
  const { before, verdict } = part.suspect;
  assertEquals([before, verdict?.name, verdict?.message], [1, "JobTimeoutError", "The record ran for more than 100 ms"]);
});

Deno.test("ActivePart blames the record that ran, runs it again as often as it may, and then says why it failed", () => {
  const part = activePart();
  const die = (at: Parameters<typeof work>[1]) => {
    begin(part);
    work(part, at);
    part.workerDied(DIED, 1);
    const { verdict, ...suspect } = part.suspect;
    return { ...suspect, verdict: verdict && `${verdict.name} ${verdict.message} ${verdict.attempts}` };
  };
  const undecided = { attempt: 1, brief: false, verdict: undefined };
  // It has parsed many records together: any of them may be to blame.
  assertEquals(die({ phase: running, attempt: 0 }), { ...undecided, before: 0 });
  assertEquals(die({ phase: running, attempt: 1 }), { ...undecided, before: 0, attempt: 2 });
  const verdict = "WorkerDiedError The worker called Deno.exit(3) 2";
  assertEquals(die({ phase: running, attempt: 2 }), { before: 0, attempt: 1, brief: false, verdict });
  assertEquals(part.idleDeaths, 0);
  // To write that down may take longer.
  const worker = begin(part);
  work(part, { phase: running });
  const now = performance.now();
  for (const since of [0, 1000]) part.watch(now + since, { stoodStill: 0, limit: 100 });
  assertEquals([part.isHalted, worker.kills], [false, 0]);
  // One has died before it began, and one as it wrote that down.
  assertEquals([die({ phase: 0 }), part.idleDeaths], [{ before: 0, attempt: 1, brief: false, verdict }, 0]);
  assertEquals([die({ phase: running }), part.idleDeaths], [{ before: 0, attempt: 1, brief: true, verdict }, 1]);
  assertEquals([die({ phase: reading }), part.idleDeaths], [{ before: 0, attempt: 1, brief: true, verdict }, 2]);
});

Deno.test("ActivePart no longer suspects a record that is done, and counts deaths anew after one", () => {
  const part = activePart();
  const die = (records: number) => {
    begin(part);
    work(part, { phase: reading });
    commit(part, records);
    part.workerDied(DIED, 0);
    return [part.suspect.before, part.idleDeaths];
  };
  begin(part);
  work(part, { phase: running, attempt: 1, current: 5 });
  part.workerDied(DIED, 0);
  assertEquals([part.suspect.before, part.suspect.verdict?.attempts], [5, 1]);
  assertEquals(die(0), [5, 1]);
  // Three of the five that come before the suspect.
  assertEquals([die(3), part.suspect.verdict?.attempts], [[2, 1], 1]);
  assertEquals(die(0), [2, 2]);
  assertEquals([die(3), part.suspect.verdict], [[0, 1], undefined]);
});
