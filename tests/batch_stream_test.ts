import { Buffer } from "node:buffer";
import { runInNewContext } from "node:vm";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { batch, BatchError } from "@procpool/process-pool/batch";
import { Coverage } from "../batch/coverage.ts";
import { type Block, blocksOf } from "../batch/blocks.ts";
import { hashOf } from "../batch/bytes.ts";
import type { Source } from "../batch/inputs.ts";
import { divide } from "../batch/parts.ts";
import { Folder, ignore, NEEDS, numbers, run, same } from "./batch_fixtures.ts";
import { within } from "./fixtures.ts";
import { assertFails, thrownBy, until } from "./helpers.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function streamOf(...parts: string[]): ReadableStream<Uint8Array> {
  return ReadableStream.from(parts.map((part) => encoder.encode(part)));
}

Deno.test("blocksOf() yields what follows the last newline of a stream as a separate block", async () => {
  const blocks = async (text: string, seen: Source["seen"], csv?: string) => {
    const source = { name: "in", path: undefined, size: undefined, seen, ranges: false, open: () => Promise.resolve(streamOf(text)) };
    const options = { csv, size: () => 1000, enough: new AbortController().signal };
    const found: [number, string, Block["torn"]][] = [];
    for await (const { offset, bytes, torn } of blocksOf(source, options)) found.push([offset, decoder.decode(bytes), torn]);
    return found;
  };
  assertEquals(await blocks("a\nb\n", undefined), [[0, "a\nb\n", false]]);
  assertEquals(await blocks("a\nb\nc", undefined), [[0, "a\nb\n", false], [4, "c", "in a line"]]);
  assertEquals(await blocks("c", undefined), [[0, "c", "in a line"]]);
  assertEquals(await blocks('a\n"b\nc', undefined, ","), [[0, "a\n", false], [2, '"b\nc', "in quotes"]]);
  // The first block of CSV has the first row, which must not be left behind blank lines.
  assertEquals(await blocks("\n\na,b", undefined, ","), [[0, "\n\na,b", "in a line"]]);
  assertEquals(await blocks("\n\na,b\n1,2", undefined, ","), [[0, "\n\na,b\n", false], [6, "1,2", "in a line"]]);
  assertEquals(await blocks("\n\n", undefined, ","), [[0, "\n\n", "in a line"]]);
  // The size of a file is what it was when the batch began.
  assertEquals(await blocks("a\nb", { size: 3, changed: null, sample: "", identity: "" }), [[0, "a\nb", false]]);
});

Deno.test("blocksOf() copies nothing while there are only blank lines before the first row of CSV", async () => {
  const parts = [...Array(100).fill("\n \r\n"), "a,b\n"];
  const source = { name: "in", path: undefined, size: undefined, seen: undefined, ranges: false };
  const options = { csv: ",", size: () => 1, enough: new AbortController().signal };
  let copied = 0;
  const { set } = Uint8Array.prototype;
  Uint8Array.prototype.set = function (bytes, at) {
    copied += bytes.length;
    set.call(this, bytes, at);
  };
  try {
    const [block] = await Array.fromAsync(blocksOf({ ...source, open: () => Promise.resolve(streamOf(...parts)) }, options));
    assertEquals([decoder.decode(block!.bytes), copied], [parts.join(""), block!.bytes.length]);
  } finally {
    Reflect.deleteProperty(Uint8Array.prototype, "set");
  }
});

Deno.test("Coverage.end is the end of the last finished part", () => {
  const coverage = new Coverage();
  assertEquals(coverage.end, 0);
  coverage.add({ start: 0, end: 10, lines: 1 });
  assertEquals(coverage.end, 10);
  coverage.add({ start: 30, end: 40, lines: 1 });
  coverage.add({ start: 20, end: 25, lines: 1 });
  assertEquals(coverage.end, 40);
});

/** Writes a task that returns lines, makes a file "runs" when it comes to this one, and takes its time for that. */
function slowAt(folder: Folder, line: string): string {
  return folder.write(
    "task.js",
    `export default async (line) => {
      if (line !== ${JSON.stringify(line)}) return line;
      Deno.writeTextFileSync(${JSON.stringify(folder.of("runs"))}, "");
      await new Promise((resolve) => setTimeout(resolve, 100));
      return line;
    };`,
  );
}

