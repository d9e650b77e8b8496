"""Progress bars."""

import sys
import threading

import pytest


def square(n):
    return n * n


def fail(n):
    raise ValueError(n)


def test_blocking_calls_show_their_progress(pool, capsys):
    assert pool.map(square, range(50), progress=True) == [n * n for n in range(50)]
    shown = capsys.readouterr().err
    assert "square: " in shown and "50/50" in shown
    assert pool.starmap(max, [(1, 2)] * 7, progress=True) == [2] * 7
    assert "7/7" in capsys.readouterr().err
    assert pool.map(square, range(3)) == [0, 1, 4]
    assert capsys.readouterr().err == ""


def test_inputs_of_unknown_length_have_no_total(pool, capsys):
    assert len(pool.map(square, (n for n in range(30)), progress=True)) == 30
    shown = capsys.readouterr().err
    assert "30it" in shown and "30/" not in shown


def test_calls_in_the_background_show_their_progress_until_they_end(pool, capsys):
    assert pool.map_async(square, range(40), progress=True).get(30) == [n * n for n in range(40)]
    assert pool.starmap_async(max, [(1, 2)] * 41, progress=True).get(30) == [2] * 41
    assert list(pool.imap(square, range(42), progress=True)) == [n * n for n in range(42)]
    assert len(list(pool.imap_unordered(square, (n for n in range(43)), progress=True))) == 43
    wait_for_bars()
    shown = capsys.readouterr().err
    for total in ("40/40", "41/41", "42/42", "43it"):
        assert total in shown


def test_a_call_that_fails_closes_its_bar(pool, capsys):
    with pytest.raises(ValueError):
        pool.map(fail, range(9), progress=True)
    with pytest.raises(TypeError):
        pool.map_async(square, range(9), timeout="soon", progress=True)
    assert not bars()
    assert "9/9" in capsys.readouterr().err


def test_without_tqdm_the_error_says_what_to_install(pool, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tqdm"):
        pool.map(square, range(9), progress=True)


def bars():
    return [thread for thread in threading.enumerate() if thread.name == "farpool-progress"]


def wait_for_bars():
    for thread in bars():
        thread.join(30)
        assert not thread.is_alive()
