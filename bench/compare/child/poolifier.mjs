// @ts-check
import process from "node:process";
import { fileURLToPath } from "node:url";
import { asPool, load } from "./pool.mjs";

/**
 * poolifier-web-worker on Deno, and poolifier, which is its elder, on Node.
 *
 * @type {import("./pool.mjs").Contender["open"]}
 */
export async function open({ workers }) {
  const onDeno = "deno" in process.versions;
  const { FixedThreadPool } = await load(onDeno ? "poolifier-web-worker" : "poolifier");
  const worker = new URL("./poolifier_worker.mjs", import.meta.url);
  const pool = new FixedThreadPool(workers, onDeno ? worker : fileURLToPath(worker));
  return asPool({
    call: (task, arg) => pool.execute(arg, task),
    move: (buffer) => pool.execute(buffer, "stampBuffer", undefined, [buffer]),
    close: () => pool.destroy(),
  });
}
