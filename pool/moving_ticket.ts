import type { RunMessage, TaskMessage } from "../worker/protocol.ts";
import type { Outcome } from "../job.ts";
import type { Slot } from "../worker/slot.ts";
import { JobTicket, type SettledCounts } from "./ticket.ts";

/**
 * Buffers of up to this many bytes together are copied as fast as they are moved, since they fit into the memory that a worker shares with
 * its caller. More would go by a message, which copies more slowly than it moves.
 */
const CHEAP_TO_COPY = 2 ** 18;

/** The record of a job with arguments that are to be moved. */
export class MovingTicket extends JobTicket {
  /** The arguments, once the ticket owns what was to be moved. */
  #own: readonly unknown[] | undefined;
  /** Why it could not take ownership. */
  #failure: { error: unknown } | undefined;
  /** Memory that can be used again when the job has settled. */
  #spare: ArrayBuffer | undefined;
  /** The slot that it was taken over for, which may use that memory. */
  #slot: Slot | undefined;

  override get transfer(): readonly Transferable[] {
    return this.#own === undefined ? super.transfer : [];
  }

  protected override get allArgs(): readonly unknown[] {
    return this.#own ?? super.allArgs;
  }

  /**
   * Takes ownership of what is to be moved, if that is cheap to copy: the caller no longer has it, and the job is like others, which can be
   * sent ahead and taken back, and outlive a worker that never started them. False if it is to be moved to the worker.
   */
  override takeOver(slot: Slot): boolean {
    const { transfer } = this;
    if (!slot.sharesMemory || this.#failure !== undefined || sizeOf(transfer) > CHEAP_TO_COPY) return false;
    this.#slot = slot;
    try {
      this.#move(transfer as readonly ArrayBuffer[]);
      return true;
    } catch (error) {
      this.#failure = { error };
      return false;
    }
  }

  #move(transfer: readonly ArrayBuffer[]): void {
    const args = this.allArgs;
    const [buffer] = transfer;
    const [object, another] = args.filter((arg) => typeof arg === "object" && arg !== null);
    // Usually there is one buffer, or a view of all of it, and nothing else that could refer to it. That case takes less than a tenth of
    // the time.
    if (transfer.length === 1 && another === undefined && !buffer!.resizable && !buffer!.detached) {
      const isAll = object instanceof Uint8Array && object.buffer === buffer && object.length === buffer!.byteLength;
      if (isAll || object === buffer) {
        const own = this.#spare = buffer!.transfer();
        this.#own = args.map((arg) => arg !== object ? arg : isAll ? new Uint8Array(own) : own);
        return;
      }
    }
    this.#own = structuredClone(args, { transfer: transfer as ArrayBuffer[] });
  }

  override settle(outcome: Outcome<unknown>, counts: SettledCounts): void {
    if (this.#spare !== undefined) this.#slot!.reuse(this.#spare);
    super.settle(outcome, counts);
  }

  override message(run: number, task: TaskMessage): RunMessage {
    // Deno has detached what was to be moved although the move failed, so sending it would fail for that reason instead.
    if (this.#failure !== undefined) throw this.#failure.error;
    return super.message(run, task);
  }
}

/**
 * The total size in bytes; Infinity if some are not buffers, even if they pass for such, as proxies of buffers do, or one is listed twice,
 * which is refused when it is moved.
 */
function sizeOf(transfer: readonly Transferable[]): number {
  let size = new Set(transfer).size === transfer.length ? 0 : Infinity;
  try {
    for (const each of transfer) size += each instanceof ArrayBuffer ? each.byteLength : Infinity;
  } catch {
    return Infinity;
  }
  return size;
}
