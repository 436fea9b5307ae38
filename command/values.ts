import { show } from "../pool/checks.ts";
import { Refusal } from "./refusal.ts";

/** An option with a value. */
export interface ValueOption<T> {
  /** What the value must be. */
  need: string;
  /** The value; undefined if the text is not one. */
  read(text: string): T | undefined;
}

/** Options with values, by name. */
export type ValueOptions<Values> = { [Name in keyof Values]: ValueOption<Values[Name]> };

/**
 * Makes a function that reads the value of an option from a parsed command line: undefined if it is not given. The function throws a
 * {@linkcode Refusal} if the text is not such a value.
 */
export function valueReader<Values>(
  parsed: Record<string, unknown>,
  options: ValueOptions<Values>,
): <Name extends keyof Values & string>(name: Name) => Values[Name] | undefined {
  return (name) => {
    const text = parsed[name];
    return text === undefined ? undefined : readValue(name, text as string, options[name]);
  };
}

function readValue<T>(name: string, text: string, { need, read }: ValueOption<T>): T {
  if (text === "") throw new Refusal(`'--${name}' needs a value: ${need}`);
  const value = read(text);
  if (value === undefined) throw new Refusal(`'--${name}' must be ${need}: current value is ${show(text)}`);
  return value;
}

/**
 * Turns `--seed -1` into `--seed=-1`, and `--input -` into `--input=-`: parseArgs takes anything that begins with a dash for the next
 * option.
 */
export function joinValues(args: readonly string[], takesValue: (name: string) => boolean): string[] {
  const joined: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const [arg, next] = [args[i]!, args[i + 1]];
    if (arg === "--") return [...joined, ...args.slice(i)];
    const takesNext = arg.startsWith("--") && takesValue(arg.slice(2)) && next !== undefined && !/^-[^\d.]/.test(next);
    if (takesNext) i++;
    joined.push(takesNext ? `${arg}=${next}` : arg);
  }
  return joined;
}

/** One of some words. */
export function oneOf<T extends string>(...words: T[]): ValueOption<T> {
  return { need: `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`, read: (text) => words.find((word) => word === text) };
}

/** An integer. */
export function wholeNumber(min: number, max: number): ValueOption<number> {
  return {
    need: `an integer from ${min} to ${max}`,
    read: (text) => /^\d+$/.test(text) && Number(text) >= min && Number(text) <= max ? Number(text) : undefined,
  };
}

/** A file that is written: a path other than "-", which would name a file here. */
export const FILE: ValueOption<string> = { need: "the path of a file", read: (text) => text === "-" ? undefined : text };

/** In single quotes and on one line, whatever is in it. */
export function quote(text: string): string {
  return `'${show(text).slice(1, -1)}'`;
}
