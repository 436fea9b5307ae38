import { textOf } from "../pool/checks.ts";
import { afterInParts, realClock } from "../pool/clock.ts";
import { isReadable } from "./check_message.ts";
import { Line } from "./line.ts";
import { locks, timers } from "./platform.ts";
import type { Death, FastPath, FromWorker, StartThread, Thread, ThreadEvents, ToRuntime } from "./protocol.ts";

/** What a {@linkcode Launcher} is given for one worker. */
export interface Launch {
  /** The lock that the worker is to hold; its name as well. */
  lock: string;
  /** The worker's end of the port for all messages. */
  port: MessagePort;
  /** To be called if the worker ends without a message of its guard. What it has sent before may still be on the way. */
  died: (death: Death) => void;
}

/** Starts a worker that runs `workerMain`, and returns what stops it. */
export type Launcher = (launch: Launch) => () => void;

/** A kind of worker. */
export interface GuardedKind {
  launch: Launcher;
  /** Whether its JavaScript can be halted. If not, tasks are first asked to end, by their signals. */
  killable: boolean;
  /** How much heap a worker may have, in MB; undefined if it cannot be told whether a worker has filled its heap. */
  heapLimit?: (() => number) | undefined;
}

/**
 * How long tasks that are asked to end may take, in ms. Less, and they cannot clean up; more, and those that ignore it burn a core for
 * longer.
 */
const GRACE = 100;

/**
 * A worker that still runs this many ms after it was stopped counts as stuck. Less, and one that just ends slowly does too; more, and
 * nobody hears of it in time.
 */
const STUCK_AFTER = 1000;

/**
 * The end of a worker may be known before everything that it has sent has arrived, and, through its lock, before the reason is known. So it
 * counts as dead when `LOOKS` looks in a row, `LOOK_EVERY` ms apart, have found nothing new; `LOOKS_FOR_WORD` if only its lock tells of its
 * end. Fewer, and jobs that it had done are lost with it, or nobody hears that it had filled its heap; more, and what it ran waits for
 * longer.
 */
const LOOK_EVERY = 5, LOOKS = 3, LOOKS_FOR_WORD = 100;

const UNREADABLE: Death = { reason: "sent a message that cannot be read" };

/**
 * What no other thread of the program has: no two workers may have the same lock. A random UUID alone would not do: under `deno run --seed`
 * all threads draw the same ones, and a test may have put a fixed one in their place.
 */
const HERE = `${crypto.randomUUID()} ${performance.timeOrigin} ${performance.now()}`;

/** How many workers were started here. */
let started = 0;

/** A backend whose threads are workers that run `workerMain`. */
export function guardedThreads(kind: GuardedKind): StartThread {
  return (events, name) => new GuardedThread(events, kind, `${name} ${HERE} ${++started}`);
}

/**
 * A worker with a guard inside. Deno does not tell when a worker closes itself, so its end is known from the lock that it holds: this side
 * requests the same lock, and gets it when the worker is gone.
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
  /** How many messages have come, by the port or instead of it. */
  #messages = 0;
  /** Cancels what follows if it was stopped but is not gone. */
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

  get fastPath(): FastPath {
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

  /** Asks tasks to end. The reason is copied, as far as it can be; an error also keeps its name. */
  #abort(reason: unknown): void {
    try {
      const name = reason instanceof Error ? textOf(reason.name) : undefined;
      this.#line.post({ type: "abort", reason, name }, []);
    } catch {
      this.#line.post({ type: "abort", reason: textOf(reason) }, []);
    }
  }

  #receive(message: FromWorker): void {
    if (this.#ended) return;
    this.#messages++;
    // Later, as code that takes messages does not expect the end of the worker.
    if (!isReadable(message)) return queueMicrotask(() => this.#died(UNREADABLE));
    if (message.type === "dying") return this.#died(message);
    if (message.type !== "alive") return this.#events.message(message);
    this.#alive = true;
    // Resolves when this side was granted the lock, and gave it back.
    locks().request(this.#lock, () => {}).then(() => this.#lockFreed());
    this.#events.alive();
  }

  #lockFreed(): void {
    this.#diesSoon({ reason: "ended without telling why" }, LOOKS_FOR_WORD, () => {
      this.#callOff();
      this.#close();
      this.#events.gone();
    });
  }

  /** Counts it as dead after this many looks in a row without anything new, unless it says meanwhile what it dies of. Then calls back. */
  #diesSoon(death: Death, looks: number, whenDead = (): void => {}): void {
    let left = looks;
    let before: number | undefined;
    const look = (): void => {
      left = this.#messages === before ? left - 1 : looks;
      before = this.#messages;
      if (left === 0) this.#died(death);
      if (this.#ended) whenDead();
      else timers.start()(look, LOOK_EVERY);
    };
    if (!this.#ended) this.#events.ending();
    look();
  }

  #died(death: Death): void {
    // Its answers so far count.
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
    // A worker that was never alive has run nothing that could resist, and holds no lock that would tell of its end.
    if (!this.#alive) queueMicrotask(() => this.#events.gone());
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#terminate();
    this.#line.close();
  }
}
