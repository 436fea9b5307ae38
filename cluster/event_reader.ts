import { QueueEvents, type RedisQueueBackend } from "bullmq";

/**
 * How many events are read at a time at most. More, and a producer that was held up needs memory for as many results, several times each;
 * fewer, and a distant producer hears of fewer jobs per second.
 */
const MOST_READ = 500;

/**
 * By what factor fewer are read after a read that did not finish in time: events contain results, and a connection may be slow. Less, and
 * several such reads in a row bring nothing; more, and it takes longer to get back to as many as the connection carries.
 */
const FEWER_READ = 8;

/**
 * BullMQ's reader of events, which by itself fails in two ways. After an event that somebody else wrote and that is not JSON it reads no
 * more: here such events are replaced, and the sweep of the link finds what they were about. And it reads at once all that a producer has
 * missed while that was held up, over a slow connection again and again, as it gives up a read after a while: here a read is limited.
 */
export class EventReader extends QueueEvents {
  protected override createBackend(): void {
    super.createBackend();
    const { backend } = this;
    const read = backend.readEvents.bind(backend);
    let limited: Promise<void> | undefined;
    let most = Math.floor(MOST_READ / FEWER_READ);
    backend.readEvents = async (id, timeout) => {
      await (limited ??= limitReads(backend as RedisQueueBackend, () => most));
      const start = performance.now();
      const streams = await read(id, timeout);
      const events = streams?.[0]?.[1] ?? [];
      // A read that was given up looks as if there had been nothing to read.
      if (events.length === 0) most = Math.max(1, Math.floor(most / FEWER_READ));
      else if (events.length === most && performance.now() - start < timeout / 2) most = Math.min(2 * most, MOST_READ);
      for (const event of events) if (!isReadable(event[1])) event[1] = ["event", "unreadable"];
      return streams;
    };
  }
}

async function limitReads(backend: RedisQueueBackend, most: () => number): Promise<void> {
  const client = await backend.client;
  const { xread } = client;
  client.xread = (streams, options) => xread(streams, { ...options, COUNT: most() });
}

/** Whether BullMQ can read an event, given as alternating names and values. */
function isReadable(fields: string[]): boolean {
  const event: Record<string, string> = {};
  for (let i = 0; i < fields.length; i += 2) event[fields[i]!] = fields[i + 1]!;
  const json = event.event === "completed" ? event.returnvalue : event.event === "progress" ? event.data : "0";
  try {
    JSON.parse(json!);
    return true;
  } catch {
    return false;
  }
}
