import { textOf } from "../pool/checks.ts";
import { afterInParts, realClock } from "../pool/clock.ts";
import { isReadable } from "./check_message.ts";
import { Line } from "./line.ts";
import { locks } from "./platform.ts";
import type { Beside, Death, FromWorker, StartThread, Thread, ThreadEvents, ToRuntime } from "./protocol.ts";

/** How a kind of worker is started. */
export interface Launch {
  /** The lock that the worker is to hold; its name as well. */
  lock: string;
  /** The worker's end of the port that all messages go by. */
  port: MessagePort;
  /** To be called if the worker ends without its guard's word. What it has sent before may still be on the way. */
  died: (death: Death) => void;
}

/** Starts a worker that runs `workerMain`, and returns what stops it. */
export type Launcher = (launch: Launch) => () => void;

/** A kind of worker. */
export interface GuardedKind {
  launch: Launcher;
  /** Whether its JavaScript can be halted. If not, tasks are asked to end by their signals first. */
  killable: boolean;
  /** How much heap one may have, in MB; there if one that has filled it can be told from others. */
  heapLimit?: (() => number) | undefined;
}

/**
 * How long tasks that are asked to end may take, in ms. Less, and they cannot clean up; more, and those that do not listen burn a core for
 * longer.
 */
const GRACE = 100;

/**
 * A worker that runs on for so many ms after it was stopped is called stuck. Less, and one that just ends slowly is called so; more, and
 * nobody hears of it in time.
 */
const STUCK_AFTER = 1000;

/**
 * That a worker has ended may be known before all that it has sent has come, and, by its lock, before it is known why. So it counts as dead
 * when so many looks in a row, so many ms apart, have found nothing new; the larger number if its lock alone tells of its end. Fewer, and
 * jobs that it had done are lost with it, or nobody hears that it had filled its heap; more, and what it ran waits for longer.
 */
const LOOK_EVERY = 5, LOOKS = 3, LOOKS_FOR_WORD = 100;

const UNREADABLE: Death = { reason: "sent a message that cannot be read" };

/** A backend whose threads are workers that run `workerMain`. */
export function guardedThreads(kind: GuardedKind): StartThread {
  // No two workers of a program may have the same lock.
  return (events, name) => new GuardedThread(events, kind, `${name} ${crypto.randomUUID()}`);
}

/**
 * A worker with a guard inside. Deno tells nobody when one closes itself, so its end is known from the lock that it holds: this side asks
 * for the same lock and is granted it when the worker is no more.
 */
class GuardedThread implements Thread {
  #events: ThreadEvents;
  #lock: string;
  #line: Line;
  #kind: GuardedKind;
  #terminate: () => void;
  #alive = false;
  #ended = false;
  #closed = false;
  /** How many have come by the port, or instead. */
  #messages = 0;
  /** Calls off what follows when it was stopped and is not gone. */
  #callOff: () => void = () => {};

  constructor(events: ThreadEvents, kind: GuardedKind, lock: string) {
    this.#events = events;
    this.#kind = kind;
    this.#lock = lock;
    const { port1, port2 } = new MessageChannel();
    const unreadable = (): void => this.#died(UNREADABLE);
    this.#line = new Line(port1, {
      message: (message) => this.#receive(message),
      returned: events.returned,
      delivered: () => {
        if (!this.#ended) events.delivered();
      },
      unreadable,
    });
    port1.onmessageerror = unreadable;
    try {
      this.#terminate = kind.launch({ lock, port: port2, died: (death) => this.#alive ? this.#diesSoon(death, LOOKS) : this.#died(death) });
    } catch (error) {
      this.#line.close();
      port2.close();
      throw error;
    }
  }

  get pace(): number {
    return this.#line.pace;
  }

  post(message: ToRuntime, transfer: readonly Transferable[] = []): void {
    this.#line.post(message.type === "load" ? { ...message, line: this.#line.memory } : message, transfer);
  }

  get beside(): Beside {
    return this.#line;
  }

  drain(): void {
    if (!this.#ended) this.#line.drain();
  }

  stop(abort?: { reason: unknown }): void {
    if (this.#ended) return;
    if (abort === undefined || this.#kind.killable) return this.#end();
    this.#ended = true;
    this.#abort(abort.reason);
    this.#callOff = realClock.after(GRACE, () => {
      this.#end();
      this.#callOff = afterInParts(realClock, STUCK_AFTER, () => this.#events.stuck());
    });
  }

  /** Asks tasks to end. The reason is copied, as far as it can be. */
  #abort(reason: unknown): void {
    try {
      this.#line.post({ type: "abort", reason }, []);
    } catch {
      this.#line.post({ type: "abort", reason: textOf(reason) }, []);
    }
  }

  #receive(message: FromWorker): void {
    if (this.#ended) return;
    this.#messages++;
    // Later, as whoever takes messages does not expect the end of the worker.
    if (!isReadable(message)) return queueMicrotask(() => this.#died(UNREADABLE));
    if (message.type === "dying") return this.#died(message);
    if (message.type !== "alive") return this.#events.message(message);
    this.#alive = true;
    // Resolves when the lock was granted to this side, and given back.
    locks().request(this.#lock, () => {}).then(() => this.#lockFreed());
    this.#events.alive();
  }

  #lockFreed(): void {
    this.#diesSoon({ reason: "ended without a word" }, LOOKS_FOR_WORD, () => {
      this.#callOff();
      this.#close();
      this.#events.gone();
    });
  }

  /** It dies when so many looks in a row have found nothing new, unless it says meanwhile what it dies of. Calls back when it has. */
  #diesSoon(death: Death, looks: number, then = (): void => {}): void {
    let left = looks;
    let before: number | undefined;
    const look = (): void => {
      left = this.#messages === before ? left - 1 : looks;
      before = this.#messages;
      if (left === 0) this.#died(death);
      if (this.#ended) then();
      else setTimeout(look, LOOK_EVERY);
    };
    if (!this.#ended) this.#events.ending();
    look();
  }

  #died(death: Death): void {
    // What it has answered counts.
    this.drain();
    if (this.#ended) return;
    this.#end();
    if (death.memoryLimit === undefined) return this.#events.died(death);
    const memoryLimit = this.#kind.heapLimit?.();
    this.#events.died({ ...death, reason: `filled its heap of ${memoryLimit} MB`, memoryLimit });
  }

  #end(): void {
    this.#ended = true;
    this.#close();
    // A worker that was never alive has run nothing that could resist, and holds no lock that could tell.
    if (!this.#alive) queueMicrotask(() => this.#events.gone());
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#terminate();
    this.#line.close();
  }
}
