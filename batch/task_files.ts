import { resolve, toFileUrl } from "./paths.ts";

/** The import specifiers of a module, more or less: what stands in a comment or a string may be among them, which does no harm. */
const SPECIFIERS = /(?:\bfrom|\bimport)\s*\(?\s*["']([^"'\n]+)["']/g;

/**
 * The files that a task module is made of: itself and what it imports, as far as those are local files. Killable workers have to be permitted to
 * read them, and a batch that is taken up again has to find them as they were.
 *
 * @param url The address of the module.
 * @returns The paths and contents, in the order in which they are found.
 */
export async function taskFiles(url: string): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  const open = [url];
  for (const each of open) {
    if (!each.startsWith("file:")) continue;
    const path = resolve(new URL(each));
    if (files.has(path)) continue;
    const content = await read(path);
    if (content === undefined) continue;
    files.set(path, content);
    for (const [, specifier] of new TextDecoder().decode(content).matchAll(SPECIFIERS)) {
      const address = addressOf(specifier!, toFileUrl(path));
      if (address !== undefined) open.push(address);
    }
  }
  return files;
}

/** What is no file, or may not be read, is for Deno to complain about when it loads the module. */
async function read(path: string): Promise<Uint8Array | undefined> {
  try {
    return await Deno.readFile(path);
  } catch {
    return undefined;
  }
}

function addressOf(specifier: string, base: URL): string | undefined {
  if (/^\.{0,2}\//.test(specifier) || URL.canParse(specifier)) return new URL(specifier, base).href;
  try {
    // By the import map of the program.
    return import.meta.resolve(specifier);
  } catch {
    return undefined;
  }
}
