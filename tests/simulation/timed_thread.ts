import {
  CLAIM_WORDS,
  FINISHED,
  type FromRuntime,
  SENT,
  STARTED,
  type Thread,
  type ThreadEvents,
  type ToRuntime,
} from "../../worker/protocol.ts";
import type { Clock } from "../../pool/clock.ts";
import type { SimulatedClock } from "./simulated_clock.ts";
import type { TimedJob, Timetable } from "./timetable.ts";

/** How long things take, in ms: for a worker to be alive, to load, to wake up, to call a task; for its slot to hear of a reply. */
const START = 20, LOAD = 5, WAKE = 0.05, CALL = 0.0005, NOTICE = 0.02;

/** By how many ms timers are late. If they were not, rounds of the pool would keep step with jobs of a ms. */
const TIMER_DELAY = 0.17;

/** The clock as a pool sees it. */
export function withLateTimers(clock: Clock): Clock {
  const { now, timeOfDay, soon } = clock;
  return { now, timeOfDay, soon, after: (delay, callback) => clock.after(delay + TIMER_DELAY, callback) };
}

/** How often the caller looks for replies, and when it stops, as in `worker/line.ts`. */
const LOOK_EVERY = 1 + TIMER_DELAY, LOOKS = 2;

/** How a worker measures its pace, and for how long it holds back replies, as in `worker/line_end.ts`. */
const LATEST = 0.2, TINY = 0.005, FEW_TINY = 8, WORTH_HOLDING = 0.02, LONGEST_HELD = 0.8;

/** For how long a worker gathers the results of a chunk, as in `worker/running_chunks.ts`. */
const GATHER = 1;

/** A job that a worker was sent. */
interface JobRun {
  run: number;
  job: TimedJob;
}

/** A chunk of a map that it was sent. */
interface ChunkRun {
  run: number;
  items: TimedJob[];
  began: number;
  /** How many of them have ended, and how many results were sent when. */
  ended: number;
  sent: number;
  sentAt: number;
}

type Run = JobRun | ChunkRun;

/**
 * A worker without a thread, whose jobs take time by a clock. It takes them up, measures them and holds back replies as a real one does, so
 * that the pool sends ahead as much as it would to that.
 */
export class TimedThread implements Required<Thread> {
  readonly name: string;
  pace = Infinity;
  #events: ThreadEvents;
  #clock: SimulatedClock;
  #timetable: Timetable;
  #claims: Int32Array = new Int32Array(0);
  #capacity = 1;
  #hasEnded = false;
  /** What it was sent and has not taken up. */
  #inbox: Run[] = [];
  /** What its slot has not heard of yet. */
  #replies: (JobRun | FromRuntime)[] = [];
  /** When its slot will hear of them, and what cancels that. */
  #delivery: { due: number; cancel: () => void } | undefined;
  /** How many of the jobs that it was sent its slot has not heard of. */
  #open = 0;
  #looks = false;
  #emptyLooks = 0;
  /** Whether it takes one job after the other. */
  #isWorking = false;
  /** The jobs that it runs. */
  #running = new Set<Run>();
  /** When the first job that was not timed yet began. */
  #begin = 0;
  /** How many jobs were not timed yet. */
  #untimed = 0;
  /** When the jobs began that leave it no room for others. */
  #occupiedSince: number | undefined;

  constructor(events: ThreadEvents, name: string, { clock, timetable }: { clock: SimulatedClock; timetable: Timetable }) {
    this.name = name.replace("process-pool ", "");
    this.#events = events;
    this.#clock = clock;
    this.#timetable = timetable;
    this.#in(START, () => events.alive());
  }

