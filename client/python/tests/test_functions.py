"""What can be a function, an argument and a result."""

import collections
import dataclasses
import enum
import functools
import math
import os
import pickle
import subprocess
import sys
import textwrap
import types

import pytest

import farpool
from farpool import Pool, _farpool


class Point(collections.namedtuple("Point", "x y")):
    def plus(self, n):
        return Point(self.x + n, self.y + n)


def test_functions_of_modules(pool):
    assert pool.map(math.sqrt, [4.0, 9.0]) == [2.0, 3.0]
    assert pool.map(Point(1, 2).plus, [1, 2]) == [Point(2, 3), Point(3, 4)]
    assert pool.map(functools.partial(pow, 2), [3, 4]) == [8, 16]
    assert pool.map(str.upper, ["a"]) == ["A"]
    assert pool.map(Point._make, [(1, 2)]) == [Point(1, 2)]


def test_lambdas_and_closures(pool):
    factor = 3
    assert pool.map(lambda n: n * factor, [1, 2]) == [3, 6]

    def count(n):
        return 0 if n == 0 else 1 + count(n - 1)

    assert pool.map(count, [5]) == [5]

    def with_defaults(n, /, m=2, *, k=factor):
        return n * m * k

    assert pool.map(with_defaults, [1]) == [6]
    assert pool.map(lambda n: json_of(n), [[1]]) == ["[1]"]


def test_functions_as_arguments(pool):
    factor = 2
    assert pool.map(call, [lambda: 1, lambda: factor, min]) == [1, 2, None]
    with Pool(1, initializer=lambda f: f(), initargs=(lambda: None,)) as other:
        assert other.apply(call, (lambda: 3,)) == 3


def call(function):
    return None if function is min else function()


def json_of(value):
    import json

    return json.dumps(value)


def test_classes_in_functions(pool):
    class Local:
        def __init__(self, n):
            self.n = n

        def double(self):
            return self.n * 2

    assert pool.map(lambda n: Local(n).double(), [1, 2]) == [2, 4]


VALUES = [
    None,
    True,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**63,
    10**50,
    1.5,
    float("inf"),
    "",
    "text",
    "\u20ac\U0001f600",
    "\ud800",
    b"",
    b"bytes",
    (),
    (1, "a", (None, 2.5), b"x"),
    [],
    [1, [2], {"a": 3}],
    {},
    {"a": 1, 2: (3, 4)},
    {"nested": {"a": [1]}},
    {1, 2},
    Point(1, 2),
    bytearray(b"x"),
    complex(1, 2),
    range(3),
    Ellipsis,
    int,
    math,
]


@pytest.mark.parametrize("value", [value for value in VALUES if value is not math], ids=repr)
def test_values_survive(value):
    encoded = _farpool.encode_value(value)
    decoded = _farpool.decode_value(encoded)
    assert decoded == value and type(decoded) is type(value)


def test_values_arrive(pool):
    values = [value for value in VALUES if value is not math]
    arrived = pool.map(same, values)
    assert arrived == values
    assert [type(value) for value in arrived] == [type(value) for value in values]


def same(value):
    return value


def test_subclasses_and_shared_objects_stay_what_they_are():
    class_of = lambda value: type(_farpool.decode_value(_farpool.encode_value(value)))  # noqa: E731
    assert class_of(collections.OrderedDict(a=1)) is collections.OrderedDict
    assert class_of(Colour.RED) is Colour
    inner = []
    first, second = _farpool.decode_value(_farpool.encode_value((inner, inner)))
    assert first is second
    deep = ()
    for _ in range(100):
        deep = (deep,)
    assert _farpool.decode_value(_farpool.encode_value(deep)) == deep


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize("bytes", [b"", b"\xff", b"\x03", b"\x05\xff\xff\xff\xff", b"\x07\xff\xff\xff\xff", b"\x0b\x01"])
def test_broken_values_are_refused(bytes):
    with pytest.raises(ValueError):
        _farpool.decode_value(bytes)


def test_numpy(pool):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(1_000_000, dtype="f8").reshape(1000, 1000)
    results = pool.map(numpy.negative, [array, array[::2], array[0]])
    for result, given in zip(results, [array, array[::2], array[0]]):
        assert (result == -given).all() and result.flags.writeable
    frozen = array.copy()
    frozen.flags.writeable = False
    assert not pool.apply(is_writable, (frozen,))
    assert pool.apply(is_writable, (array,))
    assert pool.map(total, [{"a": array, "b": [array]}]) == [2 * array.sum()]


