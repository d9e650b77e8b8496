"""`Pool(logging=True)`."""

import logging
import multiprocessing.pool
from _pickle import dumps

import pytest

from farpool import Pool, _logging

logger = logging.getLogger("test_logging.work")


def work(number):
    logger.info("item %d", number, extra={"number": number, "odd": lambda: None})
    logging.getLogger("test_logging.quiet").info("not at this level")
    logging.debug("not at the level of the root")
    if number == 3:
        try:
            raise ValueError("three")
        except ValueError:
            logger.exception("it failed")
    if number == 5:
        raise KeyError("five")
    return number


def flood(number):
    for at in range(number):
        logger.warning("%s", "x" * 1000)
    return number


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("no")


def unsendable(number):
    logger.warning("before")
    return lambda: None if number else Unpicklable()


@pytest.fixture
def records():
    class Kept(logging.Handler):
        def emit(self, record):
            kept.append(record)

    kept, handler = [], Kept()
    loggers = {"": logging.WARNING, "test_logging": logging.INFO, "test_logging.quiet": logging.ERROR}
    before = {name: logging.getLogger(name or None).level for name in loggers}
    for name, level in loggers.items():
        logging.getLogger(name or None).setLevel(level)
    logging.root.addHandler(handler)
    yield kept
    logging.root.removeHandler(handler)
    for name, level in before.items():
        logging.getLogger(name or None).setLevel(level)


@pytest.fixture
def logging_pool(address, records):
    with Pool(2, address=address, logging=True) as pool:
        yield pool


def messages(records):
    return sorted(record.getMessage() for record in records if record.name.startswith("test_logging"))


def test_records_arrive_with_level_and_label(logging_pool, records, address):
    assert logging_pool.map(work, range(4)) == [0, 1, 2, 3]
    assert messages(records) == ["it failed", "item 0", "item 1", "item 2", "item 3"]
    by_message = {record.getMessage(): record for record in records}
    failed, item = by_message["it failed"], by_message["item 1"]
    assert failed.levelno == logging.ERROR and "ValueError: three" in failed.exc_text and failed.exc_info is None
    assert (item.levelno, item.number, item.funcName, item.name) == (logging.INFO, 1, "work", "test_logging.work")
    assert item.processName.startswith("PoolWorker-") and (" on " in item.processName) == (address != "local")
    assert item.odd.startswith("<function")
    assert item.process != logging.LogRecord("", 0, "", 0, "", (), None).process


def test_every_call_brings_its_records(logging_pool, records):
    pool = logging_pool
    assert pool.apply(work, (0,)) == 0
    assert pool.apply_async(work, (1,)).get() == 1
    assert list(pool.imap(work, [2])) == [2]
    assert pool.map_async(work, [4]).get() == [4]
    assert messages(records) == ["item 0", "item 1", "item 2", "item 4"]


def test_records_of_items_that_fail(logging_pool, records):
    with pytest.raises(KeyError, match="five"):
        logging_pool.map(work, [5, 6, 7, 5])
    assert messages(records) == ["item 5", "item 5", "item 6", "item 7"]
    records.clear()
    with pytest.raises(multiprocessing.pool.MaybeEncodingError, match="Error sending result.*lambda"):
        logging_pool.apply(unsendable, (1,))
    assert messages(records) == ["before"]


def test_too_many_records_are_counted(logging_pool, records):
    assert logging_pool.map(flood, [3000, 1]) == [3000, 1]
    arrived = sum(record.name == "test_logging.work" for record in records)
    [note] = [record.getMessage() for record in records if record.name == "farpool"]
    assert 500 < arrived < 1500 and note.startswith(f"{3001 - arrived} log records")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_handler_that_fails_costs_no_result(logging_pool, records):
    class Fails(logging.Handler):
        def handle(self, record):
            if record.getMessage() == "item 3":
                raise RuntimeError("no disk")

    handler = Fails()
    logging.getLogger("test_logging").addHandler(handler)
    try:
        assert logging_pool.map(work, [1, 3]) == [1, 3]
    finally:
        logging.getLogger("test_logging").removeHandler(handler)
    assert messages(records) == ["it failed", "item 1"]


def test_levels_are_those_at_the_time_of_handling(logging_pool, records):
    logging.getLogger("test_logging").setLevel(logging.ERROR)
    assert logging_pool.map(work, [1, 3]) == [1, 3]
    assert messages(records) == ["it failed"]


