"""The state of a run, derived from its folder and the queue (README.md of this folder). It loads no torch."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from sia.atomic import read_json
from sia.run.folder import RunFolder, read_job
from sia.run.lock import living_holder
from sia.run.queue import is_in_queue, reason
from sia.run.records import Finished

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
    """A run's state, the stage that it is in or comes next (from 1), and that stage's job.

    error: what failed, who stopped it, or why no job was taken. reason: what Slurm makes a pending job wait for, or
    what is to be said of a running one. stopped_by: who marked it as stopped, even if its job has not left yet.
    """

    state: State
    stage: int
    job: dict[str, Any] | None = None
    error: str = ""
    reason: str = ""
    stopped_by: str = ""

    @property
    def job_id(self) -> str:
        return str(self.job.get("job_id", "")) if self.job else ""

    @property
    def is_over(self) -> bool:
        """Whether nobody goes on with it: it is finished, or marked as stopped."""
        return self.state == State.FINISHED or bool(self.stopped_by)


def look(run: RunFolder) -> RunStatus:
    """Derive the run's state; the first row of the README's table that matches."""
    number = current_stage(run)
    job = read_job(run.stage(number).job)
    holder = living_holder(run.lock)
    if holder is not None:
        return _running(run, number, holder, job)
    if Finished.read(run.finished) is not None:
        return RunStatus(State.FINISHED, number)
    by = _stopped_by(run)
    if job is not None and is_in_queue(job):
        return RunStatus(State.PENDING, number, job, reason=BEING_ENDED if by else reason(job), stopped_by=by)
    if by:
        return RunStatus(State.STOPPED, number, job, f"by {by}", stopped_by=by)
    return _without_a_job(run, number, job)


def _running(run: RunFolder, number: int, holder: dict[str, Any], job: dict[str, Any] | None) -> RunStatus:
    by = "" if run.finished.exists() else _stopped_by(run)
    if not holder["pid"]:
        unknown = {**(job or {}), "host": ""}
        return RunStatus(State.RUNNING, number, unknown, reason=BEING_ENDED if by else UNREADABLE, stopped_by=by)
    reason = BEING_ENDED if by else ""
    return RunStatus(State.RUNNING, holder.get("stage", number), holder, reason=reason, stopped_by=by)


def _without_a_job(run: RunFolder, number: int, job: dict[str, Any] | None) -> RunStatus:
    stage = run.stage(number)
    failed = read_json(stage.failed)
    if failed is not None:
        return RunStatus(State.FAILED, number, job, failed["error"])
    if job is None:
        refusal = (read_json(run.launch) or {}).get("refused", "")
        return RunStatus(State.WAITING if stage.plan.exists() or number > 1 else State.NEW, number, error=refusal)
    return RunStatus(State.LOST, number, job)


def _stopped_by(run: RunFolder) -> str:
    """Who marked the run as stopped; empty where nobody did."""
    stopped = read_json(run.stopped)
    return "" if stopped is None else str(stopped["by"])


def current_stage(run: RunFolder) -> int:
    """The first stage that is not done; the last one where all are done but the test split is not measured yet."""
    count = len(run.planned_stages())
    for number in range(1, count + 1):
        if not run.stage(number).done.exists():
            return number
    return count
