"""End a study or a run on purpose: its driver first, then its jobs, which save a checkpoint. It loads no torch."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sia.cluster.end_jobs import cancel_jobs, has_left
from sia.cluster.packs import end_empty_packs
from sia.errors import UserError
from sia.operate.damage import readable
from sia.progress import waiting
from sia.run.driver import Driver, driver_status
from sia.run.folder import RunFolder, again, runs_of
from sia.run.lock import Holder, living_holder, process_of
from sia.run.queue import QUEUE
from sia.run.records import Job, Stopped
from sia.run.state import State, current_stage, look

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 20.0  # until a driver that was asked to leave is told to
WAIT_SECONDS = 60.0
AGAIN_SECONDS = 5.0
BY = "cancel"


@dataclass(frozen=True)
class Ending:
    """What would be ended: a study's driver, where that is asked for, and the runs that have a job."""

    driver: Driver | None
    runs: list[RunFolder] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # a line on each run that cannot be read, and is left alone

    def __bool__(self) -> bool:
        return self.driver is not None or bool(self.runs)

    @property
    def lines(self) -> list[str]:
        """A line for each, the driver first."""
        lines = [f"driver of {self.driver.study}: {self.driver.who}"] if self.driver else []
        for run in self.runs:
            jobs, writer = jobs_of(run), living_holder(run.lock)
            told = ", ".join(f"{job.cluster} job {job.job_id}" for job in jobs) or "no job yet"
            lines.append(f"{run.study}/{run.name}: {told}" + (f" on {writer.host}" if writer else ""))
        return lines


def ending_of_study(study: str, runs: list[RunFolder]) -> Ending:
    """Raises UserError where another host's process drives the study, which would submit again what is ended here, or
    where nobody knows who drives it.
    """
    driver = driver_status(study)
    if driver.damaged:
        raise UserError(driver.damaged)
    elsewhere = driver.process is not None and driver.process.host != socket.gethostname()
    if elsewhere and driver.job is None:
        raise UserError(f"study {study} is driven by {driver.who}; end it on that host: python jobs/cancel.py {study}")
    whole, damaged = readable(runs)
    return Ending(driver if driver.lives else None, [run for run in whole if _is_within_reach(run)], damaged)


def ending_of_run(run: RunFolder) -> Ending:
    """A run that waits under a living driver counts, too: the driver will leave it out.

    Raises UserError for a run that this host cannot end, or not without its driver.
    """
    writer, job = _holder_and_job(run)
    if writer is not None and job is not None and job.cluster == "debug":
        raise UserError(f"{run.path}: {process_of(writer)} trains it with --cluster debug; press Ctrl-C there")
    waits = not look(run).is_over and driver_status(run.study).lives
    return Ending(None, [run] if waits or _is_within_reach(run) else [])


def end(ending: Ending, say: Callable[[str], object]) -> bool:
    """End all of it and wait; whether nothing is left. Runs are marked as stopped, none as failed.

    Raises UserError for a driver that does not leave, and for a job that this host cannot reach.
    """
    runs = list(ending.runs)
    if ending.driver is not None:
        with waiting(f"ending the driver of {ending.driver.study}"):
            _end_driver(ending.driver)
        say(f"driver of {ending.driver.study}: ended")
        # While it was asked about, and until it left, the driver may have begun others; a job that the cluster takes at
        # this moment finds the marker. All that the driver would have begun is marked: `retry` takes all of it up.
        now, _ = readable(runs_of(ending.driver.study))
        would_go_on = (State.NEW, State.WAITING, State.LOST)
        others = (run for run in now if run not in runs)
        runs += [run for run in others if look(run).state in would_go_on or _is_within_reach(run)]
    for run in runs:
        # First the marker: a driver that lives sees it before it sees that the job has gone.
        Stopped(by=BY, time=time.time()).write(run.stopped)
    with waiting("ending jobs, which save a checkpoint") as tell:
        left, untold = _end_jobs(runs, tell)
    for study in {run.path.parent for run in runs}:
        end_empty_packs(study)
    for run in runs:
        say(f"{run.study}/{run.name}: {_outcome(run, run in left, untold)}")
    return not left


