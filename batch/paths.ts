/**
 * Paths of files, by the platform's own module, which needs no permission and no package.
 *
 * @module
 */

import * as path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** A path or a `file:` URL as an absolute path, seen from a folder or, by default, from the current one. */
export function resolve(file: string | URL, folder?: string): string {
  if (file instanceof URL || file.startsWith("file:")) return fileURLToPath(file);
  return path.isAbsolute(file) ? path.normalize(file) : path.resolve(folder ?? Deno.cwd(), file);
}

/** The `file:` URL of an absolute path. */
export function toFileUrl(absolute: string): URL {
  return pathToFileURL(absolute);
}

/** The parts of a path. */
export const { dirname, basename, join, relative } = path;

/** A path may lead through so many links: the system gives up by then. */
const MOST_LINKS = 40;

/** The file that a path leads to by links of its name, be it not there yet. */
export async function followed(file: string): Promise<string> {
  let at = file;
  for (let links = 0; links < MOST_LINKS && await isLink(at); links++) {
    at = path.resolve(await Deno.realPath(dirname(at)), await Deno.readLink(at));
  }
  return at;
}

async function isLink(file: string): Promise<boolean> {
  return (await ifThere(Deno.lstat(file)))?.isSymlink === true;
}

/** What comes of something that is done with a file; undefined if there is no such file. */
export async function ifThere<T>(done: Promise<T>): Promise<T | undefined> {
  try {
    return await done;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** What two names of one file have in common, be they links; of a file that is not there yet, where it will be. */
export async function identityOf(path: string): Promise<string> {
  try {
    const { dev, ino } = await Deno.stat(path);
    return ino ? `${dev} ${ino}` : await Deno.realPath(path);
  } catch (error) {
    // What may not be looked at is told by its name, and refused by who opens it.
    if (!(error instanceof Deno.errors.NotFound)) return path;
  }
  try {
    return join(await Deno.realPath(dirname(path)), basename(path));
  } catch {
    return path;
  }
}
