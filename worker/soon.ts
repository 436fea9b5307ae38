/**
 * After so many ms without a turn of the event loop, what would come next waits for one. Shorter costs turns, longer lets timers, network and Ctrl-C wait for short jobs
 * that follow each other.
 */
const LONGEST_STRETCH = 10;

let lastTurn = performance.now();

/** Calls back at a turn of the event loop. The function that is returned calls that off. */
type Turn = (callback: () => void) => () => void;

declare const setImmediate: (callback: () => void) => unknown;
declare const clearImmediate: (immediate: unknown) => void;

// As they are now: a test may put others in their place, whose time it turns by hand.
const startTimer = global<typeof setTimeout>("setTimeout");
const stopTimer = global<typeof clearTimeout>("clearTimeout");

/** What a global is now, to be had later: to look at timers takes Deno some ms. */
function global<T>(name: string): () => T {
  const { value, get } = Object.getOwnPropertyDescriptor(globalThis, name)!;
  return () => value ?? get!.call(globalThis);
}

/** At once. Where there is always something to do, Deno 2.9 looks at sockets and signals at one such turn in sixty (tokio's `event_interval`). */
const atOnce: Turn = (callback) => {
  const immediate = setImmediate(callback);
  return () => clearImmediate(immediate);
};

/** When Deno has looked at sockets and signals, too, which lets a millisecond or two pass. */
export const afterSockets: Turn = (callback) => {
  const timer = startTimer()(callback);
  return () => stopTimer()(timer);
};

/** Calls back before other work of the event loop, unless that has waited long. The function that is returned calls off what has to wait. */
export function soon(callback: () => void, turn: Turn = atOnce): () => void {
  if (performance.now() - lastTurn < LONGEST_STRETCH) {
    queueMicrotask(callback);
    return () => {};
  }
  return turn(() => {
    lastTurn = performance.now();
    callback();
  });
}
