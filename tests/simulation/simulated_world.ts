import type { Environment } from "../../pool/options.ts";
import type { ExportMessage } from "../../worker/protocol.ts";
import { type OpenSlot, slotsOf } from "../../worker/slot.ts";
import { Random } from "./random.ts";
import { SimulatedClock } from "./simulated_clock.ts";
import { type Malice, SimulatedThread } from "./simulated_thread.ts";
import { Work, type WorkOptions, type WorkOutcome } from "./works.ts";

/** Why schedules terminate pools. */
export const TERMINATED = "enough";

/**
 * Everything around a pool: threads, time, and what waits for something outside. It changes only in steps, and the generator chooses the
 * next step.
 */
export class SimulatedWorld implements Environment {
  readonly random: Random;
  readonly clock = new SimulatedClock();
  readonly malice: Malice;
  /** The exports that threads report of their module. */
  readonly exports: ExportMessage[];
  /** Increases whenever anything happens, to detect that nothing does any more. */
  activity = 0;
  /** All job arguments and items, by number. */
  readonly works: Work[] = [];
  #threads: SimulatedThread[] = [];
  /** The threads that the pool does not know to be gone. */
  readonly notGone = new Set<SimulatedThread>();
  /** Whether the pool may have been told to stop its threads with everything they hold. */
  mayEnd = false;
  /** When the pool last ended a thread or heard of a death. */
  lastEnd = 0;
  /** Promises for something outside of the pool to settle. */
  #pauses: (() => void)[] = [];
  #trace: ((line: string) => void) | undefined;

  /** Whether jobs are calls that take almost no time, and come in large numbers. */
  readonly tiny: boolean;

  constructor(seed: number, { exports, trace }: { exports: ExportMessage[]; trace?: ((line: string) => void) | undefined }) {
    const random = this.random = new Random(seed);
    this.tiny = seed % 4 === 0;
    this.exports = exports;
    this.#trace = trace;
    // A peaceful world reaches the end of long stories; a malicious one begins many.
    const peaceful = random.chance(0.2);
    const rate = (...rates: number[]): number => peaceful || random.chance(0.4) ? 0 : random.pick(rates);
    // If workers start without trouble, jobs get further.
    const troubled = random.chance(0.5);
    const startRate = (...rates: number[]): number => troubled ? rate(...rates) : 0;
    this.malice = {
      startThrows: startRate(0.05, 0.3, 1),
      failsToLoad: startRate(0.05, 0.3, 0.9),
      failsToInitialize: startRate(0.05, 0.3),
      diesAtStart: startRate(0.05, 0.3, 1),
      dies: rate(0.01, 0.03, 0.1),
      deadly: rate(0.1, 0.3),
      losesMessages: rate(0.3, 0.8),
      fillsHeap: rate(0.3, 1),
      throws: rate(0.1, 0.4),
      lingers: rate(0.1, 0.3, 0.6),
      answersTwice: rate(0.1, 0.5),
      unstoppable: rate(0.1, 0.5),
      finalizerThrows: rate(0.3),
      supervisorDies: rate(0.01, 0.05),
      hangsAtStart: startRate(0.02, 0.1),
      // Each of these makes it take twice as long to notice the next.
      keptBusy: rate(0.02, 0.1) / (this.tiny ? 20 : 1),
    };
  }

  newWork(options: Omit<WorkOptions, "deadly">): Work {
    const work = new Work(this.works.length, { ...options, deadly: this.random.chance(this.malice.deadly) });
    this.works.push(work);
    return work;
  }

  note(line: () => string): void {
    this.#trace?.(`${this.clock.now()} ms: ${line()}`);
  }

  openSlot: OpenSlot = slotsOf((events, name) => {
    this.activity++;
    if (this.random.chance(this.malice.startThrows)) {
      this.note(() => `${name} cannot be started`);
      throw new Error("there is no thread");
    }
    const thread = new SimulatedThread(this, events, name);
    this.note(() => `${thread.name} is started`);
    this.#threads.push(thread);
    this.notGone.add(thread);
    return thread;
  });

