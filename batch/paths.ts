/**
 * Paths of files, by the platform's own module, which needs no permission and no package.
 *
 * @module
 */

import * as path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** A path or a `file:` URL as an absolute path. */
export function resolve(file: string | URL): string {
  if (file instanceof URL || file.startsWith("file:")) return fileURLToPath(file);
  return path.isAbsolute(file) ? path.normalize(file) : path.resolve(Deno.cwd(), file);
}

/** The `file:` URL of an absolute path. */
export function toFileUrl(absolute: string): URL {
  return pathToFileURL(absolute);
}

/** The parts of a path. */
export const { dirname, basename, join } = path;
