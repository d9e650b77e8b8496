"""The Python side of fork servers and workers: loads functions and describes exceptions.

The compiled half calls it. Each of these processes imports it first, so it imports little itself.
"""

import copyreg
import gc
import os
import sys
import types
from _pickle import dumps, loads

from farpool import _farpool

# The data of the function that was loaded last, and the function: consecutive calls often use the same one.
_latest: tuple = None, None
# Larger data is not kept.
_MOST_LATEST = 1 << 20
# The function whose globals are set.
_active = None
# While a function is loaded, the globals that travel with it, each with the name of its home.
_loading = None
# The versions of the globals that this process has, by the name of their home; see `farpool._globals`.
_versions: dict = {}
# The globals that the initializer has set, by the name of their home: they stay.
_initialized: dict = {}
# Why a module could not be imported before the first fork.
_not_preloaded = None
_prepared = False
# The key and the resource tracker of the client, if it uses multiprocessing.
_surroundings: tuple = None, None
# This worker's number in its pool, from 0.
_number = 0
# The levels of the client's loggers, if what is logged goes to the client.
_levels = None
# Returns what was logged since it was last called; see `farpool._logging.collect`. The compiled half calls it.
take_records = None
# Globals of functions that belong to no module.
_private: dict = {}
_MOST_PRIVATE = 256


def serve(preload=(), directory=None, is_archive=False):
    """Imports these modules, then runs a fork server and its workers. Never returns: exits if this process was not started for
    that. `directory`: where tasks run; None: where this process is. `is_archive`: this program contains that directory."""
    sys.argv[:] = sys.argv[1:] or [""]
    # In a process of multiprocessing, the client's script has this name.
    sys.modules["__mp_main__"] = sys.modules["__main__"]
    global _not_preloaded
    try:
        if is_archive:
            # A worker that is started again begins in the directory that its fork server has unpacked.
            is_started_again = os.environ.get("FARPOOL_ROLE") == "worker"
            directory = os.getcwd() if is_started_again else _import("farpool._directory").unpack(sys.path[0])
            sys.path.insert(0, directory)
        if directory is not None:
            os.chdir(directory)
        for name in preload:
            _import(name)
    except Exception as error:
        # Calls report it.
        _not_preloaded = error
    _farpool.serve()
    sys.exit("farpool: only a pool can start this process, it cannot be started by hand")


# ---- called by the compiled half


def before_fork():
    """Prepares the fork server; called before each fork."""
    global _prepared
    if not _prepared:
        _prepared = True
        # A program that a task starts inherits the environment. It must not take itself for a part of this pool.
        for name in ("FARPOOL_ROLE", "FARPOOL_PROGRAM"):
            os.environ.pop(name, None)
        global _levels
        _levels = os.environ.pop("FARPOOL_LOGGING", None)
        if _levels is not None:
            _import("farpool._logging")
        # The collector would write to these objects, and so copy the pages that workers share with this process.
        gc.freeze()
    flush()


def begin(number):
    """Prepares a new worker with this number."""
    global _number, take_records
    _number = number
    if _levels is not None:
        from farpool import _logging

        take_records = _logging.collect(_levels, _name())
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    sys.meta_path.insert(0, _Late())
    # The fork server may have imported these.
    _prepare_loaded()
    if "numpy.random" in sys.modules:
        # Otherwise all workers would draw the same numbers.
        sys.modules["numpy.random"].seed()


def _name():
    return f"PoolWorker-{_number + 1}"


