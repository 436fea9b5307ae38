/**
 * Tries out publishing: copies the files in the publish list of deno.json, with the stand-ins of `@std` packages beside the package rather
 * than inside, and runs `deno publish --dry-run` there. Inside the package, Deno would take the stand-ins for modules that the list leaves
 * out. With the argument `cluster` it does that for the package there, which then finds the core as it is published beside it.
 *
 * @module
 */

const root = new URL("../", import.meta.url);
const directory = await Deno.makeTempDir();

interface Config {
  publish: { include: string[] };
  links: string[];
}

async function copy(from: URL, to: string): Promise<void> {
  if ((await Deno.stat(from)).isFile) return await Deno.copyFile(from, to);
  await Deno.mkdir(to, { recursive: true });
  for await (const { name } of Deno.readDir(from)) await copy(new URL(`${from.href.replace(/\/$/, "")}/${name}`), `${to}/${name}`);
}

/** Copies a package as it is published; `links` are the stand-ins that it finds beside it. */
async function pack(folder: URL, name: string, linksOf: (config: Config) => string[] | undefined): Promise<void> {
  const config: Config = JSON.parse(await Deno.readTextFile(new URL("deno.json", folder)));
  await Deno.mkdir(`${directory}/${name}`);
  for (const path of config.publish.include) await copy(new URL(path, folder), `${directory}/${name}/${path}`);
  // Not published, but it fixes the versions of other packages.
  await copy(new URL("deno.lock", folder), `${directory}/${name}/deno.lock`);
  await Deno.writeTextFile(`${directory}/${name}/deno.json`, JSON.stringify({ ...config, links: linksOf(config) }));
}

try {
  const [name = "process-pool"] = Deno.args;
  const besides = ({ links }: Config): string[] => links.map((path) => path.replace(/^\.\.?\/tools\//, "../"));
  await copy(new URL("tools/std", root), `${directory}/std`);
  await pack(root, "process-pool", name === "process-pool" ? besides : () => undefined);
  if (name !== "process-pool") await pack(new URL(`${name}/`, root), name, besides);
  const { code } = await new Deno.Command(Deno.execPath(), { args: ["publish", "--dry-run", "--allow-dirty"], cwd: `${directory}/${name}` })
    .spawn().status;
  Deno.exitCode = code;
} finally {
  await Deno.remove(directory, { recursive: true });
}
