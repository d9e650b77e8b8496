"""Jobs that the coordinator of a cluster keeps."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import NamedTuple

from farpool import _farpool, _pool


def attach(name, address=None):
    """Returns the detached job of this name, as a `DetachedJob`.

    `address`: the address of the coordinator that keeps it, by default that in the variable FARPOOL_ADDRESS. Raises ValueError if there
    is no such job, or if no Python program detached it, and `Unavailable` if the coordinator cannot be reached or keeps no jobs.
    """
    address = address or os.environ.get("FARPOOL_ADDRESS")
    if not address or address == "local":
        raise ValueError(
            f"attach {name!r}: set FARPOOL_ADDRESS to the address of the coordinator that keeps the job, or pass address="
        )
    return _farpool.attach(address, name)


class Detach:
    """A call whose job the coordinator will keep, returned by `Pool.detach`.

    Its methods block until the coordinator has the whole job on disk, and nothing runs before. Then they return a `DetachedJob`. If they
    raise an exception, the coordinator keeps nothing. Their arguments are those of the pool's methods.
    """

    def __init__(self, pool, name):
        self._owner, self._name = pool, name

    def map(self, func, iterable, chunksize=None, *, timeout=None, retries=2, priority=0, require=None):
        """Detaches a job that calls `func` with each element."""
        return self._send(b"1", func, iterable, chunksize, (timeout, retries, priority, require))

    def starmap(self, func, iterable, chunksize=None, *, timeout=None, retries=2, priority=0, require=None):
        """As `map`, but each element has the arguments of one call."""
        return self._send(b"*", func, iterable, chunksize, (timeout, retries, priority, require))

    def apply(self, func, args=(), kwds={}, *, timeout=None, retries=2, priority=0, require=None):
        """Detaches a job of one call: it has one result."""
        how, value = _pool.arguments(args, kwds)
        return self._send(how, func, [value], None, (timeout, retries, priority, require))

    def _send(self, how, func, iterable, chunksize, options):
        return self._owner._detach(self._name, how, func, iterable, chunksize, options)


class DetachedStatus(NamedTuple):
    """The progress of a detached job, returned by `DetachedJob.status`."""

    #: "receiving" (not yet complete on the coordinator's disk), "running", "finished", "cancelled" or "failed" (its pool cannot run).
    state: str
    items: int
    #: The number of items with an outcome, failed ones included.
    done: int
    failed: int
    #: When it was detached, when it ended, and when it will be dropped. None if that is not known yet.
    detached_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None


def status(state, items, done, failed, *times_ms):
    """Creates a `DetachedStatus`. `times_ms`: milliseconds since 1970, 0 if unknown."""
    times = [datetime.fromtimestamp(ms / 1000, timezone.utc) if ms else None for ms in times_ms]
    return DetachedStatus(state, items, done, failed, *times)
