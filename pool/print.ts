/** Prints an error, if possible. */
export function printError(error: unknown): void {
  printIfPossible(() => console.error(error));
}

/** Prints a warning, if possible. */
export function printWarning(message: string): void {
  printIfPossible(() => console.warn(message));
}

function printIfPossible(print: () => void): void {
  try {
    print();
  } catch {
    // Deno throws if the disk behind stderr is full. Nobody would read of that either, and it is no reason for a program to end.
  }
}
