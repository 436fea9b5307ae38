import type { ChainableCommander, Redis } from "ioredis";
import { ErrorCode, Queue } from "bullmq";
import { show } from "@procpool/process-pool/executor";
import type { Connection } from "./connection.ts";
import { type Envelope, FORGOTTEN, isCancelled, isUnwanted, STALLED, VERSION } from "./envelope.ts";
import { Errands } from "./errands.ts";
import { EventReader } from "./event_reader.ts";
import { askForKept, KEEP, type Kept, makeRoom, MOST_EVENTS, readKept, removeEnded, whyTrimmed } from "./kept.ts";
import { cancelChannel, cancelMessage, databaseOf, PREFIX, queueName } from "./names.ts";
import { mayPass, plain, refusesWrites, tellOnce } from "./server_errors.ts";
import { type ClusterStatus, readStatus } from "./status.ts";

/** How a job ended, according to Redis. `lost`: Redis no longer knows it, and it is not sent again, for the given reason. */
export type Ending =
  | { kind: "completed"; reply: unknown }
  /** `deaths`: how many hosts died with it, if it was failed for that. */
  | { kind: "failed"; reason: string; deaths?: number }
  | { kind: "refused"; error: Error }
  | { kind: "removed" }
  | { kind: "lost"; why: string };

/** Listens to one job. */
export interface Listener {
  /** A host has started it, or has not started it after all. */
  running(running: boolean): void;
  /** Its host is gone, or had to stop: it waits for another. */
  redelivered(): void;
  /** It has ended. Nothing follows. */
  ended(ending: Ending): void;
  /** It has returned this after everyone had stopped listening. */
  returned(reply: unknown): void;
}

interface Entry {
  id: string;
  /** Undefined for a job that another producer has sent. */
  envelope: Envelope | undefined;
  listeners: Set<Listener>;
  /** Resolves when it has ended, or is taken out of the queue. */
  over: PromiseWithResolvers<void>;
  /** Resolves when Redis has taken it. */
  sent: Promise<void>;
  /** How many sweeps had begun when Redis had taken it; Infinity until then. */
  sentInSweep: number;
  /** How often it was sent. */
  sendings: number;
  /** When it had certainly not ended, in ms since 1970: when it was last sent, or last found to wait or run. */
  pendingTime: number;
  /** The timestamp of the record whose end is its own: of what was last sent, or of a job of its name that the queue had and is wanted. */
  timestamp: string | undefined;
  /** Whether a host was seen to start it. */
  started: boolean;
  /** Whether it came back from a host, and that was not reported yet. */
  givenBack: boolean;
  /** Whether it neither ran nor waited when it was last looked up. */
  stranded: boolean;
  /**
   * Why it counts as lost if more sweeps find no record of it, or undefined if it is sent again then; undefined as a whole while there is
   * one.
   */
  missing: { why: string | undefined; sweeps: number } | undefined;
  /**
   * The timestamp of an earlier, unwanted job of its name: this one is sent when that has ended. Null if the earlier one was not looked for
   * yet, or was gone by then; undefined if there is none.
   */
  comesAfter: string | null | undefined;
}

/** A job that is no longer wanted. */
interface Stop {
  /** When it was sent, according to the queue, which tells it apart from another of its name. Undefined until that was read. */
  timestamp?: string;
  /** The same as far as it was known before: if it has ended by a later try, the queue may have another by then. */
  lastTimestamp: string | undefined;
  /** Whether its end was heard. */
  ended: boolean;
  /** The last one that listened to it. */
  listener: Listener;
}

/**
 * How often pending jobs are looked up, in ms. Shorter, and Redis is asked about slow jobs all the time; longer, and a lost event costs
 * more.
 */
export const SWEEP_INTERVAL = 2000;

/** How many jobs are looked up at a time. More, and Redis is held up for everybody else; fewer, and a lookup takes more round trips. */
const SWEEP_BATCH = 500;

