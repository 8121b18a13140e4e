"""A lock with a heartbeat: one holder, who is known to be alive, on any file system that several hosts share."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from sia.atomic import write_text
from sia.clock import age_seconds

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 45.0
TRIES, TURN_SECONDS = 50, 0.1  # while others take a dead holder's lock over
LARGEST_PID = 2**22


class Holder(BaseModel):
    """Who holds a lock: a process, and the job and the stage that it belongs to."""

    model_config = ConfigDict(frozen=True, strict=True)

    host: str
    pid: int = Field(gt=0, le=LARGEST_PID)
    token: str
    job_id: str = ""
    cluster: str = ""
    stage: PositiveInt | None = None


NOBODY_KNOWS = Holder.model_construct(host="", pid=0, token="")  # the holder of a lock that cannot be read


class LockHeld(Exception):
    """Somebody else holds the lock; `holder` says who."""

    def __init__(self, path: Path, holder: Holder) -> None:
        until = f"until {STALE_SECONDS:.0f} s after its last sign of life"
        super().__init__(f"{path} is held by {process_of(holder)}, {until}")
        self.holder = holder


class HeartbeatLock:
    """Held from `acquire` to `release`, its file's time renewed by a thread meanwhile.

    `who` is written into the lock. A holder of the same non-empty `job_id` of the same `cluster` is a former life of
    this job; a local job's number is a process's, and means the same job on its own host only.
    `on_lost` is called, in the thread, where another has taken the lock over after a stall of this process, or while
    its node was cut off.
    """

    def __init__(self, path: Path, on_lost: Callable[[], None] | None = None, **who: Any) -> None:
        self.path, self.on_lost = path, on_lost
        self.who = Holder(host=socket.gethostname(), pid=os.getpid(), token=uuid4().hex, **who)
        self._released = threading.Event()
        self._server_time = 0.0  # of the file system, which also stamps heartbeats: hosts' clocks may be wrong

    def acquire(self) -> None:
        """Raises LockHeld where another holder lives; a dead one's lock is taken over.

        A former life of this job that may still live is given the time of a heartbeat to notice.
        """
        robbed = False
        for _ in range(TRIES):
            if self._create():
                threading.Thread(target=self._beat, daemon=True).start()
                self._released.wait(HEARTBEAT_SECONDS * 1.5 if robbed else 0)
                return
            found = holder_of(self.path)
            if found is None:
                continue
            robbed = is_alive(self.path, found, self._server_time)
            if robbed and not self._is_former_self(found):
                raise LockHeld(self.path, found)
            self._remove_dead(found)
        raise LockHeld(self.path, holder_of(self.path) or NOBODY_KNOWS)

    def confirm(self) -> None:
        """Before a write that is this holder's alone: `on_lost` is called where another has taken the lock over."""
        if self._is_lost() and self.on_lost is not None:
            self.on_lost()

    def _is_lost(self) -> bool:
        """Whether another holds the lock; one that was damaged is still this holder's."""
        held = holder_of(self.path)
        return held is not None and held.token not in (self.who.token, NOBODY_KNOWS.token)

    def release(self) -> None:
        self._released.set()
        held = holder_of(self.path)
        if held is not None and held.token == self.who.token:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "HeartbeatLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _create(self) -> bool:
        """Link a complete file into place: unlike an exclusive open it is atomic on NFS, and never half-written.

        On the disk before it counts: a machine that loses its power leaves no empty lock.
        """
        unfinished = self.path.with_name(f".{self.path.name}.{self.who.token}")
        try:
            write_text(unfinished, self.who.model_dump_json(exclude_none=True))
            self._server_time = unfinished.stat().st_mtime
            os.link(unfinished, self.path)
            _sync(self.path.parent)
            return True
        except FileExistsError:
            return False
        finally:
            unfinished.unlink(missing_ok=True)

    def _is_former_self(self, found: Holder) -> bool:
        own = self.who
        same_host = own.cluster != "local" or found.host == own.host
        return bool(own.job_id) and (found.job_id, found.cluster) == (own.job_id, own.cluster) and same_host

    def _remove_dead(self, found: Holder) -> None:
        """Delete the dead holder's file, one process at a time: who looked before another took over must look again."""
        turn = self.path.with_name(f".{self.path.name}.turn")
        try:
            turn.mkdir()
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if self._server_time - turn.stat().st_mtime > STALE_SECONDS:  # who had it was killed
                    turn.rmdir()
            time.sleep(TURN_SECONDS)
            return
        try:
            held = holder_of(self.path)
            if held is not None and held.token == found.token:
                self.path.unlink(missing_ok=True)
        finally:
            turn.rmdir()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            try:
                if self._is_lost():
                    if self.on_lost is not None and not self._released.is_set():
                        self.on_lost()
                    return
                os.utime(self.path)
            except OSError:
                # A file server that is away for a moment must not end the training.
                continue


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # of a file system that cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> Holder | None:
    """Who holds the lock; None where there is none, NOBODY_KNOWS where it cannot be read: its holder may live all the
    same, and its file's time tells.
    """
    try:
        return Holder.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return NOBODY_KNOWS


def living_holder(path: Path) -> Holder | None:
    """Who holds the lock and lives."""
    holder = holder_of(path)
    return holder if holder is not None and is_alive(path, holder) else None


def process_of(holder: Holder) -> str:
    """For example `process 4711 of node3`."""
    return f"process {holder.pid} of {holder.host}" if holder.pid else "a process that its lock does not name"


def is_alive(path: Path, holder: Holder, now: float | None = None) -> bool:
    """Whether the lock's holder lives: by its process where that is of this host, else by its heartbeat.

    now: the time on the clock of the lock's file system, where it is known already.
    """
    if holder.host == socket.gethostname() and not _process_exists(holder.pid):
        return False
    try:
        return (age_seconds(path) if now is None else now - path.stat().st_mtime) < STALE_SECONDS
    except FileNotFoundError:
        return False


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # One that has ended, of which its parent has not asked how, is there all the same.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
