/**
 * Spans and metrics of a process-pool for OpenTelemetry. Deno itself exports them when run with `OTEL_DENO=true`; any other SDK registered
 * with `@opentelemetry/api` works as well, and without one nothing is recorded.
 *
 * @example A pool in the traces and dashboards of a service
 * ```ts
 * import { otelObserver } from "@procpool/otel";
 * import { ProcessPool } from "@procpool/process-pool";
 * import { assertEquals } from "@std/assert";
 *
 * await using pool = new ProcessPool({ maxWorkers: 1, observers: [otelObserver({ name: "thumbnails" })] });
 * assertEquals(await pool.run((x: number) => x * x, 3), 9);
 * ```
 *
 * @module
 */

import {
  type Attributes,
  type Context,
  context,
  type Exception,
  metrics,
  type ObservableGauge,
  type ObservableResult,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import type { ObservedJob, PoolLevels, PoolObserver } from "@procpool/process-pool";
import { Checks, show } from "@procpool/process-pool/executor";

/** Options of {@linkcode otelObserver}. */
export interface OtelOptions {
  /**
   * The name of the pool: the attribute `process_pool.name` of all spans and metrics.
   *
   * @default {"default"}
   */
  name?: string | undefined;
  /**
   * Whether each job is a span. Metrics cost less, and may be enough for a pool of a million jobs.
   *
   * @default {true}
   */
  spans?: boolean | undefined;
}

/** The name under which tracer and meter are asked for. */
const SCOPE = "@procpool/otel";

/** What a closed pool holds. */
const NOTHING: PoolLevels = { waiting: 0, queued: 0, running: 0, workers: 0 };

/** In seconds: from what a short job takes to what a night does. */
const BOUNDARIES = [0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600, 3600];

/**
 * By how many ms the time of day must have moved against `performance.now()` to count as set. Less, and a thread that is held up between
 * reading the two looks like that; more, and spans may be that far from those around them.
 */
const CLOCK_WAS_SET = 1000;

/** The time of day at which `performance.now()` is 0: a different one once the clock was set, or the machine has slept. */
let latestOrigin = performance.timeOrigin;

/** The span of a job, and the context that its runs are in. */
interface JobSpan {
  span: Span;
  within: Context;
  /**
   * The origin by which its times are converted, until there is a later one. An earlier one is never used: the span would end, and its runs
   * would begin, before it began.
   */
  origin: number;
}

/**
 * Makes an observer of one pool, for its `observers`. A job is a span, from its submission to its end, within the caller's span; each run
 * in a worker is a span within that, with the worker's own times. A chunk of a map is one job.
 *
 * Metrics: `process_pool.jobs` (settled, by `outcome` and `task`), `process_pool.job.waiting` and `process_pool.job.running` (histograms,
 * in seconds), `process_pool.queue` (by `state`: `waiting` at the gate, `queued`, `running`), `process_pool.workers`,
 * `process_pool.worker.deaths` and `process_pool.timeouts`.
 *
 * @param options The name of the pool, and whether there are spans.
 * @returns The observer. Each pool needs its own.
 *
 * @throws {TypeError} If an option is unknown or of the wrong type.
 */
export function otelObserver(options: OtelOptions = {}): PoolObserver {
  const checks = new Checks("create observer");
  const { name = "default", spans = true } = checks.options(options, ["name", "spans"]);
  if (typeof name !== "string") throw new TypeError(`Cannot create observer as 'name' must be a string: current value is ${show(name)}`);
  checks.boolean("spans", spans);
  const tracer = trace.getTracer(SCOPE);
  const meter = metrics.getMeter(SCOPE);
  const pool: Attributes = { "process_pool.name": name };
  const advice = { advice: { explicitBucketBoundaries: BOUNDARIES } };
  const settled = meter.createCounter("process_pool.jobs", { unit: "{job}", description: "Jobs and items of maps that have settled" });
  const waiting = meter.createHistogram("process_pool.job.waiting", { unit: "s", description: "From submission to start", ...advice });
  const running = meter.createHistogram("process_pool.job.running", { unit: "s", description: "From start to end", ...advice });
  const deaths = meter.createCounter("process_pool.worker.deaths", { unit: "{worker}", description: "Workers that died" });
  const timeouts = meter.createCounter("process_pool.timeouts", { unit: "{job}", description: "Jobs that ran for too long" });
  const queue = meter.createObservableGauge("process_pool.queue", { unit: "{job}", description: "Jobs that have not settled" });
  const workers = meter.createObservableGauge("process_pool.workers", { unit: "{worker}", description: "Workers that there are" });
  const jobSpans = new WeakMap<ObservedJob, JobSpan>();
  let levels: () => PoolLevels;
  let isClosed = false;

  /** Has a gauge observed until the pool is closed, and once more: a reader keeps what was observed last. */
  function observe(gauge: ObservableGauge, tell: (result: ObservableResult, levels: PoolLevels) => void): void {
    const callback = (result: ObservableResult): void => {
      tell(result, levels());
      // Not at once, as the reader is going through the callbacks.
      if (isClosed) queueMicrotask(() => gauge.removeCallback(callback));
    };
    gauge.addCallback(callback);
  }

  /** A run has ended, if there was one. */
  function ran(job: ObservedJob, failed: boolean): void {
    const { started, ended, submitted, task, runs, worker } = job;
    if (started === undefined) return;
    const attributes = { ...pool, task };
    if (runs === 1) waiting.record((started - submitted) / 1000, attributes);
    running.record((ended! - started) / 1000, attributes);
    const parent = jobSpans.get(job);
    if (parent === undefined) return;
    const origin = parent.origin = Math.max(parent.origin, presentOrigin());
    const span = tracer.startSpan(`run ${task}`, {
      startTime: origin + started,
      attributes: { ...pool, "process_pool.worker": worker!, "process_pool.run": runs },
      links: [{ context: parent.span.spanContext() }],
    }, parent.within);
    if (failed) span.setStatus({ code: SpanStatusCode.ERROR });
    span.end(origin + ended!);
  }

  function end(job: ObservedJob, state: string, error: unknown): void {
    const jobSpan = jobSpans.get(job);
    if (jobSpan === undefined) return;
    const { span, origin } = jobSpan;
    span.setAttribute("process_pool.outcome", state);
    if (state !== "finished") {
      const exception = exceptionOf(error);
      span.recordException(exception);
      span.setStatus({ code: SpanStatusCode.ERROR, message: typeof exception === "string" ? exception : exception.message });
    }
    span.end(Math.max(origin, presentOrigin()) + (job.settled ?? performance.now()));
    jobSpans.delete(job);
  }

  return {
    opened(opened) {
      levels = opened.levels;
      observe(queue, (result, { waiting, queued, running }) => {
        for (const [state, count] of Object.entries({ waiting, queued, running })) result.observe(count, { ...pool, state });
      });
      observe(workers, (result, { workers }) => result.observe(workers, pool));
    },
    submitted(job) {
      if (!spans) return;
      const { id, task, items, submitted } = job;
      const caller = context.active();
      const origin = presentOrigin();
      const span = tracer.startSpan(task, {
        kind: SpanKind.INTERNAL,
        startTime: origin + submitted,
        // An attribute has one type, and an id may be a string.
        attributes: { ...pool, "process_pool.job.id": String(id), "process_pool.job.items": items },
      }, caller);
      jobSpans.set(job, { span, within: trace.setSpan(caller, span), origin });
    },
    refused(job, error) {
      settled.add(job.items, { ...pool, task: job.task, outcome: "refused" });
      end(job, "refused", error);
    },
    retried(job) {
      ran(job, true);
    },
    settled(job) {
      const { state, error, finished, failed, cancelled, timedOut, task } = job;
      ran(job, state !== "finished");
      for (const [outcome, count] of Object.entries({ finished, failed, cancelled })) {
        if (count > 0) settled.add(count, { ...pool, task, outcome });
      }
      if (timedOut > 0) timeouts.add(timedOut, { ...pool, task });
      end(job, state!, error);
    },
    worker(_worker, change, reason) {
      if (change === "died" || change === "failed to start") deaths.add(1, { ...pool, change, reason: reason ?? "" });
    },
    closed() {
      isClosed = true;
      levels = () => NOTHING;
    },
  };
}

/**
 * What is recorded of something thrown: texts, whatever a task has made of the properties of an error. Exporters take its code for its
 * type, so that of an abort would be "20", the number of a DOMException.
 */
function exceptionOf(error: unknown): Extract<Exception, { message: string }> | string {
  try {
    if (!(error instanceof Error)) return textOf(error);
    const { name, message, stack = "", code } = error as Error & { code?: unknown };
    return { name: String(name), message: String(message), stack: String(stack), ...(typeof code === "string" ? { code } : {}) };
  } catch {
    return textOf(error);
  }
}

/** The text of what was thrown, or aborted with: some things have none. */
function textOf(error: unknown): string {
  try {
    return String(error);
  } catch {
    return "something that has no text";
  }
}

/** What has to be added to `performance.now()` for milliseconds of the time of day. */
function presentOrigin(): number {
  const now = Date.now() - performance.now();
  if (Math.abs(now - latestOrigin) > CLOCK_WAS_SET) latestOrigin = now;
  return latestOrigin;
}
