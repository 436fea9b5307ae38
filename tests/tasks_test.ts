import { assert, assertEquals, assertInstanceOf, assertMatch, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { PoolBrokenError, ProcessPool, type ProcessPoolOptions } from "@procpool/process-pool";
import { granted, moduleOf, within } from "./fixtures.ts";
import { Meeting, thrownBy, turn } from "./helpers.ts";

const URL_OF_TASKS = moduleOf(`
const secret = 42;

export class BadRecord extends Error {
  constructor(row) {
    super("bad record");
    this.row = row;
  }
  where() {
    return "row " + this.row;
  }
}

export function reveal(x) {
  return secret + x;
}

export const twin = (x) => secret + x;

export function fail(row) {
  throw new BadRecord(row);
}

export class NotExported {}
class Hidden extends RangeError {}

export function failHidden() {
  const error = new Hidden("hidden");
  error.code = 7;
  throw error;
}

export function failDeeply() {
  const cause = new BadRecord(1);
  cause.cause = new TypeError("root");
  const error = new AggregateError([new BadRecord(2), "no error", cause], "many", { cause });
  error.self = error;
  throw error;
}

export function failLike(name) {
  if (name === "NotFound") throw new Deno.errors.NotFound("gone");
  if (name === "AbortError") throw new DOMException("stop", "AbortError");
  throw new SyntaxError("odd");
}

export function throwValue(value) {
  throw value;
}

export function throwFunction() {
  throw () => 1;
}
`);
const tasks = await import(URL_OF_TASKS);

/** The ways in which a pool can come to know its task modules. */
const WAYS: Record<string, { options: ProcessPoolOptions; hasClasses: boolean }> = {
  "that it imports": { options: { modules: [URL_OF_TASKS] }, hasClasses: true },
  "given with their exports": { options: { modules: [{ url: URL_OF_TASKS, exports: tasks }] }, hasClasses: true },
  "that it must not import": { options: { modules: [URL_OF_TASKS], permissions: "none" }, hasClasses: false },
  "on the calling thread": { options: { modules: [URL_OF_TASKS], backend: "inline" }, hasClasses: true },
};

for (const [way, { options, hasClasses }] of Object.entries(WAYS)) {
  Deno.test(`Functions of modules ${way} are called there, with all that they can see`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 2, ...options });
    assertEquals(await within(pool.run(tasks.reveal, 1)), 43);
    assertEquals(await within(pool.run(tasks.twin, 2)), 44);
    assertEquals(await within(pool.run({ module: URL_OF_TASKS, name: "reveal" }, 3)), 45);
    assertEquals(await within(pool.run((x: number) => x * 2, 4)), 8);
  });

  Deno.test(`Errors of modules ${way} come back whole`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, ...options });

    const bad = await errorOf(pool, tasks.fail, 5);
    assertEquals([bad instanceof tasks.BadRecord, bad.message, bad.row], [hasClasses, "bad record", 5]);
    assertEquals(hasClasses ? bad.where() : bad.name, hasClasses ? "row 5" : "BadRecord");
    assertMatch(bad.stack, /bad record\n\s+at fail \(/);

    const hidden = await errorOf(pool, tasks.failHidden);
    assertEquals([hidden instanceof RangeError, hidden.message, hidden.code], [true, "hidden", 7]);

    const many = await errorOf(pool, tasks.failDeeply);
    assertEquals(Object.getPrototypeOf(many), AggregateError.prototype);
    assertEquals([many.errors[0].row, many.errors[1]], [2, "no error"]);
    assert(many.errors[2] === many.cause && many.self === many);
    assertInstanceOf(many.cause.cause, TypeError);
    assertEquals(many.errors[0] instanceof tasks.BadRecord, hasClasses);

    assertInstanceOf(await errorOf(pool, tasks.failLike, "NotFound"), Deno.errors.NotFound);
    const aborted = await errorOf(pool, tasks.failLike, "AbortError");
    assertInstanceOf(aborted, DOMException);
    assertEquals([aborted.name, aborted.message], ["AbortError", "stop"]);
    assertInstanceOf(await errorOf(pool, tasks.failLike), SyntaxError);
    assertEquals(await errorOf(pool, tasks.throwValue, { a: [1] }), { a: [1] });
    assertEquals(await errorOf(pool, tasks.throwValue, undefined), undefined);
  });
}

