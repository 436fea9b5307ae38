// @ts-check
/**
 * The tasks, each self-contained and of one argument, so that every contender can run them: by reference, by name or by source.
 *
 * @module
 */

/** @param {number} x */
export function increment(x) {
  return x + 1;
}

/**
 * @template {number[] | Float64Array} T
 * @param {T} xs
 * @returns {T}
 */
export function incrementAll(xs) {
  return /** @type {T} */ (xs.map((x) => x + 1));
}

/** @param {Uint8Array} bytes */
export function stampBytes(bytes) {
  bytes[0] = (bytes[0] ?? 0) + 1;
  return bytes;
}

/** @param {ArrayBuffer} buffer */
export function stampBuffer(buffer) {
  const bytes = new Uint8Array(buffer);
  bytes[0] = (bytes[0] ?? 0) + 1;
  return buffer;
}

/** @param {{ seed: number, iterations: number }} work */
export function compute({ seed, iterations }) {
  let x = seed;
  for (let i = 0; i < iterations; i++) x = (Math.imul(x, 1664525) + 1013904223) | 0;
  return x;
}

/**
 * Holds its worker for so many milliseconds, as computing would, but leaves the core to others; and tells when it did, in milliseconds on a clock
 * that all threads share.
 *
 * @param {{ id: number, ms: number }} work
 */
export function hold({ id, ms }) {
  const start = performance.timeOrigin + performance.now();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
  return { id, start, end: performance.timeOrigin + performance.now() };
}

/** @typedef {{ id: number, name: string, email: string, city: string, tags: string[], prices: number[] }} Item */

/** @param {Item} record */
export function anonymise(record) {
  if (record.id % 100 === 7) throw new RangeError(`Record ${record.id} is refused`);
  return { ...record, name: "anonymous", email: "" };
}

/** @param {Item} record */
export function reprice(record) {
  if (record.id % 100 === 7) throw new RangeError(`Record ${record.id} is refused`);
  return { ...record, prices: record.prices.map((price) => price * 2) };
}

/** @param {Item} record */
export function retag(record) {
  if (record.id % 100 === 7) throw new RangeError(`Record ${record.id} is refused`);
  return { ...record, tags: record.tags.map((tag) => tag.toUpperCase()) };
}

/**
 * What a chunk made by hand needs so that one failure does not cost it all.
 *
 * @param {Item[]} records
 */
export function repriceAll(records) {
  return records.map((record) => {
    try {
      if (record.id % 100 === 7) throw new RangeError(`Record ${record.id} is refused`);
      return { status: "fulfilled", value: { ...record, prices: record.prices.map((price) => price * 2) } };
    } catch (reason) {
      return { status: "rejected", reason };
    }
  });
}
