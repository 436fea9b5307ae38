import { assertEquals, assertNotEquals } from "@std/assert";
import { BatchError } from "@procpool/process-pool/batch";
import { findSources, sampleOf } from "../batch/inputs.ts";
import { Folder, ignore, NEEDS } from "./batch_fixtures.ts";
import { assertFails } from "./helpers.ts";

Deno.test(`findSources() says which file it is that the system lets nobody read ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "1\n");
  const { open } = Deno;
  // Whoever runs the tests may be allowed to read anything.
  Deno.open = () => Promise.reject(new Deno.errors.PermissionDenied("Permission denied (os error 13)"));
  try {
    await assertFails(
      () => findSources([input], "ndjson"),
      BatchError as never,
      `Cannot run batch as it cannot access the input file '${input}': Permission denied (os error 13)`,
    );
  } finally {
    Deno.open = open;
  }
});

Deno.test(`sampleOf() looks at the begin, the middle and the end of a file, however large, and at nothing behind it ${NEEDS}`, {
  ignore,
}, async () => {
  using folder = new Folder();
  for (const size of [300_000, 5 * 2 ** 30]) {
    const path = folder.write("large", "");
    // Without blocks, where the system can do that.
    using file = Deno.openSync(path, { write: true });
    file.truncateSync(size);
    let before = await sampleOf(path, size);
    for (const at of [0, size / 2, size - 1]) {
      file.seekSync(at, Deno.SeekMode.Start);
      file.writeSync(Uint8Array.of(1));
      const sample = await sampleOf(path, size);
      assertNotEquals(sample, before, `${at} of ${size}`);
      before = sample;
    }
    file.seekSync(size, Deno.SeekMode.Start);
    file.writeSync(Uint8Array.of(1));
    assertEquals(await sampleOf(path, size), before);
  }
});
