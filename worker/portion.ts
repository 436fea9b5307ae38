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

/**
 * How many results are handed over before the event loop has a tick. Those who await them are called in microtasks, one after the other,
 * before any other work; so results go out in portions, as large as fits the time that the last ones took.
 */
export class Portion {
  #now: () => number;
  #size = WORTH_MEASURING;
  /** How many results were handed over since the last measurement began, or ended. */
  #handed = 0;
  /** When the measurement began, while there is one. */
  #since: number | undefined;
  /** Whether those who heard of results have not had their turn yet. */
  #isOpen = false;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Goes on with the portion, or, if those who heard of it are done, begins the next one. Returns how many results it may still have. */
  left(): number {
    if (this.#isOpen) return Math.max(0, this.#size - this.#handed);
    if (this.#since === undefined) return this.#size;
    // If nobody was waiting for more, this has taken longer: then the first portions after that are too small.
    const fitting = Math.floor(LONGEST * this.#handed / (this.#now() - this.#since));
    this.#size = Math.max(1, Math.min(fitting, GROWTH * this.#size, MOST));
    this.#handed = 0;
    this.#since = undefined;
    return this.#size;
  }

  /** Notes that this many results are about to be handed over. */
  handOver(results: number): void {
    this.#handed += results;
    if (this.#since !== undefined || this.#handed < Math.min(WORTH_MEASURING, this.#size)) return;
    this.#handed = results;
    this.#since = this.#now();
    this.#isOpen = true;
    // Comes before those who are about to hear of these results, and after whoever else is about to take some.
    queueMicrotask(this.#close);
  }

  #close = (): void => {
    this.#isOpen = false;
  };
}

/** The portions of all lines of this thread, which have one event loop. */
export const portions = new Portion(() => performance.now());
