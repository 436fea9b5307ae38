// What does not compile here is a mistake in the declarations; only the few lines of the last test are executed.

import { assertEquals } from "@std/assert";
import {
  asCompleted,
  type Future,
  Job,
  type JobOptions,
  type JobOptionsWithKwargs,
  type MapResults,
  move,
  type ObservedJob,
  type PoolObserver,
  ProcessPool,
  type ProcessPoolOptions,
  type ResultOptions,
  type ShutdownOptions,
  type Task,
  type TaskModule,
  type TaskRef,
  wait,
} from "@procpool/process-pool";

/** Whether two types are the same, also with regard to `any` and `unknown`. */
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;

/** Compiles only if the type of the value is exactly this one. */
function hasType<Expected>() {
  return <Actual>(_value: Actual, ..._same: Equal<Actual, Expected> extends true ? [] : ["is of type", Actual]): void => {};
}

declare const pool: ProcessPool;

function factorize(n: number): number[] {
  return [n];
}

async function fetchLength(url: string, signal?: boolean): Promise<number> {
  return await Promise.resolve(url.length + Number(signal));
}

function cached(n: number): number | Promise<number> {
  return n > 0 ? n : Promise.resolve(n);
}

function nothing(): void {}

function optional(n?: number, unit = "m"): string {
  return `${n}${unit}`;
}

function rest(first: string, ...others: number[]): number {
  return others.length + first.length;
}

function never(): never {
  throw new Error();
}

// deno-lint-ignore no-explicit-any -- what untyped code is like
function untyped(value: any): any {
  return value;
}

function greet(greeting: string, { name, times }: { name: string; times?: number }): string {
  return `${greeting} ${name} ${times}`;
}

function configure(options: { level: number }): boolean {
  return options.level > 0;
}

function maybeConfigure(n: number, options?: { level: number }): boolean {
  return n > (options?.level ?? 0);
}

function area(width: number, height?: number, options?: { unit: string }): string {
  return `${width} ${height} ${options?.unit}`;
}

function page(size = 10, options: { sort: string } = { sort: "id" }): string {
  return `${size} ${options.sort}`;
}

function gather(...values: (number | { unit: string })[]): number {
  return values.length;
}

function first<T>(items: readonly T[]): T | undefined {
  return items[0];
}

async function sorted<T>(items: T[], key: keyof T): Promise<T[]> {
  return await Promise.resolve(items.toSorted((a, b) => Number(a[key]) - Number(b[key])));
}

