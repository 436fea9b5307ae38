import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import {
  asCompleted,
  endProgram,
  Interrupt,
  Job,
  type ObservedPool,
  ProcessPool,
  type ProcessPoolOptions,
  Semaphore,
  wait,
} from "@procpool/process-pool";
import { granted } from "./fixtures.ts";
import { thrownBy } from "./helpers.ts";

type ErrorClass = new (message: string) => Error;

/** A call, how it is made, and the error that it ends in. */
type Row = [call: string, action: () => unknown, errorClass: ErrorClass, message: string];

/** A value that the types do not allow. */
function wrong(value: unknown): never {
  return value as never;
}

function noop(): void {}

class Klass {}

function* generator(): Generator<number> {
  yield 1;
}

async function* asyncGenerator(): AsyncGenerator<number> {
  yield await Promise.resolve(1);
}

const getter = Object.getOwnPropertyDescriptor({
  get value() {
    return 1;
  },
}, "value")!.get!;

class Private {
  #rate = 2;
  task = (x: number) => x * this.#rate;
  // Something that looks like a private name, and a private name of a class within.
  other = () =>
    new class {
      #own = "#tag"; // #comment
      read() {
        return this.#own;
      }
    }().read() + `#constructor ${this.#rate}`;
  method() {
    return this.#rate;
  }
}
const { outerArguments } = function () {
  return { outerArguments: () => arguments.length };
}();

const LONGEST = 2147483647;
const POOL_OPTIONS = "'maxWorkers', 'queueSize', 'modules', 'permissions', 'backend', 'initializer', 'initArgs', 'finalizer', " +
  "'jobsPerWorker', 'maxJobsPerWorker', 'jobTimeout', 'startTimeout', 'memoryLimit', 'retries', 'idleTimeout', 'onError', " +
  "'trace', 'measure', 'observers'";
const PERMISSIONS = "'read', 'write', 'net', 'env', 'sys', 'run', 'ffi', 'import'";
const ADVICE = "export a function from a module, name that module in the pool's 'modules', and give the function";
const MODULE = 'must be the address of a module, such as import.meta.resolve("./tasks.ts"), or { url, exports }: current value is';
const UNLISTED = `as its module must be one of the pool's 'modules' (there are none): current value is "file:///tasks.ts"`;

/** Rows of an option that takes a whole number. */
function integers(
  call: string,
  option: string,
  action: string,
  make: (options: never) => unknown,
  { infinite = false, or = "" } = {},
): Row[] {
  const message = `Cannot ${action} as '${option}' must be a positive integer${or}: current value is`;
  const given: [value: unknown, errorClass: ErrorClass, shown: string][] = [
    [0, RangeError, "0"],
    [-1, RangeError, "-1"],
    [1.5, RangeError, "1.5"],
    [NaN, RangeError, "NaN"],
    ...(infinite ? [] : [[Infinity, RangeError, "Infinity"] as [unknown, ErrorClass, string]]),
    [-Infinity, RangeError, "-Infinity"],
    [2 ** 53, RangeError, "9007199254740992"],
    ["4", TypeError, '"4"'],
    [null, TypeError, "null"],
    [4n, TypeError, "4n"],
    [Symbol("four"), TypeError, "Symbol(four)"],
    [[4], TypeError, "an array of 1"],
  ];
  return given.map(([value, errorClass, shown]) => [
    `${call}({ ${option}: ${shown} })`,
    () => make(wrong({ [option]: value })),
    errorClass,
    `${message} ${shown}`,
  ]);
}

/** Rows of an option that takes a time. */
function times(call: string, option: string, action: string, make: (options: never) => unknown, { infinite = false } = {}): Row[] {
  const wanted = `a number of milliseconds from 0 to ${LONGEST}${infinite ? ", or Infinity" : ""}`;
  const given: [value: unknown, errorClass: ErrorClass, shown: string][] = [
    [-1, RangeError, "-1"],
    [NaN, RangeError, "NaN"],
    ...(infinite ? [] : [[Infinity, RangeError, "Infinity"] as [unknown, ErrorClass, string]]),
    [-Infinity, RangeError, "-Infinity"],
    [LONGEST + 1, RangeError, "2147483648"],
    ["4", TypeError, '"4"'],
    [null, TypeError, "null"],
    [4n, TypeError, "4n"],
  ];
  return given.map(([value, errorClass, shown]) => [
    `${call}({ ${option}: ${shown} })`,
    () => make(wrong({ [option]: value })),
    errorClass,
    `Cannot ${action} as '${option}' must be ${wanted}: current value is ${shown}`,
  ]);
}

/** Rows of an option that is true or false. */
function booleans(call: string, option: string, action: string, make: (options: never) => unknown): Row[] {
  return ([[null, "null"], [0, "0"], ["false", '"false"'], [{}, "an object of class Object"]] as const).map(([value, shown]) => [
    `${call}({ ${option}: ${shown} })`,
    () => make(wrong({ [option]: value })),
    TypeError,
    `Cannot ${action} as '${option}' must be true or false: current value is ${shown}`,
  ]);
}

/** Rows of a signal. */
function signals(call: string, action: string, make: (options: never) => unknown): Row[] {
  const given = [[null, "null"], [{}, "an object of class Object"], [new AbortController(), "an object of class AbortController"]] as const;
  return given.map(([value, shown]) => [
    `${call}({ signal: ${shown} })`,
    () => make(wrong({ signal: value })),
    TypeError,
    `Cannot ${action} as 'signal' must be an AbortSignal: current value is ${shown}`,
  ]);
}

