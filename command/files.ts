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
    // Opening a pipe would wait for a reader, deaf to Ctrl-C, and closing it would tell the reader that this was all.
    if (isPipe(path)) return;
    return Deno.openSync(path, { write: true }).close();
  }
  Deno.removeSync(path);
}

/** Opens a pipe, which blocks until somebody reads it; undefined if the file is not known to be a pipe. */
export function openPipe(path: string): Deno.FsFile | undefined {
  return isPipe(path) ? Deno.openSync(path, { write: true }) : undefined;
}

/** Whether a file is known to be a pipe, without asking for a permission. */
function isPipe(path: string): boolean {
  if (Deno.permissions.querySync({ name: "read", path }).state !== "granted") return false;
  try {
    return Deno.statSync(path).isFifo === true;
  } catch {
    // If anything is wrong with the file, opening it says what.
    return false;
  }
}
