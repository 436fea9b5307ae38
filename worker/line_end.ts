import type { LineMemory } from "./line.ts";
import type { FromRuntime, ItemsMessage, RunByPort, RunMessage } from "./protocol.ts";
import type { Calls, Runtime } from "./runtime.ts";
import type { openSharedQueue } from "./shared_queue.ts";

declare const setImmediate: (callback: () => void) => unknown;

/** What {@linkcode openLine} needs. */
export interface LineEndParts {
  memory: LineMemory;
  openSharedQueue: typeof openSharedQueue;
  runtime: Runtime;
  /** Whether this is a worker of node:worker_threads: Deno has loaded what timers need there, and may halt it at any moment. */
  hasTimers: boolean;
}

/** The worker's end of a line. */
export interface LineEnd {
  /** A job, or a message to wake the worker, has come by the port. */
  receive(message: RunByPort | { type: "wake" }): void;
  /** Sends what a job returned if it is small, and detaches what was to be moved with it; false if it has to go by the port. */
  returned(run: number, value: unknown, transfer?: Transferable[]): boolean;
  /** The same for another reply. */
  reply(message: FromRuntime, transfer?: Transferable[]): boolean;
  /** A reply that could not be sent here has gone by the port. */
  posted(message: FromRuntime): void;
  /** Hands over memory that nobody else uses, to be filled with what is read next: an argument, or the items of a chunk. */
  reuse(buffer: ArrayBuffer): void;
  /** Sends nothing more. */
  close(): void;
  /** The runtime has room again, after it had none. */
  resume(): void;
}

