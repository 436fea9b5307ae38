import { BatchError } from "./errors.ts";
import { type CsvParser, PAPA_PARSE } from "./worker_source.ts";

/** The delimiter of a file. */
export function delimiterOf(name: string): string {
  return /\.tsv(\.gz)?$/i.test(name) ? "\t" : ",";
}

/**
 * Loads the CSV parser.
 *
 * @throws {BatchError} If it cannot be loaded, as without a network, or with a frozen lock file that lacks it.
 */
export async function loadCsvParser(): Promise<CsvParser> {
  try {
    // Not a plain import, which Deno would follow even if nobody reads CSV.
    const { default: papa } = await import(PAPA_PARSE) as { default: CsvParser };
    return papa;
  } catch (cause) {
    const { message } = cause as Error;
    throw new BatchError(
      `Cannot run batch as the parser of CSV cannot be loaded: 'deno add ${PAPA_PARSE}' makes it one of the program's own: ${message}`,
      { cause },
    );
  }
}

/**
 * The names in the first row of a file, with or without its line end.
 *
 * @throws {BatchError} If they cannot name fields.
 */
export async function readHeader(bytes: Uint8Array, { input, delimiter }: { input: string; delimiter: string }): Promise<string[]> {
  const refused = (why: string) => new BatchError(`Cannot run batch as the first row of '${input}' ${why}`);
  const row = new TextDecoder().decode(bytes).replace(/\r?\n$/, "");
  // Records would lack the field that a task looks for.
  if (row.includes("\uFFFD")) throw refused("is not valid UTF-8, or contains U+FFFD, which stands for text that was not");
  if (/\r(?!\n)/.test(row)) throw refused("has a carriage return without a newline: end rows in '\\n' or '\\r\\n'");
  const papa = await loadCsvParser();
  const { data: [header = []], errors: [mistake] } = papa.parse(row, { delimiter, newline: "\n" });
  if (mistake !== undefined) throw refused(`is not CSV: ${mistake.message}`);
  // There may be a hundred thousand fields: comparing each with all others would take a minute.
  const names = new Set<string>();
  const twice = header.find((name) => names.size === names.add(name).size);
  if (twice !== undefined) throw refused(`names the field '${twice}' twice`);
  return header;
}
