import { tryToWrite } from "../command/files.ts";

/**
 * Checks that a file can be written, before the work for it begins. This changes nothing.
 *
 * @returns What is wrong, if it cannot.
 */
export function explainUnwritable(option: string, path: string): string | undefined {
  try {
    tryToWrite(path);
    return undefined;
  } catch (error) {
    return explain(option, path, error);
  }
}

/**
 * Writes a file.
 *
 * @returns What is wrong, if it cannot be written.
 */
export async function writeOrExplain(option: string, path: string, text: string): Promise<string | undefined> {
  try {
    await Deno.writeTextFile(path, text);
    return undefined;
  } catch (error) {
    return explain(option, path, error);
  }
}

function explain(option: string, path: string, error: unknown): string {
  const why = error instanceof Deno.errors.NotCapable ? `run it with 'deno run --allow-write=${path} ...'` : (error as Error).message;
  return `process-pool: '${option}' cannot write ${JSON.stringify(path)}: ${why}`;
}
