/**
 * Programs that use a pool, in processes of their own: how they end, what they print, and what they ask for.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { granted, within } from "./fixtures.ts";

/**
 * Runs a program in a process of its own, with the project's configuration unless another is given; returns the permissions it asked for.
 */
async function runProgram(
  source: string,
  changes: object = {},
  { flags = ["-A"], env = {} }: { flags?: string[]; env?: Record<string, string> } = {},
): Promise<{ code: number; stdout: string; stderr: string; asked: string }> {
  const root = new URL("../", import.meta.url);
  const config = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  const directory = await Deno.makeTempDir();
  try {
    const absolute = (path: string) => new URL(path, root).href;
    const imports = { ...config.imports, "@procpool/process-pool": absolute("mod.ts") };
    const links = config.links.map((path: string) => new URL(path, root).pathname);
    await Deno.writeTextFile(
      `${directory}/deno.json`,
      JSON.stringify({ imports, links, unstable: config.unstable, lock: false, ...changes }),
    );
    await Deno.writeTextFile(`${directory}/program.js`, source);
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", ...flags, "--quiet", "program.js"],
      cwd: directory,
      env: { NO_COLOR: "1", DENO_AUDIT_PERMISSIONS: `${directory}/asked`, ...env },
    });
    const { code, stdout, stderr } = await command.output();
    const asked = await Deno.readTextFile(`${directory}/asked`).catch(() => "");
    return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr), asked };
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("ProcessPool with killable workers and no 'memoryLimit' fails a job that fills the heap (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    await using pool = new ProcessPool({ backend: "killable", maxWorkers: 1 });
    const future = await pool.submit(() => {
      for (const kept = [];;) kept.push({ index: kept.length });
    });
    const { name, message, limit } = await future.exception();
    console.log(name, message.endsWith("filled its heap of " + limit + " MB"), limit >= 100);
    console.log(await pool.run((x) => x + 1, 1));
  `;
  const { code, stdout } = await within(runProgram(source, {}, { env: { DENO_V8_FLAGS: "--max-old-space-size=100" } }));
  assertEquals([code, stdout], [0, "MemoryLimitError true true\n2\n"]);
});

Deno.test("ProcessPool that nobody shuts down lets the program end (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    const pool = new ProcessPool({ idleTimeout: 10 });
    console.log(await pool.run((x) => x + 1, 1));
  `;
  const { code, stdout } = await runProgram(source);
  assertEquals([code, stdout], [0, "2\n"]);
});

Deno.test("ProcessPool on the calling thread keeps no function that it has run, nor what that holds (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    import v8 from "node:v8";
    import vm from "node:vm";
    v8.setFlagsFromString("--expose-gc");
    const gc = vm.runInNewContext("gc");
    await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1 });
    const all = [];
    async function runAnother() {
      const held = { size: all.length };
      all.push(new WeakRef(held));
      await pool.run(() => held.size);
    }
    for (let i = 0; i < 100; i++) await runAnother();
    // What a weak reference was made for in this turn lives until the next.
    await new Promise((resolve) => setTimeout(resolve));
    gc();
    console.log(all.filter((each) => each.deref() !== undefined).length < 10);
  `;
  const { code, stdout, stderr } = await runProgram(source);
  assertEquals([code, stdout, stderr], [0, "true\n", ""]);
});

Deno.test("ProcessPool says nothing on stderr that its caller was told by a promise (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    for (const deed of ["throw new Error('deed')", "Deno.exit(3)", "self.close()", "await Promise.reject(1)", "import 'file:///nowhere.ts'"]) {
      for (const permissions of [undefined, "none"]) {
        await using pool = new ProcessPool({ modules: ["data:text/javascript," + deed], permissions });
        await pool.run(() => 1).then(console.log, (error) => console.log(error.name));
      }
    }
    await using pool = new ProcessPool({ onError: (error) => console.log(error.name) });
    for (const task of [() => Deno.exit(3), () => self.close(), () => { throw 1 }, () => new Promise(() => { setTimeout(() => { throw 1 }) })]) {
      await pool.submit(task);
    }
    await pool.submit(() => { setTimeout(() => Promise.reject(2)); });
    await pool.shutdown();
  `;
  const { code, stdout, stderr } = await runProgram(source);
  assertEquals([code, stderr], [0, ""]);
  assertEquals(stdout.trim().split("\n").filter((line) => line !== "WorkerDiedError"), Array(10).fill("PoolBrokenError"));
});

Deno.test(
  "ProcessPool with permissions ends the program with exit code 70 without --unstable-worker-options (needs --allow-run and --allow-read)",
  {
    ignore: !granted("run") || !granted("read"),
  },
  async () => {
    const source = `
    import { ProcessPool } from ${JSON.stringify(import.meta.resolve("../mod.ts"))};
    await using pool = new ProcessPool({ permissions: "none" });
    await pool.run(() => 1).catch(() => {});
  `;
    // When this fails, Deno has made the option stable: say so in README.md and at the option, and remove "unstable" from deno.json.
    const { code, stderr } = await runProgram(source, { unstable: [] });
    assertEquals(code, 70);
    assert(stderr.includes("worker-options"), stderr);
  },
);

