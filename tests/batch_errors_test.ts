import { PoolBrokenError, ProcessPool } from "@procpool/process-pool";
import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { BatchError, explainLoading, explainPool } from "../batch/errors.ts";
import type { BatchSummary } from "../batch/progress.ts";
import { until } from "./helpers.ts";
import { doubles, Folder, ignore, NEEDS, numbers, run } from "./batch_fixtures.ts";

/** The errors of a batch, by record: name, message, attempts, line. */
function errorsIn(folder: Folder): Map<number, [name: string, message: string, attempts: number]> {
  const errors = new Map<number, [string, string, number]>();
  for (const { input, line, offset, record, error, attempts } of folder.json("out.errors.ndjson")) {
    const x = Number(record);
    assert(!errors.has(x), `${x} is there twice`);
    assertEquals([input, line], [folder.of("in.ndjson"), x + 1]);
    assertEquals(folder.read("in.ndjson").slice(offset, offset + record.length + 1), `${record}\n`);
    errors.set(x, [error.name, error.message, attempts]);
  }
  return errors;
}

for (const ordered of [true, false]) {
  Deno.test(`batch() loses no record but those that throw, ${ordered ? "in order" : "unordered"} ${NEEDS}`, { ignore }, async () => {
    using folder = new Folder();
    const input = folder.write("in.ndjson", numbers(10_000));
    const task = (x: number) => {
      if (x % 1000 === 7) throw new RangeError(`no ${x}`);
      return 2 * x;
    };
    const { records, failed, errorNames, errors } = await run(task, { input, output: folder.of("out"), ordered, chunk: 1024 });
    assertEquals([records, failed, errorNames, errors], [10_000, 10, [["RangeError", 10]], folder.of("out.errors.ndjson")]);
    const expected = Array.from(
      { length: 10 },
      (_, i): [number, [string, string, number]] => [i * 1000 + 7, ["RangeError", `no ${i * 1000 + 7}`, 1]],
    );
    const found = [...errorsIn(folder)];
    assertEquals(ordered ? found : found.sort(([a], [b]) => a - b), expected);
    const text = folder.read("out");
    const all = doubles(10_000, (x) => x % 1000 === 7);
    assertEquals(ordered ? text : text.split("\n").sort(), ordered ? all : all.split("\n").sort());
    const [{ error }] = folder.json("out.errors.ndjson");
    assert(error.stack.startsWith("RangeError: no 7\n") && !error.stack.includes("runBlock"), error.stack);
  });
}

Deno.test(`batch() keeps a worker's source out of the error of a relative address ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(2));
  const task = (x: number) => {
    try {
      return new Request(`/${x}`).url;
    } catch (error) {
      throw x === 0 ? error : { reason: String(error) };
    }
  };
  for (const [output, timeout] of [["out", undefined], ["killable", 60_000]] as const) {
    await run(task, { input, output: folder.of(output), timeout });
    const [first, second] = folder.json(`${output}.errors.ndjson`).map(({ error }) => error);
    assertEquals([first.message, first.stack.includes("data:")], ["Invalid URL: '/0'", false]);
    assertEquals(second.message, `{"reason":"TypeError: Invalid URL: '/1'"}`);
  }
});

Deno.test(`batch() reports the errors of a task that puts something else in the place of its address ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(1));
  const task = () => {
    Object.defineProperty(globalThis, "location", { configurable: true, value: { href: new URL("http://localhost") } });
    return new Request("/page").url;
  };
  // As modules do that imitate a browser.
  const text = `Object.defineProperty(globalThis, "location", { value: new URL("http://localhost") });
    export const task = () => new Request("/page").url;`;
  const module = folder.write("tasks.ts", text);
  for (const [output, timeout] of [["out", undefined], ["killable", 60_000]] as const) {
    for (const each of [task, { module, name: "task" }]) {
      await run(each, { input, output: folder.of(output), timeout, overwrite: true });
      const [{ error: { name, message, stack } }] = folder.json(`${output}.errors.ndjson`);
      assertEquals([name, message, stack.includes("data:")], ["TypeError", "Invalid URL: '/page'", false]);
    }
  }
});

