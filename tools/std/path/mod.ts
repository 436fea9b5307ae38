export * from "./glob_to_regexp.ts";