/** Rows of an options object itself. */
function objects(call: string, action: string, known: string, make: (options: never) => unknown): Row[] {
  const given: [value: unknown, shown: string][] = [
    [null, "null"],
    [4, "4"],
    ["fast", '"fast"'],
    [true, "true"],
    [[], "an array of 0"],
    [noop, "function noop"],
    [new Map(), "an object of class Map"],
    [AbortSignal.abort(), "an object of class AbortSignal"],
    [new (class Settings {})(), "an object of class Settings"],
  ];
  return [
    ...given.map(([value, shown]): Row => [
      `${call}(${shown})`,
      () => make(wrong(value)),
      TypeError,
      `Cannot ${action} as its options must be a plain object: current value is ${shown}`,
    ]),
    [
      `${call}({ tiemout: 4 })`,
      () => make(wrong({ tiemout: 4 })),
      TypeError,
      `Cannot ${action} as there is no option 'tiemout': known options are ${known}`,
    ],
    [
      `${call}({ tiemout: undefined })`,
      () => make(wrong({ tiemout: undefined })),
      TypeError,
      `Cannot ${action} as there is no option 'tiemout': known options are ${known}`,
    ],
  ];
}

/** Rows of a function that no worker can run, for everything that takes one. */
function functions(call: string, take: (func: never) => unknown): Row[] {
  return [
    [
      `${call}(class Klass)`,
      () => take(wrong(Klass)),
      TypeError,
      `Cannot send 'Klass' to a worker as it is a class, which cannot be called: ${ADVICE}`,
    ],
    [
      `${call}(an unnamed class)`,
      () => take(wrong((() => class {})())),
      TypeError,
      `Cannot send 'anonymous' to a worker as it is a class, which cannot be called: ${ADVICE}`,
    ],
    [
      `${call}(Math.max)`,
      () => take(wrong(Math.max)),
      TypeError,
      `Cannot send 'max' to a worker as it is native or bound and has no text: wrap it in a function, or ${ADVICE}`,
    ],
    [
      `${call}(Map)`,
      () => take(wrong(Map)),
      TypeError,
      `Cannot send 'Map' to a worker as it is native or bound and has no text: wrap it in a function, or ${ADVICE}`,
    ],
    [
      `${call}(noop.bind(null))`,
      () => take(wrong(noop.bind(null))),
      TypeError,
      `Cannot send 'bound noop' to a worker as it is native or bound and has no text: wrap it in a function, or ${ADVICE}`,
    ],
    [
      `${call}(a proxy of a function)`,
      () => take(wrong(new Proxy(noop, {}))),
      TypeError,
      `Cannot send 'noop' to a worker as it is native or bound and has no text: wrap it in a function, or ${ADVICE}`,
    ],
    [
      `${call}(generator)`,
      () => take(wrong(generator)),
      TypeError,
      "Cannot send 'generator' to a worker as it is a generator, whose values cannot come back: return an array of them",
    ],
    [
      `${call}(asyncGenerator)`,
      () => take(wrong(asyncGenerator)),
      TypeError,
      "Cannot send 'asyncGenerator' to a worker as it is a generator, whose values cannot come back: return an array of them",
    ],
    [
      `${call}(() => import.meta.url)`,
      () => take(wrong(() => import.meta.url)),
      TypeError,
      `Cannot send 'anonymous' to a worker as it uses 'import.meta', which exists only within a module: ${ADVICE}`,
    ],
    [
      `${call}(() => arguments)`,
      () => take(wrong(outerArguments)),
      TypeError,
      "Cannot send 'outerArguments' to a worker as it uses 'arguments' that are not its own, as those of an arrow function are: " +
      `name its parameters, or ${ADVICE}`,
    ],
    ...(["task", "other", "method"] as const).map((name): Row => [
      `${call}(the ${name} with a private name)`,
      () => take(wrong(new Private()[name])),
      TypeError,
      `Cannot send '${name}' to a worker as it uses '#rate', which exists only within a class: let it take what it needs from its arguments, or ${ADVICE}`,
    ]),
    [
      `${call}(an accessor)`,
      () => take(wrong(getter)),
      TypeError,
      `Cannot send 'get value' to a worker as it has a text that is not that of a function: ${ADVICE}`,
    ],
    [
      `${call}({ module: not listed, name })`,
      () => take(wrong({ module: "file:///tasks.ts", name: "double" })),
      TypeError,
      `Cannot run task "double" ${UNLISTED}`,
    ],
    [
      `${call}({ module: URL not listed, name })`,
      () => take(wrong({ module: new URL("file:///tasks.ts"), name: "double" })),
      TypeError,
      `Cannot run task "double" ${UNLISTED}`,
    ],
  ];
}

/** Rows of values that are no functions at all. */
function noFunctions(call: string, [action, option]: [string, string], take: (func: never) => unknown): Row[] {
  const given: [value: unknown, shown: string][] = [
    [undefined, "undefined"],
    [null, "null"],
    [4, "4"],
    ["double", '"double"'],
    [{}, "an object of class Object"],
    [[], "an array of 0"],
    [Promise.resolve(noop), "an object of class Promise"],
    [{ module: "file:///tasks.ts" }, "an object of class Object"],
    [{ name: "double" }, "an object of class Object"],
    [{ module: 4, name: "double" }, "an object of class Object"],
    [{ module: "file:///tasks.ts", name: 4 }, "an object of class Object"],
  ];
  return given.map(([value, shown]) => [
    `${call}(${Deno.inspect(value)})`,
    () => take(wrong(value)),
    TypeError,
    `Cannot ${action} as '${option}' must be a function or { module, name }: current value is ${shown}`,
  ]);
}

