import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { defineTasks } from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";
import { Child, freePort, openPool, RedisServer, startHost, until, writeFragileModule } from "./helpers.ts";

const CONFIG = new URL("../deno.json", import.meta.url).pathname;

/** The files of docs/cluster.md: each code block that begins with a file name. */
async function documentedFiles(): Promise<Map<string, string>> {
  const text = await Deno.readTextFile(new URL("../../docs/cluster.md", import.meta.url));
  return new Map(Array.from(text.matchAll(/```ts ignore\n\/\/ (\w+\.ts)\n(.*?)```/gs), ([, name, source]) => [name!, source!]));
}

/** Starts the host of docs/cluster.md, whose tasks are in the server's folder. */
async function startDocumentedHost(server: RedisServer): Promise<Child> {
  const files = await documentedFiles();
  for (const name of ["cluster_tasks.ts", "host.ts"]) {
    await Deno.writeTextFile(`${server.folder}/${name}`, files.get(name)!.replaceAll("redis://10.0.0.1:6379", server.url));
  }
  const permissions = [`--allow-net=127.0.0.1:${server.port}`, `--allow-read=${server.folder}`, "--ignore-env", "--no-prompt"];
  return new Child(Deno.execPath(), ["run", "--no-check", "--config", CONFIG, ...permissions, `${server.folder}/host.ts`]);
}

Deno.test("docs/cluster.md: its files are checked, its host serves, and its producer prints what is shown there", async () => {
  await using server = await RedisServer.start();
  const files = await documentedFiles();
  assertEquals([...files.keys()], ["tasks.ts", "cluster_tasks.ts", "host.ts", "main.ts", "store.ts"]);
  for (const [name, source] of files) {
    await Deno.writeTextFile(`${server.folder}/${name}`, source.replaceAll("redis://10.0.0.1:6379", server.url));
  }
  const path = (name: string) => `${server.folder}/${name}`;
  const check = new Child(Deno.execPath(), ["check", "--config", CONFIG, ...[...files.keys()].map(path)]);
  assert((await check.status()).success, check.said);
  const permissions = [`--allow-net=127.0.0.1:${server.port}`, `--allow-read=${server.folder}`, "--ignore-env", "--no-prompt"];
  await using host = new Child(Deno.execPath(), ["run", "--config", CONFIG, ...permissions, path("host.ts")]);
  await host.says("is ready");
  const main = new Child(Deno.execPath(), ["run", "--quiet", "--config", CONFIG, ...permissions, path("main.ts")], { NO_COLOR: "1" });
  assert((await main.status()).success, main.said);
  const expected = files.get("main.ts")!.split("// Output:\n")[1]!.replaceAll(/^\/\/ /gm, "");
  assertEquals(main.said, expected);
  host.kill("SIGTERM");
  assertEquals((await host.status()).code, 0);
});

Deno.test("docs/cluster.md: the program of its host ends when it is told to stop while it starts", async () => {
  await using server = await RedisServer.start();
  const gate = `${server.folder}/go`;
  await Deno.writeTextFile(
    `${server.folder}/tasks.ts`,
    `console.log("is loading");
    for (;;) {
      try { Deno.statSync(${JSON.stringify(gate)}); break; } catch { await new Promise((resolve) => setTimeout(resolve, 5)); }
    }
    export function factorize(): void {}`,
  );
  await using host = await startDocumentedHost(server);
  await host.says("is loading");
  host.kill("SIGTERM");
  await Deno.writeTextFile(gate, "");
  assertEquals((await host.status()).code, 0);
});

Deno.test("docs/cluster.md: the program of its host ends with code 1 when its workers cannot be started any more", async () => {
  await using server = await RedisServer.start();
  const [module, broken] = ["tasks.ts", "broken"].map((name) => `${server.folder}/${name}`) as [string, string];
  await writeFragileModule(module, {
    broken,
    exports: `export function factorize(): void { Deno.exit(3); }`,
  });
  await using host = await startDocumentedHost(server);
  await host.says("is ready");
  await Deno.writeTextFile(broken, "");
  const fragile = defineTasks({ factorize: `file://${module}` });
  await using pool = await openPool(server, { queue: "numbers", tasks: fragile });
  for (let i = 0; i < 3; i++) await pool.submit(fragile.factorize);
  assertEquals((await host.status()).code, 1);
  assertStringIncludes(host.said, "the module is broken");
});

Deno.test("examples/cluster: all results arrive although a host is killed", async () => {
  const example = new URL("../../examples/cluster/main.ts", import.meta.url);
  const source = await Deno.readTextFile(example);
  const command = / \* deno (run .*)\n/.exec(source)![1]!.split(" ");
  const args = command.map((arg) => arg === "cluster/deno.json" ? CONFIG : arg === "examples/cluster/main.ts" ? example.pathname : arg);
  await using child = new Child(Deno.execPath(), ["run", "--quiet", "--no-prompt", ...args.slice(1)], { NO_COLOR: "1" });
  assert((await child.status()).success, child.said);
  // The lines at its end, with '…' for what varies, and as many redeliveries as there were.
  const expected = source.split("// Output")[1]!.split("\n").slice(1).map((line) => line.replace("// ", "")).filter((line) => line !== "");
  const varying = (line: string) => line.replaceAll(/records .*/g, "records … to …");
  assertEquals(new Set(child.said.trimEnd().split("\n").map(varying)), new Set(expected.map(varying)));
});

Deno.test("examples/cluster-dashboard shows the queue", async () => {
  await using server = await RedisServer.start();
  await using pool = await openPool(server);
  await pool.submit(tasks.add, 1, 1);
  await until(async () => (await pool.status()).waiting === 1);
  const port = freePort();
  const script = new URL("../../examples/cluster-dashboard/main.ts", import.meta.url).pathname;
  const permissions = ["--allow-net=127.0.0.1", "--allow-read", "--ignore-env", "--no-prompt"];
  await using dashboard = new Child(Deno.execPath(), ["run", "--no-check", ...permissions, script, server.url, "test", String(port)]);
  await dashboard.says("is shown at");
  const response = await fetch(`http://127.0.0.1:${port}/api/queues`);
  const { queues: [queue] } = await response.json();
  assertEquals([queue.name, queue.counts.waiting], ["test.v1", 1]);
});

Deno.test("startHost() refuses to go on when a host does not start", async () => {
  await using server = await RedisServer.start();
  let message = "";
  try {
    await startHost(server, { workers: 0 });
  } catch (error) {
    message = (error as Error).message;
  }
  assert(message.includes("'workers' must be a positive integer"), message);
});
