// @ts-types="./retry.d.ts"
export { retry } from "deno-std/async/retry.js";
