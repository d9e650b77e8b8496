"""How items travel: instances of classes, and what many items have in common."""

import abc
import copyreg
import dataclasses
import multiprocessing
import os
import pickle
import signal
import time

import pytest

from farpool import Pool, _farpool

_NATIVE, _PICKLED = 13, 10


class Plain:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    class Inner:
        def __init__(self):
            self.text = "ü"


class Derived(Plain, abc.ABC):
    kind = "derived"

    def __init__(self):
        super().__init__(1, (2.5, None, b"3"))


@dataclasses.dataclass(frozen=True)
class Frozen:
    n: int
    text: str = "t"


class Guarded:
    """Must not be made or changed in the usual way."""

    def __init__(self, n):
        self.__dict__["n"] = n

    def __setattr__(self, name, value):
        raise AttributeError(name)


class Empty:
    pass


class WithSlots(Plain):
    __slots__ = ("z",)


class OnlySlots:
    __slots__ = ("x",)


class WithState(Plain):
    def __getstate__(self):
        return {"x": self.x + 1}


class SetsState(Plain):
    def __setstate__(self, state):
        self.x = state["x"] + 1


class Reduces(Plain):
    def __reduce__(self):
        return Plain, (1, 2)


class ReducesByProtocol(Plain):
    def __reduce_ex__(self, protocol):
        return Plain, (protocol, 2)


class MadeWithArguments(Plain):
    def __new__(cls, x, y):
        return super().__new__(cls)

    def __getnewargs__(self):
        return self.x, self.y


class MadeInAnotherWay(Plain):
    def __new__(cls, *args):
        instance = super().__new__(cls)
        instance.made = True
        return instance


class Delegates(Plain):
    def __getattr__(self, name):
        raise AttributeError(name)


class AList(list):
    pass


class ADict(dict):
    pass


class AnInt(int):
    pass


class Registered(Plain):
    pass


copyreg.pickle(Registered, lambda value: (Plain, (value.x, "registered")))


def with_attribute(name, value):
    instance = Plain(1, 2)
    setattr(instance, name, value)
    return instance


def with_slot():
    instance = WithSlots(1, 2)
    instance.z = 3
    return instance


def only_slots():
    instance = OnlySlots()
    instance.x = 1
    return instance


def attributes(value):
    slots = {name: getattr(value, name, None) for name in getattr(type(value), "__slots__", ())}
    return type(value), getattr(value, "__dict__", None), slots, list(value) if isinstance(value, (list, dict)) else None


@pytest.mark.parametrize(
    "value",
    [Plain(1, "a"), Derived(), Frozen(2**40), Guarded(1), Empty(), Plain.Inner(), Plain(1 << 40, float("inf"))],
    ids=lambda value: type(value).__name__,
)
def test_plain_instances_are_taken_apart_as_pickle_does(value):
    for given in (value, (1, value), (value, "a")):
        encoded = _farpool.encode_value(given)
        assert encoded[0] != _PICKLED
        for mine, reference in zip(parts(_farpool.decode_value(encoded)), parts(pickle.loads(pickle.dumps(given)))):
            assert attributes(mine) == attributes(reference)


