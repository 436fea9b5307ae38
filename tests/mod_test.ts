import { assertEquals } from "@std/assert";
import { granted } from "./fixtures.ts";
import type {
  AcquireOptions,
  AsCompletedOptions,
  Backend,
  CancelOptions,
  Closable,
  CurrentJob,
  EndProgramOptions,
  Future,
  Interrupt,
  InterruptOptions,
  Job,
  JobArgs,
  JobArgsBeforeKwargs,
  JobBaseOptions,
  JobCancelledDetails,
  JobCancelledError,
  JobInspection,
  JobOptions,
  JobOptionsWithKwargs,
  JobResult,
  JobState,
  JobTimeoutDetails,
  JobTimeoutError,
  MapOptions,
  MemoryLimitDetails,
  MemoryLimitError,
  ObservedJob,
  ObservedPool,
  PoolBrokenDetails,
  PoolBrokenError,
  PoolClosedError,
  PoolLevels,
  PoolMeasurements,
  PoolObserver,
  PoolStats,
  ProcessPool,
  ProcessPoolOptions,
  ResultOptions,
  Semaphore,
  SettledState,
  ShutdownOptions,
  SignalHost,
  Task,
  TaskModule,
  TaskRef,
  TimeQuantiles,
  WaitOptions,
  WaitResult,
  WorkerChange,
  WorkerDiedDetails,
  WorkerDiedError,
  WorkerInspection,
  WorkerMeasurements,
} from "@procpool/process-pool";
import * as mod from "@procpool/process-pool";

/** Every type that can be named, by name: it does not compile when one is missing. */
interface TypeExports {
  AcquireOptions: AcquireOptions;
  AsCompletedOptions: AsCompletedOptions;
  Backend: Backend;
  CancelOptions: CancelOptions;
  Closable: Closable;
  CurrentJob: CurrentJob;
  EndProgramOptions: EndProgramOptions;
  Future: Future<number>;
  Interrupt: Interrupt;
  InterruptOptions: InterruptOptions;
  Job: Job<[], number>;
  JobArgs: JobArgs<[]>;
  JobArgsBeforeKwargs: JobArgsBeforeKwargs<[]>;
  JobBaseOptions: JobBaseOptions<number>;
  JobCancelledDetails: JobCancelledDetails;
  JobCancelledError: JobCancelledError;
  JobInspection: JobInspection;
  JobOptions: JobOptions<[], number>;
  JobOptionsWithKwargs: JobOptionsWithKwargs<[], { level: number }, number>;
  JobResult: JobResult<Job<[], number>>;
  JobState: JobState;
  JobTimeoutDetails: JobTimeoutDetails;
  JobTimeoutError: JobTimeoutError;
  MapOptions: MapOptions;
  MemoryLimitDetails: MemoryLimitDetails;
  MemoryLimitError: MemoryLimitError;
  ObservedJob: ObservedJob;
  ObservedPool: ObservedPool;
  PoolBrokenDetails: PoolBrokenDetails;
  PoolBrokenError: PoolBrokenError;
  PoolClosedError: PoolClosedError;
  PoolLevels: PoolLevels;
  PoolMeasurements: PoolMeasurements;
  PoolObserver: PoolObserver;
  PoolStats: PoolStats;
  ProcessPool: ProcessPool;
  ProcessPoolOptions: ProcessPoolOptions;
  ResultOptions: ResultOptions;
  Semaphore: Semaphore;
  SettledState: SettledState;
  ShutdownOptions: ShutdownOptions;
  SignalHost: SignalHost;
  Task: Task;
  TaskModule: TaskModule;
  TaskRef: TaskRef;
  TimeQuantiles: TimeQuantiles;
  WaitOptions: WaitOptions;
  // deno-lint-ignore no-explicit-any -- whatever its parameter stands for
  WaitResult: WaitResult<any>;
  WorkerChange: WorkerChange;
  WorkerDiedDetails: WorkerDiedDetails;
  WorkerDiedError: WorkerDiedError;
  WorkerInspection: WorkerInspection;
  WorkerMeasurements: WorkerMeasurements;
}

