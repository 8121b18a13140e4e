"""Where MLflow's store lies, how it is made and opened, and what it raises when it is out of reach.

MLflow takes seconds to import, so every function here imports it for itself.
"""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock

from sia.checks import NETWORK_FILE_SYSTEMS, file_system_of
from sia.imports import kept

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow's own seven retries wait for minutes; the mirror tries again anyway.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
LOCK_SECONDS = 60.0
FAULTS_OF_ONE_RUN = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")


def repository_root() -> Path:
    """The checkout that holds this package, or the working folder where the package is installed elsewhere."""
    checkout = Path(__file__).resolve().parents[3]
    return checkout if (checkout / "setup.cfg").is_file() else Path.cwd()


def tracking_uri() -> str:
    """$MLFLOW_TRACKING_URI, or a database in the repository root, where a plain `mlflow ui` finds it."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{repository_root() / 'mlflow.db'}"


def without_password(text: str) -> str:
    """A store's URI, or what is said of it, without the user and password of a server: for all that others read."""
    return re.sub(r"(?<=\w://)[^/\s]*@", "", text)


def artifact_location(uri: str, study: str) -> str | None:
    """Where a new experiment keeps its artifacts: beside its database; None leaves the choice to a tracking server."""
    database = sqlite_path(uri)
    folder = database.parent if database else repository_root()
    return None if uri.startswith("http") else (folder / "mlartifacts" / study).as_uri()


def sqlite_path(uri: str) -> Path | None:
    """The database file of a sqlite URI, None for any other store: one in memory, or a URI of sqlite's own."""
    scheme, separator, rest = uri.partition(":///")
    path = rest.partition("?")[0]
    is_file = separator and scheme.startswith("sqlite") and path and not path.startswith(("file:", ":memory:"))
    return Path(path).absolute() if is_file else None


def network_mount_warning(uri: str, mounts: str | None = None) -> str | None:
    """One line if the sqlite file lies on a network file system, where sqlite's locks do not hold.

    `mounts` is the text of /proc/mounts.
    """
    path = sqlite_path(uri)
    if path is None:
        return None
    file_system = file_system_of(path, mounts)
    if file_system not in NETWORK_FILE_SYSTEMS:
        return None
    return (
        f"{path} lies on {file_system}, which can corrupt sqlite; set MLFLOW_TRACKING_URI to a local path or a server"
    )


def connect(uri: str) -> "MlflowClient":
    """A client of a store that has answered once; an sqlite file is made where there is none."""
    _prepare_environment()
    with kept():
        from mlflow import MlflowClient
        from mlflow.store.tracking import sqlalchemy_store  # noqa: F401

    path = sqlite_path(uri)
    with _whole(path) if path else contextlib.nullcontext():
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def _whole(database: Path) -> Iterator[None]:
    """The sqlite file is there and whole; others who ask for it wait until the block is left.

    Of several processes that make or migrate a database at once, all but one would die.
    """
    database = database.resolve()
    database.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{database}.lock")
    with contextlib.suppress(OSError, NotImplementedError):  # a file system without locks, or a folder of another
        lock.acquire(timeout=LOCK_SECONDS)
    try:
        if not database.exists():
            _make(database)
        yield
    finally:
        lock.release()


def _make(database: Path) -> None:
    """In a folder beside its place, to be renamed when it is complete: a maker that is killed leaves none."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for leftover in database.parent.glob(f".{database.name}.*.new"):
        shutil.rmtree(leftover, ignore_errors=True)
    with TemporaryDirectory(prefix=f".{database.name}.", suffix=".new", dir=database.parent) as folder:
        new = Path(folder) / database.name
        SqlAlchemyStore(f"sqlite:///{new}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
        if database.exists():  # another program was faster
            return
        for companion in ("-journal", "-wal", "-shm"):
            # What a deleted database left would be taken for this one's.
            Path(f"{database}{companion}").unlink(missing_ok=True)
        new.rename(database)


def store_faults() -> tuple[type[Exception], ...]:
    """What a store that is locked, full, unreachable or unwilling raises."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, RequestException, OSError


def concerns_one_run(fault: Exception) -> bool:
    """Whether the store refused one run's values and may well take the other runs'."""
    return getattr(fault, "error_code", None) in FAULTS_OF_ONE_RUN


def _prepare_environment() -> None:
    for name, value in DEFAULT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Holds for an MLflow that was imported before this call, too.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
