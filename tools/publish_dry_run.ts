/**
 * Tries out publishing: copies the files in the publish lists of each package's deno.json, with the stand-ins of `@std` packages beside the
 * packages rather than inside, and runs `deno publish --dry-run` in each. Inside a package, Deno would take the stand-ins for modules that
 * the list leaves out. `cluster` and `otel` find the core as it is published beside them.
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

/** Copies a package as it is published; `links` tells of its own list which packages it finds beside it. */
async function pack(folder: URL, name: string, links: (config: Config) => string[] | undefined): Promise<void> {
  const config: Config = JSON.parse(await Deno.readTextFile(new URL("deno.json", folder)));
  await Deno.mkdir(`${directory}/${name}`);
  for (const path of config.publish.include) await copy(new URL(path, folder), `${directory}/${name}/${path}`);
  // Not published, but it fixes the versions of other packages.
  await copy(new URL("deno.lock", folder), `${directory}/${name}/deno.lock`);
  await Deno.writeTextFile(`${directory}/${name}/deno.json`, JSON.stringify({ ...config, links: links(config) }));
}

async function publish(folder: URL, name: string): Promise<void> {
  await pack(folder, name, ({ links }) => links.map((path) => path.replace(/^\.\.?\/tools\//, "../")));
  const { code } = await new Deno.Command(Deno.execPath(), { args: ["publish", "--dry-run", "--allow-dirty"], cwd: `${directory}/${name}` })
    .spawn().status;
  Deno.exitCode ||= code;
}

try {
  await copy(new URL("tools/std", root), `${directory}/std`);
  await publish(root, "core");
  // As the others find it: only a package that is not linked itself has links.
  await pack(root, "process-pool", () => undefined);
  await publish(new URL("cluster/", root), "cluster");
  await publish(new URL("otel/", root), "otel");
} finally {
  await Deno.remove(directory, { recursive: true });
}
