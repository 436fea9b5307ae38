/** The options of the original that are used here. */
export interface ParseOptions {
  boolean?: readonly string[];
  string?: readonly string[];
  negatable?: readonly string[];
  collect?: readonly string[];
  alias?: Record<string, string | readonly string[]>;
  default?: Record<string, unknown>;
  stopEarly?: boolean;
  "--"?: boolean;
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

// deno-lint-ignore no-explicit-any -- the original infers this from the options
export function parseArgs(args: readonly string[], options?: ParseOptions): { [name: string]: any; _: (string | number)[] };
