import { CORES, timers } from "./platform.ts";
import { portions } from "./portion.ts";
import type { FromWorker, ItemsMessage, RunMessage, Thrown, ToWorker } from "./protocol.ts";
import { makeQueueMemory, openSharedQueue, type QueueMemory, type SharedQueue } from "./shared_queue.ts";
import { atNextTick, betweenTurns, soon } from "./soon.ts";

/** The memory that both ends of a line share. */
export interface LineMemory {
  requests: QueueMemory;
  replies: QueueMemory;
  /**
   * The words {@linkcode WORKER}, {@linkcode CALLER} and {@linkcode MAY_SPIN}, and at {@linkcode PACE} a double, each in its own cache
   * line.
   */
  bells: SharedArrayBuffer;
}

/** In the bells: the state of the worker, {@linkcode AWAKE}, {@linkcode ASLEEP}, {@linkcode LISTENING} or {@linkcode CALLED}. */
export const WORKER = 0;
/** In the bells: the state of the caller, {@linkcode AWAKE} or {@linkcode ASLEEP}. */
export const CALLER = 16;
/** In the bells, read as doubles: how long recent jobs took, in ms. */
export const PACE = 16;
/** In the bells: whether the worker may spin, as {@linkcode CORES} explains. */
export const MAY_SPIN = 48;
/** It will look at its queue before it does anything else. */
export const AWAKE = 0;
/** It waits in `Atomics.wait` or `Atomics.waitAsync`. */
export const ASLEEP = 1;
/** It is in its event loop: it hears messages, and a Web Worker that has nothing to do also hears the bell. */
export const LISTENING = 2;
/** It is awake, but must go to its event loop before it sleeps: there is a message. */
export const CALLED = 3;

/** The kind of a request that says that the next one comes by the port. Other kinds are the keys of tasks. */
export const BY_PORT = -1;
/** The kind of a request that is a chunk of a map: the label is its message. */
export const CHUNK = -2;
/** The kind of a reply whose label is what a job returned. The constants below are kinds of replies, too. */
export const RETURNED = 1;
/** A chunk had been taken back before it was started. */
export const SKIPPED = 2;
/** The label is what an item of a chunk returned; its index follows. */
export const ITEM = 3;
/** The label is what a job threw, taken apart. */
export const THREW = 4;
/** The label is what an item of a chunk threw, taken apart; its index follows. */
export const ITEM_THREW = 5;
/**
 * The label is what several items of a chunk returned, or undefined if that is in memory. The index of the first follows, then whether they
 * are the last, and the time that the chunk has taken.
 */
export const ITEMS = 6;

/**
 * How many cells of eight bytes there are, each way. That is enough for all jobs that may be sent ahead, if they take 16 cells each; a call
 * with one number takes one cell if it continues the one before, else four. Fewer, and jobs that could be sent ahead wait; more only take
 * memory.
 */
const CELLS = 2 ** 14;

/**
 * How many bytes there are for long texts and buffers, each way; one value may take a quarter. Less, and more of them go by messages; more,
 * and they no longer fit into a core's caches.
 */
const BULK = 2 ** 20;

/**
 * A sleeping worker is woken within a turn when it has `WORTH_WAKING` ms of work, which is how long waking it takes: for a single job that
 * takes so long, but never for fewer than `FEWEST` shorter ones, and always for `MOST`, as the caller may be wrong about how long they
 * take. Less, and the worker is done before the next ones come, and is woken again and again; more, and it waits for its caller.
 */
const WORTH_WAKING = 0.05, FEWEST = 64, MOST = 256;

/**
 * If only one worker has jobs, and they are due in less than this many ms, the caller spins for that long before it waits: being woken
 * takes 5 to 80 µs. Less, and it is woken more often; more, and its thread does nothing else for longer. If several workers have jobs, it
 * does not spin, as the replies of the others would wait.
 */
const DUE_SOON = 0.05;

/**
 * A caller of jobs that take less than this many ms takes their replies without a turn of the event loop, which takes half as long as such
 * a job.
 */
const QUICK = 0.01;

/**
 * A caller of jobs that take at least this many ms waits as soon as it has taken a reply: the next one is hardly due within a tick of the
 * event loop, which after 10 ms is a whole turn, and takes as long as the rest that there is to do for such a job.
 */
