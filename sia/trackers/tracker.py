"""The seam to trackers: a tracker keeps a copy of a study's run folders where people look at them.

The folders are the truth; whatever a tracker holds can be thrown away and mirrored again. One of your own is a class
with the two abstract methods below, named by the variable SIA_TRACKER as MODULE:CLASS.
"""

import os
import pkgutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sia.checks import Finding
from sia.errors import UserError, one_line
from sia.progress import tracked
from sia.run.folder import RunFolder

CHOICE = "SIA_TRACKER"
DEFAULT = "sia.trackers.mlflow.mirror:MlflowMirror"
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class Ending(NamedTuple):
    """A run's status for its tracker; when it ended (Unix milliseconds), and why, unless it finished."""

    status: Status
    ended_ms: int | None = None
    why: str = ""


class Mirrored(NamedTuple):
    """What a tracker holds of a run: its rows, and its status."""

    num_rows: int
    status: Status


class StoreFault(Exception):
    """The tracker's store is out of reach, for all runs; the message says so in one line."""


class Tracker(ABC):
    """Mirrors the runs of one study.

    `trouble` is the store's fault at the last sync in one line, or None; `left_out` says of runs, by their names, what
    kept them alone out of it. A later sync makes up for all that a faulty one missed.
    """

    name = "tracker"  # as people are told of it

    def __init__(self, study: str = "", uri: str | None = None) -> None:
        """`uri` says where the store lies; None leaves that to the tracker."""
        self.study = study
        self.uri = uri
        self.trouble: str | None = None
        self.left_out: dict[str, str] = {}
        self._known: dict[Path, tuple[Any, Mirrored | None]] = {}
        self._arranged: set[Path] = set()
        self._lock = threading.RLock()

    @abstractmethod
    def mirror(self, run: RunFolder, closing: Ending | None) -> Mirrored | None:
        """Bring the store up to date with one folder; again and again, and twice is the same as once. None of a run
        that it holds nothing of, because it has not begun.

        `closing` is how a run ended that nobody trains any more, where its files do not tell. Raises StoreFault where
        no other run need be tried; any other exception leaves out this run alone.
        """

    @abstractmethod
    def how_to_open(self, runs: list[RunFolder]) -> list[str]:
        """The lines that tell a person how to see what is held of these runs; none where nothing is."""

    def page_of(self, run: RunFolder) -> str | None:
        """The address of what is held of this run, if it has any."""
        return None

    def arrange(self, runs: list[RunFolder]) -> None:
        """Show these runs beside each other by what they differ in; before any is mirrored. May raise StoreFault."""
        return

    def keep_report(self, folder: Path) -> None:
        """Keep the files of the study's report. May raise StoreFault."""
        return

    def end_gone(self) -> int:
        """Close what is held, as open, of the study's runs whose folders are gone; how many. May raise StoreFault."""
        return 0

    def log_export(self, run: RunFolder, export: Path, columns: Sequence[str]) -> list[str]:
        """Keep an exported pair that embeds these columns (speech, image) beside its run; lines on how to use it.

        Raises UserError where the store is out of reach.
        """
        return []

    def warning(self) -> str | None:
        """What is to be said before a sweep begins, in one line."""
        return None

    def environment(self) -> dict[str, str]:
        """The variables by which a job that runs elsewhere finds the same store."""
        return {}

    def findings(self) -> list[Finding]:
        """What `jobs/doctor.py` says of the store."""
        return []

    def sync(
        self, runs: list[RunFolder], ended: Mapping[Path, Ending] | None = None, label: str = ""
    ) -> dict[Path, Mirrored | None]:
        """Mirror the folders that changed since the last sync; never raises for the store's sake.

        `ended` says of runs that nobody trains any more, by their folders, how to close those whose files do not tell.
        A run that is not in it is open again. `label`: how far it has come is shown beside it. Returns what is held of
        each run, None of one that has not begun; those that are not in it could not be mirrored.
        """
        with self._lock:
            self.trouble, self.left_out = None, {}
            done: dict[Path, Mirrored | None] = {}
            try:
                if (now := {run.path for run in runs}) - self._arranged:
                    self.arrange(runs)
                    self._arranged = now
                for run in tracked(runs, label, len(runs), quiet=not label):
                    try:
                        done[run.path] = self._synced(run, (ended or {}).get(run.path))
                    except StoreFault:
                        raise
                    except Exception as fault:  # whatever somebody's editor or file server made of it
                        self.left_out[run.name] = _said(run, fault)
            except (StoreFault, UserError) as fault:
                self.trouble = str(fault)
            return done

    def close_gone(self) -> int:
        """As end_gone, but what the store raises becomes its trouble."""
        with self._lock:
            try:
                return self.end_gone()
            except (StoreFault, UserError) as fault:
                self.trouble = str(fault)
                return 0

    def told(self, cure: str) -> list[str]:
        """A line on each fault of the last sync; `cure` says what mirrors the rest once the store answers."""
        lines = [f"{self.name} is without {run}: {fault}" for run, fault in self.left_out.items()]
        return lines if self.trouble is None else [*lines, f"{self.name}: {self.trouble}; nothing is lost, {cure}"]

    def _synced(self, run: RunFolder, closing: Ending | None) -> Mirrored | None:
        state = _state_of(run), closing
        known, held = self._known.get(run.path, (None, None))
        if state != known:
            held = self.mirror(run, closing)
            self._known[run.path] = state, held
        return held


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

    def stop(self, ended: Mapping[Path, Ending] | None = None) -> None:
        """End the thread and sync once more, so that the last rows are in; `ended` as in Tracker.sync."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._sync(ended)

    def _work(self) -> None:
        while not self._stopping.wait(self._every_seconds):
            self._sync()

    def _sync(self, ended: Mapping[Path, Ending] | None = None) -> None:
        try:
            self.mirror.sync(self._list_runs(), ended)
        except Exception as fault:
            # A file server that hiccups while folders are listed, or what no store is known to raise.
            self.mirror.trouble = f"{type(fault).__name__}: {one_line(str(fault))}"


def tracker_of(study: str = "", uri: str | None = None) -> Tracker:
    """The tracker that SIA_TRACKER names, MLflow without it. Raises UserError for a name that is none."""
    name = os.environ.get(CHOICE) or DEFAULT
    try:
        tracker: Tracker = pkgutil.resolve_name(name)(study, uri)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"{CHOICE}={name}: {one_line(str(error))}; name a tracker as MODULE:CLASS") from None
    return tracker


def tracker_environment(study: str) -> dict[str, str]:
    """The variables by which a job that runs elsewhere has the same tracker and finds the same store."""
    chosen = {CHOICE: os.environ[CHOICE]} if os.environ.get(CHOICE) else {}
    return {**chosen, **tracker_of(study).environment()}


def _state_of(run: RunFolder) -> list[Any]:
    # Most runs of a large study are finished or waiting: a few stat calls tell that there is nothing to do.
    own = [run.config, run.corpus, run.metrics, run.finished, run.stopped, run.provenance]
    stages = sorted(run.path.glob("stages/*/*.json"))
    state = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in [*own, *stages] if path.is_file()]
    minute = run.steps.stat().st_mtime // 60 if run.steps.is_file() else 0  # its rows alone are mirrored once a minute
    return [*state, minute]


def _said(run: RunFolder, fault: Exception) -> str:
    if isinstance(fault, UserError):
        return one_line(str(fault))
    if isinstance(fault, OSError):
        return f"{fault.filename or run.path}: {fault.strerror or fault}; make it readable and writable"
    return f"{run.path}: {type(fault).__name__}: {one_line(str(fault))}; restore what was changed in it"
