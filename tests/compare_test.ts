import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { HELP, type Plan, readArguments } from "../bench/compare/arguments.ts";
import { renderChart } from "../bench/compare/chart.ts";
import { longestIdleWait, record } from "../bench/compare/child/drive.mjs";
import { type Contender, CONTENDERS, PACKAGES } from "../bench/compare/contenders.ts";
import { type Outcome, parseResults, type Results, sectionsOf } from "../bench/compare/results.ts";
import { format, formatRatio, median, summarise } from "../bench/compare/statistics.ts";
import { renderTable } from "../bench/compare/table.ts";
import { type Workload, WORKLOADS } from "../bench/compare/workloads.ts";

const [tiny, roundTrip] = ["tiny-windows", "roundtrip-awake"].map((name) => WORKLOADS.find((one) => one.name === name)!) as [
  Workload,
  Workload,
];
const [mine, bare, python] = ["process-pool", "bare", "futures"].map((name) => CONTENDERS.find((one) => one.name === name)!) as [
  Contender,
  Contender,
  Contender,
];

function resultsOf(workload: Workload, contenders: Contender[], outcomes: Record<string, Outcome[]>): Results {
  return {
    date: "2026-01-02T03:04:05.000Z",
    machine: { cpu: "A <fast> CPU", cores: 2, memoryGb: 8, os: "linux 6" },
    versions: { Deno: "2.9.6" },
    rounds: 3,
    workloads: [workload],
    contenders,
    missing: {},
    measurements: Object.entries(outcomes).flatMap(([contender, all]) =>
      all.map((outcome, i) => ({ workload: workload.name, contender, round: i + 1, outcome }))
    ),
  };
}

function figures(name: string, ...values: number[]): Outcome[] {
  return values.map((value) => ({ figures: { [name]: value } }));
}

// Statistics

Deno.test("summarise() gives median and range, and leaves the figures as they are", () => {
  const three = [30, 10, 20];
  assertEquals(summarise(three), { median: 20, min: 10, max: 30, count: 3 });
  assertEquals(three, [30, 10, 20]);
  assertEquals(summarise([1, 2, 10, 4]).median, 3);
  assertEquals(median([7]), 7);
});

Deno.test("summarise() refuses values that are not figures", () => {
  assertThrows(() => summarise([]), RangeError, "there must be one");
  assertThrows(() => summarise([1, NaN]), RangeError, "must be finite: current value is NaN");
  assertThrows(() => summarise([Infinity]), RangeError, "must be finite: current value is Infinity");
});

Deno.test("format() shows three digits that count, and formatRatio() two", () => {
  assertEquals([1_234_567, 45.64, 0.07812, 999.7, 5, 0].map(format), ["1,230,000", "45.6", "0.0781", "1,000", "5.00", "0"]);
  assertEquals([12.3, 1.64, 0.054, 9.96, 1234, 0.0031].map(formatRatio), ["12", "1.6", "0.05", "10", "1,200", "0.003"]);
});

// The data

Deno.test("WORKLOADS and CONTENDERS have names of their own, and every package has a version", () => {
  for (const all of [WORKLOADS, CONTENDERS]) assertEquals(new Set(all.map(({ name }) => name)).size, all.length);
  for (const { npm } of CONTENDERS) if (npm !== undefined) assertMatch(PACKAGES[npm]!, /^\d+\.\d+\.\d+$/);
});

Deno.test("record() makes an object whose text has about 200 bytes", () => {
  const { length } = JSON.stringify(record(12_345));
  assert(length > 140 && length < 220, `${length}`);
});

Deno.test("longestIdleWait() finds the longest time in which a worker was idle although a job waited", () => {
  const span = (start: number, end: number) => ({ start, end });
  // Two workers: one is busy until 100, the other pauses from 10 to 12 and from 20 to 25.
  const spans = [span(1, 100), span(1, 10), span(12, 20), span(25, 30)];
  assertEquals(longestIdleWait(0, spans, 25, 2), 5);
  assertEquals(longestIdleWait(0, spans, 12, 2), 2, "nobody waits any more after the last start that counts");
  // A job of 1,000 delays the two behind it, while the other worker does nothing from 2 until the last of them starts.
  assertEquals(longestIdleWait(0, [span(0, 1000), span(0, 2), span(1000, 1001), span(1001, 1002)], 1001, 2), 999);
  assertEquals(longestIdleWait(0, [span(3, 5)], 3, 2), 3, "both were idle until the first began");
});

