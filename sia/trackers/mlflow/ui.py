"""MLflow's pages on this machine: the addresses of studies, then its server, light, until a Ctrl-C."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from sia.errors import UserError
from sia.run.folder import runs_of
from sia.trackers.mlflow.check import UI_PORT
from sia.trackers.mlflow.mirror import MlflowMirror
from sia.trackers.mlflow.store import DEFAULT_ENVIRONMENT, sqlite_path, without_password

HOST = "127.0.0.1"
NEXT_PORTS = 20


def serve(studies: Sequence[str], uri: str | None = None, port: int | None = None) -> int:
    """Print each study's address, then serve until a Ctrl-C; where the store is a server, that has the pages.

    port: the usual one, or the next free one, without it. Raises UserError for one that is taken, and where there is
    nothing to show.
    """
    mirror = MlflowMirror(uri=uri)
    if (database := sqlite_path(mirror.uri)) is not None and not database.is_file():
        raise UserError(f"{database}: not there yet; python jobs/track.py fills it from the run folders")
    chosen = UI_PORT if mirror.is_server else free_port(port)
    num_shown = 0
    for study in studies:
        for number, address in enumerate(mirror.addresses(runs_of(study), chosen)):
            print(f"{study}: {address}" if number == 0 else f"{' ' * len(study)}  {address}")
            num_shown += 1
    if not num_shown:
        told = f"{without_password(mirror.uri)} has none of {', '.join(studies) or 'the runs'}"
        print(f"{told}; python jobs/track.py fills it")
    if mirror.is_server:
        return 0
    print(f"MLflow begins at http://{HOST}:{chosen}, in some seconds; Ctrl-C ends it", flush=True)
    return _until_interrupted(_command(chosen), _environment(mirror.uri))


def _until_interrupted(command: list[str], environment: dict[str, str]) -> int:
    # In a session of its own: of a Ctrl-C it would write a traceback.
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))  # a terminal that is closed ends it, too
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def free_port(asked: int | None = None) -> int:
    """Raises UserError where the one that is asked for is taken, or all that are tried."""
    tried = [asked] if asked is not None else list(range(UI_PORT, UI_PORT + NEXT_PORTS))
    for port in tried:
        if is_free(port):
            return port
    cure = f"leave --port out, or give one above {tried[-1]}"
    raise UserError(f"port {tried[0]}{f' to {tried[-1]}' if len(tried) > 1 else ''}: taken; {cure}")


def is_free(port: int) -> bool:
    with socket.socket() as one:
        # As servers do: a port that was left a moment ago is free.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except (OSError, OverflowError):  # a privileged one, or none at all
            return False
    return True


def _command(port: int) -> list[str]:
    return [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", HOST, "--port", str(port)]


def _environment(uri: str) -> dict[str, str]:
    """The store is no argument: others would see a password in it. Without its job runner MLflow takes 0.5 GB, not
    2.5.
    """
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": uri}
    own |= {"PYTHONWARNINGS": "ignore", "MLFLOW_UVICORN_OPTS": "--log-level warning"}
    return {**DEFAULT_ENVIRONMENT, **os.environ, **own}
