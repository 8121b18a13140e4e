"""The id by which a run's MLflow runs are known, so that those of another folder of the same name are left alone."""

import os
import socket
from pathlib import Path
from typing import Any
from uuid import uuid4

from sia.atomic import read_json, write_json
from sia.errors import UserError
from sia.run.folder import RunFolder


def run_id(run: RunFolder) -> str:
    """Given once, and kept where the folder is moved; a copy of a folder that is still there gets one of its own.

    Raises UserError where its file is damaged, OSError where it cannot be read or written.
    """
    known, here = _known(run.identity), _place(run)
    if known is None:
        return _first(run, here)
    if any(known.get(key) != here[key] for key in ("folder", "inode")):
        kept = str(known["id"]) if _is_same_run(known, here) else uuid4().hex
        known = {**here, "id": kept}
        write_json(run.identity, known)
    return str(known["id"])


def _place(run: RunFolder) -> dict[str, Any]:
    # The folder's inode is the same on all hosts that share its file system, and under all of its names.
    return {"folder": str(run.path.absolute()), "inode": run.path.stat().st_ino, "host": socket.gethostname()}


def _is_same_run(known: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether the folder that the id was given to is this one: under another name, moved, or restored.

    A folder with another inode was copied; where its origin is of another host, whether that is gone cannot be told.
    """
    may_be = here["inode"] == known.get("inode") or here["host"] == known.get("host")
    return may_be and not _holds_too(Path(str(known.get("folder"))), Path(here["folder"]), known["id"])


def _holds_too(former: Path, present: Path, identity: str) -> bool:
    """Whether the former folder is there, is another one, and has the same id."""
    found = _known(RunFolder(former).identity)
    return found is not None and found["id"] == identity and not os.path.samefile(former, present)


def _known(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except NotADirectoryError:
        return None
    if found is not None and not (isinstance(found, dict) and isinstance(found.get("id"), str)):
        raise UserError(f"{path}: damaged (no id in it); delete it, and the run is mirrored to MLflow anew")
    return found


def _first(run: RunFolder, here: dict[str, Any]) -> str:
    """Of two who give the run an id at once, one succeeds: a complete file is linked into place."""
    unfinished = run.identity.with_name(f".{run.identity.name}.{uuid4().hex[:8]}.tmp")
    try:
        write_json(unfinished, {**here, "id": uuid4().hex})
        os.link(unfinished, run.identity)
    except FileExistsError:
        pass
    finally:
        unfinished.unlink(missing_ok=True)
    found = _known(run.identity)
    if found is None:
        raise UserError(f"{run.identity}: it was deleted while it was written; mirror the run again")
    return str(found["id"])
