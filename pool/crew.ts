import { MemoryLimitError, PoolBrokenError, WorkerDiedError } from "../errors.ts";
import type { LeftBehind } from "../worker/left_behind.ts";
import type { Death, ItemsMessage } from "../worker/protocol.ts";
import type { OpenSlot, Slot, SlotEvents } from "../worker/slot.ts";
import { Balance } from "./balance.ts";
import type { Callbacks } from "./callbacks.ts";
import { showJob, textOf } from "./checks.ts";
import { afterInParts, Rounds, Timer } from "./clock.ts";
import { inspectionOf, type WorkerInspection } from "./inspection.ts";
import type { Observation, WorkerChange } from "./observation.ts";
import type { ResolvedOptions } from "./options.ts";
import { printWarning } from "./print.ts";
import { StartPause } from "./start_pause.ts";
import type { Answer, Ticket } from "./ticket.ts";
import { WarmUps } from "./warm_ups.ts";

/** What a crew reports to its pool. */
export interface CrewEvents {
  /** There may be room for a job, or one worker less. */
  changed(): void;
  /** Jobs have left their worker, having returned these values. */
  returned(tickets: Ticket[], values: unknown[]): void;
  /** A job has left its worker, with another answer. */
  answered(ticket: Ticket, answer: Answer): void;
  /** Some items of a chunk are done; the chunk goes on. */
  progressed(ticket: Ticket, items: ItemsMessage): void;
  /** Jobs that were sent to a worker ahead of time could run elsewhere, and have been taken back. `changed` follows. */
  takenBack(tickets: Ticket[]): void;
  /** A worker no longer holds these, as it has died or was stopped. Nobody was told of that yet. */
  left(behind: LeftBehind): void;
  /** A worker has died; `left` was called before with the same tickets. `changed` follows. */
  died(left: LeftBehind, death: Death): void;
  /** No worker can be started, and none is ready. `changed` follows. */
  broken(error: PoolBrokenError): void;
}

/** What a crew gets from its pool. */
export interface CrewParts {
  callbacks: Callbacks;
  events: CrewEvents;
  observation: Observation | undefined;
}

/**
 * The pool gives up after this many workers in a row have failed before one has run a job. Fewer, and a passing shortage (of memory, of
 * threads) breaks the pool; more, and a module that can never load is loaded again and again before anyone hears of it.
 */
const MOST_FAILED_STARTS = 3;

/**
 * A worker that dies before it has run a job counts as failed to start, unless it had been idle for this many ms, and for as long as any
 * warm-up that goes on, which has to start it again. Less, and workers that die of what their module left behind are started again and
 * again; more, and one event that ends idle workers, such as a server that closes their connections, breaks the pool.
 */
const BARELY_READY = 1000;

/**
 * How long the end of a pool waits, in ms, until stopped workers are really gone. Shorter, and it might resolve while a worker is still
 * ending; longer, and it seems to hang on one that nothing can stop.
 */
const GONE_WITHIN = 1000;

/**
 * How often the crew checks whether workers take up what they are sent, in ms. More often, and a thread that a busy machine is slow to run
 * might be taken for a stuck worker; less often, and jobs wait for one that is stuck.
 */
const LOOK_EVERY = 1000;

/**
 * A starting worker is about to be there if, going by how long the latest one took, it will be ready within this many ms. A job that a
 * present worker could run at once, beside others, waits for such a worker, but for no slower one: an initializer may take seconds. Less,
 * and on a busy machine jobs share a worker that could have one each; more, and they wait for nothing.
 */
const ABOUT_TO_BE = 200;

/**
 * How long to wait for an answer that is on its way, in ms. Shorter, and it may not be there yet; longer, and what is to be stopped runs
 * on.
 */
const SOON = 1;

const KEPT_BUSY: Death = { reason: "was stopped, as something that an earlier job left behind kept it busy" };
const NEVER_FREE: Death = { reason: "was stopped, as something kept it busy before its first job" };

/**
 * The workers of a pool: starts missing ones, chooses one for each job, closes those that are idle or worn, and deals with those that died.
 */
