import { assert, assertEquals } from "@std/assert";
import { granted } from "./fixtures.ts";

const EXAMPLES = [
  "cancel",
  "cities",
  "complete_example",
  "generate_records",
  "lines",
  "mandelbrot",
  "process_pool",
  "sandbox",
  "thread_pool",
];
const TASK_MODULES = ["factorize", "geohash"];

const ignore = !granted("run") || !granted("read");

for (const name of EXAMPLES) {
  Deno.test(`examples/${name}.ts runs with the command that it shows, and prints what it shows (needs --allow-run and --allow-read)`, {
    ignore,
  }, async () => {
    const { command, inOrder, output } = readExample(await readText(`examples/${name}.ts`));
    const { code, stdout, stderr } = await deno(command);
    assertEquals(code, 0, stderr);
    const lines = stdout.trimEnd().split("\n");
    if (inOrder) return assertEquals(lines.map((line, i) => matches(line, output[i]) ? output[i] : line), output);
    const others = lines.filter((line) => !takeMatch(line, output));
    assertEquals({ printed: others, shown: output }, { printed: [], shown: [] });
  });
}

Deno.test("examples/generate_records.ts prints its help, and refuses what it does not know (needs --allow-run and --allow-read)", {
  ignore,
}, async () => {
  const run = async (...args: string[]) => {
    // It may write nothing: what is refused is refused before.
    const { code, stdout, stderr } = await deno(["run", "--no-prompt", "--no-check", "examples/generate_records.ts", ...args]);
    return [code, stdout.split("\n")[0], stderr];
  };
  assertEquals(await run("--help"), [0, "Usage: deno run --allow-write examples/generate_records.ts [PATH [NUMBER]]", ""]);
  for (
    const [args, message] of [
      [["--count", "5"], 'there is no option "--count"'],
      [["x.ndjson", "many"], 'the number of records must be an integer: current value is "many"'],
      [["x.ndjson", "5", "6"], 'there is no third argument "6"'],
    ] as const
  ) {
    assertEquals(await run(...args), [2, "", `generate_records: ${message}: '--help' shows what there is\n`]);
  }
});

Deno.test("Each example needs each permission that its command grants (needs --allow-run and --allow-read)", { ignore }, async () => {
  for (const name of EXAMPLES) {
    const { command } = readExample(await readText(`examples/${name}.ts`));
    for (const flag of command.filter((arg) => arg.startsWith("--allow-"))) {
      const { code } = await deno(["run", "--no-prompt", ...command.slice(1).filter((arg) => arg !== flag)]);
      assert(code !== 0, `examples/${name}.ts runs without ${flag}`);
    }
  }
});

Deno.test("examples/README.md has each example, and each is tested (needs --allow-read)", { ignore: !granted("read") }, async () => {
  const files = [...Deno.readDirSync(new URL("../examples/", import.meta.url))].map(({ name }) => name);
  const modules = files.filter((name) => name.endsWith(".ts")).sort();
  assertEquals(modules, [...EXAMPLES, ...TASK_MODULES].map((name) => `${name}.ts`).sort());
  const linked = (await readText("examples/README.md")).matchAll(/\]\((\w+\.ts)\)/g);
  assertEquals(Array.from(linked, ([, name]) => name).sort(), modules);
});

/** What an example says about itself: its command without `deno`, and its output, where "…" stands for what varies. */
function readExample(source: string): { command: string[]; inOrder: boolean; output: string[] } {
  const command = /^ \* ```sh\n \* deno (.+)\n \* ```$/m.exec(source)?.[1];
  const shown = /^\/\/ Output(?<any>, in an order that varies)?:\n(?<lines>(?:\/\/ .*\n)+)$/m.exec(source)?.groups;
  if (command === undefined || shown === undefined) throw new Error("The example must begin with its command and end with its output");
  const output = shown.lines!.trimEnd().split("\n").map((line) => line.slice("// ".length));
  return { command: command.split(" "), inOrder: shown.any === undefined, output };
}

function matches(line: string, shown = ""): boolean {
  const parts = shown.split("…").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(line);
}

/** Removes from the expected lines the first that the line matches; false if there is none. */
function takeMatch(line: string, output: string[]): boolean {
  const index = output.findIndex((shown) => matches(line, shown));
  if (index >= 0) output.splice(index, 1);
  return index >= 0;
}

async function readText(path: string): Promise<string> {
  return await Deno.readTextFile(new URL(`../${path}`, import.meta.url));
}

async function deno(args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const cwd = new URL("../", import.meta.url);
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd, env: { NO_COLOR: "1" } }).output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}
