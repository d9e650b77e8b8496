"""The exceptions of the package, and functions that restore the exceptions of tasks."""

from __future__ import annotations

import re
from multiprocessing import TimeoutError
from pickle import loads

__all__ = [
    "Error",
    "WorkerDied",
    "TimedOut",
    "AgentLost",
    "Cancelled",
    "PayloadTooLarge",
    "InitializerFailed",
    "Unavailable",
    "TimeoutError",
]


class Error(Exception):
    """A failure that farpool itself reports. The exceptions of tasks keep their types.

    `item` is the index of the item that failed, and `attempts` says how often it was tried; 0 if no worker ran it. `host` and `pid` say
    where it happened, and `stderr` is the end of a dead worker's output. These and `item` are None if unknown.
    """

    item: int | None = None
    host: str | None = None
    pid: int | None = None
    attempts: int = 0
    stderr: str | None = None


class WorkerDied(Error):
    """The worker died while it ran this item, and the item has no retries left.

    `exitcode` is as in `multiprocessing.Process`: the exit status, or the negative number of the signal. None if unknown.
    """

    exitcode: int | None = None


class TimedOut(Error, TimeoutError):
    """The item ran longer than the call's `timeout`."""


class AgentLost(Error):
    """The agent that ran this item was lost, and the item has no retries left."""


class Cancelled(Error):
    """The job was cancelled, or its pool was terminated, before it finished."""


class PayloadTooLarge(Error):
    """The encoded item or result is larger than 2 GiB."""


class InitializerFailed(Error):
    """The initializer failed in a worker, so the pool cannot run anything."""


class Unavailable(Error):
    """Something that the call needs, such as the coordinator, cannot be reached or started."""


_KINDS = {
    "worker_died": WorkerDied,
    "timed_out": TimedOut,
    "agent_lost": AgentLost,
    "cancelled": Cancelled,
    "payload_too_large": PayloadTooLarge,
    "initializer_failed": InitializerFailed,
    "unavailable": Unavailable,
}


def make(kind, message, full_message, details):
    """Creates the exception for an error that farpool itself reports."""
    if kind in ("closed", "invalid_argument"):
        return ValueError(full_message)
    error = _KINDS.get(kind, Error)(full_message)
    for name, value in details.items():
        setattr(error, name, value)
    if kind == "worker_died":
        error.exitcode = _exitcode(message)
    return error


def _exitcode(message):
    if signal := re.search(r"killed by signal (\d+)", message):
        return -int(signal[1])
    if status := re.search(r"exit(?:ed with)?(?: code| status)?:? (\d+)", message):
        return int(status[1])
    return None


def restore(description):
    """Restores the exception of a task, with its traceback as the cause."""
    try:
        pickled, traceback, text, is_exception = loads(description)
    except Exception:
        return Error(description.decode("utf-8", "replace"))
    if not is_exception:
        # A SystemExit or KeyboardInterrupt that is raised here would end this program too.
        error = Error(f"the task raised {text}")
    else:
        try:
            error = loads(pickled)
        except Exception as why:
            error = Error(f"the task raised {text}, which could not be unpickled here: {type(why).__name__}: {why}")
    if traceback:
        from multiprocessing.pool import RemoteTraceback

        error.__cause__ = RemoteTraceback(f'\n"""\n{traceback}"""')
    return error


def undecodable(why):
    """Describes a result that cannot be unpickled."""
    error = Error(f"a result could not be unpickled: {type(why).__name__}: {why}")
    error.__cause__ = why
    return error
