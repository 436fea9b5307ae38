/** Stands for the published core in the development of `cluster/`, whose users get it from JSR. */
export * from "../../pool/executor.ts";
