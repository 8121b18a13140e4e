"""Whether MLflow's store can be trusted and opened."""

import os
import sys

from sia.checks import Finding, ask, check, existing, ok, problem, warning
from sia.trackers.mlflow.store import network_mount_warning, sqlite_path, without_password

UI_PORT = 5000
STORE_SECONDS = 25.0
ONES_OWN = "set MLFLOW_TRACKING_URI=sqlite:////a/folder/of/yours/mlflow.db"
# A process of its own: MLflow takes seconds to import, and a server may not answer.
OPEN = """
import sys
from sia.trackers.mlflow.store import connect
try:
    connect(sys.stdin.read())
except Exception as error:
    sys.exit(" ".join(str(error).split()))
"""


@check("MLflow store")
def place(uri: str, mounts: str | None = None) -> Finding:
    said = network_mount_warning(uri, mounts)
    if said is None:
        return ok(f"{uri} lies on no network mount" if sqlite_path(uri) else without_password(uri))
    return warning(*said.split("; ", 1))


@check("MLflow opens")
def opens(uri: str, timeout_s: float = STORE_SECONDS) -> Finding:
    """An sqlite file that is not there yet is left to the first submit."""
    if (path := sqlite_path(uri)) is not None:
        try:
            exists = path.exists()
            usable = os.access(path, os.R_OK | os.W_OK) if exists else os.access(existing(path.parent), os.W_OK)
        except PermissionError:  # its folder may not be entered
            exists, usable = True, False
        if not usable:
            return problem(f"{path} may not be read and written by you", ONES_OWN)
        if not exists:
            return ok("not there yet: the first submit makes it, python jobs/track.py fills it")
    answer = ask([sys.executable, "-c", OPEN], timeout_s, uri)  # no argument: others would see a password in it
    if answer.good:
        return ok("it opens, its schema is current")
    if "out-of-date database schema" in answer.errors:
        cure = f"copy it, then: mlflow db upgrade '{uri}' (or move it away: python jobs/track.py fills a new one)"
        return problem("its schema is of another version of MLflow", cure)
    cure = (
        "move it away, python jobs/track.py fills a new one" if path else "set MLFLOW_TRACKING_URI, or start the server"
    )
    said = f"it does not open: {without_password(answer.reason)}"
    return problem(said, f"{cure}; training goes on without it meanwhile")
