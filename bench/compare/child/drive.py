"""How each workload is driven, as in drive.mjs. A pool has call(task, arg), which gives something with result(), and map(task, items, chunk)."""

import math
import time
from threading import Event

import tasks


class WrongResult(Exception):
    """A result that is wrong: shown in place of a figure."""


def expect(actual, expected, what):
    if actual != expected:
        raise WrongResult(f"{what}: {actual} in place of {expected}")


def calls(pool, size, _workers):
    warm_up(pool)
    jobs, window = size["jobs"], size["window"]
    begin = time.perf_counter()
    for at in range(0, jobs, window):
        results = pool.calls(tasks.increment, range(at, at + window))
        expect(len(results), window, "results")
        for i, result in enumerate(results):
            expect(result, at + i + 1, f"result {at + i}")
    return {"rate": jobs / (time.perf_counter() - begin)}


def round_trip(pool, size, _workers):
    times = []
    for i in range(size["warmUp"] + size["calls"]):
        if size["pause"] > 0:
            time.sleep(size["pause"] / 1000)
        begin = time.perf_counter()
        result = pool.call(tasks.increment, i).result()
        times.append((time.perf_counter() - begin) * 1e6)
        expect(result, i + 1, f"result {i}")
    times = sorted(times[size["warmUp"]:])
    return {"median": percentile(times, 0.5), "p99": percentile(times, 0.99)}


def mapped(pool, size, _workers):
    warm_up(pool)
    count = 0
    begin = time.perf_counter()
    for result in pool.map(tasks.increment, range(size["items"]), size["chunk"]):
        count += 1
        if result != count:
            expect(result, count, f"result {count - 1}")
    expect(count, size["items"], "results")
    return {"rate": count / (time.perf_counter() - begin)}


def copy(pool, size, _workers):
    warm_up(pool)
    jobs, length, lanes = size["jobs"], size["bytes"], size["inFlight"]
    rest = bytes(length - 1)
    sent = 0
    in_flight = []
    begin = time.perf_counter()
    while True:
        while sent < jobs and len(in_flight) < lanes and time.perf_counter() - begin < size["seconds"]:
            in_flight.append((sent % 250, pool.call(tasks.stamp_bytes, bytes([sent % 250]) + rest)))
            sent += 1
        if not in_flight:
            return {"rate": 2 * sent * length / (time.perf_counter() - begin) / 1e6}
        stamp, job = in_flight.pop(0)
        back = job.result()
        expect(len(back), length, "bytes")
        expect(back[0], stamp + 1, "stamp")


def compute(pool, size, workers):
    jobs = size["jobs"]
    iterations = round(200_000 * size["microseconds"] / 1000 / alone_for(10, 200_000))
    pool.calls(tasks.compute, [(seed, iterations) for seed in range(4)])
    before = alone_for(size["alone"], iterations)
    begin = time.perf_counter()
    results = pool.calls(tasks.compute, [(seed, iterations) for seed in range(jobs)])
    wall = (time.perf_counter() - begin) * 1000
    after = alone_for(size["alone"], iterations)
    expect(len(results), jobs, "results")
    for seed in (0, jobs >> 1, jobs - 1):
        expect(results[seed], tasks.compute((seed, iterations)), f"result {seed}")
    return {"efficiency": (before + after) / 2 * jobs / (wall * workers), "single": (before + after) / 2}


def prepared(pool, size, _workers):
    jobs, window = size["jobs"], size["window"]
    iterations = round(200_000 * size["microseconds"] / 1000 / alone_for(10, 200_000))
    pool.calls(tasks.compute, [(seed, iterations) for seed in range(100)])
    before = alone_for(size["alone"], iterations)
    begin = time.perf_counter()
    for at in range(0, jobs, window):
        expected, futures = [], []
        for seed in range(at, at + window):
            expected.append(tasks.compute((seed, iterations)))
            futures.append(pool.call(tasks.compute, (seed, iterations)))
        for i, future in enumerate(futures):
            expect(future.result(), expected[i], f"result {at + i}")
    wall = (time.perf_counter() - begin) * 1000
    after = alone_for(size["alone"], iterations)
    return {"efficiency": (before + after) / 2 * jobs / wall, "single": (before + after) / 2}


def alone_for(jobs, iterations):
    begin = time.perf_counter()
    for seed in range(jobs):
        tasks.compute((seed, iterations))
    return (time.perf_counter() - begin) * 1000 / jobs


