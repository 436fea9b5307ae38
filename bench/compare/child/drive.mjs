// @ts-check
/**
 * How each workload is driven, the same for every contender. Each gives its figures, or throws if a result is wrong.
 *
 * @module
 */

import { compute as computeHere } from "./tasks.mjs";

/** @typedef {import("./pool.mjs").Pool} Pool */
/** @typedef {Record<string, number>} Figures */
/** @typedef {{ jobs: number, bytes: number, inFlight: number, seconds: number }} BufferSize */

/** A result that is wrong: shown in place of a figure. */
export class WrongResult extends Error {
  /** @override */
  name = "WrongResult";
}

/**
 * @param {unknown} actual
 * @param {unknown} expected
 * @param {string} what
 */
function expect(actual, expected, what) {
  if (actual !== expected) throw new WrongResult(`${what}: ${actual} in place of ${expected}`);
}

/**
 * The same for the results of `increment` for 0, 1, 2 and so on: it is in the time that is measured, so it makes no text.
 *
 * @param {unknown} actual
 * @param {number} expected
 */
function expectNext(actual, expected) {
  if (actual !== expected) expect(actual, expected, `result ${expected - 1}`);
}

/** @type {Record<string, (pool: Pool, size: any, workers: number) => Promise<Figures>>} */
export const drives = { calls, roundTrip, map, mapTyped, copy, move, compute, prepared, mixed, mixedMap, fairness, handOver, coldStart };

/**
 * @param {Pool} pool
 * @param {{ jobs: number, window: number }} size
 * @returns {Promise<Figures>}
 */
async function calls(pool, { jobs, window }) {
  await warmUp(pool);
  const numbers = range(jobs);
  const begin = performance.now();
  for (let at = 0; at < jobs; at += window) {
    const results = await pool.calls("increment", numbers.slice(at, at + window));
    expect(results.length, window, "results");
    for (let i = 0; i < window; i++) expectNext(results[i], at + i + 1);
  }
  return { rate: perSecond(jobs, begin) };
}

/**
 * @param {Pool} pool
 * @param {{ calls: number, warmUp: number, pause: number }} size
 * @returns {Promise<Figures>}
 */
async function roundTrip(pool, { calls, warmUp, pause }) {
  const times = [];
  for (let i = 0; i < warmUp + calls; i++) {
    if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
    const begin = performance.now();
    const result = await pool.call("increment", i);
    times.push((performance.now() - begin) * 1000);
    expect(result, i + 1, `result ${i}`);
  }
  const sorted = times.slice(warmUp).sort((a, b) => a - b);
  return { median: percentile(sorted, 0.5), p99: percentile(sorted, 0.99) };
}

/**
 * @param {Pool} pool
 * @param {{ items: number, chunk: number }} size
 * @returns {Promise<Figures>}
 */
async function map(pool, { items, chunk }) {
  await warmUp(pool);
  const numbers = range(items);
  let next = 0;
  const begin = performance.now();
  await pool.map(numbers, chunk, (result) => expectNext(result, ++next));
  expect(next, items, "results");
  return { rate: perSecond(items, begin) };
}

/**
 * @param {Pool} pool
 * @param {{ items: number, chunk: number }} size
 * @returns {Promise<Figures>}
 */
async function mapTyped(pool, { items, chunk }) {
  await warmUp(pool);
  const numbers = Float64Array.from({ length: items }, (_, i) => i);
  let next = 0;
  const begin = performance.now();
  await pool.mapTyped(numbers, chunk, (result) => expectNext(result, ++next));
  expect(next, items, "results");
  return { rate: perSecond(items, begin) };
}

/**
 * @param {Pool} pool
 * @param {BufferSize & { view: 0 | 1 }} size
 * @returns {Promise<Figures>}
 */
