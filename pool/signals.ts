/**
 * Listening to abort signals, as one `addEventListener` a signal however many listen. A signal that is shared by a million waiting jobs would
 * otherwise be searched from end to end at each of them, since the platform looks for duplicates when a listener is added or removed.
 *
 * @module
 */

type Listener = () => void;

const listeners = new WeakMap<AbortSignal, Set<Listener>>();

/**
 * Calls `listener` once when the signal aborts, in the order of the calls.
 *
 * @returns Stops listening. The signal holds nothing of the last listener once it has stopped.
 */
export function onAbort(signal: AbortSignal | undefined, listener: Listener): () => void {
  if (signal === undefined) return nothing;
  const known = listeners.get(signal);
  const all = known ?? new Set<Listener>();
  if (known === undefined) {
    listeners.set(signal, all);
    signal.addEventListener("abort", callAll, { once: true });
  }
  all.add(listener);
  return () => {
    if (!all.delete(listener) || all.size > 0 || listeners.get(signal) !== all) return;
    listeners.delete(signal);
    signal.removeEventListener("abort", callAll);
  };
}

function callAll(event: Event): void {
  const signal = event.target as AbortSignal;
  const all = listeners.get(signal);
  listeners.delete(signal);
  // A listener may stop a later one, so each is looked up when its turn comes.
  for (const listener of all ?? []) listener();
}

function nothing(): void {}