/**
 * How many jobs are looked for in the lists at a time. More, and a script holds up everybody else, for seconds if there are a million; fewer,
 * and long lists are read more often.
 */
const STRANDED_BATCH = 10_000;

/**
 * How often a job is sent at most if Redis forgets it each time: a server that is emptied again and again must not keep producers busy
 * forever.
 */
const MOST_SENDINGS = 3;

/**
 * After how many sweeps without a record a job is sent again, or counts as lost. Fewer, and for a job whose record goes when it ends, since
 * it was removed, cancelled or came too late, the event may still be on its way behind others; more, and a loss is mended or reported later.
 */
const MISSED_SWEEPS = 4;

/**
 * How long the server may be silent while it is told what is unwanted, in ms. If it is away, hosts find out for themselves or work in vain.
 */
const FAREWELL = 3000;

/**
 * A producer's end of the queue: sends jobs, hears how they end, and asks about those of which it has heard nothing, so that each ends
 * exactly once whatever happens to the events.
 */
export class Link {
  #queue: Queue;
  #events: EventReader;
  #connection: Connection;
  #client: Redis;
  #channel: string;
  #report: (error: Error) => void;
  #entries = new Map<string, Entry>();
  /** Jobs being taken out of the queue, by name: no new job of that name is sent before. */
  #drops = new Map<string, { done: Promise<void>; listener: Listener }>();
  /**
   * Jobs that were taken out of the queue or stopped, by name, until their end is heard: until then events are about them, and not about a
   * new job of the name.
   */
  #stopped = new Map<string, Stop>();
  #sweeps = 0;
  /** Whether the server has refused a job since the last sweep as it is out of memory. */
  #isFull = false;
  /** Resolves with the next sweep, or when no more will come. */
  #nextSweep = Promise.withResolvers<void>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #state: "open" | "closed" = "open";
  /** Operations that must finish before the connection is closed. */
  #errands = new Errands((error) => this.#tell(error));

  private constructor(
    connection: Connection,
    queue: string,
    { lastEvent, report }: { lastEvent: string; report: (error: unknown) => void },
  ) {
    const { client } = connection;
    const common = { connection: client, prefix: PREFIX, skipVersionCheck: true };
    this.#connection = connection;
    this.#client = client;
    this.#channel = cancelChannel(queue, client);
    this.#report = tellOnce(client, report);
    this.#queue = new Queue(queueName(queue), { ...common, streams: { events: { maxLen: MOST_EVENTS } } });
    this.#events = new EventReader(queueName(queue), { ...common, lastEventId: lastEvent });
    this.#hear();
    this.#scheduleSweep();
  }

