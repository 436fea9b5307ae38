import { Kinds } from "../report/kinds.ts";
import type { BatchSummary } from "./progress.ts";

/** How many denied permissions are reported: tasks may be denied a different one for each record. */
const MOST_DENIED = 20;

/** What a summary tells of failed records, however many there are. */
export class Failures {
  readonly kinds = new Kinds();
  /** The first permissions that tasks were denied. */
  #denied = new Set<string>();

  /** Adds a failure: the name of its error, what that was denied, and its message. */
  add({ name, denied }: { name: string; denied: string | undefined }, message: () => string): void {
    this.kinds.add(name, message);
    if (denied !== undefined && this.#denied.size < MOST_DENIED) this.#denied.add(denied);
  }

  summary(): Pick<BatchSummary, "errorNames" | "denied"> {
    return { errorNames: this.kinds.get().map(({ kind, count }) => [kind, count]), denied: [...this.#denied] };
  }
}
