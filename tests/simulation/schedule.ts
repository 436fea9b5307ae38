import { PoolBrokenError, PoolClosedError, ProcessPool, type ProcessPoolOptions } from "../../mod.ts";
import { internalsOf } from "../../pool.ts";
import { ENVIRONMENT, type Environment } from "../../pool/options.ts";
import { JobTicket } from "../../pool/ticket.ts";
import { Abort } from "./aborts.ts";
import { double, LIMITS, SimulatedJob, type Stage } from "./jobs.ts";
import { SimulatedMap } from "./maps.ts";
import { SimulatedObserver } from "./observers.ts";
import { Random } from "./random.ts";
import { SimulatedRun } from "./runs.ts";
import { SimulatedWorld, TERMINATED } from "./simulated_world.ts";
import { check, Violation } from "./violation.ts";

const MODULE = "file:///tasks.ts";
const EXPORTS = [{ module: 0, name: "double", functionName: "double", text: Function.prototype.toString.call(double) }];

/**
 * No schedule of this size needs more steps, not even one that looks every ms for a job in a hanging worker, or for results while a worker
 * hangs as it starts.
 */
const MOST_STEPS = 600_000;

/** How long a pool that ends waits for the workers it has stopped, in ms. */
const GONE_WITHIN = 1000;

/** After this many ms a worker that holds more than it runs counts as held up. */
const A_WHILE = 3;

/** If this many turns of the microtask queue have no effect, no more will: longer than any chain of promises in the pool. */
const QUIET_TURNS = 8;

/** The other sources of chance have seeds from here on. */
const OTHER_SEEDS = 2 ** 30, MORE_SEEDS = 2 ** 31, LOADING_SEEDS = 3 * 2 ** 30, RUN_SEEDS = 2 ** 29;

/** Resolves after the microtasks. */
declare const setImmediate: (callback: (value: unknown) => void) => unknown;

/** One pool from start to end, everything that is done to it, and the invariants. */
export class Schedule implements Stage {
  readonly world: SimulatedWorld;
  readonly chance: Random;
  readonly whim: Random;
  readonly pool: ProcessPool;
  observing = false;
  readonly end = { asked: false, cancelPending: false, terminated: false };
  #options: ProcessPoolOptions & { maxWorkers: number; queueSize: number; jobsPerWorker: number };
  readonly jobTimeout: number;
  readonly retries: number;
  #jobs: SimulatedJob[] = [];
  #runs: SimulatedRun[] = [];
  /** Decides which jobs are run without a future. */
  #runChance: Random;
  #runRate: number;
  #maps: SimulatedMap[] = [];
  #observer: SimulatedObserver | undefined;
  #aborts: Abort[] = [];
  #warmUps: { settled: boolean }[] = [];
  #ends: { settled: boolean }[] = [];
  #reported = new Map<unknown, number>();
  #steps = 0;
  #actions: number;
  /** How much likelier it is that something is done to the pool than that the world moves on. */
  #haste: number;
  #violation: Violation | undefined;

