"""Jobs that the coordinator keeps."""

import dataclasses
import datetime
import itertools
import time

import pytest

import farpool
from farpool import Pool

pytestmark = pytest.mark.cluster
names = (f"job-{number}" for number in itertools.count())


@pytest.fixture
def pool(cluster):
    with Pool(2, address=cluster) as pool:
        yield pool


@dataclasses.dataclass
class Point:
    x: int


def square(n):
    return n * n


def fail_odd(n):
    if n % 2:
        raise KeyError(n)
    return n


def sleep(seconds):
    time.sleep(seconds)


def test_a_job_is_read_again_and_again(pool, cluster):
    name = next(names)
    job = pool.detach(name).map(square, range(5000))
    assert job.name == name and name in repr(job)
    assert job.get() == [n * n for n in range(5000)]
    again = farpool.attach(name, cluster)
    assert list(again) == job.get()
    status = again.status()
    assert (status.state, status.items, status.done, status.failed) == ("finished", 5000, 5000, 0)
    assert status.detached_at <= status.ended_at < status.expires_at
    assert abs(status.ended_at - datetime.datetime.now(datetime.timezone.utc)) < datetime.timedelta(minutes=1)
    again.discard()
    with pytest.raises(ValueError, match=name):
        farpool.attach(name, cluster)
    with pytest.raises(ValueError, match=name):
        job.get()


def test_all_verbs_options_and_values(pool):
    assert pool.detach(next(names)).starmap(pow, [(2, 10), (3, 4)], 1).get() == [1024, 81]
    assert pool.detach(next(names)).apply(dict, ([("a", 1)],), {"b": 2}, retries=0).get() == [{"a": 1, "b": 2}]
    assert pool.detach(next(names)).map(square, []).get() == []
    factor = 3
    assert pool.detach(next(names)).map(lambda n: factor * n, iter([1, 2])).get() == [3, 6]
    large = [bytes([n]) * (1 << 20) for n in range(5)]
    assert pool.detach(next(names)).map(len, large, timeout=60, priority=3).get() == [1 << 20] * 5
    with pytest.raises(ValueError, match="label"):
        pool.detach(next(names)).map(square, [1], require={"x" * 500: "y"})


def test_another_process_reads_it(pool, cluster, run_script):
    name = next(names)
    pool.detach(name).map(fail_odd, range(4))
    printed = run_script(
        f"""
        import farpool
        outcomes = iter(farpool.attach({name!r}))
        while True:
            try:
                print(next(outcomes))
            except KeyError as error:
                print("failed", error)
            except StopIteration:
                break
        """,
        FARPOOL_ADDRESS=cluster,
    )
    assert printed == "0\nfailed 1\n2\nfailed 3\n"


def test_a_class_of_the_script_needs_the_script(cluster, run_script):
    name = next(names)
    text = f"""
        import farpool

        class Point:
            def __init__(self, x):
                self.x = x

        if {{}}:
            with farpool.Pool(1) as pool:
                pool.detach({name!r}).map(Point, range(3))
        print([point.x for point in farpool.attach({name!r}).get()])
    """
    assert run_script(text.format(True), FARPOOL_ADDRESS=cluster) == "[0, 1, 2]\n"
    assert run_script(text.format(False), FARPOOL_ADDRESS=cluster) == "[0, 1, 2]\n"


def test_the_exception_of_the_first_failed_item_is_raised_at_the_end(pool):
    job = pool.detach(next(names)).map(fail_odd, range(10))
    with pytest.raises(KeyError) as raised:
        job.get()
    assert raised.value.args == (1,) and "fail_odd" in str(raised.value.__cause__)
    assert job.status().failed == 5


def test_a_cancelled_job_keeps_its_outcomes(pool):
    job = pool.detach(next(names)).map(sleep, [0, 300, 300], 1)
    outcomes = iter(job)
    assert next(outcomes) is None
    job.cancel()
    with pytest.raises(farpool.Cancelled):
        next(outcomes)
    with pytest.raises(StopIteration):
        next(outcomes)
    with pytest.raises(farpool.Cancelled):
        job.get()
    assert job.status().state == "cancelled"


def test_nothing_is_kept_after_an_exception(pool, cluster):
    def numbers():
        yield from range(10)
        raise OSError("the input broke")

    name = next(names)
    with pytest.raises(OSError, match="the input broke"):
        pool.detach(name).map(square, numbers())
    with pytest.raises(TypeError, match="pickle"):
        pool.detach(name).map(square, [1, (n for n in "x")])
    with pytest.raises(ValueError, match=name):
        farpool.attach(name, cluster)
    # The name is free.
    assert pool.detach(name).map(square, [3]).get() == [9]
    with pytest.raises(ValueError, match=name):
        pool.detach(name).map(square, [3])


def test_ctrl_c_ends_a_wait(pool, interrupted):
    job = pool.detach(next(names)).map(sleep, [300])
    for wait in (job.get, lambda: next(iter(job))):
        with interrupted():
            wait()
    job.cancel()


def test_ctrl_c_withdraws_a_job_that_is_handed_over(pool, cluster, interrupted):
    name = next(names)
    with interrupted():
        pool.detach(name).map(square, itertools.count())
    deadline = time.monotonic() + 30
    while True:
        try:
            farpool.attach(name, cluster)
        except ValueError:
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_jobs_of_other_languages_are_refused(cluster, pool):
    with pytest.raises(ValueError, match="FARPOOL_ADDRESS"):
        farpool.attach("nightly")
    with pytest.raises(ValueError, match="closed|not running"):
        pool.close()
        pool.detach("late").map(square, [1])


def test_a_pool_on_this_machine_has_no_coordinator():
    with Pool(1, address="local") as pool, pytest.raises(ValueError, match="FARPOOL_ADDRESS"):
        pool.detach("nightly").map(square, [1])