Deno.test(`batch() needs no more memory the more often a record that rejects is run again ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(1));
  // If its worker died, another would begin to count anew.
  const task = () => {
    const counted = globalThis as { attempts?: number };
    counted.attempts = (counted.attempts ?? 0) + 1;
    return counted.attempts > 300_000 ? "done" : Promise.reject(new Error("no"));
  };
  const { failed } = await run(task, { input, output: folder.of("out"), retries: 300_000, memoryLimit: 32 });
  assertEquals([failed, folder.read("out")], [0, '"done"\n']);
});

Deno.test(`batch() stops records that run for too long, and loses and repeats no other ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(3000));
  const task = (x: number) => {
    while (x === 0 || x === 1500 || x === 1501 || x === 2999);
    return 2 * x;
  };
  const { failed, slowest } = await run(task, { input, output: folder.of("out"), timeout: 300 });
  const bad = [0, 1500, 1501, 2999];
  assertEquals([...errorsIn(folder)], bad.map((x) => [x, ["JobTimeoutError", "The record ran for more than 300 ms", 1]]));
  assertEquals(folder.read("out"), doubles(3000, (x) => bad.includes(x)));
  assertEquals([failed, slowest.slice(0, 4).every(({ time }) => time >= 300)], [4, true]);
});

Deno.test(
  `batch() blames only the object of which its worker dies, or that runs for too long, although others were parsed with it ${NEEDS}`,
  {
    ignore,
  },
  async () => {
    using folder = new Folder();
    const input = folder.write("in.ndjson", Array.from({ length: 20_000 }, (_, x) => `{"x":${x}}\n`).join(""));
    const bad = [900, 901, 5000, 12_345, 19_999];
    const task = ({ x }: { x: number }): unknown => {
      if (x === 5000) return new Promise(() => {});
      while (x === 900 || x === 12_345);
      if (x === 901 || x === 19_999) self.close();
      while (x === 901 || x === 19_999);
      return 2 * x;
    };
    const { records, failed } = await run(task, { input, output: folder.of("out"), timeout: 500 });
    assertEquals([records, failed, folder.read("out")], [20_000, 5, doubles(20_000, (x) => bad.includes(x))]);
    assertEquals(folder.json("out.errors.ndjson").map(({ record, line }) => [record, line]), bad.map((x) => [`{"x":${x}}`, x + 1]));
  },
);

Deno.test(`batch() stops asynchronous records that never settle, and the ranges behind them go on ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(3000));
  const bad = [700, 701, 1500, 2999];
  const task = async (x: number) => {
    if (x === 700 || x === 701 || x === 1500 || x === 2999) await new Promise(() => {});
    return 2 * x;
  };
  await run(task, { input, output: folder.of("out"), timeout: 300, retries: 1, chunk: 1024 });
  assertEquals([...errorsIn(folder)], bad.map((x) => [x, ["JobTimeoutError", "The record ran for more than 300 ms", 2]]));
  assertEquals(folder.read("out"), doubles(3000, (x) => bad.includes(x)));
});

Deno.test(`batch() does not count time in which the whole program stood still against a record ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(10));
  const task = folder.write(
    "task.js",
    `export default async (x) => {
      if (x === 5) Deno.writeTextFileSync(${JSON.stringify(folder.of("runs"))}, "");
      while (x === 5 && ![...Deno.readDirSync(${
      JSON.stringify(folder.path)
    })].some(({ name }) => name === "go")) await new Promise((resolve) => setTimeout(resolve));
      return 2 * x;
    };`,
  );
  const done = run(task, { input, output: folder.of("out"), permissions: "inherit", timeout: 60_000, workers: 1 });
  await until(() => folder.names().includes("runs"));
  const { now } = performance;
  let [looks, stop] = [0, 0];
  performance.now = () => {
    looks++;
    return now.call(performance) + stop;
  };
  try {
    // By then it has been seen to run; a stop of an hour, according to the clock, follows.
    await until(() => looks > 20);
    [looks, stop] = [0, 3_600_000];
    await until(() => looks > 20);
    folder.write("go", "");
    assertEquals([(await done).failed, folder.read("out")], [0, doubles(10)]);
  } finally {
    performance.now = now;
  }
});

