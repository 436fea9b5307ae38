/**
 * A pool or a host, as the argument says, that is told to end after its server has died. The program is to end by itself then.
 *
 * @module
 */

import { assertEquals, assertInstanceOf } from "@std/assert";
import { JobCancelledError, serve } from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";
import { openPool, RedisServer, until } from "./helpers.ts";

const [what] = Deno.args;
await using server = await RedisServer.start();
const lost = Promise.withResolvers<void>();
const onError = () => lost.resolve();
if (what === "pool") {
  const pool = await openPool(server, { onError });
  const known = await pool.submit(tasks.add, 1, 1);
  await until(async () => (await pool.status()).waiting === 1);
  await server.kill();
  await lost.promise;
  const unknown = await pool.submit(tasks.add, 2, 2);
  await pool.terminate("away");
  for (const future of [known, unknown]) {
    assertInstanceOf(await future.exception(), JobCancelledError);
    assertEquals(future.state, "cancelled");
  }
} else {
  const host = await serve({ queue: "test", connection: server.url, tasks, workers: 1, onError });
  await server.kill();
  await lost.promise;
  await host.shutdown({ timeout: 0 });
  await host.finished;
}
console.log("ended");
