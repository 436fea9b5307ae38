"""concurrent.futures: submit for calls, map in chunks for inputs; in the variant "batch", calls go by map in chunks of 100."""

from concurrent.futures import ProcessPoolExecutor

BATCH = 100


class Contender:
    def __init__(self, workers, variant):
        self.executor = ProcessPoolExecutor(workers)
        self.batch = variant == "batch"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.executor.shutdown()

    def call(self, task, arg, arrived=None):
        future = self.executor.submit(task, arg)
        if arrived is not None:
            future.add_done_callback(lambda future: arrived(future.result()))
        return future

    def calls(self, task, args):
        if self.batch:
            return list(self.executor.map(task, args, chunksize=BATCH))
        return [future.result() for future in [self.executor.submit(task, arg) for arg in args]]

    def map(self, task, items, chunk):
        return self.executor.map(task, items, chunksize=chunk)
