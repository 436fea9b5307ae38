/**
 * When the time limit of a job counts, and what it costs others.
 *
 * @module
 */

import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { type Future, Job, JobTimeoutError, ProcessPool } from "@procpool/process-pool";
import { internalsOf } from "../pool.ts";
import { within } from "./fixtures.ts";
import { meet, Meeting, share, sharedWords, turn } from "./helpers.ts";

const BACKENDS = ["worker", "killable"] as const;

Deno.test("Job.timeout counts from the real start, not while a neighbour in the same worker blocks it", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 2, backend: "killable" });
  const meeting = new Meeting();
  const blocking = await pool.submit(meet, meeting.memory);
  await within(meeting.come());
  const waiting = await pool.submit(new Job({ func: (x: number) => x, args: [1], timeout: 500 }));
  assertEquals(pool.stats().running, 2);
  // More time than it has passes until another job has used up as much.
  await using other = new ProcessPool({ maxWorkers: 1, jobTimeout: 500 });
  const late = await within(
    other.run(() => {
      for (;;);
    }).catch((error) => error),
  );
  assertInstanceOf(late, JobTimeoutError);
  assertEquals(waiting.state, "queued");
  meeting.letGo();
  assertEquals(await within(blocking.result()), "met");
  assertEquals(await within(waiting.result()), 1);
});

Deno.test("Job.timeout does not count the queue", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobTimeout: 300 });
  const loop = () => {
    for (;;);
  };
  const loops = [await pool.submit(loop), await pool.submit(loop), await pool.submit(loop)];
  const last = await pool.submit((x: number) => x, 1);
  for (const future of loops) assertInstanceOf(await within(future.exception()), JobTimeoutError);
  assertEquals(await within(last.result()), 1);
});

for (const backend of BACKENDS) {
  Deno.test(`Job.timeout ends a job beside others that return faster than the caller takes up what they return (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 20, backend });
    const endless = await pool.submit(new Job({ func: () => new Promise(() => {}), timeout: 50 }));
    // A pattern goes by the port.
    const answer = async (x: number) => {
      await new Promise((resolve) => setTimeout(resolve));
      return [/x/, x];
    };
    const most = 3000;
    let answers = 0;
    const ask = async (): Promise<void> => {
      while (!endless.done() && answers < most) {
        await pool.run(answer, answers++).catch(() => {});
        const end = performance.now() + 3;
        while (performance.now() < end);
      }
    };
    await Promise.all(Array.from({ length: 100 }, ask));
    assertInstanceOf(await within(endless.exception()), JobTimeoutError);
    assert(answers < most);
  });

  Deno.test(`Job.timeout does not fail a job that has finished while the caller was busy (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    await within(pool.warmUp());
    const done = sharedWords(1);
    const func = (done: Int32Array) => void Atomics.store(done, 0, 1);
    const future = await pool.submit(new Job({ func, args: [done], timeout: 50 }));
    const end = performance.now() + 100;
    while (Atomics.load(done, 0) === 0 || performance.now() < end);
    await within(future.result());
  });
}

for (const backend of BACKENDS) {
  Deno.test(`Jobs of one worker that have run for too long at once all fail for that (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1, jobsPerWorker: 4 });
    const forever = () => new Promise<never>(() => {});
    const futures: Future<unknown>[] = [];
    for (const timeout of [50, 60, 60_000, 70]) futures.push(await pool.submit(new Job({ func: forever, timeout })));
    while (!futures.every((future) => future.running())) await turn();
    // Their limits have passed before anybody looks.
    for (const end = performance.now() + 100; performance.now() < end;);
    const errors = await within(Promise.all(futures.map((future) => future.exception())));
    assertEquals(errors.map((error) => error instanceof JobTimeoutError ? error.limit : (error as Error).name), [
      50,
      60,
      "WorkerDiedError",
      70,
    ]);
  });
}

for (const backend of BACKENDS) {
  Deno.test(`A job that ends its worker is not timed out, even if its caller hears of that later (${backend})`, async () => {
    await using pool = new ProcessPool({ backend, maxWorkers: 1, initializer: share, initArgs: [sharedWords(1)] });
    const task = async (how: string) => {
      const { counts } = globalThis as unknown as { counts: Int32Array };
      if (Atomics.add(counts, 0, 1) % 2 === 1) return how;
      if (how === "exit") Deno.exit(3);
      if (how === "close") self.close();
      if (how === "error") {
        setTimeout(() => {
          throw new Error("stray");
        });
      }
      if (how === "rejection") Promise.reject(new Error("stray"));
      return await new Promise<never>(() => {});
    };
    for (const how of ["exit", "close", "error", "rejection", "exit", "close", "error", "rejection"]) {
      await within(pool.warmUp());
      const future = await pool.submit(new Job({ func: task, args: [how], timeout: 200, retries: 1 }));
      const [slot] = internalsOf(pool).slots;
      // The worker ends, and the limit passes, before its last message arrives.
      for (const end = performance.now() + 10_000; !slot!.hasUnread && performance.now() < end;);
      for (const end = performance.now() + 250; performance.now() < end;);
      assertEquals(await within(future.result()), how);
    }
  });
}

Deno.test("A job's limit is kept beside a map whose items never stop arriving, of which some may be lost", async () => {
  await using pool = new ProcessPool({ backend: "killable", maxWorkers: 1, jobsPerWorker: 2 });
  const forever = await pool.submit(new Job({ func: () => new Promise<never>(() => {}), timeout: 50 }));
  const items = 20_000;
  let ended = 0;
  const task = async (x: number) => {
    await undefined;
    // It goes by the port, and takes this thread longer than its worker.
    const own = globalThis as { large?: unknown[] };
    return own.large ??= [/x/, ...Array.from({ length: 300 }, (_, i) => ({ i, x, name: `name ${i}` }))];
  };
  const outcomes = pool.map(task, Array(items).keys(), { chunkSize: items, buffer: items, settled: true, timeout: 60_000 });
  const taken = (async () => {
    for await (const _ of outcomes) ended++;
  })();
  assertInstanceOf(await within(forever.exception()), JobTimeoutError);
  assert(ended < items, String(ended));
  await within(pool.terminate());
  await within(taken);
  assertEquals(ended, items);
});