def cold_start(pool, size, _workers):
    expect(list(pool.calls(tasks.increment, range(size["jobs"]))), list(range(1, size["jobs"] + 1)), "results")
    return {}


MIX = (tasks.anonymise, tasks.reprice, tasks.retag)


def mixed(pool, size, _workers):
    warm_up(pool)
    records = [record(i) for i in range(size["jobs"])]
    failures = 0
    spent = 0
    for at in range(0, size["jobs"], size["window"]):
        begin = time.perf_counter()
        outcomes = []
        for job in [pool.call(MIX[item["id"] % 3], item) for item in records[at:at + size["window"]]]:
            try:
                outcomes.append(job.result())
            except ValueError as error:
                outcomes.append(error)
        spent += time.perf_counter() - begin
        failures += sum(check_outcome(outcome, at + i, MIX[(at + i) % 3]) for i, outcome in enumerate(outcomes))
    expect(failures, size["jobs"] // 100, "failures")
    return {"rate": size["jobs"] / spent}


def mixed_map(pool, size, _workers):
    warm_up(pool)
    records = [record(i) for i in range(size["items"])]
    begin = time.perf_counter()
    outcomes = list(pool.map(tasks.reprice_settled, records, size["chunk"]))
    rate = size["items"] / (time.perf_counter() - begin)
    expect(len(outcomes), size["items"], "outcomes")
    expect(sum(check_outcome(outcome, i, tasks.reprice) for i, outcome in enumerate(outcomes)), size["items"] // 100, "failures")
    return {"rate": rate}


def check_outcome(outcome, i, task):
    if isinstance(outcome, ValueError):
        expect(i % 100, 7, f"record {i} was refused, and id % 100")
        expect(str(outcome), f"Record {i} is refused", "message")
        return 1
    expect(outcome, task(record(i)), f"record {i}")
    return 0


def record(i):
    return {"id": i, "name": f"Customer {i}", "email": f"customer.{i}@example.org", "city": "Reykjavik", "tags": ["new", "north", "paper"],
            "prices": [i, 20.5, 31.25]}


def fairness(pool, size, workers):
    pool.calls(tasks.hold, [(i, size["short"]) for i in range(size["warmUp"])])
    before = size["before"]
    wait = idle = 0
    for _ in range(size["bursts"]):
        jobs = [(i, size["long"] if i == before else size["short"]) for i in range(before + 1 + size["after"])]
        begin = time.monotonic() * 1000
        spans = pool.calls(tasks.hold, jobs)
        for i, span in enumerate(spans):
            expect(span[0], i, "job")
        starts = [start for i, start, _ in spans if i != before]
        wait = max(wait, max(starts) - begin)
        idle = max(idle, longest_idle_wait(begin, [(start, end) for _, start, end in spans], max(starts), workers))
    return {"wait": wait, "idle": idle}


def longest_idle_wait(begin, spans, last, workers):
    """The longest stretch of time in which a worker was idle although a job waited: as in drive.mjs."""
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    running, idle_since, longest = 0, begin, 0
    for at, by in changes:
        if at > last:
            break
        if running < workers <= running + by:
            longest = max(longest, at - idle_since)
        if running + by < workers <= running:
            idle_since = at
        running += by
    return max(longest, last - idle_since) if running < workers else longest


def hand_over(pool, size, _workers):
    warm_up(pool)
    delays = []
    jobs = size["jobs"]
    complete = Event()

    def arrived(span):
        delays.append(time.monotonic() * 1000 - span[2])
        if len(delays) == jobs:
            complete.set()

    for i in range(jobs):
        pool.call(tasks.hold, (i, (1, 5, 20)[i % 3]), arrived)
    complete.wait()
    delays.sort()
    return {"median": percentile(delays, 0.5), "p99": percentile(delays, 0.99)}


def warm_up(pool):
    pool.calls(tasks.increment, range(1000))


def percentile(ordered, part):
    return ordered[math.ceil(len(ordered) * part) - 1]


DRIVES = {"calls": calls, "roundTrip": round_trip, "map": mapped, "copy": copy, "compute": compute, "prepared": prepared, "coldStart": cold_start, "mixed": mixed,
          "mixedMap": mixed_map, "fairness": fairness, "handOver": hand_over}
