"""The Python side of fork servers and workers: loads functions and describes exceptions.

The compiled half calls it. Each of these processes imports it first, so it imports little itself.
"""

import gc
import os
import sys
import types
from _pickle import dumps, loads

from farpool import _farpool

# What the function was loaded from that was loaded last, and the function: calls in a row often have the same.
_latest: tuple = None, None
_prepared = False
# This worker's number in its pool, from 0.
_number = 0
# Globals of functions that belong to no module.
_private: dict = {}


def serve():
    """Runs a fork server and its workers. Never returns: exits if this process was not started for that."""
    sys.argv[:] = sys.argv[1:] or [""]
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
        # The collector would write to these objects, and so copy the pages that workers share with this process.
        gc.freeze()
    flush()


def begin(number):
    """Prepares a new worker with this number."""
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
                # The reader has gone, or the task has closed the stream.
                pass


def end():
    """Runs the exit handlers of a worker."""
    import atexit

    atexit._run_exitfuncs()
    flush()


def load(data):
    """Loads a function that `farpool._functions.dump` has packed."""
    global _latest
    if data != _latest[0]:
        # Even one that was loaded before: others may have replaced what it uses of `__main__`.
        _latest = None, None
        _latest = data, loads(data)[0]
    return _latest[1]


def describe(error):
    """Packs an exception: its pickle, traceback and text."""
    import traceback

    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        pickled = dumps(error, 5)
    except Exception as why:
        return describe_unsendable(why, error)
    return _packed(pickled, lines, error)


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


def start(authkey, initializer, initargs):
    """Prepares a worker for multiprocessing, then calls the user's initializer. Used if the client has imported multiprocessing."""
    from multiprocessing import process

    own = process.current_process()
    # With this key, manager proxies and other connections authenticate to the client's processes.
    own.authkey = authkey
    # Programs use these to tell workers apart.
    own.name, own._identity = f"PoolWorker-{_number + 1}", (_number + 1,)
    if initializer is not None:
        initializer(*initargs)


# ---- called by the pickles of `farpool._functions`


def namespace(name):
    """Returns the globals that functions of this module share in this process."""
    if name in ("__main__", "__mp_main__"):
        # Functions of the client's script share the worker's `__main__`, so that they see each other's globals.
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
    """Creates a function without its state. `cells`: how many variables its closure has, which are empty."""
    import marshal

    cells = tuple(types.CellType() for _ in range(cells))
    return types.FunctionType(marshal.loads(code), namespace(home), name, None, cells)


def set_function(function, state):
    """Sets the state of a function, and defines the globals that it uses."""
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
            # Keep what an initializer or another task has set.
            home.setdefault(name, value)
    if published:
        home[function.__name__] = function


def publish_class(set_state, cls, state):
    """Sets the state of a class, and defines it in `__main__`, where pickles look it up."""
    set_state(cls, state)
    setattr(sys.modules["__main__"], cls.__qualname__, cls)


def import_modules(name, *submodules):
    """Imports a module and the submodules that a function uses."""
    import importlib

    module = importlib.import_module(name)
    for submodule in submodules:
        importlib.import_module(submodule)
    return module


def main_module():
    """Returns the worker's `__main__`, which the functions of the client's script share."""
    return sys.modules["__main__"]
