"""The examples run, and the stubs match the code."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import farpool

# The package's README, and the repository's.
READMES = [Path(__file__).parents[1] / "README.md", Path(__file__).parents[3] / "README.md"]


@pytest.mark.parametrize("name", ["farpool", "farpool._pool"])
def test_docstrings(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted and not results.failed


@pytest.mark.parametrize("readme", READMES, ids=["package", "repository"])
def test_the_readme(run_script, readme):
    [example] = re.findall(r"```python\n(.*?)```", readme.read_text(), re.S)
    assert run_script(example) == "finished 100 calculations\n"


def test_the_stubs(tmp_path):
    pytest.importorskip("mypy")
    folder = os.path.dirname(os.path.dirname(farpool.__file__))
    environment = dict(os.environ)
    if "site-packages" not in folder:
        environment["MYPYPATH"] = folder
    command = [sys.executable, "-m", "mypy.stubtest", "farpool", "--concise"]
    checked = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
