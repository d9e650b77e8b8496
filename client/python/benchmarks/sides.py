"""The pools that are compared: each has the same methods."""


class farpool:
    def __init__(self):
        from farpool import Pool

        self.new = Pool

    def start(self, workers, **options):
        self.pool = self.new(workers, **options)

    def stop(self):
        self.pool.terminate()
        self.pool.join()

    def close(self):
        self.pool.close()
        self.pool.join()

    def apply(self, function, item):
        return self.pool.apply(function, (item,))

    def map(self, function, items):
        return self.pool.map(function, items)

    def starmap(self, function, items):
        return self.pool.starmap(function, items)

    def map1(self, function, items):
        """One item a chunk."""
        return self.pool.map(function, items, 1)

    def imap1(self, function, items):
        """One item a chunk, in the order in which they end."""
        return self.pool.imap_unordered(function, items, 1)

    def imap_lazy(self, function, items):
        return self.pool.imap(function, items)


class multiprocessing(farpool):
    def __init__(self):
        from multiprocessing import get_context

        self.new = get_context("fork").Pool


class executor:
    def start(self, workers):
        from concurrent.futures import ProcessPoolExecutor

        self.pool, self.workers = ProcessPoolExecutor(workers), workers

    def stop(self):
        self.pool.shutdown(wait=True, cancel_futures=True)

    close = stop

    def apply(self, function, item):
        return self.pool.submit(function, item).result()

    def map(self, function, items):
        # Its own chunks have one item, which would take minutes.
        chunk = max(1, len(items) // (4 * self.workers))
        return list(self.pool.map(function, items, chunksize=chunk))

    def starmap(self, function, items):
        chunk = max(1, len(items) // (4 * self.workers))
        return list(self.pool.map(function, *zip(*items), chunksize=chunk))

    def map1(self, function, items):
        return list(self.pool.map(function, items))

    def imap1(self, function, items):
        return self.pool.map(function, items)

    imap_lazy = imap1


class joblib:
    def start(self, workers):
        self.workers = workers

    def stop(self):
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)

    close = stop

    def _run(self, function, items, **options):
        from joblib import Parallel, delayed

        return Parallel(self.workers, **options)(delayed(function)(item) for item in items)

    def apply(self, function, item):
        return self._run(function, [item])[0]

    def map(self, function, items):
        return self._run(function, items)

    def starmap(self, function, items):
        from joblib import Parallel, delayed

        return Parallel(self.workers)(delayed(function)(*item) for item in items)

    def map1(self, function, items):
        return self._run(function, items, batch_size=1)

    def imap1(self, function, items):
        return self._run(function, items, batch_size=1, return_as="generator_unordered")

    def imap_lazy(self, function, items):
        return self._run(function, items, return_as="generator")
