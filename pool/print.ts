/** Prints an error, where that can be. */
export function printError(error: unknown): void {
  printed(() => console.error(error));
}

/** Prints a warning, where that can be. */
export function printWarning(message: string): void {
  printed(() => console.warn(message));
}

function printed(print: () => void): void {
  try {
    print();
  } catch {
    // Deno throws where the disk of stderr is full: nobody would hear of that either, and it is no reason for a program to end.
  }
}
