import { globToRegExp } from "@std/path/glob-to-regexp";
import { BatchError, explained } from "./errors.ts";
import { identityOf, resolve } from "./paths.ts";

const GLOB_CHARACTERS = /[*?[\]{}]/;

/**
 * The files that a path or a glob matches, in the order of their names.
 *
 * @param own The identities of files that no glob matches.
 * @param os The system: on Windows a backslash separates folders, too. Elsewhere it takes the meaning of a character away.
 *
 * @throws {BatchError} If a glob matches none.
 */
export async function expandGlob(input: string | URL, own: ReadonlySet<string>, os: string = Deno.build.os): Promise<string[]> {
  if (input instanceof URL || input.startsWith("file:")) return [resolve(input)];
  if (!GLOB_CHARACTERS.test(input) || await exists(input)) return [input];
  const glob = os === "windows" ? input.replaceAll("\\", "/") : input;
  const segments = glob.split("/");
  const literal = segments.findIndex((segment) => GLOB_CHARACTERS.test(segment));
  const folder = literal === 1 && glob.startsWith("/") ? "/" : segments.slice(0, literal).join("/");
  const pattern = patternOf(glob);
  const matching: string[] = [];
  await walk(folder, glob.includes("**") ? [] : levelsOf(segments.slice(literal)), pattern, matching);
  const found: string[] = [];
  for (const path of matching) if (!own.has(await identityOf(resolve(path)))) found.push(path);
  if (found.length === 0) throw new BatchError(`Cannot run batch as no file matches the input '${input}'`);
  return found.sort();
}

function patternOf(input: string): RegExp {
  try {
    return globToRegExp(input, { extended: true, globstar: true });
  } catch (error) {
    throw new BatchError(`Cannot run batch as the input '${input}' is no glob, and there is no such file: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** The pattern of the names on each level of folders. Every name matches if a slash is within braces or the like, as in `{a/b,c}`. */
function levelsOf(segments: string[]): RegExp[] {
  const isWhole = (segment: string) =>
    !segment.includes("\\") &&
    [["{", "}"], ["(", ")"], ["[", "]"]].every(([open, close]) => segment.split(open!).length === segment.split(close!).length);
  const areWhole = segments.every(isWhole);
  return segments.filter((segment) => segment !== "").map((segment) => areWhole ? patternOf(segment) : /^/);
}

/**
 * Finds the files that match.
 *
 * @param levels The patterns of the names in the folder, in its folders, and so on. Folders with other names are not opened: there may be
 * many, and some may not be readable. Empty for a glob with `**`, for which all folders are opened.
 */
async function walk(folder: string, levels: readonly RegExp[], pattern: RegExp, found: string[]): Promise<void> {
  const within = folder === "" ? "." : folder.endsWith("/") ? folder : `${folder}/`;
  const [level, ...rest] = levels;
  const look = async () => {
    for await (const { name, isDirectory, isSymlink } of Deno.readDir(within)) {
      if (level?.test(name) === false) continue;
      const path = folder === "" ? name : `${folder.replace(/\/$/, "")}/${name}`;
      const matches = pattern.test(path);
      if (isDirectory || isSymlink && (matches || rest.length > 0) && await isFolder(path)) {
        // As in a shell, '**' does not follow links: one to a folder above would lead round and round.
        if (rest.length > 0 || level === undefined && isDirectory) await walk(path, rest, pattern, found);
      } else if (matches) found.push(path);
    }
  };
  await explained(look, `folder '${within}' of the input`, { flag: `--allow-read=${within}` });
}

/**
 * Whether a link leads to a folder.
 *
 * @throws {Error} If that cannot be determined: otherwise its files would be left out silently.
 */
async function isFolder(link: string): Promise<boolean> {
  try {
    return (await Deno.stat(link)).isDirectory;
  } catch (error) {
    const { NotFound, NotADirectory, FilesystemLoop } = Deno.errors;
    // It leads nowhere.
    if ([NotFound, NotADirectory, FilesystemLoop].some((ErrorClass) => error instanceof ErrorClass)) return false;
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch {
    return false;
  }
}