Deno.test("ProcessPool with permissions 'inherit' does without --unstable-worker-options (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from ${JSON.stringify(import.meta.resolve("../mod.ts"))};
    for (const backend of ["worker", "killable", "inline"]) {
      await using pool = new ProcessPool({ backend, permissions: "inherit" });
      console.log(await pool.run((x) => x, backend));
    }
  `;
  assertEquals((await runProgram(source, { unstable: [] })).stdout, "worker\nkillable\ninline\n");
});

Deno.test("mod.ts and batch/mod.ts compile in a program whose 'lib' is the DOM's (needs --allow-run, --allow-read and --allow-write)", {
  ignore: !granted("run") || !granted("read") || !granted("write"),
}, async () => {
  const source = ["mod.ts", "batch/mod.ts"].map((name) => `import ${JSON.stringify(import.meta.resolve(`../${name}`))};`).join("\n");
  const compilerOptions = { lib: ["dom", "dom.asynciterable", "dom.iterable", "deno.ns"] };
  const { code, stderr } = await runProgram(source, { compilerOptions }, { flags: ["--check"] });
  assertEquals([code, stderr], [0, ""]);
});

Deno.test("An inline pool whose caller was busy has its jobs run before the program ends (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    const pool = new ProcessPool({ backend: "inline", idleTimeout: Infinity, startTimeout: Infinity });
    for (const end = performance.now() + 20; performance.now() < end;);
    console.log(await pool.run((x) => x + 1, 1));
  `;
  assertEquals((await runProgram(source)).stdout, "2\n");
});

const BURN = `
  const started = new Int32Array(new SharedArrayBuffer(4));
  const burn = (started) => { Atomics.add(started, 0, 1); for (;;); };
  const futures = [await pool.submit(burn, started), await pool.submit(burn, started)];
  while (Atomics.load(started, 0) < 2) await new Promise((resolve) => setTimeout(resolve, 1));
`;

Deno.test("endProgram() ends a program although a worker cannot be stopped (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { endProgram, ProcessPool } from "@procpool/process-pool";
    const pool = new ProcessPool({ maxWorkers: 2 });
    ${BURN}
    await endProgram([pool], { exitCode: 5, timeout: 1 });
  `;
  assertEquals((await runProgram(source)).code, 5);
});

Deno.test("ProcessPool warns once of workers that cannot be stopped, and names the cure (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    const pool = new ProcessPool({ maxWorkers: 2 });
    let warnings = 0;
    console.warn = (message) => {
      console.log(++warnings, message);
      // Long enough for the second worker, which was stopped at the same time.
      setTimeout(() => Deno.exit(), 500);
    };
    ${BURN}
    for (const future of futures) future.cancel({ force: true });
  `;
  const { code, stdout } = await runProgram(source);
  assertEquals([code, stdout.trim().split("\n").length], [0, 1]);
  assert(stdout.startsWith("1 process-pool: a worker was stopped and runs on") && stdout.includes('backend: "killable"'), stdout);
});

Deno.test("ProcessPool goes on where a warning cannot be printed (needs --allow-run and --allow-read)", {
  ignore: !granted("run") || !granted("read"),
}, async () => {
  const source = `
    import { ProcessPool } from "@procpool/process-pool";
    const pool = new ProcessPool({ maxWorkers: 2 });
    console.warn = () => {
      setTimeout(() => Deno.exit(5), 0);
      throw new Error("No space left on device");
    };
    ${BURN}
    for (const future of futures) future.cancel({ force: true });
  `;
  assertEquals((await runProgram(source)).code, 5);
});

Deno.test(
  "ProcessPool asks for no permission by itself, so that no program waits at a terminal (needs --allow-run, --allow-read and --allow-write)",
  { ignore: !granted("run") || !granted("read") || !granted("write") },
  async () => {
    const source = `
      import { ProcessPool } from "@procpool/process-pool";
      const kinds = ["worker", "killable", "inline"].map((backend) => ({ backend }));
      for (const options of [...kinds, { memoryLimit: 64 }, { permissions: "none" }, { backend: "killable", permissions: "none" }]) {
        await using pool = new ProcessPool({ maxWorkers: 1, measure: true, ...options });
        const items = await Array.fromAsync(pool.map((x) => x + 1, [1, 2]));
        console.log(await pool.run((x) => x, items[1]), pool.stats().finished);
      }`;
    const { code, stdout, asked } = await runProgram(source, {}, { flags: ["--no-prompt"] });
    assertEquals([code, stdout, asked], [0, "3 3\n".repeat(6), ""]);
  },
);

Deno.test(
  "ProcessPool shares no lock with the pool of another thread, though '--seed' makes both draw the same numbers (needs --allow-run and --allow-read)",
  {
    ignore: !granted("run") || !granted("read"),
  },
  async () => {
    const source = `
    import { ProcessPool } from "@procpool/process-pool";
    await using pool = new ProcessPool({ maxWorkers: 1 });
    const ofOwn = async () => {
      const { ProcessPool } = await import("@procpool/process-pool");
      await using pool = new ProcessPool({ maxWorkers: 1 });
      return await pool.run((x) => x + 1, 1);
    };
    console.log(await pool.run(ofOwn));
  `;
    const { code, stdout } = await within(runProgram(source, {}, { flags: ["-A", "--seed=1"] }));
    assertEquals([code, stdout], [0, "2\n"]);
  },
);