Deno.test("Errors of all classes of the platform come back as these, also where others are derived from them", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const suppressed = await errorOf(pool, () => {
    using _ = {
      [Symbol.dispose]() {
        throw new RangeError("second");
      },
    };
    throw new TypeError("first");
  });
  assertEquals(Object.getPrototypeOf(suppressed), SuppressedError.prototype);
  assertInstanceOf(suppressed.error, RangeError);
  assertInstanceOf(suppressed.suppressed, TypeError);
  assertEquals([suppressed.error.message, suppressed.suppressed.message], ["second", "first"]);

  const wrong = await errorOf(pool, () => new WebAssembly.Module(new Uint8Array(4)));
  assertEquals([Object.getPrototypeOf(wrong), wrong.name], [WebAssembly.CompileError.prototype, "CompileError"]);
  assertMatch(wrong.stack, /^CompileError: WebAssembly/);
  for (const name of ["CompileError", "LinkError", "RuntimeError"] as const) {
    const derived = await errorOf(pool, (name: "CompileError") => {
      class Own extends WebAssembly[name] {}
      throw new Own("message");
    }, name);
    assertEquals([Object.getPrototypeOf(derived), derived.message], [WebAssembly[name].prototype, "message"]);
  }

  const quota = await errorOf(pool, () => crypto.getRandomValues(new Uint8Array(2 ** 17)));
  const { QuotaExceededError } = globalThis as unknown as { QuotaExceededError: typeof DOMException };
  assertEquals([Object.getPrototypeOf(quota), quota.name, quota.code], [QuotaExceededError.prototype, "QuotaExceededError", 22]);
  const used = await errorOf(pool, () => {
    const { QuotaExceededError } = globalThis as unknown as { QuotaExceededError: new (message: string, options: object) => Error };
    throw Object.assign(new QuotaExceededError("message", { quota: 5, requested: 7 }), { file: "a" });
  });
  assertEquals([Object.getPrototypeOf(used), used.message], [QuotaExceededError.prototype, "message"]);
  assertEquals([used.quota, used.requested, used.file], [5, 7, "a"]);
  assertMatch(used.stack, /^QuotaExceededError: message\n/);
});

Deno.test("A thrown value that cannot be copied comes back as a TypeError, with what of it can be copied as its cause", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [URL_OF_TASKS] });
  const thrown = [
    [await errorOf(pool, tasks.throwFunction), "() => 1"],
    [
      await errorOf(pool, () => {
        throw { code: 5, f() {} };
      }),
      { code: 5 },
    ],
  ];
  for (const [error, cause] of thrown) {
    assertInstanceOf(error, TypeError);
    assertEquals([error.message, error.cause], ["The task threw something that is no error and cannot be copied", cause]);
  }
  const withError = await errorOf(pool, () => {
    throw { reason: new RangeError("inner"), f() {} };
  });
  assertInstanceOf(withError, TypeError);
  assertEquals(String((withError.cause as { reason: unknown }).reason), "RangeError: inner");
});

Deno.test("An error of a class that names itself keeps its name, and one without end comes back as another", async () => {
  const url = moduleOf(`
    export class Named extends Error { constructor(m) { super(m); this.name = "Own"; } }
    export function fail() { throw new Named("m"); }
    export function failForEver() { let e = new Error("0"); for (let i = 0; i < 50_000; i++) e = new Error("x", { cause: e }); throw e; }
  `);
  const module = await import(url);
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [url] });
  const named = await errorOf(pool, module.fail);
  assertEquals([named instanceof module.Named, named.name, named.message], [true, "Own", "m"]);
  const endless = await errorOf(pool, module.failForEver);
  assertEquals([endless.message, endless.cause.cause.message], ["x", "x"]);
  assertEquals(await within(pool.run((x: number) => x, 1)), 1);
});

Deno.test("A task sent as source text is strict: it cannot make a global of a variable that it does not see", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  let total = 0;
  const error = await errorOf(pool, (x: number) => {
    total = x;
  }, 5);
  assertInstanceOf(error, ReferenceError);
  assertStringIncludes(error.message, "total is not defined; a function that is sent as source text");
  assertEquals(total, 0);
});

Deno.test("A task sent as source text that begins with a name like 'class$' is not taken for a class", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  assertEquals(await pool.run((0, eval)("class$ => 2 * class$"), 3), 6);
});

