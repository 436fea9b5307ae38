import { assertEquals } from "@std/assert";
import { ChunkSizer } from "../chunk_sizer.ts";

function sizer({ fixed, buffer = 256 }: { fixed?: number; buffer?: number } = {}): ChunkSizer {
  return new ChunkSizer({ fixed, buffer, chunksInFlight: 4 });
}

Deno.test("ChunkSizer makes chunks of half a second, at most eight times as large as the last, and with room for all in the buffer", () => {
  const sizes = (itemTime: number, options = {}) => {
    const chunks = sizer(options);
    return [0, 0, 0].map(() => {
      chunks.ran({ sent: chunks.size, done: chunks.size, elapsed: chunks.size * itemTime });
      return chunks.size;
    });
  };
  assertEquals(sizes(1, { buffer: 4000 }), [8, 64, 500]);
  assertEquals(sizes(20), [8, 25, 25]);
  assertEquals(sizes(1), [8, 64, 64]);
  assertEquals(sizes(10_000), [1, 1, 1]);
});

Deno.test("ChunkSizer keeps the size that it was given, as far as that fits into the buffer", () => {
  const [chunks, cut] = [sizer({ fixed: 40 }), sizer({ fixed: 40, buffer: 30 })];
  chunks.ran({ sent: 40, done: 40, elapsed: 1 });
  assertEquals([chunks.size, cut.size, chunks.isAutomatic, sizer().isAutomatic], [40, 30, false, true]);
});

Deno.test("ChunkSizer sends no more items than had their results in one reply, and tries more when all of these have", () => {
  const chunks = sizer({ fixed: 40 });
  assertEquals(chunks.fits, Infinity);
  chunks.ran({ sent: 40, done: 16, elapsed: 1 });
  assertEquals(chunks.fits, 16);
  // A chunk that was made smaller for another reason.
  chunks.ran({ sent: 8, done: 8, elapsed: 1 });
  assertEquals(chunks.fits, 16);
  chunks.ran({ sent: 16, done: 16, elapsed: 1 });
  assertEquals(chunks.fits, 18);
  chunks.ran({ sent: 18, done: 4, elapsed: 1 });
  assertEquals(chunks.fits, 4);
});
