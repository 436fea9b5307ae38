/**
 * Opens a file for writing without changing anything, so that errors show before the work for it begins.
 *
 * @throws {Error} The platform's error if it cannot be written.
 */
export function tryToWrite(path: string): void {
  try {
    Deno.openSync(path, { write: true, createNew: true }).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    // To open a pipe waits for somebody who reads it, deaf to Ctrl-C, and tells him by the close that this was all.
    if (isPipe(path)) return;
    return Deno.openSync(path, { write: true }).close();
  }
  Deno.removeSync(path);
}

/** Whether a file is known to be a pipe, without asking for a permission. */
function isPipe(path: string): boolean {
  return Deno.permissions.querySync({ name: "read", path }).state === "granted" && Deno.statSync(path).isFifo === true;
}
