/**
 * Runs the test command at the top of README.md, as a reader would copy it: the second line of its first block of commands.
 *
 * @module
 */

const readme = await Deno.readTextFile(new URL("../README.md", import.meta.url));
const command = /```sh\n[^\n]+\n(?<test>[^\n]+)\n```/.exec(readme)?.groups?.test?.replace(/\s+#.*$/, "");
if (command === undefined || !command.includes(" test")) {
  throw new Error(`Cannot find the test command as the second line of the first block of commands in README.md: found ${command}`);
}
console.log(`README.md: ${command}`);
const { code } = await new Deno.Command("sh", { args: ["-c", command], cwd: new URL("..", import.meta.url), stdin: "null" }).spawn().status;
Deno.exitCode = code;
