"""The time by a file server's clock, which stamps the files of all hosts: their own clocks may be hours apart."""

import os
import time
from pathlib import Path
from tempfile import TemporaryFile

ASK_AGAIN_SECONDS = 60.0
# Of each file system by its device number: when it was asked, and how far its clock is ahead of the monotonic one.
_ahead: dict[int, tuple[float, float]] = {}


def now(folder: Path) -> float:
    """The time on the clock of the folder's file system, seconds; this host's where nothing may be written there."""
    try:
        device = folder.stat().st_dev
        asked, ahead = _ahead.get(device, (float("-inf"), 0.0))
        if time.monotonic() - asked > ASK_AGAIN_SECONDS:
            with TemporaryFile(dir=folder, prefix=".clock.", suffix=".tmp") as fresh:
                asked, written = time.monotonic(), os.fstat(fresh.fileno()).st_mtime
            ahead = written - asked
            _ahead[device] = asked, ahead
    except OSError:
        return time.time()
    return time.monotonic() + ahead


def age_seconds(path: Path) -> float:
    """How long ago the file was written or touched. Raises OSError where it is not there."""
    return now(path.parent) - path.stat().st_mtime