Deno.test({
  name: "every public function refuses what is wrong, with the class and the message that say so",
  // The workers of a pool cannot have permissions that this thread lacks.
  permissions: "none",
  async fn() {
    const newPool = (options: never): ProcessPool => new ProcessPool(options);
    const newJob = (options: never): unknown => new Job(options);
    const withFunc = (options: object): unknown => new Job(wrong({ func: noop, ...options }));
    const module = (module: unknown): ProcessPool => new ProcessPool({ modules: wrong([module]) });
    const permissions = (permissions: unknown): ProcessPool => new ProcessPool({ permissions: wrong(permissions) });

    // It never gets a job that it accepts, so it never starts a worker.
    const pool = new ProcessPool({ maxWorkers: 1 });
    const inline = new ProcessPool({ backend: "inline" });
    const future = await inline.submit(() => 1);
    await future.result();
    const semaphore = new Semaphore(1);
    const map = (options: never): unknown => pool.map((x: number) => x, [1], options);
    const items = (items: unknown): unknown => pool.map((x: number) => x, wrong(items));
    const itemsMessage = "Cannot map as the items must be iterable, an async iterable or a ReadableStream: current value is";

    const rows: Row[] = [
      // ProcessPool
      ...objects("new ProcessPool", "create pool", POOL_OPTIONS, newPool),
      ...integers("new ProcessPool", "maxWorkers", "create pool", newPool),
      [
        "maxWorkers: 1e15",
        () => newPool(wrong({ maxWorkers: 1e15 })),
        RangeError,
        "Cannot create pool as 'maxWorkers' must be a positive integer, at most 65536: current value is 1000000000000000",
      ],
      ...integers("new ProcessPool", "queueSize", "create pool", newPool),
      ...integers("new ProcessPool", "jobsPerWorker", "create pool", newPool),
      ...integers("new ProcessPool", "maxJobsPerWorker", "create pool", newPool, { infinite: true }),
      ...times("new ProcessPool", "idleTimeout", "create pool", newPool, { infinite: true }),
      ...times("new ProcessPool", "jobTimeout", "create pool", newPool, { infinite: true }),
      ...times("new ProcessPool", "startTimeout", "create pool", newPool, { infinite: true }),
      ...[15, 1, 0, 16.5].map((memoryLimit): Row => [
        `memoryLimit: ${memoryLimit}`,
        () => newPool(wrong({ memoryLimit })),
        RangeError,
        `Cannot create pool as 'memoryLimit' must be an integer of at least 16: current value is ${memoryLimit}`,
      ]),
      [
        "memoryLimit: 65537",
        () => newPool(wrong({ memoryLimit: 65_537 })),
        RangeError,
        "Cannot create pool as 'memoryLimit' must be an integer of at least 16, at most 65536: current value is 65537",
      ],
      [
        'memoryLimit: "64"',
        () => newPool(wrong({ memoryLimit: "64" })),
        TypeError,
        `Cannot create pool as 'memoryLimit' must be an integer of at least 16: current value is "64"`,
      ],
      [
        "retries: -1",
        () => newPool(wrong({ retries: -1 })),
        RangeError,
        "Cannot create pool as 'retries' must be an integer of at least 0: current value is -1",
      ],
      [
        "memoryLimit with a backend that has none",
        () => newPool(wrong({ memoryLimit: 64, backend: "inline" })),
        TypeError,
        `Cannot create pool as the backend "inline" cannot keep a 'memoryLimit': leave one of them out`,
      ],
      [
        "retries with transfer",
        () =>
          new ProcessPool({ retries: 1 }).trySubmit(
            new Job({ func: (x: ArrayBuffer) => x, args: [new ArrayBuffer(1)], transfer: [new ArrayBuffer(1)] }),
          ),
        TypeError,
        "Cannot submit job as what it has in 'transfer' is gone after its first run: 'retries' must be 0: current value is 1",
      ],

      [
        "modules: null",
        () => newPool(wrong({ modules: null })),
        TypeError,
        "Cannot create pool as 'modules' must be an array: current value is null",
      ],
      [
        "modules: a string",
        () => newPool(wrong({ modules: "file:///tasks.ts" })),
        TypeError,
        `Cannot create pool as 'modules' must be an array: current value is "file:///tasks.ts"`,
      ],
      ["modules: [4]", () => module(4), TypeError, `Cannot create pool as 'modules[0]' ${MODULE} 4`],
      ["modules: [null]", () => module(null), TypeError, `Cannot create pool as 'modules[0]' ${MODULE} null`],
      ["modules: a relative path", () => module("./tasks.ts"), TypeError, `Cannot create pool as 'modules[0]' ${MODULE} "./tasks.ts"`],
      ["modules: a path of Windows", () => module("C:/tasks.ts"), TypeError, `Cannot create pool as 'modules[0]' ${MODULE} "C:/tasks.ts"`],
      ["modules: [{}]", () => module({}), TypeError, `Cannot create pool as 'modules[0]' ${MODULE} an object of class Object`],
      [
        "modules: url of the wrong type",
        () => module({ url: 4, exports: {} }),
        TypeError,
        `Cannot create pool as 'modules[0]' ${MODULE} an object of class Object`,
      ],
      [
        "modules: url that is relative",
        () => module({ url: "./tasks.ts", exports: {} }),
        TypeError,
        `Cannot create pool as 'modules[0]' ${MODULE} "./tasks.ts"`,
      ],
      [
        "modules: url without exports",
        () => module({ url: "file:///tasks.ts" }),
        TypeError,
        "Cannot create pool as 'modules[0].exports' must be what the module exports: current value is undefined",
      ],
      [
        "modules: exports of the wrong type",
        () => module({ url: "file:///tasks.ts", exports: "all" }),
        TypeError,
        `Cannot create pool as 'modules[0].exports' must be what the module exports: current value is "all"`,
      ],
      [
        "modules: the second is wrong",
        () => newPool(wrong({ modules: ["file:///tasks.ts", 4] })),
        TypeError,
        `Cannot create pool as 'modules[1]' ${MODULE} 4`,
      ],

      [
        "permissions: null",
        () => permissions(null),
        TypeError,
        `Cannot create pool as 'permissions' must be "none", "inherit" or an object: current value is null`,
      ],
      [
        "permissions: 'all'",
        () => permissions("all"),
        TypeError,
        `Cannot create pool as 'permissions' must be "none", "inherit" or an object: current value is "all"`,
      ],
      [
        "permissions: []",
        () => permissions([]),
        TypeError,
        `Cannot create pool as 'permissions' must be "none", "inherit" or an object: current value is an array of 0`,
      ],
      [
        "permissions: a name that there is not",
        () => permissions({ reed: true }),
        TypeError,
        `Cannot create pool as there is no permission 'reed': known permissions are ${PERMISSIONS}`,
      ],
      [
        "permissions: a value of the wrong type",
        () => permissions({ read: "yes" }),
        TypeError,
        `Cannot create pool as 'permissions.read' must be true, false, "inherit" or a list of strings: current value is "yes"`,
      ],
      [
        "permissions: null for one",
        () => permissions({ net: null }),
        TypeError,
        `Cannot create pool as 'permissions.net' must be true, false, "inherit" or a list of strings: current value is null`,
      ],
      [
        "permissions: a list with a number",
        () => permissions({ read: [4] }),
        TypeError,
        `Cannot create pool as 'permissions.read' must be true, false, "inherit" or a list of strings: current value is an array of 1`,
      ],
      ...(["net", "import"] as const).map((name): Row => [
        `permissions: an address among the hosts of '${name}'`,
        () => permissions({ [name]: ["localhost", "https://localhost/x"] }),
        TypeError,
        `Cannot create pool as 'permissions.${name}' must be hosts, without protocol and path: current value is a list with "https://localhost/x"`,
      ]),
      [
        "permissions: what this thread lacks",
        () => permissions({ read: true }),
        Deno.errors.NotCapable,
        "Cannot create pool as its workers are to have a permission that this thread lacks: run it with --allow-read",
      ],
      [
        "permissions: an item that this thread lacks",
        () => permissions({ env: ["HOME"] }),
        Deno.errors.NotCapable,
        "Cannot create pool as its workers are to have a permission that this thread lacks: run it with --allow-env=HOME",
      ],

      [
        "backend: 'thread'",
        () => newPool(wrong({ backend: "thread" })),
        TypeError,
        `Cannot create pool as 'backend' must be "worker", "killable" or "inline": current value is "thread"`,
      ],
      [
        "backend: null",
        () => newPool(wrong({ backend: null })),
        TypeError,
        `Cannot create pool as 'backend' must be "worker", "killable" or "inline": current value is null`,
      ],
      [
        "backend: inline with permissions",
        () => new ProcessPool({ backend: "inline", permissions: "none" }),
        TypeError,
        `Cannot create pool as the backend "inline" has the permissions of the calling thread: leave 'permissions' out`,
      ],

      ...noFunctions("initializer", ["create pool", "initializer"], (initializer) => newPool(wrong({ initializer }))).filter(
        ([call]) => call !== "initializer(undefined)",
      ),
      ...functions("initializer", (initializer) => new ProcessPool({ initializer })),
      ...noFunctions("finalizer", ["create pool", "finalizer"], (finalizer) => newPool(wrong({ finalizer }))).filter(
        ([call]) => call !== "finalizer(undefined)",
      ),
      ...functions("finalizer", (finalizer) => new ProcessPool({ finalizer })),
      [
        "initArgs without initializer",
        () => new ProcessPool({ initArgs: [1] }),
        TypeError,
        "Cannot create pool as 'initArgs' need an 'initializer': current value is undefined",
      ],
      [
        "initArgs: null",
        () => new ProcessPool({ initializer: noop, initArgs: wrong(null) }),
        TypeError,
        "Cannot create pool as 'initArgs' must be an array: current value is null",
      ],
      [
        "initArgs: an object",
        () => new ProcessPool({ initializer: noop, initArgs: wrong({}) }),
        TypeError,
        "Cannot create pool as 'initArgs' must be an array: current value is an object of class Object",
      ],
      [
        "initArgs that cannot be cloned",
        () => new ProcessPool({ initializer: noop, initArgs: [Symbol("mine")] }),
        TypeError,
        "Cannot create pool as 'initArgs' must be cloneable: Symbol(mine) could not be cloned.",
      ],
      [
        "onError: null",
        () => newPool(wrong({ onError: null })),
        TypeError,
        "Cannot create pool as 'onError' must be a function: current value is null",
      ],
      [
        "onError: a string",
        () => newPool(wrong({ onError: "log" })),
        TypeError,
        `Cannot create pool as 'onError' must be a function: current value is "log"`,
      ],

      // Job
      ...objects(
        "new Job",
        "create job",
        "'id', 'func', 'args', 'kwargs', 'signal', 'timeout', 'retries', 'retryIf', 'transfer', 'onDone'",
        newJob,
      ),
      [
        "new Job()",
        () => newJob(wrong(undefined)),
        TypeError,
        "Cannot create job as its options must be a plain object: current value is undefined",
      ],
      ...noFunctions("new Job", ["create job", "func"], (func) => new Job({ func })),
      ["args: null", () => withFunc({ args: null }), TypeError, "Cannot create job as 'args' must be an array: current value is null"],
      ["args: a string", () => withFunc({ args: "ab" }), TypeError, `Cannot create job as 'args' must be an array: current value is "ab"`],
      [
        "args: a set",
        () => withFunc({ args: new Set() }),
        TypeError,
        "Cannot create job as 'args' must be an array: current value is an object of class Set",
      ],
      [
        "kwargs: null",
        () => withFunc({ kwargs: null }),
        TypeError,
        "Cannot create job as 'kwargs' must be an object: current value is null",
      ],
      ["kwargs: 4", () => withFunc({ kwargs: 4 }), TypeError, "Cannot create job as 'kwargs' must be an object: current value is 4"],
      [
        "kwargs: an array",
        () => withFunc({ kwargs: [4] }),
        TypeError,
        "Cannot create job as 'kwargs' must be an object: current value is an array of 1",
      ],
      [
        "id: null",
        () => withFunc({ id: null }),
        TypeError,
        "Cannot create job as 'id' must be a string or a number: current value is null",
      ],
      ["id: 4n", () => withFunc({ id: 4n }), TypeError, "Cannot create job as 'id' must be a string or a number: current value is 4n"],
      [
        "id: a symbol",
        () => withFunc({ id: Symbol("four") }),
        TypeError,
        "Cannot create job as 'id' must be a string or a number: current value is Symbol(four)",
      ],
      ...signals("new Job", "create job", (options) => withFunc(options)),
      [
        "transfer: null",
        () => withFunc({ transfer: null }),
        TypeError,
        "Cannot create job as 'transfer' must be an array: current value is null",
      ],
      [
        "transfer: a buffer",
        () => withFunc({ transfer: new ArrayBuffer(1) }),
        TypeError,
        "Cannot create job as 'transfer' must be an array: current value is an object of class ArrayBuffer",
      ],
      ...([[new Uint8Array(1), "an object of class Uint8Array"], [new DataView(new ArrayBuffer(1)), "an object of class DataView"], [
        4,
        "4",
      ]] as const).map((
        [given, shown],
      ): Row => [
        `transfer: [${shown}]`,
        () => withFunc({ transfer: [new ArrayBuffer(1), given] }),
        TypeError,
        `Cannot create job as 'transfer[1]' must be an object that can be moved, such as the 'buffer' of a typed array: current value is ${shown}`,
      ]),
      [
        "onDone: null",
        () => withFunc({ onDone: null }),
        TypeError,
        "Cannot create job as 'onDone' must be a function: current value is null",
      ],
      ["onDone: 4", () => withFunc({ onDone: 4 }), TypeError, "Cannot create job as 'onDone' must be a function: current value is 4"],

      // submit, trySubmit, run
      ...noFunctions("submit", ["create job", "func"], (func) => pool.submit(func)),
      ...noFunctions("trySubmit", ["create job", "func"], (func) => pool.trySubmit(func)),
      ...noFunctions("run", ["create job", "func"], (func) => pool.run(func)),
      ...functions("submit", (func) => pool.submit(func)),
      ...functions("trySubmit", (func) => pool.trySubmit(func)),
      ...functions("run", (func) => pool.run(func)),
      ...functions("submit(new Job)", (func) => pool.submit(new Job({ func }))),
      ...(["submit", "trySubmit", "run"] as const).map((method): Row => [
        `${method}(job, 1, 2)`,
        () => (pool[method] as (...args: unknown[]) => unknown).call(pool, new Job({ func: noop }), 1, 2),
        TypeError,
        "Cannot submit job as its arguments belong in the job: 2 given beside it",
      ]),

      // map
      ...noFunctions("map", ["map", "task"], (task) => pool.map(task, [1])),
      ...functions("map", (task) => pool.map(task, [1])),
      ["map: no items", () => items(undefined), TypeError, `${itemsMessage} undefined`],
      ["map: items are null", () => items(null), TypeError, `${itemsMessage} null`],
      ["map: items are a number", () => items(4), TypeError, `${itemsMessage} 4`],
      ["map: items are an object", () => items({ length: 1 }), TypeError, `${itemsMessage} an object of class Object`],
      ["map: items are a function", () => items(generator), TypeError, `${itemsMessage} function generator`],
      ["map: items are an iterator alone", () => items({ next: noop }), TypeError, `${itemsMessage} an object of class Object`],
      [
        "map: items with an iterator that is none",
        () => items({ [Symbol.iterator]: 4 }),
        TypeError,
        `${itemsMessage} an object of class Object`,
      ],
      ...objects("map", "map", "'chunkSize', 'buffer', 'ordered', 'settled', 'timeout', 'signal'", map),
      ...integers("map", "chunkSize", "map", map, { or: ', or "auto"' }),
      [
        "map({ chunkSize: 'Auto' })",
        () => map(wrong({ chunkSize: "Auto" })),
        TypeError,
        `Cannot map as 'chunkSize' must be a positive integer, or "auto": current value is "Auto"`,
      ],
      ...integers("map", "buffer", "map", map),
      ...booleans("map", "ordered", "map", map),
      ...booleans("map", "settled", "map", map),
      ...signals("map", "map", map),

      // shutdown
      ...objects("shutdown", "shut down pool", "'cancelPending', 'timeout'", (options) => pool.shutdown(options)),
      ...booleans("shutdown", "cancelPending", "shut down pool", (options) => pool.shutdown(options)),
      ...times("shutdown", "timeout", "shut down pool", (options) => pool.shutdown(options)),

      // endProgram and Interrupt
      [
        "endProgram(pool)",
        () => endProgram(wrong(pool)),
        TypeError,
        "Cannot end program as the pools must be iterable, such as [pool]: current value is an object of class ProcessPool",
      ],
      ...objects("endProgram", "end program", "'exitCode', 'timeout'", (options) => endProgram([], options)),
      ...([[256, RangeError], [-1, RangeError], ["1", TypeError]] as const).map(([value, errorClass]): Row => [
        `endProgram({ exitCode: ${value} })`,
        () => endProgram([], wrong({ exitCode: value })),
        errorClass,
        `Cannot end program as 'exitCode' must be an integer of at least 0${value === 256 ? ", at most 255" : ""}: ` +
        `current value is ${JSON.stringify(value)}`,
      ]),
      ...objects("new Interrupt", "listen for signals", "'onSignal', 'host'", (options) => new Interrupt(options)),
      [
        "new Interrupt({ onSignal: 4 })",
        () => new Interrupt(wrong({ onSignal: 4 })),
        TypeError,
        "Cannot listen for signals as 'onSignal' must be a function: current value is 4",
      ],
      [
        "new Interrupt({ host: 4 })",
        () => new Interrupt(wrong({ host: 4 })),
        TypeError,
        "Cannot listen for signals as 'host' must be an object: current value is 4",
      ],

      // Future
      ...objects("result", "wait for result", "'timeout', 'signal'", (options) => future.result(options)),
      ...times("result", "timeout", "wait for result", (options) => future.result(options)),
      ...signals("result", "wait for result", (options) => future.result(options)),
      ...objects("cancel", "cancel job", "'reason', 'force'", (options) => future.cancel(options)),
      ...booleans("cancel", "force", "cancel job", (options) => future.cancel(options)),
      ...([[undefined, "undefined"], [null, "null"], [4, "4"], [{}, "an object of class Object"]] as const).map(([value, shown]): Row => [
        `addDoneCallback(${shown})`,
        () => future.addDoneCallback(wrong(value)),
        TypeError,
        `Cannot add callback as 'callback' must be a function: current value is ${shown}`,
      ]),

      // asCompleted, wait
      ...([["asCompleted", asCompleted], ["wait", wait]] as const).flatMap(([call, waitFor]): Row[] => [
        [
          `${call}()`,
          () => waitFor(wrong(undefined)),
          TypeError,
          "Cannot wait for futures as they must be iterable: current value is undefined",
        ],
        [`${call}(null)`, () => waitFor(wrong(null)), TypeError, "Cannot wait for futures as they must be iterable: current value is null"],
        [
          `${call}(future)`,
          () => waitFor(wrong(future)),
          TypeError,
          "Cannot wait for futures as they must be iterable: current value is an object of class Future",
        ],
        [
          `${call}("ab")`,
          () => waitFor(wrong("ab")),
          TypeError,
          `Cannot wait for futures as each of them must be a Future: current value is "a"`,
        ],
        [
          `${call}([future, undefined])`,
          () => waitFor([future, wrong(undefined)]),
          TypeError,
          "Cannot wait for futures as each of them must be a Future: current value is undefined",
        ],
        [
          `${call}([a promise])`,
          () => waitFor(wrong([Promise.resolve(future)])),
          TypeError,
          "Cannot wait for futures as each of them must be a Future: current value is an object of class Promise",
        ],
        ...times(call, "timeout", "wait for futures", (options) => waitFor([], options)),
      ]),
      ...objects("asCompleted", "wait for futures", "'timeout'", (options) => asCompleted([], options)),
      ...objects("wait", "wait for futures", "'returnWhen', 'timeout'", (options) => wait([], options)),
      ...([[null, "null"], ["FIRST_COMPLETED", '"FIRST_COMPLETED"'], [0, "0"]] as const).map(([returnWhen, shown]): Row => [
        `wait({ returnWhen: ${shown} })`,
        () => wait([], { returnWhen: wrong(returnWhen) }),
        TypeError,
        `Cannot wait for futures as 'returnWhen' must be "first-completed", "first-exception" or "all-completed": current value is ${shown}`,
      ]),

      // Semaphore
      ...integers("new Semaphore", "permits", "create semaphore", ({ permits }: { permits: number }) => new Semaphore(permits)),
      ...objects("acquire", "acquire permit", "'signal'", (options) => semaphore.acquire(options)),
      ...signals("acquire", "acquire permit", (options) => semaphore.acquire(options)),
    ];

    const started = await workersStartedBy(async () => {
      const failures: unknown[] = [];
      for (const [call, action, errorClass, message] of rows) {
        const error = await thrownBy(action).catch((accepted) => accepted) as Error;
        if (error.constructor === errorClass && error.message === message) continue;
        failures.push({ call, expected: [errorClass.name, message], actual: [error.constructor.name, error.message] });
      }
      assertEquals(failures, []);
      const { workers, queued, waiting, finished, failed, cancelled } = pool.stats();
      assertEquals([workers, queued, waiting, finished, failed, cancelled], [0, 0, 0, 0, 0, 0]);
      assertEquals(semaphore.available, 1);
      await pool.shutdown();
      await inline.shutdown();
    });
    assertEquals(started, 0);
  },
});

