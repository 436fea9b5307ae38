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
 * Whether a path by now leads to a different file than the one that was seen: one that was put in its place, or to which a link leads now.
 * A file that has only grown is the same, even if a longer copy has replaced it, as with a log in use. The identity alone does not decide:
 * some file systems have none, or give a file another one at each look.
 *
 * This function is also sent to workers as its text: it refers to nothing outside itself.
 *
 * @param sample {@linkcode sampleOf}.
 */
export async function isOther(path: string, seen: SeenFile, sample: typeof sampleOf): Promise<boolean> {
  const { dev, ino, size, mtime } = await Deno.stat(path);
  if (!ino || `${dev} ${ino}` === seen.identity) return false;
  if (size === seen.size && (mtime?.toISOString() ?? null) === seen.changed) return false;
  return size <= seen.size || await sample(path, seen.size) !== seen.sample;
}

/**
 * The hash of samples of the first `size` bytes of a file.
 *
 * This function is also sent to workers as its text: it refers to nothing outside itself.
 */
export async function sampleOf(path: string, size: number): Promise<string> {
  /**
   * How much of a file is read at its start, middle and end to recognise it. Less, and a change is missed more easily; more takes longer
   * with many files.
   */
  const SAMPLE = 2 ** 16;
  const file = await Deno.open(path);
  try {
    const samples = new Uint8Array(3 * SAMPLE);
    let length = 0;
    for (const start of [0, Math.max(0, Math.floor((size - SAMPLE) / 2)), Math.max(0, size - SAMPLE)]) {
      await file.seek(start, Deno.SeekMode.Start);
      length += await file.read(samples.subarray(length, length + Math.min(SAMPLE, size - start))) ?? 0;
    }
    return new Uint8Array(await crypto.subtle.digest("SHA-256", samples.subarray(0, length))).toHex().slice(0, 32);
  } finally {
    file.close();
  }
}
