// @ts-check
import * as tasks from "./tasks.mjs";

/** @type {any} -- the type checker takes this for no worker */
const worker = globalThis;

/** @type {Record<string, (arg: any) => unknown>} */
const byName = { ...tasks };

/**
 * @param {string} task
 * @param {unknown} arg
 */
function settled(task, arg) {
  try {
    return { status: "fulfilled", value: byName[task]?.(arg) };
  } catch (reason) {
    return { status: "rejected", reason };
  }
}

/** @param {MessageEvent<[id: number, task: string, args: any[], move: boolean]>} event */
worker.onmessage = ({ data: [id, task, args, move] }) => {
  if (task === "") return worker.postMessage([id, args.map(([task, arg]) => settled(task, arg)), undefined]);
  try {
    const results = args.map((arg) => byName[task]?.(arg));
    worker.postMessage([id, undefined, results], move ? results : []);
  } catch (reason) {
    worker.postMessage([id, [{ status: "rejected", reason }], undefined]);
  }
};
