import { show } from "./checks.ts";

type PermissionName = Deno.PermissionDescriptor["name"];

/** An address with the length of its prefix. */
const SUBNET = /^[\d.:a-f[\]]+\/\d+$/i;

/** For each kind of permission, the descriptor that asks for one item of its list. */
const DESCRIBE: Record<PermissionName, (item?: string | URL) => Deno.PermissionDescriptor> = {
  read: (path) => ({ name: "read", ...(path === undefined ? {} : { path: parsed(path) }) }),
  write: (path) => ({ name: "write", ...(path === undefined ? {} : { path: parsed(path) }) }),
  net: (host) => ({ name: "net", ...(host === undefined ? {} : { host: oneHost(host) }) }),
  env: (variable) => ({ name: "env", ...(variable === undefined ? {} : { variable: String(variable) }) }),
  sys: (kind) => ({ name: "sys", ...(kind === undefined ? {} : { kind: String(kind) as "hostname" }) }),
  run: (command) => ({ name: "run", ...(command === undefined ? {} : { command: parsed(command) }) }),
  ffi: (path) => ({ name: "ffi", ...(path === undefined ? {} : { path: parsed(path) }) }),
  import: (host) => ({ name: "import", ...(host === undefined ? {} : { host: oneHost(host) }) }),
};

/** Parses the text of a URL, as `import.meta.resolve()` returns it: to Deno it would be a relative path. */
function parsed(path: string | URL): string | URL {
  return String(path).startsWith("file:") ? new URL(path) : path;
}

/**
 * One host in place of all hosts of a domain (`*.example.com`), about which Deno 2.9 cannot be asked: a thread that has them all has this
 * one. If it has only this one, Deno itself refuses.
 */
function oneHost(host: string | URL): string {
  return String(host).replace(/^\*\./, "any.");
}

/**
 * Checks that this thread can grant these permissions to a worker.
 *
 * Deno itself refuses to start a worker with more permissions than its parent, but without saying which, and only when the worker starts.
 *
 * @returns A copy with relative paths made absolute: workers start later, when the program may be in another folder.
 *
 * @throws {TypeError} If they are not permissions.
 * @throws {Deno.errors.NotCapable} If this thread lacks one of them itself.
 */
export function checkedPermissions(permissions: "none" | Deno.PermissionOptionsObject): "none" | Deno.PermissionOptionsObject {
  if (permissions === "none") return permissions;
  if (typeof permissions !== "object" || permissions === null || Array.isArray(permissions)) {
    throw new TypeError(
      `Cannot create pool as 'permissions' must be "none", "inherit" or an object: current value is ${show(permissions)}`,
    );
  }
  return Object.fromEntries(
    Object.entries(permissions).map(([name, value]) => {
      if (!Object.hasOwn(DESCRIBE, name)) {
        const known = Object.keys(DESCRIBE).join("', '");
        throw new TypeError(`Cannot create pool as there is no permission '${name}': known permissions are '${known}'`);
      }
      checkPermission(name as PermissionName, value);
      return [name, Array.isArray(value) ? value.map((item) => copyOf(name, item)) : value];
    }),
  );
}

/** Copies an item of a list; a relative path is made absolute. */
function copyOf(name: string, item: string | URL): string | URL {
  if (item instanceof URL) return new URL(item);
  // An item of `run` is the name of a command, or a path if it has a slash.
  const isPath = name === "run" ? /[\\/]/.test(item) : name === "read" || name === "write" || name === "ffi";
  if (!isPath || item === "" || /^([a-z]:)?[\\/]/i.test(item)) return item;
  return item.startsWith("file:") ? new URL(item) : `${Deno.cwd()}/${item}`;
}

/**
 * Checks that killable workers with these permissions can read their task modules: unlike Web Workers, they load them with their own.
 *
 * @throws {TypeError} If a module that is a file cannot be read. What it imports is not checked.
 */
export function checkReadable(permissions: "none" | Deno.PermissionOptionsObject, modules: readonly string[]): void {
  const read = permissions === "none" ? false : permissions.read ?? false;
  if (read === true || read === "inherit") return;
  const readable = (read === false ? [] : read).map((path) => resolve(String(path)));
  for (const url of modules) {
    if (!url.startsWith("file:")) continue;
    const path = decodeURIComponent(new URL(url).pathname);
    if (readable.some((each) => path === each || path.startsWith(each.endsWith("/") ? each : `${each}/`))) continue;
    throw new TypeError(
      `Cannot create pool as its killable workers read their task modules with their own 'permissions': ` +
        `add the permission 'read' for ${show(path)}, and for what that imports`,
    );
  }
}

/** Makes a path absolute, as Deno compares it: without `.` and `..`, and without a trailing slash. */
function resolve(path: string): string {
  const absolute = path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
  const url = path.startsWith("file:") ? path : `file://${absolute.split("/").map(encodeURIComponent).join("/")}`;
  return decodeURIComponent(new URL(url).pathname).replace(/(?<=.)\/+$/, "");
}

function checkPermission(name: PermissionName, value: unknown): void {
  if (value === undefined || value === "inherit" || value === false) return;
  if (value === true) return requireGranted(name, undefined);
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string" || item instanceof URL)) {
    throw new TypeError(
      `Cannot create pool as 'permissions.${name}' must be true, false, "inherit" or a list of strings: current value is ${show(value)}`,
    );
  }
  const address = name === "net" || name === "import" ? value.find((item) => String(item).includes("://")) : undefined;
  if (address !== undefined) {
    throw new TypeError(
      `Cannot create pool as 'permissions.${name}' must be hosts, without protocol and path: current value is a list with ${
        show(String(address))
      }`,
    );
  }
  for (const item of value) requireGranted(name, item);
}

function requireGranted(name: PermissionName, item: string | URL | undefined): void {
  const { state, partial } = Deno.permissions.querySync(DESCRIBE[name](item));
  // What is denied within all of a kind is denied to workers as well; within an item, Deno refuses.
  if (state === "granted" && (item === undefined || !partial)) return;
  throw new Deno.errors.NotCapable(`Cannot create pool as ${refusal(name, item, state)}`);
}

function refusal(name: PermissionName, item: string | URL | undefined, state: Deno.PermissionState): string {
  const text = String(item);
  if (state !== "prompt") {
    const what = item === undefined ? `'permissions.${name}'` : `${show(text)} in 'permissions.${name}'`;
    return `its workers are to have a permission that this thread is denied, at least in part: run it without --deny-${name}, or leave out ${what}`;
  }
  if ((name === "net" || name === "import") && SUBNET.test(text)) {
    return `Deno gives workers a subnet only if this thread has all of --allow-${name}: use that, name the addresses, or set ` +
      `'permissions.${name}' to "inherit": current value is a list with ${show(text)}`;
  }
  const flag = item === undefined ? "" : `=${text.startsWith("file:") ? resolve(text) : text}`;
  return `its workers are to have a permission that this thread lacks: run it with --allow-${name}${flag}`;
}
