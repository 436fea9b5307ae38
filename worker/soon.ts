/**
 * After so many ms without a turn of the event loop, what would come next waits for one. Shorter costs turns, longer lets timers, network and Ctrl-C wait for short jobs
 * that follow each other.
 */
const LONGEST_STRETCH = 10;

let lastTurn = performance.now();

/** A macrotask, at once: `setTimeout` would let a millisecond pass. */
declare const setImmediate: (callback: () => void) => unknown;
declare const clearImmediate: (immediate: unknown) => void;

/** Calls back before other work of the event loop, unless that has waited long. The function that is returned calls off what has to wait. */
export function soon(callback: () => void): () => void {
  if (performance.now() - lastTurn < LONGEST_STRETCH) {
    queueMicrotask(callback);
    return () => {};
  }
  const immediate = setImmediate(() => {
    lastTurn = performance.now();
    callback();
  });
  return () => clearImmediate(immediate);
}
