/**
 * Measures process-pool beside other pools on Deno, Node and Python.
 *
 * ```sh
 * deno task compare --only tiny,roundtrip --pools process-pool,bare,piscina --rounds 4 --json results.json --chart chart.svg
 * ```
 *
 * @module
 */

import { HELP, type Plan, readArguments } from "./arguments.ts";
import { renderChart } from "./chart.ts";
import { type Contender, takesPart } from "./contenders.ts";
import { measure } from "./measurement.ts";
import { Progress } from "./progress.ts";
import { type Failure, type Measurement, parseResults, type Results, sectionsOf } from "./results.ts";
import { describeMachine, lookAround } from "./surroundings.ts";
import { renderTable } from "./table.ts";
import type { Workload } from "./workloads.ts";

/** Runs the command; gives its exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const request = readArguments(args);
  switch (request.action) {
    case "help":
      console.log(HELP);
      return 0;
    case "refuse":
      console.error(request.message);
      return 2;
    case "compare": {
      const interrupt = new AbortController();
      const stop = () => interrupt.abort();
      Deno.addSignalListener("SIGINT", stop);
      try {
        return await compare(request.plan, interrupt.signal);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied || error instanceof SyntaxError)) {
          throw error;
        }
        console.error(`compare: ${error.message}`);
        return 2;
      } finally {
        Deno.removeSignalListener("SIGINT", stop);
      }
    }
  }
}

async function compare(plan: Plan, signal: AbortSignal): Promise<number> {
  // A file that cannot be written should not be found out after an hour.
  for (const file of [plan.json, plan.chart]) if (file !== undefined) await Deno.writeTextFile(file, "", { append: true });
  const results: Results = plan.from === undefined
    ? await measureAll(plan, signal)
    : choose(parseResults(await Deno.readTextFile(plan.from)), plan);
  if (plan.json !== undefined) await Deno.writeTextFile(plan.json, `${JSON.stringify(results, null, 2)}\n`);
  if (results.measurements.length > 0) {
    if (plan.chart !== undefined) await Deno.writeTextFile(plan.chart, renderChart(results));
    console.log(renderTable(results, { color: Deno.stdout.isTerminal() && !Deno.noColor }));
  }
  if (signal.aborted) {
    console.error("Interrupted: the table shows what was measured so far");
    return 130;
  }
  return sectionsOf(results).some(({ rows }) => rows.some(({ failed }) => failed)) ? 1 : 0;
}

/** Of results that were measured before, what is asked for. */
function choose(results: Results, { workloads, contenders }: Plan): Results {
  return {
    ...results,
    workloads: results.workloads.filter(({ name }) => workloads.some((one) => one.name === name)),
    contenders: results.contenders.filter(({ name }) => contenders.some((one) => one.name === name)),
  };
}

async function measureAll({ workloads, contenders, rounds, timeout }: Plan, signal: AbortSignal): Promise<Results> {
  const { versions, packages, missing } = await lookAround(contenders, (line) => console.error(line));
  function able(workload: Workload): Contender[] {
    return contenders.filter((one) =>
      takesPart(one, workload) && missing[one.name] === undefined && one.cannot[workload.drive] === undefined
    );
  }
  const measurements: Measurement[] = [];
  const results = {
    date: new Date().toISOString(),
    machine: await describeMachine(),
    versions,
    rounds,
    workloads,
    contenders,
    missing,
    measurements,
  };
  using progress = new Progress(rounds * workloads.reduce((sum, workload) => sum + able(workload).length, 0));
  for (let round = 1; round <= rounds; round++) {
    for (const workload of workloads) {
      for (const contender of rotated(able(workload), round)) {
        progress.begins(`round ${round} of ${rounds}, ${workload.name}`, contender.name);
        try {
          const outcome = await measure(workload, contender, { packages, timeout, signal });
          measurements.push({ workload: workload.name, contender: contender.name, round, outcome });
          if ("failure" in outcome) progress.tell(`${workload.name}, ${contender.name}: ${complaint(outcome.failure)}`);
        } catch (error) {
          if (signal.aborted) {
            return {
              ...results,
              workloads: workloads.filter(({ name }) => measurements.some((one) => one.workload === name)),
            };
          }
          throw error;
        }
        progress.ended();
      }
    }
  }
  return results;
}

function complaint({ kind, message }: Failure): string {
  return kind === "wrong" ? `wrong result: ${message}` : message;
}

/** Every round begins with another, so that nobody always follows the same one. */
function rotated<T>(items: T[], by: number): T[] {
  const at = by % Math.max(1, items.length);
  return [...items.slice(at), ...items.slice(0, at)];
}

if (import.meta.main) Deno.exitCode = await main(Deno.args);
