import { assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import { type ClusterPool, type ClusterTask, defineTasks, type Future, Job, type TaskRef } from "../mod.ts";
import { TaskFinder } from "../tasks.ts";
import { add, double } from "./tasks.ts";

const module = import.meta.resolve("./tasks.ts");

Deno.test("defineTasks() takes names of exports in any script, and refuses names that an export cannot have, and invalid addresses", () => {
  const names = ["__proto__", "a b", "file:///etc/passwd", "../x", "", "1a", "a".repeat(101)];
  for (const name of names) {
    const definitions = Object.defineProperty({}, name, { value: module, enumerable: true });
    assertThrows(() => defineTasks(definitions), TypeError, "Cannot define tasks as a task must have the name of an export");
    assertThrows(() => defineTasks({ a: { module, name } }), TypeError, "Cannot define tasks as a task must have the name of an export");
  }
  assertEquals(Object.keys(defineTasks({ größe: module, 合計: module, $a_1: module })), ["größe", "合計", "$a_1"]);
  assertThrows(() => defineTasks({ a: "./tasks.ts" }), TypeError, "'a' must have the address of a module");
  assertThrows(() => defineTasks({ a: 7 as unknown as string }), TypeError, "'a' must be an object: current value is 7");
  assertThrows(() => defineTasks({ a: { module, extra: 1 } as unknown as string }), TypeError, "there is no option 'extra'");
  assertThrows(() => defineTasks({ a: { module, validate: 1 } as unknown as string }), TypeError, "'a.validate' must be a function");
});

Deno.test("TaskFinder finds tasks by definition, reference and function, and no others", async () => {
  const tasks = defineTasks({ plus: { module, name: "add" }, twice: { module: new URL(module), name: "double" } });
  const finder = new TaskFinder(tasks);
  assertEquals(finder.known(tasks.plus)?.task, "plus");
  assertEquals(finder.known({ module, name: "double" })?.task, "twice");
  assertEquals(finder.known(add), undefined);
  assertEquals((await finder.find(add)).task, "plus");
  assertEquals(finder.known(double)?.task, "twice");
  await assertRejects(() => finder.find((x: number) => x), TypeError, "as a cluster runs named tasks only");
  assertThrows(() => finder.known({ module, name: "spin" }), TypeError, 'its tasks are "plus", "twice"');
});

Deno.test("TaskFinder finds a function although the module of another task cannot be loaded here, and says so of one that it does not find", async () => {
  const finder = new TaskFinder(defineTasks({ add: module, other: import.meta.resolve("./none.ts") }));
  assertEquals((await finder.find(add)).task, "add");
  const error = await assertRejects(
    () => finder.find((x: number) => x),
    TypeError,
    'its tasks are "add", "other", and not all of their modules can be loaded here: ',
  );
  assertInstanceOf(error.cause, TypeError);
});

Deno.test("TaskFinder tells two tasks of one export apart, and refuses a function that may be either", async () => {
  const tasks = defineTasks({ checked: { module, name: "double", validate: () => {} }, unchecked: { module, name: "double" } });
  const finder = new TaskFinder(tasks);
  for (const task of Object.values(tasks)) assertEquals(finder.known(task), task);
  const refusal = 'Cannot submit a function that belongs to the tasks "checked" and "unchecked"';
  assertThrows(() => finder.known({ module, name: "double" }), TypeError, refusal);
  await assertRejects(() => finder.find(double), TypeError, refusal);
});

Deno.test("defineTasks() refuses a 'validate' that is asynchronous once it is called", () => {
  const { add } = defineTasks({ add: { module, validate: async () => await Promise.reject(new Error("late")) } });
  assertThrows(() => add.validate!([1]), TypeError, "its 'validate' must not be asynchronous");
});

Deno.test("defineTasks() gives tasks the types of their functions", () => {
  const tasks = defineTasks<Pick<typeof import("./tasks.ts"), "add">>({ add: module });
  // Never called, only compiled.
  function types(pool: ClusterPool): void {
    const sum: Promise<number> = pool.run(tasks.add, 1, 2);
    const sums: AsyncIterable<number> = pool.map(double, [1, 2]);
    // @ts-expect-error -- a text is no number
    pool.run(tasks.add, "1", 2);
    // @ts-expect-error -- there is no such task
    pool.run(tasks.subtract, 1, 2);
    // @ts-expect-error -- an argument is missing
    pool.submit(tasks.add, 1);
    const jobs = [new Job({ func: tasks.add, args: [1, 2] }), new Job({ func: () => "text" })];
    const results: Promise<number | string>[] = jobs.map((job) => pool.run(job));
    const futures: Promise<Future<number | string>>[] = jobs.map((job) => pool.submit(job));
    const any: ClusterTask = tasks.add;
    void [sum, sums, results, futures, any];
  }
  assertEquals([typeof types, Object.keys(tasks)], ["function", ["add"]]);
});

Deno.test("ClusterPool keeps the types of a generic function", () => {
  function first<T>(items: readonly T[]): T | undefined {
    return items[0];
  }
  // Never called, only compiled.
  async function types(pool: ClusterPool, either: typeof double | TaskRef<[number], number>): Promise<void> {
    const result: Promise<number | undefined> = pool.run(first, [1, 2]);
    const future: Promise<Future<number | undefined>> = pool.submit(first, [1, 2]);
    const results: AsyncIterable<string | undefined> = pool.map(first, [["a"], ["b"]]);
    const outcomes: AsyncIterable<PromiseSettledResult<number | undefined>> = pool.map(first, [[1]], { settled: true });
    const doubled: number[] = [await pool.run(either, 1), ...await Array.fromAsync(pool.map(either, [1]))];
    void [result, future, results, outcomes, doubled];
  }
  assertEquals(typeof types, "function");
});