const LONG = 0.5;

/**
 * A worker that has more to do does not ring for replies of short jobs for up to a millisecond: see line_end.ts. Its next job may take
 * long, so the caller looks for them too, every `LOOK_EVERY` ms (Deno's timers take one more), until it has found none `LOOKS` times in a
 * row: then the worker has been running one job since, and rings when that is done. More often, and looking in vain takes time; less often,
 * and results wait.
 */
const LOOK_EVERY = 1, LOOKS = 2;

/**
 * Workers may spin again when they have been rung this many times without there being more of them than cores. Fewer, and of two workers
 * that take turns one spins now and then while the other has a job; more, and it takes longer until single calls are fast again.
 */
const CALM = 64;

/** More jobs than are ever taken at a time: an integer, which V8 counts with faster than with Infinity. */
const ALL = 2 ** 30;

/** The lines of this thread that are open. */
const lines = new Set<Line>();
/** How many of them have unanswered jobs. */
let busyLines = 0;
/** How many times workers were rung since there were too many of them to spin. */
let calm = CALM;

/** What a line reports. */
export interface LineEvents {
  message(message: FromWorker): void;
  /** Jobs returned these values: the most common message, for which no object is made. The listener may change the lists. */
  returned(runs: number[], values: unknown[]): void;
  /** There are no more messages for now. */
  delivered(): void;
  /** What the worker has written cannot be read: nothing more will come. */
  unreadable(): void;
}

/**
 * The caller's end of the line to a worker: a port, and beside it shared memory for small jobs and results. The worker can read at once
 * what is written there; all jobs of a turn wake it together; and the caller has a reply even if the worker is halted a moment later. So a
 * call costs far less than a message each way, and callers need not gather calls into chunks.
 *
 * After a job the worker waits for the next one for a few milliseconds in `Atomics.wait`, and the caller in `Atomics.waitAsync`: being
 * woken there is quicker than a message to an event loop. Before that either may spin for a moment, which is quicker still. After it the
 * worker goes back to its event loop, so that an idle worker uses nothing; a Web Worker waits in `Atomics.waitAsync` there.
 */
export class Line {
  readonly memory: LineMemory;
  #port: MessagePort;
  #requests: SharedQueue;
  #replies: SharedQueue;
  #bells: Int32Array<SharedArrayBuffer>;
  #pace: Float64Array<SharedArrayBuffer>;
  #events: LineEvents;
  /** How many jobs have not been answered. */
  #open = 0;
  /** How many have been answered. */
  #answers = 0;
  /** Which of them are chunks. */
  #chunks = new Set<number>();
  /** How many jobs the worker was sent in this turn without being woken. */
  #unheard = 0;
  /** Whether it will be woken at the end of the turn. */
  #wakesAtEnd = false;
  /** Whether replies are being taken, or waited for. */
  #listening = false;
  /**
   * The last run that was posted without being announced in the queue, which had no room, until it is answered. Nothing goes by the queue
   * meanwhile: it would overtake that run, and may need the task that comes with it.
   */
  #unannounced: number | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #emptyLooks = 0;
  /** Messages that have come by the port and were not reported yet, and up to where replies have to be taken before. */
  #arrived: { message: FromWorker; after: number }[] = [];
  /** Items that have arrived and were not reported yet. */
  #items: (ItemsMessage & { values: unknown[] }) | undefined;
  #closed = false;
  /** Whether something cannot be read: our worker code did not write that, but a task that got hold of the memory. */
  #unreadable = false;

  constructor(port: MessagePort, events: LineEvents) {
    this.#port = port;
    this.#events = events;
    this.memory = {
      requests: makeQueueMemory(CELLS, BULK),
      replies: makeQueueMemory(CELLS, BULK),
      bells: new SharedArrayBuffer(4 * (MAY_SPIN + 16)),
    };
    this.#requests = openSharedQueue(this.memory.requests);
    this.#replies = openSharedQueue(this.memory.replies);
    this.#bells = new Int32Array(this.memory.bells);
    this.#pace = new Float64Array(this.memory.bells);
    this.#bells[WORKER] = LISTENING;
    this.#pace[PACE] = Infinity;
    lines.add(this);
    port.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#receiveByPort(data);
  }

