/**
 * What there is to measure with: runtimes, packages, the machine.
 *
 * @module
 */

import manifest from "../../deno.json" with { type: "json" };
import { type Contender, PACKAGES, type Runtime } from "./contenders.ts";
import type { Machine } from "./results.ts";

/** Where packages are, and what is missing. */
export interface Surroundings {
  versions: Record<string, string>;
  /** A `file:` URL without a slash at its end; undefined if nobody needs packages or they could not be installed. */
  packages: string | undefined;
  missing: Record<string, string>;
}

const VERSION_COMMANDS: Record<Exclude<Runtime, "deno">, [string, ...string[]]> = {
  node: ["node", "--version"],
  python: ["python3", "--version"],
};

/** Looks which runtimes there are, and installs the packages that the contenders need, once for every set of versions. */
export async function lookAround(contenders: readonly Contender[], tell: (line: string) => void): Promise<Surroundings> {
  const versions: Record<string, string> = { "process-pool": await ownVersion(), Deno: Deno.version.deno };
  const missing: Record<string, string> = {};
  for (const runtime of ["node", "python"] as const) {
    if (!contenders.some((one) => one.runtime === runtime)) continue;
    const [command, ...args] = VERSION_COMMANDS[runtime];
    // Deno 2.9 runs itself by the name of `node` where Node is missing: what answers must have a version of the right form.
    const version = /^(?:v|Python )([\d.]+)/.exec(await output(command, args) ?? "")?.[1];
    if (version !== undefined) versions[runtime === "node" ? "Node" : "Python"] = version;
    else for (const one of contenders) if (one.runtime === runtime) missing[one.name] = `${command} is not installed`;
  }
  const needed = contenders.filter(({ name, npm }) => npm !== undefined && missing[name] === undefined);
  if (needed.length === 0) return { versions, packages: undefined, missing };
  try {
    const packages = await install(tell);
    for (const { npm } of needed) versions[npm!] = PACKAGES[npm!]!;
    return { versions, packages, missing };
  } catch (error) {
    for (const { name } of needed) missing[name] = (error as Error).message;
    return { versions, packages: undefined, missing };
  }
}

/** With the commit, where git knows it, and whether files have changed since. */
async function ownVersion(): Promise<string> {
  const directory = import.meta.dirname!;
  const commit = (await output("git", ["-C", directory, "rev-parse", "--short", "HEAD"]))?.trim();
  if (commit === undefined) return manifest.version;
  const changes = await output("git", ["-C", directory, "status", "--porcelain", "--untracked-files=no"]);
  return `${manifest.version} (${commit}${changes ? " with changes" : ""})`;
}

/** Installs the packages into the user's cache, in a folder whose name tells their versions apart. */
async function install(tell: (line: string) => void): Promise<string> {
  const manifest = JSON.stringify({ private: true, type: "module", dependencies: PACKAGES }, null, 2);
  const directory = `${cacheDirectory()}/process-pool-compare/${await fingerprint(manifest)}`;
  const url = fileUrl(directory);
  if (await exists(`${directory}/load.mjs`)) return url;
  tell(`Installing ${Object.keys(PACKAGES).join(", ")} into ${directory}`);
  await Deno.mkdir(directory, { recursive: true });
  await Deno.writeTextFile(`${directory}/package.json`, manifest);
  const npm = Deno.build.os === "windows" ? "npm.cmd" : "npm";
  let result: Deno.CommandOutput;
  try {
    const args = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--silent"];
    result = await new Deno.Command(npm, { args, cwd: directory, stdout: "piped", stderr: "piped" }).output();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw new Error("npm is not installed", { cause: error });
    throw error;
  }
  if (!result.success) {
    const text = new TextDecoder();
    tell(text.decode(result.stdout) + text.decode(result.stderr));
    throw new Error(`npm could not install it (exit code ${result.code})`);
  }
  // What lies here finds the packages. It is written last, so that half an installation is done again.
  await Deno.writeTextFile(`${directory}/load.mjs`, "export default (name) => import(name);\n");
  return url;
}

function cacheDirectory(): string {
  const home = Deno.env.get("HOME") ?? Deno.env.get("USERPROFILE") ?? ".";
  const usual = { darwin: `${home}/Library/Caches`, windows: Deno.env.get("LOCALAPPDATA") }[Deno.build.os as string];
  return Deno.env.get("XDG_CACHE_HOME") ?? usual ?? `${home}/.cache`;
}

/** The machine, as far as the system tells. */
export async function describeMachine(): Promise<Machine> {
  const info = await Deno.readTextFile("/proc/cpuinfo").catch(() => "");
  return {
    cpu: /^model name\s*:\s*(.*)$/m.exec(info)?.[1] ?? Deno.build.arch,
    cores: navigator.hardwareConcurrency,
    memoryGb: Math.round(Deno.systemMemoryInfo().total / 2 ** 30),
    os: `${Deno.build.os} ${Deno.osRelease()}`,
  };
}

async function output(command: string, args: string[]): Promise<string | undefined> {
  try {
    const { success, stdout } = await new Deno.Command(command, { args, stderr: "null" }).output();
    return success ? new TextDecoder().decode(stdout) : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function fingerprint(value: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(value));
  return new Uint8Array(digest).toHex().slice(0, 12);
}

function fileUrl(path: string): string {
  const base = new URL("file:///");
  base.pathname = path.replaceAll("\\", "/");
  return base.href;
}
