import { assert, assertEquals } from "@std/assert";
import { pointsOf } from "../bench/scaling.ts";

function extremes(values: number[]): [number, number] {
  return [Math.min(...values), Math.max(...values)];
}

Deno.test("pointsOf() goes from 1 to 8 workers, from 1,000 to 20,000,000 jobs, and from 8 bytes to 8 MiB", () => {
  const points = pointsOf(false);
  const of = (curve: string, by?: string) => points.filter((point) => point.curve === curve && (by === undefined || point.by === by));
  assertEquals(extremes(of("workers").map(({ workers }) => workers)), [1, 8]);
  for (const by of ["run", "map"]) assertEquals(extremes(of("jobs", by).map(({ jobs }) => jobs)), [1_000, 20_000_000]);
  assertEquals(extremes(of("payload").map(({ bytes }) => bytes)), [8, 8 * 1024 * 1024]);
  for (const { jobs } of points) assert(Number.isSafeInteger(jobs) && jobs > 0, `${jobs}`);
});

Deno.test("pointsOf() has fewer points and fewer jobs for a quick look", () => {
  const jobsOf = (quick: boolean) => pointsOf(quick).reduce((sum, { jobs }) => sum + jobs, 0);
  assert(pointsOf(true).length < pointsOf(false).length);
  assert(jobsOf(true) < jobsOf(false) / 10);
  assertEquals(new Set(pointsOf(true).map(({ curve }) => curve)), new Set(["workers", "jobs", "payload"]));
});
