"""How functions travel to workers.

Functions that workers can import are sent by name. Functions of the program's script (`__main__`), closures and lambdas are sent as
code, with the globals that they use. In a worker they all share one `__main__`, so tasks see a global that the initializer has set, and
results whose class is defined in `__main__` become instances of the client's class. Only classes need cloudpickle, which is slow to
import.
"""

import copyreg
import io
import marshal
import os
import sys
import types
from _pickle import Pickler, PicklingError
from functools import cached_property, lru_cache, partial
from opcode import opmap

from farpool import _worker
from farpool._globals import MAINS, MISSING, Watch, home_of, is_dispatching

_LOADS = {opmap[name] for name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS") if name in opmap}
_LOAD_GLOBAL = opmap["LOAD_GLOBAL"]
_EXTENDED_ARG = opmap["EXTENDED_ARG"]
# What multiprocessing says of objects that only forks have, such as locks and queues; shared arrays are such mmaps.
_ONLY_INHERITED = "through inheritance", "cannot pickle 'mmap.mmap' object"
# Types that pickle supports although no module exports them.
_NAMELESS = (type(None), type(...), type(NotImplemented))
_CACHED = type(lru_cache(int))
# Whether workers can import a module, by the module's name.
_importable: dict = {}


class Packed:
    """A function as bytes.

    `published`: the names that it defines in a worker's `__main__`.
    """

    def __init__(self, data, published, watch, surroundings):
        self.data = data
        self.published = published
        self._watch = watch
        self._surroundings = surroundings

    def is_current(self, surroundings):
        """Returns whether everything that it was packed from is unchanged."""
        return self._surroundings == surroundings and self._watch.is_current()


def dump(function, classes=(), surroundings=None):
    """Packs a function together with classes of `__main__` whose instances it will be called with, and what the worker needs before it
    loads them."""
    packed, pickler = _dump((_Surroundings(surroundings) if surroundings else None, function, classes))
    return Packed(packed, pickler.published, pickler.watch, surroundings)


def _dump(value, known=frozenset(), buffer_callback=None, reductions=None):
    try:
        return _dump_with(_Pickler, value, known, buffer_callback, reductions)
    except _NeedsCloudpickle:
        # Not again from here: an exception would be shown as one that happened while this one was handled.
        pass
    return _dump_with(_with_cloudpickle(), value, known, buffer_callback, reductions)


def _dump_with(kind, value, known, buffer_callback, reductions):
    packed, buffers = io.BytesIO(), []
    pickler = kind(packed, known, buffers.append if buffer_callback else None, reductions)
    try:
        pickler.dump(value)
    except (RuntimeError, TypeError) as error:
        if any(words in str(error) for words in _ONLY_INHERITED):
            raise type(error)(
                f"{error}; workers of farpool are not forks of this process: use an object of multiprocessing.Manager(), or "
                "multiprocessing.shared_memory, instead"
            ) from None
        raise
    # Only after success: buffers of a failed pickle must not mix with those of the next one.
    for buffer in buffers:
        buffer_callback(buffer)
    return packed.getvalue(), pickler


def dump_value(value, buffer_callback):
    """Packs a value that a worker loads on its own."""
    return _dump(value, frozenset(), buffer_callback)[0]


class ItemPickler:
    """Pickles items that pickle itself cannot pickle, or that refer to `__main__`: what the function has published by name, everything
    else by value."""

    def __init__(self, published):
        self._published = published

    def __call__(self, item, buffer_callback=None):
        try:
            return _dump(item, self._published, buffer_callback)[0]
        except Exception:
            # Sockets, for example.
            reductions = _worker.reductions()
            if not reductions:
                raise
        return _dump(item, self._published, buffer_callback, reductions)[0]


class _Surroundings:
    """Pickles as a call that sets these surroundings in a worker."""

    def __init__(self, surroundings):
        self._surroundings = surroundings

    def __reduce__(self):
        return _worker.surround, self._surroundings


_trackers: dict = {}


def surroundings(is_here):
    """Returns what a worker would inherit if it were a process of multiprocessing: its key and, on this machine, the pipe of its
    resource tracker. None if this process does not use multiprocessing."""
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return None
    tracker = None
    if is_here and "multiprocessing.shared_memory" in sys.modules:
        # Asking it every time would take as long as a small call.
        tracker = _trackers.get(os.getpid())
        if tracker is None:
            from multiprocessing import resource_tracker

            tracker = _trackers[os.getpid()] = os.getpid(), resource_tracker.getfd()
    return bytes(process.current_process().authkey), tracker


class _NeedsCloudpickle(Exception):
    pass


class _Common:
    """How both picklers handle functions, classes and modules."""

    def __init__(self, file, known=frozenset(), buffer_callback=None, reductions=None):
        super().__init__(file, 5, buffer_callback=buffer_callback)
        self._begin(known, reductions)

    def _begin(self, known, reductions):
        if reductions:
            self.dispatch_table = {**getattr(self, "dispatch_table", copyreg.dispatch_table), **reductions}
        # Names that workers already have in `__main__`.
        self._known = known
        self.published = set()
        self.watch = Watch()

    def reducer_override(self, value):
        if isinstance(value, types.FunctionType):
            return NotImplemented if self._travels_by_name(value) else self._function(value)
        if isinstance(value, type):
            return NotImplemented if self._travels_by_name(value) else self._class(value)
        if isinstance(value, types.ModuleType):
            if value.__name__ in MAINS:
                return _worker.main_module, ()
            return _worker.import_modules, (value.__name__,)
        if isinstance(value, cached_property):
            # It has a lock before Python 3.12.
            return _worker.make_cached_property, (type(value), value.func, value.attrname)
        if callable(value) and "__wrapped__" in getattr(value, "__dict__", ()):
            return self._wrapper(value)
        return self._other(value)

    def _travels_by_name(self, value):
        module, qualname = value.__module__, value.__qualname__
        if module in MAINS:
            return qualname in self._known and _found(module, qualname) is value
        if value in _NAMELESS:
            return True
        return _found(module, qualname) is value and _can_import(module)

    def _function(self, function):
        self.watch.function(function)
        if is_dispatching(function):
            return self._dispatching(function)
        code, module, name = function.__code__, function.__module__, function.__name__
        home = home_of(function.__globals__)
        shared = {}
        if home.name == "__main__" or home.name.startswith("<") or not _can_import(home.name):
            shared = self._shared_globals(code, home)
        attributes = {
            "__qualname__": function.__qualname__,
            "__module__": module,
            "__defaults__": function.__defaults__,
            "__kwdefaults__": function.__kwdefaults__,
        }
        if function.__doc__ is not None:
            attributes["__doc__"] = function.__doc__
        attributes.update(function.__dict__)
        cells = [_contents(cell) for cell in function.__closure__ or ()]
        made_from = (marshal.dumps(code), home.name, name, len(cells))
        state = (attributes, self._published(function), cells, home.name, shared)
        return _worker.make_function, made_from, state, None, None, _worker.set_function

    def _wrapper(self, value):
        """Reduces an object that wraps a function and has replaced it, as decorators do."""
        module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(qualname, str) or self._travels_by_name(value):
            return self._other(value)
        if type(value) is _CACHED:
            parameters = value.cache_parameters()
            self.watch.content(value.__wrapped__)
            made_from = (value.__wrapped__, parameters["maxsize"], parameters["typed"])
            return self._rebuilt(value, _worker.make_cached, made_from, ("__wrapped__", "cache_parameters"))
        if module in MAINS and isinstance(value.__reduce_ex__(5), str):
            kind = type(value).__qualname__
            raise PicklingError(f"cannot send {qualname}: a {kind} pickles by name, and workers do not import the script")
        return self._other(value)

    def _dispatching(self, function):
        """Reduces a function of `functools.singledispatch`."""
        implementations = dict(function.registry)
        made_from = (implementations.pop(object), list(implementations.items()))
        own = ("__wrapped__", "register", "dispatch", "registry", "_clear_cache")
        return self._rebuilt(function, _worker.make_dispatching, made_from, own)

    def _rebuilt(self, value, make, made_from, own):
        """Reduces a wrapper to a call of `make`, after which its attributes are set, except those in `own`."""
        attributes = {name: each for name, each in value.__dict__.items() if name not in own}
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            attributes[name] = getattr(value, name)
        return make, made_from, (attributes, self._published(value)), None, None, _worker.set_wrapper

    def _published(self, value):
        """If a function is a global of `__main__`, returns that global, which travels; otherwise an empty dict."""
        published = {}
        module, name = value.__module__, value.__qualname__
        if module in MAINS and "." not in name and _found(module, name) is value:
            self.published.add(name)
            self._share(published, home_of(sys.modules[module].__dict__), name, value)
        return published

    def _shared_globals(self, code, home):
        shared = {}
        if home.variables.get("__package__"):
            # Relative imports inside functions need it.
            self._share(shared, home, "__package__", home.variables["__package__"])
        for name in _global_names(code):
            if name in ("__builtins__", "__loader__", "__spec__"):
                continue
            value = home.variables.get(name, MISSING)
            sent = value
            if isinstance(value, types.ModuleType) and value.__name__ not in MAINS:
                sent = _Module(value, code)
            self._share(shared, home, name, value, sent)
        return shared

    def _share(self, shared, home, name, value, sent=None):
        """Adds a global to those that travel: its version and, if it exists, its value. `sent`: what is pickled in its place."""
        self.watch.value(home.variables, name, value)
        version = home.version(name, value)
        if value is not MISSING:
            shared[name] = version, value if sent is None else sent
        elif version is not None:
            # It existed in an earlier call.
            shared[name] = (version,)

    def _version_of_class(self, cls):
        """Returns the version of a class that is a global of `__main__`, otherwise None."""
        self.watch.cls(cls)
        module, qualname = cls.__module__, cls.__qualname__
        if module not in MAINS or not is_global(cls):
            return None
        self.published.add(qualname)
        return None if "." in qualname else home_of(sys.modules[module].__dict__).version(qualname, cls)


class _Module:
    """Pickles as an import of a module, and of its submodules that a function uses."""

    def __init__(self, module, code):
        self._names = (module.__name__, *_submodules(module.__name__, code))

    def __reduce__(self):
        return _worker.import_modules, self._names


class _Pickler(_Common, Pickler):
    def _class(self, value):
        raise _NeedsCloudpickle

    def _other(self, value):
        return NotImplemented


_cloud = None


def _with_cloudpickle():
    """Returns the pickler that also packs classes."""
    global _cloud
    if _cloud is None:
        from cloudpickle.cloudpickle import Pickler as CloudPickler  # type: ignore[import-untyped]
        from cloudpickle.cloudpickle import _dynamic_class_reduce

        class _CloudPickler(_Common, CloudPickler):
            def __init__(self, file, known=frozenset(), buffer_callback=None, reductions=None):
                CloudPickler.__init__(self, file, 5, buffer_callback=buffer_callback)
                self._begin(known, reductions)
                # Classes whose pickles have begun.
                self._begun = set()

            def _class(self, value):
                outer, _, inner = value.__qualname__.partition(".")
                outermost = _found(value.__module__, outer)
                if inner and isinstance(outermost, type) and outermost not in self._begun and is_global(value):
                    # Pickled as an attribute of its outermost class, which contains it by value.
                    return _worker.attribute, (outermost, inner)
                self._begun.add(value)
                reduced = CloudPickler.reducer_override(self, value)
                if reduced is NotImplemented and is_global(value):
                    # cloudpickle assumes that workers can import every module that is loaded here.
                    reduced = _dynamic_class_reduce(value)
                if reduced is NotImplemented or len(reduced) < 6:
                    return reduced
                return *reduced[:5], partial(_worker.set_class, reduced[5], value.__qualname__, self._version_of_class(value))

            def _other(self, value):
                return CloudPickler.reducer_override(self, value)

        _cloud = _CloudPickler
    return _cloud


def main_has_classes():
    """Returns whether the client's script defines classes."""
    main = sys.modules.get("__main__")
    if main is None:
        return False
    # isinstance would ask objects that stand for others.
    return any(issubclass(type(value), type) and value.__module__ in MAINS for value in list(vars(main).values()))


def classes_in(sample):
    """Returns the classes of `__main__` that this item contains, or has instances of."""
    finder = _Finder(io.BytesIO(), 5)
    try:
        finder.dump(sample)
    except Exception:
        # Pickling the item itself will report the error.
        pass
    return list(finder.classes)


class _Finder(Pickler):
    def __init__(self, file, protocol):
        super().__init__(file, protocol, buffer_callback=lambda _: None)
        self.classes = {}

    def reducer_override(self, value):
        if isinstance(value, type) and value.__module__ in MAINS:
            self.classes[value] = None
        return NotImplemented


def is_global(function):
    """Returns whether this is a function or class that is a global of its module."""
    if not isinstance(function, (types.FunctionType, type, _CACHED)):
        return False
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return isinstance(module, str) and isinstance(qualname, str) and _found(module, qualname) is function


def _found(module, qualname):
    found = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _can_import(name):
    """Returns whether workers can import this module: they have the same `sys.path`."""
    known = _importable.get(name)
    if known is None:
        top = name.partition(".")[0]
        known = _importable[name] = top not in MAINS and _finds(top, sys.modules.get(top))
    return known


def _finds(name, module):
    if name in sys.builtin_module_names:
        return True
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, None)
        except Exception:
            continue
        if spec is not None:
            origin = getattr(getattr(module, "__spec__", None), "origin", None)
            return origin is None or spec.origin == origin
    return False


def _global_names(code):
    """Returns the names of globals that a code object reads, including the functions and classes inside it."""
    names, waiting = {}, [code]
    while waiting:
        code = waiting.pop()
        argument = 0
        instructions = code.co_code
        for at in range(0, len(instructions), 2):
            operation, argument = instructions[at], argument << 8 | instructions[at + 1]
            if operation == _EXTENDED_ARG:
                continue
            if operation in _LOADS:
                # Since 3.11 the lowest bit is a flag.
                index = argument >> 1 if operation == _LOAD_GLOBAL and sys.version_info >= (3, 11) else argument
                names[code.co_names[index]] = None
            argument = 0
        waiting.extend(constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return names


def _submodules(name, code):
    """Returns the loaded submodules of a module that a code object may use, as in `os.path`."""
    used, waiting = set(), [code]
    while waiting:
        code = waiting.pop()
        used.update(code.co_names)
        waiting.extend(constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    front = name + "."
    return [
        loaded
        for loaded in list(sys.modules)
        if loaded.startswith(front) and used.issuperset(loaded[len(front) :].split("."))
    ]


def _contents(cell):
    try:
        return (cell.cell_contents,)
    except ValueError:
        # The variable is not set yet.
        return ()
