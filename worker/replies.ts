import type { Func, KnownTasks } from "./known_tasks.ts";
import type { ErrorMessage, FromRuntime, ItemsMessage, Thrown } from "./protocol.ts";

/** How replies leave their thread. */
export interface RepliesHost {
  /** Sends a message to the slot, moving the objects in `transfer`. */
  post(message: FromRuntime, transfer?: Transferable[]): void;
  /**
   * Sends what a job returned without a message, if that is small enough, and detaches what was to be moved with it; false if it is not.
   */
  returned?(run: number, value: unknown, transfer?: Transferable[]): boolean;
  /** Encodes something thrown, to be sent. */
  encode(thrown: unknown, exportedClass: KnownTasks["classOf"]): Thrown;
}

/** A result with a list of what is to be moved with it, as `move()` returns it. */
export type Moved = { value: unknown; [move: symbol]: unknown };

/** What a runtime tells its slot. */
export interface Replies {
  /** Sends what needs no care. */
  post(message: FromRuntime): void;
  /**
   * Sends what a job returned.
   *
   * @throws {unknown} If that cannot be sent.
   */
  returned(run: number, value: unknown): void;
  /** Sends what a job has thrown. */
  threw(run: number, func: Func, thrown: unknown): void;
  /** Sends items. One that cannot be sent fails, and no other. */
  items(message: ItemsMessage, transfer: Transferable[]): void;
  /** Makes what was thrown fit for sending, with advice if it comes from a task that was sent as text. */
  encode(thrown: unknown, func?: Func): Thrown;
  /** Sends that, in a form that can be sent. */
  sendThrown(thrown: Thrown, send: (thrown: Thrown) => void): void;
  isMoved(value: unknown): value is Moved;
  /** What is moved with a result. */
  movedWith(result: Moved): Transferable[];
  /** Sends nothing more. */
  close(): void;
}

/**
 * Sends what comes of jobs. Whatever a task returns or throws, a reply goes to the slot: if a result cannot be copied or moved, that is an
 * error; and if an error cannot, something that can be takes its place.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function createReplies(host: RepliesHost, tasks: KnownTasks): Replies {
  const MOVE = Symbol.for("process-pool.move");
  // Taken now: tasks may replace them.
  const Refusal = DOMException, Overflow = RangeError;
  const { isArray } = Array;
  let closed = false;

  function post(message: FromRuntime, transfer?: Transferable[]): void {
    if (!closed) host.post(message, transfer);
  }

  function returned(run: number, value: unknown): void {
    if (isMoved(value)) return returnedMoved(run, value.value, movedWith(value));
    if (!closed && !host.returned?.(run, value)) postWhole(run, value);
  }

  function returnedMoved(run: number, value: unknown, transfer: Transferable[]): void {
    if (!closed && !host.returned?.(run, value, transfer)) postWhole(run, value, transfer);
  }

  function postWhole(run: number, value: unknown, transfer?: Transferable[]): void {
    try {
      host.post({ type: "returned", run, value }, transfer);
    } catch (refusal) {
      throw unsendable(refusal);
    }
  }

  /** The error for a result that cannot be sent: the platform's could as well be about an argument. What a getter threw stays as it is. */
  function unsendable(refusal: unknown): unknown {
    try {
      // What is nested too deeply.
      const isOverflow = refusal instanceof Overflow && refusal.message === "Maximum call stack size exceeded";
      if (!isOverflow && !(refusal instanceof Refusal && refusal.name === "DataCloneError")) return refusal;
      const message = `Cannot send what the task returned as it cannot be copied or moved: ${refusal.message}`;
      return isOverflow ? new Overflow(message) : new Refusal(message, refusal.name);
    } catch {
      // It throws when it is looked at, too.
      return refusal;
    }
  }

  function isMoved(value: unknown): value is Moved {
    return typeof value === "object" && value !== null && MOVE in value;
  }

  function movedWith({ [MOVE]: transfer = [] }: Moved): Transferable[] {
    // Nothing has checked the list of a task sent as text yet.
    if (isArray(transfer)) return transfer;
    throw new TypeError(
      `Cannot move result as what is at 'Symbol.for("process-pool.move")' must be an array: current value is ${text(transfer)}`,
    );
  }

  /**
   * Sends items. If one of several cannot be sent, they are sent in halves, and halves of those: so the platform tells which one it is, and
   * that item fails.
   */
  function items(message: ItemsMessage, transfer?: Transferable[]): void {
    try {
      return post(message, transfer);
    } catch (refusal) {
      const { from, values, thrown, last } = message;
      // Numbers can be sent: what was to be moved with them cannot.
      if (!isArray(values)) return post(message);
      if (values.length > 1) {
        const half = values.length >> 1, middle = from + half;
        items({ ...message, values: values.slice(0, half), thrown: thrown.filter(([i]) => i < middle), last: false });
        return items({ ...message, from: middle, values: values.slice(half), thrown: thrown.filter(([i]) => i >= middle), last });
      }
      const error = thrown[0]?.[1] ?? encode(unsendable(refusal));
      sendThrown(error, (error) => post({ ...message, values: [undefined], thrown: [[from, error]] }));
    }
  }

  /** Never throws, whatever was thrown: an error may be too deep, or lie about itself. */
  function encode(thrown: unknown, func?: Func): Thrown {
    try {
      return host.encode(tasks.explained(thrown, func), tasks.classOf);
    } catch (second) {
      return host.encode(new Error("The task threw something that cannot be sent", { cause: text(second) }), () => undefined);
    }
  }

  /**
   * Sends what was thrown. In a message the data of an error is nested deeper than in the error, possibly too deeply for the platform; then
   * the error goes without it.
   */
  function sendThrown(thrown: Thrown, send: (thrown: Thrown) => void): void {
    try {
      send(thrown);
    } catch (refusal) {
      if ("raw" in thrown) throw refusal;
      send(withoutData(thrown));
    }
  }

  /** The same errors, with the errors within them, but without objects. */
  function withoutData({ errors, root }: Exclude<Thrown, { raw: unknown }>): Thrown {
    if (!("error" in root)) return encode(new Error("The task threw something that cannot be sent"));
    const isFlat = ([, , value]: ErrorMessage["properties"][number]): boolean => "error" in value || typeof value.value !== "object";
    return { errors: errors.map((error) => ({ ...error, properties: error.properties.filter(isFlat) })), root };
  }

  function text(value: unknown): string {
    try {
      return String(value);
    } catch {
      return "something that has no text";
    }
  }

  return {
    post,
    returned,
    threw: (run, func, thrown) => sendThrown(encode(thrown, func), (thrown) => post({ type: "threw", run, thrown })),
    items,
    encode,
    sendThrown,
    isMoved,
    movedWith,
    close: () => closed = true,
  };
}
