import type { Results, Row, Section } from "./results.ts";
import { sectionsOf } from "./results.ts";
import { format, formatRatio } from "./statistics.ts";

const NAME = 26;
const RUNTIME = 7;
const FIGURE = 11;
const RANGE = 26;
const RATIO = 8;

/** The table, for a terminal with colours or without. */
export function renderTable(results: Results, { color }: { color: boolean }): string {
  const paint = painter(color);
  const { machine, versions, rounds } = results;
  const head = [
    paint("bold", "process-pool beside others"),
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGb} GB, ${machine.os}; ${results.date.slice(0, 10)}`,
    Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", "),
    `Medians and ranges of ${rounds} interleaved round${rounds === 1 ? "" : "s"}, each in a fresh process;`,
    "behind them, how many times as good as process-pool.",
  ];
  return [...head, ...sectionsOf(results).map((section) => renderSection(section, paint))].join("\n");
}

function renderSection({ workload, measure, rows }: Section, paint: Paint): string {
  const title = measure.title === "" ? workload.title : `${workload.title}: ${measure.title}`;
  const lines = [
    "",
    `${paint("bold", title)} ${paint("dim", `[${workload.name}]`)}`,
    paint("dim", `  ${measure.unit}, ${measure.better} is better; ${workload.about}`),
    ...rows.map((row) => renderRow(row, paint)),
  ];
  return lines.join("\n");
}

function renderRow({ contender, figure, ratio, remark, failed }: Row, paint: Paint): string {
  const name = `${contender.title.padEnd(NAME)} ${contender.runtime.padEnd(RUNTIME)}`;
  const start = `  ${contender.kind === "ours" ? paint("green", name) : name}`;
  if (figure === undefined) return `${start}${"-".padStart(FIGURE)}  ${paint(failed ? "red" : "dim", remark ?? "")}`;
  const range = figure.count === 1 ? "" : `${format(figure.min)} to ${format(figure.max)}`;
  const times = ratio === undefined ? "" : `${formatRatio(ratio)}x`;
  const line = `${start}${format(figure.median).padStart(FIGURE)}${range.padStart(RANGE)}${times.padStart(RATIO)}`;
  return remark === undefined ? line.trimEnd() : `${line}  ${paint("dim", remark)}`;
}

type Style = "bold" | "dim" | "green" | "red";
type Paint = (style: Style, text: string) => string;

function painter(color: boolean): Paint {
  const codes: Record<Style, [number, number]> = { bold: [1, 22], dim: [2, 22], green: [32, 39], red: [31, 39] };
  return (style, text) => color ? `\x1b[${codes[style][0]}m${text}\x1b[${codes[style][1]}m` : text;
}