// Sections

Deno.test("sectionsOf() puts the best first, with ratios to ours in the direction of the measure", () => {
  const [rates] = sectionsOf(
    resultsOf(tiny, [mine, bare], { "process-pool": figures("rate", 100, 300, 200), "bare": figures("rate", 400) }),
  );
  assertEquals(rates!.rows.map(({ contender, ratio }) => [contender.name, ratio]), [["bare", 2], ["process-pool", 1]]);
  const both = (median: number, p99: number): Outcome[] => [{ figures: { median, p99 } }];
  const [medians, tails] = sectionsOf(resultsOf(roundTrip, [mine, bare], { "process-pool": both(20, 90), "bare": both(40, 60) }));
  assertEquals(medians!.rows.map(({ contender, ratio }) => [contender.name, ratio]), [["process-pool", 1], ["bare", 0.5]]);
  assertEquals(tails!.rows.map(({ contender, ratio }) => [contender.name, ratio]), [["bare", 1.5], ["process-pool", 1]]);
});

Deno.test("sectionsOf() shows the reason, and no figure, for a contender that was wrong in one round, cannot do it or is not installed", () => {
  const wrong: Outcome = { failure: { kind: "wrong", message: "result 3: 5 in place of 4" } };
  const results = resultsOf(tiny, [mine, bare, python], {
    "process-pool": [...figures("rate", 100, 200), wrong],
    "bare": figures("rate", 9),
  });
  const [section] = sectionsOf({ ...results, missing: { futures: "python3 is not installed" } });
  assertEquals(
    section!.rows.map(({ contender, figure, ratio, remark, failed }) => [contender.name, figure?.median, ratio, remark, failed]),
    [
      ["bare", 9, undefined, undefined, false],
      ["process-pool", undefined, undefined, "WRONG RESULT: result 3: 5 in place of 4", true],
      ["futures", undefined, undefined, "python3 is not installed", false],
    ],
  );
  const move = WORKLOADS.find(({ drive }) => drive === "move")!;
  const [moved] = sectionsOf(resultsOf(move, [python], {}));
  assertEquals(moved!.rows[0]!.remark, "Python moves nothing");
});

Deno.test("sectionsOf() leaves a variant out of workloads that it runs just as its contender does", () => {
  const batch = CONTENDERS.find(({ name }) => name === "bare/batch")!;
  assertEquals(sectionsOf(resultsOf(roundTrip, [batch], {})).map(({ rows }) => rows.length), [0, 0]);
  assertEquals(sectionsOf(resultsOf(tiny, [batch], {})).map(({ rows }) => rows.length), [1]);
});

Deno.test("parseResults() reads what was written, and refuses what something else wrote", () => {
  const results = resultsOf(tiny, [mine], { "process-pool": figures("rate", 1) });
  const read = parseResults(JSON.stringify(results));
  assertEquals(renderTable(read, { color: false }), renderTable(results, { color: false }));
  for (const text of ["{}", "null", "[]", "nonsense", ""]) assertThrows(() => parseResults(text), SyntaxError);
});

// Table and chart

Deno.test("renderTable() shows figures, ranges, ratios and dashes, in columns and without escape codes unless asked for", () => {
  const results = resultsOf(tiny, [mine, bare, python], {
    "process-pool": figures("rate", 1_200_000, 1_000_000, 1_100_000),
    "bare": figures("rate", 137_000, 130_000, 140_000),
    "futures": [{ failure: { kind: "timeout", message: "took more than 60 s" } }],
  });
  const table = renderTable(results, { color: false });
  const rows = table.split("\n").slice(-3);
  assertMatch(rows[0]!, /^ {2}process-pool +deno +1,100,000 +1,000,000 to 1,200,000 +1\.0x$/);
  assertMatch(rows[1]!, /^ {2}bare workers +deno +137,000 +130,000 to 140,000 +0\.12x$/);
  assertMatch(rows[2]!, /^ {2}concurrent\.futures +python +- {2}took more than 60 s$/);
  assertEquals(rows[0]!.indexOf("1,100,000") + 9, rows[1]!.indexOf("137,000") + 7);
  assert(!table.includes("\x1b"));
  assert(renderTable(results, { color: true }).includes("\x1b[31mtook more than 60 s\x1b[39m"));
});

