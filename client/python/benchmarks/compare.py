"""Compares farpool with other process pools, in one run.

    python client/python/benchmarks/compare.py [--runs N] [--sides SIDE,...] [--cluster FOLDER] [WORKLOAD ...]

For each workload, one process is started for each side: farpool, multiprocessing.Pool (with fork), ProcessPoolExecutor and joblib, as far
as they are installed. They warm up, and then take turns, one run each, so that changes of the machine's speed affect all of them. The
table has medians, and the ratio of farpool to multiprocessing. Ratios can be compared between machines, figures cannot.

`--cluster FOLDER`: farpool runs on a coordinator and two agents on loopback, whose binaries are in that folder (target/release).
`--side NAME=FILE:PYTHON` adds a side: FILE has a class `Peer` like those in sides.py, and runs with the interpreter PYTHON.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import workloads

HERE = os.path.dirname(os.path.abspath(__file__))
SIDES = ["farpool", "multiprocessing", "executor", "joblib"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="how many runs of each (9)")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--side", action="append", default=[], metavar="NAME=FILE:PYTHON")
    parser.add_argument("--cluster", metavar="FOLDER")
    parser.add_argument("--json", metavar="FILE", help="append all values")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(workloads.ALL))
    arguments = parser.parse_args()
    sides = {name: (name, sys.executable) for name in arguments.sides.split(",") if is_there(name)}
    for given in arguments.side:
        name, _, place = given.partition("=")
        file, _, python = place.rpartition(":")
        sides[name] = os.path.abspath(file), python
    with cluster(arguments.cluster) if arguments.cluster else contextlib.nullcontext() as address:
        print("| workload | unit |", " | ".join(sides), "| farpool / multiprocessing |")
        print("|---" * (len(sides) + 3) + "|")
        for name in arguments.workloads or workloads.ALL:
            measured = compare(name, sides, arguments.runs, address)
            for row in rows(name, measured):
                print(row, flush=True)
            if arguments.json:
                with open(arguments.json, "a") as file:
                    print(json.dumps({"workload": name, "values": measured}), file=file)


def is_there(side):
    if side == "joblib":
        return subprocess.run([sys.executable, "-c", "import joblib"], capture_output=True).returncode == 0
    return True


def compare(name, sides, runs, address):
    """Returns the values of each side: a list for each measure, or why there are none."""
    workload = workloads.ALL[name]
    measured = {side: [] for side in sides}
    processes = {}
    try:
        with spinners() if workload.awake else contextlib.nullcontext():
            for turn in range(runs):
                for side, (which, python) in sides.items():
                    if isinstance(measured[side], str):
                        continue
                    if side not in processes or workload.fresh:
                        processes[side] = Side(name, which, python, address if side == "farpool" else None)
                    outcome = processes[side].run()
                    if isinstance(outcome, str):
                        measured[side] = outcome
                    else:
                        measured[side].append(outcome)
                    if workload.fresh:
                        processes.pop(side).end()
    finally:
        for process in processes.values():
            process.end()
    return measured


def rows(name, measured):
    workload = workloads.ALL[name]
    for number, (what, unit) in enumerate(workload.measures):
        medians = {
            side: statistics.median(run[number] for run in runs) if isinstance(runs, list) else None
            for side, runs in measured.items()
        }
        cells = [shown(medians[side], measured[side]) for side in measured]
        ours, theirs = medians.get("farpool"), medians.get("multiprocessing")
        ratio = f"{ours / theirs:.2f}" if ours and theirs else ""
        yield f"| {name} {what} | {unit} | " + " | ".join(cells) + f" | {ratio} |"


def shown(median, runs):
    if median is None:
        return str(runs)
    return f"{median:,.0f}" if median >= 100 else f"{median:.3g}"


class Side:
    """A process that runs one workload on one pool, whenever it is asked to."""

    def __init__(self, workload, side, python, address):
        # joblib warns about every folder that it leaves.
        environment = dict(os.environ, BENCHMARK_START=repr(time.monotonic()), PYTHONWARNINGS="ignore")
        environment.pop("FARPOOL_ADDRESS", None)
        if address:
            environment["FARPOOL_ADDRESS"] = address
        self._process = subprocess.Popen(
            [python, os.path.join(HERE, "workloads.py"), workload, side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self):
        """Returns the values of one run, or why there are none."""
        try:
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        return json.loads(answer) if answer else "failed"

    def end(self):
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def spinners():
    """Keeps every core awake, with processes of the lowest priority."""
    spin = "import os; os.nice(19)\nwhile True: pass"
    spinning = [subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", spin]) for core in range(os.cpu_count())]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


@contextlib.contextmanager
def cluster(binaries):
    """Runs a coordinator with two agents of one slot each, and returns its address."""
    daemons = []
    with tempfile.TemporaryDirectory() as folder:

        def start(name, log, *arguments):
            with open(os.path.join(folder, log), "w") as out:
                programs = os.path.join(folder, f"{log}-programs")
                command = [os.path.join(binaries, name), "--programs", programs, *arguments]
                daemons.append(subprocess.Popen(command, stdout=out, stderr=out))

        try:
            start("farpool-coordinator", "coordinator", "--listen", "127.0.0.1:0")
            until, address = time.monotonic() + 20, None
            while address is None and time.monotonic() < until:
                with open(os.path.join(folder, "coordinator")) as log:
                    address = re.search(r"listening address=(\S+)", log.read())
                time.sleep(0.01)
            for number in range(2):
                start("farpool-agent", f"agent{number}", "--coordinator", address[1], "--slots", "1")
            yield address[1]
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(20)


if __name__ == "__main__":
    main()
