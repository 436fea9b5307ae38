/**
 * A pool or a host, depending on the first argument, that is told to end while its server is away; or, if the second argument is "silent",
 * accepts connections again but does not answer; or, if it is "away for long", has been away until BullMQ gives up a pool's waiting for events.
 * The program should then end by itself.
 *
 * @module
 */

import { assertEquals, assertInstanceOf } from "@std/assert";
import { RedisConnection } from "bullmq";
import { Redis } from "ioredis";
import { JobCancelledError, serve } from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";
import { openPool, RedisServer, until } from "./helpers.ts";
import { Line } from "./line.ts";

const [what, how] = Deno.args;
await using server = await RedisServer.start();
await using line = new Line(server.port);
const connection = how === "silent" ? line.url : server.url;
const lost = Promise.withResolvers<void>();
const onError = () => lost.resolve();
const client = new Redis(server.url);

/** Resolves when BullMQ connects anew, as it has waited for too long. */
const givenUp = Promise.withResolvers<void>();
const { reconnect } = RedisConnection.prototype;
RedisConnection.prototype.reconnect = function () {
  givenUp.resolve();
  return reconnect.call(this);
};

/** Ends the connections in the middle of commands. */
async function goAway(): Promise<void> {
  client.disconnect();
  if (how === "silent") {
    line.mute();
    await until(() => line.unheard > 0);
  } else {
    await server.kill();
    await lost.promise;
    if (how === "away for long") await givenUp.promise;
  }
}

if (what === "pool") {
  const pool = await openPool(server, { connection, onError });
  const known = await pool.submit(tasks.add, 1, 1);
  await until(async () => (await pool.status()).waiting === 1);
  line.hold();
  const sent = await pool.submit(tasks.add, 2, 2);
  await until(async () => await client.llen("dpool:test.v1:wait") === 2);
  await goAway();
  const unknown = await pool.submit(tasks.add, 3, 3);
  await pool.terminate("away");
  for (const future of [known, sent, unknown]) {
    assertInstanceOf(await future.exception(), JobCancelledError);
    assertEquals(future.state, "cancelled");
  }
} else {
  const host = await serve({ queue: "test", connection, tasks, workers: 1, onError });
  await goAway();
  await host.shutdown({ timeout: 0 });
  await host.finished;
}
console.log("ended");
