// @ts-check
import { load } from "./pool.mjs";
import { stampBuffer } from "./tasks.mjs";

export * from "./tasks.mjs";

const { move } = await load("piscina");

/** @param {ArrayBuffer} buffer */
export function stampAndMove(buffer) {
  return move(stampBuffer(buffer));
}
