import { Job, type Task, type TaskRef } from "@procpool/process-pool";
import { show } from "@procpool/process-pool/executor";
import { type Envelope, VERSION } from "./envelope.ts";
import { uniqueName } from "./names.ts";
import { payloadKey } from "./payloads.ts";
import type { Settings } from "./pool_options.ts";
import type { ClusterTask } from "./tasks.ts";
import { type Json, toJson } from "./values.ts";

/**
 * How many characters the key of a payload may have. It consists of the queue's name, the job's name and what the payload is; file systems
 * accept no longer names.
 */
const LONGEST_KEY = 255;

/** How many characters the name may have under which a job travels: longer ones only take memory. */
const LONGEST_ID = 200;

/** Turns what was submitted into a job; throws what can be known to be wrong already. */
export function checkedJob(what: Job<never[], unknown> | Task | TaskRef, args: unknown[]): Job<never[], unknown> {
  if (!(what instanceof Job)) return new Job({ id: uniqueName(), func: what as Task<unknown[]>, args });
  if (args.length > 0) throw new TypeError(`Cannot submit job as its arguments belong in the job: ${args.length} given beside it`);
  if (what.transfer.length > 0) throw new TypeError("Cannot submit job as nothing can be moved to another machine: leave 'transfer' out");
  if (what.retryIf !== undefined) {
    throw new TypeError("Cannot submit job as a function cannot decide on another machine: leave 'retryIf' out");
  }
  if (typeof what.id === "number" && !Number.isFinite(what.id)) {
    throw new TypeError(`Cannot submit job as its id must be a string or a finite number: current value is ${what.id}`);
  }
  return what;
}

export function argumentsOf({ args, kwargs }: Job<never[], unknown>): unknown[] {
  return kwargs === undefined ? [...args] : [...args, kwargs];
}

export function writeArguments(args: unknown[]): Json[] {
  return args.map((arg, i) => toJson(arg, `argument ${i + 1}`));
}

/** The name under which a job travels: BullMQ accepts neither ':' in it nor an integer, and has keys of its own beside it. */
export function travelIdOf(id: string, { action, queue }: { action: string; queue: string }): string {
  if (!id.isWellFormed()) {
    throw new TypeError(`Cannot ${action} as its id must not contain half a character (a lone surrogate): current value is ${show(id)}`);
  }
  const travels = `job-${encodeURIComponent(id)}`;
  const most = Math.min(LONGEST_ID, LONGEST_KEY - payloadKey(queue, "", "result").length);
  if (travels.length <= most) return travels;
  throw new RangeError(
    `Cannot ${action} as its id must be at most ${most - "job-".length} characters when URL-encoded, beside the name of the queue: ` +
      `current value is ${show(id)}`,
  );
}

/** The call of a job; throws if it cannot travel. */
export function writeCall(
  job: Job<never[], unknown>,
  { args, task, settings }: { args: unknown[]; task: ClusterTask; settings: Settings },
): Envelope {
  const { id, timeout = settings.jobTimeout, retries = settings.retries } = job;
  task.validate?.(args);
  return { ...header(task, { timeout, retries, settings }), args: writeArguments(args), id };
}

/** A call of items. */
export function writeItems(
  items: Json[],
  { first, task, timeout, settings }: { first: number; task: ClusterTask; timeout: number | undefined; settings: Settings },
): Envelope {
  return { ...header(task, { timeout, retries: settings.retries, settings }), items, first };
}

function header(
  { task }: ClusterTask,
  { timeout, retries, settings }: { timeout: number | undefined; retries: number | undefined; settings: Settings },
): Envelope {
  const { expiresIn, release } = settings;
  return {
    v: VERSION,
    task,
    ...(timeout === undefined || timeout === Infinity ? {} : { timeout }),
    ...(retries === undefined ? {} : { retries }),
    ...(expiresIn === Infinity ? {} : { expiresAt: Date.now() + expiresIn }),
    ...(release === undefined ? {} : { release }),
  };
}