Deno.test("renderChart() draws a bar for each figure, with a length in proportion, and escapes what it did not write", () => {
  const results = resultsOf(tiny, [mine, bare, python], { "process-pool": figures("rate", 1000), "bare": figures("rate", 250) });
  const chart = renderChart(results);
  const bars = [...chart.matchAll(/<rect class="(ours|baseline|rival)" x="\d+" y="\d+" width="([\d.]+)" height="12"/g)];
  const lengths = bars.map(([, kind, width]) => [kind, Number(width)] as const);
  assertEquals(lengths.map(([kind]) => kind), ["ours", "baseline"]);
  assertEquals(lengths[1]![1] / lengths[0]![1], 0.25);
  assert(chart.includes("A &lt;fast&gt; CPU") && chart.includes("x =&gt; x + 1") && !chart.includes("<fast>"));
  assert(chart.includes("prefers-color-scheme: dark"));
  const open = [...chart.matchAll(/<(svg|g|text|tspan|title|style)[ >]/g)].length;
  assertEquals([...chart.matchAll(/<\/(svg|g|text|tspan|title|style)>/g)].length, open);
});

Deno.test("renderChart() shows only the first measure of a workload, and no workload without figures", () => {
  const both: Outcome[] = [{ figures: { median: 20, p99: 90 } }];
  const results = resultsOf(roundTrip, [mine], { "process-pool": both });
  const chart = renderChart({ ...results, workloads: [roundTrip, tiny] });
  assertEquals([...chart.matchAll(/class="head"/g)].length, 1);
  assert(chart.includes(">20.0<") && !chart.includes(">90.0<"));
});

// Arguments

function plan(...args: string[]): Plan {
  const request = readArguments(args);
  if (request.action !== "compare") throw new Error(`Refused: ${JSON.stringify(request)}`);
  return request.plan;
}

function refusal(...args: string[]): string {
  const request = readArguments(args);
  if (request.action !== "refuse") throw new Error(`Not refused: ${JSON.stringify(args)}`);
  return request.message;
}

Deno.test("readArguments() takes everything if nothing is said", () => {
  assertEquals(plan(), {
    workloads: [...WORKLOADS],
    contenders: [...CONTENDERS],
    rounds: 4,
    timeout: 60,
    json: undefined,
    chart: undefined,
    from: undefined,
  });
  assertEquals(readArguments(["--help"]), { action: "help" });
  for (const { name } of [...WORKLOADS, ...CONTENDERS]) assert(HELP.includes(`  ${name} `), name);
});

Deno.test("readArguments() takes beginnings of workloads, and contenders with their variants or by their runtime", () => {
  assertEquals(plan("--only", "tiny,map-typed").workloads.map(({ name }) => name), [
    "tiny-windows",
    "tiny-many",
    "tiny-few",
    "tiny-all",
    "map-typed",
  ]);
  assertEquals(plan("--only", "map").workloads.map(({ name }) => name), ["map"], "a whole name is no beginning");
  const names = (wanted: string) => plan("--pools", wanted).contenders.map(({ name }) => name);
  assertEquals(names("piscina,bare"), ["bare", "bare/batch", "piscina", "piscina@node"]);
  assertEquals(names("poolifier@node"), ["poolifier@node"]);
  assertEquals(names("python"), ["futures", "futures/batch", "multiprocessing", "multiprocessing/batch"]);
});

Deno.test("readArguments() refuses what it does not know, and says what there is", () => {
  assertEquals(refusal("--round", "4"), "compare: there is no option '--round': '--help' shows what there is");
  assertEquals(refusal("tiny"), "compare: there is no argument 'tiny': '--help' shows what there is");
  assertEquals(refusal("--rounds", "0"), `compare: '--rounds' must be an integer from 1 to 100: current value is "0"`);
  assertEquals(refusal("--json", "--chart", "x.svg"), "compare: '--json' needs a value: '--help' shows which");
  assertMatch(refusal("--only", "tiny,nope"), /^compare: '--only' must be one or more of tiny-windows, .*: current value is "nope"$/);
  assertMatch(refusal("--pools", "pisc"), /^compare: '--pools' must be one or more of process-pool, .*: current value is "pisc"$/);
  assertEquals(refusal("--from", "a", "--json", "b"), "compare: '--from' measures nothing that '--json' could write");
});
