export { abortable } from "./abortable.ts";
export { deadline } from "./deadline.ts";
export { delay } from "./delay.ts";
export { retry } from "./retry.ts";
