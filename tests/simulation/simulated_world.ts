import type { Environment } from "../../pool/options.ts";
import type { ExportMessage, FromRuntime } from "../../worker/protocol.ts";
import { Random } from "./random.ts";
import { SimulatedClock } from "./simulated_clock.ts";
import { type Malice, SimulatedThread } from "./simulated_thread.ts";
import { check } from "./violation.ts";

/** What came of one piece of work in a worker. */
export type WorkOutcome = { value: number } | { error: Error };

/**
 * All that is around a pool: threads, time, and what waits for something outside. Nothing happens in it but by a step, and the generator chooses
 * which step is next.
 */
export class SimulatedWorld implements Environment {
  readonly random: Random;
  readonly clock = new SimulatedClock();
  readonly malice: Malice;
  /** What the threads say that their module exports. */
  readonly exports: ExportMessage[];
  /** Goes up whenever anything happens, so that one can tell when nothing does any more. */
  activity = 0;
  /** What has been started in a worker: job arguments and items, all of them different numbers. */
  readonly begun = new Set<number>();
  /** What came of it there. */
  readonly outcomes = new Map<number, WorkOutcome>();
  /** The answers about jobs that arrived at a slot that was still to hear of them. */
  readonly answers = new Map<number, WorkOutcome>();
  #threads: SimulatedThread[] = [];
  /** The threads of which the pool has not heard that they are gone. */
  readonly notGone = new Set<SimulatedThread>();
  /** When the pool ended a thread or heard of a death, most lately. */
  lastEnd = 0;
  /** Promises that something outside of the pool is to settle. */
  #pauses: (() => void)[] = [];
  #trace: ((line: string) => void) | undefined;

  constructor(seed: number, { exports, trace }: { exports: ExportMessage[]; trace?: ((line: string) => void) | undefined }) {
    const random = this.random = new Random(seed);
    this.exports = exports;
    this.#trace = trace;
    // A peaceful world comes as far as the end of long stories; a malicious one begins many.
    const peaceful = random.chance(0.2);
    const rate = (...rates: number[]): number => peaceful || random.chance(0.4) ? 0 : random.pick(rates);
    this.malice = {
      startThrows: rate(0.05, 0.3, 1),
      failsToLoad: rate(0.05, 0.3, 0.9),
      failsToInitialize: rate(0.05, 0.3),
      diesAtStart: rate(0.05, 0.3, 1),
      dies: rate(0.01, 0.03, 0.1),
      losesMessages: rate(0.3),
      throws: rate(0.1, 0.4),
      answersTwice: rate(0.1, 0.5),
      unstoppable: rate(0.1, 0.5),
      finalizerThrows: rate(0.3),
    };
  }

  note(line: () => string): void {
    this.#trace?.(`${this.clock.now()} ms: ${line()}`);
  }

  start: Environment["start"] = (events, name) => {
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
  };

  /** A promise that a later step resolves. */
  pause(): Promise<void> {
    return new Promise((resolve) => this.#pauses.push(resolve));
  }

  // What threads tell of

  started(work: number, thread: SimulatedThread): void {
    this.note(() => `${thread.name} starts ${work}`);
    check(!this.begun.has(work), "nothing runs twice", () => work);
    this.begun.add(work);
  }

  outcomeOf(work: number): WorkOutcome {
    const outcome = this.random.chance(this.malice.throws) ? { error: new Error(`${work} failed`) } : { value: work * 2 };
    this.outcomes.set(work, outcome);
    return outcome;
  }

  /** An answer has arrived at a slot that has not stopped its thread. */
  answered(thread: SimulatedThread, message: FromRuntime): void {
    if (message.type !== "returned" && message.type !== "threw") return;
    const work = thread.workOf(message.run)!;
    if (!this.answers.has(work)) this.answers.set(work, this.outcomes.get(work)!);
  }

  // Steps

  /** Takes one step, if there is one. Time passes only when nothing else happens, but for `hasty` timers. */
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
    let choice = random.below(choices);
    if (choice < senders.length) this.#deliver(senders[choice]!);
    else if ((choice -= senders.length) < steppers.length) this.#step(steppers[choice]!);
    else {
      this.note(() => "something outside is through");
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
