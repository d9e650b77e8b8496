"""`Pool.share`."""

import array
import gc
import os
import signal
import time

import numpy
import pytest

import farpool
from farpool import Pool


class Point:
    def __init__(self, x):
        self.x = x


def total(values, start):
    return int(values[start:].sum())


def test_arrays_lie_in_shared_memory(pool):
    values = numpy.arange(1_000_000)
    shared = pool.share(values)
    assert pool.starmap(total, [(shared, start) for start in range(0, 1000, 100)]) == [
        total(values, start) for start in range(0, 1000, 100)
    ]

    def describe(values):
        with open("/proc/self/maps") as maps:
            mapped = [line for line in maps if "memfd:farpool-shared" in line]
        return values.flags.writeable, values.ctypes.data % 64, len(mapped)

    assert pool.apply(describe, (shared,)) == (False, 0, 1)

    def write(values):
        values[0] = 1

    with pytest.raises(ValueError, match="read-only"):
        pool.apply(write, (shared,))


def test_a_value_is_unpickled_once_a_worker(pool):
    class Loaded:
        def __init__(self):
            self.count = 0

        def __setstate__(self, state):
            self.__dict__.update(state)
            self.count += 1

    def look(value, item):
        value.count += 1
        return value.count, os.getpid()

    shared = pool.share(Loaded())
    found = pool.starmap(look, [(shared, item) for item in range(100)], chunksize=1)
    last = {}
    for count, pid in found:
        last[pid] = max(count, last.get(pid, 0))
    # Each worker has one object, on which its items count from 2.
    assert sum(last.values()) == 100 + len(last)


def test_values_of_all_kinds(pool):
    kinds = [None, 7, "text", b"bytes", [1, [2]], {"a": (1, 2)}, array.array("d", [1.5]), numpy.zeros(0), Point(3)]
    for value in kinds:
        shared = pool.share(value)

        def same(found, sent=repr(value)):
            return type(found).__name__ == "Point" and found.x == 3 or repr(found) == sent

        assert pool.apply(same, (shared,))
        # Inside others, in functions, and by name.
        assert pool.map(lambda item: same(item["value"]), [{"value": shared}]) == [True]
        assert pool.map(lambda item: same(shared), [0]) == [True]
        assert pool.apply(same, (), {"found": shared})


def test_instances_of_the_callers_class(pool):
    shared = pool.share([Point(1), Point(2)])

    def add(points, other):
        assert all(isinstance(point, Point) for point in points)
        return Point(sum(point.x for point in points) + other.x)

    result = pool.apply(add, (shared, Point(4)))
    assert isinstance(result, Point) and result.x == 7


def test_it_outlives_its_handle_for_calls_that_were_begun(pool):
    def slow(values, start):
        time.sleep(0.005)
        return int(values[start])

    shared = pool.share(numpy.arange(100))
    results = pool.starmap_async(slow, [(shared, start) for start in range(100)], chunksize=1)
    del shared
    gc.collect()
    assert results.get(30) == list(range(100))

    def mapped():
        with open("/proc/self/maps") as maps:
            return sum("memfd:farpool-shared" in line for line in maps)

    until = time.monotonic() + 10
    while pool.apply(mapped) + pool.apply(mapped):
        assert time.monotonic() < until, "it is not freed"


def test_it_reaches_workers_that_start_later(pool):
    shared = pool.share(numpy.arange(10))

    def die(values):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(farpool.WorkerDied):
        pool.apply(die, (shared,), retries=1)
    assert pool.starmap(total, [(shared, 8)] * 4) == [17] * 4


def test_it_belongs_to_its_pool(address, pool):
    with Pool(1, address=address) as other:
        shared = other.share(numpy.arange(10))
        with pytest.raises(LookupError, match="belongs to another pool"):
            pool.apply(total, (shared, 0))
        assert other.apply(total, (shared, 0)) == 45
    with pytest.raises(ValueError, match="Pool not running"):
        other.share(1)


def test_what_cannot_be_pickled_is_an_error(pool):
    with pytest.raises(TypeError, match="cannot pickle"):
        pool.share([iter(()), (value for value in ())])
    assert pool.apply(abs, (-1,)) == 1


def test_globals_are_those_of_the_call(address, run_script):
    # A shared value brings globals of the time when it was shared.
    program = f"""
        from farpool import Pool

        class Model:
            def limit(self):
                return LIMIT

        def exceeds(model, number):
            return number > LIMIT, model.limit()

        LIMIT = 1
        with Pool(1, address={address!r}) as pool:
            pool.starmap(exceeds, [(Model(), 0)])
            model = pool.share(Model())
            LIMIT = 5
            print(pool.starmap(exceeds, [(model, 3), (model, 7)]))
            print(pool.starmap(exceeds, [(model, 3), (model, 7)]))
    """
    assert run_script(program) == "[(False, 5), (True, 5)]\n" * 2


@pytest.mark.cluster
def test_the_input_of_a_detached_job_may_use_it(cluster):
    with Pool(1, address=cluster) as pool:
        shared = pool.share(numpy.arange(10))
        inputs = (pool.apply(total, (shared, start)) for start in range(3))
        assert pool.detach("shared-input").map(abs, inputs).get() == [45, 45, 44]


@pytest.mark.cluster
def test_detached_jobs_cannot_use_it(cluster):
    with Pool(1, address=cluster) as pool:
        shared = pool.share(numpy.arange(10))
        with pytest.raises(ValueError, match="a detached job cannot use a shared value"):
            pool.detach("shared").starmap(total, [(shared, 0)])
        with pytest.raises(ValueError, match="a detached job cannot use a shared value"):
            pool.detach("shared").map(lambda start: total(shared, start), [0])
        assert pool.apply(total, (shared, 0)) == 45
