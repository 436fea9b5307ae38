/**
 * A host of the example: runs jobs until it is told to stop, or killed.
 *
 * @module
 */

import { Interrupt } from "@procpool/process-pool";
import { serve } from "@procpool/cluster";
import { tasks } from "./cluster_tasks.ts";

const [connection, name] = Deno.args as [string, string];
using interrupt = new Interrupt();
const told = new Promise((resolve) => interrupt.signal.addEventListener("abort", resolve));
// Shorter than the defaults, so that the example does not take half a minute to find out that a host is dead.
await using host = await serve({ queue: "example", connection, tasks, workers: 2, name, lockDuration: 2000, stalledInterval: 1000 });
console.log(`${host.name} is ready`);
await Promise.race([told, host.finished]);
