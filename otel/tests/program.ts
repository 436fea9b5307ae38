/** Runs a few jobs of each kind within a span of its own; what is exported of it, a test looks at. */

import { trace } from "@opentelemetry/api";
import { otelObserver } from "@procpool/otel";
import { Job, ProcessPool } from "@procpool/process-pool";

const observer = otelObserver({ name: "test" });
await trace.getTracer("program").startActiveSpan("caller", async (span) => {
  const pool = new ProcessPool({ maxWorkers: 1, queueSize: 2, jobTimeout: 500, observers: [observer], onError: () => {} });
  function square(x: number): number {
    return x * x;
  }
  function fail(): never {
    throw new RangeError("no");
  }
  function spin(): never {
    for (;;);
  }
  function die(memory: Int32Array): string {
    return Atomics.add(memory, 0, 1) === 0 ? Deno.exit(3) : "done";
  }
  const squares = await Promise.all([1, 2, 3, 4].map((x) => pool.run(square, x)));
  if (squares.join() !== "1,4,9,16") throw new Error(`The squares are ${squares}`);
  await Promise.allSettled([pool.run(fail)]);
  await Promise.allSettled([pool.run(spin)]);
  await pool.run(new Job({ id: "again", func: die, args: [new Int32Array(new SharedArrayBuffer(4))], retries: 1 }));
  for await (const _ of pool.map(square, [1, 2, 3], { chunkSize: 3 }));
  // Until the metrics of a pool that is open have been exported: the collector ends the line.
  await Deno.stdin.read(new Uint8Array(1));
  await pool.shutdown();
  span.end();
});
