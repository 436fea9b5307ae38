import { assertEquals, assertNotEquals } from "@std/assert";
import { guardedThreads, type Launch } from "../worker/guarded_thread.ts";
import { locks } from "../worker/platform.ts";
import type { Death, FromWorker, Thread, ThreadEvents } from "../worker/protocol.ts";
import { within } from "./fixtures.ts";

interface StagedThread {
  thread: Thread;
  launch: Launch;
  told: unknown[];
  died: Promise<Death>;
  gone: Promise<void>;
  isEnding: () => boolean;
  /** Releases its lock. */
  end: () => void;
}

/** A thread whose messages and end are up to the test, and what is done when it is terminated. */
async function startThread(killable = true, terminated = () => {}): Promise<StagedThread> {
  const alive = Promise.withResolvers<void>(), died = Promise.withResolvers<Death>(), gone = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  const told: unknown[] = [];
  let isEnding = false;
  const events: ThreadEvents = {
    alive: alive.resolve,
    message: (message) => told.push(message.type === "returned" ? message.value : message),
    returned: () => {},
    delivered: () => {},
    ending: () => void (isEnding = true),
    died: (death) => {
      told.push(death.reason);
      died.resolve(death);
    },
    stuck: () => told.push("stuck"),
    gone: gone.resolve,
  };
  let launch: Launch;
  const start = guardedThreads({
    launch: (given) => {
      launch = given;
      locks().request(launch.lock, () => {
        send(launch, { type: "alive" });
        return held.promise;
      });
      return () => {
        launch.port.close();
        terminated();
      };
    },
    killable,
    heapLimit: () => 64,
  });
  const thread = start(events, "thread");
  await within(alive.promise);
  return { thread, launch: launch!, told, died: died.promise, gone: gone.promise, isEnding: () => isEnding, end: held.resolve };
}

function send({ port }: Launch, message: FromWorker): void {
  port.postMessage(message);
}

const answers = Array.from({ length: 500 }, (_, i) => i);

function sendAnswers(launch: Launch): void {
  for (const i of answers) send(launch, { type: "returned", run: i, value: i });
}

Deno.test("A thread whose death is reported by others has first delivered what it had sent", async () => {
  const { launch, told, died, gone, isEnding, end } = await startThread();
  sendAnswers(launch);
  assertEquals(isEnding(), false);
  launch.died({ reason: "filled its heap", memoryLimit: NaN });
  assertEquals(isEnding(), true);
  assertEquals((await within(died)).memoryLimit, 64);
  end();
  await within(gone);
  assertEquals(told, [...answers, "filled its heap of 64 MB"]);
});

Deno.test("A thread that is gone has first delivered what it had sent, and at last what it died of", async () => {
  const { launch, told, gone, end } = await startThread();
  end();
  await locks().request(launch.lock, () => {
    sendAnswers(launch);
    send(launch, { type: "dying", reason: "called Deno.exit(5)", exitCode: 5 });
  });
  await within(gone);
  assertEquals(told, [...answers, "called Deno.exit(5)"]);
});

Deno.test("A thread that is gone has died of what others report soon after that", async () => {
  const { launch, told, gone, end } = await startThread();
  end();
  await locks().request(launch.lock, () => {});
  // A few turns of the event loop.
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setTimeout(resolve));
  launch.died({ reason: "filled its heap", memoryLimit: NaN });
  await within(gone);
  assertEquals(told, ["filled its heap of 64 MB"]);
});

Deno.test("A thread that is gone without any report has ended without telling why", async () => {
  const { told, gone, end } = await startThread();
  end();
  await within(gone);
  assertEquals(told, ["ended without telling why"]);
});

Deno.test("A thread that was stopped is not stuck because the caller has no time to hear that it is gone", async () => {
  const terminated = Promise.withResolvers<void>();
  const { thread, told, gone, end } = await startThread(false, terminated.resolve);
  thread.stop({ reason: "test" });
  await within(terminated.promise);
  end();
  const until = performance.now() + 1500;
  while (performance.now() < until);
  await within(gone);
  assertEquals(told, []);
});

Deno.test("guardedThreads() gives no two workers the same lock, even if a test has put a fixed UUID in place of random ones", async () => {
  const { randomUUID } = crypto;
  crypto.randomUUID = () => "00000000-0000-4000-8000-000000000000";
  try {
    const [a, b] = [await startThread(), await startThread()];
    assertNotEquals(a.launch.lock, b.launch.lock);
    for (const { thread, end, gone } of [a, b]) {
      thread.stop();
      end();
      await within(gone);
    }
  } finally {
    crypto.randomUUID = randomUUID;
  }
});
