import { type Job, type JobJson, type Processor, WaitingError, Worker, type WorkerOptions } from "bullmq";
import type { Redis } from "ioredis";
import { uniqueName } from "./names.ts";
import { REFUSED_PAUSE, refusesWrites } from "./server_errors.ts";

/**
 * How often within a lock's duration the worker checks for expired locks. Less, and a job that another host may already have runs on
 * longer; more only takes time.
 */
const LOOKS = 10;

/**
 * When the lock that is to be renewed next was last renewed, in ms since 1970; not when its job came, as the clock may have been set back
 * since.
 */
const LONG_AGO = 1;

/** The scripts that find, take and keep jobs. */
const DRAINING = /^(moveStalledJobsToWait|moveToActive|extendLocks):/;

/**
 * A write that changes nothing. A server whose memory is full refuses scripts of which the first write may need some: if what fills it are
 * the jobs that wait, no host could take one, and it would stay full forever.
 */
const NEEDS_NO_MEMORY = 'redis.call("DEL", KEYS[1] .. ":none")';

/** Sets how often a job has run. */
const SET_RUNS = `${NEEDS_NO_MEMORY}\nredis.call("HSET", KEYS[1], "stc", ARGV[1])`;

/** A lock that this host has, or had, on a job. */
interface Lock {
  token: string;
  /** When it certainly last existed, in ms of `performance.now()`; -Infinity if it is gone. */
  seen: number;
  /** Whether the job waits for an earlier run of itself to end. */
  waits: boolean;
}

/** What the worker needs besides BullMQ's options. */
export interface LockedWorkerOptions extends WorkerOptions {
  lockDuration: number;
  maxStalledCount: number;
  /** The lock of a job that may run here has expired: the job must end. */
  lockLost: (id: string) => void;
}

/**
 * BullMQ's worker, with what it leaves out: a job does not run on without its lock, nor beside itself; a result waits for a server that
 * refuses writes for a while; such a server is asked once in a while; and one whose memory is full still hands out what fills it.
 */
export class LockedWorker extends Worker {
  /** With this its locks begin: two hosts that draw the same random numbers must not take each other's for theirs. */
  override readonly id: string = uniqueName();
  #lockDuration: number;
  /** How often a job runs at most, if every host that runs it dies. */
  #mostRuns: number;
  #lockLost: (id: string) => void;
  /** What is done for each job, from when it came to when its outcome is delivered. */
  #underWay = new Map<string, Promise<void>>();
  /** The last lock of each job: an earlier run of it has none any more. */
  #locks = new Map<string, Lock>();
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(name: string, process: Processor, { lockLost, ...options }: LockedWorkerOptions) {
    super(name, process, options);
    this.#lockDuration = options.lockDuration;
    this.#mostRuns = options.maxStalledCount + 1;
    this.#lockLost = lockLost;
  }

  protected override createBackend(): void {
    const client = this.opts.connection as Redis;
    const define = client.defineCommand.bind(client);
    client.defineCommand = (name, { lua, ...rest }) => {
      define(name, { ...rest, lua: DRAINING.test(name) ? `${NEEDS_NO_MEMORY}\n${lua}` : lua });
    };
    super.createBackend();
  }

