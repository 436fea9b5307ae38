import type { Ticket } from "../pool/ticket.ts";
import type { Death } from "./protocol.ts";

/** The jobs that a worker held when it ended. */
export interface LeftBehind {
  /** Jobs that it had started, and which item of each would have been next. */
  started: { ticket: Ticket; nextItem: number }[];
  /** Jobs that it will never start, in the order in which they were sent. */
  unstarted: Ticket[];
  /** The one of these that the worker seems to have died of reading; "withdrawn" if that is one that had been taken back. */
  suspect?: Ticket | "withdrawn" | undefined;
}

/** What was sent by a message and not answered. */
export interface Posted {
  posted: ReadonlySet<Ticket>;
  /** Which of the sent jobs was the first of those that were withdrawn and may not have been read yet; Infinity if there is none. */
  withdrawnAs: number;
}

/**
 * The job whose message killed the worker, if one did. Messages are read in order, so it is the first that was not started. A heap may also
 * have been filled by a running job, unless all of those were sent later.
 */
export function suspectOf(
  { unread, memoryLimit }: Death,
  { started, unstarted }: LeftBehind,
  { posted, withdrawnAs }: Posted,
): LeftBehind["suspect"] {
  const first = unstarted.find((ticket) => posted.has(ticket));
  const sentAs = Math.min(first?.sentAs ?? Infinity, withdrawnAs);
  if (sentAs === Infinity) return undefined;
  const wasReading = unread || (memoryLimit !== undefined && started.every(({ ticket }) => ticket.sentAs > sentAs));
  if (!wasReading) return undefined;
  return sentAs === withdrawnAs ? "withdrawn" : first;
}
