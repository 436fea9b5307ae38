import type { Thread } from "./protocol.ts";

/**
 * How many jobs are sent ahead to a worker at most: as many as a pool of up to four workers admits by default. Fewer, and a second worker
 * is woken for tiny jobs that one could do; more would only have to be taken back when their worker dies.
 */
export const MOST_AHEAD = 1023;

/**
 * A worker is sent at least this many ms of work, including the job that it runs. Less, and it waits for its caller between two jobs; more,
 * and jobs wait longer behind one that takes longer than those before.
 */
const TIME_AHEAD = 2;

/**
 * A worker whose jobs take less than `TINY` ms gets the next ones too until it has `WORTH_ANOTHER` ms of work. A caller takes about half a
 * µs to hand out a job and take its result, so one worker, or a few, keep up with it, and waking another for less work than this costs more
 * than it saves: with empty jobs the second of two workers made a program a fifth slower. Larger, and jobs wait that another worker could
 * run.
 */
const TINY = 0.005, WORTH_ANOTHER = 0.5;

/**
 * A worker that will have done what it holds in less than this many ms gets the next job rather than one that sleeps: that is how long
 * waking takes. Less, and of a few short jobs each waits for a worker to wake; more, and they wait for each other.
 */
const WAKING = 0.05;

/**
 * If several workers share jobs, each is given this many ms of them at once. Less, and choosing a worker takes as long as the jobs do;
 * more, and the last of them wait behind others while a worker with less to do could run them.
 */
const SHARE = 0.05;

/**
 * Jobs of less than `SHORT` ms are short. The first `COLD` of a worker take `SPEED_UP` times as long as later ones: by then V8 has compiled
 * what they need.
 */
const SHORT = 1, COLD = 32, SPEED_UP = 10;

/**
 * A worker that should be done, and has not answered for this many ms, has a job that takes longer. Less, and a thread that just did not
 * get to run is taken for one; more, and jobs are sent behind that job for longer.
 */
const OVERDUE = 1;

/**
 * A worker that goes on answering, but has more than this many ms of work ahead, was sent that when jobs took less time. It is late, too.
 * Less, and jobs are taken back that would be done as soon where they are; more, and they wait while another worker has nothing to do.
 */
const TOO_MUCH = 2 * TIME_AHEAD;

/**
 * A worker that has not answered for this many ms is running something that is not short, such as a chunk of a map. Less, and others are
 * started for jobs that are only cold; more, and jobs wait longer that another worker could run.
 */
const SILENT = 4;

/** What a {@linkcode Workload} has to know of its worker. */
export interface WorkloadOptions {
  /** How many jobs the worker runs at a time. */
  capacity: number;
  /** The pool's clock, in milliseconds. */
  now: () => number;
  /** Whether there is an answer that was not taken yet. */
  hasUnread: () => boolean;
}

/**
 * How much a worker has to do, and so how many more jobs it is sent: more than it can run at a time if, by its pace, they are short. Its
 * slot tells it of every job that is sent or leaves, and of answers; which jobs those are, and whether the worker takes any at all, only
 * the slot knows.
 */
export class Workload {
  #thread: Pick<Thread, "pace">;
  #capacity: number;
  #now: () => number;
  #hasUnread: () => boolean;
  /** How many jobs the worker may hold at its pace. */
  #room: number;
  /** How many it may hold at this moment: looked at for every job, so it is ready. */
  #limit: number;
  #load = 0;
  /** How many of these are withdrawn. */
  #withdrawn = 0;
  /** How many jobs were ever sent. */
  #sent = 0;
  /** When the worker last answered, or was sent something while it held nothing. */
  #answeredAt = 0;
  /** Whether it has answered since {@linkcode Workload.delivered} was last called. */
  #hasAnswered = false;
  /** Whether it has answered since {@linkcode Workload.isLate} was last called. */
  #wasOnTime = false;
  /** Whether one job holds up others, so that the worker is sent nothing ahead of time until it answers. */
  #heldUp = false;
  /** Whether shared memory has no room for the next job until the worker has answered. */
  #isFull = false;
  /**
   * The number of sent jobs at which it is checked again whether the worker is overdue, and by how much that grows: a check takes a tenth
   * of the time of sending a job.
   */
  #lookAfter = 0;
  #lookStep = 1;

  /** @param thread The worker, which knows how long its recent jobs took. */
  constructor(thread: Pick<Thread, "pace">, { capacity, now, hasUnread }: WorkloadOptions) {
    this.#thread = thread;
    this.#capacity = this.#room = this.#limit = capacity;
    this.#now = now;
    this.#hasUnread = hasUnread;
  }

  // What the slot tells

