/**
 * Streams the lines of a text file through `map`: the file may be larger than memory, and the results are in the order of the lines.
 *
 * ```sh
 * deno run --allow-read=examples/data/alice.txt examples/lines.ts
 * ```
 *
 * @module
 */

import { ProcessPool } from "@procpool/process-pool";
import { assertEquals } from "@std/assert";

async function* linesOf(path: string): AsyncGenerator<string> {
  const file = await Deno.open(path);
  let rest = "";
  for await (const text of file.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
  if (rest !== "") yield rest;
}

function wordsOf(line: string): string[] {
  return line.toLowerCase().match(/[a-z]+/g) ?? [];
}

const path = "examples/data/alice.txt";
const counts = new Map<string, number>();
let lines = 0;

await using pool = new ProcessPool();
for await (const words of pool.map(wordsOf, linesOf(path))) {
  lines++;
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
}

const frequent = [...counts].sort(([, a], [, b]) => b - a).slice(0, 5);
console.log(`${lines} lines, ${counts.size} different words`);
for (const [word, count] of frequent) console.log(`${count} ${word}`);

const text = await Deno.readTextFile(path);
assertEquals(lines, text.split("\n").length - 1);
assertEquals([...counts.values()].reduce((a, b) => a + b), wordsOf(text).length);

// Output:
// 48 lines, 220 different words
// 23 the
// 21 to
// 20 she
// 18 it
// 15 of