def parts(value):
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize(
    "value",
    [
        with_slot(),
        only_slots(),
        WithState(1, 2),
        SetsState(1, 2),
        Reduces(1, 5),
        ReducesByProtocol(1, 5),
        MadeWithArguments(1, 2),
        MadeInAnotherWay(1, 2),
        Delegates(1, 2),
        AList([1, 2]),
        ADict(a=1),
        AnInt(3),
        Registered(1, 2),
        with_attribute("z", [1]),
        with_attribute("z", Plain(1, 2)),
        with_attribute("z", 2**80),
        ValueError("x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_instances_are_pickled(value):
    encoded = _farpool.encode_value(value)
    assert encoded[0] == _PICKLED
    mine, reference = _farpool.decode_value(encoded), pickle.loads(pickle.dumps(value, 5))
    assert attributes(mine) == attributes(reference)


def test_one_instance_twice_stays_one():
    value = Plain(1, 2)
    first, second = _farpool.decode_value(_farpool.encode_value((value, value)))
    assert first is second


def test_a_class_that_is_not_found_is_an_error(pool):
    class Plain:
        pass

    Plain.__qualname__ = "Plain"
    with pytest.raises((pickle.PicklingError, AttributeError)):
        _farpool.encode_value(Plain())
    with pytest.raises(AttributeError):
        _farpool.decode_value(_farpool.encode_value(Empty()).replace(b"Empty", b"Empti"))
    with pytest.raises(ModuleNotFoundError):
        _farpool.decode_value(_farpool.encode_value(Empty()).replace(b"test_items", b"test_itemz"))


def test_instances_of_the_script(run_script, address):
    script = """
        from farpool import Pool

        class Point:
            def __init__(self, x, y):
                self.x, self.y = x, y

        def move(point, by=1):
            return Point(point.x + by, point.y)

        with Pool(2, address=ADDRESS) as pool:
            points = pool.map(move, [Point(n, "y") for n in range(1000)])
            assert all(type(point) is Point for point in points)
            assert [point.x for point in points] == list(range(1, 1001))
            assert [point.x for point in pool.starmap(move, [(Point(n, None), n) for n in range(100)])] == list(range(0, 200, 2))
            assert pool.apply(move, (Point(1, 2),), {"by": 5}).x == 6
            assert next(pool.imap(move, iter([Point(1, 2)]))).x == 2
            first = Point

            class Point:
                def __init__(self, x, y):
                    self.x, self.y, self.new = x, y, True

            assert all(type(point) is Point and point.new for point in pool.map(move, [Point(1, 2), Point(3, 4)]))
            try:
                print(type(pool.apply(move, (first(1, 2),))).__name__)
            except Exception as error:
                print(type(error).__name__)
    """
    assert run_script(script.replace("ADDRESS", repr(address))) in ("PicklingError\n", "Point\n")


# ---- what items have in common


class Counted:
    """Counts how often it is pickled."""

    def __init__(self):
        self.pickled = 0
        self.changes = []
        self.data = bytes(100_000)

    def __reduce__(self):
        self.pickled += 1
        return _copy, (self.data,)


def _copy(data):
    return Counted()


def change(counted, number):
    counted.changes.append(number)
    return number, counted.changes[:]


def change_it(counted):
    counted.changes.append(1)
    return len(counted.changes)


def test_common_arguments_travel_once(pool):
    counted = Counted()
    results = pool.starmap(change, [(counted, number) for number in range(1000)])
    assert [number for number, _ in results] == list(range(1000))
    # Once to find out which classes it consists of, and once to send it.
    assert counted.pickled == 2
    assert len(pool.map(change_it, [counted] * 1000)) == 1000
    assert pool.starmap_async(change, [(counted, 1)] * 20).get()[19][0] == 1
    assert counted.pickled == 6


def test_common_arguments_are_copied_as_often_as_in_multiprocessing(pool):
    counted = Counted()
    few = [(counted, number) for number in range(8)]
    assert pool.starmap(change, few) == [(number, [number]) for number in range(8)]
    many = [(counted, number) for number in range(400)]
    assert pool.starmap(change, many, chunksize=1) == [(number, [number]) for number in range(400)]
    assert max(len(changes) for _, changes in pool.starmap(change, many, chunksize=7)) <= 7
    assert max(len(changes) for _, changes in pool.starmap(change, many)) <= 50


def test_what_only_some_items_share(pool):
    first, second = Counted(), Counted()
    items = [(first, 1), (first, 2), (second, 3), (second, first), (first, [4])]
    assert [number for number, _ in pool.starmap(change, items[:3])] == [1, 2, 3]
    number, _ = pool.starmap(change, items)[4]
    assert number == [4]
    assert pool.map(type_names, items) == [["Counted", type(second).__name__] for _, second in items]
    shared = [1, 2]
    assert pool.starmap(are_the_same, [(shared, shared), (shared, shared)]) == [True, True]


def type_names(items):
    return [type(item).__name__ for item in items]


def are_the_same(first, second):
    return first is second


def test_arrays_in_common(pool):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(300_000.0)
    assert pool.starmap(at, [(array, index) for index in range(500)]) == list(map(float, range(500)))
    table = {"array": array}
    assert pool.starmap(at_of, [(table, index) for index in range(500)]) == list(map(float, range(500)))


def at(array, index):
    assert array.ctypes.data % 64 == 0
    return float(array[index])


def at_of(table, index):
    return float(table["array"][index])


class Unsendable:
    def __init__(self):
        self.lock = open(os.devnull)  # noqa: SIM115


class Node:
    pass


class Graph:
    def __init__(self):
        self.nodes = [Node() for _ in range(20)]


def is_part(graph, node):
    return node in graph.nodes


def test_an_argument_that_is_a_part_of_another_one_stays_so(pool):
    graph = Graph()
    assert all(pool.starmap(is_part, [(graph, node) for node in graph.nodes]))
    # Only later ones are.
    pairs = [(graph, 0), (graph, 1), *((graph, node) for node in graph.nodes)]
    assert pool.starmap(is_part, pairs) == [False, False, *[True] * 20]


class CountsCopies:
    copies = 0

    def __setstate__(self, state):
        CountsCopies.copies += 1
        self.pad = state

    def __getstate__(self):
        return "x" * 100


def copies_so_far(_, number):
    time.sleep(0.003)
    return os.getpid(), CountsCopies.copies


def test_slow_items_share_a_copy_too(address):
    with Pool(1, address=address) as pool:
        shared = CountsCopies()
        seen = pool.starmap(copies_so_far, [(shared, number) for number in range(40)], chunksize=20)
    # One of them is made where the items are checked for what they have in common.
    assert max(copies for _, copies in seen) <= 3


def send(connection, number):
    connection.send(number)


def test_a_connection_in_common():
    reader, writer = multiprocessing.Pipe()
    with Pool(2, address="local") as pool:
        pool.starmap(send, [(writer, number) for number in range(40)], chunksize=1)
    assert sorted(reader.recv() for _ in range(40)) == list(range(40))


def test_common_arguments_that_cannot_travel(pool):
    unsendable = Unsendable()
    with pytest.raises(TypeError, match="cannot pickle"):
        pool.starmap(at, [(unsendable, 1), (unsendable, 2)])
    unsendable.lock.close()
    assert pool.map(abs, [-1]) == [1]


def die_once(data, marker):
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return len(data)
    os.kill(os.getpid(), signal.SIGKILL)


def test_common_arguments_after_a_worker_died(pool, tmp_path):
    data = bytes(1 << 20)
    assert pool.starmap(die_once, [(data, str(tmp_path / "dead"))] * 50) == [1 << 20] * 50


# ---- large functions


def test_functions_with_large_data(run_script, address):
    script = """
        from functools import partial

        from farpool import Pool

        TABLE = bytes(range(256)) * (100 << 10)

        def look_up(index):
            return TABLE[index]

        def look_up_in(table, index):
            return table[index]

        def closure():
            table = list(range(2_000_000))
            return lambda index: table[index]

        with Pool(2, address=ADDRESS) as pool:
            assert pool.map(look_up, range(0, 2560, 10)) == [n % 256 for n in range(0, 2560, 10)]
            assert pool.map(partial(look_up_in, TABLE), range(100)) == list(range(100))
            assert pool.map(closure(), range(0, 2_000_000, 1000)) == list(range(0, 2_000_000, 1000))
            assert [pool.apply(partial(look_up_in, TABLE[:size]), (size - 1,)) for size in (262_000, 300_000, 5_000_000)]
            TABLE = TABLE[::-1]
            assert pool.map(look_up, [0, 1]) == [255, 254]
            print("done")
    """
    assert run_script(script.replace("ADDRESS", repr(address)), timeout=60) == "done\n"
