"""The program that workers run: this interpreter, with a bootstrap."""

import os
import sys

# `sys.path`, the modules to import and this program's arguments follow it on the command line. It defines no names in `__main__`,
# where tasks find their globals.
_LOCAL_BOOTSTRAP = (
    "(lambda sys: (sys.path.__setitem__(slice(None), eval(sys.argv.pop(1))), "
    "__import__('farpool._worker', None, None, ['serve']).serve(eval(sys.argv.pop(1)))))(__import__('sys'))"
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
__import__("farpool._worker", None, None, ["serve"]).serve({preload!r})
"""


def for_this_machine(preload):
    """Returns the program's file and arguments for workers on this machine. `preload`: names of modules that are imported first."""
    interpreter = _interpreter()
    path = [entry for entry in sys.path if isinstance(entry, str)]
    arguments = [os.path.basename(interpreter), *_flags(), "-c", _LOCAL_BOOTSTRAP, repr(path), repr(preload)]
    arguments += _own_arguments()
    return interpreter, arguments


def for_cluster(preload):
    """Returns the same for a cluster. Its `#!` line names the interpreter, which has the same path on each host."""
    from farpool import _farpool

    version = tuple(sys.version_info[:2])
    name = ".".join(map(str, version))
    main = _CLUSTER_BOOTSTRAP.format(version=version, name=name, farpool=_farpool.__version__, preload=preload)
    return _file(f"#!{_interpreter()}\n".encode(), main, _local_modules()), ["python", *_own_arguments()]


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


def _local_modules():
    """Returns the loaded modules that lie in the script's directory or below: their contents by their names in an archive."""
    root = os.path.abspath(sys.path[0]) if sys.path and isinstance(sys.path[0], str) else os.getcwd()
    if root == os.path.dirname(os.__file__):
        return {}
    found = {}
    for module in list(sys.modules.values()):
        file, loader = getattr(module, "__file__", None), getattr(module, "__loader__", None)
        if not isinstance(file, str) or not file.endswith(".py") or not hasattr(loader, "get_data"):
            continue
        parts = os.path.relpath(os.path.abspath(file), root).split(os.sep)
        # Installed packages must exist on the hosts, and workers never import the script itself.
        if module.__name__ != "__main__" and not {"..", "site-packages", "dist-packages"}.intersection(parts):
            found["/".join(parts)] = loader.get_data(file)
    return found


def _file(shebang, main, modules):
    """Writes the program, unless its file exists. Equal contents give equal digests, so that hosts may already have it."""
    import hashlib
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), main)
        for name, data in sorted(modules.items()):
            archive.writestr(zipfile.ZipInfo(name), data)
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
