import { isUint8Array } from "node:util/types";
import { show } from "../pool/checks.ts";
import { abandon, abandonOn } from "./bytes.ts";

/** Whether a file begins as gzip does. */
export async function isGzip(path: string): Promise<boolean> {
  using file = await Deno.open(path);
  const bytes = new Uint8Array(2);
  // Whoever opens `/dev/stdin` on macOS goes on where the one before has read to.
  await file.seek(0, Deno.SeekMode.Start);
  const read = await file.read(bytes);
  return read === 2 && hasGzipMagic(bytes);
}

function hasGzipMagic(bytes: Uint8Array): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b;
}

/** The stream, decompressed if it begins as gzip does. */
export async function uncompressed(stream: ReadableStream<Uint8Array>, enough: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  const reader = stream.getReader();
  const first: Uint8Array[] = [];
  let length = 0;
  const stopListening = abandonOn(enough, reader);
  try {
    while (length < 2) {
      const value = await nextBytes(reader);
      if (value === undefined) break;
      first.push(value);
      length += value.length;
    }
  } finally {
    stopListening();
  }
  const whole = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const value = first.shift() ?? await nextBytes(reader);
      if (value === undefined) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
  const beginning = new Uint8Array(first.flatMap((bytes) => [...bytes.subarray(0, 2)]));
  if (!hasGzipMagic(beginning)) return whole;
  // Not a DecompressionStream: Deno's refuses a file of several members, which is what `cat a.gz b.gz` and bgzip make.
  const [{ createGunzip }, { Readable }] = await Promise.all([import("node:zlib"), import("node:stream")]);
  const gunzip = createGunzip();
  const source = Readable.fromWeb(whole as Parameters<typeof Readable.fromWeb>[0]);
  source.on("error", (error) => gunzip.destroy(error));
  // Even if it is not read to its end, the file must be closed.
  gunzip.on("close", () => source.destroy());
  return Readable.toWeb(source.pipe(gunzip)) as unknown as ReadableStream<Uint8Array>;
}

/**
 * Reads the next chunk of a stream; undefined at its end.
 *
 * @throws {TypeError} If that is not a Uint8Array: text, numbers or larger typed arrays would be read as other bytes than intended.
 */
async function nextBytes(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Uint8Array | undefined> {
  const { value, done } = await reader.read();
  // It may come from another realm, as from `node:vm`.
  if (done || isUint8Array(value)) return value;
  const error = new TypeError(`it must yield Uint8Arrays, and yielded ${show(value)}`);
  abandon(reader, error);
  throw error;
}