Deno.test(`batch() that is stopped does not run the last line of a stream if it has no newline ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const task = slowAt(folder, "thr");
  const options = { output: folder.of("out"), inputFormat: "lines", outputFormat: "lines", permissions: "inherit" } as const;
  for (const ordered of [true, false]) {
    const controller = new AbortController();
    const first = run(task, { ...options, input: streamOf("one\ntwo\nthr"), ordered, overwrite: true, signal: controller.signal });
    await until(() => folder.names().includes("runs"));
    controller.abort();
    const { outcome, records } = await first;
    assertEquals([outcome, records, folder.read("out.partial")], ["stopped", 2, "one\ntwo\n"]);
    const second = await run(task, { ...options, input: streamOf("one\ntwo\nthree\nfour"), ordered, resume: true });
    assertEquals([second.records, folder.read("out")], [4, "one\ntwo\nthree\nfour\n"]);
    Deno.removeSync(folder.of("runs"));
  }
});

Deno.test(
  `batch() that is stopped takes the last line of a stream for none while it runs what comes behind that ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const task = slowAt(folder, "four");
    const options = { output: folder.of("out"), inputFormat: "lines", outputFormat: "lines", permissions: "inherit" } as const;
    const controller = new AbortController();
    const input = [streamOf("one\ntwo\nthr"), streamOf("four\n")];
    const first = run(task, { ...options, input, signal: controller.signal });
    await until(() => folder.names().includes("runs"));
    controller.abort();
    const { outcome, records } = await first;
    assertEquals([outcome, records, folder.read("out.partial")], ["stopped", 2, "one\ntwo\n"]);
    await run(task, { ...options, input: [streamOf("one\ntwo\nthree\n"), streamOf("four\n")], resume: true });
    assertEquals(folder.read("out"), "one\ntwo\nthree\nfour\n");
  },
);

Deno.test(`batch() that was cut short after the rename of its output is complete, even if its stream had no newline at its end ${NEEDS}`, {
  ignore,
}, async () => {
  using folder = new Folder();
  const options = { output: folder.of("out"), inputFormat: "lines", outputFormat: "lines" } as const;
  const task = (line: string) => line;
  await run(task, { ...options, input: streamOf("one\ntwo") });
  folder.write("out.log", folder.read("out.log").replace(/[^\n]*\n$/, ""));
  const { records, recordsOfRun } = await run(task, { ...options, input: streamOf("one\ntwo"), resume: true });
  assertEquals([records, recordsOfRun, folder.read("out")], [2, 0, "one\ntwo\n"]);
});

Deno.test(`batch() puts the last line of a stream, without newline, before the next input ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = [streamOf("1\n2"), folder.write("in.ndjson", "3\n"), streamOf("4")];
  const { records } = await run((x: number) => x, { input, output: folder.of("out") });
  assertEquals([folder.read("out"), records], ["1\n2\n3\n4\n", 4]);
});

Deno.test(
  `batch() loses no line of several streams without a newline at their ends, in whichever order they are done ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    for (const ordered of [true, false]) {
      const slow = async (x: number) => {
        if (x % 10 === 2) await new Promise((resolve) => setTimeout(resolve, 100));
        return x;
      };
      const input = [streamOf("1\n2"), streamOf("3\n4"), streamOf("12"), streamOf("5\n6")];
      const { records } = await run(slow, { input, output: folder.of("out"), ordered, overwrite: true, workers: 3 });
      const results = folder.json("out");
      assertEquals([records, ordered ? results : results.sort((a, b) => a - b)], [
        7,
        ordered ? [1, 2, 3, 4, 12, 5, 6] : [1, 2, 3, 4, 5, 6, 12],
      ]);
    }
  },
);

