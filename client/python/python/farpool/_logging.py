"""`Pool(logging=True)`: what tasks log reaches the client's handlers, together with the outcome of their item."""

import json
import logging
import os
from _pickle import dumps, loads
from copy import copy

# Workers find here which loggers have which levels in the client.
VARIABLE = "FARPOOL_LOGGING"
# Of each item, so many bytes of records are kept.
_MOST_BYTES = 1 << 20


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
    logging.root.addHandler(collector)
    return collector.take


def handle(data):
    """Handles records that a worker kept as if they had been logged here. Raises the last exception of a handler, if any."""
    records, dropped = loads(data)
    failed = None
    for attributes in records:
        try:
            record = logging.makeLogRecord(loads(attributes))
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        except Exception as error:
            failed = error
    if failed is not None:
        raise failed
    if dropped:
        logging.getLogger("farpool").warning("%s log records of an item were dropped: it logged more than 1 MiB", dropped)


class _Collector(logging.Handler):
    def __init__(self, worker):
        super().__init__()
        self._worker = worker
        self._records = []
        self._bytes = self._dropped = 0

    def emit(self, record):
        if self._bytes >= _MOST_BYTES:
            self._dropped += 1
            return
        try:
            packed = self._packed(record)
        except Exception:
            self.handleError(record)
            return
        self._records.append(packed)
        self._bytes += len(packed)

    def _packed(self, record):
        # Other handlers get the record, too.
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
        if not self._records:
            return None
        with self.lock:
            records, dropped = self._records, self._dropped
            self._records, self._bytes, self._dropped = [], 0, 0
        return dumps((records, dropped), 5)


def _is_plain(value):
    return type(value) in (str, int, float, bool, type(None))
