/**
 * After this many ms without a whole turn of the event loop, callbacks wait for one. Shorter costs turns; longer makes network and Ctrl-C
 * wait while short jobs follow each other.
 */
const LONGEST_STRETCH = 10;

/**
 * A whole turn is this many ticks of the event loop: while there is always something to do, Deno 2.9 looks at sockets and signals only at
 * about one tick in sixty (tokio's `event_interval`). A tick takes a µs or two.
 */
const TICKS = 64;

/**
 * A turn is over earlier if it has taken this many ms: other work ran in it. Shorter, and on a busy machine a turn may be over before
 * anything else had one; longer, and callbacks wait for the work of all its ticks.
 */
const LONGEST_TURN = 2;

let lastTurn = performance.now();
/** The current turn, if any. */
let turn: Promise<void> | undefined;
/** When the first callback of {@linkcode betweenTurns} since the last tick was called, if a turn was due. */
let busySince: number | undefined;
/** Whether those who hear of something by a callback of {@linkcode betweenTurns} may not have run yet. */
let areHearing = false;

/**
 * Calls back at the next tick of the event loop: `setTimeout` would let a millisecond pass, and `Atomics.waitAsync` would let the program
 * end.
 */
declare const setImmediate: (callback: () => void) => unknown;

/** Taken now: what tests put in its place for a while may never call back, and everything would wait for that forever. */
const atEndOfTurn = queueMicrotask;

/**
 * Calls back before other work of the event loop, unless that has waited for long. The returned function cancels a callback that has to
 * wait.
 */
export function soon(callback: () => void): () => void {
  if (isTurnDue()) return afterTurn(callback);
  queueMicrotask(callback);
  return () => {};
}

/** Calls back when the event loop has looked at other work, and at all of it if that has waited for long. */
export function atNextTick(callback: () => void): void {
  if (isTurnDue()) afterTurn(callback);
  else setImmediate(callback);
}

/**
 * Calls back at once, or after a whole turn if one has begun, or if earlier callbacks have kept the thread busy without a tick since. A turn
 * that is merely due, as after a pause, is not waited for: the first calls after the pause would be late. Of several callbacks that come at
 * once, each is called after those who have heard of something by the one before: only then is it known how busy they keep the thread.
 */
export function betweenTurns(callback: () => void): void {
  if (turn !== undefined || isBusy()) return void afterTurn(() => betweenTurns(callback));
  if (areHearing) return atEndOfTurn(() => betweenTurns(callback));
  if (busySince === undefined && isTurnDue()) {
    busySince = performance.now();
    setImmediate(() => {
      if (isBusy()) turn ??= wholeTurn();
      busySince = undefined;
    });
  }
  areHearing = true;
  try {
    callback();
  } finally {
    // Behind those who hear.
    atEndOfTurn(haveHeard);
  }
}

function haveHeard(): void {
  areHearing = false;
}

function isBusy(): boolean {
  return busySince !== undefined && performance.now() - busySince >= LONGEST_STRETCH;
}

function isTurnDue(): boolean {
  return performance.now() - lastTurn >= LONGEST_STRETCH;
}

/** Calls back after a whole turn. The returned function cancels that. */
function afterTurn(callback: () => void): () => void {
  let isWanted = true;
  turn ??= wholeTurn();
  turn.then(() => {
    if (isWanted) callback();
  });
  return () => void (isWanted = false);
}

async function wholeTurn(): Promise<void> {
  await tick();
  // Only now, as the callbacks that waited for the turn before may have run until the first tick.
  const end = performance.now() + LONGEST_TURN;
  for (let i = 1; i < TICKS && performance.now() < end; i++) await tick();
  lastTurn = performance.now();
  // The tick that does this may never have come, if tests have put something in the place of `setImmediate` for a while.
  turn = busySince = undefined;
}

function tick(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}
