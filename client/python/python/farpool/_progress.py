"""Progress bars of calls, drawn by tqdm: in a terminal or in a notebook."""

from __future__ import annotations

import threading

from farpool import _farpool

# Seconds between two looks at the call.
_REDRAW = 0.1


class Bar:
    """The bar of one call, drawn by a thread until the call ends or the bar is closed.

    Use it in `with` around the start of the call, whose options get `call`. At the end of `with` the bar is closed, unless it was
    detached: then it stays until the call ends.
    """

    def __init__(self, label, total):
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise ModuleNotFoundError("progress=True draws a bar with tqdm: pip install tqdm", name="tqdm") from None
        self.call = _farpool.Progress()
        self._closed = threading.Event()
        self._bar = tqdm(desc=label, total=total)
        self._thread = threading.Thread(target=self._draw, name="farpool-progress", daemon=True)
        self._detached = False

    def detach(self):
        """Lets the bar stay until the call ends."""
        self._detached = True

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        if not self._detached:
            self._closed.set()
            self._thread.join()

    def _draw(self):
        while not (self._closed.wait(_REDRAW) or self.call.is_over()):
            self._update()
        self._update()
        self._bar.close()

    def _update(self):
        self._bar.update(self.call.count() - self._bar.n)
