import { soon } from "./soon.ts";

/**
 * How long those who hear of results may keep their thread busy, in ms, before the event loop looks at other work. Shorter, and there are
 * more ticks; longer, and timers, sockets and Ctrl-C wait.
 */
const LONGEST = 5;

/**
 * So many results may be handed over before there has to be a portion, which is measured. Fewer, and ticks and measuring take longer than
 * handing them over; more, and it is noticed late that a program has become slow.
 */
const FEW = 64;

/**
 * The most results in a portion, which is how many are handed over before a program that has become slow is noticed. Fewer, and the ticks
 * between them cost more than a few hundredths of what the results do; more, and the first stretch of slow ones is longer.
 */
const MOST = 256;

/** How many times as large as the one before it a portion may be: the next results may take longer. */
const GROWTH = 4;

declare const setImmediate: (callback: () => void) => unknown;

/** What {@linkcode Portions} need of their thread. */
export interface PortionsParts {
  now(): number;
  /** Calls back before other work of the event loop, unless that has waited for long. */
  soon(callback: () => void): unknown;
  /** Calls back at the next tick of the event loop: one after the other, with nothing but their microtasks in between. */
  atNextTick(callback: () => void): unknown;
}

/** Takes results, at most this many, and hands them over. */
export type Taker = (most: number) => void;

/**
 * How many results are handed over in one tick of the event loop. Those who await them are called in microtasks, one after the other, before
 * any other work; so results go out in portions, as large as fits the time that the last ones took.
 */
export class Portions {
  #parts: PortionsParts;
  #size = FEW;
  /** How many results were handed over since the last portion began. */
  #handed = 0;
  /** Whose results wait for a portion. */
  #waiting = new Set<Taker>();
  /** Whether a portion is to come, or is not measured yet. */
  #isOn = false;
  /** Whether a portion is being taken. */
  #isServing = false;

  constructor(parts: PortionsParts) {
    this.#parts = parts;
  }

  /** How many results may be handed over at once. */
  get few(): number {
    return Math.max(0, Math.min(FEW, this.#size) - this.#handed);
  }

  /** The same at the beginning of a tick of the event loop, when those who heard of earlier results are done. */
  atTick(): number {
    if (!this.#isOn) this.#handed = 0;
    return this.few;
  }

  /**
   * Notes that this many results are handed over, even if that is more than there should be. One that comes alone has no others behind it,
   * and does not count unless portions are small: so calls that are made one after another never wait for a portion. `isAlone` is false for
   * one that comes by itself and has others behind it all the same.
   */
  handOver(results: number, isAlone = results === 1): void {
    if (!isAlone || this.#isServing || this.#size < FEW) this.#handed += results;
  }

  /** Has results taken in a tick of its own, in turn with others; once, however often it is asked to until then. */
  join(taker: Taker): void {
    this.#waiting.add(taker);
    this.#goOn();
  }

  #goOn(): void {
    if (this.#isOn || this.#waiting.size === 0) return;
    this.#isOn = true;
    this.#parts.soon(this.#begin);
  }

  /**
   * It is measured as soon as the microtasks of a portion are done. Later the time would be that of other work, too: of a program that keeps
   * its event loop busy each portion would be smaller than the one before it.
   */
  #begin = (): void => {
    let since = 0;
    this.#parts.atNextTick(() => {
      since = this.#parts.now();
      this.#serve();
    });
    this.#parts.atNextTick(() => this.#measure(this.#parts.now() - since));
  };

  #serve(): void {
    this.#handed = 0;
    this.#isServing = true;
    // Those who have more queue up behind those whose turn has not come.
    let left = this.#waiting.size;
    for (const taker of this.#waiting) {
      if (left-- === 0 || this.#handed >= this.#size) break;
      this.#waiting.delete(taker);
      taker(this.#size - this.#handed);
    }
    this.#isServing = false;
  }

  #measure(time: number): void {
    const fitting = Math.floor(LONGEST * this.#handed / time);
    if (this.#handed > 0) this.#size = Math.max(1, Math.min(fitting, GROWTH * this.#size, MOST));
    this.#isOn = false;
    this.#goOn();
  }
}

/** The portions of all lines of this thread, which have one event loop. */
export const portions = new Portions({ now: () => performance.now(), soon, atNextTick: (callback) => setImmediate(callback) });