Deno.test("mod.ts exports these values and no others", () => {
  assertEquals(Object.keys(mod).sort(), [
    "Future",
    "Interrupt",
    "Job",
    "JobCancelledError",
    "JobTimeoutError",
    "MemoryLimitError",
    "PoolBrokenError",
    "PoolClosedError",
    "ProcessPool",
    "Semaphore",
    "WorkerDiedError",
    "asCompleted",
    "currentJob",
    "endProgram",
    "move",
    "wait",
  ]);
});

Deno.test("mod.ts exports each class of an error as a class that goes by its name", () => {
  const details = { jobId: 1, taskName: "task", attempts: 3, cause: "why" };
  const errors = [
    new mod.JobCancelledError("message", details),
    new mod.PoolBrokenError("message", details),
    new mod.PoolClosedError("message", details),
    new mod.WorkerDiedError("message", details),
  ];
  for (const error of errors) {
    assertEquals([error instanceof Error, error.name, error.message, error.cause], [true, error.constructor.name, "message", "why"]);
  }
  assertEquals(new mod.WorkerDiedError("message").attempts, 0);
  assertEquals("cause" in new mod.WorkerDiedError("message"), false);
});

Deno.test("mod.ts exports the types that its functions use", () => {
  const types: Partial<TypeExports> = {};
  assertEquals(types, {}, "that this compiles is the test");
});

Deno.test("The entry point './batch' exports these, and nothing else", async () => {
  assertEquals(Object.keys(await import("@procpool/process-pool/batch")).sort(), ["BatchError", "batch"]);
});

Deno.test(
  "mod.ts loads nothing of which no pool needs any before its first worker (needs --allow-read)",
  { ignore: !granted("read") },
  () => {
    const loaded = new Set<string>();
    const load = (url: string): void => {
      if (loaded.has(url)) return;
      loaded.add(url);
      const imports = Deno.readTextFileSync(new URL(url)).matchAll(/^(?:(?:import|export) (?!type)[^;]*?from|import) "(\..*)";$/gm);
      for (const [, path] of imports) load(new URL(path!, url).href);
    };
    load(import.meta.resolve("../mod.ts"));
    const folder = import.meta.resolve("../worker/");
    const ofWorkers = [...loaded].filter((url) => url.startsWith(folder)).map((url) => url.slice(folder.length)).sort();
    assertEquals(ofWorkers, [
      "decode_error.ts",
      "function_text.ts",
      "platform.ts",
      "protocol.ts",
      "soon.ts",
      "tasks.ts",
    ]);
  },
);

Deno.test(
  "docs/architecture.md says what each file is, and names none that is gone (needs --allow-read)",
  { ignore: !granted("read") },
  () => {
    const root = new URL("../", import.meta.url);
    const text = Deno.readTextFileSync(new URL("docs/architecture.md", root));
    const [core, tests, cluster] = text.split(/^## The (?:tests|cluster)$/m);
    const filesOf = (folder: string): string[] =>
      [...Deno.readDirSync(new URL(folder, root))].map(({ name }) => name).filter((name) => name.endsWith(".ts"));
    const named = (part = ""): string[] => Array.from(part.matchAll(/`([\w/]+\.ts)`/g), ([, name]) => name!);
    const files = ["", "batch/", "command/", "demo/", "pool/", "report/", "worker/"].flatMap((folder) => {
      return filesOf(folder || ".").map((name) => folder + name);
    });
    const inCore = named(core);
    assertEquals(files.filter((path) => !inCore.includes(path)), []);
    assertEquals(filesOf("cluster/").filter((name) => !named(cluster).includes(name)), []);
    // A test of many files, or what tests share.
    const subjects = new Set(files.flatMap((path) => [path, path.replace("/", "_")]).map((path) => path.slice(path.lastIndexOf("/") + 1)));
    const others = filesOf("tests/").filter((name) => !subjects.has(name.replace("_test.ts", ".ts")));
    assertEquals(others.filter((name) => !named(tests).includes(name)), []);
    const known = new Set([
      ...files,
      ...["cluster/", "tests/", "tests/simulation/", "worker/"].flatMap(filesOf),
      ...filesOf("tests/").map((name) => `tests/${name}`),
    ]);
    assertEquals(named(text).filter((name) => !known.has(name)), []);
  },
);
