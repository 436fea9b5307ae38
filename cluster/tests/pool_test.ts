import { assertEquals } from "@std/assert";
import { tasks } from "./cluster_tasks.ts";
import { openPool, RedisServer, startHost, within } from "./helpers.ts";
import { add } from "./tasks.ts";

Deno.test("ClusterPool.run() runs a task on a host, by its function or by its name", async () => {
  await using server = await RedisServer.start();
  await using _host = await startHost(server);
  await using pool = await openPool(server);
  assertEquals(await within(pool.run(add, 1, 2)), 3);
  assertEquals(await within(pool.run(tasks.add, 3, 4)), 7);
});