  constructor(seed: number, trace?: (line: string) => void) {
    this.world = new SimulatedWorld(seed, { exports: EXPORTS, trace });
    this.chance = new Random(seed + OTHER_SEEDS);
    this.whim = new Random(seed + MORE_SEEDS);
    this.#runChance = new Random(seed + RUN_SEEDS);
    this.#runRate = this.#runChance.chance(0.2) ? 0.5 : 0;
    const { random } = this.world;
    this.#actions = random.between(4, 17);
    this.#haste = random.pick([0.2, 0.4, 0.6]);
    const onlyAnnounced = random.chance(0.2);
    this.#options = {
      maxWorkers: random.between(1, 4),
      queueSize: random.between(1, 6),
      jobsPerWorker: random.pick([1, 1, 2, 3]),
      maxJobsPerWorker: random.pick([Infinity, Infinity, 1, 2, 3]),
      idleTimeout: random.pick([Infinity, 0, 5, 100]),
      initializer: random.chance(0.3) ? double : undefined,
      finalizer: random.chance(0.3) ? { module: MODULE, name: "double" } : undefined,
      // The pool knows exported tasks either from the start or once a worker has announced them.
      modules: [onlyAnnounced ? MODULE : { url: MODULE, exports: { double } }],
      permissions: onlyAnnounced ? "none" : undefined,
      backend: onlyAnnounced ? "worker" : random.pick([undefined, "worker", "killable"] as const),
      startTimeout: random.pick([undefined, 5, 1000]),
      jobTimeout: random.chance(0.4) ? random.pick(LIMITS) : undefined,
      retries: random.chance(0.4) ? random.below(3) : undefined,
      onError: (error) => {
        this.#reported.set(error, (this.#reported.get(error) ?? 0) + 1);
        if (error instanceof Violation) this.fail(error);
        else if (this.world.random.chance(0.2)) this.meddle();
      },
    };
    // No limit for any: some would wait for long, and be checked every ms.
    if (this.world.tiny) Object.assign(this.#options, { queueSize: random.between(1, 200), jobsPerWorker: 1, jobTimeout: undefined });
    this.jobTimeout = this.#options.jobTimeout ?? Infinity;
    this.retries = this.#options.retries ?? 0;
    this.world.note(() => `a pool with ${JSON.stringify(this.#options)}`);
    for (let i = random.below(3); i > 0; i--) this.#aborts.push(new Abort(this.world, i));
    const { load, clock } = this.world;
    if (this.chance.chance(0.3)) this.#observer = new SimulatedObserver(this);
    const openSlot = new Random(seed + LOADING_SEEDS).chance(0.3) ? undefined : this.world.openSlot;
    const observers = this.#observer === undefined ? [] : [this.#observer];
    this.pool = new ProcessPool(
      { ...this.#options, observers, [ENVIRONMENT]: { openSlot, load, clock } } as ProcessPoolOptions & { [ENVIRONMENT]: Environment },
    );
  }

  /** Runs it to its end; throws the {@linkcode Violation} of the first invariant that does not hold. */
  async run(): Promise<void> {
    await this.#someActions();
    await this.#toRest();
    // Otherwise it is told to end while there is work that only its time limit ends.
    if (!this.world.hangs || this.world.random.chance(0.7)) {
      if (this.world.hangs) await this.#toRest({ timers: true });
      this.#checkAtRest();
      if (this.world.random.chance(0.5)) await this.#toRest({ timers: true });
    }
    if (!this.end.asked) await this.#step(() => this.#shutdown());
    await this.#toRest({ timers: true });
    await this.#checkAtEnd();
  }

  // Steps

  async #someActions(): Promise<void> {
    const { random } = this.world;
    while (this.#actions > 0) {
      if (random.chance(this.#haste)) {
        this.#actions--;
        await this.#step(() => this.#act());
      } else {
        const went = await this.#step(() => this.world.step({ hastyTimers: true }));
        if (!went) this.#actions--;
      }
    }
  }

  /** Lets the world move on until it does nothing more by itself. */
  async #toRest({ timers = false } = {}): Promise<void> {
    for (;;) {
      if (await this.#step(() => this.world.step({ hastyTimers: timers }))) continue;
      if (await this.#aWhile()) continue;
      this.#checkBalance();
      if (await this.#step(() => this.world.release())) continue;
      if (!timers || !await this.#step(() => this.world.fireTimer())) return;
    }
  }

  /** Lets some time pass while work goes on; returns true as soon as the world moves. */
  async #aWhile(): Promise<boolean> {
    const until = this.world.clock.now() + A_WHILE;
    while (await this.#step(() => this.world.fireSoonTimer(until))) if (this.world.canStep) return true;
    return false;
  }

  /** Waits until everything that runs has run for a while. */
  #checkBalance(): void {
    const { queue, slots: workers } = internalsOf(this.pool);
    const slots = [...workers];
    // What is queued then is for that one, and comes first.
    if (queue.size > 0 && slots.some(({ state }) => state === "starting")) return;
    const uneven = slots.some(({ isFree }) => isFree) && slots.some(({ hasSurplus }) => hasSurplus);
    check(!uneven, "what was sent ahead does not wait while a worker is idle");
  }

  async #step<T>(step: () => T): Promise<T> {
    check(this.#steps++ < MOST_STEPS, "every schedule comes to rest");
    let result: T;
    try {
      result = step();
    } catch (error) {
      throw asViolation(error);
    }
    await this.#quiet();
    if (this.#violation !== undefined) throw this.#violation;
    this.#checkNow();
    return result;
  }

  /** Waits until all immediate consequences have happened. */
  async #quiet(): Promise<void> {
    const { world } = this;
    const { gate, queue } = internalsOf(this.pool);
    for (;;) {
      const { activity } = world;
      const { available, waiting } = gate;
      const { size } = queue;
      for (let i = 0; i < QUIET_TURNS; i++) await undefined;
      // Whatever was gathered is sent by then.
      if (world.tiny && size > 0) await new Promise((resolve) => setImmediate(resolve));
      if (activity === world.activity && available === gate.available && waiting === gate.waiting && size === queue.size) return;
    }
  }

  // What is done to the pool

  #act(): void {
    const chosen = this.world.random.below(100);
    if (chosen < 40) this.#submitSome();
    else if (chosen < 90) this.#meddle();
    else if (chosen < 96) this.#map();
    else this.#warmUp();
  }

  /** With tiny jobs there are many in a turn. */
  #submitSome(): void {
    const { random } = this.world;
    this.#submit();
    if (!this.world.tiny) return;
    // If all of them wait, the results of the first are taken meanwhile.
    const tries = random.pick([0, 0.5]);
    for (let i = random.pick([0, 3, 30, 100, 200]); i > 0; i--) {
      if (random.chance(tries)) this.#newJob().trySubmit();
      else this.#submit();
    }
  }

  #submit(): void {
    if (!this.#runChance.chance(this.#runRate)) return this.#newJob().submit();
    const run = new SimulatedRun(this, this.#someSignal(0.3));
    this.#runs.push(run);
    run.start();
  }

  meddle(): void {
    try {
      this.#meddle();
    } catch (error) {
      // To the pool this is just a callback that throws.
      this.fail(error);
    }
  }

  fail(error: unknown): void {
    this.#violation ??= asViolation(error);
  }

  #meddle(): void {
    const { random } = this.world;
    const chosen = random.below(50);
    if (chosen < 12) this.#newJob().trySubmit();
    else if (chosen < 22) this.#someJob()?.cancel(random.chance(0.4));
    else if (chosen < 32) this.#someJob()?.addDoneCallback();
    else if (chosen < 39) this.#abort();
    else if (chosen < 46) this.#map();
    else if (chosen < 48) this.#warmUp();
    else this.#shutdown();
  }

  #someJob(): SimulatedJob | undefined {
    const { random } = this.world;
    const alsoSettled = random.chance(0.2);
    const jobs = this.#jobs.filter(({ future, settled }) => future !== undefined && (alsoSettled || !settled));
    return jobs.length === 0 ? undefined : random.pick(jobs);
  }

