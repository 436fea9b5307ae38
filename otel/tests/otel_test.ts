import { assert, assertEquals, assertThrows } from "@std/assert";
import { otelObserver } from "@procpool/otel";

const granted = (["run", "env", "read"] as const).every((name) => Deno.permissions.querySync({ name }).state === "granted") &&
  Deno.permissions.querySync({ name: "net", host: "127.0.0.1" }).state === "granted";

interface Value {
  stringValue?: string;
  intValue?: string | number;
}
interface Attribute {
  key: string;
  value: Value;
}
interface ExportedSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: Attribute[];
  status: { code?: number; message?: string };
  links?: { spanId: string }[];
}
interface Point {
  attributes: Attribute[];
  asInt?: string | number;
  asDouble?: number;
  count?: string | number;
}
interface ExportedMetric {
  name: string;
  sum?: { dataPoints: Point[] };
  gauge?: { dataPoints: Point[] };
  histogram?: { dataPoints: Point[] };
}

function attribute(attributes: Attribute[], name: string): string | undefined {
  const value = attributes.find(({ key }) => key === name)?.value;
  return value && String(value.stringValue ?? value.intValue);
}

/** Takes what a program exports, on loopback. */
class Collector implements AsyncDisposable {
  readonly spans: ExportedSpan[] = [];
  /** As they were exported the last time that there were any. */
  readonly metrics = new Map<string, Point[]>();
  /** Called when something has come. */
  onExport: () => void = () => {};
  #server: Deno.HttpServer<Deno.NetAddr>;

  constructor() {
    this.#server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
      this.#take(await request.json());
      this.onExport();
      return Response.json({});
    });
  }

  get address(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  // deno-lint-ignore no-explicit-any -- the protocol's own layers
  #take({ resourceSpans = [], resourceMetrics = [] }: { resourceSpans?: any[]; resourceMetrics?: any[] }): void {
    for (const { scopeSpans } of resourceSpans) for (const { spans } of scopeSpans) this.spans.push(...spans);
    for (const { scopeMetrics } of resourceMetrics) {
      for (const { metrics } of scopeMetrics as { metrics: ExportedMetric[] }[]) {
        for (const { name, sum, gauge, histogram } of metrics) this.metrics.set(name, (sum ?? gauge ?? histogram)!.dataPoints);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

Deno.test({
  name:
    "otelObserver() exports a span for each job and run, and metrics (needs --allow-read, --allow-run, --allow-env and --allow-net=127.0.0.1)",
  ignore: !granted,
  async fn() {
    await using collector = new Collector();
    const measured = new Promise<void>((resolve) => {
      // The jobs are through, and the gauges of a pool that is open have come.
      collector.onExport = () => {
        if (total("process_pool.jobs", {}) === 10 && collector.metrics.has("process_pool.queue")) resolve();
      };
    });
    function points(name: string, wanted: Record<string, string>): Point[] {
      const all = collector.metrics.get(name) ?? [];
      return all.filter(({ attributes }) => Object.entries(wanted).every(([key, value]) => attribute(attributes, key) === value));
    }
    function total(name: string, wanted: Record<string, string>): number {
      return points(name, wanted).reduce((sum, { asInt, asDouble, count }) => sum + Number(asInt ?? asDouble ?? count), 0);
    }

    const program = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--allow-net=127.0.0.1", "tests/program.ts"],
      cwd: new URL("../", import.meta.url),
      env: {
        OTEL_DENO: "true",
        OTEL_EXPORTER_OTLP_ENDPOINT: collector.address,
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
        OTEL_METRIC_EXPORT_INTERVAL: "100",
        OTEL_BSP_SCHEDULE_DELAY: "100",
      },
      stdin: "piped",
    }).spawn();
    const deadline = setTimeout(() => program.kill("SIGKILL"), 60_000);
    await Promise.race([measured, program.status]);
    assertEquals(total("process_pool.workers", { "process_pool.name": "test" }), 1);
    assertEquals(points("process_pool.queue", {}).map(({ attributes }) => attribute(attributes, "state")).sort(), [
      "queued",
      "running",
      "waiting",
    ]);
    await program.stdin.close();
    assertEquals((await program.status).code, 0);
    clearTimeout(deadline);

    // Metrics
    assertEquals(total("process_pool.jobs", { task: "square", outcome: "finished" }), 7);
    assertEquals(total("process_pool.jobs", { task: "fail", outcome: "failed" }), 1);
    assertEquals(total("process_pool.jobs", { task: "die", outcome: "finished" }), 1);
    assertEquals([total("process_pool.timeouts", { task: "spin" }), total("process_pool.worker.deaths", { change: "died" })], [1, 1]);
    // Four squares and a chunk, one that failed, one that was stopped, and one that ran twice.
    assertEquals([total("process_pool.job.waiting", {}), total("process_pool.job.running", {})], [8, 9]);

    // Spans
    const { spans } = collector;
    const [caller] = spans.filter(({ name }) => name === "caller");
    const jobs = spans.filter(({ attributes }) => attribute(attributes, "process_pool.job.id") !== undefined);
    assertEquals(jobs.map(({ name }) => name).sort(), ["die", "fail", "spin", "square", "square", "square", "square", "square"]);
    assert(jobs.every(({ parentSpanId, traceId }) => parentSpanId === caller!.spanId && traceId === caller!.traceId));
    const [failed] = jobs.filter(({ name }) => name === "fail");
    assertEquals([failed!.status.code, failed!.status.message], [2, "no"]);
    for (const job of jobs) {
      const runs = spans.filter(({ name, parentSpanId }) => name === `run ${job.name}` && parentSpanId === job.spanId);
      assertEquals(runs.length, job.name === "die" ? 2 : 1, job.name);
      for (const run of runs) {
        assertEquals(run.links?.map(({ spanId }) => spanId), [job.spanId]);
        assert(attribute(run.attributes, "process_pool.worker") !== undefined);
        const times = [job.startTimeUnixNano, run.startTimeUnixNano, run.endTimeUnixNano, job.endTimeUnixNano].map(BigInt);
        // A double of milliseconds since 1970 knows a quarter of a microsecond.
        for (const [i, time] of times.entries()) assert(i === 0 || times[i - 1]! <= time + 1_000_000n, `${job.name}: ${times}`);
      }
    }
  },
});

Deno.test("otelObserver() refuses options that are unknown or of the wrong type", () => {
  assertThrows(
    () => otelObserver({ name: 4 as never }),
    TypeError,
    "Cannot create observer as 'name' must be a string: current value is 4",
  );
  assertThrows(() => otelObserver({ spans: 1 as never }), TypeError, "Cannot create observer as 'spans' must be true or false");
  assertThrows(
    () => otelObserver({ span: false } as never),
    TypeError,
    "Cannot create observer as there is no option 'span': known options are 'name', 'spans'",
  );
  assertThrows(() => otelObserver("thumbnails" as never), TypeError, "Cannot create observer as its options must be a plain object");
});
