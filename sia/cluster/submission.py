"""A submission that was killed half-way: whether the cluster took its job all the same. It loads no torch.

Each submission has a token, which stands in the job's script and in the environment of the process that submits.
"""

import os
import socket
import subprocess
import time
from pathlib import Path

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
    while here and any(_is_sbatch(words) for _, words in _processes(left.token)):
        time.sleep(POLL_SECONDS)  # it outlives who called it, and may yet hand the job in
    if left.cluster == "slurm":
        return _in_slurm(left)
    started = [pid for pid, words in _processes(left.token) if any("submitit.local._local" in word for word in words)]
    # The eldest: setup lines make the controller a shell's child, and the job's number is the shell's.
    return str(min(started, key=_began)) if here and started else None


def _in_slurm(left: Submission) -> str | None:
    command = ["squeue", "--user", str(os.getuid()), "--array", "--noheader", "--format", "%i %o"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"squeue: Socket timed out after {ANSWER_SECONDS:.0f} s") from None
    if answer.returncode:
        raise UserError(" ".join(answer.stderr.split()) or "squeue says nothing")
    for line in answer.stdout.splitlines():
        job_id, _, script = line.strip().partition(" ")
        if _element(job_id) == left.element and _is_of(Path(script), left):
            return job_id
    return None


def _element(job_id: str) -> int | None:
    """The place in its array of a job `17_3`."""
    _, _, place = job_id.partition("_")
    return int(place) if place.isdigit() else None


def _is_of(script: Path, left: Submission) -> bool:
    try:
        return str(script.parent) == left.folder and script_mark(left.token) in script.read_text()
    except OSError:
        return False


def _processes(token: str) -> list[tuple[int, list[str]]]:
    """The living processes of this host that have the token, and their command lines."""
    mark, found = f"{TOKEN}={token}".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (place / "environ").read_bytes().split(b"\0"):
                words = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")
                found.append((int(place.name), words))
        except OSError:
            continue
    return found


def _is_sbatch(words: list[str]) -> bool:
    return any(Path(word).name == "sbatch" for word in words)


def _began(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 1 << 62