Deno.test("blocksOf() yields a first block of at least the required size, even if a line ends earlier", async () => {
  const source = {
    name: "in",
    path: undefined,
    size: undefined,
    seen: undefined,
    ranges: false,
    open: () => Promise.resolve(streamOf("one\n", "two\nth", "ree\n", "four\n")),
  };
  const found: string[] = [];
  const options = { csv: undefined, size: () => 1, least: 9, enough: new AbortController().signal };
  for await (const { bytes } of blocksOf(source, options)) found.push(decoder.decode(bytes));
  assertEquals(found, ["one\ntwo\nthree\n", "four\n"]);
});

Deno.test(
  `batch() with 'resume' refuses a stream that is shorter than what is done of it, or another, and can still go on ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const lines = Array.from({ length: 3000 }, (_, i) => `${i}\n`);
    const controller = new AbortController();
    const { records } = await run((x: number) => x === 2000 ? new Promise<void>(() => {}) : x, {
      input: streamOf(...lines),
      output: folder.of("out"),
      chunk: 1024,
      signal: controller.signal,
      onProgress: ({ records }) => records > 0 && controller.abort(),
    });
    const log = folder.json("out.log");
    const task = folder.write("task.js", "export default (x) => x;");
    const resume = (input: ReadableStream<Uint8Array>) => run(task, { input, output: folder.of("out"), resume: true });
    // As if it had been this task.
    log[0].task = { module: task, name: null, hash: await hashOf(Deno.readFileSync(task)) };
    folder.write("out.log", log.map((line) => `${JSON.stringify(line)}\n`).join(""));
    const done = log.at(-1).done.at(-1)[2];
    for (const [input, length] of [[streamOf(), 0], [streamOf("0\n1\n2"), 5]] as const) {
      const error = await assertRejects(() => resume(input), BatchError);
      assertEquals(
        [error.message, error.resumable],
        [
          `Cannot go on as the input 'stream' ends at byte ${length}, and ${done} bytes of it were there before: give it again from its beginning`,
          true,
        ],
      );
    }
    const other = await assertRejects(() => resume(streamOf("1\n", ...lines.slice(1))), BatchError);
    assertEquals(
      [other.message.replace(/\d+ bytes/, "so many bytes"), other.resumable],
      ["Cannot go on as the input 'stream' has different content in its first so many bytes: give it again from its beginning", true],
    );
    const again = await resume(streamOf(...lines));
    assertEquals([again.records, again.recordsOfRun, folder.read("out")], [3000, 3000 - records, lines.join("")]);
  },
);

Deno.test(`batch() with 'resume' refuses another stream that is shorter than the beginning of the first ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const controller = new AbortController();
  const options = { output: folder.of("out"), workers: 1 };
  const task = (x: number) => x === 20 ? new Promise<void>(() => {}) : x;
  const { records } = await run(task, {
    ...options,
    input: streamOf(numbers(100)),
    signal: controller.signal,
    onProgress: ({ records }) => records > 0 && controller.abort(),
  });
  for (const other of ["1000000000\n".repeat(10), "1".repeat(100), "1\n".repeat(49) + "10"]) {
    const { message } = await assertRejects(() => run(task, { ...options, input: streamOf(other), resume: true }), BatchError);
    assertEquals(
      [message, folder.json("out.log").at(-1).records],
      [
        `Cannot go on as the input 'stream' ends at byte ${other.length}, and 290 bytes of it were there before: give it again from its beginning`,
        records,
      ],
    );
  }
});

/** The parts of some lines, part of which is done: each with its begin and end, and its text. */
async function partsOf(text: string, { coverage, size }: { coverage: Coverage; size: number | undefined }) {
  const source: Source = {
    name: "in",
    path: undefined,
    size,
    seen: size === undefined ? undefined : { size, changed: null, sample: "", identity: "" },
    ranges: false,
    open() {
      opened++;
      return Promise.resolve(streamOf(text));
    },
  };
  let opened = 0;
  const parts = await Array.fromAsync(
    divide([source], [coverage], {
      format: "lines",
      delimiter: ",",
      chunk: () => 1000,
      block: () => 1,
      fields: () => Promise.resolve([]),
      passed: (_, stretch) => coverage.add(stretch),
      begins: new Map(),
      begun() {},
      uses() {},
      enough: new AbortController().signal,
    }),
    ({ start, end, piece }) => [start, end, "bytes" in piece ? new TextDecoder().decode(piece.bytes) : undefined],
  );
  return { parts, opened };
}