def test_arrays_are_aligned_and_of_any_size(pool):
    numpy = pytest.importorskip("numpy")
    for shape in [(0,), (1,), (63,), (64, 3), (1, 2, 3), (1 << 20,)]:
        array = numpy.ones(shape, dtype="u1")
        misalignment, result = pool.apply(misaligned, (array,))
        assert misalignment == misaligned(result)[0] == 0
        assert result.shape == shape and (result == 1).all()
    assert pool.apply(length_of_each, ([pickle.PickleBuffer(b"abc"), pickle.PickleBuffer(bytearray(70))],)) == [3, 70]


def misaligned(array):
    return array.ctypes.data % 64, array


def length_of_each(buffers):
    return [len(memoryview(buffer)) for buffer in buffers]


def test_numpy_arrays_beside_objects_that_travel_by_value(run_script):
    pytest.importorskip("numpy")
    script = """
        import numpy
        from farpool import Pool

        class Job:
            def __init__(self, n):
                self.n = n

        def total(item):
            return [part.sum() if isinstance(part, numpy.ndarray) else part.n for part in item]

        with Pool(1) as pool:
            items = [(numpy.full(5, n), Job(n), numpy.full(5, 2 * n), numpy.full(5, 3 * n)) for n in (1, 2)]
            print([[int(part) for part in parts] for parts in pool.imap(total, iter(items))])
    """
    assert run_script(script) == "[[5, 1, 10, 15], [10, 2, 20, 30]]\n"


def is_writable(array):
    return array.flags.writeable


def total(arrays):
    return arrays["a"].sum() + arrays["b"][0].sum()


def test_large_values(pool):
    large = b"x" * (5 << 20)
    assert pool.map(len, [large] * 3) == [5 << 20] * 3
    assert pool.apply(bytes, (5 << 20,)) == bytes(5 << 20)


SCRIPT = """
    import dataclasses, enum, os, sys
    from collections import namedtuple
    from farpool import Pool

    Pair = namedtuple("Pair", "a b")
    DATA = None
    BASE = 100

    @dataclasses.dataclass
    class Job:
        n: int
        def run(self):
            return Job(self.n + helper(self.n))

    class Colour(enum.Enum):
        RED = 1

    class Odd(Exception):
        def __init__(self, n):
            super().__init__(n)
            self.n = n

    def helper(n):
        return BASE + n

    def setup(data):
        global DATA
        DATA = data

    def task(n):
        return helper(n) + DATA

    def fails(n):
        raise Odd(n)

    def run(job):
        return job.run(), Pair(job.n, Colour.RED)

    pool = Pool(2, setup, (1000,))
    print(pool.map(task, range(3)))
    jobs = pool.map(run, [Job(1), Job(2)])
    print(jobs, isinstance(jobs[0][0], Job), type(jobs[0][1]) is Pair, jobs[0][1].b is Colour.RED)
    try:
        pool.map(fails, [7])
    except Odd as error:
        print("Odd", error.n)
    print(pool.map(lambda job: job.n, [Job(5)]), pool.apply(Job.run, (Job(3),)))

    def helper(n):
        return -n

    print(pool.map(task, [1]))
    print(list(pool.imap(run, iter([Job(1)])))[0][0])
    def read():
        return sorted(name for name in globals() if not name.startswith("_"))
    assert os.environ.get("FARPOOL_ROLE") is None
    print(pool.apply(lambda: os.environ.get("FARPOOL_ROLE")), pool.apply(read)[:2])
"""

PRINTED = """\
[1100, 1101, 1102]
[(Job(n=102), Pair(a=1, b=<Colour.RED: 1>)), (Job(n=104), Pair(a=2, b=<Colour.RED: 1>))] True True True
Odd 7
[5] Job(n=106)
[999]
Job(n=0)
None ['BASE', 'Colour']
"""


@pytest.mark.parametrize("how", ["file", "-c", "stdin"])
def test_a_script(run_script, address, how):
    assert run_script(SCRIPT, how=how, FARPOOL_ADDRESS=address) == PRINTED


def test_a_script_with_modules_beside_it(run_script, address, tmp_path):
    (tmp_path / "beside.py").write_text("from inside.deep import three\ndef twice(n): return 2 * three(n)\n")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "__init__.py").write_text("")
    (tmp_path / "inside" / "deep.py").write_text("class Odd(Exception): pass\ndef three(n): return 3 * n\n")
    script = """
        import beside
        import inside.deep
        from farpool import Pool
        with Pool(2) as pool:
            print(pool.map(beside.twice, [1, 2]), pool.map(lambda n: inside.deep.three(n), [1]))
    """
    assert run_script(script, FARPOOL_ADDRESS=address) == "[6, 12] [3]\n"


