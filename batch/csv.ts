import { BatchError } from "./errors.ts";
import { PAPA_PARSE } from "./worker_source.ts";

/** What stands between the fields of a file. */
export function delimiterOf(name: string): string {
  return /\.tsv(\.gz)?$/.test(name) ? "\t" : ",";
}

/**
 * The names in the first row of a file.
 *
 * @throws {BatchError} If they cannot name fields.
 */
export async function readHeader(row: string, { input, delimiter }: { input: string; delimiter: string }): Promise<string[]> {
  // Not written as an import, which Deno would follow even where nobody reads CSV.
  const { default: papa } = await import(PAPA_PARSE) as { default: { parse(text: string, options: object): { data: string[][] } } };
  const header = papa.parse(row, { delimiter }).data[0] ?? [];
  const twice = header.find((name, i) => header.indexOf(name) < i);
  if (twice !== undefined) throw new BatchError(`Cannot run batch as the first row of '${input}' names the field '${twice}' twice`);
  return header;
}
