import { defineTasks } from "@procpool/cluster";

/** What the producer and the hosts share. */
export const tasks = defineTasks<typeof import("./tasks.ts")>({ steps: import.meta.resolve("./tasks.ts") });
