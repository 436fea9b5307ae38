import { assertEquals, assertStrictEquals } from "@std/assert";
import { Callbacks } from "../pool/callbacks.ts";
import { realClock } from "../pool/clock.ts";
import { Semaphore } from "../semaphore.ts";
import { thrownBy, turn } from "./helpers.ts";

/** Callbacks, and the errors that they have reported. */
function recorded() {
  const reported: unknown[] = [];
  return { reported, callbacks: new Callbacks(realClock, (error) => reported.push(error)) };
}

Deno.test("Callbacks.report() hands what onError throws to the platform", () => {
  const seen: unknown[] = [];
  const listener = (event: ErrorEvent): void => {
    event.preventDefault();
    seen.push(event.error);
  };
  const second = new Error("of onError");
  const callbacks = new Callbacks(realClock, () => {
    throw second;
  });
  globalThis.addEventListener("error", listener);
  try {
    callbacks.report(new Error("first"));
  } finally {
    globalThis.removeEventListener("error", listener);
  }
  assertEquals(seen, [second]);
});

Deno.test("Callbacks.inTurn() calls at once, but not within a call", () => {
  const { callbacks } = recorded();
  const order: string[] = [];
  callbacks.inTurn(() => {
    callbacks.inTurn(() => {
      order.push("second");
      callbacks.inTurn(() => order.push("fourth"));
    });
    callbacks.inTurn(() => order.push("third"));
    order.push("first");
  });
  order.push("after all");
  callbacks.inTurn(() => order.push("later"));
  assertEquals(order, ["first", "second", "third", "fourth", "after all", "later"]);
});

Deno.test("Callbacks.callOnDone() finishes at once if the callback returns no promise", () => {
  const { callbacks, reported } = recorded();
  for (const value of [undefined, null, 0, {}, { then: 4 }]) assertEquals(callbacks.callOnDone(() => value), undefined);
  const error = new Error("sync");
  assertEquals(
    callbacks.callOnDone(() => {
      throw error;
    }),
    undefined,
  );
  assertEquals(reported, [error]);
});

Deno.test("Callbacks.callOnDone() waits for whatever is thenable, and never rejects", async () => {
  const { callbacks, reported } = recorded();
  const error = new Error("async");
  await callbacks.callOnDone(() => ({ then: (resolve: (value: unknown) => void) => resolve(1) }));
  await callbacks.callOnDone(() => ({ then: (_: unknown, reject: (reason: unknown) => void) => reject(error) }));
  await callbacks.callOnDone(() => Promise.reject(error));
  await callbacks.callOnDone(() => Object.assign(() => {}, { then: (_: unknown, reject: (reason: unknown) => void) => reject(error) }));
  assertEquals(reported, [error, error, error]);
});

Deno.test("Callbacks.callOnDoneWithPermit() lets a callback have the permit, if nobody waits for that any more when its turn comes", async () => {
  const { callbacks } = recorded();
  const gate = new Semaphore(1);
  gate.tryAcquire();
  const controller = new AbortController();
  const waiting = thrownBy(() => gate.acquire({ signal: controller.signal }));
  const available: number[] = [];
  callbacks.inTurn(() => {
    callbacks.callOnDoneWithPermit(() => available.push(gate.available), gate);
    controller.abort("no longer");
  });
  assertEquals([available, gate.available, await waiting], [[1], 1, "no longer"]);
});

Deno.test("Callbacks.idle() resolves when the last callback has finished, including one that began meanwhile", async () => {
  const { callbacks } = recorded();
  await callbacks.idle();
  const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  callbacks.callOnDone(() => first.promise);
  const order: string[] = [];
  const idle = Promise.all([callbacks.idle(), callbacks.idle()]).then(() => order.push("idle"));
  const { promise, call } = callbacks.prepare(() => second.promise);
  call();
  first.resolve();
  await turn();
  assertEquals(order, []);
  second.resolve();
  await promise;
  await idle;
  assertEquals(order, ["idle"]);
});

Deno.test("Callbacks.idle() waits until an error that nobody looks at has been reported", async () => {
  const { callbacks, reported } = recorded();
  const error = new Error("unseen");
  callbacks.prepare(() => Promise.reject(error)).call();
  await callbacks.idle();
  assertEquals(reported, [error]);
});

Deno.test("Callbacks.prepare() gives a promise that is looked at in time even after the callback has thrown", async () => {
  const { callbacks, reported } = recorded();
  const error = new Error("seen");
  const { promise, call } = callbacks.prepare((): never => {
    throw error;
  });
  call();
  await Promise.resolve();
  assertStrictEquals(await thrownBy(() => promise), error);
  await callbacks.idle();
  assertEquals(reported, []);
});

Deno.test("Callbacks.prepare() gives a promise whose followers are ordinary promises", async () => {
  const { callbacks } = recorded();
  const { promise, call } = callbacks.prepare(() => 1);
  const follower = promise.then((value) => value + 1);
  assertStrictEquals(follower.constructor, Promise);
  call();
  assertEquals(await follower, 2);
});
