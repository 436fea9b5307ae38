/**
 * Listening to abort signals, with one `addEventListener` per signal however many listen. With a listener for each of a million jobs that
 * share a signal, each would take a search through all of them, since the platform looks for duplicates when a listener is added or
 * removed.
 *
 * @module
 */

type Listener = () => void;

const listeners = new WeakMap<AbortSignal, Set<Listener>>();

/**
 * Calls `listener` once when the signal aborts, after those that were added before.
 *
 * @returns A function that stops listening. When the last listener has stopped, the signal refers to none of them.
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
