import { resolve, toFileUrl } from "./paths.ts";

/** Matches the import specifiers of a module, more or less: text in comments or strings may match too, which does no harm. */
const SPECIFIERS = /(?:\bfrom|\bimport)\s*\(?\s*["']([^"'\n]+)["']/g;

/** What a task module consists of. */
export interface TaskParts {
  /** The local files, by their paths, with their contents. */
  files: Map<string, Uint8Array>;
  /** The hosts from which these import, each with its port. */
  hosts: Set<string>;
}

/**
 * The parts of a task module: itself and what it imports, as far as those are local files, and where else these import from. Killable
 * workers must be permitted to read and to import them, and a resumed batch must find the files unchanged.
 *
 * @param url The address of the module.
 * @returns The parts, in the order in which they are found.
 */
export async function taskParts(url: string): Promise<TaskParts> {
  const files = new Map<string, Uint8Array>();
  const hosts = new Set<string>();
  const open = [url];
  for (const each of open) {
    const host = hostOf(each);
    if (host !== undefined) hosts.add(host);
    const path = pathOf(each);
    if (path === undefined || files.has(path)) continue;
    const content = await read(path);
    if (content === undefined) continue;
    files.set(path, content);
    for (const [, specifier] of new TextDecoder().decode(content).matchAll(SPECIFIERS)) {
      const address = addressOf(specifier!, toFileUrl(path));
      if (address !== undefined) open.push(address);
    }
  }
  return { files, hosts };
}

/** Where a local file is; undefined for anything else, such as a file of another machine. */
function pathOf(address: string): string | undefined {
  if (!address.startsWith("file:")) return undefined;
  try {
    return resolve(new URL(address));
  } catch {
    return undefined;
  }
}

/** What Deno takes for a host: with anything else among its permissions, such as the `...` of an address in a comment, no worker starts. */
const HOST = /^(?:\[.+\]|[\w-]{1,63}(?:\.[\w-]{1,63})*\.?)$/;

function hostOf(address: string): string | undefined {
  const { protocol, hostname, port } = new URL(address);
  if (protocol === "jsr:") return "jsr.io:443";
  if ((protocol !== "https:" && protocol !== "http:") || !HOST.test(hostname)) return undefined;
  return `${hostname}:${port || (protocol === "https:" ? 443 : 80)}`;
}

/** If something is not a file, or may not be read, Deno will complain when it loads the module. */
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
    // According to the import map of the program.
    return import.meta.resolve(specifier);
  } catch {
    return undefined;
  }
}
