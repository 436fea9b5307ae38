/**
 * Publishes to nowhere: copies what the publish list of deno.json names, with the stand-ins of `@std` packages beside it instead of inside, and lets
 * `deno publish --dry-run` look at that. Inside the package Deno would take the stand-ins for modules that the list leaves out.
 *
 * @module
 */

const root = new URL("../", import.meta.url);
const config = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
const directory = await Deno.makeTempDir();

async function copy(from: URL, to: string): Promise<void> {
  if ((await Deno.stat(from)).isFile) return await Deno.copyFile(from, to);
  await Deno.mkdir(to, { recursive: true });
  for await (const { name } of Deno.readDir(from)) await copy(new URL(`${from.href.replace(/\/$/, "")}/${name}`), `${to}/${name}`);
}

try {
  await Deno.mkdir(`${directory}/package`);
  for (const path of config.publish.include) await copy(new URL(path, root), `${directory}/package/${path}`);
  await copy(new URL("tools/std", root), `${directory}/std`);
  const links = config.links.map((path: string) => path.replace("./tools/", "../"));
  await Deno.writeTextFile(`${directory}/package/deno.json`, JSON.stringify({ ...config, links }));
  const { code } = await new Deno.Command(Deno.execPath(), { args: ["publish", "--dry-run", "--allow-dirty"], cwd: `${directory}/package` })
    .spawn().status;
  Deno.exitCode = code;
} finally {
  await Deno.remove(directory, { recursive: true });
}
