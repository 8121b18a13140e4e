"""The mirror in the background of a driver."""

import threading
from collections.abc import Callable

from sia.errors import one_line
from sia.run.folder import RunFolder
from sia.trackers.tracker import Tracker


class MirrorThread:
    """Syncs the runs that `list_runs` gives every few seconds, from `start` to `stop` or `abandon`.

    A daemon thread: a driver that is killed does not wait for a store that does not answer. Whatever the store raises,
    the sweep goes on: the fault is the tracker's `trouble` until a later sync makes up for it.
    """

    def __init__(self, mirror: Tracker, list_runs: Callable[[], list[RunFolder]], every_seconds: float = 3.0) -> None:
        self.mirror = mirror
        self._list_runs = list_runs
        self._every_seconds = every_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def abandon(self) -> None:
        """End the thread without waiting: a later mirror makes up for what this one leaves out."""
        self._stopping.set()

    def stop(self) -> None:
        """End the thread and sync once more, so that the last rows are in."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._sync()

    def _work(self) -> None:
        while not self._stopping.wait(self._every_seconds):
            self._sync()

    def _sync(self) -> None:
        try:
            self.mirror.sync(self._list_runs())
        except Exception as fault:
            # A file server that hiccups while folders are listed, or what no store is known to raise.
            self.mirror.trouble = f"{type(fault).__name__}: {one_line(str(fault))}"
