import { timers } from "../worker/platform.ts";
import { Checks } from "./checks.ts";
import { afterInParts, type Clock, realClock } from "./clock.ts";

/** Where signals come from and how a program ends: `Deno`, except in tests. */
export interface SignalHost {
  /** Begins to listen. */
  addSignalListener(signal: Deno.Signal, listener: () => void): void;
  /** Stops listening. */
  removeSignalListener(signal: Deno.Signal, listener: () => void): void;
  /** Ends the program. */
  exit(code: number): void;
}

/** Options of {@linkcode Interrupt}. */
export interface InterruptOptions {
  /**
   * Called at the first signal and at a second one, before anything else happens.
   *
   * @default {undefined}
   */
  onSignal?: ((signal: Deno.Signal, received: "first" | "again") => void) | undefined;
  /**
   * Where signals come from.
   *
   * @default {Deno}
   */
  host?: SignalHost | undefined;
}

/** The exit code that shells expect of a program ended by a signal: 128 plus the signal's number. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

type StopSignal = keyof typeof EXIT_CODES;

/** On Windows Deno knows no SIGTERM. */
const SIGNALS: StopSignal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];

/**
 * For how many milliseconds the same signal counts as the one before. `deno task` passes on a Ctrl-C that the terminal has sent to the
 * program as well, and `timeout` and systemd tell both, too. Too short, and the program would end at once where the copy is late, on a busy
 * machine; too long, and somebody who presses Ctrl-C twice in a row has to press it once more.
 */
const ONE_SIGNAL = 500;

/** A clock whose timers keep no program alive. */
const clock: Clock = {
  ...realClock,
  after(delay, callback) {
    const timer = timers.start()(callback, delay);
    Deno.unrefTimer(timer);
    return () => timers.stop()(timer);
  },
};

/**
 * Listens for the signals that end a program, SIGINT (Ctrl-C) and SIGTERM, until it is disposed of. The first aborts
 * {@linkcode Interrupt.signal}, so that the program can end in an orderly way; a second one ends it at once. The same signal within half a
 * second does not count as a second one: `deno task` makes two of each Ctrl-C.
 *
 * @example Letting running jobs finish
 * ```ts
 * import { Interrupt, ProcessPool } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * using interrupt = new Interrupt();
 * await using pool = new ProcessPool();
 * const results: number[] = [];
 * for (const n of [1, 2, 3]) {
 *   if (interrupt.signal.aborted) break;
 *   results.push(await pool.run((x: number) => x * 2, n));
 * }
 * // After Ctrl-C there are only the results so far, and 130 for the shell.
 * if (interrupt.exitCode !== undefined) Deno.exitCode = interrupt.exitCode;
 * else assertEquals(results, [2, 4, 6]);
 * ```
 */
export class Interrupt implements Disposable {
  #controller = new AbortController();
  #exitCode: number | undefined;
  /** Ends that the same signal counts as a copy of the latest one; undefined if it does not. */
  #stopAwaitingCopy: (() => void) | undefined;
  #onSignal: InterruptOptions["onSignal"];
  #host: SignalHost;
  #listeners = new Map<StopSignal, () => void>();

  /**
   * Begins to listen.
   *
   * @param options What to call at a signal.
   *
   * @throws {TypeError} If an option is unknown or of the wrong type.
   */
  constructor(options: InterruptOptions = {}) {
    const checks = new Checks("listen for signals");
    const { onSignal, host = Deno } = checks.options(options, ["onSignal", "host"]);
    if (onSignal !== undefined) checks.callable("onSignal", onSignal);
    this.#onSignal = onSignal;
    this.#host = checks.object("host", host) as SignalHost;
    for (const signal of SIGNALS) {
      const listener = () => this.#receive(signal);
      this.#listeners.set(signal, listener);
      this.#host.addSignalListener(signal, listener);
    }
  }

  /** Aborts at the first signal. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The exit code for the program; undefined as long as no signal has come. */
  get exitCode(): number | undefined {
    return this.#exitCode;
  }

  /** Stops listening: the platform handles these signals by default again. */
  [Symbol.dispose](): void {
    for (const [signal, listener] of this.#listeners) this.#host.removeSignalListener(signal, listener);
    this.#listeners.clear();
    this.#stopAwaitingCopy?.();
  }

  /** In parts, as the thread hears of no signal while it computes, and one timer may be late for that reason. */
  #awaitCopy(): void {
    this.#stopAwaitingCopy?.();
    this.#stopAwaitingCopy = afterInParts(clock, ONE_SIGNAL, () => this.#stopAwaitingCopy = undefined);
  }

  #receive(signal: StopSignal): void {
    if (this.#exitCode === EXIT_CODES[signal] && this.#stopAwaitingCopy !== undefined) return;
    this.#awaitCopy();
    const first = this.#exitCode === undefined;
    this.#exitCode = EXIT_CODES[signal];
    this.#onSignal?.(signal, first ? "first" : "again");
    if (first) this.#controller.abort(new DOMException(`The program received ${signal}`, "AbortError"));
    else this.#host.exit(this.#exitCode);
  }
}
