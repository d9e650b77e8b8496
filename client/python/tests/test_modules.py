"""Modules named with py_modules, and missing modules."""

import sys

import pytest

from farpool import Pool


def absolute(name):
    """Calls a function of a module that is imported by the task."""
    return __import__("importlib").import_module(name).triple(7)


@pytest.fixture
def packages(tmp_path):
    """A folder outside sys.path with a module, a package and a package without __init__.py."""
    folder = tmp_path / "elsewhere"
    for package in ("far_package", "far_namespace"):
        (folder / package / "deep" / "__pycache__").mkdir(parents=True)
        (folder / package / "deep" / "module.py").write_text("from .. import base\ndef triple(n): return base.THREE * n\n")
        (folder / package / "base.py").write_text("THREE = 3\n")
        (folder / package / "deep" / "__pycache__" / "module.pyc").write_bytes(b"garbage")
    (folder / "far_package" / "__init__.py").write_text("")
    (folder / "far_package" / "table.txt").write_text("a table")
    (folder / "far_module.py").write_text("def triple(n): return 3 * n\n")
    return folder


def read_table():
    from importlib.resources import files

    return files("far_package").joinpath("table.txt").read_text()


def test_modules_named_by_their_paths(address, packages):
    named = [packages / "far_module.py", str(packages / "far_package"), packages / "far_namespace"]
    with Pool(1, address=address, py_modules=named) as pool:
        for name in ("far_module", "far_package.deep.module", "far_namespace.deep.module"):
            assert pool.apply(absolute, (name,)) == 21
        assert pool.apply(read_table) == "a table"


def test_modules_named_by_their_names(address, packages, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
    import far_module

    with Pool(1, address=address, py_modules=[far_module, "far_package.deep", "far_namespace"]) as pool:
        for name in ("far_module", "far_package.deep.module", "far_namespace.deep.module"):
            assert pool.apply(absolute, (name,)) == 21
    del sys.modules["far_module"]


@pytest.mark.parametrize("wrong", ["no_such_module", "no/such/path", "no_such_file.py", "math", "_farpool_missing.part"])
def test_what_cannot_be_sent_is_refused(wrong):
    for named in (wrong, [wrong]):
        with pytest.raises(ValueError, match="py_modules"):
            Pool(1, py_modules=named)


@pytest.mark.cluster
def test_a_compiled_module_must_be_installed(cluster, packages):
    (packages / "far_package" / "fast.so").write_bytes(b"")
    with pytest.raises(ValueError, match="far_package must be installed on the hosts"):
        Pool(1, address=cluster, py_modules=[packages / "far_package"])


def test_a_missing_module_is_named_with_its_host_and_interpreter(address):
    with Pool(1, address=address) as pool, pytest.raises(ModuleNotFoundError, match="no_such_package") as raised:
        pool.apply(absolute, ("no_such_package.part",))
    assert raised.value.name == "no_such_package"
    if address != "local":
        message = str(raised.value)
        assert sys.executable in message and "on host " in message and "py_modules=['no_such_package']" in message
        assert message.count("on host") == 1


def test_the_script_finds_its_modules_whatever_it_adds_to_the_path(run_script, address, tmp_path):
    (tmp_path / "beside.py").write_text("def twice(n): return 2 * n\n")
    (tmp_path / "added" / "spaces" / "deep").mkdir(parents=True)
    (tmp_path / "added" / "spaces" / "deep" / "inside.py").write_text("def triple(n): return 3 * n\n")
    script = """
        import os, sys
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "added"))
        import beside
        import spaces.deep.inside
        from farpool import Pool
        with Pool(1) as pool:
            print(pool.map(beside.twice, [1]), pool.map(spaces.deep.inside.triple, [1]))
    """
    assert run_script(script, FARPOOL_ADDRESS=address) == "[2] [3]\n"


@pytest.mark.cluster
def test_a_function_of_a_module_that_was_loaded_later(cluster, packages, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
    with Pool(1, address=cluster) as pool:
        import far_module

        with pytest.raises(ModuleNotFoundError, match="py_modules=.'far_module'."):
            pool.map(far_module.triple, [1])
    del sys.modules["far_module"]