def _outcome(run: RunFolder, is_left: bool, untold: dict[str, str]) -> str:
    if is_left:
        numbers = [job.job_id for job in jobs_of(run) if job.job_id in untold]
        why = "".join(f"; job {number} was not told: {untold[number]}" for number in numbers)
        return f"has not ended within {WAIT_SECONDS:.0f} s{why}; look again with python jobs/status.py {run.study}"
    if run.finished.exists():
        run.stopped.unlink(missing_ok=True)
        return "finished meanwhile"
    return f"ended; to go on: {again(run.study, run.name)}, or python jobs/retry.py {run.study}"


def _end_jobs(runs: list[RunFolder], tell: Callable[[str], object]) -> tuple[list[RunFolder], dict[str, str]]:
    """Tell every job to end, one that a driver submits meanwhile, too; the runs that have not within a minute, and why
    a job was not told.
    """
    tell_at: dict[str, float] = {}
    untold: dict[str, str] = {}
    deadline = time.monotonic() + WAIT_SECONDS
    left = runs
    while left and time.monotonic() < deadline:
        jobs = [job for run in left for job in jobs_of(run)]
        due = [job for job in jobs if time.monotonic() >= tell_at.get(job.job_id, float("-inf"))]
        if due:
            untold = cancel_jobs(due)
        for job in due:
            # A local job that has just begun does not hear it yet; Slurm ends such a job itself.
            again = AGAIN_SECONDS if job.cluster == "local" or job.job_id in untold else WAIT_SECONDS
            tell_at[job.job_id] = time.monotonic() + again
        time.sleep(POLL_SECONDS)
        QUEUE.forget()
        left = [run for run in left if _is_under_way(run)]
        tell(f"{len(left)} of {len(runs)} runs to go")
    return left, untold


def _holder_and_job(run: RunFolder) -> tuple[Holder | None, Job | None]:
    """Who holds the run and lives; the record of its current stage's job."""
    return living_holder(run.lock), Job.read(run.stage(current_stage(run)).job)


def jobs_of(run: RunFolder) -> list[Job]:
    """The current stage's job; the job that holds the run, where that is another."""
    writer, recorded = _holder_and_job(run)
    if recorded is None or writer is None or writer.job_id in ("", recorded.job_id):
        return [recorded] if recorded else []
    host = writer.host if recorded.cluster == "local" else recorded.host
    # It may train another stage, which its name tells.
    name = recorded.name.rpartition("/")[0]
    return [recorded, recorded.model_copy(update={"name": name, "job_id": writer.job_id, "host": host})]


def _is_within_reach(run: RunFolder) -> bool:
    """Whether it is under way. Raises UserError where it is so as another host's local job."""
    writer, job = _holder_and_job(run)
    if writer is not None and job is not None and job.cluster == "local" and writer.host != socket.gethostname():
        raise UserError(f"{run.path}: a local job of {writer.host} trains it; run this command on that host")
    return _is_under_way(run)


def _is_under_way(run: RunFolder) -> bool:
    if living_holder(run.lock) is not None:
        return True
    return not run.finished.exists() and not all(has_left(job) for job in jobs_of(run))


def _end_driver(driver: Driver) -> None:
    """As Ctrl-C would; the signal that nobody can overlook only where that does not help."""
    untold: dict[str, str] = {}
    for insist in (False, True):
        if driver.job is not None:
            # A job that has not begun takes no signal but the end.
            at_once = insist or driver.process is None
            untold = cancel_jobs([driver.job], *([] if at_once else ["--signal=INT"]))
        is_here = driver.process is not None and driver.process.host == socket.gethostname()
        if driver.process is not None and is_here and (insist or driver.job is None):
            with contextlib.suppress(ProcessLookupError):
                os.kill(driver.process.pid, signal.SIGTERM if insist else signal.SIGINT)
        # A lock that its holder could not release is stale within a minute.
        if _left(driver, WAIT_SECONDS if insist else PATIENCE_SECONDS):
            return
    why = "".join(f"; job {number} was not told: {said}" for number, said in untold.items())
    raise UserError(f"study {driver.study}: its driver ({driver.who}) does not end{why}; nothing else was cancelled")


def _left(driver: Driver, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        QUEUE.forget()
        if not driver_status(driver.study).lives:
            return True
        time.sleep(POLL_SECONDS)
    return False
