// @ts-check
/**
 * What every contender implements, in one small file each: it opens its pool.
 *
 * @module
 */

/**
 * @typedef {object} Pool A pool that is ready for work, or workers without one.
 * @property {(task: string, arg: unknown) => Promise<any>} call Runs a task of `tasks.mjs`.
 * @property {(task: string, args: unknown[]) => Promise<any[]>} calls The same once for each argument, all at once.
 * @property {(jobs: [task: string, arg: unknown][]) => Promise<PromiseSettledResult<any>[]>} settle Different tasks, all at once, some of which fail.
 * @property {(items: number[], chunk: number, each: (result: number) => void) => Promise<void>} map Increments, in order.
 * @property {(items: Float64Array, chunk: number, each: (result: number) => void) => Promise<void>} mapTyped The same, packed.
 * @property {(items: import("./tasks.mjs").Item[], chunk: number, each: (result: PromiseSettledResult<any>) => void) => Promise<void>} mapRecords
 *   Reprices, in order.
 * @property {(buffer: ArrayBuffer) => Promise<ArrayBuffer>} move Runs `stampBuffer` with the buffer moved there, and back if the pool can.
 * @property {() => Promise<unknown>} [start] Starts all workers, if the pool starts them only as it needs them.
 * @property {() => Promise<unknown>} close
 */

/**
 * @typedef {object} Contender
 * @property {(options: { workers: number, variant: string }) => Promise<Pool>} open
 */

/** So many chunks by hand are in flight, four for each of two workers: fewer, and workers wait for the caller; more gains nothing. */
const CHUNKS_IN_FLIGHT = 8;

/**
 * Makes one of what every pool has: one call a job.
 *
 * @param {Pick<Pool, "call" | "move" | "close"> & Partial<Pool>} pool
 * @returns {Pool}
 */
export function asPool(pool) {
  const { call } = pool;
  return {
    calls: (task, args) => Promise.all(args.map((arg) => call(task, arg))),
    settle: (jobs) => Promise.allSettled(jobs.map(([task, arg]) => call(task, arg))),
    map: (items, chunk, each) => inChunks(items, chunk, (part) => call("incrementAll", part), each),
    mapTyped: (items, chunk, each) => inChunks(items, chunk, (part) => call("incrementAll", part), each),
    mapRecords: (items, chunk, each) => inChunks(items, chunk, (part) => call("repriceAll", part), each),
    ...pool,
  };
}

/**
 * Maps in chunks that are made by hand, with some of them in flight.
 *
 * @template {{ length: number, slice(from: number, to: number): T }} T
 * @param {T} items
 * @param {number} size
 * @param {(part: T) => Promise<any>} call
 * @param {(result: any) => void} each
 */
async function inChunks(items, size, call, each) {
  const inFlight = [];
  for (let at = 0; at < items.length; at += size) {
    inFlight.push(call(items.slice(at, at + size)));
    if (inFlight.length === CHUNKS_IN_FLIGHT) consume(await inFlight.shift());
  }
  for (const part of inFlight) consume(await part);

  /** @param {any} part */
  function consume(part) {
    for (let i = 0; i < part.length; i++) each(part[i]);
  }
}

/**
 * Imports a package of the comparison from where it is installed: outside of this repository, which depends on none of them.
 *
 * @param {string} name
 * @returns {Promise<any>}
 */
export async function load(name) {
  const { default: process } = await import("node:process");
  const { default: importFrom } = await import(`${process.env.COMPARE_PACKAGES}/load.mjs`);
  return await importFrom(name);
}
