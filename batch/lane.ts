/**
 * A lane is shared memory in which a worker leaves the results of one range of the input, record by record. None of it travels in a
 * message: what is done is there, and remains there if the worker is killed.
 *
 * A record is committed by one compare-and-exchange of the sequence number; quick ones are committed several at a time, since a commit
 * costs more than they do, and a word tells which of them runs. The state after a commit (how far the input is read, how long the output
 * is) is written beforehand, alternately into one of two banks, so that the state of the last commit is complete at any moment. The calling
 * thread halts a lane through the same word: a record that was halted can no longer be committed, so it is either done or out of time,
 * never both.
 *
 * @module
 */

/** The layout of the control block. Workers are given this as JSON. */
export const LAYOUT = {
  /** Words of 32 bits: how many commits there were, or `halted`, or `abandoned`. */
  sequence: 0,
  /** Not 0 if the worker should return after the current record. */
  stop: 1,
  /** 0 before the range has begun and after its end, `running` while a record runs, `reading` while the input is read. */
  phase: 2,
  /** The number of the current record's attempt, from 1; 0 while many records are parsed together. */
  attempt: 3,
  /** How many records were finished since the last commit. */
  current: 4,
  words: 8,
  running: 1,
  reading: 2,
  halted: -1,
  abandoned: -2,
  /** Words of 64 bits: where the first bank begins, and how many words a bank has. */
  banks: 4,
  bankWords: 7,
  /** The words of a bank. */
  position: 0,
  lines: 1,
  records: 2,
  failed: 3,
  outputLength: 4,
  errorsLength: 5,
  busy: 6,
  /** Words of 64 bits: where the slowest records are, how many, and the words of each: its time, lines and offset. */
  slowest: 24,
  slowestCount: 5,
  slowWords: 4,
  /** In bytes: where the histogram of times begins, and how many counters of 32 bits it has. */
  histogram: 512,
  buckets: 704,
  /** Times of less than 2^-20 ms, about a nanosecond, count as that. */
  smallestExponent: -20,
  /** Before the text of an error: its length, line, byte offset, and place in the output. */
  errorHeader: 32,
  /** The largest size of an output: only address space, until it is written to. */
  mostBytes: 2 ** 28,
} as const;

/** How much of a range is done. All numbers except the position count from the beginning of the lane. */
export interface LaneState {
  /** The byte of the input up to which it is done. */
  position: number;
  /** Lines that begin in what is done. */
  lines: number;
  records: number;
  failed: number;
  outputLength: number;
  errorsLength: number;
  /** How long the records took, in milliseconds. */
  busy: number;
}

/** A record, or one of a group, that took long. */
export interface SlowRecord {
  /** In milliseconds. */
  time: number;
  /** The first and last line of the group, counted from 0 at the start of the range. */
  line: number;
  lastLine: number;
  /** The byte of the input at which they begin. */
  offset: number;
}

/** The memory of a lane, as a worker gets it. */
export interface LaneMemory {
  control: SharedArrayBuffer;
  output: SharedArrayBuffer;
  errors: SharedArrayBuffer;
}

/** An error in a lane. */
export interface LaneError {
  /** The line of the record, counted from 0 at the start of the range. */
  line: number;
  /** The byte of the input at which the record begins. */
  offset: number;
  /** The byte of the lane's output at which its result would be. */
  position: number;
  /** The rest of the entry: the members of a JSON object, without the braces. */
  members: Uint8Array;
}

const CONTROL_BYTES = LAYOUT.histogram + LAYOUT.buckets * 4;

/** The first size of output and errors: small, as they grow when needed. */
const FIRST_BYTES = 2 ** 16;

/** The calling thread's side of a lane. */
export class Lane {
  memory!: LaneMemory;
  #words!: Int32Array;
  #banks!: Float64Array;
  #slowest!: Float64Array;
  #histogram!: Uint32Array;

  constructor() {
    this.#allocate(FIRST_BYTES, FIRST_BYTES);
  }

  /** Begins a range, of which nothing is done. */
  begin(position: number): void {
    this.#words.fill(0);
    this.#banks.fill(0);
    this.#banks[LAYOUT.position] = position;
    this.#slowest.fill(0);
    this.#histogram.fill(0);
  }