  /** How long recent jobs took, in ms; Infinity before the first. */
  get pace(): number {
    return this.#pace[PACE]!;
  }

  /**
   * Sends a message, in order with those before.
   *
   * @throws {DOMException & { name: "DataCloneError" }} If it holds something that cannot be copied. Nothing was sent then.
   */
  post(message: RunMessage | Exclude<ToWorker, RunMessage>, transfer: readonly Transferable[]): void {
    if (message.type !== "run" && message.type !== "chunk") {
      this.#send(message, transfer);
      return this.#hail();
    }
    if (message.type === "chunk" && this.#writeChunk(message)) return;
    // Announced first: the message may make the worker run at once, while this thread does not, and it would look in vain for its turn.
    const inTurn = this.#requests.hasRoom && this.#requests.push(BY_PORT, 0, 0, []);
    try {
      this.#send({ ...message, inTurn }, transfer);
    } catch (error) {
      if (inTurn && !this.#closed) this.#port.postMessage({ type: "nothing", inTurn } satisfies ToWorker);
      throw error;
    }
    if (!inTurn) this.#unannounced = message.run;
    if (message.type === "chunk") this.#chunks.add(message.run);
    this.#count(1);
    this.#wake(false);
    this.#expectReply(false);
  }

  /** Sends by the port. With a list, even an empty one, Deno takes a slower way. */
  #send(message: ToWorker, transfer: readonly Transferable[]): void {
    if (transfer.length === 0) this.#port.postMessage(message);
    else this.#port.postMessage(message, transfer as Transferable[]);
  }

  /**
   * Writes a job, whose task the worker knows by this key, into shared memory; false if the job has to be posted. {@linkcode Line.ring}
   * follows, once for many.
   */
  call(key: number, run: number, id: string | number, args: readonly unknown[]): boolean {
    return this.#unannounced === undefined && this.#requests.push(key, run, id, args);
  }

  /**
   * Writes a chunk of numbers into shared memory; false if it has to be posted: writing objects takes as long as copying them in a message.
   */
  #writeChunk(message: RunMessage & { type: "chunk" }): boolean {
    const { items, numbers } = message;
    if (this.#unannounced !== undefined || !ArrayBuffer.isView(items) || numbers !== undefined) return false;
    if (!this.#requests.push(CHUNK, message.run, message, [])) return false;
    this.#chunks.add(message.run);
    this.ring(1);
    return true;
  }

  /** Notes that this many more, or fewer, jobs are to be answered. */
  #count(jobs: number): void {
    const wasBusy = this.#open > 0;
    this.#open += jobs;
    const isBusy = this.#open > 0;
    if (wasBusy !== isBusy && !this.#closed) busyLines += isBusy ? 1 : -1;
  }

  /**
   * Whether a call may have been refused because much of the room is taken, or because a getter made it while another was being written.
   */
  get isFull(): boolean {
    return this.#requests.isCrowded;
  }

  get isAwake(): boolean {
    return Atomics.load(this.#bells, WORKER) === AWAKE;
  }

  /** Tells the worker that this many jobs were written. */
  ring(calls: number): void {
    this.#count(calls);
    this.#decideWhoSpins();
    this.#expectReply(this.#wakeSoon(calls));
  }

  /**
   * Lets the worker of this line spin when it has done its jobs, if there is a core for each worker that has jobs or may be spinning, and
   * one for the caller. If not, none may for the next {@linkcode CALM} times: one that spins for nothing would hold up the others, or the
   * caller.
   */
  #decideWhoSpins(): void {
    let active = 0;
    for (const line of lines) if (line === this || line.#open > 0 || line.#bells[MAY_SPIN] === 1) active++;
    if (active < CORES) {
      if (++calm > CALM) this.#letSpin(1);
      return;
    }
    calm = 0;
    for (const line of lines) line.#letSpin(0);
  }

  /** Writes only what changes: the worker reads it from another core. */
  #letSpin(may: 0 | 1): void {
    if (this.#bells[MAY_SPIN] !== may) this.#bells[MAY_SPIN] = may;
  }

  /** Memory for the next reply, as {@linkcode SharedQueue.reuse} says. */
  reuse(buffer: ArrayBuffer): void {
    this.#replies.reuse(buffer);
  }

  /** Makes sure that replies are taken. A worker that is `awake` may have taken up already what it was sent. */
  #expectReply(awake: boolean): void {
    this.#emptyLooks = 0;
    if (!this.#listening) {
      this.#listening = true;
      // After the calls gathered in this turn have been sent.
      if (awake) queueMicrotask(() => queueMicrotask(this.#lookAndListen));
      else this.#listen();
    }
    if (this.#timer === undefined) this.#lookSoon();
  }

  #receiveByPort(message: FromWorker): void {
    this.#arrived.push({ message, after: this.#replies.end });
    if (this.#arrived.length === 1) this.#deliver();
  }

  /** Takes replies, and as long as something that has come by the port waits for its turn among them, takes more in portions. */
  #deliver = (most = portions.few): void => {
    if (this.#closed || this.#unreadable) return;
    if (most > 0 || this.#hasNews) this.drain(most);
    if (this.#arrived.length > 0) portions.join(this.#deliver);
  };

  /** Whether a message has come by the port, and everything is taken that was written before. */
  get #hasArrived(): boolean {
    return this.#arrived.length > 0 && !this.#closed && !this.#unreadable && !this.#replies.hasNextBefore(this.#arrived[0]!.after);
  }

  /**
   * Whether what has arrived is about the worker itself, such as that it has closed. That needs no portion: while those who hear of results
   * keep this thread busy, the worker would be taken for one that does not answer.
   */
  get #hasNews(): boolean {
    return this.#hasArrived && !("run" in this.#arrived[0]!.message);
  }

  /**
   * Takes the replies that are in shared memory by now, of `most` jobs at most. Those that have not come by the port yet are left to their
   * turn, or they would overtake one another. Those that are written meanwhile are left, too: whoever hears of a reply may send the next
   * job, and that have its reply, without end.
   */
  drain(most = ALL): void {
    if (!this.#hasReply && !this.#hasArrived) return;
    this.#emptyLooks = 0;
    const { end } = this.#replies;
    const until = this.#answers + most;
    // A report may lead here again.
    while (!this.#unreadable && (this.#answers < until || this.#hasNews)) {
      // In its turn: there may always be as many replies in memory as may be taken.
      if (this.#hasArrived) this.#reportArrived();
      else if (this.#replies.hasNextBefore(end)) this.#receive(until - this.#answers);
      else break;
    }
    this.#receiveItems();
    this.#events.delivered();
  }

  /**
   * Called within a turn of a caller that has more to send: wakes the worker, which should not wait for the end of the turn, and takes what
   * jobs have returned, up to a reply of another kind, and `most` at most. Returns how many.
   */
  takeReturned(most: number): number {
    if (this.#unheard > 0) this.#wakeNow();
    // It is negative if, of those that were taken elsewhere, one led to more being taken: by an observer that cancels a running job.
    if (most <= 0 || this.#closed || this.#items !== undefined) return 0;
    if (!this.#hasReply || this.#replies.nextKind !== RETURNED) return 0;
    this.#emptyLooks = 0;
    const before = this.#answers;
    this.#receiveReturned(most);
    this.#events.delivered();
    return this.#answers - before;
  }

  /** Reports what has come by the port first, or the items before it. */
  #reportArrived(): void {
    if (this.#items !== undefined) return this.#receiveItems();
    const { message } = this.#arrived.shift()!;
    if (isLast(message)) {
      this.#ended(message.run);
      // Deno hands over a hundred messages in one tick, one by one.
      portions.handOver(1, false);
    }
    this.#events.message(message);
  }

  get #hasReply(): boolean {
    return this.#replies.hasNext && !this.#unreadable;
  }

  /** Gives the worker up. Reported later, as code that takes replies does not expect it. */
  #giveUp(): void {
    this.#unreadable = true;
    queueMicrotask(this.#events.unreadable);
  }

  /** Receives the next reply, or, if it is what a job returned, all replies of that kind that follow, `most` at most. */
  #receive(most: number): void {
    const replies = this.#replies;
    const kind = replies.nextKind;
    // Items first, and then return: reporting them may lead here again, so that the next reply is a different one after it.
    if (this.#items !== undefined && kind !== ITEM && kind !== ITEM_THREW) return this.#receiveItems();
    if (kind === RETURNED) return this.#receiveReturned(most);
    try {
      replies.take();
    } catch {
      return this.#giveUp();
    }
    if (replies.isAstray) return this.#giveUp();
    const { number: run, label: value, values } = replies;
    if (kind === ITEM || kind === ITEM_THREW) return this.#gather(run, values[0] as number, value, kind === ITEM_THREW);
    if (kind === ITEMS) return this.#receiveChunk(run, value as ItemsMessage["values"], values as [number, boolean, number]);
    this.#ended(run);
    portions.handOver(1);
    if (kind === THREW) this.#events.message({ type: "threw", run, thrown: value as Thrown });
    else this.#events.message({ type: "skipped", run });
  }

  #receiveReturned(most: number): void {
    const runs: number[] = [], values: unknown[] = [];
    try {
      this.#replies.takeAll(RETURNED, runs, values, most);
    } catch {
      this.#giveUp();
    }
    // There is no telling which of these were written.
    if (this.#replies.isAstray) return this.#giveUp();
    this.#answered(runs);
    portions.handOver(runs.length);
    this.#events.returned(runs, values);
  }

  #receiveChunk(run: number, values: ItemsMessage["values"], [from, last, elapsed]: [number, boolean, number]): void {
    if (last) this.#ended(run);
    this.#events.message({ type: "items", run, from, values, thrown: [], last, elapsed });
  }

  #ended(run: number): void {
    this.#chunks.delete(run);
    this.#answered([run]);
  }

  #answered(runs: number[]): void {
    this.#answers += runs.length;
    this.#count(-runs.length);
    if (this.#unannounced !== undefined && runs.includes(this.#unannounced)) this.#unannounced = undefined;
  }

  /** Gathers consecutive items, to report them together. */
  #gather(run: number, from: number, value: unknown, threw: boolean): void {
    const before = this.#items;
    // Between two of them there may be others, whose results are in memory.
    const follows = before?.run === run && before.from + before.values.length === from;
    const items = follows ? before : this.#items = { type: "items", run, from, values: [], thrown: [], last: false, elapsed: 0 };
    items.values.push(threw ? undefined : value);
    if (threw) items.thrown.push([from, value as Thrown]);
    // Only after this one is noted: reporting may lead to the next.
    if (before !== undefined && !follows) this.#events.message(before);
  }

  #receiveItems(): void {
    const items = this.#items;
    this.#items = undefined;
    if (items !== undefined) this.#events.message(items);
  }

  close(): void {
    this.#count(-this.#open);
    this.#closed = true;
    lines.delete(this);
    this.#port.close();
    if (this.#timer !== undefined) timers.stop()(this.#timer);
    // So that nothing is left waiting on the memory.
    Atomics.notify(this.#bells, CALLER);
  }

  /** Wakes the worker at the end of the turn, or as soon as it has enough to do. Returns whether it is awake already. */
  #wakeSoon(calls: number): boolean {
    if (this.isAwake) return true;
    this.#unheard += calls;
    if (this.#isWorthWaking) this.#wakeNow();
    else if (!this.#wakesAtEnd) {
      this.#wakesAtEnd = true;
      queueMicrotask(this.#wakeAtEnd);
    }
    return false;
  }

  get #isWorthWaking(): boolean {
    const { pace } = this;
    return pace >= WORTH_WAKING || (this.#unheard >= FEWEST && (this.#unheard >= MOST || this.#unheard * pace >= WORTH_WAKING));
  }

  #wakeAtEnd = (): void => {
    this.#wakesAtEnd = false;
    if (this.#unheard > 0) this.#wakeNow();
  };

  #wakeNow(): void {
    this.#unheard = 0;
    this.#wake(true);
  }

  #wake(byMessage: boolean): void {
    if (Atomics.compareExchange(this.#bells, WORKER, ASLEEP, AWAKE) === ASLEEP) Atomics.notify(this.#bells, WORKER);
    else if (byMessage && !this.#closed && Atomics.compareExchange(this.#bells, WORKER, LISTENING, AWAKE) === LISTENING) {
      if (Atomics.notify(this.#bells, WORKER) === 0) this.#port.postMessage({ type: "wake" } satisfies ToWorker);
    }
  }

  /** Makes the worker hear a message that is not announced in the queue. */
  #hail(): void {
    if (Atomics.compareExchange(this.#bells, WORKER, AWAKE, CALLED) !== AWAKE) this.#wake(false);
  }

  /** Looks for replies at the end of the turn, and waits if there are none. */
  #lookAndListen = (): void => {
    if (this.#closed) return;
    if (!this.#hasReplySoon()) return this.#listen();
    if (this.pace < QUICK) soon(this.#take);
    else atNextTick(this.#take);
  };

  /** Whether there is a reply; spins for one if all are due. */
  #hasReplySoon(): boolean {
    return this.#areDue ? this.#replies.spin(DUE_SOON) : this.#replies.hasNext;
  }

  /** Whether all its jobs are due very soon, and no other line has any. */
  get #areDue(): boolean {
    if (this.#open === 0 || this.#open * this.pace >= DUE_SOON) return false;
    return busyLines === 1 && CORES > 1 && this.isAwake;
  }

  /**
   * Waits for replies. A worker that has to be woken is woken after this: of replies that come while Deno is just about to wait, it hears
   * one in seven half a millisecond late.
   */
  #listen(): void {
    if (this.#closed) return;
    Atomics.store(this.#bells, CALLER, ASLEEP);
    // A worker that writes now sees that it has to wake this thread; one that wrote just before did not.
    if (this.#replies.hasNext) return void soon(this.#woken);
    const waiting = Atomics.waitAsync(this.#bells, CALLER, ASLEEP);
    if (waiting.async) waiting.value.then(this.#rung);
    else soon(this.#woken);
  }

  /** Schedules a look for replies that the worker may not ring for. Except for those of a chunk, these are never the last. */
  #lookSoon(): void {
    if ((this.#open > 1 || this.#chunks.size > 0) && this.#emptyLooks < LOOKS && !this.#closed) {
      this.#timer ??= timers.start()(this.#lookInTime, LOOK_EVERY);
    }
  }

  #lookInTime = (): void => betweenTurns(this.#look);

  #look = (): void => {
    if (this.#closed) return;
    this.#timer = undefined;
    this.#emptyLooks = this.#replies.hasNext ? 0 : this.#emptyLooks + 1;
    const most = portions.atTick();
    if (most > 0) this.drain(most);
    // Of others there may be more at each look.
    else if (this.#replies.hasNext) portions.join(this.#deliver);
    this.#lookSoon();
  };

  /** Deno goes on with what was rung for as long as there is any, even if each look for replies leads to the next ring. */
  #rung = (): void => betweenTurns(this.#woken);

  #woken = (): void => {
    Atomics.store(this.#bells, CALLER, AWAKE);
    this.#take(portions.atTick());
  };

  /**
   * Takes replies, as long as there are some at each turn of the event loop: waiting, and being woken for each, costs worker and caller
   * more.
   */
  #take = (most = portions.few): void => {
    if (this.#closed) return;
    if (most > 0) this.drain(most);
    if (this.#open === 0) this.#listening = false;
    else if (this.#replies.hasNext) portions.join(this.#take);
    else if (this.pace < LONG) atNextTick(this.#lookOnce);
    else this.#listenAgain();
  };

  /** Waits for more replies. */
  #listenAgain(): void {
    this.#listen();
    this.#emptyLooks = 0;
    this.#lookSoon();
  }

  #lookOnce = (): void => {
    if (this.#hasReplySoon()) return this.#take(portions.atTick());
    if (this.#open > 0) this.#listenAgain();
    else this.#listening = false;
  };
}

/** Whether a message is the last about its job. */
function isLast(message: FromWorker): message is Extract<FromWorker, { run: number }> {
  switch (message.type) {
    case "returned":
    case "threw":
    case "skipped":
      return true;
    case "items":
      return message.last;
    default:
      return false;
  }
}
