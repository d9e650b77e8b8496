"""A pool's life: opening it, its workers, and shutdown."""

import gc
import itertools
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
import types
import warnings
import weakref

import pytest

import farpool
from farpool import Pool


def pid(_=None):
    return os.getpid()


def alive(pid):
    return os.path.exists(f"/proc/{pid}")


def test_nothing_is_left_after_with(address):
    with Pool(2, address=address) as pool:
        pids = set(pool.map(pid_after_a_moment, range(8), chunksize=1))
        assert len(pids) == 2
    until = time.monotonic() + 1
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(alive, pids))


def pid_after_a_moment(_):
    time.sleep(0.05)
    return os.getpid()


def test_a_closed_pool_finishes_what_it_has(address):
    pool = Pool(2, address=address)
    results = [pool.apply_async(pid_after_a_moment, (n,)) for n in range(6)]
    pool.close()
    with pytest.raises(ValueError, match="Pool not running"):
        pool.map(abs, [1])
    pool.join()
    assert all(result.get() for result in results)


def test_join_before_close_is_refused(pool):
    with pytest.raises(ValueError, match="still running"):
        pool.join()


def test_terminate_ends_what_runs(address):
    pool = Pool(2, address=address)
    result = pool.map_async(time.sleep, [100] * 10)
    begin = time.monotonic()
    pool.terminate()
    pool.join()
    assert time.monotonic() - begin < 3
    with pytest.raises(farpool.Cancelled):
        result.get()
    with pytest.raises(ValueError):
        with pool:
            pass


def test_arguments_are_checked():
    for processes in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            Pool(processes)
    for tasks in (0, -1, 0.5, "12"):
        with pytest.raises(ValueError, match="maxtasksperchild"):
            Pool(1, maxtasksperchild=tasks)
    with pytest.raises(TypeError, match="callable"):
        Pool(1, initializer=5)
    with pytest.raises(ValueError, match="initializer_timeout must be above zero"):
        Pool(1, initializer_timeout=0)
    with pytest.raises(ValueError, match="workers"):
        Pool(2**40)
    Pool(1, maxtasksperchild=2**70, initializer_timeout=None).terminate()
    with pytest.raises(ValueError):
        Pool(1, address="http://")
    import pickle

    with Pool(1) as pool, pytest.raises(NotImplementedError):
        pickle.dumps(pool)


def test_views():
    with Pool(3) as pool:
        workers = pool._pool
        assert len(workers) == 3 == pool._processes
        assert all(worker.is_alive() and worker.pid for worker in workers)
        assert set(pool.map(pid_after_a_moment, range(12), chunksize=1)) <= {worker.pid for worker in workers}
        slow = pool.apply_async(time.sleep, (0.2,))
        assert len(pool._cache) == 1
        slow.wait()
        assert not pool._cache
        assert "state=RUN pool_size=3" in repr(pool)
    assert not any(worker.is_alive() for worker in workers)


def test_maxtasksperchild():
    with Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(pid) for _ in range(6)]
    assert len(set(pids)) == 3


def test_maxtasksperchild_counts_chunks(address):
    with Pool(1, maxtasksperchild=2, address=address) as pool:
        pids = pool.map(pid, range(60), chunksize=10)
        assert len(set(pids)) == 3
        assert len(set(pool.map(pid, range(80)))) <= 3


def test_an_initializer_in_every_worker(address):
    with Pool(2, initializer=os.putenv, initargs=("GREETING", "hello"), address=address) as pool:
        said = pool.map(lambda _: subprocess.run("echo $GREETING", shell=True, capture_output=True).stdout, range(4))
    assert said == [b"hello\n"] * 4


def test_an_initializer_that_does_not_return(address):
    with Pool(1, initializer=time.sleep, initargs=(100,), initializer_timeout=0.3, address=address) as pool:
        with pytest.raises(farpool.InitializerFailed, match="within 0.3s|within 300ms"):
            pool.apply(pid)


def test_a_pool_keeps_little():
    with Pool(1) as pool:
        for _ in range(20):
            assert pool.apply(lambda data=bytes(900_000): len(data)) == 900_000
        assert sum(len(packed.data) for packed, _ in pool._tasks.values()) <= 16 << 20