/** How many workers are started during an action. */
async function workersStartedBy(action: () => Promise<void>): Promise<number> {
  const { Worker } = globalThis;
  let started = 0;
  globalThis.Worker = class extends Worker {
    constructor(url: string | URL, options?: WorkerOptions) {
      super(url, options);
      started++;
    }
  };
  try {
    await action();
  } finally {
    globalThis.Worker = Worker;
  }
  return started;
}

Deno.test("ProcessPool() that is right starts no worker before there is a job", async () => {
  const started = await workersStartedBy(async () => {
    const pool = new ProcessPool({ maxWorkers: 2, initializer: noop, modules: ["data:text/javascript,export const a = 1"] });
    assertEquals(pool.stats().workers, 0);
    await pool.shutdown();
  });
  assertEquals(started, 0);
  const startedByJob = await workersStartedBy(async () => {
    await using pool = new ProcessPool({ maxWorkers: 2 });
    await pool.run(noop);
  });
  assertEquals(startedByJob, 1, "the spy sees what is started");
});

Deno.test("ProcessPool() accepts undefined for every option", async () => {
  const options: Required<ProcessPoolOptions> = {
    maxWorkers: undefined,
    queueSize: undefined,
    modules: undefined,
    permissions: undefined,
    backend: undefined,
    initializer: undefined,
    initArgs: undefined,
    finalizer: undefined,
    jobsPerWorker: undefined,
    maxJobsPerWorker: undefined,
    jobTimeout: undefined,
    startTimeout: undefined,
    memoryLimit: undefined,
    retries: undefined,
    idleTimeout: undefined,
    onError: undefined,
    trace: undefined,
    measure: undefined,
    observers: undefined,
  };
  await using pool = new ProcessPool(options);
  assertEquals(await pool.run((x: number) => x + 1, 1), 2);
  await new ProcessPool(undefined).shutdown();
});

