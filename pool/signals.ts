/**
 * Listening to abort signals, with one `addEventListener` per signal however many listen. With a listener for each of a million jobs that
 * share a signal, each would take a search through all of them, since the platform looks for duplicates when a listener is added or
 * removed.
 *
 * @module
 */

type Listener = () => void;

const listeners = new WeakMap<AbortSignal, Listeners>();

/** Those who listen to one signal. It knows which: of a proxy of a signal, the event's target would be the signal behind it. */
class Listeners extends Set<Listener> implements EventListenerObject {
  #signal: AbortSignal;

  constructor(signal: AbortSignal) {
    super();
    this.#signal = signal;
  }

  handleEvent(): void {
    listeners.delete(this.#signal);
    // A listener may stop a later one, so each is looked up when its turn comes.
    for (const listener of this) listener();
  }
}

/**
 * Calls `listener` once when the signal aborts, after those that were added before.
 *
 * @returns A function that stops listening. When the last listener has stopped, the signal refers to none of them.
 */
export function onAbort(signal: AbortSignal | undefined, listener: Listener): () => void {
  if (signal === undefined) return nothing;
  const known = listeners.get(signal);
  const all = known ?? new Listeners(signal);
  if (known === undefined) {
    listeners.set(signal, all);
    signal.addEventListener("abort", all, { once: true });
  }
  all.add(listener);
  return () => {
    if (!all.delete(listener) || all.size > 0 || listeners.get(signal) !== all) return;
    listeners.delete(signal);
    signal.removeEventListener("abort", all);
  };
}

function nothing(): void {}
