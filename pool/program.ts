import { Checks, isIterable, show } from "./checks.ts";

/** What {@linkcode endProgram} ends: a pool. */
export interface Closable {
  /** Closes within a time, in milliseconds. */
  shutdown(options: { cancelPending: boolean; timeout: number }): Promise<void>;
  /** Tells how many workers could not be stopped. */
  stats(): { unstoppable: number };
}

/** Options of {@linkcode endProgram}. */
export interface EndProgramOptions {
  /**
   * The program's exit code: 0 to 255.
   *
   * @default {Deno.exitCode}
   */
  exitCode?: number | undefined;
  /**
   * How long running jobs may take to finish, in milliseconds; those that have not started are cancelled.
   *
   * @default {1000}
   */
  timeout?: number | undefined;
}

/** The platform only keeps the last eight bits of a larger one: 256 would pass for success. */
const MOST_EXIT_CODE = 255;

/** Shorter, and jobs that are about to finish are lost; longer, and Ctrl-C seems to do nothing. */
const TIMEOUT = 1000;

/**
 * Ends the program, whatever its pools' workers are doing: shuts the pools down, terminating them when the time is over, and exits. A
 * worker that cannot be stopped, and would keep the program alive forever, ends with it.
 *
 * @param pools What to shut down first.
 * @param options The exit code, and how long jobs may take.
 *
 * @throws {TypeError} If the pools are not iterable, or an option is unknown or of the wrong type.
 * @throws {RangeError} If a number is out of its range.
 *
 * @example After a run that may have left a worker burning
 * ```ts ignore
 * import { endProgram, ProcessPool } from "@procpool/process-pool";
 *
 * const pool = new ProcessPool();
 * // ... jobs, some of which never end ...
 * await endProgram([pool], { exitCode: 0 });
 * ```
 */
export async function endProgram(pools: Iterable<Closable>, options: EndProgramOptions = {}): Promise<never> {
  if (!isIterable(pools)) {
    throw new TypeError(`Cannot end program as the pools must be iterable, such as [pool]: current value is ${show(pools)}`);
  }
  const checks = new Checks("end program");
  const { exitCode, timeout = TIMEOUT } = checks.options(options, ["exitCode", "timeout"]);
  if (exitCode !== undefined) checks.wholeNumber("exitCode", exitCode, { min: 0, max: MOST_EXIT_CODE });
  checks.milliseconds("timeout", timeout);
  await Promise.all([...pools].map((pool) => pool.shutdown({ cancelPending: true, timeout })));
  return Deno.exit(exitCode);
}