  /** Loads the code that starts threads, which takes time. */
  load: () => Promise<OpenSlot> = async () => {
    await this.pause();
    if (this.random.chance(this.malice.startThrows)) {
      this.note(() => "what starts threads cannot be loaded");
      throw new Error("there is no backend");
    }
    return this.openSlot;
  };

  /** Whether this is the reason for which a pool was terminated, also when its `shutdown` took too long. */
  isEnd(reason: unknown): boolean {
    return reason === TERMINATED || (reason instanceof DOMException && reason.name === "TimeoutError");
  }

  /** A promise that a later step resolves. */
  pause(): Promise<void> {
    return new Promise((resolve) => this.#pauses.push(resolve));
  }

  /** How many jobs at most are sent ahead to a thread that reports its speed: two milliseconds' worth. */
  mostAhead(worker: number): number {
    const { pace } = this.#threads.find(({ name }) => name === `worker ${worker}`) ?? { pace: Infinity };
    return Math.max(0, Math.min(1023, Math.ceil(2 / pace) - 1));
  }

  // What threads report

  /** How many steps beyond the first a piece of work takes: Infinity if it ends only with its thread. */
  duration(): number {
    const { random, malice } = this;
    return random.chance(malice.lingers) ? random.pick([1, 3, Infinity]) : 0;
  }

  outcomeOf({ number, runs }: Work): WorkOutcome {
    // No two runs have the same.
    return this.random.chance(this.malice.throws) ? { error: new Error(`${number} failed`) } : { value: number * 100 + runs };
  }

  // Steps

  /** Whether anything other than a timer is about to happen. */
  get canStep(): boolean {
    return this.#pauses.length > 0 || this.#threads.some((thread) => thread.hasSent || thread.canStep);
  }

  /** Takes one step, if there is one. Time passes only when nothing else happens, except for `hasty` timers. */
  step({ hastyTimers }: { hastyTimers: boolean }): boolean {
    const { random } = this;
    if (hastyTimers && this.clock.timers > 0 && random.chance(0.05)) return this.fireTimer();
    const senders: SimulatedThread[] = [];
    const steppers: SimulatedThread[] = [];
    for (const thread of this.#threads) {
      if (thread.hasSent) senders.push(thread);
      if (thread.canStep) steppers.push(thread);
    }
    const choices = senders.length + steppers.length + this.#pauses.length;
    if (choices === 0) return false;
    if (random.chance(0.2)) this.clock.creep(random.below(4));
    if (random.chance(this.malice.supervisorDies)) this.#endAll();
    let choice = random.below(choices);
    if (choice < senders.length) this.#deliver(senders[choice]!);
    else if ((choice -= senders.length) < steppers.length) this.#step(steppers[choice]!);
    else {
      this.note(() => "something outside has finished");
      this.#pauses.splice(choice - steppers.length, 1)[0]!();
    }
    return true;
  }

  /** Fires the timer that is due next, if there is one. */
  fireTimer(): boolean {
    if (this.clock.timers === 0) return false;
    this.note(() => "the next timer fires");
    this.clock.fire();
    return true;
  }

  /** Fires the next timer if it is due soon. */
  fireSoonTimer(until: number): boolean {
    return this.clock.nextDue <= until && this.fireTimer();
  }

  /** Ends work that nothing else would ever end; false if there is none. */
  release(): boolean {
    let released = false;
    for (const thread of this.#threads) released = thread.release() || released;
    return released;
  }

  /** Whether a thread does something that only time will end. */
  get hangs(): boolean {
    return this.#threads.some((thread) => thread.hangs);
  }

  checkNow(): void {
    for (const thread of this.#threads) thread.checkNow();
  }

  #endAll(): void {
    this.note(() => "a supervisor dies");
    for (const thread of this.#threads) thread.perish();
  }

  #deliver(thread: SimulatedThread): void {
    thread.deliver();
    if (thread.goneForSlot) this.notGone.delete(thread);
    this.#forgetIfOver(thread);
  }

  #step(thread: SimulatedThread): void {
    thread.step();
    this.#forgetIfOver(thread);
  }

  #forgetIfOver(thread: SimulatedThread): void {
    if (thread.over) this.#threads.splice(this.#threads.indexOf(thread), 1);
  }
}