Deno.test(`batch() with 'retries' gives each attempt at a record its 'timeout' ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "0\n");
  const task = folder.write(
    "task.js",
    `let attempt = 0;
    export default async () => {
      attempt++;
      Deno.writeTextFileSync(${JSON.stringify(folder.of("runs"))} + attempt, "");
      while (![...Deno.readDirSync(${JSON.stringify(folder.path)})].some(({ name }) => name === "go" + attempt)) {
        await new Promise((resolve) => setTimeout(resolve));
      }
      if (attempt === 1) throw new Error("again");
      return attempt;
    };`,
  );
  const options = { permissions: "inherit", timeout: 20_000, retries: 1, workers: 1 } as const;
  const done = run(task, { input, output: folder.of("out"), ...options });
  const { now } = performance;
  let [looks, passed] = [0, 0];
  performance.now = () => {
    looks++;
    return now.call(performance) + passed;
  };
  try {
    for (const attempt of [1, 2]) {
      await until(() => folder.names().includes(`runs${attempt}`));
      // Each attempt takes more than half of the limit, in steps in which the program does not seem to have stood still.
      for (const end = passed + 11_000; passed < end; passed += 200) {
        const before = looks;
        await until(() => looks > before + 1);
      }
      folder.write(`go${attempt}`, "");
    }
    assertEquals([(await done).failed, folder.read("out")], [0, "2\n"]);
  } finally {
    performance.now = now;
  }
});

Deno.test(`batch() runs a record again that was lost with its worker, as often as 'retries' says ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(2000));
  for (const timeout of [Infinity, 60_000]) {
    const task = (x: number) => x === 100 || x === 1999 ? Deno.exit(3) : 2 * x;
    await run(task, { input, output: folder.of("out"), retries: 1, timeout, overwrite: true });
    assertEquals([...errorsIn(folder)], [100, 1999].map((x) => [x, ["WorkerDiedError", "The worker called Deno.exit(3)", 2]]));
    assertEquals(folder.read("out"), doubles(2000, (x) => x === 100 || x === 1999));
  }
});

Deno.test(
  `batch() does not give a function what its worker has under the name of a variable that is not sent ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const input = folder.write("in.ndjson", numbers(3));
    const name = "bear", location = "forest", tasks = ["hunt"];
    await run((x: number) => x === 0 ? name : x === 1 ? location : tasks, { input, output: folder.of("out") });
    const hint =
      "a function that is sent as source text cannot see the variables and imports around it: export it from a module, and give the module's address";
    const unseen = ["Cannot access 'name' before initialization", "Cannot access 'location' before initialization", "tasks is not defined"];
    assertEquals([...errorsIn(folder)], unseen.map((why, x) => [x, ["ReferenceError", `${why}; ${hint}`, 1]]));
  },
);

Deno.test(`batch() with 'memoryLimit' loses the record that fills the heap ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(1000));
  const task = (x: number) => {
    const kept: unknown[] = [];
    while (x === 500) kept.push({ values: [kept.length, 1, 2, 3] });
    return 2 * x;
  };
  await run(task, { input, output: folder.of("out"), memoryLimit: 64 });
  assertEquals([...errorsIn(folder)], [[500, ["MemoryLimitError", "The worker filled its heap of 64 MB", 1]]]);
  assertEquals(folder.read("out"), doubles(1000, (x) => x === 500));
});

Deno.test(`batch() with 'memoryLimit' loses only the line that fills the heap when it is parsed ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const long = `{"x":[${"[],".repeat(2_000_000)}[]]}`;
  const input = folder.write("in.ndjson", `{"x":0}\n{"x":1}\n${long}\n{"x":3}\n{"x":4}\n`);
  const task = ({ x }: { x: number }) => x;
  // Read by the calling thread, all lines are in one block.
  const lines = new Blob([Deno.readFileSync(input)]).stream();
  const { records, failed, errorNames } = await run(task, { input: lines, output: folder.of("out"), memoryLimit: 32, chunk: 2 ** 24 });
  assertEquals([records, failed, errorNames], [5, 1, [["MemoryLimitError", 1]]]);
  assertEquals(folder.json("out.errors.ndjson").map(({ line }) => line), [3]);
  assertEquals(folder.read("out"), "0\n1\n3\n4\n");
});

Deno.test(
  `batch() with 'memoryLimit' records the failure of a line for which, and for whose error, workers have no room ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const input = folder.write("in.ndjson", `"a"\n"b"\n"${"é".repeat(2 ** 24)}"\n"d"\n`);
    const { records, errorNames, retryable } = await run((x: string) => x, { input, output: folder.of("out"), memoryLimit: 16 });
    assertEquals([records, errorNames, retryable], [4, [["MemoryLimitError", 1]], false]);
    const [{ line, record, truncated }] = folder.json("out.errors.ndjson");
    assertEquals([line, record.slice(0, 3), truncated], [3, '"éé', true]);
    assertEquals(folder.json("out"), ["a", "b", "d"]);
  },
);