  /** Begins to listen. Nothing that happens from now on is missed, however long the connection for it takes. */
  static async open(connection: Connection, queue: string, report: (error: unknown) => void): Promise<Link> {
    let link: Link | undefined;
    const connect = async (): Promise<void> => {
      const [last] = await connection.client.xrevrange(`${PREFIX}:${queueName(queue)}:events`, "+", "-", "COUNT", 1);
      link = new Link(connection, queue, { lastEvent: last?.[0] ?? "0", report });
      await Promise.all([link.#queue.waitUntilReady(), link.#events.waitUntilReady()]);
    };
    try {
      await connection.ready(connect());
    } catch (error) {
      // Commands that wait for a server that went away must not hold this up.
      connection.end();
      await link?.close();
      throw error;
    }
    return link!;
  }

  /** Hears what the queue tells of its jobs. */
  #hear(): void {
    // Connection errors come from the client too, which reports each once.
    this.#queue.on("error", () => {});
    this.#events.on("error", (error) => this.#tell(error));
    this.#events.on("completed", ({ jobId, returnvalue }) => {
      const stop = this.#stopOf(jobId);
      // The event may come before the answer to the sending, after which a job is taken out.
      (stop ?? this.#drops.get(jobId))?.listener.returned(returnvalue);
      if (stop !== undefined || this.#comesAfterOther(jobId)) this.#askOfOther(jobId);
      else this.#end(jobId, { kind: "completed", reply: returnvalue });
    });
    this.#events.on("failed", ({ jobId, failedReason }) => {
      const stopped = this.#stopOf(jobId) !== undefined;
      if (failedReason === FORGOTTEN) return this.#notStarted(jobId);
      if (isCancelled(failedReason)) {
        return stopped ? this.#sendAgain(jobId) : this.#gone(jobId, { kind: "failed", reason: failedReason });
      }
      // The event does not say how often the job was delivered.
      if (stopped || failedReason === STALLED || this.#comesAfterOther(jobId)) this.#askOfOther(jobId);
      else this.#end(jobId, { kind: "failed", reason: failedReason });
    });
    this.#events.on("removed", ({ jobId }) => {
      const stopped = this.#stopOf(jobId) !== undefined;
      this.#gone(jobId, stopped ? undefined : { kind: "removed" });
    });
    this.#events.on("active", ({ jobId }) => {
      const entry = this.#entries.get(jobId);
      if (entry !== undefined) entry.started = true;
      this.#each(jobId, (listener) => listener.running(true));
    });
    this.#events.on("waiting", ({ jobId, prev }) => {
      const entry = this.#entries.get(jobId);
      if (prev !== "active" || entry === undefined) return;
      this.#each(jobId, (listener) => listener.running(false));
      entry.givenBack = true;
      this.#errands.begin(() => this.#againOrNot(entry));
    });
    this.#events.on("duplicated", ({ jobId }) => {
      const entry = this.#entries.get(jobId);
      // As long as it is not known which job that is.
      if (entry?.envelope !== undefined) entry.comesAfter ??= null;
      this.#askOfOther(jobId);
    });
  }

  /** The state of the whole queue, under the name that users know. */
  status(name: string): Promise<ClusterStatus> {
    return readStatus(this.#queue, { name, database: databaseOf(this.#client) });
  }

  /** Sends a job. If the queue already knows one of the same id, nothing is sent, and the listener hears how that one ends. */
  send(id: string, envelope: Envelope, listener: Listener): void {
    const entry = this.#entries.get(id);
    if (entry !== undefined) return this.#join(entry, listener);
    this.#send(this.#register(id, envelope, listener));
  }

  /**
   * The task name of a job that was sent before; undefined if the queue knows no job of this id. The server may not have taken yet what is
   * being sent here, above all while it refuses writes.
   */
  async find(id: string): Promise<string | undefined> {
    for (;;) {
      const sending = this.#entries.get(id)?.envelope;
      if (sending !== undefined) return sending.task;
      try {
        return await this.#client.hget(this.#queue.toKey(id), "name") ?? undefined;
      } catch (error) {
        if (!mayPass(error as Error) || this.#state === "closed") throw error;
        this.#tell(new Error(`Attaching to jobs waits, as the server refuses it: ${(error as Error).message}`));
        await this.#nextSweep.promise;
      }
    }
  }

  /** Listens to a job that was sent before. */
  listen(id: string, listener: Listener): void {
    const known = this.#entries.get(id);
    if (known !== undefined) return this.#join(known, listener);
    const entry = this.#register(id, undefined, listener);
    entry.sentInSweep = this.#sweeps;
    this.#ask(id);
  }

  /** Listens to a job that already has listeners, and asks whether it has started. */
  #join(entry: Entry, listener: Listener): void {
    entry.listeners.add(listener);
    this.#ask(entry.id);
  }

  /**
   * Stops listening to a job. If nobody listens any more, it is taken out of the queue, or its host is told to stop. Resolves when that is
   * done, successful or not, or when the job has ended.
   */
  async drop(id: string, listener: Listener): Promise<void> {
    const entry = this.#entries.get(id);
    if (entry === undefined || !entry.listeners.delete(listener)) return;
    if (entry.listeners.size > 0) return await entry.over.promise;
    this.#entries.delete(id);
    const done = this.#takeOut(entry, listener).finally(() => {
      if (this.#drops.get(id) === drop) this.#drops.delete(id);
    });
    const drop = { done, listener };
    this.#drops.set(id, drop);
    this.#errands.begin(() => done);
    await done.catch(() => {});
    entry.over.resolve();
  }

  /** Drops a job. A server that refuses to write still passes the message on. */
  async #takeOut(entry: Entry, listener: Listener): Promise<void> {
    const { id } = entry;
    await entry.sent;
    // It was refused, or dropped before it was sent.
    if (entry.sentInSweep === Infinity) return;
    const stop: Stop = { lastTimestamp: entry.timestamp, ended: false, listener };
    // Before asking anything: it may end at any moment, and that event makes this forget it.
    this.#stopped.set(id, stop);
    // Also if it ends between two tries: a job of its name that is sent later must not get what it has returned.
    await this.#insist(() => this.#stop(id, stop));
  }

  /** Writes into the queue. A server that refuses is asked again with each sweep, and once more at the end. */
  async #insist(write: () => Promise<unknown>): Promise<void> {
    for (;;) {
      const isLast = this.#state === "closed";
      try {
        return void await write();
      } catch (error) {
        if (isLast || !refusesWrites(error as Error)) throw error;
        this.#tell(error as Error);
        await this.#nextSweep.promise;
      }
    }
  }

  /** Takes a job out, or has it stopped. Between two tries it may have ended and another of its name been sent, which is not touched. */
  async #stop(id: string, stop: Stop): Promise<void> {
    if (stop.ended) stop.timestamp ??= stop.lastTimestamp ?? "unknown";
    const timestamp = await this.#client.hget(this.#queue.toKey(id), "timestamp");
    if (timestamp === null || timestamp !== (stop.timestamp ??= timestamp)) return;
    const message = cancelMessage(id, timestamp);
    try {
      if (await this.#queue.remove(id) === 1) return;
      if (!await this.#mark(id)) return void await removeEnded(this.#client, this.#queue, { id, timestamp });
    } catch (error) {
      await this.#client.publish(this.#channel, message);
      throw error;
    }
    // In this order: if the host dies before it hears, the next one finds that the job is no longer wanted.
    await this.#client.publish(this.#channel, message);
  }

  /** The job that was taken out or stopped, if the end of one of this name is about it. That is heard once. */
  #stopOf(id: string): Stop | undefined {
    const stop = this.#stopped.get(id);
    if (stop !== undefined) stop.ended = true;
    this.#stopped.delete(id);
    return stop;
  }

  /** Marks a job in the queue as unwanted, unless it has ended. */
  async #mark(id: string): Promise<boolean> {
    const job = await this.#queue.getJob(id);
    if (job === undefined || job.finishedOn !== undefined) return false;
    const { id: name, first } = (job.data ?? {}) as Partial<Envelope>;
    try {
      await job.updateData({ v: VERSION, task: job.name, id: name, first, cancelled: true });
    } catch (error) {
      // It has ended since, and left no record.
      if ((error as { code?: unknown }).code === ErrorCode.JobNotExist) return false;
      throw error;
    }
    return true;
  }

  /** Removes an ended job whose name is not used again, so that none but this is removed however long it takes. */
  remove(id: string): void {
    this.#errands.begin(() => this.#insist(() => this.#queue.remove(id)));
  }

  /**
   * Resolves when dropped jobs are out of the queue and the connections are closed. A server that is silent for a while is given up: what
   * waits for it fails.
   */
  async close(): Promise<void> {
    this.#state = "closed";
    clearTimeout(this.#timer);
    this.#nextSweep.resolve();
    // Not after a fixed time: there may be many thousands of jobs to take out, or the way to the server may be long.
    using _farewell = this.#connection.endWhenSilent(FAREWELL);
    await this.#errands.allDone();
    await Promise.allSettled([this.#events.close(), this.#queue.close()]);
    this.#connection.end();
  }

  #register(id: string, envelope: Envelope | undefined, listener: Listener): Entry {
    const entry: Entry = {
      id,
      envelope,
      listeners: new Set([listener]),
      over: Promise.withResolvers(),
      sent: Promise.resolve(),
      sentInSweep: Infinity,
      sendings: 0,
      pendingTime: Date.now(),
      timestamp: undefined,
      started: false,
      givenBack: false,
      stranded: false,
      missing: undefined,
      comesAfter: undefined,
    };
    this.#entries.set(id, entry);
    return entry;
  }

  #send(entry: Entry): void {
    entry.sendings++;
    entry.started = entry.stranded = false;
    entry.comesAfter = entry.missing = undefined;
    entry.sentInSweep = Infinity;
    entry.sent = this.#add(entry);
  }

  /**
   * Sends the present job of a name again, as an earlier one was stopped: the queue has taken the present one for that, unless it came
   * later, when the queue has it already.
   */
  #sendAgain(id: string): void {
    const entry = this.#entries.get(id);
    if (entry?.envelope === undefined) return;
    this.#each(id, (listener) => listener.running(false));
    this.#send(entry);
  }

  /**
   * Sends it, as long as it is wanted. A server that refuses to write is asked again with each sweep: otherwise a map would fail item after
   * item for as long as that lasts.
   */
  async #add(entry: Entry): Promise<void> {
    const { id, envelope } = entry;
    await this.#drops.get(id)?.done.catch(() => {});
    while (this.#entries.get(id) === entry) {
      entry.pendingTime = Date.now();
      try {
        if (entry.sendings > 1) await this.#client.eval(UNLIST, 2, this.#queue.toKey(id), this.#queue.toKey("wait"), id);
        const { timestamp } = await this.#queue.add(envelope!.task, envelope, {
          jobId: id,
          attempts: 1,
          removeOnComplete: KEEP.completed,
          removeOnFail: KEEP.failed,
        });
        entry.timestamp = String(timestamp);
        entry.sentInSweep = this.#sweeps;
        return;
      } catch (error) {
        if (!refusesWrites(error as Error)) return this.#end(id, { kind: "refused", error: plain(error as Error) });
        this.#isFull ||= /\bOOM\b/.test((error as Error).message);
        this.#tell(new Error(`Submissions wait, as the server refuses them: ${(error as Error).message}`));
        await this.#nextSweep.promise;
      }
    }
  }

  /** Whether the present job of a name may not be in the queue yet, so that an event may be about an earlier one. */
  #comesAfterOther(id: string): boolean {
    const entry = this.#entries.get(id);
    return entry !== undefined && (entry.comesAfter !== undefined || entry.sentInSweep === Infinity);
  }

  #each(id: string, tell: (listener: Listener) => void): void {
    for (const listener of this.#entries.get(id)?.listeners ?? []) tell(listener);
  }

  /** Finds out whether a job that came back waits for another host, or came back too often and is about to be failed. */
  async #againOrNot(entry: Entry): Promise<void> {
    const [failure, reason] = await this.#client.hmget(this.#queue.toKey(entry.id), "defa", "failedReason");
    if (failure === STALLED || reason === STALLED) entry.givenBack = false;
    else this.#redelivered(entry);
  }

  #redelivered(entry: Entry): void {
    if (!entry.givenBack || this.#entries.get(entry.id) !== entry) return;
    entry.givenBack = false;
    this.#each(entry.id, (listener) => listener.redelivered());
  }

  #end(id: string, ending: Ending): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    if (ending.kind === "completed" || (ending.kind === "failed" && ending.reason !== STALLED)) this.#redelivered(entry);
    this.#entries.delete(id);
    entry.over.resolve();
    for (const listener of entry.listeners) listener.ended(ending);
  }

  #scheduleSweep(): void {
    if (this.#state === "closed") return;
    this.#timer = setTimeout(() => this.#errands.begin(() => this.#sweep()), SWEEP_INTERVAL);
  }

  /** Asks about jobs that were sent before the last sweep and have not ended. */
  async #sweep(): Promise<void> {
    try {
      const silent = this.#entries.values().filter(({ sentInSweep }) => sentInSweep < this.#sweeps).toArray();
      this.#sweeps++;
      if (this.#isFull) {
        this.#isFull = false;
        await makeRoom(this.#client, this.#queue).catch((error) => this.#tell(error));
      }
      this.#nextSweep.resolve();
      // It may have been closed while room was made.
      if (this.#state === "open") this.#nextSweep = Promise.withResolvers();
      const waiting: Entry[] = [];
      for (let i = 0; i < silent.length && this.#state === "open"; i += SWEEP_BATCH) {
        waiting.push(...await this.#lookUp(silent.slice(i, i + SWEEP_BATCH), { sweeps: true }));
      }
      await this.#findStranded(waiting);
    } finally {
      this.#scheduleSweep();
    }
  }

  /** Reads the state of a job before the sweep comes to it. */
  #ask(id: string): void {
    const entry = this.#entries.get(id);
    if (entry !== undefined) this.#errands.begin(async () => void await this.#lookUp([entry]));
  }

  /**
   * Looks at the job that the queue already had under a name. Another producer may have cancelled it, and its host may not have stopped it
   * yet.
   */
  #askOfOther(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#errands.begin(async () => {
      await entry.sent;
      const [timestamp = null, data = null] = await this.#client.hmget(this.#queue.toKey(id), "timestamp", "data");
      if (entry.envelope !== undefined) {
        const isWanted = data !== null && !isUnwanted(data);
        entry.comesAfter = isWanted ? undefined : timestamp ?? entry.comesAfter ?? null;
        if (isWanted && timestamp !== null) entry.timestamp = timestamp;
      }
      await this.#lookUp([entry]);
    });
  }

  /**
   * Reads the state of jobs, without their arguments. A running job is locked; one that was given back still says that it was started. If a
   * job is gone, its event is about to come, unless a sweep asks.
   *
   * @returns Those that neither have ended nor run.
   */
  async #lookUp(entries: Entry[], { sweeps = false } = {}): Promise<Entry[]> {
    // Before they are read: they may end right after that.
    const time = Date.now();
    const pipeline = this.#client.pipeline();
    for (const { id } of entries) {
      const key = this.#queue.toKey(id);
      pipeline.hmget(key, "timestamp", "finishedOn", "returnvalue", "failedReason", "processedOn", "stc").exists(`${key}:lock`);
    }
    askForKept(pipeline, this.#queue);
    const answers = await execute(pipeline);
    const kept = readKept(answers.slice(2 * entries.length));
    const waiting: Entry[] = [];
    for (const [i, entry] of entries.entries()) {
      const [timestamp, finishedOn, returnvalue, failedReason, processedOn, deaths] = answers[2 * i] as (string | null)[];
      // Meanwhile it may have ended, or been sent anew.
      if (this.#entries.get(entry.id) !== entry || entry.sentInSweep === Infinity) continue;
      entry.started ||= processedOn !== null;
      // The record is that of another job by now.
      if (timestamp !== null && entry.comesAfter !== null && timestamp !== entry.comesAfter) entry.comesAfter = undefined;
      if (timestamp !== null) entry.missing = undefined;
      if (timestamp !== null && finishedOn === null) entry.pendingTime = time;
      // A host that has just come to a job without a record leaves part of one, and will report it.
      if (timestamp === null && processedOn === null) {
        if (sweeps) this.#forgotten(entry, kept);
      } else if (finishedOn !== null && typeof timestamp === "string" && timestamp === entry.comesAfter) {
        this.#errands.begin(() => this.#replace(entry, timestamp));
      } else if (finishedOn !== null && timestamp !== null && timestamp !== entry.timestamp && entry.envelope !== undefined) {
        // That it had an earlier one was not heard yet: whether that was wanted is in the data.
        this.#askOfOther(entry.id);
      } else if (finishedOn !== null && failedReason) {
        this.#end(entry.id, { kind: "failed", reason: failedReason, deaths: Number(deaths) });
      } else if (finishedOn !== null) this.#end(entry.id, { kind: "completed", reply: parse(returnvalue!) });
      else {
        const runs = answers[2 * i + 1] === 1;
        this.#each(entry.id, (listener) => listener.running(runs));
        if (!runs) waiting.push(entry);
      }
    }
    return waiting;
  }

  /** Takes the record of an earlier, unwanted job of its name out, which has ended by itself, and sends the present one. */
  async #replace({ id }: Entry, timestamp: string): Promise<void> {
    // Another producer may have done the same by now.
    if (await removeEnded(this.#client, this.#queue, { id, timestamp })) this.#sendAgain(id);
    else this.#ask(id);
  }

  /**
   * Ends jobs that are in no list any more, so that no host will find them. Lists may be long: they are only read if the first job, which
   * mostly is the oldest, is in none for the second time. In a busy queue it has often left its list, or ended, since it was looked up.
   */
  async #findStranded(waiting: Entry[]): Promise<void> {
    const [first] = waiting;
    if (first === undefined || this.#state === "closed") return;
    const keys = [...LISTS, ...SORTED].map((name) => this.#queue.toKey(name));
    const isOut = await this.#client.eval(IS_LISTED, keys.length, ...keys, first.id) !== 1;
    let unlisted = new Set<unknown>(isOut ? [first.id] : []);
    // Jobs are lost together: if none of a batch is, later ones are not looked for.
    let looks = isOut && first.stranded;
    for (let i = 0; i < waiting.length && this.#state === "open"; i += STRANDED_BATCH) {
      const batch = waiting.slice(i, i + STRANDED_BATCH);
      if (looks) {
        const ids = JSON.stringify(batch.map(({ id }) => id));
        unlisted = new Set(await this.#client.eval(UNLISTED, keys.length, ...keys, ids) as unknown[]);
        looks = unlisted.size > 0;
      }
      for (const entry of batch) this.#strand(entry, unlisted.has(entry.id));
    }
  }

  /** Ends a job that neither runs nor waits. It must be seen twice: it may have left its list a moment ago. */
  #strand(entry: Entry, stranded: boolean): void {
    if (this.#entries.get(entry.id) !== entry) return;
    if (stranded && entry.stranded) {
      this.#end(entry.id, LIST_LOST);
      // Only tried once: its name may be used again.
      this.#errands.begin(async () => void await this.#queue.remove(entry.id));
    }
    entry.stranded = stranded;
  }

  /** A host has found that the server evicted the job's record. If it had gone earlier, the job may have run before. */
  #notStarted(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.missing?.why !== undefined) return;
    entry.started = false;
    this.#each(id, (listener) => listener.running(false));
    this.#gone(id, { kind: "failed", reason: FORGOTTEN });
  }

  /**
   * A job was taken out of the queue. As events come late, it may be an earlier one of its name: certainly if no ending is given for the
   * present one.
   */
  #gone(id: string, ending: Ending | undefined): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#errands.begin(async () => {
      const { sent } = entry;
      await sent;
      if (await this.#client.exists(this.#queue.toKey(id)) === 1) await this.#lookUp([entry]);
      // Meanwhile it may have ended, or been sent anew.
      else if (this.#entries.get(id) !== entry || entry.sent !== sent) return;
      else if (entry.comesAfter !== undefined) this.#sendAgain(id);
      // Why the present one is gone is for its own events, or a sweep.
      else if (ending === undefined) return;
      else if (ending.kind === "failed" && ending.reason === FORGOTTEN) this.#forgotten(entry, [], MISSED_SWEEPS);
      // Another producer may have found that first, and taken it out.
      else this.#end(id, entry.stranded ? LIST_LOST : ending);
    });
  }

  /**
   * Redis has lost a job, such as one that was not written to disk in time: whoever has it sends it again. But a job that may have run is
   * not run twice because of that: neither one that was started, nor one that may have ended and whose record had to make room for others.
   */
  #forgotten(entry: Entry, kept: Kept[], sweeps = 1): void {
    const { id, envelope, started, sendings, pendingTime, comesAfter } = entry;
    // If a job of this name was started, it was the earlier one.
    if (typeof comesAfter === "string") return this.#sendAgain(id);
    // What was found once holds: there may be fewer records later, or more.
    const missing = entry.missing ??= { why: whyTrimmed(kept, pendingTime), sweeps: 0 };
    if (started) missing.why ??= "the server has lost it after it was started, and it is not run again";
    else if (envelope === undefined || sendings >= MOST_SENDINGS) missing.why ??= `the server knows no ${show(id)} any more`;
    missing.sweeps += sweeps;
    if (missing.sweeps < MISSED_SWEEPS) return;
    if (missing.why === undefined) this.#send(entry);
    else this.#end(id, { kind: "lost", why: missing.why });
  }

  #tell(error: Error): void {
    if (this.#state === "open" && !/ECONNREFUSED|ECONNRESET|Connection is closed/.test(error.message)) this.#report(error);
  }
}

