"""The state of a run, derived from its folder and the queue (README.md of this folder). It loads no torch."""

from dataclasses import dataclass, replace
from enum import Enum

from sia.run.folder import RunFolder
from sia.run.lock import Holder, living_holder
from sia.run.queue import is_in_queue, reason
from sia.run.records import Failed, Finished, Job, Launch, Stopped

BEING_ENDED = "being ended"
UNREADABLE = "its lock cannot be read"


class State(str, Enum):
    NEW = "new"
    WAITING = "waiting"
    PENDING = "pending"
    RUNNING = "running"
    LOST = "lost"
    FAILED = "failed"
    STOPPED = "stopped"
    FINISHED = "finished"


@dataclass(frozen=True)
class RunStatus:
    """A run's state, the stage that it is in or comes next (from 1), that stage's job, and the process that trains.

    error: what failed, who stopped it, or why no job was taken. reason: what Slurm makes a pending job wait for, or
    what is to be said of a running one. stopped_by: who marked it as stopped, even if its job has not left yet.
    rank: whose error made it fail.
    """

    state: State
    stage: int
    job: Job | None = None
    holder: Holder | None = None
    error: str = ""
    reason: str = ""
    stopped_by: str = ""
    rank: int = 0

    @property
    def _of(self) -> Holder | Job | None:
        return self.holder if self.holder is not None and self.holder.pid else self.job

    @property
    def job_id(self) -> str:
        return self._of.job_id if self._of else ""

    @property
    def cluster(self) -> str:
        return self._of.cluster if self._of else ""

    @property
    def host(self) -> str:
        """That of the process that trains."""
        return self.holder.host if self.holder else ""

    @property
    def is_over(self) -> bool:
        """Whether nobody goes on with it: it is finished, or marked as stopped."""
        return self.state == State.FINISHED or bool(self.stopped_by)


def look(run: RunFolder) -> RunStatus:
    """Derive the run's state; the first row of the README's table that matches."""
    number = current_stage(run)
    job, holder = Job.read(run.stage(number).job), living_holder(run.lock)
    finished = run.finished.exists() or run.rehearsal.exists()
    by = "" if finished else _stopped_by(run)
    if holder is not None:
        why = BEING_ENDED if by else "" if holder.pid else UNREADABLE
        return RunStatus(State.RUNNING, holder.stage or number, job, holder, reason=why, stopped_by=by)
    if not finished and job is not None and is_in_queue(job):
        return RunStatus(State.PENDING, number, job, reason=BEING_ENDED if by else reason(job), stopped_by=by)
    # Only now: a job that has left the queue meanwhile has written how it ended.
    if (ending := ending_of(run, number)) is not None:
        return ending if ending.state == State.FINISHED else replace(ending, job=job)
    if job is not None and living_holder(run.submission) is None:  # else it is being submitted again
        return RunStatus(State.LOST, number, job)
    asked, planned = Launch.read(run.launch), run.stage(number).plan.exists() or number > 1
    return RunStatus(State.WAITING if planned else State.NEW, number, error=asked.refused if asked else "")


def ending_of(run: RunFolder, number: int | None = None) -> RunStatus | None:
    """How the run ended by its markers alone, in the order of `look`, whatever job it may have; None where it has none.

    number: its current stage, where that is known.
    """
    number = number or current_stage(run)
    if Finished.read(run.finished) is not None or run.rehearsal.exists():
        return RunStatus(State.FINISHED, number)
    if by := _stopped_by(run):
        return RunStatus(State.STOPPED, number, error=f"by {by}", stopped_by=by)
    if (failed := Failed.read(run.stage(number).failed)) is not None:
        return RunStatus(State.FAILED, number, error=failed.error, rank=failed.rank)
    return None


def _stopped_by(run: RunFolder) -> str:
    """Who marked the run as stopped; empty where nobody did."""
    stopped = Stopped.read(run.stopped)
    return stopped.by if stopped is not None else ""


def current_stage(run: RunFolder) -> int:
    """The first stage that is not done; the last one where all are done but the test split is not measured yet."""
    count = len(run.planned_stages())
    for number in range(1, count + 1):
        if not run.stage(number).done.exists():
            return number
    return count