  /** Has something happen after this many ms, unless it has ended by then. */
  #in(time: number, callback: () => void): () => void {
    return this.#clock.happens(time, () => this.#hasEnded || callback());
  }

  // The slot's side

  post(message: ToRuntime): void {
    switch (message.type) {
      case "load":
        this.#claims = message.claims;
        this.#capacity = message.capacity;
        return void this.#in(LOAD, () => {
          this.#timetable.idles(this);
          this.#events.message({ type: "loaded", exports: [] });
          this.#events.delivered();
        });
      case "run":
        this.call(0, message.run, message.id, message.args);
        return this.ring();
      case "chunk": {
        const items = Array.from(message.items as ArrayLike<number>, (item) => this.#timetable.job(item));
        this.#inbox.push({ run: message.run, items, began: 0, ended: 0, sent: 0, sentAt: 0 });
        this.#open++;
        return this.ring();
      }
      case "close":
        return void this.#in(NOTICE, () => this.#events.message({ type: "closed", thrown: undefined }));
    }
  }

  get fastPath(): this {
    return this;
  }

  call(_key: number, run: number, _id: string | number, [job]: readonly unknown[]): boolean {
    this.#inbox.push({ run, job: this.#timetable.job(job as number) });
    this.#open++;
    return true;
  }

  ring(): void {
    this.#workIn(WAKE);
    this.#emptyLooks = 0;
    this.#lookSoon();
  }

  readonly isFull = false;

  get isAwake(): boolean {
    return this.#isWorking;
  }

  reuse(): void {}

  takeReturned(most: number): number {
    return this.#deliver(most);
  }

  drain(): void {
    this.#deliver(Infinity);
  }

  stop(): void {
    this.#hasEnded = true;
    this.#timetable.works(this);
    this.#clock.happens(0, () => this.#events.gone());
  }

  // The worker's side

  #workIn(time: number): void {
    if (this.#isWorking) return;
    this.#isWorking = true;
    this.#in(time, () => {
      this.#begin = this.#clock.now();
      this.#untimed = 0;
      this.#work();
    });
  }

  get #hasRoom(): boolean {
    return this.#running.size < this.#capacity;
  }

  /** Takes jobs up to one that is not just to be answered, if it has room. */
  #work(): void {
    while (this.#hasRoom && this.#inbox.length > 0) {
      const next = this.#inbox.shift()!;
      if (this.#claim(next, SENT, STARTED)) return "items" in next ? this.#runChunk(next) : this.#run(next);
      this.#timetable.comeBack();
      this.#reply("items" in next ? { type: "skipped", run: next.run } : next);
    }
    this.#isWorking = false;
    if (this.#hasRoom) this.#readClock();
    else this.#occupiedSince = this.#begin;
    if (this.#replies.length > 0) this.#deliverIn(NOTICE);
  }

  #claim({ run }: Run, from: number, to: number): boolean {
    const word = run % (this.#claims.length / CLAIM_WORDS) * CLAIM_WORDS;
    return Atomics.compareExchange(this.#claims, word, from, to) === from;
  }

  #runChunk(chunk: ChunkRun): void {
    this.#timetable.startChunk(chunk.items, this);
    this.#running.add(chunk);
    chunk.began = chunk.sentAt = this.#clock.now();
    this.#runItem(chunk);
  }

  #runItem(chunk: ChunkRun): void {
    this.#in(Math.max(CALL, chunk.items[chunk.ended]!.time), () => {
      const last = ++chunk.ended === chunk.items.length;
      if (last) this.#running.delete(chunk);
      if (last || this.#clock.now() - chunk.sentAt >= GATHER) this.#sendItems(chunk, last);
      if (!last) return this.#runItem(chunk);
      this.#claim(chunk, STARTED, FINISHED);
      this.#timetable.idles(this);
      this.#untimed++;
      this.#readClock();
      this.#work();
    });
  }

  /** Sends the results that were gathered. */
  #sendItems(chunk: ChunkRun, last: boolean): void {
    const { run, sent: from, began } = chunk;
    const items = chunk.items.slice(from, chunk.ended);
    for (const item of items) this.#timetable.end(item);
    chunk.sent = chunk.ended;
    chunk.sentAt = this.#clock.now();
    this.#reply(
      { type: "items", run, from, values: items.map(({ number }) => number), thrown: [], last, elapsed: chunk.sentAt - began },
      last,
    );
  }

  #run(run: JobRun): void {
    const { job } = run;
    this.#timetable.start(job, this);
    this.#running.add(run);
    if (job.kills) this.#in(job.time / 2, () => this.#die());
    if (job.waits) this.#in(job.time, () => this.#settle(run));
    this.#in(job.waits ? CALL : Math.max(CALL, job.time), () => {
      if (!job.waits) this.#end(run);
      this.#untimed++;
      const isTimedLater = this.#untimed < FEW_TINY && this.pace < TINY && this.#inbox.length > 0;
      if (this.#hasRoom && !isTimedLater) this.#readClock();
      this.#work();
    });
  }

  /** A job that has waited for something ends. */
  #settle(run: JobRun): void {
    const hadRoom = this.#hasRoom;
    this.#end(run);
    if (hadRoom) return;
    if (this.#occupiedSince !== undefined) this.#measure(this.#clock.now() - this.#occupiedSince);
    this.#occupiedSince = undefined;
    this.#workIn(0);
  }

  #end(run: JobRun): void {
    this.#running.delete(run);
    this.#timetable.end(run.job);
    if (this.#running.size === 0) this.#timetable.idles(this);
    this.#reply(run);
    this.#claim(run, STARTED, FINISHED);
  }

  #die(): void {
    this.#hasEnded = true;
    this.#timetable.works(this);
    // What is in shared memory arrives nevertheless.
    this.#deliver(Infinity);
    for (const run of this.#running) if ("job" in run) this.#timetable.lose(run.job, START);
    this.#events.died({ reason: "died" });
    this.#clock.happens(0, () => this.#events.gone());
  }

  #readClock(): void {
    const now = this.#clock.now();
    if (this.#untimed > 0) this.#measure((now - this.#begin) / this.#untimed);
    this.#begin = now;
    this.#untimed = 0;
  }

  #measure(took: number): void {
    this.pace = this.pace === Infinity ? took : this.pace + (took - this.pace) * LATEST;
  }

  // Replies

  #reply(reply: JobRun | FromRuntime, mayHold = true): void {
    this.#replies.push(reply);
    const isHeld = mayHold && this.#isWorking && this.#inbox.length > 0 && this.pace > WORTH_HOLDING;
    this.#deliverIn(isHeld ? LONGEST_HELD : NOTICE);
  }

  #deliverIn(time: number): void {
    const due = this.#clock.now() + time;
    if (this.#delivery !== undefined && this.#delivery.due <= due) return;
    this.#delivery?.cancel();
    this.#delivery = { due, cancel: this.#in(time, () => this.#deliver(Infinity)) };
  }

  /** The caller looks for replies of which it is not told. */
  #lookSoon(): void {
    if (this.#looks || this.#open < 2 || this.#emptyLooks === LOOKS) return;
    this.#looks = true;
    this.#in(LOOK_EVERY, () => {
      this.#looks = false;
      this.#emptyLooks++;
      this.#deliver(Infinity);
      this.#lookSoon();
    });
  }

  /** The slot hears of replies; returns of how many. */
  #deliver(most: number): number {
    const replies = this.#replies.splice(0, most);
    if (this.#replies.length === 0) {
      this.#delivery?.cancel();
      this.#delivery = undefined;
    }
    if (replies.length === 0) return 0;
    this.#emptyLooks = 0;
    this.#report(replies);
    this.#events.delivered();
    return replies.length;
  }

  /** In order: jobs that follow each other together. */
  #report(replies: (JobRun | FromRuntime)[]): void {
    const jobs: JobRun[] = [];
    const reportJobs = (): void => {
      const returned = jobs.splice(0);
      if (returned.length > 0) this.#events.returned(returned.map(({ run }) => run), returned.map(({ job }) => job.number));
    };
    for (const reply of replies) {
      if (!("type" in reply && reply.type === "items" && !reply.last)) this.#open--;
      if ("job" in reply) jobs.push(reply);
      else {
        reportJobs();
        this.#events.message(reply);
      }
    }
    reportJobs();
  }
}