/** The lists of jobs that have not ended. */
const LISTS = ["wait", "active", "paused"] as const;
/** The sorted sets of such jobs, into which only other programs put them. */
const SORTED = ["delayed", "prioritized", "waiting-children"] as const;

/**
 * How many names a script reads at a time. More, and it needs memory for them that the server does not give back; fewer, and it takes
 * longer.
 */
const SCRIPT_BATCH = 1000;

/**
 * Whether a job is in one of these, and which of some jobs are in none: looked up together, as jobs go from one to another. By scripts, as a
 * server whose memory is full refuses transactions, whatever is in them. They return no lists: for a million names, the server would be held
 * up three times as long.
 */
const IS_LISTED = `for i, key in ipairs(KEYS) do
  local found
  if i <= ${LISTS.length} then found = redis.call("LPOS", key, ARGV[1], "RANK", -1) else found = redis.call("ZSCORE", key, ARGV[1]) end
  if found then return 1 end
end`;
const UNLISTED = `local isOut = {}
for _, id in ipairs(cjson.decode(ARGV[1])) do isOut[id] = true end
for i, key in ipairs(KEYS) do
  local start = 0
  repeat
    local names = redis.call(i <= ${LISTS.length} and "LRANGE" or "ZRANGE", key, start, start + ${SCRIPT_BATCH - 1})
    for _, name in ipairs(names) do isOut[name] = nil end
    start = start + #names
  until #names < ${SCRIPT_BATCH}
end
local out = {}
for id in pairs(isOut) do out[#out + 1] = id end
return out`;

/** A job whose record is gone may still have its name in the list: sent again, it would be run for each time that its name stands there. */
const UNLIST = `if redis.call("EXISTS", KEYS[1]) == 0 then return redis.call("LREM", KEYS[2], 0, ARGV[1]) end`;

const LIST_LOST: Ending = { kind: "lost", why: "the server has lost the list in which it waited" };

/** Sends commands together, and returns the answers; throws if one of them fails. */
async function execute(commands: ChainableCommander): Promise<unknown[]> {
  return (await commands.exec() ?? []).map(([error, answer]) => {
    if (error instanceof Error) throw error;
    return answer;
  });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
