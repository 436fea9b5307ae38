import type { Observation } from "../pool/observation.ts";
import type { Queue } from "../pool/queue.ts";
import type { Answer, Ticket } from "../pool/ticket.ts";
import { Holding } from "./holding.ts";
import { type LeftBehind, suspectOf } from "./left_behind.ts";
import {
  CLAIM_WORDS,
  type Death,
  type ExportMessage,
  type FastPath,
  type FromRuntime,
  type ItemsMessage,
  type StartThread,
  type TaskMessage,
  type Thread,
  type Thrown,
} from "./protocol.ts";
import { MOST_AHEAD, Workload } from "./workload.ts";

/** What a slot reports to its crew. Its own books are right before it reports anything. */
export interface SlotEvents {
  /** The worker has loaded its modules: {@linkcode Slot.initialize} or {@linkcode Slot.makeReady} is next. */
  loaded(slot: Slot, exports: readonly ExportMessage[]): void;
  /** The worker's initializer has finished. */
  initialized(slot: Slot): void;
  /** The worker never became ready. */
  failedToStart(slot: Slot, death: Death): void;
  /** Jobs have left the slot, having returned these values. There may be more values than jobs. */
  returned(tickets: Ticket[], values: unknown[]): void;
  /** A job has left the slot, with another answer. */
  answered(ticket: Ticket, answer: Answer): void;
  /** Some items of a chunk are done; the chunk goes on. */
  progressed(ticket: Ticket, items: ItemsMessage): void;
  /** Jobs may have left the slot, and there is nothing more to report now. */
  changed(): void;
  /** The worker was closed in an orderly way. */
  closed(slot: Slot, thrown: Thrown | undefined): void;
  /** The worker has ended without having been told to, and leaves these jobs. */
  died(slot: Slot, death: Death, left: LeftBehind): void;
  /** A worker that was stopped still runs. */
  stuck(): void;
  /** Nothing of the worker runs any more. */
  gone(slot: Slot): void;
}

export interface SlotOptions {
  id: number;
  events: SlotEvents;
  /** How many jobs the worker runs at a time. */
  capacity: number;
  /** After how many jobs it is closed. */
  maxJobs: number;
  /** The pool's clock, in milliseconds. */
  now: () => number;
  /** Is told when jobs begin and end. */
  observation: Observation | undefined;
}

/** Runs are counted up to here, and then again from 0: the worker treats them as 32-bit integers. */
const MOST_RUNS = 2 ** 30;

/**
 * A worker is given up after more than this many looks in a row at which it had not taken up what it was sent: with a second between two
 * looks it has had two to three seconds, and the time for reading. If a job needs longer nevertheless, it gets it, as the limit doubles
 * whenever this happens to it. Fewer, and a busy machine is taken for a stuck worker; more, and jobs wait for a stuck one.
 */
const LOOKS = 2;

/**
 * It has this many looks more for each second that writing its messages took: reading takes up to 20 times as long as writing, as with a
 * Set of strings. Fewer, and a worker that reads is taken for a stuck one; more, and jobs wait for a stuck one.
 */
const LOOKS_TO_READ = 30;

/**
 * For this many looks, a millisecond apart, a worker is not stopped while items are on their way. Fewer, and finished items may be lost if
 * the caller was busy; more, and time limits are enforced later.
 */
const ITEM_LOOKS = 10;

const FAILURES = { loading: "could not load its modules", initializing: "failed in its initializer" };

/** Opens a slot, and so starts a worker; throws if that cannot be started. */
export type OpenSlot = (options: SlotOptions) => Slot;

/** Opens slots whose threads are of this backend. */
export function slotsOf(start: StartThread): OpenSlot {
  return (options) => new Slot(start, options);
}

/** `starting` -> `ready` -> `closing` -> `ended`, or straight to `ended` from anywhere. */
export type SlotState = "starting" | "ready" | "closing" | "ended";

