// @ts-check
import { load, session } from "./session.mjs";

/** @type {import("./session.mjs").Contender["open"]} */
export async function open({ workers }) {
  const { Piscina } = await load("piscina");
  const pool = new Piscina({ filename: new URL("./piscina_tasks.mjs", import.meta.url).href, minThreads: workers, maxThreads: workers });
  return session({
    call: (task, arg) => pool.run(arg, { name: task }),
    move: (buffer) => pool.run(buffer, { name: "stampAndMove", transferList: [buffer] }),
    close: () => pool.destroy(),
  });
}