Deno.test("every other function accepts undefined for its options and for each of them", async () => {
  const pool = new ProcessPool({ backend: "inline" });
  const job = new Job({
    id: undefined,
    func: () => 1,
    args: undefined,
    kwargs: undefined,
    signal: undefined,
    transfer: undefined,
    onDone: undefined,
  });
  const future = await pool.submit(job);
  assertEquals(await future.result(undefined), 1);
  assertEquals(await future.result({ timeout: undefined, signal: undefined }), 1);
  assertEquals(future.cancel(undefined), false);
  assertEquals(future.cancel({ reason: undefined, force: undefined }), false);
  const square = (x: number): number => x * x;
  assertEquals((await pool.map(square, [2], undefined).next()).value, 4);
  const mapOptions = { chunkSize: undefined, buffer: undefined, ordered: undefined, settled: undefined, signal: undefined };
  assertEquals((await pool.map(square, [3], mapOptions).next()).value, 9);
  assertStrictEquals((await asCompleted([future], undefined).next()).value, future);
  assertStrictEquals((await asCompleted([future], { timeout: undefined }).next()).value, future);
  assert((await wait([future], undefined)).done.has(future));
  assert((await wait([future], { returnWhen: undefined, timeout: undefined })).done.has(future));
  (await new Semaphore(1).acquire({ signal: undefined }))[Symbol.dispose]();
  await pool.shutdown({ cancelPending: undefined, timeout: undefined });
  await pool.shutdown(undefined);
});

