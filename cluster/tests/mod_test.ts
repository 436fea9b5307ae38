import { assertEquals } from "@std/assert";
import * as core from "@procpool/process-pool";
import * as cluster from "../mod.ts";

Deno.test("mod.ts exports what a cluster needs, and the core's own things", () => {
  const own = ["ClusterPool", "defineTasks", "serve"];
  const shared = [
    "Future",
    "Job",
    "JobCancelledError",
    "JobTimeoutError",
    "MemoryLimitError",
    "PoolBrokenError",
    "PoolClosedError",
    "WorkerDiedError",
    "asCompleted",
    "wait",
  ];
  assertEquals(Object.keys(cluster), [...own, ...shared].sort());
  for (const name of shared) assertEquals(Reflect.get(cluster, name), Reflect.get(core, name));
});