def flush():
    """Writes what tasks have printed."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except Exception:
                # The reader has gone, or a task has closed the stream, or put something else in its place.
                pass


def end():
    """Runs the exit handlers of a worker, and prints what was logged after its last item."""
    import atexit

    atexit._run_exitfuncs()
    try:
        if take_records is not None:
            from farpool import _logging

            _logging.show(take_records())
    finally:
        flush()


def shared(key):
    """Returns the shared value with this key. Loading it may set globals, to those of the time when it was shared."""
    active = _active
    value = _farpool.find_shared(key, loads)
    if active is not None and _active is not active:
        active.set()
    return value


def load(data):
    """Loads a function that `farpool._functions.dump` has packed. Returns it, and what sets its globals, or None if it has none."""
    global _latest, _loading
    if _not_preloaded is not None:
        raise _not_preloaded
    if data == _latest[0]:
        return _latest[1]
    _latest = None, None
    _loading = globals_used = []
    try:
        function = loads(data)[1]
    finally:
        _loading = None
    loaded = function, _Globals(globals_used) if globals_used else None
    if len(data) <= _MOST_LATEST:
        _latest = data, loaded
    return loaded


class _Globals:
    """The globals of a function."""

    def __init__(self, used):
        self._used = used

    def set(self):
        """Sets them, unless they are set. Functions of other calls may have set others since."""
        global _active
        if _active is not self:
            for home, variables, shared in self._used:
                _define(home, variables, shared)
            _active = self


def initialize(initializer, arguments):
    """Runs an initializer, and notes which globals it has set."""
    homes = {home: namespace(home) for home in {"__main__", *_versions}}
    before = {home: (dict(variables), _prints(home, variables)) for home, variables in homes.items()}
    initializer(*arguments)
    for home, variables in homes.items():
        values, prints = before[home]
        changed = {name for name in {*values, *variables} if values.get(name, _versions) is not variables.get(name, _versions)}
        now = _prints(home, variables)
        changed.update(name for name, printed in prints.items() if now.get(name) != printed)
        _initialized.setdefault(home, set()).update(changed)


def _prints(home, variables):
    """Returns what differs after changes of the objects that are globals."""
    from farpool._globals import UNKNOWN, print_of

    prints = {name: print_of(variables.get(name)) for name in _versions.get(home, ())}
    return {name: printed for name, printed in prints.items() if printed is not UNKNOWN}


def describe(error):
    """Packs an exception: its pickle, traceback and text."""
    import traceback

    if isinstance(error, ModuleNotFoundError):
        _say_where(error)
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        pickled = dumps(error, 5)
    except Exception as why:
        return describe_unsendable(why, error)
    return _packed(pickled, lines, error)


def _say_where(error):
    """Adds to the exception for a missing module on which host of a cluster it is missing, and what to do."""
    host = os.environ.get("FARPOOL_HOST")
    if host and error.name and isinstance(error.msg, str) and sys.executable not in error.msg:
        package = error.name.partition(".")[0]
        error.msg += (
            f" on host {host}, for {sys.executable}: install {package} there, or send a module of your own "
            f"with Pool(py_modules=[{package!r}])"
        )
        error.args = (error.msg, *error.args[1:])


def describe_unsendable(why, value):
    """Packs a `MaybeEncodingError` for a result, or an exception, that cannot be pickled."""
    from multiprocessing.pool import MaybeEncodingError

    error = MaybeEncodingError(why, value)
    return _packed(dumps(error, 5), "", error)


def _packed(pickled, lines, error):
    text = _text(error)
    return dumps((pickled, lines, text, isinstance(error, Exception)), 5), text, lines


def _text(error):
    try:
        return repr(error)
    except Exception:
        return f"an exception of type {type(error).__name__}"


class _Late:
    """Prepares parts of multiprocessing when a task imports them: most workers do not need them."""

    def find_spec(self, name, path=None, target=None):
        prepare = _PREPARED_LATE.get(name)
        if prepare is None:
            return None
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, specs), None)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_prepare(module):
                execute(module)
                prepare(module)

            spec.loader.exec_module = execute_and_prepare
        return spec


def _prepare_process(module):
    own = module.current_process()
    # Programs use these to tell workers apart.
    own.name, own._identity = _name(), (_number + 1,)
    if _surroundings[0]:
        # With this key, manager proxies and other connections authenticate to the client's processes.
        own.authkey = _surroundings[0]


def _prepare_tracker(module):
    # With one of its own, this process would remove shared memory that the client still uses.
    if _surroundings[1] and module._resource_tracker._fd is None:
        client, descriptor = _surroundings[1]
        try:
            pipe = os.open(f"/proc/{client}/fd/{descriptor}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return
        module._resource_tracker._fd = pipe


_PREPARED_LATE = {
    "multiprocessing.process": _prepare_process,
    "multiprocessing.resource_tracker": _prepare_tracker,
}


def _prepare_loaded():
    for name, prepare in _PREPARED_LATE.items():
        if name in sys.modules:
            prepare(sys.modules[name])


def reductions():
    """Returns how multiprocessing pickles what pickle alone cannot: sockets, for example. Empty if it is not used."""
    module = sys.modules.get("multiprocessing.reduction")
    return getattr(module, "ForkingPickler")._extra_reducers if module else {}


def reduce_connections():
    """Makes pickle duplicate connections: otherwise it copies the numbers of their descriptors."""
    import copyreg
    from multiprocessing.connection import Connection, reduce_connection

    if Connection not in copyreg.dispatch_table:
        copyreg.pickle(Connection, reduce_connection)


def dump_with_reductions(value, buffer_callback=None):
    """Pickles what pickle alone cannot. Returns None if multiprocessing is not used."""
    import io
    from _pickle import Pickler

    more = reductions()
    if not more:
        return None
    import copyreg

    packed = io.BytesIO()
    pickler = Pickler(packed, 5, buffer_callback=buffer_callback)
    pickler.dispatch_table = {**copyreg.dispatch_table, **more}
    pickler.dump(value)
    return packed.getvalue()


# ---- called by the pickles of `farpool._functions`


def surround(authkey, tracker):
    """Sets what a process of multiprocessing inherits."""
    global _surroundings
    if _surroundings != (authkey, tracker):
        _surroundings = authkey, tracker
        _prepare_loaded()


def namespace(name):
    """Returns the globals that functions of this module share in this process."""
    if name in ("__main__", "__mp_main__"):
        # Functions of the client's script share the worker's `__main__`, so that they see each other's globals.
        return sys.modules["__main__"].__dict__
    if name.startswith("<"):
        variables = _private.pop(name, None) or {"__name__": name, "__builtins__": __builtins__}
        if len(_private) >= _MOST_PRIVATE:
            # The least recently used.
            oldest = next(iter(_private))
            del _private[oldest]
            _versions.pop(oldest, None)
        _private[name] = variables
        return variables
    module = sys.modules.get(name)
    if module is None:
        try:
            import importlib

            module = importlib.import_module(name)
        except ImportError:
            module = sys.modules.setdefault(name, types.ModuleType(name))
    return module.__dict__


def make_function(code, home, name, cells):
    """Creates a function without its state. `cells`: how many variables its closure has, which are empty."""
    import marshal

    cells = tuple(types.CellType() for _ in range(cells))
    return types.FunctionType(marshal.loads(code), namespace(home), name, None, cells)


def set_function(function, state):
    """Sets the state of a function, and defines the globals that it uses."""
    attributes, published, contents, home, shared = state
    set_wrapper(function, (attributes, published))
    for cell, content in zip(function.__closure__ or (), contents):
        if content:
            cell.cell_contents = content[0]
    if shared:
        _define(home, function.__globals__, shared)


def make_cached(function, maxsize, typed):
    """Creates a function with a cache, which is empty."""
    from functools import lru_cache

    return lru_cache(maxsize, typed)(function)


def make_dispatching(default, implementations):
    """Creates a function with an implementation for each type."""
    from functools import singledispatch

    function = singledispatch(default)
    for kind, implementation in implementations:
        function.register(kind, implementation)
    return function


def make_cached_property(kind, function, name):
    """Creates a `functools.cached_property`."""
    made = kind(function)
    made.attrname = name
    return made


def set_wrapper(wrapper, state):
    """Sets the attributes of a function or what has taken its place, and defines it in `__main__` if it is a global there."""
    attributes, published = state
    for name, value in attributes.items():
        setattr(wrapper, name, value)
    if published:
        _define("__main__", namespace("__main__"), published)


def _define(home, variables, shared):
    """Sets globals that have other versions here."""
    global _active
    if _loading is not None:
        _loading.append((home, variables, shared))
    _active = None
    versions, stay = _versions.setdefault(home, {}), _initialized.get(home, ())
    for name, (version, *value) in shared.items():
        if versions.get(name) != version and name not in stay:
            versions[name] = version
            if value:
                variables[name] = value[0]
            else:
                variables.pop(name, None)


def set_class(set_state, qualname, version, cls, state):
    """Sets the state of a class. If it has a version, also defines it in `__main__`, where pickles look it up."""
    set_state(cls, state)
    # cloudpickle forgets in which class it is.
    cls.__qualname__ = qualname
    if version is not None:
        _define("__main__", namespace("__main__"), {qualname: (version, cls)})


def plain_class(cls):
    """Returns the module and the qualified name of a class if pickle takes its instances apart into these and their attributes;
    otherwise None."""
    if (
        cls.__reduce_ex__ is not object.__reduce_ex__
        or cls.__reduce__ is not object.__reduce__
        or cls.__new__ is not object.__new__
        or cls.__getattribute__ is not object.__getattribute__
        or getattr(cls, "__getstate__", None) is not getattr(object, "__getstate__", None)
        or any(hasattr(cls, name) for name in ("__getattr__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"))
        or cls in copyreg.dispatch_table
        or type(cls) in copyreg.dispatch_table
        or copyreg._slotnames(cls)
        or not cls.__dictoffset__
    ):
        return None
    module, qualname = cls.__module__, cls.__qualname__
    if not isinstance(module, str) or not isinstance(qualname, str):
        return None
    found = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return (module, qualname) if found is cls else None


def attribute(value, names):
    """Returns an attribute of an attribute, and so on."""
    for name in names.split("."):
        value = getattr(value, name)
    return value


def import_modules(name, *submodules):
    """Imports a module and the submodules that a function uses."""
    module = _import(name)
    for submodule in submodules:
        _import(submodule)
    return module


def _import(name):
    import importlib

    return importlib.import_module(name)


def main_module():
    """Returns the worker's `__main__`, which the functions of the client's script share."""
    return sys.modules["__main__"]
