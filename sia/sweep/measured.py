"""What a run has measured so far, read as sparingly as a list of a thousand runs needs. It loads no torch."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sia.atomic import read_json
from sia.run_folder import RunFolder
from sia.tracking.metrics_log import Row, read_rows
from sia.training.selection import selection_value

TAIL_BYTES = 16_384
STEPS_DONE = re.compile(r"stage (\d+), epoch (\d+) of \d+: (\d+) of (\d+)")


class Measured(NamedTuple):
    """The row of the last epoch, and the best mean of both directions' R@10 so far (a share)."""

    last: Row | None
    best: float | None


def measured(run: RunFolder) -> Measured:
    """Raises UserError for a broken line of metrics.jsonl, among those that are read."""
    try:
        stat = run.metrics.stat()
    except FileNotFoundError:
        return Measured(None, None)
    return _measured(run, stat.st_mtime_ns, stat.st_size, run.finished.exists())


@lru_cache(maxsize=10_000)
def _measured(run: RunFolder, mtime_ns: int, size: int, finished: bool) -> Measured:
    best = (read_json(run.finished) or {}).get("best_value") if finished and size > TAIL_BYTES else None
    last = _last_epoch_in_tail(run.metrics) if best is not None else None
    if last is not None:
        return Measured(last, best)
    rows = [row for row in read_rows(run.metrics) if "stage_epoch" in row]
    return Measured(rows[-1] if rows else None, max((selection_value(row) for row in rows), default=None))


def _last_epoch_in_tail(path: Path) -> Row | None:
    """The last epoch's row among the file's last lines; None where they hold none, or a line that is no row."""
    for line in reversed(tail(path).splitlines()[1:]):  # the first may have lost its beginning
        try:
            row = json.loads(line)
        except ValueError:
            return None
        if "stage_epoch" in row:
            return row
    return None


def tail(path: Path, size: int = TAIL_BYTES) -> str:
    """The last `size` bytes of a file as text; nothing where there is no file, or none that this user may read."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, path.stat().st_size - size))
            return stream.read().decode(errors="replace")
    except (FileNotFoundError, PermissionError):
        return ""


def share_of_epoch(log: Path, epoch: int) -> float | None:
    """How much of `epoch` (of the run, from 1) is trained, by the last line on it in the first rank's log."""
    found = [match for match in STEPS_DONE.finditer(tail(log, 2048)) if int(match[2]) == epoch]
    return int(found[-1][3]) / int(found[-1][4]) if found else None
