import type { Ticket } from "../pool/ticket.ts";
import { CLAIM_WORDS, FINISHED, NO_MORE, SENT, STARTED, WITHDRAWN } from "./protocol.ts";

/**
 * A place for a job that the worker may hold, used for one job after another, with its words in the claims, by which slot and worker agree
 * on who has the job: see protocol.ts.
 */
export class Holding {
  /** The run of the job; undefined while there is none. */
  run: number | undefined = undefined;
  /** Undefined once it was withdrawn. */
  ticket: Ticket | undefined = undefined;
  /** The last run here that was sent by a message, which its worker may be unable to read. */
  posted = -1;
  /** How long writing that message took, in ms. */
  writing = 0;
  /** Which one of the sent jobs was last withdrawn here. */
  withdrawnAs = 0;
  readonly #claims: Int32Array;
  /** The index of its first word there. */
  readonly #claim: number;

  constructor(claims: Int32Array, place: number) {
    this.#claims = claims;
    this.#claim = place * CLAIM_WORDS;
  }

  /** Holds a job that is about to be sent. */
  hold(run: number, ticket: Ticket): void {
    this.run = run;
    this.ticket = ticket;
    // The worker sees this when it sees what is sent.
    this.#claims[this.#claim] = SENT;
  }

  /** Has the worker begin with this item of the chunk that is about to be sent. */
  beginAt(item: number): void {
    this.#claims[this.#claim + 1] = item;
  }

  /** Holds no job any more. */
  clear(): void {
    this.run = this.ticket = undefined;
  }

  get #state(): number {
    return Atomics.load(this.#claims, this.#claim);
  }

  /** Whether the worker runs the job that is here. */
  get isRunning(): boolean {
    return this.run !== undefined && this.#state === STARTED;
  }

  /** Whether the worker has sent the answer of the job that is here. */
  get isFinished(): boolean {
    return this.run !== undefined && this.#state === FINISHED;
  }

  /** Whether the worker has started the job that is here. */
  get hasStarted(): boolean {
    return this.isRunning || this.isFinished;
  }

  /** Whether the job that is here was taken back before the worker started it. */
  get isWithdrawn(): boolean {
    return this.run !== undefined && this.#state === WITHDRAWN;
  }

  /** Takes the job back; false if the worker has started it, or if it was taken back before. */
  takeBack(): boolean {
    return Atomics.compareExchange(this.#claims, this.#claim, SENT, WITHDRAWN) === SENT;
  }

  /** Which item of a running chunk the worker runs, counted from 1: the index of the next one. */
  get item(): number {
    return Atomics.load(this.#claims, this.#claim + 1);
  }

  /** The time of day when the worker has started the job or its current item, truncated to 32 bits. */
  get startedAt(): number {
    return Atomics.load(this.#claims, this.#claim + 2);
  }

  /** Keeps the worker from starting more items, if it still runs this one. */
  halt(item: number): boolean {
    return Atomics.compareExchange(this.#claims, this.#claim + 1, item, NO_MORE) === item;
  }

  /** Keeps the worker from starting more items; returns which one would have been next. */
  curtail(): number {
    return Atomics.exchange(this.#claims, this.#claim + 1, NO_MORE);
  }
}
