import type { Slot } from "../worker/slot.ts";

/** What a worker is doing, as {@linkcode ProcessPool.inspect} returns it. Times are in milliseconds. */
export interface WorkerInspection {
  /** The worker's number, unique within the pool. */
  worker: number;
  /** `starting`: it loads its modules and runs its initializer. `closing`: it runs its finalizer. */
  state: "starting" | "idle" | "running" | "closing";
  /** How long it has been in this state; if it runs jobs, how long it has run the oldest of them. */
  for: number;
  /** The jobs that it runs. */
  jobs: JobInspection[];
  /** How many jobs it was sent ahead of time, or has not taken up yet. */
  ahead: number;
}

/** A running job. */
export interface JobInspection {
  /** The job's id; for a chunk of a map, the index of the running item. */
  id: string | number;
  /** The name of its task. */
  task: string;
  /** Which run of it this is, counted from 1. */
  attempt: number;
  /** How long it has run, in milliseconds; for a chunk of a map, the running item if there is a time limit, else the chunk. */
  for: number;
}

/** What the worker of a slot is doing by this time of day. */
export function inspectionOf(slot: Slot, timeOfDay: number): WorkerInspection {
  const jobs: JobInspection[] = [];
  let ahead = 0;
  for (const ticket of slot.tickets()) {
    const running = slot.runningFor(ticket, timeOfDay);
    if (running !== undefined) {
      jobs.push({ id: ticket.idOf(running.item), task: ticket.name, attempt: ticket.attempt, for: Math.max(0, running.time) });
    } else if (!slot.hasStarted(ticket)) ahead++;
  }
  jobs.sort((a, b) => b.for - a.for);
  const state = slot.state === "ready" ? (jobs.length > 0 ? "running" : "idle") : slot.state as "starting" | "closing";
  return { worker: slot.id, state, for: jobs[0]?.for ?? slot.unchangedFor, jobs, ahead };
}
