import { type Attributes, metrics, type Span, type SpanOptions, trace } from "@opentelemetry/api";
import { otelObserver } from "@procpool/otel";
import { Job, ProcessPool } from "@procpool/process-pool";
import { assert, assertEquals, assertRejects } from "@std/assert";

/** What is recorded of a span. */
interface Recorded {
  name: string;
  attributes: Attributes;
  start: number;
  ends: (number | undefined)[];
  exceptions: unknown[];
  /** The message of its status. */
  message?: string | undefined;
}

const spans: Recorded[] = [];
const counted: [string, number, Attributes][] = [];

trace.setGlobalTracerProvider({
  getTracer: () => ({
    startSpan(name: string, options: SpanOptions = {}): Span {
      const recorded: Recorded = {
        name,
        attributes: { ...options.attributes },
        start: options.startTime as number,
        ends: [],
        exceptions: [],
      };
      spans.push(recorded);
      return {
        spanContext: () => ({ traceId: "1".repeat(32), spanId: "1".repeat(16), traceFlags: 1 }),
        setAttribute: (key: string, value: string) => void (recorded.attributes[key] = value),
        setStatus: ({ message }: { message?: string }) => void (recorded.message = message),
        recordException: (exception: unknown) => void recorded.exceptions.push(exception),
        end: (time?: number) => void recorded.ends.push(time),
      } as unknown as Span;
    },
    startActiveSpan: () => {
      throw new Error("It is not used");
    },
  }),
});
type Callback = (result: { observe(value: number, attributes: Attributes): void }) => void;
/** The callbacks of gauges, with their names. */
const callbacks = new Map<Callback, string>();

/** What the gauges tell at this moment. */
async function observed(): Promise<[string, number][]> {
  const values: [string, number][] = [];
  for (const [callback, name] of [...callbacks]) {
    callback({ observe: (value, { state }) => void values.push([String(state ?? name), value]) });
  }
  await Promise.resolve();
  return values;
}

const instrument = (name: string) => ({
  add: (value: number, attributes: Attributes) => void counted.push([name, value, attributes]),
  record: () => {},
  addCallback: (callback: Callback) => void callbacks.set(callback, name),
  removeCallback: (callback: Callback) => void callbacks.delete(callback),
});
metrics.setGlobalMeterProvider(
  { getMeter: () => ({ createCounter: instrument, createHistogram: instrument, createObservableGauge: instrument }) } as never,
);

/** The sums of a counter by an attribute. */
function sums(counter: string, by: string): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [name, value, attributes] of counted) {
    if (name === counter) sums[String(attributes[by])] = (sums[String(attributes[by])] ?? 0) + value;
  }
  return sums;
}

Deno.test("otelObserver() counts each item of a map by its own outcome, and those that ran for too long", async () => {
  counted.length = 0;
  await using pool = new ProcessPool({ backend: "killable", maxWorkers: 1, observers: [otelObserver()] });
  const spin = (x: number): number => {
    while (x === 2);
    return x;
  };
  await Array.fromAsync(pool.map(spin, [1, 2, 3], { settled: true, timeout: 200, chunkSize: 3 }));
  assertEquals([sums("process_pool.jobs", "outcome"), sums("process_pool.timeouts", "task")], [{ finished: 2, failed: 1 }, { spin: 1 }]);
  counted.length = 0;
  const results = pool.map(spin, [1, 2, 3], { chunkSize: 3 });
  await results.next();
  await pool.terminate();
  assertEquals(sums("process_pool.jobs", "outcome"), { finished: 1, failed: 2 });
});

Deno.test("otelObserver() says once that a closed pool has neither jobs nor workers: readers keep what they were told last", async () => {
  callbacks.clear();
  {
    await using pool = new ProcessPool({ maxWorkers: 1, observers: [otelObserver()] });
    await pool.run((x: number) => x, 1);
    assertEquals((await observed()).at(-1), ["process_pool.workers", 1]);
  }
  assertEquals(await observed(), [["waiting", 0], ["queued", 0], ["running", 0], ["process_pool.workers", 0]]);
  assertEquals(await observed(), []);
});

