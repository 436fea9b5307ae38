/**
 * A host for the tests, in a process of its own: serves with the options given as JSON, prints "ready", and ends on SIGTERM.
 *
 * @module
 */

import { Interrupt } from "@procpool/process-pool";
import { serve } from "../mod.ts";
import { tasks } from "./cluster_tasks.ts";
import { folderStore } from "./folder_store.ts";

const { grace, store, ...options } = JSON.parse(Deno.args[0]!);
using interrupt = new Interrupt();
const host = await serve({ ...options, tasks, payloads: store === undefined ? undefined : folderStore(store) });
console.log("ready");
await new Promise((resolve) => interrupt.signal.addEventListener("abort", resolve));
await host.shutdown({ timeout: grace });
console.log("stopped");
