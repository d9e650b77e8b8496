"""The program that workers run: this interpreter, with a bootstrap."""

import os
import sys

from farpool import _modules

# `sys.path`, the arguments of `_worker.serve`, the times when modules changed, and this program's arguments follow it on the command line.
# It defines no names in `__main__`, where tasks find their globals.
_LOCAL_BOOTSTRAP = (
    "(lambda sys: (sys.path.__setitem__(slice(None), eval(sys.argv.pop(1))), sys.argv.pop(2), "
    "__import__('farpool._worker', None, None, ['serve']).serve(*eval(sys.argv.pop(1)))))(__import__('sys'))"
)

_CLUSTER_BOOTSTRAP = """\
import sys
if sys.version_info[:2] != {version!r}:
    found = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"farpool: the client runs Python {name}, but {{sys.executable}} on this host is Python {{found}}")
try:
    from farpool import _farpool
except ImportError as error:
    sys.exit(f"farpool: {{error}}: install the package farpool for {{sys.executable}} on this host")
if _farpool.__version__ != {farpool!r}:
    sys.exit(f"farpool: the client has farpool {farpool}, but {{sys.executable}} on this host has {{_farpool.__version__}}")
del sys, _farpool
__import__("farpool._worker", None, None, ["serve"]).serve({preload!r}, is_archive={is_archive})
"""


def for_this_machine(preload, py_modules, directory):
    """Returns the program's file and arguments for workers on this machine. `preload`: names of modules that are imported first.
    `py_modules`: modules that tasks can import, see `Pool`. `directory`: where tasks run; None: where this process is."""
    interpreter = _interpreter()
    path = [entry for entry in sys.path if isinstance(entry, str)]
    path += [folder for folder in _modules.folders(py_modules) if folder not in path]
    if directory is not None:
        # These are relative to the directory of this process.
        path = [directory, *(os.path.abspath(folder) for folder in path)]
    # From its first argument the interpreter finds its virtual environment.
    arguments = [interpreter, *_flags(), "-c", _LOCAL_BOOTSTRAP, repr(path), repr((preload, directory))]
    # A fork server that was kept is used again only if its arguments are the same.
    arguments.append(_modules.times(preload))
    arguments += _own_arguments()
    return interpreter, arguments


def for_cluster(preload, py_modules, directory):
    """Returns the same for a cluster, where tasks run in a copy of the directory. The file's `#!` line names the interpreter, which has
    the same path on each host."""
    from farpool import _farpool

    copied = {}
    if directory is not None:
        from farpool import _directory

        copied = _directory.tracked(directory)
    version = tuple(sys.version_info[:2])
    name = ".".join(map(str, version))
    main = _CLUSTER_BOOTSTRAP.format(version=version, name=name, farpool=_farpool.__version__, preload=preload, is_archive=bool(copied))
    files = _modules.next_to_the_script() | _modules.named(py_modules)
    files = {file: (data, False) for file, data in files.items()} | copied
    return _file(f"#!{_interpreter()}\n".encode(), main, files), ["python", *_own_arguments()]


def _own_arguments():
    return [argument for argument in sys.argv if isinstance(argument, str)]


def _interpreter():
    spawn = sys.modules.get("multiprocessing.spawn")
    interpreter = spawn.get_executable() if spawn else sys.executable
    if isinstance(interpreter, bytes):
        interpreter = os.fsdecode(interpreter)
    name = os.path.basename(interpreter or "")
    if getattr(sys, "frozen", False) or not name.startswith(("python", "pypy")):
        # Each worker would start this whole application.
        raise RuntimeError(
            f"cannot start workers: {interpreter!r} is not a Python interpreter; "
            "set one with multiprocessing.set_executable(...)"
        )
    return interpreter


def _flags():
    """Returns this interpreter's options that affect tasks."""
    flags = sys.flags
    options = [
        ("-O", flags.optimize),
        ("-b", flags.bytes_warning),
        ("-B", flags.dont_write_bytecode),
        ("-s", flags.no_user_site and not flags.isolated),
        ("-S", flags.no_site),
        ("-E", flags.ignore_environment and not flags.isolated),
        ("-I", flags.isolated),
    ]
    given = [option for option, times in options for _ in range(int(times))]
    given += [f"-W{warning}" for warning in sys.warnoptions]
    for option, value in sys._xoptions.items():
        given += ["-X", option if value is True else f"{option}={value}"]
    return given


def _file(shebang, main, files):
    """Writes the program, unless its file exists. Equal contents give equal digests, so that hosts may already have it. `files`: the
    contents of each, and whether it can be executed, by its name."""
    import hashlib
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), main)
        # Without its entry, a directory is no package unless it has an __init__.py.
        folders = {name[: at + 1]: (b"", False) for name in files for at, letter in enumerate(name) if letter == "/"}
        for name, (data, is_executable) in sorted((folders | files).items()):
            entry = zipfile.ZipInfo(name)
            if is_executable:
                entry.external_attr = 0o755 << 16
            archive.writestr(entry, data)
    contents = shebang + packed.getvalue()
    path = os.path.join(_folder(), hashlib.blake2b(contents, digest_size=16).hexdigest())
    if not os.path.exists(path):
        with open(path, "wb") as file:
            file.write(contents)
        os.chmod(path, 0o700)
    return path


_folders: dict = {}


def _folder():
    """Returns a folder that is removed when this process exits, but not when a fork of it does."""
    import atexit
    import shutil
    import tempfile

    own = os.getpid()
    if own not in _folders:
        folder = _folders[own] = tempfile.mkdtemp(prefix="farpool-")
        atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == own else None)
    return _folders[own]
