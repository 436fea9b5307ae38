import { assert, assertEquals } from "@std/assert";
import { BatchError } from "@procpool/process-pool/batch";
import { Folder, ignore, NEEDS, numbers, run, same, tenth } from "./batch_fixtures.ts";
import { assertFails, thrownBy } from "./helpers.ts";

Deno.test(`batch() with 'retryFailed' says what is wrong with the errors file, and leaves all as it is ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, output] = [folder.write("in.ndjson", numbers(30)), folder.of("out")];
  await run(tenth, { input, output });
  const [errors, results] = [folder.read("out.errors.ndjson"), folder.read("out")];
  Deno.removeSync(folder.of("out.errors.ndjson"));
  const path = folder.of("out.errors.ndjson");
  const retry = () => run(same, { input, output, retryFailed: true });
  await assertFails(retry, BatchError, `Cannot run batch as there is no errors file '${path}'`);
  folder.write("out.errors.ndjson", "{torn");
  const error = await thrownBy(retry) as Error;
  assert(error instanceof BatchError && error.message.startsWith(`Cannot retry as the errors file '${path}' is damaged: `), error.message);
  assertEquals(folder.read("out"), results);
  folder.write("out.errors.ndjson", errors);
  assertEquals((await retry()).failed, 0);
});

Deno.test(`batch() with 'retryFailed' says so if it may not read the errors file ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, output, errors] = [folder.write("in.ndjson", numbers(30)), folder.of("out"), folder.of("out.errors.ndjson")];
  await run(tenth, { input, output });
  const { open } = Deno;
  Deno.open = (path, options) =>
    path === errors ? Promise.reject(new Deno.errors.PermissionDenied("Permission denied (os error 13)")) : open(path, options);
  try {
    await assertFails(
      () => run(same, { input, output, retryFailed: true }),
      BatchError,
      `Cannot run batch as it cannot access the errors file '${errors}': Permission denied (os error 13)`,
    );
  } finally {
    Deno.open = open;
  }
});

Deno.test(`batch() with 'retryFailed' leaves all as it is if the old output cannot be read to its end ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, output] = [folder.write("in.ndjson", numbers(5000)), folder.of("out.gz")];
  await run(tenth, { input, output });
  const results = Deno.readFileSync(output);
  // As long as before.
  folder.write("out.gz", results.slice().fill(0, results.length >> 1));
  const before = [folder.names(), folder.read("out.gz.errors.ndjson"), folder.read("out.gz.log")];
  const error = await thrownBy(() => run(same, { input, output, retryFailed: true })) as Error;
  assert(error instanceof BatchError && error.message.startsWith("Cannot write results: "), `${error}`);
  assertEquals([folder.names(), folder.read("out.gz.errors.ndjson"), folder.read("out.gz.log")], before);
  folder.write("out.gz", results);
  assertEquals((await run(same, { input, output, retryFailed: true })).failed, 0);
  // The sanitizer checks that the files are closed.
});

Deno.test(
  `batch() with 'retryFailed' that is stopped keeps what it did not come to, and what was running ${NEEDS}`,
  { ignore },
  async () => {
    using folder = new Folder();
    const [input, output] = [folder.write("in.ndjson", numbers(100)), folder.of("out")];
    await run(tenth, { input, output });
    const controller = new AbortController();
    let ticks = 0;
    const recorded = run((x: number) => x === 50 ? new Promise(() => {}) : x, {
      input,
      output,
      retryFailed: true,
      workers: 1,
      signal: controller.signal,
    });
    // The fifth record never ends: what is done by then is kept.
    const timer = setInterval(() => ++ticks > 5 && controller.abort(), 100);
    const { outcome, failed, recordsOfRun } = await recorded;
    clearInterval(timer);
    const left = folder.json("out.errors.ndjson").map(({ record }) => Number(record));
    assertEquals([outcome, failed, recordsOfRun], ["stopped", left.length, 10 - left.length]);
    assert(left.includes(50), `${left}`);
    assertEquals(folder.json("out"), Array.from({ length: 100 }, (_, x) => x).filter((x) => !left.includes(x)));
    await run((x: number) => x, { input, output, retryFailed: true });
    assertEquals(folder.json("out"), Array.from({ length: 100 }, (_, x) => x));
  },
);

Deno.test(`batch() with 'retryFailed' leaves the output as it is if no record can be run again ${NEEDS}`, { ignore }, async () => {
  using folder = new Folder();
  const [input, output] = [folder.write("in.ndjson", "1\n{bad\n3\n"), folder.of("out")];
  await run(same, { input, output });
  const before = [Deno.statSync(output).ino, folder.read("out.errors.ndjson"), folder.read("out.log")];
  const { failed, recordsOfRun, errorNames } = await run(same, { input, output, retryFailed: true });
  assertEquals([failed, recordsOfRun, errorNames], [1, 0, [["ParseError", 1]]]);
  assertEquals([Deno.statSync(output).ino, folder.read("out.errors.ndjson"), folder.read("out.log")], before);
});
