"""Who drives a study: a process that holds its lock, a detached driver's job, or nobody. It loads no torch."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sia import clock
from sia.errors import UserError
from sia.run.folder import runs_root
from sia.run.lock import HeartbeatLock, Holder, LockHeld, living_holder, process_of
from sia.run.queue import QUEUE, is_in_queue, reason
from sia.run.records import Job

OWN_JOB = "SIA_DRIVER_JOB"  # tells a detached driver which job it is itself


def driver_of(study: str) -> Job | None:
    """The job record of the study's detached driver, if it has or had one. Raises UserError where it is damaged."""
    return Job.read(runs_root() / study / "driver.json")


@dataclass(frozen=True)
class Driver:
    """The lock's living holder, and the job record of a detached driver that is in the queue; None where there is none.

    A detached driver that has begun is both.
    """

    study: str
    process: Holder | None = None
    job: Job | None = None
    damaged: str = ""  # why nobody knows of a driver's job

    @property
    def lives(self) -> bool:
        """Also where nobody knows."""
        return self.process is not None or self.job is not None or bool(self.damaged)

    @property
    def who(self) -> str:
        """For example `job 17 (running, process 4711 of node3)`; empty where nobody drives."""
        process = process_of(self.process) if self.process else ""
        if self.job is None:
            return process or f"nobody knows whom ({self.damaged})" * bool(self.damaged)
        why = reason(self.job)
        state = f"running, {process}" if process else f"pending, {why}" if why else "pending"
        return f"job {self.job.job_id} ({state})"


@contextmanager
def driving(study: str) -> Iterator[None]:
    """Hold the study: one driver at a time. A driver's job that was requeued takes over from its former life.

    Raises UserError where a process drives the study, or another driver's job is in the queue.
    """
    own = os.environ.get(OWN_JOB)
    who: dict[str, Any] = {"job_id": own, "cluster": "slurm"} if own else {}
    lock = HeartbeatLock(runs_root() / study / "driver.lock", on_lost=_end_at_once, **who)
    # Before the lock is touched, too: two that refuse each other would leave nobody.
    _refuse_job(study, own)
    try:
        lock.acquire()
    except LockHeld as error:
        raise UserError(f"study {study} is already driven ({error}); {_watch(study)}") from None
    try:
        _refuse_job(study, own)
        yield
    finally:
        lock.release()


def _end_at_once() -> None:
    """Another driver took the study over while this one was stalled; its jobs go on."""
    print("another driver has taken the study over; ending", file=sys.stderr, flush=True)
    os._exit(1)


def refuse_if_driven(study: str) -> None:
    """Raises UserError where anybody drives the study."""
    driver = driver_status(study)
    if driver.lives:
        raise UserError(f"study {study} is already driven by {driver.who}; {_watch(study)}")


def another_driver(study: str) -> Driver | None:
    """Who else drives the study, and can be asked about; None where nobody does, or nobody can tell."""
    if OWN_JOB in os.environ:
        return None
    driver = driver_status(study)
    # A queue that does not answer may be that of another machine.
    is_known = driver.process is not None or (driver.job is not None and QUEUE.jobs is not None)
    return driver if is_known else None


def _watch(study: str) -> str:
    return f"wait for its end: python jobs/status.py {study} --watch"


def _refuse_job(study: str, own: str | None) -> None:
    job = driver_of(study)
    # A queue that does not answer counts as a yes elsewhere; here it may be that of another machine.
    if job is not None and job.job_id != own and is_in_queue(job) and QUEUE.jobs is not None:
        who = f"job {job.job_id}, which waits or runs"
        raise UserError(f"study {study} is already driven by {who}; {_watch(study)}")


def asked_at(study: str) -> float:
    """When the driver of this process was asked for: now, or when its job was submitted, however often it restarts.

    By the clock of the files, which markers of other hosts are compared with: what was stopped or failed since then is
    not taken up again by it.
    """
    job, folder = driver_of(study), runs_root() / study
    if job is not None and job.job_id == os.environ.get(OWN_JOB):
        return (folder / "driver.json").stat().st_mtime
    return clock.now(folder)


def driver_status(study: str) -> Driver:
    """Who drives the study now."""
    process = living_holder(runs_root() / study / "driver.lock")
    try:
        job = driver_of(study)
    except UserError as error:
        return Driver(study, process, damaged=str(error))
    return Driver(study, process, job if job is not None and is_in_queue(job) else None)
