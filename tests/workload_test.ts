import { assertEquals } from "@std/assert";
import { Workload } from "../worker/workload.ts";

/** The workload of a worker whose recent jobs took `pace` ms. */
function open({ pace = Infinity, capacity = 1, hasUnread = false }: { pace?: number; capacity?: number; hasUnread?: boolean }) {
  let now = 0;
  const thread = { pace };
  const workload = new Workload(thread, { capacity, now: () => now, hasUnread: () => hasUnread });
  workload.delivered();
  return {
    workload,
    thread,
    unread(has: boolean): void {
      hasUnread = has;
    },
    pass(ms: number): void {
      now += ms;
    },
    /** Sends jobs; returns how many were sent before each. */
    send(count: number): number[] {
      return Array.from({ length: count }, () => workload.add());
    },
    /** The worker answers jobs, and that is all for now. */
    finish(count: number): void {
      for (let i = 0; i < count; i++) workload.remove(false);
      workload.answered();
      workload.delivered();
    },
  };
}

/** How many jobs are sent until there is no room. */
function fill(workload: Workload): number {
  while (workload.hasRoom) workload.add();
  return workload.load;
}

Deno.test("Workload counts what is sent, held and done; what comes back unsent, or was withdrawn, is done too", () => {
  const { workload, send, finish } = open({ capacity: 2 });
  assertEquals(send(3), [0, 1, 2]);
  assertEquals([workload.load, workload.surplus, workload.done], [3, 1, 0]);
  workload.withdraw();
  assertEquals([workload.load, workload.surplus, workload.done], [3, 0, 0]);
  workload.remove(true);
  finish(1);
  assertEquals([workload.load, workload.surplus, workload.done], [1, -1, 2]);
  assertEquals(send(1), [3]);
});

Deno.test("Workload.hasRoom has two ms of jobs sent, and no more than 1,023 ahead, or what runs at a time if they are not short", () => {
  const roomOf = (pace: number, capacity = 1) => fill(open({ pace, capacity }).workload);
  assertEquals([0.5, 0.25, 0.001].map((pace) => roomOf(pace)), [4, 8, 1024]);
  assertEquals([0.7, 1, 1.9].map((pace) => roomOf(pace)), [3, 2, 2]);
  assertEquals([2, 100, Infinity].map((pace) => roomOf(pace)), [1, 1, 1]);
  assertEquals([roomOf(0.5, 3), roomOf(100, 3)], [6, 3]);
});

Deno.test("Workload.hasRoom follows a change of pace when all that has arrived was told", () => {
  const thread = { pace: Infinity };
  const workload = new Workload(thread, { capacity: 1, now: () => 0, hasUnread: () => false });
  thread.pace = 0.5;
  assertEquals(fill(workload), 1);
  workload.delivered();
  assertEquals(fill(workload), 4);
});

Deno.test("Workload.isFree says whether a job would run at once, even if there is room for more", () => {
  const { workload, send, finish } = open({ pace: 0.5, capacity: 2 });
  send(1);
  assertEquals([workload.isFree, workload.hasRoom], [true, true]);
  send(1);
  assertEquals([workload.isFree, workload.hasRoom], [false, true]);
  finish(1);
  assertEquals([workload.isFree, workload.hasRoom], [true, true]);
});

Deno.test("Workload.appetite is for half a ms of tiny jobs", () => {
  const { workload, send, finish } = open({ pace: 0.001 });
  assertEquals(workload.appetite, 500);
  send(499);
  assertEquals(workload.appetite, 1);
  send(1);
  assertEquals(workload.appetite, undefined);
  finish(100);
  assertEquals(workload.appetite, 100);
});

Deno.test("Workload.appetite ends where 1,023 jobs are ahead, however tiny they are", () => {
  const { workload, send } = open({ pace: 0.0001 });
  assertEquals(workload.appetite, 1024);
  send(1024);
  assertEquals(workload.appetite, 0);
});

Deno.test("Workload.appetite is unknown if jobs are not tiny, or if several run at a time", () => {
  for (const options of [{ pace: 0.005 }, { pace: Infinity }, { pace: 0.001, capacity: 2 }]) {
    assertEquals(open(options).workload.appetite, undefined, JSON.stringify(options));
  }
});

