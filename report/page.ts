import type { Latency, ReportData, Words, WorkerRow } from "./data.ts";
import { count, duration, type Figure, rounded, text } from "./figures.ts";

/**
 * A report as one self-contained page of HTML: charts are SVG without text, which can be stretched, with HTML labels beside them, which
 * stay readable on a phone. A table beneath each chart has the same data.
 */
export function renderReport(data: ReportData): string {
  const { title, begun, notes, figures, words: { item } } = data;
  const sections: [id: string, heading: string, content: string][] = [
    ["throughput", "Throughput", throughput(data)],
    ["latency", "Latency", latency(data)],
    ["workers", "Workers", timeline(data)],
    ["errors", "Errors by kind", errors(data)],
    ["slowest", `Slowest ${item}s`, slowest(data)],
    ["settings", "Settings", table(["setting", "value"], Object.entries(data.settings).map(([name, value]) => [name, String(value)]))],
  ];
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>${escape(title)}: report</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>${escape(title)}</h1>
<p class="soft">begun <time datetime="${escape(begun)}">${escape(begun.replace("T", " ").replace(/\.\d+Z$/, " UTC"))}</time></p>
${notes.map((note) => `<p class="note">${escape(note)}</p>\n`).join("")}<dl class="tiles">${tiles(figures, "tile")}</dl>
<nav aria-label="Sections">${sections.map(([id, heading]) => `<a href="#${id}">${heading}</a>`).join(" ")}</nav>
</header>
<main>
${
    sections.map(([id, heading, content]) =>
      `<section id="${id}" aria-labelledby="${id}-h"><h2 id="${id}-h">${heading}</h2>\n${content}\n</section>`
    ).join("\n")
  }
</main>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

/** The most bars of the throughput chart, and how many jobs each should have on average. */
const MOST_BARS = 100, JOBS_PER_BAR = 4;

/** Merges stretches if jobs are few: the rate of a stretch with one job says nothing. */
function coarser({ throughput: { width, finished, failed } }: ReportData): ReportData["throughput"] {
  const jobs = sum(finished) + sum(failed);
  const wanted = Math.max(1, Math.min(MOST_BARS, Math.floor(jobs / JOBS_PER_BAR)));
  const together = Math.ceil(finished.length / wanted);
  const merge = (counts: number[]): number[] =>
    Array.from({ length: Math.ceil(counts.length / together) }, (_, i) => sum(counts.slice(i * together, (i + 1) * together)));
  return { width: width * together, finished: merge(finished), failed: merge(failed) };
}

function throughput(data: ReportData): string {
  const { item } = data.words;
  const { width, finished, failed } = coarser(data);
  if (sum(finished) + sum(failed) === 0) return `<p>No ${item} has ended.</p>`;
  const most = Math.max(1, ...finished.map((count, i) => count + failed[i]!));
  const bars = finished.map((each, i) => {
    const bad = failed[i]!;
    const label = `${time(i * width)} to ${time((i + 1) * width)}: ${count(each)} finished, ${count(bad)} failed`;
    const finishedBar = each === 0 ? "" : `<rect class="finished" x="${i}" y="${1 - each / most}" width="1" height="${each / most}"/>`;
    const failedBar = bad === 0 ? "" : `<rect class="failed" x="${i}" y="${1 - (each + bad) / most}" width="1" height="${bad / most}"/>`;
    return each + bad === 0 ? "" : `<g><title>${label}</title>${failedBar}${finishedBar}</g>`;
  });
  const rows = finished.map((each, i) => [time(i * width), count(each), count(failed[i]!)]);
  return `${legend(failed.some((count) => count > 0))}
<figure class="plot"><div class="y"><span>${rounded(most / width * 1000)}</span><span>0</span></div>
<svg class="tall" viewBox="0 0 ${finished.length} 1" preserveAspectRatio="none" role="img" aria-label="${
    capital(item)
  }s per second, over time">${bars.join("")}</svg>
${axis(width * finished.length)}<figcaption>${capital(item)}s per second; a bar is ${time(width)}.</figcaption></figure>
${asTable(["from", "finished", "failed"], rows)}`;
}

function latency({ latency, words }: ReportData): string {
  return `<div class="two">${latency.map((each) => distribution(each, words)).join("")}</div>`;
}

function distribution({ name, what, distribution: { quantiles, bins } }: Latency, { item }: Words): string {
  if (bins.length === 0) return `<div><h3>${name}</h3><p>No ${item} has started.</p></div>`;
  const most = Math.max(...bins.map((bin) => bin.count));
  const [from, to] = [bins[0]!.from, bins.at(-1)!.to];
  const x = (time: number): number => round(Math.log2(time / from));
  const bars = bins.map((bin) => {
    const height = Math.max(LEAST_HEIGHT, bin.count / most);
    const title = `${time(bin.from)} to ${time(bin.to)}: ${count(bin.count)}`;
    const place = `x="${x(bin.from)}" y="${1 - height}" width="${round(Math.log2(bin.to / bin.from))}" height="${height}"`;
    return bin.count === 0 ? "" : `<rect class="finished" ${place}><title>${title}</title></rect>`;
  });
  const cells = Object.entries(quantiles).filter(([name]) => name !== "count").map(([name, value]) =>
    [name, { value, unit: "ms" }] as const
  );
  return `<div data-distribution="${name.toLowerCase()}"><h3>${name} <span class="soft">${what}</span></h3>
<figure class="plot"><div class="y"><span>${count(most)}</span><span>0</span></div>
<svg class="low" viewBox="0 0 ${x(to)} 1" preserveAspectRatio="none" role="img" aria-label="How many ${item}s took how long, ${what}">${
    bars.join("")
  }</svg>
<div class="x"><span>${time(from)}</span><span>${time(to)}</span></div><figcaption>${
    capital(item)
  }s by time; the scale is logarithmic.</figcaption></figure>
<dl class="tiles small">${tiles(Object.fromEntries(cells), "quantile")}</dl>
${asTable(["from", "to", `${item}s`], bins.map((bin) => [time(bin.from), time(bin.to), count(bin.count)]))}</div>`;
}

function timeline({ workers, wall, throughput: { width }, words: { item, bar, about } }: ReportData): string {
  if (workers.length === 0) return `<p>No ${item} has started.</p>`;
  const drawn = workers[0]!.bars !== undefined;
  const rows = workers.map((row) =>
    `<div class="lane"><span class="name">worker ${row.worker}</span><svg viewBox="0 0 ${
      Math.max(wall, 1e-3)
    } 1" preserveAspectRatio="none" role="img" aria-label="worker ${row.worker}: ${count(row.jobs)} ${bar}s, busy ${
      percent(row.utilisation)
    }">${drawn ? bars(row) : heat(row, width)}</svg><span class="busy">${percent(row.utilisation)}</span></div>`
  );
  const failed = workers.some(({ bars }) => bars?.some(({ failed }) => failed > 0));
  const total = sum(workers.map(({ jobs }) => jobs));
  const strips = workers.some(({ bars }) => bars?.some(({ failed }) => failed > 0 && failed < 1));
  const how = drawn
    ? `Each bar is a ${bar}${
      strips ? `; one with a strip of the other colour failed in part` : ""
    }. Tab to the chart; the arrow keys go from ${bar} to ${bar}.`
    : `There were ${count(total)} ${bar}s, too many to be drawn one by one. They are merged into stretches of ${time(width)}: ` +
      "the fuller a stretch, the busier the worker was.";
  const replaced = workers.some(({ replaced }) => replaced > 0);
  return `${drawn ? legend(failed) : ""}
<div class="lanes" id="lanes"${drawn ? ` tabindex="0" role="group" aria-describedby="chosen" aria-label="Timeline of the workers"` : ""}>${
    rows.join("\n")
  }
<div class="lane"><span class="name"></span>${axis(wall)}<span class="busy">busy</span></div></div>
<p id="chosen" role="status" class="soft">${how}</p>
${about === "" ? "" : `<p class="soft">${about}</p>\n`}${
    asTable(
      ["worker", `${bar}s`, "busy", ...replaced ? ["replaced"] : []],
      workers.map((
        { worker, jobs, utilisation, replaced: times },
      ) => [String(worker), count(jobs), percent(utilisation), ...replaced ? [times === 0 ? "never" : `${count(times)} times`] : []]),
    )
  }`;
}

/** The least height, so that a bar for few is visible beside one for many. */
const LEAST_HEIGHT = 0.03;

/** If part of a bar failed, a strip of it has the colour of failures, at least high enough to be visible. */
const LEAST_STRIP = 0.2;

function bars({ worker, bars }: WorkerRow): string {
  return bars!.map(({ label, start, end, failed, outcome }) => {
    const at = `x="${round(start)}" width="${round(end - start)}"`;
    const title = `${label} on worker ${worker}: ${time(start)} to ${time(end)}, ${time(end - start)}${
      outcome === "" ? "" : `, ${outcome}`
    }`;
    const strip = failed > 0 && failed < 1 ? `<rect class="failed strip" ${at} height="${round(Math.max(LEAST_STRIP, failed))}"/>` : "";
    return `<rect class="${failed === 1 ? "failed" : "finished"}" ${at} height="1"><title>${escape(title)}</title></rect>${strip}`;
  }).join("");
}

function heat({ busy }: WorkerRow, width: number): string {
  return busy.map((part, i) =>
    part === 0
      ? ""
      : `<rect class="finished even" x="${round(i * width)}" y="${round(1 - part)}" width="${round(width)}" height="${
        round(part)
      }"><title>${time(i * width)}: ${percent(part)}</title></rect>`
  ).join("");
}

function errors({ errors, words: { item } }: ReportData): string {
  if (errors.length === 0) return "<p>None.</p>";
  return table(["kind", `${item}s`, "the first of them"], errors.map(({ kind, count: times, example }) => [kind, count(times), example]));
}

function slowest({ slowest: { head, rows }, words: { item } }: ReportData): string {
  if (rows.length === 0) return `<p>No ${item} has started.</p>`;
  return table(head, rows);
}

// Parts

/** A figure and its unit stay on one line. */
function together(text: string): string {
  return text.replaceAll(" ", "\u00a0");
}

function time(ms: number): string {
  return together(duration(ms));
}

function percent(part: number): string {
  return together(text({ value: part, unit: "share" }));
}

function tiles(figures: Record<string, Figure>, kind: "tile" | "quantile"): string {
  return Object.entries(figures).map(([label, figure]) => `<div data-${kind}="${label}"><dt>${label}</dt><dd>${written(figure)}</dd></div>`)
    .join("");
}

/** Shortened for readers, and in full for programs. */
function written(figure: Figure): string {
  return `<data value="${figure.value}">${together(text(figure))}</data>`;
}

function capital(word: string): string {
  return `${word[0]!.toUpperCase()}${word.slice(1)}`;
}

function legend(withFailed: boolean): string {
  return `<p class="legend"><span><i class="finished"></i> finished</span>${
    withFailed ? `<span><i class="failed"></i> failed</span>` : ""
  }</p>`;
}

function axis(wall: number): string {
  return `<div class="x"><span>0</span><span>${time(wall / 2)}</span><span>${time(wall)}</span></div>`;
}

function asTable(head: string[], rows: Cell[][]): string {
  return `<details><summary>The same as a table</summary>${table(head, rows)}</details>`;
}

type Cell = string | Figure;

/** A table that scrolls if it is too wide, by keyboard as well. */
function table(head: string[], rows: Cell[][]): string {
  const heads = head.map((cell) => `<th scope="col">${escape(cell)}</th>`).join("");
  const line = (row: Cell[]): string =>
    `<tr>${row.map((cell) => `<td>${typeof cell === "string" ? escape(cell) : written(cell)}</td>`).join("")}</tr>`;
  return `<div class="scroll" tabindex="0" role="region" aria-label="Table"><table><thead><tr>${heads}</tr></thead><tbody>${
    rows.map(line).join("\n")
  }</tbody></table></div>`;
}

/** A text as it stands in HTML or SVG. */
export function escape(raw: string): string {
  return raw.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

function sum(values: number[]): number {
  return values.reduce((all, value) => all + value, 0);
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** Text has a contrast of at least 4.5 to its background, bars of at least 3. */
const STYLE = `
:root { color-scheme: light dark; --page: #ffffff; --card: #f6f8fa; --text: #1f2328; --soft: #59636e; --line: #d1d9e0; --finished: #3468b8; --failed: #cf4a1f; --focus: #0550ae }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --card: #161b22; --text: #e6edf3; --soft: #9198a1; --line: #3d444d; --finished: #5b8fd9; --failed: #f0883e; --focus: #79c0ff }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 0 0 .75rem }
h3 { font-size: 1rem; margin: 0 0 .5rem }
p { margin: 0 0 .75rem }
.note { background: var(--card); border-left: 4px solid var(--focus); margin: .75rem 0; padding: .5rem .75rem; overflow-wrap: anywhere }
.soft { color: var(--soft); font-weight: normal }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.5rem }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem }
a { color: var(--focus); padding: .25rem 0 }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: .5rem; margin: 1rem 0 }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .5rem .75rem }
.tiles.small { grid-template-columns: repeat(auto-fit, minmax(5rem, 1fr)) }
.tiles.small div { padding: .5rem }
dt { color: var(--soft); font-size: .875rem }
dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums }
.small dd { font-size: 1rem }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.5rem 2rem }
.two > div { min-width: 0 }
.plot { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: .25rem .5rem; margin: 0 }
.y { display: flex; flex-direction: column; justify-content: space-between; text-align: right; line-height: 1 }
.x { grid-column: 2; display: flex; flex: 1; justify-content: space-between }
.x, .y, figcaption, .legend, .name, .busy { color: var(--soft); font-size: .875rem; font-variant-numeric: tabular-nums }
figcaption { grid-column: 2 }
svg { display: block; width: 100%; background: var(--card); border-bottom: 1px solid var(--line) }
.tall { height: 11rem }
.low { height: 7rem }
.finished { fill: var(--finished); background: var(--finished) }
.failed { fill: var(--failed); background: var(--failed) }
rect { stroke: var(--page); stroke-width: 1px; vector-effect: non-scaling-stroke }
rect.even, rect.strip { stroke: none }
rect.strip { pointer-events: none }
rect.chosen { stroke: var(--text); stroke-width: 3px }
.legend { display: flex; gap: 1rem; margin: 0 0 .5rem }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; vertical-align: -1px }
.lane { display: flex; align-items: center; gap: .5rem; margin-bottom: .25rem }
.lane svg { flex: 1; min-width: 0; height: 1.75rem }
.name { width: 5.5rem; text-align: right; flex: none }
.busy { width: 3.2rem; text-align: right; flex: none }
#chosen { margin-top: .5rem; min-height: 3em; overflow-wrap: anywhere }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .35rem .75rem; border-bottom: 1px solid var(--line); vertical-align: top }
th { position: sticky; top: 0; background: var(--card); color: var(--soft); font-weight: 600; white-space: nowrap }
tbody tr:last-child td { border-bottom: 0 }
td { overflow-wrap: break-word; max-width: 30rem }
details { margin-top: .5rem }
details .scroll { max-height: 24rem; overflow-y: auto }
summary { cursor: pointer; color: var(--focus); padding: .25rem 0 }
@media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth } }
@media (max-width: 30rem) { .name { width: 4.6rem } .busy { width: 2.8rem } }
`;

/** Moves from job to job by arrow keys or touch, showing what a mouse shows anyway. */
const SCRIPT = `
const lanes = document.getElementById("lanes");
const rows = lanes === null ? [] : [...lanes.querySelectorAll("svg")].map((svg) => [...svg.querySelectorAll("rect:not(.strip)")]);
if (lanes?.hasAttribute("tabindex")) {
  const status = document.getElementById("chosen");
  let chosen;
  const choose = (rect) => {
    if (rect === undefined) return;
    chosen?.classList.remove("chosen");
    chosen = rect;
    rect.classList.add("chosen");
    rect.parentNode.append(rect);
    status.textContent = rect.querySelector("title").textContent;
  };
  const startOf = (rect) => Number(rect.getAttribute("x"));
  const near = (row, x) => row.reduce((best, rect) => Math.abs(startOf(rect) - x) < Math.abs(startOf(best) - x) ? rect : best, row[0]);
  for (const row of rows) row.sort((a, b) => startOf(a) - startOf(b));
  lanes.addEventListener("keydown", (event) => {
    const keys = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const step = keys[event.key];
    if (step === undefined) return;
    event.preventDefault();
    if (chosen === undefined) return choose(rows[0][0]);
    const y = rows.findIndex((row) => row.includes(chosen));
    if (step[0] !== 0) return choose(rows[y + step[0]] && near(rows[y + step[0]], startOf(chosen)));
    choose(rows[y][rows[y].indexOf(chosen) + step[1]]);
  });
  lanes.addEventListener("click", (event) => {
    if (event.target.tagName === "rect") choose(event.target);
  });
}
`;