/** The calling thread's side of one worker: starts it, sends it jobs, keeps the books of what it holds, and notices its end. */
export class Slot {
  readonly id: number;
  #state: SlotState = "starting";
  #events: SlotEvents;
  #thread: Thread;
  #workload: Workload;
  #claims: Int32Array<SharedArrayBuffer>;
  #holdings: Holding[];
  /** The next run, unless its place is in use. */
  #nextRun = 0;
  #mostRuns: number;
  #capacity: number;
  /** How many jobs came back without having been run. */
  #cameBack = 0;
  #maxJobs: number;
  /** For how many reasons it is sent nothing at this moment. */
  #pauses = 0;
  /** Whether the worker has ended, though what it has sent before may still come. */
  #isEnding = false;
  /** The runs because of which the worker is to be stopped soon. */
  #condemned = new Set<number>();
  #now: () => number;
  /** Since when the worker has been starting, idle, or closing. */
  #unchangedSince = 0;
  /** When it was sent the first of the jobs that it held when it ended; if it held none, when it ended. */
  #idleUntil = 0;
  #hasDoneJob = false;
  #wasToldToClose = false;
  /** How many looks in a row have found items on their way. */
  #itemLooks = 0;
  /** Whether the worker has sent something since the last look. */
  #heard = false;
  /** How many looks in a row have found it silent and running nothing. */
  #silentLooks = 0;
  /** Whether a finalizer runs before it is closed. */
  #hasFinalizer = false;
  /**
   * The tasks that the worker knows, as later messages name them: as many as it may hold jobs; with one more, all are forgotten, and sent
   * again. The worker keeps this many, and as many before. With fewer, a call that others overtake could arrive when its task is gone; with
   * more, functions that a program makes up and never uses again would be kept.
   */
  #known = new Map<number, TaskMessage>();
  #observation: Observation | undefined;
  /** When the worker began and ended each job; undefined without observers. */
  #times: Float64Array<SharedArrayBuffer> | undefined;

