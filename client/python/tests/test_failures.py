"""Failures, and the exceptions that the caller gets."""

import multiprocessing
import os
import pickle
import signal
import sys
import time

import pytest

import farpool
from farpool import Pool


def fails(n):
    raise ValueError(f"no {n}")  # it fails here


def test_exceptions_have_their_type_and_traceback(pool):
    with pytest.raises(ValueError, match="no 3") as caught:
        pool.map(fails, [3, 4])
    cause = caught.value.__cause__
    assert type(cause) is multiprocessing.pool.RemoteTraceback
    assert "raise ValueError" in cause.tb and "test_failures.py" in cause.tb


def test_all_items_run_and_the_first_error_counts(pool, tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        pool.map(mark_or_fail, [(str(tmp_path / str(n)), n) for n in range(20)], chunksize=1)
    assert caught.value.args == (5,)
    assert len(os.listdir(tmp_path)) == 18


def mark_or_fail(item):
    path, n = item
    if n in (5, 11):
        raise ZeroDivisionError(n)
    open(path, "w").close()


def test_imap_continues_after_an_error(pool):
    results = pool.imap(int, ["1", "x", "3"])
    assert next(results) == 1
    with pytest.raises(ValueError):
        next(results)
    assert list(results) == [3]


class Sour(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, a, b):
        super().__init__(a)


class Bitter(Exception):
    def __reduce__(self):
        raise RuntimeError("not this one")


def raises(kind, *args):
    raise kind(*args)


def test_exceptions_that_cannot_be_pickled(pool):
    with pytest.raises(farpool.Error, match="Sour.*could not be unpickled") as caught:
        pool.apply(raises, (Sour, 1, 2))
    assert "raise kind" in caught.value.__cause__.tb
    with pytest.raises(multiprocessing.pool.MaybeEncodingError, match="not this one"):
        pool.apply(raises, (Bitter,))


def test_results_that_cannot_be_pickled(pool):
    with pytest.raises(multiprocessing.pool.MaybeEncodingError, match="lambda"):
        pool.apply(unpicklable)
    with pytest.raises(farpool.Error, match="could not be unpickled"):
        pool.apply(make_poison)
    assert pool.apply(abs, (-1,)) == 1


def unpicklable():
    return lambda: 42


class Poison:
    def __reduce__(self):
        return raises, (KeyError, "poison")


def make_poison():
    return Poison()


def test_arguments_that_cannot_be_pickled(pool):
    with pytest.raises(Exception, match="lambda|pickle"):
        pool.map(abs, [1, open(os.devnull)])
    with pytest.raises(KeyError, match="poison"):
        pool.map(type, [1, Poison()])
    assert pool.map(abs, [-1]) == [1]


def test_tasks_that_exit(pool):
    for leave in (SystemExit, KeyboardInterrupt):
        with pytest.raises(farpool.Error, match=f"the task raised {leave.__name__}"):
            pool.apply(raises, (leave, 3))
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(pool.imap(stops, [1]))


def stops(n):
    raise StopIteration(n)


def test_a_worker_that_dies(pool):
    with pytest.raises(farpool.WorkerDied) as caught:
        pool.map(die_if_odd, [0, 2, 3, 4], retries=1)
    error = caught.value
    assert (error.item, error.attempts, error.exitcode) == (2, 2, -signal.SIGKILL)
    assert error.pid and error.host and "last words" in error.stderr
    assert pool.map(die_if_odd, [0, 2]) == [0, 2]
    results = []
    outcomes = pool.imap(die_if_odd, range(10), retries=0)
    for _ in range(10):
        try:
            results.append(next(outcomes))
        except farpool.WorkerDied as error:
            results.append(error.item)
    assert results == list(range(10))


def die_if_odd(n):
    if n % 2:
        print("last words", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def test_exits(pool):
    with pytest.raises(farpool.WorkerDied) as caught:
        pool.apply(os._exit, (7,), retries=0)
    assert caught.value.exitcode == 7
    assert pool.apply(abs, (-1,)) == 1


def test_an_item_is_retried(pool, tmp_path):
    assert pool.map(die_once, [str(tmp_path / "died"), str(tmp_path)]) == [True, True]


def die_once(path):
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGSEGV)
    return True


def test_a_timeout_ends_that_item_alone(pool):
    begin = time.monotonic()
    results = pool.imap(time.sleep, [0, 100, 0], timeout=0.3)
    assert next(results) is None
    with pytest.raises(farpool.TimedOut) as caught:
        next(results)
    assert isinstance(caught.value, multiprocessing.TimeoutError) and caught.value.item == 1
    assert next(results) is None
    assert time.monotonic() - begin < 10


def test_a_failing_initializer(address):
    with Pool(2, raises, (ValueError, "broken"), address=address) as pool:
        with pytest.raises(farpool.InitializerFailed, match="ValueError.*broken"):
            pool.map(abs, [1])


def test_payloads_that_are_too_large(monkeypatch, address):
    open = farpool._farpool.open
    monkeypatch.setattr(farpool._farpool, "open", lambda **options: open(payload_limit=1000, **options))
    with Pool(1, address=address) as pool:
        for call in (lambda: pool.apply(bytes, (2000,)), lambda: pool.map(len, [bytes(2000)])):
            with pytest.raises(farpool.PayloadTooLarge, match="bytes.*limit is 1000.*split it") as caught:
                call()
            assert "payload_limit" not in str(caught.value)


def test_errors_of_farpool_can_be_pickled():
    error = farpool.WorkerDied("gone")
    error.item, error.exitcode = 3, -9
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is farpool.WorkerDied and (again.item, again.exitcode, str(again)) == (3, -9, "gone")


def test_no_coordinator():
    with pytest.raises(farpool.Unavailable, match="is farpool-coordinator running there"):
        Pool(address="http://127.0.0.1:1")


CTRL_C = """
    import os, signal, threading, time
    from farpool import Pool

    def nap(seconds):
        time.sleep(seconds)
        return seconds

    def interrupted(call):
        sent = []

        def interrupt():
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        threading.Timer(0.2, interrupt).start()
        try:
            call()
        except KeyboardInterrupt:
            return time.monotonic() - sent[0]
        raise AssertionError("it was not interrupted")

    def main():
        with Pool(2) as pool:
            pool.map(nap, [0, 0])
            calls = {calls}
            for call in calls:
                # One of the tries may be slow because the machine is busy.
                took = min(interrupted(call) for _ in range(3))
                assert took < 0.2, took
                print("interrupted")
            print(pool.map(nap, [0, 0.01]))

    main()
"""


def test_ctrl_c(run_script, address):
    calls = """[
                lambda: pool.map(nap, [20, 20]),
                lambda: pool.apply(nap, (20,)),
                lambda: pool.apply_async(nap, (2,)).get(),
                lambda: next(pool.imap(nap, [2])),
            ]"""
    printed = run_script(CTRL_C.replace("{calls}", calls), FARPOOL_ADDRESS=address)
    assert printed == "interrupted\n" * 4 + "[0, 0.01]\n"


class Interrupting:
    """Raises KeyboardInterrupt in this process, once: when it is pickled or when it is unpickled."""

    left = 0

    def __init__(self, at, pid):
        self.at, self.pid = at, pid

    def __reduce__(self):
        interrupt_once(self.at, "pickling", self.pid)
        return remade, (self.at, self.pid)


def remade(at, pid):
    interrupt_once(at, "unpickling", pid)
    return Interrupting(at, pid)


def interrupt_once(at, now, pid):
    if at == now and pid == os.getpid() and Interrupting.left:
        Interrupting.left -= 1
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interrupting():
    def make(at):
        Interrupting.left = 1
        return Interrupting(at, os.getpid())

    yield make
    assert Interrupting.left == 0


def touch_slowly(path, _):
    time.sleep(0.05)
    open(path, "w").close()


def test_ctrl_c_while_arguments_are_pickled(pool, interrupting, tmp_path):
    for call in (pool.starmap, lambda f, items: pool.starmap_async(f, items).get(30)):
        first = [(str(tmp_path / str(n)), None) for n in range(100)]
        with pytest.raises(KeyboardInterrupt):
            call(touch_slowly, [*first, ("", interrupting("pickling"))])
    with pytest.raises(KeyboardInterrupt):
        pool.apply(type, (interrupting("pickling"),))
    assert pool.apply(abs, (-1,)) == 1
    assert len(os.listdir(tmp_path)) < 90, "the jobs were not cancelled"


def test_ctrl_c_while_results_are_unpickled(pool, interrupting):
    for call in (pool.map, lambda f, items: pool.apply(f, items)):
        with pytest.raises(KeyboardInterrupt):
            call(returned, [interrupting("unpickling")])
    result = pool.map_async(returned, [interrupting("unpickling")])
    with pytest.raises(KeyboardInterrupt):
        result.get(30)
    assert result.get(30)[0].at == "unpickling", "the result is lost"
    results = pool.imap(returned, [Interrupting("", 0), interrupting("unpickling"), Interrupting("", 1)])
    assert next(results).pid == 0
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert [each.pid for each in results] == [os.getpid(), 1]


def returned(value):
    return value


def test_what_unpickling_raises_on_the_thread_of_callbacks_fails_the_result(pool):
    seen = []
    result = pool.apply_async(make_leaving, error_callback=seen.append)
    result.wait(30)
    assert "could not be unpickled" in str(seen[0])


class Leaving:
    def __reduce__(self):
        return raises, (SystemExit,)


def make_leaving():
    return Leaving()
