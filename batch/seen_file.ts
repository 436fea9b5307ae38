/** What a file is recognised by. */
export interface SeenFile {
  size: number;
  /** The time of the last change, if the system tells. */
  changed: string | null;
  /** The hash of samples. */
  sample: string;
  /** Its device and number, which tell it from others. */
  identity: string;
}

/**
 * Whether an opened file is another than the one that was seen: one that has been put in its place, or to which a link leads now. It may
 * have changed since, such as a log in use; and some file systems have no identities, or give a file another one at each look.
 *
 * This function is also sent to workers as its text: it refers to nothing outside itself.
 */
export function isOther({ dev, ino, size, mtime }: Deno.FileInfo, seen: SeenFile): boolean {
  return Boolean(ino) && `${dev} ${ino}` !== seen.identity && (size !== seen.size || (mtime?.toISOString() ?? null) !== seen.changed);
}
