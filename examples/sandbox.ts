/**
 * Workers that may do less than the program: one pool is denied the disk and all else, another may read one file.
 *
 * ```sh
 * deno run --no-prompt --allow-read=examples examples/sandbox.ts
 * ```
 *
 * `permissions` needs Deno's unstable feature `worker-options`; the deno.json of this repository turns it on. Without `--no-prompt` Deno
 * asks whoever sits at the terminal whether the worker may.
 *
 * @module
 */

import { ProcessPool } from "@procpool/process-pool";
import { assertEquals, assertInstanceOf } from "@std/assert";
import { factorize } from "./factorize.ts";

function sizeOf(path: string): number {
  return Deno.readTextFileSync(path).length;
}

const file = "examples/data/alice.txt";

{
  await using pool = new ProcessPool({ maxWorkers: 1, permissions: "none", modules: [import.meta.resolve("./factorize.ts")] });

  const error = await (await pool.submit(sizeOf, file)).exception();
  assertInstanceOf(error, Deno.errors.NotCapable);
  console.log(error.message);

  // A task module is loaded with the permissions of this program, so a worker with none can run it.
  const factors = await pool.run(factorize, sizeOf(file));
  console.log(`${sizeOf(file)} = ${factors.join(" * ")}`);
}
{
  await using pool = new ProcessPool({ maxWorkers: 1, permissions: { read: [file] } });

  assertEquals(await pool.run(sizeOf, file), sizeOf(file));
  const error = await (await pool.submit(sizeOf, "examples/README.md")).exception();
  assertInstanceOf(error, Deno.errors.NotCapable);
  console.log(error.message);
}

// Output:
// Requires read access to "examples/data/alice.txt", run again with the --allow-read flag
// 2639 = 7 * 13 * 29
// Requires read access to "examples/README.md", run again with the --allow-read flag
