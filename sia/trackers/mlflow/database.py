"""MLflow's sqlite file: whole or absent, whoever is killed while it is made."""

import contextlib
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

LOCK_SECONDS = 60.0
# Another program that makes a database writes to it all the time.
ABANDONED_SECONDS = 5.0
COMPANIONS = ("-journal", "-wal", "-shm")
# A whole database has its first experiment as well, the last row that its making writes.
ROWS_OF_THE_MAKING = ("alembic_version", "workspaces", "sqlite_sequence")


@contextlib.contextmanager
def whole_database(database: Path) -> Iterator[None]:
    """The file is there and whole; others who ask for it wait until the block is left.

    Of several processes that make or migrate a database at once, all but one would die.
    """
    database = database.resolve()
    database.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{database}.lock")
    with contextlib.suppress(OSError, NotImplementedError):  # a file system without locks, or a folder of another
        lock.acquire(timeout=LOCK_SECONDS)
    try:
        if database.exists() and _is_abandoned(database):
            _move_aside(database)
        if not database.exists():
            _make(database)
        yield
    finally:
        lock.release()


def _make(database: Path) -> None:
    """Make it in a folder beside its place, and rename it when it is complete."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for leftover in database.parent.glob(f".{database.name}.*.new"):
        shutil.rmtree(leftover, ignore_errors=True)
    with TemporaryDirectory(prefix=f".{database.name}.", suffix=".new", dir=database.parent) as folder:
        new = Path(folder) / database.name
        store = SqlAlchemyStore(f"sqlite:///{new}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
        store.engine.dispose()
        if database.exists():  # another program was faster
            return
        for companion in COMPANIONS:
            # What a deleted database left would be taken for this one's.
            Path(f"{database}{companion}").unlink(missing_ok=True)
        new.rename(database)


def _is_abandoned(database: Path) -> bool:
    """Whether it was left half-made. One that is being made by another program is waited for."""
    seen, since = None, time.monotonic()
    while _is_half_made(database):
        status = database.stat()
        if (found := (status.st_mtime_ns, status.st_size)) != seen:
            seen, since = found, time.monotonic()
        elif time.monotonic() - since > ABANDONED_SECONDS:
            return True
        time.sleep(0.1)
    return False


def _is_half_made(database: Path) -> bool:
    """Whether its making did not come to an end. A database with anybody's data in it never is."""
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=1.0)) as opened:
            tables = [name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            filled = [name for name in tables if opened.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()]
    except sqlite3.Error:  # locked, not to be read, or no database: MLflow says so
        return False
    return not set(filled) - set(ROWS_OF_THE_MAKING)


def _move_aside(database: Path) -> None:
    aside = f"{database}.half-made-{time.strftime('%Y%m%d-%H%M%S')}"
    # The database last: a journal that stayed alone would be played into the next one.
    for companion in (*COMPANIONS, ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{database}{companion}").rename(f"{aside}{companion}")
    print(f"warning: {database} was left half-made, with nothing in it; it is now {aside}", file=sys.stderr, flush=True)