Deno.test("Workload.appetite is unknown once a worker has not answered for a ms, until it does", () => {
  const { workload, send, finish, pass } = open({ pace: 0.001 });
  send(100);
  pass(1);
  assertEquals(workload.appetite, 400);
  pass(0.1);
  // It has just looked at the clock.
  assertEquals(workload.appetite, 400);
  send(1);
  assertEquals(workload.appetite, undefined);
  finish(1);
  assertEquals(workload.appetite, 400);
  // A worker that held nothing had nothing to answer.
  finish(100);
  pass(100);
  send(1);
  assertEquals(workload.appetite, 499);
});

Deno.test("Workload.appetite looks at the clock for ever fewer jobs until the worker answers", () => {
  let looks = 0;
  const now = () => {
    looks++;
    return 0;
  };
  const workload = new Workload({ pace: 0.0001 }, { capacity: 1, now, hasUnread: () => false });
  workload.delivered();
  /** After which of the jobs the clock is read. */
  const looksOf = (jobs: number) =>
    Array.from({ length: jobs }, (_, i) => i + 1).filter(() => {
      workload.add();
      const before = looks;
      workload.appetite;
      return looks > before;
    });
  assertEquals(looksOf(100), [1, 2, 4, 8, 16, 32, 64]);
  workload.answered();
  workload.delivered();
  assertEquals(looksOf(10), [1, 2, 4, 8]);
});

Deno.test("Workload.isFull lasts until the worker has answered, or holds nothing; others wait for it only if it has more to do", () => {
  const { workload, send, finish } = open({ pace: 0.001 });
  send(2);
  workload.isFull = true;
  assertEquals([workload.hasRoom, workload.appetite], [false, 0]);
  finish(0);
  assertEquals([workload.hasRoom, workload.appetite], [true, 498]);
  workload.isFull = true;
  workload.remove(false);
  assertEquals([workload.hasRoom, workload.appetite], [false, undefined]);
  workload.remove(false);
  assertEquals([workload.hasRoom, workload.appetite], [true, 500]);
});

Deno.test("Workload.share is as many jobs as take 50 µs, if those are several, and as there is room for", () => {
  const { workload, send } = open({ pace: 0.01 });
  assertEquals(workload.share, 5);
  send(197);
  assertEquals(workload.share, 3);
  send(2);
  assertEquals(workload.share, 0);
  assertEquals(open({ pace: 0.03 }).workload.share, 0);
  assertEquals(open({ pace: 0.01, capacity: 2 }).workload.share, 0);
});

Deno.test("Workload.isLate reckons from the latest answer, with the jobs ahead at their pace, and only if none came since the last call", () => {
  const { workload, send, finish, pass } = open({ pace: 0.25 });
  send(1);
  pass(1000);
  assertEquals(workload.isLate(1), false, "nothing is ahead");
  finish(1);
  send(6);
  assertEquals([workload.isLate(1), workload.isLate(1)], [false, true]);
  finish(1);
  assertEquals([workload.isLate(1), workload.isLate(1), workload.isLate(1.25)], [false, true, false]);
  pass(0.25);
  assertEquals(workload.isLate(1.25), true);
  for (let i = 0; i < 3; i++) workload.withdraw();
  assertEquals([workload.isLate(0.5), workload.isLate(0.75)], [true, false], "one is ahead");
  // It is no longer ahead.
  workload.withdraw();
  assertEquals(workload.isLate(0), false);
});

Deno.test("Workload.isLate is for a worker that goes on answering, too, if its jobs turn out to be more than 4 ms of work", () => {
  const { workload, thread, send, finish } = open({ pace: 0.01 });
  send(103);
  finish(1);
  thread.pace = 0.039;
  assertEquals(workload.isLate(0), false);
  finish(1);
  thread.pace = 0.041;
  assertEquals(workload.isLate(0), true);
  send(1);
  finish(1);
  assertEquals(workload.isLate(5), false);
});

Deno.test("Workload.isLate is for a worker whose answer is on its way only if there are more than 4 ms of work ahead", () => {
  const { workload, thread, send, finish, unread } = open({ pace: 0.01 });
  send(102);
  finish(1);
  workload.isLate(0);
  unread(true);
  thread.pace = 0.039;
  assertEquals(workload.isLate(0), false);
  thread.pace = 0.041;
  assertEquals(workload.isLate(0), true);
  thread.pace = 0.039;
  unread(false);
  assertEquals(workload.isLate(0), true);
});

