import type { lackOf } from "../worker/lack.ts";

/** What {@linkcode createExplainer} needs. */
export interface ExplainerParts {
  task(record: unknown): unknown;
  /** The address of the worker's own source, which the task may have hidden; undefined if this is no worker. */
  ownAddress: string | undefined;
  /** Whether the task was sent as text. */
  bySource: boolean;
  /** What such a task lacked when it threw. */
  lackOf: typeof lackOf;
}

/** Why a record failed, as the errors file has it. */
export interface Explanation {
  name: string;
  message: string;
  stack: string;
}

/** Says why records failed. */
export interface Explainer {
  /** Given what was thrown when the record was parsed. */
  explainParsing(thrown: unknown): Explanation;
  /** Given what the task threw, or what was thrown for its result. */
  explain(thrown: unknown): Explanation;
}

/**
 * Puts into words why records failed, whatever was thrown.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function createExplainer({ task, ownAddress, bySource, lackOf }: ExplainerParts): Explainer {
  /** The stack down to the task's own lines, cut to a useful length. */
  function stackOf(error: Error): string {
    // It contains the message, which may have megabytes.
    const stack = textOf(error.stack ?? "").slice(0, 4000);
    const end = stack.search(/\n\s+at [^\n]*process-pool\/(batch|worker)/);
    return end < 0 ? stack : stack.slice(0, end);
  }

  function explainParsing(thrown: unknown): Explanation {
    const { message } = thrown as Error;
    return { name: "ParseError", message: thrown instanceof SyntaxError ? `The line is not JSON: ${message}` : message, stack: "" };
  }

  /** The text of what was thrown, or of an error's name, message or stack, even if that is not a string. */
  function textOf(value: unknown): string {
    try {
      return withoutBase(typeof value === "object" ? JSON.stringify(value) ?? String(value) : String(value));
    } catch {
      return "something that has no text";
    }
  }

  /** Leaves out the base that the platform names when an address is relative: in a worker it is a whole program. */
  function withoutBase(text: string): string {
    return ownAddress === undefined ? text : text.replaceAll(` with base '${ownAddress}'`, "");
  }

  function explain(thrown: unknown): Explanation {
    try {
      if (thrown instanceof Error) {
        const message = textOf(thrown.message ?? "");
        const lack = bySource ? lackOf(thrown, task) : undefined;
        const fact = lack === "this" ? "has no 'this'" : "cannot see the variables and imports around it";
        const hint = `; a function that is sent as source text ${fact}: export it from a module, and give the module's address`;
        // V8 ends one of these messages with a full stop.
        const said = lack === undefined ? message : message.replace(/\.?$/, hint);
        return { name: textOf(thrown.name ?? ""), message: said, stack: stackOf(thrown) };
      }
      return { name: typeof thrown, message: textOf(thrown), stack: "" };
    } catch {
      return { name: typeof thrown, message: "something that has no text", stack: "" };
    }
  }

  return { explain, explainParsing };
}
