import { onAbort } from "../pool/signals.ts";

/** A short hash, in hexadecimal digits. */
export async function hashOf(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex().slice(0, 32);
}

/** Concatenates all of them. */
export function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Writes all of it: the platform may write less at a time. */
export function writeAll(file: { writeSync(bytes: Uint8Array): number }, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
}

/** Cancels what nobody reads any more. If it fails meanwhile, nobody cares. */
export function abandon(reader: ReadableStreamDefaultReader<Uint8Array>, reason?: unknown): void {
  reader.cancel(reason).catch(() => {});
}

/** Abandons a reader once there is enough, even during a pending read. The returned function ends that. */
export function abandonOn(enough: AbortSignal, reader: ReadableStreamDefaultReader<Uint8Array>): () => void {
  if (enough.aborted) abandon(reader);
  return onAbort(enough, () => abandon(reader));
}
