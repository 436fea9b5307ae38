import { Kinds } from "../report/kinds.ts";
import type { BatchSummary } from "./progress.ts";
import { deniedBy } from "./record_errors.ts";

/** How many denied permissions are reported: tasks may be denied a different one for each record. */
const MOST_DENIED = 20;

/** What a summary tells of failed records, however many there are. */
export class Failures {
  readonly kinds = new Kinds();
  /** The first permissions that tasks were denied. */
  #denied = new Set<string>();

  /** Adds the error of a record. */
  add(error: { name: string; message: string }): void {
    this.kinds.add(error.name, () => error.message);
    const denied = deniedBy(error);
    if (denied !== undefined && this.#denied.size < MOST_DENIED) this.#denied.add(denied);
  }

  summary(): Pick<BatchSummary, "errorNames" | "denied"> {
    return { errorNames: this.kinds.get().map(({ kind, count }) => [kind, count]), denied: [...this.#denied] };
  }
}
