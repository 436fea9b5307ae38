import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Child, freePort, RedisServer, within } from "./helpers.ts";

const CLI = new URL("../cli.ts", import.meta.url).pathname;
const TASKS = new URL("./cli_tasks.ts", import.meta.url).pathname;

/** The command with the permissions that its help names, and no others. */
function command(port: number, args: string[], { read = true, seed = [] as string[] } = {}): Child {
  const permissions = [`--allow-net=127.0.0.1:${port}`, "--ignore-env", "--no-prompt", ...(read ? [`--allow-read=${TASKS}`] : [])];
  return new Child(Deno.execPath(), ["run", "--no-check", ...seed, ...permissions, CLI, ...args], { NO_COLOR: "1" });
}

async function output(child: Child): Promise<{ code: number; said: string }> {
  await using _child = child;
  const { code } = await child.status();
  return { code, said: child.said };
}

Deno.test("cli.ts serves, runs and shows the status with the permissions that its help names, and ends on SIGTERM", async () => {
  await using server = await RedisServer.start();
  const where = ["--redis", server.url, "--queue", "numbers"];
  await using host = command(server.port, ["serve", TASKS, ...where, "--workers", "2", "--name", "box-1"]);
  await host.says('box-1 serves the queue "numbers": add, bytes, fail, greet');
  const run = (...args: string[]) => output(command(server.port, ["run", TASKS, ...args, ...where]));
  assertEquals(await run("add", "1", "-2.5"), { code: 0, said: "-1.5\n" });
  assertEquals(await run("greet", "bear"), { code: 0, said: '"Hello, bear!"\n' });
  assertEquals(await run("bytes"), { code: 0, said: '{"$bytes":"AQL/"}\n' });
  assertEquals(await run("fail"), { code: 1, said: "cluster: no luck\n" });
  const missing = await run("none");
  assertEquals(missing.code, 1);
  assertStringIncludes(missing.said, 'Cannot run "none"');
  const status = await output(command(server.port, ["status", ...where], { read: false }));
  const lines = status.said.replaceAll(/ +/g, " ").split("\n");
  assertEquals(lines.slice(0, 5), ["queue numbers", "waiting 0", "active 0", "completed 3", "failed 1"]);
  assertMatch(lines.slice(5).join("\n"), /^throughput .*\nhosts 1\n box-1 at 127.0.0.1:\d+, for \d+ s\n$/);
  const { hosts, completed } = JSON.parse((await output(command(server.port, ["status", "--json", ...where], { read: false }))).said);
  assertEquals([hosts[0].name, completed], ["box-1", 3]);
  host.kill("SIGTERM");
  assertEquals((await host.status()).code, 0);
  assertStringIncludes(host.said, "stops within 10 s; a second signal ends at once\nbox-1 has stopped\n");
});

Deno.test("cli.ts run is not given the result of an earlier run that drew the same random numbers", async () => {
  await using server = await RedisServer.start();
  const where = ["--redis", server.url];
  await using host = command(server.port, ["serve", TASKS, ...where]);
  await host.says("serves the queue");
  const add = (...args: string[]) => output(command(server.port, ["run", TASKS, "add", ...args, ...where], { seed: ["--seed=1"] }));
  assertEquals([await add("1", "2"), await add("1", "3")].map(({ said }) => said), ["3\n", "4\n"]);
});

Deno.test("cli.ts serve ends with code 0 when it is told to stop before the server has answered", async () => {
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = silent.addr as Deno.NetAddr;
  await using host = command(port, ["serve", TASKS, "--redis", `redis://127.0.0.1:${port}`]);
  using _conn = await within(silent.accept());
  host.kill("SIGINT");
  assertEquals((await host.status()).code, 0);
});

Deno.test("cli.ts run ends on Ctrl-C before the server has answered", async () => {
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = silent.addr as Deno.NetAddr;
  await using run = command(port, ["run", TASKS, "add", "1", "2", "--redis", `redis://127.0.0.1:${port}`]);
  using _conn = await within(silent.accept());
  run.kill("SIGINT");
  assertEquals((await run.status()).code, 130);
});

