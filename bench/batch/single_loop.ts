/**
 * What a batch is compared with: one thread that reads, parses, computes and writes, a block at a time. Prints records and seconds.
 *
 * @module
 */

import { area } from "./task.ts";

const [input, output] = Deno.args as [string, string];
const begin = performance.now();
const source = Deno.openSync(input);
const target = Deno.openSync(output, { write: true, create: true, truncate: true });
const block = new Uint8Array(2 ** 16);
const decoder = new TextDecoder();
const encoder = new TextEncoder();
let rest = "";
let records = 0;
for (let read = source.readSync(block); read !== null; read = source.readSync(block)) {
  const lines = (rest + decoder.decode(block.subarray(0, read), { stream: true })).split("\n");
  rest = lines.pop()!;
  let results = "";
  for (const line of lines) {
    results += `${JSON.stringify(area(JSON.parse(line)))}\n`;
    records++;
  }
  target.writeSync(encoder.encode(results));
}
console.log(JSON.stringify({ records, seconds: (performance.now() - begin) / 1000 }));
