"""Python's multiprocessing.Pool: the same work as in pool.rs, measured in the same way.

python3 -c "$(cat multiprocessing_pool.py)" WORKLOAD; see side.rs for what it reads and writes.
"""
import math, multiprocessing, os, random, signal, statistics, sys, tempfile, threading, time
from collections import Counter

MIB = 1 << 20
POISON = 50
W7_PATIENCE_S = 5
_mebibyte = None
now = time.perf_counter


def identity(number): return number
def factorial(n): return math.factorial(n)
def length(data): return len(data)
def nap(seconds): time.sleep(seconds); return seconds


def make_mib(_):
    global _mebibyte
    if _mebibyte is None: _mebibyte = bytes(MIB)
    return _mebibyte


def poison(argument):
    item, log = argument
    with open(log, "a") as file: file.write(f"{item} {time.monotonic_ns()}\n")
    if item == POISON: os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.005)
    return item


def sleeps(ascending):
    draw, least = random.Random(20240607), 0.005 * 0.5 / 1.5
    times = [least * draw.paretovariate(1.5) for _ in range(400)]
    return sorted(times) if ascending else times


def start(processes): return multiprocessing.get_context("fork").Pool(processes)


def one_by_one(pool):
    items = list(range(20_000)); began = now(); total = 0
    for result in pool.imap_unordered(identity, items, 1): total += result
    took = now() - began
    assert total == 20_000 * 19_999 // 2
    return [20_000 / took]


def all_at_once(pool, chunksize=None):
    items = list(range(1_000_000)); began = now()
    results = pool.map(identity, items, chunksize)
    took = now() - began
    assert len(results) == 1_000_000
    return [1_000_000 / took]


def latencies(pool, calls=2000):
    times = []
    for _ in range(calls):
        began = time.perf_counter_ns(); pool.apply(identity, (1,)); times.append((time.perf_counter_ns() - began) / 1e3)
    times.sort()
    return [times[calls // 2], times[calls * 99 // 100], times[calls // 2]]


def submitted(pool):
    calls = 100_000; began = now(); results = [pool.apply_async(identity, (number,)) for number in range(calls)]
    took = now() - began
    assert sum(result.get() for result in results) == calls * (calls - 1) // 2
    return [took * 1e6 / calls, (now() - began) * 1e6 / calls]


def start_to_finish(_):
    began = now(); pool = start(4); results = pool.map(factorial, range(1, 101)); to_results = now() - began
    warm = []
    for _ in range(5):
        began = now(); pool.map(factorial, range(1, 101)); warm.append(now() - began)
    began = now(); pool.close(); pool.join(); to_end = now() - began
    assert results[99] == math.factorial(100)
    return [(to_results + to_end) * 1e3, to_results * 1e3, statistics.median(warm) * 1e3]


def mebibytes(pool, function, items, good):
    began = now(); count = 0
    for result in pool.imap_unordered(function, items, 1): count += good(result)
    took = now() - began
    assert count == 200
    del items, result
    time.sleep(0.3)
    return [200 / took]


def mebibytes_in(pool): return mebibytes(pool, length, [os.urandom(MIB) for _ in range(200)], lambda size: size == MIB)
def mebibytes_out(pool): return mebibytes(pool, make_mib, list(range(200)), lambda data: len(data) == MIB)


def naps(pool, ascending):
    items = sleeps(ascending); began = now(); results = pool.map(nap, items)
    took = now() - began
    assert len(results) == 400
    return [took * 1e3]


def killed(pool):
    """Until the caller knows of item 50, or for as long as anybody has patience."""
    log = os.path.join(tempfile.gettempdir(), f"farpool-bench-{os.getpid()}")
    end = []

    def call():
        try:
            for _ in pool.imap_unordered(poison, [(item, log) for item in range(100)]): pass
        except BaseException: pass
        end.append(time.monotonic_ns())

    thread = threading.Thread(target=call, daemon=True); thread.start(); thread.join(W7_PATIENCE_S)
    lines = [line.split() for line in open(log)]; os.remove(log)
    runs = Counter(int(item) for item, _ in lines); first = min(int(at) for item, at in lines if int(item) == POISON)
    return [(end[0] - first) / 1e6 if end else math.inf, sum(runs[item] > 1 for item in runs if item != POISON)]


def first_result(_):
    global pool
    pool = start(2); pool.apply(identity, (1,))
    took = (time.monotonic_ns() - int(os.environ["FARPOOL_BENCH_START"])) / 1e6
    pool.map(nap, [0.02] * 8, 1)
    return [took]


def pulled(pool):
    count = 0

    def numbers():
        nonlocal count
        for number in range(1_000_000):
            count += 1
            yield number

    outcomes = pool.imap(identity, numbers())
    for _ in range(10): next(outcomes)
    after_ten = count
    time.sleep(1)
    return [after_ten, count]


RUNS = {
    "W1": one_by_one, "W2": all_at_once, "W2c": lambda pool: all_at_once(pool, 125_000), "W3": latencies,
    "W3awake": latencies, "W4": start_to_finish, "W5a": mebibytes_in, "W5r": mebibytes_out,
    "W6": lambda pool: naps(pool, False), "W6s": lambda pool: naps(pool, True), "W7": killed, "W8": first_result,
    "W9": pulled, "W10": submitted,
}
FRESH_POOLS = ("W7", "W9")  # a run leaves the pool unfit for the next
pool = None


def prepare(workload):
    global pool
    if workload == "W4": return
    pool = start(8 if workload.startswith("W6") else 2)
    for _ in pool.imap_unordered(identity, list(range(20 if workload in FRESH_POOLS else 200)), 1): pass
    if workload.startswith("W6"):
        for _ in range(2): pool.map(nap, [0.05] * 32, 1)
    if workload.startswith("W3"): latencies(pool, 50)
    if workload.startswith("W5"): RUNS[workload](pool)


def stop():
    """A pool that has lost a worker can hang here too, and it need not be waited for."""
    if pool is not None:
        workers = list(pool._pool)
        thread = threading.Thread(target=pool.terminate, daemon=True); thread.start(); thread.join(1)
        for worker in workers: worker.kill()


def main(workload):
    for line in sys.stdin:
        if line.strip() == "prepare":
            prepare(workload); print(flush=True)
            continue
        values = RUNS[workload](pool)
        print(*values, flush=True)
        if workload in FRESH_POOLS: stop(); prepare(workload)
    stop()
    os._exit(0)


main(sys.argv[1])
