import { assertEquals } from "@std/assert";
import { type LineMemory, RETURNED } from "../worker/line.ts";
import type { Death, FromWorker, ThreadEvents } from "../worker/protocol.ts";
import { openSharedQueue } from "../worker/shared_queue.ts";
import { webWorkers } from "../worker/web_worker.ts";
import { turn } from "./helpers.ts";

/** A worker that the test plays. */
class StagedWorker extends EventTarget {
  static last: StagedWorker;
  onerror: ((event: ErrorEvent) => void) | null = null;
  /** The worker's end of its port. */
  port!: MessagePort;
  terminated = false;

  constructor(readonly url: string, readonly options: { name: string }) {
    super();
    StagedWorker.last = this;
  }

  postMessage(_message: unknown, [port]: [MessagePort]): void {
    this.port = port;
  }

  terminate(): void {
    this.terminated = true;
    this.port.close();
  }
}

/** Starts a simulated worker, and notes what its thread reports. */
function start() {
  const { Worker, MessageChannel } = globalThis;
  const channels: MessageChannel[] = [];
  globalThis.Worker = StagedWorker as unknown as typeof Worker;
  globalThis.MessageChannel = class extends MessageChannel {
    constructor() {
      super();
      channels.push(this);
    }
  };
  try {
    const told: unknown[] = [];
    const events: ThreadEvents = {
      alive: () => told.push("alive"),
      message: (message: FromWorker) => told.push(message),
      returned: (runs: number[], values: unknown[]) => told.push([runs, values]),
      delivered: () => {},
      ending: () => {},
      died: ({ reason, thrown }: Death) => told.push(thrown === undefined ? reason : [reason, thrown]),
      stuck: () => told.push("stuck"),
      gone: () => told.push("gone"),
    };
    const thread = webWorkers([], undefined)(events, "test");
    return { thread, told, worker: StagedWorker.last, ownPort: channels[0]!.port1 };
  } finally {
    Object.assign(globalThis, { Worker, MessageChannel });
  }
}

Deno.test("A Web Worker that cannot be started is reported with Deno's message, without its colours and addresses", async () => {
  const { told, worker } = start();
  const event = new ErrorEvent("error", { message: "Type \x1b[31mchecking\x1b[0m failed.\n    at data:...", cancelable: true });
  worker.onerror!(event);
  await turn();
  const [[reason, thrown], ...rest] = told as [[string, { raw: Error }], ...unknown[]];
  assertEquals([reason, thrown.raw.message, rest], ["could not be started", "Type checking failed.", ["gone"]]);
  assertEquals([event.defaultPrevented, worker.terminated], [true, true]);
});

Deno.test("A Web Worker that sends a message that cannot be read is stopped, and told once", async () => {
  const { told, worker, ownPort } = start();
  worker.port.postMessage({ type: "alive" });
  while (told.length === 0) await turn();
  // No message is known that a worker can send and this side cannot read, so the event is simulated.
  ownPort.dispatchEvent(new MessageEvent("messageerror"));
  ownPort.dispatchEvent(new MessageEvent("messageerror"));
  while (told.length < 3) await turn();
  assertEquals([told, worker.terminated], [["alive", "sent a message that cannot be read", "gone"], true]);
});

Deno.test("A Web Worker that writes what cannot be read is stopped, and told once, after what can", async () => {
  const { thread, told, worker } = start();
  const message = new Promise<{ line: LineMemory }>((resolve) => worker.port.onmessage = ({ data }) => resolve(data));
  thread.post({ type: "load", claims: new Int32Array(0), capacity: 1, times: undefined });
  const { line: { replies } } = await message;
  const writer = openSharedQueue(replies);
  writer.push(RETURNED, 1, "one", []);
  const words = new Int32Array(replies.ring);
  writer.push(RETURNED, 2, "two", []);
  words[words.lastIndexOf(3)] = -1;
  worker.port.postMessage({ type: "alive" });
  while (told.length < 3) await turn();
  await turn();
  assertEquals([told, worker.terminated], [[[[1], ["one"]], "sent a message that cannot be read", "gone"], true]);
});

Deno.test("A Web Worker that is stopped before it was alive is gone, and what it still says is not heard", async () => {
  const { thread, told, worker } = start();
  const { port } = worker;
  port.postMessage({ type: "alive" });
  thread.stop();
  thread.stop();
  await turn();
  assertEquals([told, worker.terminated], [["gone"], true]);
});