def test_the_example_of_the_documentation(run_script):
    script = """
        from farpool import Pool

        def f(x):
            return x*x

        if __name__ == '__main__':
            with Pool(5) as p:
                print(p.map(f, [1, 2, 3]))
    """
    assert run_script(script) == "[1, 4, 9]\n"


def test_functions_of_modules_that_workers_cannot_import(pool):
    module = types.ModuleType("made_up")
    exec("BASE = 5\ndef inner(n): return n + BASE\ndef outer(n): return inner(n)", module.__dict__)
    sys.modules["made_up"] = module
    try:
        assert pool.map(module.outer, [1]) == [6]
    finally:
        del sys.modules["made_up"]


def test_too_much_in_a_function_is_refused():
    data = bytes((1 << 30) + 1)
    with Pool(1) as pool, pytest.raises(ValueError, match="initializer"):
        pool.map(lambda n: data[n], [1])


def test_an_unpicklable_global_is_named(pool):
    import threading

    lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        pool.map(lambda n: lock, [1])


def test_methods_of_builtin_objects_see_their_object_as_it_is(pool):
    table = {1: 1}
    assert pool.map(table.get, [1]) == [1]
    table[1] = 2
    assert pool.map(table.get, [1]) == [2]


def test_closures_see_their_variables_as_they_are(pool):
    factor, seen = 1, []
    function = lambda n: (n * factor, len(seen))  # noqa: E731
    assert pool.map(function, [3]) == [(3, 0)]
    factor = 2
    seen.append(factor)
    assert pool.map(function, [3]) == [(6, 1)]


REDEFINED = """
    from farpool import Pool

    def one():
        return 1

    def two():
        return 2

    def task(_):
        return which()

    def early(n):
        return helper(n)

    with Pool(1) as pool:
        for which in (one, two, one):
            print(pool.map(task, [0]))
        try:
            pool.map(early, [0])
        except NameError as error:
            print(error)
        def helper(n):
            return n + 1
        print(pool.map(early, [0]))
"""


def test_functions_that_are_defined_again_are_the_latest(run_script):
    assert run_script(REDEFINED) == "[1]\n[2]\n[1]\nname 'helper' is not defined\n[1]\n"


CHANGED = """
    import threading, time
    from farpool import Pool

    LIMIT = 1
    TABLE = {"a": 1}
    CALLS = 0
    SET = None
    CACHE = {}
    LATER = 0
    GONE = 5

    def setup():
        global SET
        SET = "initializer"
        CACHE["model"] = LATER

    def factor():
        return 10

    def task(seconds):
        global CALLS
        CALLS += 1
        time.sleep(seconds)
        return LIMIT * factor(), TABLE["a"], SET, CACHE["model"]

    def calls(_):
        global CALLS
        CALLS += 1
        return CALLS

    def has_gone(_):
        try:
            return GONE
        except NameError:
            return "gone"

    def everywhere(function, seconds=0.05):
        seen = set(pool.map(function, [seconds] * 8, chunksize=1))
        assert len(seen) == 1, seen
        return seen.pop()

    with Pool(2, setup) as pool:
        # Only one worker gets the first values.
        print(pool.apply(task, (0,)))
        LIMIT = 2
        TABLE["a"] = 2
        SET = CACHE["model"] = "client"
        LATER = 3
        def factor():
            return 100
        print(everywhere(task))
        LIMIT = 3
        slow = pool.map_async(task, [0.02] * 20, chunksize=1)
        LIMIT = 4
        fast = pool.map_async(task, [0.02] * 20, chunksize=1, priority=1)
        print(set(slow.get()), set(fast.get()))
        print(everywhere(has_gone))
        del GONE
        print(everywhere(has_gone))
    with Pool(1) as pool:
        print([pool.apply(calls, (1,)), pool.apply(calls, (1,)), pool.map(calls, [1])])
        CALLS = 10
        print(pool.apply(calls, (1,)))
"""

AS_THEY_WERE = """\
(10, 1, 'initializer', 0)
(200, 2, 'initializer', 0)
{(300, 2, 'initializer', 0)} {(400, 2, 'initializer', 0)}
5
gone
[1, 2, [3]]
11
"""


def test_a_call_sees_the_globals_as_they_were_when_it_began(run_script, address):
    assert run_script(CHANGED, FARPOOL_ADDRESS=address) == AS_THEY_WERE


