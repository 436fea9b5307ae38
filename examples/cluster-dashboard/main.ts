/**
 * A dashboard for a queue of `@procpool/cluster`: bull-board, which shows jobs, arguments, results and failures, and can remove and retry
 * them. It has packages of its own, which nothing else installs. Whoever can open it can do all that: it only listens on this machine.
 *
 * ```sh
 * deno run --allow-net=127.0.0.1 --allow-read --ignore-env --no-prompt examples/cluster-dashboard/main.ts \
 *   redis://127.0.0.1:6379 numbers 3000
 * ```
 *
 * @module
 */

import { createBullBoard } from "@bull-board/api";
import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { HonoAdapter } from "@bull-board/hono";
import { Queue } from "bullmq";
import { Hono } from "hono";
import { serveStatic } from "hono/deno";
import { Redis } from "ioredis";

const [url = "redis://127.0.0.1:6379", queue = "default", port = "3000"] = Deno.args;

const connection = new Redis(url, { maxRetriesPerRequest: null });
connection.on("error", (error) => console.error(`dashboard: ${error.message}`));

const board = new HonoAdapter(serveStatic);
createBullBoard({
  // The name that the queue has in Redis: with the version of what is written into it.
  queues: [new BullMQAdapter(new Queue(`${queue}.v1`, { connection, prefix: "dpool" }))],
  serverAdapter: board,
});
const app = new Hono().route("/", board.registerPlugin());

Deno.serve({
  hostname: "127.0.0.1",
  port: Number(port),
  onListen: ({ port }) => console.log(`the queue "${queue}" is shown at http://127.0.0.1:${port}/`),
}, app.fetch);
