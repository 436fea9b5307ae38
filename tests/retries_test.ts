/**
 * When a job is run again, and what its error says then.
 *
 * @module
 */

import { assertEquals, assertInstanceOf, assertRejects, assertStrictEquals } from "@std/assert";
import { Job, JobTimeoutError, MemoryLimitError, ProcessPool, WorkerDiedError } from "@procpool/process-pool";
import { within } from "./fixtures.ts";
import { sharedWords, thrownBy, turn } from "./helpers.ts";

const BACKENDS = ["worker", "killable"] as const;

for (const backend of BACKENDS) {
  Deno.test(`Job.retries runs a job again whose worker died, and the last error lists the earlier ones (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    const runs = sharedWords(1);
    const func = (runs: Int32Array) => Deno.exit(10 + Atomics.add(runs, 0, 1));
    const future = await pool.submit(new Job({ func, args: [runs], retries: 2 }));
    const error = await within(future.exception());
    assertInstanceOf(error, WorkerDiedError);
    assertEquals([error.attempts, error.exitCode, runs[0]], [3, 12, 3]);
    assertInstanceOf(error.cause, AggregateError);
    assertEquals(error.cause.errors.map(({ exitCode, attempts }) => [exitCode, attempts]), [[10, 1], [11, 2]]);
    assertEquals(pool.stats().failed, 1);
  });

  Deno.test(`Job.retries lets a job finish in a later run, under the same future (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend, retries: 2 });
    const runs = sharedWords(1);
    const done: unknown[] = [];
    const func = (runs: Int32Array) => Atomics.add(runs, 0, 1) < 2 ? Deno.exit(3) : "third time";
    const future = await pool.submit(new Job({ func, args: [runs], onDone: ({ state }) => done.push(state) }));
    assertEquals(await within(future.result()), "third time");
    assertEquals([done, runs[0], pool.stats().finished, pool.stats().failed], [["finished"], 3, 1, 0]);
  });

  Deno.test(`Job.retries does not run a job again that threw, unless 'retryIf' says so (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend, retries: 5 });
    const runs = sharedWords(1);
    const func = (runs: Int32Array) => {
      throw new RangeError(`run ${Atomics.add(runs, 0, 1) + 1}`);
    };
    await assertRejects(() => within(pool.run(func, runs)), RangeError, "run 1");
    const asked: unknown[] = [];
    const retryIf = (error: unknown, attempt: number) => {
      asked.push([(error as Error).message, attempt]);
      return attempt < 3;
    };
    await assertRejects(() => within(pool.run(new Job({ func, args: [runs], retryIf }))), RangeError, "run 4");
    assertEquals(asked, [["run 2", 1], ["run 3", 2], ["run 4", 3]]);
  });

  Deno.test(`Job.retryIf that throws is reported, and the job fails with its own error (${backend})`, async () => {
    const reported: unknown[] = [];
    await using pool = new ProcessPool({ maxWorkers: 1, backend, retries: 5, onError: (error) => reported.push(error) });
    const mistake = new Error("retryIf");
    const retryIf = () => {
      throw mistake;
    };
    const error = await within(pool.run(new Job({ func: () => Deno.exit(3), retryIf })).catch((error) => error));
    assertInstanceOf(error, WorkerDiedError);
    assertEquals([error.attempts, error.cause], [1, undefined]);
    assertEquals(reported.length, 1);
    assertStrictEquals(reported[0], mistake);
    assertEquals(await within(pool.run((x: number) => x, 1)), 1);
  });
}

Deno.test("Job.retryIf that gives a promise counts as false, and is reported, with what the promise rejects with", async () => {
  const reported: unknown[] = [];
  await using pool = new ProcessPool({ maxWorkers: 1, retries: 5, onError: (error) => reported.push((error as Error).message) });
  const retryIf = (() => Promise.reject(new Error("later"))) as unknown as () => boolean;
  const runs = sharedWords(1);
  const func = (runs: Int32Array) => {
    throw new RangeError(`run ${Atomics.add(runs, 0, 1) + 1}`);
  };
  await assertRejects(() => within(pool.run(new Job({ id: "a", func, args: [runs], retryIf }))), RangeError, "run 1");
  await turn();
  assertEquals(reported, [`Cannot wait for 'retryIf' of job "a" as it must be decided at once: current value is a promise`, "later"]);
});

Deno.test("Job.retries does not run a job again that threw another pool's error about a dead worker, and leaves that error unchanged", async () => {
  await using pool = new ProcessPool({ backend: "inline", retries: 5 });
  const thrown = new WorkerDiedError("In another pool", { cause: "unknown" });
  let runs = 0;
  const error = await thrownBy(() =>
    pool.run(() => {
      runs++;
      throw thrown;
    })
  );
  assertStrictEquals(error, thrown);
  assertEquals([runs, thrown.cause], [1, "unknown"]);
});

Deno.test("Job.retries runs a job again that filled its heap, and the last error lists the earlier one", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, memoryLimit: 64, retries: 1 });
  const error = await within(
    pool.run(() => {
      const kept: unknown[] = [];
      for (;;) kept.push({ values: [kept.length, 1, 2, 3] });
    }).catch((error) => error),
  );
  assertInstanceOf(error, MemoryLimitError);
  assertEquals([error.attempts, error.limit], [2, 64]);
  assertInstanceOf(error.cause, AggregateError);
  assertEquals(error.cause.errors.map((error) => error instanceof MemoryLimitError), [true]);
});

Deno.test("Job.timeout is no reason to run a job again, unless 'retryIf' says so", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, backend: "killable", retries: 2 });
  const runs = sharedWords(1);
  const func = (runs: Int32Array) => {
    Atomics.add(runs, 0, 1);
    for (;;);
  };
  const once = await within(pool.run(new Job({ func, args: [runs], timeout: 50 })).catch((error) => error));
  assertInstanceOf(once, JobTimeoutError);
  assertEquals([once.attempts, runs[0]], [1, 1]);
  const retryIf = (error: unknown) => error instanceof JobTimeoutError;
  const thrice = await within(pool.run(new Job({ func, args: [runs], timeout: 50, retryIf })).catch((error) => error));
  assertInstanceOf(thrice, JobTimeoutError);
  assertEquals([thrice.attempts, runs[0]], [3, 4]);
});

Deno.test("Job.retries brings back the innocent neighbours of a job that was stopped", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 3, backend: "killable" });
  const runs = sharedWords(1);
  const func = (runs: Int32Array) => Atomics.add(runs, 0, 1) > 0 ? "second run" : new Promise<string>(() => {});
  const retried = await pool.submit(new Job({ func, args: [runs], retries: 1 }));
  const lost = await pool.submit(() => new Promise(() => {}));
  const culprit = await pool.submit(
    new Job({
      func: () => {
        for (;;);
      },
      timeout: 50,
    }),
  );
  assertInstanceOf(await within(culprit.exception()), JobTimeoutError);
  const error = await within(lost.exception());
  assertInstanceOf(error, WorkerDiedError);
  assertInstanceOf(error.cause, JobTimeoutError);
  assertEquals(error.cause.jobId, culprit.id);
  assertEquals(await within(retried.result()), "second run");
});
