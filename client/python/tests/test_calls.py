"""Every call, with its results."""

import itertools
import operator
import os
import threading
import time

import pytest

import farpool
from farpool import Pool


def square(n):
    return n * n


def add(a, b=1, *, c=0):
    return a + b + c


def test_map(pool):
    assert pool.map(square, range(10)) == [n * n for n in range(10)]
    assert pool.map(square, []) == []
    assert pool.map(square, (n for n in range(100)), chunksize=7) == [n * n for n in range(100)]
    assert pool.map(str, [1, None, "x"]) == ["1", "None", "x"]


def test_many_items(pool):
    assert pool.map(square, range(20_000)) == [n * n for n in range(20_000)]


def test_starmap(pool):
    pairs = list(zip(range(20), range(20, 40)))
    assert pool.starmap(add, pairs) == [a + b for a, b in pairs]
    assert pool.starmap(add, [[1, 2], iter((3, 4)).__reduce__()[1][0]]) == [3, 7]
    assert pool.starmap(operator.mul, pairs, 3) == list(itertools.starmap(operator.mul, pairs))


def test_apply(pool):
    assert pool.apply(add, (1,)) == 2
    assert pool.apply(add, (1, 2), {"c": 3}) == 6
    assert pool.apply(add, [5]) == 6
    assert pool.apply(os.getpid) != os.getpid()


def test_apply_async(pool):
    results = [pool.apply_async(add, (n,), {"b": n}) for n in range(50)]
    assert [result.get() for result in results] == [2 * n for n in range(50)]
    assert results[0].get() == 0, "it may be asked again"
    assert results[0].ready() and results[0].successful()


def test_async_maps(pool):
    assert pool.map_async(square, range(1000)).get(30) == [n * n for n in range(1000)]
    assert pool.starmap_async(add, [(1, 2), (3, 4)]).get(30) == [3, 7]
    assert pool.map_async(square, []).get(30) == []


def test_a_long_input_is_fed_in_the_background(pool):
    data = [b"x" * 10_000] * 20_000
    assert pool.map_async(len, data).get(60) == [10_000] * 20_000


def test_callbacks(pool):
    called = []
    pool.map_async(square, [1, 2], callback=called.append, error_callback=called.append).wait()
    assert called == [[1, 4]]
    failing = pool.apply_async(int, ("x",), callback=called.append, error_callback=called.append)
    failing.wait()
    assert isinstance(called[1], ValueError) and not failing.successful()


def test_a_callback_may_use_the_pool_and_wait(pool):
    inner = []
    first = pool.apply_async(square, (3,), callback=lambda nine: inner.append(pool.apply_async(square, (nine,), callback=inner.append).get()))
    first.get(30)
    assert inner == [81, 81]


def test_a_callback_may_ask_for_its_own_result(pool):
    asked, known = [], threading.Event()

    def ask(_):
        known.wait(30)
        asked.append((first.ready(), first.successful(), first.get(30)))

    first = pool.map_async(square, [3], callback=ask)
    known.set()
    assert first.get(30) == [9] and asked == [(True, True, [9])]


def test_callbacks_that_wait_for_each_other(pool):
    asked, known = [], threading.Event()

    def ask_second(_):
        known.wait(30)
        asked.append(second.get(30))

    first = pool.apply_async(square, (3,), callback=ask_second)
    second = pool.apply_async(square, (4,), callback=lambda _: asked.append(first.get(30)))
    known.set()
    assert first.get(30) == 9 and sorted(asked) == [9, 16]


def raise_odd(number):
    if number % 2:
        raise ValueError(number)
    return number


def test_join_waits_for_callbacks(address):
    called = []

    def slow(value):
        time.sleep(0.02)
        called.append(str(value))

    pool = Pool(2, address=address)
    for number in range(6):
        pool.apply_async(raise_odd, (number,), callback=slow, error_callback=slow)
    pool.close()
    pool.join()
    assert sorted(called) == ["0", "1", "2", "3", "4", "5"]


def test_a_callback_may_join(address):
    pool = Pool(1, address=address)
    joined = []

    def end(_):
        pool.close()
        pool.join()
        joined.append(True)

    pool.apply_async(abs, (1,), callback=end)
    while not joined:
        time.sleep(0.01)
    pool.join()


def test_callbacks_are_told_of_what_was_cancelled_but_not_of_what_was_terminated(address):
    told = []

    def tell(error):
        told.append(type(error))
        if type(error) is ValueError:
            pool.terminate()

    pool = Pool(1, address=address)
    cancelled = pool.apply_async(time.sleep, (300,), callback=tell, error_callback=tell)
    cancelled.cancel()
    cancelled.wait()
    pool.apply_async(raise_odd, (1,), callback=tell, error_callback=tell)
    waiting = [pool.apply_async(time.sleep, (300,), callback=tell, error_callback=tell) for _ in range(3)]
    with pytest.raises(farpool.Cancelled):
        waiting[0].get()
    pool.join()
    assert told == [farpool.Cancelled, ValueError]


def began(number):
    time.sleep(0.02)
    return time.time(), number


def test_calls_run_in_the_order_in_which_they_were_made(address):
    with Pool(1, address=address) as pool:
        results = [pool.apply_async(began, (number,)) for number in range(20)]
        assert [number for _, number in sorted(result.get() for result in results)] == list(range(20))


def test_a_failing_callback_harms_nothing(pool, capfd, monkeypatch):
    import sys

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_value))
    assert pool.apply_async(square, (3,), callback=lambda _: 1 / 0).get(30) == 9
    assert isinstance(seen[0], ZeroDivisionError)
    assert pool.apply(square, (4,)) == 16