Deno.test("ProcessPool() admits 250 jobs for each worker, and 1,000 at least, if nothing is said; each worker runs one at a time", () => {
  for (const [maxWorkers, queueSize] of [[1, 1000], [4, 1000], [5, 1250], [100, 25_000]] as const) {
    let opened: ObservedPool | undefined;
    new ProcessPool({ maxWorkers, observers: [{ opened: (pool) => void (opened = pool) }] });
    assertEquals([opened!.maxWorkers, opened!.queueSize, opened!.jobsPerWorker], [maxWorkers, queueSize, 1]);
  }
});

Deno.test("ProcessPool() leaves the caller's options as they are, and does not look at them again", async () => {
  const modules: string[] = ["data:text/javascript,export function two() { return 2; }"];
  const initArgs = [{ deep: [1] }];
  const options: ProcessPoolOptions = { maxWorkers: 1, queueSize: 1, modules, initializer: noop, initArgs, onError: undefined };
  const before = structuredClone({ ...options, initializer: undefined });
  Object.freeze(options);
  await using pool = new ProcessPool(options);
  assertEquals({ ...options, initializer: undefined }, before);
  modules.length = 0;
  initArgs.length = 0;
  assertEquals(await pool.run({ module: "data:text/javascript,export function two() { return 2; }", name: "two" }), 2);
});

