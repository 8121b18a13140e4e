"""Which jobs are queued or running, and what Slurm waits for before it starts one. It loads no torch."""

import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ASK_AGAIN_SECONDS = 10.0
ASK_AGAIN_SECONDS_OF_THE_ABSENT = 1.0
CLOCK_SECONDS = 60.0
NO_REASON = ("", "None")  # of a job that the scheduler has not looked at yet


def is_in_queue(job: dict[str, Any]) -> bool:
    """Whether the cluster still knows the job; a cluster that cannot be asked counts as a yes."""
    if job["cluster"] == "slurm":
        return QUEUE.knows(job)
    if job["cluster"] == "local" and job["host"] == socket.gethostname():
        return _is_our_process(int(job["job_id"]), job["folder"])
    return False


def reason(job: dict[str, Any]) -> str:
    """What Slurm waits for before it starts the job, in its words, such as Priority; the state of one that it started.

    Empty where it says nothing.
    """
    return (QUEUE.jobs or {}).get(job["job_id"], "") if job["cluster"] == "slurm" and QUEUE.knows(job) else ""


@dataclass
class Queue:
    """Users' jobs as squeue lists them, asked for once in a while for all runs of this process together."""

    asked: float = float("-inf")
    jobs: dict[str, str] | None = None  # each job's reason for waiting, or state; None: the queue did not answer
    users: set[int] = field(default_factory=lambda: {os.getuid()})

    def knows(self, job: dict[str, Any]) -> bool:
        """Whether the job is queued or running; yes if nobody can tell."""
        job_id, age = job["job_id"], time.monotonic() - self.asked
        # A job that seems to be gone may have come after the question; hosts' clocks differ a little.
        new = job.get("time", float("inf")) > time.time() - age - CLOCK_SECONDS
        absent = self.jobs is not None and job_id not in self.jobs
        # A colleague's study, for example.
        stranger = job.get("user", os.getuid()) not in self.users
        if stranger or age > ASK_AGAIN_SECONDS or (absent and new and age > ASK_AGAIN_SECONDS_OF_THE_ABSENT):
            self.users |= {job["user"]} if stranger else set()
            self.jobs, self.asked = _squeue(self.users), time.monotonic()
        return self.jobs is None or job_id in self.jobs

    def forget(self) -> None:
        """Ask anew at the next question: a job was just told to end."""
        self.asked = float("-inf")


QUEUE = Queue()


def _squeue(users: set[int]) -> dict[str, str] | None:
    whose = ",".join(str(user) for user in sorted(users))
    command = ["squeue", "--user", whose, "--array", "--noheader", "--format", "%i|%T|%r"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return None
    if answer.returncode:
        return None
    jobs = ((line.strip() + "||").split("|") for line in answer.stdout.splitlines())
    return {job_id: _reason(state, why) for job_id, state, why, *_ in jobs}


def _reason(state: str, why: str) -> str:
    if state != "PENDING":
        return state
    return "" if why in NO_REASON else why


def _is_our_process(pid: int, folder: str) -> bool:
    # Process numbers are used again: the command line tells whether it is still this job.
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return folder in command and state != "Z"
