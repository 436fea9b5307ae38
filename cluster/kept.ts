/**
 * What the server keeps of what has ended: records of jobs, and events. For how long it does, how room is made when it is full, and how to
 * tell whether a record that is gone may have been removed for that.
 *
 * @module
 */

import type { Queue } from "bullmq";
import type { ChainableCommander, Redis } from "ioredis";

/**
 * For how many seconds, and for how many jobs, outcomes are kept for producers that come back or were held up. More, and Redis holds them
 * in memory in vain: a failure takes 2 KB, or 288 KB with its arguments and the longest error. Fewer, and a producer hears nothing of its
 * job if as many others end while it is held up.
 */
export const KEEP = { completed: { age: 600, count: 10_000 }, failed: { age: 86_400, count: 10_000 } };

/**
 * How many entries the events stream has, about four per job, including results. Fewer, and a producer that is held up for a moment misses
 * some, which the sweep finds two seconds later; more, and Redis holds that many results twice.
 */
export const MOST_EVENTS = 10_000;

/**
 * For how long events are left if the server is out of memory, in ms: for as long as a read may take. Shorter, and producers miss some that
 * they are about to read, among them those of which no record is left; longer, and results in them fill a small server for that time.
 */
const EVENTS_LEFT = 10_000;

const SETS = ["completed", "failed"] as const;

/** Removes the record of an ended job, if it is that which was sent then. */
const REMOVE_ENDED = `if redis.call("HGET", KEYS[1], "timestamp") == ARGV[2] then
  for i = 2, #KEYS do redis.call("ZREM", KEYS[i], ARGV[1]) end
  return redis.call("DEL", KEYS[1])
end`;

/**
 * Removes the records of jobs that ended by a given time, all but the youngest of a set: by that, producers that were held up see that the
 * record of theirs may have been removed, and do not send it again.
 */
const REMOVE_OLD = `local ids = redis.call("ZRANGEBYSCORE", KEYS[1], 0, ARGV[1])
if #ids == redis.call("ZCARD", KEYS[1]) then table.remove(ids) end
for _, id in ipairs(ids) do
  redis.call("DEL", ARGV[2] .. id)
  redis.call("ZREM", KEYS[1], id)
end`;

/** Removes the record of an ended job, unless it is that of another of its name by now. Returns whether it did. */
export async function removeEnded(client: Redis, queue: Queue, { id, timestamp }: { id: string; timestamp: string }): Promise<boolean> {
  const keys = [id, ...SETS].map((key) => queue.toKey(key));
  return await client.eval(REMOVE_ENDED, keys.length, ...keys, id, timestamp) === 1;
}

/**
 * Removes old events, as sweeps find what they were about, and outcomes that were kept long enough. Hosts do so whenever a job ends, but
 * if that is all that fills the server, no job is left to end.
 */
export async function makeRoom(client: Redis, queue: Queue): Promise<void> {
  const [seconds] = await client.time();
  await client.xtrim(queue.toKey("events"), "MINID", "~", 1000 * Number(seconds) - EVENTS_LEFT);
  for (const set of SETS) {
    const newest = Date.now() - 1000 * KEEP[set].age;
    await client.eval(REMOVE_OLD, 1, queue.toKey(set), newest, queue.toKey(""));
  }
}

/** The records that are kept of ended jobs. */
export interface Kept {
  set: typeof SETS[number];
  count: number;
  /** When the first of them ended, in ms since 1970; NaN if there is none. */
  oldest: number;
  /** When the last one ended in this queue, kept or not, to the minute: that may have been a minute later; 0 if none ever did. */
  last: number;
}

/** Asks which records are kept. {@linkcode readKept} reads the answers. */
export function askForKept(pipeline: ChainableCommander, queue: Queue): void {
  for (const set of SETS) {
    const key = queue.toKey(set);
    pipeline.zcard(key).zrange(key, 0, 0, "WITHSCORES").hget(queue.toKey(`metrics:${set}`), "prevTS");
  }
}

/** Reads the answers to {@linkcode askForKept}, with which these begin. */
export function readKept(answers: unknown[]): Kept[] {
  return SETS.map((set, i) => {
    const [count, [, oldest], last] = answers.slice(3 * i) as [number, string[], string | null];
    return { set, count, oldest: Number(oldest), last: Number(last) };
  });
}

/** Why a job that had not ended at that time and has no record may have ended; undefined if it has not. */
export function whyTrimmed(kept: Kept[], pendingTime: number): string | undefined {
  const trimmed = kept.find((each) => wasTrimmed(each, pendingTime));
  if (trimmed === undefined) return undefined;
  const { set, count } = trimmed;
  const others = count === 0 ? `those of ${set} jobs were removed since` : `the oldest of ${count} ${set} jobs is younger`;
  return `the server has no record of it: it may have ended, as ${others}, and is not run again`;
}

/**
 * Whether the record of a job that ended after that time may have been removed to make room, or for its age: if all records that are there
 * are younger, and either there are as many as are kept, or the time for which they are kept is over. (Half as many, as results of maps are
 * taken out once they are read.) That all are younger is not enough: in a queue that has just begun they are, too. If there are none, it is
 * for its age if another has ended after that time, of which the record was taken out.
 */
function wasTrimmed({ set, count, oldest, last }: Kept, pendingTime: number): boolean {
  const { age, count: most } = KEEP[set];
  const end = pendingTime + 1000 * age;
  if (count === 0) return last + 60_000 > end;
  return oldest > pendingTime && (count >= most / 2 || Date.now() > end);
}