Deno.test("Workload.hasKeptWaiting is for a worker that was sent jobs ahead of time and has not answered since, however often it is asked", () => {
  const { workload, send, finish, pass, unread } = open({ pace: 0.25 });
  send(1);
  pass(20);
  assertEquals(workload.hasKeptWaiting(20), false, "nothing is ahead");
  send(1);
  assertEquals([workload.hasKeptWaiting(20), workload.hasKeptWaiting(21)], [true, false]);
  finish(1);
  send(1);
  pass(19);
  assertEquals([workload.hasKeptWaiting(20), workload.isLate(0), workload.isLate(0)], [false, false, true]);
  pass(1);
  assertEquals(workload.hasKeptWaiting(20), true);
  unread(true);
  assertEquals(workload.hasKeptWaiting(20), false);
});

Deno.test("Workload.hasKeptWaiting is for a worker that goes on answering, too, if it has as much to do", () => {
  const { workload, thread, send, finish, unread } = open({ pace: 0.01 });
  send(102);
  finish(1);
  thread.pace = 0.19;
  unread(true);
  assertEquals(workload.hasKeptWaiting(20), false);
  thread.pace = 0.21;
  assertEquals(workload.hasKeptWaiting(20), true);
  for (let i = 0; i < 100; i++) workload.withdraw();
  assertEquals(workload.hasKeptWaiting(0), false, "nothing is ahead");
});

Deno.test("Workload.heldUp has nothing sent ahead until the worker answers", () => {
  const { workload, send, finish } = open({ pace: 0.001 });
  send(2);
  workload.heldUp = true;
  assertEquals([workload.hasRoom, workload.appetite, workload.jobsInMs], [false, undefined, 0]);
  workload.remove(false);
  workload.delivered();
  assertEquals([workload.hasRoom, workload.appetite, workload.jobsInMs], [false, undefined, 0], "that was no answer");
  finish(0);
  assertEquals([workload.hasRoom, workload.appetite, workload.jobsInMs], [true, 499, 1000]);
});

Deno.test("Workload.answeredAt is when the worker answered, or was sent the first job, not when it told of something else", () => {
  const { workload, send, finish, pass } = open({});
  pass(1);
  send(1);
  pass(1);
  send(1);
  workload.delivered();
  assertEquals(workload.answeredAt, 1);
  finish(1);
  assertEquals(workload.answeredAt, 2);
  pass(1);
  workload.delivered();
  assertEquals(workload.answeredAt, 2);
});

Deno.test("Workload.jobsInMs is 0 if jobs are not short, if several run at a time, and while one takes 4 ms", () => {
  const { workload, send, finish, pass } = open({ pace: 0.25 });
  pass(100);
  assertEquals(workload.jobsInMs, 4);
  send(1);
  pass(4);
  assertEquals(workload.jobsInMs, 4);
  pass(0.1);
  assertEquals(workload.jobsInMs, 0);
  finish(1);
  assertEquals(workload.jobsInMs, 4);
  assertEquals(open({ pace: 1 }).workload.jobsInMs, 0);
  assertEquals(open({ pace: 0.25, capacity: 2 }).workload.jobsInMs, 0);
});

Deno.test("Workload.speedUp is for the first 32 jobs", () => {
  const { workload, send, finish } = open({});
  send(33);
  finish(31);
  assertEquals(workload.speedUp, 10);
  finish(1);
  assertEquals(workload.speedUp, 1);
});

Deno.test("Workload takes an answer that is on its way for one: its worker is neither overdue nor silent", () => {
  for (const hasUnread of [false, true]) {
    const { workload, send, pass } = open({ pace: 0.001, hasUnread });
    send(1);
    pass(10);
    assertEquals([workload.appetite, workload.jobsInMs], hasUnread ? [499, 1000] : [undefined, 0]);
  }
});

Deno.test("Workload.isSoonDone while what the worker holds takes less than 0.05 ms, and it has not been silent for a millisecond", () => {
  const { workload, send, pass, finish } = open({ pace: 0.02 });
  const states = [workload.isSoonDone];
  for (let sent = 0; sent < 3; sent++) {
    send(1);
    states.push(workload.isSoonDone);
  }
  assertEquals(states, [false, true, true, false]);
  finish(2);
  assertEquals(workload.isSoonDone, true);
  pass(1.1);
  assertEquals(workload.isSoonDone, false);
  const busy = open({ pace: 0.02 });
  busy.send(1);
  busy.workload.heldUp = true;
  assertEquals(busy.workload.isSoonDone, false);
  const shared = open({ pace: 0.02, capacity: 2 });
  shared.send(1);
  assertEquals(shared.workload.isSoonDone, false);
});
