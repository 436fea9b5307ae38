import type { Clock } from "../../pool/clock.ts";

/** A job, or an item of a map, that takes time. */
export interface TimedJob {
  /** Which one it is, in the order of submission; -1 before that. */
  number: number;
  /** How long it takes, in ms. */
  readonly time: number;
  /** Whether it only waits, so that its worker can run others meanwhile. */
  readonly waits: boolean;
  /** Whether it kills the worker that runs it, and does so no more. */
  kills: boolean;
}

/** What runs jobs. */
interface Worker {
  readonly name: string;
}

/** When something happened to a job. */
interface Entry {
  submitted: number;
  /** Whether it is an item of a map: its chunk is submitted in the same turn, but after others perhaps. */
  isItem: boolean;
  /** Since when it has waited for a worker, from the start or once more. */
  waits: number;
  started: number;
  /** How long it and what travels with it takes: for an item that is not the first of its chunk 0. */
  time: number;
  /** When its result left the worker. */
  ended: number;
}

/** When the consumer of a map asked for a result, and when it was given that of this item. */
export interface Taken {
  asked: number;
  given: number;
  item: TimedJob;
}

/** What a timetable shows. All times are in ms. */
export interface Figures {
  /** The longest time that a job waited while a worker had nothing to do: one, not several in turn. */
  idle: number;
  /** The longest time in which only jobs were started that had been submitted later than one that waited. */
  overtaken: number;
  /** How much later the last job ended than if all, and all chunks, were started in order, each as soon as a worker is free. */
  excess: number;
  /** The longest time from the end of a job until its caller heard of that. */
  unheard: number;
  /** How many jobs were taken back from a worker. */
  cameBack: number;
  /** How many chunks of maps waited at most before a job when that was submitted. */
  chunksBefore: number;
}

/** When jobs were submitted, started and ended, and when workers were idle. */
export class Timetable {
  #clock: Clock;
  #trace: ((line: string) => void) | undefined;
  /** Those that were submitted, by number and in that order. */
  #jobs: TimedJob[] = [];
  #entries = new Map<TimedJob, Entry>();
  /** The jobs that wait for a worker, in the order of waiting. */
  #waiting = new Set<TimedJob>();
  /** The workers that have nothing to do, and since when. */
  #idle = new Map<Worker, number>();
  /** How much time was lost with workers. */
  #lost = 0;
  /** The number of the first job that waits, or may. */
  #first = 0;
  /** When the first job was started that was submitted later than that. */
  #overtakenAt: number | undefined;
  #figures: Figures = { idle: 0, overtaken: 0, unheard: 0, cameBack: 0, excess: 0, chunksBefore: 0 };

  constructor(clock: Clock, trace?: (line: string) => void) {
    this.#clock = clock;
    this.#trace = trace;
  }

  /** What it shows if this many jobs can run at a time. */
  figures(servers: number): Figures {
    return { ...this.#figures, excess: this.#excess(servers), chunksBefore: this.#chunksBefore() };
  }

  #excess(servers: number): number {
    const free = new Array<number>(servers).fill(0);
    let end = 0, bestEnd = 0;
    for (const { time, submitted, ended } of this.#entries.values()) {
      const server = free.indexOf(Math.min(...free));
      free[server] = Math.max(free[server]!, submitted) + time;
      bestEnd = Math.max(bestEnd, free[server]!);
      end = Math.max(end, ended);
    }
    return end - bestEnd - this.#lost;
  }