Deno.test("divide() refuses a stream that has no line where the one that was begun had one", async () => {
  const done = (start: number, end: number) => {
    const coverage = new Coverage();
    coverage.add({ start, end, lines: 1 });
    return { coverage, size: undefined };
  };
  assertEquals((await partsOf("1\n2\n", done(0, 2))).parts, [[2, 4, "2\n"]]);
  assertEquals((await partsOf("1\n2\n3\n", done(2, 4))).parts, [[0, 2, "1\n"], [4, 6, "3\n"]]);
  for (const [start, end, where] of [[0, 2, "2, up to which"], [1, 3, "1, from which on"]] as const) {
    await assertRejects(
      () => partsOf("12\n3\n", done(start, end)),
      BatchError,
      `Cannot go on as the input 'in' has no line that begins at byte ${where} it is done: give it again from its beginning`,
    );
  }
});

Deno.test("divide() goes on within a line of a file, where workers that read it themselves had left off", async () => {
  const text = "12\n345\n6789\n0\n12345\n";
  for (let start = 0; start < text.length; start++) {
    for (let end = start + 1; end <= text.length; end++) {
      const coverage = new Coverage();
      coverage.add({ start, end, lines: 0 });
      const { parts, opened } = await partsOf(text, { coverage, size: text.length });
      // A part that is done is not opened again.
      assertEquals(opened, end - start === text.length ? 0 : 1);
      // A line belongs to the range in which it begins.
      const left = text.match(/.+\n/g)!.filter((line) => text.indexOf(line) < start || text.indexOf(line) >= end);
      assertEquals(parts.map(([, , lines]) => lines).join(""), left.join(""));
      for (const [start, end] of parts as [number, number][]) coverage.add({ start, end, lines: 0 });
      assertEquals([coverage.first.end, coverage.pieces], [text.length, 0]);
    }
  }
});

Deno.test("batch() that is stopped closes the stream that it writes to: its reader is not left waiting", async () => {
  const controller = new AbortController();
  const input = new ReadableStream<Uint8Array>({ start: (stream) => stream.enqueue(new TextEncoder().encode(numbers(100))) });
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const text = new Response(readable).text();
  const summary = await within(batch((x: number) => x, {
    input,
    output: writable,
    permissions: "inherit",
    workers: 1,
    chunk: 1024,
    signal: controller.signal,
    onProgress: () => controller.abort(),
  }));
  assertEquals([summary.outcome, await within(text)], ["stopped", ""]);
});

Deno.test("batch() that is stopped settles even if nobody reads what it writes", async () => {
  const controller = new AbortController();
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const summary = await within(batch((x: number) => x, {
    input: new Response(numbers(1000)).body!,
    output: writable,
    permissions: "inherit",
    workers: 1,
    signal: controller.signal,
    onProgress: () => controller.abort(),
  }));
  assertEquals(summary.outcome, "stopped");
  await assertRejects(() => within(new Response(readable).text()), Error);
});

Deno.test("batch() that fails aborts the stream that it writes to, with the reason", async () => {
  const input = new ReadableStream<Uint8Array>({ start: (stream) => stream.error(new Error("the cable was cut")) });
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const text = new Response(readable).text().catch((error: Error) => error);
  const error = await thrownBy(() => within(batch((x) => x, { input, output: writable, permissions: "inherit", workers: 1 })));
  assert(error instanceof BatchError, `${error}`);
  assertEquals(error.message, "Cannot go on as the input 'stream' cannot be read: the cable was cut");
  assertEquals(await within(text), error);
});

