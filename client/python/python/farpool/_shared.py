"""Values that are shared with the tasks of a pool."""

from __future__ import annotations

import threading
from types import GenericAlias

from farpool import _functions, _worker

_thread = threading.local()


class Shared:
    """A value that all tasks of a pool share, returned by `Pool.share`.

    Pass it to the pool's calls, alone or inside other arguments: tasks get the value itself. It is freed when this object is gone and
    the calls that were begun before have ended, and at the latest with its pool.
    """

    def __init__(self, session, value):
        buffers = []
        packed = _functions.dump_value(value, buffers.append)
        self._key, self._handle = session.share(packed, buffers)

    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __reduce__(self):
        if getattr(_thread, "detaches", False):
            raise ValueError(
                "a detached job cannot use a shared value, which ends with its pool: pass the value itself"
            )
        return _worker.shared, (self._key,)

    def __del__(self):
        handle = getattr(self, "_handle", None)
        if handle is not None:
            handle.close()


class refusing:
    """A context in which shared values cannot be pickled: what is packed outlives its pool."""

    def __init__(self, refuses=True):
        self._refuses = refuses

    def __enter__(self):
        self._before = getattr(_thread, "detaches", False)
        _thread.detaches = self._refuses

    def __exit__(self, *exc_info):
        _thread.detaches = self._before


class Input:
    """Iterates over the input of a detached job, which may use shared values in calls of its own."""

    def __init__(self, iterable):
        self._values = iter(iterable)

    def __iter__(self):
        return self

    def __next__(self):
        with refusing(False):
            return next(self._values)