Deno.test("otelObserver() ends each job's span once, when the job settled, and names jobs by texts", async () => {
  spans.length = 0;
  const reported: unknown[] = [];
  const controller = new AbortController();
  {
    await using pool = new ProcessPool({ maxWorkers: 1, observers: [otelObserver()], onError: (error) => void reported.push(error) });
    await pool.run((x: number) => x, 1);
    const job = new Job({
      id: "endless",
      func: async () => await new Promise<void>((resolve) => setTimeout(resolve, 60_000)),
      signal: controller.signal,
    });
    const future = await pool.submit(job);
    // It has no text, not even by String().
    controller.abort(Object.create(null));
    await future.exception();
  }
  const jobs = spans.filter(({ attributes }) => "process_pool.job.id" in attributes);
  assertEquals(jobs.map(({ attributes }) => attributes["process_pool.outcome"]), ["finished", "cancelled"]);
  for (const { attributes, ends } of jobs) {
    assertEquals(typeof attributes["process_pool.job.id"], "string");
    assert(ends.length === 1 && ends[0]! <= performance.timeOrigin + performance.now());
  }
  assertEquals(reported, []);
});

Deno.test("otelObserver() records errors by their names, and ends the span of a job whatever the properties of its error are", async () => {
  spans.length = 0;
  const reported: unknown[] = [];
  {
    const observers = [otelObserver()];
    await using pool = new ProcessPool({ backend: "inline", maxWorkers: 1, observers, onError: (error) => void reported.push(error) });
    const controller = new AbortController();
    const stopped = await pool.submit(new Job({ func: () => new Promise(() => {}), signal: controller.signal }));
    controller.abort();
    await stopped.exception();
    const { proxy, revoke } = Proxy.revocable(new Error(), {});
    revoke();
    const strange = [
      proxy,
      Object.assign(new Error("absent"), { code: "ENOENT" }),
      Object.assign(new Error(), { name: Symbol("name"), message: { text: 1 }, stack: 2 }),
      Object.defineProperty(new Error(), "message", {
        get() {
          throw new TypeError("no message");
        },
      }),
    ];
    for (const error of strange) {
      const run = pool.run(() => {
        throw error;
      });
      await run.then(() => assert(false), () => {});
    }
  }
  const jobs = spans.filter(({ attributes }) => "process_pool.job.id" in attributes);
  const recorded = jobs.flatMap(({ exceptions: [exception] }) => {
    if (typeof exception !== "object") return [exception];
    const { name, code, stack } = exception as Record<string, unknown>;
    return [{ name, code, stack: typeof stack }];
  });
  assertEquals(recorded, [
    { name: "AbortError", code: undefined, stack: "string" },
    "something that has no text",
    { name: "Error", code: "ENOENT", stack: "string" },
    { name: "Symbol(name)", code: undefined, stack: "string" },
    "something that has no text",
  ]);
  assertEquals(jobs.map(({ message }) => message).slice(2), ["absent", "[object Object]", "something that has no text"]);
  assertEquals(jobs.map(({ ends }) => ends.length), [1, 1, 1, 1, 1]);
  assertEquals(reported, []);
});

Deno.test("otelObserver() goes by the time of day, also when the clock was set or the machine has slept", async () => {
  spans.length = 0;
  const now = Date.now;
  const square = (x: number): number => x * x;
  await using pool = new ProcessPool({ maxWorkers: 1, observers: [otelObserver()] });
  try {
    for (const hours of [0, 8, -1]) {
      Date.now = () => now() + hours * 3_600_000;
      const before = Date.now();
      await pool.run(square, 3);
      for (const { start, ends } of spans.splice(0)) {
        // By less than a second the two clocks may differ.
        assert(start > before - 1001 && start <= ends[0]! && ends[0]! < Date.now() + 1001, `${before}: ${start} to ${ends}`);
      }
    }
  } finally {
    Date.now = now;
  }
});

Deno.test("otelObserver() lets no span end before it has begun, nor begin before its parent, even if the clock is set back", async () => {
  spans.length = 0;
  const now = Date.now;
  const square = (x: number): number => x * x;
  const controller = new AbortController();
  await using pool = new ProcessPool({ maxWorkers: 1, queueSize: 1, observers: [otelObserver()] });
  try {
    const result = pool.run(square, 3);
    const refused = assertRejects(() => pool.run(new Job({ func: square, args: [4], signal: controller.signal })));
    Date.now = () => now() - 3_600_000;
    controller.abort();
    await refused;
    assertEquals(await result, 9);
  } finally {
    Date.now = now;
  }
  assertEquals(spans.length, 3);
  for (const { start, ends: [end] } of spans) assert(start >= spans[0]!.start && start <= end!, `${start} to ${end}`);
});