Deno.test("Job(), map() and the others leave the caller's options as they are", async () => {
  await using pool = new ProcessPool({ backend: "inline" });
  const signal = new AbortController().signal;
  const jobOptions = Object.freeze({ func: (a: number) => a, args: Object.freeze([1]) as unknown as [number], signal });
  const future = await pool.submit(new Job(jobOptions));
  assertEquals(await future.result(Object.freeze({ timeout: 60_000, signal })), 1);
  assertEquals(Object.keys(jobOptions), ["func", "args", "signal"]);
  assertEquals(await Array.fromAsync(pool.map((x: number) => x, Object.freeze([1, 2]), Object.freeze({ chunkSize: 1 }))), [1, 2]);
  assertEquals(future.cancel(Object.freeze({ force: true })), false);
  await Array.fromAsync(asCompleted(Object.freeze([future]), Object.freeze({ timeout: 60_000 })));
  await wait(Object.freeze([future]), Object.freeze({ returnWhen: "first-completed" as const }));
});

Deno.test("ProcessPool() accepts the largest and smallest of what is in range", async () => {
  const pools: ProcessPoolOptions[] = [
    { maxWorkers: 1, queueSize: 1, jobsPerWorker: 1, maxJobsPerWorker: 1, idleTimeout: 0 },
    { maxJobsPerWorker: Infinity, idleTimeout: Infinity },
    { idleTimeout: LONGEST, queueSize: Number.MAX_SAFE_INTEGER },
    { idleTimeout: 0.5 },
    { modules: [new URL("file:///tasks.ts"), "file:///other.ts", { url: "file:///third.ts", exports: {} }] },
    { permissions: "none" },
    { permissions: "inherit" },
    { permissions: {} },
    { permissions: { read: false, env: "inherit", run: [] } },
  ];
  for (const options of pools) await new ProcessPool(options).shutdown();
});