  #chunksBefore(): number {
    let most = 0;
    let chunks: Entry[] = [];
    for (const entry of this.#entries.values()) {
      if (entry.isItem && entry.time > 0) chunks.push(entry);
      if (entry.isItem) continue;
      chunks = chunks.filter(({ started }) => started > entry.waits);
      most = Math.max(most, chunks.length);
    }
    return most;
  }

  note(line: () => string): void {
    this.#trace?.(`${this.#clock.now().toFixed(3)} ms: ${line()}`);
  }

  /** The job of this number, which was submitted. */
  job(number: number): TimedJob {
    return this.#jobs[number]!;
  }

  /** A job is being submitted. */
  submit(job: TimedJob): void {
    this.#add(job, { submitted: this.#clock.now(), isItem: false });
  }

  /** An item is read, which might have been done at this time. */
  read(item: TimedJob, submitted: number): void {
    this.#add(item, { submitted, isItem: true });
  }

  #add(job: TimedJob, { submitted, isItem }: Pick<Entry, "submitted" | "isItem">): void {
    job.number = this.#jobs.push(job) - 1;
    this.#entries.set(job, { submitted, isItem, waits: this.#clock.now(), started: 0, time: job.time, ended: 0 });
    this.#waiting.add(job);
  }

  /** No item of a chunk waits any longer, as chunks are not split. */
  startChunk(items: TimedJob[], worker: Worker): void {
    for (const item of items) {
      this.start(item, worker);
      this.#entries.get(item)!.time = 0;
    }
    this.#entries.get(items[0]!)!.time = items.reduce((sum, { time }) => sum + time, 0);
  }

  start(job: TimedJob, worker: Worker): void {
    const now = this.#clock.now();
    this.note(() => `${worker.name} starts job ${job.number} of ${job.time} ms`);
    this.#entries.get(job)!.started = now;
    for (const since of this.#idle.values()) this.#waited(job, since);
    this.#waiting.delete(job);
    this.works(worker);
    this.#noteOrder(job);
  }

  /** Only the first job that waits is looked at: what overtakes others also overtakes that. */
  #noteOrder(job: TimedJob): void {
    const { number } = job;
    const now = this.#clock.now();
    if (number <= this.#first) {
      this.#overtakenAt = undefined;
      while (this.#first < this.#jobs.length && !this.#waiting.has(this.#jobs[this.#first]!)) this.#first++;
      return;
    }
    const first = this.#entries.get(this.#jobs[this.#first]!)!;
    if (first.isItem && this.#entries.get(job)!.waits <= first.waits) return;
    this.#overtakenAt ??= now;
    const time = now - this.#overtakenAt;
    if (time <= this.#figures.overtaken) return;
    this.#figures.overtaken = time;
    this.note(() => `job ${this.#first} has been overtaken for ${time.toFixed(2)} ms`);
  }

  /** A job is lost with its worker, and has to be started again: in another one, which takes this many ms to start. */
  lose(job: TimedJob, startTime: number): void {
    this.note(() => `job ${job.number} is lost with its worker`);
    const now = this.#clock.now();
    const entry = this.#entries.get(job)!;
    this.#lost += now - entry.started + startTime;
    entry.waits = now;
    job.kills = false;
    this.#waiting.add(job);
    this.#first = Math.min(this.#first, job.number);
  }

  /** A job that was taken back from a worker is no longer there. */
  comeBack(): void {
    this.#figures.cameBack++;
  }

  end(job: TimedJob): void {
    this.#entries.get(job)!.ended = this.#clock.now();
  }

  /** The caller hears that a job has ended. */
  hear(job: TimedJob): void {
    this.#heard(this.#entries.get(job)!.ended, this.#clock.now());
  }

  /** The consumer of a map has taken these results, which were to be in the order of the items or not. */
  hearAll(taken: Taken[], ordered: boolean): void {
    const ends = taken.map(({ item }) => this.#entries.get(item)!.ended);
    if (ordered) ends.forEach((end, i) => ends[i] = Math.max(end, ends[i - 1] ?? 0));
    else ends.sort((a, b) => a - b);
    taken.forEach(({ asked, given }, i) => this.#heard(Math.max(asked, ends[i]!), given));
  }

  #heard(could: number, did: number): void {
    this.#figures.unheard = Math.max(this.#figures.unheard, did - could);
  }

  /** A worker has nothing to do. */
  idles(worker: Worker): void {
    this.#idle.set(worker, this.#clock.now());
  }

  /** It has, or has ended. */
  works(worker: Worker): void {
    const since = this.#idle.get(worker);
    if (since === undefined) return;
    this.#idle.delete(worker);
    const [first] = this.#waiting;
    if (first !== undefined) this.#waited(first, since);
  }

  /** A job has waited until now, and a worker was idle since this time. */
  #waited(job: TimedJob, since: number): void {
    const time = this.#clock.now() - Math.max(since, this.#entries.get(job)!.waits);
    if (time <= this.#figures.idle) return;
    this.#figures.idle = time;
    this.note(() => `job ${job.number} has waited for ${time.toFixed(2)} ms while a worker was idle`);
  }
}
