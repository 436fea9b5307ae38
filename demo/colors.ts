/** Text in red, for a terminal that has colours. */
export function red(text: string): string {
  return `\x1b[31m${text}\x1b[39m`;
}
