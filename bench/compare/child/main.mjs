// @ts-check
/**
 * One measurement in a process of its own, on Deno or on Node: `main.mjs <contender file> <JSON of the request>`. The last line on the standard
 * output is its outcome: `{ figures }`, or `{ failure }` if a result was wrong or the contender failed.
 *
 * @module
 */

import process from "node:process";
import { drives } from "./drive.mjs";

const [file, text] = process.argv.slice(2);
const { drive, size, workers, variant } = JSON.parse(text ?? "");

async function measure() {
  /** @type {import("./pool.mjs").Contender} */
  const { open } = await import(new URL(file ?? "", import.meta.url).href);
  const pool = await open({ workers, variant });
  tell({ figures: await drives[drive]?.(pool, size, workers) });
  // A program that is timed to its exit has to close its pool and to end by itself. The others do neither: whether a contender can, and how long
  // it takes, is not what they measure.
  if (drive === "coldStart") await pool.close();
  else process.exit(0);
}

/** @param {unknown} outcome */
function tell(outcome) {
  console.log(JSON.stringify(outcome));
}

// It is not awaited: Node ends a program with code 13 that awaits here when nothing keeps it alive, as poolifier's pools do while they close.
measure().catch((error) => {
  const wrong = error.name === "WrongResult";
  tell({ failure: { kind: wrong ? "wrong" : "failed", message: wrong ? error.message : String(error) } });
  process.exit(0);
});
