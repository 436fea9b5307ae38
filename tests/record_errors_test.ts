import { assertEquals } from "@std/assert";
import { deniedBy, isRetryable, readError, readErrors } from "../batch/record_errors.ts";
import { Folder, ignore, NEEDS } from "./batch_fixtures.ts";

Deno.test(`readErrors() reads lines of any length, passes blank ones, and closes a file that it does not read to its end ${NEEDS}`, {
  ignore,
}, async () => {
  using folder = new Folder();
  const records = ["", "é".repeat(500_000), "x", "\u{1f600}".repeat(100_000), "last"];
  const path = folder.write("errors", records.map((record) => `${JSON.stringify({ record })}\n\n`).join("").trimEnd());
  assertEquals((await Array.fromAsync(readErrors(path))).map(({ record }) => record), records);
  for await (const { record } of readErrors(path)) {
    assertEquals(record, "");
    break;
  }
});

Deno.test("readError() reads a name as it was", () => {
  const members = (name: string) => new TextEncoder().encode(`"record":"1","error":${JSON.stringify({ name, message: "", stack: "" })}`);
  for (const name of ["", "Error", 'a "quoted" one\n']) assertEquals(readError(members(name)).name, name);
});

Deno.test("deniedBy() tells the permission that Deno names, and nothing of other errors", () => {
  const denied = (message: string, name = "NotCapable") => deniedBy({ name, message });
  assertEquals(denied('Requires net access to "example.com:443", run again with the --allow-net flag'), "net=example.com:443");
  assertEquals(denied("Requires env access, run again with the --allow-env flag"), "env");
  assertEquals([denied("no"), denied("It Requires env access"), denied("Requires env access", "Error")], [undefined, undefined, undefined]);
});

Deno.test("isRetryable() is true of a record that was kept whole and could be parsed", () => {
  const error = { name: "Error", message: "no", stack: "" };
  const parse = { ...error, name: "ParseError" };
  const entries = [{ error }, { error, truncated: true as const }, { error: parse }, { error: { ...parse, stack: "of the task" } }];
  assertEquals(entries.map(isRetryable), [true, false, false, true]);
});
