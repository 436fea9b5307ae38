// @ts-check
import { fileURLToPath } from "node:url";
import { asPool, load } from "./pool.mjs";

/** @type {import("./pool.mjs").Contender["open"]} */
export async function open({ workers }) {
  const { default: workerpool } = await load("workerpool");
  const pool = workerpool.pool(fileURLToPath(new URL("./workerpool_worker.mjs", import.meta.url)), {
    minWorkers: workers,
    maxWorkers: workers,
    workerType: "thread",
  });
  return asPool({
    call: (task, arg) => pool.exec(task, [arg]),
    move: (buffer) => pool.exec("stampAndMove", [buffer], { transfer: [buffer] }),
    close: () => pool.terminate(),
  });
}
