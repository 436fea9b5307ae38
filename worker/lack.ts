/**
 * What a function that was sent as text lacked when it threw this error: a variable around it, or its `this`; undefined if the error is
 * about something else. `this` is judged by the function's text, since inner functions and classes may have one, and the property may have
 * been read from something else.
 *
 * This function is sent to workers as its text: it refers to nothing outside itself.
 */
export function lackOf(error: Error, func: unknown): "variable" | "this" | undefined {
  const { message } = error;
  if (typeof message !== "string") return undefined;
  if (error instanceof ReferenceError) {
    return / is not defined$|^Cannot access '(name|location)' before initialization$/.test(message) ? "variable" : undefined;
  }
  if (!(error instanceof TypeError)) return undefined;
  const isOfThis = /^Cannot destructure property '.+' of 'this' as it is undefined\.$/.test(message);
  const [, property] = /^Cannot (?:read|set) properties of undefined \((?:reading|setting) '(.+)'\)$/.exec(message) ?? [];
  if (!isOfThis && property === undefined) return undefined;
  const own = String(func).replace(/^(?:async\s+)?function\b/, "");
  if (/\b(?:class|function)\b/.test(own)) return undefined;
  if (isOfThis) return /=\s*this\b/.test(own) ? "this" : undefined;
  const properties = own.matchAll(/(?<=((?<![\w$])this)?\s*)\.\s*([\p{ID_Start}$_][\p{ID_Continue}$]*)/gu);
  const holders = [...properties].filter(([, , name]) => name === property);
  return holders.length > 0 && holders.every(([, holder]) => holder !== undefined) ? "this" : undefined;
}
