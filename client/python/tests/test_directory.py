"""`Pool(working_dir=...)`."""

import os
import subprocess

import pytest

from farpool import Pool


@pytest.fixture
def project(tmp_path):
    """A directory in a git repository, with a module, a table, a program, and a file that git does not track."""
    root = tmp_path / "repository"
    folder = root / "project"
    (folder / "data").mkdir(parents=True)
    (root / "other.txt").write_text("outside")
    (folder / "far_project.py").write_text("def triple(n): return 3 * n\n")
    (folder / "data" / "t\u00e4ble.txt").write_text("7")
    (folder / "removed.txt").write_text("removed")
    (folder / "link.txt").symlink_to("data/t\u00e4ble.txt")
    program = folder / "double.sh"
    program.write_text("#!/bin/sh\necho $((2 * $1))\n")
    program.chmod(0o755)
    git(root, "init", "-q")
    git(root, "add", ".")
    (folder / "removed.txt").unlink()
    (folder / "untracked.txt").write_text("secret")
    return folder


def git(folder, *arguments):
    subprocess.run(["git", "-C", folder, *arguments], check=True)


def look(number):
    import far_project

    with open("data/t\u00e4ble.txt") as table, open("link.txt") as link:
        values = int(table.read()), int(link.read())
    doubled = int(subprocess.run(["./double.sh", str(number)], capture_output=True, check=True).stdout)
    return far_project.triple(number), *values, doubled, sorted(os.listdir(".")), os.getcwd()


def write(number):
    with open("written.txt", "w") as file:
        file.write(str(number))
    return os.path.abspath("written.txt")


def test_tasks_run_in_the_directory(address, project):
    with Pool(2, address=address, working_dir=project) as pool:
        for number, (triple, table, link, doubled, files, cwd) in enumerate(pool.map(look, range(20))):
            assert (triple, table, link, doubled) == (3 * number, 7, 7, 2 * number)
            assert {"far_project.py", "data", "double.sh", "link.txt"} <= set(files)
            if address == "local":
                assert cwd == str(project)
            else:
                assert not {"untracked.txt", "removed.txt", ".git"}.intersection(files)
                assert cwd != str(project)
        written = pool.apply(write, (1,))
    assert os.path.exists(written) == (address == "local")
    assert not os.path.samefile(os.getcwd(), project)


@pytest.mark.cluster
def test_a_directory_in_which_git_tracks_nothing(cluster, tmp_path):
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(ValueError, match="working_dir: .*only files that git tracks are sent"):
        Pool(1, address=cluster, working_dir=tmp_path)
    git(tmp_path, "init", "-q")
    with pytest.raises(ValueError, match="git tracks no file in .*py_modules"):
        Pool(1, address=cluster, working_dir=str(tmp_path))


def test_what_is_no_directory(address, project):
    for wrong in (project / "missing", project / "double.sh"):
        with pytest.raises(ValueError, match="working_dir: .* is not a directory"):
            Pool(1, address=address, working_dir=wrong)


@pytest.mark.cluster
def test_too_large_a_directory(cluster, project, monkeypatch):
    monkeypatch.setattr("farpool._directory._MOST_BYTES", 20)
    with pytest.raises(ValueError, match="more than"):
        Pool(1, address=cluster, working_dir=project)


def where(_):
    import far_project

    return os.getcwd(), sorted(os.listdir(".")), os.path.dirname(far_project.__file__)


def test_workers_that_cannot_be_forked_share_the_directory(address, project):
    (project / "far_starts.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    git(project, "add", ".")
    with Pool(2, address=address, working_dir=project, preload=["far_starts"]) as pool:
        for cwd, files, home in pool.map(where, range(8), 1):
            assert home == cwd and "working_dir" not in files


def test_relative_folders_stay_importable(tmp_path, project, run_script):
    (tmp_path / "far_helper.py").write_text("def double(n): return 2 * n\n")
    text = """
    import sys
    sys.path[0] = ""
    import far_helper
    from farpool import Pool
    with Pool(1, address="local", working_dir=DIRECTORY) as pool:
        print(pool.map(far_helper.double, [1, 2]))
    """
    assert run_script(text.replace("DIRECTORY", repr(str(project)))) == "[2, 4]\n"
