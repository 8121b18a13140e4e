"""The state of a run, derived from its folder and the queue (README.md of this folder). It loads no torch."""

import socket
import subprocess
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sia.atomic import read_json
from sia.lock import holder_of, is_alive
from sia.run_folder import RunFolder

QUEUE_SECONDS = 10.0
QUEUE_SECONDS_OF_THE_ABSENT = 1.0
CLOCK_SECONDS = 60.0


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
    """A run's state, the stage that it is in or comes next (from 1), and that stage's job."""

    state: State
    stage: int
    job: dict[str, Any] | None = None
    error: str = ""

    @property
    def job_id(self) -> str:
        return str(self.job["job_id"]) if self.job else ""


def look(run: RunFolder) -> RunStatus:
    """Derive the run's state; the first row of the README's table that matches."""
    number = current_stage(run)
    stage = run.stage(number)
    job = read_json(stage.job)
    holder = holder_of(run.lock)
    if run.finished.exists():
        return RunStatus(State.FINISHED, number)
    stopped = read_json(run.stopped)
    if stopped is not None:
        return RunStatus(State.STOPPED, number, job, f"by {stopped['by']}")
    if holder is not None and is_alive(run.lock, holder):
        return RunStatus(State.RUNNING, holder.get("stage", number), holder)
    if job is not None and is_in_queue(job):
        return RunStatus(State.PENDING, number, job)
    failed = read_json(stage.failed)
    if failed is not None:
        return RunStatus(State.FAILED, number, job, failed["error"])
    if job is None:
        return RunStatus(State.WAITING if stage.plan.exists() or number > 1 else State.NEW, number)
    return RunStatus(State.LOST, number, job)


def current_stage(run: RunFolder) -> int:
    """The first stage that is not done; the last one where all are done but the test split is not measured yet."""
    count = len(run.planned_stages())
    for number in range(1, count + 1):
        if not run.stage(number).done.exists():
            return number
    return count


def is_in_queue(job: dict[str, Any]) -> bool:
    """Whether the cluster still knows the job; a cluster that cannot be asked counts as a yes."""
    if job["cluster"] == "slurm":
        return QUEUE.knows(job["job_id"], job.get("time", float("inf")))
    if job["cluster"] == "local" and job["host"] == socket.gethostname():
        return _is_our_process(int(job["job_id"]), job["folder"])
    return False


@dataclass
class Queue:
    """The user's jobs as squeue lists them, asked for once in a while for all runs of this process together."""

    asked: float = float("-inf")
    jobs: frozenset[str] | None = None  # None: the queue did not answer

    def knows(self, job_id: str, submitted: float = float("inf")) -> bool:
        """Whether the job, submitted at that time of the clock, is queued or running; yes if nobody can tell."""
        age = time.monotonic() - self.asked
        # A job that seems to be gone may have come after the question; hosts' clocks differ a little.
        new = submitted > time.time() - age - CLOCK_SECONDS
        absent = self.jobs is not None and job_id not in self.jobs
        if age > QUEUE_SECONDS or (absent and new and age > QUEUE_SECONDS_OF_THE_ABSENT):
            self.jobs, self.asked = _squeue(), time.monotonic()
        return self.jobs is None or job_id in self.jobs

    def forget(self) -> None:
        """Ask anew at the next question: a job was just told to end."""
        self.asked = float("-inf")


QUEUE = Queue()


def _squeue() -> frozenset[str] | None:
    command = ["squeue", "--me", "--array", "--noheader", "--format", "%i"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return None
    return frozenset(answer.stdout.split()) if answer.returncode == 0 else None


def _is_our_process(pid: int, folder: str) -> bool:
    # Process numbers are used again: the command line tells whether it is still this job.
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return folder in command and state != "Z"