Deno.test(
  `batch() with 'memoryLimit' keeps a record whole that follows one for which workers have no room ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const long = "b".repeat(100_000);
    const input = folder.write("in.ndjson", `"a"\n"${"é".repeat(2 ** 24)}"\n"${long}"\n"d"\n`);
    const task = (x: string) => {
      if (x.length > 1) self.close();
      return x.length > 1 ? new Promise(() => {}) : x;
    };
    // All in one part, read by the calling thread.
    const lines = new Blob([Deno.readFileSync(input)]).stream();
    await run(task, { input: lines, output: folder.of("out"), memoryLimit: 16, chunk: 2 ** 26 });
    const errors = folder.json("out.errors.ndjson").map(({ line, record, truncated }) => [line, record.length, truncated]);
    assertEquals(errors, [[2, 2 ** 14, true], [3, long.length + 2, undefined]]);
    assertEquals(folder.json("out"), ["a", "d"]);
  },
);

Deno.test(
  `batch() with 'memoryLimit' does not exceed the attempts of a row of which workers die before they run it ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const input = folder.write("in.csv", `a,b\n1,x\n2,"\n${"é".repeat(2 ** 24)}"\n3,y\n`);
    const { records, errorNames } = await run((x: object) => x, { input, output: folder.of("out"), memoryLimit: 16, retries: 1 });
    assertEquals([records, errorNames], [3, [["MemoryLimitError", 1]]]);
    assertEquals(folder.json("out.errors.ndjson").map(({ line, attempts }) => [line, attempts]), [[3, 2]]);
    assertEquals(folder.json("out"), [{ a: "1", b: "x" }, { a: "3", b: "y" }]);
  },
);

Deno.test(`batch() loses only the row of which workers die while they read it with others ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  // Stands for a row of more lines than the heap has room for, as an unclosed quote may cause.
  const task = folder.write(
    "task.js",
    `const { split } = String.prototype;
    String.prototype.split = function (...args) {
      if (this.length > 100_000) Deno.exit();
      return split.apply(this, args);
    };
    export default (row) => row;`,
  );
  const input = folder.write("in.csv", `a,b\n1,x\n2,${"y".repeat(100_000)}\n3,y\n`);
  const { records, errorNames } = await run(task, { input, output: folder.of("out"), retries: 1 });
  assertEquals([records, errorNames], [3, [["WorkerDiedError", 1]]]);
  assertEquals(folder.json("out.errors.ndjson").map(({ line, attempts }) => [line, attempts]), [[3, 2]]);
  assertEquals(folder.json("out"), [{ a: "1", b: "x" }, { a: "3", b: "y" }]);
});

Deno.test(`batch() accepts a share of the median as a time limit ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(5000));
  const task = (x: number) => {
    while (x === 4000);
    return 2 * x;
  };
  await run(task, { input, output: folder.of("out"), timeout: "500%", chunk: 1024 });
  assertEquals([...errorsIn(folder)], [[4000, ["JobTimeoutError", "The record ran for more than 100 ms", 1]]]);
});

Deno.test(`batch() gives up after so many failed records, or at a share of them, and can go on ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(20_000));
  const output = folder.of("out");
  const task = (x: number) => {
    if (x % 10 === 5) throw new Error("bad");
    return 2 * x;
  };
  for (const halt of [1, "5%"] as const) {
    const { outcome, failed, records } = await run(task, { input, output, halt, chunk: 1024, overwrite: true });
    assertEquals(outcome, "halted");
    assert(failed > 0 && records < 20_000, JSON.stringify({ failed, records }));
    assertEquals(folder.names(), ["in.ndjson", "out.errors.ndjson", "out.log", "out.partial"]);
  }
  const { outcome, records, failed } = await run(task, { input, output, resume: true });
  assertEquals([outcome, records, failed], ["complete", 20_000, 2000]);
  assertEquals([folder.read("out"), errorsIn(folder).size], [doubles(20_000, (x) => x % 10 === 5), 2000]);
});

/** Asserts that failures are named, each with the number that its record has, in the report as well. */
function assertNotKept(notKept: BatchSummary["notKept"], { input, text, page }: { input: string; text: string; page: string }): void {
  assert(notKept.length > 0);
  for (const [name, offset, error] of notKept) {
    assertEquals([name, error], [input, `Error: not ${parseInt(text.slice(offset))}`]);
    assertStringIncludes(page, `Not kept, as something before it was not done: ${input}, byte ${offset}: ${error}`);
  }
}

Deno.test(
  `batch() that gives up while an earlier record is not done names the failures that it does not keep ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const text = numbers(1000);
    const [input, report] = [folder.write("in.ndjson", text), folder.of("r.html")];
    const task = (x: number) => {
      if (x > 0) throw new Error(`not ${x}`);
      return new Promise(() => {});
    };
    const { outcome, records, failed, notKept } = await run(task, { input, output: folder.of("out"), report, halt: 1 });
    assertEquals([outcome, records, failed], ["halted", 0, 0]);
    assertNotKept(notKept, { input, text, page: folder.read("r.html") });
  },
);

