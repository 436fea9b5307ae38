/**
 * Functions as text: what is sent to a worker of a function that no task module exports.
 *
 * @module
 */

import type { Task } from "../job.ts";

/** Matches the text of an accessor, which cannot become an expression. */
const ACCESSOR = /^(get|set)\s+[^\s(]/;

/** What an error says of a function that cannot be sent as text. */
export interface Complaint {
  /** How it begins; what the function is, or uses, follows. */
  cannot: string;
  /** What to do instead. */
  advice: string;
}

/**
 * Turns the text of a function into an expression that evaluates to the function; nothing of it is run.
 *
 * @throws {TypeError} If that cannot be, or the function needs something around it that no worker has.
 */
export function expressionOf(func: Task, text: string, { cannot, advice }: Complaint): string {
  if (/^class[\s{/](?!\s*\()/.test(text)) throw new TypeError(`${cannot} is a class, which cannot be called: ${advice}`);
  if (/\{\s*\[native code\]\s*\}$/.test(text)) {
    throw new TypeError(`${cannot} is native or bound and has no text: wrap it in a function, or ${advice}`);
  }
  if (/Generator/.test(Object.getPrototypeOf(func)?.constructor?.name)) {
    throw new TypeError(`${cannot} is a generator, whose values cannot come back: return an array of them`);
  }
  // The text of a method is valid only within an object.
  const candidates = ACCESSOR.test(text) ? [] : [text, `((holder) => holder[Reflect.ownKeys(holder)[0]])({${text}\n})`];
  const found = candidates.find(isExpression);
  if (found !== undefined && usesOuterArguments(found)) {
    throw new TypeError(
      `${cannot} uses 'arguments' that are not its own, as those of an arrow function are: name its parameters, or ${advice}`,
    );
  }
  if (found !== undefined) return found;
  if (/\bimport\s*\.\s*meta\b/.test(text)) {
    throw new TypeError(`${cannot} uses 'import.meta', which exists only within a module: ${advice}`);
  }
  const privateName = outerPrivateName(candidates);
  if (privateName !== undefined) {
    throw new TypeError(
      `${cannot} uses '${privateName}', which exists only within a class: let it take what it needs from its arguments, or ${advice}`,
    );
  }
  throw new TypeError(`${cannot} has a text that is not that of a function: ${advice}`);
}

/**
 * Wraps the expression of a function for evaluation in a worker, where its surroundings are not its own. It is put into a function, so that
 * an arrow function has no `this`, like other functions: otherwise that would be the global object, where it would find undefined. Every
 * worker has globals called `name` and `location`, which would pass for variables of these names that were not sent: here these throw, as
 * other missing variables do. (lack.ts knows V8's messages for that.)
 */
export function isolated(expression: string): string {
  return `(function () { "use strict"; return (${expression}\n); let name, location; })()`;
}

/**
 * Whether an expression uses the `arguments` of a function around it, which in a worker would be one of ours. As a field of a class such an
 * expression does not parse.
 */
function usesOuterArguments(expression: string): boolean {
  return /\barguments\b/.test(expression) && isExpression(expression) && !isExpression(`class { field = (${expression}\n) }`);
}

/**
 * A private name of a surrounding class that one of the candidates uses; undefined if that is not why none of them is an expression. What
 * looks like a private name may be part of a string, or of an inner class.
 */
function outerPrivateName(candidates: readonly string[]): string | undefined {
  const names = new Set(candidates.join("\n").match(/#[\p{ID_Start}$_][\p{ID_Continue}$]*/gu));
  // No class may have it.
  names.delete("#constructor");
  for (const candidate of candidates) {
    const isExpressionAmid = (fields: readonly string[]): boolean =>
      isExpression(`class { ${fields.join("; ")}; field = (${candidate}\n) }`);
    if (isExpressionAmid([...names])) return [...names].find((name) => !isExpressionAmid([...names].filter((other) => other !== name)));
  }
  return undefined;
}

/** Whether a text parses as an expression; nothing of it is run. */
function isExpression(text: string): boolean {
  try {
    new Function(`"use strict"; return (${text}\n)`);
    return true;
  } catch {
    return false;
  }
}
