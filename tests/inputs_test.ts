import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { BatchError } from "@procpool/process-pool/batch";
import { expandGlob } from "../batch/globs.ts";
import { expandInputs, findSources, isHalf, refuseChangedInputs } from "../batch/inputs.ts";
import { sampleOf } from "../batch/seen_file.ts";
import { Folder, ignore, NEEDS } from "./batch_fixtures.ts";
import { assertFails } from "./helpers.ts";

Deno.test(`findSources() says which file the system does not let it read ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "1\n");
  const { open } = Deno;
  // Whoever runs the tests may have permission to read anything.
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

Deno.test(`expandInputs() says once which folder within a glob cannot be read ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  Deno.mkdirSync(folder.of("a"));
  const { readDir } = Deno;
  Deno.readDir = (path) => {
    if (path === `${folder.path}/`) return readDir(path);
    throw new Deno.errors.PermissionDenied("Permission denied (os error 13)");
  };
  try {
    await assertFails(
      () => expandInputs([`${folder.path}/*/*.ndjson`], new Set()),
      BatchError as never,
      `Cannot run batch as it cannot access the folder '${folder.path}/a/' of the input: Permission denied (os error 13)`,
    );
  } finally {
    Deno.readDir = readDir;
  }
});

Deno.test("expandInputs() finds more files than a call takes arguments", async () => {
  const { readDir, stat } = Deno;
  Deno.readDir = async function* () {
    for (let i = 0; i < 200_000; i++) yield { name: String(i), isFile: true, isDirectory: false, isSymlink: false };
  };
  Deno.stat = () => Promise.reject(new Error("These files do not exist"));
  try {
    assertEquals((await expandInputs(["/many/*"], new Set())).length, 200_000);
  } finally {
    Object.assign(Deno, { readDir, stat });
  }
});

Deno.test(`sampleOf() looks at the beginning, the middle and the end of a file, however large, and at nothing after it ${NEEDS}`, {
  ignore,
}, async () => {
  using folder = new Folder();
  for (const size of [300_000, 5 * 2 ** 30]) {
    const path = folder.write("large", "");
    // Without blocks on the disk, if the system can do that.
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

Deno.test(`isHalf() learns nothing from another file in the place of an input ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.ndjson", "1\n2");
  const [source] = await findSources([input], "ndjson");
  // So that no other file gets its number.
  Deno.renameSync(input, folder.of("away"));
  for (const [content, half] of [["1\n2\n", false], ["1\n23\n", true], ["78\n9\n", false]] as const) {
    Deno.renameSync(folder.write("other", content), input);
    assertEquals(await isHalf(source!, "in a line"), half, content);
  }
});

for (
  const [more, torn, half] of [
    ["", "in a line", false],
    ["\n", "in a line", false],
    ["\r\n", "in a line", false],
    ["\r", "in a line", true],
    ["\rx\n", "in a line", true],
    ["x\n", "in a line", true],
    ["", "in quotes", false],
    ["\n", "in quotes", true],
    ['"\n', "in quotes", true],
  ] as const
) {
  Deno.test(`isHalf() tells by ${JSON.stringify(more)} whether a record that ended ${torn} was half ${NEEDS}`, { ignore }, async () => {
    using folder = new Folder();
    const input = folder.write("in", "1");
    const [source] = await findSources([input], "lines");
    Deno.writeTextFileSync(input, more, { append: true });
    assertEquals(await isHalf(source!, torn), half);
  });
}

Deno.test(`expandGlob() takes the backslashes of a glob for slashes on Windows, and only there ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  Deno.mkdirSync(folder.of("a"));
  const path = folder.write("a/1.ndjson", "1\n");
  const [glob, deep] = [path.replace("1.nd", "*.nd"), `${folder.path}/**/*.ndjson`].map((each) => each.replaceAll("/", "\\")) as [
    string,
    string,
  ];
  assertEquals([await expandGlob(glob, new Set(), "windows"), await expandGlob(deep, new Set(), "windows")], [[path], [path]]);
  const error = `Cannot run batch as no file matches the input '${glob}'`;
  await assertFails(() => expandGlob(glob, new Set(), "linux"), BatchError as never, error);
});

/** Makes all who open any file share the position of one, as macOS does for `/dev/stdin`. */
function shareOpened(path: string): { file: Deno.FsFile } & Disposable {
  const { open, stat } = Deno;
  const file = Deno.openSync(path);
  Deno.open = () =>
    Promise.resolve({
      read: (into: Uint8Array) => file.read(into),
      seek: (offset: number, whence: Deno.SeekMode) => file.seek(offset, whence),
      close() {},
      [Symbol.dispose]() {},
    } as Deno.FsFile);
  Deno.stat = () => stat(path);
  return {
    file,
    [Symbol.dispose]() {
      Object.assign(Deno, { open, stat });
      file.close();
    },
  };
}

for (const [what, compress] of [["a file", false], ["a compressed file", true]] as const) {
  Deno.test(`findSources() finds ${what} that is read from its start, though all who open it share one position ${NEEDS}`, {
    ignore,
  }, async () => {
    using folder = new Folder();
    const content = "id\n1\n2\n";
    const plain = new Response(content).body!;
    const bytes = await new Response(compress ? plain.pipeThrough(new CompressionStream("gzip")) : plain).bytes();
    const input = folder.write("in.csv", bytes);
    using shared = shareOpened(input);
    shared.file.seekSync(1, Deno.SeekMode.Start);
    const [source] = await findSources([input], "csv");
    assertEquals(source!.size, compress ? undefined : bytes.length);
    assertEquals(await new Response(await source!.open(new AbortController().signal)).text(), content);
  });
}

Deno.test(`refuseChangedInputs() does not disturb who reads a growing file, though all who open it share one position ${NEEDS}`, {
  ignore,
}, async () => {
  using folder = new Folder();
  // It takes several reads.
  const content = Array.from({ length: 50_000 }, (_, i) => `${i}\n`).join("");
  const input = folder.write("in.csv", content);
  using _ = shareOpened(input);
  const [source] = await findSources([input], "csv");
  const reader = (await source!.open(new AbortController().signal)).getReader();
  const decoder = new TextDecoder();
  let text = decoder.decode((await reader.read()).value, { stream: true });
  assert(text.length < content.length);
  folder.write("in.csv", `${content}more`);
  await refuseChangedInputs([{ ...source!, path: "/dev/fd/0" }], { stillRead: true });
  for (let { value } = await reader.read(); value !== undefined; { value } = await reader.read()) {
    text += decoder.decode(value, { stream: true });
  }
  assertEquals(text, content);
  await refuseChangedInputs([source!]);
});

Deno.test(`refuseChangedInputs() says that a file to which something was appended can no longer be read ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in", "1\n");
  const sources = await findSources([input], "ndjson");
  folder.write("in", "1\n2\n");
  await refuseChangedInputs(sources);
  const { open } = Deno;
  Deno.open = () => Promise.reject(new Error("Too many open files (os error 24)"));
  try {
    const error = `Cannot go on as the input '${input}' can no longer be read: Too many open files (os error 24)`;
    await assertFails(() => refuseChangedInputs(sources), BatchError as never, error);
  } finally {
    Deno.open = open;
  }
});