Deno.test(
  `batch() with 'retryFailed' that gives up while an earlier record is not done names the failures that it does not keep ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    // One that cannot be parsed is not run again.
    const text = "0\n{\n1\n2\n";
    const [input, output, report] = [folder.write("in.ndjson", text), folder.of("out"), folder.of("r.html")];
    await run(() => Promise.reject(new Error("first")), { input, output });
    const task = (x: number) => {
      if (x > 0) throw new Error(`not ${x}`);
      return new Promise(() => {});
    };
    const { outcome, recordsOfRun, failed, notKept } = await run(task, { input, output, report, halt: 1, workers: 2, retryFailed: true });
    assertEquals([outcome, recordsOfRun, failed], ["halted", 0, 4]);
    assertNotKept(notKept, { input, text, page: folder.read("r.html") });
  },
);

for (const name of ["out", "out.gz"]) {
  Deno.test(`batch() with 'retryFailed' puts the results of failed records where they belong (${name}) ${NEEDS}`, { ignore }, async () => {
    using folder = new Folder();
    const text = async () =>
      name === "out"
        ? folder.read(name)
        : await new Response(new Response(Deno.readFileSync(folder.of(name))).body!.pipeThrough(new DecompressionStream("gzip"))).text();
    const input = folder.write("in.ndjson", `${numbers(5000)}{\n`);
    const output = folder.of(name);
    const bad = (x: number) => x % 7 === 0 || x === 4999;
    const failing = (x: number) => {
      if (x % 7 === 0 || x === 4999) throw new Error("bad");
      return 2 * x;
    };
    const first = await run(failing, { input, output });
    assertEquals([first.failed, await text()], [717, doubles(5000, bad)]);
    const better = (x: number) => {
      if (x % 14 === 0) throw new TypeError("still bad");
      return 2 * x;
    };
    const second = await run(better, { input, output, retryFailed: true });
    assertEquals([second.records, second.failed, second.recordsOfRun], [5001, 359, 716]);
    assertEquals(second.errorNames, [["TypeError", 358], ["ParseError", 1]]);
    assertEquals(await text(), doubles(5000, (x) => x % 14 === 0));
    assertEquals(folder.json(`${name}.errors.ndjson`)[0].attempts, 2);
    const third = await run((x: number) => 2 * x, { input, output, retryFailed: true });
    assertEquals([third.failed, await text()], [1, doubles(5000)]);
    assertEquals(folder.names(), ["in.ndjson", name, `${name}.errors.ndjson`, `${name}.log`]);
  });
}

Deno.test(`batch() says whether any failed record can be run again, also when it resumes ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const output = folder.of("out");
  const task = (x: number) => {
    if (x !== 2) return x;
    const error = new Error("no");
    error.name = "ParseError";
    throw error;
  };
  const unparsed = folder.write("unparsed.ndjson", "1\n{\n3\n");
  for (const mode of [{}, { resume: true }, { retryFailed: true }]) {
    const { failed, retryable } = await run(task, { input: unparsed, output, ...mode });
    assertEquals([failed, retryable], [1, false], JSON.stringify(mode));
  }
  // A ParseError that the task itself throws is an error like any other.
  const input = folder.write("in.ndjson", "1\n{\n2\n3\n");
  await run(task, { input, output, overwrite: true, halt: 2, workers: 1 });
  for (const mode of [{ resume: true }, { resume: true }, { retryFailed: true }]) {
    const { failed, retryable } = await run(task, { input, output, ...mode });
    assertEquals([failed, retryable], [2, true], JSON.stringify(mode));
  }
  assertEquals(folder.json("out.errors.ndjson").map(({ attempts }) => attempts), [1, 2]);
});

