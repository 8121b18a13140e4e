"""End jobs that nobody wants any more."""

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sia.checks import ask
from sia.run.queue import QUEUE, is_in_queue
from sia.run.records import Job

SCANCEL_SECONDS = 20.0
MOST_AT_ONCE = 200


def cancel_jobs(jobs: Iterable[Job], *flags: str) -> dict[str, str]:
    """Ask the jobs to save and end, those of Slurm in one call; of each that was not told, by its number, why.

    Left alone are those that have left, that are of another host, and whose number is another job's now.
    flags: of scancel.
    """
    jobs = [job for job in jobs if not job.shared]  # a pack ends its runs by their markers
    untold = {number: why for job in jobs if job.cluster == "local" for number, why in _end_local(job).items()}
    of_slurm = [job for job in jobs if job.cluster == "slurm"]
    if of_slurm:
        QUEUE.forget()  # whose a number is must be known as it is now
        numbers = list(dict.fromkeys(job.job_id for job in of_slurm if is_in_queue(job)))
        for batch in (numbers[first : first + MOST_AT_ONCE] for first in range(0, len(numbers), MOST_AT_ONCE)):
            silent = QUEUE.jobs is None
            untold |= dict.fromkeys(batch, "squeue does not answer") if silent else _scancel(batch, flags)
        QUEUE.forget()
    return untold


def _end_local(job: Job) -> dict[str, str]:
    for pid in local_processes(job):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
        except PermissionError:
            return {job.job_id: f"process {pid} is another user's"}
    return {}


def _scancel(numbers: list[str], flags: Sequence[str]) -> dict[str, str]:
    answer = ask(["scancel", *flags, *numbers], SCANCEL_SECONDS)
    if answer.good:
        return {}
    said = " ".join(answer.errors.split()) or f"scancel ended with status {answer.status}"
    said = said if said.startswith("scancel") else f"scancel: {said}"
    named = [number for number in numbers if re.search(rf"\b{number}\b", said)]
    return dict.fromkeys(named or numbers, said)


def has_left(job: Job) -> bool:
    """Whether nothing of the job is queued or running any more, as far as this host can tell."""
    if job.shared:
        return not is_in_queue(job)
    return not is_in_queue(job) and not (job.cluster == "local" and local_processes(job))


def local_processes(job: Job) -> list[int]:
    """The processes of a local job of this host: its controller, every rank, the shell that ran its setup lines.

    The shell's number is the job's, and it hands no signal on; where it has ended, the others may still be there.
    """
    if job.host != socket.gethostname():
        return []
    of_submitit = {
        pid for pid, words in processes() if job.folder in words and any(word.startswith("submitit.") for word in words)
    }
    return sorted(of_submitit | ({int(job.job_id)} if is_in_queue(job) else set()))


def processes(variable: str = "") -> Iterator[tuple[int, list[str]]]:
    """The number and the command line of each process of this host; `variable`: NAME=VALUE of their environment."""
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if not variable or variable.encode() in (place / "environ").read_bytes().split(b"\0"):
                yield int(place.name), (place / "cmdline").read_bytes().decode(errors="replace").split("\0")
