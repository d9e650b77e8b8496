"""Modules that are sent to the hosts of a cluster, because they are not installed there."""

import os
import sys


def next_to_the_script():
    """Returns the loaded modules that lie in the script's directory or below: their contents by their names in an archive."""
    roots, found = _roots(), {}
    for name, module in list(sys.modules.items()):
        file, loader = getattr(module, "__file__", None), getattr(module, "__loader__", None)
        # Workers never import the script itself.
        if name == "__main__" or not isinstance(file, str) or not hasattr(loader, "get_data"):
            continue
        file, path = os.path.abspath(file), name.replace(".", "/")
        for path in (f"{path}.py", f"{path}/__init__.py"):
            if any(file == os.path.join(root, path) for root in roots):
                found[path] = loader.get_data(file)
    return found


def _roots():
    """Returns the directories whose modules are the program's own. Installed packages must exist on the hosts."""
    first = sys.path[0] if sys.path and isinstance(sys.path[0], str) else ""
    script = getattr(sys.modules["__main__"], "__file__", None)
    roots = {os.path.abspath(first)}
    if isinstance(script, str):
        roots.add(os.path.dirname(os.path.abspath(script)))
    library = os.path.dirname(os.__file__)
    is_installed = lambda root: root == library or {"site-packages", "dist-packages"}.intersection(root.split(os.sep))
    return {root for root in roots if not is_installed(root)}


def named(modules):
    """Returns all files of these modules and packages: their contents by their names in an archive. See `Pool` for `modules`."""
    found = {}
    for path in _paths(modules):
        folder, name = os.path.split(path)
        files = [path] if os.path.isfile(path) else _files_below(path)
        for file in files:
            if file.endswith((".so", ".pyd")):
                raise ValueError(f"py_modules: {file} is compiled, so {name} must be installed on the hosts")
            with open(file, "rb") as contents:
                found[os.path.relpath(file, folder).replace(os.sep, "/")] = contents.read()
    return found


def folders(modules):
    """Returns the directories that contain these modules and packages."""
    return list(dict.fromkeys(os.path.dirname(path) for path in _paths(modules)))


def times(names):
    """Returns when the files of these modules or their packages changed, as text."""
    from importlib.util import find_spec

    changed = {}
    for name in {name.partition(".")[0] for name in names}:
        try:
            changed[name] = os.stat(find_spec(name).origin).st_mtime_ns
        except (AttributeError, ImportError, OSError, TypeError, ValueError):
            # Importing it will say what is wrong.
            pass
    return repr(sorted(changed.items()))


def _paths(modules):
    if isinstance(modules, (str, os.PathLike)):
        modules = (modules,)
    return [os.path.abspath(path) for module in modules for path in _paths_of(module)]


def _paths_of(module):
    """Returns the file of a module, or the directories of a package."""
    if not isinstance(module, (str, os.PathLike)):
        return _paths_by_name(module.__name__)
    path = os.fspath(module)
    if os.path.isdir(path) or (path.endswith(".py") and os.path.isfile(path)):
        return [path]
    if os.sep in path or path.endswith(".py"):
        raise ValueError(f"py_modules: there is no file or directory {path!r}")
    return _paths_by_name(path)


def _paths_by_name(name):
    from importlib.util import find_spec

    # A submodule is imported from its package.
    name = name.partition(".")[0]
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        spec = None
    places = list(spec.submodule_search_locations or ()) if spec else []
    if places:
        return places
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise ValueError(f"py_modules: {name!r} is no module with a file, and there is no directory of that name")
    return [spec.origin]


def _files_below(folder):
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(files) if not name.endswith(".pyc"))
