"""Whether the runs folder keeps what the state machine of a run asks of it."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sia.checks import NETWORK_FILE_SYSTEMS, Finding, check, existing, file_system_of, ok, problem, warning
from sia.gate import open_to_others
from sia.run.lock import HEARTBEAT_SECONDS, STALE_SECONDS

LOCAL_FILE_SYSTEMS = ("tmpfs", "ramfs", "overlay", "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "squashfs")
LEAST_GB, ENOUGH_GB = 1.0, 20.0
ELSEWHERE = "set SIA_RUNS to a folder on another file system"


@contextlib.contextmanager
def _probe(runs: Path) -> Iterator[Path]:
    """A folder for trials, on the file system of the runs folder, which need not be there yet."""
    with tempfile.TemporaryDirectory(prefix=".sia-doctor-", dir=existing(runs)) as folder:
        yield Path(folder)


@check("runs folder")
def writable(runs: Path) -> Finding:
    try:
        with _probe(runs) as folder:
            (folder / "file").write_text("whole")
    except OSError as error:
        return problem(
            f"{runs} cannot be written: {error.strerror}", "make it yours, or set SIA_RUNS to a folder that is"
        )
    if fault := open_to_others(runs):
        return problem(*fault.split("; ", 1))
    return ok(f"{runs} can be written")


@check("atomic rename")
def atomic_rename(runs: Path) -> Finding:
    """Every file of a run is renamed onto its place; checkpoints are replaced so."""
    with _probe(runs) as folder:
        old, new = folder / "old", folder / "new"
        old.write_text("old")
        new.write_text("new")
        with open(old) as reader:
            os.replace(new, old)
            if reader.read() == "old" and old.read_text() == "new" and not new.exists():
                return ok("a reader sees the old file or the new one")
    return problem("a file that was renamed onto another is not whole", ELSEWHERE)


@check("hard links")
def hard_links(runs: Path) -> Finding:
    """Locks are linked into place."""
    with _probe(runs) as folder:
        (folder / "file").write_text("held")
        try:
            os.link(folder / "file", folder / "lock")
            os.link(folder / "file", folder / "lock")
        except FileExistsError:
            return ok("one of two that take a lock gets it")
        except OSError as error:
            return problem(f"refused ({error.strerror}): no run can be locked", ELSEWHERE)
    return problem("a second link took the place of the first: locks do not hold", ELSEWHERE)


@check("disk space")
def room(runs: Path) -> Finding:
    free_gb = shutil.disk_usage(existing(runs)).free / 1e9
    said = f"{free_gb:.1f} GB free where {runs} lies (a quota may allow less)"
    if free_gb >= ENOUGH_GB:
        return ok(said)
    cure = "free some, or set SIA_RUNS elsewhere: a full-size run keeps two checkpoints a stage, about 1 GB each"
    return (problem if free_gb < LEAST_GB else warning)(said, cure)


@check("shared folder")
def shared(runs: Path, other_hosts: set[str], mounts: str | None = None) -> Finding:
    """Jobs on other nodes must see the runs folder; `mounts` is the text of /proc/mounts."""
    kind = file_system_of(existing(runs).resolve(), mounts) or "an unknown file system"
    if not other_hosts:
        return ok(f"{runs} lies on {kind}; all nodes are this host")
    if kind in NETWORK_FILE_SYSTEMS:
        return ok(f"{runs} lies on {kind}")
    some = ", ".join(sorted(other_hosts)[:3])
    cure = "set SIA_RUNS to a folder that all nodes see, and work from such a one (corpora and code lie there too)"
    if kind in LOCAL_FILE_SYSTEMS:
        return problem(f"{runs} lies on {kind} of this host, which {some} cannot see", cure)
    return warning(f"{runs} lies on {kind}: whether {some} see it is not known", cure)


@check("file clock")
def clock(runs: Path) -> Finding:
    """Heartbeats are judged by the age of a file: its server's time against this host's."""
    with _probe(runs) as folder:
        beat = folder / "beat"
        beat.touch()
        os.utime(beat)
        skew_s = beat.stat().st_mtime - time.time()
    said = f"the file system's clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this host's"
    cure = f"have both synchronised (chrony): a job without a heartbeat for {STALE_SECONDS:g} s counts as dead"
    if abs(skew_s) >= STALE_SECONDS / 2:
        return problem(said, cure)
    return warning(said, cure) if abs(skew_s) >= HEARTBEAT_SECONDS / 2 else ok(said)
