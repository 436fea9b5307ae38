"""What a batch is compared with: ProcessPoolExecutor.map of CPython. Prints records and seconds."""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice


def area(line):
    record = json.loads(line)
    return json.dumps({"id": record["id"], "area": (record["x"] * record["y"]) % 9973}, separators=(",", ":"))


def main():
    path, output, chunk, workers, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    begin = time.perf_counter()
    records = 0
    with open(path) as source, open(output, "w") as target, ProcessPoolExecutor(workers) as pool:
        # `map` reads all of its input at once, so it is given a part of it at a time.
        left = limit
        while batch := list(islice(source, min(left, 1_000_000))):
            for result in pool.map(area, batch, chunksize=chunk):
                target.write(result + "\n")
                records += 1
            left -= len(batch)
    print(json.dumps({"records": records, "seconds": time.perf_counter() - begin}))


if __name__ == "__main__":
    main()
