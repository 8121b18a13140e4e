"""Which jobs are queued or running, and what Slurm waits for before it starts one. It loads no torch."""

import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sia.checks import ask
from sia.run.records import Job

ASK_AGAIN_SECONDS = 10.0
ASK_AGAIN_SECONDS_OF_THE_ABSENT = 1.0
CLOCK_SECONDS = 60.0
NO_REASON = ("", "None")  # of a job that the scheduler has not looked at yet
STARTS = "starts"  # a job that runs and has not told yet that it trains


class Listed(NamedTuple):
    """A job as squeue lists it: its reason for waiting, or its state, whose it is (a number) and what it is called."""

    reason: str = ""
    user: str = ""
    name: str = ""

    def is_that(self, job: Job) -> bool:
        """Whether it is the job that was written down, and not one that has its number since numbers began anew.

        A cluster may add to the names that it is given; what an old record does not tell is not compared.
        """
        same_user = not self.user or job.user is None or self.user == str(job.user)
        return same_user and (not self.name or job.name in self.name)


@dataclass
class Queue:
    """Users' jobs as squeue lists them, asked for once in a while for all runs of this process together."""

    asked: float = float("-inf")
    jobs: dict[str, Listed] | None = None  # None: the queue did not answer
    users: set[int] = field(default_factory=lambda: {os.getuid()})

    def find(self, job: Job) -> Listed | None:
        """The job, queued or running; one of which nothing is known if nobody can tell."""
        age = time.monotonic() - self.asked
        # A job that seems to be gone may have come after the question. Where hosts' clocks differ by more than a
        # little it is only asked for later.
        new = job.time is None or job.time > time.time() - age - CLOCK_SECONDS
        # A colleague's study, for example.
        stranger = {job.user or os.getuid()} - self.users
        may_have_come = new and age > ASK_AGAIN_SECONDS_OF_THE_ABSENT and self._listed(job) is None
        if stranger or age > ASK_AGAIN_SECONDS or may_have_come:
            self.users |= stranger
            self.jobs, self.asked = _squeue(self.users), time.monotonic()
        return self._listed(job)

    def _listed(self, job: Job) -> Listed | None:
        found = Listed() if self.jobs is None else self.jobs.get(job.job_id)
        return found if found is not None and found.is_that(job) else None

    def forget(self) -> None:
        """Ask anew at the next question: a job was just told to end."""
        self.asked = float("-inf")


QUEUE = Queue()


def is_in_queue(job: Job) -> bool:
    """Whether the cluster still knows the job; a cluster that cannot be asked counts as a yes."""
    if job.left is not None:
        return False
    if job.cluster == "slurm":
        return QUEUE.find(job) is not None
    if job.cluster == "local" and job.host == socket.gethostname():
        return _is_our_process(int(job.job_id), job.folder)
    return False


def reason(job: Job) -> str:
    """What Slurm waits for before it starts the job, in its words, such as Priority; of one that it started, that it
    starts, or a state such as COMPLETING. Empty where it says nothing.
    """
    found = QUEUE.find(job) if job.cluster == "slurm" else None
    return found.reason if found else STARTS * (job.cluster == "local")


def _squeue(users: set[int]) -> dict[str, Listed] | None:
    whose = ",".join(str(user) for user in sorted(users))
    command = ["squeue", "--user", whose, "--array", "--noheader", "--format", "%i|%T|%r|%U|%j"]
    answer = ask(command, timeout_s=30)
    if not answer.good:
        return None
    jobs = ((line.strip() + "||||").split("|", 4) for line in answer.output.splitlines())
    return {job_id: Listed(_reason(state, why), user, name.rstrip("|")) for job_id, state, why, user, name in jobs}


def _reason(state: str, why: str) -> str:
    if state != "PENDING":
        return STARTS if state == "RUNNING" else state
    return "" if why in NO_REASON else why


def _is_our_process(pid: int, folder: str) -> bool:
    # Process numbers are used again: the command line, empty of one that has ended, tells whether it is still this job.
    try:
        return folder in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
