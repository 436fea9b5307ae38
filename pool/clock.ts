import { now, timeOfDay, timers } from "../worker/platform.ts";
import { soon } from "../worker/soon.ts";

/** Time as the pool sees it; the simulation has a clock of its own. */
export interface Clock {
  /** Milliseconds since some fixed moment. */
  now(): number;
  /** The time of day in milliseconds, truncated to 32 bits: the same in all threads. */
  timeOfDay(): number;
  /** Calls back once after a delay in milliseconds; the returned function cancels that. */
  after(delay: number, callback: () => void): () => void;
  /** Calls back before other work of the event loop, unless that has waited for long. */
  soon(callback: () => void): void;
}

/**
 * How many parts {@linkcode afterInParts} divides a delay into. Fewer, and a worker counts as late because the caller was busy; more, and
 * each costs a timer.
 */
const PARTS = 10;

/**
 * Calls back after a delay, like {@linkcode Clock.after}, in which a worker has to do something. While the caller is busy, it neither
 * starts nor hears of anything in a worker. So the delay is counted in parts, each of which may take longer if the caller is busy.
 */
export function afterInParts(clock: Clock, delay: number, callback: () => void): () => void {
  let left = PARTS;
  let stop: () => void;
  const next = (): void => {
    stop = clock.after(delay / PARTS, () => --left > 0 ? next() : callback());
  };
  next();
  return () => stop();
}

/** The clock and the timers of the platform. */
export const realClock: Clock = {
  now,
  timeOfDay: () => timeOfDay() | 0,
  after(delay, callback) {
    const timer = timers.start()(callback, delay);
    return () => timers.stop()(timer);
  },
  soon,
};

/** A timer for one thing at a time, which may be set again and again. */
export class Timer {
  #clock: Clock;
  /** Cancels what it is set for; undefined while it is not set. */
  #cancel: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether it is still to call back. */
  get isSet(): boolean {
    return this.#cancel !== undefined;
  }

  /** Calls back once after a delay in milliseconds, instead of what it was set for before. */
  set(delay: number, callback: () => void): void {
    this.stop();
    const setting = this.#cancel = () => {};
    const cancel = this.#clock.after(delay, () => {
      this.#cancel = undefined;
      callback();
    });
    // Under `deno test`, setting a program's first timer runs microtasks, which may have set or stopped this one.
    if (this.#cancel === setting) this.#cancel = cancel;
    else cancel();
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }
}

/** Does something periodically, for as long as there is a reason to. */
export class Rounds {
  #timer: Timer;
  #interval: number;
  #round: () => boolean;

  /**
   * @param clock The clock.
   * @param interval The time between two rounds, in ms.
   * @param round Does one round, and returns whether there is to be another.
   */
  constructor(clock: Clock, interval: number, round: () => boolean) {
    this.#timer = new Timer(clock);
    this.#interval = interval;
    this.#round = round;
  }

  /** Begins, unless it has: there is a reason now. */
  begin(): void {
    if (this.#timer.isSet) return;
    this.#timer.set(this.#interval, () => {
      if (this.#round()) this.begin();
    });
  }

  end(): void {
    this.#timer.stop();
  }
}

/**
 * Says from time to time that something is due, to a caller that asks far more often. It reads the clock only then: how often it was asked
 * since the last time tells how many calls take that long.
 */
export class Cadence {
  #clock: Clock;
  #interval: number;
  #mostCalls: number;
  #calls = 1;
  #callsLeft = 1;
  #since = 0;

  /**
   * @param clock The clock.
   * @param interval After how many ms it is due again.
   * @param mostCalls After how many calls it is due at the latest.
   */
  constructor(clock: Clock, interval: number, mostCalls: number) {
    this.#clock = clock;
    this.#interval = interval;
    this.#mostCalls = mostCalls;
  }

  /** Asks once; the next answer of true comes after the interval, or the most calls. */
  isDue(): boolean {
    if (--this.#callsLeft > 0) return false;
    const now = this.#clock.now();
    const timeOfCall = (now - this.#since) / this.#calls;
    this.#since = now;
    this.#calls = this.#callsLeft = Math.max(1, Math.min(this.#mostCalls, Math.floor(this.#interval / timeOfCall)));
    return true;
  }
}

/**
 * After how many ms of taking results that are ready a consumer waits for a turn of the event loop, if one is due. More often costs time;
 * less often, and timers, sockets and signals wait for a consumer that computes.
 */
const LONGEST_STRETCH = 10;

/** After how many results the clock is read at the latest. More, and it is noticed late that a consumer has become slow. */
const RESULTS_A_LOOK = 100;

/** Says when a consumer that takes results which are ready has gone on for so long that it should wait for a turn, if one is due. */
export function stretches(clock: Clock): Cadence {
  return new Cadence(clock, LONGEST_STRETCH, RESULTS_A_LOOK);
}