  /**
   * Moves what was committed to other memory, where another worker goes on: the last one may not have ended yet, and may still write.
   *
   * @param sequence The number of the last commit.
   */
  leave(sequence: number): void {
    const { output, errors } = this.memory;
    const { outputLength, errorsLength } = this.state(sequence);
    const [bank, slowest, histogram] = [this.#bank(sequence), this.#slowest, this.#histogram];
    this.#allocate(output.byteLength, errors.byteLength);
    this.#banks.set(bank);
    this.#slowest.set(slowest);
    this.#histogram.set(histogram);
    new Uint8Array(this.memory.output).set(new Uint8Array(output, 0, outputLength));
    new Uint8Array(this.memory.errors).set(new Uint8Array(errors, 0, errorsLength));
  }

  /** How many commits there were. */
  get sequence(): number {
    return Atomics.load(this.#words, LAYOUT.sequence);
  }

  /** Whether a worker has begun with it. */
  get begun(): boolean {
    return Atomics.load(this.#words, LAYOUT.phase) !== 0;
  }

  /** Whether a record runs. */
  get running(): boolean {
    return Atomics.load(this.#words, LAYOUT.phase) === LAYOUT.running;
  }

  /** The number of the current record's attempt, from 1; 0 while many records are parsed together. */
  get attempt(): number {
    return Atomics.load(this.#words, LAYOUT.attempt);
  }

  /** How many records were finished since the last commit. */
  get current(): number {
    return Atomics.load(this.#words, LAYOUT.current);
  }

  /** Asks the worker to return after the current record. */
  stop(): void {
    Atomics.store(this.#words, LAYOUT.stop, 1);
  }

  /** Keeps the record that runs after this commit from ever being committed, and its worker waiting to be stopped; false if it has been. */
  halt(sequence: number): boolean {
    return Atomics.compareExchange(this.#words, LAYOUT.sequence, sequence, LAYOUT.halted) === sequence;
  }

  /** The same, but its worker leaves the range: a worker that cannot be stopped while it waits would keep the program from ending. */
  abandon(sequence: number): boolean {
    return Atomics.compareExchange(this.#words, LAYOUT.sequence, sequence, LAYOUT.abandoned) === sequence;
  }

  /** The state at this commit, which must be the last or the one before. */
  state(sequence: number = this.sequence): LaneState {
    const bank = this.#bank(sequence);
    return {
      position: bank[LAYOUT.position]!,
      lines: bank[LAYOUT.lines]!,
      records: bank[LAYOUT.records]!,
      failed: bank[LAYOUT.failed]!,
      outputLength: bank[LAYOUT.outputLength]!,
      errorsLength: bank[LAYOUT.errorsLength]!,
      busy: bank[LAYOUT.busy]!,
    };
  }

  /** The results so far; no longer valid once the lane is begun anew. */
  output(length: number): Uint8Array<SharedArrayBuffer> {
    return new Uint8Array(this.memory.output, 0, length);
  }

  /** The errors so far, copied. */
  errors(length: number): LaneError[] {
    const bytes = new Uint8Array(this.memory.errors, 0, length).slice();
    const view = new DataView(bytes.buffer);
    const errors: LaneError[] = [];
    for (let at = 0; at < length;) {
      const begin = at + LAYOUT.errorHeader;
      const end = begin + view.getFloat64(at);
      const [line, offset, position] = [view.getFloat64(at + 8), view.getFloat64(at + 16), view.getFloat64(at + 24)];
      errors.push({ line, offset, position, members: bytes.subarray(begin, end) });
      at = end;
    }
    return errors;
  }

  /** The slowest records, slowest first. */
  slowest(): SlowRecord[] {
    const slowest: SlowRecord[] = [];
    for (let at = 0; this.#slowest[at]! > 0; at += LAYOUT.slowWords) {
      const [time, line, lastLine, offset] = this.#slowest.subarray(at, at + LAYOUT.slowWords) as unknown as [
        number,
        number,
        number,
        number,
      ];
      slowest.push({ time, line, lastLine, offset });
    }
    return slowest;
  }

  /** Adds the times of the lane's records to a histogram. */
  addTimes(histogram: Float64Array): void {
    for (let i = 0; i < LAYOUT.buckets; i++) histogram[i]! += this.#histogram[i]!;
  }

  #bank(sequence: number): Float64Array {
    const begin = (sequence & 1) * LAYOUT.bankWords;
    return this.#banks.subarray(begin, begin + LAYOUT.bankWords);
  }

  #allocate(outputBytes: number, errorBytes: number): void {
    const control = new SharedArrayBuffer(CONTROL_BYTES);
    this.memory = { control, output: growable(outputBytes), errors: growable(errorBytes) };
    this.#words = new Int32Array(control, 0, LAYOUT.words);
    this.#banks = new Float64Array(control, LAYOUT.banks * 8, 2 * LAYOUT.bankWords);
    this.#slowest = new Float64Array(control, LAYOUT.slowest * 8, LAYOUT.slowestCount * LAYOUT.slowWords);
    this.#histogram = new Uint32Array(control, LAYOUT.histogram, LAYOUT.buckets);
  }
}

function growable(bytes: number): SharedArrayBuffer {
  // Deno's types do not have growable shared memory yet.
  const Growable = SharedArrayBuffer as new (bytes: number, options: { maxByteLength: number }) => SharedArrayBuffer;
  return new Growable(bytes, { maxByteLength: LAYOUT.mostBytes });
}
