/**
 * How long those who hear of results may keep their thread busy, in ms, before the event loop looks at other work. Shorter, and there are
 * more ticks; longer, and timers, sockets and Ctrl-C wait.
 */
const LONGEST = 5;

/**
 * After how many results it is measured how long that takes. Fewer, and measuring takes longer than handing them over; more, and it is
 * noticed late that a program has become slow.
 */
const WORTH_MEASURING = 64;

/**
 * The most results in a portion, which is how many are handed over before a program that has become slow is noticed. Fewer, and the ticks
 * between them cost more than a few hundredths of what the results do; more, and the first stretch of slow ones is longer.
 */
const MOST = 256;

/** How many times as large as the one before it a portion may be: the next results may take longer. */
const GROWTH = 4;

declare const setImmediate: (callback: () => void) => unknown;

/**
 * How many results are handed over in one tick of the event loop. Those who await them are called in microtasks, one after the other, before
 * any other work; so results go out in portions, as large as fits the time that the last ones took.
 */
export class Portion {
  #now: () => number;
  #atNextTick: (callback: () => void) => unknown;
  #size = WORTH_MEASURING;
  /** How many results were handed over since the last measurement began, or ended. */
  #handed = 0;
  /** When the measurement began, while there is one. */
  #since: number | undefined;

  constructor(now: () => number, atNextTick: (callback: () => void) => unknown) {
    this.#now = now;
    this.#atNextTick = atNextTick;
  }

  /** How many more results may be handed over in this tick. */
  get left(): number {
    return this.#since === undefined ? this.#size : Math.max(0, this.#size - this.#handed);
  }

  /** Notes that this many results are about to be handed over, which may be more than are left. */
  handOver(results: number): void {
    this.#handed += results;
    if (this.#since !== undefined || this.#handed < Math.min(WORTH_MEASURING, this.#size)) return;
    this.#handed = results;
    this.#since = this.#now();
    this.#atNextTick(this.#measure);
  }

  #measure = (): void => {
    const fitting = Math.floor(LONGEST * this.#handed / (this.#now() - this.#since!));
    this.#size = Math.max(1, Math.min(fitting, GROWTH * this.#size, MOST));
    this.#handed = 0;
    this.#since = undefined;
  };
}

/** The portion of all lines of this thread, which have one event loop. */
export const portion = new Portion(() => performance.now(), (callback) => setImmediate(callback));
