"""Runs the suite on this machine, and also on a cluster if its daemons are available.

FARPOOL_BINARIES names the folder with `farpool-coordinator` and `farpool-agent`; without it only this machine is tested.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from farpool import Pool

BINARIES = os.environ.get("FARPOOL_BINARIES")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """The address of a coordinator with two agents of two slots."""
    if not BINARIES:
        pytest.skip("FARPOOL_BINARIES is not set")
    folder = tmp_path_factory.mktemp("cluster")
    daemons = []

    def start(name, log, *arguments):
        programs = str(folder / f"{log}-programs")
        with open(folder / log, "w") as out:
            command = [os.path.join(BINARIES, name), "--programs", programs, *arguments]
            daemons.append(subprocess.Popen(command, stdout=out, stderr=out))

    start("farpool-coordinator", "coordinator", "--listen", "127.0.0.1:0", "--journal", str(folder / "journal"))
    until = time.monotonic() + 20
    while not (found := re.search(r"listening address=(\S+)", (folder / "coordinator").read_text())):
        assert time.monotonic() < until, (folder / "coordinator").read_text()
        time.sleep(0.01)
    for number in range(2):
        start("farpool-agent", f"agent{number}", "--coordinator", found[1], "--slots", "2")
    yield found[1]
    for daemon in reversed(daemons):
        daemon.terminate()
        daemon.wait(20)


@pytest.fixture(params=["here", pytest.param("cluster", marks=pytest.mark.cluster)])
def address(request):
    """Where a pool runs: tests with this fixture run in both modes."""
    return "local" if request.param == "here" else request.getfixturevalue("cluster")


@pytest.fixture
def pool(address):
    with Pool(2, address=address) as pool:
        yield pool


@pytest.fixture
def run_script(tmp_path):
    """Runs a script in a new interpreter and returns its output."""

    def run(text, *, expect=0, how="file", timeout=30, **environment):
        text = textwrap.dedent(text)
        script = tmp_path / "script.py"
        script.write_text(text)
        command, given = [sys.executable, str(script)], None
        if how == "-c":
            command = [sys.executable, "-c", text]
        elif how == "stdin":
            command, given = [sys.executable], text
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **environment},
            cwd=tmp_path,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + (done.stderr if expect else "")

    return run


@pytest.fixture
def interrupted():
    """A context that a Ctrl-C must end soon."""

    @contextlib.contextmanager
    def interrupted():
        pressed = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        pressed.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            yield
        assert time.monotonic() - began < 2

    return interrupted
