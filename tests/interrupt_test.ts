import { assertEquals } from "@std/assert";
import { Interrupt, type SignalHost } from "../pool/interrupt.ts";
import { turn, until } from "./helpers.ts";

/** A host whose signals the test sends. */
class FakeHost implements SignalHost {
  listeners: [signal: Deno.Signal, listener: () => void][] = [];
  exits: number[] = [];

  addSignalListener(signal: Deno.Signal, listener: () => void): void {
    this.listeners.push([signal, listener]);
  }

  removeSignalListener(signal: Deno.Signal, listener: () => void): void {
    this.listeners = this.listeners.filter((each) => each[0] !== signal || each[1] !== listener);
  }

  exit(code: number): void {
    this.exits.push(code);
  }

  send(signal: Deno.Signal): void {
    for (const [name, listener] of [...this.listeners]) if (name === signal) listener();
  }
}

const ignore = Deno.build.os === "windows";

for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  Deno.test(
    `Interrupt aborts at the first ${signal} and exits with ${code} at the second`,
    { ignore: ignore && signal !== "SIGINT" },
    async () => {
      const host = new FakeHost();
      const heard: unknown[] = [];
      using interrupt = new Interrupt({
        host,
        onSignal: (signal, received) => heard.push([signal, received, interrupt.signal.aborted, host.exits.length]),
      });
      assertEquals([interrupt.signal.aborted, interrupt.exitCode], [false, undefined]);

      host.send(signal);
      assertEquals([interrupt.signal.aborted, interrupt.exitCode, host.exits], [true, code, []]);
      assertEquals(String(interrupt.signal.reason), `AbortError: The program received ${signal}`);

      await until(() => {
        host.send(signal);
        return host.exits.length > 0;
      });
      assertEquals(host.exits, [code]);
      assertEquals(heard, [[signal, "first", false, 0], [signal, "again", true, 0]]);
    },
  );
}

Deno.test("Interrupt takes a copy of the first signal, as 'deno task' makes, for that one, however long the thread computes before it hears it", async () => {
  const host = new FakeHost();
  const heard: unknown[] = [];
  const compute = () => {
    for (const end = performance.now() + 600; performance.now() < end;);
  };
  using interrupt = new Interrupt({ host, onSignal: (_, received) => heard.push(received) });
  interrupt.signal.addEventListener("abort", compute);
  host.send("SIGINT");
  host.send("SIGINT");
  compute();
  host.send("SIGINT");
  // The first turn in which the copy can be heard may be one in which timers are.
  await turn();
  host.send("SIGINT");
  assertEquals([interrupt.exitCode, host.exits, heard], [130, [], ["first"]]);
  await until(() => {
    host.send("SIGINT");
    return host.exits.length > 0;
  });
  assertEquals([host.exits, heard], [[130], ["first", "again"]]);
});

Deno.test("Interrupt treats a signal of another kind as a second one, and exits with its code", { ignore }, () => {
  const host = new FakeHost();
  using interrupt = new Interrupt({ host });
  host.send("SIGINT");
  host.send("SIGTERM");
  assertEquals([interrupt.exitCode, host.exits], [143, [143]]);
});

Deno.test("Interrupt stops listening when it is disposed of, and keeps its exit code", () => {
  const host = new FakeHost();
  const interrupt = new Interrupt({ host });
  host.send("SIGINT");
  interrupt[Symbol.dispose]();
  interrupt[Symbol.dispose]();
  assertEquals(host.listeners, []);
  assertEquals(interrupt.exitCode, 130);
});

Deno.test("Interrupt leaves nothing of Deno's signals behind", () => {
  const interrupt = new Interrupt();
  interrupt[Symbol.dispose]();
  assertEquals(interrupt.exitCode, undefined, "the sanitizers are the test");
});
