import { show } from "../pool/checks.ts";

/** Why a command line is refused. */
export class Refusal extends Error {}

/** The request for a refused command line. */
export interface Refused {
  action: "refuse";
  /** For the user, with the program's name before it. */
  message: string;
}

/** The request that `read` makes from a command line; a {@linkcode Refusal} that it throws becomes a request too. */
export function orRefused<T>(read: () => T, program = "process-pool"): T | Refused {
  try {
    return read();
  } catch (error) {
    if (error instanceof Refusal) return { action: "refuse", message: `${program}: ${error.message}` };
    throw error;
  }
}

/** Flags take no value; parseArgs would read `--resume=no` as true. */
export function refuseFlagValue(arg: string, flags: readonly string[]): void {
  const [, option, name, value] = /^(--(?:no-)?([^=]*))=(.*)$/s.exec(arg) ?? [];
  if (name !== undefined && flags.includes(name)) throw new Refusal(`'${option}' takes no value: current value is ${show(value)}`);
}