async function copy(pool, { view, ...size }) {
  const { bytes, inFlight } = size;
  await warmUp(pool);
  const sources = Array.from({ length: inFlight }, () => new Uint8Array(bytes));
  return await buffers(size, (stamp, lane) => {
    const source = /** @type {Uint8Array} */ (sources[lane]);
    source[0] = stamp;
    return view ? pool.call("stampBytes", source) : pool.call("stampBuffer", source.buffer);
  });
}

/**
 * @param {Pool} pool
 * @param {BufferSize} size
 * @returns {Promise<Figures>}
 */
async function move(pool, size) {
  const { bytes, inFlight } = size;
  await warmUp(pool);
  // What comes back goes out again, as a program that moves its buffers would do it.
  const inHand = Array.from({ length: inFlight }, () => new ArrayBuffer(bytes));
  return await buffers(size, async (stamp, lane) => {
    const out = /** @type {ArrayBuffer} */ (inHand[lane]);
    new Uint8Array(out)[0] = stamp;
    const done = pool.move(out);
    const back = await done;
    if (out.byteLength !== 0) throw new WrongResult("The buffer was copied and not moved");
    return inHand[lane] = back;
  });
}

/**
 * Sends buffers on several lanes, one at a time on each; whoever is slow need not send them all.
 *
 * @param {BufferSize} size
 * @param {(stamp: number, lane: number) => Promise<Uint8Array | ArrayBuffer>} send
 * @returns {Promise<Figures>}
 */
async function buffers({ jobs, bytes, inFlight, seconds }, send) {
  let sent = 0;
  const begin = performance.now();
  /** @param {number} lane */
  async function drive(lane) {
    while (sent < jobs && performance.now() - begin < seconds * 1000) {
      const stamp = sent++ % 250;
      const back = await send(stamp, lane);
      expect(back.byteLength, bytes, "bytes");
      const seen = back instanceof Uint8Array ? back : new Uint8Array(back);
      expect(seen[0], stamp + 1, "stamp");
    }
  }
  await Promise.all(range(inFlight).map(drive));
  return { rate: perSecond(2 * sent * bytes, begin) / 1e6 };
}

/**
 * @param {Pool} pool
 * @param {{ jobs: number, microseconds: number, alone: number }} size
 * @param {number} workers
 * @returns {Promise<Figures>}
 */
async function compute(pool, { jobs, microseconds, alone }, workers) {
  const iterations = iterationsFor(microseconds);
  const jobsOf = (/** @type {number} */ count) => range(count).map((seed) => ({ seed, iterations }));
  await pool.calls("compute", jobsOf(Math.max(4, Math.ceil(100_000 / microseconds))));
  const before = aloneFor(alone, iterations);
  const begin = performance.now();
  const results = await pool.calls("compute", jobsOf(jobs));
  const wall = performance.now() - begin;
  const after = aloneFor(alone, iterations);
  expect(results.length, jobs, "results");
  for (const seed of [0, jobs >> 1, jobs - 1]) expect(results[seed], computeHere({ seed, iterations }), `result ${seed}`);
  return { efficiency: (before + after) / 2 * jobs / (wall * workers), single: (before + after) / 2 };
}

/**
 * @param {Pool} pool
 * @param {{ jobs: number, microseconds: number, window: number, alone: number }} size
 * @returns {Promise<Figures>}
 */
async function prepared(pool, { jobs, microseconds, window, alone }) {
  const iterations = iterationsFor(microseconds);
  const workFor = (/** @type {number} */ seed) => ({ seed, iterations });
  await pool.calls("compute", range(Math.ceil(100_000 / microseconds)).map(workFor));
  const before = aloneFor(alone, iterations);
  const begin = performance.now();
  for (let at = 0; at < jobs; at += window) {
    const expected = [];
    const results = [];
    for (let i = at; i < at + window; i++) {
      expected.push(computeHere(workFor(i)));
      results.push(pool.call("compute", workFor(i)));
    }
    for (const [i, result] of (await Promise.all(results)).entries()) expect(result, expected[i], `result ${at + i}`);
  }
  const wall = performance.now() - begin;
  const after = aloneFor(alone, iterations);
  return { efficiency: (before + after) / 2 * jobs / wall, single: (before + after) / 2 };
}

