import type { Terminal } from "./reporter.ts";
import { GRACE } from "./run_demo.ts";

/** The width of a timeline if there is no terminal, or one that does not tell its size. */
const COLUMNS = 80;

/** Standard output. Its abilities are looked up when needed, as a terminal may change its size. That needs no permission. */
export const stdout: Terminal = {
  print: (line) => console.log(line),
  get columns() {
    if (!Deno.stdout.isTerminal()) return COLUMNS;
    try {
      return Deno.consoleSize().columns || COLUMNS;
    } catch {
      return COLUMNS;
    }
  },
  get color() {
    return Deno.stdout.isTerminal() && !Deno.noColor;
  },
};

/** Says on standard error what a signal does. */
export function tellSignal(signal: string, received: "first" | "again"): void {
  const what = received === "first" ? `no more jobs; running ones get ${GRACE / 1000} s, a second signal ends at once` : "ended at once";
  // On a terminal the line begins with the ^C that was typed.
  console.error(`${Deno.stderr.isTerminal() ? "\r" : ""}${signal}: ${what}`);
}