Deno.test("A task sent as source text has no 'this', be it an arrow function: what it looks for there is an error, and not undefined", async () => {
  class Scale {
    factor = 2;
    apply = (x: number) => x * this.factor;
  }
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const error = await errorOf(pool, new Scale().apply, 21);
  assertInstanceOf(error, TypeError);
  assertStringIncludes(error.message, "Cannot read properties of undefined (reading 'factor')");
});

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`A task sent as source text does not see a global of its worker in place of a variable of that name around it (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    const name = "bear", location = "forest";
    for (const task of [() => `${name}`, async () => await location]) {
      const error = await errorOf(pool, task);
      assertInstanceOf(error, ReferenceError);
      assertMatch(
        error.message,
        /^Cannot access '(name|location)' before initialization; a function that is sent as source text cannot see/,
      );
    }
    // Its own properties are its own.
    assertEquals(await within(pool.run((name: string) => ((location) => name + location)("s"), "bear")), "bears");
  });
}

Deno.test("A task whose first job was taken back runs all the same, and one that its module does not export fails each time", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [URL_OF_TASKS] });
  await pool.warmUp();
  const twice = (x: number) => x * 2;
  for (let i = 0; i < 100; i++) {
    const fresh = new Function("x", `return x + ${i}`) as (x: number) => number;
    pool.trySubmit(fresh, 1)!.cancel();
    assertEquals(await within(pool.run(fresh, 1)), i + 1);
  }
  for (let i = 0; i < 2; i++) {
    assertStringIncludes((await errorOf(pool, { module: URL_OF_TASKS, name: "revel" })).message, "does not export a function 'revel'");
  }
  assertEquals(await within(pool.run(twice, 2)), 4);
});

Deno.test("A task that its module does not export fails its future, and the message lists those that it does", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [URL_OF_TASKS] });
  const error = await errorOf(pool, { module: URL_OF_TASKS, name: "revel" });
  assertInstanceOf(error, TypeError);
  assertStringIncludes(
    error.message,
    "Cannot run task as its module does not export a function 'revel': it exports 'BadRecord', 'NotExported'",
  );
});

Deno.test("A task of a module that exports no function fails its future with an error that says so", async () => {
  const module = moduleOf("export default { reveal: () => 43 };");
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [module] });
  const { message } = await errorOf(pool, { module, name: "reveal" });
  assertEquals(message, "Cannot run task as its module does not export a function 'reveal': it exports no function");
});

Deno.test("A function by reference that cannot be sent fails its own future, where the modules are not known at once", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [URL_OF_TASKS] });
  assertInstanceOf(await errorOf(pool, Math.max, 1), TypeError);
  assertEquals(await within(pool.run(tasks.reveal, 1)), 43);
});

const outer = 5;

Deno.test("Where a module is given with its exports, the backend inline runs these, and no other copy of the module", async () => {
  const source = "let rate = 1; export function set(to) { rate = to; } export const read = () => rate;";
  const exports = await import(moduleOf(source));
  const url = moduleOf(`${source} // another copy`);
  await using pool = new ProcessPool({ backend: "inline", modules: [{ url, exports }] });
  exports.set(2);
  assertEquals([await within(pool.run(exports.read)), await within(pool.run({ module: url, name: "read" }))], [2, 2]);
});

Deno.test("A function sent as source text that uses what is around it is told about 'modules'", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  for (const task of [() => outer, async () => await outer]) {
    const error = await errorOf(pool, task);
    assertInstanceOf(error, ReferenceError);
    assertStringIncludes(
      error.message,
      "outer is not defined; a function that is sent as source text cannot see the variables and imports around it",
    );
  }
});

Deno.test("A function sent as source text that uses what is around it is told that no task module exports it, if there are task modules", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [URL_OF_TASKS] });
  const hint = "export it from a module and name that in the pool's 'modules', none of which exports this very function";
  assertStringIncludes((await errorOf(pool, () => outer)).message, hint);
});

Deno.test("A function sent as source text that uses the 'this' around it is told that it has none", async () => {
  class Service {
    rate = 2;
    read = () => this.rate;
    write = () => void (this.rate = 3);
    take = () => {
      const { rate } = this;
      return rate;
    };
    method() {
      return this.rate;
    }
  }
  const { read, write, take, method } = new Service();
  const hint = "; a function that is sent as source text has no 'this': give it what it needs as arguments";
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const messages: string[] = [];
  for (const task of [read, write, take, method]) messages.push((await errorOf(pool, task)).message);
  assertEquals(messages, [
    `Cannot read properties of undefined (reading 'rate')${hint}`,
    `Cannot set properties of undefined (setting 'rate')${hint}`,
    `Cannot destructure property 'rate' of 'this' as it is undefined${hint}`,
    `Cannot read properties of undefined (reading 'rate')${hint}`,
  ]);
});