/**
 * How long one computing job takes on this thread, in ms: the mean of several.
 *
 * @param {number} jobs
 * @param {number} iterations
 */
function aloneFor(jobs, iterations) {
  const begin = performance.now();
  for (let seed = 0; seed < jobs; seed++) computeHere({ seed, iterations });
  return (performance.now() - begin) / jobs;
}

/**
 * How many iterations take so long, once the code is compiled.
 *
 * @param {number} microseconds
 */
function iterationsFor(microseconds) {
  const sample = 1_000_000;
  aloneFor(20, sample);
  return Math.round(sample * microseconds / 1000 / aloneFor(50, sample));
}

/** @typedef {import("./tasks.mjs").Item} Item */

/** What the three tasks of the mix make of a record; undefined for one that they refuse. */
const TASKS = /** @type {[string, (record: Item) => string][]} */ ([
  ["anonymise", () => "anonymous"],
  ["reprice", ({ prices }) => String(prices.map((price) => price * 2))],
  ["retag", ({ tags }) => String(tags.map((tag) => tag.toUpperCase()))],
]);
const SEEN = /** @type {((record: Item) => string)[]} */ ([({ name }) => name, ({ prices }) => String(prices), ({ tags }) => String(tags)]);

/**
 * @param {Pool} pool
 * @param {{ jobs: number, window: number }} size
 * @returns {Promise<Figures>}
 */
async function mixed(pool, { jobs, window }) {
  await warmUp(pool);
  const records = range(jobs).map(record);
  let failures = 0;
  let time = 0;
  for (let at = 0; at < jobs; at += window) {
    const part = records.slice(at, at + window).map((item) => /** @type {[string, Item]} */ ([TASKS[item.id % 3]?.[0], item]));
    const begin = performance.now();
    const outcomes = await pool.settle(part);
    time += performance.now() - begin;
    expect(outcomes.length, part.length, "outcomes");
    for (const [i, outcome] of outcomes.entries()) failures += checkOutcome(outcome, at + i, (at + i) % 3);
  }
  expect(failures, jobs / 100, "failures");
  return { rate: jobs / time * 1000 };
}

/**
 * @param {Pool} pool
 * @param {{ items: number, chunk: number }} size
 * @returns {Promise<Figures>}
 */
async function mixedMap(pool, { items, chunk }) {
  await warmUp(pool);
  const records = range(items).map(record);
  /** @type {PromiseSettledResult<any>[]} */
  const outcomes = [];
  const begin = performance.now();
  await pool.mapRecords(records, chunk, (outcome) => outcomes.push(outcome));
  const rate = perSecond(items, begin);
  expect(outcomes.length, items, "outcomes");
  let failures = 0;
  for (const [id, outcome] of outcomes.entries()) failures += checkOutcome(outcome, id, 1);
  expect(failures, items / 100, "failures");
  return { rate };
}

/**
 * Checks what came of one record; gives 1 if it was refused, as it should be, and else 0.
 *
 * @param {PromiseSettledResult<any>} outcome
 * @param {number} id
 * @param {number} task
 */
function checkOutcome(outcome, id, task) {
  if (outcome.status === "rejected") {
    expect(id % 100, 7, `record ${id} was refused, and id % 100`);
    expect(outcome.reason?.message, `Record ${id} is refused`, "message");
    return 1;
  }
  expect(outcome.value.id, id, "record");
  expect(SEEN[task]?.(outcome.value), TASKS[task]?.[1](record(id)), `record ${id}`);
  return 0;
}

/**
 * An object that takes about 200 bytes in a message.
 *
 * @param {number} id
 * @returns {Item}
 */
export function record(id) {
  return {
    id,
    name: `Customer ${id}`,
    email: `customer.${id}@example.org`,
    city: "Reykjavik",
    tags: ["new", "north", "paper"],
    prices: [id, 20.5, 31.25],
  };
}

