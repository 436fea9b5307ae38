import {
  type Death,
  type FromRuntime,
  SENT,
  STARTED,
  type Thread,
  type ThreadEvents,
  type Thrown,
  type ToRuntime,
} from "../../worker/protocol.ts";
import type { SimulatedWorld } from "./simulated_world.ts";

/** How likely things go wrong in the threads of one schedule. */
export interface Malice {
  startThrows: number;
  failsToLoad: number;
  failsToInitialize: number;
  /** Before it is alive. */
  diesAtStart: number;
  /** At each later step that it takes. */
  dies: number;
  /** What a thread sent last is lost when it dies. */
  losesMessages: number;
  throws: number;
  answersTwice: number;
  /** A thread that was stopped goes on, and is never gone. */
  unstoppable: number;
  finalizerThrows: number;
}

type OnTheWay = { type: "alive" } | { type: "message"; message: FromRuntime } | { type: "died"; death: Death } | { type: "gone" };

interface RunWork {
  message: ToRuntime & { type: "run" };
}

interface ChunkWork {
  message: ToRuntime & { type: "chunk" };
  next: number;
  from: number;
  values: unknown[];
  thrown: [number, Thrown][];
}

/**
 * A worker without a thread: it keeps to the protocol as `worker/runtime.ts` does, but takes one small step when the world tells it to. What it
 * sends is on the way until the world delivers it; the messages of one thread stay in order.
 */
export class SimulatedThread implements Thread {
  readonly name: string;
  #world: SimulatedWorld;
  #events: ThreadEvents;
  /** `dead` has still to tell that it is gone. */
  #state: "starting" | "alive" | "dead" | "gone" = "starting";
  #stopped = false;
  /** Whether the slot was told of the death. */
  #mourned = false;
  #unstoppable: boolean;
  #claims = new Int32Array(0);
  #inbox: ToRuntime[] = [];
  #outbox: OnTheWay[] = [];
  #running: (RunWork | ChunkWork)[] = [];
  /** The job of each run that was started. */
  #workOfRun = new Map<number, number>();
  /** An answer that is sent once more, behind the next message. */
  #echo: FromRuntime | undefined;

  constructor(world: SimulatedWorld, events: ThreadEvents, name: string) {
    this.#world = world;
    this.#events = events;
    this.name = name.replace("process-pool ", "");
    this.#unstoppable = world.random.chance(world.malice.unstoppable);
  }

  // The slot's side

  post(message: ToRuntime): void {
    refuseUncloneable(message);
    this.#world.activity++;
    this.#inbox.push(message);
  }