def test_streams_that_tasks_replace():
    with Pool(1) as pool:
        assert pool.apply(replace_streams) == 1
        assert pool.apply(abs, (-2,)) == 2
        pool.close()
        pool.join()


def replace_streams():
    class Odd:
        def write(self, text):
            pass

    sys.stdout = sys.stderr = Odd()
    return 1


def test_environment(address):
    with Pool(1, env={"COLOUR": "red"}, address=address) as pool:
        assert pool.apply(os.getenv, ("COLOUR",)) == "red"
        assert pool.apply(os.getenv, ("FARPOOL_ROLE",)) is None


def test_a_pool_that_is_forgotten_warns_and_ends():
    pool = Pool(1)
    worker = pool.apply(pid)
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool
        gc.collect()
    until = time.monotonic() + 2
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(worker)


def test_a_result_keeps_its_pool():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Pool(1).apply_async(pid_after_a_moment, (1,)).get(30)
        assert len(list(Pool(1).imap(pid_after_a_moment, range(3)))) == 3


class Referring:
    pass


def result_in_its_value(pool):
    result = pool.apply_async(Referring)
    value = result.get(30)
    value.result = result
    return value


def result_in_its_callback(pool):
    value = Referring()
    value.called = lambda _: value
    value.result = pool.apply_async(abs, (1,), callback=value.called)
    value.result.wait(30)
    return value


def result_in_the_traceback_of_its_exception(pool):
    value = Referring()
    value.result = pool.apply_async(int, ("x",))
    try:
        value.result.get(30)
    except ValueError:
        pass
    return value


def iterator_in_the_traceback_of_its_input(pool):
    value = Referring()

    def fails():
        yield 1
        raise LookupError(value)

    value.results = pool.imap(abs, fails())
    try:
        list(value.results)
    except LookupError:
        pass
    return value


@pytest.mark.parametrize(
    "make",
    [
        result_in_its_value,
        result_in_its_callback,
        result_in_the_traceback_of_its_exception,
        iterator_in_the_traceback_of_its_input,
    ],
)
def test_cycles_are_collected(make):
    with Pool(1) as pool:
        kept = weakref.ref(make(pool))
        until = time.monotonic() + 10
        # A thread of farpool may still hold a reference.
        while kept() is not None and time.monotonic() < until:
            gc.collect()
            time.sleep(0.01)
        assert kept() is None