/**
 * @param {Pool} pool
 * @param {{ bursts: number, before: number, after: number, short: number, long: number, warmUp: number }} size
 * @param {number} workers
 * @returns {Promise<Figures>}
 */
async function fairness(pool, { bursts, before, after, short, long, warmUp }, workers) {
  // Whoever learns from the past how long a task takes has learnt that it is short.
  await pool.calls("hold", range(warmUp).map((id) => ({ id, ms: short })));
  let [wait, idle] = [0, 0];
  for (let burst = 0; burst < bursts; burst++) {
    const jobs = range(before + 1 + after).map((id) => ({ id, ms: id === before ? long : short }));
    const begin = now();
    const spans = await pool.calls("hold", jobs);
    for (const [id, span] of spans.entries()) expect(span.id, id, "job");
    const shorts = spans.filter(({ id }) => id !== before);
    wait = Math.max(wait, ...shorts.map(({ start }) => start - begin));
    idle = Math.max(idle, longestIdleWait(begin, spans, Math.max(...shorts.map(({ start }) => start)), workers));
  }
  return { wait, idle };
}

/**
 * The longest stretch of time in which a worker was idle although a job waited: all jobs were there at `begin`, and the last one that counts
 * started at `last`.
 *
 * @param {number} begin
 * @param {{ start: number, end: number }[]} spans When each job ran.
 * @param {number} last
 * @param {number} workers
 */
export function longestIdleWait(begin, spans, last, workers) {
  const changes = spans.flatMap(({ start, end }) => [{ at: start, by: 1 }, { at: end, by: -1 }]).sort((a, b) => a.at - b.at || a.by - b.by);
  let [running, idleSince, longest] = [0, begin, 0];
  for (const { at, by } of changes) {
    if (at > last) break;
    if (running < workers && running + by >= workers) longest = Math.max(longest, at - idleSince);
    if (running >= workers && running + by < workers) idleSince = at;
    running += by;
  }
  return running < workers ? Math.max(longest, last - idleSince) : longest;
}

/**
 * @param {Pool} pool
 * @param {{ jobs: number }} size
 * @returns {Promise<Figures>}
 */
async function handOver(pool, { jobs }) {
  await warmUp(pool);
  const durations = [1, 5, 20];
  const delays = await Promise.all(
    range(jobs).map(async (id) => {
      const span = await pool.call("hold", { id, ms: durations[id % 3] });
      const delay = now() - span.end;
      expect(span.id, id, "job");
      return delay;
    }),
  );
  delays.sort((a, b) => a - b);
  return { median: percentile(delays, 0.5), p99: percentile(delays, 0.99) };
}

/**
 * What is timed is the program around it.
 *
 * @param {Pool} pool
 * @param {{ jobs: number }} size
 * @returns {Promise<Figures>}
 */
async function coldStart(pool, { jobs }) {
  const results = await pool.calls("increment", range(jobs));
  expect(String(results), String(range(jobs).map((x) => x + 1)), "results");
  return {};
}

/**
 * The workers are there and have compiled what they run.
 *
 * @param {Pool} pool
 */
async function warmUp(pool) {
  await pool.start?.();
  for (let i = 0; i < 5; i++) await pool.calls("increment", range(1_000));
}

/** Now, in ms on the clock of {@link hold}. */
function now() {
  return performance.timeOrigin + performance.now();
}

/** @param {number} length */
function range(length) {
  return Array.from({ length }, (_, i) => i);
}

/**
 * @param {number} count
 * @param {number} begin
 */
function perSecond(count, begin) {
  return count / (performance.now() - begin) * 1000;
}

/**
 * @param {number[]} sorted
 * @param {number} part
 */
function percentile(sorted, part) {
  return /** @type {number} */ (sorted[Math.ceil(sorted.length * part) - 1]);
}
