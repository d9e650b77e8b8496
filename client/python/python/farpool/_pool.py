"""`Pool`: the API of `multiprocessing.Pool`, over the compiled half of the package."""

from __future__ import annotations

import atexit
import operator
import os
import sys
import time
import types
import warnings
import weakref

from farpool import _farpool, _functions, _program

INIT, RUN, CLOSE, TERMINATE = "INIT", "RUN", "CLOSE", "TERMINATE"

# How many seconds `terminate` waits for workers to exit, and `_pool` for them to start.
_PATIENCE = 5.0

# Each tells a library of numerical code how many threads to use. One that is not told uses every CPU, in each worker.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

# How many packed functions a pool keeps, and how many bytes.
_MOST_TASKS = 256
_MOST_BYTES = 16 << 20

_hash_seed = str(int.from_bytes(os.urandom(4), "little") or 1) if sys.flags.hash_randomization else "0"

# The largest number of elements.
_ENDLESS = 2**63 - 1

_open_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """A pool of worker processes with the API of `multiprocessing.Pool`.

    >>> from farpool import Pool
    >>> with Pool(2) as pool:
    ...     pool.map(abs, [-1, 2, -3])
    [1, 2, 3]

    `processes`: how many workers run at once; by default one for each CPU that this process may use, or all slots of the cluster.
    `initializer` is called with `initargs` in each worker before its first item; if it takes longer than `initializer_timeout` seconds,
    calls raise `InitializerFailed`. None is no limit. `maxtasksperchild`: how many chunks a worker runs
    before it is replaced; a call of `apply` is one chunk. `context` has no effect: there is only one way to start workers.

    `address`: the address of a cluster's coordinator, such as "http://node1:7070", or "local" for this machine. The default is the
    variable FARPOOL_ADDRESS, or else this machine. `env`: environment variables for the workers, in addition to those of this process;
    on a cluster, workers do not get those of this process. On this machine, variables such as OMP_NUM_THREADS give the workers an
    equal share of the CPUs, unless one of them is set. `name` is shown in process lists and by `farpool status`. `require`: labels
    that a host needs to run the pool's calls, such as {"gpu": "a100"}. This machine has only `host`, `arch` and `os`. `preload`: names
    of modules, such as ["numpy"], that are imported once on each host, before the workers are forked; so workers start quickly and share
    their memory. A module that starts threads makes every worker start, and import, on its own. `py_modules`: modules and packages that
    are sent to the hosts of a cluster, for tasks to import: each is a module, its name, or the path of a .py file or of a package's
    directory, all of whose files are sent. Modules next to the script that are loaded already are sent in any case. `working_dir`: a
    directory in which tasks run, and from which they can import. The hosts of a cluster get a copy of the files in it that git tracks,
    at most 256 MiB; what tasks write there is lost with the pool. `logging=True`: what tasks log is handled here, by the loggers of the
    same names, when the outcome of their item is read; handlers in workers are not called. The `processName` of a record names its
    worker. Workers log at the levels that the loggers here have when the pool is opened.

    Leaving `with` terminates the pool; `close()` and `join()` let it finish. A pool belongs to the process that opened it: in a fork
    of that process its calls raise an exception.
    """

    _state = INIT

    def __init__(
        self,
        processes=None,
        initializer=None,
        initargs=(),
        maxtasksperchild=None,
        context=None,
        *,
        address=None,
        env=None,
        name="",
        require=None,
        initializer_timeout=600,
        preload=(),
        py_modules=(),
        working_dir=None,
        logging=False,
    ):
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        address = address or os.environ.get("FARPOOL_ADDRESS") or "local"
        is_here = address == "local"
        if processes is None:
            processes = _usable_cpus() if is_here else 0
        self._is_here = is_here
        self._tasks = {}
        self._kept_bytes = 0
        self._views = []
        self._maxtasksperchild = maxtasksperchild
        packed, arguments = _initializer(initializer, tuple(initargs), _functions.surroundings(is_here))
        program = _program.for_this_machine if is_here else _program.for_cluster
        file, program_arguments = program(_names(preload), py_modules, _absolute(working_dir))
        self._session = _farpool.open(
            processes=min(processes, 2**32 - 1),
            address=None if is_here else address,
            file=file,
            arguments=program_arguments,
            # Otherwise agents that have the directory would start workers there, and not in a copy.
            stays=working_dir is None,
            environment=_environment(env, processes if is_here else None, logging),
            initializer=packed,
            initargs=arguments,
            initializer_timeout=initializer_timeout,
            max_chunks_per_child=min(maxtasksperchild or 0, _ENDLESS),
            name=name,
            require=_labels(require),
            logging=bool(logging),
        )
        self._processes = processes or self._session.processes()
        self._state = RUN
        _open_pools.add(self)

    # ---- calls

    def apply(self, func, args=(), kwds={}, *, timeout=None, retries=2, priority=0, require=None):
        """Calls `func(*args, **kwds)` in a worker and returns its result.

        `timeout`: how many seconds it may run; after that its worker is killed and `TimedOut` is raised. `retries`: how often it is
        retried if its worker dies; after that `WorkerDied` is raised. Calls with a higher `priority` go first. `require`: labels that a
        host needs to run it, in addition to those that the pool requires.
        """
        self._check_running()
        task, value = self._call(func, args, kwds)
        return self._session.apply(task, value, _options(None, timeout, retries, priority, require))

    def apply_async(
        self,
        func,
        args=(),
        kwds={},
        callback=None,
        error_callback=None,
        *,
        timeout=None,
        retries=2,
        priority=0,
        require=None,
    ):
        """As `apply`, but returns an `AsyncResult` at once. `callback` is called with the result, `error_callback` with the
        exception; both run on a thread of farpool."""
        self._check_running()
        task, value = self._call(func, args, kwds)
        options = _options(None, timeout, retries, priority, require)
        return self._session.start("apply_async", task, iter((value,)), self, True, options, callback, error_callback)

    def map(self, func, iterable, chunksize=None, *, timeout=None, retries=2, priority=0, require=None, progress=False):
        """Calls `func` with each element and returns a list of the results, in the order of the elements.

        Every element is run. If some fail, the exception of the first of them in the input is raised, with its traceback as the
        cause. `chunksize`: how many consecutive elements run on one worker, one after another; by default farpool adapts it to how
        long elements take. `timeout` and `retries` are for each element, `priority` and `require` for the call; see `apply`.
        `progress`: whether to show how many elements are done, with a bar of the package tqdm.
        """
        return self._map("map", b"1", func, iterable, chunksize, progress, (timeout, retries, priority, require))

    def starmap(self, func, iterable, chunksize=None, *, timeout=None, retries=2, priority=0, require=None, progress=False):
        """As `map`, but each element has the arguments of one call: (a, b) becomes func(a, b)."""
        return self._map("starmap", b"*", func, iterable, chunksize, progress, (timeout, retries, priority, require))

    def map_async(
        self,
        func,
        iterable,
        chunksize=None,
        callback=None,
        error_callback=None,
        *,
        timeout=None,
        retries=2,
        priority=0,
        require=None,
        progress=False,
    ):
        """As `map`, but returns an `AsyncResult` at once. `callback` and `error_callback` are those of `apply_async`."""
        options = timeout, retries, priority, require
        return self._start("map_async", b"1", func, iterable, chunksize, progress, options, callback, error_callback)

    def starmap_async(
        self,
        func,
        iterable,
        chunksize=None,
        callback=None,
        error_callback=None,
        *,
        timeout=None,
        retries=2,
        priority=0,
        require=None,
        progress=False,
    ):
        """As `starmap`, but returns an `AsyncResult` at once. `callback` and `error_callback` are those of `apply_async`."""
        options = timeout, retries, priority, require
        return self._start("starmap_async", b"*", func, iterable, chunksize, progress, options, callback, error_callback)

    def imap(
        self,
        func,
        iterable,
        chunksize=None,
        *,
        timeout=None,
        retries=2,
        priority=0,
        require=None,
        progress=False,
        buffersize=None,
    ):
        """As `map`, but returns an iterator over the results, in the order of the elements.

        A thread reads `iterable`, at most `buffersize` elements ahead of the results that were taken, so `iterable` may be endless. If
        an element fails, its exception is raised in place of its result, and the next call continues after it. If you drop the iterator
        before its end, the other elements still run; but an `iterable` without a length, such as a generator, is not
        read further if you have taken a result.
        """
        options = timeout, retries, priority, require
        return self._imap("imap", func, iterable, chunksize, progress, options, buffersize)

    def imap_unordered(
        self,
        func,
        iterable,
        chunksize=None,
        *,
        timeout=None,
        retries=2,
        priority=0,
        require=None,
        progress=False,
        buffersize=None,
    ):
        """As `imap`, but yields results as they arrive."""
        options = timeout, retries, priority, require
        return self._imap("imap_unordered", func, iterable, chunksize, progress, options, buffersize)

    def share(self, value):
        """Sends a value to each host of the pool once, and returns a `Shared` that stands for it in the pool's calls.

        >>> with Pool(2) as pool:
        ...     text = pool.share("the cat, the dog")
        ...     pool.starmap(str.count, [(text, "the"), (text, "cat")])
        [2, 1]

        Use it for a big argument of many calls, such as an array. Each worker unpickles it once, and the contents of arrays lie in memory
        that all workers of a host map: they are read-only there. Tasks of other pools, and of detached jobs, cannot use it. A cluster's
        coordinator counts it in its `--memory`, and gets it again after a restart. Without a cluster, each value takes a file descriptor of
        this process.

        Pass it as an argument: a value that a function has as a global, a default or in a closure is freed with the pool.
        """
        self._check_running()
        from farpool._shared import Shared

        return Shared(self._session, value)

    def detach(self, name):
        """Hands the next call's whole job to the cluster, which keeps its items and outcomes under this name.

        >>> job = pool.detach("nightly").map(simulate, range(1_000_000))  # doctest: +SKIP
        >>> farpool.attach("nightly").get()  # later, in any process  # doctest: +SKIP

        The job survives this process, and restarts of the coordinator. It runs in a pool of its own, with the options of this one; what
        its workers print is discarded. The coordinator must have been started with `--journal DIR`.
        """
        from farpool._detached import Detach

        return Detach(self, name)

    # ---- shutdown

    def close(self):
        """Refuses new calls. Earlier calls finish, then the workers exit."""
        if self._state == RUN:
            self._state = CLOSE
            self._session.close(False)

    def terminate(self):
        """Kills running items at once; their calls raise `Cancelled`. Waits up to 5 seconds for the workers to exit."""
        self._state = TERMINATE
        self._session.close(True)
        self._session.wait_closed(_PATIENCE)

    def join(self):
        """Waits until all calls have ended, their callbacks have run, and the workers have exited. Call `close()` or `terminate()`
        first."""
        if self._state == RUN:
            raise ValueError("Pool is still running")
        self._session.wait_closed()
        self._session.wait_for_callbacks()

    def __enter__(self):
        self._check_running()
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        self.terminate()

    def __del__(self, _warn=warnings.warn, RUN=RUN):
        if self._state == RUN:
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)
            self._session.close(True)

    def __repr__(self):
        cls = self.__class__
        return f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={self._processes}>"

    def __reduce__(self):
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    # ---- views that programs for multiprocessing use

    @property
    def _pool(self):
        """The workers on this machine; empty on a cluster."""
        self._repopulate_pool()
        pids = self._session.worker_pids()
        known = {worker.pid: worker for worker in self._views}
        self._views = [known.get(pid) or _Worker(pid) for pid in pids]
        return list(self._views)

    @property
    def _cache(self):
        """The numbers of the background calls that have not ended, as keys."""
        return dict.fromkeys(self._session.open_jobs())

    def _repopulate_pool(self):
        """Waits until all workers have started; those that exit are replaced in any case."""
        until = time.monotonic() + _PATIENCE
        while self._is_here and self._state == RUN and time.monotonic() < until:
            if len(self._session.worker_pids()) >= self._processes:
                break
            self._session.check()
            time.sleep(0.001)

    # ---- internals

    def _check_running(self):
        if self._state != RUN:
            raise ValueError("Pool not running")

    def _call(self, func, args, kwds):
        how, value = arguments(args, kwds)
        # Looking for classes pickles the arguments once more, and looking for whether there are any takes time as well.
        sample = None if _is_plain(value) or not _functions.main_has_classes() else value
        return self._task(how, func, sample), value

    def _map(self, verb, how, func, iterable, chunksize, progress, options):
        self._check_running()
        chunksize = self._chunks(chunksize, iterable)
        task = self._task(how, func, _first(iterable))
        common = self._common(iterable, chunksize)
        with _bar(progress, func, iterable) as bar:
            return self._session.map(verb, task, iter(iterable), _options(chunksize, *options, bar.call, common))

    def _start(self, verb, how, func, iterable, chunksize, progress, options, callback, error_callback):
        self._check_running()
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        chunksize = self._chunks(chunksize, iterable)
        task = self._task(how, func, _first(iterable))
        with _bar(progress, func, iterable) as bar:
            options = _options(chunksize, *options, bar.call, self._common(iterable, chunksize))
            result = self._session.start(verb, task, iter(iterable), self, False, options, callback, error_callback)
            bar.detach()
        return result

    def _imap(self, verb, func, iterable, chunksize, progress, options, buffersize):
        self._check_running()
        chunksize = self._chunks(chunksize, None)
        if buffersize is not None and buffersize < max(1, chunksize or 1):
            # Otherwise the first chunk would never be complete.
            raise ValueError(f"buffersize must be at least 1 and at least the chunksize, not {buffersize}")
        if buffersize is not None:
            buffersize = min(buffersize, _ENDLESS)
        task = self._task(b"1", func, _first(iterable))
        ordered, sized = verb == "imap", _length(iterable) is not None
        with _bar(progress, func, iterable) as bar:
            options = _options(chunksize, *options, bar.call)
            results = self._session.imap(verb, task, iter(iterable), sized, self, ordered, options, buffersize)
            bar.detach()
        return results

    def _detach(self, name, how, func, iterable, chunksize, options):
        self._check_running()
        chunksize = self._chunks(chunksize, iterable)
        options = _options(chunksize, *options, None, self._common(iterable, chunksize))
        from farpool import _shared

        with _shared.refusing():
            values = iter(_shared.Input(iterable))
            return self._session.detach(name, self._task(how, func, _first(iterable)), values, options)

    def _chunks(self, chunksize, iterable):
        """Returns how many elements a chunk has; None if farpool adapts it."""
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        if chunksize is not None:
            return min(chunksize, _ENDLESS)
        if self._maxtasksperchild:
            # maxtasksperchild counts chunks, so they are as long as those of multiprocessing.
            length = len(iterable) if hasattr(iterable, "__len__") else 0
            chunksize = max(1, -(-length // (4 * self._processes)))
        return chunksize

    def _common(self, iterable, chunksize):
        """Returns the arguments that the first elements have in common, so that they need not travel with each element, and how many
        elements may share a copy of them; None if there are none. Arguments beside them must be plain: objects may be part of them.

        In multiprocessing, those of a chunk share one."""
        if type(iterable) not in (list, tuple) or len(iterable) < 2:
            return None
        first, second = iterable[0], iterable[1]
        pairs = list(zip(first, second)) if type(first) is type(second) is tuple else [(first, second)]
        common = [one for one, other in pairs if one is other and not _is_small(one)]
        if not common or not all(one is other or (_is_plain(one) and type(one) is not list) for one, other in pairs):
            return None
        return common, min(chunksize or -(-len(iterable) // (4 * max(1, self._processes))), _ENDLESS)

    def _task(self, how, func, sample):
        """Packs a function, or returns it from the cache if the globals that it uses have not changed."""
        if not callable(func):
            raise TypeError(f"{func!r} is not callable")
        classes = () if _is_plain(sample) else _functions.classes_in(sample)
        keeps = not classes and _is_constant(func)
        known = self._tasks.get(func) if keeps else None
        surroundings = _functions.surroundings(self._is_here)
        if known is not None and known[0].is_current(surroundings):
            if task := known[1].get(how):
                return task
        else:
            known = (_functions.dump(func, classes, surroundings), {})
        packed, tasks = known
        task = tasks[how] = _farpool.Task(
            how + packed.data, _name(func), _functions.ItemPickler(packed.published), packed.published
        )
        if keeps:
            self._kept_bytes += len(packed.data)
            if len(self._tasks) >= _MOST_TASKS or self._kept_bytes > _MOST_BYTES:
                self._tasks.clear()
                self._kept_bytes = len(packed.data)
            self._tasks[func] = known
        return task


def arguments(args, kwds):
    """Returns the arguments of a call as one value, and the letter that says how it is passed."""
    if kwds:
        return b"k", (tuple(args), dict(kwds))
    return b"*", tuple(args)


class _Worker:
    """A worker on this machine, with the part of `multiprocessing.Process` that programs use with pools."""

    daemon = True

    def __init__(self, pid):
        self.pid = self.ident = pid
        self.name = f"PoolWorker-{pid}"

    def is_alive(self):
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as stat:
                return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
        except OSError:
            return False

    def terminate(self):
        self._send("SIGTERM")

    def kill(self):
        self._send("SIGKILL")

    def _send(self, name):
        # Importing it takes a third of the time that the whole package takes.
        import signal

        os.kill(self.pid, getattr(signal, name))

    def join(self, timeout=None):
        until = None if timeout is None else time.monotonic() + timeout
        while self.is_alive() and (until is None or time.monotonic() < until):
            time.sleep(0.001)

    def __repr__(self):
        return f"<{type(self).__name__} name={self.name!r} pid={self.pid}>"


def _options(chunksize, timeout, retries, priority, require, progress=None, common=None):
    return _farpool.Options(chunksize, timeout, retries, priority, _labels(require), progress, common)


class _NoBar:
    """Stands for the progress bar of a call without one."""

    call = None

    def detach(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


_NO_BAR = _NoBar()


def _bar(progress, func, iterable):
    """Shows a progress bar, if the call asks for one."""
    if not progress:
        return _NO_BAR
    from farpool._progress import Bar

    return Bar(_name(func), _length(iterable))


def _name(func):
    return getattr(func, "__qualname__", None) or type(func).__qualname__


def _labels(require):
    return list(require.items()) if require else []


def _absolute(working_dir):
    """Checks a directory and returns its absolute path; None if there is none."""
    if working_dir is None:
        return None
    from farpool import _directory

    return _directory.path(working_dir)


def _names(modules):
    """Checks the names of modules."""
    modules = (modules,) if isinstance(modules, str) else tuple(modules)
    for name in modules:
        if not isinstance(name, str):
            raise TypeError(f"preload must be names of modules, not {name!r}")
    return modules


def _environment(env, processes, logging):
    """Returns the environment variables to add for the workers. `processes`: how many share this machine, or None on a cluster.
    `logging`: whether what they log comes here."""
    added = {str(key): str(value) for key, value in dict(env or {}).items()}
    # All workers compute the same hashes of strings, on all hosts. They are also those of this process if it has the variable itself.
    added.setdefault("PYTHONHASHSEED", os.environ.get("PYTHONHASHSEED") or _hash_seed)
    if processes is not None and not any(name in added or name in os.environ for name in _THREADS):
        share = max(1, _usable_cpus() // processes)
        added.update(dict.fromkeys(_THREADS, str(share)))
    if logging:
        from farpool import _logging

        added[_logging.VARIABLE] = _logging.levels()
    return list(added.items())


def _initializer(initializer, initargs, surroundings):
    """Packs the initializer and its arguments."""
    if initializer is None:
        return b"", b""
    function = _functions.dump(initializer, (), surroundings)
    return b"i" + function.data, _farpool.encode_value(initargs, _functions.ItemPickler(function.published))


_PLAIN = (int, str, float, bool, bytes, type(None))


def _is_constant(func):
    """Returns whether a packed callable can be kept for later calls: it lives long, and its changes are noticed."""
    if isinstance(func, types.BuiltinFunctionType):
        # Others are methods of an object, which may change.
        return func.__self__ is None or isinstance(func.__self__, types.ModuleType)
    if isinstance(func, types.FunctionType):
        defaults = (*(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).values())
        if not func.__closure__ and not func.__dict__ and all(type(each) in _PLAIN for each in defaults):
            return True
    return _functions.is_global(func)


def _is_plain(sample):
    kind = type(sample)
    return kind in _PLAIN or (kind in (tuple, list) and all(type(each) in _PLAIN for each in sample))


def _is_small(value):
    """Returns whether a value takes no more room than a reference to it."""
    kind = type(value)
    if kind in (str, bytes, tuple, list):
        return len(value) < 16 and _is_plain(value)
    return kind in _PLAIN


def _first(iterable):
    """Returns the first element as a sample of the others, if that is cheap; otherwise None."""
    return iterable[0] if type(iterable) in (list, tuple) and iterable else None


def _length(iterable):
    """Returns how many elements this has; None if that is not known."""
    try:
        length = operator.length_hint(iterable, -1)
    except Exception:
        return None
    return None if length < 0 else length


def _usable_cpus():
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _end_all():
    """Terminates all pools before the interpreter exits."""
    pools = list(_open_pools)
    for pool in pools:
        # No warning for pools that are still open, as in multiprocessing.
        pool._state = TERMINATE
        pool._session.close(True)
    # The threads that are in a user's code may stay there.
    _farpool.end_threads(0.1)
    until = time.monotonic() + 1
    for pool in pools:
        pool._session.wait_closed(until - time.monotonic())


atexit.register(_end_all)