def test_imap(pool):
    assert list(pool.imap(square, range(1000))) == [n * n for n in range(1000)]
    assert list(pool.imap(square, range(1000), chunksize=100)) == [n * n for n in range(1000)]
    assert list(pool.imap(square, [])) == []
    assert sorted(pool.imap_unordered(square, range(1000), chunksize=10)) == [n * n for n in range(1000)]


def test_imap_of_an_endless_input(pool):
    pulled = itertools.count()
    results = pool.imap(square, pulled, buffersize=10)
    assert list(itertools.islice(results, 100)) == [n * n for n in range(100)]
    assert next(pulled) <= 115


def test_an_endless_imap_that_is_dropped_stops(address):
    pulled = []

    def endless():
        for n in itertools.count():
            pulled.append(n)
            yield n

    pool = Pool(2, address=address)
    for chunksize in (None, 7):
        results = pool.imap(square, endless(), chunksize)
        assert [next(results) for _ in range(10)] == [n * n for n in range(10)]
        del results
        until, before = time.monotonic() + 10, None
        while before != len(pulled):
            assert time.monotonic() < until
            before = len(pulled)
            time.sleep(0.3)
    # All that was read runs, so this ends.
    pool.close()
    pool.join()


def test_imap_next_with_a_timeout(pool):
    results = pool.imap(time.sleep, [0.5])
    with pytest.raises(farpool.TimeoutError):
        results.next(timeout=0.05)
    assert results.next(timeout=30) is None
    with pytest.raises(StopIteration):
        results.next()


def test_an_imap_that_nobody_reads_runs_to_its_end(address, tmp_path):
    pool = Pool(2, address=address)
    pool.imap(touch, [str(tmp_path / str(n)) for n in range(3000)], buffersize=20)
    kept = pool.imap_unordered(touch, [str(tmp_path / f"kept{n}") for n in range(3000)], buffersize=20)
    pool.close()
    pool.join()
    assert len(os.listdir(tmp_path)) == 6000
    assert len(list(kept)) == 3000


def touch(path):
    open(path, "w").close()


def test_results_wait_with_a_timeout(pool):
    slow = pool.apply_async(time.sleep, (1,))
    begin = time.monotonic()
    with pytest.raises(farpool.TimeoutError):
        slow.get(timeout=0.1)
    assert time.monotonic() - begin >= 0.1
    with pytest.raises(ValueError, match="not ready"):
        slow.successful()
    slow.wait()
    assert slow.get() is None


def test_cancel(pool):
    slow = pool.apply_async(time.sleep, (100,))
    slow.cancel()
    with pytest.raises(farpool.Cancelled):
        slow.get(30)
    assert pool.apply(square, (2,)) == 4


def test_inputs_that_fail(pool):
    def items(count):
        yield from range(count)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        pool.map(square, items(10))
    results = pool.imap(square, items(20), chunksize=4)
    with pytest.raises(LookupError):
        for _ in results:
            pass
    results = pool.imap(square, items(7), chunksize=4)
    assert [next(results) for _ in range(4)] == [0, 1, 4, 9]
    with pytest.raises(LookupError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    with pytest.raises(LookupError):
        pool.map_async(square, items(3)).get(30)


def test_arguments_are_checked(pool):
    with pytest.raises(TypeError):
        pool.map(square, 5)
    with pytest.raises(TypeError):
        pool.map("no function", [1])
    with pytest.raises(ValueError):
        pool.map(square, [1], chunksize=0)
    with pytest.raises(ValueError):
        pool.imap(square, [1], chunksize=5, buffersize=2)
    with pytest.raises(ValueError, match="timeout"):
        pool.apply(square, (1,), timeout=0)
    for retries in (1_000_000, -1, 2**40):
        with pytest.raises(ValueError, match=f"retries must be from 0 to .*, not {retries}"):
            pool.apply(square, (1,), retries=retries)
    with pytest.raises(ValueError, match="priority must be from"):
        pool.apply(square, (1,), priority=2**40)
    with pytest.raises(TypeError):
        pool.apply(square, (1,), retries="2")
    assert pool.map(square, [1, 2], chunksize=2**70, timeout=float("inf")) == [1, 4]
    assert list(pool.imap(square, [1, 2], chunksize=2**70, buffersize=2**70)) == [1, 4]


def test_threads_share_a_pool(pool):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as threads:
        sums = threads.map(lambda n: sum(pool.map(square, range(n))), range(100))
        assert list(sums) == [sum(n * n for n in range(top)) for top in range(100)]


def nap_until(seconds):
    time.sleep(seconds)
    return time.monotonic()


def test_calls_of_high_priority_go_first(address):
    with Pool(1, address=address) as pool:
        pool.apply(nap_until, (0,))
        first = pool.apply_async(nap_until, (0.3,))
        low = pool.map_async(nap_until, [0.01] * 20, chunksize=1, priority=-1)
        high = pool.map_async(nap_until, [0.01] * 20, chunksize=1, priority=1)
        first.get()
        # The worker may have been given a few items before the others came.
        assert max(high.get()) < sorted(low.get())[5]


def test_hosts_without_a_required_label_are_not_used(pool):
    here = {"os": "linux", "host": os.uname().nodename}
    assert pool.map(square, [1, 2], require=here) == [1, 4]
    with pytest.raises(ValueError, match="key of a required label"):
        pool.apply(square, (1,), require={"": "a100"})
    with pytest.raises(TypeError):
        pool.apply(square, (1,), require={"gpus": 2})
    with Pool(1, address="local", require=here) as local:
        assert local.apply(square, (3,)) == 9
        with pytest.raises(ValueError, match="gpu=a100 is required"):
            local.imap(square, [1], require={"gpu": "a100"})
    with pytest.raises(ValueError, match="gpu=a100 is required"):
        Pool(1, address="local", require={"gpu": "a100"})