Deno.test("A function sent as source text in which something else is undefined is told nothing of 'this'", async () => {
  type Given = { rate: number };
  const arrow = (x?: Given) => ({ rate: 1, own: () => x!.rate }).own();
  const inClass = (x?: Given) =>
    new class {
      rate = 1;
      own() {
        return this.rate + x!.rate;
      }
    }().own();
  const inFunction = (x?: Given) => {
    function own(this: Given) {
      return this.rate;
    }
    return own.call({ rate: 1 }) + x!["rate"];
  };
  const inObject = (x?: Given) =>
    ({
      rate: 1,
      own() {
        return this.rate + x!.rate;
      },
    }).own();
  const longer = (x?: Given) =>
    ({
      rates: 1,
      own() {
        return this.rates + x!["rate"];
      },
    }).own();
  await using pool = new ProcessPool({ maxWorkers: 1 });
  for (const task of [arrow, inClass, inFunction, inObject, longer]) {
    assertEquals((await errorOf(pool, task)).message, "Cannot read properties of undefined (reading 'rate')", task.name);
  }
  const unbound = () => {
    const { own } = new class {
      rate = 1;
      own() {
        const { rate } = this;
        return rate;
      }
    }();
    return own();
  };
  assertEquals((await errorOf(pool, unbound)).message, "Cannot destructure property 'rate' of 'this' as it is undefined.");
});

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`A function sent as source text that imports a relative address is told about 'modules', in a few words (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    const error = await errorOf(pool, async () => await import("./" + "tasks.ts")) as Error;
    assertInstanceOf(error, TypeError);
    const limit = "it can only import absolute addresses and names of the import map";
    const hint = `${limit}: use one, or export it from a module and name that in the pool's 'modules'`;
    const deno = 'Import "./tasks.ts" not a dependency and not in import map from a function that is sent as source text';
    assertEquals(error.message, `${deno}; ${hint}`);
    assertEquals(error.stack!.includes("data:"), false);
  });
}

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`A task that asks for a relative address fails as it does on the calling thread, in a few words (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    const request = () => {
      try {
        return new Request("/page").url;
      } catch (cause) {
        throw new Error(`Cannot ask: ${(cause as Error).message}`, { cause });
      }
    };
    const error = await errorOf(pool, request) as Error & { cause: Error };
    assertEquals([error.message, error.cause.message], ["Cannot ask: Invalid URL: '/page'", "Invalid URL: '/page'"]);
    assertEquals([error, error.cause].map(({ stack }) => stack!.includes("data:")), [false, false]);
  });
}

for (const backend of ["worker", "killable"] as const) {
  Deno.test(`A task that puts something else in the place of its address fails with its own errors (${backend})`, async () => {
    await using pool = new ProcessPool({ maxWorkers: 1, backend });
    const broken = [
      () => {
        const get = () => {
          throw new Error("There is no address");
        };
        Object.defineProperty(globalThis, "location", { configurable: true, get });
        throw new RangeError("mine");
      },
      () => {
        Object.defineProperty(globalThis, "location", { configurable: true, value: { href: new URL("http://localhost") } });
        throw new RangeError("mine");
      },
    ];
    for (const task of broken) assertEquals(`${await errorOf(pool, task)}`, "RangeError: mine");
    assertEquals((await errorOf(pool, () => new Request("/page").url) as Error).message, "Invalid URL: '/page'");
  });
}

Deno.test(
  "A function sent as source text imports by a name of the import map (needs --allow-read)",
  { ignore: !granted("read") },
  async () => {
    await using pool = new ProcessPool({ maxWorkers: 1 });
    assertEquals(await within(pool.run(async () => typeof (await import("@std/assert")).assertEquals)), "function");
  },
);

Deno.test("Functions sent as source text may be written in every way that JavaScript has", async () => {
  const holder = {
    method(x: number) {
      return x + 1;
    },
    async asyncMethod(x: number) {
      return await x + 2;
    },
    ["comp" + "uted"](x: number) {
      return x + 3;
    },
    get(x: number) {
      return x + 4;
    },
    arrow: (x: number) => x + 5,
    expression: function named(x: number): number {
      return x <= 0 ? 6 : named(x - 1) + 1;
    },
    function(x: number) {
      return x + 7;
    },
    withArguments(_: number) {
      return (() => arguments.length + 7)();
    },
  };
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const results: number[] = [];
  for (const task of Object.values(holder)) results.push(await within(pool.run(task as (x: number) => number, 0)));
  assertEquals(results, [1, 2, 3, 4, 5, 6, 7, 8]);
});

Deno.test("More functions sent as source text than a worker keeps are forgotten and sent again", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, jobsPerWorker: 4 });
  const made = Array.from({ length: 1500 }, (_, i) => new Function("x", `return x + ${i}`) as (x: number) => number);
  const futures = [];
  for (const task of [...made, ...made]) futures.push(await pool.submit(task, 1));
  const results = await within(Promise.all(futures.map((future) => future.result())));
  assertEquals(results, [...made, ...made].map((task) => task(1)));
});

Deno.test("The stack of an error of a task sent as source text names the task and its line", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const error = await errorOf(pool, function divide() {
    throw new RangeError("by zero");
  });
  assertMatch(error.stack, /^RangeError: by zero\n\s+at divide \(process-pool\/divide, <anonymous>:2:\d+\)$/);
});

Deno.test("A function that has something else than a name runs as one without a name", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  for (const value of [undefined, 5, Symbol("name"), () => {}]) {
    const double = Object.defineProperty((x: number) => 2 * x, "name", { value });
    assertEquals(await within(pool.run(double, 2)), 4);
  }
});

Deno.test("The stack of an error ends with the task's own lines, whatever the task awaits", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  async function fail() {
    await undefined;
    throw new RangeError("late");
  }
  function refuse() {
    return { then: (_: unknown, reject: (error: unknown) => void) => reject(new RangeError("late")) };
  }
  const tasks: (() => unknown)[] = [fail, refuse];
  for (const task of tasks) {
    const ofItem = await thrownBy(() => pool.map(task, [1]).next()) as Error;
    for (const error of [await errorOf(pool, task), ofItem]) {
      assertMatch(error.stack!, /^RangeError: late(\n\s+at .*\(process-pool\/(fail|refuse), .*\))+$/);
    }
  }
});

Deno.test("The stack of an error in an initializer ends with its own lines", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, initializer: () => Promise.reject(new RangeError("no")) });
  const { cause } = await thrownBy(() => pool.warmUp()) as Error;
  assertMatch((cause as Error).stack!, /^RangeError: no\n\s+at .*\(process-pool\/initializer, .*\)$/);
});

Deno.test("The stack of an error by reference leads to the task's own file and line (needs --allow-read)", {
  ignore: !granted("read"),
}, async () => {
  const url = import.meta.resolve("./fixtures/failing_task.ts");
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [url] });
  const task = { module: url, name: "failAtLine4" };
  const ofItem = await thrownBy(() => pool.map(task, [1]).next()) as Error;
  for (const error of [await errorOf(pool, task), ofItem]) {
    assertMatch(
      error.stack!,
      /^RangeError: here\n\s+at thrower \(.*fixtures\/failing_task\.ts:4:9\)\n\s+at failAtLine4 \(.*failing_task\.ts:8:10\)$/,
    );
  }
});

Deno.test("ProcessPool with permissions 'none' loads task modules from disk and is denied the rest (needs --allow-read)", {
  ignore: !granted("read"),
}, async () => {
  const url = import.meta.resolve("./fixtures/curious_task.ts");
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [url], permissions: "none" });
  assertEquals(await within(pool.run({ module: url, name: "add" }, 1, 2)), 3);
  const denied = await errorOf(pool, { module: url, name: "read" }, new URL(url).pathname);
  assertInstanceOf(denied, Deno.errors.NotCapable);
  assertStringIncludes(denied.message, "Requires read access to");
  const notLoaded = await errorOf(pool, { module: url, name: "load" }, import.meta.resolve("./fixtures/failing_task.ts"));
  assertStringIncludes(notLoaded.message, "Requires read access to");
  assertEquals((await errorOf(pool, () => Deno.readTextFileSync("deno.json"))).name, "NotCapable");
});

Deno.test("ProcessPool gives its workers the permissions that it is told, and no others (needs --allow-read)", {
  ignore: !granted("read"),
}, async () => {
  const here = new URL("./fixtures.ts", import.meta.url).pathname;
  const elsewhere = new URL("../deno.json", import.meta.url).pathname;
  for (const folder of [new URL(".", import.meta.url), import.meta.resolve("./"), new URL(".", import.meta.url).pathname]) {
    await using pool = new ProcessPool({ maxWorkers: 1, permissions: { read: [folder] } });
    assertStringIncludes(await within(pool.run((path: string) => Deno.readTextFileSync(path), here)), "moduleOf");
    assertInstanceOf(await errorOf(pool, (path: string) => Deno.readTextFileSync(path), elsewhere), Deno.errors.NotCapable);
  }
});

Deno.test("ProcessPool refuses to give its workers a permission that the calling thread lacks (needs to have no --allow-ffi)", {
  ignore: granted("ffi"),
}, () => {
  const requests: [permissions: Deno.PermissionOptions, flag: string][] = [
    [{ ffi: true }, "--allow-ffi"],
    [{ ffi: ["/lib/a.so"] }, "--allow-ffi=/lib/a.so"],
    [{ ffi: ["file:///lib/a.so"] }, "--allow-ffi=/lib/a.so"],
    [{ ffi: [new URL("file:///lib/a.so")] }, "--allow-ffi=/lib/a.so"],
    [{ net: ["example.com:443"] }, "--allow-net=example.com:443"],
    [{ net: ["*.example.com"] }, "--allow-net=*.example.com"],
    [{ import: ["*.example.com"] }, "--allow-import=*.example.com"],
    [{ sys: ["hostname"] }, "--allow-sys=hostname"],
  ];
  for (const [permissions, flag] of requests) {
    const error = assertThrows(() => new ProcessPool({ permissions }), Deno.errors.NotCapable);
    assertEquals(error.message, `Cannot create pool as its workers are to have a permission that this thread lacks: run it with ${flag}`);
  }
});

/** Runs a program with these permissions, which it may pass on to workers; returns what it prints. */
async function runPermitted(program: string, permissions: string[]): Promise<string> {
  const args = ["run", "--no-prompt", "--unstable-worker-options", ...permissions, moduleOf(program)];
  const { stdout } = await new Deno.Command(Deno.execPath(), { args }).output();
  return new TextDecoder().decode(stdout);
}

Deno.test("A function by source is told what it can import also where there is no import map (needs --allow-run)", {
  ignore: !granted("run"),
}, async () => {
  const program = `
    import { ProcessPool } from "${import.meta.resolve("../mod.ts")}";
    await using pool = new ProcessPool({ maxWorkers: 1 });
    for (const address of ["./tasks.ts", "tasks", "preact", "data:text/javascript,import 'tasks'"]) {
      const future = await pool.submit((address) => import(address), address);
      console.log((await future.exception()).message.includes("; it can only import absolute addresses"));
    }
  `;
  // The last one is of a module, which may import what it can.
  assertEquals(await runPermitted(program, ["--no-config"]), "true\ntrue\ntrue\nfalse\n");
});

Deno.test("ProcessPool says what Deno does not give to workers, before any starts (needs --allow-run)", {
  ignore: !granted("run"),
}, async () => {
  const program = `
    import { ProcessPool } from "${import.meta.resolve("../mod.ts")}";
    for (const permissions of [{ read: ["/a/b"] }, { read: ["/a"] }, { net: ["10.0.0.0/8"] }]) {
      try {
        new ProcessPool({ permissions });
      } catch (error) {
        console.log(error.name, error.message);
      }
    }
    await using pool = new ProcessPool({ maxWorkers: 1, permissions: { read: true, net: "inherit" } });
    const questions = [{ name: "read", path: "/a" }, { name: "read", path: "/a/b" }, { name: "net", host: "10.1.2.3" }];
    console.log(await pool.run((questions) => questions.map((each) => Deno.permissions.querySync(each).state).join(" "), questions));
  `;
  const printed = await runPermitted(program, ["--allow-read", "--deny-read=/a/b", "--allow-net=10.0.0.0/8"]);
  const denied =
    "its workers are to have a permission that this thread is denied, at least in part: run it without --deny-read, or leave out";
  assertEquals(printed.split("\n"), [
    `NotCapable Cannot create pool as ${denied} "/a/b" in 'permissions.read'`,
    `NotCapable Cannot create pool as ${denied} "/a" in 'permissions.read'`,
    "NotCapable Cannot create pool as Deno gives workers a subnet only if this thread has all of --allow-net: use that, name the addresses, " +
    `or set 'permissions.net' to "inherit": current value is a list with "10.0.0.0/8"`,
    "granted denied granted",
    "",
  ]);
});

Deno.test("ProcessPool gives its workers all hosts of a domain, where the calling thread has those (needs --allow-run)", {
  ignore: !granted("run"),
}, async () => {
  const program = `
    import { ProcessPool } from "${import.meta.resolve("../mod.ts")}";
    for (const name of ["net", "import"]) {
      await using pool = new ProcessPool({ maxWorkers: 1, permissions: { [name]: ["*.example.com"] } });
      const stateOf = (name, host) => Deno.permissions.querySync({ name, host }).state;
      console.log(await pool.run(stateOf, name, "www.example.com"), await pool.run(stateOf, name, "example.org"));
    }
  `;
  const printed = await runPermitted(program, ["--allow-net=*.example.com", "--allow-import=*.example.com"]);
  assertEquals(printed, "granted prompt\n".repeat(2));
});

Deno.test("ProcessPool that is only given TaskRefs imports nothing on the calling thread", async () => {
  const url = moduleOf(`globalThis[Symbol.for("loaded")] = true; export const f = (x) => x + 1;`);
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [url] });
  assertEquals(await within(pool.run({ module: url, name: "f" }, 1)), 2);
  assertEquals((globalThis as Record<symbol, unknown>)[Symbol.for("loaded")], undefined);
});

Deno.test("ProcessPool with permissions imports nothing on the calling thread", async () => {
  const url = moduleOf(`globalThis[Symbol.for("imported")] = true; export const f = (x) => x + 1;`);
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [url], permissions: "none" });
  assertEquals(await within(pool.run((x: number) => x - 1, 1)), 0);
  assertEquals((globalThis as Record<symbol, unknown>)[Symbol.for("imported")], undefined);
});

Deno.test("ProcessPool passes messages that a task sends by itself to nobody", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1 });
  const result = pool.run(() => {
    const scope = globalThis as unknown as { postMessage(message: unknown): void };
    for (const type of ["alive", "returned", "dying", "closed"]) scope.postMessage({ type, run: 1, value: "forged" });
    return "genuine";
  });
  assertEquals(await within(result), "genuine");
});

Deno.test("The functions of a module that only loads in workers are recognised as well", async () => {
  const url = moduleOf(`
    if (globalThis.WorkerGlobalScope === undefined) throw new Error("only in workers");
    const secret = 42;
    export const reveal = (x) => x + secret;
  `);
  // As the module would provide it, if it could be imported here.
  const reveal = new Function("const secret = 0; const reveal = (x) => x + secret; return reveal;")() as (x: number) => number;
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [url] });
  assertEquals(await within(pool.run(reveal, 1)), 43);
});

Deno.test("An initializer of a pool with modules that cannot be sent breaks the pool", async () => {
  const pool = new ProcessPool({ maxWorkers: 1, modules: [URL_OF_TASKS], initializer: Math.random });
  const error = await assertRejects(() => within(pool.run(tasks.reveal, 1)), PoolBrokenError);
  assertInstanceOf(error.cause, TypeError);
  await pool.shutdown();
});

Deno.test("A module that cannot be found breaks the pool with an error that names it", async () => {
  const url = moduleOf(`await import("file:///" + "nowhere.ts");`);
  const pool = new ProcessPool({ modules: [url] });
  const error = await assertRejects(() => within(pool.run(() => 1)), PoolBrokenError);
  assertStringIncludes((error.cause as Error).message, "/nowhere.ts");
  await pool.shutdown();
});

Deno.test("Exports of one text that are different functions are not taken for each other where only workers have their module", async () => {
  const url = moduleOf(`
    const times = (factor) => (x) => x * factor;
    export const [double, triple] = [times(2), times(3)];
    export const add = (x) => x + 1;
    export { add as plus, add as default };
  `);
  const { double, triple, add, plus } = await import(url);
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [url], permissions: "none" });
  for (const task of [double, triple]) {
    const error = await thrownBy(() => within(pool.run(task, 5)));
    assertInstanceOf(error, TypeError);
    assertStringIncludes(error.message, "export several functions with this name and text: give the module as { url, exports }");
  }
  // Under another name it is the same function.
  assertEquals([await within(pool.run(add, 5)), await within(pool.run(plus, 5))], [6, 6]);
  for (const [name, result] of [["double", 10], ["triple", 15], ["add", 6], ["plus", 6], ["default", 6]] as const) {
    assertEquals(await within(pool.run({ module: url, name }, 5)), result);
  }
  await using knowing = new ProcessPool({ maxWorkers: 1, modules: [{ url, exports: await import(url) }], permissions: "none" });
  assertEquals([await within(knowing.run(double, 5)), await within(knowing.run(triple, 5))], [10, 15]);
});

Deno.test("An error keeps its class that two modules export, of which the caller knows the last", async () => {
  const url = moduleOf(`export class Bad extends Error {}`);
  const tasksUrl = moduleOf(
    `export * from ${JSON.stringify(url)}; import { Bad } from ${JSON.stringify(url)}; export const fail = () => { throw new Bad("x"); };`,
  );
  const errors = await import(url);
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [tasksUrl, { url, exports: errors }], permissions: "none" });
  const future = await pool.submit({ module: tasksUrl, name: "fail" });
  assertInstanceOf(await within(future.exception()), errors.Bad);
});

Deno.test("A worker knows the task of each call, with more tasks than it keeps and however many calls are ahead", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 5000 });
  const make = (i: number) => new Function("x", `return x + ${i}`) as (x: number) => number;
  const count = (memory: Int32Array | undefined, ...texts: string[]) => {
    if (memory !== undefined) Atomics.wait(memory, 1, 0);
    return texts.length;
  };
  // With this one, as many as are kept.
  for (let i = 0; i < 999; i++) assertEquals(await within(pool.run(make(i), 1)), i + 1);
  for (let i = 0; i < 100; i++) await within(Promise.all(Array.from({ length: 500 }, () => pool.run(count, undefined, "a"))));
  const meeting = new Meeting();
  const held = pool.run(count, meeting.memory);
  // They take half of the room beside messages.
  const texts = (i: number) => Array.from({ length: 4 }, (_, k) => `${i} ${k} ${"x".repeat(70)}`);
  const calls = Array.from({ length: 250 }, (_, i) => pool.run(count, undefined, ...texts(i)));
  const last = pool.run(make(1000), 1);
  await turn();
  meeting.letGo();
  assertEquals(await within(held), 0);
  assertEquals(await within(Promise.all(calls)), Array(250).fill(4));
  assertEquals(await within(last), 1001);
});

Deno.test("A worker has the task of each call that as many others overtake as it holds jobs, all of other tasks", async () => {
  await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 5000 });
  let made = 0;
  const make = () => new Function("x", `return x + ${made++}`) as (x: number) => number;
  const count = (...lists: number[][]) => lists.length;
  const held = async (memory: Int32Array) => {
    await Atomics.waitAsync(memory, 1, 0).value;
    return "held";
  };
  const early = new Meeting();
  early.letGo();
  await within(pool.run(held, early.memory));
  await within(pool.run(count));
  // With these two, a thousand.
  for (let i = 0; i < 998; i++) await within(pool.run(make(), 1));
  for (let i = 0; i < 100; i++) await within(Promise.all(Array.from({ length: 1000 }, () => pool.run(count))));
  const meeting = new Meeting();
  const first = pool.run(held, meeting.memory);
  // They take half of the room beside messages, so nothing determines whose turn it is among those that come next.
  const lists = Array.from({ length: 3 }, () => new Array<number>(140).fill(0.5));
  const calls = Array.from({ length: 11 }, () => pool.run(count, ...lists));
  const others = Array.from({ length: 1010 }, () => pool.run(make(), 1));
  await turn();
  meeting.letGo();
  assertEquals(await within(first), "held");
  assertEquals(await within(Promise.all(calls)), Array(11).fill(3));
  await within(Promise.all(others));
});

// deno-lint-ignore no-explicit-any -- whatever it is, tests look into it
async function errorOf(pool: ProcessPool, task: any, ...args: unknown[]): Promise<any> {
  const future = await pool.submit(task, ...args);
  const error = await within(future.exception());
  assertEquals(future.state, "failed");
  return error;
}

for (const backend of ["worker", "killable"] as const) {
  Deno.test({
    name: `ProcessPool refuses to start workers while its own module is loaded in one (${backend}) (needs --allow-read)`,
    ignore: !granted("read"),
    async fn() {
      const main = moduleOf(`