  #newJob(): SimulatedJob {
    const job = new SimulatedJob(this, this.#someSignal(0.5));
    this.#jobs.push(job);
    return job;
  }

  #someSignal(probability: number): Abort | undefined {
    const { random } = this.world;
    return this.#aborts.length > 0 && random.chance(probability) ? random.pick(this.#aborts) : undefined;
  }

  #abort(): void {
    if (this.#aborts.length > 0) this.world.random.pick(this.#aborts).abort();
  }

  #map(): void {
    const map = new SimulatedMap(this, this.#someSignal(0.3));
    this.#maps.push(map);
    map.start();
  }

  #warmUp(): void {
    this.world.note(() => "warm up");
    const warmUp = { settled: false };
    this.#warmUps.push(warmUp);
    this.pool.warmUp().then(() => {}, (error) => {
      const known = error instanceof PoolBrokenError || (this.end.asked && error instanceof PoolClosedError);
      if (!known) this.fail(new Violation("warmUp() is refused for a reason", error));
    }).then(() => {
      this.world.activity++;
      warmUp.settled = true;
    });
  }

  #shutdown(): void {
    const { world, pool, end } = this;
    const { random } = world;
    const record = { settled: false };
    this.#ends.push(record);
    end.asked = true;
    let ended: Promise<void>;
    const chosen = random.below(4);
    if (chosen === 0) {
      world.note(() => "terminate");
      world.mayEnd = end.terminated = true;
      ended = pool.terminate(TERMINATED);
    } else {
      const cancelPending = chosen === 1;
      const timeout = chosen === 2 ? random.pick([0, 3, 20]) : undefined;
      world.note(() =>
        `shut down${cancelPending ? ", cancelling what is pending" : ""}${timeout === undefined ? "" : `, within ${timeout} ms`}`
      );
      end.cancelPending ||= cancelPending;
      // From now on that may happen.
      end.terminated ||= timeout !== undefined;
      world.mayEnd = end.terminated;
      ended = pool.shutdown({ cancelPending, timeout });
    }
    ended.then(() => {
      world.note(() => "the pool has ended");
      world.activity++;
      record.settled = true;
      this.#checkEnded();
    }).catch((error) => {
      this.fail(error instanceof Violation ? error : new Violation("shutdown never rejects", error, { cause: error }));
    });
  }

  // Invariants

  #checkNow(): void {
    this.world.checkNow();
    const { gate, queue, slots, pausing } = internalsOf(this.pool);
    const { maxWorkers, queueSize, jobsPerWorker } = this.#options;
    let unsettled = 0;
    let held = 0;
    // Those that wait at the gate are not admitted.
    let waitingJobs = 0;
    let firstWaiting: SimulatedJob | undefined;
    const futures = new Map(this.#jobs.map(({ future }) => [future?.id, future]));
    for (const job of this.#jobs) {
      job.checkNow();
      if (job.waits) {
        waitingJobs++;
        firstWaiting ??= job;
      } else {
        check(
          firstWaiting === undefined || !job.justAdmitted,
          "submissions pass the gate in order",
          () => `${job.name} before ${firstWaiting!.name}`,
        );
      }
      job.justAdmitted = false;
      if (job.future !== undefined && !job.settled) unsettled++;
      if (job.holds) held++;
    }
    for (const run of this.#runs) run.checkNow();

    // A worker full of tiny calls gets the next ones too.
    const isLeftToOne = [...slots].some((slot) => slot.appetite === 0);
    let inSlots = 0;
    let starting = 0;
    let roomy = 0;
    check(slots.size <= maxWorkers, "there are no more workers than 'maxWorkers'", () => slots.size);
    const isComplete = slots.size === maxWorkers && ![...slots].some(({ state }) => state === "starting");
    for (const slot of slots) {
      if (slot.state === "starting") starting++;
      check(slot.state !== "ended", "a worker that has ended has left");
      check(slot.load <= jobsPerWorker + this.world.mostAhead(slot.id), "no worker holds more than it can run soon", () => slot.load);
      for (const ticket of slot.tickets()) {
        inSlots++;
        check(!ticket.settled, "no slot holds a settled job", () => `job ${ticket.id}`);
        check(ticket.slot === slot && !ticket.queued, "a job is in one place", () => `job ${ticket.id}`);
        if (ticket instanceof JobTicket) {
          check(futures.get(ticket.id)?.done() !== true, "no slot holds a settled job", () => `job ${ticket.id}`);
        }
      }
      // A job that a worker has died of waits for an idle worker, if one may come.
      const isSafe = slot.isFree && (slot.load === 0 || isComplete);
      const mayTake = queue.first !== undefined && (queue.first.unread > 0 ? isSafe : slot.hasRoom);
      if (!mayTake || isLeftToOne) continue;
      check(slot.load > 0, "nothing waits when something could run", () => `${queue.size} queued, worker ${slot.id} is idle`);
      roomy++;
    }
    if (queue.size > 0) {
      check(slots.size > 0 || pausing, "nothing waits when something could run", () => `${queue.size} queued, no worker`);
      // One for each worker that is about to exist.
      const reserved = starting + (pausing ? maxWorkers - slots.size : 0);
      check(
        roomy === 0 || queue.size <= reserved,
        "nothing waits when something could run",
        () => `${queue.size} queued, a worker has room`,
      );
    }

    const inUse = queueSize - gate.available;
    const admitted = queue.size + inSlots;
    check(inUse === admitted + held, "permits in use equal unsettled jobs", () => `${inUse} in use, ${admitted} unsettled, ${held} held`);
    check(gate.waiting === 0 || gate.available === 0, "nobody waits at an open gate", () => gate.waiting);
    const runs = this.#runs.filter((run) => !run.settled).length;
    if (this.#maps.length > 0) check(unsettled <= admitted, "each unsettled job is in the queue or in a slot");
    else if (this.#runs.length > 0) {
      const there = admitted + gate.waiting - waitingJobs;
      check(
        unsettled + runs === there,
        "each unsettled job is in the queue or in a slot",
        () => `${unsettled + runs} unsettled, ${there} there`,
      );
    } else {
      check(unsettled === admitted, "each unsettled job is in the queue or in a slot", () => `${unsettled} unsettled, ${admitted} there`);
      const { finished, failed, cancelled } = this.pool.stats();
      const settled = this.#jobs.filter((job) => job.settled).length;
      check(finished + failed + cancelled === settled, "a job settles exactly once", () => `${settled} have settled`);
    }
  }

  /** Called when every thread, and everything outside, has done what it had to: anything still open now hangs. */
  #checkAtRest(): void {
    const hung = this.#jobs.find((job) => job.refusal === undefined && !job.settled);
    check(hung === undefined, "nothing hangs", () => hung!.name);
    const run = this.#runs.find(({ settled }) => !settled);
    check(run === undefined, "nothing hangs", () => run!.name);
    check(this.#warmUps.every(({ settled }) => settled), "nothing hangs", () => "warmUp()");
    const map = this.#maps.find(({ end }) => end === undefined);
    check(map === undefined, "nothing hangs", () => map!.name);
  }

  /** Called as soon as the pool says that it has ended. */
  #checkEnded(): void {
    const { workers, queued, running, waiting } = this.pool.stats();
    check(workers + queued + running + waiting === 0, "after shutdown nothing is left", () => `${workers} workers, ${queued} queued`);
    const job = this.#jobs.find(({ future }) => future?.done() === false);
    check(job === undefined, "after shutdown nothing is left", () => job!.name);
    const { notGone, lastEnd, clock } = this.world;
    const waited = clock.now() - lastEnd;
    check(notGone.size === 0 || waited >= GONE_WITHIN, "shutdown waits until workers are gone", () => `${waited} ms`);
    if (this.end.terminated) return;
    const holder = this.#jobs.find(({ holds }) => holds);
    check(holder === undefined, "shutdown waits for callbacks", () => holder!.name);
  }

  async #checkAtEnd(): Promise<void> {
    const { gate, queue, slots } = internalsOf(this.pool);
    const left = queue.size + slots.size + gate.waiting + this.#options.queueSize - gate.available + this.world.clock.timers;
    check(
      left === 0,
      "after shutdown nothing is left",
      () =>
        `${queue.size} queued, ${slots.size} workers, ${gate.waiting} at the gate, ${gate.available} permits, ${this.world.clock.timers} timers`,
    );
    check(this.pool.stats().unstoppable === this.world.notGone.size, "stats() count the workers that are not gone");
    check(this.#ends.every(({ settled }) => settled), "every shutdown ends");
    check(this.#warmUps.every(({ settled }) => settled), "every warmUp() ends");
    for (const job of this.#jobs) await job.checkAtEnd(this.#reported);
    for (const run of this.#runs) run.checkAtEnd();
    for (const map of this.#maps) map.checkAtEnd();
    for (const abort of this.#aborts) abort.checkAtEnd();
    this.#observer?.checkAtEnd(this.pool);
  }
}

function asViolation(error: unknown): Violation {
  return error instanceof Violation ? error : new Violation("nothing throws into the event loop", error, { cause: error });
}

/** Runs the schedule of a seed. Returns the broken invariant, if there is one. */
export async function simulate(seed: number, trace?: (line: string) => void): Promise<Violation | undefined> {
  try {
    await new Schedule(seed, trace).run();
    return undefined;
  } catch (error) {
    if (error instanceof Violation) return error;
    throw error;
  }
}
