// @ts-check
import process from "node:process";
import { load } from "./pool.mjs";
import * as tasks from "./tasks.mjs";

const { ThreadWorker } = await load("deno" in process.versions ? "poolifier-web-worker" : "poolifier");

export default new ThreadWorker({ ...tasks });