export class Crew {
  /** Workers that are starting, running or closing. */
  readonly slots: ReadonlySet<Slot>;
  readonly balance: Balance;
  #slots = new Set<Slot>();
  /** Workers that have ended or were stopped, but may still run. */
  #ending = new Set<Slot>();
  #gone: PromiseWithResolvers<void> | undefined;
  #options: ResolvedOptions;
  #parts: CrewParts;
  #nextId = 1;
  #warned = false;
  #failedStarts = 0;
  /** How long the latest worker took to start, in ms. */
  #startTime = 0;
  /** Undefined until it is loaded. */
  #openSlot: OpenSlot | undefined;
  #loading = false;
  #warmUps: WarmUps;
  /** One for all workers, which is only set again when it has fired and a worker is idle: jobs come and go far more often. */
  #idleTimer: Timer;
  #pause: StartPause;
  /** Cancels the deadline of a worker that is starting or closing. */
  #deadlines = new Map<Slot, () => void>();
  /** The timer of each worker that is to be stopped soon. */
  #condemned = new Map<Slot, Timer>();
  /** Rounds in which the crew stops workers that do not take up what they were sent. */
  #looks: Rounds;

  constructor(options: ResolvedOptions, parts: CrewParts) {
    this.#options = options;
    this.#parts = parts;
    this.slots = this.#slots;
    this.#openSlot = options.openSlot;
    this.#warmUps = new WarmUps(options.clock.now);
    this.#idleTimer = new Timer(options.clock);
    this.#pause = new StartPause(options.clock, {
      slots: this.#slots,
      mayStart: () => !options.inline && this.size < options.maxWorkers,
      over: () => parts.events.changed(),
    });
    this.#looks = new Rounds(options.clock, LOOK_EVERY, () => this.#look());
    this.balance = new Balance(options.clock, {
      slots: this.#slots,
      mayStart: () => this.#startable > 0 && !this.pausing,
      runElsewhere(tickets) {
        parts.events.takenBack(tickets);
        parts.events.changed();
      },
      startedForThese: () => this.#pause.tookBack(),
    });
  }

  get size(): number {
    return this.#slots.size;
  }

  /** How many workers hold a job. */
  get busy(): number {
    return this.#count((slot) => slot.held > 0);
  }

  /** How many jobs the workers hold. */
  get held(): number {
    let held = 0;
    for (const slot of this.#slots) held += slot.held;
    return held;
  }

  /** What each worker is doing. */
  inspect(): WorkerInspection[] {
    const timeOfDay = this.#options.clock.timeOfDay();
    return [...this.#slots].map((slot) => inspectionOf(slot, timeOfDay));
  }

  /** How many workers have ended or were stopped, but are not gone. */
  get unstoppable(): number {
    return this.#ending.size;
  }

  /** Whether missing workers are started later: after a pause, or once the code that starts them is loaded. */
  get pausing(): boolean {
    return this.#loading || (this.#pause.isOn && !this.#warmUps.isOn);
  }

  // Before there is work

  /** Has `maxWorkers` workers started; resolves when all are ready. */
  warmUp(): Promise<void> {
    if (this.#ready === this.#options.maxWorkers) return Promise.resolve();
    this.#giveOneMoreChance();
    return this.#warmUps.join();
  }

  /** Called when no more jobs will come, and no more warm-ups. */
  beginClosing(error: unknown): void {
    this.#warmUps.reject(error);
  }

  // While there is work

  /**
   * Chooses the worker for the next of this many queued jobs: the one with the least to do. A busy worker only gets more if no other is
   * about to be there for the job, or if it will be done before another would have woken up.
   */
  choose(queued: number): Slot | undefined {
    let best: Slot | undefined;
    let soonDone: Slot | undefined;
    for (const slot of this.#slots) {
      const { appetite } = slot;
      if (appetite !== undefined) {
        if (slot.load > 0) this.balance.watch();
        return appetite > 0 ? slot : undefined;
      }
      if (!slot.hasRoom) continue;
      if (best === undefined || slot.load < best.load) best = slot;
      if (slot.isSoonDone) soonDone = slot;
    }
    if (soonDone !== undefined && best!.isAsleep) {
      this.balance.watch();
      return soonDone;
    }
    if (best === undefined || best.load === 0) return best;
    // Beside others, but only once the workers are starting that may be needed later.
    if (best.isFree && (this.#startable === 0 || queued + this.#besideOthers <= this.#starting) && queued > this.#aboutToBe) return best;
    return queued > this.#starting + this.#startable ? best : undefined;
  }

  /** Lets one more worker be started, even after as many failures as there may be. */
  #giveOneMoreChance(): void {
    this.#failedStarts = Math.min(this.#failedStarts, MOST_FAILED_STARTS - 1);
  }

  /** How many more workers could be started. */
  get #startable(): number {
    return this.#failedStarts < MOST_FAILED_STARTS ? this.#options.maxWorkers - this.size : 0;
  }

  /**
   * Starts the workers that this many queued jobs need; `first` is the next job. Returns whether the present workers may have to take them
   * all the same, as one could not be started, or starts slowly.
   */
  staff(queued: number, first: Ticket | undefined): boolean {
    const { maxWorkers } = this.#options;
    if (!this.#warmUps.isOn && (queued === 0 || this.size === maxWorkers)) return false;
    const idle = this.#count((slot) => slot.hasRoom && slot.load === 0);
    const wanted = this.#warmUps.isOn ? maxWorkers - this.#ready : queued + this.#besideOthers - idle;
    if (wanted > 0 && this.size === 0) this.#giveOneMoreChance();
    let missing = wanted - this.#starting;
    if (missing > 0 && this.#openSlot === undefined) {
      this.#loadBackend();
      return false;
    }
    if (missing > 0 && !this.pausing && !this.#warmUps.isOn) this.#pause.beginIfSoonDone(queued, first);
    let failed = false;
    while (missing > 0 && this.size < maxWorkers && this.#failedStarts < MOST_FAILED_STARTS && !this.pausing) {
      if (this.#start()) missing--;
      else failed = true;
    }
    return failed || this.#isSlow;
  }

  /** Whether jobs run beside others rather than wait for a worker that starts, as {@linkcode ABOUT_TO_BE} explains. */
  get #isSlow(): boolean {
    return this.#options.jobsPerWorker > 1 && this.#startTime > ABOUT_TO_BE;
  }

  /**
   * How many jobs run beside others rather than wait for workers that start slowly. Those are started all the same, as if the jobs did
   * wait: all at once, for the jobs that come next.
   */
  get #besideOthers(): number {
    if (!this.#isSlow) return 0;
    let jobs = 0;
    for (const { load } of this.#slots) jobs += Math.max(0, load - 1);
    return jobs;
  }

  /** Whether any worker has room for a job. */
  get hasRoom(): boolean {
    return this.#slots.values().some((slot) => slot.hasRoom);
  }

  /** Whether a worker has jobs, and its recent ones were tiny. */
  get isTiny(): boolean {
    return this.#slots.values().some((slot) => slot.load > 0 && slot.isTiny);
  }

  /**
   * The worker that holds the least, if that is less than it can run at a time; undefined also if it holds something and another worker may
   * be started.
   */
  get quietest(): Slot | undefined {
    let best: Slot | undefined;
    for (const slot of this.#slots) if (slot.isFree && (best === undefined || slot.load < best.load)) best = slot;
    return best !== undefined && best.load > 0 && this.#starting + this.#startable > 0 ? undefined : best;
  }

  /** Calls {@linkcode Slot.takeReturned} of all workers, for `most` jobs together. Returns how many were reported. */
  takeReturned(most: number): number {
    let left = most;
    for (const slot of this.#slots) left -= slot.takeReturned(left);
    return most - left;
  }

  /** Takes the answers that have arrived by now. */
  drain(): void {
    for (const slot of [...this.#slots]) slot.drain();
  }

  /** Closes worn workers, or, if nothing is queued and nothing more will come, all that hold no job. */
  closeUnneeded(isLast: boolean): void {
    // A worker may be held up with jobs that it was sent ahead of time: they need another one then.
    const isOver = isLast && !this.balance.isNeeded;
    for (const slot of this.#slots) {
      if (isOver && slot.state === "starting") this.stop(slot, undefined);
      else if (slot.idleFor !== undefined && (isOver || slot.isWorn)) this.#close(slot);
    }
    this.#watchIdle();
  }

  /** Called when a worker was sent something that it should take up soon. */
  expectAnswer(): void {
    this.#looks.begin();
  }

  /** Takes back all jobs that have not started, as {@linkcode Slot.withdrawAll} does. */
  withdrawAll(): Ticket[] {
    return [...this.#slots].flatMap((slot) => slot.withdrawAll());
  }

  /** Stops a worker at once, as far as the backend can. */
  stop(slot: Slot, reason: unknown): LeftBehind {
    this.#leave(slot);
    const { left, stop } = slot.end(reason);
    this.#tellLeft(slot, left);
    stop();
    this.#tellStopped(slot, reason);
    return left;
  }

  /**
   * Stops a worker as soon as the answers that it has sent by its port have arrived. The given job leaves it at once; others that it still
   * runs then end as with any death.
   */
  condemn(slot: Slot, ticket: Ticket, death: Death, reason: unknown): void {
    slot.condemn(ticket);
    if (this.#condemned.has(slot)) return;
    const timer = new Timer(this.#options.clock);
    this.#condemned.set(slot, timer);
    const stopSoon = (): void => {
      if (slot.isAnswering()) return timer.set(SOON, stopSoon);
      this.#condemned.delete(slot);
      if (!slot.reprieve()) this.#parts.events.died(this.stop(slot, reason), death);
      this.#parts.events.changed();
    };
    timer.set(SOON, stopSoon);
  }

  /**
   * Sends a worker nothing for a moment, so that it can answer what it was sent before: it is not stopped while answers are on their way.
   */
  letAnswer(slot: Slot): void {
    slot.pause();
    this.#options.clock.after(SOON, () => {
      slot.resume();
      this.#parts.events.changed();
    });
  }

  /** Stops all workers at once, as far as the backend can, and has settled what they held. */
  stopAll(reason: unknown, settle: (left: LeftBehind) => void): void {
    const slots = [...this.#slots];
    const ends = slots.map((slot) => {
      this.#leave(slot);
      return slot.end(reason);
    });
    this.#watchIdle();
    for (const { stop } of ends) stop();
    settle({ started: ends.flatMap(({ left }) => left.started), unstarted: ends.flatMap(({ left }) => left.unstarted) });
    for (const slot of slots) this.#tellStopped(slot, reason);
  }

  /** Resolves when all ended workers are gone, or after {@linkcode GONE_WITHIN} if one cannot be stopped. */
  async allGone(): Promise<void> {
    if (this.#ending.size === 0) return;
    this.#gone ??= Promise.withResolvers();
    const { promise, resolve } = this.#gone;
    const stopTimer = this.#options.clock.after(GONE_WITHIN, resolve);
    await promise;
    stopTimer();
  }

  /** The jobs that the workers hold. */
  *tickets(): Generator<Ticket> {
    for (const slot of this.#slots) yield* slot.tickets();
  }

  /** The error for a worker's death: for the job that it held, or, if it held none, for `onError`. */
  diedError(
    death: Death,
    job?: { id: string | number; name: string; attempts: number; unread?: number },
  ): WorkerDiedError | MemoryLimitError {
    const { reason, exitCode, memoryLimit, thrown } = death;
    const cause = thrown && this.#options.tasks.decode(thrown);
    const { name: taskName, attempts, unread = 0 } = job ?? {};
    const message = job === undefined
      ? `An idle worker ${reason}`
      : unread > 1
      ? `Cannot start ${showJob(job.id, job.name)} as each of the ${unread} workers that read its message ${reason}`
      : `Cannot finish ${showJob(job.id, job.name)} as its worker ${reason}`;
    const details = { jobId: job?.id, taskName, attempts, cause };
    if (memoryLimit !== undefined) return new MemoryLimitError(message, { ...details, limit: memoryLimit });
    return new WorkerDiedError(message, { ...details, exitCode });
  }

  get #ready(): number {
    return this.#count((slot) => slot.state === "ready");
  }

  get #starting(): number {
    return this.#count((slot) => slot.state === "starting");
  }

  /** How many workers are about to be there, as {@linkcode ABOUT_TO_BE} explains; one that takes longer than the latest is not. */
  get #aboutToBe(): number {
    return this.#count((slot) => slot.state === "starting" && Math.abs(this.#startTime - slot.unchangedFor) < ABOUT_TO_BE);
  }

  #count(condition: (slot: Slot) => boolean): number {
    let count = 0;
    for (const slot of this.#slots) if (condition(slot)) count++;
    return count;
  }

  /** Loads the code that starts workers, and then has them started. */
  #loadBackend(): void {
    while (!this.#loading && this.#failedStarts < MOST_FAILED_STARTS) {
      try {
        const loaded = this.#options.load();
        this.#loading = true;
        loaded.then(
          (openSlot) => this.#openSlot = openSlot,
          (error) => this.#startFailed({ reason: "could not be loaded", thrown: { raw: error } }),
        ).finally(() => {
          this.#loading = false;
          this.#parts.events.changed();
        });
      } catch (error) {
        this.#startFailed({ reason: "could not be created", thrown: { raw: error } });
      }
    }
  }

  /** Starts a worker; false if the backend refuses at once. */
  #start(): boolean {
    const { jobsPerWorker, maxJobsPerWorker, clock } = this.#options;
    try {
      const slot = this.#openSlot!({
        id: this.#nextId++,
        events: this.#slotEvents,
        capacity: jobsPerWorker,
        maxJobs: maxJobsPerWorker,
        now: clock.now,
        observation: this.#parts.observation,
      });
      this.#slots.add(slot);
      this.#pause.started();
      this.#tell(slot, "starting");
      this.#setDeadline(slot, () => {
        this.stop(slot, undefined);
        this.#startFailed({ reason: `was not ready within ${this.#options.startTimeout} ms ('startTimeout')` });
      });
      return true;
    } catch (error) {
      this.#startFailed({ reason: "could not be created", thrown: { raw: error } });
      return false;
    }
  }

  #slotEvents: SlotEvents = {
    loaded: (slot, exports) => {
      this.#options.tasks.announce(exports);
      this.#prepare(slot);
    },
    initialized: (slot) => this.#makeReady(slot),
    failedToStart: (slot, death) => {
      this.#leave(slot);
      this.#tell(slot, "failed to start", death.reason);
      this.#startFailed(death);
      this.#parts.events.changed();
    },
    returned: (tickets, values) => {
      this.#failedStarts = 0;
      this.#parts.events.returned(tickets, values);
    },
    answered: (ticket, answer) => {
      this.#failedStarts = 0;
      this.#parts.events.answered(ticket, answer);
    },
    progressed: (ticket, items) => this.#parts.events.progressed(ticket, items),
    changed: () => this.#parts.events.changed(),
    closed: (slot, thrown) => {
      this.#leave(slot);
      this.#tell(slot, "closed");
      if (thrown !== undefined) this.#parts.callbacks.report(this.#options.tasks.decode(thrown));
      this.#parts.events.changed();
    },
    died: (slot, death, left) => {
      // First, as the count decides what becomes of the suspect.
      if (typeof left.suspect === "object") left.suspect.unread++;
      this.#leave(slot);
      this.#tellLeft(slot, left);
      this.#tell(slot, "died", death.reason);
      this.#reportDeath(slot, death, left);
    },
    stuck: () => this.#warnOfStuck(),
    gone: (slot) => {
      this.#ending.delete(slot);
      if (this.#ending.size > 0) return;
      this.#gone?.resolve();
      this.#gone = undefined;
    },
  };

  #tellLeft(slot: Slot, left: LeftBehind): void {
    // A worker that has started a job did not fail to start, however it ended.
    if (left.started.length > 0 || slot.isCondemned) this.#failedStarts = 0;
    this.#parts.events.left(left);
  }

  #reportDeath(slot: Slot, death: Death, left: LeftBehind): void {
    const { started, suspect } = left;
    // A job that has left a condemned worker may have ended it before it was stopped.
    const isIdle = started.length === 0 && !slot.isCondemned;
    // First, since `onError` may look at what the worker held.
    this.#parts.events.died(left, death);
    // A worker that died while reading a message may have read that of a job that has been cancelled since.
    if (isIdle && !death.unread) {
      this.#parts.callbacks.report(this.diedError(death));
      // Something that its module left behind may have ended it before its first job; the next worker would fare no better. With a suspect,
      // that is given up before the pool is, unless it was taken back already.
      const isTooSoon = slot.idleBeforeEnd < Math.max(BARELY_READY, this.#warmUps.time);
      if (isTooSoon && !slot.hasDoneJob && !slot.wasToldToClose && suspect === undefined) this.#startFailed(death);
    }
    this.#parts.events.changed();
  }

  /**
   * Stops workers that have not taken up what they were sent although they run nothing; their jobs go elsewhere. Returns whether more answers
   * are expected.
   */
  #look(): boolean {
    this.#parts.events.changed();
    for (const slot of [...this.#slots].filter((slot) => slot.isKeptBusy())) {
      // Someone who was told of an earlier one may have ended the pool.
      if (!this.#slots.has(slot)) continue;
      const left = this.stop(slot, undefined);
      for (const ticket of left.unstarted) ticket.neglected++;
      this.#reportDeath(slot, slot.hasDoneJob ? KEPT_BUSY : NEVER_FREE, left);
    }
    return this.#count(({ load, state }) => load > 0 || state === "closing") > 0;
  }

  /** Calls `late` if a worker takes too long to start or to close. */
  #setDeadline(slot: Slot, late: () => void): void {
    const { startTimeout, clock } = this.#options;
    if (startTimeout === Infinity) return;
    const stop = afterInParts(clock, startTimeout, () => {
      late();
      this.#parts.events.changed();
    });
    // Under `deno test`, setting a program's first timer runs microtasks, which may have changed anything.
    if (this.#slots.has(slot) && slot.state !== "ready") this.#deadlines.set(slot, stop);
    else stop();
  }

  #clearDeadline(slot: Slot): void {
    this.#deadlines.get(slot)?.();
    this.#deadlines.delete(slot);
  }

  #warnOfStuck(): void {
    if (this.#warned) return;
    this.#warned = true;
    printWarning(
      "process-pool: a worker was stopped and runs on, as Deno cannot stop a Web Worker that is busy. It burns a core and keeps the program " +
        `from ending. A pool with backend: "killable" can stop it; 'stats().unstoppable' counts such workers.`,
    );
  }

  /** Called when a worker has loaded its modules. */
  #prepare(slot: Slot): void {
    if (slot.state !== "starting") return;
    const { tasks, initializer, initArgs, finalizer } = this.#options;
    try {
      const first = initializer && tasks.resolve(initializer);
      const last = finalizer && tasks.resolve(finalizer);
      if ((initializer && !first) || (finalizer && !last)) tasks.learn().then(() => this.#prepare(slot));
      else if (first === undefined) this.#makeReady(slot);
      else slot.initialize(first, initArgs);
    } catch (error) {
      this.stop(slot, error);
      this.#startFailed({ reason: "has an initializer or a finalizer that cannot be sent", thrown: { raw: error } });
      this.#parts.events.changed();
    }
  }

  #makeReady(slot: Slot): void {
    this.#clearDeadline(slot);
    this.#startTime = slot.unchangedFor;
    slot.makeReady();
    this.#pause.ready();
    this.#tell(slot, "ready");
    if (this.#ready === this.#options.maxWorkers) this.#warmUps.resolve();
    this.#parts.events.changed();
  }

  #startFailed({ reason, thrown }: Death): void {
    if (++this.#failedStarts < MOST_FAILED_STARTS) return;
    const message = `Cannot start the workers of the pool, ${this.#failedStarts} times in a row: the last one ${reason}`;
    const error = new PoolBrokenError(message, {
      attempts: this.#failedStarts,
      cause: thrown && this.#options.tasks.decode(thrown),
    });
    this.#warmUps.reject(error);
    if (this.#ready > 0) return;
    // First, since observers are told that workers are stopped, and may ask for others.
    this.#parts.events.broken(error);
    for (const slot of this.#slots) if (slot.state === "starting") this.stop(slot, error);
  }

  #close(slot: Slot): void {
    const { finalizer, startTimeout } = this.#options;
    slot.close(finalizer && this.#options.tasks.resolve(finalizer));
    this.#looks.begin();
    if (finalizer === undefined) return;
    this.#setDeadline(slot, () => {
      this.stop(slot, undefined);
      const reason = `was stopped, as its finalizer did not finish within ${startTimeout} ms ('startTimeout')`;
      this.#parts.callbacks.report(this.diedError({ reason }));
    });
  }

  /** Tells observers, which may then do anything: so what the worker held must have its place before. */
  #tell(slot: Slot, change: WorkerChange, reason?: string): void {
    this.#parts.observation?.worker(slot.id, change, reason);
  }

  #tellStopped(slot: Slot, reason: unknown): void {
    this.#tell(slot, "stopped", reason === undefined ? undefined : textOf(reason));
  }

  #leave(slot: Slot): void {
    this.#clearDeadline(slot);
    this.#condemned.get(slot)?.stop();
    this.#condemned.delete(slot);
    this.#slots.delete(slot);
    this.#ending.add(slot);
    if (this.size > 0) return;
    this.#pause.end();
    this.#looks.end();
    this.balance.end();
  }

  /** Closes workers once they have been idle for long. */
  #watchIdle(): void {
    const { idleTimeout } = this.#options;
    if (this.size === 0) return this.#idleTimer.stop();
    if (this.#idleTimer.isSet || idleTimeout === Infinity || this.#warmUps.isOn) return;
    const longest = Math.max(...this.#slots.values().map(({ idleFor }) => idleFor ?? -1));
    if (longest < 0) return;
    // A timer may fire a little early by the clock.
    this.#idleTimer.set(Math.max(0, Math.ceil(idleTimeout - longest)), () => {
      for (const slot of this.#slots) {
        if (!this.#warmUps.isOn && (slot.idleFor ?? -1) >= idleTimeout) this.#close(slot);
      }
      this.#watchIdle();
      this.#parts.events.changed();
    });
  }
}