@pytest.mark.parametrize("start", [lambda pool: pool.imap(abs, itertools.count()), lambda pool: pool.map_async(abs, [1])])
def test_a_pool_that_refers_to_its_results_is_collected(start):
    pool = Pool(1)
    pool.results, worker = start(pool), pool.apply(pid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del pool
        until = time.monotonic() + 10
        while alive(worker) and time.monotonic() < until:
            gc.collect()
            time.sleep(0.01)
    assert not alive(worker)


def interpreter(_):
    return sys.executable, sys.prefix, sys.version


def test_workers_run_the_clients_interpreter(pool):
    assert pool.apply(interpreter, (0,)) == interpreter(0)


def test_a_result_that_runs_is_not_collected():
    called = []
    with Pool(1) as pool:
        value = Referring()
        value.called = lambda _, value=value: called.append(value)
        value.result = pool.apply_async(time.sleep, (0.3,), callback=value.called)
        del value
        gc.collect()
        pool.close()
        pool.join()
        until = time.monotonic() + 10
        while not called and time.monotonic() < until:
            time.sleep(0.01)
    assert called


def test_pools_in_tasks(address):
    with Pool(1, address=address) as pool:
        assert pool.apply(inner, (3,)) == [0, 1, 2]


def test_managers(run_script):
    script = """
        import multiprocessing
        from farpool import Pool

        def count(shared, lock, n):
            with lock:
                shared["sum"] = shared.get("sum", 0) + n

        def main():
            with multiprocessing.Manager() as manager:
                shared, lock = manager.dict(), manager.Lock()
                with Pool(2) as pool:
                    pool.starmap(count, [(shared, lock, n) for n in range(10)])
                print(shared["sum"])

        if __name__ == "__main__":
            main()
    """
    assert run_script(script) == "45\n"


def test_multiprocessing_that_is_imported_late(run_script, address):
    script = """
        import sys
        from farpool import Pool

        def lookup(shared, key):
            return shared[key]

        def identity(_):
            import multiprocessing
            process = multiprocessing.current_process()
            return process.name, process._identity

        def loaded(_):
            return "multiprocessing" in sys.modules

        if __name__ == "__main__":
            with Pool(1) as pool:
                print(pool.apply(loaded, (1,)))
                import multiprocessing
                print(pool.apply(loaded, (1,)), pool.apply(identity, (1,)))
                if {manager}:
                    with multiprocessing.Manager() as manager:
                        print(pool.apply(lookup, (manager.dict(a=1), "a")))
                        table = manager.dict(b=2)
                        print(pool.apply(lambda: table["b"]))
    """
    is_here = address == "local"
    printed = run_script(script.replace("{manager}", str(is_here)), FARPOOL_ADDRESS=address)
    assert printed == "False\nFalse ('PoolWorker-1', (1,))\n" + ("1\n2\n" if is_here else "")


def test_shared_memory_outlives_the_workers_that_use_it(run_script):
    script = """
        from multiprocessing import shared_memory
        from farpool import Pool

        def write(name, at):
            memory = shared_memory.SharedMemory(name)
            memory.buf[at] = at + 1
            memory.close()

        def create(size):
            memory = shared_memory.SharedMemory(create=True, size=size)
            memory.buf[0] = 7
            memory.close()
            return memory.name

        if __name__ == "__main__":
            memory = shared_memory.SharedMemory(create=True, size=4)
            with Pool(2, maxtasksperchild=1) as pool:
                pool.starmap(write, [(memory.name, at) for at in range(4)], chunksize=1)
                made = pool.apply(create, (1,))
            again = shared_memory.SharedMemory(memory.name)
            theirs = shared_memory.SharedMemory(made)
            print(*again.buf[:4], theirs.buf[0])
            for each in (again, theirs):
                each.close()
                each.unlink()
            memory.close()
    """
    # The resource trackers complain on stderr.
    assert run_script("import os; os.dup2(1, 2)\n" + textwrap.dedent(script)) == "1 2 3 4 7\n"


@pytest.mark.parametrize("seed", [None, "0", "7"])
def test_workers_compute_the_same_hashes(run_script, address, seed):
    script = """
        import os
        from farpool import Pool

        def of(text):
            return hash(text)

        def main():
            seen = set()
            for _ in range(2):
                with Pool(2, maxtasksperchild=1) as pool:
                    seen.update(pool.map(of, ["text"] * 4, chunksize=1))
                    assert pool.apply(len, ({"a", "b"},)) == 2
            print(len(seen), hash("text") in seen)

        if __name__ == "__main__":
            main()
    """
    environment = {} if seed is None else {"PYTHONHASHSEED": seed}
    assert run_script(script, FARPOOL_ADDRESS=address, **environment) == f"1 {seed is not None}\n"


def test_connections(run_script):
    script = """
        import multiprocessing, socket
        from farpool import Pool

        class Message:
            def __init__(self, *parts):
                self.parts = parts

        def answer(connection):
            connection.send(connection.recv() + 1)

        def answer_both(message):
            connection, other = message.parts
            connection.send(1)
            other.sendall(b"x")

        def opened():
            ours, theirs = multiprocessing.Pipe()
            ours.send("from a worker")
            return theirs

        def opened_socket():
            ours, theirs = socket.socketpair()
            ours.sendall(b"a socket")
            return theirs

        if __name__ == "__main__":
            with Pool(1) as pool:
                ours, theirs = multiprocessing.Pipe()
                ours.send(1)
                pool.apply(answer, (theirs,))
                print(ours.recv())
                near, far = socket.socketpair()
                pool.map(answer_both, [Message(theirs, far)])
                print(ours.recv(), near.recv(1))
                print(pool.apply(opened).recv(), pool.apply(opened_socket).recv(8))
    """
    assert run_script(script) == "2\n1 b'x'\nfrom a worker b'a socket'\n"


def inner(n):
    with Pool(2) as pool:
        return pool.map(abs, range(n))


def test_a_fork_of_the_client(run_script):
    script = """
        import os
        from farpool import Pool
        pool = Pool(2)
        result = pool.map_async(abs, [-1])
        result.wait()
        child = os.fork()
        if child == 0:
            for call in (lambda: pool.map(abs, [1]), pool.apply_async(abs, (1,)).get if False else lambda: pool.apply(abs, (1,))):
                try:
                    call()
                except ValueError as error:
                    print("fork" in str(error), flush=True)
            with Pool(1) as own:
                print(own.map(abs, [-2]), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(pool.map(abs, [-3]))
    """
    assert run_script(script) == "True\nTrue\n[2]\n[3]\n"


@pytest.mark.parametrize("end", ["pass", "import sys; sys.exit(3)", "raise ValueError"])
def test_the_end_of_a_program_with_an_open_pool(run_script, end):
    script = f"""
        import time, threading
        from farpool import Pool
        pool = Pool(2)
        running = pool.map_async(time.sleep, [100, 100], callback=print)
        lazy = pool.imap(time.sleep, iter([100] * 1000))
        {end}
    """
    begin = time.monotonic()
    printed = run_script(script, expect={"pass": 0}.get(end, 3 if "exit" in end else 1))
    assert time.monotonic() - begin < 3
    assert "Error" in printed if end == "raise ValueError" else not printed


def test_the_end_of_a_program_whose_input_blocks(run_script):
    script = """
        import queue
        from farpool import Pool
        results = Pool(1).imap(abs, iter(queue.Queue().get, None))
    """
    begin = time.monotonic()
    assert run_script(script) == ""
    assert time.monotonic() - begin < 3


def test_the_end_of_a_program_whose_code_runs_in_the_background(run_script):
    # The interpreter takes long to shut down, while inputs, pickling and a callback are running.
    script = """
        import sys, time
        from farpool import Pool

        class Slow:
            def __reduce__(self):
                for _ in range(100_000): pass
                return int, ()

        class Leaving:
            def __del__(self, sleep=time.sleep):
                sleep(0.3)

        def sleepy():
            while True:
                time.sleep(0.2)
                yield 1

        def busy():
            while True:
                for _ in range(100_000): pass
                yield Slow()

        def call_back(_):
            for _ in range(100): time.sleep(0.05)

        pools = [Pool(1) for _ in range(3)]
        kept = [pools[0].imap(abs, sleepy()), pools[1].imap(abs, busy())]
        kept.append(pools[2].map_async(abs, [1], callback=call_back))
        sys.leaving = Leaving()
        time.sleep(0.1)
    """
    for _ in range(3):
        begin = time.monotonic()
        assert run_script(script) == ""
        assert time.monotonic() - begin < 3


def test_the_end_waits_for_all_pools_together(monkeypatch):
    from farpool import _farpool, _pool

    class Stuck:
        def close(self, now):
            assert now

        def wait_closed(self, timeout):
            time.sleep(max(0, timeout))

    monkeypatch.setattr(_pool, "_open_pools", [types.SimpleNamespace(_session=Stuck()) for _ in range(3)])
    monkeypatch.setattr(_farpool, "end_threads", lambda patience: None)
    begin = time.monotonic()
    _pool._end_all()
    assert time.monotonic() - begin < 2


def test_ctrl_c_while_a_pool_opens(monkeypatch, tmp_path):
    from farpool import _pool

    class Interrupting:
        def add(self, pool):
            pool.apply(abs, (1,))
            raise KeyboardInterrupt

    monkeypatch.setattr(_pool, "_open_pools", Interrupting())
    monkeypatch.setattr(_pool, "RUN", "INIT")
    started = tmp_path / "started"
    with pytest.raises(KeyboardInterrupt):
        Pool(1, write_pid, (str(started),))
    gc.collect()
    worker, until = int(started.read_text()), time.monotonic() + 2
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(worker)


def write_pid(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))


