/**
 * A pool that ends, or that is not opened in time, while its server loads its data, depending on the argument. The program should then end by
 * itself, whatever the server says of how long it takes.
 *
 * @module
 */

import { assertRejects } from "@std/assert";
import { ClusterPool } from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";
import { openClient, RedisServer, until } from "./helpers.ts";

const [what] = Deno.args;
{
  await using server = await RedisServer.start(["--enable-debug-command", "yes"]);
  await using client = openClient(server);
  await using other = openClient(server);
  const options = { queue: "test", connection: server.url, tasks, openTimeout: 1000, onError: () => {}, onWarning: () => {} };
  const pool = what === "ends" ? await ClusterPool.open(options) : undefined;
  await client.call("DEBUG", "POPULATE", "200000");
  // In microseconds; it looks at clients only after so many bytes.
  await client.config("SET", "key-load-delay", "1000");
  await client.config("SET", "loading-process-events-interval-bytes", "1024");
  await other.ping();
  client.call("DEBUG", "RELOAD").catch(() => {});
  await until(async () => /^loading_eta_seconds:\d{2,}/m.test(await other.info("persistence")));
  if (pool === undefined) await assertRejects(() => ClusterPool.open(options), Error, "was not ready within 1000 ms: LOADING");
  else {
    await other.client("KILL", "TYPE", "normal", "SKIPME", "yes");
    // All are connected anew, and have asked whether it is ready.
    await until(async () => String(await other.client("LIST")).match(/cmd=info/g)?.length === 2);
    await pool.terminate();
  }
  client.disconnect();
  other.disconnect();
}
console.log("ended");
// Without a server, clients leave timers of two seconds. Those of waiting for it would be of about ten.
Deno.unrefTimer(setTimeout(() => Deno.exit(1), 6000));
