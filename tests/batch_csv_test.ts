import { assertEquals } from "@std/assert";
import { ProcessPool, type TaskRef } from "@procpool/process-pool";
import { BatchError } from "@procpool/process-pool/batch";
import type { readHeader } from "../batch/csv.ts";
import { firstRow, rowBegin, rowEnd } from "../batch/rows.ts";
import { Folder, ignore, NEEDS, run } from "./batch_fixtures.ts";
import { assertFails, seeded } from "./helpers.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The rows of a text that arrives in parts ending at these positions. */
function rowsOf(text: string, ends: number[] = []): string[] {
  const bytes = encoder.encode(text);
  const [rows, scan] = [[] as string[], rowBegin()];
  let begin = 0;
  for (const [i, to] of [...ends, bytes.length].entries()) {
    const part = bytes.subarray(0, to);
    for (let at = ends[i - 1] ?? 0; (at = rowEnd(part, at, 44, scan)) >= 0; begin = at) {
      rows.push(decoder.decode(bytes.subarray(begin, at)));
    }
  }
  if (begin < bytes.length) rows.push(decoder.decode(bytes.subarray(begin)));
  return rows;
}

for (
  const rows of [
    ["a,b\n", "c,d"],
    ['"a\nb",c\n', "d\n"],
    ['"a ""\n"" b"\n', '""\n', '"",""\n', '"""\n"\n', "z"],
    ['5" pipe\n', '6"\n', 'a,b"\n', 'a""b"\n', "z\n"],
    ['"a" b",c"\n', '"a"b"\n', "z"],
    [' "a\n', '"\r\n"\r\n', "\n", "z\n"],
    ["z\n", '"not closed\nz\nz\n'],
  ]
) {
  Deno.test(`rowEnd() tells rows apart: ${JSON.stringify(rows)}`, () => {
    const text = rows.join("");
    assertEquals(rowsOf(text), rows);
    for (let at = 0; at <= text.length; at++) assertEquals(rowsOf(text, [at]), rows, `in parts, at ${at}`);
    assertEquals(rowsOf(text, Array.from(text, (_, i) => i)), rows, "byte by byte");
  });
}

Deno.test("firstRow() skips a byte order mark and blank lines, but not a row of empty fields", () => {
  const first = (text: string, delimiter = ",") => {
    const bytes = encoder.encode(text);
    const { begin, end } = firstRow(bytes, delimiter);
    return [begin, decoder.decode(bytes.subarray(begin, end))];
  };
  assertEquals(first("\n \r\na,b\nc\n"), [4, "a,b\n"]);
  assertEquals(first('\ufeff"a\nb"\nc'), [3, '"a\nb"\n']);
  assertEquals(first("\n\t\t\na\n", "\t"), [1, "\t\t\n"]);
  assertEquals(first("\n\na"), [2, "a"]);
  assertEquals([first("\n\n"), first("")], [[2, ""], [0, ""]]);
});

const same = (row: unknown) => row;

