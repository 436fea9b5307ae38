/** How a pattern is read. */
export interface GlobOptions {
  extended?: boolean;
  globstar?: boolean;
  caseInsensitive?: boolean;
}

/** A regular expression that matches the paths which a glob pattern means. */
export function globToRegExp(glob: string, options?: GlobOptions): RegExp;
