import { assert, assertEquals } from "@std/assert";
import type { Part } from "../batch/active_part.ts";
import type { DonePart } from "../batch/done_parts.ts";
import type { LaneMemory } from "../batch/lane.ts";
import type { Piece, RangeReply, RunnerLimits } from "../batch/range.ts";
import { parseMembers } from "../batch/record_errors.ts";
import { BatchRun } from "../batch/run.ts";
import { WorkerDiedError } from "../errors.ts";
import type { Job } from "../job.ts";
import type { ProcessPool } from "../pool.ts";
import { runner } from "./batch_fixtures.ts";
import { within } from "./fixtures.ts";

type RunArgs = [lane: LaneMemory, piece: Piece, limits: RunnerLimits];

/** What runs ranges of lines in this thread, one after the other. */
function rangeRunner(task: (x: unknown) => unknown): (...args: RunArgs) => Promise<RangeReply> {
  const { run } = runner({ task });
  let last: Promise<unknown> = Promise.resolve();
  return (...args) => {
    const reply = last.then(() => run(...args));
    last = reply;
    return reply;
  };
}

/** A pool without workers, whose jobs end when `run` says so. */
function poolOf(run: (...args: RunArgs) => Promise<RangeReply>): ProcessPool {
  let id = 0;
  return {
    submit: (job: Job<RunArgs, RangeReply>) => {
      const result = run(...job.args as RunArgs);
      return Promise.resolve({ id: id++, result: () => result, cancel: () => true });
    },
    terminate: () => Promise.resolve(),
  } as unknown as ProcessPool;
}

/** Parts of the same number of lines. */
async function* partsOf(count: number, lines: number): AsyncGenerator<Part> {
  const bytes = new TextEncoder().encode("x\n".repeat(lines));
  for (let index = 0; index < count; index++) {
    const [start, end] = [index * bytes.length, (index + 1) * bytes.length];
    yield { source: 0, index, start, end, torn: false, piece: { input: "lines", bytes, offset: start, end, header: undefined } };
  }
}

const MB = 2 ** 20;

const OPTIONS = {
  workers: 2,
  retries: 0,
  timeout: { ms: Infinity },
  memoryLimit: undefined,
  halt: { failed: Infinity, share: 1 },
  limit: Infinity,
  signal: undefined,
};

for (const ordered of [true, false]) {
  const what = ordered ? "an earlier part" : "a slow output";
  Deno.test(`BatchRun holds back also the rest of a part while too many results wait for ${what}`, async () => {
    const [parts, lines] = [6, 40];
    const result = "x".repeat(MB - 1);
    const runRange = rangeRunner(() => result);
    let [running, done, taken, waiting] = [0, 0, 0, 0];
    /** Resolves when nothing else goes on. Nothing here takes a turn of the event loop: so everything that may start has started. */
    const rest = async () => {
      do await new Promise((resolve) => setTimeout(resolve)); while (running > 0);
      waiting = Math.max(waiting, done - taken);
    };
    const pool = poolOf(async (lane, piece, limits) => {
      if (ordered && "bytes" in piece && piece.offset === 0 && taken === 0) await rest();
      running++;
      const reply = await runRange(lane, piece, limits);
      running--;
      return reply;
    });
    let ran = 0;
    const consumer = {
      ran: () => void ran++,
      async take({ state, output }: DonePart) {
        if (!ordered && taken === 0) await rest();
        assertEquals(output.length, state.outputLength);
        taken += state.records;
      },
      save: () => Promise.resolve(),
    };
    const run = new BatchRun({
      pool,
      parts: partsOf(parts, lines),
      consumer,
      options: { ...OPTIONS, ordered },
      onTick() {},
      onRange: ({ records }) => void (done += records),
    });
    assertEquals([await within(run.run()), taken, ran], ["complete", parts * lines, parts]);
    // 32 MB for each worker, and what was running by then: 9 MB in each of the lanes.
    assert(waiting > 0 && waiting <= 2 * 32 + 6 * 9, `${waiting} MB wait`);
  });
}

Deno.test("BatchRun does not leave most workers without work when parts turn out to be long", async () => {
  const [parts, lines] = [6, 40];
  const result = "x".repeat(MB - 1);
  const runRange = rangeRunner(() => result);
  let [done, taken] = [0, 0];
  const others = Promise.withResolvers<void>();
  const pool = poolOf(async (lane, piece, limits) => {
    if ("bytes" in piece && piece.offset === 0) await others.promise;
    return await runRange(lane, piece, limits);
  });
  const run = new BatchRun({
    pool,
    parts: partsOf(parts, lines),
    consumer: { take: ({ state }) => void (taken += state.records), save: () => Promise.resolve() },
    options: { ...OPTIONS, ordered: true, workers: 8 },
    onTick() {},
    onRange({ records }) {
      done += records;
      if (done === (parts - 1) * lines) others.resolve();
    },
  });
  assertEquals([await within(run.run()), taken], ["complete", parts * lines]);
});

Deno.test("BatchRun starts parts again as soon as there is room, though more results wait for a slow output", async () => {
  const [parts, room] = [80, 16];
  const result = "x".repeat(MB - 1);
  const runRange = rangeRunner(() => result);
  let [running, started, done, taken, waiting] = [0, 0, 0, 0, 0];
  let next = Promise.withResolvers<void>();
  const pool = poolOf(async (...args) => {
    running++;
    started++;
    next.resolve();
    const reply = await runRange(...args);
    running--;
    return reply;
  });
  const consumer = {
    async take() {
      // All that may start have started, and are done: nothing else tells that there is room now.
      if (taken === 0) {
        do await new Promise((resolve) => setTimeout(resolve)); while (running > 0);
        waiting = done;
      } else if (done - taken === room && started < parts) await next.promise;
      next = Promise.withResolvers();
      taken++;
    },
    save: () => Promise.resolve(),
  };
  const run = new BatchRun({
    pool,
    parts: partsOf(parts, 1),
    consumer,
    options: { ...OPTIONS, ordered: false },
    onTick() {},
    onRange: ({ records }) => void (done += records),
  });
  assertEquals([await within(run.run()), taken], ["complete", parts]);
  // 32 MB, however many workers there are, and what was running by then: 1 MB in each of the lanes.
  assert(waiting <= 32 + 6, `${waiting} MB wait`);
});

for (const retries of [0, 1]) {
  Deno.test(`BatchRun passes on record by record where each ends its worker, also with 'retries' ${retries}`, async () => {
    const lines = 10;
    const pool = poolOf((...args) => {
      const died = Promise.withResolvers<never>();
      const { run } = runner({
        retries,
        task() {
          died.reject(new WorkerDiedError("Job 1 failed as its worker exited with code 1"));
          return new Promise(() => {});
        },
      });
      return Promise.race([run(...args), died.promise]);
    });
    const taken: [records: number, failed: number, attempts: number[]][] = [];
    const consumer = {
      take: ({ state, errors }: DonePart) =>
        void taken.push([state.records, state.failed, errors.map(({ members }) => parseMembers(members).attempts)]),
      save: () => Promise.resolve(),
    };
    const options = { ...OPTIONS, retries, ordered: true };
    const run = new BatchRun({ pool, parts: partsOf(1, lines), consumer, options, onTick() {} });
    assertEquals(await within(run.run()), "complete");
    assertEquals(taken, Array.from({ length: lines }, () => [1, 1, [retries + 1]]));
  });
}
