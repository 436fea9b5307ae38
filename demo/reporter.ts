import type { SettledState } from "../job.ts";
import { red } from "./colors.ts";
import { type Bar, drawTimeline } from "./timeline.ts";

/** How a job ended. Times are in milliseconds since the start of the run. */
export interface Settled {
  job: number;
  /** The name of its task. */
  task: string;
  state: SettledState;
  /** The worker to which it was sent, and when; undefined if it was not sent. */
  worker: number | undefined;
  start: number | undefined;
  end: number;
  /** What a finished job returned. */
  seconds: number | undefined;
  /** The error of any other. */
  error: unknown;
}

/** The result of a run. */
export interface Summary {
  /** How many jobs were to be run: those that finished, failed, were cancelled, and those never put in. */
  jobs: number;
  finished: number;
  failed: number;
  cancelled: number;
  neverPutIn: number;
  /** From the start until the last job was done, in milliseconds. */
  wall: number;
  /** How long the jobs took together, in milliseconds. */
  busy: number;
  /** The seed that repeats the run. */
  seed: number;
  /** Whether it was told to stop before it was done. */
  stopped: boolean;
}

/** Is told about a run as it goes on. */
export interface Reporter {
  /** A job has passed the gate. */
  submitted(job: number, at: number): void;
  settled(settled: Settled): void;
  summary(summary: Summary): void;
}

/** What is reported of a run. */
export interface ReporterOptions {
  json: boolean;
  quiet: boolean;
  timeline: boolean;
}

/** Where a report goes. */
export interface Terminal {
  /** Prints one line. */
  print(line: string): void;
  columns: number;
  color: boolean;
}

/** The reporter that the options ask for. */
export function createReporter({ json, quiet, timeline }: ReporterOptions, terminal: Terminal): Reporter {
  return json ? new JsonReporter({ quiet }, terminal) : new TextReporter({ quiet, timeline }, terminal);
}

/** Reports in the words of the original model. */
class TextReporter implements Reporter {
  #options: { quiet: boolean; timeline: boolean };
  #terminal: Terminal;
  #bars: Bar[] = [];

  constructor(options: { quiet: boolean; timeline: boolean }, terminal: Terminal) {
    this.#options = options;
    this.#terminal = terminal;
  }

  submitted(job: number): void {
    if (!this.#options.quiet) this.#terminal.print(`put in job[${job}]`);
  }

  settled({ job, task, state, worker, start, end, seconds, error }: Settled): void {
    if (this.#options.timeline && worker !== undefined && start !== undefined) {
      this.#bars.push({ worker, job, start, end, failed: state !== "finished" });
    }
    // Jobs cancelled because the run is stopped are counted in its last line; a line for each would drown it.
    if (this.#options.quiet || state === "cancelled") return;
    const label = `job[${job}] worker[${task}]`;
    if (state === "finished") this.#terminal.print(`${label} finish: [${seconds?.toFixed(3)}]`);
    else this.#terminal.print(this.#red(`${label} error: [${error}]`));
  }

  summary(summary: Summary): void {
    const { jobs, finished, failed, cancelled, neverPutIn, wall, busy, seed, stopped } = summary;
    const { print } = this.#terminal;
    if (stopped || neverPutIn > 0) {
      print(`stopped: ${finished} finished, ${failed} failed, ${cancelled} cancelled, ${neverPutIn} never put in`);
    }
    const times = `wall ${inSeconds(wall)}, busy ${inSeconds(busy)}, speed-up ${speedUp(summary).toFixed(2)}`;
    print(`${count(jobs, "job")}, ${failed} failed, ${times}, seed ${seed}`);
    for (const line of drawTimeline(this.#bars, this.#terminal)) print(line);
  }

  #red(text: string): string {
    return this.#terminal.color ? red(text) : text;
  }
}

/** Reports one JSON object per line, for programs. Fields that do not apply are left out. */
class JsonReporter implements Reporter {
  #quiet: boolean;
  #print: (line: string) => void;

  constructor({ quiet }: { quiet: boolean }, { print }: Terminal) {
    this.#quiet = quiet;
    this.#print = print;
  }

  submitted(job: number, at: number): void {
    this.#job({ event: "submitted", job, at: rounded(at) });
  }

  settled({ job, state, worker, start, end, seconds, error }: Settled): void {
    const why = state === "finished" ? { seconds } : { error: String(error) };
    this.#job({ event: state, job, worker, ...why, start: start && rounded(start), end: rounded(end) });
  }

  summary(summary: Summary): void {
    const { wall, busy, ...counts } = summary;
    this.#line({ event: "summary", ...counts, wall: rounded(wall), busy: rounded(busy), speedUp: rounded(speedUp(summary)) });
  }

  #job(event: object): void {
    if (!this.#quiet) this.#line(event);
  }

  #line(event: object): void {
    this.#print(JSON.stringify(event));
  }
}

/** How many times faster the workers were together than one worker. */
function speedUp({ wall, busy }: Summary): number {
  return wall === 0 ? 0 : busy / wall;
}

function inSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

/** To microseconds: the clock is no more precise. */
function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
