import { assert, assertEquals, assertInstanceOf, assertStringIncludes } from "@std/assert";
import { Job, JobTimeoutError, MemoryLimitError, ProcessPool, WorkerDiedError } from "@procpool/process-pool";
import { granted, within } from "./fixtures.ts";
import { meet, Meeting } from "./helpers.ts";

const add = (a: number, b: number) => a + b;

Deno.test("A killable pool with permissions runs, denies, stops and limits its jobs", async () => {
  const errors: unknown[] = [];
  {
    await using pool = new ProcessPool({
      maxWorkers: 2,
      permissions: "none",
      jobTimeout: 30_000,
      memoryLimit: 64,
      onError: (error) => errors.push(error),
    });
    assertEquals(await within(pool.run(add, 1, 2)), 3);
    const denied = await (await pool.submit(() => Deno.readTextFileSync("deno.json"))).exception();
    assertInstanceOf(denied, Deno.errors.NotCapable);
    const spinning = await pool.submit(
      new Job({
        func: () => {
          for (;;);
        },
        timeout: 50,
      }),
    );
    assertInstanceOf(await within(spinning.exception()), JobTimeoutError);
    const filling = await pool.submit(() => {
      for (const all: unknown[] = [];;) all.push([all.length]);
    });
    assertInstanceOf(await within(filling.exception()), MemoryLimitError);
    const exiting = await within((await pool.submit(() => Deno.exit(3))).exception());
    assertInstanceOf(exiting, WorkerDiedError);
    assertEquals(exiting.exitCode, 3);
    assertEquals(await within(pool.run(add, 3, 4)), 7);
  }
  assertEquals(errors, []);
});

Deno.test("A killable pool with permissions hears that a timer has filled the heap, even if the worker is gone before", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, memoryLimit: 64, permissions: "none" });
  const fill = () => {
    const forever = new Promise(() => {});
    setTimeout(() => {
      for (const all: unknown[] = [];;) all.push([all.length]);
    });
    return forever;
  };
  for (let i = 0; i < 8; i++) assertInstanceOf(await within((await pool.submit(fill)).exception()), MemoryLimitError);
});

Deno.test("A killable pool with permissions replaces a worker again and again", async () => {
  const errors: unknown[] = [];
  {
    await using pool = new ProcessPool({ maxWorkers: 1, backend: "killable", permissions: "none", onError: (error) => errors.push(error) });
    for (let i = 0; i < 4; i++) {
      const meeting = new Meeting();
      const future = await pool.submit(meet, meeting.memory);
      await within(meeting.come());
      assert(future.cancel({ force: true }));
      assertEquals(await within(pool.run(add, i, 1)), i + 1);
    }
  }
  assertEquals(errors, []);
});

Deno.test("A killable pool with permissions is refused if its workers could not read their modules", () => {
  const modules = ["file:///tasks/a.ts"];
  for (const permissions of ["none", { read: false }, {}] as const) {
    let error: unknown;
    try {
      new ProcessPool({ backend: "killable", permissions, modules });
    } catch (thrown) {
      error = thrown;
    }
    assertInstanceOf(error, TypeError);
    assertStringIncludes(error.message, `add the permission 'read' for "/tasks/a.ts", and for what that imports`);
  }
});

Deno.test("A killable pool with permissions runs the tasks of modules that it may read (needs --allow-read)", {
  ignore: !granted("read"),
}, async () => {
  const url = import.meta.resolve("./fixtures/curious_task.ts");
  await using pool = new ProcessPool({
    maxWorkers: 1,
    backend: "killable",
    permissions: { read: [new URL("./fixtures", import.meta.url)] },
    modules: [url],
  });
  assertEquals(await within(pool.run({ module: url, name: "add" }, 1, 2)), 3);
  const denied = await (await pool.submit({ module: url, name: "read" }, "deno.json")).exception();
  assertInstanceOf(denied, Deno.errors.NotCapable);
});
