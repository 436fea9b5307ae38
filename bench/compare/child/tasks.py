"""The tasks of tasks.mjs, in Python."""

import time


def increment(x):
    return x + 1


def increment_all(xs):
    return [x + 1 for x in xs]


def stamp_bytes(data):
    return bytes([data[0] + 1]) + data[1:]


def compute(work):
    seed, iterations = work
    x = seed
    for _ in range(iterations):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
    return x


def hold(work):
    """Holds its worker for so many milliseconds, and tells when it did: in milliseconds on a clock that all processes share."""
    job, ms = work
    begin = time.monotonic()
    time.sleep(ms / 1000)
    return job, begin * 1000, time.monotonic() * 1000


def refuse(record):
    if record["id"] % 100 == 7:
        raise ValueError(f"Record {record['id']} is refused")


def anonymise(record):
    refuse(record)
    return {**record, "name": "anonymous", "email": ""}


def reprice(record):
    refuse(record)
    return {**record, "prices": [price * 2 for price in record["prices"]]}


def retag(record):
    refuse(record)
    return {**record, "tags": [tag.upper() for tag in record["tags"]]}


def reprice_settled(record):
    """What a chunk needs so that one failure does not cost it all."""
    try:
        return reprice(record)
    except ValueError as error:
        return error
