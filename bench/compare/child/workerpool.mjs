// @ts-check
import { fileURLToPath } from "node:url";
import { load, session } from "./session.mjs";

/** @type {import("./session.mjs").Contender["open"]} */
export async function open({ workers }) {
  const { default: workerpool } = await load("workerpool");
  const pool = workerpool.pool(fileURLToPath(new URL("./workerpool_worker.mjs", import.meta.url)), {
    minWorkers: workers,
    maxWorkers: workers,
    workerType: "thread",
  });
  return session({
    call: (task, arg) => pool.exec(task, [arg]),
    move: (buffer) => pool.exec("stampAndMove", [buffer], { transfer: [buffer] }),
    close: () => pool.terminate(),
  });
}
