import { type Future, type Job, JobCancelledError, WorkerDiedError } from "@procpool/process-pool";
import { type FutureControl, type FutureMaker, type Outcome, showJob } from "@procpool/process-pool/executor";
import type { Ending, Listener } from "./link.ts";
import type { ChunkOutcomes } from "./map.ts";

/** What a ticket needs of its pool. */
export interface TicketOwner {
  /** A job or a chunk has ended. */
  ended(ticket: Ticket, ending: Ending): void;
  /** Its host is gone, or had to stop: it waits for another. */
  redelivered(ticket: Ticket): void;
  /** It has returned this after it was cancelled. */
  returned(ticket: Ticket, reply: unknown): void;
  /** Cancels it if no host has started it, or, with `force`, even if one has. Returns whether it did. */
  cancel(ticket: Ticket, options: { reason: unknown; force: boolean }): boolean;
}

/** How many jobs have settled so far, by outcome. Each item of a map counts as a job. */
export interface Counts {
  finished: number;
  failed: number;
  cancelled: number;
}

/** What a ticket is made with. */
export interface TicketOptions {
  /** The name of its task. */
  task: string;
  /** The name under which it travels. */
  travelId: string;
  /** Whether its name is a string that was given as its id: others may ask for its result. */
  named: boolean;
  /** Given back once it settles; an attached job has none. */
  permit: Disposable | undefined;
  owner: TicketOwner;
}

/** A pool's record of a job or a chunk in flight. */
export abstract class Ticket implements Listener {
  readonly task: string;
  readonly travelId: string;
  readonly named: boolean;
  readonly permit: Disposable | undefined;
  protected readonly owner: TicketOwner;
  abstract readonly id: string | number;
  /** How many items it has; undefined for a job. */
  abstract readonly items: number | undefined;
  /** Stops listening to the signal that may abort it. */
  stopListening: () => void = () => {};
  /** Whether it holds something in the store. */
  stored = false;
  #running = false;

  constructor({ task, travelId, named, permit, owner }: TicketOptions) {
    this.task = task;
    this.travelId = travelId;
    this.named = named;
    this.permit = permit;
    this.owner = owner;
  }

  /** Hands over the outcome and counts it; no callback is called yet. */
  abstract settle(outcome: Outcome<unknown>, counts: Counts): void;

  started(): boolean {
    return this.#running;
  }

  running(running: boolean): void {
    this.#running = running;
  }

  redelivered(): void {
    this.owner.redelivered(this);
  }

  ended(ending: Ending): void {
    this.owner.ended(this, ending);
  }

  returned(reply: unknown): void {
    this.owner.returned(this, reply);
  }

  /** The error for cancelling it. */
  cancelledError(cause?: unknown): JobCancelledError {
    return new JobCancelledError(`Cancelled ${showJob(this.id, this.task)}`, { jobId: this.id, taskName: this.task, cause });
  }
}

/** The record of a job, and the control of its future. */
export class JobTicket extends Ticket implements FutureControl {
  readonly future: Future<unknown>;
  readonly items = undefined;
  #maker: FutureMaker;

  constructor(job: Job<never[], unknown>, maker: FutureMaker, options: TicketOptions) {
    super(options);
    this.#maker = maker;
    this.future = maker.make<unknown>(job, this);
  }

  get id(): string | number {
    return this.future.id;
  }

  settle(outcome: Outcome<unknown>, counts: Counts): void {
    counts[outcome.state]++;
    this.#maker.settle(this.future, outcome);
  }

  cancel(options: { reason: unknown; force: boolean }): boolean {
    return this.owner.cancel(this, options);
  }
}

/** The record of a chunk of a map. */
export class ChunkTicket extends Ticket {
  readonly id: number;
  readonly items: number;
  #outcome = Promise.withResolvers<Outcome<ChunkOutcomes>>();

  constructor({ first, items }: { first: number; items: number }, options: TicketOptions) {
    super(options);
    this.id = first;
    this.items = items;
  }

  /** Its outcomes. */
  get outcome(): Promise<Outcome<ChunkOutcomes>> {
    return this.#outcome.promise;
  }

  /** Whether it was lost with more than one host, so that its items are run again one by one: then each of them counts. */
  isRunAgain(outcome: Outcome<unknown>): boolean {
    return outcome.state === "failed" && outcome.error instanceof WorkerDiedError && outcome.error.attempts > 1 && this.items > 1;
  }

  settle(outcome: Outcome<unknown>, counts: Counts): void {
    if (outcome.state === "finished") {
      const { outcomes } = outcome.value as ChunkOutcomes;
      const finished = outcomes.filter(({ status }) => status === "fulfilled").length;
      counts.finished += finished;
      counts.failed += outcomes.length - finished;
    } else if (!this.isRunAgain(outcome)) counts[outcome.state] += this.items;
    this.#outcome.resolve(outcome as Outcome<ChunkOutcomes>);
  }
}
