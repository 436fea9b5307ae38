import type { Clock } from "./clock.ts";

/** Does something again and again, for as long as there is reason to. */
export class Rounds {
  #clock: Clock;
  #interval: number;
  #round: () => boolean;
  #begun = false;
  #stopTimer: () => void = () => {};

  /**
   * @param clock The clock.
   * @param interval The time between two rounds, in ms.
   * @param round What is done in each. Whether there is to be another.
   */
  constructor(clock: Clock, interval: number, round: () => boolean) {
    this.#clock = clock;
    this.#interval = interval;
    this.#round = round;
  }

  /** There is reason. */
  begin(): void {
    if (this.#begun) return;
    this.#begun = true;
    const stop = this.#clock.after(this.#interval, () => {
      this.#begun = false;
      if (this.#round()) this.begin();
    });
    // Under `deno test`, the first timer of a program runs microtasks while it is set, which may have ended this.
    if (this.#begun) this.#stopTimer = stop;
    else stop();
  }

  end(): void {
    this.#begun = false;
    this.#stopTimer();
  }
}
