import { JobTimeoutError } from "../../mod.ts";
import {
  CLAIM_WORDS,
  type Death,
  FINISHED,
  type FromRuntime,
  NUMBERS,
  type RunMessage,
  SENT,
  STARTED,
  type Thread,
  type ThreadEvents,
  type Thrown,
  type ToRuntime,
} from "../../worker/protocol.ts";
import type { SimulatedWorld } from "./simulated_world.ts";
import { check } from "./violation.ts";
import { type Fate, HEAP, type Work, type WorkOutcome } from "./works.ts";

/** How likely things go wrong in the threads of one schedule. */
export interface Malice {
  startThrows: number;
  failsToLoad: number;
  failsToInitialize: number;
  /** Before it is alive. */
  diesAtStart: number;
  /** At each later step that it takes. */
  dies: number;
  /** What kills every thread that runs it. */
  deadly: number;
  /** The last messages of a thread are lost when it dies. */
  losesMessages: number;
  /** When it dies, it dies of a full heap. */
  fillsHeap: number;
  throws: number;
  /** Work takes a while, or forever. */
  lingers: number;
  answersTwice: number;
  /** A thread that was stopped continues and never ends. */
  unstoppable: number;
  finalizerThrows: number;
  /** At each step of the world, a supervisor dies and all its threads with it; threads that are started later have another one. */
  supervisorDies: number;
  /** The thread never becomes alive. */
  hangsAtStart: number;
  /** Something that a job leaves behind, or the finalizer, keeps it busy forever. */
  keptBusy: number;
}

type OnTheWay = { type: "alive" } | { type: "message"; message: FromRuntime } | { type: "died"; death: Death } | { type: "gone" };

/** A worker that has not taken up what it was sent for this long, in ms, is stopped for it. */
const KEPT_BUSY_FOR = 2000;

/** A job that the thread has claimed. */
interface RunWork {
  message: ToRuntime & { type: "run" };
  /** What it runs. */
  current: Work;
  /** How many more steps it takes; Infinity if it does not end by itself. */
  left: number;
}

interface ChunkWork {
  message: ToRuntime & { type: "chunk" };
  /** The item that it runs. */
  current: Work | undefined;
  left: number;
  /** The item that it started last. */
  last: Work | undefined;
  next: number;
  from: number;
  values: unknown[];
  thrown: [number, Thrown][];
  memory: NumberMemory | undefined;
  /** The item after the last one of which a message has arrived. */
  arrived: number;
}

/** Memory for a chunk's results as long as they are numbers. */
interface NumberMemory {
  numbers: Float64Array;
  bounds: Int32Array;
  /** Whether the next result goes there: not after one that has not been sent. */
  open: boolean;
}

/**
 * A worker without a thread: it follows the protocol as `worker/runtime.ts` does, but takes one small step whenever the world tells it to.
 * What it sends is on the way until the world delivers it; the messages of one thread stay in order.
 */
export class SimulatedThread implements Thread {
  readonly name: string;
  #world: SimulatedWorld;
  #events: ThreadEvents;
  /** `dead` has yet to report that it is gone. */
  #state: "starting" | "alive" | "dead" | "gone" = "starting";
  #stopped = false;
  /** Whether the slot was told of the death. */
  #deathReported = false;
  #unstoppable: boolean;
  #claims = new Int32Array(0);
  #capacity = 1;
  #places = 1;
  /** How long jobs take, as it reports. */
  readonly pace: number;
  #inbox: ToRuntime[] = [];
  /** The items of chunks as they were sent, which may be in memory that others could write to, by the copy that is kept of them. */
  #itemsOf = new WeakMap<ArrayLike<unknown>, ArrayLike<unknown>>();
  #outbox: OnTheWay[] = [];
  #running: (RunWork | ChunkWork)[] = [];
  /** Everything it was ever sent. */
  #sent = new Set<Work>();
  /** What was claimed here, by run, and not answered in full; the slot must account for it when the thread ends. */
  #held = new Map<number, RunWork | ChunkWork>();
  /** Whether everything it sends goes by the port. */
  #byPort: boolean;
  /** How many calls fit into shared memory. */
  #callRoom = Infinity;
  /** Whether endless work blocks everything else. */
  #busy: boolean;
  /** Whether it no longer takes or sends anything. */
  #keptBusy: boolean;
  /** When its slot last heard from it, or sent it something while it had nothing to do. */
  #silentSince = 0;
  /** An answer that is sent again, after the next message. */
  #echo: FromRuntime | undefined;

