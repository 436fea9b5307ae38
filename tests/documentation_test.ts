/**
 * What `deno test --doc` does not see of README.md, its Chinese version and docs/: links, commands, what they print, and snippets that need
 * files beside them.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { granted } from "./fixtures.ts";

const ROOT = new URL("../", import.meta.url);
const PAGES = ["", "docs/", "examples/", "bench/", "cluster/", "otel/"];
const READMES = ["README.md", "README.zh-CN.md"];

const ignore = !granted("read");
const ignoreRuns = ignore || !granted("run") || !granted("write");

function readText(path: string): Promise<string> {
  return Deno.readTextFile(new URL(path, ROOT));
}

/** The path of a file, for a program that runs in another folder. */
function fromRoot(path: string): string {
  return Deno.realPathSync(new URL(path, ROOT));
}

async function deno(args: string[], { cwd = ROOT, exitCode = 0 }: { cwd?: string | URL; exitCode?: number } = {}): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd, env: { NO_COLOR: "1" } }).output();
  assertEquals(code, exitCode, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

/** The blocks of a page that are in this language, the rest of the line behind it included. */
function blocksOf(text: string, language: string): string[] {
  return Array.from(text.matchAll(/^```(.*)\n([^]*?)^```$/gm), ([, info, code]) => [info, code!] as const)
    .filter(([info]) => info === language).map(([, code]) => code);
}

/** What can follow `#` in a link to a page: its headings, as GitHub names them. */
function anchorsOf(text: string): string[] {
  const headings = text.replaceAll(/^```[^]*?^```$/gm, "").matchAll(/^#+ (.*)$/gm);
  return Array.from(headings, ([, heading]) => heading!.toLowerCase().replaceAll(/[^\p{L}\p{N}_ -]/gu, "").replaceAll(" ", "-"));
}

Deno.test("Each link within the documentation leads somewhere (needs --allow-read)", { ignore }, async () => {
  const lost: string[] = [];
  let links = 0;
  for (const folder of PAGES) {
    for (const { name } of [...Deno.readDirSync(new URL(folder || ".", ROOT))].filter(({ name }) => name.endsWith(".md"))) {
      const page = new URL(folder + name, ROOT);
      const text = (await Deno.readTextFile(page)).replaceAll(/^```[^]*?^```$/gm, "");
      for (const [, target] of text.matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
        links++;
        const [path, anchor] = target!.split("#");
        // A link that begins with a slash is meant from the root of the repository.
        const url = path === "" ? page : path!.startsWith("/") ? new URL(path!.slice(1), ROOT) : new URL(path!, page);
        const found = await Deno.stat(url).then(() => true, () => false);
        if (!found || (anchor !== undefined && !anchorsOf(await Deno.readTextFile(url)).includes(anchor))) {
          lost.push(`${folder}${name}: ${target}`);
        }
      }
    }
  }
  assertEquals(lost, []);
  assert(links > 50, `${links} links`);
});

Deno.test("README.md shows what the demo and examples/cities.ts print (needs --allow-read, --allow-write and --allow-run)", {
  ignore: ignoreRuns,
}, async () => {
  const readme = await readText("README.md");
  const shown = (command: string) => {
    const at = readme.indexOf(`\n\`\`\`sh\n${command}\n\`\`\`\n`);
    assert(at >= 0, `README.md has no command ${command}`);
    return blocksOf(readme.slice(at + 1), "")[0]!.trimEnd().split("\n");
  };

  const command = "deno run cli.ts --seed 14 --fail-rate 0.15";
  const printed = (await deno(command.split(" ").slice(1), { exitCode: 1 })).split("\n");
  // How long a job sleeps, and whether it fails, is in the seed; how long the run takes is not, and "..." stands for more.
  const jobs = shown(command).filter((line) => /^(put|job)/.test(line));
  assert(jobs.length > 5);
  for (const line of jobs) assert(printed.includes(line), line);
  const summary = (lines: string[]) => lines.find((line) => line.startsWith("10 jobs"))!.replaceAll(/\d+\.\d+/g, "n");
  assertEquals(summary(shown(command)), summary(printed));

  const cities = "examples/cities.ts";
  const output = /^\/\/ Output:\n((?:\/\/ .*\n)+)$/m.exec(await readText(cities))![1]!.trimEnd().split("\n");
  assertEquals(shown(`deno run --allow-read --allow-write ${cities}`), output.map((line) => line.slice("// ".length)));
});

for (const name of READMES) {
  Deno.test(
    `The batch in ${name} runs as it stands (needs --allow-read, --allow-write and --allow-run)`,
    { ignore: ignoreRuns },
    async () => {
      const text = await readText(name);
      const module = blocksOf(text, "ts ignore").find((block) => block.includes("function area"))!;
      const commands = blocksOf(text, "sh").find((block) => block.includes("areas.ndjson"))!.trimEnd().split("\n");
      const folder = await Deno.makeTempDir();
      try {
        await Deno.writeTextFile(`${folder}/tasks.ts`, module);
        await Deno.writeTextFile(`${folder}/records.ndjson`, '{"id":1,"x":2,"y":3}\n{"id":2,"x":4,"y":5}\n');
        for (const command of commands) {
          const args = command.replace(/\s+#.*$/, "").split(" ").slice(1);
          args[args.indexOf("cli.ts")] = fromRoot("cli.ts");
          await deno(args, { cwd: folder });
          assertEquals(await Deno.readTextFile(`${folder}/areas.ndjson`), '{"id":1,"area":6}\n{"id":2,"area":20}\n');
        }
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  );
}

Deno.test("The task module with an initializer in README.md runs as it stands (needs --allow-read, --allow-write and --allow-run)", {
  ignore: ignoreRuns,
}, async () => {
  const blocks = blocksOf(await readText("README.md"), "ts ignore");
  const at = blocks.findIndex((block) => block.includes("DatabaseSync"));
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/tasks.ts`, blocks[at]!);
    await Deno.writeTextFile(`${folder}/main.ts`, blocks[at + 1]!);
    await Deno.writeTextFile(
      `${folder}/fill.ts`,
      `import { DatabaseSync } from "node:sqlite";
using db = new DatabaseSync("cities.db");
db.exec("CREATE TABLE cities (name TEXT, population INTEGER)");
db.exec("INSERT INTO cities VALUES ('Zürich', 443037), ('Basel', 173863)");
`,
    );
    const run = ["run", "--allow-read", "--allow-write", "--config", fromRoot("deno.json")];
    await deno([...run, "fill.ts"], { cwd: folder });
    assertEquals(await deno([...run, "main.ts"], { cwd: folder }), "443037\n173863\n");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test(
  "docs/performance.md has the figures of docs/performance.svg, a row for each of its charts (needs --allow-read)",
  { ignore },
  async () => {
    const number = (text: string) => Number(text.replaceAll(",", ""));

    const charts = (await readText("docs/performance.svg")).split("<g>").slice(1).map((chart) => {
      const names = Array.from(chart.matchAll(/class="name[^"]*">([^<]+)</g), ([, name]) => name!);
      const values = Array.from(chart.matchAll(/>([\d.,]+)(?:<tspan|<\/text>)/g), ([, value]) => number(value!));
      assertEquals(values.length, names.length);
      const rival = (node: boolean) =>
        names.findIndex((name) => !/^(process-pool|bare)|Python$/.test(name) && name.endsWith(", Node") === node);
      const columns = ["process-pool", "process-pool, killable", "bare workers", "bare workers, by 100"].map((name) => names.indexOf(name));
      return { title: /class="head">([^<]+)</.exec(chart)![1]!, figures: [...columns, rival(false), rival(true)].map((at) => values[at]) };
    });

    const table = /## Beside others\n\n.*\n.*\n((?:\|.*\n)+)/.exec(await readText("docs/performance.md"))![1]!;
    const rows = table.trimEnd().split("\n").map((line) => {
      const [what, ...cells] = line.split("|").slice(1, -1).map((cell) => cell.trim());
      // A cell may have the median and the p99; charts have one of them.
      return { what, cells: cells.map((cell) => cell.split(" / ")[0]!) };
    });
    // The chart has three digits, the table may have fewer.
    const agree = (cell: string, figure: number | undefined) =>
      figure === undefined ? cell === "" : number(cell) === Number(figure.toFixed(cell.split(".")[1]?.length ?? 0));
    const rowOf = (figures: (number | undefined)[]) => rows.filter(({ cells }) => cells.every((cell, i) => agree(cell, figures[i])));
    assertEquals(charts.filter(({ figures }) => rowOf(figures).length !== 1).map(({ title, figures }) => ({ title, figures })), []);
    assertEquals(rows.length, charts.length);
  },
);