Deno.test(
  `batch() of CSV takes a quote within a field for one, and a row that is none for no more than itself ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const output = folder.of("out");
    const input = folder.write("in.csv", `id,name\n1,5" pipe\n2,a\n3,"b" c\n4,"d ""\n""e"\n5,f"\n6,"g"\n`);
    const { records, failed } = await run(same, { input, output });
    assertEquals(folder.json("out"), [
      { id: "1", name: '5" pipe' },
      { id: "2", name: "a" },
      { id: "4", name: 'd "\n"e' },
      { id: "5", name: 'f"' },
      { id: "6", name: "g" },
    ]);
    assertEquals([records, failed], [6, 1]);
    const [{ line, record, error }] = folder.json("out.errors.ndjson");
    assertEquals([line, record, error.message], [4, '3,"b" c', "The row is not CSV: Trailing quote on quoted field is malformed"]);
  },
);

Deno.test("batch() of CSV reads each row that is well-formed as it was written, whatever is beside it and wherever the input is cut", async () => {
  const random = seeded(7);
  const pick = <T>(values: T[]) => values[Math.floor(random() * values.length)]!;
  const quoted = (field: string) => /[",\r\n]/.test(field) || random() < 0.2 ? `"${field.replaceAll('"', '""')}"` : field;
  for (let round = 0; round < 6; round++) {
    const [rows, expected] = [['\ufeff"id, or\nnumber",a,b'], [] as unknown[]];
    let strays = 0;
    for (let id = 0; id < 400; id++) {
      const [a, b] = [0, 1].map(() =>
        Array.from({ length: pick([0, 1, 5, 40]) }, () => pick(['"', "\n", "\r", ",", "x", " ", "é"])).join("")
      );
      const stray = random() < 0.1;
      rows.push(stray ? `${id},x"y,"z" w` : `${id},${quoted(a!)},${quoted(b!)}`);
      if (stray) strays++;
      else expected.push({ "id, or\nnumber": String(id), a, b });
    }
    const bytes = encoder.encode(rows.map((row) => row + pick(["\n", "\r\n"])).join(""));
    const parts: Uint8Array[] = [];
    for (let at = 0; at < bytes.length;) {
      const size = pick([1, 2, 50, 3000]);
      parts.push(bytes.slice(at, at += size));
    }
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const results = new Response(readable).text();
    const input = ReadableStream.from(parts);
    const options = { input, output: writable, inputFormat: "csv", chunk: 1024, permissions: "inherit" } as const;
    const { records, failed } = await run(same, options);
    assertEquals((await results).trimEnd().split("\n").map((line) => JSON.parse(line)), expected);
    assertEquals([records, failed], [400, strays]);
  }
});

Deno.test(`batch() of CSV takes a carriage return for a part of its field, unless a newline follows ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const output = folder.of("out");
  const input = folder.write("in.csv", "a,b\r\n1,foo\rjunk\r\n2,foo\rjunk,more\n3,z\n");
  const { failed } = await run(same, { input, output });
  assertEquals([folder.json("out"), failed], [[{ a: "1", b: "foo\rjunk" }, { a: "3", b: "z" }], 1]);
});

for (
  const [row, why] of [
    ["a,b\r1,2\r3,4\r", "has a carriage return without a newline: end rows in '\\n' or '\\r\\n'"],
    ['a,"b"c\n1,2\n', "is not CSV: Trailing quote on quoted field is malformed"],
    ['a,"b\n1,2\n', "is not CSV: Quoted field unterminated"],
    [",,\n1,2,3\n", "names the field '' twice"],
    [Uint8Array.of(97, 44, 246, 10, 49, 44, 50, 10), "is not valid UTF-8, or contains U+FFFD, which stands for text that was not"],
  ] as const
) {
  Deno.test(`batch() of CSV refuses a header that ${why} ${NEEDS}`, { ignore }, async () => {
    using folder = new Folder();
    const input = folder.write("in.csv", row);
    const message = `Cannot run batch as the first row of '${input}' ${why}`;
    await assertFails(() => run(same, { input, output: folder.of("out") }), BatchError as never, message);
    assertEquals(folder.names(), ["in.csv"]);
  });
}

Deno.test(`readHeader() takes no time that grows with the square of the number of fields ${NEEDS}`, { ignore }, async () => {
  const module = import.meta.resolve("../batch/csv.ts");
  const task: TaskRef<Parameters<typeof readHeader>, string[]> = { module, name: "readHeader" };
  // It takes a second, or several minutes, in a worker that can be stopped.
  await using pool = new ProcessPool({ maxWorkers: 1, modules: [module], jobTimeout: 60_000 });
  const names = Array.from({ length: 500_000 }, (_, i) => `field${i}`);
  const header = await pool.run(task, encoder.encode(names.join()), { input: "in.csv", delimiter: "," });
  assertEquals([header.length, header.at(-1)], [500_000, "field499999"]);
});

Deno.test(`batch() of TSV keeps a row whose fields are all empty, and skips a blank line ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const input = folder.write("in.tsv", "a\tb\n1\t2\n\t\n\n \n3\t4\n");
  const { records } = await run(same, { input, output: folder.of("out") });
  assertEquals([folder.json("out"), records], [[{ a: "1", b: "2" }, { a: "", b: "" }, { a: "3", b: "4" }], 3]);
});
