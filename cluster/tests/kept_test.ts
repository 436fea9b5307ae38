import { assert, assertEquals } from "@std/assert";
import { KEEP, type Kept, readKept, whyTrimmed } from "../kept.ts";

/** What a server keeps that has not removed anything for a job that had not ended at this time. */
function nothingRemoved(time: number): { completed: Kept; failed: Kept } {
  return {
    completed: { set: "completed", count: 10, oldest: time - 1, last: time + 1 },
    failed: { set: "failed", count: 0, oldest: NaN, last: 0 },
  };
}

Deno.test("whyTrimmed() says why a record may be gone: all that are kept are younger, and are as many or as old as are kept", () => {
  const now = Date.now();
  const { age, count } = KEEP.completed;
  const long = now - 1000 * age - 1;
  const cases: [what: string, pendingTime: number, completed: Partial<Kept>, why: RegExp | undefined][] = [
    ["an older one is kept", long, {}, undefined],
    ["all are younger, in a queue that has just begun", now, { oldest: now + 1 }, undefined],
    [
      "all are younger, and half as many as there may be",
      now,
      { oldest: now + 1, count: count / 2 },
      /oldest of 5000 completed jobs is younger/,
    ],
    ["all are younger, and those of its time too old", long, { oldest: long + 1 }, /oldest of 10 completed jobs is younger/],
    ["none is kept, and none has ended since it would have been removed", long, { count: 0, last: long }, undefined],
    ["none is kept, and another has ended since", long, { count: 0, last: now }, /those of completed jobs were removed since/],
  ];
  for (const [what, pendingTime, completed, expected] of cases) {
    const kept = nothingRemoved(pendingTime);
    const why = whyTrimmed([{ ...kept.completed, ...completed }, kept.failed], pendingTime);
    assert(expected === undefined ? why === undefined : expected.test(why ?? ""), `${what}: ${why}`);
  }
});

Deno.test("readKept() reads when the oldest and the last ended, and that there is none", () => {
  assertEquals(readKept([2, ["a", "1000"], "60000", 0, [], null, "what follows"]), [
    { set: "completed", count: 2, oldest: 1000, last: 60_000 },
    { set: "failed", count: 0, oldest: NaN, last: 0 },
  ]);
});