  /** A job is being sent; returns how many were sent before. */
  add(): number {
    if (this.#load++ === 0) this.#answeredNow();
    return this.#sent++;
  }

  /** A job was taken back, or given up; the worker holds it until it has come across it. */
  withdraw(): void {
    this.#withdrawn++;
  }

  /** The worker holds a job no longer. */
  remove(wasWithdrawn: boolean): void {
    if (wasWithdrawn) this.#withdrawn--;
    if (--this.#load === 0) this.isFull = false;
  }

  /** Jobs have ended. Items of a chunk that goes on are not told: they are no answer. */
  answered(): void {
    this.#hasAnswered = this.#wasOnTime = true;
    this.heldUp = false;
  }

  /** All that has arrived by now was told. */
  delivered(): void {
    // Rounded up: a worker whose jobs take a little more than half of that would have none ahead.
    const jobs = Math.ceil(TIME_AHEAD / this.#thread.pace);
    this.#room = this.#capacity + Math.max(0, Math.min(MOST_AHEAD, jobs - 1));
    this.isFull = false;
    if (this.#load > 0 && this.#hasAnswered) this.#answeredNow();
    this.#hasAnswered = false;
  }

  /** Whether one job holds up others: the worker is then sent nothing ahead of time until it answers. */
  set heldUp(heldUp: boolean) {
    this.#heldUp = heldUp;
    this.#setLimit();
  }

  /** Whether shared memory has no room for the next job: the worker is then sent nothing until it has answered, or holds nothing. */
  set isFull(isFull: boolean) {
    this.#isFull = isFull;
    this.#setLimit();
  }

  #setLimit(): void {
    this.#limit = this.#isFull ? 0 : this.#heldUp ? this.#capacity : this.#room;
  }

  // What there is to do

  /** How many jobs the worker holds, including withdrawn ones. */
  get load(): number {
    return this.#load;
  }

  /** How many jobs it holds that were not withdrawn. */
  get held(): number {
    return this.#load - this.#withdrawn;
  }

  /** How many jobs it was ever sent. */
  get sent(): number {
    return this.#sent;
  }

  /** How many jobs it has done, or has given back. */
  get done(): number {
    return this.#sent - this.#load;
  }

  /** How many jobs it holds beyond those that it can run at a time. */
  get surplus(): number {
    return this.held - this.#capacity;
  }

  /** When it last answered, or was sent something while it held nothing. */
  get answeredAt(): number {
    return this.#answeredAt;
  }

  /**
   * Whether the last of the jobs that were sent ahead of time is expected to have waited at least `time` ms since the latest answer. If that
   * has come since the last call, there must also be {@linkcode TOO_MUCH} to do; and if another is on its way, as one nearly always is where
   * jobs are so short that answers are held back, or whose caller is slow to take them.
   */
  isLate(time: number): boolean {
    const wait = this.#now() - this.#answeredAt + this.#workAhead;
    const isLate = this.surplus > 0 && wait >= time && (this.#workAhead > TOO_MUCH || (!this.#wasOnTime && !this.#hasUnread()));
    this.#wasOnTime = false;
    return isLate;
  }

  /**
   * Whether jobs that were sent ahead of time have waited for an answer to others for `time` ms, and none is on its way; or will wait for
   * that long, as there is so much to do: it was sent when jobs took less time.
   */
  hasKeptWaiting(time: number): boolean {
    if (this.surplus <= 0) return false;
    return this.#workAhead >= time || (this.#now() - this.#answeredAt >= time && !this.#hasUnread());
  }

  /** For how long it is expected to run what was sent ahead of time, in ms. */
  get #workAhead(): number {
    return this.surplus * this.#thread.pace;
  }

  // How much more it is sent

  /** Whether it holds less than it can run at a time. */
  get isFree(): boolean {
    return this.#load < this.#capacity && this.hasRoom;
  }

  /** Whether it is sent another job: to run it, or, if recent jobs were short, ahead of time. */
  get hasRoom(): boolean {
    return this.#load < this.#limit;
  }

  /**
   * How many more jobs it is sent before any other worker is, as its recent jobs were tiny and it holds next to nothing; 0 if there is no
   * room for them now. Undefined if other workers are as good. That is so if several jobs run at a time: nobody knows how long jobs take
   * that wait for something.
   */
  get appetite(): number | undefined {
    const { pace } = this.#thread;
    if (pace >= TINY || this.#capacity > 1 || this.#heldUp) return undefined;
    const most = Math.ceil(WORTH_ANOTHER / pace);
    if (this.#load >= most || (this.#sent >= this.#lookAfter && this.#isOverdue())) return undefined;
    // With a single job, nobody can tell yet how long it takes.
    if (this.#isFull) return this.surplus > 0 ? 0 : undefined;
    return Math.min(most, this.#room) - this.#load;
  }

  /** Whether it will have done what it holds before another worker would have woken up. */
  get isSoonDone(): boolean {
    return this.#load * this.#thread.pace < WAKING && this.#capacity === 1 && this.#load > 0 && !this.#heldUp && !this.#isSilent(OVERDUE);
  }

  /** How many more jobs it is sent at once if other workers are as good. */
  get share(): number {
    const share = Math.min(this.jobsWithin(SHARE), this.#room - this.#load);
    return this.#capacity > 1 || share < 2 ? 0 : share;
  }

  // How fast it is

  /** Whether its recent jobs were tiny. */
  get isTiny(): boolean {
    return this.#thread.pace < TINY;
  }

  /** How many jobs it does within this many ms, at its pace. */
  jobsWithin(time: number): number {
    return Math.floor(time / this.#thread.pace);
  }

  /**
   * How many jobs it does in a ms, as far as can be told; 0 if they are not short, if several run at a time, and while one takes longer
   * than expected.
   */
  get jobsInMs(): number {
    const { pace } = this.#thread;
    return pace >= SHORT || this.#capacity > 1 || this.#heldUp || this.#isSilent(SILENT) ? 0 : 1 / pace;
  }

  /** By what factor it will soon be faster, while its jobs are cold. */
  get speedUp(): number {
    return this.done < COLD ? SPEED_UP : 1;
  }

  #isOverdue(): boolean {
    if (this.#isSilent(OVERDUE)) return true;
    this.#lookAfter = this.#sent + this.#lookStep;
    this.#lookStep *= 2;
    return false;
  }

  /**
   * Whether it has something to do and has not answered for this many ms. An answer that was not taken yet counts: a caller that does not
   * return to the event loop hears of none, however long its turn takes.
   */
  #isSilent(time: number): boolean {
    return this.#load > 0 && this.#now() - this.#answeredAt > time && !this.#hasUnread();
  }

  #answeredNow(): void {
    this.#answeredAt = this.#now();
    this.#lookAfter = this.#sent + 1;
    this.#lookStep = 1;
  }
}
