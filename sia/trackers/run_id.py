"""The id by which a tracker knows a run as its own, so that one of another folder of the same name is left alone."""

import contextlib
import os
import socket
from pathlib import Path
from uuid import uuid4

from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.run.records import Record


class RunId(Record):
    """run_id.json: a run's id, and the folder that it was given to."""

    folder: str
    inode: int  # the same on all hosts that share the file system, and under all names of the folder
    host: str
    id: str


def id_file(run: RunFolder) -> Path:
    return run.path / "run_id.json"


def run_id(run: RunFolder) -> str:
    """Given once, and kept where the folder is moved; a copy of a folder that is still there gets one of its own.

    Raises UserError where its file is damaged, OSError where it cannot be read or written.
    """
    folder, inode, known = str(run.path.absolute()), run.path.stat().st_ino, RunId.read(id_file(run))
    here = RunId(folder=folder, inode=inode, host=socket.gethostname(), id=uuid4().hex)
    if known is None:
        return _first(run, here)
    if (known.folder, known.inode) != (here.folder, here.inode):
        known = here.model_copy(update={"id": known.id}) if _is_same_run(known, here) else here
        known.write(id_file(run))
    return known.id


def _is_same_run(known: RunId, here: RunId) -> bool:
    """Whether the folder that the id was given to is this one: under another name, moved, or restored; and no copy of
    one that is still there. Of a copy from another host it cannot be told whether that is gone.
    """
    if here.inode != known.inode and here.host != known.host:
        return False
    try:
        former = RunId.read(id_file(RunFolder(Path(known.folder))))
    except NotADirectoryError:
        return True
    return former is None or former.id != known.id or os.path.samefile(known.folder, here.folder)


def _first(run: RunFolder, here: RunId) -> str:
    """Of two who give the run an id at once, one succeeds: a complete file is linked into place."""
    unfinished = run.path / f".run_id.json.{here.id[:8]}.tmp"
    try:
        here.write(unfinished)
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, id_file(run))
    finally:
        unfinished.unlink(missing_ok=True)
    found = RunId.read(id_file(run))
    if found is None:
        raise UserError(f"{id_file(run)}: it was deleted while it was written; mirror the run again")
    return found.id
