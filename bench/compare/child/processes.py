"""multiprocessing.Pool: apply_async for calls, imap in chunks for inputs; in the variant "batch", calls go by map in chunks of 100."""

from multiprocessing import Pool

BATCH = 100


class Contender:
    def __init__(self, workers, variant):
        self.pool = Pool(workers)
        self.batch = variant == "batch"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.close()
        self.pool.join()

    def call(self, task, arg, arrived=None):
        return Call(self.pool.apply_async(task, (arg,), callback=arrived))

    def calls(self, task, args):
        if self.batch:
            return self.pool.map(task, args, chunksize=BATCH)
        return [call.result() for call in [self.call(task, arg) for arg in args]]

    def map(self, task, items, chunk):
        return self.pool.imap(task, items, chunksize=chunk)


class Call:
    def __init__(self, pending):
        self.result = pending.get