def test_what_a_function_consists_of_may_change(run_script):
    script = """
        from farpool import Pool

        class Settings:
            factor = 1

        def decorate(function):
            def inner(n):
                return function(n) * Settings.factor * inner.factor * steps[0]
            steps = [1]
            inner.steps = steps
            return inner

        @decorate
        def helper(n):
            return n

        helper.factor = 1

        def task(n):
            return helper(n)

        with Pool(1) as pool:
            print(pool.map(task, [1]))
            Settings.factor = 2
            print(pool.map(task, [1]))
            helper.factor = 3
            print(pool.map(task, [1]))
            helper.steps[0] = 5
            print(pool.map(task, [1]))
    """
    assert run_script(script) == "[1]\n[2]\n[6]\n[30]\n"


WRAPPED = """
    import functools, os
    from farpool import Pool

    @functools.cache
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    @functools.lru_cache(maxsize=7, typed=True)
    def bounded(n):
        return n

    bounded.unit = "m"

    @functools.singledispatch
    def describe(value):
        return ["object", value]

    @describe.register
    def _(value: int):
        return ["int", value]

    @describe.register(list)
    def _(value):
        return [describe(each) for each in value]

    def logged(function):
        @functools.wraps(function)
        def inner(*args):
            return "logged", function(*args)
        return inner

    @logged
    def twice(n):
        return 2 * n

    class Shape:
        @functools.lru_cache
        def area(self):
            return 3

        @functools.cached_property
        def name(self):
            return "shape"

        @functools.singledispatchmethod
        def grow(self, by):
            return "unknown"

        @grow.register
        def _(self, by: int):
            return by + self.area()

    def through_globals(n):
        return fibonacci(n), bounded(n), bounded.cache_info().maxsize, bounded.unit, describe([n, "x"]), twice(n)

    def of_shape(shape):
        return shape.area(), shape.name, shape.grow(1), shape.grow("x")

    def cached(_):
        bounded(1)
        return bounded.cache_info().hits

    with Pool(2) as pool:
        print(pool.map(fibonacci, [30, 80]), pool.map(bounded, [1]), pool.map(describe, [1, ["x", 2]]), pool.map(twice, [2]))
        print(pool.map(through_globals, [10]))
        print(pool.map(of_shape, [Shape()]))
        print(pool.apply(lambda function: function(3), (fibonacci,)), pool.apply(lambda: describe) is describe)
        @describe.register
        def _(value: str):
            return ["str", value]
        print(pool.map(describe, ["x"]))
    with Pool(1) as pool:
        print([pool.apply(cached, (1,)) for _ in range(3)])
"""

UNWRAPPED = """\
[832040, 23416728348467685] [1] [['int', 1], [['object', 'x'], ['int', 2]]] [('logged', 4)]
[(55, 10, 7, 'm', [['int', 10], ['object', 'x']], ('logged', 20))]
[(3, 'shape', 4, 'unknown')]
2 True
[['str', 'x']]
[0, 1, 2]
"""


def test_functions_of_a_script_that_are_wrapped(run_script, address):
    assert run_script(WRAPPED, FARPOOL_ADDRESS=address) == UNWRAPPED


def test_a_wrapper_that_pickles_by_name_is_refused(run_script):
    script = """
        import functools, pickle
        from farpool import Pool

        class ByName:
            def __init__(self, function):
                functools.update_wrapper(self, function)
            def __call__(self, *args):
                return self.__wrapped__(*args)
            def __reduce__(self):
                return self.__qualname__

        @ByName
        def wrapped(n):
            return n

        with Pool(1) as pool:
            try:
                pool.map(wrapped, [1])
            except pickle.PicklingError as error:
                print(error)
    """
    printed = run_script(script)
    assert "wrapped" in printed and "ByName" in printed and "by name" in printed


NESTED = """
    import dataclasses, enum
    from farpool import Pool

    class Outer:
        class Inner:
            @dataclasses.dataclass
            class Deep:
                n: int
                def double(self):
                    return Outer.Inner.Deep(2 * self.n)

            class Colour(enum.Enum):
                RED = 1

        class Failure(Exception):
            pass

        @staticmethod
        def make(n):
            return Outer.Inner.Deep(n)

        @classmethod
        def create(cls, n):
            return cls.Inner.Deep(n)

    def double(deep):
        return deep.double(), Outer.Inner.Colour.RED

    def fail(n):
        raise Outer.Failure(n)

    def main():
        with Pool(2) as pool:
            print(pool.map(double, [Outer.Inner.Deep(1)]))
            print(pool.map(Outer.Inner.Deep, [1]), pool.map(Outer.Inner.Deep.double, [Outer.Inner.Deep(2)]))
            print(pool.map(Outer.make, [3]), pool.map(Outer.create, [4]))
            print(pool.map(lambda each: each, [Outer.Inner.Colour.RED, Outer.Inner, 5, Outer.Inner.Deep(6)]))
            print(type(pool.apply(Outer.Inner.Deep, (7,))) is Outer.Inner.Deep)
            try:
                pool.map(fail, [8])
            except Outer.Failure as error:
                print("Failure", error)

    if __name__ == "__main__":
        main()
"""