def test_ctrl_c_while_a_coordinator_does_not_answer(run_script):
    script = """
        import os, signal, socket, threading, time
        from farpool import Pool

        silent = socket.create_server(("127.0.0.1", 0))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        begin = time.monotonic()
        try:
            Pool(address=f"http://127.0.0.1:{silent.getsockname()[1]}")
        except KeyboardInterrupt:
            print(time.monotonic() - begin < 1.5)
    """
    assert run_script(script) == "True\n"


def test_output(run_script, address):
    script = """
        from farpool import Pool
        with Pool(1) as pool:
            pool.apply(print, ("from a worker",))
            pool.apply(lambda: print("no newline", end=""))
    """
    printed = run_script(script, FARPOOL_ADDRESS=address)
    assert "from a worker\n" in printed and "no newline" in printed


def test_exit_handlers_of_workers_run(tmp_path):
    pool = Pool(1)
    pool.apply(at_exit, (str(tmp_path / "left"),))
    pool.close()
    pool.join()
    assert (tmp_path / "left").exists()


def at_exit(path):
    import atexit

    atexit.register(lambda: open(path, "w").close())


def test_workers_have_numbers():
    with Pool(2) as pool:
        numbers = set(pool.map(number_after_a_moment, range(8), chunksize=1))
    assert len(numbers) == 2 and all(name == f"PoolWorker-{number}" for name, number in numbers)


