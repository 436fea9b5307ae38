/**
 * Sees to it that a file can be written, before anything is done whose outcome is to be in it.
 *
 * @returns What is wrong, if it cannot; undefined if it is there now, and empty.
 */
export function makeWritable(option: string, path: string): string | undefined {
  try {
    Deno.openSync(path, { write: true, create: true, truncate: true }).close();
    return undefined;
  } catch (error) {
    const why = error instanceof Deno.errors.NotCapable ? `run it with 'deno run --allow-write=${path} ...'` : (error as Error).message;
    return `process-pool: '${option}' cannot write ${JSON.stringify(path)}: ${why}`;
  }
}
