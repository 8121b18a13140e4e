"""What a run has measured so far, read as sparingly as a list of a thousand runs needs. It loads no torch."""

from functools import lru_cache
from statistics import median
from typing import NamedTuple

from sia.run.folder import RunFolder
from sia.run.mended import sound_rows
from sia.run.records import Finished
from sia.run.row_files import Row, read_tail
from sia.run.selection import selection_value

TAIL_BYTES = 4_096
LATEST = 3  # epochs


class Measured(NamedTuple):
    """The row of the last epoch, the best mean of both directions' R@10 so far (a share), what is damaged, and how long
    an epoch takes.
    """

    last: Row | None
    best: float | None
    fault: str = ""
    epoch_seconds: float | None = None


def measured(run: RunFolder) -> Measured:
    try:
        stat = run.metrics.stat()
    except FileNotFoundError:
        return Measured(None, None)
    return _measured(run, stat.st_mtime_ns, stat.st_size, run.finished.exists())


@lru_cache(maxsize=10_000)
def _measured(run: RunFolder, mtime_ns: int, size: int, finished: bool) -> Measured:
    outcome = Finished.read(run.finished) if finished and size > TAIL_BYTES else None
    if outcome is not None and (epochs := _epochs_of(read_tail(run.metrics, TAIL_BYTES) or [])):
        return Measured(epochs[-1], outcome.best_value, "", _seconds(epochs))
    rows, fault = sound_rows(run)
    epochs = _epochs_of(rows)
    best = max(map(selection_value, epochs), default=None)
    return Measured(epochs[-1] if epochs else None, best, fault, _seconds(epochs))


def _epochs_of(rows: list[Row]) -> list[Row]:
    return [row for row in rows if "stage_epoch" in row]


def _seconds(epochs: list[Row]) -> float | None:
    """An epoch's, by the middle one of the latest: what comes may be trained on another node."""
    return median(row["train/seconds"] for row in epochs[-LATEST:]) if epochs else None
