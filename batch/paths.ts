/**
 * File paths, by the platform's own module, which needs no permission and no package.
 *
 * @module
 */

import * as path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** Makes a path or a `file:` URL absolute, relative to a folder, by default the current one. */
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

/** The most links that are followed: the system gives up by then. */
const MOST_LINKS = 40;

/** The file to which a path leads through links, even if that does not exist yet. */
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

/** The result of doing something with a file; undefined if there is no such file. */
export async function ifThere<T>(done: Promise<T>): Promise<T | undefined> {
  try {
    return await done;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** An identity that all names of one file share, links included; for a file that does not exist yet, its future path. */
export async function identityOf(path: string): Promise<string> {
  try {
    const { dev, ino } = await Deno.stat(path);
    return ino ? `${dev} ${ino}` : await Deno.realPath(path);
  } catch (error) {
    // What may not be looked at is identified by its name, and refused when it is opened.
    if (!(error instanceof Deno.errors.NotFound)) return path;
  }
  try {
    return join(await Deno.realPath(dirname(path)), basename(path));
  } catch {
    return path;
  }
}