import { ProcessPool } from "${import.meta.resolve("../mod.ts")}";
export function triple(x) {
  return 3 * x;
}
const pool = new ProcessPool({ modules: [import.meta.url], backend: "${backend}" });
await pool.run(triple, 1);
`);
      await using pool = new ProcessPool({ maxWorkers: 1, modules: [main], backend });
      const error = await errorOf(pool, { module: main, name: "triple" });
      assertInstanceOf(error, PoolBrokenError);
      const causes = [];
      for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) causes.push(cause.message);
      assertMatch(causes.at(-1)!, /^Cannot start worker as this is a worker that still loads its task modules/);
    },
  });

  Deno.test({
    name: `ProcessPool refuses to start workers for what its module only begins as it is loaded in one (${backend}) (needs --allow-read)`,
    ignore: !granted("read"),
    async fn() {
      const main = moduleOf(`
import { ProcessPool } from "${import.meta.resolve("../mod.ts")}";
export function triple(x) {
  return 3 * x;
}
const pool = new ProcessPool({ maxWorkers: 1, modules: [import.meta.url], backend: "${backend}" });
const ended = pool.run(triple, 1).catch((error) => error.cause.message);
export function end() {
  return ended;
}
`);
      await using pool = new ProcessPool({ maxWorkers: 1, modules: [main], backend });
      const end: unknown = await within(pool.run({ module: main, name: "end" }));
      assertMatch(String(end), /^Cannot start worker as this is a worker that still loads its task modules/);
    },
  });
}

Deno.test({
  name: "ProcessPool of a task module starts workers when that is loaded (needs --allow-read)",
  ignore: !granted("read"),
  async fn() {
    const module = moduleOf(`
import { ProcessPool } from "${import.meta.resolve("../mod.ts")}";
const pool = new ProcessPool({ maxWorkers: 1, modules: [import.meta.url] });
export function double(x) {
  return 2 * x;
}
export async function fourfold(x) {
  const result = 2 * await pool.run(double, x);
  await pool.shutdown();
  return result;
}
`);
    await using pool = new ProcessPool({ maxWorkers: 1, modules: [module] });
    assertEquals(await within(pool.run({ module, name: "fourfold" }, 3)), 12);
  },
});