/** None of these functions is called. */
const compiled: Record<string, () => unknown> = {
  async "ProcessPool.run() takes the arguments of the task and gives its result"() {
    hasType<number[]>()(await pool.run(factorize, 12));
    hasType<Promise<number[]>>()(pool.run(factorize, 12));
    hasType<Promise<number>>()(pool.run(fetchLength, "a"));
    hasType<Promise<number>>()(pool.run(fetchLength, "a", true));
    hasType<Promise<number>>()(pool.run(cached, 1));
    hasType<Promise<void>>()(pool.run(nothing));
    hasType<Promise<string>>()(pool.run(optional));
    hasType<Promise<string>>()(pool.run(optional, 1));
    hasType<Promise<string>>()(pool.run(optional, undefined, "km"));
    hasType<Promise<number>>()(pool.run(rest, "a"));
    hasType<Promise<number>>()(pool.run(rest, "a", 1, 2, 3));
    hasType<Promise<never>>()(pool.run(never));
    // deno-lint-ignore no-explicit-any -- as the task
    hasType<Promise<any>>()(pool.run(untyped, 1));
    hasType<Promise<number>>()(pool.run((a: number, b: number) => a + b, 1, 2));
    hasType<Promise<number>>()(pool.run(() => 1));
    // @ts-expect-error -- a string for a number
    pool.run(factorize, "x");
    // @ts-expect-error -- an argument is missing
    pool.run(factorize);
    // @ts-expect-error -- one argument too many
    pool.run(factorize, 1, 2);
    // @ts-expect-error -- undefined for a number
    pool.run(factorize, undefined);
    // @ts-expect-error -- the second is of the wrong type
    pool.run(fetchLength, "a", "b");
    // @ts-expect-error -- one of the rest is of the wrong type
    pool.run(rest, "a", 1, "2");
    // @ts-expect-error -- no function
    pool.run("factorize", 1);
    // @ts-expect-error -- not even a name
    pool.run({ module: "file:///tasks.ts" });
  },

  "A generic task gives the result of the types with which it is called"() {
    hasType<Promise<number | undefined>>()(pool.run(first, [1, 2]));
    hasType<Promise<{ x: number }[]>>()(pool.run(sorted, [{ x: 1 }], "x"));
    hasType<Promise<string | undefined>>()(pool.run(first<string>, ["a"]));
    hasType<Promise<Future<{ x: number }[]>>>()(pool.submit(sorted, [{ x: 1 }], "x"));
    hasType<Future<number | undefined> | undefined>()(pool.trySubmit(first, [1]));
    hasType<MapResults<number | undefined>>()(pool.map(first, [[1], [2]]));
    hasType<MapResults<PromiseSettledResult<number | undefined>>>()(pool.map(first, [[1], [2]], { settled: true }));
    hasType<Promise<number | undefined>>()(pool.run(new Job({ func: first, args: [[1, 2]] })));
    hasType<Promise<{ x: number }[]>>()(pool.run(new Job({ func: sorted, args: [[{ x: 1 }], "x"], timeout: 1000 })));
    new Job({ func: first<string>, args: [["a"]], onDone: (future) => hasType<Future<string | undefined>>()(future) });
    // @ts-expect-error -- no key of these items
    new Job({ func: sorted, args: [[{ x: 1 }], "y"] });
    // @ts-expect-error -- no key of these items
    pool.run(sorted, [{ x: 1 }], "y");
  },

  "an observer may leave out a method by undefined, may have it as a method of a class, and may return anything"(verbose = false) {
    class Counter implements PoolObserver {
      count = 0;
      settled(job: ObservedJob): void {
        this.count += job.items;
      }
    }
    const changes: string[] = [];
    const observers: PoolObserver[] = [
      new Counter(),
      { settled: verbose ? ({ id }) => console.log(id) : undefined, closed: undefined },
      { worker: (_worker, change) => changes.push(change), closed: () => changes.push("closed") },
      { closed: async () => await Promise.resolve() },
    ];
    return new ProcessPool({ observers });
  },

  async "a task may be given as a function or by name"() {
    const either = factorize as typeof factorize | TaskRef<[number], number[]>;
    hasType<Promise<number[]>>()(pool.run(either, 1));
    hasType<Promise<Future<number[]>>>()(pool.submit(either, 1));
    hasType<Future<number[]> | undefined>()(pool.trySubmit(either, 1));
    hasType<Promise<number[]>>()(pool.run(new Job({ func: either, args: [1] })));
    for await (const result of pool.map(either, [1])) hasType<number[]>()(result);
    for await (const outcome of pool.map(either, [1], { settled: true })) hasType<PromiseSettledResult<number[]>>()(outcome);
  },

  "ProcessPool.submit() and trySubmit() give the future of the result"() {
    hasType<Promise<Future<number[]>>>()(pool.submit(factorize, 12));
    hasType<Promise<Future<number>>>()(pool.submit(fetchLength, "a"));
    hasType<Promise<Future<number>>>()(pool.submit(cached, 1));
    hasType<Promise<Future<void>>>()(pool.submit(nothing));
    hasType<Future<number[]> | undefined>()(pool.trySubmit(factorize, 12));
    hasType<Future<number> | undefined>()(pool.trySubmit(fetchLength, "a", false));
    // @ts-expect-error -- a string for a number
    pool.submit(factorize, "x");
    // @ts-expect-error -- an argument is missing
    pool.submit(factorize);
    // @ts-expect-error -- a string for a number
    pool.trySubmit(factorize, "x");
    // @ts-expect-error -- one argument too many
    pool.trySubmit(nothing, 1);
  },

  "Job() checks its arguments, also where it is submitted"() {
    hasType<Promise<Future<number[]>>>()(pool.submit(new Job({ func: factorize, args: [12] })));
    hasType<Promise<Future<number>>>()(pool.submit(new Job({ func: fetchLength, args: ["a"] })));
    hasType<Promise<number>>()(pool.run(new Job({ func: fetchLength, args: ["a", true] })));
    hasType<Future<string> | undefined>()(pool.trySubmit(new Job({ func: optional })));
    hasType<Promise<void>>()(pool.run(new Job({ func: nothing })));
    hasType<Promise<number>>()(pool.run(new Job({ func: cached, args: [1] })));
    new Job({ func: optional, args: [] });
    new Job({ func: optional, args: [undefined, "km"] });
    new Job({ func: rest, args: ["a", 1, 2] });
    new Job({ id: 7, func: nothing, args: undefined, kwargs: undefined });
    // @ts-expect-error -- a string for a number
    new Job({ func: factorize, args: ["x"] });
    // @ts-expect-error -- a string for a number
    pool.submit(new Job({ func: factorize, args: ["x"] }));
    // @ts-expect-error -- a string for a number
    pool.run(new Job({ func: factorize, args: ["x"] }));
    // @ts-expect-error -- a string for a number
    pool.trySubmit(new Job({ func: factorize, args: ["x"] }));
    // @ts-expect-error -- arguments are missing
    new Job({ func: factorize });
    // @ts-expect-error -- arguments are missing
    pool.submit(new Job({ func: factorize }));
    // @ts-expect-error -- arguments are missing
    new Job({ func: factorize, args: undefined });
    // @ts-expect-error -- an argument is missing
    new Job({ func: factorize, args: [] });
    // @ts-expect-error -- one argument too many
    new Job({ func: factorize, args: [1, 2] });
    // @ts-expect-error -- one argument too many
    new Job({ func: nothing, args: [1] });
    // @ts-expect-error -- one of the rest is of the wrong type
    new Job({ func: rest, args: ["a", "b"] });
    // @ts-expect-error -- there is no such option
    new Job({ func: nothing, argz: [] });
    // @ts-expect-error -- there has to be a task
    new Job({ args: [1] });
    // @ts-expect-error -- an id is a string or a number
    new Job({ id: 4n, func: nothing });
    // @ts-expect-error -- the arguments are in the job
    pool.submit(new Job({ func: factorize, args: [1] }), 1);
  },

  "Job() checks its kwargs"() {
    const named: TaskRef<[string, { name: string; times?: number }], string> = { module: "file:///tasks.ts", name: "greet" };
    hasType<Promise<string>>()(pool.run(new Job({ func: greet, args: ["Hello"], kwargs: { name: "bear" } })));
    hasType<Promise<string>>()(pool.run(new Job({ func: greet, args: ["Hello"], kwargs: { name: "bear", times: 2 } })));
    hasType<Promise<boolean>>()(pool.run(new Job({ func: configure, kwargs: { level: 1 } })));
    hasType<Promise<boolean>>()(pool.run(new Job({ func: configure, args: [], kwargs: { level: 1 } })));
    hasType<Promise<boolean>>()(pool.run(new Job({ func: maybeConfigure, args: [1], kwargs: { level: 1 } })));
    hasType<Promise<boolean>>()(pool.run(new Job({ func: maybeConfigure, args: [1] })));
    new Job({ func: greet, args: ["Hello", { name: "bear" }] });
    new Job({ func: configure, args: [{ level: 1 }] });
    const maybe = Math.random() > 2 ? { level: 1 } : undefined;
    hasType<Promise<boolean>>()(pool.run(new Job({ func: maybeConfigure, args: [1], kwargs: maybe })));
    hasType<Promise<boolean>>()(pool.run(new Job({ func: (options?: { level: number }) => options === undefined, kwargs: maybe })));
    new Job({ func: maybeConfigure, args: [1], kwargs: maybe, onDone: (future) => hasType<Future<boolean>>()(future) });
    // @ts-expect-error -- the kwargs may be missing
    new Job({ func: configure, kwargs: maybe });
    // @ts-expect-error -- kwargs are missing
    new Job({ func: configure, kwargs: undefined });
    // @ts-expect-error -- a number for a string
    new Job({ func: greet, args: ["Hello"], kwargs: { name: 4 } });
    // @ts-expect-error -- a name is missing
    new Job({ func: greet, args: ["Hello"], kwargs: {} });
    // @ts-expect-error -- a name is missing
    new Job({ func: configure, kwargs: {} });
    // @ts-expect-error -- a name that the function does not know
    new Job({ func: greet, args: ["Hello"], kwargs: { name: "bear", tmies: 2 } });
    // @ts-expect-error -- a name that the function does not know
    new Job({ func: configure, kwargs: { level: 1, levle: 2 } });
    // @ts-expect-error -- a name that the function does not know
    new Job({ func: named, args: ["Hello"], kwargs: { name: "bear", tmies: 2 } });
    const more = { level: 1, other: 2 };
    hasType<Promise<boolean>>()(pool.run(new Job({ func: configure, kwargs: more })));
    // @ts-expect-error -- kwargs are missing
    new Job({ func: greet, args: ["Hello"] });
    // @ts-expect-error -- kwargs are missing
    new Job({ func: configure });
    // @ts-expect-error -- kwargs are missing
    pool.submit(new Job({ func: configure }));
    // @ts-expect-error -- args are missing
    new Job({ func: greet, kwargs: { name: "bear" } });
    // @ts-expect-error -- a number for a string
    new Job({ func: greet, args: [4], kwargs: { name: "bear" } });
    // @ts-expect-error -- kwargs are an object
    new Job({ func: configure, kwargs: 4 });
    // @ts-expect-error -- wrong kwargs inside submit
    pool.submit(new Job({ func: configure, kwargs: { level: "high" } }));
  },

  "Job() with kwargs needs all arguments before them"() {
    hasType<Promise<string>>()(pool.run(new Job({ func: area, args: [2, 3], kwargs: { unit: "cm" } })));
    hasType<Promise<string>>()(pool.run(new Job({ func: area, args: [2, undefined], kwargs: { unit: "cm" } })));
    hasType<Promise<string>>()(pool.run(new Job({ func: page, args: [undefined], kwargs: { sort: "name" } })));
    new Job({ func: (...values: unknown[]) => values.length, args: [1, 2], kwargs: { unit: "cm" } });
    // deno-lint-ignore no-explicit-any -- of a function that is not typed
    new Job({ func: (...values: any[]) => values.length, args: [1, 2], kwargs: { unit: "cm" } });
    new Job({ func: gather, args: [1, 2, { unit: "cm" }] });
    // @ts-expect-error -- an object among rest parameters is one of the arguments
    new Job({ func: gather, args: [1, 2], kwargs: { unit: "cm" } });
    new Job({ func: ({ name }) => name, kwargs: { name: "bear" } });
    new Job({ func: (n, { name }) => `${name}${n.toFixed()}`, args: [1], kwargs: { name: "bear" } });
    new Job({ func: { module: "file:///tasks.ts", name: "greet" }, args: ["Hello"], kwargs: { name: "bear" } });
    new Job({ func: { module: "file:///tasks.ts", name: "configure" }, kwargs: { level: 1 } });
    const ref: TaskRef<[width: number, height?: number, options?: { unit: string }], string> = { module: "file:///tasks.ts", name: "area" };
    new Job({ func: ref, args: [2, 3], kwargs: { unit: "cm" } });
    const maybe = Math.random() > 2 ? { unit: "cm" } : undefined;
    hasType<Promise<string>>()(pool.run(new Job({ func: area, args: [2, 3], kwargs: maybe })));
    // @ts-expect-error -- the height would be the kwargs
    new Job({ func: area, args: [2], kwargs: { unit: "cm" } });
    // @ts-expect-error -- the height would be the kwargs
    new Job({ func: area, args: [2], kwargs: maybe });
    // @ts-expect-error -- the height would be the kwargs
    new Job({ func: ref, args: [2], kwargs: { unit: "cm" } });
    // @ts-expect-error -- the size would be the kwargs
    new Job({ func: page, args: [], kwargs: { sort: "name" } });
    // @ts-expect-error -- the size would be the kwargs
    new Job({ func: page, kwargs: { sort: "name" } });
    // @ts-expect-error -- one argument too many
    new Job({ func: area, args: [2, 3, 4], kwargs: { unit: "cm" } });
  },

  "Job() can be made like another"() {
    const job = new Job({ func: factorize, args: [1] });
    hasType<Promise<number[]>>()(pool.run(new Job({ ...job, id: 2 })));
    hasType<Promise<string>>()(pool.run(new Job({ ...new Job({ func: greet, args: ["Hello"], kwargs: { name: "bear" } }), timeout: 10 })));
    new Job({ func: factorize, args: [1], transfer: job.transfer });
  },

  "lists are only read"() {
    const initArgs = ["a", true] as const;
    const modules = ["file:///tasks.ts"] as const;
    const observers: readonly PoolObserver[] = [];
    const buffers: readonly ArrayBuffer[] = [];
    const options: ProcessPoolOptions = { initializer: fetchLength, initArgs, modules, observers };
    new Job({ func: nothing, transfer: buffers });
    move(1, buffers);
    return options;
  },

  "jobs of different results can be in one list"() {
    const jobs = [new Job({ func: factorize, args: [1] }), new Job({ func: optional })];
    for (const job of jobs) {
      hasType<Promise<Future<number[] | string>>>()(pool.submit(job));
      hasType<Future<number[] | string> | undefined>()(pool.trySubmit(job));
      hasType<Promise<number[] | string>>()(pool.run(job));
    }
  },

  "one of several tasks of different results needs no cast where its type says which"(kind: "square" | "name" = "name") {
    const tasks = { square: (n: number) => [n * n], name: async (n: number) => await Promise.resolve(`${n}`) };
    const task: Task<[n: number], number[] | string> = tasks[kind];
    hasType<Promise<number[] | string>>()(pool.run(task, 1));
    hasType<Promise<Future<number[] | string>>>()(pool.submit(task, 1));
    hasType<Future<number[] | string> | undefined>()(pool.trySubmit(task, 1));
    hasType<MapResults<number[] | string>>()(pool.map(task, [1, 2]));
    hasType<Promise<number[] | string>>()(pool.run(new Job({ func: task, args: [1] })));
    // @ts-expect-error -- the string is missing
    const wrong: Task<[n: number], number[]> = tasks[kind];
    // @ts-expect-error -- a string for a number
    const other: Task<[n: string], number[] | string> = tasks[kind];
    // @ts-expect-error -- it cannot be inferred
    pool.run(tasks[kind], 1);
    return [wrong, other];
  },

  "a submission of a job can be wrapped in a generic function"() {
    async function resultOf<A extends unknown[], R>(job: Job<A, R>): Promise<R> {
      const future = await pool.submit(job);
      return await future.result();
    }
    function makeAndRun<A extends unknown[], R>(func: Task<A, R>, args: A): Promise<R> {
      return pool.run(new Job({ func, args }));
    }
    hasType<Promise<number[]>>()(resultOf(new Job({ func: factorize, args: [1] })));
    hasType<Promise<number>>()(makeAndRun(fetchLength, ["a"]));
  },

  "TaskRef with type parameters can stand where one without is wanted"() {
    const typed: TaskRef<[n: number], number[]> = { module: "file:///tasks.ts", name: "factorize" };
    const end: TaskRef<[], void> = { module: "file:///tasks.ts", name: "end" };
    const refs: TaskRef[] = [typed, end];
    const options: ProcessPoolOptions[] = [{ initializer: typed, initArgs: [1] }, { finalizer: end }, { finalizer: refs[0] }];
    // @ts-expect-error -- a finalizer is called without arguments
    const wrong: ProcessPoolOptions = { finalizer: typed };
    return [options, wrong];
  },

  "TaskRef with type parameters has its calls checked"() {
    const typed: TaskRef<[n: number], number[]> = { module: "file:///tasks.ts", name: "factorize" };
    hasType<Promise<number[]>>()(pool.run(typed, 12));
    hasType<Promise<Future<number[]>>>()(pool.submit(typed, 12));
    hasType<Promise<number[]>>()(pool.run(new Job({ func: typed, args: [12] })));
    hasType<MapResults<number[]>>()(pool.map(typed, [1, 2]));
    // @ts-expect-error -- a string for a number
    pool.run(typed, "x");
    // @ts-expect-error -- an argument is missing
    pool.run(typed);
    // @ts-expect-error -- a string for a number
    new Job({ func: typed, args: ["x"] });
    // @ts-expect-error -- items of the wrong type
    pool.map(typed, ["x"]);
    const asynchronous: TaskRef<[], Promise<number>> = { module: new URL("file:///tasks.ts"), name: "later" };
    hasType<Promise<number>>()(pool.run(asynchronous));
    hasType<Promise<number>>()(pool.run(new Job({ func: asynchronous })));
    hasType<Promise<Future<number>>>()(pool.submit(new Job({ func: asynchronous })));
    hasType<MapResults<number>>()(pool.map({ module: "file:///tasks.ts", name: "later" } as TaskRef<[string], Promise<number>>, ["x"]));
    const either: TaskRef<[string, { name: string }], number | Promise<number>> = { module: "file:///tasks.ts", name: "either" };
    hasType<Promise<number>>()(pool.run(new Job({ func: either, args: ["x"], kwargs: { name: "bear" } })));
    const kwargs: TaskRef<[string, { name: string }], string> = { module: "file:///tasks.ts", name: "greet" };
    hasType<Promise<string>>()(pool.run(new Job({ func: kwargs, args: ["Hello"], kwargs: { name: "bear" } })));
  },

  "TaskRef without type parameters takes anything and gives unknown"() {
    const ref: TaskRef = { module: "file:///tasks.ts", name: "factorize" };
    hasType<Promise<unknown>>()(pool.run(ref));
    hasType<Promise<unknown>>()(pool.run(ref, 12, "x"));
    hasType<Promise<unknown>>()(pool.run({ module: "file:///tasks.ts", name: "factorize" }, 12));
    hasType<Promise<Future<unknown>>>()(pool.submit({ module: "file:///tasks.ts", name: "factorize" }, 12));
    hasType<Promise<unknown>>()(pool.run(new Job({ func: ref, args: [12, "x"] })));
    hasType<Promise<unknown>>()(pool.run(new Job({ func: { module: "file:///tasks.ts", name: "factorize" }, args: [12] })));
    hasType<MapResults<unknown>>()(pool.map(ref, [1, "x"]));
    hasType<MapResults<unknown>>()(pool.map({ module: "file:///tasks.ts", name: "factorize" }, [1]));
  },

  "ProcessPool.map() gives results, or outcomes"() {
    hasType<MapResults<number[]>>()(pool.map(factorize, [1, 2]));
    hasType<MapResults<number[]>>()(pool.map(factorize, new Set([1])));
    hasType<MapResults<number[]>>()(pool.map(
      factorize,
      (async function* () {
        yield await Promise.resolve(1);
      })(),
    ));
    hasType<MapResults<number[]>>()(pool.map(factorize, new ReadableStream<number>()));
    hasType<MapResults<number>>()(pool.map(fetchLength, ["a"]));
    hasType<MapResults<number>>()(pool.map(cached, [1]));
    hasType<MapResults<number[]>>()(pool.map(factorize, [1], { chunkSize: "auto", buffer: 10, ordered: false }));
    hasType<MapResults<number[]>>()(pool.map(factorize, [1], { settled: false }));
    hasType<MapResults<number[]>>()(pool.map(factorize, [1], { settled: undefined }));
    hasType<MapResults<PromiseSettledResult<number[]>>>()(pool.map(factorize, [1], { settled: true }));
    hasType<MapResults<PromiseSettledResult<number>>>()(pool.map(fetchLength, ["a"], { settled: true, ordered: false }));
    hasType<MapResults<number>>()(pool.map((x: number) => x * 2, [1]));
    hasType<MapResults<number>>()(pool.map((x) => x * 2, [1]));
    hasType<MapResults<string>>()(pool.map(([key, value]) => `${key}${value.toFixed()}`, new Map([["a", 1]])));
    // @ts-expect-error -- items of the wrong type
    pool.map(factorize, ["x"]);
    // @ts-expect-error -- items of the wrong type
    pool.map(factorize, new ReadableStream<string>());
    // @ts-expect-error -- nothing to iterate over
    pool.map(factorize, 12);
    // @ts-expect-error -- items are missing
    pool.map(factorize);
    // @ts-expect-error -- the task needs another argument
    pool.map(greet, ["a"]);
    // @ts-expect-error -- there is no such option
    pool.map(factorize, [1], { chunksize: 1 });
    // @ts-expect-error -- a chunk size is a number or "auto"
    pool.map(factorize, [1], { chunkSize: "all" });
  },

  async "asCompleted() and wait() keep the type"() {
    const futures = [await pool.submit(factorize, 1), await pool.submit(factorize, 2)];
    hasType<AsyncIterableIterator<Future<number[]>>>()(asCompleted(futures));
    hasType<Set<Future<number[]>>>()((await wait(futures)).done);
    hasType<Set<Future<number[]>>>()((await wait(new Set(futures), { returnWhen: "first-exception" })).notDone);
    for await (const future of asCompleted(futures)) hasType<number[]>()(await future.result());
    // @ts-expect-error -- no such condition
    wait(futures, { returnWhen: "first" });
    // @ts-expect-error -- not futures
    wait([1, 2]);
    // @ts-expect-error -- not iterable
    asCompleted(futures[0]!);
  },

  async "Future of one result can stand where one of unknown is wanted, and beside others"() {
    const numbers = await pool.submit(fetchLength, "a");
    const text = await pool.submit(optional);
    const unknowns: Future<unknown>[] = [numbers, text];
    hasType<Set<Future<unknown>>>()((await wait(unknowns)).done);
    hasType<AsyncIterableIterator<Future<unknown>>>()(asCompleted(unknowns));
    // @ts-expect-error -- but not the other way round
    const wrong: Future<number> = unknowns[0]!;
    return wrong;
  },

  async "Future gives what the task gives"() {
    const future = await pool.submit(fetchLength, "a");
    hasType<Promise<number>>()(future.result());
    hasType<Promise<number>>()(future.result({ timeout: 1, signal: undefined }));
    hasType<Promise<unknown>>()(future.exception());
    hasType<string | number>()(future.id);
    hasType<"queued" | "running" | "finished" | "failed" | "cancelled">()(future.state);
    hasType<boolean>()(future.cancel({ reason: "any", force: true }));
    hasType<Promise<string>>()(future.addDoneCallback(() => "sync"));
    hasType<Promise<string>>()(future.addDoneCallback(async () => await Promise.resolve("async")));
    hasType<Promise<number>>()(future.addDoneCallback((future) => {
      hasType<Future<number>>()(future);
      return future.result();
    }));
    hasType<Promise<void>>()(future.addDoneCallback(() => {}));
    // @ts-expect-error -- it is not thenable
    future.then(() => {});
  },

  "Job's onDone gets the future of the task's result"() {
    new Job({
      func: factorize,
      args: [1],
      onDone: (future) => hasType<Future<number[]>>()(future),
    });
    new Job({
      onDone: async (future) => {
        hasType<Future<number>>()(future);
        hasType<number>()(await future.result());
      },
      func: fetchLength,
      args: ["a"],
    });
    new Job({
      func: greet,
      args: ["Hello"],
      kwargs: { name: "bear" },
      onDone: (future) => hasType<Future<string>>()(future),
    });
    new Job({ func: nothing, onDone: (future: Future<void>) => future.id });
    new Job({ func: factorize, args: [1], onDone: (future: Future<unknown>) => future.id });
    const report = (future: Future<unknown>): string => `${future.id}`;
    hasType<Promise<Future<number[]>>>()(pool.submit(new Job({ func: factorize, args: [1], onDone: report })));
    // @ts-expect-error -- the result is no string
    new Job({ func: factorize, args: [1], onDone: (future: Future<string>) => future.id });
  },

  "options take undefined, although optional properties are exact"() {
    const value: number | undefined = Math.random() > 2 ? 1 : undefined;
    const signal: AbortSignal | undefined = undefined;
    const permissions: Deno.PermissionOptions | undefined = undefined;
    const modules: TaskModule[] | undefined = undefined;
    const options: ProcessPoolOptions = {
      maxWorkers: value,
      queueSize: value,
      modules,
      permissions,
      backend: undefined,
      initializer: undefined,
      initArgs: undefined,
      finalizer: undefined,
      jobsPerWorker: value,
      maxJobsPerWorker: value,
      idleTimeout: value,
      onError: undefined,
    };
    const result: ResultOptions = { timeout: value, signal };
    const shutdown: ShutdownOptions = { cancelPending: undefined, timeout: value };
    new Job({ func: nothing, id: value, args: undefined, kwargs: undefined, signal, transfer: undefined, onDone: undefined });
    pool.map(factorize, [1], { chunkSize: value, buffer: value, ordered: undefined, settled: undefined, signal });
    return [options, result, shutdown];
  },

  "ProcessPoolOptions takes tasks of any kind for its initializer and finalizer"() {
    const options: ProcessPoolOptions[] = [
      { initializer: configure, initArgs: [{ level: 1 }] },
      { initializer: fetchLength, initArgs: ["a"], finalizer: nothing },
      { initializer: { module: "file:///tasks.ts", name: "init" }, finalizer: { module: "file:///tasks.ts", name: "end" } },
      { modules: ["file:///tasks.ts", new URL("file:///tasks.ts"), { url: "file:///tasks.ts", exports: { factorize } }] },
      // @ts-expect-error -- a finalizer is called without arguments
      { finalizer: factorize },
      // @ts-expect-error -- there is no such backend
      { backend: "thread" },
      // @ts-expect-error -- there is no such option
      { workers: 4 },
    ];
    return options;
  },

  "Task is any function, or one of given arguments and result"() {
    const tasks: Task[] = [factorize, fetchLength, nothing, greet];
    const typed: Task<[number], number[]> = factorize;
    const promised: Task<[string], number> = fetchLength;
    // @ts-expect-error -- other arguments
    const wrong: Task<[string], number[]> = factorize;
    return [tasks, typed, promised, wrong];
  },

  async "a list of jobs can be made first and submitted later"() {
    const jobs = [1, 2, 3].map((n) => new Job({ id: n, func: factorize, args: [n] }));
    const futures = await Promise.all(jobs.map((job) => pool.submit(job)));
    hasType<Future<number[]>[]>()(futures);
    const various: Job<unknown[], unknown>[] = [new Job({ func: nothing }), new Job({ func: factorize, args: [1] })];
    for (const job of various) hasType<Promise<Future<unknown>>>()(pool.submit(job));
  },

  "an option can be added to those of a job in a generic function"() {
    function withTimeout<A extends unknown[], R>(options: JobOptions<A, R>): Job<A, R> {
      return new Job({ ...options, timeout: 1000 });
    }
    function withIdAndKwargs<A extends unknown[], K extends object, R>(options: JobOptionsWithKwargs<A, K, R>): Job<A, R, K> {
      return new Job({ ...options, id: 1 });
    }
    hasType<Promise<number[]>>()(pool.run(withTimeout({ func: factorize, args: [1] })));
    hasType<Promise<string>>()(
      pool.run(withIdAndKwargs({ func: (x: number, { y }: { y: string }) => x + y, args: [1], kwargs: { y: "" } })),
    );
    // @ts-expect-error -- a string for a number
    const wrong = withTimeout({ func: factorize, args: ["1"] });
    // @ts-expect-error -- no argument for a task that needs one
    const missing = withTimeout({ func: factorize });
    return [wrong, missing];
  },

  "a call can be wrapped in a generic function"() {
    function twice<A extends unknown[], R>(task: Task<A, R>, ...args: A): Promise<Awaited<R>[]> {
      return Promise.all([pool.run(task, ...args), pool.run(task, ...args)]);
    }
    hasType<Promise<number[][]>>()(twice(factorize, 1));
    hasType<Promise<number[]>>()(twice(fetchLength, "a"));
  },
};

Deno.test("types of the public interface are what they are documented to be", () => {
  assertEquals(Object.values(compiled).every((each) => typeof each === "function"), true);
});