  constructor(world: SimulatedWorld, events: ThreadEvents, name: string) {
    this.#world = world;
    this.#events = events;
    this.name = name.replace("process-pool ", "");
    this.#unstoppable = world.random.chance(world.malice.unstoppable);
    this.#busy = world.random.chance(0.5);
    this.#keptBusy = world.random.chance(world.malice.hangsAtStart);
    this.#byPort = world.random.chance(0.3);
    this.pace = world.random.pick([Infinity, 0.5, 0.2, 0.001]);
    if (!world.tiny) return;
    this.#byPort = false;
    this.pace = 0.001;
    this.#callRoom = world.random.pick([2, 10, Infinity]);
  }

  // The slot's side

  post(message: ToRuntime): void {
    refuseUncloneable(message);
    this.#world.activity++;
    if (this.#inbox.length === 0) this.#silentSince = this.#world.clock.now();
    if (message.type === "chunk") {
      // By the items the simulation knows what runs; but results may take their place.
      const items = Array.from(message.items);
      this.#itemsOf.set(items, message.items);
      message = { ...message, items };
    }
    this.#inbox.push(message);
    for (const work of this.#worksOf(message)) this.#sent.add(work);
  }

  get fastPath(): this {
    return this;
  }

  reuse(): void {}

  /** What does not go by the port needs no message, unless it cannot be copied: the port finds that out. */
  call(key: number, run: number, id: string | number, args: readonly unknown[]): boolean {
    const message: RunMessage = { type: "run", run, task: { key, name: "" }, id, attempt: 1, args };
    if (this.#byPort || this.isFull || !isCloneable(message)) return false;
    this.post(message);
    return true;
  }

  ring(): void {}

  get isFull(): boolean {
    return this.#inbox.length >= this.#callRoom;
  }

  get isAwake(): boolean {
    return this.#world.random.chance(0.5);
  }

  /** Everything it sent has arrived. */
  drain(): void {
    this.#goOn();
    // By the port, nothing arrives out of turn.
    if (this.#byPort) return;
    while (this.#outbox[0]?.type === "message") this.deliver();
  }

  /** The same for results of jobs, up to anything else. */
  takeReturned(most: number): number {
    this.#goOn();
    const [next] = this.#outbox;
    if (most === 0 || this.#byPort || next?.type !== "message" || next.message.type !== "returned") return 0;
    this.deliver();
    return 1;
  }

  /** A simulated thread does not wait for its slot. */
  #goOn(): void {
    const { random } = this.#world;
    while (this.#state === "alive" && this.canStep && random.chance(0.3)) this.step();
  }

  stop(abort?: { reason: unknown }): void {
    this.#world.activity++;
    if (abort?.reason instanceof JobTimeoutError) this.#checkTimeout(abort.reason);
    else if (abort === undefined) this.#checkIdle();
    // Dropped jobs may have been answered, and the thread has moved on then.
    const jobs = [...this.#held.values()].filter((held) => !this.#isForgotten(held)).length;
    const mayLose = abort !== undefined && this.#world.isEnd(abort.reason) ? Infinity : this.#capacity;
    check(jobs <= mayLose, "a worker that is stopped takes no more jobs with it than it runs at a time", () => jobs);
    this.#stopped = true;
    this.#lose(abort !== undefined && this.#world.isEnd(abort.reason) ? "terminated" : "stopped");
    // If it lives on, what it ran ends at some time, and answers when nobody listens any more.
    for (const work of this.#running) work.left = 0;
    this.#world.lastEnd = this.#world.clock.now();
    this.#world.note(() => `${this.name} is told to stop`);
  }

  // The world's side

  /** Whether something that it sent has not arrived. */
  get hasSent(): boolean {
    return this.#outbox.length > 0;
  }

  /** Whether it will do something by itself. */
  get canStep(): boolean {
    if (this.#state === "dead") return !this.#unstoppable;
    if (this.#state === "gone") return false;
    if (this.#stopped && !this.#unstoppable) return true;
    if (this.#keptBusy) return false;
    if (this.#state === "starting") return true;
    return this.#canTake() ? !this.#busy || !this.#running.some(isEndless) : !this.#running.every(isEndless);
  }

  /** Whether nothing will ever be heard from it again. */
  get over(): boolean {
    return !this.hasSent && (this.#state === "gone" || (this.#unstoppable && !this.canStep && (this.#stopped || this.#deathReported)));
  }

  /** Whether it is gone, as far as its slot knows. */
  get goneForSlot(): boolean {
    return this.#state === "gone" && !this.hasSent;
  }

  /** The first message that it sent arrives. */
  deliver(): void {
    const sent = this.#outbox.shift()!;
    this.#silentSince = this.#world.clock.now();
    this.#world.note(() => `${this.name} -> ${sent.type === "message" ? describe(sent.message) : sent.type}`);
    switch (sent.type) {
      case "alive":
        return this.#events.alive();
      case "died":
        this.#deathReported = true;
        if (!this.#stopped) this.#world.lastEnd = this.#world.clock.now();
        this.#lose(sent.death.memoryLimit === undefined ? "died" : "full");
        if (sent.death.memoryLimit !== undefined) { for (const work of this.#sent) work.unread++; }
        return this.#events.died(sent.death);
      case "gone":
        return this.#events.gone();
      case "message":
        this.#answered(sent.message);
        if (sent.message.type !== "returned" || this.#byPort) this.#events.message(sent.message);
        else this.#deliverReturned(sent.message);
        return this.#events.delivered();
    }
  }

  /** Results of consecutive jobs may arrive together. */
  #deliverReturned({ run, value }: FromRuntime & { type: "returned" }): void {
    const runs = [run], values = [value];
    for (let [next] = this.#outbox; next?.type === "message" && next.message.type === "returned"; [next] = this.#outbox) {
      if (this.#world.random.chance(0.3)) break;
      this.#outbox.shift();
      this.#world.note(() => `${this.name} -> ${describe(next.message)}, too`);
      this.#answered(next.message);
      runs.push(next.message.run);
      values.push(next.message.value);
    }
    this.#events.returned(runs, values);
  }

  /** Takes a step. */
  step(): void {
    const { random, malice } = this.#world;
    if (this.#state === "dead") return this.#begone();
    if (this.#stopped && !this.#unstoppable && (this.#keptBusy || random.chance(0.5))) return this.#begone();
    if (random.chance(this.#state === "starting" ? malice.diesAtStart : malice.dies)) return this.#die();
    if (this.#state === "starting") {
      this.#state = "alive";
      this.#outbox.push({ type: "alive" });
      return;
    }
    const able = this.#running.filter((work) => !isEndless(work));
    if (this.#canTake() && (able.length === 0 || random.chance(0.5))) this.#take(this.#inbox.shift()!);
    else if (able.length > 0) this.#work(random.pick(able));
    else if (this.#stopped) this.#begone();
  }

  /** Whether there is something to begin, and room for it. */
  #canTake(): boolean {
    return this.#inbox.length > 0 && this.#running.length < this.#capacity;
  }

  /** Something that all threads depend on has ended: a supervisor. */
  perish(): void {
    if (this.#state === "starting" || this.#state === "alive") this.#die();
  }

  /** Ends work that has no limit and would not end by itself; false if there is none. */
  release(): boolean {
    let released = false;
    for (const work of this.#running) {
      if (!isEndless(work) || work.current!.limit !== Infinity) continue;
      work.left = 0;
      released = true;
    }
    return released;
  }

  /** Whether only time will end what it is doing. */
  get hangs(): boolean {
    return this.#running.some(isEndless) || (this.#keptBusy && !this.#stopped);
  }

  /** After every step. */
  checkNow(): void {
    if (this.#stopped || this.#running.length === 0) return;
    const { clock } = this.#world;
    for (const { current } of this.#running) {
      if (current === undefined || current.limit === Infinity) continue;
      const latest = Math.max(clock.now() + 1, current.due);
      check(clock.nextDue <= latest, "the time of work that has a limit is watched", () => current.number);
    }
  }

  #begone(): void {
    this.#state = "gone";
    this.#inbox = [];
    this.#running = [];
    this.#outbox.push({ type: "gone" });
  }

  #die(): void {
    const { random, malice } = this.#world;
    this.#world.note(() => `${this.name} dies`);
    this.#state = "dead";
    this.#inbox = [];
    this.#running = [];
    if (random.chance(malice.losesMessages)) this.#outbox.length = random.below(this.#outbox.length + 1);
    const thrown = random.chance(0.5) ? { raw: new Error("fatal") } : undefined;
    const memoryLimit = random.chance(malice.fillsHeap) ? HEAP : undefined;
    this.#outbox.push({ type: "died", death: { reason: "died", memoryLimit, thrown } });
  }

  // How the slot sees it

  /** An answer arrives. The same answer may come twice, or when the slot no longer listens. */
  #answered(message: FromRuntime): void {
    if (!("run" in message)) return;
    const held = this.#held.get(message.run);
    if (held === undefined) return;
    if (message.type !== "items") held.current!.arrive();
    else {
      const chunk = held as ChunkWork;
      const end = message.from + (message.values?.length ?? 0);
      // What lies between is in memory.
      for (let i = chunk.arrived; i < end; i++) this.#itemOf(chunk, i)?.arrive();
      chunk.arrived = Math.max(chunk.arrived, end);
      this.#arriveInMemory(chunk);
    }
    if (isAnswer(message)) this.#held.delete(message.run);
  }

  /** It has ended, as far as its slot knows. */
  #lose(fate: Fate): void {
    for (const work of this.#open()) work.lose(fate, this.#world.clock.now());
    this.#held.clear();
  }

  /** What was started and not answered. */
  *#open(): Generator<Work> {
    for (const held of this.#held.values()) {
      if ("next" in held) yield* this.#openItems(held);
      else yield held.current;
    }
  }

  *#openItems(held: ChunkWork): Generator<Work> {
    for (let i = held.message.from; i < held.next; i++) {
      const work = this.#itemOf(held, i);
      if (work?.isRunning) yield work;
    }
  }

  /** The work that a message is about. */
  #worksOf(message: ToRuntime): Work[] {
    const numbers = message.type === "run" ? [message.args[0]] : message.type === "chunk" ? Array.from(message.items) : [];
    return numbers.map((number) => this.#world.works[number as number]).filter((work) => work !== undefined);
  }

  /** Undefined if the item cannot be sent. */
  #itemOf({ message }: ChunkWork, index: number): Work | undefined {
    return this.#world.works[message.items[index - message.from] as number];
  }

  /** Whether nobody waits for it any more. */
  #isForgotten(held: RunWork | ChunkWork): boolean {
    if (!("next" in held)) return !held.current!.isWanted();
    return !this.#worksOf(held.message).some((work) => work.isWanted());
  }

  /** It is stopped although it runs nothing. */
  #checkIdle(): void {
    const waits = this.#inbox.some((message) => message.type === "run" && this.#world.works[message.args[0] as number]!.isWanted());
    const silence = this.#world.clock.now() - this.#silentSince;
    const mayBe = this.#world.mayEnd || silence >= KEPT_BUSY_FOR;
    check(!waits || mayBe, "a worker that has jobs is stopped only to end one of them, or when it does not take them up", () => this.name);
  }

  /** It is stopped to end work that has run for too long. */
  #checkTimeout(error: JobTimeoutError): void {
    // Which item of a chunk runs is no longer known once its map has ended.
    if ([...this.#held.values()].some((held) => "next" in held && this.#isForgotten(held))) return;
    const now = this.#world.clock.now();
    const overrun = [...this.#open()].filter((work) => work.hasOverrun(now) && work.jobId === error.jobId);
    this.#world.note(() => `${this.name} is stopped for its time: ${error.jobId}`);
    check(overrun.length > 0, "what is stopped for its time has run for so long", () => error.jobId);
    if (overrun.length === 1) overrun[0]!.over = true;
  }

  // The worker's side

  #send(message: FromRuntime): void {
    const { random, malice } = this.#world;
    this.#world.note(() => `${this.name} sends ${describe(message)}`);
    this.#outbox.push({ type: "message", message });
    if (this.#echo !== undefined) this.#outbox.push({ type: "message", message: this.#echo });
    this.#echo = undefined;
    if (!isAnswer(message) || !random.chance(malice.answersTwice)) return;
    if (random.chance(0.5)) this.#outbox.push({ type: "message", message });
    else this.#echo = message;
  }

  #take(message: ToRuntime): void {
    const { random, malice } = this.#world;
    switch (message.type) {
      case "load":
        this.#claims = message.claims as Int32Array<ArrayBuffer>;
        this.#capacity = message.capacity;
        this.#places = this.#claims.length / CLAIM_WORDS;
        if (random.chance(malice.failsToLoad)) return this.#send({ type: "failed", stage: "loading", thrown: failure("cannot load") });
        return this.#send({ type: "loaded", exports: this.#world.exports });
      case "initialize":
        if (!random.chance(malice.failsToInitialize)) return this.#send({ type: "initialized" });
        return this.#send({ type: "failed", stage: "initializing", thrown: failure("cannot initialize") });
      case "close":
        if (message.finalizer !== undefined && random.chance(malice.keptBusy)) return void (this.#keptBusy = true);
        return this.#send({ type: "closed", thrown: random.chance(malice.finalizerThrows) ? failure("cannot finalize") : undefined });
      case "run":
        if (!this.#claim(message)) return this.#send({ type: "returned", run: message.run, value: undefined });
        return this.#run(message);
      case "chunk":
        if (!this.#claim(message)) return this.#send({ type: "skipped", run: message.run });
        return this.#runChunk(message);
    }
  }

  /** The index of a job's first word in the claims. */
  #claimOf(run: number): number {
    return run % this.#places * CLAIM_WORDS;
  }

  #claim({ run }: { run: number }): boolean {
    const claim = this.#claimOf(run);
    Atomics.store(this.#claims, claim + 2, this.#world.clock.timeOfDay());
    return Atomics.compareExchange(this.#claims, claim, SENT, STARTED) === SENT;
  }

  #run(message: ToRuntime & { type: "run" }): void {
    const work = { message, current: this.#start(message.args[0] as number), left: this.#world.duration() };
    this.#running.push(work);
    this.#held.set(message.run, work);
  }

  #runChunk(message: ToRuntime & { type: "chunk" }): void {
    const { from } = message;
    // Results that a lost message should have announced are lost as well, though they lie in memory.
    const numbers = this.#world.malice.losesMessages > 0 ? undefined : message.numbers;
    const memory = numbers && { numbers: new Float64Array(numbers, NUMBERS), bounds: new Int32Array(numbers, 0, 2), open: true };
    const work = { message, current: undefined, left: 0, last: undefined, next: from, from, values: [], thrown: [], memory, arrived: from };
    this.#running.push(work);
    this.#held.set(message.run, work);
  }

  #start(number: number): Work {
    check(!this.#stopped, "a worker that was stopped starts nothing", () => `${number} in ${this.name}`);
    this.#world.note(() => `${this.name} starts ${number}`);
    const work = this.#world.works[number]!;
    work.start(this.#world.clock.now());
    return work;
  }

  /** The outcome of finished work. Nobody listens to a thread that was stopped: the work may be running elsewhere meanwhile. */
  #finish(work: Work): WorkOutcome {
    if (this.#stopped) return { value: -1 };
    const outcome = this.#world.outcomeOf(work);
    work.finish(outcome);
    return outcome;
  }

  #work(work: RunWork | ChunkWork): void {
    if (work.current === undefined) return this.#nextItem(work as ChunkWork);
    if (work.left > 0) return void work.left--;
    if (work.current.deadly) return this.#die();
    const outcome = this.#finish(work.current);
    if ("next" in work) return this.#endItem(work, outcome);
    const { run } = work.message;
    this.#running.splice(this.#running.indexOf(work), 1);
    this.#send(
      "error" in outcome ? { type: "threw", run, thrown: { raw: outcome.error } } : { type: "returned", run, value: outcome.value },
    );
    this.#settled(work);
  }

  /** Starts the next item, or ends the chunk. */
  #nextItem(work: ChunkWork): void {
    const { run, items, from, skip } = work.message;
    const claim = this.#claimOf(run);
    const i = work.next;
    Atomics.store(this.#claims, claim + 2, this.#world.clock.timeOfDay());
    if (i === from + items.length || Atomics.compareExchange(this.#claims, claim + 1, i, i + 1) !== i) return this.#endChunk(work);
    work.next++;
    // From now on its slot can tell that the item before was finished, although its outcome may be lost.
    if (work.last !== undefined) work.last.over = true;
    work.last = undefined;
    if (skip.includes(i)) return this.#note(work, undefined);
    check(this.#itemsOf.get(items)![i - from] === items[i - from], "an item is there until its worker reads it", () => items[i - from]);
    work.last = work.current = this.#start(items[i - from] as number);
    work.left = this.#world.duration();
    const { limit, retries } = work.current;
    check(work.message.eager || (limit === Infinity && retries === 0), "results that may be lost with a later item are not held back");
    // What was held back must not wait for an item that itself waits.
    if (work.values.length > 0 && this.#world.random.chance(0.3)) this.#flush(work, false);
  }

  #endItem(work: ChunkWork, outcome: WorkOutcome): void {
    const { items, from, eager } = work.message;
    if ("error" in outcome) work.thrown.push([work.next - 1, { raw: outcome.error }]);
    this.#note(work, "error" in outcome ? undefined : outcome.value);
    if (!this.#stopped) this.#arriveInMemory(work);
    work.current = undefined;
    if (work.next === from + items.length) this.#endChunk(work);
    else if (eager ? work.memory?.open !== true : this.#world.random.chance(0.3)) this.#flush(work, false);
  }

  /** What is in memory has arrived once everything before it has. */
  #arriveInMemory(work: ChunkWork): void {
    const { memory, arrived } = work;
    if (memory === undefined || memory.bounds[0]! > arrived) return;
    for (let i = arrived; i < memory.bounds[1]!; i++) this.#itemOf(work, i)?.arrive();
    work.arrived = Math.max(arrived, memory.bounds[1]!);
  }

  /** Keeps the outcome of an item, or puts it into memory. */
  #note(work: ChunkWork, value: unknown): void {
    const { memory, next } = work;
    if (memory?.open === true && typeof value === "number") {
      memory.numbers[next - 1] = value;
      Atomics.store(memory.bounds, 1, next);
      work.from = next;
      return;
    }
    if (memory !== undefined) memory.open = false;
    work.values.push(value);
  }

  #endChunk(work: ChunkWork): void {
    this.#running.splice(this.#running.indexOf(work), 1);
    this.#flush(work, true);
    this.#settled(work);
  }

  #settled({ message }: RunWork | ChunkWork): void {
    if (this.#running.length === 0) this.#keptBusy = this.#world.random.chance(this.#world.malice.keptBusy);
    Atomics.compareExchange(this.#claims, this.#claimOf(message.run), STARTED, FINISHED);
  }

  #flush(work: ChunkWork, last: boolean): void {
    const { from, thrown, memory } = work;
    const values = memory?.open === true ? undefined : work.values;
    const elapsed = this.#world.random.below(20);
    work.from += work.values.length;
    work.values = [];
    work.thrown = [];
    this.#send({ type: "items", run: work.message.run, from, values, thrown, last, elapsed });
    if (memory === undefined || memory.open || last) return;
    // Everything was sent: later results may go there again.
    memory.open = true;
    Atomics.store(memory.bounds, 0, work.from);
    Atomics.store(memory.bounds, 1, work.from);
  }
}

function isEndless({ left }: RunWork | ChunkWork): boolean {
  return left === Infinity;
}

function isAnswer(message: FromRuntime): boolean {
  return message.type === "returned" || message.type === "threw" || message.type === "skipped" ||
    (message.type === "items" && message.last);
}

function failure(message: string): Thrown {
  return { raw: new Error(message) };
}

/** A symbol stands for everything that cannot be copied. */
function refuseUncloneable(message: ToRuntime): void {
  if (!isCloneable(message)) throw new DOMException("A symbol could not be cloned", "DataCloneError");
}

function isCloneable(message: ToRuntime): boolean {
  const values = message.type === "run" ? message.args : message.type === "chunk" ? message.items : [];
  return Array.from(values).every((value) => typeof value !== "symbol");
}

function describe(message: FromRuntime): string {
  if (!("run" in message)) return message.type === "failed" ? `failed (${message.stage})` : message.type;
  const items = message.type === "items"
    ? ` (${message.values?.length ?? "in memory"} from ${message.from}${message.last ? ", last" : ""})`
    : "";
  return `${message.type} run ${message.run}${items}`;
}