Deno.test("cli.ts run says that there is no host, and drops the job on Ctrl-C", async () => {
  await using server = await RedisServer.start();
  const where = ["--redis", server.url];
  await using waiting = command(server.port, ["run", TASKS, "add", "1", "2", ...where]);
  await waiting.says('no host serves the queue "default" at this moment: the job waits for one');
  waiting.kill("SIGINT");
  assertEquals((await waiting.status()).code, 130);
  const status = await output(command(server.port, ["status", "--json", ...where], { read: false }));
  assertEquals(JSON.parse(status.said).waiting, 0);
});

Deno.test("cli.ts says what is wrong with the command line, without a server", async () => {
  const cases: [string[], string][] = [
    [[], "what to do is missing: 'serve', 'run' or 'status'"],
    [["sreve"], 'there is no command "sreve"'],
    [["serve"], "'serve' needs the module of the tasks: serve TASKS.ts"],
    [["serve", "a.ts", "b.ts"], "'serve' takes one module"],
    [["serve", "a.ts", "--workers", "0"], `'--workers' must be an integer from 1 to 1024: current value is "0"`],
    [["serve", "a.ts", "--grace", "x"], "'--grace' must be an integer"],
    [["serve", "a.ts", "--json"], "'serve' takes no option '--json'"],
    [["serve", "a.ts", "--wrokers", "1"], "there is no option '--wrokers'"],
    [["serve", "a.ts", "--queue"], "'--queue' needs a value"],
    [["run", "a.ts"], "'run' needs the module and the name of a task"],
    [["status", "x"], "'status' takes no argument"],
    [["status", "--queue", "a:b"], "Cannot use queue as 'queue' must be a name"],
    [
      ["status", "--redis", "http://127.0.0.1"],
      "Cannot use queue as the address of the connection must be redis://HOST:PORT or rediss://HOST:PORT",
    ],
    [["status", "--redis", "redis://127.0.0.1", "--ca", "ca.crt"], "Cannot use queue as 'ca' needs an address that begins with rediss://"],
    [["serve", "a.ts", "--name", "a b"], "Cannot use queue as 'name' must be of letters"],
  ];
  for (const [args, message] of cases) {
    const { code, said } = await output(command(1, args, { read: false }));
    assertEquals(code, 2, args.join(" "));
    assertStringIncludes(said, `cluster: ${message}`);
  }
});

Deno.test("cli.ts says that a module cannot be loaded, or a server cannot be reached", async () => {
  const port = freePort();
  const cases: [string[], string][] = [
    [["run", TASKS.replace("cli_tasks", "none"), "add"], "Cannot load"],
    [["status", "--redis", `redis://user:secret@127.0.0.1:${port}`], `redis://127.0.0.1:${port} could not be reached within 10000 ms`],
  ];
  for (const [args, message] of cases) {
    const { code, said } = await within(output(command(port, args)));
    assertEquals([code, said.includes("secret")], [1, false]);
    assertStringIncludes(said, message);
  }
});

Deno.test("cli.ts says at once that it may not connect to the server", async () => {
  for (const address of ["redis://127.0.0.1:2", "redis://[::1]:2", "redis://localhost:2", "rediss://localhost:2"]) {
    const { code, said } = await within(output(command(1, ["status", "--redis", address], { read: false })));
    assertEquals(code, 1);
    assertStringIncludes(said, `${address} may not be reached without '--allow-net'`);
  }
});

Deno.test("cli.ts finds a module in a folder of any name", async () => {
  const folder = await Deno.makeTempDir({ suffix: " #100%" });
  try {
    await Deno.writeTextFile(`${folder}/tasks.ts`, "export function add(a: number, b: number): number {\n  return a + b;\n}\n");
    const args = ["run", "--no-check", "--allow-read", "--ignore-env", "--no-prompt", CLI, "run", `${folder}/tasks.ts`, "none"];
    const { code, said } = await within(output(new Child(Deno.execPath(), args, { NO_COLOR: "1" })));
    assertEquals(code, 1);
    assertStringIncludes(said, "has none of that name: its tasks are add");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("cli.ts --help names the permissions and needs none, nor do --version and wrong arguments", async () => {
  const without = (arg: string) => output(new Child(Deno.execPath(), ["run", "--no-check", "--no-prompt", CLI, arg], { NO_COLOR: "1" }));
  const help = await without("--help");
  assertEquals(help.code, 0);
  assertStringIncludes(help.said, "--allow-net=HOST:PORT --allow-read --ignore-env --no-prompt");
  assertMatch((await without("--version")).said, /^\d+\.\d+\.\d+\n$/);
  assertEquals((await without("servee")).code, 2);
});
