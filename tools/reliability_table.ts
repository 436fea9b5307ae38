/**
 * Writes the failure matrix into `docs/reliability.md`. With `--check` it only checks whether the document is up to date.
 *
 * ```sh
 * deno run --allow-read --allow-write tools/reliability_table.ts
 * ```
 *
 * @module
 */

import { type Kind, KINDS, MATRIX, MEANINGS, STAGES } from "../tests/failure_matrix.ts";

const BEGIN = "<!-- matrix: written by tools/reliability_table.ts -->";
const END = "<!-- end of matrix -->";

/** A document in three parts: the middle one shows the matrix. */
function parts(text: string): [string, string, string] {
  const from = text.indexOf(BEGIN) + BEGIN.length;
  const to = text.indexOf(END);
  if (from < BEGIN.length || to < from) throw new Error(`There is no section for the matrix between '${BEGIN}' and '${END}'`);
  return [text.slice(0, from), text.slice(from, to), text.slice(to)];
}

/** The section of a document that shows the matrix. */
export function section(text: string): string {
  return parts(text)[1];
}

/** A table for each kind of pool, or for several that promise the same, and what its words mean. */
export function matrixTables(): string {
  const kinds = Map.groupBy(Object.keys(KINDS) as Kind[], (kind) => JSON.stringify(MATRIX[kind]));
  const tables = [...kinds.values()].map((same) => {
    const rows = Object.entries(MATRIX[same[0]!]).map(([deed, outcomes]) => [deed, ...outcomes]);
    return `### ${same.length > 1 ? "Backends" : "Backend"} ${same.map(title).join(" and ")}\n\n${
      table([["a task that", ...STAGES], ...rows])
    }`;
  });
  const meanings = Object.entries(MEANINGS).map(([outcome, meaning]) => [outcome, meaning]);
  return `\n\n${[...tables, `### What the words mean\n\n${table([["", "that is"], ...meanings])}`].join("\n\n")}\n\n`;
}

function title(kind: Kind): string {
  const { backend, ...others } = KINDS[kind];
  return `\`${backend}\`${"permissions" in others ? " with `permissions`" : ""}`;
}

/** A table, formatted like `deno fmt` does. */
function table(rows: string[][]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const lines = rows.map((row) => `| ${row.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`);
  lines.splice(1, 0, `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`);
  return lines.join("\n");
}

if (import.meta.main) {
  const file = new URL("../docs/reliability.md", import.meta.url);
  const text = await Deno.readTextFile(file);
  const [before, shown, after] = parts(text);
  const isThere = shown === matrixTables();
  if (!isThere && Deno.args.includes("--check")) {
    console.error("docs/reliability.md does not show the matrix as it is: run tools/reliability_table.ts");
    Deno.exit(1);
  }
  if (!isThere) await Deno.writeTextFile(file, before + matrixTables() + after);
}