def number_after_a_moment(_):
    time.sleep(0.05)
    process = multiprocessing.current_process()
    return process.name, process._identity[0]


def test_modules_that_are_imported_first(address):
    with Pool(2, address=address, preload=["decimal", "xml.dom"]) as pool:
        assert pool.map(is_loaded, ["decimal", "xml.dom", "xml.sax"]) == [True, True, False]
    with pytest.raises(TypeError, match="names of modules"):
        Pool(1, address=address, preload=[os])
    with Pool(1, address=address, preload="no_such_module") as pool:
        with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module'"):
            pool.apply(pid)


def is_loaded(name):
    return name in sys.modules


def test_workers_that_share_modules_differ():
    pytest.importorskip("numpy")
    with Pool(2, preload=["numpy.random", "multiprocessing"]) as pool:
        drawn = pool.map(number_and_name, range(8), chunksize=1)
    assert len({number for number, _ in drawn}) == 8
    assert {name for _, name in drawn} == {"PoolWorker-1", "PoolWorker-2"}


def number_and_name(_):
    import numpy

    time.sleep(0.05)
    return numpy.random.random(), multiprocessing.current_process().name


def test_slots(address):
    assert farpool.slot() is None
    with Pool(2, maxtasksperchild=2, address=address) as pool:
        seen = pool.map(slot_and_processes, range(16), chunksize=1)
        # Workers that are exiting have numbers too.
        assert all(0 <= number < 6 for number, _, _ in seen)
        with pytest.raises(farpool.WorkerDied):
            pool.apply(os._exit, (1,), retries=0)
    with Pool(2, address=address) as pool:
        seen = pool.map(slot_and_processes, range(8), chunksize=1)
        # The two workers may be those of one agent, whose fork server is their parent, or of two.
        assert len({pid for _, _, pid in seen}) == 2 == len({(number, parent) for number, parent, _ in seen})


def slot_and_processes(_):
    time.sleep(0.05)
    return farpool.slot(), os.getppid(), os.getpid()


def test_random_numbers_differ(pool):
    def number(_):
        import random

        time.sleep(0.02)
        return random.random()

    assert len(set(pool.map(number, range(8), chunksize=1))) == 8


def test_importing_is_quick():
    code = "import sys, farpool; assert 'multiprocessing' not in sys.modules and 'farpool._pool' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names():
    assert set(farpool.__all__) <= set(dir(farpool))
    for name in farpool.__all__:
        assert getattr(farpool, name)
    with pytest.raises(AttributeError):
        farpool.nothing
    assert farpool.TimeoutError is __import__("multiprocessing").TimeoutError


def test_waiting_does_not_hold_the_interpreter(pool):
    ticks = []
    stop = threading.Event()

    def tick():
        while not stop.wait(0.005):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    pool.map(time.sleep, [0.3])
    stop.set()
    thread.join()
    assert max(later - earlier for earlier, later in zip(ticks, ticks[1:])) < 0.2


def test_workers_share_the_cpus(monkeypatch):
    cpus = len(os.sched_getaffinity(0))
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    for name in (*names, "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for processes, share in ((1, cpus), (2 * cpus, 1)):
        with Pool(processes) as pool:
            assert pool.map(os.getenv, names) == [str(share)] * 3
    with Pool(1, env={"OPENBLAS_NUM_THREADS": "7"}) as pool:
        assert pool.map(os.getenv, names) == [None, "7", None]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with Pool(1) as pool:
        assert pool.map(os.getenv, names) == ["3", None, None]