UNNESTED = """\
[(Outer.Inner.Deep(n=2), <Colour.RED: 1>)]
[Outer.Inner.Deep(n=1)] [Outer.Inner.Deep(n=4)]
[Outer.Inner.Deep(n=3)] [Outer.Inner.Deep(n=4)]
[<Colour.RED: 1>, <class '__main__.Outer.Inner'>, 5, Outer.Inner.Deep(n=6)]
True
Failure 8
"""


def test_classes_in_classes_of_a_script(run_script, address):
    assert run_script(NESTED, FARPOOL_ADDRESS=address) == UNNESTED


def test_a_module_of_a_package_that_is_run(address, tmp_path):
    package = tmp_path / "pack" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (tmp_path / "pack" / "above.py").write_text("def three(n):\n    return 3 * n\n")
    (package / "beside.py").write_text("class Odd(Exception):\n    pass\n")
    text = """
        from farpool import Pool
        from . import beside
        from ..above import three

        class Job:
            def __init__(self, n):
                self.n = n

        def task(job):
            from .. import above
            from .beside import Odd
            assert Odd is beside.Odd
            return Job(above.three(job.n) + three(job.n)), __package__

        if __name__ == "__main__":
            with Pool(2) as pool:
                [(job, package)] = pool.map(task, [Job(1)])
                print(type(job) is Job, job.n, package)
    """
    (package / "program.py").write_text(textwrap.dedent(text))
    (package / "__main__.py").write_text(textwrap.dedent(text))
    for name in ("pack.inner.program", "pack.inner"):
        command = [sys.executable, "-m", name]
        environment = {**os.environ, "FARPOOL_ADDRESS": address}
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, cwd=tmp_path)
        assert ran.stdout == "True 6 pack.inner\n", ran.stdout + ran.stderr


def test_a_script_in_a_process_of_multiprocessing(run_script, address):
    # There the script is the module `__mp_main__`.
    script = """
        import multiprocessing
        from farpool import Pool

        FACTOR = 2

        class Job:
            class Part:
                def __init__(self, n):
                    self.n = n

        class Odd(Exception):
            pass

        def helper(n):
            return FACTOR * n

        def task(part):
            if part.n == 0:
                raise Odd("zero")
            return Job.Part(helper(part.n))

        def child():
            with Pool(2) as pool:
                [part] = pool.map(task, [Job.Part(3)])
                print(task.__module__, type(part) is Job.Part, part.n)
                try:
                    pool.apply(task, (Job.Part(0),))
                except Odd as error:
                    print("Odd", error, flush=True)

        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=child)
            process.start()
            process.join()
    """
    assert run_script(script, FARPOOL_ADDRESS=address) == "__mp_main__ True 6\nOdd zero\n"


def test_classes_of_modules_that_workers_cannot_import(pool):
    module = types.ModuleType("made_up_too")
    exec("class Job:\n    n = 1\n    def get(self): return self.n\ndef task(n): return Job().get() + n", module.__dict__)
    sys.modules["made_up_too"] = module
    try:
        assert pool.map(module.task, [1]) == [2]
    finally:
        del sys.modules["made_up_too"]


def test_what_only_a_fork_inherits_is_refused_with_advice(address):
    import multiprocessing

    lock, array = multiprocessing.Lock(), multiprocessing.RawArray("i", 3)

    class Local:
        pass

    with pytest.raises(RuntimeError, match="Lock objects.*through inheritance; workers of farpool.*Manager") as raised:
        Pool(1, address=address, initializer=print, initargs=(lock, Local()))
    assert raised.value.__cause__ is None and raised.value.__suppress_context__
    with Pool(1, address=address) as pool:
        with pytest.raises(TypeError, match="mmap.*; workers of farpool.*shared_memory"):
            pool.map(lambda at: array[at], range(3))


class Counted:
    pickled = 0

    def __reduce__(self):
        Counted.pickled += 1
        return Counted, ()


def test_arguments_of_a_call_are_pickled_once(pool):
    Counted.pickled = 0
    for _ in range(10):
        pool.apply(type, (Counted(),))
    assert Counted.pickled == 10
