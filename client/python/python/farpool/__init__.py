"""A process pool that never hangs, says what died, and scales from one machine to a cluster.

Change one import of a program that uses `multiprocessing.Pool`:

>>> from farpool import Pool
>>> from math import factorial
>>> with Pool(4) as p:
...     results = p.map(factorial, range(1, 101))
>>> len(results)
100

It runs on this machine, or on the cluster whose coordinator `FARPOOL_ADDRESS` or `Pool(address=...)` names.
"""

from __future__ import annotations

# The module of each name, which is imported at first use: workers need none of these, and must start quickly.
_MODULES = {
    "Pool": "farpool._pool",
    "AsyncResult": "farpool._farpool",
    "IMapIterator": "farpool._farpool",
    "attach": "farpool._detached",
    "Detach": "farpool._detached",
    "DetachedJob": "farpool._farpool",
    "DetachedStatus": "farpool._detached",
    "Shared": "farpool._shared",
    "Error": "farpool._errors",
    "WorkerDied": "farpool._errors",
    "TimedOut": "farpool._errors",
    "AgentLost": "farpool._errors",
    "Cancelled": "farpool._errors",
    "PayloadTooLarge": "farpool._errors",
    "InitializerFailed": "farpool._errors",
    "Unavailable": "farpool._errors",
    "TimeoutError": "farpool._errors",
    "slot": "farpool._farpool",
    "ThreadPool": "multiprocessing.pool",
    "__version__": "farpool._farpool",
}

__all__ = [name for name in _MODULES if not name.startswith("_")]


def __getattr__(name):
    try:
        module = _MODULES[name]
    except KeyError:
        raise AttributeError(f"module 'farpool' has no attribute {name!r}") from None
    import importlib

    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(_MODULES))
