// @ts-types="./glob_to_regexp.d.ts"
export { globToRegExp } from "deno-std/path/glob_to_regexp.js";
