"""The process that forks workers is kept for the next pool."""

import os
import resource
import signal
import subprocess
import time

import pytest

from farpool import Pool
from farpool._pool import _Worker


def forker(**options):
    """Opens a pool, and returns the process that forks its workers."""
    with Pool(2, address="local", **options) as pool:
        return pool.apply(os.getppid)


def is_running(pid):
    return _Worker(pid).is_alive()


def wait_until_gone(pid):
    _Worker(pid).join(10)
    assert not is_running(pid), f"process {pid} is left"


def test_the_next_pool_uses_it():
    first = forker()
    assert is_running(first)
    assert [forker() for _ in range(5)] == [first] * 5
    with Pool(2, address="local") as pool:
        pool.map(abs, range(100))
        pool.close()
        pool.join()
    assert forker() == first


def test_pools_at_the_same_time_have_their_own():
    with Pool(2, address="local") as one, Pool(2, address="local") as two:
        pids = {one.apply(os.getppid), two.apply(os.getppid)}
    assert len(pids) == 2
    assert forker() in pids


@pytest.fixture
def elsewhere(tmp_path):
    before = os.getcwd()
    os.chdir(tmp_path)
    yield
    os.chdir(before)


@pytest.fixture
def other_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def other_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if soft else 1, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.fixture
def other_variable(monkeypatch):
    monkeypatch.setenv("FARPOOL_TEST_KEPT", "1")


@pytest.fixture
def other_path(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("change", ["elsewhere", "other_umask", "other_limit", "other_variable", "other_path"])
def test_not_if_it_would_be_another_process_now(change, request):
    first = forker()
    request.getfixturevalue(change)
    assert forker() != first
    wait_until_gone(first)


def test_not_with_other_modules_or_variables():
    first = forker()
    assert len({first, forker(preload=["json"]), forker(env={"A": "1"})}) == 3


def test_not_if_a_module_has_changed(tmp_path, monkeypatch):
    module = tmp_path / "far_preloaded.py"
    module.write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def value():
        import far_preloaded

        return far_preloaded.VALUE

    def imported():
        with Pool(2, address="local", preload=["far_preloaded"]) as pool:
            return pool.apply(value), pool.apply(os.getppid)

    first = imported()
    assert imported() == first and first[0] == 1
    module.write_text("VALUE = 22\n")
    assert imported()[0] == 22


def start_daemon():
    return subprocess.Popen(["sleep", "300"], start_new_session=True).pid


def test_nothing_of_a_pool_is_left_in_it():
    first = forker()
    with Pool(2, address="local") as pool:
        assert pool.apply(os.getppid) == first
        daemon = pool.apply(start_daemon)
        pool.apply_async(time.sleep, (300,))
    wait_until_gone(daemon)
    assert forker() == first
    with open(f"/proc/{first}/task/{first}/children") as children:
        assert children.read() == ""


def test_a_dead_one_is_replaced():
    first = forker()
    os.kill(first, signal.SIGKILL)
    wait_until_gone(first)
    assert forker() != first


def test_a_fork_of_the_client_does_not_use_it():
    first = forker()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(forker()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reader, 100)) != first
    assert forker() == first


def test_it_ends_with_the_client(run_script):
    printed = run_script(
        """
        import os
        from farpool import Pool
        for _ in range(2):
            with Pool(1) as pool:
                print(pool.apply(os.getppid))
        """
    ).split()
    assert printed[0] == printed[1]
    wait_until_gone(int(printed[0]))


def test_it_ends_when_no_pool_is_opened():
    first = forker()
    began = time.monotonic()
    while is_running(first):
        assert time.monotonic() - began < 20, "it is kept for 10 seconds"
        time.sleep(0.1)
    assert time.monotonic() - began > 8
