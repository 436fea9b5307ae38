import { type Job, type JobJson, type Processor, WaitingError, Worker, type WorkerOptions } from "bullmq";
import { refusesWrites } from "./connection.ts";

/** How long a server that refuses is left alone, in ms. Shorter, and all hosts hammer it; longer, and they stand idle when it takes writes again. */
const REFUSED_PAUSE = 1000;

/** So often within a lock's time it is looked whether locks have run out. Less, and a job runs on for longer that another host may have by then. */
const LOOKS = 10;

/** What it needs beside what BullMQ's has. */
export interface TakerOptions extends WorkerOptions {
  lockDuration: number;
  /** The lock of a job that may run here has run out: it is to end. */
  lost: (id: string) => void;
}

/**
 * BullMQ's worker, with what it leaves out: a job does not run on without its lock, nor beside itself; a result waits for a server that refuses
 * writes for a while; and such a server is asked once in a while.
 */
export class Taker extends Worker {
  #lockDuration: number;
  #lost: (id: string) => void;
  /** What is done for each job, from when it came to when its outcome is delivered. */
  #underWay = new Map<string, Promise<unknown>>();
  /** When the lock of each job was last there for certain, in ms of `performance.now()`. */
  #locked = new Map<string, number>();
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(name: string, process: Processor, { lost, ...options }: TakerOptions) {
    super(name, process, options);
    this.#lockDuration = options.lockDuration;
    this.#lost = lost;
    this.on("lockRenewalFailed", (ids: string[]) => ids.forEach(lost));
    this.on("locksRenewed", ({ jobIds }) => {
      for (const id of jobIds) if (this.#locked.has(id)) this.#locked.set(id, performance.now());
    });
  }

  /** Takes jobs until it is closed. */
  override async run(): Promise<void> {
    // A renewal that the server does not answer, or refuses, fails for BullMQ when it is answered and not before.
    this.#timer = setInterval(() => {
      const last = performance.now() - this.#lockDuration;
      for (const [id, locked] of this.#locked) if (locked <= last) this.#lost(id);
    }, this.#lockDuration / LOOKS);
    try {
      await super.run();
    } finally {
      clearInterval(this.#timer);
    }
  }

  /**
   * A job whose lock has run out while it runs here may come here again. BullMQ knows jobs by their names alone: the end of the first run would
   * end the renewals of the second's lock, so that the second begins after it.
   */
  override async processJob(job: Job, token: string, fetchNext?: () => boolean): Promise<void | Job> {
    const id = job.id!;
    const taken = performance.now();
    for (let earlier = this.#underWay.get(id); earlier !== undefined; earlier = this.#underWay.get(id)) {
      this.#lost(id);
      await Promise.allSettled([earlier]);
    }
    this.#locked.set(id, taken);
    const through = super.processJob(job, token, fetchNext).finally(() => {
      this.#underWay.delete(id);
      this.#locked.delete(id);
    });
    this.#underWay.set(id, through);
    return await through;
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
      if (refusesWrites(error as Error)) await this.delay(REFUSED_PAUSE);
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
        if (!refusesWrites(error as Error)) throw error;
        this.emit("error", error as Error);
        this.lockManager.trackJob(job.id!, token, job.processedOn!);
        await this.delay(Math.min(REFUSED_PAUSE, this.#lockDuration / LOOKS));
        this.lockManager.untrackJob(job.id!);
      }
    }
  }
}
