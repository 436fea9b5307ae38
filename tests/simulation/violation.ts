/** An invariant that did not hold. */
export class Violation extends Error {
  override readonly name = "Violation";
  /** Which one, in a few words: the same for each seed that breaks it. */
  readonly invariant: string;

  constructor(invariant: string, details?: unknown, options?: ErrorOptions) {
    super(details === undefined ? invariant : `${invariant} (${details})`, options);
    this.invariant = invariant;
  }
}

/** Throws a {@linkcode Violation} unless the condition holds. */
export function check(condition: boolean, invariant: string, details?: () => unknown): asserts condition {
  if (!condition) throw new Violation(invariant, details?.());
}
