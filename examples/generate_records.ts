/**
 * Makes a file of records to try a batch on: measurements, one JSON object per line, always the same for the same number. Without arguments
 * it makes a hundred in a temporary file; with a path and a number, that many there: 20 million are 0.9 GB.
 *
 * ```sh
 * deno run --allow-write examples/generate_records.ts
 * ```
 *
 * @module
 */

const HELP = `Usage: deno run --allow-write examples/generate_records.ts [PATH [NUMBER]]

Writes NUMBER records to the file PATH; without these, a hundred to a temporary
file that is removed again.`;

function refuse(message: string): never {
  console.error(`generate_records: ${message}: '--help' shows what there is`);
  Deno.exit(2);
}

if (Deno.args.includes("--help")) {
  console.log(HELP);
  Deno.exit();
}
const flag = Deno.args.find((arg) => arg.startsWith("-"));
if (flag !== undefined) refuse(`there is no option ${JSON.stringify(flag)}`);
const [given, count = "100", extra] = Deno.args;
if (extra !== undefined) refuse(`there is no third argument ${JSON.stringify(extra)}`);
if (!/^\d+$/.test(count)) refuse(`the number of records must be an integer: current value is ${JSON.stringify(count)}`);

const path = given ?? await Deno.makeTempFile({ suffix: ".ndjson" });
const file = await Deno.open(path, { write: true, create: true, truncate: true });
const encoder = new TextEncoder();
let state = 1;
let lines = "";
let size = 0;
for (let id = 0; id < Number(count); id++) {
  // A linear congruential generator, so that everybody gets the same file.
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  lines += `{"id":${id},"x":${state % 1000},"y":${(state >>> 10) % 1000},"unit":"cm${state % 7}"}\n`;
  if (lines.length > 2 ** 20 || id === Number(count) - 1) {
    const bytes = encoder.encode(lines);
    for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
    size += bytes.length;
    lines = "";
  }
}
file.close();
console.log(`${count} records, ${size} bytes`);
if (given === undefined) await Deno.remove(path);

// Output:
// 100 records, 3864 bytes
