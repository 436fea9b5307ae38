import { assertEquals } from "@std/assert";
import { toFileUrl } from "../batch/paths.ts";
import { taskParts } from "../batch/task_files.ts";
import { Folder, ignore, NEEDS } from "./batch_fixtures.ts";

Deno.test(`taskParts() finds the local files of a task module, and the hosts from which they import ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const one = folder.write(
    "one.ts",
    `import "./two.ts"; import "jsr:@scope/name"; import "npm:name"; import "node:path"; export * from "./gone.ts";`,
  );
  const two = folder.write(
    "two.ts",
    `import x from "https://a.example/x.ts"; import y from "https://a.example:8443/y.ts"; import("http://b.example/"); import("http://[::1]/");`,
  );
  const { files, hosts } = await taskParts(toFileUrl(one).href);
  assertEquals([...files.keys()], [one, two]);
  assertEquals([...hosts], ["jsr.io:443", "a.example:443", "a.example:8443", "b.example:80", "[::1]:80"]);
});
