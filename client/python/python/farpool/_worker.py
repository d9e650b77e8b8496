"""What runs in fork servers and workers besides tasks: how functions are loaded, and exceptions described.

The compiled half calls this. It is imported before anything else in each of these processes, so it imports little.
"""

import gc
import os
import sys
import types
from _pickle import dumps, loads

from farpool import _farpool

# Functions by what they were loaded from: calls in a row often have the same.
_loaded: dict = {}
_MOST_LOADED = 256
_prepared = False
# The number of this worker in its pool.
_number = 0
# Globals of functions that belong to no module.
_private: dict = {}


def serve():
    """Becomes a fork server and its workers; does not return in a process that was started for that."""
    sys.argv[:] = sys.argv[1:] or [""]
    _farpool.serve()
    sys.exit("this process belongs to a pool of farpool, and cannot be started by hand")


# ---- called by the compiled half


def before_fork():
    """Prepares the fork server; called before each fork."""
    global _prepared
    if not _prepared:
        _prepared = True
        # The environment that a task passes on must not make another program a part of this pool.
        for name in ("FARPOOL_ROLE", "FARPOOL_PROGRAM"):
            os.environ.pop(name, None)
        # What workers share with this process stays shared: no collection touches it.
        gc.freeze()
    flush()


def begin(number):
    """Prepares a new worker, which has this number in its pool."""
    global _number
    _number = number
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)


def flush():
    """Writes what tasks have printed."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                # Its reader is gone, or the task has closed it.
                pass


def end():
    """Runs the exit handlers of a worker."""
    import atexit

    atexit._run_exitfuncs()
    flush()


def load(data):
    """Returns the function that `farpool._functions.dump` has packed."""
    function = _loaded.get(data)
    if function is None:
        if len(_loaded) >= _MOST_LOADED:
            _loaded.clear()
        function = _loaded[data] = loads(data)[0]
    return function


def describe(error):
    """Packs an exception: its pickle, its traceback and its text."""
    import traceback

    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        pickled = dumps(error, 5)
    except Exception as why:
        return describe_unsendable(why, error)
    return _packed(pickled, lines, error)


def describe_unsendable(why, value):
    """Packs what became of a result, or an exception, that cannot be pickled."""
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


def start(authkey, initializer, initargs):
    """Prepares a worker before its first item: the initializer of pools whose client has imported multiprocessing."""
    from multiprocessing import process

    own = process.current_process()
    # Proxies of managers, and other connections, prove with it that they belong to the client.
    own.authkey = authkey
    # Programs tell workers apart by these.
    own.name, own._identity = f"PoolWorker-{_number + 1}", (_number + 1,)
    if initializer is not None:
        initializer(*initargs)


# ---- named in what `farpool._functions` pickles


def namespace(name):
    """Returns the globals that functions of this module share in this process."""
    if name in ("__main__", "__mp_main__"):
        # Functions of a program's own script live in the worker's own, so that they see each other's globals.
        return sys.modules["__main__"].__dict__
    if name.startswith("<"):
        return _private.setdefault(name, {"__name__": name, "__builtins__": __builtins__})
    module = sys.modules.get(name)
    if module is None:
        try:
            import importlib

            module = importlib.import_module(name)
        except ImportError:
            module = sys.modules.setdefault(name, types.ModuleType(name))
    return module.__dict__


def make_function(code, home, name, cells):
    """Makes a function without its state, and with this many empty cells."""
    import marshal

    cells = tuple(types.CellType() for _ in range(cells))
    return types.FunctionType(marshal.loads(code), namespace(home), name, None, cells)


def set_function(function, state):
    """Sets the state of a function, and puts the globals that it uses where it finds them."""
    attributes, contents, shared, published = state
    for name, value in attributes.items():
        setattr(function, name, value)
    for cell, content in zip(function.__closure__ or (), contents):
        if content:
            cell.cell_contents = content[0]
    home = function.__globals__
    for name, value in shared.items():
        if isinstance(value, (types.FunctionType, type, types.ModuleType)):
            home[name] = value
        else:
            # What an initializer or another task has set stays.
            home.setdefault(name, value)
    if published:
        home[function.__name__] = function


def publish_class(set_state, cls, state):
    """Sets the state of a class, and puts it where pickles name it."""
    set_state(cls, state)
    setattr(sys.modules["__main__"], cls.__qualname__, cls)


def import_modules(name, *submodules):
    """Imports a module, and those of its submodules that a function uses."""
    import importlib

    module = importlib.import_module(name)
    for submodule in submodules:
        importlib.import_module(submodule)
    return module


def main_module():
    """Returns the module that functions of a program's own script live in."""
    return sys.modules["__main__"]
