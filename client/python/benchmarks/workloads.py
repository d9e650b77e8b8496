"""The workloads. As a script it runs one of them, with one side, for each line of its input; see compare.py."""

import gc
import importlib.util
import itertools
import json
import math
import os
import random
import statistics
import sys
import time


class Workload:
    """What is measured. `measures`: names and units. `fresh`: each run is a new process. `awake`: cores are kept busy."""

    def __init__(self, run, measures, workers=2, fresh=False, awake=False):
        self.run, self.measures, self.workers, self.fresh, self.awake = run, measures, workers, fresh, awake


class Point:
    """A class of `__main__`."""

    def __init__(self, x, y):
        self.x, self.y = x, y


def identity(item):
    return item


def length(item):
    return len(item)


def row_sum(array, row):
    return float(array[row].sum())


def total(array):
    return float(array.sum())


def mebibyte(number):
    return bytes(1 << 20)


def array_of_a_mebibyte(number):
    import numpy

    return numpy.full(1 << 17, float(number))


def nap(seconds):
    time.sleep(seconds)
    return seconds


def die_at_50(number):
    if number == 50:
        os.kill(os.getpid(), 9)
    return number


def tiny(side):
    numbers = list(range(20_000))
    began = time.perf_counter()
    assert sum(side.imap1(identity, numbers)) == sum(numbers)
    return [len(numbers) / (time.perf_counter() - began)]


def many(items):
    def run(side):
        given = items()
        began = time.perf_counter()
        results = side.map(identity, given)
        took = time.perf_counter() - began
        assert len(results) == len(given)
        return [len(given) / took]

    return run


def shared(side):
    import numpy

    array = numpy.ones((1000, 131))
    items = [(array, row) for row in range(1000)]
    began = time.perf_counter()
    assert side.starmap(row_sum, items) == [131.0] * 1000
    return [(time.perf_counter() - began) * 1e3]


def one_by_one(side):
    times = []
    for _ in range(2000):
        began = time.perf_counter()
        side.apply(identity, 1)
        times.append((time.perf_counter() - began) * 1e6)
    times.sort()
    return [times[1000], times[1980]]


def pools(function):
    def run(side):
        """A pool from its start to its end: the first of this process, and the median of five more."""
        took = []
        for _ in range(6):
            began = time.perf_counter()
            side.start(4)
            assert side.map(function, list(range(1, 101)))[-1]
            side.close()
            took.append((time.perf_counter() - began) * 1e3)
        return [took[0], statistics.median(took[1:])]

    return run


def large(function, items, is_right):
    def run(side):
        given = items()
        began = time.perf_counter()
        count = sum(1 for result in side.imap1(function, given) if is_right(result))
        assert count == 200
        return [200 / (time.perf_counter() - began)]

    return run


def arrays():
    import numpy

    return [numpy.full(1 << 17, float(number)) for number in range(200)]


def sleeps(side):
    draw = random.Random(20240607)
    seconds = sorted(0.005 / 3 * draw.paretovariate(1.5) for _ in range(400))
    began = time.perf_counter()
    side.map(nap, seconds)
    return [(time.perf_counter() - began) * 1e3]


def death(side):
    """A worker is killed: how long until the caller has an exception."""
    import threading

    ended = []

    def call():
        began = time.perf_counter()
        try:
            side.map1(die_at_50, list(range(100)))
        except Exception as error:
            ended.append(((time.perf_counter() - began) * 1e3, type(error).__name__))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    return [ended[0][0]] if ended else "hangs"


def first_result(side):
    side.start(2)
    side.apply(identity, 1)
    return [(time.monotonic() - float(os.environ["BENCHMARK_START"])) * 1e3]


def pulled(side):
    count = itertools.count()
    results = iter(side.imap_lazy(identity, (next(count) for _ in range(1_000_000))))
    assert list(itertools.islice(results, 10))
    time.sleep(1)
    return [next(count)]


def million(make):
    return many(lambda: [make(number) for number in range(1_000_000)])


def thousands(make):
    return many(lambda: [make(number) for number in range(200_000)])


def is_long(result):
    return len(result) == 1 << 20


ALL = {
    "W1": Workload(tiny, [("20,000 items, one a chunk", "items/s")]),
    "W2": Workload(million(identity), [("map of 1,000,000 int", "items/s")]),
    "W2t": Workload(thousands(lambda n: (n, str(n))), [("map of tuples", "items/s")]),
    "W2d": Workload(thousands(lambda n: {"x": n, "y": "z"}), [("map of dicts", "items/s")]),
    "W2m": Workload(thousands(lambda n: Point(n, 2 * n)), [("map of instances of a class of the script", "items/s")]),
    "W2s": Workload(shared, [("starmap with the same 1 MiB array in 1,000 items", "ms")]),
    "W3": Workload(one_by_one, [("apply, p50", "us"), ("apply, p99", "us")]),
    "W3awake": Workload(one_by_one, [("apply, p50, cores kept awake", "us"), ("p99", "us")], awake=True),
    "W4": Workload(pools(math.factorial), [("first pool", "ms"), ("later pools", "ms")], workers=0, fresh=True),
    "W4m": Workload(
        pools(identity),
        [("first pool, function of the script", "ms"), ("later pools", "ms")],
        workers=0,
        fresh=True,
    ),
    "W5a": Workload(large(length, lambda: [os.urandom(1 << 20) for _ in range(200)], (1 << 20).__eq__), [("bytes in", "MiB/s")]),
    "W5r": Workload(large(mebibyte, lambda: list(range(200)), is_long), [("bytes out", "MiB/s")]),
    "W5n": Workload(large(total, arrays, lambda result: True), [("NumPy in", "MiB/s")]),
    "W5nr": Workload(large(array_of_a_mebibyte, lambda: list(range(200)), lambda result: len(result) == 1 << 17), [("NumPy out", "MiB/s")]),
    "W6s": Workload(sleeps, [("400 Pareto sleeps, longest last", "ms")], workers=8),
    "W7": Workload(death, [("a worker is killed: until the exception", "ms")], fresh=True),
    "W8": Workload(first_result, [("process start to first result", "ms")], workers=0, fresh=True),
    "W9": Workload(pulled, [("pulled for 10 results", "items")], fresh=True),
}


def load(side):
    if os.sep in side:
        spec = importlib.util.spec_from_file_location("peer", side)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Peer()
    import sides

    return getattr(sides, side)()


def main():
    workload, side = ALL[sys.argv[1]], load(sys.argv[2])
    # Answers only: whatever workers print goes elsewhere.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if workload.workers:
        side.start(workload.workers)
        side.map1(nap, [0.01] * 4 * workload.workers)
        list(side.imap1(identity, list(range(200))))
        if not workload.fresh:
            workload.run(side)
    for _ in sys.stdin:
        print(json.dumps(workload.run(side)), file=answers, flush=True)
        gc.collect()
    end(side)


def end(side):
    """Ends the pool and this process, also if the pool hangs."""
    import multiprocessing
    import threading

    stop = threading.Thread(target=side.stop, daemon=True)
    stop.start()
    stop.join(5)
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