/**
 * Opens the worker's end of a line, whose other end is {@linkcode Line}: gives the runtime one job after the other, and waits for more.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function openLine({ memory, openSharedQueue, runtime, hasTimers }: LineEndParts): LineEnd {
  // As in line.ts, which a worker does not have.
  const WORKER = 0, CALLER = 16, MAY_SPIN = 48, PACE = 16, AWAKE = 0, ASLEEP = 1, LISTENING = 2, BY_PORT = -1, CHUNK = -2;
  const RETURNED = 1, SKIPPED = 2, ITEM = 3, THREW = 4, ITEM_THREW = 5, ITEMS = 6;
  /**
   * How long the worker sleeps, and how long it works, before it goes back to its event loop, in ms. Shorter, and callers that take their
   * time between two jobs pay for a message each time, and jobs for a turn of the event loop, which takes a tenth of a ms; longer, and
   * timers and sockets that tasks have left open wait longer.
   */
  const SLEEP = 4, LONGEST_STRETCH = 10;
  /**
   * After at most FEW jobs in a row the worker spins for SPIN ms for the next one before it sleeps, if the caller says that there is a core
   * for that: a caller that makes one call after another, or a few at a time, is then answered without waking a core, in a tenth of the
   * time. Shorter, and a caller that has to be woken comes too late; longer, and more of the core is burned when nothing comes. After more
   * jobs there is no hurry. After each of SPIN_PARTS parts of that time it looks whether the core is still free.
   */
  const FEW = 2, SPIN = 0.2, SPIN_PARTS = 10;
  /**
   * It no longer spins once SOME_LATE jobs in a row took longer than LATE ms to come, which is SPIN and the time that waking takes: with a
   * job each ms it would burn a fifth of a core in vain, and hold up a caller that the kernel has put on the same core.
   */
  const LATE = 0.4, SOME_LATE = 3;
  /**
   * How long it then sleeps before a turn of the event loop, in ms: the caller, which has just been woken for the reply, may have been put
   * on this core, and would wait for the turn. Shorter, and it may not have run; longer, and the turn may hold up the next job.
   */
  const READ_FIRST = 0.2;
  /** How many are few if jobs take less than SHORT ms: if they take longer, several workers share them. */
  const SHORT = 0.05, FEW_IF_SHORT = 32;
  /**
   * How many are few if jobs take less than TINIEST ms, so that each means more work for the caller than for the worker: as many as a
   * caller hands out in a turn. But only after WARM jobs: until then V8 compiles what runs, and spinning takes a core from that.
   */
  const TINIEST = 0.002, FEW_IF_TINIEST = 1024, WARM = 50_000;
  /**
   * A sleeping caller is not woken for each of many jobs that take longer than WORTH_HOLDING ms, but after LONGEST_HELD ms. Longer, and
   * results are held back longer; shorter, and the caller takes more of the cores that workers compute on. Shorter jobs keep a caller awake
   * anyway.
   */
  const WORTH_HOLDING = 0.02, LONGEST_HELD = 0.8;
  /** The weight of the latest job in the pace. Less, and a change shows late; more, and a single job is taken for a change. */
  const LATEST = 0.2;
  /**
   * If jobs take less than TINY ms, the clock is read after FEW_TINY of them, or before the worker waits: reading it takes as long as such
   * a job. Until then calls of one task follow each other without a turn for microtasks. Fewer, and the clock takes more of the time; more,
   * and a job that takes longer is noticed after more others.
   */
  const TINY = 0.005, FEW_TINY = 8;
  /**
   * How many ticks of the event loop, of a µs each, make a turn: after 30 Deno has looked for messages, after 60 at sockets, and timers are
   * due in each. Fewer, and messages may wait for another turn; more only take time.
   */
  const TICKS = 32;
  /**
   * A turn is over earlier if it has taken this many ms, as waiting jobs did work in it. Shorter, and others may not have had a turn;
   * longer, and the next jobs wait for all of that work.
   */
  const LONGEST_TURN = 1;
  const nothing: unknown[] = [];

  const { compareExchange, load, notify, store, wait, waitAsync } = Atomics;
  // A task may replace the clock that it sees.
  const clock = performance.now.bind(performance);
  const { apply } = Reflect;
  const Buffer = ArrayBuffer;
  const { isView } = ArrayBuffer;
  const { transfer: moveAway } = ArrayBuffer.prototype;
  /** Read only if it is needed, as that makes Deno load what timers need. */
  const startImmediate = hasTimers ? setImmediate : undefined;
  const ticks = new Int32Array(new SharedArrayBuffer(4));
  const bells = new Int32Array(memory.bells);
  const pace = new Float64Array(memory.bells);
  const requests = openSharedQueue(memory.requests);
  const replies = openSharedQueue(memory.replies);
  /** Jobs that have come by the port. */
  const byPort: RunByPort[] = [];
  /** How many of them have been announced by the queue. */
  let turnsOfPort = 0;
  /** Whether the last job came by the port. The next one then probably does too, and is heard soonest in the event loop. */
  let cameByPort = false;
  /** The chunks that have had an item sent by the port. */
  const byPortToo = new Set<number>();
  let working = false;
  /** Whether the bell is heard in the event loop. It may still be from an earlier time there. */
  let hearsBell = false;
  /** Whether replies may be held back, as others follow: not while the event loop has its turn, as that may take long. */
  let mayHold = false;
  let turnBegan = 0;
  /** When the first job that was not timed yet began. */
  let begin = 0;
  /** How many jobs were not timed yet. */
  let untimed = 0;
  /** How many jobs there were since it last slept. */
  let inARow = 0;
  /** How many there were before that. */
  let jobsBefore = 0;
  /** How many of the last jobs that it waited for came late, in a row. */
  let late = 0;
  /** Whether there are replies that the caller was not woken for. */
  let held = false;
  /** Since when; 0 until the clock is read. */
  let heldSince = 0;
  /** When there was last a reply that could be held back, or the caller began to look for one. */
  let repliedAt = 0;
  /** When items of a chunk that goes on were last sent. */
  let itemsAt = 0;
  /** When the job that occupies the runtime began. */
  let occupiedSince: number | undefined;

  /** Gives the runtime jobs as long as it has room and there are some. */
  async function work(): Promise<void> {
    if (working) return;
    working = true;
    store(bells, WORKER, AWAKE);
    // To have nothing beneath on the stack: Deno takes 10 µs for each frame in the stack of an error, and frames of the event loop help
    // nobody.
    await undefined;
    begin = clock();
    untimed = 0;
    mayHold = true;
    // Jobs that return promises lead here, one after the other, and those of many are settled without the event loop.
    if (begin - turnBegan >= LONGEST_STRETCH) await turn();
    /** Chunks are never tiny. */
    let isChunk = false;
    while (runtime.hasRoom) {
      let jobs = 1;
      if (turnsOfPort === 0 && requests.take()) {
        if (requests.kind === BY_PORT) {
          turnsOfPort++;
          continue;
        }
        cameByPort = false;
        isChunk = requests.kind === CHUNK;
        if (isChunk) runtime.receive(requests.label as RunMessage);
        else jobs = runtime.callAll(requests as Calls, pace[PACE]! < TINY ? FEW_TINY - untimed : 1);
      } else if (turnsOfPort > 0 && byPort.length > 0) {
        cameByPort = true;
        turnsOfPort--;
        const message = byPort.shift()!;
        isChunk = message.type === "chunk";
        if (message.type !== "nothing") runtime.receive(message);
      } else {
        if (held) ring();
        if (turnsOfPort > 0 || !waitForJob()) break;
        // The caller, which has just sent that job, looks for replies.
        repliedAt = begin = clock();
        continue;
      }
      inARow += jobs;
      if (!runtime.hasRoom) {
        occupiedSince = begin;
        break;
      }
      // Microtasks that tasks have left get their turn before the next job, or after a few tiny ones.
      await undefined;
      untimed += jobs;
      if (untimed < FEW_TINY && !isChunk && pace[PACE]! < TINY && requests.hasNext) continue;
      if (!readClock() || hasJobBeforeTurn()) continue;
      await turn();
    }
    working = mayHold = false;
    // The jobs that still run may take long.
    if (held) ring();
  }

  /** Measures how long the last jobs took, and rings if it is time to; true if it is time for a turn of the event loop. */
  function readClock(): boolean {
    const now = clock();
    // Jobs that were taken back say nothing of how long others take: with them counted, the next long ones would pass for tiny.
    if (untimed > 0) measure((now - begin) / untimed);
    begin = now;
    untimed = 0;
    if (held) {
      if (heldSince === 0) heldSince = now;
      // After a while without a reply the caller no longer looks for one. What goes by the port, and a turn, are such a while, too.
      if (!requests.hasNext || now - repliedAt > LONGEST_HELD || now - heldSince + pace[PACE]! > LONGEST_HELD) ring();
      repliedAt = now;
    }
    return now - turnBegan >= LONGEST_STRETCH;
  }

  /**
   * Gives the event loop a turn. Not by a message to itself: the loop would always have something to do, and Deno then looks at timers and
   * sockets only at one tick in sixty (tokio's `event_interval`).
   */
  async function turn(): Promise<void> {
    mayHold = false;
    if (held) ring();
    await tick();
    // Only now, as microtasks that jobs have left may have run until the first tick.
    const end = clock() + LONGEST_TURN;
    for (let i = 1; i < TICKS && clock() < end; i++) await tick();
    begin = turnBegan = clock();
    mayHold = true;
  }

  /**
   * `setImmediate` and `setTimeout`, even for one tick, make Deno load something that takes 4 ms and 1.5 MB in a worker. A worker of
   * node:worker_threads has loaded it anyway; and if it ended during a tick of `Atomics.waitAsync`, Deno might print that its execution was
   * terminated.
   */
  function tick(): unknown {
    if (startImmediate !== undefined) return new Promise<void>((resolve) => void startImmediate(resolve));
    const { value } = waitAsync(ticks, 0, 0);
    notify(ticks, 0);
    return value;
  }

  /** Waits for a job, which is noticed at once here; false if none comes, and it is time for the event loop. */
  function waitForJob(): boolean {
    const isIdle = runtime.idle && !cameByPort;
    // A job that has come by the port is about to be announced in the queue, without a message.
    if (byPort.length > 0 || isIdle) {
      const spins = late < SOME_LATE && inARow <= fewJobs();
      jobsBefore += inARow;
      inARow = 0;
      const since = clock();
      const found = spins && spin() || sleep(SLEEP);
      late = found && clock() - since < LATE ? 0 : late + 1;
      if (found) return true;
    }
    store(bells, WORKER, LISTENING);
    if (requests.hasNext && compareExchange(bells, WORKER, LISTENING, AWAKE) === LISTENING) return true;
    if (isIdle) listenForBell();
    return false;
  }

  /**
   * Has the bell heard in the event loop too, where it is half as long on its way as a message. Not while jobs run: woken by the bell, Deno
   * does not look at timers and sockets. And not in a worker of node:worker_threads: if it were halted in what the bell has led to, Deno
   * might print that its execution was terminated.
   */
  async function listenForBell(): Promise<void> {
    if (hearsBell || hasTimers) return;
    const waiting = waitAsync(bells, WORKER, LISTENING);
    // If not, the caller has just seen that nobody waits, and has sent a message.
    if (!waiting.async) return;
    hearsBell = true;
    await waiting.value;
    hearsBell = false;
    start();
  }

  /** Begins to work, called by the event loop. */
  function start(): void {
    if (!working) turnBegan = clock();
    work();
  }

  /** Spins as long as the caller says that there is a core for that; true if there is a job. */
  function spin(): boolean {
    for (let part = 0; part < SPIN_PARTS && load(bells, MAY_SPIN) === 1; part++) {
      if (requests.spin(SPIN / SPIN_PARTS)) return true;
    }
    return false;
  }

  /** Waits for so many ms without spinning; true if there is a job. */
  function sleep(time: number): boolean {
    // Unless it is called to its event loop, which may happen at any moment.
    if (compareExchange(bells, WORKER, AWAKE, ASLEEP) === AWAKE && !requests.hasNext) wait(bells, WORKER, ASLEEP, time);
    compareExchange(bells, WORKER, ASLEEP, AWAKE);
    return requests.hasNext || byPort.length > 0;
  }

  /** Lets a caller that takes its time read the reply before a turn begins; true if a job comes instead: then the turn comes after that. */
  function hasJobBeforeTurn(): boolean {
    // A job that waits already, sent before the reply, does not put the turn off.
    if (late < SOME_LATE || !runtime.idle || cameByPort || requests.hasNext || !sleep(READ_FIRST)) return false;
    late = 0;
    // The sleep is no time of that job.
    repliedAt = begin = clock();
    return true;
  }

  /** How many jobs in a row are few, judged by the pace. */
  function fewJobs(): number {
    if (pace[PACE]! >= SHORT) return FEW;
    return pace[PACE]! < TINIEST && jobsBefore > WARM ? FEW_IF_TINIEST : FEW_IF_SHORT;
  }

  /** Tells the caller of a reply, now or soon. */
  function announce(): void {
    // A reply that comes while the loop in `work` does not run is not held back: there may be no other for long.
    if (mayHold && pace[PACE]! > WORTH_HOLDING) held = true;
    else ring();
  }

  /**
   * The same for items of a chunk that goes on, whose next item may take long. While items follow each other quickly, the caller looks for
   * them.
   */
  function announceItems(): void {
    const now = clock();
    const mayWait = now - itemsAt < LONGEST_HELD;
    itemsAt = now;
    if (mayWait) announce();
    else ring();
  }

  /** Wakes the caller. */
  function ring(): void {
    held = false;
    heldSince = 0;
    if (load(bells, CALLER) === ASLEEP && compareExchange(bells, CALLER, ASLEEP, AWAKE) === ASLEEP) notify(bells, CALLER);
  }

  function measure(took: number): void {
    const before = pace[PACE]!;
    pace[PACE] = before === Infinity ? took : before + (took - before) * LATEST;
  }

  function write(message: Exclude<FromRuntime, ItemsMessage>): boolean {
    switch (message.type) {
      case "threw":
        // Most errors are a few strings; those with something large or not plain go by the port.
        return replies.push(THREW, message.run, message.thrown, nothing);
      case "skipped":
        return replies.push(SKIPPED, message.run, 0, nothing);
      default:
        return false;
    }
  }

  /**
   * Items of a chunk must arrive in order: after one that goes by the port, the others do too. Those in memory have already arrived.
   */
  function writeItems(message: ItemsMessage, transfer: Transferable[] | undefined): boolean {
    const { run } = message;
    const movable = transfer === undefined || transfer.length === 0 || message.values?.length === 1 && areBuffers(transfer);
    if (movable && !byPortToo.has(run) && writeInTurn(message)) return true;
    byPortToo.add(run);
    return false;
  }

  function writeInTurn({ run, from, values, thrown, last, elapsed }: ItemsMessage): boolean {
    if (thrown.length === 0 && (values === undefined || isView(values))) return replies.push(ITEMS, run, values, [from, last, elapsed]);
    if (last || values?.length !== 1) return false;
    const error = thrown[0];
    return error === undefined ? replies.push(ITEM, run, values![0], [from]) : replies.push(ITEM_THREW, run, error[1], [from]);
  }

  /** Whether all are buffers of fixed size that can be moved: small ones are copied instead. */
  function areBuffers(list: Transferable[]): list is ArrayBuffer[] {
    try {
      return list.every((each, i) => each instanceof Buffer && !each.detached && !each.resizable && list.indexOf(each) === i);
    } catch {
      // One only passes for a buffer, as a proxy of one does.
      return false;
    }
  }

  /** Detaches buffers as if they had been moved: for the task it must make no difference how small they are. */
  function detach(buffers: ArrayBuffer[]): void {
    for (const buffer of buffers) {
      try {
        requests.reuse(apply(moveAway, buffer, nothing));
      } catch {
        // The buffer of a WebAssembly memory cannot be detached.
      }
    }
  }

  return {
    receive(message) {
      if (message.type !== "wake") {
        byPort.push(message);
        if (!message.inTurn) turnsOfPort++;
      }
      start();
    },
    posted(message) {
      // Only now: what the port refuses is sent once more, in another form.
      if (message.type === "items" && message.last) byPortToo.delete(message.run);
    },
    reuse: (buffer) => requests.reuse(buffer),
    close: () => replies.close(),
    resume() {
      if (occupiedSince !== undefined) measure(clock() - occupiedSince);
      occupiedSince = undefined;
      work();
    },
    returned(run, value, transfer) {
      if (transfer !== undefined && !areBuffers(transfer)) return false;
      if (!replies.push(RETURNED, run, value, nothing)) return false;
      announce();
      if (transfer !== undefined) detach(transfer);
      return true;
    },
    reply(message, transfer) {
      const sent = message.type === "items" ? writeItems(message, transfer) : write(message);
      if (!sent) return false;
      if (message.type === "items" && !message.last) announceItems();
      else announce();
      if (transfer !== undefined) detach(transfer as ArrayBuffer[]);
      return true;
    },
  };
}
