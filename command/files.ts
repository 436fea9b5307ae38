/**
 * Opens a file for writing and leaves all as it was: an error tells what is wrong before anything is done whose outcome is to be in it.
 *
 * @throws {Error} What the platform says if it cannot be written.
 */
export function tryToWrite(path: string): void {
  try {
    Deno.openSync(path, { write: true, createNew: true }).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    return Deno.openSync(path, { write: true }).close();
  }
  Deno.removeSync(path);
}
