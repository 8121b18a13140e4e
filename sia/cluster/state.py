"""The state of a run, derived from its folder and the queue (README.md of this folder). It loads no torch."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from sia.atomic import read_json
from sia.cluster.queue import is_in_queue, reason
from sia.lock import holder_of, is_alive
from sia.records import Finished
from sia.run_folder import RunFolder, read_job


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

    error: what failed, who stopped it, or why no job was taken; reason: what Slurm makes a pending job wait for.
    """

    state: State
    stage: int
    job: dict[str, Any] | None = None
    error: str = ""
    reason: str = ""

    @property
    def job_id(self) -> str:
        return str(self.job["job_id"]) if self.job else ""


def look(run: RunFolder) -> RunStatus:
    """Derive the run's state; the first row of the README's table that matches."""
    number = current_stage(run)
    stage = run.stage(number)
    job = read_job(stage.job)
    holder = holder_of(run.lock)
    if Finished.read(run.finished) is not None:
        return RunStatus(State.FINISHED, number)
    stopped = read_json(run.stopped)
    if stopped is not None:
        return RunStatus(State.STOPPED, number, job, f"by {stopped['by']}")
    if holder is not None and is_alive(run.lock, holder):
        return RunStatus(State.RUNNING, holder.get("stage", number), holder)
    if job is not None and is_in_queue(job):
        return RunStatus(State.PENDING, number, job, reason=reason(job))
    failed = read_json(stage.failed)
    if failed is not None:
        return RunStatus(State.FAILED, number, job, failed["error"])
    if job is None:
        refusal = (read_json(run.launch) or {}).get("refused", "")
        return RunStatus(State.WAITING if stage.plan.exists() or number > 1 else State.NEW, number, error=refusal)
    return RunStatus(State.LOST, number, job)


def current_stage(run: RunFolder) -> int:
    """The first stage that is not done; the last one where all are done but the test split is not measured yet."""
    count = len(run.planned_stages())
    for number in range(1, count + 1):
        if not run.stage(number).done.exists():
            return number
    return count
