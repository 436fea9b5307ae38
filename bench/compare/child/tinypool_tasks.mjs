// @ts-check
import { load } from "./pool.mjs";
import { stampBuffer } from "./tasks.mjs";

export * from "./tasks.mjs";

const { Tinypool: { move } } = await load("tinypool");

/** @param {ArrayBuffer} buffer */
export function stampAndMove(buffer) {
  return move(stampBuffer(buffer));
}
