"""CPython's tests of its own pool, run against farpool's."""

import importlib.util
import multiprocessing
import unittest

import pytest

import farpool

if importlib.util.find_spec("test._test_multiprocessing") is None:
    pytest.skip("this Python comes without its tests", allow_module_level=True)

# The tests look up `multiprocessing.Pool` when they are imported, and when they run.
_theirs = multiprocessing.Pool
multiprocessing.Pool = farpool.Pool
from test import _test_multiprocessing as theirs  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def in_its_place():
    multiprocessing.Pool = farpool.Pool
    yield
    multiprocessing.Pool = _theirs


multiprocessing.Pool = _theirs


class Processes(theirs.ProcessesMixin):
    Pool = staticmethod(farpool.Pool)


class TestPool(theirs._TestPool, Processes, unittest.TestCase):
    pass


class TestPoolWorkerErrors(theirs._TestPoolWorkerErrors, Processes, unittest.TestCase):
    pass


class TestPoolWorkerLifetime(theirs._TestPoolWorkerLifetime, Processes, unittest.TestCase):
    # It starts another interpreter, which tests CPython's pool.
    test_worker_finalization_via_atexit_handler_of_multiprocessing = None
