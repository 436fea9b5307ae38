import { assertEquals, assertThrows } from "@std/assert";
import { checkedPermissions, checkReadable } from "../pool/permissions.ts";

/** Runs a function while this thread has only what `stateOf` grants; returns what was asked for. */
function asking(
  run: () => void,
  stateOf: (descriptor: Deno.PermissionDescriptor) => { state: Deno.PermissionState; partial?: boolean } = () => ({ state: "granted" }),
): Deno.PermissionDescriptor[] {
  const asked: Deno.PermissionDescriptor[] = [];
  Object.defineProperty(Deno.permissions, "querySync", {
    configurable: true,
    value(descriptor: Deno.PermissionDescriptor) {
      asked.push(descriptor);
      return stateOf(descriptor);
    },
  });
  try {
    run();
  } finally {
    Reflect.deleteProperty(Deno.permissions, "querySync");
  }
  return asked;
}

Deno.test("checkedPermissions() asks for each item of a list, or for all of a kind, and for nothing that workers are not to have", () => {
  const url = new URL("file:///data/c");
  const items = {
    read: ["a", url.href],
    write: ["b"],
    net: ["localhost:80", "*.example.com"],
    env: ["HOME"],
    sys: ["hostname" as const],
    run: ["deno"],
    ffi: ["lib.so"],
    import: ["jsr.io:443"],
  };
  assertEquals(asking(() => checkedPermissions(items)), [
    { name: "read", path: "a" },
    { name: "read", path: url },
    { name: "write", path: "b" },
    { name: "net", host: "localhost:80" },
    { name: "net", host: "any.example.com" },
    { name: "env", variable: "HOME" },
    { name: "sys", kind: "hostname" },
    { name: "run", command: "deno" },
    { name: "ffi", path: "lib.so" },
    { name: "import", host: "jsr.io:443" },
  ]);
  const names = ["read", "write", "net", "env", "sys", "run", "ffi", "import"] as const;
  const all = (value: boolean | "inherit") => Object.fromEntries(names.map((name) => [name, value]));
  assertEquals(asking(() => checkedPermissions(all(true))), names.map((name) => ({ name } as Deno.PermissionDescriptor)));
  for (const value of [false, "inherit"] as const) assertEquals(asking(() => checkedPermissions(all(value))), []);
});

Deno.test("checkedPermissions() makes relative paths absolute, but not names of commands", () => {
  const here = Deno.cwd();
  const list = ["a", "./a", "/a", "C:\\a", ""];
  const absolute = [`${here}/a`, `${here}/./a`, "/a", "C:\\a", ""];
  asking(() => {
    assertEquals(checkedPermissions({ read: list, write: list, ffi: list, run: list, env: list }), {
      read: absolute,
      write: absolute,
      ffi: absolute,
      run: ["a", ...absolute.slice(1)],
      env: list,
    });
  });
});

Deno.test("checkedPermissions() says what this thread lacks, or is denied, and what to do", () => {
  const refusals: [Deno.PermissionOptionsObject, { state: Deno.PermissionState; partial?: boolean }, string][] = [
    [{ read: true }, { state: "prompt" }, "a permission that this thread lacks: run it with --allow-read"],
    [{ read: ["/a"] }, { state: "prompt" }, "lacks: run it with --allow-read=/a"],
    [{ read: true }, { state: "denied" }, "is denied, at least in part: run it without --deny-read, or leave out 'permissions.read'"],
    [{ net: ["a:1"] }, { state: "granted", partial: true }, `without --deny-net, or leave out "a:1" in 'permissions.net'`],
    [{ net: ["10.0.0.0/8"] }, { state: "prompt" }, "a subnet only if this thread has all of --allow-net"],
    [{ import: ["10.0.0.0/8"] }, { state: "prompt" }, "a subnet only if this thread has all of --allow-import"],
    [{ net: ["example.com"] }, { state: "prompt" }, "lacks: run it with --allow-net=example.com"],
    [{ read: ["10.0.0.0/8"] }, { state: "prompt" }, "lacks: run it with --allow-read=10.0.0.0/8"],
  ];
  for (const [permissions, state, message] of refusals) {
    asking(() => void assertThrows(() => checkedPermissions(permissions), Deno.errors.NotCapable, message), () => state);
  }
  // What is denied within all of a kind is denied to workers as well.
  asking(() => void checkedPermissions({ read: true }), () => ({ state: "granted", partial: true }));
});

Deno.test("checkReadable() refuses modules that killable workers could not read", () => {
  const module = "file:///app/tasks/a%20b.ts";
  for (
    const read of [true, "inherit" as const, ["/app"], ["/"], ["/app/tasks/"], ["/app/tasks/a b.ts"], ["/app/x/../tasks"], ["file:///app"]]
  ) {
    checkReadable({ read }, [module]);
  }
  for (const permissions of ["none" as const, {}, { read: false }, { read: [] }, { read: ["/app/task"] }, { read: ["/app/tasks/a"] }]) {
    assertThrows(() => checkReadable(permissions, [module]), TypeError, `add the permission 'read' for "/app/tasks/a b.ts"`);
    checkReadable(permissions, ["https://example.com/tasks.ts", "data:text/javascript,export {}"]);
  }
});
