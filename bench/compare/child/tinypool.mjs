// @ts-check
import process from "node:process";
import { asPool, load } from "./pool.mjs";

/** @type {import("./pool.mjs").Contender["open"]} */
export async function open({ workers }) {
  const { Tinypool } = await load("tinypool");
  const pool = new Tinypool({
    filename: new URL("./tinypool_tasks.mjs", import.meta.url).href,
    minThreads: workers,
    maxThreads: workers,
    // With Atomics it hangs on Deno as soon as many jobs are in flight.
    useAtomics: !("deno" in process.versions),
  });
  return asPool({
    call: (task, arg) => pool.run(arg, { name: task }),
    move: (buffer) => pool.run(buffer, { name: "stampAndMove", transferList: [buffer] }),
    close: () => pool.destroy(),
  });
}