Deno.test(`batch() with 'retryFailed' finds the header of a row of CSV ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.csv", 'a,b\n1,"x\ny"\n2,z\n');
  const output = folder.of("out");
  await run(() => {
    throw new Error("bad");
  }, { input, output });
  assertEquals(folder.read("out"), "");
  await run((row: { a: string; b: string }) => [row.b, row.a], { input, output, retryFailed: true });
  assertEquals(folder.json("out"), [["x\ny", "1"], ["z", "2"]]);
});

Deno.test(`batch() finds the number of each line that failed in an unordered run of several files ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  folder.write("1.ndjson", numbers(3000));
  folder.write("2.ndjson", numbers(2000));
  const task = (x: number) => {
    if (x % 500 === 499) throw new Error("bad");
    return x;
  };
  await run(task, { input: folder.of("?.ndjson"), output: folder.of("out"), ordered: false, chunk: 1024 });
  const errors = folder.json("out.errors.ndjson");
  assertEquals(errors.map(({ position }) => position), errors.map(({ position }) => position).sort((a, b) => a - b));
  const found = errors.map(({ input, line, part }) => [input, line, part]).sort((a, b) => a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : a[1] - b[1]);
  const of = (name: string, count: number) => Array.from({ length: count }, (_, i) => [folder.of(name), (i + 1) * 500, undefined]);
  assertEquals(found, [...of("1.ndjson", 6), ...of("2.ndjson", 4)]);
});

Deno.test(
  `batch() with 'retryFailed' runs the record that failed, also one that ends in a carriage return ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const [input, output] = [folder.write("in.txt", "ok\nbad\r\r\nbad\r\nok\n"), folder.of("out.ndjson")];
    const options = { input, output, inputFormat: "lines" } as const;
    await run((line: string) => {
      if (line.startsWith("bad")) throw new Error("no");
      return line;
    }, options);
    await run((line: string) => line, { ...options, retryFailed: true });
    assertEquals(folder.json("out.ndjson"), ["ok", "bad\r", "bad", "ok"]);
  },
);

Deno.test("explainLoading() names no option that a batch does not have", async () => {
  await using pool = new ProcessPool({ modules: ["data:text/javascript,await new Promise(() => {})"], startTimeout: 20 });
  const error = await assertRejects(() => pool.run(() => {}), PoolBrokenError, "('startTimeout')");
  assertEquals(
    explainLoading(error).message,
    "Cannot run batch as the task module cannot be loaded: a worker was not ready within 20 ms",
  );
});

Deno.test("explainPool() takes what Deno cannot do for a batch that cannot be run, not for a wrong option", () => {
  for (const Refusal of [Deno.errors.NotCapable, Deno.errors.NotSupported]) {
    const cause = new Refusal("Cannot create pool as workers need Deno 2.9 or newer");
    const error = explainPool(cause);
    assertInstanceOf(error, BatchError);
    assertEquals([error.message, error.cause], ["Cannot run batch as workers need Deno 2.9 or newer", cause]);
  }
});

Deno.test(`batch() writes each rename of a file out before it goes on ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", numbers(3000));
  const { rename } = Deno;
  const { sync } = Deno.FsFile.prototype;
  const done: string[] = [];
  Deno.rename = async (from, to) => {
    await rename(from, to);
    done.push(String(to));
  };
  Deno.FsFile.prototype.sync = async function () {
    await sync.call(this);
    done.push((await this.stat()).isDirectory ? "folder" : "file");
  };
  try {
    const task = (x: number) => {
      if (x % 1000 === 0) throw new Error("no");
      return x;
    };
    const [output, errors] = [folder.of("out"), folder.of("out.errors.ndjson")];
    await run(task, { input, output, ordered: false, chunk: 1024 });
    await run(task, { input, output, retryFailed: true });
    const renames = done.filter((what) => what !== "file");
    // The errors of the first run are renamed only once if their parts were done in order.
    assertEquals(renames.filter((_, i) => i % 2 === 0).slice(-2), [output, errors]);
    assertEquals(renames.filter((_, i) => i % 2 === 1), new Array(renames.length / 2).fill("folder"));
  } finally {
    Deno.rename = rename;
    Deno.FsFile.prototype.sync = sync;
  }
});
