// @ts-check
import { asPool, load } from "./pool.mjs";

/** @type {import("./pool.mjs").Contender["open"]} */
export async function open({ workers }) {
  const { Piscina } = await load("piscina");
  const pool = new Piscina({ filename: new URL("./piscina_tasks.mjs", import.meta.url).href, minThreads: workers, maxThreads: workers });
  return asPool({
    call: (task, arg) => pool.run(arg, { name: task }),
    move: (buffer) => pool.run(buffer, { name: "stampAndMove", transferList: [buffer] }),
    close: () => pool.destroy(),
  });
}
