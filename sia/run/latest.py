"""What a run has measured so far, read as sparingly as a list of a thousand runs needs. It loads no torch."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sia.run.folder import RunFolder
from sia.run.metrics import Row, read_tail
from sia.run.records import Finished
from sia.run.rows import sound_rows
from sia.run.selection import selection_value

TAIL_BYTES = 4_096


class Measured(NamedTuple):
    """The row of the last epoch, the best mean of both directions' R@10 so far (a share), and what is damaged."""

    last: Row | None
    best: float | None
    fault: str = ""


def measured(run: RunFolder) -> Measured:
    try:
        stat = run.metrics.stat()
    except FileNotFoundError:
        return Measured(None, None)
    return _measured(run, stat.st_mtime_ns, stat.st_size, run.finished.exists())


@lru_cache(maxsize=10_000)
def _measured(run: RunFolder, mtime_ns: int, size: int, finished: bool) -> Measured:
    outcome = Finished.read(run.finished) if finished and size > TAIL_BYTES else None
    if outcome is not None and (last := _last_epoch_in_tail(run.metrics)) is not None:
        return Measured(last, outcome.best_value)
    rows, fault = sound_rows(run)
    epochs = [row for row in rows if "stage_epoch" in row]
    best = max((selection_value(row) for row in epochs), default=None)
    return Measured(epochs[-1] if epochs else None, best, fault)


def _last_epoch_in_tail(path: Path) -> Row | None:
    """The last epoch's row among the file's last lines; None where they hold none, or one that is damaged."""
    rows = read_tail(path, TAIL_BYTES) or []
    return next((row for row in reversed(rows) if "stage_epoch" in row), None)
