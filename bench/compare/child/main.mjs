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

let outcome;
try {
  /** @type {import("./session.mjs").Contender} */
  const { open } = await import(new URL(file ?? "", import.meta.url).href);
  const session = await open({ workers, variant });
  outcome = { figures: await drives[drive]?.(session, size, workers) };
  // A program that is timed to its exit has to close its pool and to end by itself. The others do neither: whether a contender can, and how long
  // it takes, is not what they measure.
  if (drive === "coldStart") await session.close();
} catch (error) {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  outcome = {
    failure: { kind: name === "WrongResult" ? "wrong" : "failed", message: name === "WrongResult" ? message : `${name}: ${message}` },
  };
}
process.stdout.write(`${JSON.stringify(outcome)}\n`, () => {
  if (drive !== "coldStart" || outcome.failure) process.exit(0);
});
