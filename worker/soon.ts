/**
 * After so many ms without a whole turn of the event loop, what would come next waits for one. Shorter costs turns; longer has network and
 * Ctrl-C wait while short jobs follow each other.
 */
const LONGEST_STRETCH = 10;

/**
 * A whole turn is so many ticks of the event loop: where there is always something to do, Deno 2.9 looks at sockets and signals at one tick
 * in about sixty (tokio's `event_interval`). A tick takes a µs or two.
 */
const TICKS = 64;

/**
 * A turn is over before that if it has taken so many ms: others have been at work in it. Shorter, and on a busy machine a turn is over
 * before there was one; longer, and what would come next waits for the work of all its ticks.
 */
const LONGEST_TURN = 2;

let lastTurn = performance.now();
/** The turn that is being taken. */
let turn: Promise<void> | undefined;

/** A tick of the event loop, at once: `setTimeout` would let a millisecond pass, and `Atomics.waitAsync` the program end. */
declare const setImmediate: (callback: () => void) => unknown;

/**
 * Calls back before other work of the event loop, unless that has waited long. The function that is returned calls off what has to wait.
 */
export function soon(callback: () => void): () => void {
  if (isTurnDue()) return afterTurn(callback);
  queueMicrotask(callback);
  return () => {};
}

/** Calls back when the event loop has looked at other work, and at all of it if that has waited long. */
export function atNextTick(callback: () => void): void {
  if (isTurnDue()) afterTurn(callback);
  else setImmediate(callback);
}

function isTurnDue(): boolean {
  return performance.now() - lastTurn >= LONGEST_STRETCH;
}

/** The function that is returned calls it off. */
function afterTurn(callback: () => void): () => void {
  let isWanted = true;
  turn ??= wholeTurn();
  turn.then(() => {
    if (isWanted) callback();
  });
  return () => void (isWanted = false);
}

async function wholeTurn(): Promise<void> {
  const end = performance.now() + LONGEST_TURN;
  for (let i = 0; i < TICKS && performance.now() < end; i++) await new Promise<void>((resolve) => void setImmediate(resolve));
  lastTurn = performance.now();
  turn = undefined;
}
