import type { Part } from "./active_part.ts";
import { Lane, type LaneError, type LaneState, type SlowRecord } from "./lane.ts";

/** A part, as far as it is done. */
export interface DonePart extends Omit<Part, "piece"> {
  state: LaneState;
  /** Its results; no longer valid once the consumer is done with them. */
  output: Uint8Array;
  errors: LaneError[];
  slowest: SlowRecord[];
}

/** A finished part that is to be passed on. */
export interface WaitingPart extends DonePart {
  /** Whether it is the end of the part as it was handed out. */
  last: boolean;
  /** Whether it has to wait for an earlier one. */
  waits: boolean;
  /** The lane with its results; undefined if they were copied. */
  lane: Lane | undefined;
}

/**
 * From this many bytes on, results that wait for an earlier part stay where they are, and another lane replaces theirs: copying them would
 * cost time, and leave garbage outside the heap, which is collected late. Smaller results are copied, since a lane takes memory itself.
 */
const WORTH_A_LANE = 2 ** 18;

/** What a waiting part takes in addition, in bytes. */
const HELD_PART = 1024;

/** The parts that are done and wait for an earlier one, or for the output. They come out in the order of the input, if that matters. */
export class DoneParts {
  #ordered: boolean;
  /** By index and start. */
  #parts = new Map<string, WaitingPart>();
  /** Which part is passed on next, and from where on; undefined for its beginning. */
  #next: { index: number; start: number | undefined } = { index: 0, start: undefined };
  /** Where each part begins that was started and of which nothing was passed on. */
  #starts = new Map<number, number>();
  #held = 0;
  /** Lanes of parts that had to wait, kept to replace those of the next parts that have to. */
  #spare: Lane[] = [];

  constructor(ordered: boolean) {
    this.#ordered = ordered;
  }

  get size(): number {
    return this.#parts.size;
  }

  /** How many bytes those take that have to wait, until they are passed on. */
  get held(): number {
    return this.#held;
  }

  /** Notes that a part is started, as it was handed out. */
  started({ index, start }: Part): void {
    this.#starts.set(index, start);
  }

  /** Whether nothing comes before a part, or the rest of one. */
  isNext({ index, start }: { index: number; start: number }): boolean {
    if (!this.#ordered) return true;
    return index === this.#next.index && start === (this.#next.start ?? this.#starts.get(index));
  }

  /**
   * Adds a part whose results are in a lane.
   *
   * @returns Another lane if the part has to wait; otherwise its own is free once it is passed on.
   */
  add(part: Omit<WaitingPart, "output" | "lane">, lane: Lane): Lane | undefined {
    const { index, start, state, waits } = part;
    const copied = waits && state.outputLength < WORTH_A_LANE;
    const output = lane.output(state.outputLength);
    this.#parts.set(`${index} ${start}`, { ...part, output: copied ? output.slice() : output, lane: copied ? undefined : lane });
    if (!waits) return undefined;
    this.#held += heldBy(state);
    return copied ? lane : this.#spare.pop() ?? new Lane();
  }

  /** Takes the part that is passed on next; undefined if it is not there yet. {@linkcode DoneParts.passedOn} follows. */
  takeNext(): WaitingPart | undefined {
    const { index, start = this.#starts.get(index) } = this.#next;
    const key = this.#ordered ? `${index} ${start}` : this.#parts.keys().next().value;
    const done = key === undefined ? undefined : this.#parts.get(key);
    if (done === undefined) return undefined;
    this.#parts.delete(key!);
    this.#starts.delete(index);
    this.#next = done.last ? { index: index + 1, start: undefined } : { index, start: done.end };
    return done;
  }

  /** Notes that a part was passed on. Returns its lane if that is free. */
  passedOn({ waits, state, lane }: WaitingPart): Lane | undefined {
    if (!waits) return lane;
    this.#held -= heldBy(state);
    // Another has taken its place.
    if (lane !== undefined) this.#spare.push(lane);
    return undefined;
  }

  /** Those that were not taken, in the order of the input. */
  left(): DonePart[] {
    return [...this.#parts.values()].sort((a, b) => a.index - b.index || a.start - b.start);
  }
}

/** How many bytes a part takes while it waits for an earlier one. */
function heldBy({ outputLength, errorsLength }: LaneState): number {
  return outputLength + errorsLength + HELD_PART;
}
