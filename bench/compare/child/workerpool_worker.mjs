// @ts-check
import { load } from "./pool.mjs";
import * as tasks from "./tasks.mjs";

const { default: workerpool } = await load("workerpool");

/** @param {ArrayBuffer} buffer */
function stampAndMove(buffer) {
  return new workerpool.Transfer(tasks.stampBuffer(buffer), [buffer]);
}

workerpool.worker({ ...tasks, stampAndMove });
