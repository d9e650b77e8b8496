"""`Pool(logging=True)`: what tasks log reaches the client's handlers, together with the outcome of their item."""

import json
import logging
import os
import sys
from _pickle import dumps, loads
from copy import copy

# The environment variable that tells workers the levels of the client's loggers.
VARIABLE = "FARPOOL_LOGGING"
# An item's records may have this many bytes; more are dropped.
_MOST_BYTES = 1 << 20

# The records that were handled last, and how many of them: if a Ctrl-C comes before their item's outcome is decoded, they come again.
_handled = b"", 0


def levels():
    """Returns the levels of this process's loggers as text, for workers."""
    loggers = list(logging.root.manager.loggerDict.items())
    own = {name: logger.level for name, logger in loggers if isinstance(logger, logging.Logger) and logger.level}
    return json.dumps({"": logging.root.level, **own})


def collect(levels, worker):
    """Sets these levels, and keeps what is logged from now on. `worker`: the name of this process. Returns a function that takes what
    was kept, as bytes; it returns None if there is nothing."""
    for name, level in json.loads(levels).items():
        logging.getLogger(name or None).setLevel(level)
    host = os.environ.get("FARPOOL_HOST")
    collector = _Collector(f"{worker} on {host}" if host else worker)
    # The client's handlers get the record. Modules that are imported here add the same ones, which would handle it again.
    logging.Logger.callHandlers = lambda logger, record: collector.handle(record)
    return collector.take


def handle(data):
    """Handles records that a worker kept as if they had been logged here. Raises the last exception of a handler, if any."""
    global _handled
    records, dropped = loads(data)
    failed = None
    for at in range(_handled[1] if _handled[0] == data else 0, len(records)):
        _handled = data, at + 1
        try:
            _handle(records[at])
        except Exception as error:
            failed = error
    if dropped and _handled != (data, len(records) + 1):
        _handled = data, len(records) + 1
        logging.getLogger("farpool").warning("%s log records of an item were dropped: they had more than 1 MiB", dropped)
    if failed is not None:
        raise failed


def forget_handled():
    """Forgets what was handled last: the outcome that came with it is decoded."""
    global _handled
    _handled = b"", 0


def _handle(attributes):
    record = logging.makeLogRecord(loads(attributes))
    name = logging.getLevelName(record.levelno)
    if not name.startswith("Level "):
        record.levelname = name
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def show(data):
    """Prints records that cannot reach the client with an outcome."""
    if data is not None:
        formatter = logging.Formatter(logging.BASIC_FORMAT)
        for attributes in loads(data)[0]:
            print(formatter.format(logging.makeLogRecord(loads(attributes))), file=sys.stderr)


class _Collector(logging.Handler):
    def __init__(self, worker):
        super().__init__()
        self._worker = worker
        self._records = []
        self._bytes = self._dropped = 0

    def emit(self, record):
        try:
            packed = self._packed(record)
        except Exception:
            self.handleError(record)
            return
        if self._bytes + len(packed) > _MOST_BYTES:
            self._dropped += 1
            return
        self._records.append(packed)
        self._bytes += len(packed)

    def _packed(self, record):
        # Filters and the caller may use it again.
        record = copy(record)
        record.msg, record.args = record.getMessage(), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
        record.processName = self._worker
        try:
            return dumps(vars(record), 5)
        except Exception:
            # Something that was passed as `extra`.
            return dumps({name: value if _is_plain(value) else repr(value) for name, value in vars(record).items()}, 5)

    def take(self):
        if not self._records and not self._dropped:
            return None
        with self.lock:
            records, dropped = self._records, self._dropped
            self._records, self._bytes, self._dropped = [], 0, 0
        return dumps((records, dropped), 5)


def _is_plain(value):
    return type(value) in (str, int, float, bool, type(None))
