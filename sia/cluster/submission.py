"""A submission that was killed half-way: whether the cluster took its job all the same. It loads no torch.

Each submission has a token, which stands in the job's script and in the environment of the process that submits.
"""

import os
import socket
import time
from pathlib import Path

from sia.checks import ask
from sia.cluster.end_jobs import processes
from sia.errors import UserError
from sia.run.records import Submission

TOKEN = "SIA_SUBMISSION"
ANSWER_SECONDS = 30.0
POLL_SECONDS = 0.5


def script_mark(token: str) -> str:
    """The line of the job's script by which it is found."""
    return f"# {TOKEN}={token}"


def job_of(left: Submission) -> str | None:
    """The number of the job that came of a submission whose submitting process is dead; None where none did.

    left: the record that it made before it asked the cluster. Raises UserError where the queue does not answer.
    """
    here = left.host == socket.gethostname()
    while here and any(Path(word).name == "sbatch" for words in _marked(left.token).values() for word in words):
        time.sleep(POLL_SECONDS)  # it outlives who called it, and may yet hand the job in
    if left.cluster == "slurm":
        return _in_slurm(left)
    marked = _marked(left.token) if here else {}
    started = [pid for pid, words in marked.items() if any("submitit.local._local" in word for word in words)]
    # The eldest: setup lines make the controller a shell's child, and the job's number is the shell's.
    return str(min(started, key=_began)) if started else None


def _in_slurm(left: Submission) -> str | None:
    answer = ask(["squeue", "--user", str(os.getuid()), "--array", "--noheader", "--format", "%i %o"], ANSWER_SECONDS)
    if not answer.good:
        raise UserError(f"squeue: {' '.join(answer.errors.split()) or 'it says nothing'}")
    place = "" if left.element is None else str(left.element)  # in its array: that of job 17_3 is 3
    for line in answer.output.splitlines():
        job_id, _, script = line.strip().partition(" ")
        if job_id.partition("_")[2] == place and _is_of(Path(script), left):
            return job_id
    return None


def _is_of(script: Path, left: Submission) -> bool:
    try:
        return str(script.parent) == left.folder and script_mark(left.token) in script.read_text()
    except OSError:
        return False


def _marked(token: str) -> dict[int, list[str]]:
    """The living processes of this host that have the token, and their command lines."""
    return dict(processes(f"{TOKEN}={token}"))


def _began(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 1 << 62
