import { parseArgs } from "@std/cli/parse-args";
import { show } from "@procpool/process-pool/executor";
import { resolveConnection } from "./address.ts";
import { checkedHostName, checkedQueue } from "./names.ts";

/** Where the queue is. */
interface Where {
  redis: string;
  queue: string;
  passwordFile: string | undefined;
  ca: string | undefined;
}

/** What the command line asks for. */
export type Request =
  | Where & { action: "serve"; tasks: string; workers: number | undefined; name: string | undefined; grace: number }
  | Where & { action: "run"; tasks: string; task: string; args: unknown[] }
  | Where & { action: "status"; json: boolean }
  | { action: "help" | "version" }
  | { action: "refuse"; message: string };

export const HELP = `Runs the tasks of a module on many machines, through BullMQ and Redis or Valkey.

Usage:
  cluster/cli.ts serve TASKS.ts         be a host: run jobs until told to stop
  cluster/cli.ts run TASKS.ts NAME ARGS run one job, and print its result
  cluster/cli.ts status                 show the queue and its hosts

TASKS.ts exports the tasks, or one value of defineTasks(). ARGS are JSON;
anything else is taken as a string.

Options:
  --redis <address>       redis://HOST:PORT or rediss://HOST:PORT (TLS), with
                          USER@ in it if necessary
                          (default: redis://127.0.0.1:6379)
  --queue <name>          the queue (default: default)
  --password-file <file>  a file with the password
  --ca <file>             the CA certificate of the server, in PEM
  --help                  show this
  --version               show the version

Options of serve:
  --workers <number>      how many jobs run at a time (default: one per core)
  --name <name>           this host's name in 'status' (default: its process)
  --grace <seconds>       how long jobs may take when the host is told to stop,
                          before others get them (default: 10)

Options of status:
  --json                  one JSON object instead of text

Permissions:
  serve   deno run --allow-net=HOST:PORT --allow-read --ignore-env --no-prompt
          cluster/cli.ts serve TASKS.ts
  run     the same
  status  the same without --allow-read

--allow-read may be limited to TASKS.ts and what it imports, and the files that
the options name. What tasks need beyond that must be granted as well.
--ignore-env makes the environment appear empty to the Redis client, and
--no-prompt keeps Deno from asking about native code that is not needed.

On Ctrl-C or SIGTERM a host finishes what runs; a second one ends it at once.
Exit code: 0 if all went well, 1 if not, 2 if the arguments are wrong, 130
after Ctrl-C of 'run', 143 after SIGTERM.`;

const STRINGS = ["redis", "queue", "password-file", "ca", "workers", "name", "grace"] as const;
const FLAGS = ["json", "help", "version"] as const;

/** The options of each command, besides those that say where the queue is. */
const COMMANDS: Record<string, readonly string[]> = { serve: ["workers", "name", "grace"], run: [], status: ["json"] };

const ACTION = "use queue";

/** How long running jobs may take when a host is told to stop, in seconds. */
const GRACE = 10;

/** No machine has room for more workers, at 10 MB each. */
const MOST_WORKERS = 1024;

class Refusal extends Error {}

/** Reads the command line. */
export function readArguments(args: readonly string[]): Request {
  try {
    return read(args);
  } catch (error) {
    if (error instanceof Refusal) return { action: "refuse", message: error.message };
    throw error;
  }
}

function read(args: readonly string[]): Request {
  const parsed: Record<string, unknown> & { _: unknown[] } = parseArgs([...args], {
    string: [...STRINGS, "_"],
    boolean: [...FLAGS],
    // Arguments of a job may begin with a dash too, as negative numbers do.
    unknown: (arg, option) => {
      if (option === undefined || /^-\d/.test(arg)) return true;
      throw new Refusal(`there is no option '${arg.split("=", 1)}': '--help' shows what there is`);
    },
  });
  if (parsed.help) return { action: "help" };
  if (parsed.version) return { action: "version" };
  const [command, ...rest] = positional(args);
  if (command === undefined) throw new Refusal("what to do is missing: 'serve', 'run' or 'status'; '--help' shows more");
  if (!Object.hasOwn(COMMANDS, command)) throw new Refusal(`there is no command ${show(command)}: 'serve', 'run' or 'status'`);
  for (const name of ["workers", "name", "grace", "json"]) {
    const given = name === "json" ? parsed.json === true : parsed[name] !== undefined;
    if (given && !COMMANDS[command]!.includes(name)) throw new Refusal(`'${command}' takes no option '--${name}'`);
  }
  const redis = text(parsed, "redis") ?? "redis://127.0.0.1:6379";
  const name = text(parsed, "name");
  const queue = text(parsed, "queue") ?? "default";
  const ca = text(parsed, "ca");
  accepted(() => {
    // The file is read later.
    resolveConnection(ACTION, ca === undefined ? redis : { url: redis, ca: "" });
    checkedQueue(ACTION, queue);
    if (name !== undefined) checkedHostName(ACTION, name);
  });
  const where: Where = {
    redis,
    queue,
    passwordFile: text(parsed, "password-file"),
    ca,
  };
  switch (command) {
    case "serve": {
      const [tasks, ...more] = rest;
      if (tasks === undefined) throw new Refusal("'serve' needs the module of the tasks: serve TASKS.ts");
      if (more.length > 0) throw new Refusal(`'serve' takes one module: ${show(more[0])} is one more`);
      const workers = number(parsed, "workers", { min: 1, max: MOST_WORKERS });
      const grace = number(parsed, "grace", { min: 0, max: 86_400 }) ?? GRACE;
      return { action: "serve", ...where, tasks, workers, name, grace: grace * 1000 };
    }
    case "run": {
      const [tasks, task, ...values] = rest;
      if (tasks === undefined || task === undefined) {
        throw new Refusal("'run' needs the module and the name of a task: run TASKS.ts NAME ARGS");
      }
      return { action: "run", ...where, tasks, task, args: values.map(jsonOrText) };
    }
    default:
      if (rest.length > 0) throw new Refusal(`'status' takes no argument: ${show(rest[0])} is one`);
      return { action: "status", ...where, json: parsed.json === true };
  }
}

/** The arguments that belong to no option. Not parseArgs' own list, which lacks negative numbers. */
function positional(args: readonly string[]): string[] {
  const found: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--") return [...found, ...args.slice(i + 1)];
    if (!arg.startsWith("--")) found.push(arg);
    else if ((STRINGS as readonly string[]).includes(arg.slice(2))) i++;
  }
  return found;
}

function text(parsed: Record<string, unknown>, name: string): string | undefined {
  const value = parsed[name];
  if (value === undefined) return undefined;
  if (value === "") throw new Refusal(`'--${name}' needs a value`);
  return value as string;
}

/** Refuses what a pool or a host would refuse, before anything is loaded. */
function accepted(check: () => void): void {
  try {
    check();
  } catch (error) {
    throw new Refusal((error as Error).message);
  }
}

function number(parsed: Record<string, unknown>, name: string, { min, max }: { min: number; max: number }): number | undefined {
  const value = text(parsed, name);
  if (value === undefined) return undefined;
  if (/^\d+$/.test(value) && Number(value) >= min && Number(value) <= max) return Number(value);
  throw new Refusal(`'--${name}' must be an integer from ${min} to ${max}: current value is ${show(value)}`);
}

function jsonOrText(arg: string): unknown {
  try {
    return JSON.parse(arg);
  } catch {
    return arg;
  }
}
