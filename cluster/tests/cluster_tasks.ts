import { defineTasks } from "../mod.ts";

const module = import.meta.resolve("./tasks.ts");

/** What producers and hosts of the tests share. */
export const tasks = defineTasks<typeof import("./tasks.ts")>({
  add: {
    module,
    validate(args) {
      if (!args.every((arg) => typeof arg === "number")) throw new TypeError("add() takes numbers");
    },
  },
  double: module,
  hostOf: module,
  echo: module,
  nothing: module,
  greet: module,
  jobId: module,
  spin: module,
  spinForEver: module,
  large: module,
  noteLarge: module,
  pretend: module,
  bad: module,
  fail: module,
  exitAt: module,
  exitAt13: module,
  killHostAt13: module,
  noteAndKillHostAt13: module,
  note: module,
  unsteady: module,
  whichRun: {
    module,
    validate([file]) {
      if (file === "refused") throw new RangeError("whichRun() refuses this");
    },
  },
  fill: module,
});