def test_without_the_option_nothing_is_sent(pool, records):
    assert pool.map(work, [1]) == [1]
    assert messages(records) == []


def test_records_of_the_initializer(address, records):
    with Pool(1, flood, (1,), address=address, logging=True) as pool:
        assert pool.map(abs, [-1]) == [1]
    assert len(messages(records)) == 1


def log_with_own_handlers(path):
    own = logging.getLogger("test_logging.own")
    own.propagate = False
    for handled in (own, logging.root):
        handled.addHandler(logging.FileHandler(path))
    own.warning("own")
    logger.warning("root")


def test_only_the_clients_handlers_are_called(logging_pool, records, tmp_path):
    path = tmp_path / "log"
    logging_pool.apply(log_with_own_handlers, (str(path),))
    assert messages(records) == ["own", "root"]
    assert path.read_text() == ""


def test_records_arrive_without_a_call_of_get(logging_pool, records):
    result = logging_pool.apply_async(work, (1,))
    result.wait()
    assert messages(records) == ["item 1"]
    assert result.ready() and result.get() == 1
    assert messages(records) == ["item 1"]


def test_one_record_that_is_too_large(logging_pool, records):
    logging_pool.apply(log_text, (2 << 20,))
    assert messages(records) == []
    assert [record.getMessage()[:20] for record in records] == ["1 log records of an "]


def log_text(length):
    logger.warning("x" * length)


def log_at_level(level):
    logger.log(level, "loud")


def test_levels_have_the_names_of_this_process(logging_pool, records):
    logging.addLevelName(37, "LOUD")
    logging_pool.apply(log_at_level, (37,))
    assert [record.levelname for record in records] == ["LOUD"]


def test_records_are_handled_once_although_ctrl_c_interrupts(records):
    class Interrupts(logging.Handler):
        def emit(self, record):
            if record.getMessage() == "second" and not interrupted:
                interrupted.append(True)
                raise KeyboardInterrupt

    def record(message):
        return dumps(vars(logging.makeLogRecord({"name": "test_logging.work", "levelno": 30, "msg": message})), 5)

    interrupted, handler = [], Interrupts()
    data = dumps(([record("first"), record("second"), record("third")], 0), 5)
    logging.getLogger("test_logging.work").addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _logging.handle(data)
        _logging.handle(data)
        # Until its outcome is decoded.
        _logging.handle(data)
    finally:
        logging.getLogger("test_logging.work").removeHandler(handler)
    # The handler that was interrupted comes before the one that keeps them.
    assert messages(records) == ["first", "third"]
    _logging.forget_handled()
    _logging.handle(data)
    assert messages(records) == ["first", "first", "second", "third", "third"]


def test_what_no_outcome_brings_is_printed(address, run_script):
    text = """
    import logging, sys, farpool

    def begin(fails):
        logging.getLogger("work").warning("begins")
        if fails:
            raise OSError("no")

    for fails in (True, False):
        try:
            with farpool.Pool(1, begin, (fails,), logging=True) as pool:
                print(pool.map(abs, [-1]))
        except farpool.InitializerFailed:
            print("failed")
    sys.exit(3)
    """
    shown = run_script(text, expect=3, FARPOOL_ADDRESS=address)
    assert shown.startswith("failed\n[1]\n")
    # Of the first pool a worker has printed it, of the second one a handler of this process.
    assert [line.partition("WARNING:")[1:] for line in shown.splitlines() if "begins" in line] == [("WARNING:", "work:begins"), ("", "")]


def test_workers_that_cannot_be_forked(tmp_path, run_script):
    (tmp_path / "far_threads.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    text = """
    import logging, multiprocessing, os
    from farpool import Pool

    def work(number):
        logging.getLogger("work").warning("here")
        return multiprocessing.current_process().name, os.environ.get("FARPOOL_LOGGING")

    logging.basicConfig(format="%(processName)s %(message)s", handlers=[logging.FileHandler("log")])
    with Pool(1, address="local", preload=["far_threads"], logging=True) as pool:
        print(pool.apply(work, (0,)))
    print(open("log").read(), end="")
    """
    assert run_script(text) == "('PoolWorker-1', None)\nPoolWorker-1 here\n"
