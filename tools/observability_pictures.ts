/**
 * Makes the pictures of docs/observability.md: runs the demo and a batch, takes screenshots of their reports with Chromium, and draws the
 * demo's trace.
 *
 * ```sh
 * deno run --allow-all tools/observability_pictures.ts
 * ```
 *
 * @module
 */

import { fileURLToPath as fromFileUrl } from "node:url";
import { main } from "../cli.ts";
import { Browser } from "../tests/browser.ts";

interface TraceEvent {
  ph: string;
  tid: number;
  ts: number;
  dur: number;
  id: number;
  name: string;
  args: Record<string, string | number>;
}

const docs = new URL("../docs/", import.meta.url);
const WIDTH = 1040, LEFT = 130, ROW = 34, TOP = 40;

/** Draws a trace as viewers do: a row for each thread, the flows from submissions to starts, and counters. */
function drawTrace(events: TraceEvent[]): string {
  const end = Math.max(...events.map(({ ts, dur = 0 }) => (ts ?? 0) + dur));
  const x = (ts: number): number => Math.round((LEFT + ts / end * (WIDTH - LEFT - 10)) * 10) / 10;
  const threads = events.filter(({ name }) => name === "thread_name").sort((a, b) => a.tid - b.tid);
  const y = (tid: number): number => TOP + threads.findIndex((thread) => thread.tid === tid) * ROW;
  const drawn: string[] = threads.map(({ tid, args }) =>
    `<text x="${LEFT - 8}" y="${y(tid) + 17}" text-anchor="end">${args.name}</text><rect class="lane" x="${LEFT}" y="${y(tid)}" width="${
      WIDTH - LEFT - 10
    }" height="24"/>`
  );
  const starts = new Map(events.filter(({ ph }) => ph === "f").map((event) => [event.id, event]));
  for (const event of events) {
    const { ph, tid, ts, dur, args } = event;
    if (ph === "X" && tid > 0) {
      const width = Math.max(1, x(ts + dur) - x(ts));
      drawn.push(`<rect class="${args.outcome}" x="${x(ts)}" y="${y(tid)}" width="${width}" height="24"/>`);
      if (width > 40) drawn.push(`<text class="on" x="${x(ts) + 4}" y="${y(tid) + 17}">job ${args.id}</text>`);
    } else if (ph === "X") drawn.push(`<rect class="point" x="${x(ts) - 1}" y="${y(tid) + 4}" width="3" height="16"/>`);
    else if (ph === "s") {
      const to = starts.get(event.id)!;
      const [x1, y1, x2, y2] = [x(ts), y(tid) + 20, x(to.ts), y(to.tid)];
      drawn.push(`<path class="flow" d="M${x1} ${y1} C${x1} ${(y1 + y2) / 2} ${x2} ${(y1 + y2) / 2} ${x2} ${y2}"/>`);
    }
  }
  const base = TOP + threads.length * ROW;
  const gate = events.filter(({ ph, name }) => ph === "C" && name === "gate");
  const most = Math.max(1, ...gate.map(({ args }) => args.waiting as number));
  let path = `M${LEFT} ${base + 24}`;
  for (const { ts, args } of gate) path += ` H${x(ts)} V${base + 24 - (args.waiting as number) / most * 22}`;
  drawn.push(
    `<text x="${LEFT - 8}" y="${base + 17}" text-anchor="end">gate: waiting</text><path class="counter" d="${path} H${WIDTH - 10} V${
      base + 24
    } Z"/>`,
  );
  const height = base + ROW + 8;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-labelledby="t">
<title id="t">A trace of the demo: what each worker ran when</title>
<style>
text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 } .page { fill: #fff } .lane { fill: #f6f8fa }
.finished { fill: #3468b8 } .failed { fill: #cf4a1f } rect { stroke: #fff } .on { fill: #fff } .point { fill: #59636e; stroke: none }
.flow { fill: none; stroke: #8c959f } .counter { fill: #8c959f }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .page { fill: #0d1117; stroke: none } .lane { fill: #161b22 } rect { stroke: #0d1117 } .on { fill: #0d1117 } .finished { fill: #5b8fd9 } .failed { fill: #f0883e } }
</style>
<rect class="page" width="${WIDTH}" height="${height}"/>
<text x="10" y="22">A trace of the demo, ${(end / 1e6).toFixed(2)} s: a line leads from where a job was submitted to where it began</text>
${drawn.join("\n")}
</svg>
`;
}

/** A task that takes longer for some records, and fails for others. */
const TASK = `export default ({ id, x, y }) => {
  for (const end = performance.now() + (id % 997 === 0 ? 4 : 0.02 + x / 20_000); performance.now() < end;);
  if (x < 2) throw new RangeError(\`no area of width \${x}\`);
  if (y === 500) throw new TypeError("not measured");
  return { id, area: x * y };
};
`;

/** Runs a batch with errors. */
async function runBatch(): Promise<void> {
  await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-write", fromFileUrl(new URL("../examples/generate_records.ts", docs)), "records.ndjson", "60000"],
  }).output();
  await Deno.writeTextFile("area.js", TASK);
  await main(["batch", "area.js", "--input", "records.ndjson", "--output", "areas.ndjson", "--report", "batch.html", "--chunk", "128KB"]);
}

const folder = await Deno.makeTempDir();
Deno.chdir(folder);
try {
  const run = ["--jobs", "16", "--workers", "3", "--fail-rate", "0.25", "--seed", "3", "--quiet", "--no-timeline"];
  await main([...run, "--report", `${folder}/report.html`, "--trace", `${folder}/trace.json`]);
  await Deno.writeTextFile(new URL("trace.svg", docs), drawTrace(JSON.parse(await Deno.readTextFile(`${folder}/trace.json`))));
  await new Deno.Command(Deno.execPath(), { args: ["fmt", "--quiet", "docs/trace.svg"], cwd: new URL("../", docs) }).output();
  await runBatch();
  await using browser = await Browser.start();
  await browser.look({ width: 1000 });
  await browser.open(`file://${folder}/report.html`);
  await Deno.writeFile(new URL("report.png", docs), await browser.picture());
  await browser.open(`file://${folder}/batch.html`);
  await Deno.writeFile(new URL("batch-report.png", docs), await browser.picture());
} finally {
  await Deno.remove(folder, { recursive: true });
}