  /** Takes jobs until it is closed. */
  override async run(): Promise<void> {
    let time = Date.now();
    // For BullMQ a renewal that the server does not answer fails only when that answers.
    this.#timer = setInterval(() => {
      // BullMQ goes by the time of day: it would renew nothing until a clock that was set back has caught up.
      const wasSetBack = Date.now() < time;
      time = Date.now();
      for (const [id, lock] of this.#locks) {
        // The end of the earlier run ends the renewals.
        if (lock.waits || wasSetBack) this.lockManager.trackJob(id, lock.token, LONG_AGO);
        if (this.#hasLapsed(lock)) this.#lockLost(id);
      }
    }, this.#lockDuration / LOOKS);
    try {
      await super.run();
    } finally {
      clearInterval(this.#timer);
    }
  }

  /** Renews locks. That the lock of an earlier run is gone says nothing of that of a later one. */
  override async extendJobLocks(ids: string[], tokens: string[], duration: number): Promise<string[]> {
    const gone = await super.extendJobLocks(ids, tokens, duration);
    for (const [i, id] of ids.entries()) {
      const lock = this.#locks.get(id);
      if (lock === undefined || lock.token !== tokens[i]) continue;
      lock.seen = gone.includes(id) ? -Infinity : performance.now();
      if (gone.includes(id)) this.#lockLost(id);
    }
    return gone;
  }

  /**
   * A job whose lock has expired while it runs here may come here again. BullMQ knows jobs only by their names: the end of the first run
   * would end the renewals of the second's lock, so that the second begins after it, and keeps its lock until then. One that comes only to
   * be failed waits for nothing.
   */
  override async processJob(job: Job, token: string, fetchNext?: () => boolean): Promise<void | Job> {
    const id = job.id!;
    // A job that nobody wants any more is failed for that, and not as lost, so that its id is free again.
    if (job.data?.cancelled === true) job.deferredFailure = "";
    const lock: Lock = { token, seen: performance.now(), waits: false };
    this.#locks.set(id, lock);
    let earlier = this.#underWay.get(id);
    if (earlier !== undefined) this.#lockLost(id);
    while (earlier !== undefined && !job.deferredFailure) {
      lock.waits = true;
      this.lockManager.trackJob(id, token, LONG_AGO);
      await earlier;
      earlier = this.#underWay.get(id);
    }
    try {
      // The job is another host's by now, or will be soon.
      if (lock.waits && (this.#locks.get(id) !== lock || this.#hasLapsed(lock))) return;
      lock.waits = false;
      if (job.deferredFailure && !await this.#correctRuns(job)) return;
      const run = super.processJob(job, token, fetchNext);
      const delivered = Promise.allSettled([earlier, run]).then(() => {
        if (this.#underWay.get(id) === delivered) this.#underWay.delete(id);
      });
      this.#underWay.set(id, delivered);
      return await run;
    } finally {
      if (this.#locks.get(id) === lock) {
        this.#locks.delete(id);
        this.lockManager.untrackJob(id);
      }
    }
  }

  /**
   * Corrects how often a job that came only to be failed has run, according to its record: that also counts hosts that died after it came
   * to them for the same. If the server refuses, the job comes again when its lock has expired.
   */
  async #correctRuns(job: Job): Promise<boolean> {
    if (job.stalledCounter <= this.#mostRuns) return true;
    try {
      await (this.opts.connection as Redis).eval(SET_RUNS, 1, this.toKey(job.id!), this.#mostRuns);
      return true;
    } catch (error) {
      this.emit("error", error as Error);
      return false;
    }
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay.values());
  }

  /** How many jobs came here whose outcome is not delivered yet. */
  get underWay(): number {
    return this.#underWay.size;
  }

  #hasLapsed({ seen }: Lock): boolean {
    return seen <= performance.now() - this.#lockDuration;
  }

  /** A record that others wrote and that is no JSON is a job as well, so that it fails and does not come again and again. */
  protected override createJob(data: JobJson, id: string): Job {
    try {
      return super.createJob(data, id);
    } catch {
      return super.createJob({ ...data, data: JSON.stringify(data.data) }, id);
    }
  }

  protected override async moveToActive(token: string, name?: string): Promise<Job> {
    try {
      return await super.moveToActive(token, name);
    } catch (error) {
      // BullMQ tries again at once as long as something runs here.
      if (refusesWrites(error as Error) || (error as Error).name === "ReplyError") await this.delay(REFUSED_PAUSE);
      throw error;
    }
  }

  protected override handleCompleted(...args: Parameters<Worker["handleCompleted"]>): Promise<Job> {
    return this.#deliver(args[1], args[2], () => super.handleCompleted(...args));
  }

  protected override handleFailed(...args: Parameters<Worker["handleFailed"]>): Promise<Job> {
    const [error, job, token] = args;
    return error instanceof WaitingError ? super.handleFailed(...args) : this.#deliver(job, token, () => super.handleFailed(...args));
  }

  /** Delivers what came of a job, as long as it has its lock. BullMQ would fail a job with what the server said to its result. */
  async #deliver(job: Job, token: string, deliver: () => Promise<Job>): Promise<Job> {
    for (;;) {
      try {
        return await deliver();
      } catch (error) {
        // Without a lock there is nothing to deliver, and a later run may have one.
        if (!refusesWrites(error as Error) || this.#locks.get(job.id!)?.token !== token) throw error;
        this.emit("error", error as Error);
        this.lockManager.trackJob(job.id!, token, LONG_AGO);
        await this.delay(Math.min(REFUSED_PAUSE, this.#lockDuration / LOOKS));
        if (this.#locks.get(job.id!)?.token === token) this.lockManager.untrackJob(job.id!);
      }
    }
  }
}