Deno.test("ProcessPool.shutdown() with wrong options leaves the pool open", async () => {
  await using pool = new ProcessPool({ backend: "inline" });
  await thrownBy(() => pool.shutdown({ timeout: -1 }));
  assertEquals(await pool.run(() => "open"), "open");
});

for (const backend of ["worker", "killable"] as const) {
  Deno.test(
    `ProcessPool() gives later workers the permissions that it was given, wherever the program is by then (${backend}) (needs --allow-read)`,
    {
      ignore: !granted("read"),
    },
    async () => {
      const inFixtures = new URL("./fixtures/arithmetic.ts", import.meta.url).pathname;
      const besideThem = new URL("./helpers.ts", import.meta.url).pathname;
      const permissions = { read: ["fixtures"] };
      const canRead = (path: string) => Deno.permissions.querySync({ name: "read", path }).state === "granted";
      const here = Deno.cwd();
      Deno.chdir(new URL(".", import.meta.url).pathname);
      try {
        await using pool = new ProcessPool({ backend, maxWorkers: 1, maxJobsPerWorker: 2, permissions });
        permissions.read.push(besideThem);
        for (const folder of [".", ".."]) {
          Deno.chdir(folder);
          assertEquals([await pool.run(canRead, inFixtures), await pool.run(canRead, besideThem)], [true, false], folder);
        }
      } finally {
        Deno.chdir(here);
      }
    },
  );
}

Deno.test("ProcessPool() of killable workers takes a relative path that has their module for what it is (needs --allow-read)", {
  ignore: !granted("read"),
}, async () => {
  const modules = [import.meta.resolve("./fixtures/arithmetic.ts")];
  const inTests = new URL(".", import.meta.url).pathname;
  const here = Deno.cwd();
  Deno.chdir(inTests);
  try {
    for (
      const path of [".", "./", "./fixtures", "fixtures/", "../tests", "fixtures/../fixtures/arithmetic.ts", `${inTests}fixtures/`, "/"]
    ) {
      await new ProcessPool({ backend: "killable", modules, permissions: { read: [path] } }).shutdown();
    }
    for (const path of ["./other", "fixtures/arith", "fixtures%2F", "../fixtures"]) {
      assertThrows(
        () => new ProcessPool({ backend: "killable", modules, permissions: { read: [path] } }),
        TypeError,
        "killable workers read their task modules with their own 'permissions'",
      );
    }
  } finally {
    Deno.chdir(here);
  }
});

Deno.test("ProcessPool without 'onError' goes on where what it has to report cannot be printed", async () => {
  const { error } = console;
  const printed: unknown[] = [];
  console.error = (value) => {
    printed.push(value);
    throw new Error("No space left on device");
  };
  const thrown = new Error("of a callback");
  try {
    await using pool = new ProcessPool({ backend: "inline" });
    const throwing = () => {
      throw thrown;
    };
    assertEquals(await (await pool.submit(new Job({ func: () => 5, onDone: throwing }))).result(), 5);
  } finally {
    console.error = error;
  }
  assertEquals(printed, [thrown]);
});

/** Does something as on an older Deno, which has no locks. */
function withoutLocks(action: () => void): void {
  const process = Reflect.get(globalThis, "process");
  const { getBuiltinModule } = process;
  const own = Object.getOwnPropertyDescriptor(Navigator.prototype, "locks")!;
  Reflect.deleteProperty(Navigator.prototype, "locks");
  process.getBuiltinModule = () => ({});
  try {
    action();
  } finally {
    process.getBuiltinModule = getBuiltinModule;
    Object.defineProperty(Navigator.prototype, "locks", own);
  }
}

Deno.test("ProcessPool refuses a Deno that is too old for its workers, but not for the calling thread", async () => {
  const pools: ProcessPool[] = [];
  withoutLocks(() => {
    for (const backend of ["worker", "killable"] as const) {
      assertThrows(
        () => new ProcessPool({ backend }),
        Deno.errors.NotSupported,
        `Cannot create pool as workers need Deno 2.9 or newer: current version is ${Deno.version.deno}`,
      );
    }
    pools.push(new ProcessPool({ backend: "inline" }));
  });
  for (const pool of pools) {
    assertEquals(await pool.run((x: number) => x + 1, 1), 2);
    await pool.shutdown();
  }
});
