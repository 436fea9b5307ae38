import { escape } from "../../report/page.ts";
import { type Results, type Row, type Section, sectionsOf } from "./results.ts";
import { format, formatRatio } from "./statistics.ts";

const WIDTH = 1040;
const MARGIN = 24;
const GAP = 40;
const COLUMN = (WIDTH - 2 * MARGIN - GAP) / 2;
/** Room for the longest name. */
const NAMES = 218;
/** Room for figure and ratio behind the longest bar. */
const FIGURES = 104;
const LINE = 17;
const HEAD = 46;

/** Both colour schemes have a contrast of at least 4.5 for text. */
const STYLE = `
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
  .page { fill: #ffffff }
  .title { font-size: 19px; font-weight: 600 }
  .head { font-weight: 600 }
  .soft { fill: #59636e }
  .name { text-anchor: end }
  .mine { font-weight: 600 }
  .ours { fill: #0a7d4f }
  .baseline { fill: #8c959f }
  .rival { fill: #5b84c4 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .page { fill: #0d1117 }
    .soft { fill: #9198a1 }
    .ours { fill: #3fb97f }
    .baseline { fill: #6e7681 }
    .rival { fill: #5b8fd9 }
  }
`;

/** Horizontal bars for the first measure of every workload, with ratios to process-pool; an SVG that reads well in light and in dark. */
export function renderChart(results: Results): string {
  const panels = sectionsOf(results)
    .filter(({ workload, measure, rows }) => measure === workload.measures[0] && rows.some(({ figure }) => figure !== undefined))
    .map((section) => ({ section, rows: section.rows.filter(({ figure }) => figure !== undefined) }));
  const { machine, rounds, date } = results;
  const drawn: string[] = [];
  let height = 92;
  for (let i = 0; i < panels.length; i += 2) {
    const pair = panels.slice(i, i + 2);
    for (const [side, { section, rows }] of pair.entries()) drawn.push(panel(section, rows, MARGIN + side * (COLUMN + GAP), height));
    height += HEAD + Math.max(...pair.map(({ rows }) => rows.length)) * LINE + 26;
  }
  const sub = `Medians of ${rounds} round${rounds === 1 ? "" : "s"}; ${machine.cpu}, ${machine.cores} cores; ${date.slice(0, 10)}. `;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-labelledby="title">`,
    `<title id="title">process-pool beside other worker pools</title>`,
    `<style>${STYLE}</style>`,
    `<rect class="page" width="${WIDTH}" height="${height}"/>`,
    text(MARGIN, 36, "title", "process-pool beside other worker pools"),
    text(MARGIN, 58, "soft", escape(sub) + "Behind the figure: how many times as good as process-pool."),
    ...legend(),
    ...drawn,
    "</svg>",
    "",
  ].join("\n");
}

function legend(): string[] {
  const entries = [["ours", "process-pool"], ["baseline", "without a pool"], ["rival", "other pools"]] as const;
  return entries.flatMap(([kind, name], i) => {
    const x = MARGIN + i * 120;
    return [`<rect class="${kind}" x="${x}" y="68" width="10" height="10" rx="2"/>`, text(x + 15, 77, "soft", name)];
  });
}

function panel({ workload, measure }: Section, rows: Row[], left: number, top: number): string {
  const longest = Math.max(...rows.map(({ figure }) => figure!.median));
  const room = COLUMN - NAMES - FIGURES;
  const bars = rows.map(({ contender, figure, ratio }, i) => {
    const y = top + HEAD - 8 + i * LINE;
    const width = Math.max(1, figure!.median / longest * room);
    const runtime = contender.runtime === "deno" ? "" : `, ${contender.runtime === "node" ? "Node" : "Python"}`;
    const mine = contender.kind === "ours" ? " mine" : "";
    const times = ratio === undefined ? "" : `<tspan class="soft" dx="6">${formatRatio(ratio)}x</tspan>`;
    return [
      text(left + NAMES - 8, y + 10, `name${mine}`, escape(contender.title + runtime)),
      `<rect class="${contender.kind}" x="${left + NAMES}" y="${y}" width="${width.toFixed(1)}" height="${LINE - 5}" rx="2"/>`,
      `<text x="${(left + NAMES + width + 6).toFixed(1)}" y="${y + 10}"${mine && ' class="mine"'}>${format(figure!.median)}${times}</text>`,
    ].join("");
  });
  const about = `${measure.title === "" ? "" : `${measure.title}, `}${measure.unit}, ${measure.better} is better`;
  return [
    `<g>`,
    text(left, top + 10, "head", escape(workload.title)),
    text(left, top + 27, "soft", escape(about)),
    ...bars,
    `</g>`,
  ].join("\n");
}

function text(x: number, y: number, kind: string, content: string): string {
  return `<text x="${x}" y="${y}" class="${kind}">${content}</text>`;
}
