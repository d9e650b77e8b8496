"""Which globals travel with functions, and whether they have changed.

A task sees the globals of the client's script as they were when its call began. Each global that is sent has a version. A worker
sets the global only if it has another version, so it keeps what an initializer or a task has made of it until the client changes it.
"""

import sys
import types
from _pickle import dumps
from _thread import allocate_lock
from itertools import count

# The names of the client's script.
MAINS = ("__main__", "__mp_main__")
# Stands for what does not exist.
MISSING = object()

_MOST_HOMES = 64
_PLAIN = (int, str, float, bool, bytes, complex, type(None), type(...), range)

_homes: dict = {}
_homes_lock = allocate_lock()
_numbers = count(1)


class Home:
    """The globals of a module, or of code that belongs to no module, as workers know them by `name`."""

    def __init__(self, name, variables):
        self.name = name
        self.variables = variables
        # The value, its fingerprint (see `print_of`) and its version, by the name of the global.
        self._sent = {}

    def version(self, name, value):
        """Returns the version of a global. `value`: MISSING if it does not exist. Returns None if it never existed."""
        known = self._sent.get(name)
        if known is None and value is MISSING:
            return None
        if known is not None and _is_same(known[0], value) and known[1].is_current():
            return known[2]
        watch = Watch()
        watch.content(value)
        version = next(_numbers)
        self._sent[name] = value, watch, version
        return version


def home_of(variables):
    """Returns the home of a function with these globals."""
    with _homes_lock:
        home = _homes.pop(id(variables), None)
        if home is None:
            home = Home(_name(variables), variables)
            if len(_homes) >= _MOST_HOMES:
                # The least recently used.
                del _homes[next(iter(_homes))]
        _homes[id(variables)] = home
    return home


def _name(variables):
    name = variables.get("__name__")
    if isinstance(name, str) and getattr(sys.modules.get(name), "__dict__", None) is variables:
        return "__main__" if name in MAINS else name
    return f"<globals {next(_numbers)}>"


class Watch:
    """What something was packed from, to find out whether that has changed."""

    def __init__(self):
        self._values = []
        self._lengths = []
        self._cells = []
        self._functions = set()
        self._stays = True

    def value(self, mapping, name, value):
        """Watches a value of a dict. `value`: MISSING if it has none of this name."""
        self._values.append((mapping, name, value, self._kept(value)))

    def content(self, value):
        """Watches an object that is never replaced."""
        printed = self._kept(value)
        if printed is not None:
            self._values.append(({None: value}, None, value, printed))

    def function(self, function):
        """Watches what a function consists of, other than its code and its globals."""
        if function in self._functions:
            return
        self._functions.add(function)
        if is_dispatching(function):
            self.attributes(function.registry)
            return
        for cell in function.__closure__ or ():
            content = _content(cell)
            self._cells.append((cell, content, self._kept(content)))
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.content(value)
        if function.__dict__:
            self.attributes(function.__dict__)

    def _kept(self, value):
        if isinstance(value, types.FunctionType):
            self.function(value)
        printed = print_of(value)
        self._stays = self._stays and printed is not UNKNOWN
        return printed

    def attributes(self, attributes):
        """Watches all values of a dict."""
        self._lengths.append((attributes, len(attributes)))
        for name, value in attributes.items():
            self.value(attributes, name, value)

    def cls(self, cls):
        """Watches the attributes of a class."""
        self._lengths.append((cls.__dict__, len(cls.__dict__)))
        for name, value in cls.__dict__.items():
            printed = None if name.startswith("_") else print_of(value)
            # Most of the others are descriptors, which nobody changes.
            self._values.append((cls.__dict__, name, value, None if printed is UNKNOWN else printed))

    def is_current(self):
        """Returns whether all of it is as it was."""
        if not self._stays:
            return False
        for mapping, name, value, printed in self._values:
            if mapping.get(name, MISSING) is not value or (printed is not None and print_of(value) != printed):
                return False
        for cell, value, printed in self._cells:
            if _content(cell) is not value or (printed is not None and print_of(value) != printed):
                return False
        return all(len(mapping) == length for mapping, length in self._lengths)


def is_dispatching(function):
    """Returns whether a function was made by `functools.singledispatch`."""
    return (
        function.__code__.co_name == "wrapper"
        and function.__globals__.get("__name__") == "functools"
        and "registry" in function.__dict__
    )


# The fingerprint of a value whose changes cannot be noticed.
UNKNOWN = object()


def print_of(value):
    """Returns a fingerprint that changes with this object; None if it cannot change, or is watched in another way."""
    kind = type(value)
    if value is MISSING or kind in _PLAIN or issubclass(kind, (type, types.FunctionType, types.ModuleType, types.BuiltinFunctionType)):
        return None
    if kind is tuple and all(type(each) in _PLAIN for each in value):
        return None
    try:
        pickled = dumps(value, 5)
    except Exception:
        return UNKNOWN
    return len(pickled), hash(pickled)


def _is_same(old, new):
    """Returns whether a global has the same value as before, apart from changes of the object itself."""
    return old is new or (type(old) is type(new) and type(old) in _PLAIN and old == new)


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:
        # The variable is not set yet.
        return MISSING
