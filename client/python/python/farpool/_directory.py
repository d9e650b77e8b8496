"""`Pool(working_dir=...)`: a directory in which tasks run, on every host."""

import os

# The archive has its files below this name.
NAME = "working_dir"
_MOST_BYTES = 256 << 20
# With more, Python before 3.13 does not find the modules of an archive.
_MOST_FILES = 30_000


def path(directory):
    """Checks a directory, and returns its absolute path."""
    absolute = os.path.abspath(os.fspath(directory))
    if not os.path.isdir(absolute):
        raise ValueError(f"working_dir: {absolute} is not a directory")
    return absolute


def tracked(directory):
    """Returns the files of this directory that git tracks: the contents of each, and whether it can be executed, by its name in an
    archive."""
    found, size = {}, 0
    for name in _names(directory):
        file = os.path.join(directory, name)
        if not os.path.lexists(file):
            # It was removed, but not from git.
            continue
        if not os.path.isfile(file):
            raise ValueError(f"working_dir: {file} is not a file: remove it from git, or send a package with py_modules")
        with open(file, "rb") as contents:
            data = contents.read()
        size += len(data)
        if size > _MOST_BYTES:
            raise ValueError(f"working_dir: the files in {directory} have more than 256 MiB: keep data where all hosts can read it")
        found[f"{NAME}/{name}"] = data, os.access(file, os.X_OK)
    return found


def _names(directory):
    import subprocess

    advice = "only files that git tracks are sent: add them, or name modules with py_modules"
    try:
        listed = subprocess.run(["git", "-C", directory, "ls-files", "-z"], capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise ValueError(f"working_dir: git is not installed here, and {advice}") from None
    except subprocess.CalledProcessError as error:
        why = os.fsdecode(error.stderr).strip() or f"git failed with {error.returncode}"
        raise ValueError(f"working_dir: {why}; {advice}") from None
    names = dict.fromkeys(os.fsdecode(name) for name in listed.split(b"\0") if name)
    if len(names) > _MOST_FILES:
        raise ValueError(f"working_dir: git tracks {len(names)} files in {directory}, and at most {_MOST_FILES} are sent")
    for name in names:
        if not name.isprintable():
            raise ValueError(f"working_dir: the name of the file {name!r} in {directory} is not printable UTF-8: rename it")
    if not names:
        raise ValueError(f"working_dir: git tracks no file in {directory}, and {advice}")
    return names


def unpack(archive):
    """Unpacks the files of such an archive into the current directory, and returns the directory where they are."""
    import zipfile

    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            if entry.filename.startswith(f"{NAME}/"):
                file = packed.extract(entry)
                if entry.external_attr >> 16 & 0o100:
                    os.chmod(file, 0o755)
    return os.path.abspath(NAME)