  stop(): void {
    this.#world.activity++;
    this.#stopped = true;
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
    if (this.#state === "starting") return true;
    if (this.#state === "dead") return !this.#unstoppable;
    if (this.#state === "gone") return false;
    return (this.#stopped && !this.#unstoppable) || this.#inbox.length > 0 || this.#running.length > 0;
  }

  /** Whether nothing will ever be heard of it again. */
  get over(): boolean {
    return !this.hasSent && (this.#state === "gone" || (this.#unstoppable && !this.canStep && (this.#stopped || this.#mourned)));
  }

  /** Whether it is gone, as far as its slot knows. */
  get goneForSlot(): boolean {
    return this.#state === "gone" && !this.hasSent;
  }

  /** What the job of a run was given. */
  workOf(run: number): number | undefined {
    return this.#workOfRun.get(run);
  }

  /** What it sent first arrives. */
  deliver(): void {
    const sent = this.#outbox.shift()!;
    this.#world.note(() => `${this.name} -> ${sent.type === "message" ? describe(sent.message) : sent.type}`);
    switch (sent.type) {
      case "alive":
        return this.#events.alive();
      case "died":
        this.#mourned = true;
        if (!this.#stopped) this.#world.lastEnd = this.#world.clock.now();
        return this.#events.died(sent.death);
      case "gone":
        return this.#events.gone();
      case "message":
        if (!this.#stopped) this.#world.answered(this, sent.message);
        return this.#events.message(sent.message);
    }
  }

  /** It does something. */
  step(): void {
    const { random, malice } = this.#world;
    if (this.#state === "dead") return this.#begone();
    if (this.#stopped && !this.#unstoppable && random.chance(0.5)) return this.#begone();
    if (random.chance(this.#state === "starting" ? malice.diesAtStart : malice.dies)) return this.#die();
    if (this.#state === "starting") {
      this.#state = "alive";
      this.#outbox.push({ type: "alive" });
    } else if (this.#inbox.length > 0 && (this.#running.length === 0 || random.chance(0.5))) this.#take(this.#inbox.shift()!);
    else if (this.#running.length > 0) this.#work(random.below(this.#running.length));
    else if (this.#stopped) this.#begone();
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
    this.#outbox.push({ type: "died", death: { reason: "died", thrown } });
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
        if (random.chance(malice.failsToLoad)) return this.#send({ type: "failed", stage: "loading", thrown: failure("cannot load") });
        return this.#send({ type: "loaded", exports: this.#world.exports });
      case "initialize":
        if (!random.chance(malice.failsToInitialize)) return this.#send({ type: "initialized" });
        return this.#send({ type: "failed", stage: "initializing", thrown: failure("cannot initialize") });
      case "close":
        return this.#send({ type: "closed", thrown: random.chance(malice.finalizerThrows) ? failure("cannot finalize") : undefined });
      case "run":
        if (!this.#claim(message)) return;
        this.#workOfRun.set(message.run, message.args[0] as number);
        this.#world.started(message.args[0] as number, this);
        return void this.#running.push({ message });
      case "chunk":
        if (!this.#claim(message)) return;
        return void this.#running.push({ message, next: message.from, from: message.from, values: [], thrown: [] });
    }
  }

  #claim({ run, claim }: { run: number; claim: number }): boolean {
    Atomics.store(this.#claims, claim + 2, this.#world.clock.today());
    if (Atomics.compareExchange(this.#claims, claim, SENT, STARTED) === SENT) return true;
    this.#send({ type: "skipped", run });
    return false;
  }

  #work(index: number): void {
    const work = this.#running[index]!;
    if ("next" in work) return this.#workOnChunk(work, index);
    const { run, args } = work.message;
    const outcome = this.#world.outcomeOf(args[0] as number);
    this.#running.splice(index, 1);
    this.#send(
      "error" in outcome ? { type: "threw", run, thrown: { raw: outcome.error } } : { type: "returned", run, value: outcome.value },
    );
  }

  /** The next item, or what comes after the last. */
  #workOnChunk(work: ChunkWork, index: number): void {
    const { items, claim, skip } = work.message;
    const i = work.next;
    Atomics.store(this.#claims, claim + 2, this.#world.clock.today());
    if (i === items.length || Atomics.compareExchange(this.#claims, claim + 1, i, i + 1) !== i) {
      this.#running.splice(index, 1);
      return this.#flush(work, true);
    }
    work.next++;
    if (skip.includes(i)) work.values.push(undefined);
    else {
      this.#world.started(items[i] as number, this);
      const outcome = this.#world.outcomeOf(items[i] as number);
      if ("error" in outcome) work.thrown.push([i, { raw: outcome.error }]);
      work.values.push("error" in outcome ? undefined : outcome.value);
    }
    if (work.next < items.length && this.#world.random.chance(0.3)) this.#flush(work, false);
  }

  #flush(work: ChunkWork, last: boolean): void {
    const { from, values, thrown } = work;
    const elapsed = this.#world.random.below(20);
    work.from += values.length;
    work.values = [];
    work.thrown = [];
    this.#send({ type: "items", run: work.message.run, from, values, thrown, last, elapsed });
  }
}

function isAnswer(message: FromRuntime): boolean {
  return message.type === "returned" || message.type === "threw" || message.type === "skipped" ||
    (message.type === "items" && message.last);
}

function failure(message: string): Thrown {
  return { raw: new Error(message) };
}

/** A symbol stands for all that cannot be copied. */
function refuseUncloneable(message: ToRuntime): void {
  const values = message.type === "run" ? message.args : message.type === "chunk" ? message.items : [];
  if (values.some((value) => typeof value === "symbol")) throw new DOMException("A symbol could not be cloned", "DataCloneError");
}

function describe(message: FromRuntime): string {
  if (!("run" in message)) return message.type === "failed" ? `failed (${message.stage})` : message.type;
  const items = message.type === "items" ? ` (${message.values.length} from ${message.from}${message.last ? ", last" : ""})` : "";
  return `${message.type} run ${message.run}${items}`;
}