  constructor(start: StartThread, { id, events, capacity, maxJobs, now, observation }: SlotOptions) {
    this.id = id;
    this.#events = events;
    this.#maxJobs = maxJobs;
    this.#now = now;
    this.#capacity = capacity;
    this.#unchangedSince = now();
    const places = capacity + MOST_AHEAD;
    this.#claims = new Int32Array(new SharedArrayBuffer(places * CLAIM_WORDS * Int32Array.BYTES_PER_ELEMENT));
    this.#holdings = Array.from({ length: places }, (_, place) => new Holding(this.#claims, place));
    this.#mostRuns = Math.floor(MOST_RUNS / places) * places;
    this.#observation = observation;
    if (observation !== undefined) this.#times = new Float64Array(new SharedArrayBuffer(places * 2 * Float64Array.BYTES_PER_ELEMENT));
    this.#thread = start({
      alive: () => this.#state === "starting" && this.#loadModules(),
      message: (message) => this.#receive(message),
      returned: (runs, values) => this.#returned(runs, values),
      delivered: () => {
        this.#workload.delivered();
        events.changed();
      },
      ending: () => {
        this.#isEnding = true;
        this.pause();
      },
      died: (death) => this.#died(death),
      stuck: () => events.stuck(),
      gone: () => events.gone(this),
    }, `process-pool worker ${id}`);
    this.#workload = new Workload(this.#thread, { capacity, now, hasUnread: () => this.hasUnread });
  }

  get state(): SlotState {
    return this.#state;
  }

  /** How many jobs the worker holds, including withdrawn ones. */
  get load(): number {
    return this.#workload.load;
  }

  /** How many jobs it holds that were not withdrawn. */
  get held(): number {
    return this.#workload.held;
  }

  /** Whether small arguments go to the worker through shared memory. */
  get sharesMemory(): boolean {
    return this.#thread.fastPath !== undefined;
  }

  /**
   * Called within a long turn of the caller: reports what jobs have returned by now, `most` at most, and makes the worker take up what it was
   * sent. Returns how many it has reported.
   */
  takeReturned(most: number): number {
    return this.#thread.fastPath?.takeReturned(most) ?? 0;
  }

  /** Hands over memory that nobody else uses, to be filled with a result. */
  reuse(buffer: ArrayBuffer): void {
    this.#thread.fastPath?.reuse(buffer);
  }

  /** Whether the worker holds less than it can run at a time. */
  get isFree(): boolean {
    return this.#workload.isFree && this.#isOpen;
  }

  /** Whether it takes a job now: to run it, or, if recent jobs were short, ahead of time. */
  get hasRoom(): boolean {
    return this.#workload.hasRoom && this.#isOpen;
  }

  /** Whether it takes jobs when it has room for them. */
  get #isOpen(): boolean {
    return this.#state === "ready" && !this.isWorn && this.#pauses === 0;
  }

  /** As {@linkcode Workload.appetite} says. */
  get appetite(): number | undefined {
    return this.#isOpen ? this.#workload.appetite : undefined;
  }

  /** Whether it has to be woken for a job. */
  get isAsleep(): boolean {
    return this.load === 0 && this.#thread.fastPath?.isAwake === false;
  }

  /** As {@linkcode Workload.isSoonDone} says. */
  get isSoonDone(): boolean {
    return this.#workload.isSoonDone;
  }

  /** As {@linkcode Workload.jobsWithin} says. */
  jobsWithin(time: number): number {
    return this.#workload.jobsWithin(time);
  }

  /** As {@linkcode Workload.jobsInMs} says; 0 also if it takes no jobs. */
  get jobsInMs(): number {
    return this.#isOpen ? this.#workload.jobsInMs : 0;
  }

  /** By what factor it will soon be faster, while its jobs are cold. */
  get speedUp(): number {
    return this.#workload.speedUp;
  }

  /** How many jobs it has done, or has given back. */
  get done(): number {
    return this.#workload.done;
  }

  /** Whether its recent jobs were tiny. */
  get isTiny(): boolean {
    return this.#workload.isTiny;
  }

  /** Whether the worker has run as many jobs as it may. */
  get isWorn(): boolean {
    return this.#workload.sent - this.#cameBack >= this.#maxJobs;
  }

  /** Whether the worker has done a job. */
  get hasDoneJob(): boolean {
    return this.#hasDoneJob;
  }

  /** Whether the worker was told to close. */
  get wasToldToClose(): boolean {
    return this.#wasToldToClose;
  }

  /** For how long the worker has been ready and idle, in ms; undefined if it is not. */
  get idleFor(): number | undefined {
    return this.#state === "ready" && this.load === 0 ? this.#now() - this.#unchangedSince : undefined;
  }

  /** For how long the worker has been starting, idle, or closing, in ms. */
  get unchangedFor(): number {
    return this.#now() - this.#unchangedSince;
  }

  /** For how long a worker that has ended had been idle before it was sent the jobs that it held then, or before it ended, in ms. */
  get idleBeforeEnd(): number {
    return this.#idleUntil - this.#unchangedSince;
  }

  /** The jobs that the worker holds. */
  *tickets(): Generator<Ticket> {
    for (const { ticket } of this.#holdings) {
      if (ticket !== undefined) yield ticket;
    }
  }

  #loadModules(): void {
    const times = this.#times && { times: this.#times, origin: performance.timeOrigin, now: this.#now() };
    this.#thread.post({ type: "load", claims: this.#claims, capacity: this.#capacity, times });
  }

  initialize(task: TaskMessage, args: readonly unknown[]): void {
    this.#thread.post({ type: "initialize", task, args });
    this.#learn(task);
  }

  makeReady(): void {
    this.#state = "ready";
    this.#unchangedSince = this.#now();
  }

  /**
   * Sends a job. If shared memory has no room for it and the worker has enough to do until it has, sends nothing and returns false.
   *
   * @throws {DOMException & { name: "DataCloneError" }} If it cannot be copied. The slot is then as before.
   */
  send(ticket: Ticket, task: TaskMessage): boolean {
    const holding = this.#hold(ticket);
    const { run } = ticket;
    const known = this.#known.get(task.key);
    const { fastPath } = this.#thread;
    try {
      // The task itself goes by the port, once; after that its key is enough.
      const args = known === undefined ? undefined : ticket.argsAlone;
      const message = args === undefined ? ticket.message(run, known ?? task) : undefined;
      if (message?.type === "chunk") holding.beginAt(message.from);
      if (args !== undefined && fastPath?.call(task.key, run, ticket.id, args)) fastPath.ring(1);
      else if (args !== undefined && this.hasSurplus && fastPath?.isFull) {
        this.#workload.isFull = true;
        return !this.#letGo(holding, ticket, run);
      } else {
        // A list of numbers can always be read.
        if (message?.type !== "chunk" || !ArrayBuffer.isView(message.items)) holding.posted = run;
        const before = this.#now();
        this.#thread.post(message ?? ticket.message(run, known ?? task), ticket.transfer);
        holding.writing = this.#now() - before;
      }
      if (known === undefined) this.#learn(task);
      return true;
    } catch (error) {
      this.#letGo(holding, ticket, run);
      throw error;
    }
  }

  /**
   * Sends the first tickets of a queue if they are small calls of tasks that the worker knows: as many as it has {@linkcode Slot.appetite}
   * for. Where there are very many jobs they are of this kind, and this loop is most of the work for each.
   *
   * @returns How many it has sent; the others are still in the queue.
   */
  sendCalls(queue: Queue<Ticket>): number {
    const { fastPath } = this.#thread;
    if (fastPath === undefined || this.#times !== undefined) return 0;
    const sent = this.#sendCalls(queue, fastPath, this.appetite ?? this.#workload.share);
    if (sent > 0) fastPath.ring(sent);
    return sent;
  }

  #sendCalls(queue: Queue<Ticket>, fastPath: FastPath, most: number): number {
    let sent = 0;
    let known: TaskMessage | undefined;
    // A getter in what is sent may have led here again, or have ended the slot.
    while (sent < most && this.hasRoom) {
      const ticket = queue.first;
      const callArgs = ticket?.callArgs;
      if (ticket === undefined || callArgs === undefined) break;
      const task = ticket.task!;
      if (task !== known && !this.#known.has(task.key)) break;
      known = task;
      queue.shift();
      const holding = this.#hold(ticket);
      const { run } = ticket;
      let written = false;
      try {
        written = fastPath.call(task.key, run, ticket.id, callArgs);
      } catch {
        // It will be sent by itself, and throws again then.
      }
      if (!written) {
        if (this.#letGo(holding, ticket, run)) queue.joinFront(ticket);
        this.#workload.isFull = this.load > 0 && fastPath.isFull;
        break;
      }
      task.isSmall = true;
      sent++;
    }
    return sent;
  }

  /** Notes that the worker holds a ticket, before it is sent: a getter in what is sent may lead here again, or end the slot. */
  #hold(ticket: Ticket): Holding {
    const { length: places } = this.#holdings;
    let run = this.#nextRun;
    // In sequence, so that each record in the queue continues the one before. Apart from the latest places, few are in use.
    while (this.#holdings[run % places]!.run !== undefined) run = this.#after(run);
    this.#nextRun = this.#after(run);
    const index = run % places;
    const holding = this.#holdings[index]!;
    ticket.run = run;
    ticket.slot = this;
    ticket.sentAs = this.#workload.add();
    if (this.#times !== undefined) this.#times[index * 2] = this.#times[index * 2 + 1] = 0;
    holding.hold(run, ticket);
    return holding;
  }

  #after(run: number): number {
    return run + 1 < this.#mostRuns ? run + 1 : 0;
  }

  /** Undoes {@linkcode Slot.#hold} for a ticket that could not be sent; false if it has left the slot already. */
  #letGo(holding: Holding, ticket: Ticket, run: number): boolean {
    const isHeld = holding.run === run && holding.ticket === ticket;
    if (holding.run === run) this.#clear(holding);
    if (!isHeld) return false;
    this.#cameBack++;
    ticket.slot = undefined;
    return true;
  }

  /** Whether the worker has started a job that it was sent. */
  hasStarted(ticket: Ticket): boolean {
    return this.#holdingOf(ticket).hasStarted;
  }

  /**
   * For how long a job, or the current item of a chunk, has run by this time of day, in ms; `item` is that item, counted from 1. Undefined
   * if the worker has not started the job, has finished it, or has ended.
   */
  runningFor(ticket: Ticket, timeOfDay: number): { time: number; item: number } | undefined {
    const holding = this.#holdingOf(ticket);
    if (this.#isEnding || !holding.isRunning) return undefined;
    // The item first: the worker notes the time before it claims the item, so the time cannot belong to an earlier item.
    const { item } = holding;
    return { time: (timeOfDay - holding.startedAt) | 0, item };
  }

  /**
   * To be asked about once a second: whether the worker should have taken up something long ago and has not, although it runs nothing. Then
   * something that an earlier job left behind keeps it busy.
   */
  isKeptBusy(): boolean {
    // What it has sent may still lie there, if those who hear of the results of others are slow. Taken while the slot is open: jobs that
    // waited for this room are then sent, and nothing else might have that done.
    if (!this.#heard && this.#isExpected()) this.#thread.drain();
    const silent = !this.#heard && this.#isExpected();
    this.#heard = false;
    this.#silentLooks = silent ? this.#silentLooks + 1 : 0;
    const neglected = this.tickets().reduce((most, ticket) => Math.max(most, ticket.neglected), 0);
    return this.#silentLooks > LOOKS * 2 ** neglected + LOOKS_TO_READ * this.#writing / 1000;
  }

  /** How long writing the messages took that the worker may still have to read, in ms. */
  get #writing(): number {
    return this.#holdings.reduce((sum, { run, posted, writing }) => run !== undefined && posted === run ? sum + writing : sum, 0);
  }

  /** Whether it should take something up, as it runs nothing. */
  #isExpected(): boolean {
    if (this.#state === "closing") return !this.#hasFinalizer;
    if (this.#state !== "ready" || this.load === 0) return false;
    return !this.#holdings.some(({ hasStarted }) => hasStarted);
  }

  /** Takes a job back; false if the worker has started it. */
  withdraw(ticket: Ticket): boolean {
    const holding = this.#holdingOf(ticket);
    if (!holding.takeBack()) return false;
    // Its place stays in use until the worker has come across it.
    holding.ticket = undefined;
    holding.withdrawnAs = ticket.sentAs;
    ticket.slot = undefined;
    this.#workload.withdraw();
    this.#cameBack++;
    return true;
  }

  /**
   * Takes back all jobs but the first `kept` that the worker has not started, in the order in which they were sent. Jobs with moved
   * arguments stay, as they cannot be sent anywhere else.
   */
  withdrawAll(kept = 0): Ticket[] {
    const tickets = [...this.tickets()].filter((ticket) => ticket.transfer.length === 0 && !this.hasStarted(ticket));
    return tickets.sort((a, b) => a.sentAs - b.sentAs).slice(kept).filter((ticket) => this.withdraw(ticket));
  }

  /** The same, without jobs that the worker can start at once: it may be taking them up, as arguments may take long to copy. */
  withdrawAhead(): Ticket[] {
    return this.withdrawAll(Math.max(0, this.#capacity - this.#running));
  }

  /** As {@linkcode Workload.isLate} says. */
  isLate(time: number): boolean {
    return this.#workload.isLate(time);
  }

  /** As {@linkcode Workload.hasKeptWaiting} says. */
  hasKeptWaiting(time: number): boolean {
    return this.#workload.hasKeptWaiting(time);
  }

  /** Has the worker sent nothing ahead of time until it answers. */
  sendNothingAhead(): void {
    this.#workload.heldUp = true;
  }

  /** Whether the worker holds more than it can run at a time. */
  get hasSurplus(): boolean {
    return this.#workload.surplus > 0;
  }

  /** Takes the answers that have arrived by now; the worker is sent nothing meanwhile. */
  drain(): void {
    this.pause();
    try {
      this.#thread.drain();
    } finally {
      this.resume();
    }
  }

  /** Stops sending it jobs, until {@linkcode Slot.resume} was called as often as this. */
  pause(): void {
    this.#pauses++;
  }

  resume(): void {
    this.#pauses--;
  }

  /** Whether an answer is on its way by the port: it will be here in a turn or two of the event loop. */
  get hasUnread(): boolean {
    return this.#holdings.some(({ isFinished }) => isFinished);
  }

  /** Whether the worker must not be stopped yet, as an answer, or an item's result, is on its way. */
  isAnswering(): boolean {
    return this.hasUnread || this.#awaitsItems();
  }

  /**
   * Whether items of a running chunk are on their way. After {@linkcode ITEM_LOOKS} looks those that were at the first look have arrived;
   * others may follow without end, if the caller is slower than the worker.
   */
  #awaitsItems(): boolean {
    const awaits = this.#holdings.some(({ ticket, isRunning, item }) =>
      isRunning && ticket !== undefined && ticket.hasItemsOnTheirWay(item)
    );
    this.#itemLooks = awaits ? this.#itemLooks + 1 : 0;
    return awaits && this.#itemLooks <= ITEM_LOOKS;
  }

  /** Lets go of a running job. The worker is to be stopped soon, and is sent nothing more. */
  condemn(ticket: Ticket): void {
    this.#condemned.add(ticket.run);
    this.pause();
    this.curtail(ticket);
    this.#holdingOf(ticket).ticket = undefined;
    this.#workload.withdraw();
    ticket.slot = undefined;
  }

  /** Whether it is to be stopped soon. */
  get isCondemned(): boolean {
    return this.#condemned.size > 0;
  }

  /** Lets the worker go on if all jobs that it was to be stopped for have ended; false if they have not. */
  reprieve(): boolean {
    for (const run of this.#condemned) {
      const holding = this.#heldAs(run);
      if (holding?.isRunning) continue;
      this.#condemned.delete(run);
      this.resume();
    }
    return this.#condemned.size === 0;
  }

  /** How many jobs the worker runs. */
  get #running(): number {
    return this.#holdings.filter(({ isRunning }) => isRunning).length;
  }

  /** Keeps the worker from starting more items of a chunk, if it still runs this item, counted from 1. */
  halt(ticket: Ticket, item: number): boolean {
    return this.#holdingOf(ticket).halt(item);
  }

  /** Keeps the worker from starting more items of a chunk. */
  curtail(ticket: Ticket): void {
    this.#holdingOf(ticket).curtail();
  }

  /** Has the worker run its finalizer; `closed` follows. Only for a worker that holds no job. */
  close(finalizer: TaskMessage | undefined): void {
    this.#state = "closing";
    this.#wasToldToClose = true;
    this.#unchangedSince = this.#now();
    this.#hasFinalizer = finalizer !== undefined;
    this.#thread.post({ type: "close", finalizer });
  }

  /**
   * Ends the slot. Tasks that are told to stop may do anything, so what the worker held must have its new place before `stop` is called.
   *
   * @returns What the worker held, and a function that stops it at once, as far as its backend can. `gone` follows that.
   */
  end(reason: unknown): { left: LeftBehind; stop: () => void } {
    this.#state = "ended";
    const runs = this.#running > 0;
    const left = this.#clearBooks();
    return { left, stop: () => runs || left.started.length > 0 ? this.#thread.stop({ reason }) : this.#thread.stop() };
  }

  /** Notes that the worker was sent a task, if it keeps that. A getter in what was sent may have sent the same task meanwhile. */
  #learn({ key, name, func }: TaskMessage): void {
    if (func !== undefined || this.#known.has(key)) return;
    if (this.#known.size >= this.#holdings.length) this.#known.clear();
    this.#known.set(key, { key, name });
  }

  #receive(message: FromRuntime): void {
    if (this.#state === "ended") return;
    this.#heard = true;
    switch (message.type) {
      case "loaded":
        return this.#events.loaded(this, message.exports);
      case "initialized":
        return this.#events.initialized(this);
      case "failed":
        this.end(undefined).stop();
        return this.#events.failedToStart(this, { reason: FAILURES[message.stage], thrown: message.thrown });
      case "closed":
        this.end(undefined).stop();
        return this.#events.closed(this, message.thrown);
      case "items":
        if (!message.last) return this.#progressed(message);
        return this.#answered(message.run, message);
      case "returned":
        return this.#returned([message.run], [message.value]);
      case "threw":
      case "skipped":
        return this.#answered(message.run, message);
    }
  }

  #progressed(message: ItemsMessage): void {
    const ticket = this.#heldAs(message.run)?.ticket;
    if (ticket !== undefined) this.#events.progressed(ticket, message);
  }

  /** Lets go of a job that has ended without returning, if it is still held: an answer may come twice, and the second finds nothing. */
  #answered(run: number, message: Answer | Extract<FromRuntime, { type: "skipped" }>): void {
    this.#heard = true;
    const holding = this.#heldAs(run);
    if (holding === undefined) return;
    const { ticket } = holding;
    this.#clear(holding);
    this.#noteAnswer();
    if (ticket === undefined || message.type === "skipped") return;
    if (this.#observation !== undefined) this.#observe(ticket);
    ticket.slot = undefined;
    this.#events.answered(ticket, message);
  }

  /** Lets go of jobs that have returned, in the same way. Those that were taken back are not reported. */
  #returned(runs: number[], values: unknown[]): void {
    if (this.#state === "ended") return;
    this.#heard = true;
    const before = this.load;
    const tickets = this.#letGoOfAll(runs, values);
    if (this.load === before) return;
    this.#noteAnswer();
    if (tickets.length === 0) return;
    this.#events.returned(tickets, values);
  }

  /** Returns the tickets that are still held, and moves their values to the front of the list. */
  #letGoOfAll(runs: number[], values: unknown[]): Ticket[] {
    const tickets = new Array<Ticket>(runs.length);
    let left = 0;
    for (let i = 0; i < runs.length; i++) {
      const holding = this.#heldAs(runs[i]!);
      if (holding === undefined) continue;
      const { ticket } = holding;
      this.#clear(holding);
      if (ticket === undefined) continue;
      if (this.#observation !== undefined) this.#observe(ticket);
      ticket.slot = undefined;
      values[left] = values[i];
      tickets[left++] = ticket;
    }
    if (left < tickets.length) tickets.length = left;
    return tickets;
  }

  #noteAnswer(): void {
    this.#workload.answered();
    this.#hasDoneJob = true;
    if (this.load === 0) this.#unchangedSince = this.#now();
  }

  /** Tells observers when the worker began and ended a job. */
  #observe(ticket: Ticket): void {
    const index = ticket.run % this.#holdings.length * 2;
    this.#observation!.ran(ticket, this.#times![index]!, this.#times![index + 1]!);
  }

  #holdingOf({ run }: Ticket): Holding {
    return this.#holdings[run % this.#holdings.length]!;
  }

  #heldAs(run: number): Holding | undefined {
    const holding = this.#holdings[run % this.#holdings.length]!;
    return holding.run === run ? holding : undefined;
  }

  #clear(holding: Holding): void {
    this.#workload.remove(holding.ticket === undefined);
    holding.clear();
  }

  #died(death: Death): void {
    const before = this.#state;
    if (before === "ended") return;
    this.#state = "ended";
    if (before === "starting") this.#events.failedToStart(this, death);
    else this.#events.died(this, death, this.#clearBooks(death));
  }

  /** Clears the books. What has not started is taken back: even if the worker lives on, it will not start it. */
  #clearBooks(death?: Death): LeftBehind {
    const left: LeftBehind = { started: [], unstarted: [] };
    const posted = new Set<Ticket>();
    let withdrawnAs = Infinity;
    this.#idleUntil = this.load > 0 ? this.#workload.answeredAt : this.#now();
    for (const holding of this.#holdings) {
      const { run, ticket } = holding;
      if (run === undefined) continue;
      if (ticket !== undefined && holding.posted === run) posted.add(ticket);
      else if (holding.posted === run && holding.isWithdrawn) withdrawnAs = Math.min(withdrawnAs, holding.withdrawnAs);
      const unstarted = holding.takeBack();
      if (this.#observation !== undefined && ticket !== undefined && !unstarted) this.#observe(ticket);
      const nextItem = holding.curtail();
      this.#clear(holding);
      if (ticket === undefined) continue;
      ticket.slot = undefined;
      if (unstarted) left.unstarted.push(ticket);
      else left.started.push({ ticket, nextItem });
    }
    left.started.sort((a, b) => a.ticket.sentAs - b.ticket.sentAs);
    left.unstarted.sort((a, b) => a.sentAs - b.sentAs);
    if (death !== undefined) left.suspect = suspectOf(death, left, { posted, withdrawnAs });
    return left;
  }
}