for (const [reason, said] of [[undefined, "no reason was given"], ["gone", "gone"]] as const) {
  Deno.test(`batch() says what a stream has failed with, even if that is no error: ${reason}`, async () => {
    const options = { permissions: "inherit", workers: 1 } as const;
    const failing = new ReadableStream<Uint8Array>({ start: (stream) => stream.error(reason) });
    await assertFails(
      () => within(batch((x) => x, { ...options, input: failing, output: new WritableStream() })),
      BatchError as never,
      `Cannot go on as the input 'stream' cannot be read: ${said}`,
    );
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    await readable.cancel(reason);
    await assertFails(
      () => within(batch((x) => x, { ...options, input: new Response("1\n").body!, output: writable })),
      BatchError as never,
      `Cannot write results: ${said}`,
    );
  });
}

Deno.test("batch() says what to do about a full pipe that does not block", async () => {
  const output = new WritableStream({
    write() {
      throw new Deno.errors.WouldBlock("Resource temporarily unavailable (os error 11)");
    },
  });
  await assertFails(
    () => within(batch((x) => x, { input: new Response("1\n").body!, output, permissions: "inherit", workers: 1 })),
    BatchError as never,
    "Cannot write results: the output is a pipe that does not block, and it is full: '| cat' makes another one",
  );
});

for (
  const [part, said] of [["2\n3\n", '"2\\n3\\n"'], [new Uint16Array([0x0a32]), "an object of class Uint16Array"], [
    undefined,
    "undefined",
  ]] as const
) {
  Deno.test(`batch() refuses a stream that yields something other than Uint8Arrays: ${said}`, async () => {
    const cancelled = Promise.withResolvers<void>();
    const input = new ReadableStream<Uint8Array>({
      start(stream) {
        stream.enqueue(new TextEncoder().encode("1\n"));
        stream.enqueue(part as never);
      },
      cancel: () => cancelled.resolve(),
    });
    await assertFails(
      () => within(batch((x) => x, { input, output: new WritableStream(), permissions: "inherit", workers: 1 })),
      BatchError as never,
      `Cannot go on as the input 'stream' cannot be read: it must yield Uint8Arrays, and yielded ${said}`,
    );
    await within(cancelled.promise);
  });
}

Deno.test("batch() reads a stream of Uint8Arrays, also of a subclass, of another realm, or of shared memory", async () => {
  const shared = new Uint8Array(new SharedArrayBuffer(2));
  shared.set([51, 10]);
  const parts = [Buffer.from("1\n"), runInNewContext("new Uint8Array([50, 10])"), shared];
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const written = new Response(readable).text();
  await run(same, { input: ReadableStream.from(parts), output: writable, permissions: "inherit", workers: 1 });
  assertEquals(await written, "1\n2\n3\n");
});

Deno.test("batch() that needs no more of its input cancels it", async () => {
  const cancelled = Promise.withResolvers<void>();
  const input = new ReadableStream<Uint8Array>({
    pull: (stream) => stream.enqueue(new TextEncoder().encode(numbers(1000))),
    cancel: () => cancelled.resolve(),
  });
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const text = new Response(readable).text();
  await within(batch((x: number) => x, { input, output: writable, permissions: "inherit", limit: 2 }));
  await within(cancelled.promise);
  assertEquals(await text, "0\n1\n");
});

Deno.test("batch() that is stopped cancels a stream of which nothing has come yet", async () => {
  const [reading, cancelled] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const input = new ReadableStream<Uint8Array>({
    pull() {
      reading.resolve();
      return cancelled.promise;
    },
    cancel: () => cancelled.resolve(),
  }, { highWaterMark: 0 });
  const stop = new AbortController();
  reading.promise.then(() => stop.abort());
  const { outcome } = await run(same, { input, output: new WritableStream(), permissions: "inherit", signal: stop.signal });
  await within(cancelled.promise);
  assertEquals(outcome, "stopped");
});

Deno.test("batch() cancels a stream that it refuses for its content", async () => {
  const cancelled = Promise.withResolvers<void>();
  const input = new ReadableStream<Uint8Array>({
    pull: (stream) => stream.enqueue(new TextEncoder().encode("id,id\n")),
    cancel: () => cancelled.resolve(),
  });
  await assertFails(
    () => run(same, { input, inputFormat: "csv", output: new WritableStream(), permissions: "inherit" }),
    BatchError,
    "Cannot run batch as the first row of 'stream' names the field 'id' twice",
  );
  await within(cancelled.promise);
});
